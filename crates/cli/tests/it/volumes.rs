//! Volumes with the real binary: data outlives everything but its own destruction, sizes hold, and
//! no kill leaves a volume in two Machines, in none, or half made.
//!
//! `HANGAR_LONG=1` kills 100 times, `HANGAR_SEED` repeats a run.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use hangar_testkit::random::Random;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::busybox::SHELL;
use crate::kills::{kill, makers};
use crate::world::{API, Answer, Ran, World, request};

const APP: &str = "vols";

/// Returns a world with an app and a shell, or says what is missing.
fn volume_world() -> Option<World> {
    let world = World::with_disks()?;
    world.ok(&["apps", "create", APP]);
    Some(world)
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

impl World {
    fn post(&self, path: &str, body: &Value) -> Answer {
        let head = format!("authorization: Bearer {}\r\n", self.token());
        let body = body.to_string();
        self.inside(|| request(API, "POST", path, "localhost", &head, body.as_bytes()))
            .unwrap()
    }

    /// Creates a volume and returns its id.
    fn volume(&self, words: &[&str]) -> String {
        let create = ["volumes", "create", "data", "-a", APP, "-r", "iad", "-y"];
        text(&self.json(&[&create, words].concat()), "id")
    }

    fn volume_now(&self, id: &str) -> Value {
        self.json(&["volumes", "show", id, "-a", APP])
    }

    /// Asks for a Machine with a volume.
    fn try_machine(&self, volume: &str, env: &str) -> Answer {
        let path = format!("/v1/apps/{APP}/machines");
        self.post(&path, &json!({ "config": config(volume, env) }))
    }

    /// Makes a Machine with a volume and waits until it is started.
    fn machine_on(&self, volume: &str) -> String {
        let made = self.try_machine(volume, "1");
        assert_eq!(made.status, 200, "{made:?}");
        let id = text(&serde_json::from_str(&made.body).unwrap(), "id");
        self.is_started(&id);
        id
    }

    fn is_started(&self, id: &str) {
        self.eventually("the Machine is started", |world| {
            let machine = world.machine(APP, id);
            (machine["state"] == "started").then_some(())
        });
    }

    /// Runs a script in a Machine of the app, as soon as it can be run.
    fn script(&self, id: &str, script: &str) -> Ran {
        self.sh(APP, id, script)
    }

    fn reads(&self, id: &str, path: &str) -> String {
        self.said(APP, id, &format!("cat {path}")).trim().to_owned()
    }

    fn destroy(&self, machine: &str, volume: &str) {
        self.ok(&["machine", "destroy", "--force", machine, "-a", APP]);
        self.eventually("the volume is free", |world| {
            let volume = world.volume_now(volume);
            volume["attached_machine_id"].is_null().then_some(())
        });
    }

    /// Returns the loop devices that have a file of this world.
    fn devices(&self) -> Vec<String> {
        let home = self.data_dir().canonicalize().unwrap();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/sys/block").unwrap().flatten() {
            let file = std::fs::read_to_string(entry.path().join("loop/backing_file"));
            found.extend(file.ok().filter(|file| Path::new(file).starts_with(&home)));
        }
        found
    }
}

fn config(volume: &str, env: &str) -> Value {
    json!({
        "image": SHELL,
        "env": {"ROUND": env},
        "guest": {"cpu_kind": "shared", "cpus": 1, "memory_mb": 256},
        "restart": {"policy": "always"},
        "mounts": [{"volume": volume, "path": "/data"}],
    })
}

#[test]
fn data_survives_update_restart_kills_and_a_new_machine() {
    let Some(mut world) = volume_world() else {
        return;
    };
    let volume = world.volume(&[]);
    let machine = world.machine_on(&volume);
    world.said(APP, &machine, "echo kept >/data/text");
    let path = format!("/v1/apps/{APP}/machines/{machine}");
    let updated = world.post(&path, &json!({ "config": config(&volume, "2") }));
    assert_eq!(updated.status, 200, "{updated:?}");
    world.eventually("the new version runs", |world| {
        let ran = world.script(&machine, "echo $ROUND");
        (ran.stdout.trim() == "2").then_some(())
    });
    assert_eq!(world.reads(&machine, "/data/text"), "kept");
    // A server that is killed does not touch what runs; a host that loses all starts it again.
    world.kill_server();
    world.start_server();
    assert_eq!(world.reads(&machine, "/data/text"), "kept");
    world.kill_server();
    kill(&makers(&world));
    for pid in world.inits() {
        let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
    }
    world.start_server();
    world.eventually("it runs again", |world| {
        let ran = world.script(&machine, "cat /data/text");
        (ran.stdout.trim() == "kept").then_some(())
    });
    world.destroy(&machine, &volume);
    assert_eq!(text(&world.volume_now(&volume), "state"), "created");
    let next = world.machine_on(&volume);
    assert_ne!(next, machine);
    assert_eq!(world.reads(&next, "/data/text"), "kept");
    world.destroy(&next, &volume);
    world.eventually("nothing is left attached", |world| {
        world.devices().is_empty().then_some(())
    });
}

