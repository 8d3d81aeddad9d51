use hangar_api::Timestamp;
use hangar_api::id::{AppName, HostId, InstanceId, MachineId, Region, SlotId};
use hangar_api::image::ImageRef;
use hangar_api::machine::MachineConfig;
use hangar_api::net::{HostPart, NetworkId};

use super::*;

const NOW: &str = "01ARZ3NDEKTSV4RRFFQ69G5FA1";

fn spec() -> MachineSpec {
    MachineSpec {
        id: MachineId::new("0123456789abcd").unwrap(),
        name: "one".to_owned(),
        app: AppName::new("app").unwrap(),
        network: NetworkId(1),
        slot: SlotId::new("iad-a").unwrap(),
        host: HostId::new("here").unwrap(),
        host_part: HostPart(1),
        region: Region::new("iad").unwrap(),
        generation: 1,
        instance_id: InstanceId::new(NOW).unwrap(),
        config: MachineConfig::default(),
        image_ref: ImageRef::default(),
        secrets_version: 0,
        cordoned: false,
        created_at: Timestamp::UNIX_EPOCH,
        updated_at: Timestamp::UNIX_EPOCH,
    }
}

/// Events are given oldest first, as `type/status`.
fn observed(state: MachineState, events: &[&str]) -> Observed {
    let events = events.iter().enumerate().map(|(at, text)| {
        let (kind, status) = text.split_once('/').unwrap();
        MachineEvent {
            id: EventId::new(format!("01ARZ3NDEKTSV4RRFFQ69G5E{at:02}")).unwrap(),
            kind: kind.to_owned(),
            status: status.to_owned(),
            source: "flyd".to_owned(),
            timestamp: 0,
            request: None,
        }
    });
    let mut events: Vec<_> = events.collect();
    events.reverse();
    Observed {
        boot: 1,
        sequence: 1,
        state,
        generation: 1,
        instance_id: InstanceId::new(NOW).unwrap(),
        starts: 1,
        last_op: None,
        exit: None,
        restart_count: 0,
        reason: None,
        checks: Vec::new(),
        events,
        updated_at: Timestamp::UNIX_EPOCH,
    }
}

fn wait(state: MachineState) -> Wait {
    Wait {
        states: vec![Wanted::State(state)],
        instance: None,
        from_event: None,
        baseline: None,
    }
}

fn judge(wait: &Wait, observed: &Observed) -> Verdict {
    wait.judge(observed.state, &spec(), Some(observed))
}

#[test]
fn a_start_that_is_followed_by_a_crash_is_not_missed() {
    let before = observed(MachineState::Created, &["launch/created"]);
    let mut wait = wait(MachineState::Started);
    wait.baseline = before.events.first().map(|event| event.id.clone());
    assert!(matches!(judge(&wait, &before), Verdict::Waiting(_)));
    let after = observed(
        MachineState::Stopped,
        &["launch/created", "start/started", "exit/stopped"],
    );
    assert!(matches!(judge(&wait, &after), Verdict::Met { .. }));
}

#[test]
fn an_older_start_does_not_count() {
    let seen = observed(
        MachineState::Stopped,
        &["launch/created", "start/started", "exit/stopped"],
    );
    let mut wait = wait(MachineState::Started);
    wait.baseline = seen.events.first().map(|event| event.id.clone());
    assert_eq!(judge(&wait, &seen), Verdict::Waiting(MachineState::Stopped));
}

#[test]
fn a_version_is_waited_for_by_its_own_events() {
    let mut wait = wait(MachineState::Stopped);
    wait.instance = Some(NOW.to_owned());
    let replacing = observed(
        MachineState::Replacing,
        &[
            "launch/created",
            "start/started",
            "update/replacing",
            "exit/stopped",
        ],
    );
    assert!(matches!(judge(&wait, &replacing), Verdict::Waiting(_)));
    let mut other = wait.clone();
    other.instance = Some("01ARZ3NDEKTSV4RRFFQ69G5FZZ".to_owned());
    assert_eq!(judge(&other, &replacing), Verdict::Replaced);
    let crashed = observed(
        MachineState::Started,
        &[
            "update/replacing",
            "exit/stopped",
            "update/started",
            "exit/stopped",
            "start/started",
        ],
    );
    assert!(matches!(judge(&wait, &crashed), Verdict::Met { .. }));
    wait.states = vec![Wanted::State(MachineState::Started)];
    assert!(matches!(judge(&wait, &crashed), Verdict::Met { .. }));
}

#[test]
fn from_an_event_on_the_state_alone_is_not_enough() {
    let seen = observed(MachineState::Started, &["launch/created", "start/started"]);
    let mut wait = wait(MachineState::Started);
    wait.from_event = Some(seen.events[0].id.to_string());
    assert!(matches!(judge(&wait, &seen), Verdict::Waiting(_)));
    wait.from_event = Some(seen.events[1].id.to_string());
    assert!(matches!(judge(&wait, &seen), Verdict::Met { .. }));
}

#[test]
fn settled_is_any_rest() {
    let mut wait = wait(MachineState::Started);
    wait.states = vec![Wanted::Settled];
    for (state, met) in [
        (MachineState::Stopped, true),
        (MachineState::Failed, true),
        (MachineState::Starting, false),
    ] {
        let verdict = judge(&wait, &observed(state, &[]));
        assert_eq!(matches!(verdict, Verdict::Met { .. }), met, "{state}");
    }
    assert_eq!(Wanted::parse("settled"), Some(Wanted::Settled));
    assert_eq!(Wanted::parse("flying"), None);
}

#[test]
fn an_update_passes_states_in_which_it_does_not_rest() {
    let mut wait = wait(MachineState::Started);
    wait.states = vec![Wanted::Settled];
    let passed = ["start/started", "update/replacing", "exit/stopped"];
    let replacing = observed(MachineState::Replacing, &passed);
    wait.baseline = Some(replacing.events[1].id.clone());
    assert_eq!(
        judge(&wait, &replacing),
        Verdict::Waiting(MachineState::Replacing)
    );
    let there = [&passed[..], &["update/started"]].concat();
    let updated = observed(MachineState::Started, &there);
    let Verdict::Met { state, .. } = judge(&wait, &updated) else {
        panic!("it rests");
    };
    assert_eq!(state, MachineState::Started);
    // From an event on: the rest before it does not count.
    wait.from_event = Some(updated.events[0].id.to_string());
    assert!(matches!(judge(&wait, &updated), Verdict::Waiting(_)));
}
