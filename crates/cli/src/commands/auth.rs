//! `hangar auth`: which server, and as whom.

mod docker;

use anyhow::{Context as _, Result};
use hangar_api::fingerprint::Fingerprint;
use hangar_client::{Client, ClientError};

use crate::args::{AuthCommand, LoginArgs};
use crate::context::{self, Context, Login};
use crate::error::Exit;
use crate::{output, terminal};

pub(super) async fn run(command: AuthCommand) -> Result<Exit> {
    match command {
        AuthCommand::Login(args) => login(args).await,
        AuthCommand::Logout => logout(),
        AuthCommand::Whoami(form) => whoami(form.json).await,
        AuthCommand::Token(form) => token(form.json),
        AuthCommand::Docker => docker::run(&context::choose()?),
    }
}

async fn login(args: LoginArgs) -> Result<Exit> {
    let url = match args.url {
        Some(url) => url,
        None => context::choose()?.url,
    };
    let usage = |error: ClientError| Exit::Usage.with(error.to_string());
    let unknown = Client::new(&url, "").map_err(usage)?;
    if url.starts_with("http://") && !is_loopback(&url) {
        return Err(Exit::Usage.with(format!(
            "{url} would be told the token in the clear: use https://, or ssh://USER@HOST"
        )));
    }
    let fingerprint = agree(&unknown, args.fingerprint).await?;
    let token = match args.token.or_else(context::given_token) {
        Some(token) => context::bare(&token),
        // The user over there has one.
        None if url.starts_with("ssh://") => String::new(),
        None => context::bare(&terminal::ask_hidden("Token:").context("read the token")?),
    };
    if token.is_empty() && !url.starts_with("ssh://") {
        return Err(Exit::Usage.with("no token was given: say it with --token, or when asked"));
    }
    let login = Login {
        url: url.trim_end_matches('/').to_owned(),
        token,
        fingerprint,
    };
    let client = Client::new(&login.url, &login.token).map_err(usage)?;
    let client = match fingerprint {
        Some(fingerprint) => client.pinned(fingerprint),
        None => client,
    };
    let user = user(&client).await?;
    login.write()?;
    output::say(&format!("Logged in to {} as {user}", login.url));
    Ok(Exit::Done)
}

fn is_loopback(url: &str) -> bool {
    let rest = url.strip_prefix("http://").unwrap_or_default();
    let host = rest.split('/').next().unwrap_or_default();
    let bare = match host.strip_prefix('[') {
        Some(six) => six.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let address = bare.parse::<std::net::IpAddr>();
    bare == "localhost"
        || bare.ends_with(".localhost")
        || address.is_ok_and(|address| address.is_loopback())
}

/// Returns the certificate to be taken where no authority vouches for it, after the person agreed.
async fn agree(client: &Client, given: Option<Fingerprint>) -> Result<Option<Fingerprint>> {
    let Some(shown) = client.look_at_certificate().await? else {
        return match given {
            Some(_) => Err(Exit::Usage.with("--fingerprint is for https:// only")),
            None => Ok(None),
        };
    };
    if let Some(given) = given {
        if given == shown {
            return Ok(Some(shown));
        }
        return Err(Exit::NotAllowed.with(format!(
            "{} shows another certificate than the one that was named:\n{shown}\nThat may be somebody in between. Nothing was sent to it",
            client.base()
        )));
    }
    if client.is_vouched_for().await {
        return Ok(None);
    }
    output::say(&format!(
        "No authority vouches for the certificate of {}. Its fingerprint is\n{shown}\nThe server has printed its own when it started.",
        client.base()
    ));
    if !output::is_interactive() {
        return Err(Exit::Usage.with(
            "nobody is here to compare them: if they are the same, say it with --fingerprint",
        ));
    }
    if output::confirm("Are they the same?")? {
        return Ok(Some(shown));
    }
    Err(Exit::NotAllowed.with("not logged in"))
}

/// Returns whose the token of a client is.
async fn user(client: &Client) -> Result<String> {
    match client.current_tokens().await {
        Ok(current) => {
            let first = current.tokens.into_iter().next();
            Ok(first.map_or_else(String::new, |token| token.user))
        }
        Err(ClientError::Api { status: 401, .. }) => Err(Exit::NotAllowed.with(format!(
            "{} does not know this token: it may be over, revoked, or another server's",
            client.base()
        ))),
        Err(error) => Err(error.into()),
    }
}

fn logout() -> Result<Exit> {
    if Login::forget()? {
        output::say(
            "Logged out. The token itself is as good as before: hangar tokens revoke ends it",
        );
    } else {
        output::say("Nobody was logged in");
    }
    Ok(Exit::Done)
}

async fn whoami(json: bool) -> Result<Exit> {
    let context = Context::find()?;
    if json {
        let current = context.client.current_tokens().await?;
        output::json(&serde_json::json!({
            "server": context.client.base(),
            "tokens": current.tokens,
        }))?;
    } else {
        output::data(&user(&context.client).await?)?;
    }
    Ok(Exit::Done)
}

fn token(json: bool) -> Result<Exit> {
    let token = context::choose()?.token;
    if token.is_empty() {
        return Err(Exit::NotAllowed.with(
            "there is no token here: log in with hangar auth login (one that is reached by ssh has its own)",
        ));
    }
    if json {
        output::json(&serde_json::json!({"token": token}))?;
    } else {
        output::data(&token)?;
    }
    Ok(Exit::Done)
}
