//! `--deploy-retries`: updates that failed for what may go better another time.

use hangar_api::deployment::{DeployOptions, Strategy};
use hangar_api::machine::MachineState;
use hangar_deploy::{Progress, Verdict};
use proptest::prelude::{Just, ProptestConfig, any, prop_assert, prop_assert_eq};
use proptest::{prop_oneof, proptest};

use crate::sim::{Fault, Sim, desired, drive, image};

/// Deploys to so many Machines of one group, and returns how it ended and what was done.
fn deploy(
    machines: usize,
    faults: Vec<Fault>,
    crashes: &[Option<usize>],
    options: &DeployOptions,
) -> (Verdict, Sim, Progress) {
    let mut sim = Sim::new(faults);
    for _ in 0..machines {
        sim.add("web", true, MachineState::Started);
    }
    let wanted = desired(&[("web", true)]);
    let (verdict, progress) = drive(&mut sim, &wanted, options, crashes, |_, _| {});
    (verdict, sim, progress)
}

fn with(deploy_retries: u32) -> DeployOptions {
    DeployOptions {
        deploy_retries,
        ..DeployOptions::default()
    }
}

/// Returns the times at which Machines were asked to take version 2.
fn tries(sim: &Sim) -> Vec<i64> {
    let updates = sim.log.iter().filter(|l| l.ends_with("sha256:v2"));
    updates
        .map(|line| line.split(' ').next().unwrap().parse().unwrap())
        .collect()
}

/// Row: TestUpdateMachines, update failures are retried.
#[test]
fn what_the_host_could_not_do_is_tried_again_a_second_later() {
    let faults = vec![Fault::NoImage, Fault::NoImage, Fault::None];
    let (verdict, sim, _) = deploy(1, faults.clone(), &[], &with(2));
    assert_eq!(verdict, Verdict::Complete, "{:?}", sim.log);
    let tries = tries(&sim);
    assert_eq!(tries.len(), 3, "{:?}", sim.log);
    assert!(tries.windows(2).all(|pair| pair[1] - pair[0] >= 1_000));
    let (verdict, sim, _) = deploy(1, faults, &[], &with(1));
    assert!(matches!(verdict, Verdict::RolledBack { .. }), "{verdict:?}");
    assert_eq!(sim.healthy("web"), 1);
}

/// Row: TestUpdateMachines, an unrecoverable error fails at once.
#[test]
fn a_crash_and_a_failing_check_fail_at_once() {
    for fault in [Fault::Crashes, Fault::NeverHealthy] {
        let (verdict, sim, _) = deploy(1, vec![fault, Fault::None], &[], &with(3));
        assert!(matches!(verdict, Verdict::RolledBack { .. }), "{verdict:?}");
        assert_eq!(tries(&sim).len(), 1, "{fault:?}: {:?}", sim.log);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// However often the server dies in between, no Machine is asked more often than it was told,
    /// a deploy whose failures are fewer than its tries is complete, and one Machine that always
    /// fails is tried exactly so often.
    #[test]
    fn each_machine_is_tried_as_often_as_told_and_no_more(
        machines in 1_usize..8,
        failures in 0_usize..6,
        retries in 0_u32..4,
        strategy in prop_oneof![Just(Strategy::Rolling), Just(Strategy::Immediate)],
        crashes in proptest::collection::vec(
            prop_oneof![2 => Just(None), 1 => Just(Some(0_usize)), 1 => Just(Some(1))], 0..20),
        for_ever in any::<bool>(),
    ) {
        let mut faults = vec![Fault::NoImage; failures];
        faults.push(if for_ever { Fault::NoImage } else { Fault::None });
        let options = DeployOptions { strategy, ..with(retries) };
        let (verdict, sim, progress) = deploy(machines, faults, &crashes, &options);
        let tries = tries(&sim).len();
        let allowed = usize::try_from(retries).unwrap() + 1;
        prop_assert!(tries <= machines * allowed, "{tries} tries\n{}", sim.log.join("\n"));
        for target in progress.targets.values() {
            prop_assert!(target.again.as_ref().is_none_or(|again| again.tries <= retries));
        }
        if for_ever && machines == 1 {
            prop_assert_eq!(tries, allowed, "{}", sim.log.join("\n"));
        }
        if for_ever {
            prop_assert!(verdict.failure().is_some(), "{:?}", verdict);
        } else if failures < allowed {
            prop_assert_eq!(&verdict, &Verdict::Complete, "{}", sim.log.join("\n"));
            let new = sim.alive("web").into_iter().filter(|m| m.spec.image_ref == image("v2"));
            prop_assert_eq!(new.count(), machines);
        }
    }
}
