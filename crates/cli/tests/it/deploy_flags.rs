//! Flags of `deploy` that decide what is looked at, and how it is carried out and told.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::strategies::has_told;
use crate::world::{World, fly_toml, image_spec, service};

#[test]
fn chosen_groups_are_checked_and_mistakes_of_others_do_not_matter() {
    let Some(world) = World::start() else { return };
    let mount = "[[mounts]]\nsource = \"data\"\ndestination = \"/data\"\nprocesses = [\"app\"]\n";
    let groups = "[processes]\napp = \"lines 1 0\"\nfoo = \"lines 1 0\"\n";
    let folder = world.app("chosen", &fly_toml("chosen", &format!("{groups}{mount}")));
    let canary = ["deploy", &folder, "--strategy", "canary", "--ha=false"];

    // Rows validate-groups: canary and a mount for `app` alone.
    let refused = "canary deployment strategy is not supported when using mounted volumes";
    let said = world.fails(2, &canary);
    assert!(said.contains(refused), "{said}");
    let said = world.fails(2, &[&canary[..], &["--process-groups", "app"]].concat());
    assert!(
        said.contains(refused) && said.contains("for process group app"),
        "{said}"
    );
    assert!(world.json(&["apps", "list"]).as_array().unwrap().is_empty());
    let only_foo = ["--process-groups", "foo", "--smoke-checks=false"];
    world.ok(&[&canary[..], &only_foo].concat());
    assert_eq!(world.started_groups("chosen"), ["foo"]);

    // The same of a release that is deployed again.
    let again = ["deploy", "-a", "chosen", "--strategy", "canary"];
    let said = world.fails(2, &again);
    assert!(said.contains(refused), "{said}");
    world.ok(&[&again[..], &only_foo].concat());

    let said = world.fails(2, &["deploy", &folder, "--process-groups", "fo"]);
    assert!(
        said.contains("there is no process group 'fo'") && said.contains("foo"),
        "{said}"
    );
}

#[test]
fn what_the_file_itself_asks_for_is_checked_whole_whatever_is_chosen() {
    let Some(world) = World::start() else { return };
    let groups = "[processes]\nfailure = \"serve\"\nsuccess = \"serve\"\n";
    let strategy = "[deploy]\nstrategy = \"canary\"\n";
    let mount =
        "[[mounts]]\nsource = \"data\"\ndestination = \"/data\"\nprocesses = [\"failure\"]\n";
    let text = format!("{groups}{strategy}{mount}{}", service(&["success"]));
    let folder = world.app("whole", &fly_toml("whole", &text));
    let said = world.fails(2, &["deploy", &folder, "--process-groups", "success"]);
    assert!(said.contains("canary deployment strategy"), "{said}");
}

/// Returns when the lease of each Machine of the app ends, in seconds since 1970.
fn leases(world: &World, app: &str) -> Vec<i64> {
    let held = world.json(&["machine", "leases", "view", "-a", app]);
    let ends = held.as_object().unwrap().values();
    ends.map(|lease| lease["data"]["expires_at"].as_i64().unwrap())
        .collect()
}

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.unwrap().as_secs()).unwrap()
}

#[test]
fn the_leases_of_a_deploy_last_as_long_as_it_is_told_and_are_renewed() {
    let Some(world) = World::start() else { return };
    let slow = |version: &str| {
        let env = format!("[env]\nVERSION = \"{version}\"\nDELAY_MS = \"8000\"\n");
        fly_toml("leased", &format!("{env}{}", service(&[])))
    };
    let folder = world.app("leased", &slow("1"));
    let begun = |timeout: &str| {
        let options = ["--ha=false", "--detach", "--lease-timeout", timeout];
        world.ok(&[&["deploy", &folder], &options[..]].concat());
        world.eventually("the Machine is leased", |w| {
            leases(w, "leased").first().copied()
        })
    };
    let over = || {
        world.eventually("the deploy is over", |w| {
            let releases = w.json(&["releases", "-a", "leased"]);
            (releases[0]["status"] == "complete").then_some(())
        });
    };

    let end = begun("600s");
    // It ends with a whole second, and not before its time.
    assert!((now() + 500..=now() + 601).contains(&end), "{end}");
    over();
    assert_eq!(leases(&world, "leased"), [0; 0]);

    // A short one is renewed while the deploy runs, well before it ends.
    world.app("leased", &slow("2"));
    let first = begun("6s");
    assert!(first <= now() + 7, "{first}");
    let renewed = world.eventually("the lease is renewed", |w| {
        let ends = leases(w, "leased");
        assert!(!ends.is_empty(), "it has lapsed");
        (ends[0] > first).then_some(ends[0])
    });
    assert!(
        now() <= first,
        "{renewed} was given after {first} had passed"
    );
    over();

    for bad in ["1s", "none", "2d", "48h"] {
        let said = world.fails(2, &["deploy", &folder, "--lease-timeout", bad]);
        assert!(said.contains("--lease-timeout"), "{said}");
    }
}

