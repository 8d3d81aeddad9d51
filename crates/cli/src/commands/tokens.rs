//! `hangar tokens`.

use std::path::Path;

use anyhow::{Context as _, Result};
use hangar_api::Timestamp;
use hangar_api::env::Env;
use hangar_api::id::OrgSlug;
use hangar_api::macaroon::Macaroon;
use hangar_api::rights::{Action, AllowedCommand, Caveat, caveats_from_json};
use hangar_api::token::{CreateToken, TokenInfo, TokenKind};
use jiff::SignedDuration;

use crate::args::{
    AppArgs, AttenuateArgs, CreateTokenCommand, ExecTokenArgs, NewTokenArgs, TokensCommand,
};
use crate::context::{self, Context, named_app};
use crate::error::Exit;
use crate::output::{self, rfc3339};

pub(super) async fn run(context: &Context, command: TokensCommand) -> Result<Exit> {
    match command {
        TokensCommand::Create(command) => create(context, command).await,
        TokensCommand::Deploy { app, new } => {
            for_app(
                context,
                &app,
                TokenKind::Deploy,
                new,
                CreateToken::default(),
            )
            .await
        }
        TokensCommand::List {
            app,
            org,
            scope,
            form,
        } => list(context, &app, org, scope.as_deref(), form.json).await,
        TokensCommand::Revoke { ids } => revoke(context, &ids).await,
        // Needs no server, and is taken care of without one.
        TokensCommand::Attenuate(args) => attenuate(&args),
    }
}

async fn create(context: &Context, command: CreateTokenCommand) -> Result<Exit> {
    use CreateTokenCommand::{Deploy, MachineExec, Org, Readonly, Ssh};
    let plain = CreateToken::default();
    match command {
        Org { org, new } => for_org(context, org.org, TokenKind::Org, new).await,
        Deploy { app, new } => for_app(context, &app, TokenKind::Deploy, new, plain).await,
        Readonly { app, org, new } if org.org.is_none() && app.app.is_some() => {
            for_app(context, &app, TokenKind::Readonly, new, plain).await
        }
        Readonly { org, new, .. } => for_org(context, org.org, TokenKind::Readonly, new).await,
        Ssh { exec, new } => for_exec(context, exec, Vec::new(), new).await,
        MachineExec {
            words,
            commands,
            prefixes,
            exec,
            new,
        } => {
            let mut allowed = Vec::new();
            if !words.is_empty() {
                allowed.push(AllowedCommand {
                    args: words,
                    exact: true,
                });
            }
            for (texts, exact) in [(commands, true), (prefixes, false)] {
                for text in texts {
                    let args = split(&text)?;
                    allowed.push(AllowedCommand { args, exact });
                }
            }
            for_exec(context, exec, allowed, new).await
        }
    }
}

fn split(text: &str) -> Result<Vec<String>> {
    shlex::split(text).ok_or_else(|| {
        Exit::Usage.with(format!(
            "{text:?} is no command: a quote in it does not end"
        ))
    })
}

async fn for_org(
    context: &Context,
    org: Option<OrgSlug>,
    kind: TokenKind,
    new: NewTokenArgs,
) -> Result<Exit> {
    let wanted = wanted(kind, &new, CreateToken::default());
    let org = org.unwrap_or_default();
    let made = context.client.create_org_token(&org, &wanted).await?;
    print(&made.token, new.form.json)
}

async fn for_app(
    context: &Context,
    app: &AppArgs,
    kind: TokenKind,
    new: NewTokenArgs,
    rest: CreateToken,
) -> Result<Exit> {
    let app = context.app(app).await?.name;
    let wanted = wanted(kind, &new, rest);
    let made = context.client.create_app_token(&app, &wanted).await?;
    print(&made.token, new.form.json)
}

async fn for_exec(
    context: &Context,
    exec: ExecTokenArgs,
    commands: Vec<AllowedCommand>,
    new: NewTokenArgs,
) -> Result<Exit> {
    let rest = CreateToken {
        group: exec.group,
        commands: (!commands.is_empty()).then_some(commands),
        ..CreateToken::default()
    };
    for_app(context, &exec.app, TokenKind::Exec, new, rest).await
}

fn wanted(kind: TokenKind, new: &NewTokenArgs, rest: CreateToken) -> CreateToken {
    CreateToken {
        kind: Some(kind),
        name: new.name.clone(),
        expiry: new.expiry,
        opaque: new.opaque,
        ..rest
    }
}

