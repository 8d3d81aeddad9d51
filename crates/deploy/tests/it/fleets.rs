//! Random fleets, configurations, faults and crashes of the server.

use std::collections::BTreeMap;

use hangar_api::deployment::{DeployFilters, DeployOptions, Strategy};
use hangar_api::id::MachineId;
use hangar_api::machine::MachineState;
use hangar_deploy::{Desired, Verdict, plan, refuse};
use proptest::prelude::{Just, ProptestConfig, TestCaseError, any, prop_assert, prop_assert_eq};
use proptest::strategy::Strategy as _;
use proptest::{prop_oneof, proptest};

use crate::sim::{
    Fault, Sim, desired, drive, group, image, release_command, release_id, test_machine,
};

const GROUPS: [&str; 4] = ["api", "cron", "web", "worker"];

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
}

/// Which Machines are deployed to.
#[derive(Clone, Debug)]
struct Filters {
    /// For each group whether it is chosen; all are when none is.
    groups: Vec<bool>,
    /// For each Machine in the order of creation whether it is left out.
    left_out: Vec<bool>,
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
        update_only: false,
    };
    let some = (
        proptest::collection::vec(any::<bool>(), GROUPS.len()),
        proptest::collection::vec(proptest::bool::weighted(0.2), 0..20),
        any::<bool>(),
    )
        .prop_map(|(groups, left_out, update_only)| Filters {
            groups,
            left_out,
            update_only,
        });
    prop_oneof![2 => Just(none), 1 => some]
}

fn exits() -> impl proptest::strategy::Strategy<Value = Option<i32>> {
    prop_oneof![3 => Just(None), 2 => Just(Some(0)), 1 => Just(Some(3))]
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
    )
        .prop_map(|(how, groups, mut faults, numbers, crashes)| {
            let (strategy, release, test, filters) = how;
            let (max_unavailable, max_concurrent, ha, retries, lost) = numbers;
            faults.push(Fault::None);
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
}

fn options(case: &Case, sim: &Sim) -> DeployOptions {
    let names = GROUPS.iter().zip(&case.filters.groups);
    let chosen = names.filter(|(_, chosen)| **chosen);
    let machines = sim.machines.keys().zip(&case.filters.left_out);
    let left_out = machines.filter(|(_, out)| **out);
    DeployOptions {
        strategy: case.strategy,
        max_unavailable: case.max_unavailable,
        max_concurrent: case.max_concurrent,
        ha: case.ha,
        deploy_retries: case.retries,
        update_only: case.filters.update_only,
        filters: DeployFilters {
            process_groups: chosen.map(|(name, _)| group(name)).collect(),
            exclude_machines: left_out.map(|(id, _)| id.clone()).collect(),
            ..DeployFilters::default()
        },
        ..DeployOptions::default()
    }
}

fn set_up(case: &Case) -> (Sim, Desired) {
    let mut sim = Sim::new(case.faults.clone());
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
    let mut wanted = desired(&wanted);
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

/// What a Machine is: group, image, secrets, release, whether it is to run, and is cordoned.
type Portrait = (String, String, u64, Option<String>, bool, bool);
/// What each Machine is.
type Picture = BTreeMap<MachineId, Portrait>;

fn picture(sim: &Sim) -> Picture {
    let alive = |m: &&crate::sim::SimMachine| m.state().is_active();
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
fn promised(case: &Case, sim: &Sim) -> BTreeMap<&'static str, usize> {
    let mut out = BTreeMap::new();
    for (index, name) in GROUPS.iter().enumerate() {
        let (_, is_wanted, started, ..) = case.groups[index];
        let touched = case.is_chosen(index);
        let least = match case.strategy {
            _ if !touched => started,
            _ if !is_wanted => 0,
            Strategy::Immediate => 0,
            Strategy::Bluegreen => started,
            Strategy::Rolling | Strategy::Canary => {
                started - pool(case.max_unavailable, started).min(started)
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
    if let Some(reason) = refuse(&wanted, &sim.fleet(), &options) {
        prop_assert!(
            reason.contains("no process group") || reason.contains("at least 1 check"),
            "{}",
            reason
        );
        return Ok(None);
    }
    let before = picture(&sim);
    let promised = promised(case, &sim);
    let chosen = |index: &usize| case.is_chosen(*index);
    let with = |is_wanted: bool, any: bool| {
        let indexes = (0..GROUPS.len()).filter(chosen);
        let found = indexes
            .filter(move |i| case.groups[*i].1 == is_wanted && (case.machines(*i) > 0) == any);
        found.map(|i| GROUPS[i]).collect::<Vec<&str>>()
    };
    let (olds, mut news) = (with(false, true), with(true, false));
    if case.filters.update_only || case.strategy == Strategy::Immediate {
        news.clear();
    }
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
    for id in &options.filters.exclude_machines {
        prop_assert_eq!(before.get(id), after.get(id), "left out, and touched");
    }
    match &verdict {
        Verdict::Complete => {
            prop_assert!(case.release.is_none_or(|code| code == 0));
            prop_assert_eq!(sim.releases_run, usize::from(case.release.is_some()));
            reached(case, &sim, &options, &before, &after)?;
        }
        Verdict::RolledBack { .. } => prop_assert_eq!(&before, &after),
        Verdict::Failed { .. } if case.strategy == Strategy::Immediate => {
            prop_assert!(case.release.is_none_or(|code| code == 0));
        }
        other => prop_assert!(false, "ended as {:?}", other),
    }
    Ok(Some((verdict, after)))
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
    options: &DeployOptions,
    before: &Picture,
    after: &Picture,
) -> Result<(), TestCaseError> {
    let out = |id: &MachineId| options.filters.exclude_machines.contains(id);
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
            let is_replaced = case.strategy == Strategy::Bluegreen || sim.machines[id].lost;
            prop_assert!(
                then.is_none() || !is_replaced,
                "a blue or lost Machine is left"
            );
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
        let case = Case { faults: vec![worst], ..case };
        let plain = check(&case, &[])?.map(|(verdict, _)| verdict.status());
        let crashed = check(&case, &case.crashes)?.map(|(verdict, _)| verdict.status());
        prop_assert_eq!(plain, crashed);
    }

    #[test]
    fn crashes_and_faults_together_still_end_well(case in cases()) {
        check(&case, &case.crashes)?;
    }
}
