//! Deployments by example: the order of steps, and what is said when one fails.

use hangar_api::deployment::DeployOptions;
use hangar_api::formation::Formation;
use hangar_api::id::Region;
use hangar_api::machine::MachineState::{Started, Stopped};
use hangar_deploy::{Kind, Step, Verdict, preview};

use crate::sim::{Fault, Sim, desired, drive, group, image, name};

fn run(sim: &mut Sim, wanted: &hangar_deploy::Desired, options: &DeployOptions) -> Verdict {
    let (verdict, progress) = drive(sim, wanted, options, &[], |_, _| {});
    let again = hangar_deploy::plan(wanted, &sim.fleet(), &progress, sim.time(), options);
    assert!(again.ready.is_empty() && !again.changed);
    verdict
}

fn steps(sim: &Sim) -> Vec<String> {
    let strip = |l: &String| l.split_once(' ').unwrap().1.to_owned();
    sim.log.iter().map(strip).collect()
}

#[test]
fn a_first_deploy_makes_two_machines_with_a_service_and_one_and_a_standby_without() {
    let mut sim = Sim::new(vec![]);
    let wanted = desired(&[("web", true), ("worker", false)]);
    let lines = preview(&wanted, &sim.fleet(), &DeployOptions::default());
    assert_eq!(
        lines,
        [
            "This deployment will:",
            " * create 2 \"web\" machines",
            " * create 1 \"worker\" machine and 1 standby machine for it",
        ]
    );
    assert_eq!(
        run(&mut sim, &wanted, &DeployOptions::default()),
        Verdict::Complete
    );
    assert_eq!(
        steps(&sim),
        [
            "create web/0",
            "create web/1",
            "create worker/0",
            "standby worker/1"
        ]
    );
    let workers = sim.alive("worker");
    assert_eq!(
        workers[1].spec.config.standbys,
        [workers[0].spec.id.to_string()]
    );
    assert_eq!(workers[1].state(), Stopped);
    assert_eq!(
        workers[1].spec.config.env["FLY_STANDBY_FOR"],
        workers[0].spec.id.as_str()
    );
}

#[test]
fn a_group_that_is_scaled_to_0_stays_there_and_one_without_machines_goes_where_it_should_be() {
    let mut sim = Sim::new(vec![]);
    let region = |name: &str| Region::new(name).unwrap();
    let formation = |counts: &[(&str, u32)]| Formation {
        regions: counts.iter().map(|(r, n)| (region(r), *n)).collect(),
        ..Formation::default()
    };
    sim.formations = [
        (group("web"), formation(&[("gru", 1), ("iad", 0)])),
        (group("worker"), formation(&[("iad", 0)])),
    ]
    .into();
    let wanted = desired(&[("web", true), ("worker", false)]);
    assert_eq!(
        preview(&wanted, &sim.fleet(), &DeployOptions::default()),
        [
            "This deployment will:",
            " * create 1 \"web\" machine",
            " * leave \"worker\" without machines: it is scaled to 0",
        ]
    );
    let options = DeployOptions::default();
    let first = hangar_deploy::plan(
        &wanted,
        &sim.fleet(),
        &Default::default(),
        sim.time(),
        &options,
    );
    let told = |text| first.notes.iter().any(|note| note.message.contains(text));
    assert!(told("scale count worker=1"), "{:?}", first.notes);
    let Some(Step::Create { region: place, .. }) = first.ready.first() else {
        panic!("{:?}", first.ready);
    };
    assert_eq!(*place, region("gru"));
    assert_eq!(run(&mut sim, &wanted, &options), Verdict::Complete);
    assert_eq!(steps(&sim), ["create web/0"]);
}

#[test]
fn without_ha_every_group_gets_one_machine() {
    let mut sim = Sim::new(vec![]);
    let options = DeployOptions {
        ha: false,
        ..DeployOptions::default()
    };
    run(
        &mut sim,
        &desired(&[("web", true), ("worker", false)]),
        &options,
    );
    assert_eq!(steps(&sim), ["create web/0", "create worker/0"]);
}

#[test]
fn new_groups_serve_before_old_ones_go() {
    let mut sim = Sim::new(vec![]);
    let old = sim.add("app", true, Started);
    let wanted = desired(&[("web", true)]);
    let mut least = usize::MAX;
    let (verdict, _) = drive(
        &mut sim,
        &wanted,
        &DeployOptions::default(),
        &[],
        |sim, _| {
            least = least.min(sim.healthy("app") + sim.healthy("web"));
        },
    );
    assert_eq!(verdict, Verdict::Complete);
    assert_eq!(least, 1, "somebody always serves");
    let tail = &old.as_str()[10..];
    assert_eq!(
        steps(&sim),
        [
            "create web/0".to_owned(),
            "create web/1".to_owned(),
            format!("cordon {tail}"),
            format!("stop {tail}"),
            format!("destroy {tail}"),
        ]
    );
}

