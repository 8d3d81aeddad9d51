//! `hangar migrate fly`: shows the plan, carries it out step by step, takes it back.
//!
//! All that is to be known of how far it came is read from the server. The journal beside the
//! configuration only says that this migration made the app, so that `--undo` may remove it.

mod disks;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use hangar_api::id::{AppName, GroupName};
use hangar_api::machine::config::{PLATFORM_VERSION, PROCESS_GROUP, RELEASE_ID, RELEASE_VERSION};
use hangar_api::machine::{LaunchInput, Machine};
use hangar_api::release::{Release, ReleaseStatus};
use hangar_client::MachineFilter;
use serde_json::json;

use self::disks::mount;
use super::{parent, put, read};
use crate::args::migrate::MigrateFlyArgs;
use crate::commands::deploy::{self, DeployInput};
use crate::commands::machine::wait::{self, Settle};
use crate::commands::{config, follow};
use crate::context::{self, Context};
use crate::error::Exit;
use crate::migrate::fly::{Place, Plan, Source, Step, describe, next, plan};
use crate::output;

/// Most Machines that are made or removed for one group before giving up.
const MAX_STEPS: usize = 1000;
/// Releases looked through for a complete one.
const RELEASES: usize = 25;

/// What a migration is about.
struct Migration {
    app: AppName,
    /// What it is called on Fly.
    app_there: String,
    file: PathBuf,
    journal: PathBuf,
}

pub(super) async fn run(args: MigrateFlyArgs) -> Result<Exit> {
    let definition = config::read(&args.config)?.definition();
    let named = definition["app"].as_str().map(str::to_owned);
    let app_there = named.clone();
    let app = match (&args.name, named) {
        (Some(name), _) => name.clone(),
        (None, Some(name)) => AppName::new(name).map_err(|e| Exit::Usage.with(e.to_string()))?,
        (None, None) => {
            return Err(Exit::Usage.with("the configuration names no app: say --name"));
        }
    };
    let migration = Migration {
        journal: parent(&args.config).join(format!("{app}.migration.json")),
        file: args.config.clone(),
        app_there: app_there.unwrap_or_else(|| app.to_string()),
        app,
    };
    if args.undo {
        return migration.undo(args.yes).await;
    }
    if args.confirm {
        return migration.confirm();
    }
    let plan = read_plan(&args, &definition)?;
    output::say(&format!(
        "App '{}' is going to be rebuilt here:",
        migration.app
    ));
    for line in describe(&plan) {
        output::say(&line);
    }
    if !plan.notes.is_empty() {
        output::say("\nNot carried over, or to be looked at:");
        for note in &plan.notes {
            output::say(&format!("  {note}"));
        }
    }
    if !args.apply {
        output::say(
            "\nNothing was made. The same with --apply does it; it can be stopped and gone on with, and taken back with --undo until --confirm.",
        );
        return Ok(Exit::Done);
    }
    migration.apply(&args, &plan).await
}

fn read_plan(args: &MigrateFlyArgs, definition: &serde_json::Value) -> Result<Plan> {
    let keys = |section: &str| -> BTreeSet<String> {
        let table = definition[section].as_object();
        table
            .map(|t| t.keys().cloned().collect())
            .unwrap_or_default()
    };
    let mut groups = keys("processes");
    if groups.is_empty() {
        groups.insert(GroupName::app().to_string());
    }
    let file = args
        .machines
        .as_deref()
        .unwrap_or(Path::new("machines.json"));
    let optional = |file: &Option<PathBuf>| file.as_deref().map(read).transpose();
    let (volumes, secrets) = (optional(&args.volumes)?, optional(&args.secrets)?);
    let mut regions = BTreeMap::new();
    for pair in &args.map_region {
        let (from, to) = pair.split_once('=').ok_or_else(|| {
            Exit::Usage.with(format!(
                "--map-region {pair}: write FROM=TO, such as syd=iad"
            ))
        })?;
        regions.insert(from.to_owned(), to.to_owned());
    }
    let machines = read(file)?;
    let mounted = mounted(definition, &groups);
    let source = Source {
        mounted: &mounted,
        machines: &machines,
        volumes: volumes.as_deref(),
        secrets: secrets.as_deref(),
        groups: &groups,
        env: &keys("env"),
        regions: &regions,
    };
    plan(&source).map_err(|error| super::refused(file, &error))
}

/// Returns the name of the volume that each group mounts.
fn mounted(definition: &serde_json::Value, groups: &BTreeSet<String>) -> BTreeMap<String, String> {
    let mounts = definition["mounts"].as_array();
    let all = || mounts.into_iter().flatten();
    let of = |group: &String| {
        let has = |mount: &&serde_json::Value| match mount["processes"].as_array() {
            Some(list) if !list.is_empty() => list.iter().any(|g| g.as_str() == Some(group)),
            _ => true,
        };
        let source = all().find(has)?["source"].as_str()?;
        Some((group.clone(), source.to_owned()))
    };
    groups.iter().filter_map(of).collect()
}

// === impl Migration ===

