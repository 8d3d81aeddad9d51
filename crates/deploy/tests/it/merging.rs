//! A group's configuration over a Machine's own.

use hangar_api::machine::{Guest, MachineConfig, Mount};
use hangar_api::release::GroupSpec;
use hangar_deploy::merge::lay_over;

use crate::sim::{config, group};

fn existing() -> MachineConfig {
    serde_json::from_str(
        r#"{
        "image": "old", "env": {"HAND": "made"},
        "init": {"cmd": ["old"], "tty": true, "swap_size_mb": 64},
        "guest": {"cpu_kind": "performance", "cpus": 2, "memory_mb": 4096},
        "metadata": {"custom": "mine", "fly_process_group": "before", "fly-managed-postgres": "true"},
        "checks": {"old": {"type": "tcp", "port": 1}},
        "restart": {"policy": "always"}, "schedule": "hourly", "auto_destroy": true,
        "standbys": ["1234567890abcd"], "dns": {"skip_registration": true},
        "statics": [{"guest_path": "/a", "url_prefix": "/b"}], "stop_config": {"signal": "SIGUSR2"}
    }"#,
    )
    .unwrap()
}

#[test]
fn what_fly_toml_says_is_made_anew_and_the_rest_is_kept() {
    let spec = GroupSpec {
        config: config("v2", false),
        sets_guest: false,
        test_machines: Vec::new(),
        volumes: Vec::new(),
    };
    let merged = lay_over(&existing(), &spec, &group("web"));
    assert_eq!(merged.image, "app:v2");
    assert_eq!(merged.env.keys().collect::<Vec<_>>(), ["VERSION"]);
    assert_eq!(merged.init.cmd, None);
    assert_eq!(merged.init.tty, Some(true));
    assert!(!merged.init.other.contains_key("swap_size_mb"));
    assert_eq!(merged.guest.as_ref().unwrap().memory_mb, 4096);
    assert_eq!(merged.metadata["custom"], "mine");
    assert_eq!(merged.metadata["fly_process_group"], "web");
    assert_eq!(merged.metadata["fly_platform_version"], "v2");
    assert!(!merged.metadata.contains_key("fly-managed-postgres"));
    assert!(merged.checks.is_empty() && merged.restart.is_none() && merged.stop_config.is_none());
    assert!(merged.auto_destroy && merged.skips_dns());
    assert_eq!(merged.other["schedule"], "hourly");
    assert!(!merged.other.contains_key("statics"));
    assert_eq!(merged.standbys, ["1234567890abcd"]);
}

#[test]
fn a_size_in_fly_toml_wins_and_a_service_ends_a_standby() {
    let mut spec = GroupSpec {
        config: config("v2", true),
        sets_guest: true,
        test_machines: Vec::new(),
        volumes: Vec::new(),
    };
    spec.config.guest = Some(Guest::preset("shared-cpu-2x").unwrap());
    let merged = lay_over(&existing(), &spec, &group("web"));
    assert_eq!(merged.guest.unwrap().size_name(), "shared-cpu-2x");
    assert!(merged.standbys.is_empty());
}

/// What an update does to mounts: a name is kept with its volume and may move, a mount without a
/// name stays where it is, and what is said of growing always comes from fly.toml.
#[test]
fn a_mount_keeps_its_volume_and_takes_the_rest_from_fly_toml() {
    let mut spec = GroupSpec {
        config: config("v2", false),
        sets_guest: false,
        test_machines: Vec::new(),
        volumes: Vec::new(),
    };
    spec.config.mounts = vec![Mount {
        name: "data".to_owned(),
        path: "/new".to_owned(),
        extend_threshold_percent: Some(80),
        add_size_gb: Some(1),
        ..Mount::default()
    }];
    let updated = |name: &str| {
        let mut old = existing();
        old.mounts = vec![Mount {
            volume: "vol_0123456789abcdef".to_owned(),
            name: name.to_owned(),
            path: "/old".to_owned(),
            size_gb: Some(3),
            extend_threshold_percent: Some(50),
            size_gb_limit: Some(9),
            ..Mount::default()
        }];
        lay_over(&old, &spec, &group("web")).mounts.remove(0)
    };
    for (name, path) in [("data", "/new"), ("", "/old")] {
        let mount = updated(name);
        assert_eq!(mount.volume, "vol_0123456789abcdef");
        assert_eq!((mount.name.as_str(), mount.path.as_str()), (name, path));
        assert_eq!(mount.size_gb, Some(3));
        assert_eq!(mount.extend_threshold_percent, Some(80));
        assert_eq!(mount.size_gb_limit, None);
    }
    assert_eq!(
        updated("other").volume,
        "",
        "another volume is not this one"
    );
}
