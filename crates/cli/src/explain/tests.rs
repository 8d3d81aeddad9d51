use super::*;
use hangar_api::event::EventRequest;
use serde_json::{Value, json};

const NOW: i64 = 1_700_000_000;

fn machine(change: Value) -> Machine {
    let mut value = json!({
        "id": "00000000000001", "name": "quiet-lake-1000", "state": "started", "region": "iad",
        "instance_id": "01ARZ3NDEKTSV4RRFFQ69G5E00", "private_ip": "fdaa::1", "slot": "one",
        "created_at": "2023-11-14T22:00:00Z", "updated_at": "2023-11-14T22:00:00Z", "host_status": "ok",
        "config": {"image": "a", "metadata": {"fly_platform_version": "v2", "fly_process_group": "web"}},
        "image_ref": {"registry": "r", "repository": "a", "tag": "", "digest": ""},
    });
    merge(&mut value, change);
    serde_json::from_value(value).unwrap()
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

fn exit(seconds_ago: i64, code: i32, requested: bool) -> MachineEvent {
    let exit: ExitEvent = serde_json::from_value(json!({
        "exit_code": code, "requested_stop": requested, "exited_at": "2023-11-14T22:00:00Z"
    }))
    .unwrap();
    MachineEvent {
        request: Some(EventRequest {
            exit_event: Some(exit),
            restart_count: 0,
        }),
        ..event(seconds_ago, "exit", "stopped", "flyd")
    }
}

fn event(seconds_ago: i64, kind: &str, status: &str, source: &str) -> MachineEvent {
    MachineEvent {
        id: "01ARZ3NDEKTSV4RRFFQ69G5E00".parse().unwrap(),
        kind: kind.to_owned(),
        status: status.to_owned(),
        source: source.to_owned(),
        timestamp: (NOW - seconds_ago) * 1000,
        request: None,
    }
}

fn facts<'a>(machine: &'a Machine, siblings: &'a [Machine], log: &'a [String]) -> Facts<'a> {
    Facts {
        machine,
        siblings,
        lease: None,
        formation: None,
        deployment: None,
        log,
        now: Timestamp::from_second(NOW).unwrap(),
    }
}

fn of(machine: &Machine) -> Vec<Finding> {
    explain(&facts(machine, &[], &["panic: no database".to_owned()]))
}

fn about<'a>(found: &'a [Finding], what: &str) -> &'a Finding {
    let finding = found.iter().find(|f| f.about == what);
    finding.unwrap_or_else(|| panic!("nothing about {what} in {found:#?}"))
}

#[test]
fn a_healthy_machine_has_little_to_tell() {
    let mut machine = machine(json!({"config": {"services": [{"internal_port": 80}]}}));
    machine.events = vec![event(150, "start", "started", "flyd")];
    let found = of(&machine);
    assert_eq!(about(&found, "state").text, "it is started since 2m ago");
    assert_eq!(
        about(&found, "place").text,
        "it is in iad on slot one, where it was created: a Machine never moves; it is the only one of group web there"
    );
    assert!(about(&found, "checks").text.contains("no health checks"));
    assert_eq!(found.len(), 3, "{found:#?}");
}

#[test]
fn a_stopped_machine_says_who_stopped_it() {
    let services = json!({"state": "stopped", "config": {"services": [{"internal_port": 80}]}});
    let mut machine = machine(services);
    machine.events = vec![exit(5, 0, true), event(6, "stop", "stopping", "proxy")];
    let state = about(&of(&machine), "state").clone();
    assert_eq!(
        state.text,
        "the proxy stopped it, because it was idle, 5s ago; the next request starts it"
    );
    machine.events[1].source = "user".to_owned();
    machine.config.services.clear();
    let state = about(&of(&machine), "state").clone();
    assert_eq!(state.text, "it was stopped by request, 5s ago");
    assert_eq!(state.hint.unwrap(), "hangar machine start 00000000000001");
}

#[test]
fn a_program_that_ended_says_how_and_why_it_stays_down() {
    let mut machine = machine(json!({"state": "stopped"}));
    machine.events = vec![exit(7200, 0, false)];
    let state = about(&of(&machine), "state").clone();
    assert!(
        state.text.contains("ended well, with code 0, 2h ago"),
        "{state:?}"
    );
    assert!(state.text.contains("leaves what ended well") && state.shows.is_empty());
    machine.events = vec![exit(1, 3, false), exit(5, 3, false), exit(9, 3, false)];
    let found = of(&machine);
    let state = about(&found, "state");
    assert!(
        state.text.contains("code 3") && state.text.contains("used up"),
        "{state:?}"
    );
    assert_eq!(state.shows, ["panic: no database"]);
    assert!(
        about(&found, "crash_loop").text.contains("3 times"),
        "{found:#?}"
    );
}

#[test]
fn a_crash_loop_shows_code_and_last_lines_and_old_failures_are_none() {
    let mut machine = machine(json!({"state": "started"}));
    machine.events = vec![exit(2, 137, false), exit(20, 1, false), exit(40, 1, false)];
    let killed = machine.events[0].request.as_mut().unwrap();
    killed.exit_event.as_mut().unwrap().oom_killed = true;
    let found = of(&machine);
    let crash = about(&found, "crash_loop");
    assert!(
        crash.text.contains("3 times") && crash.text.contains("memory"),
        "{crash:?}"
    );
    assert!(crash.hint.as_ref().unwrap().contains("--vm-memory"));
    assert_eq!(crash.shows, ["panic: no database"]);
    for event in &mut machine.events {
        event.timestamp -= 400_000;
    }
    assert!(!of(&machine).iter().any(|f| f.about == "crash_loop"));
}

