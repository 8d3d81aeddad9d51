//! "Did you mean": the nearest of the known names, and what to write instead of keys that do
//! nothing (process-groups-and-deploy.md 1.7.17).

use crate::app::AppConfig;
use crate::schema::{Described, Section};

/// Keys that people write in vain, by section ("" is any), and what to say to each.
const IN_VAIN: &[(&str, &str, &str)] = &[
    ("", "max_machines_running", COUNTS),
    ("", "max_machines_count", COUNTS),
    ("", "auto_machine_start", "write auto_start_machines"),
    ("", "auto_machine_stop", "write auto_stop_machines"),
    ("", "min_machine_running", "write min_machines_running"),
    ("", "cron", KEEPS_TIME),
    ("", "schedule", KEEPS_TIME),
    ("", "scaling", "use `scale count`"),
    ("", "health_checks", "write [checks.NAME]"),
    ("", "resources", "write [[vm]]"),
    ("", "secondary_region", "use `scale count --region`"),
    ("", "org", "an app has its organisation from `apps create`"),
    ("Build", "target", "write build-target"),
    ("HttpService", "redirects", "write force_https = true"),
    (
        "HttpService",
        "ports",
        "http_service always has ports 80 and 443; write [[services]] for others",
    ),
    (
        "HttpService",
        "protocol",
        "http_service speaks HTTP; write [[services]] for others",
    ),
    (
        "HttpService",
        "tcp_checks",
        "write [[http_service.checks]], or [[services]] with tcp_checks",
    ),
    (
        "HttpService",
        "http_checks",
        "write [[http_service.checks]]",
    ),
    (
        "ServiceSection",
        "checks",
        "write [[services.tcp_checks]] or [[services.http_checks]]",
    ),
    (
        "ServiceSection",
        "force_https",
        "write it under [[services.ports]]",
    ),
    (
        "ServiceSection",
        "handlers",
        "write them under [[services.ports]]",
    ),
    ("ServiceSection", "script_checks", "does nothing any more"),
    ("ServiceSection", "restart_limit", "does nothing any more"),
    (
        "Port",
        "protocol",
        "write it in [[services]], beside internal_port",
    ),
    (
        "Port",
        "internal_port",
        "write it in [[services]], beside protocol",
    ),
    (
        "TcpCheck",
        "port",
        "a check of a service goes to its internal_port; write [checks.NAME] for another port",
    ),
    (
        "HttpCheck",
        "port",
        "a check of a service goes to its internal_port; write [checks.NAME] for another port",
    ),
    ("TcpCheck", "restart_limit", "no check restarts a Machine"),
    ("HttpCheck", "restart_limit", "no check restarts a Machine"),
    (
        "Vm",
        "min_machines_running",
        "write it in [http_service] or [[services]]",
    ),
    (
        "Vm",
        "auto_stop_machines",
        "write it in [http_service] or [[services]]",
    ),
    (
        "Vm",
        "auto_start_machines",
        "write it in [http_service] or [[services]]",
    ),
    (
        "Experimental",
        "allowed_public_ports",
        "write [[services]]; this did nothing on Fly either",
    ),
    (
        "Experimental",
        "private_network",
        "every app has a private network",
    ),
    (
        "Experimental",
        "enable_6pn",
        "every app has a private network",
    ),
    // Moved by the step before, so they are known, yet unknown to the section.
    (
        "Experimental",
        "kill_timeout",
        "write it at the top of the file",
    ),
    ("Experimental", "metrics_port", "write [metrics] with port"),
    ("Experimental", "metrics_path", "write [metrics] with path"),
];

const COUNTS: &str = "Machines are only added by `scale count`";
const KEEPS_TIME: &str = "give the job a group in [processes], deploy, and use `machine update -g GROUP --schedule daily`";

/// Longest name that is compared: distance is quadratic.
const MAX_LEN: usize = 64;

/// Returns what to say about an unknown key of a section.
pub(crate) fn hint(section: &Section, key: &str) -> Option<String> {
    let folded = key.to_lowercase().replace('-', "_");
    let said = |(of, name, _): &&(&str, &str, &str)| {
        *name == folded && (of.is_empty() || *of == section.name)
    };
    if let Some((.., what)) = IN_VAIN.iter().find(said) {
        return Some((*what).to_owned());
    }
    if let Some(near) = nearest(&folded, &section.keys()) {
        return Some(format!("did you mean {near}?"));
    }
    let top = AppConfig::SECTION;
    if top.field(&folded).is_some() && section.name != top.name {
        return Some(format!("{folded} belongs at the top of the file"));
    }
    let inner = top.fields.iter().filter_map(|f| Some((f.key, f.inner()?)));
    let mut homes = inner.filter(|(_, of)| of.field(&folded).is_some());
    let (home, _) = homes.next()?;
    Some(format!("{folded} is a key of {home}"))
}

/// Returns what to say about an unknown name of which there are only these.
pub(crate) fn name(name: &str, known: &[&str]) -> Option<String> {
    nearest(&name.to_lowercase(), known).map(|near| format!("did you mean {near}?"))
}

fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let distances = known.iter().map(|k| (distance(name, k), *k));
    let (edits, near) = distances.min_by_key(|(d, _)| *d)?;
    let limit = (name.len() / 3).clamp(1, 4);
    (edits <= limit).then_some(near)
}

/// Returns the number of edits (with swaps of neighbours) between two names.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(MAX_LEN).collect();
    let b: Vec<char> = b.chars().take(MAX_LEN).collect();
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let same = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1)
                .min(row[j - 1] + 1)
                .min(rows[i - 1][j - 1] + same);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_recognised_and_a_stranger_is_not() {
        let hint = |key: &str| hint(AppConfig::SECTION, key);
        assert_eq!(hint("serivces").as_deref(), Some("did you mean services?"));
        let dashed = hint("Primary-Region");
        assert_eq!(dashed.as_deref(), Some("did you mean primary_region?"));
        assert_eq!(hint("banana"), None);
        assert!(hint("schedule").unwrap().contains("[processes]"));
        let home = hint("release_command");
        assert_eq!(home.as_deref(), Some("release_command is a key of deploy"));
    }
}
