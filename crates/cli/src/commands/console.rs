//! `hangar console`: a console in a Machine of its own, made for it and gone with it.

use std::time::Duration;

use anyhow::Result;
use hangar_api::id::{AppName, GroupName};
use hangar_api::machine::config::{GROUP_CONSOLE, PLATFORM_VERSION, PROCESS_GROUP};
use hangar_api::machine::{LaunchInput, Machine, MachineConfig};
use hangar_api::release::Release;
use serde_json::{Value, json};

use super::machine::wait::{self, Settle};
use super::machine::{apply_edit, read_inputs};
use super::releases::current;
use super::session::{self, Terminal};
use super::ssh;
use crate::args::ConsoleArgs;
use crate::context::Context;
use crate::error::Exit;
use crate::{interrupt, output};

/// Releases looked through for the current one.
const RELEASES: usize = 25;
/// How long the Machine of a console may take to be gone.
const GONE: Duration = Duration::from_secs(15);
/// What runs in it until the console ends.
pub(super) const SLEEP: [&str; 2] = ["/bin/sleep", "inf"];
/// Parts of a group's configuration that a console has no use for.
const LEFT_OUT: [&str; 9] = [
    "services",
    "checks",
    "mounts",
    "statics",
    "metrics",
    "standbys",
    "stop_config",
    "schedule",
    "init",
];

pub(super) async fn run(context: &Context, args: ConsoleArgs) -> Result<Exit> {
    let choice = context.app(&args.app).await?;
    let app = &choice.name;
    let releases = context.client.releases(app, RELEASES).await?;
    let release = current(&releases);
    let configured = match &choice.file {
        Some(file) => super::config::read(file)?.definition(),
        None => release.map_or(Value::Null, |r| r.definition.clone()),
    };
    let configured = configured.get("console_command").and_then(Value::as_str);
    let command = session::words(args.run.command.as_deref().or(configured))?;
    if let Some(machine) = existing(context, app, &args).await? {
        return open(context, app, &machine, command, &args).await;
    }
    let config = config(release, &args)?;
    let input = LaunchInput {
        config: Some(config),
        region: args.region.as_ref().map(ToString::to_string),
        ..LaunchInput::default()
    };
    let machine = context.client.create_machine(app, &input).await?;
    output::say(&format!(
        "Created an ephemeral machine {} to run the console.",
        machine.id
    ));
    while_it_lasts(context, app, &machine, async {
        open(context, app, &machine, command, &args).await
    })
    .await
}

/// Waits for a Machine, does the work in it, and destroys it however that ended.
pub(super) async fn while_it_lasts(
    context: &Context,
    app: &AppName,
    machine: &Machine,
    work: impl Future<Output = Result<Exit>>,
) -> Result<Exit> {
    let work = async {
        wait::settle(context, app, &machine.id, Settle::Started).await?;
        work.await
    };
    let done = tokio::select! {
        biased;
        done = work => done,
        pressed = interrupt::pressed() => {
            pressed?;
            Err(Exit::Command(interrupt::INTERRUPTED).with("interrupted"))
        }
    };
    destroy(context, app, machine).await;
    done
}

async fn open(
    context: &Context,
    app: &AppName,
    machine: &Machine,
    command: Vec<String>,
    args: &ConsoleArgs,
) -> Result<Exit> {
    let place = (app, &machine.id);
    session::run(context, place, command, &args.run, Terminal::IfThere).await
}

/// Returns the Machine that is there already, if one is meant.
async fn existing(context: &Context, app: &AppName, args: &ConsoleArgs) -> Result<Option<Machine>> {
    if args.machine.is_none() && !args.select {
        return Ok(None);
    }
    let mut started = ssh::started(context, app).await?;
    if let Some(id) = &args.machine {
        started.retain(|m| m.id == *id);
        let missing = || Exit::Failed.with(format!("machine {id} is not started"));
        return started.into_iter().next().map(Some).ok_or_else(missing);
    }
    if !output::is_interactive() {
        return Err(Exit::Usage.with("--select needs a terminal to choose on"));
    }
    let mut options = vec!["create an ephemeral machine".to_owned()];
    options.extend(started.iter().map(ssh::shown));
    let at = output::choose("Select a machine:", &options)?;
    Ok(at.checked_sub(1).and_then(|at| started.into_iter().nth(at)))
}

