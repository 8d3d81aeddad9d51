//! The text that `secrets import` reads (process-groups-and-deploy.md 7).

/// Returns names and values, in order.
pub(super) fn parse(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut secrets = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let Some((name, value)) = line.split_once('=') else {
            return Err(format!(
                "Secrets must be provided as NAME=VALUE pairs ({trimmed} is invalid)"
            ));
        };
        let value = match value.trim_start().strip_prefix("\"\"\"") {
            Some(first) => block(first, &mut lines).ok_or_else(|| {
                format!(
                    "the value of {} begins with \"\"\" and never ends",
                    name.trim()
                )
            })?,
            None => single(value),
        };
        secrets.push((name.trim().to_owned(), value));
    }
    Ok(secrets)
}

/// Reads on to the closing `"""`; line ends between are kept.
fn block<'a>(first: &str, lines: &mut impl Iterator<Item = &'a str>) -> Option<String> {
    if let Some((value, _)) = first.split_once("\"\"\"") {
        return Some(value.to_owned());
    }
    let mut parts: Vec<&str> = (!first.is_empty()).then_some(first).into_iter().collect();
    for line in lines {
        if let Some((last, _)) = line.split_once("\"\"\"") {
            parts.push(last);
            return Some(parts.join("\n"));
        }
        parts.push(line);
    }
    None
}

/// Cuts a comment that stands outside quotes, and one pair of quotes.
fn single(value: &str) -> String {
    let comment = value
        .match_indices('#')
        .map(|(at, _)| at)
        .find(|at| value[..*at].matches('"').count().is_multiple_of(2));
    let value = value[..comment.unwrap_or(value.len())].trim();
    for quote in ['"', '\''] {
        if let Some(inner) = value
            .strip_prefix(quote)
            .and_then(|v| v.strip_suffix(quote))
        {
            return inner.to_owned();
        }
    }
    value.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_quotes_comments_and_blocks_are_read_as_flyctl_reads_them() {
        let text = "# note\n\nA=1\nB=\"x # y\" # cut\nC='q'\nD=\"\"\"\none\ntwo\"\"\"\nE=\"\"\"flat\"\"\"\nF=a=b\n";
        let read = parse(text).unwrap();
        let want = [
            ("A", "1"),
            ("B", "x # y"),
            ("C", "q"),
            ("D", "one\ntwo"),
            ("E", "flat"),
            ("F", "a=b"),
        ];
        assert_eq!(read, want.map(|(n, v)| (n.to_owned(), v.to_owned())));
        let open = parse("A=1\nB=\"\"\"one\nC=2\n").unwrap_err();
        assert!(open.contains("value of B"), "{open}");
        assert!(
            parse("nonsense")
                .unwrap_err()
                .contains("(nonsense is invalid)")
        );
    }
}
