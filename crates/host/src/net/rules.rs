//! The firewall as text and as decisions: what Hangar's own table holds, and which rules it needs
//! in tables of others. Pure; [`super::nft`] runs the program.
//!
//! What a packet of a Machine may do, whatever else the host's firewall says:
//!
//! ```text
//! Machine ── source is not its own address ──────────────► dropped, before anything else
//!         ── to the host: names, API at fdaa::3, answers ► accepted; all else dropped
//!         ── to a Machine of the same network, IPv6 ─────► accepted; all else dropped
//!         ── to the host's neighbours, private ranges ───► dropped, unless they are opened
//!         ── to the outside ─────────────────────────────► behind the host's address
//! outside ── to a Machine: only answers
//! ```
//!
//! Nothing in the table is about one Machine: interfaces are matched by their prefix and sources
//! by the route back to them, so that starting a Machine never touches the firewall. Only a new
//! *network* adds an element.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use hangar_api::net::{API_PORT, NetworkId, RESOLVER};
use ipnet::IpNet;
use serde_json::Value;

use super::pool::V4Pool;

/// The family and name of Hangar's own table.
pub(super) const TABLE: &str = "inet hangar";
const TABLE_NAME: &str = "hangar";
const SAME_NETWORK: &str = "same_network";

/// Whether the kernel can translate addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nat {
    /// Machines reach the outside behind the host's address.
    Masquerade,
    /// They do not.
    Missing,
}

/// A chain of somebody else's that would drop what Hangar needs, and the rules that it lacks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ForeignChain {
    /// `ip filter FORWARD`: family, table and chain as nft takes them.
    pub(super) address: String,
    /// The hook it stands at.
    pub(super) hook: Hook,
    /// The family.
    pub(super) family: String,
    /// Whether its policy is drop.
    pub(super) drops: bool,
}

/// The hooks at which a foreign drop would cut Machines off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Hook {
    /// To the host: names.
    Input,
    /// From and to Machines.
    Forward,
    /// From the host: proxy and checks.
    Output,
}

/// Returns one transaction that makes the table anew, whatever was there.
pub(super) fn table(
    pool: V4Pool,
    networks: &BTreeSet<NetworkId>,
    egress: &[IpNet],
    nat: Nat,
) -> String {
    let elements: Vec<String> = networks.iter().copied().map(element).collect();
    let elements = if elements.is_empty() {
        String::new()
    } else {
        format!("elements = {{ {} }}", elements.join(", "))
    };
    let mut text = format!("add table {TABLE}\ndelete table {TABLE}\n");
    let body = include_str!("hangar.nft")
        .replace("@ELEMENTS@", &elements)
        .replace("@EGRESS@", &accepted(egress))
        .replace("@RESOLVER@", &RESOLVER.to_string())
        .replace("@API_PORT@", &API_PORT.to_string())
        .replace("@POOL@", &pool.cidr());
    text.push_str(&body);
    if nat == Nat::Masquerade {
        text.push_str(&include_str!("hangar-nat.nft").replace("@POOL@", &pool.cidr()));
    }
    text
}

/// Returns the rules that open the way to these ranges, none of which overlap in what is returned.
fn accepted(egress: &[IpNet]) -> String {
    let ranges = IpNet::aggregate(&egress.to_vec());
    let of = |family: &str, ranges: Vec<String>| match ranges.is_empty() {
        true => String::new(),
        false => format!("{family} daddr {{ {} }} accept\n", ranges.join(", ")),
    };
    let (v4, v6): (Vec<IpNet>, Vec<IpNet>) = ranges
        .into_iter()
        .partition(|range| matches!(range, IpNet::V4(_)));
    let text = |ranges: Vec<IpNet>| {
        ranges
            .iter()
            .map(|range| range.trunc().to_string())
            .collect()
    };
    of("ip", text(v4)) + &of("ip6", text(v6))
}

/// Returns the transaction that lets the Machines of one network reach each other.
pub(super) fn add_network(network: NetworkId) -> String {
    format!(
        "add element {TABLE} {SAME_NETWORK} {{ {} }}\n",
        element(network)
    )
}

