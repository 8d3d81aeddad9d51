//! Random fleets, configurations, volumes, faults and crashes of the server.

mod refusals;
mod restarts;

use std::collections::{BTreeMap, BTreeSet};

use hangar_api::deployment::{DeployFilters, DeployOptions, Strategy};
use hangar_api::id::{MachineId, Region};
use hangar_api::machine::MachineState;
use hangar_deploy::mounts::new_volumes;
use hangar_deploy::{Desired, Verdict, plan, refuse};
use proptest::prelude::{Just, ProptestConfig, TestCaseError, any, prop_assert, prop_assert_eq};
use proptest::strategy::Strategy as _;
use proptest::{prop_oneof, proptest};

use crate::sim::volumes::mount;
use crate::sim::{
    Fault, Sim, SimMachine, desired, drive, group, image, release_command, release_id, test_machine,
};

const GROUPS: [&str; 4] = ["api", "cron", "web", "worker"];
/// Names of volumes.
const NAMES: [&str; 2] = ["data", "logs"];
/// Where Machines and volumes are; new Machines go to the first.
const REGIONS: [&str; 2] = ["iad", "gru"];

#[derive(Clone, Debug)]
struct Case {
    strategy: Strategy,
    /// For each group: serves, is wanted, Machines started, stopped, and that failed to start.
    groups: Vec<(bool, bool, usize, usize, usize)>,
    faults: Vec<Fault>,
    max_unavailable: f64,
    max_concurrent: u32,
    ha: bool,
    retries: u32,
    /// What the release command exits with, if there is one.
    release: Option<i32>,
    /// What the test Machine of each group exits with, if there is one.
    test: Option<i32>,
    filters: Filters,
    /// For each Machine in the order of creation whether its slot is lost.
    lost: Vec<bool>,
    crashes: Vec<Option<usize>>,
    disks: Disks,
    /// Whether what fails is put back.
    rollback: bool,
    /// Whether a slot has no room for a new Machine, in the order in which they are asked for.
    no_room: Vec<bool>,
}

/// The volumes of a fleet and of its fly.toml.
#[derive(Clone, Debug)]
struct Disks {
    /// For each group the name of its Machines' volumes, if they have any, and of its `[[mounts]]`.
    groups: Vec<(Option<usize>, Option<usize>)>,
    /// For each Machine in the order of creation whether it has a volume where its group has any.
    has: Vec<bool>,
    /// For each Machine in the order of creation where it is.
    regions: Vec<usize>,
    /// Volumes that nobody has: names and regions.
    free: Vec<(usize, usize)>,
    /// Somebody has said that Machines may lose their volumes.
    detach: bool,
}

/// Which Machines are deployed to.
#[derive(Clone, Debug)]
struct Filters {
    /// For each group whether it is chosen; all are when none is.
    groups: Vec<bool>,
    /// For each Machine in the order of creation whether it is left out.
    left_out: Vec<bool>,
    /// A region, and whether it is the only one or the one that is left out.
    region: Option<(usize, bool)>,
    update_only: bool,
}

fn strategies() -> impl proptest::strategy::Strategy<Value = Strategy> {
    prop_oneof![
        2 => Just(Strategy::Rolling),
        2 => Just(Strategy::Canary),
        3 => Just(Strategy::Bluegreen),
        1 => Just(Strategy::Immediate),
    ]
}

fn filters() -> impl proptest::strategy::Strategy<Value = Filters> {
    let none = Filters {
        groups: vec![false; GROUPS.len()],
        left_out: Vec::new(),
        region: None,
        update_only: false,
    };
    let some = (
        proptest::collection::vec(any::<bool>(), GROUPS.len()),
        proptest::collection::vec(proptest::bool::weighted(0.2), 0..20),
        proptest::option::weighted(0.3, (0..REGIONS.len(), any::<bool>())),
        any::<bool>(),
    )
        .prop_map(|(groups, left_out, region, update_only)| Filters {
            groups,
            left_out,
            region,
            update_only,
        });
    prop_oneof![2 => Just(none), 1 => some]
}

fn exits() -> impl proptest::strategy::Strategy<Value = Option<i32>> {
    prop_oneof![3 => Just(None), 2 => Just(Some(0)), 1 => Just(Some(3))]
}

