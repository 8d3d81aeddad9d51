//! What DNS says of a host name, asked as this machine asks.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use hangar_api::certificate::{DnsRecords, Hostname};
use hickory_resolver::Resolver;
use hickory_resolver::config::LookupIpStrategy;
use hickory_resolver::proto::rr::{RData, RecordType};

/// Longest time for all look-ups of one name.
const LOOK_TIME: Duration = Duration::from_secs(5);
/// Most addresses that are told.
const MAX_ADDRESSES: usize = 32;

/// What DNS says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) records: DnsRecords,
    /// The addresses that are this machine's.
    pub(super) here: Vec<String>,
    /// Why nothing could be found out.
    pub(super) failure: Option<String>,
}

/// Looks a host name up.
pub(super) async fn look(host: &Hostname) -> Found {
    match tokio::time::timeout(LOOK_TIME, look_up(host)).await {
        Ok(found) => found,
        Err(_) => Found {
            failure: Some(format!("no answer within {} s", LOOK_TIME.as_secs())),
            ..Found::default()
        },
    }
}

async fn look_up(host: &Hostname) -> Found {
    let failed = |error: hickory_resolver::net::NetError| Found {
        // A name that is not there is an answer.
        failure: (!error.is_no_records_found()).then(|| error.to_string()),
        ..Found::default()
    };
    let mut builder = match Resolver::builder_tokio() {
        Ok(builder) => builder,
        Err(error) => return failed(error),
    };
    builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    let resolver = match builder.build() {
        Ok(resolver) => resolver,
        Err(error) => return failed(error),
    };
    // With its dot, no search domain is added.
    let name = format!("{host}.");
    let mut found = match resolver.lookup_ip(name.as_str()).await {
        Ok(addresses) => by_address(addresses.iter().take(MAX_ADDRESSES)),
        Err(error) => return failed(error),
    };
    if let Ok(aliases) = resolver.lookup(name.as_str(), RecordType::CNAME).await {
        let names = aliases
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::CNAME(alias) => Some(alias.to_string().trim_end_matches('.').to_owned()),
                _ => None,
            });
        found.records.cname = names.take(MAX_ADDRESSES).collect();
    }
    found
}

fn by_address(addresses: impl Iterator<Item = IpAddr>) -> Found {
    let mut found = Found::default();
    for address in addresses {
        let text = address.to_string();
        match address {
            IpAddr::V4(_) => found.records.a.push(text.clone()),
            IpAddr::V6(_) => found.records.aaaa.push(text.clone()),
        }
        if is_ours(address) {
            found.here.push(text.clone());
        }
        found.records.resolved_addresses.push(text);
    }
    found
}

/// Returns whether an address is this machine's: only then can a socket have it.
fn is_ours(address: IpAddr) -> bool {
    !address.is_unspecified() && !address.is_multicast() && UdpSocket::bind((address, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_sorted_by_kind_and_ours_are_known() {
        let text = ["127.0.0.1", "192.0.2.7", "2001:db8::7", "0.0.0.0"];
        let found = by_address(text.iter().map(|text| text.parse().unwrap()));
        assert_eq!(found.records.a, ["127.0.0.1", "192.0.2.7", "0.0.0.0"]);
        assert_eq!(found.records.aaaa, ["2001:db8::7"]);
        assert_eq!(found.here, ["127.0.0.1"]);
    }
}