#[test]
fn a_volume_has_the_room_that_was_said_and_no_more_until_it_is_extended() {
    let Some(world) = volume_world() else { return };
    let volume = world.volume(&["-s", "1"]);
    let machine = world.machine_on(&volume);
    let fill = |name: &str, mib: u32| {
        let script = format!("dd if=/dev/zero of=/data/{name} bs=1M count={mib}");
        world.script(&machine, &script)
    };
    let full = fill("big", 1100);
    assert_ne!(full.code, 0);
    assert!(full.stderr.contains("No space left on device"), "{full:?}");
    let shown = world.volume_now(&volume);
    assert!(shown["bytes_total"].as_u64().unwrap() <= 1 << 30, "{shown}");
    assert_eq!(shown["blocks_avail"], 0, "{shown}");
    let grown = world.ok(&["volumes", "extend", &volume, "-s", "+1", "-a", APP]);
    assert!(grown.stdout.contains("Size GB: 2"), "{grown:?}");
    if grown.stderr.contains("stop and start") {
        eprintln!("skipped in part: root may not extend what is in use here");
        world.ok(&["machine", "restart", &machine, "-a", APP]);
        world.is_started(&machine);
    }
    let shrunk = world.fails(1, &["volumes", "extend", &volume, "-s", "1", "-a", APP]);
    assert!(shrunk.contains("cannot shrink"), "{shrunk}");
    let more = fill("more", 900);
    assert_eq!(more.code, 0, "{more:?}");
    // The Machine's configuration follows, and its version does not change.
    let mount = &world.machine(APP, &machine)["config"]["mounts"][0];
    assert_eq!(
        (&mount["size_gb"], &mount["name"]),
        (&json!(2), &json!("data"))
    );
}

#[test]
fn a_volume_is_never_attached_twice_and_never_destroyed_while_attached() {
    let Some(world) = volume_world() else { return };
    let volume = world.volume(&[]);
    let machine = world.machine_on(&volume);
    let second = world.try_machine(&volume, "1");
    assert_eq!(second.status, 412, "{second:?}");
    let claimed = format!("volume already claimed by machine {machine}");
    assert!(second.body.contains(&claimed), "{second:?}");
    let refused = world.fails(1, &["volumes", "destroy", &volume, "-a", APP, "-y"]);
    assert!(
        refused.contains(&format!("bound to machine: {machine}")),
        "{refused}"
    );
    // One that is only stopped has it still.
    world.ok(&["machine", "stop", &machine, "-a", APP]);
    assert_eq!(world.try_machine(&volume, "1").status, 412);
    world.fails(1, &["volumes", "destroy", &volume, "-a", APP, "-y"]);
    world.destroy(&machine, &volume);
    let gone = world.ok(&["volumes", "destroy", &volume, "-a", APP, "-y"]);
    assert_eq!(
        gone.stdout,
        format!("Destroyed volume ID: {volume} name: data\n")
    );
    assert_eq!(world.json(&["volumes", "list", "-a", APP]), json!([]));
    let all = world.json(&["volumes", "list", "-a", APP, "--all"]);
    assert_eq!(all[0]["state"], "pending_destroy");
    let images = std::fs::read_dir(world.data_dir().join("volumes")).unwrap();
    assert_eq!(images.count(), 0);
}