fn disks() -> impl proptest::strategy::Strategy<Value = Disks> {
    let none = Disks {
        groups: vec![(None, None); GROUPS.len()],
        has: Vec::new(),
        regions: Vec::new(),
        free: Vec::new(),
        detach: false,
    };
    // Mostly a group keeps what it has; now and then it gets, loses or renames a volume.
    let name = || 0..NAMES.len();
    let group = prop_oneof![
        3 => Just((None, None)),
        4 => name().prop_map(|n| (Some(n), Some(n))),
        2 => name().prop_map(|n| (None, Some(n))),
        1 => name().prop_map(|n| (Some(n), None)),
        1 => (name(), name()).prop_map(|(a, b)| (Some(a), Some(b))),
    ];
    let some = (
        proptest::collection::vec(group, GROUPS.len()),
        prop_oneof![
            2 => Just(vec![true; 40]),
            1 => proptest::collection::vec(any::<bool>(), 40),
        ],
        proptest::collection::vec(0..REGIONS.len(), 0..40),
        proptest::collection::vec((name(), 0..REGIONS.len()), 0..30),
        proptest::bool::weighted(0.8),
    )
        .prop_map(|(groups, has, regions, free, detach)| Disks {
            groups,
            has,
            regions,
            free,
            detach,
        });
    prop_oneof![1 => Just(none), 1 => some]
}

fn cases() -> impl proptest::strategy::Strategy<Value = Case> {
    let failed = prop_oneof![3 => Just(0_usize), 1 => 1_usize..3];
    let group = (any::<bool>(), any::<bool>(), 0_usize..7, 0_usize..3, failed);
    let fault = prop_oneof![
        12 => Just(Fault::None),
        1 => Just(Fault::NoImage),
        1 => Just(Fault::Crashes),
        1 => Just(Fault::NeverHealthy),
    ];
    let share = prop_oneof![
        Just(0.33),
        Just(0.01),
        Just(0.5),
        Just(1.0),
        Just(2.5),
        Just(0.99)
    ];
    let crash = prop_oneof![2 => Just(None), 1 => (0_usize..4).prop_map(Some)];
    (
        (strategies(), exits(), exits(), filters()),
        proptest::collection::vec(group, GROUPS.len()),
        proptest::collection::vec(fault, 0..12),
        (
            share,
            1_u32..9,
            any::<bool>(),
            prop_oneof![2 => Just(0_u32), 1 => 1_u32..4],
            proptest::collection::vec(proptest::bool::weighted(0.15), 0..20),
        ),
        proptest::collection::vec(crash, 0..30),
        disks(),
        (
            proptest::collection::vec(proptest::bool::weighted(0.05), 0..6),
            proptest::bool::weighted(0.85),
        ),
    )
        .prop_map(|(how, groups, mut faults, numbers, crashes, disks, rest)| {
            let (mut no_room, rollback) = rest;
            let (strategy, release, test, filters) = how;
            let (max_unavailable, max_concurrent, ha, retries, lost) = numbers;
            faults.push(Fault::None);
            no_room.push(false);
            // Volumes rule canaries and green Machines out; most fleets with some go on.
            let ruled_out = matches!(strategy, Strategy::Canary | Strategy::Bluegreen);
            let strategy = match strategy {
                _ if ruled_out && max_concurrent > 2 && !disks.has.is_empty() => Strategy::Rolling,
                other => other,
            };
            // A group that there is not is refused; mostly it is not asked for.
            let mut filters: Filters = filters;
            if !filters.update_only {
                let chosen = filters.groups.iter_mut().zip(&groups);
                chosen.for_each(|(chosen, group)| *chosen &= group.1);
            }
            Case {
                strategy,
                groups,
                faults,
                max_unavailable,
                max_concurrent,
                ha,
                retries,
                release,
                test,
                filters,
                lost,
                crashes,
                disks,
                rollback,
                no_room,
            }
        })
}

// === impl Case ===

impl Case {
    fn machines(&self, index: usize) -> usize {
        let (_, _, started, stopped, failed) = self.groups[index];
        started + stopped + failed
    }

    /// Returns whether the deployment is about this group.
    fn is_chosen(&self, index: usize) -> bool {
        let chosen = &self.filters.groups;
        !chosen.contains(&true) || chosen[index]
    }

    /// Returns the name of the volume that fly.toml asks for in a group.
    fn wants(&self, index: usize) -> Option<&'static str> {
        self.disks.groups[index].1.map(|name| NAMES[name])
    }

    /// Returns whether a deployment makes this Machine anew, were it to touch it.
    fn is_replaced(&self, index: usize, machine: &SimMachine) -> bool {
        let has = !machine.spec.config.mounts.is_empty();
        self.strategy == Strategy::Bluegreen || machine.lost || has != self.wants(index).is_some()
    }
}

