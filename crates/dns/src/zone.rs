//! What a name means: the `.internal` zone as a pure function of the Catalog.
//!
//! Called by [`crate::wire`] with a question that has been taken apart. No I/O, no clock; chance
//! comes in as a seed. Each private network has a zone of its own: an app of another network does
//! not exist, and nothing tells the two apart.
//!
//! ```text
//! APP.internal  global.APP.internal       AAAA  Machines that are up
//! REGION.APP.internal                     AAAA  … in the region
//! GROUP.process.APP.internal              AAAA  … of the process group
//! topN.nearest.of.APP.internal            AAAA  … N of them, the asker's region first
//! VALUE.KEY.kv._metadata.APP.internal     AAAA  … with the metadata
//! ID.vm.APP.internal                      AAAA  that Machine, if it is up
//! vms.APP.internal      regions.APP.internal       TXT   of those that are up
//! all.vms.APP.internal  all.regions.APP.internal   TXT   of all
//! _apps.internal  _instances.internal  all._instances.internal   TXT
//! _api.internal                           AAAA  the Machines API, on port 4280
//! ```
//!
//! A name exists when it *could* have an answer: a group whose Machines are all stopped exists
//! and has no addresses, which a client may ask again; a group that is in no Machine does not.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use hangar_api::catalog::{Catalog, CatalogApp, CatalogMachine, Phase};
use hangar_api::id::{AppName, Region};
use hangar_api::net::{NetworkId, RESOLVER};

/// Most addresses in one answer; of more, as many are picked by chance.
pub const MAX_ADDRESSES: usize = 1_000;
/// Most bytes of text in one answer: a packet has 65,535. The rest is cut at an entry.
pub const MAX_TEXT: usize = 60_000;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    /// Its private network.
    pub network: NetworkId,
    /// Its address, from which its region is found.
    pub address: IpAddr,
}

/// A question: a name and the kind of record that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The labels in lower case, the top one (`internal`) last. A label is any bytes; those that
    /// are no text match nothing.
    pub labels: Vec<String>,
    /// What is wanted.
    pub kind: Kind,
}

/// A kind of record, as far as the zone tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// IPv6 addresses.
    Aaaa,
    /// Text.
    Txt,
    /// Whatever there is.
    Any,
    /// Something that the zone never has, such as IPv4 addresses.
    Other,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The name is none of the zone's: ask others.
    Elsewhere,
    /// There is no such name.
    NoSuchName,
    /// The name exists; it may have no record of the kind.
    Found(Vec<Data>),
}

/// The data of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// An IPv6 address.
    Address(Ipv6Addr),
    /// A text; the wire cuts it into pieces.
    Text(String),
}

/// Returns the answer to a question. `seed` decides the order of addresses.
#[must_use]
pub fn answer(catalog: &Catalog, asker: &Asker, question: &Question, seed: u64) -> Answer {
    let labels: Vec<&str> = question.labels.iter().map(String::as_str).collect();
    let found = match labels.as_slice() {
        [rest @ .., "internal"] => internal(catalog, asker, rest),
        // Names that mean something only here never leave the host, also where they mean nothing
        // yet: addresses for Flycast, and the reverse of the private network.
        [.., "flycast"] | [.., "a", "a", "d", "f", "ip6", "arpa"] => None,
        _ => return Answer::Elsewhere,
    };
    match found {
        None => Answer::NoSuchName,
        Some(found) => Answer::Found(found.data(question.kind, asker_region(catalog, asker), seed)),
    }
}

/// What a name stands for, before the kind of record is looked at.
enum Found<'a> {
    /// A node of the tree without records of its own.
    Branch,
    /// Addresses of these Machines, as far as they are up.
    Machines(Vec<&'a CatalogMachine>),
    /// The addresses of so many of them, nearest first.
    Nearest(usize, Vec<&'a CatalogMachine>),
    /// A comma-separated (or other) list.
    Text(String),
    /// The address of the host itself.
    Host,
}

/// Which Machines a list is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    Up,
    All,
}

fn internal<'a>(catalog: &'a Catalog, asker: &Asker, labels: &[&str]) -> Option<Found<'a>> {
    match labels {
        [] => Some(Found::Branch),
        ["_api"] => Some(Found::Host),
        ["_apps"] => Some(Found::Text(join(
            apps(catalog, asker.network).map(|app| app.name.to_string()),
            ",",
        ))),
        ["_instances"] => Some(instances(catalog, asker.network, Scope::Up)),
        ["all", "_instances"] => Some(instances(catalog, asker.network, Scope::All)),
        [rest @ .., app] => {
            let app = catalog.apps.get(&AppName::new(*app).ok()?)?;
            (app.network == asker.network)
                .then(|| of_app(app, rest))
                .flatten()
        }
    }
}

