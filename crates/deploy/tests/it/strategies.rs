//! Strategies, release command, test Machines and filters by example.

use hangar_api::deployment::{DeployFilters, DeployOptions, Strategy};
use hangar_api::id::Region;
use hangar_api::machine::MachineState::{Started, Stopped};
use hangar_api::machine::{Guest, Mount};
use hangar_deploy::mounts::FreeVolume;
use hangar_deploy::{Desired, Step, Verdict, plan, preview, refuse};

use crate::sim::{
    Fault, Sim, SimMachine, by, desired, group, name, release_command, run, test_machine,
};

fn steps(sim: &Sim) -> Vec<String> {
    let strip = |l: &String| l.split_once(' ').unwrap().1.to_owned();
    sim.log.iter().map(strip).collect()
}

/// Returns the configuration of the first Machine that a first plan creates.
fn first_created(sim: &Sim, wanted: &Desired, options: &DeployOptions) -> Step {
    let progress = hangar_deploy::Progress::default();
    let plan = plan(wanted, &sim.fleet(), &progress, sim.time(), options);
    plan.ready.into_iter().next().unwrap()
}

#[test]
fn bluegreen_lets_all_green_machines_in_before_any_blue_one_goes() {
    let mut sim = Sim::new(vec![]);
    let blue: Vec<_> = (0..2).map(|_| sim.add("web", true, Started)).collect();
    let wanted = desired(&[("web", true)]);
    assert_eq!(
        preview(&wanted, &sim.fleet(), &by(Strategy::Bluegreen)),
        [" * replace 2 \"web\" machines (a new one beside each, then the old ones are destroyed)"]
    );
    assert_eq!(
        run(&mut sim, &wanted, &by(Strategy::Bluegreen)),
        Verdict::Complete
    );
    let (a, b) = (&blue[0].as_str()[10..], &blue[1].as_str()[10..]);
    let told = steps(&sim);
    let at = |step: &str| told.iter().position(|s| s == step).unwrap();
    let last_in = told
        .iter()
        .rposition(|s| s.starts_with("uncordon"))
        .unwrap();
    assert_eq!(at("create web/2000000"), 0);
    assert!(at("create web/2000001") < last_in);
    for id in [a, b] {
        assert!(last_in < at(&format!("cordon {id}")));
        assert!(at(&format!("cordon {id}")) < at(&format!("destroy {id}")));
    }
}

#[test]
fn a_green_standby_watches_the_green_machine() {
    let mut sim = Sim::new(vec![]);
    let web = sim.add("web", true, Started);
    let first = sim.add("worker", false, Started);
    let standby = sim.add("worker", false, Stopped);
    let config = &mut sim.machines.get_mut(&standby).unwrap().spec.config;
    config.standbys = vec![first.to_string()];
    let wanted = desired(&[("web", true), ("worker", false)]);
    assert_eq!(
        run(&mut sim, &wanted, &by(Strategy::Bluegreen)),
        Verdict::Complete
    );
    let workers = sim.alive("worker");
    let (up, down): (Vec<&SimMachine>, Vec<&SimMachine>) =
        workers.into_iter().partition(|m| m.state() == Started);
    assert_eq!((up.len(), down.len()), (1, 1));
    let id = up[0].spec.id.to_string();
    assert_eq!(down[0].spec.config.standbys, std::slice::from_ref(&id));
    assert_eq!(down[0].spec.config.env["FLY_STANDBY_FOR"], id);
    assert!(!sim.alive("web").iter().any(|m| m.spec.id == web));
}

