//! Process groups: names, who gets which section, and the Machine configuration of each.

use std::collections::BTreeMap;

use hangar_api::machine::service::Autostop;
use hangar_config::{AppConfig, Format, Inputs, load};
use serde_json::json;

use crate::{FULL, config, machine};

#[test]
fn without_processes_there_is_one_group_and_the_image_says_what_runs() {
    for text in ["app = 'a'", "[processes]", "processes = []"] {
        let config = config(text);
        assert_eq!(
            (config.groups(), config.default_group()),
            (vec!["app"], "app")
        );
        assert!(machine(text, "app").init.is_empty());
    }
}

#[test]
fn processes_is_the_complete_list_and_the_first_or_app_is_the_default() {
    let both = config("[processes]\nweb = 'w'\ncron = 'c'");
    assert_eq!(
        (both.groups(), both.default_group()),
        (vec!["cron", "web"], "cron")
    );
    let app = config("[processes]\naaa = 'w'\napp = 'c'");
    assert_eq!(
        (app.groups(), app.default_group()),
        (vec!["aaa", "app"], "app")
    );
    let legacy = config("[[processes]]\nname = 'web'\ncommand = 'w'\n[[processes]]\nname = 'b'");
    assert_eq!(legacy.processes["web"], "w");
    assert_eq!(legacy.processes["b"], "");
}

#[test]
fn a_whole_file_becomes_one_configuration_per_group() {
    let specs = config(FULL)
        .machine_configs(&Inputs {
            image: "shop@sha256:x".to_owned(),
            client_version: "9".to_owned(),
            ..Inputs::default()
        })
        .unwrap();
    let json: BTreeMap<&str, serde_json::Value> = specs
        .iter()
        .map(|(name, spec)| (name.as_str(), serde_json::to_value(&spec.config).unwrap()))
        .collect();
    let env = |group: &str| {
        json!({"PORT": "8080", "DEBUG": "true", "RATIO": "1.5",
            "FLY_PROCESS_GROUP": group, "PRIMARY_REGION": "iad"})
    };
    let metadata = |group: &str| json!({"fly_platform_version": "v2", "fly_process_group": group, "fly_flyctl_version": "9"});
    let tcp = json!({
        "protocol": "tcp", "internal_port": 7000,
        "ports": [{"port": 7001, "handlers": ["tls"]}],
        "concurrency": {"type": "requests", "soft_limit": 20, "hard_limit": 25},
        "checks": [{"type": "tcp", "interval": "15s", "timeout": "2s"}],
    });
    let files = json!([{"guest_path": "/etc/motd", "raw_value": "aGVsbG8="}]);
    let stop = json!({"signal": "SIGTERM", "timeout": "30s"});
    let small = json!({"cpu_kind": "shared", "cpus": 2, "memory_mb": 512});
    assert_eq!(
        json["cron"],
        json!({
            "image": "shop@sha256:x", "env": env("cron"), "metadata": metadata("cron"),
            "init": {}, "guest": small, "files": files, "stop_config": stop,
            "restart": {"policy": "no", "max_retries": 3},
        })
    );
    assert_eq!(
        json["worker"],
        json!({
            "image": "shop@sha256:x", "env": env("worker"), "metadata": metadata("worker"),
            "init": {"cmd": ["sh", "-c", "work && rest"]},
            "guest": {"cpu_kind": "shared", "cpus": 1, "memory_mb": 1024},
            "files": files, "stop_config": stop, "services": [tcp],
        })
    );
    assert_eq!(
        json["web"],
        json!({
            "image": "shop@sha256:x", "env": env("web"), "metadata": metadata("web"),
            "init": {"cmd": ["bin/web", "--port", "8080"]},
            "guest": small, "files": files, "stop_config": stop,
            "checks": {"alive": {"type": "http", "port": 8080, "method": "GET",
                "path": "/alive", "interval": "5s"}},
            "services": [{
                "protocol": "tcp", "internal_port": 8080, "autostop": false,
                "ports": [
                    {"port": 80, "handlers": ["http"], "force_https": true},
                    {"port": 443, "handlers": ["http", "tls"]},
                ],
                "concurrency": {"type": "requests", "soft_limit": 200},
                "checks": [{"type": "http", "interval": "10s", "path": "/up",
                    "headers": [{"name": "Host", "values": ["shop.example"]}]}],
            }, tcp],
        })
    );
    assert!(specs.values().all(|s| s.sets_guest));
}

