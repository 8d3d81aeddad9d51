//! Changing what process groups should have: shown, asked, handed to the server, followed.
//!
//! The server does all of it; whoever stops following stops nothing.

mod file;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Result;
use hangar_api::formation::{FormationUpdate, Formations, GroupFormation, GroupUpdate};
use hangar_api::id::{AppName, GroupName, MachineId, Region};
use hangar_api::machine::{Machine, MachineState};
use hangar_client::MachineFilter;

use crate::context::Context;
use crate::error::Exit;
use crate::output;

pub(super) use file::run;

/// How long Machines may take to be where they should be.
const LIMIT: Duration = Duration::from_secs(300);
/// The pace of looking.
const PACE: Duration = Duration::from_millis(100);

/// How a change is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    /// Do not ask.
    pub(crate) yes: bool,
    /// Do not follow.
    pub(crate) detach: bool,
}

/// What was made of a change.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Somebody said no.
    Declined,
    /// The server has it.
    Changed(Formations),
}

/// Shows what a change means, asks, makes it, and follows until it is so.
pub(crate) async fn change(
    context: &Context,
    app: &AppName,
    groups: BTreeMap<GroupName, GroupUpdate>,
    manner: Manner,
) -> Result<Outcome> {
    let client = &context.client;
    let mut update = FormationUpdate {
        groups,
        dry_run: true,
    };
    let after = client.update_formations(app, &update).await?;
    let before = machines(context, app).await?;
    let lines = plan(&after, &before);
    if !lines.is_empty() {
        output::say(&format!(
            "App '{app}' is going to be scaled according to this plan:"
        ));
        for line in &lines {
            output::say(line);
        }
        if !manner.yes && !output::confirm(&format!("Scale app {app}?"))? {
            return Ok(Outcome::Declined);
        }
    }
    update.dry_run = false;
    let made = client.update_formations(app, &update).await?;
    if lines.is_empty() || manner.detach {
        return Ok(Outcome::Changed(made));
    }
    output::say("Executing scale plan");
    let names: Vec<GroupName> = update.groups.into_keys().collect();
    follow(context, app, &names, &before).await?;
    Ok(Outcome::Changed(client.formations(app).await?))
}

/// Returns the Machines of groups that are not gone yet, by id.
async fn machines(context: &Context, app: &AppName) -> Result<BTreeMap<MachineId, Machine>> {
    let filter = MachineFilter::default();
    let all = context.client.machines(app, &filter).await?.into_iter();
    let here = all.filter(|m| m.config.is_managed() && m.state != MachineState::Destroyed);
    Ok(here.map(|m| (m.id.clone(), m)).collect())
}

fn size(machine: &Machine) -> String {
    let guest = machine.config.guest.clone();
    guest.unwrap_or_default().size_name()
}

/// Returns the plan in the words of `scale count`, one line for each group, region and size.
fn plan(after: &Formations, machines: &BTreeMap<MachineId, Machine>) -> Vec<String> {
    let mut lines = Vec::new();
    for (group, formation) in &after.groups {
        let mut sums: BTreeMap<(Region, String), i64> = BTreeMap::new();
        for (region, missing) in missing(formation, machines) {
            *sums
                .entry((region, size_of_new(formation, machines)))
                .or_default() += missing;
        }
        for machine in formation.retiring.iter().filter_map(|id| machines.get(id)) {
            *sums
                .entry((machine.region.clone(), size(machine)))
                .or_default() -= 1;
        }
        lines.extend(sums.iter().map(|((region, size), change)| {
            format!(
                "{change:+4} machines for group '{group}' on region '{region}' of size '{size}'"
            )
        }));
    }
    lines
}

fn missing(
    formation: &GroupFormation,
    machines: &BTreeMap<MachineId, Machine>,
) -> Vec<(Region, i64)> {
    let here = formation.machines.iter().filter_map(|id| machines.get(id));
    let regions: Vec<&Region> = here.map(|machine| &machine.region).collect();
    let of = |region: &Region| {
        let count = regions.iter().filter(|r| **r == region).count();
        i64::try_from(count).unwrap_or(i64::MAX)
    };
    let all = formation.regions.iter();
    all.map(|(region, wanted)| (region.clone(), i64::from(*wanted) - of(region)))
        .filter(|(_, n)| *n > 0)
        .collect()
}

/// Returns the size of a new Machine: that of the group's others.
fn size_of_new(formation: &GroupFormation, machines: &BTreeMap<MachineId, Machine>) -> String {
    let mut all = formation.machines.iter().chain(&formation.retiring);
    let like = all.find_map(|id| machines.get(id)).map(size);
    like.unwrap_or_else(|| formation.guest.clone().unwrap_or_default().size_name())
}

/// Tells of each Machine that comes and goes, until the groups have what they should have.
async fn follow(
    context: &Context,
    app: &AppName,
    groups: &[GroupName],
    before: &BTreeMap<MachineId, Machine>,
) -> Result<()> {
    let deadline = tokio::time::Instant::now() + LIMIT;
    let mut known = before.clone();
    let mut told: BTreeSet<String> = BTreeSet::new();
    loop {
        // Formations first: what they speak of is among the Machines then.
        let formations = context.client.formations(app).await?;
        let now = machines(context, app).await?;
        let of = |machine: &Machine| groups.contains(&machine.config.group_or_app());
        for (id, machine) in now
            .iter()
            .filter(|(id, m)| !known.contains_key(*id) && of(m))
        {
            tell("Created", id, machine);
        }
        for (id, machine) in known
            .iter()
            .filter(|(id, m)| !now.contains_key(*id) && of(m))
        {
            tell("Destroyed", id, machine);
        }
        known = now;
        let these = || {
            groups
                .iter()
                .filter_map(|group| formations.groups.get(group))
        };
        let goes = |machine: &Machine| of(machine) && !machine.state.is_active();
        let nobody_goes = !known.values().any(goes);
        if nobody_goes && these().all(|formation| is_met(formation, &known)) {
            return Ok(());
        }
        let trouble = these().flat_map(|formation| &formation.trouble);
        for line in trouble.chain(&formations.paused) {
            if told.insert(line.clone()) && !line.contains(" stays until ") {
                output::say(&format!("  {line}"));
            }
        }
        if tokio::time::Instant::now() >= deadline {
            return Err(Exit::Failed.with(format!(
                "the Machines of app {app} are not where they should be after {} s; the server goes on with it, `hangar status` shows how far it is",
                LIMIT.as_secs()
            )));
        }
        tokio::time::sleep(PACE).await;
    }
}

fn tell(verb: &str, id: &MachineId, machine: &Machine) {
    let group = machine.config.group_or_app();
    output::say(&format!(
        "  {verb} {id} group:{group} region:{} size:{}",
        machine.region,
        size(machine)
    ));
}

/// Returns whether a group has what it should have.
fn is_met(formation: &GroupFormation, machines: &BTreeMap<MachineId, Machine>) -> bool {
    let here = formation
        .machines
        .iter()
        .filter(|id| machines.contains_key(*id))
        .count();
    let wanted = usize::try_from(formation.count).unwrap_or(usize::MAX);
    formation.retiring.is_empty() && here >= wanted
}
