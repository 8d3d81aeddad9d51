//! Volumes of single Machines: run with one, moved, cloned, and never in two.

use std::process::Stdio;

use serde_json::Value;

use crate::busybox::SHELL;
use crate::world::{Ran, World};

const APP: &str = "disks";

fn world() -> Option<World> {
    let world = World::with_disks()?;
    world.ok(&["apps", "create", APP]);
    Some(world)
}

fn volume(world: &World, name: &str, region: &str) -> String {
    let words = [
        "volumes", "create", name, "-r", region, "-s", "1", "-y", "-a", APP,
    ];
    text(&world.json(&words), "id")
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap().to_owned()
}

/// Returns the Machine that has a volume now.
fn owner(world: &World, volume: &str) -> Option<String> {
    let shown = world.json(&["volumes", "show", volume, "-a", APP]);
    shown["attached_machine_id"].as_str().map(str::to_owned)
}

fn run_with(world: &World, volume: &str) -> Ran {
    world.hangar(&["machine", "run", SHELL, "-a", APP, "-v", volume, "--detach"])
}

#[test]
fn a_machine_is_run_with_a_volume_and_the_volume_moves_inside_it() {
    let Some(world) = world() else { return };
    for wrong in ["data", "data:", ":/data"] {
        let said = world.fails(2, &["machine", "run", SHELL, "-a", APP, "-v", wrong]);
        assert!(said.contains("Can't infer volume and mount path"), "{said}");
    }
    let none = run_with(&world, "data:/data");
    assert_eq!(none.code, 1, "{none:?}");
    assert!(
        none.stderr
            .contains("not enough unattached volumes for 'data'")
            && none.stderr.contains("hangar volumes create data"),
        "{none:?}"
    );
    let data = volume(&world, "data", "gru");
    let ran = run_with(&world, "data:/data:noexec");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.stderr.contains("'noexec' of volume data are not used"),
        "{ran:?}"
    );
    let machine = owner(&world, &data).unwrap();
    // Nobody said where: it is where its volume is.
    assert_eq!(world.machine(APP, &machine)["region"], "gru");
    world.said(APP, &machine, "echo precious >/data/file; sync");
    let taken = run_with(&world, "data:/data");
    assert!(taken.stderr.contains("not enough unattached"), "{taken:?}");
    let taken = run_with(&world, &format!("{data}:/data"));
    assert_eq!(taken.code, 1, "{taken:?}");
    assert_eq!(world.machines(APP).len(), 1);

    let update = ["machine", "update", &machine, "--yes", "--mount-point"];
    world.ok(&[&update[..], &["/new"]].concat());
    assert_eq!(world.said(APP, &machine, "cat /new/file"), "precious\n");
    let said = world.fails(1, &[&update[..], &["/proc"]].concat());
    assert!(said.contains("platform's own"), "{said}");
    let ran = world.ok(&["machine", "create", SHELL, "-a", APP, "--name", "bare"]);
    let all = world.machines(APP);
    let bare = all.iter().find(|m| m["name"] == "bare");
    let bare = text(bare.unwrap_or_else(|| panic!("{ran:?}")), "id");
    let said = world.fails(
        2,
        &["machine", "update", &bare, "-y", "--mount-point", "/x"],
    );
    assert!(
        said.contains("Machine doesn't have a volume attached"),
        "{said}"
    );
}

