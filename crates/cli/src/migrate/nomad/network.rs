//! Ports, services and checks of a task group.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{others, seconds};
use crate::migrate::Converted;
use crate::migrate::compose::is_http;
use crate::migrate::draft::Check;
use crate::migrate::service::{Published, Service};
use crate::migrate::value::{number, port, table, text, texts};

/// The first port of those that Nomad would pick at random.
const FIRST: u16 = 8080;
/// Keys of a service that are read or need nothing.
const SERVICE: [&str; 12] = [
    "Name",
    "PortLabel",
    "Checks",
    "Tags",
    "Provider",
    "AddressMode",
    "Address",
    "EnableTagOverride",
    "OnUpdate",
    "TaskName",
    "Cluster",
    "Identity",
];
/// Keys of a check that are read or need nothing.
const CHECK: [&str; 14] = [
    "Name",
    "Type",
    "Path",
    "Method",
    "Protocol",
    "Interval",
    "Timeout",
    "PortLabel",
    "Header",
    "AddressMode",
    "Expose",
    "OnUpdate",
    "SuccessBeforePassing",
    "FailuresBeforeCritical",
];

/// A labelled port of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Labelled {
    /// The port inside the Machine.
    pub(super) inside: u16,
    /// The port that the host had for it, where it was fixed.
    pub(super) fixed: Option<u16>,
    /// Whether the program learns it from Nomad.
    pub(super) picked: bool,
}

/// Returns a group's ports by label, those of its main task's own network among them.
pub(super) fn ports(
    group: &Map<String, Value>,
    main: Option<&Map<String, Value>>,
    out: &mut Converted,
    at: &str,
) -> BTreeMap<String, Labelled> {
    let none = Value::Null;
    let of_task = main
        .and_then(|task| task.get("Resources"))
        .map_or(&none, |r| &r["Networks"]);
    let all = [group.get("Networks").unwrap_or(&none), of_task];
    let mut found = BTreeMap::new();
    let mut next = FIRST;
    for network in all
        .iter()
        .flat_map(|list| list.as_array().into_iter().flatten())
    {
        let mode = text(&network["Mode"]).unwrap_or_default();
        if !["", "bridge", "host"].contains(&mode.as_str()) {
            out.note(
                format!("{at} network"),
                format!("mode {mode} is not offered: every Machine has a network of its own"),
            );
        }
        for (list, is_fixed) in [("ReservedPorts", true), ("DynamicPorts", false)] {
            for item in network[list].as_array().into_iter().flatten() {
                let label = text(&item["Label"]).unwrap_or_default();
                let (to, value) = (port(&item["To"]), port(&item["Value"]));
                let fixed = value.filter(|_| is_fixed);
                let inside = to.or(fixed).unwrap_or_else(|| {
                    let free = next;
                    next = next.saturating_add(1);
                    free
                });
                let picked = to.is_none() && fixed.is_none();
                found.insert(
                    label,
                    Labelled {
                        inside,
                        fixed,
                        picked,
                    },
                );
            }
        }
    }
    found
}

/// Gives a service the ports and checks of its group's and its task's services.
pub(super) fn services(
    group: &Map<String, Value>,
    task: Option<&Map<String, Value>>,
    ports: &BTreeMap<String, Labelled>,
    into: &mut Service,
    out: &mut Converted,
) {
    let lists = [
        group.get("Services"),
        task.and_then(|task| task.get("Services")),
    ];
    for service in lists
        .into_iter()
        .flatten()
        .flat_map(|list| list.as_array().into_iter().flatten())
    {
        let name = text(&service["Name"]).unwrap_or_default();
        let at = format!("{} service {name}", into.at);
        others(&at, table(service), &SERVICE, out);
        let label = text(&service["PortLabel"]).unwrap_or_default();
        let known = find(&label, ports);
        let checks = service["Checks"].as_array().cloned().unwrap_or_default();
        let asks_http = checks.iter().any(|check| check["Type"] == "http");
        let tags = texts(&service["Tags"]);
        let routed = tags.iter().any(|tag| {
            tag.starts_with("traefik.") || tag.starts_with("urlprefix-") || tag.starts_with("caddy")
        });
        if routed {
            out.note(at.clone(), format!("rules of another proxy are not read ({}): requests reach it at the app's own address", tags.join(", ")));
        }
        if let Some(found) = known {
            let http = routed || asks_http || found.fixed.is_some_and(|p| [80, 443].contains(&p));
            if http || found.fixed.is_some() {
                into.ports.push(Published {
                    target: found.inside,
                    published: found.fixed,
                    http: http && is_http(found.inside),
                });
            } else {
                out.note(
                    at.clone(),
                    format!(
                        "is only for other apps: they reach port {} by the .internal name",
                        found.inside
                    ),
                );
            }
        }
        for check in &checks {
            if let Some(check) = read_check(table(check), known, ports, &at, out) {
                into.checks.push(check);
            }
        }
    }
}

fn find(label: &str, ports: &BTreeMap<String, Labelled>) -> Option<Labelled> {
    let plain = port(&Value::String(label.to_owned())).map(|inside| Labelled {
        inside,
        fixed: None,
        picked: false,
    });
    ports.get(label).copied().or(plain)
}

fn read_check(
    check: &Map<String, Value>,
    service: Option<Labelled>,
    ports: &BTreeMap<String, Labelled>,
    at: &str,
    out: &mut Converted,
) -> Option<(u16, Check)> {
    let none = Value::Null;
    let get = |key: &str| check.get(key).unwrap_or(&none);
    let kind = text(get("Type")).unwrap_or_default();
    let name = text(get("Name")).filter(|name| !name.is_empty());
    let at = format!("{at} check {}", name.as_deref().unwrap_or(&kind));
    if !["http", "tcp"].contains(&kind.as_str()) {
        out.note(
            at,
            format!("{kind} checks are not offered: name an HTTP path or a TCP port"),
        );
        return None;
    }
    others(&at, check, &CHECK, out);
    let label = text(get("PortLabel")).filter(|label| !label.is_empty());
    let asked = label.map_or(service, |label| find(&label, ports));
    let Some(asked) = asked else {
        out.note(at, "asks a port that is not there");
        return None;
    };
    let http = kind == "http";
    for key in ["SuccessBeforePassing", "FailuresBeforeCritical"] {
        if number(get(key)).is_some_and(|n| n > 1) {
            out.note(
                format!("{at}.{key}"),
                "one failed probe marks a Machine, one passed probe takes the mark away",
            );
        }
    }
    let headers = table(get("Header"))
        .iter()
        .map(|(name, values)| (name.clone(), texts(values).join(", ")));
    let result = Check {
        path: text(get("Path")).filter(|path| http && !path.is_empty()),
        method: text(get("Method")).filter(|method| http && !method.is_empty()),
        protocol: text(get("Protocol")).filter(|p| http && p == "https"),
        interval: Some(seconds(get("Interval"), 2, 60).unwrap_or_else(|| "10s".to_owned())),
        timeout: Some(seconds(get("Timeout"), 1, 60).unwrap_or_else(|| "2s".to_owned())),
        headers: if http {
            headers.collect()
        } else {
            BTreeMap::new()
        },
        kind: Some(kind),
        ..Check::default()
    };
    Some((asked.inside, result))
}
