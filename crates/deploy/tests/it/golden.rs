//! A group's configuration laid over a Machine's, beside what Fly's own client makes of the two:
//! the second half of the comparison in `config` (see the README of its `tests/golden`).

use std::path::{Path, PathBuf};

use hangar_api::id::GroupName;
use hangar_api::machine::{MachineConfig, Mount};
use hangar_config::{Format, Inputs, load_bytes};
use hangar_deploy::merge::lay_over;
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/tests/golden")
}

#[test]
fn a_configuration_is_laid_over_a_machines_as_flys_client_does() {
    let text = std::fs::read_to_string(root().join("onto.json")).unwrap();
    let existing: MachineConfig = serde_json::from_str(&text).unwrap();
    let mut compared = 0;
    let mut different = Vec::new();
    for folder in ["hand", "gen"] {
        let folder = root().join(folder);
        let expected = std::fs::read_to_string(folder.join("expected.jsonl")).unwrap();
        for line in expected.lines() {
            let expected: Value = serde_json::from_str(line).unwrap();
            compared += compare(&folder, &expected, &existing, &mut different);
        }
    }
    assert!(compared > 450, "only {compared} groups were compared");
    assert!(different.is_empty(), "{}", different.join("\n"));
}

fn compare(
    folder: &Path,
    expected: &Value,
    existing: &MachineConfig,
    different: &mut Vec<String>,
) -> usize {
    let file = expected["file"].as_str().unwrap();
    let bytes = std::fs::read(folder.join(file)).unwrap();
    let loaded = load_bytes(&bytes, Format::of_path(file));
    let Some(config) = loaded.read.filter(|_| loaded.decodes) else {
        return 0;
    };
    let needed = config.needed_files().into_iter();
    let inputs = Inputs {
        client_version: "VERSION".to_owned(),
        files: needed.map(|f| (f.to_owned(), Vec::new())).collect(),
        ..Inputs::default()
    };
    let mut compared = 0;
    for group in expected["groups"].as_array().into_iter().flatten() {
        let name = group["name"].as_str().unwrap();
        // What no Machine here can be is refused before it is laid over anything.
        let (Ok(mut spec), Ok(group_name)) =
            (config.group_spec(name, &inputs), GroupName::new(name))
        else {
            continue;
        };
        let theirs = group["machine_config_onto"].clone();
        let Ok(mut theirs) = serde_json::from_value::<MachineConfig>(theirs) else {
            continue;
        };
        // A deploy always has an image, and the client adds files only then.
        if spec.config.image.is_empty() {
            spec.config.image.clone_from(&existing.image);
        }
        spec.config.files.clear();
        // A Machine that serves waits for nobody's loss: the client says so a step later.
        if !theirs.services.is_empty() {
            theirs.standbys.clear();
        }
        let mut ours = lay_over(existing, &spec, &group_name);
        // And which volume it keeps: one of the same name.
        for mount in &mut ours.mounts {
            assert!(mount.name != "data" || mount.volume == existing.mounts[0].volume);
            *mount = Mount {
                volume: String::new(),
                size_gb: None,
                encrypted: None,
                ..mount.clone()
            };
        }
        compared += 1;
        if ours != theirs {
            let json = |c: &MachineConfig| serde_json::to_string(c).unwrap();
            let both = format!("ours:   {}\n  theirs: {}", json(&ours), json(&theirs));
            different.push(format!("{file} [{name}]\n  {both}"));
        }
    }
    compared
}