#[test]
fn a_section_without_processes_is_for_the_default_group_only() {
    let text = r#"
        [processes]
        app = "a"
        web = "w"
        [checks.c]
        type = "tcp"
        port = 1
        [[restart]]
        policy = "always"
    "#;
    assert_eq!(machine(text, "app").checks.len(), 1);
    assert!(machine(text, "app").restart.is_some());
    assert!(machine(text, "web").checks.is_empty());
    assert!(machine(text, "web").restart.is_none());
}

#[test]
fn one_vm_entry_counts_and_entries_are_never_merged() {
    let text = r#"
        [processes]
        a = "1"
        b = "2"
        c = "3"
        [[vm]]
        size = "shared-cpu-4x"
        [[vm]]
        memory = "2gb"
        processes = ["b"]
        [[vm]]
        cpus = 2
        memory = "512mb"
        processes = ["b", "c"]
    "#;
    let size = |group: &str| {
        let guest = machine(text, group).guest.unwrap();
        (guest.cpus, guest.memory_mb)
    };
    assert_eq!(size("a"), (4, 1024));
    assert_eq!(size("b"), (2, 512), "the last that names it, alone");
    assert_eq!(size("c"), (2, 512));
    let none = config("app = 'a'")
        .machine_configs(&Inputs::default())
        .unwrap();
    let spec = none.values().next().unwrap();
    assert!(!spec.sets_guest && spec.config.guest.is_none());
}

#[test]
fn numbers_for_durations_mean_what_they_mean_on_fly() {
    let text = r#"
        kill_timeout = 5
        [[services]]
        internal_port = 1
        [[services.ports]]
        port = 2
        [services.tcp_checks]
        interval = 2000
        timeout = 1500.9
        [http_service]
        internal_port = 3
        [[http_service.checks]]
        interval = 5000000000
    "#;
    let machine = machine(text, "app");
    let text_of = |d: Option<hangar_api::duration::GoDuration>| d.unwrap().to_string();
    assert_eq!(text_of(machine.stop_config.unwrap().timeout), "5s");
    assert_eq!(text_of(machine.services[0].checks[0].interval), "5s");
    assert_eq!(text_of(machine.services[1].checks[0].interval), "2s");
    assert_eq!(text_of(machine.services[1].checks[0].timeout), "1.5s");
}

#[test]
fn autostop_is_a_word_or_a_bool() {
    for (text, wanted) in [
        ("'off'", Autostop::Off),
        ("false", Autostop::Off),
        ("true", Autostop::Stop),
        ("'suspend'", Autostop::Suspend),
    ] {
        let text = format!("[http_service]\ninternal_port = 1\nauto_stop_machines = {text}");
        assert_eq!(machine(&text, "app").services[0].autostop, Some(wanted));
    }
}

#[test]
fn local_files_are_asked_for_and_missing_ones_named() {
    let text = "[[files]]\nguest_path = '/a'\nlocal_path = 'here/a'";
    let config = config(text);
    assert_eq!(config.local_files(), ["here/a"]);
    let error = config.machine_configs(&Inputs::default()).unwrap_err();
    assert!(error.to_string().contains("here/a"), "{error}");
    let inputs = Inputs {
        files: [("here/a".to_owned(), b"x".to_vec())].into(),
        ..Inputs::default()
    };
    let specs = config.machine_configs(&inputs).unwrap();
    let files = &specs.values().next().unwrap().config.files;
    assert_eq!(files[0].raw_value.as_deref(), Some("eA=="));
}

#[test]
fn the_definition_reads_back_as_the_same_configuration() {
    let first = config(FULL);
    let again = AppConfig::from_definition(&first.definition()).unwrap();
    assert_eq!(again, first);
    for format in [Format::Toml, Format::Json, Format::Yaml] {
        let text = first.write(format);
        let again = load(&text, format)
            .config
            .expect("what is written is valid");
        assert_eq!(again, first, "{text}");
    }
    let json = first.write(Format::Json);
    let head = "{\n  \"app\": \"shop\",\n";
    assert!(json.starts_with(head), "{json}");
}