#[test]
fn bluegreen_without_checks_or_with_volumes_is_refused_before_anything_begins() {
    let mut sim = Sim::new(vec![]);
    sim.add("worker", false, Started);
    let mut wanted = desired(&[("worker", false)]);
    let options = by(Strategy::Bluegreen);
    let said = refuse(&wanted, &sim.fleet(), &options).unwrap();
    assert!(said.contains("define at least 1 check"), "{said}");
    let config = &mut wanted.groups.get_mut(&group("worker")).unwrap().config;
    config.mounts = vec![Mount {
        name: "data".to_owned(),
        path: "/data".to_owned(),
        ..Mount::default()
    }];
    for strategy in [Strategy::Bluegreen, Strategy::Canary] {
        let said = refuse(&wanted, &sim.fleet(), &by(strategy)).unwrap();
        assert!(said.contains("mounted volumes"), "{said}");
    }
    // Rolling replaces the Machine by one with a volume, where there is one.
    let rolling = by(Strategy::Rolling);
    let said = refuse(&wanted, &sim.fleet(), &rolling).unwrap();
    assert!(said.contains("needs volumes with name 'data'"), "{said}");
    let mut fleet = sim.fleet();
    fleet.free_volumes.push(FreeVolume {
        name: "data".to_owned(),
        region: Region::new("iad").unwrap(),
    });
    assert_eq!(refuse(&wanted, &fleet, &rolling), None);
}

#[test]
fn a_canary_is_gone_before_the_others_are_touched() {
    let mut sim = Sim::new(vec![]);
    let id = sim.add("web", true, Started);
    let options = by(Strategy::Canary);
    assert_eq!(
        run(&mut sim, &desired(&[("web", true)]), &options),
        Verdict::Complete
    );
    let told = steps(&sim);
    assert_eq!(told[0], "create web/1000000");
    let tail = &id.as_str()[10..];
    assert_eq!(told.last().unwrap(), &format!("update {tail} sha256:v2"));
    assert!(told[told.len() - 2].starts_with("destroy"));
    let mut canaries = sim.machines.values().filter(|m| m.key.is_some());
    let config = &canaries.next().unwrap().spec.config;
    assert_eq!(config.metadata["fly_canary"], "true");
    assert!(config.skips_dns());
}

#[test]
fn a_first_deploy_has_no_canary_and_no_green_machines() {
    for strategy in [Strategy::Canary, Strategy::Bluegreen] {
        let mut sim = Sim::new(vec![]);
        run(&mut sim, &desired(&[("web", true)]), &by(strategy));
        assert_eq!(steps(&sim), ["create web/0", "create web/1"]);
    }
}

#[test]
fn immediate_updates_so_many_at_a_time_and_goes_on_after_one_has_failed() {
    let mut sim = Sim::new(vec![Fault::NoImage, Fault::NeverHealthy, Fault::None]);
    for _ in 0..5 {
        sim.add("web", true, Started);
    }
    let options = DeployOptions {
        max_concurrent: 2,
        ..by(Strategy::Immediate)
    };
    let wanted = desired(&[("web", true)]);
    let progress = hangar_deploy::Progress::default();
    let first = plan(&wanted, &sim.fleet(), &progress, sim.time(), &options);
    assert_eq!(first.ready.len(), 2);
    let verdict = run(&mut sim, &wanted, &options);
    let Verdict::Failed { failure } = verdict else {
        panic!("{verdict:?}")
    };
    assert!(failure.reason.contains("image not found"), "{failure}");
    assert_eq!(steps(&sim).len(), 5, "all were tried: {:?}", steps(&sim));
}

#[test]
fn a_release_command_comes_first_and_has_the_size_of_the_largest_machine() {
    let mut sim = Sim::new(vec![]);
    let mut wanted = desired(&[("app", true), ("web", true)]);
    wanted.release_command = Some(release_command());
    let size = |step: &Step| match step {
        Step::Create { config, group, .. } => {
            assert_eq!(group.as_str(), "fly_app_release_command");
            assert!(config.services.is_empty() && config.auto_destroy);
            assert_eq!(config.env["RELEASE_COMMAND"], "1");
            config.guest.as_ref().unwrap().memory_mb
        }
        other => panic!("{}", name(other)),
    };
    let none = DeployOptions::default();
    assert_eq!(size(&first_created(&sim, &wanted, &none)), 512);
    let sized = DeployOptions {
        guest: Some(Guest::preset("shared-cpu-4x").unwrap()),
        ..DeployOptions::default()
    };
    assert_eq!(size(&first_created(&sim, &wanted, &sized)), 1024);
    for (of, preset) in [
        ("app", "shared-cpu-1x"),
        ("app", "performance-1x"),
        ("web", "performance-4x"),
    ] {
        let id = sim.add(of, true, Started);
        let config = &mut sim.machines.get_mut(&id).unwrap().spec.config;
        config.guest = Some(Guest::preset(preset).unwrap());
    }
    assert_eq!(size(&first_created(&sim, &wanted, &sized)), 2048);
    let command = wanted.release_command.as_mut().unwrap();
    command.config.guest = Some(Guest::default());
    command.sets_guest = true;
    assert_eq!(size(&first_created(&sim, &wanted, &sized)), 256);
}