impl Migration {
    async fn apply(&self, args: &MigrateFlyArgs, plan: &Plan) -> Result<Exit> {
        let context = Context::find()?;
        self.check_regions(&context, plan).await?;
        if !args.yes && !output::confirm("Would you like to continue?")? {
            return Err(Exit::Failed.with("nothing was made"));
        }
        self.ensure_app(&context).await?;
        self.check_secrets(&context, plan).await?;
        // Before the deploy, which takes what is there.
        self.ensure_volumes(&context, plan).await?;
        let release = self.ensure_release(&context, args).await?;
        for (group, wanted) in &plan.groups {
            self.ensure_group(&context, &release, group, wanted).await?;
        }
        self.tell_of_data(&context, plan).await?;
        let named = args.name.as_ref().map(|name| format!(" --name {name}"));
        let command = format!(
            "hangar migrate fly --config {}{}",
            self.file.display(),
            named.unwrap_or_default()
        );
        output::say(&format!(
            "\n{} is here, as it is there. See that it works, then: {command} --confirm\nTo take it back: {command} --undo",
            self.app
        ));
        Ok(Exit::Done)
    }

    async fn check_regions(&self, context: &Context, plan: &Plan) -> Result<()> {
        let regions = context.client.regions().await?;
        let of_machines = plan.groups.values().flatten().map(|place| &place.region);
        let of_volumes = plan.volumes.iter().map(|disk| &disk.region);
        let is_here = |code: &String| regions.iter().any(|region| region.code.as_str() == code);
        match of_machines.chain(of_volumes).find(|code| !is_here(code)) {
            None => Ok(()),
            Some(code) => Err(Exit::Usage.with(format!(
                "region {code} is not here, so nothing was made: say where its Machines go with --map-region {code}=REGION"
            ))),
        }
    }

    /// Makes the app, or finds the one that this migration has made.
    async fn ensure_app(&self, context: &Context) -> Result<()> {
        let there = match context.client.app(&self.app).await {
            Ok(_) => true,
            Err(error) if error.status() == Some(404) => false,
            Err(error) => return Err(error.into()),
        };
        match (there, self.journal.exists()) {
            (true, true) => {
                output::say(&format!("Going on with {}", self.app));
                return Ok(());
            }
            (true, false) => {
                return Err(Exit::Usage.with(format!(
                    "app {} is here already, and not from this migration: say another name with --name",
                    self.app
                )));
            }
            (false, _) => {}
        }
        let text = json!({ "app": self.app, "made_by": "hangar migrate fly" }).to_string();
        put(&self.journal, &text, true)
            .with_context(|| format!("write {}", self.journal.display()))?;
        context
            .client
            .create_app(&self.app, context::org().as_deref(), None)
            .await?;
        output::say(&format!("Created app {}", self.app));
        Ok(())
    }

    async fn check_secrets(&self, context: &Context, plan: &Plan) -> Result<()> {
        let set = context.client.secrets(&self.app).await?.secrets;
        let missing: Vec<String> = plan
            .secrets
            .iter()
            .filter(|name| !set.iter().any(|secret| secret.name == **name))
            .map(|name| format!("{name}=..."))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(Exit::Failed.with(format!(
            "secrets are missing, and Fly gives nobody their values. Set them, then run this again:\n  hangar secrets set {} --stage -a {}",
            missing.join(" "),
            self.app
        )))
    }

    /// Returns the app's complete release; makes one where there is none.
    async fn ensure_release(&self, context: &Context, args: &MigrateFlyArgs) -> Result<Release> {
        let deployments = context.client.deployments(&self.app).await?;
        // One that a former run has asked for may still be on its way.
        if let Some(running) = deployments.into_iter().find(|d| !d.status.is_over()) {
            follow::to_the_end_undisturbed(context, running).await?;
        }
        if let Some(release) = self.complete_release(context).await? {
            return Ok(release);
        }
        let input = DeployInput {
            app: Some(self.app.clone()),
            image: args.image.clone(),
            ha: Some(false),
            ..DeployInput::of_file(self.file.clone())
        };
        let prepared = deploy::prepare(context, &input).await?;
        let deployment = context
            .client
            .create_deployment(&prepared.app, &prepared.body)
            .await?;
        // Control-C ends the program as at every other step: it goes on from here the next time.
        follow::to_the_end_undisturbed(context, deployment).await?;
        let release = self.complete_release(context).await?;
        release.ok_or_else(|| Exit::Failed.with("the deploy left no complete release"))
    }

    async fn complete_release(&self, context: &Context) -> Result<Option<Release>> {
        let releases = context.client.releases(&self.app, RELEASES).await?;
        Ok(releases
            .into_iter()
            .find(|release| release.status == ReleaseStatus::Complete))
    }

