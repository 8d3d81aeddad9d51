//! One file a command. Each asks the API and prints; none decides what the server decides.

mod apps;
mod auth;
mod certs;
mod checks;
pub(crate) mod config;
mod console;
mod deploy;
mod deployments;
mod dev;
mod dial;
mod doctor;
mod explain;
mod flyctl_env;
mod follow;
mod formation;
mod image;
mod launch;
mod logs;
mod machine;
mod migrate;
mod orgs;
mod plan;
mod proxy;
mod regions;
mod releases;
mod scale;
mod secrets;
mod server;
mod services;
mod session;
mod slots;
mod ssh;
mod status;
mod target;
mod tokens;
mod volumes;

use anyhow::{Context as _, Result};
use clap::CommandFactory;

use crate::args::{Cli, Command, PlatformCommand, TokensCommand};
use crate::context::{self, Context};
use crate::error::Exit;
use crate::output;

/// Carries out a command line.
pub(crate) fn run(cli: Cli) -> Result<Exit> {
    context::take_token(cli.access_token);
    match cli.command {
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "hangar", &mut script);
            output::data(String::from_utf8_lossy(&script).trim_end())?;
            Ok(Exit::Done)
        }
        Command::Doctor(args) => doctor::run(&args),
        Command::Version => {
            output::data(&format!("hangar {}", env!("CARGO_PKG_VERSION")))?;
            Ok(Exit::Done)
        }
        Command::FlyctlEnv(args) => flyctl_env::run(&args),
        Command::Server(args) => server::run(&args),
        Command::Dev(args) => dev::run(&args),
        Command::Config(command) => block_on(config::run(command)),
        Command::Deploy(args) => block_on(deploy::run(*args)),
        Command::Launch(args) => block_on(launch::run(args)),
        Command::Migrate(command) => block_on(migrate::run(command)),
        Command::Plan(args) => block_on(plan::run(*args)),
        Command::Auth(command) => block_on(auth::run(command)),
        Command::Tokens(TokensCommand::Attenuate(args)) => tokens::attenuate(&args),
        Command::DialStdio => block_on(dial::run()),
        command => block_on(client(command)),
    }
}

async fn client(command: Command) -> Result<Exit> {
    let context = Context::find()?;
    match command {
        Command::Status(args) => status::run(&context, &args).await,
        Command::Explain(args) => explain::run(&context, &args).await,
        Command::Apps(command) => apps::run(&context, command).await,
        Command::Tokens(command) => tokens::run(&context, command).await,
        Command::Orgs(command) => orgs::run(&context, command).await,
        Command::Scale(command) => scale::run(&context, command).await,
        Command::Regions(command) => regions::run(&context, command).await,
        Command::Formation(command) => formation::run(&context, command).await,
        Command::Machine(command) => machine::run(&context, command).await,
        Command::Console(args) => console::run(&context, *args).await,
        Command::Ssh(command) => ssh::run(&context, command).await,
        Command::Proxy(args) => proxy::run(&context, args).await,
        Command::Deployments(command) => deployments::run(&context, command).await,
        Command::Releases(args) => releases::run(&context, args).await,
        Command::Logs(args) => logs::run(&context, &args).await,
        Command::Checks(command) => checks::run(&context, command).await,
        Command::Services(command) => services::run(&context, command).await,
        Command::Certs(command) => certs::run(&context, command).await,
        Command::Secrets(command) => secrets::run(&context, command).await,
        Command::Volumes(command) => volumes::run(&context, command).await,
        Command::Image(command) => image::run(&context, command).await,
        Command::Slots(command) => slots::run(&context, command).await,
        Command::Platform(PlatformCommand::Regions(args)) => {
            regions_offered(&context, args.json).await
        }
        Command::Platform(PlatformCommand::VmSizes(args)) => scale::sizes(args.json),
        // Taken care of above, without a server.
        Command::Completions { .. }
        | Command::Doctor(_)
        | Command::FlyctlEnv(_)
        | Command::Version
        | Command::Auth(_)
        | Command::DialStdio
        | Command::Server(_)
        | Command::Dev(_)
        | Command::Config(_)
        | Command::Launch(_)
        | Command::Migrate(_)
        | Command::Plan(_)
        | Command::Deploy(_) => Ok(Exit::Done),
    }
}

/// Runs a client's future: one thread is enough.
fn block_on(future: impl Future<Output = Result<Exit>>) -> Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(future)
}

async fn regions_offered(context: &Context, json: bool) -> Result<Exit> {
    let regions = context.client.regions().await?;
    if json {
        output::json(&regions)?;
    } else {
        let rows: Vec<Vec<String>> = regions
            .iter()
            .map(|r| vec![r.name.clone(), r.code.to_string()])
            .collect();
        output::table(None, &["Name", "Code"], &rows)?;
    }
    Ok(Exit::Done)
}