#[test]
fn snapshots_and_forks_hold_what_was_there_and_outlive_it() {
    let Some(world) = volume_world() else { return };
    let volume = world.volume(&[]);
    let machine = world.machine_on(&volume);
    world.said(APP, &machine, "echo first >/data/text");
    let asked = world.ok(&["volumes", "snapshots", "create", &volume, "-a", APP]);
    assert_eq!(
        asked.stdout,
        format!("Scheduled to snapshot volume {volume}\n")
    );
    let list = ["vol", "snapshots", "list", &volume, "-a", APP];
    let snapshot = world.eventually("the snapshot is made", |world| {
        let list = world.json(&list);
        (list[0]["status"] == "created").then(|| text(&list[0], "id"))
    });
    let fork = world.json(&["volumes", "fork", &volume, "-a", APP, "-n", "copy"]);
    assert_eq!(fork["name"], "copy");
    assert_ne!(fork["zone"], world.volume_now(&volume)["zone"]);
    world.said(APP, &machine, "echo second >/data/text");
    world.destroy(&machine, &volume);
    world.ok(&["volumes", "destroy", &volume, "-a", APP, "-y"]);
    let table = world.ok(&list).stdout;
    assert!(
        table.contains(&snapshot) && table.contains("Total stored size:"),
        "{table}"
    );
    let restored = world.volume(&["--snapshot-id", &snapshot, "-s", "2"]);
    for (copy, gb) in [(restored, 2), (text(&fork, "id"), 1)] {
        let machine = world.machine_on(&copy);
        assert_eq!(world.reads(&machine, "/data/text"), "first");
        let shown = world.volume_now(&copy);
        assert_eq!(shown["size_gb"], gb);
        assert!(
            shown["bytes_total"].as_u64().unwrap() > (gb << 30) * 9 / 10,
            "{shown}"
        );
    }
    world.ok(&[
        "volumes",
        "snapshots",
        "rm",
        &volume,
        &snapshot,
        "-a",
        APP,
        "-y",
    ]);
    world.eventually("the snapshot's data is gone", |world| {
        let images = std::fs::read_dir(world.data_dir().join("snapshots")).unwrap();
        (images.count() == 0).then_some(())
    });
}

#[test]
fn volume_commands_speak_flyctls_words() {
    let Some(world) = volume_world() else { return };
    let made = world.ok(&["volume", "create", "data", "-a", APP, "-r", "gru", "-y"]);
    let labels: Vec<&str> = made
        .stdout
        .lines()
        .map(|line| line.split(':').next().unwrap().trim())
        .collect();
    let expected = [
        "ID",
        "Name",
        "App",
        "Region",
        "Zone",
        "Size GB",
        "Encrypted",
        "Created at",
        "Snapshot retention",
        "Scheduled snapshots",
    ];
    assert_eq!(labels, expected);
    let table = world.ok(&["vol", "ls", "-a", APP]).stdout;
    let head = table.lines().next().unwrap();
    let words: Vec<&str> = head
        .split("  ")
        .map(str::trim)
        .filter(|w| !w.is_empty())
        .collect();
    let headings = "ID STATE NAME SIZE REGION ZONE ENCRYPTED,ATTACHED VM,CREATED AT";
    let headings: Vec<&str> = headings.split(',').collect();
    assert_eq!(words[..7].join(" "), headings[0]);
    assert_eq!(words[7..], headings[1..]);
    assert!(
        table.contains("created") && table.contains("1GB"),
        "{table}"
    );
    let id = text(&world.json(&["vol", "ls", "-a", APP])[0], "id");
    let update = [
        "volumes",
        "update",
        &id,
        "-a",
        APP,
        "--snapshot-retention",
        "9",
        "--scheduled-snapshots=false",
    ];
    let changed = world.json(&update);
    assert_eq!(changed["snapshot_retention"], 9);
    assert_eq!(changed["auto_backup_enabled"], false);
    let silent = world.fails(2, &["volumes", "create", "other", "-a", APP]);
    assert!(
        silent.contains("pinned") && silent.contains("--yes"),
        "{silent}"
    );
    world.fails(2, &["volumes", "update", &id, "-a", APP]);
    world.fails(3, &["volumes", "show", "vol_0123456789abcdef", "-a", APP]);
    world.fails(2, &["volumes", "show", "../../etc/passwd", "-a", APP]);
    let many = world.ok(&[
        "volumes", "create", "two", "-n", "2", "-a", APP, "-r", "iad",
    ]);
    assert_eq!(many.stdout.matches("Name: two").count(), 2);
    let none = world.ok(&["volumes", "snapshots", "list", &id, "-a", APP]);
    assert_eq!(
        none.stderr,
        format!("No snapshots available for volume {id}\n")
    );
}

