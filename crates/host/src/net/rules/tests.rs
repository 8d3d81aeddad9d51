use serde_json::json;

use super::super::pool;
use super::*;

fn chain(family: &str, hook: &str, policy: &str) -> Value {
    json!({"nftables": [
        {"metainfo": {"version": "1.0.6"}},
        {"chain": {"family": family, "table": "filter", "name": "FORWARD", "handle": 1,
            "type": "filter", "hook": hook, "prio": 0, "policy": policy}}
    ]})
}

fn only(listing: &Value) -> ForeignChain {
    let mut chains = foreign_chains(listing);
    assert_eq!(chains.len(), 1, "{listing}");
    chains.remove(0)
}

#[test]
fn a_table_is_one_transaction_that_holds_each_network_once() {
    let pool = pool::choose(&[]).unwrap();
    let networks = BTreeSet::from([NetworkId(1), NetworkId(0x0002_0003)]);
    let text = table(pool, &networks, &[], Nat::Masquerade);
    assert!(text.starts_with("add table inet hangar\ndelete table inet hangar\n"));
    assert!(text.contains("fdaa:0:1::/48 . fdaa:0:1::/48, fdaa:2:3::/48 . fdaa:2:3::/48"));
    assert!(text.contains("ip saddr 172.30.0.0/16 masquerade"));
    assert!(
        !text.contains('@') || text.contains("@same_network"),
        "{text}"
    );
    assert!(!table(pool, &networks, &[], Nat::Missing).contains("masquerade"));
    assert!(!table(pool, &BTreeSet::new(), &[], Nat::Missing).contains("elements"));
}

#[test]
fn a_forward_policy_of_drop_gets_both_ways_accepted_before_it() {
    let listing = chain("ip", "forward", "drop");
    let rules = missing_rules(&only(&listing), &listing);
    assert_eq!(
        rules,
        "insert rule ip filter FORWARD iifname \"hg*\" counter accept comment \"hangar: from machines\"\n\
         insert rule ip filter FORWARD oifname \"hg*\" counter accept comment \"hangar: to machines\"\n"
    );
}

#[test]
fn rules_that_are_there_are_not_put_in_twice() {
    let mut listing = chain("inet", "forward", "drop");
    for comment in ["hangar: from machines", "hangar: to machines"] {
        let rule = json!({"rule": {"comment": comment, "expr": [{"accept": null}]}});
        listing["nftables"].as_array_mut().unwrap().push(rule);
    }
    assert_eq!(missing_rules(&only(&listing), &listing), "");
}

#[test]
fn a_chain_that_ends_by_rejecting_everything_counts_as_a_policy() {
    let mut listing = chain("inet", "forward", "accept");
    assert_eq!(missing_rules(&only(&listing), &listing), "");
    let reject = json!({"rule": {"expr": [
        {"counter": {"packets": 0, "bytes": 0}}, {"reject": {"type": "icmpx", "expr": "admin-prohibited"}}
    ]}});
    listing["nftables"].as_array_mut().unwrap().push(reject);
    assert!(!missing_rules(&only(&listing), &listing).is_empty());
}

#[test]
fn a_rule_that_drops_something_in_particular_is_left_to_its_owner() {
    let mut listing = chain("inet", "forward", "accept");
    let rule = json!({"rule": {"expr": [
        {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "eth9"}}, {"drop": null}
    ]}});
    listing["nftables"].as_array_mut().unwrap().push(rule);
    assert_eq!(missing_rules(&only(&listing), &listing), "");
}

#[test]
fn names_are_let_in_where_a_firewall_drops_input() {
    let listing = chain("inet", "input", "drop");
    let rules = missing_rules(&only(&listing), &listing);
    assert!(
        rules.contains("ip6 daddr fdaa::3 counter accept"),
        "{rules}"
    );
    let v4 = chain("ip", "input", "drop");
    assert_eq!(missing_rules(&only(&v4), &v4), "");
}

#[test]
fn chains_of_our_own_and_of_other_hooks_and_odd_names_are_no_business_of_ours() {
    let mut own = chain("inet", "forward", "drop");
    own["nftables"][1]["chain"]["table"] = json!("hangar");
    let nat = chain("inet", "postrouting", "drop");
    let bridge = chain("bridge", "forward", "drop");
    let mut odd = chain("inet", "forward", "drop");
    odd["nftables"][1]["chain"]["name"] = json!("x; flush ruleset");
    for listing in [
        own,
        nat,
        bridge,
        odd,
        json!({}),
        json!({"nftables": [{"chain": 3}]}),
    ] {
        assert_eq!(foreign_chains(&listing), vec![], "{listing}");
    }
}

#[test]
fn ranges_that_are_opened_come_before_the_private_ones_are_closed() {
    let pool = pool::choose(&[]).unwrap();
    let ranges = ["10.1.2.3/8", "10.9.0.0/16", "192.168.7.5/32", "fd00:1::/64"];
    let egress = ranges.map(|range| range.parse().unwrap());
    let text = table(pool, &BTreeSet::new(), &egress, Nat::Masquerade);
    let opened = text
        .find("ip daddr { 10.0.0.0/8, 192.168.7.5/32 } accept\nip6 daddr { fd00:1::/64 } accept")
        .expect(&text);
    let closed = text.find("192.168.0.0/16 } drop").unwrap();
    let others = text.find("ip daddr 172.30.0.0/16 drop").unwrap();
    assert!(others < opened && opened < closed, "{text}");
}
