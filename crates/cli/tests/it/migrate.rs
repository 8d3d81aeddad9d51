//! `hangar migrate`: from other platforms' files to Machines.

use std::path::Path;

use crate::world::finish;

/// Runs `hangar` without a server: conversions need none.
fn hangar(arguments: &[&str]) -> crate::world::Ran {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_hangar"));
    finish(
        command
            .args(arguments)
            .env("HANGAR_DATA_DIR", "/nonexistent"),
    )
}

fn write(dir: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        std::fs::write(dir.join(name), text).unwrap();
    }
}

#[test]
fn a_procfile_is_written_as_fly_toml_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let none = hangar(&["migrate", "procfile", path]);
    assert_eq!(none.code, 2, "{none:?}");
    assert!(none.stderr.contains("Procfile"), "{none:?}");

    let app_json = r#"{"formation": {"web": {"quantity": 3}}, "addons": ["papertrail"], "env": {"KEY": {"description": "x"}}}"#;
    write(
        dir.path(),
        &[
            ("Procfile", "web: serve $PORT\nworker: work\n"),
            ("app.json", app_json),
        ],
    );
    let printed = hangar(&["migrate", "procfile", path, "--print", "--name", "shop"]);
    assert_eq!(printed.code, 0, "{printed:?}");
    assert!(!dir.path().join("fly.toml").exists());
    let ran = hangar(&[
        "migrate", "procfile", path, "--name", "shop", "--region", "ams",
    ]);
    assert_eq!(ran.code, 0, "{ran:?}");
    for part in [
        "Wrote config file",
        "app.json addons: papertrail is not made",
        "hangar secrets set KEY=... --stage -a shop",
        "hangar scale count web=3 -a shop --yes",
    ] {
        assert!(ran.stderr.contains(part), "{part} in\n{}", ran.stderr);
    }
    let text = std::fs::read_to_string(dir.path().join("fly.toml")).unwrap();
    assert_eq!(
        text.replace("\nprimary_region = \"ams\"", ""),
        printed.stdout
    );
    assert!(text.contains("# - app.json addons: papertrail"), "{text}");

    let again = hangar(&["migrate", "procfile", path]);
    assert_eq!(again.code, 2, "{again:?}");
    assert!(again.stderr.contains("--overwrite"), "{again:?}");
    assert_eq!(
        std::fs::read_to_string(dir.path().join("fly.toml")).unwrap(),
        text
    );
    let over = hangar(&[
        "migrate",
        "procfile",
        path,
        "--overwrite",
        "--name",
        "other",
    ]);
    assert_eq!(over.code, 0, "{over:?}");
    let valid = hangar(&["config", "validate", "-c", path]);
    assert_eq!(valid.code, 0, "{valid:?}");
}

#[test]
fn a_compose_file_is_written_as_a_fly_toml_for_each_app() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let compose = "services:
  web: {build: ., ports: [80], env_file: web.env, environment: {A: \"${FROM_ENV}\"}}
  api: {build: ./api, command: serve}
  db: {image: postgres, volumes: [data:/data], cap_add: [ALL]}
";
    let files = [
        ("compose.yml", compose),
        (".env", "FROM_ENV=one\n"),
        ("web.env", "B=two\n"),
    ];
    write(dir.path(), &files);
    let ran = hangar(&["migrate", "compose", path, "--name", "shop"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stderr.contains("services.db.cap_add"), "{ran:?}");
    assert!(
        ran.stderr.contains(&format!("hangar deploy {path}/api\n")),
        "{ran:?}"
    );
    assert!(
        ran.stderr
            .contains(&format!("hangar deploy {path} -c fly.shop-db.toml")),
        "{ran:?}"
    );
    let text = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    assert!(
        text("fly.toml").contains("A = \"one\"\nB = \"two\""),
        "{}",
        text("fly.toml")
    );
    assert!(text("api/fly.toml").contains("app = \"shop-api\""));
    assert!(text("fly.shop-db.toml").contains("destination = \"/data\""));

    let broken = dir.path().join("broken.yaml");
    std::fs::write(&broken, "services: [\n").unwrap();
    let ran = hangar(&["migrate", "compose", broken.to_str().unwrap()]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.stderr.contains("broken.yaml: line "), "{ran:?}");
}

#[test]
fn a_nomad_job_is_written_with_its_counts_and_regions() {
    let dir = tempfile::tempdir().unwrap();
    let job = dir.path().join("job.json");
    let text = r#"{"Job": {"ID": "shop", "Datacenters": ["fra", "iad"], "TaskGroups": [
        {"Name": "web", "Count": 2, "Tasks": [{"Name": "web", "Driver": "docker",
            "Config": {"image": "shop:1"}, "Vault": {"Role": "x"}}]},
        {"Name": "worker", "Count": 1, "Tasks": [{"Name": "worker", "Driver": "docker",
            "Config": {"image": "shop:1", "args": ["work"]}}]}]}}"#;
    std::fs::write(&job, text).unwrap();
    let ran = hangar(&["migrate", "nomad", job.to_str().unwrap()]);
    assert_eq!(ran.code, 0, "{ran:?}");
    for part in [
        "Group web task web.Vault",
        "--ha=false",
        "hangar scale count web=2 worker=1 --region fra,iad -a shop --yes",
    ] {
        assert!(ran.stderr.contains(part), "{part} in\n{}", ran.stderr);
    }
    let written = std::fs::read_to_string(dir.path().join("fly.toml")).unwrap();
    assert!(written.contains("primary_region = \"fra\"") && written.contains("worker = \"work\""));
    std::fs::write(&job, "job \"shop\" {}").unwrap();
    let hcl = hangar(&["migrate", "nomad", job.to_str().unwrap()]);
    assert_eq!(hcl.code, 2, "{hcl:?}");
    assert!(hcl.stderr.contains("nomad job inspect"), "{hcl:?}");
}