fn options(case: &Case, sim: &Sim) -> DeployOptions {
    let names = GROUPS.iter().zip(&case.filters.groups);
    let chosen = names.filter(|(_, chosen)| **chosen);
    let machines = sim.machines.keys().zip(&case.filters.left_out);
    let left_out = machines.filter(|(_, out)| **out);
    let region = |only: bool| {
        let said = case.filters.region.filter(|(_, is_only)| *is_only == only);
        said.map(|(at, _)| Region::new(REGIONS[at]).unwrap())
            .into_iter()
            .collect()
    };
    DeployOptions {
        strategy: case.strategy,
        max_unavailable: case.max_unavailable,
        max_concurrent: case.max_concurrent,
        ha: case.ha,
        deploy_retries: case.retries,
        update_only: case.filters.update_only,
        rollback: case.rollback,
        detach_volumes: case.disks.detach,
        filters: DeployFilters {
            process_groups: chosen.map(|(name, _)| group(name)).collect(),
            only_regions: region(true),
            exclude_regions: region(false),
            exclude_machines: left_out.map(|(id, _)| id.clone()).collect(),
            ..DeployFilters::default()
        },
        ..DeployOptions::default()
    }
}

/// Returns the Machines that filters by Machine or region leave out.
fn left_out(sim: &Sim, options: &DeployOptions) -> BTreeSet<MachineId> {
    let filters = &options.filters;
    let is_out = |m: &&SimMachine| {
        let region = &m.spec.region;
        let elsewhere = !filters.only_regions.is_empty() && !filters.only_regions.contains(region);
        elsewhere
            || filters.exclude_regions.contains(region)
            || filters.exclude_machines.contains(&m.spec.id)
    };
    let out = sim.machines.values().filter(is_out);
    out.map(|m| m.spec.id.clone()).collect()
}

fn set_up(case: &Case) -> (Sim, Desired) {
    let mut sim = Sim::new(case.faults.clone());
    sim.no_room.clone_from(&case.no_room);
    let mut wanted = Vec::new();
    for (name, (serves, is_wanted, started, stopped, failed)) in GROUPS.iter().zip(&case.groups) {
        for _ in 0..*started {
            sim.add(name, *serves, MachineState::Started);
        }
        for _ in 0..*stopped {
            sim.add(name, *serves, MachineState::Stopped);
        }
        for _ in 0..*failed {
            sim.add(name, *serves, MachineState::Failed);
        }
        if *is_wanted {
            wanted.push((*name, *serves));
        }
    }
    for (machine, lost) in sim.machines.values_mut().zip(&case.lost) {
        machine.lost = *lost;
    }
    set_up_volumes(case, &mut sim);
    let mut wanted = desired(&wanted);
    for (index, name) in GROUPS.iter().enumerate() {
        let mounts = case.wants(index).map(mount).into_iter().collect();
        if let Some(spec) = wanted.groups.get_mut(&group(name)) {
            spec.config.mounts = mounts;
        }
    }
    if let Some(code) = case.release {
        sim.release_exit = code;
        wanted.release_command = Some(release_command());
    }
    if let Some(code) = case.test {
        sim.test_exit = code;
        for spec in wanted.groups.values_mut() {
            spec.test_machines = vec![test_machine(), test_machine()];
        }
    }
    (sim, wanted)
}

fn set_up_volumes(case: &Case, sim: &mut Sim) {
    for (machine, region) in sim.machines.values_mut().zip(&case.disks.regions) {
        machine.spec.region = Region::new(REGIONS[*region]).unwrap();
    }
    let ids: Vec<MachineId> = sim.machines.keys().cloned().collect();
    for (id, has) in ids.iter().zip(&case.disks.has) {
        let name = sim.machines[id].spec.config.process_group();
        let index = GROUPS.iter().position(|g| *g == name).unwrap();
        if let (true, Some(name)) = (has, case.disks.groups[index].0) {
            sim.attach(id, NAMES[name]);
        }
    }
    for (name, region) in &case.disks.free {
        sim.add_volume(NAMES[*name], REGIONS[*region]);
    }
}

/// What a Machine is: group, image, secrets, release, whether it is to run, is cordoned, and its
/// volume.
type Portrait = (
    String,
    String,
    u64,
    Option<String>,
    bool,
    bool,
    Option<String>,
);
/// What each Machine is.
type Picture = BTreeMap<MachineId, Portrait>;

