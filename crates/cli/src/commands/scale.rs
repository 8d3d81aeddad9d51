//! `hangar scale`.

mod count;
mod vm;
mod volumes;

use std::collections::BTreeMap;

use anyhow::Result;
use hangar_api::id::AppName;
use hangar_api::machine::Machine;
use hangar_client::MachineFilter;
use serde_json::json;

pub(super) use vm::sizes;
pub(super) use volumes::{Wanted, create as with_volume};

use crate::args::{ScaleCommand, ShowArgs};
use crate::context::Context;
use crate::error::Exit;
use crate::output;

/// Releases looked through for the newest complete one.
const RELEASES: usize = 100;

pub(super) async fn run(context: &Context, command: ScaleCommand) -> Result<Exit> {
    match command {
        ScaleCommand::Show(args) => show(context, &args).await,
        ScaleCommand::Count(args) => count::run(context, args).await,
        ScaleCommand::Vm {
            size,
            app,
            process_group,
            vm_memory,
        } => {
            let wanted = vm::Wanted {
                size: Some(size),
                memory: vm_memory,
                group: process_group,
            };
            vm::run(context, &app, wanted).await
        }
        ScaleCommand::Memory {
            memory,
            app,
            process_group,
        } => {
            let wanted = vm::Wanted {
                size: None,
                memory: Some(memory),
                group: process_group,
            };
            vm::run(context, &app, wanted).await
        }
    }
}

async fn managed(context: &Context, app: &AppName) -> Result<Vec<Machine>> {
    let machines = context
        .client
        .machines(app, &MachineFilter::default())
        .await?;
    Ok(machines
        .into_iter()
        .filter(|m| m.config.is_managed() && m.state.is_active())
        .collect())
}

async fn show(context: &Context, args: &ShowArgs) -> Result<Exit> {
    let app = context.app(&args.app).await?.name;
    let machines = managed(context, &app).await?;
    let mut groups: BTreeMap<&str, Vec<&Machine>> = BTreeMap::new();
    for machine in &machines {
        groups
            .entry(machine.process_group())
            .or_default()
            .push(machine);
    }
    let mut rows = Vec::new();
    let mut records = Vec::new();
    for (group, machines) in groups {
        let guest = machines
            .first()
            .and_then(|m| m.config.guest.clone())
            .unwrap_or_default();
        let mut regions: BTreeMap<&str, usize> = BTreeMap::new();
        for machine in &machines {
            *regions.entry(machine.region.as_str()).or_default() += 1;
        }
        let names = regions.iter().map(|(name, n)| {
            if *n > 1 {
                format!("{name}({n})")
            } else {
                (*name).to_owned()
            }
        });
        rows.push(vec![
            group.to_owned(),
            machines.len().to_string(),
            guest.cpu_kind.clone(),
            guest.cpus.to_string(),
            format!("{} MB", guest.memory_mb),
            names.collect::<Vec<_>>().join(","),
        ]);
        records.push(json!({
            "Process": group, "Count": machines.len(), "CPUKind": guest.cpu_kind, "CPUs": guest.cpus,
            "Memory": guest.memory_mb, "Regions": regions,
        }));
    }
    if args.json {
        output::json(&records)?;
    } else {
        output::data(&format!("VM Resources for app: {app}\n"))?;
        output::table(
            Some("Groups"),
            &["Name", "Count", "Kind", "CPUs", "Memory", "Regions"],
            &rows,
        )?;
    }
    Ok(Exit::Done)
}