#[test]
fn the_first_machine_of_a_group_goes_alone_and_stopped_ones_stay_stopped() {
    let mut sim = Sim::new(vec![]);
    for _ in 0..5 {
        sim.add("web", true, Started);
    }
    let asleep = sim.add("web", true, Stopped);
    let wanted = desired(&[("web", true)]);
    assert_eq!(
        preview(&wanted, &sim.fleet(), &DeployOptions::default()),
        [" * update 6 \"web\" machines (the first alone, then 2 at a time)"]
    );
    let options = DeployOptions::default();
    let first = hangar_deploy::plan(
        &wanted,
        &sim.fleet(),
        &hangar_deploy::Progress::default(),
        sim.time(),
        &options,
    );
    let names: Vec<String> = first.ready.iter().map(name).collect();
    assert_eq!(
        names,
        ["update 0001 sha256:v2", "update 000b sha256:v2 skip"]
    );
    assert_eq!(run(&mut sim, &wanted, &options), Verdict::Complete);
    assert_eq!(sim.machines[&asleep].state(), Stopped);
    assert_eq!(sim.machines[&asleep].spec.config.metadata["mine"], "kept");
    assert_eq!(sim.machines[&asleep].spec.secrets_version, 7);
}

#[test]
fn a_worker_without_checks_is_watched_for_ten_seconds_once_a_round() {
    let mut sim = Sim::new(vec![]);
    for _ in 0..4 {
        sim.add("worker", false, Started);
    }
    let began = sim.now;
    let options = DeployOptions {
        max_unavailable: 3.0,
        ..DeployOptions::default()
    };
    assert_eq!(
        run(&mut sim, &desired(&[("worker", false)]), &options),
        Verdict::Complete
    );
    let took = sim.now - began;
    assert!(
        (20_000..21_000).contains(&took),
        "two rounds, took {took} ms"
    );
}

#[test]
fn nobody_waits_where_checks_pass() {
    let mut sim = Sim::new(vec![]);
    sim.add("web", true, Started);
    sim.add("web", true, Started);
    let began = sim.now;
    run(
        &mut sim,
        &desired(&[("web", true)]),
        &DeployOptions::default(),
    );
    assert!(sim.now - began < 1000, "took {} ms", sim.now - began);
}

#[test]
fn a_worker_that_exits_after_300_ms_fails_the_deploy_and_is_put_back() {
    let mut sim = Sim::new(vec![Fault::Crashes]);
    let id = sim.add("worker", false, Started);
    let verdict = run(
        &mut sim,
        &desired(&[("worker", false)]),
        &DeployOptions::default(),
    );
    let Verdict::RolledBack { failure } = verdict else {
        panic!("{verdict:?}")
    };
    assert_eq!(
        failure.to_string(),
        format!(
            "Machine {id} of group worker: the app appears to be crashing: it exited with code 1 300 ms after its start"
        )
    );
    let spec = &sim.machines[&id].spec;
    assert_eq!((&spec.image_ref, spec.secrets_version), (&image("v1"), 3));
    assert_eq!(spec.config.env["VERSION"], "v1");
    assert_eq!(sim.machines[&id].state(), Started);
}

#[test]
fn a_failure_puts_back_those_already_updated_and_removes_what_was_new() {
    let faults = [vec![Fault::None; 4], vec![Fault::NeverHealthy]].concat();
    let mut sim = Sim::new(faults);
    for _ in 0..4 {
        sim.add("web", true, Started);
    }
    let verdict = run(
        &mut sim,
        &desired(&[("api", true), ("web", true)]),
        &DeployOptions::default(),
    );
    let Verdict::RolledBack { failure } = verdict else {
        panic!("{verdict:?}")
    };
    assert!(
        failure.reason.contains("did not pass within 300 s"),
        "{failure}"
    );
    assert!(sim.alive("api").is_empty());
    assert!(
        sim.alive("web")
            .iter()
            .all(|m| m.spec.image_ref == image("v1"))
    );
    assert_eq!(sim.healthy("web"), 4);
}

#[test]
fn without_rollback_the_fleet_is_left_as_it_is() {
    let mut sim = Sim::new(vec![Fault::None, Fault::NoImage]);
    for _ in 0..3 {
        sim.add("web", true, Started);
    }
    let options = DeployOptions {
        rollback: false,
        ..DeployOptions::default()
    };
    let verdict = run(&mut sim, &desired(&[("web", true)]), &options);
    let Verdict::Failed { failure } = verdict else {
        panic!("{verdict:?}")
    };
    assert_eq!(failure.reason, "image not found");
    let new = sim
        .alive("web")
        .iter()
        .filter(|m| m.spec.image_ref == image("v2"))
        .count();
    assert_eq!(new, 2);
}

