//! What dies and what lives on when the runtime, its helper or a maker is killed.

use std::time::Duration;

use hangar_host::runtime::{RunStatus, Runtime as _};

use super::{runtime, until, world};

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_runtime_knows_what_the_old_one_started() {
    let Some(mut world) = world() else { return };
    let key = world
        .start(world.plan("trap 'exit 9' INT; echo ready; while :; do sleep 0.02; done"))
        .await;
    let short = world.start(world.plan("exit 4")).await;
    world.until_said(&key, "ready").await;
    world.runtime = runtime(world.dir.path());
    assert_eq!(world.runtime.status(key.clone()).await, RunStatus::Running);
    assert_eq!(world.runtime.wait(short).await.exit_code, 4);
    let second = Duration::from_secs(1);
    world
        .runtime
        .stop(key.clone(), libc::SIGINT, second * 30)
        .await
        .unwrap();
    assert_eq!(world.runtime.wait(key.clone()).await.exit_code, 9);
    world.runtime.remove(key.clone()).await.unwrap();
    world.assert_nothing_left(&key);
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_outlive_the_helper_and_it_is_started_again() {
    let Some(world) = world() else { return };
    let key = world.start(world.plan("echo ready; exec sleep 1000")).await;
    let first = world.runtime.helper_pid().unwrap();
    kill(first);
    until(|| !std::path::Path::new(&format!("/proc/{first}/exe")).exists()).await;
    assert_eq!(world.runtime.status(key.clone()).await, RunStatus::Running);
    let (exit, _) = world.run(world.plan("exit 2")).await;
    assert_eq!(exit.exit_code, 2);
    assert_ne!(world.runtime.helper_pid().unwrap(), first);
    world.runtime.remove(key.clone()).await.unwrap();
    world.assert_nothing_left(&key);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_to_the_helpers_process_group_reaches_no_machine() {
    let Some(world) = world() else { return };
    let script = "trap 'echo heard' HUP TERM; echo ready; while :; do sleep 0.02; done";
    let key = world.start(world.plan(script)).await;
    world.until_said(&key, "ready").await;
    let helper = world.runtime.helper_pid().unwrap();
    let group = rustix::process::Pid::from_raw(i32::try_from(helper).unwrap()).unwrap();
    // As the kernel does when the server dies while one of the group is stopped.
    rustix::process::kill_process_group(group, rustix::process::Signal::HUP).unwrap();
    until(|| !std::path::Path::new(&format!("/proc/{helper}/exe")).exists()).await;
    // Whatever was sent to init came before this.
    let pong = world.exec(&key, "echo pong").await;
    assert_eq!(pong.stdout, "pong\n");
    world
        .runtime
        .signal(key.clone(), libc::SIGTERM)
        .await
        .unwrap();
    world.until_said(&key, "heard").await;
    assert_eq!(world.said(&key), ["ready", "heard"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_helper_killed_in_the_middle_of_a_start_leaves_a_whole_run_or_nothing() {
    let Some(world) = world() else { return };
    for micros in (0..12_000).step_by(600) {
        // A helper is there to be killed.
        let (exit, _) = world.run(world.plan("exit 0")).await;
        assert_eq!(exit.exit_code, 0);
        let pid = world.runtime.helper_pid().unwrap();
        let plan = world.plan("exit 6");
        let key = plan.key.clone();
        let killer = async {
            tokio::time::sleep(Duration::from_micros(micros)).await;
            kill(pid);
        };
        let (started, ()) = tokio::join!(world.runtime.start(plan), killer);
        started.unwrap();
        assert_eq!(world.runtime.wait(key.clone()).await.exit_code, 6);
        world.runtime.remove(key.clone()).await.unwrap();
        world.assert_nothing_left(&key);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_in_the_middle_of_a_start_leaves_what_can_be_found() {
    let Some(mut world) = world() else { return };
    for micros in (0..12_000).step_by(600) {
        let plan = world.plan("exit 5");
        let key = plan.key.clone();
        let limit = Duration::from_micros(micros);
        let started = tokio::time::timeout(limit, world.runtime.start(plan)).await;
        world.runtime = runtime(world.dir.path());
        match world.runtime.status(key.clone()).await {
            RunStatus::Running | RunStatus::Exited(_) => {
                assert_eq!(world.runtime.wait(key.clone()).await.exit_code, 5);
            }
            RunStatus::Lost => panic!("half a run was left"),
            // Its maker may be between the directory and the lock.
            RunStatus::Unmade | RunStatus::Absent => assert!(started.is_err()),
        }
        world.runtime.remove(key.clone()).await.unwrap();
        world.assert_nothing_left(&key);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_init_that_is_killed_leaves_a_lost_run_that_can_be_removed() {
    let Some(world) = world() else { return };
    let key = world
        .start(world.plan("sleep 1000 & echo ready; exec sleep 1000"))
        .await;
    world.until_said(&key, "ready").await;
    let waiting = world.runtime.wait(key.clone());
    let first = world.pids(&key).into_iter().min().unwrap();
    kill(u32::try_from(first).unwrap());
    let exit = waiting.await;
    assert_eq!((exit.exit_code, exit.oom_killed), (137, false));
    assert_eq!(world.runtime.status(key.clone()).await, RunStatus::Lost);
    world.runtime.remove(key.clone()).await.unwrap();
    world.assert_nothing_left(&key);
}

#[tokio::test(flavor = "multi_thread")]
async fn starting_twice_starts_once() {
    let Some(world) = world() else { return };
    let plan = world.plan("echo started; exec sleep 1000");
    let key = plan.key.clone();
    let (one, two) = tokio::join!(
        world.runtime.start(plan.clone()),
        world.runtime.start(plan.clone())
    );
    one.unwrap();
    two.unwrap();
    world.until_said(&key, "started").await;
    world.runtime.start(plan).await.unwrap();
    assert_eq!(world.said(&key), ["started"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_while_it_is_started_leaves_nothing() {
    let Some(world) = world() else { return };
    for _ in 0..10 {
        let plan = world.plan("exec sleep 1000");
        let key = plan.key.clone();
        let (_, removed) =
            tokio::join!(world.runtime.start(plan), world.runtime.remove(key.clone()));
        removed.unwrap();
        world.runtime.remove(key.clone()).await.unwrap();
        world.assert_nothing_left(&key);
    }
}
