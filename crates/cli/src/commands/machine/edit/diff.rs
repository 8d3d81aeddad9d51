//! What an update changes, line by line.

use hangar_api::machine::MachineConfig;

/// Lines of unchanged text around each change.
const CONTEXT: usize = 2;
/// Most lines that are compared one by one: the work grows with their product.
const MAX_COMPARED: usize = 2000;

/// One line of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line<'a> {
    Same(&'a str),
    Gone(&'a str),
    Come(&'a str),
}

/// Returns the changed lines of the configuration's JSON with some around them; none when nothing
/// changes.
pub(in crate::commands) fn lines(
    from: &MachineConfig,
    to: &MachineConfig,
) -> serde_json::Result<Vec<String>> {
    let from = serde_json::to_string_pretty(from)?;
    let to = serde_json::to_string_pretty(to)?;
    let (old, new): (Vec<&str>, Vec<&str>) = (from.lines().collect(), to.lines().collect());
    Ok(hunks(&compare(&old, &new)))
}

/// Returns the shortest way from `old` to `new` that keeps the most lines.
fn compare<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<Line<'a>> {
    let head = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (old_rest, new_rest) = (&old[head..], &new[head..]);
    let tail = old_rest.iter().rev().zip(new_rest.iter().rev());
    let tail = tail.take_while(|(a, b)| a == b).count();
    let old_middle = &old_rest[..old_rest.len() - tail];
    let new_middle = &new_rest[..new_rest.len() - tail];
    let mut lines: Vec<Line<'a>> = old[..head].iter().map(|l| Line::Same(l)).collect();
    if old_middle.len().max(new_middle.len()) > MAX_COMPARED {
        lines.extend(old_middle.iter().map(|l| Line::Gone(l)));
        lines.extend(new_middle.iter().map(|l| Line::Come(l)));
    } else {
        lines.extend(longest_common(old_middle, new_middle));
    }
    lines.extend(old_rest[old_middle.len()..].iter().map(|l| Line::Same(l)));
    lines
}

fn longest_common<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<Line<'a>> {
    // kept[i][j]: how many lines stay, of old[i..] and new[j..].
    let mut kept = vec![vec![0_u32; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            kept[i][j] = if old[i] == new[j] {
                kept[i + 1][j + 1] + 1
            } else {
                kept[i + 1][j].max(kept[i][j + 1])
            };
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            lines.push(Line::Same(old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && kept[i + 1][j] >= kept[i][j + 1]) {
            lines.push(Line::Gone(old[i]));
            i += 1;
        } else {
            lines.push(Line::Come(new[j]));
            j += 1;
        }
    }
    lines
}

fn hunks(lines: &[Line<'_>]) -> Vec<String> {
    let changed: Vec<usize> = lines
        .iter()
        .enumerate()
        .filter(|(_, line)| !matches!(line, Line::Same(_)))
        .map(|(at, _)| at)
        .collect();
    let is_near = |at: usize| changed.iter().any(|c| c.abs_diff(at) <= CONTEXT);
    let mut out = Vec::new();
    let mut last = None;
    for (at, line) in lines.iter().enumerate().filter(|(at, _)| is_near(*at)) {
        if last.is_some_and(|last| last + 1 < at) {
            out.push("  ...".to_owned());
        }
        last = Some(at);
        out.push(match line {
            Line::Same(text) => format!("  {text}"),
            Line::Gone(text) => format!("- {text}"),
            Line::Come(text) => format!("+ {text}"),
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_changes_is_shown_with_what_is_around_it() {
        let mut from = MachineConfig {
            image: "web".to_owned(),
            ..MachineConfig::default()
        };
        for (name, value) in [("A", "1"), ("B", "2"), ("C", "3"), ("D", "4"), ("E", "5")] {
            from.env.insert(name.to_owned(), value.to_owned());
        }
        let mut to = from.clone();
        to.env.insert("C".to_owned(), "9".to_owned());
        let shown = lines(&from, &to).unwrap();
        assert_eq!(
            shown,
            [
                "      \"A\": \"1\",",
                "      \"B\": \"2\",",
                "-     \"C\": \"3\",",
                "+     \"C\": \"9\",",
                "      \"D\": \"4\",",
                "      \"E\": \"5\"",
            ]
        );
        assert!(lines(&from, &from).unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn the_way_leads_from_one_to_the_other(
            old in proptest::collection::vec("[a-d]", 0..20),
            new in proptest::collection::vec("[a-d]", 0..20),
        ) {
            let old: Vec<&str> = old.iter().map(String::as_str).collect();
            let new: Vec<&str> = new.iter().map(String::as_str).collect();
            let way = compare(&old, &new);
            let before: Vec<&str> = way.iter().filter_map(|l| match l {
                Line::Same(t) | Line::Gone(t) => Some(*t),
                Line::Come(_) => None,
            }).collect();
            let after: Vec<&str> = way.iter().filter_map(|l| match l {
                Line::Same(t) | Line::Come(t) => Some(*t),
                Line::Gone(_) => None,
            }).collect();
            prop_assert_eq!(before, old);
            prop_assert_eq!(after, new);
        }
    }
}
