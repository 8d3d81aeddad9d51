//! `hangar dev`, from the first line to Ctrl-C and back.

use std::path::Path;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use crate::world::World;

fn example() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/groups");
    root.canonicalize().unwrap().to_string_lossy().into_owned()
}

/// Starts `dev` on the example and waits until it follows the logs; returns what it said.
fn start(world: &mut World, round: u32) -> String {
    let file = |name: &str| world.path(&format!("dev{round}.{name}"));
    let (out, err) = (file("out"), file("err"));
    let mut command = world.command(env!("CARGO_BIN_EXE_hangar"));
    command
        .args(["dev", &example()])
        .stdout(Stdio::from(std::fs::File::create(&out).unwrap()))
        .stderr(Stdio::from(std::fs::File::create(&err).unwrap()));
    world.keep(&mut command);
    world.eventually("dev follows the logs", |_| {
        let said = std::fs::read_to_string(&err).unwrap();
        let log = std::fs::read_to_string(&out).unwrap();
        assert!(!said.contains("Error"), "{said}");
        let all = ["web", "worker", "cron"];
        let marked = |group: &&str| log.contains(&format!(" iad {group} [info] "));
        (said.contains("Ctrl-C stops everything") && all.iter().all(marked)).then_some(said)
    })
}

/// Presses Ctrl-C and waits for the end.
fn interrupt(world: &mut World) {
    let child = world.last_started();
    kill_process(Pid::from_child(child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn dev_builds_deploys_follows_stops_and_finds_its_state_again() {
    let Some(mut world) = World::empty() else {
        return;
    };
    let said = start(&mut world, 1);
    assert!(said.contains("Open http://groups.localhost/"), "{said}");
    for tried in ["status", "scale count web=3 worker=2", "logs --group web"] {
        assert!(said.contains(&format!("{tried} -a groups")), "{said}");
    }
    let answer = world.get("groups", "/").body;
    let web = world.only("groups", "web");
    assert!(
        answer.contains(&format!("group web, Machine {web}, region iad")),
        "{answer}"
    );
    assert!(answer.contains("worker has counted to "), "{answer}");
    for group in ["worker", "cron"] {
        world.only("groups", group);
    }
    world.ok(&["scale", "count", "worker=2", "-a", "groups", "--yes"]);
    let before = world.machines("groups").len();
    world.eventually("all of them run", |world| {
        (world.inits().len() == before).then_some(())
    });
    interrupt(&mut world);
    assert_eq!(world.inits(), Vec::<u32>::new(), "Ctrl-C stops it all");

    let said = start(&mut world, 2);
    assert!(said.contains("Open http://groups.localhost/"), "{said}");
    assert!(said.contains("Release v2"), "{said}");
    assert_eq!(world.only("groups", "web"), web);
    assert_eq!(world.machines("groups").len(), before);
    let answer = world.get("groups", "/").body;
    assert!(answer.contains(&web), "{answer}");
    interrupt(&mut world);
}

/// Starts `dev` on an app of the test image; returns where what it says goes.
fn begin(world: &mut World, folder: &str, round: &str) -> std::path::PathBuf {
    let archive = world.path("testapp.tar");
    hangar_image::build::write_oci_archive(&crate::world::image_spec(), &archive).unwrap();
    let err = world.path(&format!("{round}.err"));
    let mut command = world.command(env!("CARGO_BIN_EXE_hangar"));
    command
        .args(["dev", folder, "--image", &archive.to_string_lossy()])
        .stdout(Stdio::null())
        .stderr(Stdio::from(std::fs::File::create(&err).unwrap()));
    world.keep(&mut command);
    err
}

#[test]
fn a_ctrl_c_in_the_middle_of_a_deploy_stops_it_all_and_the_next_time_works() {
    let Some(mut world) = World::empty() else {
        return;
    };
    let toml = "app = \"halfway\"\n[processes]\nworker = \"lines 1 0\"\n";
    let folder = world.app("halfway", toml);
    let err = begin(&mut world, &folder, "first");
    // A group without checks is watched for ten seconds: that is the middle.
    world.eventually("its Machine runs", |world| {
        (world.inits().len() == 1).then_some(())
    });
    interrupt(&mut world);
    assert_eq!(world.inits(), Vec::<u32>::new(), "Ctrl-C stops it all");
    let said = std::fs::read_to_string(&err).unwrap();
    assert!(!said.contains("Error"), "{said}");

    let err = begin(&mut world, &folder, "second");
    world.eventually("dev follows the logs", |_| {
        let said = std::fs::read_to_string(&err).unwrap();
        assert!(!said.contains("Error"), "{said}");
        said.contains("Ctrl-C stops everything").then_some(())
    });
    interrupt(&mut world);
    assert_eq!(world.inits(), Vec::<u32>::new(), "Ctrl-C stops it all");
}

#[test]
fn dev_does_not_say_that_an_app_runs_which_does_not() {
    let Some(mut world) = World::empty() else {
        return;
    };
    let toml = "app = \"broken\"\n[processes]\nworker = \"exit 1 50\"\n";
    let folder = world.app("broken", toml);
    let err = begin(&mut world, &folder, "broken");
    let code = world.last_started().wait().unwrap().code();
    let said = std::fs::read_to_string(&err).unwrap();
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("exited with code 1"), "{said}");
    assert!(!said.contains("is running"), "{said}");
}