fn picture(sim: &Sim) -> Picture {
    let alive = |m: &&SimMachine| m.state().is_active();
    let machines = sim.machines.values().filter(alive);
    machines
        .map(|m| {
            let config = &m.spec.config;
            let value = (
                config.process_group().to_owned(),
                m.spec.image_ref.digest.clone(),
                m.spec.secrets_version,
                config.metadata.get("fly_release_id").cloned(),
                matches!(m.state(), MachineState::Started | MachineState::Failed),
                m.spec.cordoned,
                config.mounts.first().map(|mount| mount.volume.clone()),
            );
            (m.spec.id.clone(), value)
        })
        .collect()
}

fn pool(max_unavailable: f64, total: usize) -> usize {
    let total_f = f64::from(u32::try_from(total).unwrap());
    let pool = if max_unavailable >= 1.0 {
        max_unavailable.floor()
    } else {
        (total_f * max_unavailable).ceil()
    };
    (1..=total.max(1))
        .rfind(|n| f64::from(u32::try_from(*n).unwrap()) <= pool)
        .unwrap_or(1)
}

/// Returns how many Machines of each group must always be healthy and in the proxy.
fn promised(case: &Case, sim: &Sim, left: &BTreeSet<MachineId>) -> BTreeMap<&'static str, usize> {
    let mut out = BTreeMap::new();
    for (index, name) in GROUPS.iter().enumerate() {
        let (_, is_wanted, started, ..) = case.groups[index];
        let touched = case.is_chosen(index);
        let warm = sim.alive(name).into_iter().filter(|m| {
            let stays = left.contains(&m.spec.id) || case.is_replaced(index, m);
            m.state() == MachineState::Started && !stays
        });
        let warm = warm.count();
        let least = match case.strategy {
            _ if !touched => started,
            _ if !is_wanted => 0,
            Strategy::Immediate => 0,
            Strategy::Bluegreen => started,
            Strategy::Rolling | Strategy::Canary => {
                // Those that are made anew go when the new ones serve.
                started - pool(case.max_unavailable, warm).min(warm)
            }
        };
        assert!(sim.serving(name) >= least);
        out.insert(*name, least);
    }
    out
}

type Checked = Option<(Verdict, Picture)>;

fn check(case: &Case, crashes: &[Option<usize>]) -> Result<Checked, TestCaseError> {
    let (mut sim, wanted) = set_up(case);
    let options = options(case, &sim);
    let left = left_out(&sim, &options);
    if is_refused(case, &sim, &wanted, &options, &left)? {
        return Ok(None);
    }
    make_volumes(case, &mut sim, &wanted, &options)?;
    let (before, volumes) = (picture(&sim), sim.volumes.clone());
    let promised = promised(case, &sim, &left);
    let (olds, news) = changing(case);
    let mut broken: Vec<String> = Vec::new();
    let (verdict, progress) = drive(&mut sim, &wanted, &options, crashes, |sim, progress| {
        for (name, least) in &promised {
            let serving = sim.serving(name);
            if serving < *least {
                broken.push(format!("{name}: {serving} of {least} at {}", sim.now));
            }
        }
        let new_ones_serve = news.iter().all(|n| sim.healthy(n) > 0);
        let old_ones_go = olds
            .iter()
            .any(|n| sim.alive(n).iter().any(|m| m.spec.cordoned));
        if old_ones_go && !(new_ones_serve && progress.is_past_return()) {
            broken.push(format!(
                "old groups go before new ones serve at {}",
                sim.now
            ));
        }
        broken.extend(sim.misattached());
        if sim.releases_run > 1 {
            broken.push(format!("a release command twice at {}", sim.now));
        }
    });
    prop_assert!(broken.is_empty(), "{broken:?}\n{}", sim.log.join("\n"));
    let again = plan(&wanted, &sim.fleet(), &progress, sim.time(), &options);
    prop_assert!(again.ready.is_empty() && again.gates.is_empty() && !again.changed);
    let after = picture(&sim);
    let machines_seen = sim.machines.values().filter_map(|m| m.key.as_ref());
    prop_assert_eq!(machines_seen.count(), sim.keys.len(), "one Machine a key");
    no_job_is_left(&sim)?;
    for id in &left {
        prop_assert_eq!(before.get(id), after.get(id), "left out, and touched");
    }
    prop_assert_eq!(volumes.len(), sim.volumes.len());
    for (was, is) in volumes.iter().zip(&sim.volumes) {
        prop_assert_eq!(&was.id, &is.id, "a volume is gone");
    }
    match &verdict {
        Verdict::Complete => {
            prop_assert!(case.release.is_none_or(|code| code == 0));
            prop_assert_eq!(sim.releases_run, usize::from(case.release.is_some()));
            reached(case, &sim, &left, &before, &after)?;
        }
        Verdict::RolledBack { .. } => {
            prop_assert_eq!(&before, &after);
            prop_assert_eq!(&volumes, &sim.volumes);
        }
        Verdict::Failed { .. } if case.strategy == Strategy::Immediate || !case.rollback => {
            let is_tried = case.release.is_none_or(|code| code == 0);
            prop_assert!(is_tried || !case.rollback);
            no_second_fleet(&left, &before, &after)?;
        }
        other => prop_assert!(false, "ended as {:?}", other),
    }
    Ok(Some((verdict, after)))
}

