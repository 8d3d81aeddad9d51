//! Swap and the root file system of single Machines, and what no container can have.

use serde_json::json;

use crate::busybox::SHELL;
use crate::world::World;

const APP: &str = "extent";

fn run(world: &World, name: &str, more: &[&str]) -> String {
    let words = [
        "machine", "run", SHELL, "-a", APP, "--name", name, "--detach",
    ];
    world.ok(&[&words[..], more].concat());
    let all = world.machines(APP);
    let made = all.iter().find(|m| m["name"] == name).unwrap();
    made["id"].as_str().unwrap().to_owned()
}

fn has(world: &World, id: &str) -> bool {
    world.said(APP, id, "test -e /made && echo yes || echo no") == "yes\n"
}

/// Returns whether a Machine has anything on disk that outlives its runs.
fn keeps(world: &World, id: &str) -> bool {
    world
        .data_dir()
        .join("machines")
        .join(id)
        .join("kept")
        .exists()
}

#[test]
fn what_a_program_writes_is_kept_as_long_as_was_said() {
    let Some(world) = World::with_shell() else {
        return;
    };
    world.ok(&["apps", "create", APP]);
    for (word, over_restart, over_update) in [
        ("never", false, false),
        ("restart", true, false),
        ("always", true, true),
    ] {
        let id = run(&world, word, &["--rootfs-persist", word]);
        assert_eq!(world.machine(APP, &id)["config"]["rootfs"]["persist"], word);
        world.said(APP, &id, "touch /made; rm -f /bin/yes");
        world.ok(&["machine", "restart", &id]);
        assert_eq!(has(&world, &id), over_restart, "{word}: restart");
        world.ok(&["machine", "stop", &id]);
        world.ok(&["machine", "start", &id]);
        assert_eq!(has(&world, &id), over_restart, "{word}: stop and start");
        world.ok(&["machine", "update", &id, "-e", "NEW=1", "--yes"]);
        assert_eq!(has(&world, &id), over_update, "{word}: update");
        assert_eq!(keeps(&world, &id), word != "never", "{word}");
        world.ok(&["machine", "destroy", &id, "--force"]);
        world.eventually("nothing is left of it", |world| {
            (!keeps(world, &id)).then_some(())
        });
    }
    // A server that is killed changes nothing of it; never begins with the image again.
    let mut world = world;
    let id = run(&world, "last", &["--rootfs-persist", "always"]);
    world.said(APP, &id, "touch /made");
    world.kill_server();
    world.start_server();
    world.ok(&["machine", "restart", &id]);
    assert!(has(&world, &id));
    let update = ["machine", "update", &id, "--rootfs-persist", "never", "-y"];
    world.ok(&update);
    assert!(!has(&world, &id) && !keeps(&world, &id));
}

#[test]
fn swap_and_sizes_are_written_down_and_limited_and_kernel_arguments_refused() {
    let Some(world) = World::with_shell() else {
        return;
    };
    world.ok(&["apps", "create", APP]);
    let id = run(&world, "one", &["--swap-size", "64", "--rootfs-size", "5"]);
    let config = |world: &World| world.machine(APP, &id)["config"].clone();
    assert_eq!(config(&world)["rootfs"], json!({"size_gb": 5}));
    assert_eq!(config(&world)["init"]["swap_size_mb"], 64);
    world.ok(&["machine", "update", &id, "--rootfs-size", "10gb", "-y"]);
    assert_eq!(config(&world)["rootfs"], json!({"size_gb": 10}));
    let init = world.init_of(&id);
    let groups = std::fs::read_to_string(format!("/proc/{init}/cgroup")).unwrap();
    let memory = groups.lines().find_map(|line| line.split_once(":memory:"));
    if let Some((_, group)) = memory {
        let file = format!("/sys/fs/cgroup/memory{group}/memory.memsw.limit_in_bytes");
        if let Ok(text) = std::fs::read_to_string(file) {
            let both: u64 = text.trim().parse().unwrap();
            assert_eq!(both, (256 + 64) << 20);
        }
    }
    let said = world.fails(1, &["machine", "suspend", &id]);
    assert!(said.contains("swap"), "{said}");
    for (words, why) in [
        (["--swap-size", "0"], "must be greater than zero"),
        (["--swap-size", "lots"], "invalid swap size"),
        (["--rootfs-size", "-1"], "must not be negative"),
        (
            ["--rootfs-persist", "maybe"],
            "must be one of: never, always, restart",
        ),
        (["--kernel-arg", "quiet"], "share the host's kernel"),
        (["--cachedrive-size", "1gb"], "no cache drives"),
    ] {
        let update = ["machine", "update", &id, "-y"];
        let said = world.fails(2, &[&update[..], &words].concat());
        assert!(said.contains(why), "{words:?}: {said}");
    }
    let doctor = world.ok(&["doctor"]).stdout;
    assert!(doctor.contains(" swap: "), "{doctor}");
}