    /// Brings a group to its Machines, one step after the other.
    async fn ensure_group(
        &self,
        context: &Context,
        release: &Release,
        group: &str,
        wanted: &[Place],
    ) -> Result<()> {
        for _ in 0..MAX_STEPS {
            let machines = context
                .client
                .machines(&self.app, &MachineFilter::default())
                .await?;
            let of_group = |m: &&Machine| {
                m.state.is_active()
                    && m.config.is_managed()
                    && m.config.group_or_app().as_str() == group
            };
            let there: Vec<&Machine> = machines.iter().filter(of_group).collect();
            let observed: Vec<(String, Place)> = there
                .iter()
                .map(|machine| (machine.id.to_string(), place_of(machine)))
                .collect();
            match next(wanted, &observed) {
                None => return Ok(()),
                Some(Step::Create(place)) => {
                    self.create(context, release, group, &place, &there).await?;
                }
                Some(Step::Destroy(id)) => {
                    let id = id.parse().context("read a Machine's id")?;
                    context
                        .client
                        .destroy_machine(&self.app, &id, true, None)
                        .await?;
                    wait::state(context, &self.app, &id, "destroyed").await?;
                    output::say(&format!(
                        "Destroyed Machine {id} [{group}]: there are enough"
                    ));
                }
            }
        }
        Err(Exit::Failed.with(format!(
            "group {group} did not come to its Machines within {MAX_STEPS} steps: does somebody else scale it?"
        )))
    }

    async fn create(
        &self,
        context: &Context,
        release: &Release,
        group: &str,
        place: &Place,
        there: &[&Machine],
    ) -> Result<()> {
        let name = GroupName::new(group).context("name a group")?;
        let spec = release.groups.get(&name).ok_or_else(|| {
            Exit::Failed.with(format!("release v{} has no group {group}", release.version))
        })?;
        let mut config = spec.config.clone();
        config.guest = Some(place.guest());
        mount(&mut config, place)?;
        let rests = place.standby || place.schedule.is_some();
        if let Some(schedule) = place.schedule {
            let word = schedule.as_str().into();
            config.other.insert("schedule".to_owned(), word);
        }
        let mut mark = |key: &str, value: String| config.metadata.insert(key.to_owned(), value);
        mark(PLATFORM_VERSION, "v2".to_owned());
        mark(PROCESS_GROUP, group.to_owned());
        mark(RELEASE_ID, release.id.to_string());
        mark(RELEASE_VERSION, release.version.to_string());
        if place.standby {
            let first = there
                .iter()
                .find(|machine| machine.config.standbys.is_empty());
            let first = first.ok_or_else(|| {
                Exit::Failed.with(format!(
                    "group {group} has a standby, but no Machine that it stands by for"
                ))
            })?;
            config.standbys = vec![first.id.to_string()];
        }
        let input = LaunchInput {
            config: Some(config),
            region: Some(place.region.clone()),
            skip_launch: rests,
            ..LaunchInput::default()
        };
        self.until_free(context, place).await?;
        let made = context.client.create_machine(&self.app, &input).await?;
        if !rests {
            wait::settle(context, &self.app, &made.id, Settle::Healthy).await?;
        }
        let begins = place.schedule.map_or_else(String::new, |schedule| {
            format!(
                "; its schedule, {schedule}, begins with: hangar machine start {}",
                made.id
            )
        });
        output::say(&format!(
            "Created Machine {} [{group}] in {}{begins}",
            made.id, place.region
        ));
        Ok(())
    }

    async fn undo(&self, yes: bool) -> Result<Exit> {
        self.refuse_confirmed()?;
        let context = Context::find()?;
        let question = format!("Destroy app {} with all that the migration made?", self.app);
        if !yes && !output::confirm(&question)? {
            return Err(Exit::Failed.with("nothing was taken back"));
        }
        match context.client.delete_app(&self.app).await {
            Ok(()) => output::say(&format!("Destroyed app {}", self.app)),
            Err(error) if error.status() == Some(404) => {}
            Err(error) => return Err(error.into()),
        }
        self.close()?;
        output::say("Nothing is left of the migration. The app on Fly was never touched.");
        Ok(Exit::Done)
    }

    fn confirm(&self) -> Result<Exit> {
        self.refuse_confirmed()?;
        self.close()?;
        output::say(&format!(
            "Confirmed: {} is an app like any other. It cannot be taken back by --undo any more.",
            self.app
        ));
        Ok(Exit::Done)
    }

    fn refuse_confirmed(&self) -> Result<()> {
        if self.journal.exists() {
            return Ok(());
        }
        Err(Exit::Usage.with(format!(
            "there is no migration of {} to take back or confirm: {} is not there",
            self.app,
            self.journal.display()
        )))
    }

    fn close(&self) -> Result<()> {
        std::fs::remove_file(&self.journal)
            .with_context(|| format!("remove {}", self.journal.display()))
    }
}

fn place_of(machine: &Machine) -> Place {
    let guest = machine.config.guest.clone().unwrap_or_default();
    Place {
        region: machine.region.to_string(),
        cpu_kind: guest.cpu_kind,
        cpus: guest.cpus,
        memory_mb: guest.memory_mb,
        standby: !machine.config.standbys.is_empty(),
        volume: machine.config.mounts.first().map(|m| m.name.clone()),
        schedule: machine.config.schedule().ok().flatten(),
    }
}
