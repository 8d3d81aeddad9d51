//! What each process group has, and should have.

use std::collections::BTreeMap;

use anyhow::Result;
use hangar_api::formation::{Formations, GroupFormation};
use hangar_api::id::Region;
use hangar_api::machine::Machine;

use crate::output;

/// Prints a line for each group, and below it why one does not have what it should have.
pub(super) fn show(formations: &Formations, machines: &[Machine]) -> Result<()> {
    if formations.groups.is_empty() {
        return Ok(());
    }
    let rows: Vec<Vec<String>> = formations
        .groups
        .iter()
        .map(|(group, formation)| row(group.as_str(), formation, machines))
        .collect();
    let headers = ["Name", "Machines", "Size", "Regions"];
    output::table(Some("\nGroups"), &headers, &rows)?;
    for (group, formation) in &formations.groups {
        for line in &formation.trouble {
            output::data(&format!("\n {group}: {line}"))?;
        }
    }
    Ok(())
}

fn row(group: &str, formation: &GroupFormation, machines: &[Machine]) -> Vec<String> {
    let mine: Vec<&Machine> = machines
        .iter()
        .filter(|m| formation.machines.contains(&m.id))
        .collect();
    let wanted = usize::try_from(formation.count).unwrap_or(usize::MAX);
    let have = if mine.len() == wanted {
        wanted.to_string()
    } else {
        format!("{} of {wanted}", mine.len())
    };
    let guest = mine.first().and_then(|m| m.config.guest.as_ref());
    let guest = guest.or(formation.guest.as_ref()).cloned();
    let mut size = guest.clone().unwrap_or_default().size_name();
    if let Some(guest) = guest {
        size.push_str(&format!(" {} MB", guest.memory_mb));
    }
    let mut regions: BTreeMap<&Region, usize> = BTreeMap::new();
    for region in formation.regions.keys() {
        regions.insert(region, 0);
    }
    for machine in &mine {
        *regions.entry(&machine.region).or_default() += 1;
    }
    let names = regions.iter().map(|(region, n)| match n {
        1 => region.to_string(),
        n => format!("{region}({n})"),
    });
    let mut places = names.collect::<Vec<_>>().join(",");
    if !formation.backup_regions.is_empty() {
        let codes = formation.backup_regions.iter().map(Region::as_str);
        places.push_str(&format!(" backup {}", codes.collect::<Vec<_>>().join(",")));
    }
    vec![group.to_owned(), have, size, places]
}