#[test]
fn failing_checks_say_what_they_heard() {
    let check = |name: &str, status: &str| json!({"name": name, "status": status, "output": "500 oops\n", "updated_at": "2023-11-14T22:13:00Z"});
    let started = machine(
        json!({"checks": [check("servicecheck-00-http-80", "critical"), check("x", "passing")]}),
    );
    let found = of(&started);
    let checks = about(&found, "checks");
    assert_eq!(
        checks.text,
        "1 of 2 health checks do not pass: the proxy sends it no requests until they pass"
    );
    assert_eq!(
        checks.shows,
        ["servicecheck-00-http-80: failing since 20s ago: 500 oops"]
    );
    let only = machine(json!({"checks": [check("x", "warning")]}));
    assert!(about(&of(&only), "checks").text.contains("gate deploys"));
}

#[test]
fn standby_cordon_lease_host_and_foreign_machines_are_told() {
    let watched = machine(json!({"id": "00000000000002", "region": "ams"}));
    let standby = machine(json!({
        "state": "stopped", "cordoned": true, "host_status": "unreachable", "reason": "x",
        "config": {"standbys": ["00000000000002", "00000000000003"], "metadata": {"fly_platform_version": ""}}
    }));
    let lease = Lease {
        nonce: String::new(),
        expires_at: NOW + 30,
        owner: "ann".to_owned(),
        description: "deploy".to_owned(),
        version: None,
    };
    let siblings = [watched];
    let mut facts = facts(&standby, &siblings, &[]);
    facts.lease = Some(&lease);
    let found = explain(&facts);
    assert!(about(&found, "state").text.contains("stands by"));
    let text = &about(&found, "standby").text;
    assert!(
        text.contains("00000000000002 (started in ams), 00000000000003 (gone)"),
        "{text}"
    );
    assert!(
        about(&found, "cordoned")
            .hint
            .as_ref()
            .unwrap()
            .contains("uncordon")
    );
    assert!(
        about(&found, "lease")
            .text
            .contains("ann holds a lease on it (deploy) for 30s")
    );
    assert!(about(&found, "host").text.contains("unreachable"));
    assert!(
        about(&found, "unmanaged")
            .text
            .contains("not made by a deploy")
    );
}

#[test]
fn a_machine_that_failed_says_the_reason() {
    let failed = machine(json!({"state": "failed", "reason": "image \"x\" is not there"}));
    let state = about(&of(&failed), "state").clone();
    assert!(
        state.text.ends_with("started: image \"x\" is not there"),
        "{state:?}"
    );
    assert!(state.hint.is_some());
    let pending = machine(json!({"state": "created", "reason": "pulling x"}));
    assert!(
        about(&of(&pending), "state")
            .text
            .contains("waiting to be prepared: pulling x")
    );
}

#[test]
fn a_schedule_says_when_it_starts_next_and_what_keeps_it_from_that() {
    let daily = |change: Value| {
        let mut value = json!({
            "state": "stopped", "config": {"schedule": "daily"}, "next_run": "2023-11-15T20:13:20Z",
        });
        merge(&mut value, change);
        about(&of(&machine(value)), "schedule").clone()
    };
    assert_eq!(
        daily(json!({})).text,
        "its schedule is daily: it is started next at 2023-11-15T20:13:20Z, in 22h"
    );
    let waits = daily(json!({"next_run": "2023-11-14T22:00:00Z"})).text;
    assert!(
        waits.contains("as soon as nothing is in the way"),
        "{waits}"
    );
    let new = daily(json!({"next_run": null}));
    assert!(new.text.contains("begins with its first start"), "{new:?}");
    assert!(new.hint.unwrap().contains("hangar machine start"));
    let always = daily(json!({"config": {"restart": {"policy": "always"}}}));
    assert!(always.text.contains("never rests"), "{always:?}");
    assert!(always.hint.unwrap().contains("--restart on-failure"));
    let standby = daily(json!({"config": {"standbys": ["00000000000002"]}}));
    assert!(standby.text.contains("nothing comes of it"), "{standby:?}");
    let found = of(&machine(json!({})));
    assert!(!found.iter().any(|finding| finding.about == "schedule"));
}

#[test]
fn what_it_is_in_its_groups_formation() {
    let machine = machine(json!({}));
    let log = [];
    let texts = |formation: Value| {
        let formation: GroupFormation = serde_json::from_value(formation).unwrap();
        let facts = Facts {
            formation: Some(&formation),
            ..facts(&machine, &[], &log)
        };
        let found = explain(&facts)
            .into_iter()
            .filter(|f| f.about == "formation");
        found.map(|f| f.text).collect::<Vec<_>>()
    };
    let counts = json!({"count": 3, "regions": {"gru": 1, "iad": 2, "ord": 0}, "machines": ["00000000000001"]});
    assert_eq!(
        texts(counts),
        ["it counts for group web, which should have 3 Machines (1 in gru, 2 in iad)"]
    );
    let goes = json!({"count": 1, "regions": {"gru": 1}, "retiring": ["00000000000001"],
        "trouble": ["Machine 00000000000001 stays until the others are up", "Machine 2 failed"]});
    assert_eq!(
        texts(goes),
        [
            "it is to go: group web should have 1 Machine (1 in gru), and it is not among them",
            "Machine 00000000000001 stays until the others are up",
        ]
    );
    assert!(texts(json!({"count": 0, "regions": {"gru": 0}})).is_empty());
}
