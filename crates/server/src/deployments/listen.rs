//! The warning that nothing listens where a service leads (process-groups-and-deploy.md 4.9).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use hangar_api::Timestamp;
use hangar_api::deployment::DeployEvent;
use hangar_api::id::{GroupName, MachineId, ReleaseId};
use hangar_api::machine::config::RELEASE_ID;
use hangar_api::machine::{MachineConfig, MachineState, Service};
use jiff::SignedDuration;

use crate::core::Core;
use crate::unit::Unit;

/// An app has so long to listen before it is looked at.
const PATIENCE: SignedDuration = SignedDuration::from_secs(15);
/// Between two looks at a group that does not listen yet.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_millis(250);
/// How long a host may take to answer.
const ANSWER: Duration = Duration::from_secs(2);

/// What is known of the groups of one deployment. Kept in memory: a restarted server looks again.
#[derive(Debug, Default)]
pub(super) struct Listening {
    /// When the look at a group is due. Groups of which nothing runs are not looked at.
    due: BTreeMap<GroupName, Timestamp>,
    /// Groups that were looked at.
    done: BTreeSet<GroupName>,
}

/// When a look is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// Only where the app has had its time.
    Patiently,
    /// Now, as the deployment ends.
    Now,
}

// === impl Listening ===

impl Listening {
    /// Returns warnings for the groups whose turn it is, once for each group.
    pub(super) async fn look(
        &mut self,
        core: &Core,
        units: &[Unit],
        release: &ReleaseId,
        when: When,
    ) -> Vec<DeployEvent> {
        let now = core.env.now();
        let mut warnings = Vec::new();
        let before = std::mem::take(&mut self.due);
        for (unit, group) in candidates(units, release) {
            if self.done.contains(&group) {
                continue;
            }
            let config = &unit.spec().config;
            let due = before.get(&group).copied();
            let due = due.unwrap_or_else(|| now.saturating_add(patience(config)).unwrap_or(now));
            if when == When::Patiently && now < due {
                self.due.insert(group, due);
                continue;
            }
            self.due.remove(&group);
            self.done.insert(group.clone());
            if let Some(message) = look_at(core, unit.id(), config).await {
                warnings.push(DeployEvent {
                    at: now,
                    message,
                    machine: Some(unit.id().clone()),
                    group: Some(group),
                    level: "warning".to_owned(),
                });
            }
        }
        warnings
    }

    /// Returns when to look again, while a group that has not had its time does not listen yet: a
    /// deployment that is done waits so long before it says so (4.9).
    pub(super) async fn unsettled(
        &mut self,
        core: &Core,
        units: &[Unit],
        release: &ReleaseId,
    ) -> Option<Timestamp> {
        let now = core.env.now();
        for (unit, group) in candidates(units, release) {
            if self.done.contains(&group) {
                continue;
            }
            let config = &unit.spec().config;
            let late = now.saturating_add(patience(config)).unwrap_or(now);
            let due = *self.due.entry(group.clone()).or_insert(late);
            if now >= due {
                continue;
            }
            if look_at(core, unit.id(), config).await.is_some() {
                let soon = now.saturating_add(LOOK_AGAIN).unwrap_or(due);
                return Some(soon.min(due));
            }
            self.due.remove(&group);
            self.done.insert(group);
        }
        None
    }

    /// Returns when the next look is due.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.due.values().min().copied()
    }
}

/// Returns the Machines of a release that run and have services, with their groups.
fn candidates<'a>(
    units: &'a [Unit],
    release: &'a ReleaseId,
) -> impl Iterator<Item = (&'a Unit, GroupName)> {
    units.iter().filter_map(|unit| {
        let config = &unit.spec().config;
        let of = config.metadata.get(RELEASE_ID);
        let ours = of.is_some_and(|id| id == release.as_str());
        let runs = unit.state() == MachineState::Started;
        let serves = config.services.iter().any(is_tcp);
        (ours && runs && serves).then(|| (unit, config.group_or_app()))
    })
}

fn patience(config: &MachineConfig) -> SignedDuration {
    let checks = config.services.iter().flat_map(|service| &service.checks);
    checks
        .filter_map(|check| SignedDuration::try_from(check.grace_period?.to_std()).ok())
        .fold(PATIENCE, SignedDuration::max)
}

fn is_tcp(service: &Service) -> bool {
    service.protocol == "tcp"
}

fn service_ports(config: &MachineConfig) -> BTreeSet<u16> {
    let services = config.services.iter().filter(|service| is_tcp(service));
    services.map(|service| service.internal_port).collect()
}

async fn look_at(core: &Core, machine: &MachineId, config: &MachineConfig) -> Option<String> {
    let answer = tokio::time::timeout(ANSWER, core.calls.listeners(machine.clone())).await;
    // A host that cannot say is no reason to warn.
    let sockets = answer.ok()?.ok()?;
    warning(&service_ports(config), &sockets)
}

/// Returns the warning for ports that nothing reachable listens on.
fn warning(ports: &BTreeSet<u16>, sockets: &[SocketAddr]) -> Option<String> {
    let reachable = |port: &u16| {
        sockets
            .iter()
            .any(|socket| socket.port() == *port && !socket.ip().is_loopback())
    };
    let missing: Vec<String> = ports
        .iter()
        .filter(|port| !reachable(port))
        .map(|port| format!("0.0.0.0:{port}"))
        .collect();
    if missing.is_empty() {
        return None;
    }
    let found: Vec<String> = sockets.iter().map(ToString::to_string).collect();
    let found = if found.is_empty() {
        "nothing listens in the machine".to_owned()
    } else {
        format!("found listening: {}", found.join(", "))
    };
    Some(format!(
        "The app is not listening on the expected address and will not be reachable by the proxy. \
         Configure it to listen on {} ({found})",
        missing.join(" and ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_only_the_machine_itself_can_reach_is_warned_of() {
        let ports = BTreeSet::from([8080]);
        let socket = |text: &str| vec![text.parse().unwrap()];
        assert_eq!(warning(&ports, &socket("0.0.0.0:8080")), None);
        assert_eq!(warning(&ports, &socket("[::]:8080")), None);
        let text = warning(&ports, &socket("127.0.0.1:8080")).unwrap();
        assert!(text.contains("0.0.0.0:8080"), "{text}");
        assert!(text.contains("127.0.0.1:8080"), "{text}");
        assert!(warning(&ports, &[]).unwrap().contains("nothing listens"));
    }
}
