//! The host killed at random moments of random requests, on a seeded clock (D16).
//!
//! A world is a host on the fake runtime and a ledger in memory whose every step takes a
//! millisecond of the paused clock, so that a kill falls between any two of them. Whatever was
//! killed, afterwards every Machine is what was asked of it, nothing is lost, nothing lives twice,
//! nothing is left over, and each request was done once. A seed that fails is named.

use std::time::Duration;

use hangar_api::catalog::Phase;
use hangar_api::id::MachineId;
use hangar_api::machine::{MachineState, OpKind};
use hangar_testkit::random::Random;

use crate::rig::Rig;

/// Seeds of the short form.
const SHORT: u64 = 150;
/// Seeds of the long form.
const LONG: u64 = 5000;
const STEP: Duration = Duration::from_millis(1);

/// What a Machine must come to when its requests are done one after the other.
#[derive(Clone, Copy, Debug)]
struct Expected {
    state: MachineState,
    starts: usize,
}

impl Expected {
    fn after(self, kind: &OpKind) -> Self {
        use MachineState::{Created, Destroyed, Started, Stopped, Suspended};
        let (state, launched) = match (self.state, kind) {
            (Destroyed, _) | (_, OpKind::Destroy) => (Destroyed, 0),
            (Created, OpKind::Create { skip_launch: true }) => (Stopped, 0),
            (Created, OpKind::Create { skip_launch: false }) => (Started, 1),
            (Started, OpKind::Restart { .. }) => (Started, 1),
            (Started, OpKind::Update { skip_launch, .. }) if *skip_launch => (Stopped, 0),
            (Started, OpKind::Update { .. }) => (Started, 1),
            (Started | Suspended, OpKind::Stop { .. }) => (Stopped, 0),
            (Started, OpKind::Suspend) => (Suspended, 0),
            // The same run goes on.
            (Suspended, OpKind::Start) => (Started, 0),
            (Suspended, OpKind::Restart { .. }) => (Started, 1),
            (Suspended, OpKind::Update { .. }) => (Stopped, 0),
            (_, OpKind::Start) => (Started, usize::from(self.state != Started)),
            // What is not running is not restarted.
            (state, _) => (state, 0),
        };
        Self {
            state,
            starts: self.starts + launched,
        }
    }
}

fn any_request(rig: &mut Rig, id: &MachineId, random: &mut Random) -> OpKind {
    match random.below(20) {
        0..4 => OpKind::Start,
        16..20 => OpKind::Suspend,
        4..8 => OpKind::Stop {
            signal: None,
            timeout: None,
        },
        8..11 => OpKind::Restart {
            signal: None,
            timeout: None,
        },
        11..14 => rig.new_generation(id, &["run", "8080"], |_| {}),
        14 => OpKind::Signal { signal: 10 },
        _ if random.below(4) == 0 => OpKind::Destroy,
        _ => OpKind::Start,
    }
}

/// Lets the host live or die for a while.
async fn shake(rig: &mut Rig, random: &mut Random) {
    let pause = Duration::from_millis(random.below(40));
    match random.below(3) {
        0 => {
            tokio::time::sleep(pause).await;
            rig.crash_and_boot().await;
        }
        1 => {
            tokio::time::sleep(pause).await;
            rig.crash().await;
            tokio::time::sleep(Duration::from_millis(random.below(20))).await;
            rig.boot().await;
        }
        _ => while rig.take(pause).await {},
    }
}

