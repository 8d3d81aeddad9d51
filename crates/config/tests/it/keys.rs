//! Every key of the file does something, or stands in the table of those that are not acted on.

use std::collections::BTreeMap;
use std::path::Path;

use hangar_config::schema::{Described, Kind, Section};
use hangar_config::support::TABLE;
use hangar_config::{AppConfig, Format, Inputs, load};
use serde_json::{Map, Value as Json, json};

/// Keys whose effect is not in a Machine's configuration, or not there alone, and the test that
/// shows it: a file below `crates`, and the test's name.
const ELSEWHERE: &[(&str, &str, &str)] = &[
    (
        "app",
        "cli/tests/it/deploy.rs",
        "the_folder_comes_first_and_a_configuration_is_looked_for_from_there",
    ),
    (
        "build.image",
        "cli/tests/it/deploy.rs",
        "a_version_that_fails_its_check_is_put_back_with_config_image_and_secrets",
    ),
    (
        "build.dockerfile",
        "cli/tests/it/images.rs",
        "a_dockerfile_is_built_with_its_arguments_target_and_ignore_file",
    ),
    (
        "build.ignorefile",
        "cli/tests/it/images.rs",
        "a_dockerfile_is_built_with_its_arguments_target_and_ignore_file",
    ),
    (
        "build.args",
        "cli/tests/it/images.rs",
        "a_dockerfile_is_built_with_its_arguments_target_and_ignore_file",
    ),
    (
        "build.build-target",
        "cli/tests/it/images.rs",
        "a_dockerfile_is_built_with_its_arguments_target_and_ignore_file",
    ),
    (
        "console_command",
        "cli/tests/it/sessions.rs",
        "a_console_has_a_machine_of_its_own_that_goes_with_it",
    ),
    (
        "deploy.strategy",
        "cli/tests/it/strategies.rs",
        "bluegreen_makes_new_machines_and_removes_the_old_ones",
    ),
    (
        "deploy.max_unavailable",
        "cli/tests/it/deploy.rs",
        "secrets_and_rollbacks_keep_to_the_deploy_section_of_the_release",
    ),
    (
        "statics[].guest_path",
        "proxy/tests/it/statics.rs",
        "a_file_below_a_prefix_is_answered_without_the_app",
    ),
    (
        "statics[].url_prefix",
        "proxy/tests/it/statics.rs",
        "a_file_below_a_prefix_is_answered_without_the_app",
    ),
    (
        "deploy.wait_timeout",
        "cli/tests/it/deploy.rs",
        "secrets_and_rollbacks_keep_to_the_deploy_section_of_the_release",
    ),
    (
        "http_service.http_options.compress",
        "proxy/tests/it/options.rs",
        "an_answer_is_compressed_for_a_client_that_takes_it",
    ),
    (
        "http_service.http_options.idle_timeout",
        "proxy/tests/it/options.rs",
        "a_connection_to_the_app_on_which_nothing_moves_is_given_up",
    ),
    (
        "http_service.http_options.headers_read_timeout",
        "proxy/tests/it/options.rs",
        "an_app_that_does_not_begin_its_answer_in_time_is_a_gateway_timeout",
    ),
    (
        "http_service.http_options.response.headers",
        "proxy/tests/it/options.rs",
        "headers_of_answers_are_set_and_removed_last_of_all",
    ),
    (
        "http_service.http_options.response.pristine",
        "proxy/tests/it/options.rs",
        "a_pristine_answer_has_nothing_of_the_proxy",
    ),
    (
        "http_service.tls_options.versions",
        "proxy/tests/it/handlers.rs",
        "only_the_versions_of_tls_that_are_asked_for_are_spoken",
    ),
    (
        "services[].ports[].http_options.compress",
        "proxy/tests/it/options.rs",
        "an_answer_is_compressed_for_a_client_that_takes_it",
    ),
    (
        "services[].ports[].http_options.idle_timeout",
        "proxy/tests/it/options.rs",
        "a_connection_to_the_app_on_which_nothing_moves_is_given_up",
    ),
    (
        "services[].ports[].http_options.headers_read_timeout",
        "proxy/tests/it/options.rs",
        "an_app_that_does_not_begin_its_answer_in_time_is_a_gateway_timeout",
    ),
    (
        "services[].ports[].http_options.response.headers",
        "proxy/tests/it/options.rs",
        "headers_of_answers_are_set_and_removed_last_of_all",
    ),
    (
        "services[].ports[].http_options.response.pristine",
        "proxy/tests/it/options.rs",
        "a_pristine_answer_has_nothing_of_the_proxy",
    ),
    (
        "services[].ports[].tls_options.versions",
        "proxy/tests/it/handlers.rs",
        "only_the_versions_of_tls_that_are_asked_for_are_spoken",
    ),
    (
        "services[].ports[].proxy_proto_options.version",
        "proxy/tests/it/handlers.rs",
        "proxy_proto_tells_the_app_of_the_client_in_the_version_that_is_asked_for",
    ),
    (
        "http_service.checks[].protocol",
        "host/src/checks/prober/tests.rs",
        "over_tls_the_certificate_must_be_signed_and_for_the_name_unless_any_will_do",
    ),
    (
        "http_service.checks[].tls_skip_verify",
        "host/src/checks/prober/tests.rs",
        "over_tls_the_certificate_must_be_signed_and_for_the_name_unless_any_will_do",
    ),
    (
        "http_service.checks[].tls_server_name",
        "host/src/checks/prober/tests.rs",
        "over_tls_the_certificate_must_be_signed_and_for_the_name_unless_any_will_do",
    ),
    (
        "services[].http_checks[].protocol",
        "host/src/checks/prober/tests.rs",
        "over_tls_the_certificate_must_be_signed_and_for_the_name_unless_any_will_do",
    ),
    (
        "services[].http_checks[].tls_skip_verify",
        "host/src/checks/prober/tests.rs",
        "over_tls_the_certificate_must_be_signed_and_for_the_name_unless_any_will_do",
    ),
    (
        "services[].http_checks[].tls_server_name",
        "host/src/checks/prober/tests.rs",
        "over_tls_the_certificate_must_be_signed_and_for_the_name_unless_any_will_do",
    ),
    (
        "checks.*.protocol",
        "host/src/checks/prober/tests.rs",
        "over_tls_the_certificate_must_be_signed_and_for_the_name_unless_any_will_do",
    ),
    (
        "checks.*.tls_skip_verify",
        "host/src/checks/prober/tests.rs",
        "over_tls_the_certificate_must_be_signed_and_for_the_name_unless_any_will_do",
    ),
    (
        "checks.*.tls_server_name",
        "host/src/checks/prober/tests.rs",
        "over_tls_the_certificate_must_be_signed_and_for_the_name_unless_any_will_do",
    ),
];

