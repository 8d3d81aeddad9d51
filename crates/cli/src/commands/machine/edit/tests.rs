use serde_json::json;

use super::*;

fn edited(from: MachineConfig, args: &MachineConfigArgs) -> Result<Edited, String> {
    apply(
        from,
        &Edit {
            args,
            document: None,
            files: Vec::new(),
        },
    )
}

fn config(value: Value) -> MachineConfig {
    serde_json::from_value(value).unwrap()
}

#[test]
fn no_flag_changes_nothing_but_names_the_size() {
    let from = config(json!({
        "image": "x", "env": {"A": "1"}, "restart": {"policy": "always", "max_retries": 3},
        "services": [{"protocol": "tcp", "internal_port": 80, "ports": [{"port": 80}]}],
        "schedule": "daily", "guest": {"cpu_kind": "shared", "cpus": 2, "memory_mb": 512},
    }));
    let edited = edited(from.clone(), &MachineConfigArgs::default()).unwrap();
    assert_eq!(edited.config, from);
    assert_eq!(edited.notes, Vec::<String>::new());
}

#[test]
fn environment_and_metadata_are_merged() {
    let from = config(json!({"image": "x", "env": {"A": "1", "B": "2"}, "metadata": {"m": "1"}}));
    let args = MachineConfigArgs {
        env: vec!["B=3".to_owned(), "C=a=b".to_owned()],
        metadata: vec!["fly_process_group=app".to_owned()],
        ..MachineConfigArgs::default()
    };
    let after = edited(from, &args).unwrap().config;
    assert_eq!(json!(after.env), json!({"A": "1", "B": "3", "C": "a=b"}));
    assert_eq!(after.process_group(), "app");
    assert_eq!(after.metadata["m"], "1");
}

#[test]
fn a_service_without_ports_goes_and_that_is_said() {
    let from = config(json!({"image": "x", "services": [
        {"protocol": "tcp", "internal_port": 80, "ports": [{"port": 80}]},
        {"protocol": "tcp", "internal_port": 81, "ports": []},
    ]}));
    let args = MachineConfigArgs {
        port: vec!["80/tcp:-".to_owned()],
        ..MachineConfigArgs::default()
    };
    let after = edited(from, &args).unwrap();
    assert!(after.config.services.is_empty());
    assert_eq!(after.notes.len(), 2, "{:?}", after.notes);
}

#[test]
fn a_machine_that_goes_when_it_ends_is_not_restarted_unless_told() {
    let from = config(json!({"image": "x", "auto_destroy": true}));
    let after = edited(from.clone(), &MachineConfigArgs::default()).unwrap();
    let policy = |e: &Edited| e.config.restart.clone().and_then(|r| r.policy);
    assert_eq!(policy(&after).as_deref(), Some("no"));
    let args = |text: &str| MachineConfigArgs {
        restart: Some(text.to_owned()),
        ..MachineConfigArgs::default()
    };
    let told = edited(from.clone(), &args("always")).unwrap();
    assert_eq!(policy(&told).as_deref(), Some("always"));
    let old = edited(from.clone(), &args("on-fail")).unwrap();
    assert_eq!(policy(&old).as_deref(), Some("on-failure"));
    assert!(old.notes[0].contains("deprecated"));
    assert_eq!(policy(&edited(from.clone(), &args("")).unwrap()), None);
    let error = edited(from, &args("sometimes")).unwrap_err();
    assert!(error.contains("no, always or on-failure"), "{error}");
}

#[test]
fn autostop_is_a_word_or_a_boolean_and_needs_a_service() {
    let args = |text: &str| MachineConfigArgs {
        autostop: Some(text.to_owned()),
        port: vec!["80".to_owned()],
        ..MachineConfigArgs::default()
    };
    for (text, expected) in [
        ("stop", Autostop::Stop),
        ("true", Autostop::Stop),
        ("off", Autostop::Off),
        ("false", Autostop::Off),
        ("0", Autostop::Off),
        ("suspend", Autostop::Suspend),
    ] {
        let after = edited(config(json!({"image": "x"})), &args(text)).unwrap();
        assert_eq!(after.config.services[0].autostop, Some(expected), "{text}");
    }
    assert!(edited(config(json!({})), &args("maybe")).is_err());
    let lone = MachineConfigArgs {
        autostop: Some("stop".to_owned()),
        ..MachineConfigArgs::default()
    };
    let error = edited(config(json!({})), &lone).unwrap_err();
    assert!(error.contains("--port"), "{error}");
}

