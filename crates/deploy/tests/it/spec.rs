//! Rows of the deploy tests that Fly's own client has (process-groups-and-deploy.md 9.2), each as
//! a test of ours: the comment before each says which.

use hangar_api::deployment::{DeployFilters, DeployOptions, Strategy};
use hangar_api::id::{InstanceId, MachineId, Region};
use hangar_api::machine::MachineState::{self, Failed, Started, Stopped, Suspended};
use hangar_api::machine::config::File;
use hangar_deploy::{Desired, Kind, Plan, Progress, Step, Verdict, plan, refuse};

use crate::sim::volumes::mount;
use crate::sim::{Fault, Sim, by, desired, group, image, run};

fn metadata<'a>(sim: &'a Sim, id: &MachineId, key: &str) -> Option<&'a str> {
    let value = sim.machines[id].spec.config.metadata.get(key);
    value.map(String::as_str)
}

/// Rows: resolveUpdated Basic; TestUpdateOrCreateMachine, nothing and something wanted.
#[test]
fn a_new_machine_has_environment_image_and_the_metadata_of_its_release() {
    let mut sim = Sim::new(vec![]);
    let mut wanted = desired(&[("web", true)]);
    wanted.version = 0;
    let options = DeployOptions {
        ha: false,
        ..DeployOptions::default()
    };
    assert_eq!(run(&mut sim, &wanted, &options), Verdict::Complete);
    let made = sim.alive("web")[0];
    let (id, config) = (made.spec.id.clone(), &made.spec.config);
    assert_eq!(config.env["VERSION"], "v2");
    assert_eq!(made.spec.image_ref, image("v2"));
    assert_eq!(metadata(&sim, &id, "fly_process_group"), Some("web"));
    assert_eq!(metadata(&sim, &id, "fly_platform_version"), Some("v2"));
    assert_eq!(metadata(&sim, &id, "fly_release_version"), Some("0"));
    let release = wanted.release.to_string();
    assert_eq!(metadata(&sim, &id, "fly_release_id"), Some(&*release));
}

/// Rows: restartOnly, restartOnlyProcessGroup, TestLaunchInputForUpdate Basic.
#[test]
fn a_restart_keeps_the_group_and_gives_app_to_a_machine_without_one() {
    let mut sim = Sim::new(vec![]);
    let (bare, named) = (sim.add("x", true, Started), sim.add("y", true, Started));
    let config = &mut sim.machines.get_mut(&bare).unwrap().spec.config;
    config.metadata.remove("fly_process_group");
    let managed = ("fly-managed-postgres".to_owned(), "true".to_owned());
    config.metadata.extend([managed]);
    let mut wanted = desired(&[("web", true)]);
    wanted.kind = Kind::RestartOnly;
    let options = DeployOptions::default();
    assert_eq!(run(&mut sim, &wanted, &options), Verdict::Complete);
    assert_eq!(metadata(&sim, &bare, "fly_process_group"), Some("app"));
    assert_eq!(metadata(&sim, &named, "fly_process_group"), Some("y"));
    assert_eq!(metadata(&sim, &bare, "fly-managed-postgres"), None);
    for id in [&bare, &named] {
        assert_eq!(metadata(&sim, id, "mine"), Some("kept"));
        let spec = &sim.machines[id].spec;
        assert_eq!(spec.config.env["VERSION"], "v1", "not the release's");
        assert_eq!(spec.image_ref, image("v1"));
    }
    // An update takes what the release says, and keeps what the user has said.
    let mut sim = Sim::new(vec![]);
    let id = sim.add("web", true, Started);
    assert_eq!(
        run(&mut sim, &desired(&[("web", true)]), &options),
        Verdict::Complete
    );
    assert_eq!(metadata(&sim, &id, "mine"), Some("kept"));
    assert_eq!(sim.machines[&id].spec.config.env["VERSION"], "v2");
}