fn config(release: Option<&Release>, args: &ConsoleArgs) -> Result<MachineConfig> {
    let from = match release {
        Some(release) => {
            let group = group(release, args.process_group.as_ref())?;
            let spec = release.groups.get(&group);
            spec.map(|spec| spec.config.clone()).unwrap_or_default()
        }
        None if args.image.is_some() => MachineConfig::default(),
        None => {
            return Err(Exit::Failed.with(
                "can't create an ephemeral console machine since the app has not yet been released",
            ));
        }
    };
    let plain = console(&from)?;
    let edit = read_inputs(&args.config)?;
    let edited = apply_edit(plain, &edit).map_err(|error| Exit::Usage.with(error))?;
    for note in &edited.notes {
        output::say(note);
    }
    let mut config = edited.config;
    if let Some(image) = &args.image {
        config.image.clone_from(image);
    }
    Ok(config)
}

/// Returns the group asked for, else the default one: `app`, or the first.
fn group(release: &Release, asked: Option<&GroupName>) -> Result<GroupName> {
    if let Some(group) = asked {
        if release.groups.contains_key(group) {
            return Ok(group.clone());
        }
        let names: Vec<&str> = release.groups.keys().map(GroupName::as_str).collect();
        return Err(Exit::Usage.with(format!(
            "process group {group} does not exist: the release has {}",
            names.join(", ")
        )));
    }
    let app = GroupName::app();
    if release.groups.contains_key(&app) {
        return Ok(app);
    }
    Ok(release.groups.keys().next().cloned().unwrap_or(app))
}

/// Returns what a group's configuration becomes for a console: it sleeps, serves nothing, and
/// goes when it ends (process-groups-and-deploy.md 7).
fn console(group: &MachineConfig) -> serde_json::Result<MachineConfig> {
    let mut whole = serde_json::to_value(group)?;
    if let Value::Object(fields) = &mut whole {
        for key in LEFT_OUT {
            fields.remove(key);
        }
        fields.insert("init".to_owned(), json!({"exec": SLEEP}));
        fields.insert("auto_destroy".to_owned(), json!(true));
        fields.insert("restart".to_owned(), json!({"policy": "no"}));
        fields.insert("dns".to_owned(), json!({"skip_registration": true}));
    }
    let mut config: MachineConfig = serde_json::from_value(whole)?;
    let name = GROUP_CONSOLE.to_owned();
    config
        .metadata
        .insert(PROCESS_GROUP.to_owned(), name.clone());
    config
        .metadata
        .insert(PLATFORM_VERSION.to_owned(), "v2".to_owned());
    config.env.insert("FLY_PROCESS_GROUP".to_owned(), name);
    Ok(config)
}

/// Destroys the console's Machine. The server does the same when a session ends: whoever is first.
async fn destroy(context: &Context, app: &AppName, machine: &Machine) {
    let id = &machine.id;
    let destroyed = async {
        match context.client.destroy_machine(app, id, true, None).await {
            Err(error) if error.status() == Some(404) => return Ok(()),
            other => other?,
        };
        match wait::state_within(context, app, id, "destroyed", GONE).await {
            Err(error) if Exit::of(&error) == Exit::NotFound => Ok(()),
            other => other,
        }
    };
    match destroyed.await {
        Ok(()) => output::say(&format!("Machine {id} has been destroyed.")),
        Err(error) => output::say(&format!(
            "You may need to destroy the machine manually (`hangar machine destroy --force {id}`): {error:#}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_has_the_groups_environment_and_nothing_that_it_serves() {
        let group: MachineConfig = serde_json::from_value(json!({
            "image": "web", "env": {"A": "1", "FLY_PROCESS_GROUP": "web"},
            "init": {"cmd": ["serve"], "entrypoint": ["/x"]},
            "guest": {"cpu_kind": "shared", "cpus": 2, "memory_mb": 512},
            "metadata": {"fly_process_group": "web", "fly_release_version": "3"},
            "services": [{"protocol": "tcp", "internal_port": 80, "ports": [{"port": 80}]}],
            "checks": {"c": {"type": "tcp", "port": 80}},
            "mounts": [{"volume": "vol_1", "path": "/data"}], "statics": [{}],
            "stop_config": {"timeout": "30s"}, "restart": {"policy": "always"},
            "files": [{"guest_path": "/etc/x", "raw_value": "eA=="}],
        }))
        .unwrap();
        let made = serde_json::to_value(console(&group).unwrap()).unwrap();
        assert_eq!(
            made,
            json!({
                "image": "web", "env": {"A": "1", "FLY_PROCESS_GROUP": "fly_app_console"},
                "init": {"exec": ["/bin/sleep", "inf"]},
                "guest": {"cpu_kind": "shared", "cpus": 2, "memory_mb": 512},
                "metadata": {
                    "fly_process_group": "fly_app_console", "fly_release_version": "3",
                    "fly_platform_version": "v2",
                },
                "auto_destroy": true, "restart": {"policy": "no"},
                "dns": {"skip_registration": true},
                "files": [{"guest_path": "/etc/x", "raw_value": "eA=="}],
            })
        );
    }
}
