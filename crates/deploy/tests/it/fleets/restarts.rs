//! Random fleets that only start again, with new secrets: nothing else of them changes.

use std::collections::BTreeSet;

use hangar_api::deployment::Strategy;
use hangar_api::id::MachineId;
use hangar_api::machine::MachineState;
use hangar_deploy::{Kind, Verdict, plan, refuse};
use proptest::prelude::{TestCaseError, prop_assert, prop_assert_eq};

use super::{Case, GROUPS, Picture, left_out, options, picture, pool, set_up};
use crate::sim::{Sim, SimMachine, drive, image, release_id};

/// Returns the Machines that are restarted, with the places of their groups.
fn touched<'a>(
    case: &Case,
    sim: &'a Sim,
    left: &BTreeSet<MachineId>,
) -> Vec<(usize, &'a SimMachine)> {
    let groups = (0..GROUPS.len()).filter(|index| case.is_chosen(*index));
    let all = groups.flat_map(|i| sim.alive(GROUPS[i]).into_iter().map(move |m| (i, m)));
    all.filter(|(_, m)| !left.contains(&m.spec.id)).collect()
}

/// Returns a part of what is said when it is refused.
fn ground(case: &Case, touched: &[(usize, &SimMachine)]) -> Option<&'static str> {
    if case.strategy != Strategy::Bluegreen || touched.is_empty() {
        return None;
    }
    if touched
        .iter()
        .any(|(_, m)| !m.spec.config.mounts.is_empty())
    {
        return Some("not supported when using mounted volumes");
    }
    let checked = touched.iter().any(|(i, _)| case.groups[*i].0);
    (!checked).then_some("at least 1 check")
}

/// Returns how many Machines of a group always serve.
fn promised(case: &Case, index: usize, touched: &[(usize, &SimMachine)]) -> usize {
    let (.., started, _, _) = case.groups[index];
    let is_warm = |m: &SimMachine| m.state() == MachineState::Started;
    let warm = touched.iter().filter(|(i, m)| *i == index && is_warm(m));
    let warm = warm.count();
    match case.strategy {
        Strategy::Immediate => started - warm,
        Strategy::Bluegreen => started,
        Strategy::Rolling | Strategy::Canary => {
            started - pool(case.max_unavailable, warm).min(warm)
        }
    }
}

pub(super) fn check(case: &Case, crashes: &[Option<usize>]) -> Result<(), TestCaseError> {
    let (mut sim, mut wanted) = set_up(case);
    wanted.kind = Kind::RestartOnly;
    let options = options(case, &sim);
    let left = left_out(&sim, &options);
    let all = touched(case, &sim, &left);
    let ground = ground(case, &all);
    let said = refuse(&wanted, &sim.fleet(), &options);
    prop_assert_eq!(said.is_some(), ground.is_some(), "{:?} {:?}", said, ground);
    if let (Some(said), Some(ground)) = (said, ground) {
        prop_assert!(said.contains(ground), "{}", said);
        return Ok(());
    }
    let least: Vec<usize> = (0..GROUPS.len()).map(|i| promised(case, i, &all)).collect();
    let moved: BTreeSet<MachineId> = all.iter().map(|(_, m)| m.spec.id.clone()).collect();
    let (before, volumes) = (picture(&sim), sim.volumes.clone());
    let mut broken: Vec<String> = Vec::new();
    let (verdict, progress) = drive(&mut sim, &wanted, &options, crashes, |sim, _| {
        for (name, least) in GROUPS.iter().zip(&least) {
            if sim.serving(name) < *least {
                broken.push(format!("{name}: less than {least} at {}", sim.now));
            }
        }
        broken.extend(sim.misattached());
    });
    prop_assert!(broken.is_empty(), "{broken:?}\n{}", sim.log.join("\n"));
    let again = plan(&wanted, &sim.fleet(), &progress, sim.time(), &options);
    prop_assert!(again.ready.is_empty() && again.gates.is_empty() && !again.changed);
    prop_assert_eq!(&volumes, &sim.volumes);
    prop_assert_eq!(sim.releases_run, 0, "a release command for a restart");
    let after = picture(&sim);
    match verdict {
        Verdict::Complete => restarted(case, &moved, &before, &after),
        Verdict::RolledBack { .. } => {
            prop_assert_eq!(&before, &after);
            Ok(())
        }
        Verdict::Failed { .. } if !case.rollback => {
            prop_assert_eq!(before.len(), after.len(), "two fleets");
            Ok(())
        }
        other => {
            prop_assert!(false, "ended as {:?}", other);
            Ok(())
        }
    }
}

/// All of them have the new secrets and the release's number, and else what they had.
fn restarted(
    case: &Case,
    moved: &BTreeSet<MachineId>,
    before: &Picture,
    after: &Picture,
) -> Result<(), TestCaseError> {
    prop_assert_eq!(before.len(), after.len());
    for (id, now) in after {
        let then = before.get(id);
        if then.is_some() && !moved.contains(id) {
            prop_assert_eq!(then, Some(now), "left out, and touched");
            continue;
        }
        prop_assert_eq!(&now.1, &image("v1").digest);
        prop_assert_eq!((now.2, now.5), (7, false));
        prop_assert_eq!(now.3.clone(), Some(release_id(2).to_string()));
        let is_green = case.strategy == Strategy::Bluegreen;
        prop_assert_eq!(then.is_some(), !is_green, "{} is another Machine", id);
        if let Some(then) = then {
            prop_assert_eq!((&then.0, &then.6), (&now.0, &now.6));
        }
    }
    Ok(())
}
