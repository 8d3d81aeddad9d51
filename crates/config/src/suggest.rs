//! "Did you mean": the nearest of the known names.

/// Names that people write in vain, and what to say to each.
const IN_VAIN: [(&str, &str); 17] = [
    (
        "max_machines_running",
        "Machines are only added by `scale count`",
    ),
    (
        "max_machines_count",
        "Machines are only added by `scale count`",
    ),
    ("auto_machine_start", "write auto_start_machines"),
    ("auto_machine_stop", "write auto_stop_machines"),
    ("min_machine_running", "write min_machines_running"),
    (
        "cron",
        "give the job a group in [processes] and let it keep its own time",
    ),
    ("scaling", "use `scale count`"),
    (
        "schedule",
        "give the job a group in [processes] and let it keep its own time",
    ),
    ("health_checks", "write [checks.NAME]"),
    ("resources", "write [[vm]]"),
    ("secondary_region", "use `scale count --region`"),
    ("org", "an app has its organisation from `apps create`"),
    ("target", "write build-target"),
    ("redirects", "write force_https = true"),
    (
        "allowed_public_ports",
        "write [[services]]; this did nothing on Fly either",
    ),
    ("private_network", "every app has a private network"),
    ("enable_6pn", "every app has a private network"),
];

/// Longest name that is compared: distance is quadratic.
const MAX_LEN: usize = 64;

/// Returns what to say about an unknown name.
pub(crate) fn hint(name: &str, known: &[&str]) -> Option<String> {
    let folded = name.to_lowercase().replace('-', "_");
    if let Some((_, what)) = IN_VAIN.iter().find(|(key, _)| *key == folded) {
        return Some((*what).to_owned());
    }
    let best = known
        .iter()
        .map(|k| (distance(&folded, k), *k))
        .min_by_key(|(d, _)| *d)?;
    let limit = (folded.len() / 3).clamp(1, 4);
    (best.0 <= limit).then(|| format!("did you mean {}?", best.1))
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
        let known = ["services", "processes", "primary_region"];
        assert_eq!(
            hint("serivces", &known).as_deref(),
            Some("did you mean services?")
        );
        assert_eq!(
            hint("Primary-Region", &known).as_deref(),
            Some("did you mean primary_region?")
        );
        assert_eq!(hint("banana", &known), None);
        assert!(hint("schedule", &known).unwrap().contains("[processes]"));
    }
}
