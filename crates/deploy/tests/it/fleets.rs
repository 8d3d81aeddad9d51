//! Random fleets, configurations, faults and crashes of the server.

use std::collections::BTreeMap;

use hangar_api::deployment::DeployOptions;
use hangar_api::id::MachineId;
use hangar_api::machine::MachineState;
use hangar_deploy::{Desired, Verdict, plan};
use proptest::prelude::*;

use crate::sim::{Fault, Sim, desired, drive, image, release_id};

const GROUPS: [&str; 4] = ["api", "cron", "web", "worker"];

#[derive(Clone, Debug)]
struct Case {
    /// For each group: serves, is wanted, Machines started, stopped, and that failed to start.
    groups: Vec<(bool, bool, usize, usize, usize)>,
    faults: Vec<Fault>,
    max_unavailable: f64,
    ha: bool,
    crashes: Vec<Option<usize>>,
}

fn cases() -> impl Strategy<Value = Case> {
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
        proptest::collection::vec(group, GROUPS.len()),
        proptest::collection::vec(fault, 0..12),
        share,
        any::<bool>(),
        proptest::collection::vec(crash, 0..30),
    )
        .prop_map(|(groups, mut faults, max_unavailable, ha, crashes)| {
            faults.push(Fault::None);
            Case {
                groups,
                faults,
                max_unavailable,
                ha,
                crashes,
            }
        })
}

fn options(case: &Case) -> DeployOptions {
    DeployOptions {
        max_unavailable: case.max_unavailable,
        ha: case.ha,
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
    let wanted = desired(&wanted);
    (sim, wanted)
}

/// Returns what each Machine is: group, image, secrets, release, whether it runs or is to run.
type Picture = BTreeMap<MachineId, (String, String, u64, Option<String>, bool)>;

fn picture(sim: &Sim) -> Picture {
    let alive = |m: &&crate::sim::SimMachine| m.state() != MachineState::Destroyed;
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

fn check(case: &Case, crashes: &[Option<usize>]) -> Result<(Verdict, Picture), TestCaseError> {
    let (mut sim, wanted) = set_up(case);
    let options = options(case);
    let before = picture(&sim);
    let mut promised: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, (_, is_wanted, started, ..)) in GROUPS.iter().zip(&case.groups) {
        if *is_wanted && *started > 0 {
            promised.insert(name, started - pool(case.max_unavailable, *started));
        }
    }
    let olds: Vec<&str> = GROUPS
        .iter()
        .zip(&case.groups)
        .filter(|(_, g)| !g.1 && g.2 > 0)
        .map(|(n, _)| *n)
        .collect();
    let news: Vec<&str> = GROUPS
        .iter()
        .zip(&case.groups)
        .filter(|(_, g)| g.1 && g.2 + g.3 + g.4 == 0)
        .map(|(n, _)| *n)
        .collect();
    let mut broken: Vec<String> = Vec::new();
    let (verdict, progress) = drive(&mut sim, &wanted, &options, crashes, |sim, progress| {
        for (name, least) in &promised {
            let healthy = sim.healthy(name);
            if healthy < *least {
                broken.push(format!("{name}: {healthy} of {least} at {}", sim.now));
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
    });
    prop_assert!(broken.is_empty(), "{broken:?}\n{}", sim.log.join("\n"));
    let again = plan(&wanted, &sim.fleet(), &progress, sim.time(), &options);
    prop_assert!(again.ready.is_empty() && again.gates.is_empty() && !again.changed);
    let after = picture(&sim);
    let machines_seen = sim.machines.values().filter_map(|m| m.key.as_ref());
    prop_assert_eq!(machines_seen.count(), sim.keys.len(), "one Machine a key");
    match &verdict {
        Verdict::Complete => reached(case, &before, &after)?,
        Verdict::RolledBack { .. } => prop_assert_eq!(&before, &after),
        other => prop_assert!(false, "ended as {:?}", other),
    }
    Ok((verdict, after))
}

fn reached(case: &Case, before: &Picture, after: &Picture) -> Result<(), TestCaseError> {
    for (id, now) in after {
        prop_assert_eq!(&now.1, &image("v2").digest);
        prop_assert_eq!(now.2, 7);
        prop_assert_eq!(now.3.clone(), Some(release_id(2).to_string()));
        if let Some(then) = before.get(id) {
            prop_assert_eq!(then.4, now.4, "stopped ones stay stopped, started ones run");
        }
    }
    for (name, (serves, is_wanted, started, stopped, failed)) in GROUPS.iter().zip(&case.groups) {
        let count = after.values().filter(|m| m.0 == *name).count();
        let running = after.values().filter(|m| m.0 == *name && m.4).count();
        let wanted = match (is_wanted, started + stopped + failed) {
            (false, _) => (0, 0),
            (true, 0) => match (case.ha, serves) {
                (false, _) => (1, 1),
                (true, true) => (2, 2),
                (true, false) => (2, 1),
            },
            (true, n) => (n, started + failed),
        };
        prop_assert_eq!((count, running), wanted, "{}", name);
    }
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
        let (plain, _) = check(&case, &[])?;
        let (crashed, _) = check(&case, &case.crashes)?;
        prop_assert_eq!(plain.status(), crashed.status());
    }

    #[test]
    fn crashes_and_faults_together_still_end_well(case in cases()) {
        check(&case, &case.crashes)?;
    }
}
