//! What a fly.toml may ask for and Hangar does not do: one table, and nothing is ignored in
//! silence.
//!
//! A row is *refused* where going on would lose data or run something wrong, and *named* where
//! the app runs without it. The table also feeds the reference of differences.

use crate::problem::Severity;
use crate::raw::{Node, Value};
use crate::read::{Reader, join};
use crate::schema::{Field, Kind as SchemaKind};

/// What happens to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A deploy is refused.
    Refused,
    /// It is named in one line, and the deployment goes on without it.
    Named,
}

/// A key that is not acted on.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The key, with `[]` for items of lists and `*` for any name.
    pub path: &'static str,
    /// What happens.
    pub kind: Kind,
    /// Why, or what to do instead.
    pub why: &'static str,
    /// For which values; all others are acted on.
    when: When,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Always,
    /// Not off, not false and not 0.
    On,
}

/// A key that a file has and that is not acted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The key, such as `http_service.auto_stop_machines`.
    pub path: String,
    /// Its line.
    pub line: Option<usize>,
    /// Why.
    pub why: &'static str,
}

/// Most keys named in the line; the rest are counted.
const MAX_NAMED: usize = 20;

const fn refused(path: &'static str, why: &'static str) -> Row {
    Row {
        path,
        kind: Kind::Refused,
        why,
        when: When::Always,
    }
}

const fn named(path: &'static str, when: When, why: &'static str) -> Row {
    Row {
        path,
        kind: Kind::Named,
        why,
        when,
    }
}

const NO_REPLAY: &str = "the proxy does not act on fly-replay, so there is nothing to remember";
const NO_GPUS: &str = "there are no GPUs here";

/// All keys that are not acted on.
pub const TABLE: &[Row] = &[
    refused(
        "build.compose",
        "several containers in one Machine are not there yet; `migrate compose` makes process groups of them",
    ),
    refused("vm[].gpu_kind", NO_GPUS),
    refused("vm[].gpus", NO_GPUS),
    named(
        "deploy.seed_command",
        When::Always,
        "only `launch` would run it",
    ),
    named(
        "http_service.http_options.replay_cache",
        When::Always,
        NO_REPLAY,
    ),
    named(
        "services[].ports[].http_options.replay_cache",
        When::Always,
        NO_REPLAY,
    ),
    named(
        "container",
        When::Always,
        "several containers in one Machine are not there yet",
    ),
    named(
        "files[].processes",
        When::Always,
        "every Machine gets every file, as on Fly",
    ),
    named(
        "statics[].index_document",
        When::Always,
        "only buckets have one, as on Fly",
    ),
    named("metrics", When::Always, "the endpoint is not scraped"),
    named(
        "host_dedication_id",
        When::Always,
        "there are no dedicated hosts",
    ),
    named(
        "vm[].host_dedication_id",
        When::Always,
        "there are no dedicated hosts",
    ),
    named(
        "vm[].kernel_args",
        When::Always,
        "Machines share the host's kernel",
    ),
    named("vm[].max_memory_mb", When::Always, "memory does not grow"),
    named(
        "experimental.auto_rollback",
        When::Always,
        "a failed deploy is always put back",
    ),
    named("experimental.enable_consul", When::On, "there is no Consul"),
    named("experimental.enable_etcd", When::On, "there is no etcd"),
    named(
        "experimental.lazy_load_images",
        When::On,
        "images are loaded before the start",
    ),
    named("experimental.attached", When::Always, "nothing is attached"),
    named(
        "build.builder",
        When::Always,
        "build the image yourself, or give a Dockerfile",
    ),
    named(
        "build.buildpacks",
        When::Always,
        "build the image yourself, or give a Dockerfile",
    ),
    named(
        "build.builtin",
        When::Always,
        "build the image yourself, or give a Dockerfile",
    ),
    named(
        "build.settings",
        When::Always,
        "there are no built-in builders",
    ),
    named(
        "build.compression",
        When::Always,
        "layers are kept as the builder made them",
    ),
    named(
        "build.compression_level",
        When::Always,
        "layers are kept as the builder made them",
    ),
];

/// Returns the one line that names them all.
#[must_use]
pub fn line(named: &[Named]) -> Option<String> {
    if named.is_empty() {
        return None;
    }
    let shown = named.iter().take(MAX_NAMED).map(|n| match n.line {
        Some(line) => format!("{} (line {line}: {})", n.path, n.why),
        None => format!("{} ({})", n.path, n.why),
    });
    let mut text = format!("not acted on yet: {}", shown.collect::<Vec<_>>().join(", "));
    if named.len() > MAX_NAMED {
        text.push_str(&format!(" and {} more", named.len() - MAX_NAMED));
    }
    Some(text)
}

/// Refuses what must be refused and returns what is to be named.
pub(crate) fn find(reader: &Reader<'_>, root: &Node) -> Vec<Named> {
    let mut found = Vec::new();
    for row in TABLE {
        let parts: Vec<&str> = row.path.split('.').collect();
        walk(root, &parts, "", &mut |path, node| {
            if !row.when.holds(&node.value) {
                return;
            }
            match row.kind {
                Kind::Refused => {
                    let message = format!("is not supported: {}", row.why);
                    reader.tell(Severity::Refused, path, &node.span, message, None);
                }
                Kind::Named => found.push(Named {
                    path: path.to_owned(),
                    line: Some(reader.line(&node.span)),
                    why: row.why,
                }),
            }
        });
    }
    found.sort_by_key(|n| n.line);
    found
}

fn walk(node: &Node, parts: &[&str], path: &str, visit: &mut dyn FnMut(&str, &Node)) {
    let Some((first, rest)) = parts.split_first() else {
        return visit(path, node);
    };
    if let ("*", Value::Table(entries)) = (*first, &node.value) {
        for entry in entries {
            walk(&entry.node, rest, &format!("{path}.{}", entry.key), visit);
        }
        return;
    }
    let name = first.trim_end_matches("[]");
    let Some(next) = node.get(name) else { return };
    let here = join(path, name);
    match &next.value {
        // Switched off or empty: nothing is asked for.
        Value::Null => {}
        Value::Text(text) if text.is_empty() => {}
        Value::List(items) if items.is_empty() => {}
        Value::List(items) if first.ends_with("[]") => {
            for (i, item) in items.iter().enumerate() {
                walk(item, rest, &format!("{here}[{i}]"), visit);
            }
        }
        _ => walk(next, rest, &here, visit),
    }
}

/// Returns the path of a key as the table writes it: `[]` behind a list, `*` for a name.
pub(crate) fn path_of(section: &str, field: &Field) -> String {
    let path = join(section, field.key);
    match field.kind {
        SchemaKind::List(_) => format!("{path}[]"),
        SchemaKind::Named(_) => format!("{path}.*"),
        _ => path,
    }
}

// === impl Row ===

impl Row {
    /// Returns for which values it holds, in words; `None` where for all.
    #[must_use]
    pub fn when(&self) -> Option<String> {
        match self.when {
            When::Always => None,
            When::On => Some("when it is on".to_owned()),
        }
    }
}

// === impl When ===

impl When {
    fn holds(self, value: &Value) -> bool {
        match self {
            Self::Always => true,
            Self::On => match value {
                Value::Bool(on) => *on,
                Value::Text(text) => !matches!(text.as_str(), "off" | ""),
                Value::Int(number) => *number != 0,
                Value::Float(number) => *number != 0.0,
                _ => true,
            },
        }
    }
}
