//! Which Machine a name leads to: addresses, ids and `.internal` names. Pure.

use std::net::Ipv6Addr;

use hangar_api::id::{AppName, MachineId};
use hangar_api::machine::{Machine, MachineState};

/// What a name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// The app, where the name has one.
    pub(super) app: Option<AppName>,
    which: Which,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Which {
    Any,
    Group(String),
    Region(String),
    Machine(MachineId),
    Address(Ipv6Addr),
}

/// Reads an address, a Machine's id or an `.internal` name.
pub(super) fn parse(host: &str) -> Result<Target, String> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse() {
        return Ok(Target {
            app: None,
            which: Which::Address(address),
        });
    }
    if let Ok(id) = MachineId::new(host) {
        return Ok(Target {
            app: None,
            which: Which::Machine(id),
        });
    }
    let lower = host.trim_end_matches('.').to_ascii_lowercase();
    let unknown = || {
        format!(
            "{host} leads to no Machine: use an address, a Machine's id, or a name such as APP.internal, GROUP.process.APP.internal, REGION.APP.internal or ID.vm.APP.internal"
        )
    };
    let name = lower.strip_suffix(".internal").ok_or_else(unknown)?;
    let labels: Vec<&str> = name.split('.').collect();
    let (app, which) = match labels.as_slice() {
        [app] => (*app, Which::Any),
        [group, "process", app] => (*app, Which::Group((*group).to_owned())),
        [id, "vm", app] => {
            let id = MachineId::new(*id).map_err(|_| unknown())?;
            (*app, Which::Machine(id))
        }
        [_, "nearest", "of", app] => (*app, Which::Any),
        [region, app] => (*app, Which::Region((*region).to_owned())),
        _ => return Err(unknown()),
    };
    let app = AppName::new(app).map_err(|_| unknown())?;
    Ok(Target {
        app: Some(app),
        which,
    })
}

// === impl Target ===

impl Target {
    /// Returns the first started Machine that is meant.
    pub(super) fn pick<'a>(&self, machines: &'a [Machine]) -> Option<&'a Machine> {
        let mut fits = machines
            .iter()
            .filter(|m| m.state == MachineState::Started && self.is(m));
        fits.next()
    }

    /// Returns whether a Machine is meant, whatever its state.
    pub(super) fn is(&self, machine: &Machine) -> bool {
        match &self.which {
            Which::Any => true,
            // Host names have no capitals.
            Which::Group(group) => machine.process_group().eq_ignore_ascii_case(group),
            Which::Region(region) => machine.region.as_str() == region,
            Which::Machine(id) => machine.id == *id,
            Which::Address(address) => machine.private_ip.parse() == Ok(*address),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn machine(id: &str, group: &str, region: &str, state: &str, ip: &str) -> Machine {
        serde_json::from_value(json!({
            "id": id, "name": "n", "state": state, "region": region,
            "instance_id": "01HZZZZZZZZZZZZZZZZZZZZZZZ", "private_ip": ip,
            "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z",
            "config": {"image": "x", "metadata": {"fly_process_group": group}},
            "image_ref": {"registry": "", "repository": "x", "tag": "", "digest": ""},
        }))
        .unwrap()
    }

    #[test]
    fn each_form_of_a_name_leads_to_its_machine() {
        let machines = [
            machine("00000000000001", "web", "iad", "stopped", "fdaa::1"),
            machine("00000000000002", "web", "iad", "started", "fdaa::2"),
            machine("00000000000003", "Worker", "gru", "started", "fdaa::3"),
        ];
        for (host, app, expected) in [
            ("shop.internal", Some("shop"), Some("2")),
            ("top1.nearest.of.shop.internal", Some("shop"), Some("2")),
            ("worker.process.shop.internal.", Some("shop"), Some("3")),
            ("gru.shop.internal", Some("shop"), Some("3")),
            ("00000000000003.vm.shop.internal", Some("shop"), Some("3")),
            ("00000000000003", None, Some("3")),
            ("fdaa::2", None, Some("2")),
            ("[fdaa::3]", None, Some("3")),
            // Nobody answers where nothing runs.
            ("fdaa::1", None, None),
            ("00000000000001", None, None),
            ("other.process.shop.internal", Some("shop"), None),
        ] {
            let target = parse(host).unwrap();
            assert_eq!(target.app.as_ref().map(AppName::as_str), app, "{host}");
            let found = target.pick(&machines).map(|m| m.id.as_str());
            let found = found.map(|id| id.trim_start_matches('0'));
            assert_eq!(found, expected, "{host}");
        }
        for host in [
            "",
            "shop",
            "example.com",
            "a.b.c.d.internal",
            "x.vm.shop.internal",
        ] {
            assert!(parse(host).is_err(), "{host}");
        }
    }
}
