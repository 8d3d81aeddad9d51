//! A writable layer that outlives runs, and the limit of swap.

use hangar_host::cgroup::Layout;
use hangar_host::runtime::{RunStatus, Runtime as _, StartPlan};

use super::{World, until, world};

impl World {
    /// Returns the plan of a Machine's next start, with what it has kept under this name.
    fn next(&self, former: &StartPlan, start: u64, kept: Option<&str>, script: &str) -> StartPlan {
        let mut plan = former.clone();
        plan.key.start = start;
        plan.kept = kept.map(str::to_owned);
        plan.argv = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        plan
    }

    /// Runs a plan to its end and returns what it said last.
    async fn last_word(&self, plan: StartPlan) -> String {
        let (exit, said) = self.run(plan).await;
        assert_eq!(exit.exit_code, 0, "{said:?}");
        said.last().cloned().unwrap_or_default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_program_writes_is_kept_under_its_name_and_goes_with_another() {
    let Some(world) = world() else { return };
    let first = world.plan("true");
    let dir = world.dir.path().join("machines");
    let dir = dir.join(first.key.machine.as_str()).join("kept");
    // A file, a directory, a removed file of the image and a renamed one.
    let write = "echo kept >/made; mkdir /dir; echo in >/dir/x; rm /etc/plain; echo wrote";
    let read = "cat /made /dir/x 2>&1; test -e /etc/plain && echo plain || echo gone";
    let plan = world.next(&first, 1, Some("one"), write);
    assert_eq!(world.last_word(plan).await, "wrote");
    let plan = world.next(&first, 2, Some("one"), read);
    let (exit, said) = world.run(plan).await;
    assert_eq!(exit.exit_code, 0);
    assert_eq!(said[said.len() - 3..], ["kept", "in", "gone"]);
    // Another name begins with the image, and the former one is gone for good.
    let plan = world.next(&first, 3, Some("two"), read);
    assert_eq!(world.last_word(plan).await, "plain");
    assert!(dir.join("two").exists() && !dir.join("one").exists());
    // None keeps nothing, nor does it leave what was kept.
    let plan = world.next(&first, 4, None, "echo x >/made; echo done");
    assert_eq!(world.last_word(plan).await, "done");
    assert!(!dir.exists());
    let plan = world.next(&first, 5, None, "test -e /made && echo there || echo not");
    assert_eq!(world.last_word(plan).await, "not");
    assert_eq!(world.runtime.runs().await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_synced_is_there_after_a_kill_and_goes_with_the_machine() {
    let Some(world) = world() else { return };
    let first = world.plan("true");
    let machine = first.key.machine.clone();
    let script = "echo alive >/made; sync; echo ready; exec sleep 1000";
    let key = world
        .start(world.next(&first, 1, Some("one"), script))
        .await;
    world.until_said(&key, "ready").await;
    world.runtime.kill(key.clone()).await;
    until(|| world.pids(&key).is_empty()).await;
    world.runtime.remove(key.clone()).await.unwrap();
    assert_eq!(world.runtime.status(key).await, RunStatus::Absent);
    let plan = world.next(&first, 2, Some("one"), "cat /made");
    assert_eq!(world.last_word(plan).await, "alive");
    let kept = world.dir.path().join("machines").join(machine.as_str());
    assert!(kept.join("kept/one").exists());
    for _ in 0..2 {
        world.runtime.wipe(machine.clone()).await.unwrap();
        assert!(!kept.join("kept").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn swap_is_limited_beside_memory_where_it_is_counted() {
    let Some(world) = world() else { return };
    let layout = Layout::probe(hangar_host::runtime::container::cgroup_parent(
        &world.dir.path().canonicalize().unwrap(),
    ));
    let layout = layout.unwrap();
    let memory = layout.with_controller("memory").expect("memory is limited");
    for (swap, start) in [(0_u64, 1), (32 << 20, 2)] {
        let mut plan = world.plan("echo ready; exec sleep 1000");
        plan.key.start = start;
        plan.limits.swap_bytes = swap;
        let bytes = plan.limits.memory_bytes;
        let key = world.start(plan).await;
        let group = format!("{}-{}", key.machine, key.start);
        let group = memory.mount.join(&layout.parent).join(group);
        let (file, expected) = if memory.v2 {
            ("memory.swap.max", swap)
        } else {
            ("memory.memsw.limit_in_bytes", bytes + swap)
        };
        match std::fs::read_to_string(group.join(file)) {
            Ok(text) => assert_eq!(text.trim(), expected.to_string()),
            Err(error) => eprintln!("skipped: this kernel does not count swap: {error}"),
        }
        world.runtime.remove(key).await.unwrap();
    }
}
