//! Following a deployment until it is over.

use std::time::Duration;

use anyhow::Result;
use hangar_api::deployment::{DeployEvent, Deployment, DeploymentStatus};
use hangar_client::{ClientError, Followed};

use crate::context::Context;
use crate::error::Exit;
use crate::output;

/// Pause before the server is asked again after the connection broke.
const PAUSE: Duration = Duration::from_millis(300);
/// Tries in a row before giving up on a server that is away: about a minute.
const TRIES: u32 = 200;

/// Shows what happens and returns how it ended. The deployment goes on without us: when the
/// server is away for a moment, it is asked again from where we were.
pub(super) async fn to_the_end(
    context: &Context,
    deployment: Deployment,
    detach: bool,
) -> Result<Exit> {
    if detach {
        output::say(&format!(
            "Deployment {} of v{} is under way",
            deployment.id, deployment.version
        ));
        return Ok(Exit::Done);
    }
    let (mut from, mut tries) = ("0".to_owned(), 0);
    loop {
        let followed = follow(context, &deployment, &mut from, &mut tries).await;
        match followed {
            Ok(Some(over)) => return verdict(&over),
            Ok(None)
            | Err(
                ClientError::Unreachable { .. } | ClientError::Broken(_) | ClientError::TimedOut(_),
            ) if tries < TRIES => {
                tries += 1;
                tokio::time::sleep(PAUSE).await;
            }
            Ok(None) => {
                return Err(Exit::NoServer
                    .with("the server went away; the deployment goes on when it is back"));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

async fn follow(
    context: &Context,
    deployment: &Deployment,
    from: &mut String,
    tries: &mut u32,
) -> Result<Option<Deployment>, ClientError> {
    let mut events = context
        .client
        .follow_deployment(&deployment.app, &deployment.id, from)
        .await?;
    loop {
        match events.next().await? {
            None => return Ok(None),
            Some(Followed::Over(over)) => return Ok(Some(*over)),
            Some(Followed::Event(event)) => {
                *tries = 0;
                events.last_id().clone_into(from);
                show(&event);
            }
        }
    }
}

fn show(event: &DeployEvent) {
    let mark = match event.level.as_str() {
        "error" => "✘ ",
        "warning" => "! ",
        _ => "",
    };
    output::say(&format!("{mark}{}", event.message));
}

fn verdict(over: &Deployment) -> Result<Exit> {
    let error = over
        .error
        .clone()
        .unwrap_or_else(|| "no reason was given".to_owned());
    match over.status {
        DeploymentStatus::RolledBack => Err(Exit::RolledBack.with(format!(
            "the deploy of v{} failed, former versions are back: {error}",
            over.version
        ))),
        DeploymentStatus::Failed => Err(Exit::LeftAsIs.with(format!(
            "the deploy of v{} failed, the fleet was left as it is: {error}",
            over.version
        ))),
        DeploymentStatus::Complete | DeploymentStatus::Running | DeploymentStatus::RollingBack => {
            Ok(Exit::Done)
        }
    }
}
