//! No file makes reading fall over, and every problem has a place inside the file.

use hangar_config::app::{Build, Experimental, ServiceSection};
use hangar_config::{AppConfig, Format, Inputs, load, size, words};
use proptest::prelude::*;

use crate::FULL;

fn survives(text: &str, format: Format) {
    let loaded = load(text, format);
    let lines = text.split('\n').count();
    for problem in &loaded.problems {
        assert!(!problem.message.is_empty());
        assert!(
            problem.line.is_none_or(|l| (1..=lines).contains(&l)),
            "{problem}"
        );
        assert!(!problem.to_string().is_empty());
    }
    assert_eq!(
        loaded.is_valid(),
        !loaded.problems.iter().any(|p| p.is_error())
    );
    if loaded.decodes
        && let Some(config) = &loaded.read
    {
        reads_what_it_writes(config);
    }
    if loaded.is_deployable()
        && let Some(config) = loaded.config
    {
        let files = config.needed_files().into_iter();
        let inputs = Inputs {
            files: files.map(|f| (f.to_owned(), Vec::new())).collect(),
            ..Inputs::default()
        };
        config
            .machine_configs(&inputs)
            .expect("a valid file has Machines");
    }
}

/// Reading, writing and reading again gives the same, in every format.
fn reads_what_it_writes(config: &AppConfig) {
    // An empty one is dropped when it is read, also by Fly's client.
    let plain = |config: &AppConfig| {
        let mut config = config.clone();
        config.build = config.build.filter(|b| *b != Build::default());
        config.experimental = config
            .experimental
            .filter(|e| *e != Experimental::default());
        config.services.retain(|s| *s != ServiceSection::default());
        config
    };
    for format in [Format::Toml, Format::Json, Format::Yaml] {
        let text = config.write(format);
        let again = load(&text, format);
        let read = again
            .read
            .unwrap_or_else(|| panic!("{text}\n{:?}", again.problems));
        assert_eq!(plain(&read), plain(config), "{format:?}\n{text}");
    }
    let stored = AppConfig::from_definition(&config.definition()).expect("it was written");
    assert_eq!(&stored, config);
}

/// Values of all kinds, to be put where others stand.
const VALUES: [&str; 16] = [
    "1",
    "-1",
    "1.5",
    "nan",
    "true",
    "'text'",
    "''",
    "[]",
    "[1]",
    "[[]]",
    "{}",
    "{a = 1}",
    "99999999999",
    "2024-01-01",
    "['web', '']",
    "'15s'",
];

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 600,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_text_is_read_or_refused(text in "\\PC{0,200}") {
        survives(&text, Format::Toml);
        survives(&text, Format::Json);
        survives(&text, Format::Yaml);
    }

    #[test]
    fn a_file_with_pieces_cut_out_is_read_or_refused(
        cuts in proptest::collection::vec((0_usize..2000, 0_usize..40), 1..4),
    ) {
        let mut text: Vec<char> = FULL.chars().collect();
        for (at, len) in cuts {
            let at = at % text.len();
            let end = (at + len).min(text.len());
            text.drain(at..end);
        }
        survives(&text.into_iter().collect::<String>(), Format::Toml);
    }

    #[test]
    fn any_value_in_any_place_is_read_or_refused(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), 0..VALUES.len()), 1..4),
    ) {
        let mut lines: Vec<String> = FULL.lines().map(str::to_owned).collect();
        for (line, value) in changes {
            let line = line.get_mut(&mut lines);
            if let Some((key, _)) = line.clone().split_once(" = ") {
                *line = format!("{key} = {}", VALUES[value]);
            }
        }
        survives(&lines.join("\n"), Format::Toml);
    }

    #[test]
    fn lines_in_any_order_are_read_or_refused(
        lines in proptest::sample::subsequence(FULL.lines().collect::<Vec<_>>(), 0..70).prop_shuffle(),
    ) {
        survives(&lines.join("\n"), Format::Toml);
    }

    #[test]
    fn any_command_splits_or_says_why(command in "[a-z '\"\\\\#\n]{0,30}") {
        let _ = words::split(&command);
    }

    #[test]
    fn any_size_is_one_or_says_why(text in "[0-9.a-zA-Z +-]{0,12}") {
        let _ = size::parse(&text, size::Unit::MemoryMb);
        let _ = size::parse(&text, size::Unit::VolumeGb);
    }
}

#[test]
fn deep_nesting_is_refused_not_followed() {
    survives(&format!("a = {}", "[".repeat(50_000)), Format::Toml);
    survives(&"[".repeat(50_000), Format::Json);
    let deep = format!("{}a = 1", "a.".repeat(5_000));
    let thread = std::thread::Builder::new().stack_size(1 << 20);
    let run = thread.spawn(move || survives(&deep, Format::Toml)).unwrap();
    run.join().unwrap();
}
