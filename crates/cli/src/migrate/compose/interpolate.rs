//! Variables in Compose files: `$NAME`, `${NAME}`, `${NAME:-default}` and their kin.

use std::collections::BTreeMap;

use serde_json::Value;

/// A text with its variables filled in.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Filled {
    pub(super) text: String,
    /// Variables that have no value and no default: an empty text stands for them.
    pub(super) missing: Vec<String>,
}

/// Fills in a text. `$$` is a dollar sign.
pub(super) fn fill(text: &str, variables: &BTreeMap<String, String>) -> Filled {
    let mut out = Filled::default();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.text.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.text.push('$');
            rest = after;
        } else if let Some(inner) = rest.strip_prefix('{') {
            let end = closing(inner);
            braced(&inner[..end], variables, &mut out);
            rest = inner.get(end + 1..).unwrap_or("");
        } else {
            let end = name_end(rest);
            if end == 0 {
                out.text.push('$');
            } else {
                plain(&rest[..end], variables, &mut out);
            }
            rest = &rest[end..];
        }
    }
    out.text.push_str(rest);
    out
}

/// Fills in all texts of a tree, and returns where which variables were missing.
pub(super) fn fill_tree(
    value: &mut Value,
    at: &str,
    variables: &BTreeMap<String, String>,
    missing: &mut Vec<(String, String)>,
) {
    match value {
        Value::String(text) => {
            let filled = fill(text, variables);
            missing.extend(filled.missing.into_iter().map(|name| (at.to_owned(), name)));
            *text = filled.text;
        }
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                fill_tree(item, &format!("{at}[{index}]"), variables, missing);
            }
        }
        Value::Object(map) => {
            for (key, item) in map.iter_mut() {
                let at = if at.is_empty() {
                    key.clone()
                } else {
                    format!("{at}.{key}")
                };
                // What of the environment is missing becomes a secret, which only its reader knows.
                if key != "environment" {
                    fill_tree(item, &at, variables, missing);
                }
            }
        }
        _ => {}
    }
}

/// Returns where the brace that was opened closes.
fn closing(inner: &str) -> usize {
    let mut depth = 1_usize;
    for (index, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return index;
        }
    }
    inner.len()
}

fn name_end(text: &str) -> usize {
    text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .unwrap_or(text.len())
}

fn plain(name: &str, variables: &BTreeMap<String, String>, out: &mut Filled) {
    match variables.get(name) {
        Some(value) => out.text.push_str(value),
        None => out.missing.push(name.to_owned()),
    }
}

fn braced(inner: &str, variables: &BTreeMap<String, String>, out: &mut Filled) {
    let end = name_end(inner);
    let (name, rest) = inner.split_at(end);
    let value = variables.get(name).map(String::as_str);
    let (colon, rest) = match rest.strip_prefix(':') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    // With a colon an empty value counts as none.
    let set = value.filter(|value| !colon || !value.is_empty());
    let mut chars = rest.chars();
    match (chars.next(), set) {
        (Some('-'), None) => {
            let default = fill(chars.as_str(), variables);
            out.text.push_str(&default.text);
            out.missing.extend(default.missing);
        }
        (Some('+'), Some(_)) => out.text.push_str(&fill(chars.as_str(), variables).text),
        (Some('+'), None) => {}
        (_, Some(value)) => out.text.push_str(value),
        (_, None) => out.missing.push(name.to_owned()),
    }
}

/// Returns the pairs of an env file: `NAME=VALUE` lines, quotes, comments and `export`. Lines of a
/// name alone take the value of whoever runs Compose: their names come second.
pub(crate) fn env_file(text: &str) -> (Vec<(String, String)>, Vec<String>) {
    let (mut pairs, mut bare) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let line = line.trim();
        let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, value)) = line.split_once('=') else {
            bare.push(line.to_owned());
            continue;
        };
        let value = value.trim();
        let quoted = |quote: char| {
            let inner = value.strip_prefix(quote)?;
            inner.rfind(quote).map(|end| inner[..end].to_owned())
        };
        let value = match (quoted('"'), quoted('\'')) {
            (Some(inner), _) => inner.replace("\\n", "\n").replace("\\\"", "\""),
            (None, Some(inner)) => inner,
            (None, None) => {
                let end = value.find(" #").unwrap_or(value.len());
                value[..end].trim_end().to_owned()
            }
        };
        pairs.push((name.trim().to_owned(), value));
    }
    (pairs, bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_filled_in_as_compose_does() {
        let variables = BTreeMap::from([
            ("A".to_owned(), "1".to_owned()),
            ("EMPTY".to_owned(), String::new()),
        ]);
        for (text, expected, missing) in [
            ("$A-${A}-$$A", "1-1-$A", vec![]),
            ("${B:-x${A}}", "x1", vec![]),
            ("${EMPTY:-d} ${EMPTY-d}", "d ", vec![]),
            ("${A:+yes}${B+no}", "yes", vec![]),
            ("postgres://$USER_@db", "postgres://@db", vec!["USER_"]),
            ("${B:?needed} $", " $", vec!["B"]),
            ("${open", "", vec!["open"]),
        ] {
            let filled = fill(text, &variables);
            assert_eq!(
                (filled.text.as_str(), filled.missing),
                (expected, missing.iter().map(ToString::to_string).collect()),
                "{text}"
            );
        }
    }

    #[test]
    fn env_files_have_quotes_comments_and_bare_names() {
        let (pairs, bare) = env_file("# c\nexport A=1 # x\nB=\"two\\nlines\"\nC='$x'\nD\nE=a#b\n");
        let pairs: Vec<String> = pairs.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(pairs, ["A=1", "B=two\nlines", "C=$x", "E=a#b"]);
        assert_eq!(bare, ["D"]);
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_strange(text in "[${}:?+\\-A-C\\PC]{0,40}") {
            let _filled = fill(&text, &BTreeMap::new());
        }
    }
}