/// Row: HostStatusUnreachable. A lost slot is what an unreachable host is elsewhere.
#[test]
fn a_machine_on_a_lost_slot_is_made_anew_in_its_region_unless_its_volume_is_there() {
    let lost = |has: bool, wants: bool| {
        let mut sim = Sim::new(vec![]);
        let id = sim.add("web", true, Started);
        let machine = sim.machines.get_mut(&id).unwrap();
        machine.lost = true;
        machine.spec.region = Region::new("gru").unwrap();
        if has {
            sim.attach(&id, "data");
        }
        sim.add_volume("data", "gru");
        let mut wanted = desired(&[("web", true)]);
        let config = &mut wanted.groups.get_mut(&group("web")).unwrap().config;
        config.mounts = wants.then(|| mount("data")).into_iter().collect();
        (sim, id, wanted)
    };
    let options = DeployOptions::default();
    for wants in [false, true] {
        let (mut sim, id, wanted) = lost(false, wants);
        assert_eq!(refuse(&wanted, &sim.fleet(), &options), None);
        assert_eq!(run(&mut sim, &wanted, &options), Verdict::Complete);
        let left = sim.alive("web");
        assert_eq!(left.len(), 1);
        assert!(left[0].spec.id != id && left[0].spec.region.as_str() == "gru");
        assert_eq!(left[0].spec.config.mounts.len(), usize::from(wants));
    }
    let (sim, id, wanted) = lost(true, true);
    let said = refuse(&wanted, &sim.fleet(), &options).unwrap();
    assert!(
        said.contains(id.as_str()) && said.contains("requires manual intervention"),
        "{said}"
    );
}

/// Rows: LaunchFiles, UpdateFiles.
#[test]
fn files_are_those_of_the_release_and_no_others() {
    let file = |path: &str| File {
        guest_path: path.to_owned(),
        ..File::default()
    };
    let mut sim = Sim::new(vec![]);
    let id = sim.add("web", true, Started);
    let config = &mut sim.machines.get_mut(&id).unwrap().spec.config;
    config.files = vec![file("/old"), file("/both")];
    let mut wanted = desired(&[("web", true), ("new", true)]);
    for spec in wanted.groups.values_mut() {
        spec.config.files = vec![file("/both"), file("/new")];
    }
    let options = DeployOptions::default();
    assert_eq!(run(&mut sim, &wanted, &options), Verdict::Complete);
    for machine in sim.machines.values() {
        let files = &machine.spec.config.files;
        let paths: Vec<&str> = files.iter().map(|f| f.guest_path.as_str()).collect();
        assert_eq!(paths, ["/both", "/new"]);
    }
}

/// Returns a fleet of one Machine of this group, managed by deploys or not.
fn one(of: &str, is_managed: bool) -> (Sim, MachineId) {
    let mut sim = Sim::new(vec![]);
    let id = sim.add(of, true, Started);
    let metadata = &mut sim.machines.get_mut(&id).unwrap().spec.config.metadata;
    if !is_managed {
        metadata.remove("fly_platform_version");
    }
    if of.is_empty() {
        metadata.remove("fly_process_group");
    }
    (sim, id)
}

/// Row: SetMachinesForDeployment, all six.
#[test]
fn bluegreen_beside_machines_that_nobody_manages_is_refused_with_their_names() {
    let wanted = desired(&[("web", true)]);
    let green = by(Strategy::Bluegreen);
    // A configured group, and none, which counts as the default one.
    for of in ["web", ""] {
        let (sim, id) = one(of, false);
        let said = refuse(&wanted, &sim.fleet(), &green).unwrap();
        assert!(said.contains(&format!("{id} (web)")), "{said}");
        assert!(said.contains("fly_platform_version=v2"), "{said}");
        assert!(said.contains("fly_process_group"), "{said}");
        // Any other strategy makes a first Machine beside it.
        assert_eq!(
            refuse(&wanted, &sim.fleet(), &by(Strategy::Rolling)),
            None,
            "{of:?}"
        );
    }
    let (sim, _) = one("else", false);
    assert_eq!(refuse(&wanted, &sim.fleet(), &green), None);
    // With a managed one it is no first deploy.
    let (mut sim, _) = one("web", false);
    let managed = sim.add("web", true, Started);
    assert_eq!(refuse(&wanted, &sim.fleet(), &green), None);
    // One that a filter leaves out is no reason, whether it is managed or not.
    let only = |region: &str| DeployOptions {
        filters: DeployFilters {
            only_regions: vec![Region::new(region).unwrap()],
            ..DeployFilters::default()
        },
        ..by(Strategy::Bluegreen)
    };
    sim.machines.remove(&managed);
    assert_eq!(refuse(&wanted, &sim.fleet(), &only("gru")), None);
    assert!(refuse(&wanted, &sim.fleet(), &only("iad")).is_some());
    let (sim, id) = one("web", true);
    let said = refuse(&wanted, &sim.fleet(), &only("gru"));
    assert!(said.is_none_or(|said| !said.contains(id.as_str())));
}

