//! Deploys that are written down with `--export-manifest` and carried out with `--from-manifest`.

use std::fs::File;

use serde_json::{Value, json};

use crate::world::{Ran, World, finish, fly_toml, image_spec, service};

fn toml(mode: &str) -> String {
    let groups = "[processes]\nweb = \"serve\"\nworker = \"lines 1 0\"\n";
    let env = format!("[env]\nMODE = \"{mode}\"\n");
    fly_toml("later", &format!("{env}{groups}{}", service(&["web"])))
}

/// Exports what this deploy would be and returns it.
fn export(world: &World, folder: &str, more: &[&str]) -> Value {
    let deploy = ["deploy", folder, "--export-manifest", "-"];
    let printed = world.ok(&[&deploy[..], more].concat()).stdout;
    serde_json::from_str(&printed).unwrap()
}

/// Row: DeployManifest.
#[test]
fn a_deploy_is_written_down_in_flyctls_form_and_carried_out_later() {
    let Some(world) = World::start() else { return };
    let folder = world.app("later", &toml("one"));
    let manifest = export(&world, &folder, &[]);
    assert_eq!(manifest["AppName"], "later");
    assert_eq!(manifest["config"]["primary_region"], "iad");
    assert_eq!(manifest["config"]["http_service"]["internal_port"], 8080);
    assert_eq!(manifest["config"]["build"]["image"], "testapp");
    assert_eq!(manifest["increased_availability"], true);
    assert_eq!(manifest["deployment_image"], "testapp");
    assert_eq!(manifest["max_concurrent"], 8);
    for absent in [
        "strategy",
        "wait_timeout",
        "skip_smoke_checks",
        "files",
        "other",
    ] {
        assert!(manifest.get(absent).is_none(), "{absent} in {manifest}");
    }
    assert_eq!(world.json(&["apps", "list"]), json!([]), "nothing is made");
    carried_out_later(&world, &folder);
}

fn carried_out_later(world: &World, folder: &str) {
    let file = world.path("told");
    let name = file.to_string_lossy().into_owned();
    let said = world.ok(&[
        "deploy",
        folder,
        "--export-manifest",
        &name,
        "--ha=false",
        "--process-groups",
        "web",
        "--env",
        "EXTRA=1",
        "--file-literal",
        "/told=by a flag",
        "--vm-memory",
        "512",
        "--wait-timeout",
        "90s",
        "--strategy",
        "canary",
        "--smoke-checks=false",
    ]);
    let file = file.with_extension("json");
    assert!(
        said.stderr
            .contains(&format!("saved to {}", file.display())),
        "{said:?}"
    );

    // By now the folder says something else: what was written down is deployed.
    world.app("later", &toml("two"));
    let name = file.to_string_lossy().into_owned();
    let said = world
        .ok(&["deploy", "--from-manifest", &name, "-a", "later"])
        .stderr;
    assert!(
        said.contains("Resuming later deploy from manifest"),
        "{said}"
    );
    let machines = world.machines("later");
    assert_eq!(machines.len(), 1, "{machines:?}");
    let config = &machines[0]["config"];
    assert_eq!(config["metadata"]["fly_process_group"], "web");
    assert_eq!(config["env"]["MODE"], "one");
    assert_eq!(config["env"]["EXTRA"], "1");
    assert_eq!(config["files"][0]["guest_path"], "/told");
    assert_eq!(config["guest"]["memory_mb"], 512);
    assert_eq!(machines[0]["state"], "started");

    // The same from standard input; by now the group has a Machine, so there is a canary.
    let mut command = world.command(env!("CARGO_BIN_EXE_hangar"));
    command.args(["deploy", "--from-manifest", "-"]);
    let said = finish(command.stdin(File::open(&file).unwrap()));
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.stderr
            .contains("Creating canary machine for group web"),
        "{said:?}"
    );
}

#[test]
fn an_image_that_was_sent_is_the_one_that_is_deployed_whatever_its_name_means_then() {
    let Some(world) = World::start() else { return };
    let folder = world.app("later", &toml("one"));
    let manifest = export(&world, &folder, &["--image", "testapp.tar", "--ha=false"]);
    let image = manifest["deployment_image"].as_str().unwrap();
    assert!(image.starts_with("later:built@sha256:"), "{image}");
    let mut other = image_spec();
    other.env.insert("OTHER".to_owned(), "1".to_owned());
    world.import("later:built", &other);
    let file = world.path("m.json");
    std::fs::write(&file, manifest.to_string()).unwrap();
    let name = file.to_string_lossy().into_owned();
    world.ok(&["deploy", "--from-manifest", &name, "--detach"]);
    world.eventually("it is deployed", |w| {
        let machines = w.machines("later");
        let right = |m: &Value| m["config"]["image"] == image && m["state"] == "started";
        (machines.len() == 2 && machines.iter().all(right)).then_some(())
    });
}

#[test]
fn a_manifest_that_is_none_and_flags_beside_it_are_refused() {
    let Some(world) = World::start() else { return };
    let folder = world.app("later", &toml("one"));
    let mut manifest = export(&world, &folder, &[]);
    let file = world.path("m.json");
    let name = file.to_string_lossy().into_owned();
    let from = |text: &str, more: &[&str]| -> Ran {
        std::fs::write(&file, text).unwrap();
        let ran = world.hangar(&[&["deploy", "--from-manifest", &name], more].concat());
        assert_eq!(ran.code, 2, "{ran:?}");
        ran
    };
    let good = manifest.to_string();
    for flags in [
        &["--strategy", "canary"][..],
        &["--image", "testapp"],
        &["--ha=false"],
        &["--wait-timeout", "5s"],
        &["--export-manifest", "-"],
    ] {
        let said = from(&good, flags).stderr;
        assert!(said.contains("cannot be used with"), "{flags:?}: {said}");
    }
    let said = from(&good, &["-a", "other"]).stderr;
    assert!(
        said.contains("is a deploy of later, and -a says other"),
        "{said}"
    );
    let said = from("app = 1", &[]).stderr;
    assert!(said.contains("is no deploy manifest"), "{said}");
    manifest["config"]["processes"] = json!({"web": "unclosed 'quote"});
    let said = from(&manifest.to_string(), &[]).stderr;
    assert!(said.contains("App configuration is not valid"), "{said}");
    std::fs::remove_file(&file).unwrap();
    world.fails(2, &["deploy", "--from-manifest", &name]);
    assert_eq!(world.json(&["apps", "list"]), json!([]), "nothing is made");
}