/// Makes a group of one managed Machine that has a volume of 2 GB, and returns the volume.
fn group_on_volume(world: &World) -> String {
    let plain = world.shell_app(APP, "");
    world.ok(&["machine", "destroy", "--force", &plain, "-a", APP]);
    let first = world.volume(&["-s", "2"]);
    let mut managed = config(&first, "1");
    managed["metadata"] = json!({"fly_platform_version": "v2", "fly_process_group": "app"});
    let path = format!("/v1/apps/{APP}/machines");
    let made = world.post(&path, &json!({ "config": managed }));
    assert_eq!(made.status, 200, "{made:?}");
    let machine = text(&serde_json::from_str(&made.body).unwrap(), "id");
    world.is_started(&machine);
    world.said(APP, &machine, "echo first >/data/text; sync");
    first
}

/// Returns the volumes that Machines have, with their sizes.
fn attached(world: &World) -> Vec<(String, u64)> {
    let all = world.json(&["volumes", "list", "-a", APP]);
    let taken = all.as_array().unwrap().iter();
    taken
        .filter(|volume| volume["attached_machine_id"].is_string())
        .map(|volume| (text(volume, "id"), volume["size_gb"].as_u64().unwrap()))
        .collect()
}

fn scale(world: &World, words: &[&str]) -> String {
    let words = [&["scale", "count"], words, &["-a", APP, "--yes"]].concat();
    world.ok(&words).stderr
}

#[test]
fn scaling_takes_unattached_volumes_makes_new_ones_and_keeps_those_of_machines_that_go() {
    let Some(world) = volume_world() else { return };
    group_on_volume(&world);
    let free = world.volume(&["-s", "1"]);
    let said = scale(&world, &["3"]);
    let plan = "+1 volumes and 1 unattached volumes assigned to group 'app' in region 'iad'";
    assert!(
        said.contains(plan) && said.contains(" volume:vol_"),
        "{said}"
    );
    let now = attached(&world);
    assert_eq!(now.len(), 3, "{now:?}");
    assert!(now.contains(&(free, 1)), "{now:?}");
    assert_eq!(
        now.iter().filter(|(_, size)| *size == 2).count(),
        2,
        "{now:?}"
    );
    // Down keeps all, and up again takes them.
    scale(&world, &["1"]);
    world.eventually("two volumes are free", |world| {
        (attached(world).len() == 1).then_some(())
    });
    let again = scale(&world, &["3"]);
    assert!(
        again.contains("2 unattached volumes to be assigned"),
        "{again}"
    );
    let all = world.json(&["volumes", "list", "-a", APP]);
    assert_eq!(all.as_array().unwrap().len(), 3);
}

#[test]
fn scaling_fills_new_volumes_from_the_newest_snapshot_of_the_group() {
    let Some(world) = volume_world() else { return };
    let first = group_on_volume(&world);
    let from = ["2", "--from-snapshot", "last"];
    let words = [&["scale", "count"], &from[..], &["-a", APP, "--yes"]].concat();
    let none = world.fails(3, &words);
    assert!(none.contains("has a snapshot yet"), "{none}");
    world.ok(&["volumes", "snapshots", "create", &first, "-a", APP]);
    world.eventually("the snapshot is made", |world| {
        let list = world.json(&["volumes", "snapshots", "list", &first, "-a", APP]);
        (list[0]["status"] == "created").then_some(())
    });
    let before = world.machines(APP);
    scale(&world, &from);
    let machines = world.machines(APP);
    let new = machines
        .iter()
        .find(|machine| !before.iter().any(|old| old["id"] == machine["id"]));
    let new = text(new.unwrap(), "id");
    world.is_started(&new);
    assert_eq!(world.reads(&new, "/data/text"), "first");
}

/// Begins one of the things that users do with volumes; the command goes on by itself.
fn begin(world: &World, random: &mut Random, volume: &str) -> Child {
    let size = (2 + random.below(2)).to_string();
    let words: Vec<&str> = match random.below(5) {
        0 | 1 => vec!["volumes", "snapshots", "create", volume, "-a", APP],
        2 => vec!["volumes", "extend", volume, "-s", &size, "-a", APP],
        3 => vec![
            "volumes",
            "fork",
            volume,
            "-n",
            "fork",
            "--require-unique-zone=false",
            "-a",
            APP,
        ],
        _ => vec![
            "volumes",
            "create",
            "new",
            "-r",
            "iad",
            "-y",
            "--require-unique-zone=false",
            "-a",
            APP,
        ],
    };
    let mut command = world.command(env!("CARGO_BIN_EXE_hangar"));
    command
        .args(&words)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.spawn().unwrap()
}

