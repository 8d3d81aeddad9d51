//! The pages that are generated from the types are as the types are.

use std::path::Path;

use hangar_config::schema;

fn page(name: &str) -> String {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference");
    std::fs::read_to_string(docs.join(name)).unwrap()
}

const HOW: &str = "run `cargo xtask docs`";

#[test]
fn the_reference_and_the_schema_are_those_of_the_types() {
    assert_eq!(page("fly-toml.md"), schema::reference(), "{HOW}");
    let written: serde_json::Value = serde_json::from_str(&page("fly-toml.schema.json")).unwrap();
    assert_eq!(written, schema::json_schema(), "{HOW}");
}

#[test]
fn the_differences_name_every_key_that_is_not_acted_on() {
    assert!(
        page("differences.md").contains(&schema::not_acted_on()),
        "{HOW}"
    );
}

/// Returns the texts between two marks.
fn between<'a>(mut text: &'a str, open: &str, close: &str) -> Vec<&'a str> {
    let mut found = Vec::new();
    while let Some((_, rest)) = text.split_once(open) {
        let Some((inner, rest)) = rest.split_once(close) else {
            break;
        };
        found.push(inner);
        text = rest;
    }
    found
}

/// Returns whether a test that is named as `crate/file: function` is in the sources.
fn is_there(named: &str) -> bool {
    let Some(((name, file), function)) = named
        .split_once(": ")
        .and_then(|(place, function)| Some((place.split_once('/')?, function)))
    else {
        return false;
    };
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    let wanted = format!("fn {function}(");
    ["tests/it", "src"].iter().any(|folder| {
        let path = home.join(folder).join(format!("{file}.rs"));
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let Some((before, _)) = text.split_once(&wanted) else {
            return false;
        };
        // An attribute stands above it, with no function in between.
        let above = before.rsplit("\n\n").next().unwrap_or_default();
        above.contains("#[test]") || above.contains("#[tokio::test")
    })
}

#[test]
fn every_row_of_the_specs_page_names_tests_that_are_there_or_says_why_not() {
    let (page, differences) = (page("spec-tests.md"), page("differences.md"));
    let rows = page
        .lines()
        .filter(|l| l.starts_with("| ") && *l != "| What | Here |");
    let mut wrong = Vec::new();
    let mut count = 0;
    for row in rows {
        count += 1;
        let here = row
            .trim_end_matches(" |")
            .rsplit(" | ")
            .next()
            .unwrap_or_default();
        let is_test = |text: &&str| text.contains(": ");
        let tests: Vec<&str> = between(here, "`", "`")
            .into_iter()
            .filter(is_test)
            .collect();
        let missing = tests.iter().filter(|test| !is_there(test));
        wrong.extend(missing.map(|test| format!("{test} is not there")));
        let quoted = between(here, "*difference* \"", "\"");
        let unknown = quoted.iter().filter(|text| !differences.contains(**text));
        wrong.extend(unknown.map(|text| format!("no row of the differences says {text}")));
        let says_why = ["*client*", "*later*"].iter().any(|w| here.contains(w));
        if tests.is_empty() && quoted.is_empty() && !says_why {
            wrong.push(format!("nothing is said of {row}"));
        }
    }
    assert!(count > 120, "{count}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(!is_there("config/keys: no_such_test") && !is_there("config/keys: config"));
}
