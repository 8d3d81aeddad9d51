//! Recorded requests of clients, replayed: method, path, body, status, and the type of every field
//! that the client reads.
//!
//! A recording is a file in `tests/compat`: steps in order. Ids that the server makes up stand in
//! it as `{name}`; a step that first sees one says where in its answer it stands (`keeps`). A step
//! that the client repeats until something has come is repeated here too (`until`).

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;

use crate::flyctl::SHOP;
use crate::world::{API, LIMIT, World, fly_toml, request};

#[derive(Debug, Deserialize)]
struct Recording {
    /// Which client, at which version, with which commands.
    client: String,
    /// How it calls itself.
    agent: String,
    /// Whether it takes no null where Fly's API document has a type.
    #[serde(default)]
    strict: bool,
    steps: Vec<Step>,
}

#[derive(Debug, Deserialize)]
struct Step {
    /// The client's function, where it is known.
    #[serde(default)]
    call: String,
    method: String,
    path: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: Value,
    /// The body as it was sent, where that matters.
    #[serde(default)]
    text: Option<String>,
    /// The lease that it shows.
    #[serde(default)]
    nonce: Option<String>,
    status: u16,
    /// What the client reads: place and type.
    #[serde(default)]
    reads: BTreeMap<String, String>,
    /// What later steps name: name and place.
    #[serde(default)]
    keeps: BTreeMap<String, String>,
    /// Whether it is asked again until the status is this one.
    #[serde(default)]
    again: bool,
    /// What it waits for: place and value.
    #[serde(default)]
    until: BTreeMap<String, Value>,
}

struct Replay<'a> {
    world: &'a World,
    agent: String,
    strict: bool,
    kept: BTreeMap<String, String>,
}

// === impl Replay ===

impl Replay<'_> {
    fn filled(&self, text: &str) -> String {
        let fill = |text: String, (name, value): (&String, &String)| {
            text.replace(&format!("{{{name}}}"), value)
        };
        self.kept.iter().fold(text.to_owned(), fill)
    }

    fn ask(&self, step: &Step) -> (u16, Value) {
        let body = match (&step.text, &step.body) {
            (Some(text), _) => self.filled(text),
            (None, Value::Null) => String::new(),
            (None, body) => self.filled(&body.to_string()),
        };
        let token = self.world.token();
        let mut head = format!(
            "authorization: Bearer {token}\r\nuser-agent: {}\r\n",
            self.agent
        );
        for (name, value) in &step.headers {
            head.push_str(&format!("{name}: {}\r\n", self.filled(value)));
        }
        if step.text.is_none() && !step.body.is_null() {
            head.push_str("content-type: application/json\r\n");
        }
        if let Some(nonce) = &step.nonce {
            let nonce = self.filled(nonce);
            head.push_str(&format!("fly-machine-lease-nonce: {nonce}\r\n"));
        }
        let path = self.filled(&step.path);
        let answer = self.world.inside(|| {
            request(
                API,
                &step.method,
                &path,
                "localhost",
                &head,
                body.as_bytes(),
            )
            .unwrap()
        });
        let value = serde_json::from_str(&answer.body).unwrap_or(Value::String(answer.body));
        (answer.status, value)
    }

    fn take(&mut self, number: usize, step: &Step) {
        let limit = Instant::now() + LIMIT;
        let (status, answer) = loop {
            let (status, answer) = self.ask(step);
            let mut waits = step.until.iter();
            let has_come = !step.again || status == step.status;
            if has_come && waits.all(|(place, value)| answer.pointer(place) == Some(value)) {
                break (status, answer);
            }
            assert!(Instant::now() < limit, "step {number} stays {answer}");
            std::thread::sleep(Duration::from_millis(50));
        };
        let what = format!(
            "step {number}, {} {} {}: {status} {answer}",
            step.call, step.method, step.path
        );
        assert_eq!(status, step.status, "{what}");
        if self.strict && step.path.starts_with("/v1/") {
            assert_eq!(null_in(&answer, ""), None, "a null in {what}");
        }
        for (place, wanted) in &step.reads {
            let found = answer.pointer(place).map(kind);
            assert_eq!(found, Some(wanted.as_str()), "{place} of {what}");
        }
        for (name, place) in &step.keeps {
            let found = answer.pointer(place).unwrap_or(&Value::Null);
            let text = match found {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            assert_ne!(text, "null", "{place} of {what}");
            self.kept.insert(name.clone(), text);
        }
    }
}

/// Returns where a null is, outside of what a Machine's configuration echoes.
fn null_in(value: &Value, at: &str) -> Option<String> {
    match value {
        Value::Null if !at.is_empty() => Some(at.to_owned()),
        Value::Object(fields) => fields
            .iter()
            .filter(|(key, _)| !matches!(key.as_str(), "config" | "user_config"))
            .find_map(|(key, value)| null_in(value, &format!("{at}/{key}"))),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(index, value)| null_in(value, &format!("{at}/{index}"))),
        _ => None,
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    }
}

fn replay(world: &World, file: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compat");
    let text = std::fs::read_to_string(path.join(file)).unwrap();
    let recording: Recording = serde_json::from_str(&text).unwrap();
    assert!(recording.steps.len() > 5, "{}", recording.client);
    let mut replay = Replay {
        world,
        agent: recording.agent,
        strict: recording.strict,
        kept: BTreeMap::new(),
    };
    for (step, number) in recording.steps.iter().zip(1..) {
        replay.take(number, step);
    }
}

#[test]
fn flyctls_deploy_ends_in_the_fleet_of_ours() {
    let Some(world) = World::start() else { return };
    replay(&world, "flyctl-deploy.json");
    let folder = world.app("ours", &fly_toml("ours", SHOP));
    world.ok(&["deploy", &folder]);
    assert_eq!(world.fleet("shop"), world.fleet("ours"));
}

#[test]
fn flyctls_other_commands_find_what_they_read() {
    let Some(world) = World::start() else { return };
    replay(&world, "flyctl-commands.json");
}

/// Clients from package registries; `tests/compat/README.md` says what each needs.
fn as_recorded(file: &str) {
    if let Some(world) = World::with_shell() {
        replay(&world, file);
    }
}

#[test]
fn fly_admin_of_javascript_finds_what_it_reads() {
    as_recorded("fly-admin.json");
}

#[test]
fn fly_python_sdk_finds_what_it_reads() {
    as_recorded("fly-python-sdk.json");
}

#[test]
fn distilled_fly_io_of_javascript_finds_what_its_schemas_ask_for() {
    as_recorded("distilled-fly-io.json");
}
