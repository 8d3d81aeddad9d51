//! From a configuration to Machines.

use super::*;

const WHOLE: &str = r#"
app = "shop"
primary_region = "scl"
kill_signal = "SIGTERM"
kill_timeout = "10s"
swap_size_mb = 256
machine_config = '{"dns": {"nameservers": ["1.2.3.4"]}}'
[deploy]
release_command = "bin/migrate 'all of it'"
[env]
MODE = "production"
[http_service]
internal_port = 8080
force_https = true
[[mounts]]
source = "data"
destination = "/data"
[metrics]
port = 9100
path = "/metrics"
[[statics]]
guest_path = "/public"
url_prefix = "/static"
[[restart]]
policy = "always"
[checks.up]
type = "http"
port = 8080
path = "/up"
"#;

/// Row: tomachine.
#[test]
fn a_machine_has_what_the_file_says() {
    let machine = sent(WHOLE, "app");
    assert_eq!(
        machine["env"],
        json!({ "MODE": "production", "FLY_PROCESS_GROUP": "app", "PRIMARY_REGION": "scl" })
    );
    assert_eq!(machine["metadata"]["fly_process_group"], "app");
    assert_eq!(machine["metadata"]["fly_platform_version"], "v2");
    let ports = &machine["services"][0]["ports"];
    assert_eq!(ports[0]["force_https"], true);
    assert_eq!(ports[1]["port"], 443);
    assert_eq!(ports[1].get("force_https"), None);
    assert_eq!(
        machine["mounts"],
        json!([{ "name": "data", "path": "/data" }])
    );
    assert_eq!(
        machine["metrics"],
        json!({ "port": 9100, "path": "/metrics" })
    );
    assert_eq!(machine["statics"][0]["url_prefix"], "/static");
    assert_eq!(machine["restart"], json!({ "policy": "always" }));
    assert_eq!(machine["checks"]["up"]["path"], "/up");
    assert_eq!(machine["dns"], json!({ "nameservers": ["1.2.3.4"] }));
    assert_eq!(
        machine["stop_config"],
        json!({ "signal": "SIGTERM", "timeout": "10s" })
    );
}

/// Row: tomachine, the Machines beside it. The size is the largest of the fleet, and
/// shared-cpu-2x at least: `a_release_command_comes_first_and_has_the_size_of_the_largest_machine`.
#[test]
fn a_release_and_a_console_machine_serve_nothing() {
    let config = config(WHOLE);
    let inputs = Inputs::default();
    let release = config.release_command_json(&inputs).unwrap().unwrap();
    let console = config.console_json(&inputs);
    for machine in [&release, &console] {
        for key in ["metrics", "mounts", "checks", "services", "statics"] {
            assert_eq!(machine.get(key), None, "{key}");
        }
        assert_eq!(machine["auto_destroy"], true);
        assert_eq!(machine["restart"]["policy"], "no");
        assert_eq!(machine["dns"]["skip_registration"], true);
    }
    assert_eq!(release["init"]["cmd"], json!(["bin/migrate", "all of it"]));
    assert_eq!(release["env"]["RELEASE_COMMAND"], "1");
    assert_eq!(release["stop_config"]["timeout"], "10s");
    assert_eq!(console["init"]["exec"], json!(["/bin/sleep", "inf"]));
    assert_eq!(console.get("stop_config"), None);
    let sized = format!("{WHOLE}\n[deploy.release_command_vm]\nsize = 'performance-2x'");
    let sized = crate::config(&sized);
    let release = sized.release_command_json(&inputs).unwrap().unwrap();
    assert_eq!(release["guest"]["cpus"], 2);
    assert_eq!(release["guest"]["memory_mb"], 4096);
}

/// Row: nullifyManagedFields, the half of it that is made here.
#[test]
fn an_empty_file_asks_for_nothing_but_the_groups_name() {
    let machine = sent("app = 'a'", "app");
    assert_eq!(machine["env"], json!({ "FLY_PROCESS_GROUP": "app" }));
    for key in [
        "services", "checks", "mounts", "metrics", "statics", "files", "guest",
    ] {
        assert_eq!(machine.get(key), None, "{key}");
    }
}