/// Row: rolling beside Machines that nobody manages is a first deploy, and says so.
#[test]
fn machines_that_nobody_manages_are_left_alone_by_a_first_deploy() {
    let (mut sim, id) = one("web", false);
    let options = by(Strategy::Rolling);
    let wanted = desired(&[("web", true)]);
    let begun = next(&sim, &wanted, &Progress::default(), &options);
    let said = begun.notes.iter().any(|n| n.message.contains("[WARNING]"));
    assert!(said, "{:?}", begun.notes);
    let before = sim.machines[&id].spec.clone();
    assert_eq!(run(&mut sim, &wanted, &options), Verdict::Complete);
    assert_eq!(sim.machines[&id].spec, before);
    assert_eq!(sim.alive("web").len(), 3);
}

fn next(sim: &Sim, wanted: &Desired, progress: &Progress, options: &DeployOptions) -> Plan {
    plan(wanted, &sim.fleet(), progress, sim.time(), options)
}

/// Row: TestSkipLaunch. What runs, or was to run and failed, runs afterwards; what rests rests.
#[test]
fn what_rested_before_rests_afterwards_and_what_failed_is_started() {
    for (state, is_standby, starts) in [
        (Started, false, true),
        (MachineState::Starting, false, true),
        (Failed, false, true),
        (Stopped, false, false),
        (Suspended, false, false),
        (Stopped, true, false),
    ] {
        let mut sim = Sim::new(vec![]);
        let id = sim.add("web", false, state);
        if is_standby {
            let config = &mut sim.machines.get_mut(&id).unwrap().spec.config;
            config.standbys = vec!["00000000000009".to_owned()];
        }
        let wanted = desired(&[("web", false)]);
        let options = by(Strategy::Immediate);
        let mut progress = Progress::default();
        let step = loop {
            let now = next(&sim, &wanted, &progress, &options);
            progress = now.progress;
            if let Some(step) = now.ready.into_iter().next() {
                break step;
            }
        };
        let Step::Update { skip_launch, .. } = step else {
            panic!("{state:?}: {step:?}");
        };
        assert_eq!(!skip_launch, starts, "{state:?}, standby: {is_standby}");
    }
}

/// Row: TestDeployMachinesApp.
#[test]
fn a_canary_of_four_machines_without_checks_succeeds() {
    let mut sim = Sim::new(vec![]);
    let ids: Vec<MachineId> = (0..4).map(|_| sim.add("web", false, Started)).collect();
    let wanted = desired(&[("web", false)]);
    assert_eq!(
        run(&mut sim, &wanted, &by(Strategy::Canary)),
        Verdict::Complete
    );
    let left: Vec<MachineId> = sim.alive("web").iter().map(|m| m.spec.id.clone()).collect();
    assert_eq!(left, ids);
}

