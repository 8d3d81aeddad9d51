//! Machines that are suspended, by a request or by the proxy, and what becomes of them.

use std::time::Duration;

use hangar_api::catalog::Phase;
use hangar_api::error::ErrorKind;
use hangar_api::id::MachineId;
use hangar_api::machine::{MachineSpec, MachineState, OpKind};
use hangar_api::seam::{HostCalls as _, IdleMachine, Waker as _};
use hangar_host::machine::images::PreparedImage;
use hangar_host::runtime::RunKey;
use hangar_testkit::random::Random;

use crate::rig::{Rig, events};

const STOP: OpKind = OpKind::Stop {
    signal: None,
    timeout: None,
};
const RESTART: OpKind = OpKind::Restart {
    signal: None,
    timeout: None,
};

fn served(autostop: &str) -> impl FnOnce(&mut MachineSpec) + use<> {
    let services = serde_json::json!([{
        "internal_port": 8080, "autostop": autostop, "ports": [{"port": 80}],
        "checks": [{"type": "tcp", "interval": "2s", "timeout": "1s"}],
    }]);
    move |spec| spec.config.services = serde_json::from_value(services).unwrap()
}

fn key(id: &MachineId, start: u64) -> RunKey {
    let machine = id.clone();
    RunKey { machine, start }
}

fn idle(machine: &MachineId, starts: u64, suspend: bool) -> IdleMachine {
    IdleMachine {
        machine: machine.clone(),
        starts,
        suspend,
        left: 1,
        all: 2,
    }
}

async fn suspended(rig: &mut Rig) -> MachineId {
    let id = rig.create(&["run", "8080"], served("suspend")).await;
    rig.until_state(&id, MachineState::Started).await;
    let op = rig.ask(&id, OpKind::Suspend).await;
    let seen = rig.until_done(&id, &op).await;
    assert_eq!(seen.last_op.as_ref().unwrap().error, None);
    assert_eq!(seen.state, MachineState::Suspended);
    assert!(rig.runtime.is_frozen(&key(&id, 1)));
    id
}

/// Waits until nothing more comes, and returns the state.
async fn rests(rig: &mut Rig, id: &MachineId) -> MachineState {
    rig.settle(Duration::from_secs(60)).await;
    rig.machines[id].observed.as_ref().unwrap().state
}

#[tokio::test(start_paused = true)]
async fn a_suspended_machine_goes_on_in_the_same_run() {
    let mut rig = Rig::new(31).await;
    let id = suspended(&mut rig).await;
    assert_eq!(rig.liveness(&id).phase, Phase::Suspended);
    assert!(rig.host().listeners(id.clone()).await.is_err());
    let again = rig.ask(&id, OpKind::Suspend).await;
    assert_eq!(
        rig.until_done(&id, &again).await.last_op.unwrap().error,
        None
    );
    rig.ask(&id, OpKind::Start).await;
    let seen = rig.until_state(&id, MachineState::Started).await;
    assert_eq!(
        events(&seen)[2..],
        [
            "suspend/suspending/user",
            "suspend/suspended/flyd",
            "start/starting/user",
            "start/started/flyd"
        ]
    );
    assert_eq!((seen.starts, rig.starts_made(&id)), (1, 1));
    assert!(!rig.runtime.is_frozen(&key(&id, 1)));
    // Its checks begin again.
    let passing = |live: hangar_api::catalog::Liveness| live.services.iter().any(|s| s.healthy);
    while !passing(rig.liveness(&id)) {
        assert!(rig.take(Duration::from_secs(60)).await);
    }
}

#[tokio::test(start_paused = true)]
async fn it_stays_suspended_when_the_host_ends_and_comes_back() {
    let mut rig = Rig::new(32).await;
    let id = suspended(&mut rig).await;
    for _ in 0..3 {
        rig.crash_and_boot().await;
        assert_eq!(rests(&mut rig, &id).await, MachineState::Suspended);
        assert!(rig.runtime.is_frozen(&key(&id, 1)));
    }
    rig.host().wake(id.clone()).await.unwrap();
    rig.until_state(&id, MachineState::Started).await;
    assert_eq!(rig.starts_made(&id), 1);
}

