//! Files beside what Fly's own client makes of each: one test that names what differs.
//!
//! `tests/golden` holds the files and, in `expected.jsonl`, the client's answers. Equal as values:
//! the verdict, unknown keys, groups, Machine configurations, helpers, address; equal as text:
//! TOML and JSON. What differs on purpose stands in [`DIFFERENT`], with the reason.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use hangar_config::app::{Build, Experimental, ServiceSection};
use hangar_config::{AppConfig, Format, Inputs, Loaded, load_bytes};
use serde_json::{Value as Json, json};

/// What differs on purpose: file, what of it, and why. Also told in the reference of differences.
const DIFFERENT: &[(&str, &str, &str)] = &[
    ("json-null-pointers-in-lists.json", "json", NULL_ITEM),
    ("json-null-pointers-in-lists.json", "toml", NULL_ITEM),
];
const NULL_ITEM: &str = "a null in a list of tables is read, and written, as an empty table";

#[derive(Default)]
struct Report {
    /// By file and part: what differs, shortened.
    found: BTreeMap<(String, String), String>,
}

impl Report {
    fn equal(&mut self, file: &str, part: &str, ours: &Json, theirs: &Json) {
        if ours != theirs {
            let both = format!("ours:   {ours}\n    theirs: {theirs}");
            self.found.insert((file.to_owned(), part.to_owned()), both);
        }
    }

    fn texts(&mut self, file: &str, part: &str, ours: &str, theirs: &str) {
        if ours == theirs {
            return;
        }
        let line = ours.lines().zip(theirs.lines()).position(|(a, b)| a != b);
        let at = line.unwrap_or_else(|| ours.lines().count().min(theirs.lines().count()));
        let show = |text: &str| {
            let lines: Vec<&str> = text.lines().skip(at.saturating_sub(1)).take(4).collect();
            lines.join(" ⏎ ")
        };
        let both = format!(
            "line {}: ours: {}\n    theirs: {}",
            at + 1,
            show(ours),
            show(theirs)
        );
        self.found.insert((file.to_owned(), part.to_owned()), both);
    }
}