/// Row: tomachine-experimental.
#[test]
fn a_groups_command_replaces_the_old_one_and_nothing_else() {
    let old = "[experimental]\ncmd = ['/call', 'me']\nentrypoint = ['/IgoFirst']\nexec = ['ignore', 'others']";
    let init = &sent(old, "app")["init"];
    assert_eq!(init["cmd"], json!(["/call", "me"]));
    assert_eq!(init["entrypoint"], json!(["/IgoFirst"]));
    assert_eq!(init["exec"], json!(["ignore", "others"]));
    let both = format!("{old}\n[processes]\napp = '/override experimental'");
    let init = &sent(&both, "app")["init"];
    assert_eq!(init["cmd"], json!(["/override", "experimental"]));
    assert_eq!(init["entrypoint"], json!(["/IgoFirst"]));
    assert_eq!(init["exec"], json!(["ignore", "others"]));
}

/// Row: tomachine-default-for-new-apps.
#[test]
fn a_check_without_a_port_takes_that_of_the_web_service() {
    let check = "[checks.up]\ntype = 'tcp'\n";
    let text = format!("{check}[http_service]\ninternal_port = 8080");
    assert_eq!(sent(&text, "app")["checks"]["up"]["port"], 8080);
    let said = stops(check).join("\n");
    assert!(
        said.contains("Check 'up' for process group 'app' has no port set"),
        "{said}"
    );
}

/// Row: tomachine-services.
#[test]
fn what_is_not_said_of_autostop_stays_unsaid() {
    let text = |lines: &str| format!("[http_service]\ninternal_port = 1\n{lines}");
    let service = |lines: &str| sent(&text(lines), "app")["services"][0].clone();
    let unset = service("");
    assert_eq!(
        (unset.get("autostop"), unset.get("autostart")),
        (None, None)
    );
    assert_eq!(service("auto_stop_machines = 'off'")["autostop"], false);
    assert_eq!(service("auto_stop_machines = false")["autostop"], false);
    assert_eq!(service("auto_stop_machines = 'stop'")["autostop"], true);
    assert_eq!(
        service("auto_stop_machines = 'suspend'")["autostop"],
        "suspend"
    );
    assert_eq!(service("auto_start_machines = false")["autostart"], false);
    assert_eq!(service("auto_start_machines = true")["autostart"], true);
    assert_eq!(
        service("min_machines_running = 0")["min_machines_running"],
        0
    );
}

/// Row: tomachine-compute.
#[test]
fn one_size_counts_for_a_group_and_is_not_mixed_with_others() {
    let text = r#"
        [processes]
        app = "a"
        worker = "w"
        model = "m"
        alone = "i"
        [[vm]]
        size = "shared-cpu-2x"
        [[vm]]
        gpu_kind = "a100-pcie-40gb"
        memory = "64gb"
        processes = ["model"]
        [[vm]]
        host_dedication_id = "own"
        processes = ["alone"]
    "#;
    let guest = |group: &str| sent(text, group)["guest"].clone();
    let small = json!({ "cpu_kind": "shared", "cpus": 2, "memory_mb": 512 });
    assert_eq!(guest("app"), small);
    assert_eq!(guest("worker"), small);
    let model = guest("model");
    assert_eq!(model["cpu_kind"], "performance");
    assert_eq!(
        (&model["cpus"], &model["memory_mb"]),
        (&json!(8), &json!(65536))
    );
    let alone = guest("alone");
    assert_eq!(
        (&alone["cpus"], &alone["memory_mb"]),
        (&json!(1), &json!(256))
    );
    assert_eq!(alone["host_dedication_id"], "own");
}

