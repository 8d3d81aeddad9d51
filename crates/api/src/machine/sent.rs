//! A configuration as it was sent: what its typed form does not say.
//!
//! Clients compare what they sent with what comes back, so a configuration is echoed as it was:
//! unknown keys, nulls, empty lists, durations as numbers, no defaults. The typed form is read from
//! a lenient copy; what writing it would give differently is kept beside it, place by place, and put
//! back whenever it is written, wherever nobody has changed that place since.
//!
//! ```text
//! text -> Value -> tidied (what no client shall see) -> without nulls -> typed form
//!                     └────────── differences ──────────────────────────────┘
//! typed form -> Value -> differences put back -> text
//! ```

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::service::Autostop;

/// Keys whose value is a list. Lists are lists or absent: a null is left out.
const LISTS: [&str; 28] = [
    "alpn",
    "checks",
    "cmd",
    "command",
    "containers",
    "depends_on",
    "dns_forward_rules",
    "entrypoint",
    "env_from",
    "exec",
    "files",
    "handlers",
    "headers",
    "healthchecks",
    "kernel_args",
    "mounts",
    "nameservers",
    "options",
    "ports",
    "processes",
    "replay_cache",
    "searches",
    "secrets",
    "services",
    "standbys",
    "statics",
    "values",
    "versions",
];
/// Keys whose value is a whole number, which some clients write as text.
const NUMBERS: [&str; 22] = [
    "add_size_gb",
    "cpus",
    "end_port",
    "extend_threshold_percent",
    "gpus",
    "hard_limit",
    "headers_read_timeout",
    "idle_timeout",
    "internal_port",
    "max_memory_mb",
    "max_retries",
    "memory_mb",
    "min_machines_running",
    "mode",
    "port",
    "size_gb",
    "size_gb_limit",
    "size_mb",
    "soft_limit",
    "start_port",
    "swap_size_mb",
    "ttl_seconds",
];
/// Keys whose value is true or false, which some clients write as text.
const FLAGS: [&str; 15] = [
    "allow_bypass",
    "auto_destroy",
    "autostart",
    "compress",
    "default_self_signed",
    "disable_machine_autostart",
    "encrypted",
    "force_https",
    "h2_backend",
    "https",
    "ignore_app_secrets",
    "pristine",
    "skip_registration",
    "tls_skip_verify",
    "tty",
];
/// Keys whose value is a map from names of the client's own to texts.
const TEXT_MAPS: [&str; 2] = ["env", "metadata"];

/// What was sent and the typed form does not say. Two configurations are equal when they mean the
/// same, so any two of these are.
#[derive(Clone, Debug, Default)]
pub struct Sent(Option<Box<Node>>);

/// Where what was sent differs from what the typed form gives.
#[derive(Clone, Debug)]
enum Node {
    /// Here: `sent` in place of `read`; `None` is a key that is not there.
    Here {
        sent: Option<Value>,
        read: Option<Value>,
    },
    /// In these keys of a table.
    Keys(BTreeMap<String, Node>),
    /// In these items of a list of so many.
    Items(usize, Vec<(usize, Node)>),
}

// === impl Sent ===

impl PartialEq for Sent {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Sent {}

impl Sent {
    /// Returns how what was sent differs from what was read of it.
    pub(crate) fn between(sent: &Value, read: &Value) -> Self {
        Self(difference(Some(sent), Some(read)).map(Box::new))
    }