/// Returns the groups that go, and those whose first Machines have to serve before.
fn changing(case: &Case) -> (Vec<&'static str>, Vec<&'static str>) {
    let with = |is_wanted: bool, any: bool| {
        let indexes = (0..GROUPS.len()).filter(|index| case.is_chosen(*index));
        let found = indexes
            .filter(move |i| case.groups[*i].1 == is_wanted && (case.machines(*i) > 0) == any);
        found.map(|i| GROUPS[i]).collect::<Vec<&str>>()
    };
    let (olds, mut news) = (with(false, true), with(true, false));
    if case.filters.update_only || case.strategy == Strategy::Immediate {
        news.clear();
    }
    (olds, news)
}

/// Returns whether the deployment is refused, as it has to be when there is a ground and only then.
fn is_refused(
    case: &Case,
    sim: &Sim,
    wanted: &Desired,
    options: &DeployOptions,
    left: &BTreeSet<MachineId>,
) -> Result<bool, TestCaseError> {
    let reason = refuse(wanted, &sim.fleet(), options);
    let grounds = refusals::grounds(case, sim, left);
    let is_ground = |reason: &String| grounds.iter().any(|ground| reason.contains(ground));
    prop_assert!(
        reason.as_ref().map_or(grounds.is_empty(), is_ground),
        "{:?} is said, and these are the grounds: {:?}",
        reason,
        grounds
    );
    Ok(reason.is_some())
}

/// What failed and was left as it is has no two fleets side by side.
fn no_second_fleet(
    left: &BTreeSet<MachineId>,
    before: &Picture,
    after: &Picture,
) -> Result<(), TestCaseError> {
    for name in GROUPS {
        let count = |picture: &Picture| {
            let ours = picture.iter().filter(|(id, _)| !left.contains(*id));
            ours.filter(|(_, p)| p.0 == name).count()
        };
        let (was, is) = (count(before), count(after));
        // A group without Machines gets one or two.
        let most = if was == 0 { 2 } else { was };
        prop_assert!(is <= most, "{} has {} Machines, not {}", name, is, was);
    }
    Ok(())
}

/// Makes the volumes of a first deploy: as many as nobody has, where the Machines will be.
fn make_volumes(
    case: &Case,
    sim: &mut Sim,
    wanted: &Desired,
    options: &DeployOptions,
) -> Result<(), TestCaseError> {
    let made = new_volumes(wanted, &sim.fleet(), options);
    let is_first = sim.machines.is_empty() && !options.update_only;
    for name in NAMES {
        let indexes = (0..GROUPS.len()).filter(|i| case.groups[*i].1 && case.is_chosen(*i));
        let asked = indexes.filter(|i| case.wants(*i) == Some(name)).count();
        let free = sim
            .volumes
            .iter()
            .filter(|v| v.name == name && v.region.as_str() == REGIONS[0] && v.attached.is_none());
        let missing = asked.saturating_sub(free.count());
        let new = made.iter().filter(|v| v.name == name).count();
        prop_assert_eq!(new, if is_first { missing } else { 0 }, "new {}", name);
    }
    sim.make(&made);
    Ok(())
}

fn no_job_is_left(sim: &Sim) -> Result<(), TestCaseError> {
    let mut jobs = sim.machines.values().filter(|m| m.spec.config.auto_destroy);
    prop_assert!(
        jobs.all(|m| m.state() == MachineState::Destroyed),
        "a Machine that runs once is left"
    );
    Ok(())
}