/// All keys that hold a value, with `[]` behind lists and `*` for names.
fn keys(section: &Section, path: &str, into: &mut Vec<String>) {
    for field in section.fields {
        let here = if path.is_empty() {
            field.key.to_owned()
        } else {
            format!("{path}.{}", field.key)
        };
        match field.kind {
            Kind::Table(inner) => keys(inner, &here, into),
            Kind::List(inner) => keys(inner, &format!("{here}[]"), into),
            Kind::Named(inner) => keys(inner, &format!("{here}.*"), into),
            _ => into.push(here),
        }
    }
}

/// Returns a value that the key takes and that differs from what is there without it.
fn value(kind: Kind, path: &str) -> Json {
    let last = path.rsplit('.').next().unwrap_or(path);
    match (kind, last) {
        (Kind::Flag | Kind::FlagPtr, _) => json!(true),
        (Kind::Int | Kind::IntPtr | Kind::U32Ptr, "memory_mb") => json!(1024),
        (Kind::Int, "cpus") => json!(4),
        (Kind::Int | Kind::IntPtr | Kind::U32Ptr, _) => json!(77),
        (Kind::FloatPtr, _) => json!(0.5),
        (Kind::Duration, _) => json!("17s"),
        (Kind::Texts, _) => json!(["other"]),
        (Kind::TextMap | Kind::AnyMap, _) => json!({ "some": "thing" }),
        (Kind::Autostop, _) => json!("suspend"),
        (Kind::Persist, _) => json!("always"),
        (_, "memory") => json!("1gb"),
        (_, "size") => json!("performance-1x"),
        (_, "cpu_kind") => json!("performance"),
        (_, "policy") => json!("never"),
        (_, "type") => json!("tcp"),
        (_, "auto_extend_size_increment" | "auto_extend_size_limit" | "initial_size") => {
            json!("3gb")
        }
        (_, "machine_config") => json!("{\"schedule\": \"daily\"}"),
        _ => json!("other"),
    }
}

/// A file in which every section is there, so that one key more shows.
fn base() -> Json {
    let check = json!({ "type": "http", "port": 1, "interval": "10s" });
    json!({
        "processes": { "app": "run", "other": "" },
        "mounts": [{ "source": "m", "destination": "/m" }],
        "http_service": { "internal_port": 1, "processes": ["app"], "checks": [{}], "machine_checks": [{ "command": ["t"] }] },
        "services": [{ "protocol": "tcp", "internal_port": 2, "processes": ["app"], "ports": [{ "port": 3 }],
            "tcp_checks": [{}], "http_checks": [{}], "machine_checks": [{ "command": ["t"] }] }],
        "checks": { "*": check },
        "files": [{ "guest_path": "/f", "raw_value": "x" }],
        "restart": [{ "policy": "on-failure" }],
        "vm": [{ "size": "shared-cpu-2x" }],
        "statics": [{}],
        "metrics": [{ "port": 9 }],
        "machine_checks": [{ "command": ["t"] }],
        "deploy": { "release_command": "migrate" },
    })
}