#[test]
fn kills_at_random_moments_lose_no_volume_and_leave_none_half_made() {
    let Some(mut world) = volume_world() else {
        return;
    };
    let chosen = std::env::var("HANGAR_SEED")
        .ok()
        .and_then(|s| s.parse().ok());
    let seed = chosen.unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("HANGAR_SEED={seed}");
    let mut random = Random::new(seed);
    let kills = if std::env::var_os("HANGAR_LONG").is_some() {
        100
    } else {
        12
    };
    let volume = world.volume(&[]);
    let mut machine = world.machine_on(&volume);
    for round in 0..kills {
        let written =
            format!("echo {round} >/data/round.new && mv /data/round.new /data/round && sync");
        world.said(APP, &machine, &written);
        let mut asked = begin(&world, &mut random, &volume);
        // The Machine goes or comes meanwhile, one time in three.
        let swaps = random.below(3) == 0;
        if swaps {
            drop(world.hangar(&["machine", "destroy", "--force", &machine, "-a", APP]));
            drop(world.try_machine(&volume, "swap"));
        }
        std::thread::sleep(Duration::from_millis(random.below(120)));
        let doomed = makers(&world);
        if random.below(2) == 0 {
            world.kill_server();
            kill(&doomed);
            world.start_server();
        } else {
            kill(&doomed);
        }
        let _ended = asked.wait();
        machine = settled(&world, &volume, swaps);
        assert_eq!(world.reads(&machine, "/data/round"), round.to_string());
        tidy_up(&world, &volume);
    }
    world.destroy(&machine, &volume);
    let last = world.machine_on(&volume);
    assert_eq!(world.reads(&last, "/data/round"), (kills - 1).to_string());
    world.destroy(&last, &volume);
    world.eventually("nothing is left attached", |world| {
        world.devices().is_empty().then_some(())
    });
}

/// Waits until nothing moves, and returns the only Machine, which has the volume.
fn settled(world: &World, volume: &str, swaps: bool) -> String {
    world.eventually("every volume and snapshot is settled", |world| {
        let all = world.json(&["volumes", "list", "-a", APP]);
        let made = all
            .as_array()?
            .iter()
            .all(|volume| volume["state"] == "created");
        let snapshots = world.json(&["volumes", "snapshots", "list", volume, "-a", APP]);
        let done = |s: &Value| s["status"] == "created" || s["status"] == "failed";
        (made && snapshots.as_array()?.iter().all(done)).then_some(())
    });
    world.eventually("one Machine has the volume", |world| {
        let machines = world.machines(APP);
        let attached = text(&world.volume_now(volume), "attached_machine_id");
        if swaps && machines.is_empty() && attached.is_empty() {
            // The new one was refused, or never asked for.
            return Some(world.machine_on(volume));
        }
        let [only] = &machines[..] else { return None };
        let up = only["state"] == "started" && attached == text(only, "id");
        up.then_some(attached)
    })
}

/// Checks that every image is one that is known, and destroys what is not needed.
fn tidy_up(world: &World, volume: &str) {
    for copy in world
        .json(&["volumes", "list", "-a", APP])
        .as_array()
        .unwrap()
    {
        if copy["id"] != volume {
            world.ok(&["volumes", "destroy", &text(copy, "id"), "-a", APP, "-y"]);
        }
    }
    let list = ["volumes", "snapshots", "list", volume, "-a", APP];
    for snapshot in world.json(&list).as_array().unwrap() {
        let id = text(snapshot, "id");
        world.ok(&["volumes", "snapshots", "rm", volume, &id, "-a", APP, "-y"]);
    }
    world.eventually("only the volume's image is left", |world| {
        let names = |dir: &str| -> Vec<String> {
            let listed = std::fs::read_dir(world.data_dir().join(dir)).unwrap();
            listed
                .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
                .collect()
        };
        let only = names("volumes") == [format!("{volume}.img")];
        (only && names("snapshots").is_empty()).then_some(())
    });
}