#[test]
fn every_file_is_read_and_written_as_flys_client_does() {
    let mut report = Report::default();
    let mut seen = 0;
    for folder in ["hand", "gen"] {
        let folder = root().join(folder);
        let expected = std::fs::read_to_string(folder.join("expected.jsonl")).unwrap();
        for line in expected.lines() {
            let expected: Json = serde_json::from_str(line).unwrap();
            compare(&folder, &expected, &mut report);
            seen += 1;
        }
    }
    assert_eq!(seen, 434, "the set is complete");
    // Another set of the same shape, kept elsewhere.
    if let Some(folder) = std::env::var_os("HANGAR_GOLDEN") {
        let folder = PathBuf::from(folder);
        let expected = std::fs::read_to_string(folder.join("expected.jsonl")).unwrap();
        for line in expected.lines() {
            compare(&folder, &serde_json::from_str(line).unwrap(), &mut report);
        }
    }
    let listed: BTreeSet<(&str, &str)> = DIFFERENT.iter().map(|(f, p, _)| (*f, *p)).collect();
    let files: BTreeSet<&str> = DIFFERENT.iter().map(|(f, ..)| *f).collect();
    assert!(files.len() < 25, "the list of differences stays short");
    let unlisted: Vec<String> = report
        .found
        .iter()
        .filter(|((f, p), _)| !listed.contains(&(f.as_str(), p.as_str())))
        .map(|((file, part), both)| format!("{file}: {part}\n    {both}"))
        .collect();
    let shown = unlisted.join("\n");
    assert!(unlisted.is_empty(), "{} differ:\n{shown}", unlisted.len());
    for (file, part, why) in DIFFERENT {
        let key = ((*file).to_owned(), (*part).to_owned());
        assert!(
            report.found.contains_key(&key),
            "{file}: {part} is listed ({why}), and is equal"
        );
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn compare(folder: &Path, expected: &Json, report: &mut Report) {
    let file = expected["file"].as_str().unwrap();
    let bytes = std::fs::read(folder.join(file)).unwrap();
    let loaded = load_bytes(&bytes, Format::of_path(file));
    report.equal(file, "valid", &json!(loaded.is_valid()), &expected["valid"]);
    if !loaded.is_valid() && !loaded.problems.iter().any(hangar_config::Problem::is_error) {
        report.equal(file, "error", &json!("none"), &expected["info"]);
    }
    if expected.get("load_error").is_some() || expected.get("panic").is_some() {
        let syntax = loaded.read.is_none() || expected.get("panic").is_some();
        report.equal(file, "syntax", &json!(syntax), &json!(true));
        return;
    }
    unknown(file, &loaded, &expected["strict"], report);
    messages(file, &loaded, expected, report);
    let Some(config) = &loaded.read else {
        report.equal(
            file,
            "read",
            &json!(loaded.problems[0].to_string()),
            &json!("read"),
        );
        return;
    };
    let decodes = !expected["groups"].to_string().contains("can not flatten");
    report.equal(file, "decodes", &json!(loaded.decodes), &json!(decodes));
    let Some(config) = loaded.decodes.then_some(config) else {
        return;
    };
    groups(folder, file, config, expected, report);
    let written = config.write(Format::Toml);
    if let Some(theirs) = expected["toml"].as_str() {
        report.texts(file, "toml", &written, theirs);
    }
    let ours: Json = serde_json::from_str(&config.write(Format::Json)).unwrap();
    report.equal(file, "json", &ours, &expected["json"]);
    for format in [Format::Toml, Format::Json, Format::Yaml] {
        again(file, config, format, report);
    }
}

/// Reading what was written gives the same.
fn again(file: &str, config: &AppConfig, format: Format, report: &mut Report) {
    let text = config.write(format);
    let loaded = load_bytes(text.as_bytes(), format);
    let part = format!("again {format:?}");
    match &loaded.read {
        Some(read) => {
            let (ours, theirs) = (plain(read), plain(config));
            let (ours, theirs) = (ours.write(Format::Json), theirs.write(Format::Json));
            report.texts(file, &part, &ours, &theirs);
        }
        None => report.equal(
            file,
            &part,
            &json!(loaded.problems[0].to_string()),
            &json!(text),
        ),
    }
}

/// An empty [build], [experimental] or service is dropped when it is read, also by Fly's client.
fn plain(config: &AppConfig) -> AppConfig {
    let mut config = config.clone();
    config.build = config.build.filter(|b| *b != Build::default());
    config.experimental = config
        .experimental
        .filter(|e| *e != Experimental::default());
    config.services.retain(|s| *s != ServiceSection::default());
    config
}

/// Every key that is unknown to Fly is so here; what Fly does not look into may hold more.
fn unknown(file: &str, loaded: &Loaded, strict: &Json, report: &mut Report) {
    let Some(sections) = strict["unrecognized_sections"].as_array() else {
        return;
    };
    let top = sections
        .iter()
        .map(|s| (String::new(), s.as_str().unwrap().to_owned()));
    let mut theirs: BTreeSet<(String, String)> = top.collect();
    for (section, keys) in strict["unrecognized_keys"].as_object().unwrap() {
        let keys = keys.as_array().unwrap().iter();
        theirs.extend(keys.map(|k| (section.clone(), k.as_str().unwrap().to_owned())));
    }
    let all = loaded.unknown.iter();
    let ours: BTreeSet<(String, String)> = all
        .map(|u| (u.section.clone(), u.key.clone()))
        .filter(|(section, _)| {
            let skipped = ["services[", "vm[", "mounts[", "metrics["];
            !skipped.iter().any(|s| section.starts_with(s))
        })
        .collect();
    report.equal(file, "unknown", &json!(ours), &json!(theirs));
}

/// Every line of Fly's findings on a file that decodes is among ours.
fn messages(file: &str, loaded: &Loaded, expected: &Json, report: &mut Report) {
    let said: Vec<&str> = loaded.problems.iter().map(|p| p.message.as_str()).collect();
    for line in expected["info"].as_str().unwrap().lines() {
        let line = line.trim();
        let line = line.strip_prefix("WARN ").unwrap_or(line);
        let skipped = [
            "Validating ",
            "✓",
            "✘",
            "WARNING: Service must",
            "Validation for _services",
        ];
        // Why a size is none is said in Hangar's own words.
        let line = line.split("because of: ").next().unwrap_or(line);
        if line.is_empty() || skipped.iter().any(|s| line.starts_with(s)) {
            continue;
        }
        let found = said.iter().any(|s| line.starts_with(s) || s.contains(line));
        if !found {
            report.equal(file, &format!("says {line}"), &json!(said), &json!(line));
        }
    }
}

fn groups(folder: &Path, file: &str, config: &AppConfig, expected: &Json, report: &mut Report) {
    report.equal(
        file,
        "groups",
        &json!(config.groups()),
        &expected["process_names"],
    );
    let default = json!(config.default_group());
    report.equal(
        file,
        "default group",
        &default,
        &expected["default_process"],
    );
    let url = config.url("fly.dev").map_or(Json::Null, Json::from);
    report.equal(file, "url", &url, &expected["url"]);
    let inputs = inputs(folder, config);
    for group in expected["groups"].as_array().unwrap() {
        let name = group["name"].as_str().unwrap();
        let part = format!("group {name}");
        match (config.machine_json(name, &inputs), group.get("error")) {
            (Ok(mut ours), None) => {
                // The client adds [[files]] only in a deploy; tested in `groups`.
                ours.as_object_mut().unwrap().remove("files");
                report.equal(file, &part, &ours, &group["machine_config"]);
            }
            (Err(_), Some(_)) => {}
            (Ok(ours), Some(error)) => report.equal(file, &part, &ours, error),
            (Err(error), None) => {
                report.equal(
                    file,
                    &part,
                    &json!(error.to_string()),
                    &group["machine_config"],
                );
            }
        }
    }
    match (
        config.release_command_json(&inputs),
        expected.get("release_command_error"),
    ) {
        (Ok(ours), None) => {
            let mut ours = ours.unwrap_or(Json::Null);
            if let Some(config) = ours.as_object_mut() {
                config.remove("files");
            }
            report.equal(file, "release command", &ours, &expected["release_command"]);
        }
        (Err(_), Some(_)) => {}
        (ours, theirs) => {
            let ours = json!(ours.map_err(|e| e.to_string()).map(|_| "one"));
            report.equal(
                file,
                "release command",
                &ours,
                theirs.unwrap_or(&Json::Null),
            );
        }
    }
    let console = config.console_json(&inputs);
    report.equal(file, "console", &console, &expected["console"]);
}

/// The files of a configuration, as far as they are there.
fn inputs(folder: &Path, config: &AppConfig) -> Inputs {
    let files = config.needed_files().into_iter();
    // The client reads a `machine_config` at once, and local files only in a deploy.
    let read = |p: &str| match std::fs::read(folder.join(p)) {
        Ok(content) => Some((p.to_owned(), content)),
        Err(_) if config.local_files().contains(&p) => Some((p.to_owned(), Vec::new())),
        Err(_) => None,
    };
    let files = files.filter_map(read);
    Inputs {
        client_version: "VERSION".to_owned(),
        files: files.collect(),
        ..Inputs::default()
    }
}
