//! What a Machine is in its group's formation.

use hangar_api::formation::GroupFormation;

use super::{Facts, Finding};

/// Says whether it counts, is to go, or is waited for.
pub(super) fn formation(facts: &Facts<'_>) -> Vec<Finding> {
    let Some(formation) = facts.formation else {
        return Vec::new();
    };
    let id = &facts.machine.id;
    let group = facts.machine.config.group_or_app();
    let mut found = Vec::new();
    if formation.retiring.contains(id) {
        let text = format!(
            "it is to go: group {group} should have {}, and it is not among them",
            wanted(formation)
        );
        found.push(Finding::new("formation", text));
    } else if formation.machines.contains(id) {
        let text = format!(
            "it counts for group {group}, which should have {}",
            wanted(formation)
        );
        let hint = format!("hangar scale count {group}=N, hangar regions set REGION -g {group}");
        found.push(Finding::new("formation", text).hint(hint));
    }
    let of_it = formation
        .trouble
        .iter()
        .filter(|line| line.contains(id.as_str()));
    found.extend(of_it.map(|line| Finding::new("formation", line.clone())));
    found
}

/// Returns a count in words, with its regions.
fn wanted(formation: &GroupFormation) -> String {
    let regions: Vec<String> = formation
        .regions
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(region, count)| format!("{count} in {region}"))
        .collect();
    match (formation.count, regions.as_slice()) {
        (0, _) => "no Machines".to_owned(),
        (1, _) => format!("1 Machine ({})", regions.join(", ")),
        (count, _) => format!("{count} Machines ({})", regions.join(", ")),
    }
}
