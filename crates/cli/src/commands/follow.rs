//! Following a deployment until it is over.

use std::time::Duration;

use anyhow::Result;
use hangar_api::deployment::{DeployEvent, Deployment, DeploymentStatus};
use hangar_client::{ClientError, Followed};
use serde_json::json;

use crate::context::{self, Context};
use crate::error::Exit;
use crate::output::{self, Progress};

/// Pause before the server is asked again after the connection broke.
const PAUSE: Duration = Duration::from_millis(300);
/// Tries in a row before giving up on a server that is away: about a minute.
const TRIES: u32 = 200;

/// Newest releases among which a deployment's own is looked for.
const SEARCHED: usize = 25;

/// How far a deployment has been followed.
struct Place {
    /// The last event seen.
    from: String,
    /// What went wrong, as it was shown.
    told: Vec<String>,
    /// Shows that it goes on.
    progress: Progress,
}

// === impl Place ===

impl Place {
    fn begin(deployment: &Deployment) -> Self {
        Self {
            from: "0".to_owned(),
            told: Vec::new(),
            progress: Progress::start(format!("Deploying v{}", deployment.version)),
        }
    }

    fn show(&self, event: &DeployEvent) {
        let mark = match event.level.as_str() {
            "error" => "✘ ",
            "warning" => "! ",
            _ => "",
        };
        self.progress.say(&format!("{mark}{}", event.message));
    }
}

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
        tell_release(context, &deployment).await?;
        return Ok(Exit::Done);
    }
    let (mut place, mut tries) = (Place::begin(&deployment), 0);
    loop {
        let followed = follow(context, &deployment, &mut place, &mut tries).await;
        match followed {
            Ok(Some(over)) => {
                let exit = verdict(&over, &place.told)?;
                tell_release(context, &over).await?;
                return Ok(exit);
            }
            Err(error) if tries >= TRIES || !error.may_pass() => return Err(error.into()),
            Ok(None) if tries >= TRIES => {
                return Err(Exit::NoServer
                    .with("the server went away; the deployment goes on when it is back"));
            }
            Ok(None) | Err(_) => {
                tries += 1;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn follow(
    context: &Context,
    deployment: &Deployment,
    place: &mut Place,
    tries: &mut u32,
) -> Result<Option<Deployment>, ClientError> {
    let mut events = context
        .client
        .follow_deployment(&deployment.app, &deployment.id, &place.from)
        .await?;
    loop {
        match events.next().await? {
            None => return Ok(None),
            Some(Followed::Over(over)) => return Ok(Some(*over)),
            Some(Followed::Event(event)) => {
                *tries = 0;
                events.last_id().clone_into(&mut place.from);
                place.show(&event);
                if event.level == "error" {
                    place.told.push(event.message);
                }
            }
        }
    }
}

/// Prints the release of a deployment in one line of JSON where `FLY_EMIT_RELEASE_JSON` asks for it,
/// so that a script knows which release is its own (process-groups-and-deploy.md 4.11).
async fn tell_release(context: &Context, deployment: &Deployment) -> Result<()> {
    if context::variable("FLY_EMIT_RELEASE_JSON").is_none() {
        return Ok(());
    }
    let releases = context.client.releases(&deployment.app, SEARCHED).await?;
    let release = releases.iter().find(|r| r.id == deployment.release);
    let group = release.and_then(|release| release.groups.values().next());
    let image = group.map_or("", |group| group.config.image.as_str());
    output::data(
        &json!({"id": deployment.release, "version": deployment.version, "image_ref": image})
            .to_string(),
    )
}

fn verdict(over: &Deployment, told: &[String]) -> Result<Exit> {
    let error = over.error.as_deref().unwrap_or("no reason was given");
    let error = untold(error, told);
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

/// Returns the error without the lines below its first that were shown before.
fn untold(error: &str, told: &[String]) -> String {
    let (first, rest) = error.split_once('\n').unwrap_or((error, ""));
    if rest.is_empty() || told.iter().any(|message| message.contains(rest)) {
        return first.to_owned();
    }
    error.to_owned()
}
