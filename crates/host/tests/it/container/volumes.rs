//! Volumes in real containers: what a program sees of them, and what outlives whom.

use std::fs;
use std::path::Path;

use hangar_api::env::Env;
use hangar_api::error::ErrorKind;
use hangar_api::id::{SnapshotId, VolumeId};
use hangar_api::seam::VolumeCalls as _;
use hangar_api::volume::VolumeSource;
use hangar_host::runtime::{RunKey, RunMount, Runtime as _, StartPlan};

use super::{World, runtime, until, world};

const MIB: u64 = 1 << 20;

/// Returns a world, or says why there is none with volumes here.
fn volume_world() -> Option<World> {
    if !Path::new("/dev/loop-control").exists() {
        eprintln!("skipped: needs loop devices (modprobe loop)");
        return None;
    }
    world()
}

impl World {
    async fn volume(&self, mib: u64) -> VolumeId {
        let id = VolumeId::generate(&Env::real());
        let volumes = self.runtime.volumes();
        let made = volumes.make(id.clone(), mib * MIB, VolumeSource::Empty);
        made.await.unwrap();
        id
    }

    fn plan_on(&self, volume: &VolumeId, script: &str) -> StartPlan {
        let mounts = vec![RunMount {
            volume: volume.clone(),
            path: "/data".into(),
        }];
        let plan = self.plan(script);
        StartPlan { mounts, ..plan }
    }

    /// Runs a script with a volume and returns what it said; it must end well.
    async fn output_on(&self, volume: &VolumeId, script: &str) -> String {
        let (exit, said) = self.run(self.plan_on(volume, script)).await;
        assert_eq!(exit.exit_code, 0, "{said:?}");
        said.join("\n")
    }

    /// Waits until no loop device has an image of this world.
    async fn no_device_is_left(&self) {
        let home = self.dir.path().canonicalize().unwrap();
        until(|| devices(&home).is_empty()).await;
    }
}

