//! `hangar server`, and what `dev` shares with it.

use anyhow::{Context as _, Result};
use hangar_api::env::Env;
use hangar_node::{Node, NodeConfig, TlsFiles};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::args::{LogFormat, NodeArgs, ServerArgs};
use crate::context::{self, ServerFile};
use crate::error::Exit;
use crate::output;

pub(super) fn run(args: &ServerArgs) -> Result<Exit> {
    start_logging(&args.node, tracing::Level::INFO);
    runtime()?.block_on(async {
        let mut stop = StopSignal::new()?;
        let node = start(&args.node).await?;
        let edge = node.edge();
        output::say(&format!("Hangar's API is at {}, its token in {}", node.url(), node.token_file().display()));
        if let Some((fingerprint, path)) = node.certificate() {
            output::say(&format!("It listens on {} with the certificate {}, whose fingerprint is\n{fingerprint}", node.address(), path.display()));
        }
        for (external, reason) in &edge.refused {
            output::say(&format!("Port {external} is not served: {reason}"));
        }
        tokio::select! {
            biased;
            () = stop.wait() => tracing::info!("stopping: Machines go on running"),
            role = node.failed() => {
                node.shutdown().await;
                return Err(Exit::Failed.with(format!("the {role} role ended by itself; its last log lines say why")));
            }
        }
        node.shutdown().await;
        Ok(Exit::Done)
    })
}

/// Raises the limit of open files as far as it may be raised: the lower one is for programs that
/// use `select`, and each connection of the proxy is two files. Machines have a limit of their own.
fn raise_descriptor_limit() {
    let now = getrlimit(Resource::Nofile);
    let highest = Rlimit {
        current: now.maximum,
        maximum: now.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, highest) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// Starts every role in this process and says where to find it.
pub(super) async fn start(args: &NodeArgs) -> Result<Node> {
    raise_descriptor_limit();
    let config = NodeConfig {
        data_dir: args.data_dir.clone(),
        listen: args.listen,
        tls: match (&args.tls_cert, &args.tls_key) {
            (Some(certificate), Some(key)) => Some(TlsFiles {
                certificate: certificate.clone(),
                key: key.clone(),
            }),
            _ => None,
        },
        edge: args.edge,
        domain: args.domain.to_lowercase(),
        slots: args.hosts.clone(),
        dns_upstreams: args.dns_upstreams.clone(),
        egress: args.egress.clone(),
        insecure_registries: args.insecure_registries.clone(),
        registry_mirrors: args.registry_mirrors.clone(),
        registry_auth: args.registry_auth.clone(),
        registry_hosts: args.registry_hosts.clone(),
        autostop_every: args.autostop_interval.to_std(),
        rate_limit: args.rate_limit,
    };
    let node = Node::start(config, Env::real())
        .await
        .context("start the server")?;
    let file = ServerFile {
        url: node.url(),
        token_file: node.token_file(),
        fingerprint: node.certificate().map(|(fingerprint, _)| *fingerprint),
    };
    context::announce(&file, &args.data_dir)?;
    Ok(node)
}

pub(super) fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the runtime")
}

/// Logs to standard error, from the level that was asked for, else from this one on: standard
/// output stays data.
pub(super) fn start_logging(args: &NodeArgs, usual: tracing::Level) {
    let level = LevelFilter::from_level(args.log_level.unwrap_or(usual));
    // Libraries speak up only when something is wrong with them.
    let libraries = level.min(LevelFilter::WARN);
    let filter = Targets::new()
        .with_default(libraries)
        .with_target("hangar", level);
    let filter = [
        "api", "server", "graphql", "host", "proxy", "dns", "store", "image", "node", "deploy",
        "cli",
    ]
    .iter()
    .fold(filter, |f, role| {
        f.with_target(format!("hangar_{role}"), level)
    });
    let registry = tracing_subscriber::registry().with(filter);
    match args.log_format {
        LogFormat::Text => registry
            .with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr))
            .init(),
        LogFormat::Json => registry
            .with(
                tracing_subscriber::fmt::layer()
                    .json()
                    .with_writer(std::io::stderr),
            )
            .init(),
    }
}

/// SIGTERM and SIGINT: both ask to stop.
pub(super) struct StopSignal {
    term: tokio::signal::unix::Signal,
    int: tokio::signal::unix::Signal,
}

// === impl StopSignal ===

impl StopSignal {
    pub(super) fn new() -> Result<Self> {
        let listen = |kind| signal(kind).context("listen for signals");
        Ok(Self {
            term: listen(SignalKind::terminate())?,
            int: listen(SignalKind::interrupt())?,
        })
    }

    pub(super) async fn wait(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}
