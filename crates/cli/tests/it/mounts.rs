//! `[[mounts]]` of fly.toml through deploys: volumes are made once, kept, and never lost unasked.

use serde_json::Value;

use crate::busybox::SHELL;
use crate::world::{World, fly_toml};

const APP: &str = "keeps";
const MOUNT: &str = "[[mounts]]\nsource = \"data\"\ndestination = \"/data\"\ninitial_size = \"1gb\"\nsnapshot_retention = 9\nprocesses = [\"db\"]\n";

/// Writes the fly.toml of two groups, of which `db` is followed by `rest`.
fn write(world: &World, rest: &str) -> String {
    let groups = "[processes]\ndb = \"sleep 100000\"\nweb = \"sleep 100000\"\n";
    let text = fly_toml(APP, &format!("{groups}{rest}"));
    let text = text.replace("image = \"testapp\"", &format!("image = \"{SHELL}\""));
    world.app(APP, &text)
}

fn deploy(world: &World, folder: &str, more: &[&str]) -> crate::world::Ran {
    let words = ["deploy", folder, "--ha=false", "--smoke-checks=false"];
    world.ok(&[&words[..], more].concat())
}

fn volumes(world: &World) -> Vec<Value> {
    let all = world.json(&["volumes", "list", "-a", APP]);
    all.as_array().unwrap().clone()
}

#[test]
fn a_group_keeps_its_volume_through_deploys_and_loses_it_only_when_told() {
    let Some(world) = World::with_disks() else {
        return;
    };
    let folder = write(&world, MOUNT);
    let plan = world
        .ok(&["deploy", &folder, "--ha=false", "--dry-run"])
        .stdout;
    assert!(
        plan.contains("create a 1 GB volume named 'data' for process group 'db'"),
        "{plan}"
    );
    let said = deploy(&world, &folder, &[]).stderr;
    assert!(
        said.contains("Creating a 1 GB volume named 'data' for process group 'db'"),
        "{said}"
    );
    let made = volumes(&world);
    assert_eq!(made.len(), 1, "{made:?}");
    assert_eq!(made[0]["snapshot_retention"], 9, "{made:?}");
    let first = world.only(APP, "db");
    assert_eq!(made[0]["attached_machine_id"], first.as_str());
    world.said(APP, &first, "echo precious > /data/file; sync");
    assert!(
        world.machine(APP, &world.only(APP, "web"))["config"]
            .get("mounts")
            .is_none()
    );

    // Nothing is left to do: the volume that it has is the one that is asked for.
    let plan = world.hangar(&["plan", &folder]);
    assert_eq!(plan.code, 0, "{plan:?}");

    // A new version, and another path: the same Machine, the same data.
    let moved = write(&world, &MOUNT.replace("/data", "/elsewhere"));
    deploy(&world, &moved, &["-e", "VERSION=2"]);
    assert_eq!(world.only(APP, "db"), first);
    assert_eq!(world.said(APP, &first, "cat /elsewhere/file"), "precious\n");

    // Another name is another volume: refused before anything is touched.
    let renamed = write(&world, &MOUNT.replace("\"data\"", "\"other\""));
    let said = world.fails(1, &["deploy", &renamed, "--ha=false"]);
    assert!(said.contains("can't update the attached volume"), "{said}");

    // Without [[mounts]] the Machine would lose its data: only when somebody says so.
    let without = write(&world, "");
    let said = world.fails(1, &["deploy", &without, "--ha=false"]);
    assert!(
        said.contains("would replace the machine by one without the volume"),
        "{said}"
    );
    on_a_terminal_it_is_asked_unless_nothing_is_to_be_asked(&world, &without);
    assert_eq!(world.only(APP, "db"), first);
    let said = deploy(&world, &without, &["--yes"]).stderr;
    assert!(said.contains("is replaced by one without volume"), "{said}");
    let bare = world.only(APP, "db");
    assert_ne!(bare, first);
    assert_eq!(volumes(&world)[0]["attached_machine_id"], Value::Null);

    // And back: the free volume of that name is taken, with what was on it.
    let again = write(&world, MOUNT);
    deploy(&world, &again, &[]);
    let last = world.only(APP, "db");
    assert_ne!(last, bare);
    assert_eq!(world.said(APP, &last, "cat /data/file"), "precious\n");

    another_group_and_from_nothing(&world);
}

fn on_a_terminal_it_is_asked_unless_nothing_is_to_be_asked(world: &World, folder: &str) {
    let program = env!("CARGO_BIN_EXE_hangar");
    let on_a_terminal = |flag: &str| {
        let words = format!("{program} deploy {folder} --ha=false {flag}");
        let mut command = world.command("script");
        let ran = crate::world::finish(command.args(["-qec", &words, "/dev/null"]));
        assert_eq!(ran.code, 1, "{ran:?}");
        ran.stdout
    };
    let said = on_a_terminal("");
    assert!(said.contains("detach the volume?"), "{said}");
    assert!(said.contains("deployment cancelled"), "{said}");
    let said = on_a_terminal("--now");
    assert!(!said.contains("(y/N)"), "{said}");
    assert!(said.contains("by one without the volume"), "{said}");
}

fn another_group_and_from_nothing(world: &World) {
    // A group that gets a mount later needs a volume that is there already.
    let both = write(world, &MOUNT.replace("[\"db\"]", "[\"db\", \"web\"]"));
    let said = world.fails(1, &["deploy", &both, "--ha=false"]);
    assert!(
        said.contains("needs volumes with name 'data'") && said.contains("iad=1"),
        "{said}"
    );
    world.ok(&[
        "volumes", "create", "data", "-r", "iad", "-s", "1", "-y", "-a", APP,
    ]);
    deploy(world, &both, &[]);
    assert_eq!(volumes(world).len(), 2);

    // Scaled to nothing and back: its data waits for it.
    world.ok(&["scale", "count", "db=0", "-a", APP, "--yes"]);
    assert_eq!(volumes(world).len(), 2);
    deploy(world, &both, &[]);
    assert!(
        world.of_group(APP, "db").is_empty(),
        "what is scaled to 0 stays there"
    );
    world.ok(&["scale", "count", "db=1", "-a", APP, "--yes"]);
    let back = world.eventually("it is up", |world| {
        let up = world.started_groups(APP).contains(&"db".to_owned());
        up.then(|| world.only(APP, "db"))
    });
    assert_eq!(world.said(APP, &back, "cat /data/file"), "precious\n");
}