#[test]
fn a_failed_release_command_says_so_in_flyctls_words_and_touches_nothing() {
    let mut sim = Sim::new(vec![]);
    sim.add("web", true, Started);
    sim.release_exit = 3;
    let mut wanted = desired(&[("web", true)]);
    wanted.release_command = Some(release_command());
    let verdict = run(&mut sim, &wanted, &DeployOptions::default());
    let Verdict::RolledBack { failure } = verdict else {
        panic!("{verdict:?}")
    };
    let said = failure.to_string();
    assert!(said.starts_with("release command failed - aborting deployment. machine "));
    assert!(
        said.ends_with(" exited with non-zero status of 3"),
        "{said}"
    );
    assert_eq!(steps(&sim), ["create fly_app_release_command/0"]);
}

#[test]
fn every_test_machine_of_an_updated_machine_has_to_exit_with_0() {
    for (exit, ends_well) in [(0, true), (4, false)] {
        let mut sim = Sim::new(vec![]);
        sim.add("web", true, Started);
        sim.test_exit = exit;
        let mut wanted = desired(&[("web", true)]);
        let spec = wanted.groups.get_mut(&group("web")).unwrap();
        spec.test_machines = vec![test_machine(), test_machine()];
        let verdict = run(&mut sim, &wanted, &DeployOptions::default());
        assert_eq!(verdict == Verdict::Complete, ends_well, "{verdict:?}");
        let told = steps(&sim);
        let tests = told.iter().filter(|s| s.contains("fly_app_test_machine"));
        assert_eq!(tests.count(), 2, "{told:?}");
        if let Some(failure) = verdict.failure() {
            let said = failure.to_string();
            assert!(said.contains("Error test command machine"), "{said}");
            assert!(said.contains("non-zero status of 4"), "{said}");
        }
    }
}

#[test]
fn filters_say_what_they_leave_out_and_an_empty_group_is_made_anew() {
    let mut sim = Sim::new(vec![]);
    let web = sim.add("web", true, Started);
    sim.add("worker", false, Started);
    sim.add("gone", false, Started);
    let wanted = desired(&[("web", true), ("worker", false)]);
    let mut options = DeployOptions {
        filters: DeployFilters {
            exclude_machines: vec![web],
            process_groups: vec![group("web"), group("gone")],
            ..DeployFilters::default()
        },
        ..DeployOptions::default()
    };
    let lines = preview(&wanted, &sim.fleet(), &options);
    assert_eq!(
        lines,
        [
            "--exclude-machines/--process-groups filters applied, deploying to 1/3 machines",
            "Process groups have changed. This will:",
            " * create 2 \"web\" machines",
            " * destroy 1 \"gone\" machine",
        ]
    );
    let said = refuse(&wanted, &sim.fleet(), &options).unwrap();
    assert!(said.contains("there is no process group gone"), "{said}");
    options.filters.process_groups = vec![group("web")];
    options.update_only = true;
    let lines = preview(&wanted, &sim.fleet(), &options);
    assert_eq!(
        lines,
        ["--exclude-machines/--process-groups filters applied, deploying to 0/3 machines"]
    );
    assert_eq!(run(&mut sim, &wanted, &options), Verdict::Complete);
    assert!(steps(&sim).is_empty(), "{:?}", steps(&sim));
}