/// Row: bluegreen TestDeploy: one Machine, ten, a launch that cannot be, a lost slot.
#[test]
fn bluegreen_takes_over_one_or_ten_and_leaves_all_when_a_green_one_cannot_be() {
    let wanted = desired(&[("web", true)]);
    let options = by(Strategy::Bluegreen);
    for count in [1, 10] {
        let mut sim = Sim::new(vec![]);
        for _ in 0..count {
            sim.add("web", true, Started);
        }
        assert_eq!(run(&mut sim, &wanted, &options), Verdict::Complete);
        let all = sim.alive("web");
        assert_eq!(all.len(), count);
        assert!(all.iter().all(|m| m.spec.image_ref == image("v2")));
    }
    let mut sim = Sim::new(vec![]);
    let ids: Vec<MachineId> = (0..4).map(|_| sim.add("web", true, Started)).collect();
    sim.no_room = vec![false, true, false];
    let verdict = run(&mut sim, &wanted, &options);
    let Verdict::RolledBack { failure } = verdict else {
        panic!("{verdict:?}");
    };
    assert!(failure.reason.contains("no slot has room"), "{failure:?}");
    let left: Vec<MachineId> = sim.alive("web").iter().map(|m| m.spec.id.clone()).collect();
    assert_eq!(left, ids);
    // Nobody answers on a lost slot: nothing is waited for there.
    let mut sim = Sim::new(vec![]);
    let lost = sim.add("web", true, Started);
    sim.machines.get_mut(&lost).unwrap().lost = true;
    assert_eq!(run(&mut sim, &wanted, &options), Verdict::Complete);
    let id = &lost.as_str()[10..];
    let of_lost: Vec<&str> = sim
        .log
        .iter()
        .filter_map(|l| l.split_once(' '))
        .map(|l| l.1)
        .collect();
    assert!(of_lost.contains(&&*format!("destroy {id}")), "{of_lost:?}");
    assert!(!of_lost.contains(&&*format!("stop {id}")), "{of_lost:?}");
}

/// Row: MarkGreenReady. What a server asked for before it died is asked for again.
#[test]
fn a_green_machine_that_was_not_let_in_is_let_in_by_the_next_plan() {
    let mut sim = Sim::new(vec![]);
    sim.add("web", true, Started);
    let (wanted, options) = (desired(&[("web", true)]), by(Strategy::Bluegreen));
    let mut progress = Progress::default();
    let mut asked = 0;
    while asked < 3 {
        let now = next(&sim, &wanted, &progress, &options);
        progress = now.progress;
        for step in &now.ready {
            match step {
                // Twice it is lost on its way.
                Step::Uncordon { .. } => asked += 1,
                Step::Cordon { .. } => panic!("a blue Machine goes before a green one is in"),
                _ => {
                    sim.execute(step);
                }
            }
        }
        if now.ready.is_empty() {
            let wake = now.wake_at.unwrap().as_millisecond();
            sim.step(wake);
        }
    }
    assert_eq!(sim.serving("web"), 1, "the blue one serves on");
}

/// Row: forceStartRepresentatives: of a group with checks of which nobody runs, one starts.
#[test]
fn of_each_group_at_rest_with_checks_one_green_machine_runs() {
    let mut sim = Sim::new(vec![]);
    for (name, serves) in [("api", true), ("bare", false), ("web", true)] {
        sim.add(name, serves, Stopped);
        sim.add(name, serves, Stopped);
    }
    let up = sim.add("half", true, Started);
    sim.add("half", true, Stopped);
    let wanted = desired(&[
        ("api", true),
        ("bare", false),
        ("half", true),
        ("web", true),
    ]);
    let options = by(Strategy::Bluegreen);
    assert_eq!(run(&mut sim, &wanted, &options), Verdict::Complete);
    let running = |name: &str| {
        let all = sim.alive(name);
        assert_eq!(all.len(), 2, "{name}");
        all.iter().filter(|m| m.state() == Started).count()
    };
    let found = ["api", "bare", "half", "web"].map(running);
    assert_eq!(found, [1, 0, 1, 1]);
    assert!(!sim.alive("half").iter().any(|m| m.spec.id == up));
}

/// Row: StoppedBlue: what was at rest proves nothing, so one has to pass before the others go.
#[test]
fn a_version_that_fails_leaves_a_group_at_rest_as_it_was() {
    let mut sim = Sim::new(vec![Fault::NeverHealthy]);
    let ids: Vec<MachineId> = (0..2).map(|_| sim.add("web", true, Stopped)).collect();
    let wanted = desired(&[("web", true)]);
    let verdict = run(&mut sim, &wanted, &by(Strategy::Bluegreen));
    assert!(matches!(verdict, Verdict::RolledBack { .. }), "{verdict:?}");
    let left: Vec<MachineId> = sim.alive("web").iter().map(|m| m.spec.id.clone()).collect();
    assert_eq!(left, ids);
    assert!(sim.alive("web").iter().all(|m| m.state() == Stopped));
}

