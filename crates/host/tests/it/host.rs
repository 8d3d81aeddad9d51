//! What a host does with what it is asked, and with what happens.

use std::time::Duration;

use hangar_api::catalog::Phase;
use hangar_api::machine::config::Restart;
use hangar_api::machine::{MachineSpec, MachineState, OpKind};
use hangar_api::seam::{HostCalls as _, Waker as _};
use hangar_host::machine::images::PreparedImage;
use hangar_host::runtime::Runtime as _;

use crate::rig::{Rig, events};

const STOP: OpKind = OpKind::Stop {
    signal: None,
    timeout: None,
};
const RESTART: OpKind = OpKind::Restart {
    signal: None,
    timeout: None,
};

fn keep(_: &mut MachineSpec) {}

fn policy(name: &str, max_retries: Option<u32>) -> impl FnOnce(&mut MachineSpec) {
    let restart = Restart {
        policy: Some(name.to_owned()),
        max_retries,
        ..Restart::default()
    };
    move |spec| spec.config.restart = Some(restart)
}

#[tokio::test(start_paused = true)]
async fn a_created_machine_starts_and_tells_what_happened() {
    let mut rig = Rig::new(1).await;
    let id = rig.create(&["run"], keep).await;
    let seen = rig.until_state(&id, MachineState::Started).await;
    assert_eq!(events(&seen), ["launch/created/user", "start/started/flyd"]);
    assert_eq!((seen.generation, seen.starts), (1, 1));
    assert!(rig.machines[&id].ops.is_empty(), "the op is acknowledged");
    let live = rig.liveness(&id);
    assert_eq!((live.phase, live.starts), (Phase::Up, 1));
    assert!(live.address.is_some());
    let log = rig.log().await;
    assert!(log[0].ends_with("already prepared"), "{log:?}");
    assert!(
        log[1].starts_with("Machine created and started in "),
        "{log:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_job_that_ended_well_is_run_again_by_nobody() {
    let mut rig = Rig::new(2).await;
    let id = rig.create(&["exit", "0"], keep).await;
    let seen = rig.until_state(&id, MachineState::Stopped).await;
    let exit = seen.exit.unwrap();
    assert_eq!(
        (exit.exit_code, exit.requested_stop, exit.restarting),
        (0, false, false)
    );
    assert_eq!(
        events(&seen),
        [
            "launch/created/user",
            "start/started/flyd",
            "exit/stopped/flyd"
        ]
    );
    rig.crash_and_boot().await;
    rig.sync().await;
    rig.settle(Duration::from_secs(3600)).await;
    rig.runtime.power_cut();
    rig.crash_and_boot().await;
    rig.settle(Duration::from_secs(3600)).await;
    assert_eq!(rig.starts_made(&id), 1);
    assert!(
        rig.log()
            .await
            .contains(&"machine exited with exit code 0, not restarting".to_owned())
    );
}

#[tokio::test(start_paused = true)]
async fn a_failing_machine_is_restarted_so_often_and_then_rests_also_when_started_by_hand() {
    let mut rig = Rig::new(3).await;
    let id = rig
        .create(&["exit", "3"], policy("on-failure", Some(3)))
        .await;
    let seen = rig.until_state(&id, MachineState::Stopped).await;
    assert_eq!((rig.starts_made(&id), seen.restart_count), (4, 3));
    let line = "machine has reached its max restart count of 3";
    assert_eq!(seen.reason.as_deref(), Some(line));
    assert_eq!(seen.exit.unwrap().exit_code, 3);
    let op = rig.ask(&id, OpKind::Start).await;
    rig.until_done(&id, &op).await;
    rig.until_state(&id, MachineState::Stopped).await;
    assert_eq!(
        rig.starts_made(&id),
        5,
        "the window is not emptied by a start"
    );
    tokio::time::sleep(Duration::from_secs(301)).await;
    let op = rig.ask(&id, OpKind::Start).await;
    rig.until_done(&id, &op).await;
    rig.until_state(&id, MachineState::Stopped).await;
    assert_eq!(rig.starts_made(&id), 9, "the window has passed");
}

#[tokio::test(start_paused = true)]
async fn policy_no_never_restarts_and_always_does_whatever_the_code() {
    let mut rig = Rig::new(4).await;
    let never = rig.create(&["exit", "3"], policy("no", None)).await;
    let always = rig.create(&["exit", "0"], policy("always", None)).await;
    rig.until_state(&never, MachineState::Stopped).await;
    let began = tokio::time::Instant::now();
    rig.until(&always, |seen| seen.starts >= 6).await;
    let took = began.elapsed();
    assert!(
        took >= Duration::from_secs(3) && took < Duration::from_secs(30),
        "{took:?}"
    );
    assert_eq!(rig.starts_made(&never), 1);
    let op = rig.ask(&always, STOP).await;
    rig.until_done(&always, &op).await;
    let made = rig.starts_made(&always);
    rig.settle(Duration::from_secs(600)).await;
    assert_eq!(
        rig.starts_made(&always),
        made,
        "an explicit stop still stops it"
    );
}

#[tokio::test(start_paused = true)]
async fn a_stop_is_not_a_failure_and_a_restart_tells_the_events_of_one() {
    let mut rig = Rig::new(5).await;
    let id = rig.create(&["ignore-sigint"], policy("always", None)).await;
    rig.until_state(&id, MachineState::Started).await;
    let op = rig.ask(&id, RESTART).await;
    let seen = rig.until_done(&id, &op).await;
    assert_eq!(seen.state, MachineState::Started);
    assert_eq!(
        events(&seen)[2..],
        [
            "restart/stopping/user",
            "exit/stopped/flyd",
            "restart/starting/flyd",
            "start/started/flyd"
        ]
    );
    let op = rig.ask(&id, STOP).await;
    let seen = rig.until_done(&id, &op).await;
    assert_eq!(seen.state, MachineState::Stopped);
    let exit = seen.exit.unwrap();
    assert_eq!(
        (exit.exit_code, exit.guest_signal, exit.requested_stop),
        (143, 15, true)
    );
    let op = rig.ask(&id, STOP).await;
    assert_eq!(rig.until_done(&id, &op).await.last_op.unwrap().error, None);
    assert_eq!(rig.starts_made(&id), 2);
}

#[tokio::test(start_paused = true)]
async fn an_update_pulls_first_and_only_then_stops_the_old_version() {
    let mut rig = Rig::new(6).await;
    rig.images
        .put("new", Duration::from_secs(60), PreparedImage::default());
    let id = rig.create(&["run"], keep).await;
    rig.until_state(&id, MachineState::Started).await;
    let op = rig
        .update(&id, &["run"], |spec| {
            spec.image_ref.repository = "new".to_owned()
        })
        .await;
    tokio::time::sleep(Duration::from_secs(59)).await;
    assert_eq!(rig.runtime.live().len(), 1);
    assert_eq!(rig.liveness(&id).phase, Phase::Up);
    let mut feed = rig.host().liveness();
    let mut phases = Vec::new();
    while rig.liveness(&id).starts < 2 || rig.liveness(&id).phase != Phase::Up {
        feed.changed().await.unwrap();
        phases.push(rig.liveness(&id).phase);
    }
    assert!(
        phases.contains(&Phase::Coming) && !phases.contains(&Phase::Down),
        "{phases:?}"
    );
    let seen = rig.until_done(&id, &op).await;
    assert_eq!(
        (seen.state, seen.generation, seen.starts),
        (MachineState::Started, 2, 2)
    );
    assert_eq!(seen.instance_id, crate::rig::instance(2));
    assert!(rig.runtime.violations().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_update_whose_image_is_missing_leaves_the_old_version_running() {
    let mut rig = Rig::new(7).await;
    let id = rig.create(&["run"], keep).await;
    rig.until_state(&id, MachineState::Started).await;
    let op = rig
        .update(&id, &["run"], |spec| {
            spec.image_ref.repository = "none".to_owned()
        })
        .await;
    let seen = rig.until_done(&id, &op).await;
    assert_eq!((seen.state, seen.generation), (MachineState::Started, 1));
    let error = seen.last_op.unwrap().error.unwrap();
    assert_eq!(error, "image none@sha256:1 not found");
    let op = rig
        .update(&id, &["run"], |spec| {
            spec.image_ref.repository = "app".to_owned()
        })
        .await;
    let seen = rig.until_done(&id, &op).await;
    assert_eq!(
        (seen.state, seen.generation, seen.starts),
        (MachineState::Started, 3, 2)
    );
}

#[tokio::test(start_paused = true)]
async fn an_update_of_a_stopped_machine_leaves_the_new_version_stopped() {
    let mut rig = Rig::new(8).await;
    let id = rig.create(&["run"], keep).await;
    let op = rig.ask(&id, STOP).await;
    rig.until_done(&id, &op).await;
    let op = rig.update(&id, &["run", "9"], keep).await;
    let seen = rig.until_done(&id, &op).await;
    assert_eq!((seen.state, seen.generation), (MachineState::Stopped, 2));
    let line =
        "machine was in a non-started state prior to the update so leaving the new version stopped";
    assert!(rig.log().await.contains(&line.to_owned()));
    let op = rig.ask(&id, OpKind::Start).await;
    rig.until_done(&id, &op).await;
    assert_eq!(rig.runtime.live()[0].argv, ["run", "9"]);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_run_says_why() {
    let mut rig = Rig::new(9).await;
    let missing_image = rig
        .create(&["run"], |spec| {
            spec.image_ref.repository = "none".to_owned()
        })
        .await;
    let seen = rig.until_state(&missing_image, MachineState::Failed).await;
    assert_eq!(
        seen.reason.as_deref(),
        Some("image none@sha256:1 not found")
    );
    assert!(seen.last_op.unwrap().error.is_some());
    let no_command = rig.create(&[], keep).await;
    let seen = rig.until_state(&no_command, MachineState::Failed).await;
    assert!(seen.reason.unwrap().starts_with("the image has no command"));
    let missing = rig
        .create(&["missing"], policy("on-failure", Some(0)))
        .await;
    rig.until_state(&missing, MachineState::Stopped).await;
    let line = "failed to spawn command: no such file: missing";
    assert!(rig.log().await.contains(&line.to_owned()));
    rig.runtime.fail_start("no room in the cgroup", true);
    let unlucky = rig.create(&["run"], keep).await;
    let seen = rig.until_state(&unlucky, MachineState::Started).await;
    assert_eq!(
        seen.restart_count, 1,
        "a start that may work later is tried again"
    );
}

#[tokio::test(start_paused = true)]
async fn a_host_that_comes_back_takes_over_what_runs_and_knows_what_ended() {
    let mut rig = Rig::new(10).await;
    let lives = rig.create(&["run"], keep).await;
    let ends = rig
        .create(&["exit-after", "10s", "7"], policy("no", None))
        .await;
    rig.until_state(&lives, MachineState::Started).await;
    rig.until_state(&ends, MachineState::Started).await;
    rig.crash().await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    rig.boot().await;
    let seen = rig.until_state(&ends, MachineState::Stopped).await;
    assert_eq!(seen.exit.unwrap().exit_code, 7);
    assert_eq!(
        rig.until_state(&lives, MachineState::Started).await.starts,
        1
    );
    assert_eq!(rig.liveness(&lives).phase, Phase::Up);
    let op = rig.ask(&lives, STOP).await;
    rig.until_done(&lives, &op).await;
    assert_eq!(rig.runtime.journal().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn after_a_power_cut_what_ran_runs_again_but_policy_no_is_kept() {
    let mut rig = Rig::new(11).await;
    let service = rig.create(&["run"], keep).await;
    let job = rig.create(&["run"], policy("no", None)).await;
    rig.until_state(&service, MachineState::Started).await;
    rig.until_state(&job, MachineState::Started).await;
    rig.crash().await;
    rig.runtime.power_cut();
    rig.boot().await;
    let seen = rig
        .until(&service, |seen| {
            seen.starts == 2 && seen.state == MachineState::Started
        })
        .await;
    assert_eq!(seen.restart_count, 0, "the app did not fail");
    let seen = rig.until_state(&job, MachineState::Stopped).await;
    assert_eq!(seen.exit.unwrap().exit_code, 137);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_refuses_what_is_asked_in_words_and_what_runs_goes_on() {
    let mut rig = Rig::new(12).await;
    let id = rig.create(&["run"], keep).await;
    rig.until_state(&id, MachineState::Started).await;
    rig.files.fail_writes(1);
    let op = rig.ask(&id, STOP).await;
    let seen = rig.until_done(&id, &op).await;
    let error = seen.last_op.unwrap().error.unwrap();
    assert!(
        error.contains("the host cannot take it") && error.contains("no storage space"),
        "{error}"
    );
    assert_eq!(
        (seen.state, rig.runtime.live().len()),
        (MachineState::Started, 1)
    );
    // News that cannot be written is written later, and nothing is lost.
    rig.files.fail_writes(3);
    rig.runtime.end(&rig.runtime.journal()[0], 5);
    let seen = rig
        .until(&id, |seen| {
            seen.starts == 2 && seen.state == MachineState::Started
        })
        .await;
    assert_eq!(seen.exit.unwrap().exit_code, 5);
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_the_server_does_not_know_is_removed() {
    let mut rig = Rig::new(13).await;
    let id = rig.create(&["run"], keep).await;
    rig.until_state(&id, MachineState::Started).await;
    rig.machines.clear();
    rig.sync().await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(rig.runtime.live().is_empty());
    rig.sync().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(
        !rig.files.contains(id.as_str().as_bytes()),
        "its record is gone"
    );
}

#[tokio::test(start_paused = true)]
async fn destroy_interrupts_a_pull_and_leaves_nothing() {
    let mut rig = Rig::new(14).await;
    rig.images
        .put("slow", Duration::from_secs(600), PreparedImage::default());
    let id = rig
        .create(&["run"], |spec| {
            spec.image_ref.repository = "slow".to_owned()
        })
        .await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let began = tokio::time::Instant::now();
    let op = rig.ask(&id, OpKind::Destroy).await;
    let seen = rig.until_done(&id, &op).await;
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(seen.state, MachineState::Destroyed);
    let id = rig.create(&["run"], keep).await;
    rig.until_state(&id, MachineState::Started).await;
    let op = rig.ask(&id, OpKind::Destroy).await;
    assert_eq!(
        rig.until_done(&id, &op).await.state,
        MachineState::Destroyed
    );
    assert!(rig.runtime.live().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_machine_is_not_gone_while_nobody_can_tell_what_is_left_of_it() {
    let mut rig = Rig::new(22).await;
    let id = rig.create(&["run"], keep).await;
    rig.until_state(&id, MachineState::Started).await;
    let began = tokio::time::Instant::now();
    rig.runtime.fail_lists(3);
    let op = rig.ask(&id, OpKind::Destroy).await;
    rig.until_done(&id, &op).await;
    assert!(began.elapsed() > Duration::from_secs(10));
    assert_eq!(rig.runtime.runs().await.unwrap(), []);
}

fn service(autostart: Option<bool>) -> impl FnOnce(&mut MachineSpec) {
    let service = serde_json::json!({
        "internal_port": 8080, "autostart": autostart, "ports": [{"port": 80}],
        "checks": [{"type": "tcp", "interval": "10s"}],
    });
    move |spec| spec.config.services = vec![serde_json::from_value(service).unwrap()]
}

#[tokio::test(start_paused = true)]
async fn a_machine_is_healthy_only_after_its_first_pass_which_is_looked_for_often() {
    let mut rig = Rig::new(15).await;
    let id = rig.create(&["slow", "5s", "8080"], service(None)).await;
    rig.until_state(&id, MachineState::Started).await;
    let began = tokio::time::Instant::now();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!rig.liveness(&id).services[0].healthy);
    let mut feed = rig.host().liveness();
    while !rig.liveness(&id).services[0].healthy {
        feed.changed().await.unwrap();
    }
    let took = began.elapsed();
    assert!(took < Duration::from_millis(5150), "{took:?}");
    let seen = rig.until(&id, |seen| {
        seen.checks
            .iter()
            .any(|check| check.status == hangar_api::check::Health::Passing)
    });
    assert_eq!(seen.await.checks[0].name, "servicecheck-00-tcp-8080");
    let log = rig.log().await;
    let line = "Health check 'servicecheck-00-tcp-8080' on port 8080 is now passing.";
    assert!(log.iter().any(|text| text == line), "{log:?}");
    assert!(
        log.iter()
            .any(|text| text.contains("Services exposed on ports [80]")),
        "{log:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_wakes_a_stopped_machine_where_that_is_allowed() {
    let mut rig = Rig::new(16).await;
    let open = rig.create(&["run", "8080"], service(None)).await;
    let closed = rig.create(&["run", "8080"], service(Some(false))).await;
    for id in [&open, &closed] {
        let op = rig.ask(id, STOP).await;
        rig.until_done(id, &op).await;
    }
    rig.host().wake(open.clone()).await.unwrap();
    rig.host().wake(open.clone()).await.unwrap();
    let seen = rig.until_state(&open, MachineState::Started).await;
    assert_eq!(seen.starts, 2, "many calls share one start");
    assert!(events(&seen).contains(&"start/starting/proxy".to_owned()));
    let refused = rig.host().wake(closed.clone()).await.unwrap_err();
    assert!(refused.message.contains("autostart"));
    rig.machines.get_mut(&open).unwrap().spec.cordoned = true;
    let op = rig.ask(&open, STOP).await;
    rig.until_done(&open, &op).await;
    assert!(rig.host().wake(open).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn secrets_reach_the_machine_also_without_a_server_and_never_the_disk() {
    let mut rig = Rig::new(17).await;
    let id = rig.add(1, &["run"], policy("always", None));
    let secrets = &mut rig.machines.get_mut(&id).unwrap().secrets;
    secrets
        .0
        .insert("TOKEN".to_owned(), "s3cret-value".to_owned());
    rig.ask(&id, OpKind::Create { skip_launch: false }).await;
    rig.until_state(&id, MachineState::Started).await;
    rig.crash().await;
    rig.runtime.power_cut();
    rig.machines.clear();
    // Nothing is sent to the host by a server that does not answer.
    let machines = std::mem::take(&mut rig.machines);
    rig.boot_alone().await;
    rig.machines = machines;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(rig.runtime.live()[0].env["TOKEN"], "s3cret-value");
    assert!(!rig.files.contains(b"s3cret-value"));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_comes_again_is_done_once_and_an_older_one_is_ignored() {
    let mut rig = Rig::new(18).await;
    let id = rig.add(1, &["run"], keep);
    rig.enqueue(&id, OpKind::Create { skip_launch: false });
    rig.enqueue(&id, RESTART);
    for _ in 0..3 {
        rig.put(&id).await;
    }
    rig.settle(Duration::from_secs(60)).await;
    assert_eq!(rig.starts_made(&id), 2);
    assert!(rig.machines[&id].ops.is_empty());
}

#[tokio::test(start_paused = true)]
async fn exec_and_listeners_need_a_started_machine() {
    let mut rig = Rig::new(19).await;
    let id = rig.create(&["run", "8080"], keep).await;
    rig.until_state(&id, MachineState::Started).await;
    let command = serde_json::json!({"command": ["exit", "3"]});
    let request: hangar_api::exec::ExecRequest = serde_json::from_value(command).unwrap();
    let answer = rig.host().exec(id.clone(), request.clone()).await.unwrap();
    assert_eq!(answer.exit_code, 3);
    assert_eq!(
        rig.host().listeners(id.clone()).await.unwrap()[0].port(),
        8080
    );
    let op = rig.ask(&id, STOP).await;
    rig.until_done(&id, &op).await;
    assert!(rig.host().exec(id, request).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_destroys_itself_is_gone_after_its_run() {
    let mut rig = Rig::new(20).await;
    let id = rig
        .create(&["exit", "0"], |spec| {
            policy("no", None)(spec);
            spec.config.auto_destroy = true;
        })
        .await;
    let seen = rig.until_state(&id, MachineState::Destroyed).await;
    assert_eq!(seen.exit.unwrap().exit_code, 0);
}