/// Returns the loop devices that have a file below a directory.
fn devices(home: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/sys/block").unwrap().flatten() {
        let file = fs::read_to_string(entry.path().join("loop/backing_file"));
        if file.is_ok_and(|file| Path::new(&file).starts_with(home)) {
            found.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_to_a_volume_is_there_for_the_next_run_and_nothing_is_left_attached() {
    let Some(world) = volume_world() else { return };
    let volume = world.volume(64).await;
    let script = "cat /data/text; echo one >/data/text; ls -ld /data";
    let (exit, said) = world
        .run(world.plan_on(&volume, "cat /data/text || echo one >/data/text"))
        .await;
    assert_eq!(exit.exit_code, 0, "{said:?}");
    let said = world.output_on(&volume, script).await;
    assert!(said.starts_with("one\n"), "{said}");
    world.no_device_is_left().await;
    // Nothing of the host shows where it comes from.
    let mounts = world.output_on(&volume, "cat /proc/mounts").await;
    let home = world.dir.path().to_string_lossy().into_owned();
    assert!(mounts.contains(" /data ext4 "), "{mounts}");
    assert!(!mounts.contains(&home), "{mounts}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_volumes_root_belongs_to_the_user_that_the_program_runs_as() {
    let Some(world) = volume_world() else { return };
    let volume = world.volume(64).await;
    let mut plan = world.plan_on(&volume, "id -u; touch /data/mine && ls -ln /data");
    plan.user = "web".to_owned();
    let (exit, said) = world.run(plan).await;
    assert_eq!(exit.exit_code, 0, "{said:?}");
    assert_eq!(said[0], "1000");
    assert!(said.iter().any(|line| line.contains("1000")), "{said:?}");
}

/// Returns whether root may extend a file system in use here: some machines take that away.
fn may_extend_in_use() -> bool {
    use rustix::thread::{CapabilitySet, capabilities};
    let sets = capabilities(None).unwrap();
    sets.effective.contains(CapabilitySet::SYS_RESOURCE)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_ends_where_its_size_does_and_grows_under_a_program_that_writes() {
    let Some(world) = volume_world() else { return };
    let volume = world.volume(64).await;
    let script = "dd if=/dev/zero of=/data/big bs=1M count=100; echo code $?; exec sleep 1000";
    let key = world.start(world.plan_on(&volume, script)).await;
    world.until_said(&key, "code 1").await;
    let said = world.said(&key).join("\n");
    assert!(said.contains("No space left on device"), "{said}");
    let volumes = world.runtime.volumes();
    let more = "dd if=/dev/zero of=/data/more bs=1M count=80 && ls -l /data/big /data/more";
    // Once where root may extend what is in use, else after the run.
    for _ in 0..2 {
        let extended = volumes.extend(volume.clone(), 192 * MIB).await.unwrap();
        assert_eq!(extended.needs_restart, !may_extend_in_use());
    }
    if may_extend_in_use() {
        let ran = world.exec(&key, more).await;
        assert_eq!(ran.exit_code, 0, "{ran:?}");
    } else {
        eprintln!("skipped in part: root has no CAP_SYS_RESOURCE here");
        let ran = world.exec(&key, "ls /data/big").await;
        assert_eq!(ran.exit_code, 0, "{ran:?}");
    }
    world.runtime.remove(key).await.unwrap();
    world.output_on(&volume, more).await;
    let usage = volumes.usage(volume.clone()).await.unwrap();
    assert!(usage.bytes_used() > 120 * MIB, "{usage:?}");
    world.no_device_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_is_never_in_two_runs_and_never_removed_from_one() {
    let Some(world) = volume_world() else { return };
    let volume = world.volume(64).await;
    let key = world
        .start(world.plan_on(&volume, "echo ready; exec sleep 1000"))
        .await;
    world.until_said(&key, "ready").await;
    let volumes = world.runtime.volumes();
    let removed = volumes.remove_volume(volume.clone());
    // The second waits for the first, which ends only then.
    let plan = world.plan_on(&volume, "cat /data/x");
    let other = plan.key.clone();
    let second = world.runtime.start(plan);
    let ends = async {
        let refused = removed.await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::FailedPrecondition);
        assert!(refused.message.contains("in use"), "{refused}");
        world.exec(&key, "echo mine >/data/x").await;
        world.runtime.remove(key.clone()).await.unwrap();
    };
    let (started, ()) = tokio::join!(second, ends);
    started.unwrap();
    assert_eq!(world.runtime.wait(other).await.exit_code, 0);
    volumes.usage(volume).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_without_its_volume_says_so_and_leaves_nothing() {
    let Some(world) = volume_world() else { return };
    let volume = VolumeId::generate(&Env::real());
    let plan = world.plan_on(&volume, "true");
    let key = plan.key.clone();
    let error = world.runtime.start(plan).await.unwrap_err();
    assert!(error.message.contains(volume.as_str()), "{error}");
    assert!(!error.transient, "{error}");
    world.assert_nothing_left(&key);
}

/// A program that writes numbers, each twice: the second only when the first is on disk.
const WRITES: &str = "echo ready; i=0; while :; do i=$((i+1)); \
    echo $i >/data/a.new; mv /data/a.new /data/a; sync; \
    echo $i >/data/b.new; mv /data/b.new /data/b; sync; done";

async fn is_whole(world: &World, snapshot: SnapshotId) -> u64 {
    let copy = VolumeId::generate(&Env::real());
    let source = VolumeSource::Snapshot { id: snapshot };
    let volumes = world.runtime.volumes();
    volumes.make(copy.clone(), 64 * MIB, source).await.unwrap();
    let said = world.output_on(&copy, "cat /data/a /data/b").await;
    let numbers: Vec<u64> = said.lines().map(|line| line.parse().unwrap()).collect();
    let [a, b] = numbers[..] else {
        panic!("{said}")
    };
    assert!(a == b || a == b + 1, "{a} {b}");
    volumes.remove_volume(copy).await.unwrap();
    a
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_a_volume_that_is_written_to_is_as_of_one_moment() {
    let Some(world) = volume_world() else { return };
    let volume = world.volume(64).await;
    let key = world.start(world.plan_on(&volume, WRITES)).await;
    world.until_said(&key, "ready").await;
    let volumes = world.runtime.volumes();
    let mut last = 0;
    for _ in 0..5 {
        until(|| number(&world, &key) > last).await;
        let snapshot = SnapshotId::generate(&Env::real());
        let bytes = volumes.snapshot(volume.clone(), snapshot.clone()).await;
        assert!(bytes.unwrap() > 0);
        let now = is_whole(&world, snapshot).await;
        assert!(now > last, "{now} after {last}");
        last = now;
    }
    world.runtime.remove(key).await.unwrap();
}

/// Returns the number that the program has written last, as far as that can be seen.
fn number(world: &World, key: &RunKey) -> u64 {
    let pid = world.pids(key).into_iter().min().unwrap_or_default();
    let text = fs::read_to_string(
        Path::new(&format!("/proc/{pid}"))
            .join("root")
            .join("data/b"),
    );
    text.ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_copy_is_killed_writes_go_on_and_the_next_copy_is_whole() {
    let Some(world) = volume_world() else { return };
    let volume = world.volume(64).await;
    // Enough to take a moment.
    let script = format!("dd if=/dev/urandom of=/data/fill bs=1M count=40; {WRITES}");
    let key = world.start(world.plan_on(&volume, &script)).await;
    world.until_said(&key, "ready").await;
    let home = world.dir.path().to_owned();
    let mut frozen = 0;
    for round in 0..6 {
        let before = number(&world, &key);
        let volumes = world.runtime.volumes();
        let snapshot = SnapshotId::generate(&Env::real());
        let asked = snapshot.clone();
        let of = volume.clone();
        let copying = tokio::spawn(async move { volumes.snapshot(of, asked).await });
        let half = home.join("snapshots").join(format!("{snapshot}.new"));
        until(|| half.exists() || copying.is_finished()).await;
        let helper = world.runtime.helper_pid().unwrap();
        let machine = family(u32::try_from(*world.pids(&key).iter().min().unwrap()).unwrap());
        let makers = || {
            let mut all = family(helper);
            all.retain(|pid| !machine.contains(pid) && is_maker(*pid));
            all
        };
        // In every other round once there is a guardian: while the volume is held still.
        while round % 2 == 1 && makers().len() < 3 && !copying.is_finished() {
            tokio::task::yield_now().await;
        }
        let mut doomed = makers();
        frozen += usize::from(doomed.len() >= 3);
        if round < 3 {
            doomed.truncate(2);
        }
        // Helper, worker and, in the later rounds, the guardian: all at once.
        kill_all(&doomed);
        let again = runtime(&home).volumes();
        again.settle().await.unwrap();
        until(|| number(&world, &key) > before).await;
        drop(copying.await);
        again
            .snapshot(volume.clone(), snapshot.clone())
            .await
            .unwrap();
        is_whole(&world, snapshot).await;
    }
    eprintln!("{frozen} of the kills fell while the volume was held still");
    world.runtime.remove(key).await.unwrap();
    world.no_device_is_left().await;
}

/// Returns whether a process is the helper or one of its workers, and no Machine's.
fn is_maker(pid: u32) -> bool {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    words
        .split(|byte| *byte == 0)
        .any(|word| word == b"__helper")
}

fn kill_all(pids: &[u32]) {
    for pid in pids {
        let pid = rustix::process::Pid::from_raw(i32::try_from(*pid).unwrap()).unwrap();
        // It may have ended by itself.
        let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// Returns a process and its descendants, parents first.
fn family(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut at = 0;
    while let Some(pid) = all.get(at) {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.unwrap_or_default();
        all.extend(
            children
                .split_whitespace()
                .map(|pid| pid.parse::<u32>().unwrap()),
        );
        at += 1;
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_killed_anywhere_in_its_making_leaves_its_volume_free() {
    let Some(world) = volume_world() else { return };
    let volume = world.volume(64).await;
    world.output_on(&volume, "echo kept >/data/text").await;
    for round in 0..8_u64 {
        let plan = world.plan_on(&volume, "exec sleep 1000");
        let key = plan.key.clone();
        let starting = world.runtime.start(plan);
        let killing = async {
            tokio::time::sleep(std::time::Duration::from_millis(round)).await;
            kill_all(&world.runtime.helper_pid().map(family).unwrap_or_default());
        };
        let (_started, ()) = tokio::join!(starting, killing);
        world.runtime.remove(key.clone()).await.unwrap();
        assert_eq!(world.output_on(&volume, "cat /data/text").await, "kept");
    }
    world.no_device_is_left().await;
}
