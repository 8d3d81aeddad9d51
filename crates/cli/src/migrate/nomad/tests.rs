use super::*;
use crate::migrate::testing::assert_valid;

const REGIONS: [&str; 3] = ["ams", "fra", "iad"];

fn job() -> Value {
    serde_json::json!({ "Job": {
        "ID": "shop", "Name": "shop", "Type": "service", "Region": "global", "Datacenters": ["fra", "AMS", "rack-9"],
        "Priority": 50, "Namespace": "default", "NodePool": "default",
        "Constraints": [{"LTarget": "${attr.kernel.name}", "Operand": "=", "RTarget": "linux"}],
        "Update": {"MaxParallel": 2, "Canary": 1, "HealthyDeadline": 120_000_000_000_u64, "AutoRevert": true},
        "Meta": {"team": "x"},
        "TaskGroups": [
            {
                "Name": "web", "Count": 3,
                "Networks": [{"Mode": "bridge", "DynamicPorts": [{"Label": "http", "To": 3000}, {"Label": "admin"}]}],
                "Services": [{
                    "Name": "shop-web", "PortLabel": "http", "Tags": ["traefik.enable=true"],
                    "Checks": [
                        {"Type": "http", "Path": "/health", "Interval": 10_000_000_000_u64, "Timeout": 2_000_000_000_u64, "Header": {"Host": ["a"]}},
                        {"Type": "script", "Name": "alive", "Command": "true"}
                    ]
                }],
                "Scaling": {"Min": 1, "Max": 9},
                "Tasks": [
                    {
                        "Name": "server", "Driver": "docker", "Leader": true,
                        "Config": {"image": "shop:1", "command": "serve", "args": ["--admin", "${NOMAD_PORT_admin}"], "ports": ["http"]},
                        "Env": {"DIR": "${NOMAD_TASK_DIR}/x"},
                        "Resources": {"CPU": 500, "MemoryMB": 300, "MemoryMaxMB": 600},
                        "KillSignal": "SIGTERM", "KillTimeout": 20_000_000_000_u64,
                        "Templates": [{"DestPath": "local/x"}],
                        "VolumeMounts": [{"Volume": "data", "Destination": "/data"}]
                    },
                    {"Name": "migrate", "Driver": "docker", "Config": {"image": "shop:1"}, "Lifecycle": {"Hook": "prestart", "Sidecar": false}},
                    {"Name": "logs", "Driver": "docker", "Config": {"image": "shipper:2"}, "Lifecycle": {"Hook": "prestart", "Sidecar": true}}
                ],
                "Volumes": {"data": {"Type": "host", "Source": "shop-data"}}
            },
            {
                "Name": "worker", "Count": 2,
                "Tasks": [{
                    "Name": "worker", "Driver": "docker", "Config": {"image": "shop:1", "args": ["work"], "privileged": true},
                    "KillSignal": "SIGTERM", "KillTimeout": 20_000_000_000_u64
                }]
            },
            {
                "Name": "db", "Count": 1,
                "Networks": [{"ReservedPorts": [{"Label": "db", "Value": 5432}]}],
                "Tasks": [{
                    "Name": "pg", "Driver": "docker", "Config": {"image": "postgres:16"},
                    "Services": [{"Name": "pg", "PortLabel": "db", "Checks": [{"Type": "tcp", "Interval": 1, "Timeout": 1}]}],
                    "Resources": {"Cores": 2, "MemoryMB": 2048}
                }]
            }
        ]
    }})
}

#[test]
fn task_groups_become_groups_and_apps_with_their_counts() {
    let converted = convert(&job().to_string(), &REGIONS).unwrap();
    assert_valid(&converted);
    let names: Vec<&str> = converted
        .apps
        .iter()
        .map(|a| a.draft.app.as_str())
        .collect();
    assert_eq!(names, ["shop-web-logs", "shop-db", "shop"]);
    let main = converted.apps.last().unwrap();
    // Volumes come with `scale count`.
    assert_eq!(main.scale_arguments().unwrap(), "web=3 --region fra,ams");
    assert_eq!(
        serde_json::to_value(main.formation().unwrap()).unwrap(),
        serde_json::json!({"groups": {
            "worker": {"count": 2, "regions": ["fra", "ams"]},
        }})
    );
    assert_eq!(
        converted.formation_names(),
        ["shop-web-logs.", "shop-db.", ""].map(|name| Some(format!("formation.{name}json")))
    );
    assert_eq!(
        main.draft.render(),
        r#"app = "shop"
primary_region = "fra"
kill_signal = "SIGTERM"
kill_timeout = "20s"

[build]
image = "shop:1"

[deploy]
max_unavailable = 2.0
wait_timeout = "120s"

[env]
DIR = "${NOMAD_TASK_DIR}/x"
NOMAD_PORT_admin = "8080"

[processes]
web = "serve --admin 8080"
worker = "work"

[[mounts]]
source = "shop_data"
destination = "/data"
processes = ["web"]

[http_service]
internal_port = 3000
auto_start_machines = true
processes = ["web"]

[[http_service.checks]]
interval = "10s"
timeout = "2s"
path = "/health"

[http_service.checks.headers]
Host = "a"

[[restart]]
policy = "always"
processes = ["web"]

[[restart]]
policy = "always"
processes = ["worker"]

[[vm]]
size = "shared-cpu-1x"
memory = "768mb"
processes = ["web"]
"#
    );
    let db = &converted.apps[1].draft;
    assert_eq!(db.services[0].ports[0].port, 5432);
    assert_eq!(db.checks["db"].port, Some(5432));
    assert_eq!(db.vm[0].size.as_deref(), Some("shared-cpu-2x"));
}

