//! The reference of fly.toml as a page, and the table of what is not acted on.

use std::fmt::Write;

use super::json::about;
use super::{Described, Field, Kind, Section};
use crate::app::AppConfig;
use crate::support::{self, TABLE};

/// Returns the reference of fly.toml in Markdown, a heading for each section.
#[must_use]
pub fn reference() -> String {
    let mut page = String::from(
        "# fly.toml\n\nGenerated from the types by `cargo xtask docs`. The file may also be written as `fly.json` or `fly.yaml`.\nWhat Hangar does not act on is marked: *refused* means that `deploy` says no, *not acted on* that it goes on without.\n",
    );
    let mut done: Vec<&str> = Vec::new();
    section(&mut page, "", AppConfig::SECTION, &mut done);
    page
}

fn section(
    page: &mut String,
    path: &str,
    section_: &'static Section,
    done: &mut Vec<&'static str>,
) {
    done.push(section_.name);
    let title = if path.is_empty() {
        "The top of the file".to_owned()
    } else {
        format!("`{path}`")
    };
    let _ = write!(
        page,
        "\n## {title}<a id=\"{}\"></a>\n\n{}\n\n| key | value | |\n|---|---|---|\n",
        section_.name.to_lowercase(),
        about(section_.about)
    );
    for field in section_.fields {
        let here = support::path_of(path, field);
        let mark = mark(&here).map(|m| format!(" **{m}**")).unwrap_or_default();
        let text = about(field.about).replace('|', "\\|");
        let _ = writeln!(page, "| `{}` | {} | {text}{mark} |", field.key, kind(field));
    }
    for field in section_.fields {
        let Some(inner) = field.inner() else { continue };
        if !done.contains(&inner.name) {
            section(page, &support::path_of(path, field), inner, done);
        }
    }
}

/// Returns what is said of a key that is not acted on.
fn mark(path: &str) -> Option<String> {
    let plain = path.trim_end_matches("[]").trim_end_matches(".*");
    let row = TABLE
        .iter()
        .find(|row| row.path == path || row.path == plain)?;
    let word = match row.kind {
        support::Kind::Refused => "refused",
        support::Kind::Named => "not acted on",
    };
    let when = row.when().map(|w| format!(" {w}")).unwrap_or_default();
    Some(format!("{word}{when}: {}", row.why))
}

fn kind(field: &Field) -> String {
    match field.kind {
        Kind::Text | Kind::TextPtr => "text".to_owned(),
        Kind::Flag | Kind::FlagPtr => "true or false".to_owned(),
        Kind::Int | Kind::IntPtr | Kind::U32Ptr => "whole number".to_owned(),
        Kind::FloatPtr => "number".to_owned(),
        Kind::Duration => "duration".to_owned(),
        Kind::Texts => "list of texts".to_owned(),
        Kind::TextMap => "table of texts".to_owned(),
        Kind::AnyMap => "table".to_owned(),
        Kind::Autostop => "\"off\", \"stop\", \"suspend\"".to_owned(),
        Kind::Persist => "\"never\", \"restart\", \"always\"".to_owned(),
        Kind::Table(inner) => link("table", inner),
        Kind::List(inner) => link("list of tables", inner),
        Kind::Named(inner) => link("tables by name", inner),
    }
}

fn link(what: &str, inner: &Section) -> String {
    format!("[{what}](#{})", inner.name.to_lowercase())
}

/// Returns the rows of what is not acted on, as a table in Markdown.
#[must_use]
pub fn not_acted_on() -> String {
    let mut text = String::from("| key | | why |\n|---|---|---|\n");
    for row in TABLE {
        let word = match row.kind {
            support::Kind::Refused => "refused",
            support::Kind::Named => "named",
        };
        let when = row.when().map(|w| format!(" {w}")).unwrap_or_default();
        let _ = writeln!(text, "| `{}`{when} | {word} | {} |", row.path, row.why);
    }
    text
}