/// What a deployment that is complete has reached, group by group.
fn reached(
    case: &Case,
    sim: &Sim,
    left: &BTreeSet<MachineId>,
    before: &Picture,
    after: &Picture,
) -> Result<(), TestCaseError> {
    let out = |id: &MachineId| left.contains(id);
    for (index, name) in GROUPS.iter().enumerate() {
        let (serves, is_wanted, ..) = case.groups[index];
        let of_group = |p: &&Portrait| p.0 == *name;
        let was: Vec<&Portrait> = before.values().filter(of_group).collect();
        let is: Vec<&Portrait> = after.values().filter(of_group).collect();
        if !case.is_chosen(index) {
            prop_assert_eq!(was, is, "{} was not chosen", name);
            continue;
        }
        let stays = before.iter().filter(|(id, p)| p.0 == *name && out(id));
        let stays: Vec<&Portrait> = stays.map(|(_, p)| p).collect();
        let moved: Vec<&Portrait> = {
            let ids = before.iter().filter(|(id, p)| p.0 == *name && !out(id));
            ids.map(|(_, p)| p).collect()
        };
        let ran = moved.iter().filter(|p| p.4).count();
        let alone = case.strategy == Strategy::Bluegreen && serves && ran == 0;
        let (count, running) = match (is_wanted, moved.len()) {
            (false, _) => (0, 0),
            (true, 0) if case.filters.update_only => (0, 0),
            (true, 0) if case.wants(index).is_some() => (1, 1),
            (true, 0) => match (case.ha, serves) {
                (false, _) => (1, 1),
                (true, true) => (2, 2),
                (true, false) => (2, 1),
            },
            (true, n) => (n, ran + usize::from(alone)),
        };
        let new = after.iter().filter(|(id, p)| p.0 == *name && !out(id));
        let new: Vec<(&MachineId, &Portrait)> = new.collect();
        prop_assert_eq!(is.len(), count + stays.len(), "{}", name);
        if case.strategy != Strategy::Immediate {
            let up = new.iter().filter(|(_, p)| p.4).count();
            prop_assert_eq!(up, running, "{}\n{}", name, sim.log.join("\n"));
        }
        for (id, now) in new {
            prop_assert_eq!(&now.1, &image("v2").digest);
            prop_assert_eq!(now.2, 7);
            prop_assert_eq!(now.3.clone(), Some(release_id(2).to_string()));
            prop_assert!(!now.5, "{} stays out of the proxy", id);
            let then = before.get(id);
            prop_assert!(
                then.is_none() || !case.is_replaced(index, &sim.machines[id]),
                "a blue or lost Machine is left"
            );
            let mount = sim.machines[id].spec.config.mounts.first();
            prop_assert_eq!(mount.map(|m| m.name.as_str()), case.wants(index));
            if let Some(then) = then {
                prop_assert_eq!(&then.6, &now.6, "{} has another volume", id);
            }
        }
    }
    let known = |p: &Portrait| GROUPS.contains(&p.0.as_str());
    prop_assert!(
        after.values().all(known),
        "something is left over: {:?}",
        after
    );
    Ok(())
}

/// Random fleets of one property; many more in the long form (`HANGAR_LONG=1`).
fn fleets() -> u32 {
    if std::env::var_os("HANGAR_LONG").is_some() {
        10_000
    } else {
        300
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: fleets(),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_deployment_ends_as_wanted_or_as_it_began(case in cases()) {
        check(&case, &[])?;
    }

    #[test]
    fn a_crash_after_any_step_reaches_the_same_kind_of_end(case in cases()) {
        // Which Machine takes the new version first may differ, so faults are all or nothing.
        let worst = case.faults[0];
        let no_room = vec![case.no_room[0]];
        let case = Case { faults: vec![worst], no_room, ..case };
        let plain = check(&case, &[])?.map(|(verdict, _)| verdict.status());
        let crashed = check(&case, &case.crashes)?.map(|(verdict, _)| verdict.status());
        prop_assert_eq!(plain, crashed);
    }

    #[test]
    fn a_restart_changes_secrets_and_release_and_nothing_else(case in cases()) {
        restarts::check(&case, &[])?;
        restarts::check(&case, &case.crashes)?;
    }

    #[test]
    fn crashes_and_faults_together_still_end_well(case in cases()) {
        check(&case, &case.crashes)?;
    }
}