#[test]
fn what_has_no_counterpart_is_named() {
    let converted = convert(&job().to_string(), &REGIONS).unwrap();
    let named: Vec<&str> = converted.notes.iter().map(|n| n.at.as_str()).collect();
    for at in [
        "Job.Datacenters",
        "Job.Meta",
        "Update.Canary",
        "Constraints",
        "Group web.Scaling",
        "Group web task server.Templates",
        "Group web task server env DIR",
        "Group web task server volume data",
        "Group web task server service shop-web",
        "Group web task server service shop-web check alive",
        "Group web task migrate",
        "Group web task logs",
        "Group worker task worker.Config.privileged",
    ] {
        assert!(named.contains(&at), "{at} in {named:#?}");
    }
}

#[test]
fn batch_and_system_jobs_and_schedules_are_told_in_words() {
    let job = serde_json::json!({
        "ID": "nightly/report", "Type": "batch", "Periodic": {"Enabled": true, "Specs": ["0 3 * * *"]},
        "TaskGroups": [{"Name": "run", "Count": 1, "RestartPolicy": {"Attempts": 3},
            "Tasks": [{"Name": "run", "Driver": "exec", "Config": {"command": "/usr/bin/report"}}]}]
    });
    let converted = convert(&job.to_string(), &REGIONS).unwrap();
    assert_valid(&converted);
    let app = &converted.apps[0];
    assert_eq!(app.draft.app, "nightly-report");
    assert_eq!(app.draft.restart[0].policy, "on-failure");
    assert_eq!(app.draft.restart[0].retries, Some(3));
    let text = |at: &str| {
        let found = converted.notes.iter().find(|n| n.at == at);
        found
            .unwrap_or_else(|| panic!("{at} in {:#?}", converted.notes))
            .text
            .clone()
    };
    assert!(text("Job.Type").contains("hangar machine start"));
    assert!(text("Job.Periodic").contains("\"0 3 * * *\" becomes daily"));
    let schedule = r#"{"schedule":"daily"}"#;
    assert_eq!(app.draft.machine_config.as_deref(), Some(schedule));
    let often = job.to_string().replace("0 3", "*/5 3");
    let converted = convert(&often, &REGIONS).unwrap();
    assert_eq!(converted.apps[0].draft.machine_config, None);
    let told = |n: &crate::migrate::Note| n.text.contains("*/5 3 * * *");
    assert!(converted.notes.iter().any(told), "{:#?}", converted.notes);
    assert!(text("Group run task run.Driver").contains("build one"));
    let system = job.to_string().replace("batch", "system");
    let converted = convert(&system, &REGIONS).unwrap();
    assert!(converted.notes.iter().any(|n| n.text.contains("each host")));
}

#[test]
fn what_is_no_job_is_refused() {
    for text in [
        "job \"x\" {}",
        "{}",
        "[]",
        "null",
        "{\"Job\": {\"TaskGroups\": null}}",
    ] {
        assert!(convert(text, &REGIONS).is_err(), "{text}");
    }
}

proptest::proptest! {
    /// Takes one value of the job out, or makes it something else: it is still read or refused.
    #[test]
    fn no_job_is_too_strange(index in 0_usize..200, what in 0_u8..5) {
        let mut job = job();
        let mut left = index;
        change(&mut job, &mut left, what);
        if let Ok(converted) = convert(&job.to_string(), &REGIONS) {
            assert_valid(&converted);
        }
    }
}

fn change(value: &mut Value, left: &mut usize, what: u8) {
    if *left == 0 {
        *value = match what {
            0 => Value::Null,
            1 => Value::String("x".to_owned()),
            2 => Value::from(-1),
            3 => serde_json::json!([[]]),
            _ => serde_json::json!({"a": {}}),
        };
    }
    *left = left.wrapping_sub(1);
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| change(item, left, what)),
        Value::Object(map) => map.values_mut().for_each(|item| change(item, left, what)),
        _ => {}
    }
}