/// Row: resolveComputeSettings (9.3).
#[test]
fn memory_in_megabytes_wins_over_its_text_and_both_over_the_size() {
    let guest = |vm: &str| {
        let made = sent(&format!("[[vm]]\n{vm}"), "app")["guest"].clone();
        let number = |key: &str| made[key].as_u64().unwrap();
        (
            made["cpu_kind"].as_str().unwrap().to_owned(),
            number("cpus"),
            number("memory_mb"),
        )
    };
    let of = |kind: &str, cpus, memory| (kind.to_owned(), cpus, memory);
    assert_eq!(guest("size = 'shared-cpu-4x'"), of("shared", 4, 1024));
    let text = "size = 'shared-cpu-4x'\nmemory = '2gb'\n";
    assert_eq!(guest(text), of("shared", 4, 2048));
    let both = format!("{text}memory_mb = 4096");
    assert_eq!(guest(&both), of("shared", 4, 4096));
    let gpu = "gpu_kind = 'a100-pcie-40gb'";
    let (kind, cpus, _) = guest(gpu);
    assert_eq!((kind.as_str(), cpus), ("performance", 8));
    assert_eq!(guest("cpus = 1"), of("shared", 1, 256));
}

/// Row: tomachine-compute-nodefault.
#[test]
fn a_size_of_one_group_is_not_the_others() {
    let text = "[processes]\napp = 'a'\nbar = 'b'\nwoo = 'w'\n[[vm]]\nsize = 'performance-4x'\nprocesses = ['bar']";
    assert_eq!(sent(text, "app").get("guest"), None);
    assert_eq!(sent(text, "woo").get("guest"), None);
    let bar = &sent(text, "bar")["guest"];
    assert_eq!((&bar["cpus"], &bar["memory_mb"]), (&json!(4), &json!(8192)));
}

/// Row: tomachine-hostdedicationid.
#[test]
fn a_dedicated_host_of_a_size_replaces_that_of_the_file() {
    let text = r#"
        host_dedication_id = "top"
        [processes]
        front = "f"
        back = "b"
        other = "o"
        [[vm]]
        host_dedication_id = "own"
        processes = ["back"]
        [[vm]]
        size = "shared-cpu-4x"
        processes = ["other"]
    "#;
    assert_eq!(sent(text, "front").get("guest"), None);
    let flat = |group: &str| config(text).flatten(group).host_dedication_id;
    assert_eq!(flat("front").as_deref(), Some("top"));
    assert_eq!(flat("back").as_deref(), Some("own"));
    assert_eq!(sent(text, "back")["guest"]["host_dedication_id"], "own");
    assert_eq!(sent(text, "other")["guest"]["host_dedication_id"], "top");
}

/// Row: tomachine-machinechecks. The address of the tested Machine is put in by the deployment.
#[test]
fn a_test_machine_has_its_own_image_and_end_or_the_apps() {
    let tests = |lines: &str| {
        let text = format!(
            "kill_signal = 'SIGTERM'\nkill_timeout = '9s'\nswap_size_mb = 64\n[env]\nA = '1'\n[http_service]\ninternal_port = 1\n[[http_service.machine_checks]]\ncommand = ['curl', 'it']\n{lines}"
        );
        let spec = config(&text).group_spec("app", &Inputs::default()).unwrap();
        spec.test_machines[0].config.clone()
    };
    let own: MachineConfig = tests("image = 'curl:1'\nkill_signal = 'SIGKILL'");
    assert_eq!(own.image, "curl:1");
    let stop = own.stop_config.unwrap();
    assert_eq!(stop.signal.as_deref(), Some("SIGKILL"));
    assert_eq!(stop.timeout, None, "the app's way to end is not its own");
    assert_eq!(own.init.cmd.unwrap(), ["curl", "it"]);
    assert_eq!(own.init.other["swap_size_mb"], 64);
    assert_eq!(own.env["A"], "1");
    let apps = tests("kill_timeout = '1s'");
    assert_eq!(apps.image, "");
    let stop = apps.stop_config.unwrap();
    assert_eq!(stop.signal.as_deref(), Some("SIGTERM"));
    assert_eq!(stop.timeout.unwrap().to_string(), "1s");
}