/// Row: Teardown. A blue Machine that is never gone is told, and the deployment has succeeded.
#[test]
fn a_blue_machine_that_does_not_go_is_told_and_the_deploy_succeeds() {
    let mut sim = Sim::new(vec![]);
    let blue = sim.add("web", true, Started);
    let (wanted, options) = (desired(&[("web", true)]), by(Strategy::Bluegreen));
    let mut progress = Progress::default();
    let mut told = Vec::new();
    let verdict = loop {
        let now = next(&sim, &wanted, &progress, &options);
        progress = now.progress;
        told.extend(now.notes.into_iter().map(|note| note.message));
        // Its host does nothing of what is asked of the blue one.
        for step in now.ready.iter().filter(|s| s.machine() != Some(&blue)) {
            sim.execute(step);
        }
        if now.verdict.status().is_over() {
            break now.verdict;
        }
        if now.ready.iter().all(|s| s.machine() == Some(&blue)) {
            let wake = now.wake_at.map_or(sim.now, |at| at.as_millisecond());
            sim.step(wake);
        }
    };
    assert_eq!(verdict, Verdict::Complete);
    let text = format!("Machine {blue} is not gone");
    assert!(told.iter().any(|line| line.contains(&text)), "{told:?}");
}

/// Row: leasable_machine_test: no checks ask for nothing, no result is none that passes, checks of
/// services count, and one that fails is named when the time is over.
#[test]
fn a_check_without_a_result_is_waited_for_and_named_when_time_is_over() {
    let mut sim = Sim::new(vec![Fault::NeverHealthy]);
    sim.add("web", true, Started);
    let wanted = desired(&[("web", true)]);
    let verdict = run(&mut sim, &wanted, &DeployOptions::default());
    let Verdict::RolledBack { failure } = verdict else {
        panic!("{verdict:?}");
    };
    assert!(
        failure
            .reason
            .contains("servicecheck-00-http-8080 did not pass within")
            && failure.reason.contains("no result yet"),
        "{failure:?}"
    );
    let mut sim = Sim::new(vec![Fault::NeverHealthy]);
    sim.add("web", false, Started);
    let wanted = desired(&[("web", false)]);
    let options = DeployOptions::default();
    assert_eq!(run(&mut sim, &wanted, &options), Verdict::Complete);
}

/// The plan is told before anything is done: groups that go, then groups that come (4.6).
#[test]
fn a_deployment_says_first_which_groups_come_and_go() {
    let options = DeployOptions::default();
    let said = |sim: &Sim, wanted: &Desired| -> Vec<String> {
        let notes = next(sim, wanted, &Progress::default(), &options).notes;
        notes.into_iter().map(|note| note.message).collect()
    };
    let mut sim = Sim::new(vec![]);
    let first = said(&sim, &desired(&[("app", true)]));
    assert_eq!(first[0], "This deployment will:");
    assert_eq!(first[1], " * create 2 \"app\" machines");
    sim.add("app", true, Started);
    let changed = said(&sim, &desired(&[("bar_web", false), ("web", true)]));
    assert_eq!(
        changed[..4],
        [
            "Process groups have changed. This will:",
            " * destroy 1 \"app\" machine",
            " * create 1 \"bar_web\" machine and 1 standby machine for it",
            " * create 2 \"web\" machines",
        ]
    );
    let same = said(&sim, &desired(&[("app", true)]));
    assert!(!same.iter().any(|line| line.contains("will:")), "{same:?}");
}

/// Row: TestUpdateOrCreateMachine: a step that names a version which is no more is not done.
#[test]
fn a_step_for_a_version_that_is_gone_changes_nothing() {
    let mut sim = Sim::new(vec![]);
    let id = sim.add("web", true, Started);
    let wanted = desired(&[("web", true)]);
    let mut progress = Progress::default();
    let step = loop {
        let now = next(&sim, &wanted, &progress, &DeployOptions::default());
        progress = now.progress;
        if let Some(step) = now.ready.into_iter().next() {
            break step;
        }
    };
    let machine = sim.machines.get_mut(&id).unwrap();
    machine.spec.instance_id = InstanceId::new("X".repeat(26)).unwrap();
    let before = sim.machines[&id].spec.clone();
    sim.execute(&step);
    assert_eq!(sim.machines[&id].spec, before);
}