#[test]
fn a_restart_changes_nothing_but_the_secrets_and_the_release() {
    let mut sim = Sim::new(vec![]);
    let web = sim.add("web", true, Started);
    let odd = sim.add("gone", false, Stopped);
    let mut wanted = desired(&[("other", true)]);
    wanted.kind = Kind::RestartOnly;
    assert_eq!(
        run(&mut sim, &wanted, &DeployOptions::default()),
        Verdict::Complete
    );
    assert_eq!(sim.machines.len(), 2);
    for id in [&web, &odd] {
        let spec = &sim.machines[id].spec;
        assert_eq!((&spec.image_ref, spec.secrets_version), (&image("v1"), 7));
        assert_eq!(spec.config.env["VERSION"], "v1");
        assert_eq!(spec.config.metadata["fly_release_version"], "2");
    }
    assert_eq!(sim.machines[&odd].spec.config.process_group(), "gone");
}

#[test]
fn a_machine_that_failed_to_start_is_started_with_the_new_version() {
    let mut sim = Sim::new(vec![]);
    let id = sim.add("web", true, hangar_api::machine::MachineState::Failed);
    assert_eq!(
        run(
            &mut sim,
            &desired(&[("web", true)]),
            &DeployOptions::default()
        ),
        Verdict::Complete
    );
    assert_eq!(sim.machines[&id].state(), Started);
    assert!(
        steps(&sim).contains(&"start 0001".to_owned()),
        "{:?}",
        sim.log
    );
}

#[test]
fn a_step_that_cannot_be_carried_out_turns_the_deployment_back() {
    let mut sim = Sim::new(vec![]);
    let wanted = desired(&[("web", true)]);
    let options = DeployOptions::default();
    let begun = hangar_deploy::plan(
        &wanted,
        &sim.fleet(),
        &hangar_deploy::Progress::default(),
        sim.time(),
        &options,
    );
    let mut progress = begun.progress;
    sim.execute(&begun.ready[0]);
    progress.report(hangar_deploy::progress::Failure {
        machine: None,
        group: Some(group("web")),
        reason: "no slot in region iad has room".to_owned(),
    });
    let next = hangar_deploy::plan(&wanted, &sim.fleet(), &progress, sim.time(), &options);
    assert_eq!(
        next.verdict.failure().unwrap().to_string(),
        "group web: no slot in region iad has room"
    );
    let names: Vec<String> = next.ready.iter().map(name).collect();
    assert_eq!(names, ["destroy 0001"]);
}

#[test]
fn a_machine_that_cannot_be_put_back_is_left_out_and_told() {
    let mut sim = Sim::new(vec![Fault::NeverHealthy]);
    let id = sim.add("web", true, Started);
    let wanted = desired(&[("web", true)]);
    let options = DeployOptions {
        wait_timeout_secs: 1,
        ..DeployOptions::default()
    };
    let mut progress = hangar_deploy::Progress::default();
    let next = |sim: &Sim, progress: &hangar_deploy::Progress| {
        hangar_deploy::plan(&wanted, &sim.fleet(), progress, sim.time(), &options)
    };
    let first = next(&sim, &progress);
    sim.execute(&first.ready[0]);
    while sim.step(sim.now + 2_000) {}
    let back = next(&sim, &first.progress);
    assert_eq!(back.ready.len(), 1, "{:?}", back.verdict);
    progress.clone_from(&back.progress);
    progress.report(hangar_deploy::progress::Failure {
        machine: Some(id),
        group: None,
        reason: "the image is gone".to_owned(),
    });
    let end = next(&sim, &progress);
    assert!(
        matches!(end.verdict, Verdict::Failed { .. }),
        "{:?}",
        end.verdict
    );
    let text = end.verdict.failure().unwrap().to_string();
    assert!(
        text.contains("while putting things back: Machine"),
        "{text}"
    );
    assert!(end.ready.is_empty());
}