    /// Returns whether the typed form says it all.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Puts what was sent back into the typed form as it is now.
    pub(crate) fn put_back(&self, now: Value) -> Value {
        match &self.0 {
            None => now,
            Some(node) => put_back(node, Some(now)).unwrap_or_default(),
        }
    }
}

fn difference(sent: Option<&Value>, read: Option<&Value>) -> Option<Node> {
    if sent == read {
        return None;
    }
    match (sent, read) {
        (Some(Value::Object(sent)), Some(Value::Object(read))) => {
            let mut keys = BTreeMap::new();
            for key in sent.keys().chain(read.keys()) {
                if keys.contains_key(key) {
                    continue;
                }
                if let Some(node) = difference(sent.get(key), read.get(key)) {
                    keys.insert(key.clone(), node);
                }
            }
            Some(Node::Keys(keys))
        }
        (Some(Value::Array(sent)), Some(Value::Array(read))) if sent.len() == read.len() => {
            let pairs = sent.iter().zip(read).enumerate();
            let items = pairs.filter_map(|(at, (sent, read))| {
                difference(Some(sent), Some(read)).map(|node| (at, node))
            });
            Some(Node::Items(sent.len(), items.collect()))
        }
        _ => Some(Node::Here {
            sent: sent.cloned(),
            read: read.cloned(),
        }),
    }
}

fn put_back(node: &Node, now: Option<Value>) -> Option<Value> {
    match (node, now) {
        (Node::Here { sent, read }, now) => {
            // Somebody has changed it since: what it is now counts.
            if *read == now { sent.clone() } else { now }
        }
        (Node::Keys(keys), Some(Value::Object(mut map))) => {
            for (key, node) in keys {
                let value = map.remove(key);
                if let Some(value) = put_back(node, value) {
                    map.insert(key.clone(), value);
                }
            }
            Some(Value::Object(map))
        }
        (Node::Items(len, items), Some(Value::Array(mut list))) if list.len() == *len => {
            for (at, node) in items {
                if let Some(item) = list.get_mut(*at) {
                    *item = put_back(node, Some(item.take())).unwrap_or_default();
                }
            }
            Some(Value::Array(list))
        }
        (_, now) => now,
    }
}

/// Brings what was sent into the form in which it is echoed: no null for a list, numbers and flags
/// as such, `autostop` as clients of old read it, and a size that is whole.
pub(crate) fn tidied(mut config: Value) -> Value {
    if let Value::Object(map) = &mut config {
        if let Some(Value::Object(guest)) = map.get_mut("guest") {
            guest.retain(|_, value| !value.is_null());
            super::guest::complete(guest);
        }
        tidy_table(map);
    }
    config
}

fn tidy_table(map: &mut Map<String, Value>) {
    map.retain(|key, value| !(value.is_null() && LISTS.contains(&key.as_str())));
    for (key, value) in map.iter_mut() {
        let key = key.as_str();
        if TEXT_MAPS.contains(&key) {
            tidy_texts(value);
        } else if key == "headers" && value.is_object() {
            // Names of the client's own.
        } else if key == "autostop" {
            if let Ok(autostop) = serde_json::from_value::<Autostop>(value.clone()) {
                *value = serde_json::to_value(autostop).unwrap_or_default();
            }
        } else {
            tidy_value(key, value);
        }
    }
}

fn tidy_value(key: &str, value: &mut Value) {
    match value {
        Value::Object(map) => tidy_table(map),
        Value::Array(list) => list.iter_mut().for_each(|item| tidy_value("", item)),
        Value::String(text) if NUMBERS.contains(&key) => {
            if let Ok(number) = text.trim().parse::<i64>() {
                *value = number.into();
            }
        }
        Value::String(text) if FLAGS.contains(&key) => {
            if let Ok(flag) = text.trim().to_ascii_lowercase().parse::<bool>() {
                *value = flag.into();
            }
        }
        Value::Number(number) if NUMBERS.contains(&key) => {
            let text = number.to_string();
            let whole = text.strip_suffix(".0").and_then(|n| n.parse::<i64>().ok());
            if let Some(whole) = whole {
                *value = whole.into();
            }
        }
        _ => {}
    }
}

fn tidy_texts(value: &mut Value) {
    if let Value::Object(map) = value {
        map.retain(|_, value| !value.is_null());
        for value in map.values_mut() {
            if let Value::Number(_) | Value::Bool(_) = value {
                *value = Value::String(value.to_string());
            }
        }
    }
}

/// Returns the copy that the typed form is read from: a null is a key that is not there.
pub(crate) fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.iter().filter(|(_, value)| !value.is_null());
            let kept = kept.map(|(key, value)| (key.clone(), without_nulls(value)));
            Value::Object(kept.collect())
        }
        Value::Array(list) => Value::Array(list.iter().map(without_nulls).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::machine::{Guest, MachineConfig};

    use super::*;

    fn read(config: Value) -> MachineConfig {
        serde_json::from_value(config).unwrap()
    }

    fn echo(config: Value) -> Value {
        serde_json::to_value(read(config)).unwrap()
    }

    #[test]
    fn what_was_sent_comes_back_as_it_was() {
        for sent in [
            json!({"image": "x"}),
            json!({"image": "x", "init": {}, "env": {}, "mounts": [], "restart": {}, "dns": {}}),
            json!({"image": "x", "restart": null, "stop_config": {"odd": [1, 2.5, null]}}),
            json!({"image": "x", "checks": {"up": {"interval": 15_000_000_000_u64, "new": true}}}),
            json!({"image": "x", "auto_destroy": false, "unknown": {"deep": [{"a": null}]}}),
            json!({"image": "x", "services": [{
                "internal_port": 80, "force_instance_key": null, "autostop": null,
                "concurrency": {"type": "requests", "extra": 1},
                "ports": [{"port": 80, "force_https": false}],
                "checks": [{"type": "tcp", "headers": [{"name": "a", "values": ["b"], "c": 1}]}],
            }]}),
            json!({"image": "x", "files": [{"guest_path": "/a", "image_config": "cmd", "mode": 420}]}),
        ] {
            assert_eq!(echo(sent.clone()), sent);
            // Once more, as out of the store.
            assert_eq!(echo(echo(sent.clone())), sent);
        }
    }

    #[test]
    fn what_no_client_shall_see_is_tidied() {
        for (sent, shown) in [
            (
                json!({"image": "x", "services": null, "files": null, "standbys": null}),
                json!({"image": "x"}),
            ),
            (
                json!({"image": "x", "guest": {"cpus": "2", "memory_mb": 512.0, "gpus": null}}),
                json!({"image": "x", "guest": {"cpu_kind": "shared", "cpus": 2, "memory_mb": 512}}),
            ),
            (
                json!({"image": "x", "env": {"PORT": 8080, "ON": true, "OFF": null}}),
                json!({"image": "x", "env": {"PORT": "8080", "ON": "true"}}),
            ),
            (
                json!({"image": "x", "auto_destroy": "true", "metadata": {"port": "80"}}),
                json!({"image": "x", "auto_destroy": true, "metadata": {"port": "80"}}),
            ),
        ] {
            assert_eq!(echo(sent.clone()), shown, "{sent}");
        }
        for (sent, shown) in [
            (json!("stop"), json!(true)),
            (json!("off"), json!(false)),
            (json!(true), json!(true)),
            (json!("suspend"), json!("suspend")),
        ] {
            let service = |autostop| json!({"image": "x", "services": [{"internal_port": 1, "autostop": autostop}]});
            assert_eq!(echo(service(sent)), service(shown));
        }
    }

    #[test]
    fn what_was_changed_since_counts() {
        let sent = json!({
            "image": "x", "guest": null, "init": {}, "metadata": {}, "restart": {"policy": "no", "a": 1},
            "stop_config": {"timeout": 5_000_000_000_u64, "signal": "SIGINT"},
        });
        let mut config = read(sent);
        config.guest = Some(Guest::default());
        config.metadata.insert("k".to_owned(), "v".to_owned());
        config.init.cmd = Some(vec!["run".to_owned()]);
        config.restart = None;
        config.stop_config.as_mut().unwrap().timeout = Some("7s".parse().unwrap());
        let now = serde_json::to_value(&config).unwrap();
        assert_eq!(
            now,
            json!({
                "image": "x", "guest": {"cpu_kind": "shared", "cpus": 1, "memory_mb": 256},
                "metadata": {"k": "v"}, "init": {"cmd": ["run"]},
                "stop_config": {"timeout": "7s", "signal": "SIGINT"},
            })
        );
        assert_eq!(read(now), config);
    }

    #[test]
    fn two_ways_of_writing_the_same_are_equal() {
        assert_eq!(
            read(json!({"image": "x", "init": {}, "mounts": null})),
            read(json!({"image": "x", "auto_destroy": false}))
        );
        let check =
            |interval: Value| json!({"image": "x", "checks": {"up": {"interval": interval}}});
        assert_eq!(
            read(check(json!(15_000_000_000_u64))),
            read(check(json!("15s")))
        );
    }
}