/// Prints a token: the only time that it is seen.
fn print(token: &str, json: bool) -> Result<Exit> {
    if json {
        output::json(&serde_json::json!({"token": token}))?;
    } else {
        output::data(token)?;
    }
    Ok(Exit::Done)
}

/// Lists the tokens of the app that is named, unless those of an organisation are asked for.
async fn list(
    context: &Context,
    app: &AppArgs,
    org: Option<OrgSlug>,
    scope: Option<&str>,
    json: bool,
) -> Result<Exit> {
    let named = match (&org, scope) {
        (Some(_), _) | (None, Some("org")) => None,
        (None, Some(_)) => Some(context.app(app).await?),
        (None, None) => named_app(app)?,
    };
    let (title, tokens) = match named {
        Some(app) => {
            let tokens = context.client.app_tokens(&app.name).await?.tokens;
            (format!("Tokens for app {:?}:", app.name.as_str()), tokens)
        }
        None => {
            let org = org.unwrap_or_default();
            let tokens = context.client.org_tokens(&org).await?.tokens;
            (
                format!("Tokens for organization {:?}:", org.as_str()),
                tokens,
            )
        }
    };
    if json {
        output::json(&tokens)?;
        return Ok(Exit::Done);
    }
    let rows: Vec<Vec<String>> = tokens.iter().map(row).collect();
    let headers = [
        "ID",
        "Name",
        "Kind",
        "App",
        "Created By",
        "Expires At",
        "Revoked At",
    ];
    output::table(Some(&title), &headers, &rows)?;
    Ok(Exit::Done)
}

fn row(token: &TokenInfo) -> Vec<String> {
    let kind = match token.kind {
        TokenKind::Admin => "admin",
        TokenKind::Org => "org",
        TokenKind::Deploy => "deploy",
        TokenKind::Readonly => "readonly",
        TokenKind::Exec => "exec",
    };
    let time = |time: Option<Timestamp>| time.map_or_else(String::new, rfc3339);
    vec![
        token.id.clone(),
        token.name.clone(),
        kind.to_owned(),
        token
            .app
            .as_ref()
            .map_or_else(String::new, ToString::to_string),
        token.user.clone(),
        time(token.expires_at),
        time(token.revoked_at),
    ]
}

async fn revoke(context: &Context, ids: &[String]) -> Result<Exit> {
    for id in ids {
        context.client.revoke_token(id).await?;
        output::data(&format!("Revoked {id}"))?;
    }
    Ok(Exit::Done)
}

/// Adds caveats to each macaroon of the token that is given; the server is not asked.
pub(super) fn attenuate(args: &AttenuateArgs) -> Result<Exit> {
    let given = match context::given_token() {
        Some(token) => token,
        None => context::choose()?.token,
    };
    let caveats = caveats(args)?;
    let mut limited = Vec::new();
    for text in given
        .split(',')
        .map(str::trim)
        .filter(|text| !text.is_empty())
    {
        let mut token = Macaroon::parse(text).map_err(|error| {
            Exit::Usage.with(format!(
                "this token cannot be limited: {error} (the admin's and opaque ones cannot; make one with hangar tokens create)"
            ))
        })?;
        for caveat in &caveats {
            token
                .add(caveat)
                .map_err(|error| Exit::Usage.with(error.to_string()))?;
        }
        limited.push(token.text());
    }
    if limited.is_empty() {
        return Err(Exit::Usage.with("there is no token: give one with -t or HANGAR_ACCESS_TOKEN"));
    }
    output::data(&limited.join(","))?;
    Ok(Exit::Done)
}

fn caveats(args: &AttenuateArgs) -> Result<Vec<Caveat>> {
    let mut caveats = Vec::new();
    if let Some(path) = &args.file {
        let text = if path == Path::new("-") {
            std::io::read_to_string(std::io::stdin()).context("read standard input")?
        } else {
            std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?
        };
        caveats = caveats_from_json(&text).map_err(|error| {
            Exit::Usage.with(format!("{}: no caveats as JSON: {error}", path.display()))
        })?;
    }
    if args.read_only {
        caveats.push(Caveat::Action(Action::READ));
    }
    if let Some(expiry) = args.expiry {
        let now = Env::real().now();
        let end = now
            .checked_add(SignedDuration::from_nanos(expiry.nanos()))
            .map_err(|error| Exit::Usage.with(format!("--expiry: {error}")))?;
        caveats.push(Caveat::ValidityWindow {
            not_before: now.as_second(),
            not_after: end.as_second(),
        });
    }
    Ok(caveats)
}
