//! `hangar services`.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use hangar_api::edge::EdgeMap;
use hangar_api::machine::Machine;
use hangar_client::MachineFilter;

use crate::args::ListCommand;
use crate::context::Context;
use crate::error::Exit;
use crate::output;

/// A port as many Machines may offer it: protocol, external, internal, handlers, forced https.
type Key = (String, String, u16, String, bool);

#[derive(Default)]
struct Offer {
    groups: BTreeSet<String>,
    regions: BTreeSet<String>,
    machines: usize,
}

pub(super) async fn run(context: &Context, command: ListCommand) -> Result<Exit> {
    let ListCommand::List(args) = command;
    let app = context.app(&args.app).await?.name;
    let machines = context
        .client
        .machines(&app, &MachineFilter::default())
        .await?;
    if args.json {
        let all: Vec<_> = machines.iter().flat_map(|m| &m.config.services).collect();
        output::json(&all)?;
        return Ok(Exit::Done);
    }
    let edge = context.client.edge().await?;
    let mut offers: BTreeMap<Key, Offer> = BTreeMap::new();
    for machine in &machines {
        collect(machine, &mut offers);
    }
    let rows: Vec<Vec<String>> = offers
        .into_iter()
        .map(|(key, offer)| row(key, &offer, &edge))
        .collect();
    let headers = [
        "Protocol",
        "Ports",
        "Bound At",
        "Handlers",
        "Force HTTPS",
        "Process Group",
        "Regions",
        "Machines",
    ];
    output::table(Some("Services"), &headers, &rows)?;
    Ok(Exit::Done)
}

fn collect(machine: &Machine, offers: &mut BTreeMap<Key, Offer>) {
    for service in &machine.config.services {
        for port in &service.ports {
            let range = port.range();
            let external = match range.clone().count() {
                1 => range.start().to_string(),
                _ => format!("{}-{}", range.start(), range.end()),
            };
            let handlers = format!("[{}]", port.handlers.join(",").to_uppercase());
            let key = (
                service.protocol.to_uppercase(),
                external,
                service.internal_port,
                handlers,
                port.force_https,
            );
            let offer = offers.entry(key).or_default();
            offer.groups.insert(machine.process_group().to_owned());
            offer.regions.insert(machine.region.to_string());
            offer.machines += 1;
        }
    }
}

fn row(
    (protocol, external, internal, handlers, force): Key,
    offer: &Offer,
    edge: &EdgeMap,
) -> Vec<String> {
    let list = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(",");
    // Of a range, its first port stands for all, and the first that is not served is told.
    let (first, last) = external.split_once('-').unwrap_or((&external, &external));
    let ports = first.parse::<u16>().ok().zip(last.parse::<u16>().ok());
    let (open, closed) = if protocol == "UDP" {
        (&edge.udp, &edge.udp_refused)
    } else {
        (&edge.ports, &edge.refused)
    };
    let bound = ports
        .and_then(|(first, _)| open.get(&first))
        .map(|bound| format!("{}:{bound}", edge.address));
    let refused = ports
        .and_then(|(first, last)| closed.range(first..=last).next())
        .map(|(port, reason)| format!("{port} nowhere: {reason}"));
    vec![
        protocol,
        format!("{external} => {internal}"),
        refused.or(bound).unwrap_or_default(),
        handlers,
        if force { "True" } else { "False" }.to_owned(),
        list(&offer.groups),
        list(&offer.regions),
        offer.machines.to_string(),
    ]
}