#[test]
fn a_script_is_told_which_release_is_its_own() {
    let Some(world) = World::start() else { return };
    let folder = world.app("emitted", &fly_toml("emitted", ""));
    let run = |more: &[&str]| {
        let mut command = world.command(env!("CARGO_BIN_EXE_hangar"));
        command.env("FLY_EMIT_RELEASE_JSON", "1").args(more);
        let ran = crate::world::finish(&mut command);
        assert_eq!(ran.code, 0, "{ran:?}");
        let lines: Vec<&str> = ran.stdout.lines().collect();
        assert_eq!(lines.len(), 1, "{ran:?}");
        serde_json::from_str::<Value>(lines[0]).unwrap()
    };
    let options = ["--ha=false", "--smoke-checks=false"];
    let deploy = [&["deploy", &folder], &options[..]].concat();
    let first = run(&deploy);
    let newest = |world: &World| world.json(&["releases", "-a", "emitted"])[0].clone();
    assert_eq!(first["id"], newest(&world)["id"]);
    assert_eq!(first["version"], 1);
    let image = first["image_ref"].as_str().unwrap();
    assert!(image.starts_with("testapp@sha256:"), "{image}");
    let detached = run(&[&deploy[..], &["--detach"]].concat());
    assert_eq!(detached["version"], 2);
    // Nobody else is told.
    world.eventually("the second deploy is over", |w| {
        (newest(w)["status"] == "complete").then_some(())
    });
    assert_eq!(world.ok(&deploy).stdout, "");
}

/// Deploys an image of which the host lacks a layer; returns where it is to be, and where it is.
fn with_a_layer_away(world: &World) -> (String, PathBuf, PathBuf) {
    let folder = world.app("again", &fly_toml("again", &service(&[])));
    world.ok(&["deploy", &folder, "--ha=false"]);
    let layers = world.data_dir().join("images/layers");
    let known = |at: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(at).unwrap().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    let before = known(&layers);
    let mut spec = image_spec();
    spec.files[0].mode = 0o775;
    world.import("newer", &spec);
    let mut after = known(&layers);
    after.retain(|layer| !before.contains(layer));
    assert_eq!(after.len(), 1, "{after:?}");
    let (layer, away) = (after.remove(0), world.path("away"));
    std::fs::rename(&layer, &away).unwrap();
    (folder, layer, away)
}

#[test]
fn what_a_host_could_not_do_is_tried_again_as_often_as_told() {
    let Some(world) = World::start() else { return };
    let (folder, layer, away) = with_a_layer_away(&world);
    let deploy = ["deploy", &folder, "--image", "newer", "--deploy-retries"];
    let said = world.fails(5, &[&deploy[..], &["1"]].concat());
    assert!(said.contains("trying again (1 of 1)"), "{said}");
    assert_eq!(said.matches("trying again").count(), 1, "{said}");
    assert_eq!(world.get("again", "/health").status, 200);

    world.ok(&[&deploy[..], &["30", "--detach"]].concat());
    world.eventually("it is tried again", |w| {
        has_told(w, "again", "trying again (1 of 30)").then_some(())
    });
    std::fs::rename(&away, &layer).unwrap();
    world.eventually("the deploy is complete", |w| {
        let releases = w.json(&["releases", "-a", "again"]);
        (releases[0]["status"] == "complete").then_some(())
    });
    let machine = world.machine("again", &world.only("again", "app"));
    assert!(
        machine["config"]["image"]
            .as_str()
            .unwrap()
            .starts_with("newer@")
    );
    assert_eq!(machine["state"], "started");

    for bad in ["-1", "often"] {
        let flag = format!("--deploy-retries={bad}");
        let said = world.fails(2, &["deploy", &folder, &flag]);
        assert!(said.contains("positive integer, 0, or 'auto'"), "{said}");
    }
    world.ok(&["deploy", &folder, "--deploy-retries", "auto"]);
}
