//! Following a deployment until it is over.

use std::pin::pin;
use std::time::Duration;

use anyhow::Result;
use hangar_api::deployment::{CreateDeployment, DeployEvent, Deployment, DeploymentStatus};
use hangar_api::id::AppName;
use hangar_client::{ClientError, Followed};
use serde_json::json;

use crate::context::{self, Context};
use crate::error::Exit;
use crate::interrupt;
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
    /// The server is yet to be asked to turn it back.
    is_cancelling: bool,
}

// === impl Place ===

impl Place {
    fn begin(deployment: &Deployment) -> Self {
        Self {
            from: "0".to_owned(),
            told: Vec::new(),
            progress: Progress::start(format!("Deploying v{}", deployment.version)),
            is_cancelling: false,
        }
    }

    /// Has the deployment turned back, at the first press; leaves it to the server at the second.
    fn cancel(&mut self, deployment: &Deployment, presses: u32) -> Result<()> {
        let Deployment { app, version, .. } = deployment;
        if presses > 1 {
            return Err(Exit::Command(interrupt::INTERRUPTED).with(format!(
                "interrupted: the server goes on with the deploy of v{version}; see `hangar releases -a {app}`"
            )));
        }
        self.progress.say(&format!(
            "Cancelling the deploy of v{version} (Ctrl-C again leaves it to the server)"
        ));
        self.is_cancelling = true;
        Ok(())
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

/// Asks for a deployment. From here on Control-C ends the program no more: the server may have begun
/// by then, and [`to_the_end`] cancels what was. Pressed again, it is left to the server.
pub(super) async fn begin(
    context: &Context,
    app: &AppName,
    body: &CreateDeployment,
) -> Result<Deployment> {
    let mut asking = pin!(context.client.create_deployment(app, body));
    let mut presses = 0;
    loop {
        tokio::select! {
            biased;
            pressed = interrupt::pressed_times(presses + 1) => pressed?,
            begun = &mut asking => return Ok(begun?),
        }
        presses += 1;
        if presses > 1 {
            return Err(Exit::Command(interrupt::INTERRUPTED).with(format!(
                "interrupted: the server may have begun to deploy; see `hangar releases -a {app}`"
            )));
        }
        output::say(
            "Cancelling the deploy as soon as the server has answered (Ctrl-C again leaves it to the server)",
        );
    }
}

/// Shows what happens and returns how it ended. The deployment goes on without us: when the
/// server is away for a moment, it is asked again from where we were. Control-C cancels it.
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
    attend(context, deployment, OnInterrupt::Cancel).await
}

/// As [`to_the_end`], for a command that deals with Control-C itself, or that it may end.
pub(super) async fn to_the_end_undisturbed(
    context: &Context,
    deployment: Deployment,
) -> Result<Exit> {
    attend(context, deployment, OnInterrupt::GoOn).await
}

/// What Control-C means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnInterrupt {
    /// The deployment turns back; pressed again, it is left to the server.
    Cancel,
    /// Somebody else's business.
    GoOn,
}

async fn attend(
    context: &Context,
    deployment: Deployment,
    on_interrupt: OnInterrupt,
) -> Result<Exit> {
    let (mut place, mut tries, mut presses) = (Place::begin(&deployment), 0, 0);
    loop {
        let followed = tokio::select! {
            biased;
            pressed = interrupt::pressed_times(presses + 1), if on_interrupt == OnInterrupt::Cancel => {
                pressed?;
                presses += 1;
                place.cancel(&deployment, presses)?;
                continue;
            }
            followed = round(context, &deployment, &mut place, &mut tries) => followed,
        };
        match followed {
            Ok(Some(over)) => {
                let exit = verdict(&over, &place.told)?;
                if presses > 0 {
                    output::say("It was too late to cancel: the deploy is complete");
                }
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

/// Passes on that the deployment is to turn back, and follows it.
async fn round(
    context: &Context,
    deployment: &Deployment,
    place: &mut Place,
    tries: &mut u32,
) -> Result<Option<Deployment>, ClientError> {
    if place.is_cancelling {
        let Deployment { app, id, .. } = deployment;
        match context.client.cancel_deployment(app, id).await {
            Ok(_) => {}
            // The server is away: it is asked again when it is back.
            Err(error) if error.may_pass() => return Err(error),
            Err(error) => place
                .progress
                .say(&format!("! It was not cancelled: {error}")),
        }
        place.is_cancelling = false;
    }
    follow(context, deployment, place, tries).await
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
    let releases = context.client.releases(&deployment.app, SEARCHED).await;
    // The deploy is done, whether or not its image can be asked for.
    let releases = releases.unwrap_or_else(|error| {
        output::say(&format!("! The release's image is not known: {error}"));
        Vec::new()
    });
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
