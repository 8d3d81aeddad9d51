use super::*;
use hangar_api::machine::config::{File, Init};

fn image() -> PreparedImage {
    PreparedImage {
        entrypoint: vec!["/entry".to_owned()],
        cmd: vec!["serve".to_owned()],
        env: BTreeMap::from([
            ("A".to_owned(), "image".to_owned()),
            ("B".to_owned(), "image".to_owned()),
            ("C".to_owned(), "image".to_owned()),
        ]),
        ..PreparedImage::default()
    }
}

fn list(words: &[&str]) -> Option<Vec<String>> {
    Some(words.iter().map(|word| (*word).to_owned()).collect())
}

#[test]
fn a_groups_command_replaces_cmd_and_never_entrypoint() {
    let with = |init: Init| {
        let config = MachineConfig {
            init,
            ..MachineConfig::default()
        };
        argv(&config, &image()).unwrap().join(" ")
    };
    assert_eq!(with(Init::default()), "/entry serve");
    let cmd = list(&["work", "-v"]);
    assert_eq!(
        with(Init {
            cmd,
            ..Init::default()
        }),
        "/entry work -v"
    );
    let entrypoint = list(&["/other"]);
    assert_eq!(
        with(Init {
            entrypoint,
            ..Init::default()
        }),
        "/other serve"
    );
    let (exec, cmd) = (list(&["/only"]), list(&["x"]));
    assert_eq!(
        with(Init {
            exec,
            cmd,
            ..Init::default()
        }),
        "/only"
    );
}

#[test]
fn an_image_without_a_command_is_refused_in_words() {
    let error = argv(&MachineConfig::default(), &PreparedImage::default()).unwrap_err();
    assert!(error.to_string().starts_with("the image has no command"));
}

#[test]
fn env_beats_the_image_secrets_beat_env_and_the_platform_beats_all() {
    let mut spec = crate::machine::testing::spec("app1", 1);
    let text = |v: &str| v.to_owned();
    spec.config.env = BTreeMap::from([
        (text("B"), text("env")),
        (text("C"), text("env")),
        (text("FLY_REGION"), text("env")),
    ]);
    let secrets = SecretValues(BTreeMap::from([(text("C"), text("secret"))]));
    let inputs = Inputs {
        spec: &spec,
        secrets: &secrets,
        image: &image(),
        start: 1,
        v4: Ipv4Addr::LOCALHOST,
    };
    let env = environment(&inputs);
    assert_eq!(env["A"], "image");
    assert_eq!(env["B"], "env");
    assert_eq!(env["C"], "secret");
    assert_eq!(env["FLY_REGION"], spec.region.as_str());
    assert_eq!(env["FLY_MACHINE_ID"], spec.id.as_str());
    assert!(env["PATH"].contains("/usr/bin"));
    assert!(!env.contains_key("FLY_PUBLIC_IP"));
}

#[test]
fn files_are_decoded_and_may_come_from_secrets() {
    let file = |path: &str, raw: Option<&str>, secret: Option<&str>| File {
        guest_path: path.to_owned(),
        raw_value: raw.map(str::to_owned),
        secret_name: secret.map(str::to_owned),
        mode: None,
    };
    let secrets = SecretValues(BTreeMap::from([("KEY".to_owned(), "aGk=".to_owned())]));
    let with = |file: File| {
        let config = MachineConfig {
            files: vec![file],
            ..MachineConfig::default()
        };
        files(&config, &secrets)
    };
    let made = with(file("/etc/key", None, Some("KEY"))).unwrap();
    assert_eq!(made, [(PathBuf::from("/etc/key"), b"hi".to_vec(), 0o644)]);
    assert!(with(file("/etc/../x", Some("aGk="), None)).is_err());
    assert!(with(file("x", Some("aGk="), None)).is_err());
    assert!(with(file("/x", Some("!"), None)).is_err());
    assert!(with(file("/x", None, Some("NONE"))).is_err());
}

#[test]
fn a_volume_is_mounted_where_it_was_said_and_nowhere_that_it_must_not_be() {
    let with = |volume: &str, path: &str| {
        let mount = Mount {
            volume: volume.to_owned(),
            path: path.to_owned(),
            ..Mount::default()
        };
        mounts(&MachineConfig {
            mounts: vec![mount],
            ..MachineConfig::default()
        })
    };
    let id = "vol_0123456789abcdef";
    let found = with(id, "/var/data").unwrap();
    assert_eq!(found[0].volume.as_str(), id);
    assert_eq!(found[0].path, PathBuf::from("/var/data"));
    for (volume, path) in [("data", "/data"), (id, "/"), (id, "data"), (id, "/a/../b")] {
        let error = with(volume, path).unwrap_err().to_string();
        assert!(error.contains(volume) && error.contains(path), "{error}");
    }
}

#[test]
fn swap_stands_beside_memory_and_what_is_kept_has_the_name_of_its_time() {
    let mut spec = crate::machine::testing::spec("app1", 7);
    let plan = |spec: &MachineSpec| {
        let inputs = Inputs {
            spec,
            secrets: &SecretValues::default(),
            image: &image(),
            start: 1,
            v4: Ipv4Addr::LOCALHOST,
        };
        start_plan(inputs, PathBuf::from("/logs")).unwrap()
    };
    let bare = plan(&spec);
    assert_eq!((bare.kept, bare.limits.swap_bytes), (None, 0));
    let swap = ("swap_size_mb".to_owned(), 64.into());
    spec.config.init.other.extend([swap]);
    assert_eq!(plan(&spec).limits.swap_bytes, 64 << 20);
    assert_eq!(plan(&spec).limits.memory_bytes, bare.limits.memory_bytes);
    let generation = format!("generation-{}", spec.generation);
    for (word, kept) in [
        ("never", None),
        ("restart", Some(generation)),
        ("always", Some("always".to_owned())),
    ] {
        let rootfs = serde_json::json!({ "persist": word });
        spec.config.other.insert("rootfs".to_owned(), rootfs);
        assert_eq!(plan(&spec).kept, kept, "{word}");
    }
}
