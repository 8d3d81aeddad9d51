//! A group's configuration over a Machine's own.

use hangar_api::machine::{Guest, MachineConfig};
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