fn of_app<'a>(app: &'a CatalogApp, labels: &[&str]) -> Option<Found<'a>> {
    match labels {
        [] | ["global"] => Some(Found::Machines(named(app).collect())),
        ["vm" | "process" | "of" | "_metadata" | "all"]
        | ["nearest", "of"]
        | ["kv", "_metadata"] => Some(Found::Branch),
        ["vms"] => Some(Found::Text(vms(app, Scope::Up))),
        ["all", "vms"] => Some(Found::Text(vms(app, Scope::All))),
        ["regions"] => Some(Found::Text(regions(app, Scope::Up))),
        ["all", "regions"] => Some(Found::Text(regions(app, Scope::All))),
        [id, "vm"] => some(named(app).filter(|m| m.route.id.as_str() == *id)),
        [group, "process"] => {
            some(named(app).filter(|m| m.route.group.as_str().eq_ignore_ascii_case(group)))
        }
        [top, "nearest", "of"] => {
            let count = top.strip_prefix("top")?.parse().ok().filter(|n| *n > 0)?;
            Some(Found::Nearest(count, named(app).collect()))
        }
        [value @ .., key, "kv", "_metadata"] => {
            let value = value.join(".");
            some(named(app).filter(|machine| {
                let mut all = machine.route.metadata.iter();
                all.any(|(k, v)| k.eq_ignore_ascii_case(key) && v.eq_ignore_ascii_case(&value))
            }))
        }
        [region] => some(named(app).filter(|m| m.route.region.as_str() == *region)),
        _ => None,
    }
}

fn some<'a>(machines: impl Iterator<Item = &'a CatalogMachine>) -> Option<Found<'a>> {
    let machines: Vec<_> = machines.collect();
    (!machines.is_empty()).then_some(Found::Machines(machines))
}

fn apps(catalog: &Catalog, network: NetworkId) -> impl Iterator<Item = &CatalogApp> {
    let all = catalog.apps.values().map(AsRef::as_ref);
    all.filter(move |app: &&CatalogApp| app.network == network)
}

/// Returns the Machines that have names at all.
fn named(app: &CatalogApp) -> impl Iterator<Item = &CatalogMachine> {
    let all = app.machines.iter().map(AsRef::as_ref);
    all.filter(|machine: &&CatalogMachine| !machine.route.skip_dns)
}

fn is_up(machine: &CatalogMachine) -> bool {
    machine.live.phase == Phase::Up
}

fn within(app: &CatalogApp, scope: Scope) -> impl Iterator<Item = &CatalogMachine> {
    named(app).filter(move |machine| scope == Scope::All || is_up(machine))
}

fn vms(app: &CatalogApp, scope: Scope) -> String {
    let entries = within(app, scope).map(|m| format!("{} {}", m.route.id, m.route.region));
    join(entries, ",")
}

fn regions(app: &CatalogApp, scope: Scope) -> String {
    let regions: BTreeSet<&Region> = within(app, scope).map(|m| &m.route.region).collect();
    join(regions.into_iter().map(ToString::to_string), ",")
}

fn instances<'a>(catalog: &'a Catalog, network: NetworkId, scope: Scope) -> Found<'a> {
    let entries = apps(catalog, network).flat_map(|app| {
        within(app, scope).map(|machine| {
            let route = &machine.route;
            format!(
                "instance={},app={},ip={},region={}",
                route.id, app.name, route.private_ip, route.region
            )
        })
    });
    Found::Text(join(entries, ";"))
}

/// Joins entries until the text is as long as an answer may be.
fn join(entries: impl Iterator<Item = String>, separator: &str) -> String {
    let mut text = String::new();
    for entry in entries {
        if text.len() + separator.len() + entry.len() > MAX_TEXT {
            break;
        }
        if !text.is_empty() {
            text.push_str(separator);
        }
        text.push_str(&entry);
    }
    text
}

fn asker_region<'a>(catalog: &'a Catalog, asker: &Asker) -> impl FnOnce() -> Option<&'a Region> {
    let asker = *asker;
    move || {
        let IpAddr::V6(address) = asker.address else {
            return None;
        };
        apps(catalog, asker.network)
            .flat_map(|app| &app.machines)
            .find(|machine| machine.route.private_ip == address)
            .map(|machine| &machine.route.region)
    }
}

// === impl Found ===

impl Found<'_> {
    fn data<'r>(
        self,
        kind: Kind,
        near: impl FnOnce() -> Option<&'r Region>,
        seed: u64,
    ) -> Vec<Data> {
        let addresses = matches!(kind, Kind::Aaaa | Kind::Any);
        let text = matches!(kind, Kind::Txt | Kind::Any);
        match self {
            Self::Machines(machines) if addresses => {
                to_data(&shuffled(machines, seed), MAX_ADDRESSES)
            }
            Self::Nearest(count, machines) if addresses => {
                let mut machines = shuffled(machines, seed);
                let near = near();
                machines.sort_by_key(|machine| Some(&machine.route.region) != near);
                to_data(&machines, count.min(MAX_ADDRESSES))
            }
            Self::Host if addresses => vec![Data::Address(RESOLVER)],
            Self::Text(list) if text && !list.is_empty() => vec![Data::Text(list)],
            _ => Vec::new(),
        }
    }
}

fn to_data(machines: &[&CatalogMachine], most: usize) -> Vec<Data> {
    let addresses = machines.iter().take(most);
    addresses
        .map(|machine| Data::Address(machine.route.private_ip))
        .collect()
}

/// Returns the Machines that are up in an order that the seed decides: clients take the first, so
/// the order is what spreads the load.
fn shuffled(machines: Vec<&CatalogMachine>, seed: u64) -> Vec<&CatalogMachine> {
    let mut machines: Vec<_> = machines
        .into_iter()
        .filter(|machine| is_up(machine))
        .collect();
    let mut state = seed;
    for last in (1..machines.len()).rev() {
        // A step of SplitMix64, which is enough to spread load.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let choices = u64::try_from(last).unwrap_or(u64::MAX).saturating_add(1);
        let pick = usize::try_from((mixed ^ (mixed >> 31)) % choices).unwrap_or_default();
        machines.swap(last, pick);
    }
    machines
}

#[cfg(test)]
mod tests;
