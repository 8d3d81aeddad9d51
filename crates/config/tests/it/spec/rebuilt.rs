//! A configuration made of the Machines that there are.

use hangar_config::rebuild::{from_machines, quote};
use hangar_config::words;
use proptest::prelude::*;

use super::*;

fn quoted(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
    quote(&words)
}

/// Row: from_machine_set_test. An empty word and a quote in a word differ from Fly's, whose
/// command would be read as another one.
#[test]
fn words_are_quoted_one_by_one() {
    assert_eq!(
        quoted(&["nginx", "-g", "daemon off;"]),
        "nginx -g 'daemon off;'"
    );
    assert_eq!(
        quoted(&["bundle", "exec", "db:migrate"]),
        "bundle exec db:migrate"
    );
    assert_eq!(quoted(&["run", "--six=seven"]), "run '--six=seven'");
    assert_eq!(quoted(&["echo", "hi there"]), "echo \"hi there\"");
    assert_eq!(quoted(&["/app"]), "/app");
    assert_eq!(quoted(&[]), "");
    assert_eq!(quoted(&["a", "", "b"]), "a '' b");
    assert_eq!(quoted(&["it's"]), r"'it'\''s'");
}

proptest! {
    #[test]
    fn quoted_words_read_back_the_same(given in prop::collection::vec(".{0,8}", 0..6)) {
        let line = quote(&given);
        prop_assert_eq!(words::split(&line).unwrap(), given);
    }
}

fn machine(value: Json) -> MachineConfig {
    serde_json::from_value(value).unwrap()
}

fn nginx() -> MachineConfig {
    machine(json!({
        "image": "nginx", "init": { "cmd": ["nginx", "-g", "daemon off;"] },
        "env": { "A": "1", "PRIMARY_REGION": "scl", "FLY_PROCESS_GROUP": "app" },
        "services": [{ "protocol": "tcp", "internal_port": 80, "autostop": "suspend", "autostart": true,
            "ports": [{ "port": 80, "handlers": ["http"] }],
            "checks": [{ "type": "http", "interval": "10s", "path": "/up",
                "headers": [{ "name": "Host", "values": ["x"] }] }] }],
        "checks": { "alive": { "type": "tcp", "port": 80, "interval": "5s" } },
        "mounts": [{ "volume": "vol_1", "name": "data", "path": "/data" }],
        "metrics": { "port": 9100, "path": "/metrics" },
        "statics": [{ "guest_path": "/public", "url_prefix": "/static" }],
    }))
}

/// Preflight row: ConfigSave_ProcessGroups.
#[test]
fn the_commonest_machine_is_the_configuration_and_others_are_named() {
    let other =
        machine(json!({ "image": "nginx", "init": { "cmd": ["tail", "-F", "/dev/null"] } }));
    let (one, two) = (nginx(), nginx());
    let machines = [("m1", &one), ("m2", &other), ("m3", &two)];
    let rebuilt = from_machines("shop", &machines).unwrap();
    let text = rebuilt.config.write(Format::Toml);
    assert!(text.contains("app = \"nginx -g 'daemon off;'\""), "{text}");
    let warnings = rebuilt.warnings.join("\n");
    assert!(
        warnings.contains("Found these additional commands on some machines"),
        "{warnings}"
    );
    assert!(
        warnings.contains("tail -F /dev/null") && warnings.contains("m2"),
        "{warnings}"
    );
    assert!(
        !warnings.contains("m1") && !warnings.contains("m3"),
        "{warnings}"
    );
    let again = load(&text, Format::Toml)
        .config
        .expect("it can be deployed");
    assert_eq!(again, rebuilt.config);
    let sent = again.machine_json("app", &Inputs::default()).unwrap();
    assert_eq!(sent["services"], json!(one.services));
    assert_eq!(sent["checks"], json!(one.checks));
    assert_eq!(sent["env"], json!(one.env));
    assert_eq!(sent["init"]["cmd"], json!(["nginx", "-g", "daemon off;"]));
    assert_eq!(sent["mounts"], json!([{ "name": "data", "path": "/data" }]));
    assert_eq!(sent["metrics"], json!({ "port": 9100, "path": "/metrics" }));
    assert_eq!(sent["statics"][0]["url_prefix"], "/static");
}

/// Preflight row: ConfigSave_OneMachine.
#[test]
fn a_lone_machine_is_the_configuration() {
    let lone = machine(json!({ "image": "i", "init": { "cmd": ["tail", "-F", "/dev/null"] } }));
    let rebuilt = from_machines("shop", &[("m", &lone)]).unwrap();
    assert_eq!(rebuilt.warnings, [""; 0]);
    let text = rebuilt.config.write(Format::Toml);
    assert!(
        text.contains("[processes]\n  app = 'tail -F /dev/null'"),
        "{text}"
    );
    assert_eq!(from_machines("shop", &[]), None);
    let bare = machine(json!({ "image": "i" }));
    let rebuilt = from_machines("shop", &[("m", &bare)]).unwrap();
    assert!(
        rebuilt.config.processes.is_empty(),
        "the image says what runs"
    );
}

#[test]
fn services_that_differ_are_named() {
    let mut odd = nginx();
    odd.services[0].internal_port = 81;
    let (one, two) = (nginx(), nginx());
    let rebuilt = from_machines("shop", &[("odd", &odd), ("m1", &one), ("m2", &two)]).unwrap();
    assert_eq!(rebuilt.config.services[0].internal_port, 80);
    let warnings = rebuilt.warnings.join("\n");
    assert!(
        warnings.contains("Machine IDs with different services: odd"),
        "{warnings}"
    );
}
