//! What a dry run says of each Machine.

use std::collections::BTreeMap;

use hangar_api::machine::MachineConfig;
use hangar_deploy::changes::changes;
use proptest::prelude::*;
use serde_json::json;

fn config(text: &serde_json::Value) -> MachineConfig {
    serde_json::from_value(text.clone()).unwrap()
}

fn named(from: &serde_json::Value, to: &serde_json::Value) -> Vec<String> {
    let found = changes(&config(from), &config(to));
    let shown = |value: &Option<serde_json::Value>| match value {
        Some(value) => value.to_string(),
        None => "-".to_owned(),
    };
    found
        .iter()
        .map(|c| format!("{}: {} -> {}", c.field, shown(&c.from), shown(&c.to)))
        .collect()
}

#[test]
fn each_field_that_differs_is_named_with_both_values() {
    let from = json!({
        "image": "a:1", "env": {"KEEP": "1", "MODE": "a", "OLD": "x"},
        "init": {"cmd": ["serve", "-v"]},
        "services": [{"internal_port": 80, "ports": [{"port": 80}]}, {"internal_port": 81, "ports": []}],
        "guest": {"cpu_kind": "shared", "cpus": 1, "memory_mb": 256},
        "metadata": {"fly_release_version": "1", "fly_release_id": "a", "mine": "x"}
    });
    let to = json!({
        "image": "a:2", "env": {"KEEP": "1", "MODE": "b", "NEW": "y"},
        "init": {"cmd": ["serve"]},
        "services": [{"internal_port": 8080, "ports": [{"port": 80}]}],
        "guest": {"cpu_kind": "shared", "cpus": 1, "memory_mb": 512},
        "metadata": {"fly_release_version": "2", "fly_release_id": "b", "mine": "x"}
    });
    let found = named(&from, &to);
    assert_eq!(
        found,
        [
            "env.MODE: \"a\" -> \"b\"",
            "env.NEW: - -> \"y\"",
            "env.OLD: \"x\" -> -",
            "guest.memory_mb: 256 -> 512",
            "image: \"a:1\" -> \"a:2\"",
            "init.cmd: [\"serve\",\"-v\"] -> [\"serve\"]",
            "services[0].internal_port: 80 -> 8080",
            "services[1]: {\"internal_port\":81,\"ports\":[],\"protocol\":\"tcp\"} -> -",
        ]
    );
}

#[test]
fn a_new_release_alone_is_no_change_and_a_long_value_is_cut() {
    let one =
        json!({"image": "a", "metadata": {"fly_release_version": "1", "fly_flyctl_version": "1"}});
    let two =
        json!({"image": "a", "metadata": {"fly_release_version": "2", "fly_flyctl_version": "2"}});
    assert!(named(&one, &two).is_empty());
    let long = json!({"image": "a", "env": {"X": "y".repeat(5000)}});
    let found = named(&json!({"image": "a"}), &long);
    assert!(
        found[0].len() < 300 && found[0].contains("5000 bytes"),
        "{found:?}"
    );
}

fn env() -> impl Strategy<Value = BTreeMap<String, String>> {
    proptest::collection::btree_map("[A-D]", "[a-c]{1,2}", 0..4)
}

proptest! {
    #[test]
    fn a_field_is_named_exactly_when_it_differs(old in env(), new in env()) {
        let of = |env: &BTreeMap<String, String>| MachineConfig {
            image: "a".to_owned(),
            env: env.clone(),
            ..MachineConfig::default()
        };
        let found = changes(&of(&old), &of(&new));
        prop_assert_eq!(found.is_empty(), old == new);
        // What is named leads from one to the other.
        let mut walked = old;
        for change in &found {
            let name = change.field.strip_prefix("env.").unwrap().to_owned();
            match &change.to {
                Some(value) => walked.insert(name, value.as_str().unwrap().to_owned()),
                None => walked.remove(&name),
            };
        }
        prop_assert_eq!(walked, new);
    }
}