fn element(network: NetworkId) -> String {
    let [a, b, c, d] = network.0.to_be_bytes();
    let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    let prefix = format!("fdaa:{high:x}:{low:x}::/48");
    format!("{prefix} . {prefix}")
}

/// Returns the base chains of other tables that stand at a hook which matters, from the answer to
/// `nft -j list chains`.
pub(super) fn foreign_chains(listing: &Value) -> Vec<ForeignChain> {
    objects(listing, "chain")
        .filter_map(foreign_chain)
        .collect()
}

fn foreign_chain(chain: &Value) -> Option<ForeignChain> {
    let text = |key: &str| chain.get(key).and_then(Value::as_str);
    let (family, table, name) = (text("family")?, text("table")?, text("name")?);
    let hook = match text("hook")? {
        "input" => Hook::Input,
        "forward" => Hook::Forward,
        "output" => Hook::Output,
        _ => return None,
    };
    let other = matches!(family, "ip" | "ip6" | "inet") && table != TABLE_NAME;
    let filters = text("type") == Some("filter");
    (other && filters && is_plain(table) && is_plain(name)).then(|| ForeignChain {
        address: format!("{family} {table} {name}"),
        hook,
        family: family.to_owned(),
        drops: text("policy") == Some("drop"),
    })
}

/// Returns the rules that a foreign chain lacks, as one transaction, from the answer to
/// `nft -j list chain`; empty when it drops nothing by default or has them all.
///
/// A chain drops by default when its policy says so or when it ends with an unconditional drop
/// or reject. An accept of ours cannot overrule it from our own table: every table has its say.
pub(super) fn missing_rules(chain: &ForeignChain, listing: &Value) -> String {
    let rules: Vec<&Value> = objects(listing, "rule").collect();
    let refuses = chain.drops || rules.last().is_some_and(|rule| refuses_everything(rule));
    let mut text = String::new();
    if !refuses {
        return text;
    }
    for (comment, matches) in wanted(chain) {
        let there = rules
            .iter()
            .any(|rule| rule.get("comment").and_then(Value::as_str) == Some(comment));
        if !there {
            let _infallible = writeln!(
                text,
                "insert rule {} {matches} counter accept comment \"{comment}\"",
                chain.address
            );
        }
    }
    text
}

/// The forms are those that iptables writes itself, so that its own program still reads a table
/// of its own.
fn wanted(chain: &ForeignChain) -> Vec<(&'static str, String)> {
    let from = || ("hangar: from machines", "iifname \"hg*\"".to_owned());
    let to = || ("hangar: to machines", "oifname \"hg*\"".to_owned());
    match chain.hook {
        Hook::Forward => vec![from(), to()],
        Hook::Output => vec![to()],
        Hook::Input if chain.family == "ip" => vec![],
        Hook::Input => vec![(
            "hangar: names for machines",
            format!("iifname \"hg*\" ip6 daddr {RESOLVER}"),
        )],
    }
}

fn refuses_everything(rule: &Value) -> bool {
    let parts = rule.get("expr").and_then(Value::as_array);
    parts.is_some_and(|parts| {
        let mut kinds = parts
            .iter()
            .filter_map(|part| part.as_object()?.keys().next().map(String::as_str));
        let only_verdict = kinds.all(|kind| matches!(kind, "counter" | "log" | "drop" | "reject"));
        let last = parts.last().and_then(Value::as_object);
        only_verdict && last.is_some_and(|l| l.contains_key("drop") || l.contains_key("reject"))
    })
}

/// Names go back to nft as text: one that would need quoting is nobody's usual firewall, and is
/// left alone.
fn is_plain(name: &str) -> bool {
    name.bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
}

fn objects<'a>(listing: &'a Value, kind: &'static str) -> impl Iterator<Item = &'a Value> {
    listing
        .get("nftables")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(move |object| object.get(kind))
}

#[cfg(test)]
mod tests;