/// Puts a value at a path; lists get it in their first item.
fn put(tree: &mut Json, path: &str, value: Json) {
    let (first, rest) = path.split_once('.').unwrap_or((path, ""));
    let name = first.trim_end_matches("[]");
    let map = tree.as_object_mut().expect("a table");
    if rest.is_empty() {
        map.insert(name.to_owned(), value);
        return;
    }
    let empty = if first.ends_with("[]") {
        json!([{}])
    } else {
        json!({})
    };
    let next = map.entry(name).or_insert(empty);
    let next = if first.ends_with("[]") {
        &mut next[0]
    } else {
        next
    };
    put(next, rest, value);
}

/// All that is made of a file.
fn effects(file: &Json) -> Option<Json> {
    let loaded = load(&file.to_string(), Format::Json);
    let config: AppConfig = loaded.read?;
    let files: BTreeMap<String, Vec<u8>> = config
        .needed_files()
        .into_iter()
        .map(|f| (f.to_owned(), f.as_bytes().to_vec()))
        .collect();
    let inputs = Inputs {
        files,
        ..Inputs::default()
    };
    let mut all = Map::new();
    for group in config.groups() {
        let made = config.machine_json(group, &inputs);
        all.insert(group.to_owned(), json!(made.map_err(|e| e.to_string())));
        let tests = config
            .group_spec(group, &inputs)
            .map(|spec| (spec.test_machines, spec.volumes));
        let tests = json!(tests.map_err(|e| e.to_string()));
        all.insert(format!("tests of {group}"), tests);
    }
    let release = config.release_command(&inputs);
    all.insert(
        "release".to_owned(),
        json!(release.map_err(|e| e.to_string())),
    );
    all.insert("console".to_owned(), config.console_json(&inputs));
    Some(Json::Object(all))
}

#[test]
fn every_key_has_an_effect_or_a_row_in_the_table() {
    let mut all = Vec::new();
    keys(AppConfig::SECTION, "", &mut all);
    assert!(all.len() > 150, "{}", all.len());
    let without = effects(&base()).unwrap();
    let text = without.to_string();
    assert!(
        !text.contains("Err"),
        "the file without them is right: {text}"
    );
    let mut idle = Vec::new();
    for path in &all {
        let in_table = TABLE.iter().any(|row| {
            let below = path.strip_prefix(row.path);
            below.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        });
        let elsewhere = ELSEWHERE.iter().any(|(key, ..)| key == path);
        let mut file = base();
        put(&mut file, path, value(kind_of(path), path));
        let shows = effects(&file).is_some_and(|with| with != without);
        if !in_table && !elsewhere && !shows {
            idle.push(path.as_str());
        }
    }
    assert!(
        idle.is_empty(),
        "no effect, no row, no test:\n{}",
        idle.join("\n")
    );
}

/// Row full-reference (process-groups-and-deploy.md 9.1).
#[test]
fn every_key_is_written_and_read_back_in_each_format() {
    let mut all = Vec::new();
    keys(AppConfig::SECTION, "", &mut all);
    let mut whole = base();
    for path in &all {
        put(&mut whole, path, value(kind_of(path), path));
    }
    let whole = load(&whole.to_string(), Format::Json).read.unwrap();
    for format in [Format::Toml, Format::Json, Format::Yaml] {
        let text = whole.write(format);
        assert_eq!(load(&text, format).read.unwrap(), whole, "{text}");
        for path in &all {
            let mut file = base();
            put(&mut file, path, value(kind_of(path), path));
            let one = load(&file.to_string(), Format::Json).read.unwrap();
            let text = one.write(format);
            assert_eq!(load(&text, format).read.unwrap(), one, "{path}:\n{text}");
            let last = path.rsplit('.').next().unwrap();
            assert!(text.contains(last), "{path} is not written:\n{text}");
        }
    }
}

fn kind_of(path: &str) -> Kind {
    let mut section = AppConfig::SECTION;
    let parts: Vec<&str> = path.split('.').filter(|p| *p != "*").collect();
    for (i, part) in parts.iter().enumerate() {
        let field = section.field(part.trim_end_matches("[]")).expect("a key");
        if i + 1 == parts.len() {
            return field.kind;
        }
        section = field.inner().expect("a section");
    }
    unreachable!("a path has a part")
}

#[test]
fn the_tests_named_for_keys_are_there() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (key, file, test) in ELSEWHERE {
        let text = std::fs::read_to_string(crates.join(file)).unwrap();
        assert!(
            text.contains(&format!("fn {test}()")),
            "{key}: {file} has no test {test}"
        );
        let mut all = Vec::new();
        keys(AppConfig::SECTION, "", &mut all);
        assert!(all.iter().any(|k| k == key), "{key} is no key");
    }
}
