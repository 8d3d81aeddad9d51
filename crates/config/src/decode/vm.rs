//! `[[vm]]`, `[[restart]]` and `[[files]]`.

use serde_json::Map;

use crate::app::{FileSection, RestartSection, VmSection};
use crate::raw::{Node, Value};
use crate::read::Reader;

/// Fields of a guest that are kept as they are.
const GUEST: [&str; 6] = [
    "max_memory_mb",
    "gpus",
    "gpu_kind",
    "host_dedication_id",
    "persist_rootfs",
    "kernel_args",
];

pub(super) fn sizes<'a>(reader: &'a Reader<'a>, key: &str, node: &'a Node) -> Vec<VmSection> {
    let items = reader.items(key, node, true);
    let sections = items
        .into_iter()
        .filter_map(|(path, item)| size(reader, &path, item));
    sections.collect()
}

fn size<'a>(reader: &'a Reader<'a>, path: &str, node: &'a Node) -> Option<VmSection> {
    let mut table = reader.table(path, node)?;
    let memory = match table.take("memory") {
        Some(node) => match &node.value {
            Value::Int(_) | Value::Float(_) => Some(super::print(node)),
            _ => table.text("memory"),
        },
        None => None,
    };
    let mut section = VmSection {
        size: table.text("size"),
        memory,
        cpu_kind: table.text("cpu_kind"),
        cpus: table.number("cpus"),
        memory_mb: table.number("memory_mb"),
        other: Map::new(),
        processes: table.texts("processes").unwrap_or_default(),
        line: reader.line(&node.span),
    };
    for key in GUEST {
        if let Some(value) = table.kept(key) {
            section.other.insert(key.to_owned(), value);
        }
    }
    table.done();
    Some(section)
}

pub(super) fn restart<'a>(reader: &'a Reader<'a>, node: &'a Node) -> Vec<RestartSection> {
    let items = reader.items("restart", node, false);
    let sections = items.into_iter().filter_map(|(path, item)| {
        let mut table = reader.table(&path, item)?;
        let section = RestartSection {
            policy: table.text("policy").unwrap_or_default(),
            retries: table.int("retries").filter(|n| *n != 0),
            processes: table.texts("processes").unwrap_or_default(),
        };
        table.done();
        Some(section)
    });
    sections.collect()
}

pub(super) fn files<'a>(reader: &'a Reader<'a>, node: &'a Node) -> Vec<FileSection> {
    let items = reader.items("files", node, false);
    let sections = items.into_iter().filter_map(|(path, item)| {
        let mut table = reader.table(&path, item)?;
        let section = FileSection {
            guest_path: table.text("guest_path").unwrap_or_default(),
            local_path: table.text("local_path"),
            secret_name: table.text("secret_name"),
            raw_value: table.text("raw_value"),
            processes: table.texts("processes").unwrap_or_default(),
        };
        table.done();
        Some(section)
    });
    sections.collect()
}