#[tokio::test(start_paused = true)]
async fn after_a_power_cut_its_start_is_a_cold_one() {
    let mut rig = Rig::new(33).await;
    let id = suspended(&mut rig).await;
    rig.crash().await;
    rig.runtime.power_cut();
    rig.boot().await;
    assert_eq!(rests(&mut rig, &id).await, MachineState::Stopped);
    assert_eq!(rig.starts_made(&id), 1, "nobody asked for a start");
    let log = rig.log().await;
    assert!(log.iter().any(|line| line.contains("cold")), "{log:?}");
    rig.host().wake(id.clone()).await.unwrap();
    let seen = rig.until_state(&id, MachineState::Started).await;
    assert_eq!((seen.starts, rig.starts_made(&id)), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_suspended_machine_is_stopped_restarted_updated_and_destroyed() {
    let mut rig = Rig::new(34).await;
    let id = suspended(&mut rig).await;
    rig.ask(&id, STOP).await;
    let seen = rig.until_state(&id, MachineState::Stopped).await;
    let exit = seen.exit.unwrap();
    assert!(exit.requested_stop && exit.exit_code == 0, "its own end");

    let id = suspended(&mut rig).await;
    rig.ask(&id, RESTART).await;
    let seen = rig.until_state(&id, MachineState::Started).await;
    assert_eq!(seen.starts, 2);

    let id = suspended(&mut rig).await;
    let op = rig.update(&id, &["run", "9090"], |_| {}).await;
    let seen = rig.until_done(&id, &op).await;
    assert_eq!((seen.state, seen.generation), (MachineState::Stopped, 2));
    assert_eq!(
        rig.starts_made(&id),
        1,
        "it did not run, so it does not now"
    );

    let id = suspended(&mut rig).await;
    let op = rig.ask(&id, OpKind::Signal { signal: 10 }).await;
    let error = rig.until_done(&id, &op).await.last_op.unwrap().error;
    assert!(error.unwrap().contains("'suspended'"));
    rig.ask(&id, OpKind::Destroy).await;
    rig.until_state(&id, MachineState::Destroyed).await;
    assert_eq!(rig.runtime.live().len(), 1, "the restarted one");
}

#[tokio::test(start_paused = true)]
async fn an_update_whose_image_is_missing_leaves_it_suspended() {
    let mut rig = Rig::new(35).await;
    rig.images
        .put("slow", Duration::from_secs(5), PreparedImage::default());
    let id = suspended(&mut rig).await;
    let broken = |spec: &mut MachineSpec| spec.image_ref.repository = "none".to_owned();
    let op = rig.update(&id, &["run"], broken).await;
    let seen = rig.until_done(&id, &op).await;
    assert!(seen.last_op.unwrap().error.is_some());
    assert_eq!((seen.state, seen.generation), (MachineState::Suspended, 1));
    // And a crash in the middle of one that takes long changes nothing.
    let slow = |spec: &mut MachineSpec| spec.image_ref.repository = "slow".to_owned();
    let op = rig.update(&id, &["run"], slow).await;
    rig.until_state(&id, MachineState::Replacing).await;
    let busy = rig.host().wake(id.clone()).await.unwrap_err();
    assert_eq!(busy.kind, ErrorKind::Unavailable);
    rig.crash_and_boot().await;
    let seen = rig.until_done(&id, &op).await;
    assert_eq!((seen.state, seen.generation), (MachineState::Stopped, 3));
}

#[tokio::test(start_paused = true)]
async fn one_that_is_not_running_or_too_large_is_not_suspended() {
    let mut rig = Rig::new(36).await;
    let id = suspended(&mut rig).await;
    rig.ask(&id, STOP).await;
    let op = rig.ask(&id, OpKind::Suspend).await;
    let seen = rig.until_done(&id, &op).await;
    let error = seen.last_op.unwrap().error.unwrap();
    assert!(error.contains("unable to suspend machine"), "{error}");
    let large = |spec: &mut MachineSpec| {
        served("suspend")(spec);
        let guest = serde_json::json!({"cpu_kind": "shared", "cpus": 4, "memory_mb": 4096});
        spec.config.guest = Some(serde_json::from_value(guest).unwrap());
    };
    let id = rig.create(&["run", "8080"], large).await;
    let op = rig.ask(&id, OpKind::Suspend).await;
    let seen = rig.until_done(&id, &op).await;
    assert!(seen.last_op.unwrap().error.is_some());
    assert_eq!(seen.state, MachineState::Started);
    // For the proxy it is stopped instead.
    rig.host().rest(idle(&id, 1, true)).await.unwrap();
    rig.until_state(&id, MachineState::Stopped).await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_frozen_goes_on_and_what_cannot_go_on_is_started_anew() {
    let mut rig = Rig::new(37).await;
    let id = rig.create(&["run", "8080"], served("suspend")).await;
    rig.until_state(&id, MachineState::Started).await;
    rig.runtime.fail_suspend("it does not hold still");
    let op = rig.ask(&id, OpKind::Suspend).await;
    let error = rig.until_done(&id, &op).await.last_op.unwrap().error;
    assert!(error.unwrap().contains("hold still"));
    let seen = rig.until_state(&id, MachineState::Started).await;
    assert_eq!((seen.starts, rig.starts_made(&id)), (1, 1));
    rig.ask(&id, OpKind::Suspend).await;
    rig.until_state(&id, MachineState::Suspended).await;
    rig.runtime.fail_resume("the kernel says no");
    let op = rig.ask(&id, OpKind::Start).await;
    let seen = rig.until_done(&id, &op).await;
    assert_eq!(seen.last_op.unwrap().error, None);
    assert_eq!((seen.state, seen.starts), (MachineState::Started, 2));
}

#[tokio::test(start_paused = true)]
async fn one_that_dies_while_suspended_rests_stopped() {
    let mut rig = Rig::new(38).await;
    let id = suspended(&mut rig).await;
    rig.runtime.end(&key(&id, 1), 1);
    let seen = rig.until_state(&id, MachineState::Stopped).await;
    assert_eq!(seen.restart_count, 0, "no policy brings it back");
    assert_eq!(rests(&mut rig, &id).await, MachineState::Stopped);
}

#[tokio::test(start_paused = true)]
async fn an_idle_machine_is_brought_to_rest_as_its_services_say_and_woken_by_a_request() {
    let mut rig = Rig::new(39).await;
    let id = rig.create(&["run", "8080"], served("suspend")).await;
    let kept = rig.create(&["run", "8080"], served("off")).await;
    rig.until_state(&id, MachineState::Started).await;
    rig.until_state(&kept, MachineState::Started).await;
    assert!(rig.host().rest(idle(&kept, 1, false)).await.is_err());
    assert!(rig.host().rest(idle(&id, 2, true)).await.is_err());
    rig.host().rest(idle(&id, 1, true)).await.unwrap();
    let seen = rig.until_state(&id, MachineState::Suspended).await;
    assert!(events(&seen).contains(&"suspend/suspending/proxy".to_owned()));
    assert!(rig.host().rest(idle(&id, 1, true)).await.is_err());
    let log = rig.log().await;
    let line = format!(
        "App app1 has excess capacity, autosuspending machine {id}. 1 out of 2 machines left \
         running (region=iad, process group=web)"
    );
    assert!(log.contains(&line), "{log:?}");
    for _ in 0..5 {
        rig.host().wake(id.clone()).await.unwrap();
    }
    let seen = rig.until_state(&id, MachineState::Started).await;
    let starting = "start/starting/proxy".to_owned();
    let count = events(&seen).iter().filter(|e| **e == starting).count();
    assert_eq!(count, 1, "many requests share one start");
    // What cannot be frozen is stopped.
    rig.runtime.fail_suspend("it does not hold still");
    rig.host().rest(idle(&id, 1, true)).await.unwrap();
    let seen = rig.until_state(&id, MachineState::Stopped).await;
    assert!(events(&seen).contains(&"stop/stopping/proxy".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_lease_and_a_cordon_keep_the_proxy_away() {
    let mut rig = Rig::new(40).await;
    let id = rig.create(&["run", "8080"], served("stop")).await;
    rig.until_state(&id, MachineState::Started).await;
    let until = rig.env.now() + Duration::from_secs(10);
    rig.machines.get_mut(&id).unwrap().leased_until = Some(until);
    rig.put(&id).await;
    let refused = |rig: &Rig| {
        let rest = rig.host().clone();
        let id = id.clone();
        async move { rest.rest(idle(&id, 1, false)).await.unwrap_err() }
    };
    // The message is behind the call in no queue: wait until it has arrived.
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(refused(&rig).await.kind, ErrorKind::Unavailable);
    rig.ask(&id, STOP).await;
    rig.until_state(&id, MachineState::Stopped).await;
    let busy = rig.host().wake(id.clone()).await.unwrap_err();
    assert_eq!(busy.kind, ErrorKind::Unavailable);
    assert!(busy.message.contains("lease"), "{busy}");
    // A lease ends by itself.
    tokio::time::sleep(Duration::from_secs(11)).await;
    rig.host().wake(id.clone()).await.unwrap();
    rig.until_state(&id, MachineState::Started).await;
    rig.machines.get_mut(&id).unwrap().spec.cordoned = true;
    rig.put(&id).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    let denied = rig.host().rest(idle(&id, 2, false)).await.unwrap_err();
    assert!(denied.message.contains("cordoned"), "{denied}");
}

/// Whatever the proxy asks for while the host dies and comes back: one run of the Machine lives,
/// it is up once somebody asks for it last, and frozen or down once nobody does.
async fn shaken(seed: u64) {
    let mut random = Random::new(seed);
    let mut rig = Rig::new(seed).await;
    let step = Duration::from_millis(1);
    rig.files.set_latency(step);
    rig.runtime.set_latency(step);
    let how = if seed.is_multiple_of(2) {
        "suspend"
    } else {
        "stop"
    };
    let id = rig.create(&["run", "8080"], served(how)).await;
    rig.until_state(&id, MachineState::Started).await;
    for _ in 0..12 {
        let host = rig.host().clone();
        let starts = rig.liveness(&id).starts;
        let suspend = random.below(4) != 0;
        let asks = random.below(3);
        let pause = Duration::from_millis(random.below(30));
        let asked = async {
            // Refused or broken off is as good here: what comes in the end counts.
            match asks {
                0 => drop(host.rest(idle(&id, starts, suspend)).await),
                1 => drop(host.wake(id.clone()).await),
                _ => {
                    drop(host.rest(idle(&id, starts, suspend)).await);
                    tokio::time::sleep(step).await;
                    drop(host.wake(id.clone()).await);
                }
            }
        };
        drop(tokio::time::timeout(pause, asked).await);
        if random.below(3) == 0 {
            rig.crash_and_boot().await;
        }
    }
    let state = rests(&mut rig, &id).await;
    let live = rig.runtime.live();
    let frozen = live.iter().all(|plan| rig.runtime.is_frozen(&plan.key));
    match state {
        MachineState::Stopped => assert!(live.is_empty(), "seed {seed}"),
        MachineState::Suspended => assert!(live.len() == 1 && frozen, "seed {seed}"),
        MachineState::Started => assert!(live.len() == 1 && !frozen, "seed {seed}"),
        other => panic!("seed {seed}: at rest in {other}"),
    }
    rig.host().wake(id.clone()).await.unwrap();
    rig.until_state(&id, MachineState::Started).await;
    assert_eq!(rig.runtime.violations(), [""; 0], "seed {seed}");
}

#[test]
fn a_host_killed_between_rest_and_start_loses_no_request() {
    let long = std::env::var_os("HANGAR_LONG").is_some();
    for seed in 0..if long { 2000 } else { 100 } {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(shaken(seed));
    }
}

/// The first version of control groups, which is taken where the second cannot freeze.
#[test]
fn groups_of_the_first_version_freeze_thaw_and_let_go_of_what_is_killed() {
    use hangar_host::cgroup::Layout;
    use hangar_host::runtime::Limits;
    if !rustix::process::geteuid().is_root() {
        return skipped("needs root");
    }
    let parent = format!("hangar-freeze-{}", std::process::id());
    let mut layout = Layout::probe(parent).unwrap();
    layout
        .hierarchies
        .retain(|hierarchy| !hierarchy.v2 && hierarchy.controllers == ["freezer"]);
    let Some(hierarchy) = layout.hierarchies.first() else {
        return skipped("needs a freezer of the first version");
    };
    let run = key(&MachineId::new("00000000000000").unwrap(), 1);
    let tasks = hierarchy
        .mount
        .join(&layout.parent)
        .join(format!("{}-{}/tasks", run.machine, run.start));
    let limits = Limits {
        cpus: 1,
        memory_bytes: 1 << 26,
        swap_bytes: 0,
        pids: 10,
    };
    layout.create(&run, &limits).unwrap();
    assert!(!layout.is_frozen(&run));
    let mut child = std::process::Command::new("sleep")
        .arg("1000")
        .spawn()
        .unwrap();
    std::fs::write(tasks, child.id().to_string()).unwrap();
    layout.freeze(&run).unwrap();
    while !layout.is_frozen(&run) {
        std::thread::yield_now();
    }
    layout.thaw(&run).unwrap();
    assert!(!layout.is_frozen(&run));
    layout.freeze(&run).unwrap();
    while !layout.is_frozen(&run) {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    assert!(
        child.try_wait().unwrap().is_none(),
        "it cannot end by itself"
    );
    layout.kill_once(&run).unwrap();
    child.wait().unwrap();
    layout.remove(&run).unwrap();
    layout.thaw(&run).unwrap();
}

#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}