#[test]
fn a_machine_that_falls_ill_after_it_passed_stops_the_rollout() {
    for (fault, says) in [
        (Fault::PassesThenCrashes, "appears to be crashing"),
        (
            Fault::PassesThenFails,
            "passed at first and then failed again",
        ),
    ] {
        let mut sim = Sim::new(vec![fault, Fault::None]);
        for _ in 0..6 {
            sim.add("web", true, Started);
        }
        let options = DeployOptions {
            max_unavailable: 1.0,
            ..DeployOptions::default()
        };
        let verdict = run(&mut sim, &desired(&[("web", true)]), &options);
        let Verdict::RolledBack { failure } = verdict else {
            panic!("{verdict:?}")
        };
        assert!(failure.reason.contains(says), "{failure}");
        let updates = sim.log.iter().filter(|l| l.contains(":v2")).count();
        assert!(updates <= 3, "the rest was not touched: {:?}", sim.log);
        assert_eq!(sim.healthy("web"), 6);
    }
}

#[test]
fn a_start_that_was_lost_with_the_server_is_asked_again() {
    let mut sim = Sim::new(vec![]);
    let id = sim.add("web", true, hangar_api::machine::MachineState::Failed);
    let wanted = desired(&[("web", true)]);
    // The second plan asks for the start, and the server dies before it has carried that out.
    let (verdict, _) = drive(
        &mut sim,
        &wanted,
        &DeployOptions::default(),
        &[None, None, Some(0), Some(0)],
        |_, _| {},
    );
    assert_eq!(verdict, Verdict::Complete);
    assert_eq!(sim.machines[&id].state(), Started);
    assert!(sim.now < 1_000_000 + 5_000, "it did not wait for a timeout");
}

#[test]
fn metadata_set_while_a_deployment_fails_stays() {
    let mut sim = Sim::new(vec![Fault::NeverHealthy]);
    let id = sim.add("web", true, Started);
    let wanted = desired(&[("web", true)]);
    let options = DeployOptions {
        wait_timeout_secs: 1,
        ..DeployOptions::default()
    };
    let next = |sim: &Sim, progress: &hangar_deploy::Progress| {
        hangar_deploy::plan(&wanted, &sim.fleet(), progress, sim.time(), &options)
    };
    let first = next(&sim, &hangar_deploy::Progress::default());
    sim.execute(&first.ready[0]);
    let metadata = &mut sim.machines.get_mut(&id).unwrap().spec.config.metadata;
    metadata.insert("colour".to_owned(), "red".to_owned());
    metadata.remove("mine");
    while sim.step(sim.now + 2_000) {}
    let back = next(&sim, &first.progress);
    sim.execute(&back.ready[0]);
    let metadata = &sim.machines[&id].spec.config.metadata;
    assert_eq!(metadata["colour"], "red");
    assert!(!metadata.contains_key("mine"), "{metadata:?}");
    assert_eq!(
        metadata["fly_release_id"],
        crate::sim::release_id(1).as_str()
    );
    assert!(
        !metadata.contains_key("fly_release_version"),
        "{metadata:?}"
    );
}

#[test]
fn jobs_that_end_well_while_others_are_updated_are_no_failure() {
    let mut sim = Sim::new(vec![Fault::EndsWell]);
    for _ in 0..4 {
        sim.add("job", false, Started);
    }
    let wanted = desired(&[("job", false)]);
    assert_eq!(
        run(&mut sim, &wanted, &DeployOptions::default()),
        Verdict::Complete
    );
    let new = |m: &&crate::sim::SimMachine| m.spec.image_ref == image("v2");
    assert_eq!(sim.alive("job").into_iter().filter(new).count(), 4);
}

#[test]
fn a_machine_that_was_made_just_before_runs_afterwards() {
    for faults in [vec![], vec![Fault::NeverHealthy]] {
        let mut sim = Sim::new(faults);
        sim.add("web", true, Started);
        let coming = sim.add_coming("web", true);
        run(
            &mut sim,
            &desired(&[("web", true)]),
            &DeployOptions::default(),
        );
        let later = sim.now + 60_000;
        while sim.step(later) {}
        assert_eq!(sim.machines[&coming].state(), Started);
    }
}

#[test]
fn what_is_replaced_is_part_of_what_a_dry_run_says() {
    use hangar_api::preview::PreviewAction;
    let mut sim = Sim::new(vec![]);
    let ids = [(); 2].map(|()| sim.add("web", true, Started));
    sim.machines.get_mut(&ids[0]).unwrap().lost = true;
    let wanted = desired(&[("web", true)]);
    let groups =
        hangar_deploy::changes::group_previews(&wanted, &sim.fleet(), &DeployOptions::default());
    let shown: Vec<_> = groups[0]
        .machines
        .iter()
        .map(|m| (m.machine.clone().unwrap(), m.action, m.why.clone()))
        .collect();
    assert_eq!(shown.len(), 2, "{shown:?}");
    assert!(shown.contains(&(
        ids[0].clone(),
        PreviewAction::Replace,
        "slot s is lost".to_owned()
    )));
}