#[test]
fn standbys_are_set_and_taken_away() {
    let args = |text: &str| MachineConfigArgs {
        standby_for: Some(text.to_owned()),
        ..MachineConfigArgs::default()
    };
    let set = edited(config(json!({"image": "x"})), &args("a, b")).unwrap();
    assert_eq!(set.config.standbys, ["a", "b"]);
    assert_eq!(set.config.env[STANDBY_FOR], "a,b");
    let cleared = edited(set.config, &args("")).unwrap().config;
    assert!(cleared.standbys.is_empty());
}

#[test]
fn a_schedule_is_one_of_four_words_and_can_be_taken_away() {
    let args = |text: &str| MachineConfigArgs {
        schedule: Some(text.to_owned()),
        ..MachineConfigArgs::default()
    };
    let set = edited(config(json!({"image": "x"})), &args("weekly")).unwrap();
    assert_eq!(set.config.other["schedule"], "weekly");
    let kept = edited(set.config.clone(), &MachineConfigArgs::default()).unwrap();
    assert_eq!(kept.config.schedule(), Ok(Some(Schedule::Weekly)));
    let gone = edited(set.config, &args("")).unwrap().config;
    assert_eq!(gone.schedule(), Ok(None));
    let once = config(json!({"image": "x", "auto_destroy": true}));
    let noted = edited(once, &args("daily")).unwrap().notes;
    assert!(noted[0].contains("nothing is left"), "{noted:?}");
    let error = edited(config(json!({})), &args("0 3 * * *")).unwrap_err();
    assert!(
        error.contains("hourly, daily, weekly or monthly"),
        "{error}"
    );
}

#[test]
fn a_document_is_laid_over_what_there_is() {
    let from = config(json!({"image": "x", "env": {"A": "1", "B": "2"}, "auto_destroy": true}));
    let args = MachineConfigArgs::default();
    let with = |document: Value| {
        apply(
            from.clone(),
            &Edit {
                args: &args,
                document: Some(document),
                files: Vec::new(),
            },
        )
    };
    let after = with(json!({"env": {"B": "3"}, "auto_destroy": null, "schedule": "daily"}));
    let after = after.unwrap().config;
    assert_eq!(json!(after.env), json!({"A": "1", "B": "3"}));
    assert!(!after.auto_destroy);
    assert_eq!(after.other["schedule"], "daily");
    assert!(with(json!([])).unwrap_err().contains("JSON object"));
    let error = with(json!({"env": 3})).unwrap_err();
    assert!(error.contains("--machine-config"), "{error}");
}

#[test]
fn sizes_are_checked_as_a_whole() {
    let vm = |size: Option<&str>, memory: Option<&str>| VmArgs {
        vm_size: size.map(str::to_owned),
        vm_memory: memory.map(str::to_owned),
        ..VmArgs::default()
    };
    let two = guest(Guest::default(), &vm(Some("shared-cpu-2x"), None)).unwrap();
    assert_eq!((two.cpus, two.memory_mb), (2, 512));
    let more = guest(Guest::default(), &vm(None, Some("1gb"))).unwrap();
    assert_eq!(more.memory_mb, 1024);
    for (wanted, why) in [
        (vm(Some("huge"), None), "unknown size"),
        (vm(None, Some("0")), "cannot be zero"),
        (vm(None, Some("100")), "multiple of 256"),
        (vm(None, Some("4gb")), "too high"),
        (vm(Some("performance-2x"), Some("2048")), "too low"),
    ] {
        let error = guest(Guest::default(), &wanted).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}