#[test]
fn a_clone_gets_a_volume_of_its_own_empty_or_from_a_snapshot_or_one_that_is_free() {
    let Some(world) = world() else { return };
    let data = volume(&world, "data", "iad");
    assert_eq!(run_with(&world, "data:/data").code, 0);
    let source = owner(&world, &data).unwrap();
    world.said(APP, &source, "echo precious >/data/file; sync");
    let clone = |more: &[&str]| {
        let words = ["machine", "clone", &source, "-a", APP];
        world.hangar(&[&words[..], more].concat())
    };
    let empty = clone(&[]);
    assert_eq!(empty.code, 0, "{empty:?}");
    assert!(
        empty.stderr.contains("Volume 'data' will start empty"),
        "{empty:?}"
    );
    let empty = empty.stdout.trim().to_owned();
    assert_eq!(world.said(APP, &empty, "ls /data"), "lost+found\n");
    let mount = &world.machine(APP, &empty)["config"]["mounts"][0];
    assert_ne!(mount["volume"], data.as_str());
    assert_eq!(
        (&mount["path"], &mount["size_gb"]),
        (&"/data".into(), &1.into())
    );

    // From the newest snapshot: what was there comes with it.
    let none = clone(&["--from-snapshot", "last", "-r", "gru"]);
    assert!(
        none.stderr.contains("No snapshot for source volume"),
        "{none:?}"
    );
    world.ok(&["volumes", "snapshots", "create", &data, "-a", APP]);
    world.eventually("the snapshot is made", |world| {
        let list = world.json(&["volumes", "snapshots", "list", &data, "-a", APP]);
        (list[0]["status"] == "created").then_some(())
    });
    let copy = clone(&["--from-snapshot", "last", "-r", "gru"]);
    assert_eq!(copy.code, 0, "{copy:?}");
    assert!(
        copy.stderr.contains("Creating new volume from snapshot"),
        "{copy:?}"
    );
    assert_eq!(
        world.said(APP, copy.stdout.trim(), "cat /data/file"),
        "precious\n"
    );

    // A volume that somebody has is refused, and one elsewhere; nothing is left of either.
    let before = (world.machines(APP).len(), volumes(&world));
    let taken = clone(&["--attach-volume", &data]);
    assert_eq!(taken.code, 1, "{taken:?}");
    assert!(
        taken.stderr.contains("is already attached to a machine"),
        "{taken:?}"
    );
    let far = volume(&world, "far", "ams");
    let elsewhere = clone(&["--attach-volume", &far, "-r", "iad"]);
    assert_eq!(elsewhere.code, 2, "{elsewhere:?}");
    assert!(
        elsewhere.stderr.contains("volume is in region ams"),
        "{elsewhere:?}"
    );
    let refused = clone(&["-r", "iad", "--volume-requires-unique-zone"]);
    assert_eq!(refused.code, 1, "both zones have one: {refused:?}");
    assert_eq!((world.machines(APP).len(), volumes(&world) - 1), before);
    let other = clone(&["--attach-volume", &format!("{far}:/far")]);
    assert_eq!(other.code, 0, "{other:?}");
    assert!(other.stderr.contains("from `/data` to `/far`"), "{other:?}");
    let other = other.stdout.trim().to_owned();
    assert_eq!(owner(&world, &far).as_deref(), Some(other.as_str()));
    assert_eq!(world.machine(APP, &other)["region"], "ams");
    world.said(APP, &other, "touch /far/file");
}

fn volumes(world: &World) -> usize {
    let all = world.json(&["volumes", "list", "-a", APP]);
    all.as_array().unwrap().len()
}

#[test]
fn of_many_who_want_one_volume_at_once_one_gets_it() {
    let Some(world) = world() else { return };
    let data = volume(&world, "data", "iad");
    let bare = ["machine", "run", SHELL, "-a", APP, "--detach"];
    world.ok(&bare);
    let source = text(&world.machines(APP)[0], "id");
    let attach = format!("{data}:/data");
    let racers: Vec<_> = (0..4)
        .map(|number| {
            let mut command = world.command(env!("CARGO_BIN_EXE_hangar"));
            match number % 2 {
                0 => command.args(bare).args(["-v", "data:/data"]),
                _ => command
                    .args(["machine", "clone", &source, "-a", APP, "--attach-volume"])
                    .arg(&attach),
            };
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    let ended: Vec<_> = racers
        .into_iter()
        .map(|racer| racer.wait_with_output().unwrap())
        .collect();
    let won = ended
        .iter()
        .filter(|output| output.status.success())
        .count();
    assert_eq!(won, 1, "{ended:?}");
    let with: Vec<Value> = world
        .machines(APP)
        .into_iter()
        .filter(|m| m["config"]["mounts"][0]["volume"] == data.as_str())
        .collect();
    assert_eq!(with.len(), 1, "{with:?}");
    assert_eq!(
        owner(&world, &data),
        with[0]["id"].as_str().map(str::to_owned)
    );
}