async fn world(seed: u64, patient: bool) {
    let mut random = Random::new(seed);
    let mut rig = Rig::new(seed).await;
    rig.files.set_latency(STEP);
    rig.runtime.set_latency(STEP);
    let mut expected = Vec::new();
    for number in 1..=1 + random.below(3) {
        let id = rig.add(number, &["run", "8080"], |_| {});
        let skip_launch = random.below(4) == 0;
        let create = OpKind::Create { skip_launch };
        let before = Expected {
            state: MachineState::Created,
            starts: 0,
        };
        expected.push((id.clone(), before.after(&create)));
        rig.ask(&id, create).await;
        if patient {
            shake(&mut rig, &mut random).await;
            rig.settle(Duration::from_secs(30)).await;
        }
    }
    for _ in 0..4 + random.below(12) {
        let which = usize::try_from(random.below(expected.len() as u64)).unwrap();
        let (id, now) = &mut expected[which];
        let kind = any_request(&mut rig, id, &mut random);
        *now = now.after(&kind);
        rig.ask(id, kind).await;
        shake(&mut rig, &mut random).await;
        if random.below(3) == 0 {
            rig.put(id).await;
        }
        if patient {
            shake(&mut rig, &mut random).await;
            rig.settle(Duration::from_secs(30)).await;
        }
    }
    rig.crash_and_boot().await;
    rig.settle(Duration::from_secs(300)).await;
    for (id, expected) in &expected {
        judge(&rig, seed, id, *expected, patient);
    }
    assert!(
        rig.runtime.violations().is_empty(),
        "seed {seed}: {:?}",
        rig.runtime.violations()
    );
    let left = hangar_host::runtime::Runtime::runs(&rig.runtime)
        .await
        .unwrap();
    assert_eq!(
        left.len(),
        rig.runtime.live().len(),
        "seed {seed}: {left:?}"
    );
}

fn judge(rig: &Rig, seed: u64, id: &MachineId, expected: Expected, patient: bool) {
    let seen = rig.machines[id].observed.clone().unwrap();
    assert!(
        rig.machines[id].ops.is_empty(),
        "seed {seed}: not done: {:?} {seen:?}",
        rig.machines[id].ops
    );
    assert_eq!(seen.state, expected.state, "seed {seed}: {seen:?}");
    let runtime = rig.runtime.live();
    let live = runtime
        .iter()
        .filter(|plan| plan.key.machine == *id)
        .count();
    let (up, frozen) = (
        expected.state == MachineState::Started,
        expected.state == MachineState::Suspended,
    );
    assert_eq!(live, usize::from(up || frozen), "seed {seed}: {seen:?}");
    for plan in runtime.iter().filter(|plan| plan.key.machine == *id) {
        assert_eq!(rig.runtime.is_frozen(&plan.key), frozen, "seed {seed}");
    }
    let phase = match (up, frozen) {
        (true, _) => Phase::Up,
        (_, true) => Phase::Suspended,
        _ => Phase::Down,
    };
    assert_eq!(rig.liveness(id).phase, phase, "seed {seed}");
    // A start whose making was broken off has a number too, and nothing ran under it.
    assert!(
        seen.starts >= rig.starts_made(id) as u64,
        "seed {seed}: {seen:?}"
    );
    if up {
        assert!(rig.liveness(id).starts == seen.starts, "seed {seed}");
    }
    if patient {
        // Nothing was interrupted: each request was done exactly once.
        assert_eq!(
            rig.starts_made(id),
            expected.starts,
            "seed {seed}: {seen:?}"
        );
    }
}

fn run(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(world(seed, seed % 2 == 0));
    }
}

#[test]
fn a_host_killed_at_random_moments_loses_nothing_and_does_nothing_twice() {
    let long = std::env::var_os("HANGAR_LONG").is_some();
    run(0..if long { LONG } else { SHORT });
}

#[test]
fn one_seed_is_the_same_world_every_time() {
    let journal = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut random = Random::new(7);
            let mut rig = Rig::new(7).await;
            rig.runtime.set_latency(STEP);
            let id = rig.create(&["exit-after", "20ms", "1"], |_| {}).await;
            for _ in 0..5 {
                shake(&mut rig, &mut random).await;
            }
            rig.settle(Duration::from_secs(600)).await;
            (rig.runtime.journal(), rig.machines[&id].observed.clone())
        })
    };
    assert_eq!(journal(), journal());
}
