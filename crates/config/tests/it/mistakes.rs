//! What is said of a file that is wrong: all of it at once, with the line, and what to write.

use hangar_config::schema::{self, Described, Section};
use hangar_config::support::{Kind, TABLE};
use hangar_config::{AppConfig, Format, load};

use crate::said;

#[test]
fn a_syntax_error_shows_its_line_and_place() {
    let loaded = load("app = \"a\"\n[env\nA = 1\n", Format::Toml);
    let text = said(&loaded).join("\n");
    assert!(text.starts_with("error: line 2 column 5: "), "{text}");
    assert!(text.contains("2 | [env\n"), "{text}");
    assert!(text.ends_with('^'), "{text}");
    let json = load("{\n  \"app\": }\n", Format::Json);
    assert!(
        said(&json)[0].starts_with("error: line 2 column"),
        "{:?}",
        said(&json)
    );
    let yaml = load("app: a\nenv:\n  A: 1\n B: 2\n", Format::Yaml);
    assert!(
        said(&yaml)[0].starts_with("error: line 4 column"),
        "{:?}",
        said(&yaml)
    );
}

#[test]
fn json_and_yaml_tell_the_place_too() {
    let json = "{\n  \"app\": \"a\",\n  \"http_service\": {\n    \"internal_port\": \"80\"\n  },\n  \"banana\": 1\n}";
    let text = said(&load(json, Format::Json)).join("\n");
    assert!(
        text.contains("line 4 column 22: http_service.internal_port: must be a whole number"),
        "{text}"
    );
    assert!(
        text.contains("line 6 column 3: banana: is not a key"),
        "{text}"
    );
    let yaml = "app: a\nhttp_service:\n  # ünïcode\n  internal_port: eighty\n\"banana\": 1\n";
    let text = said(&load(yaml, Format::Yaml)).join("\n");
    assert!(
        text.contains("line 4 column 18: http_service.internal_port: must be a whole number"),
        "{text}"
    );
    assert!(
        text.contains("line 5 column 1: banana: is not a key"),
        "{text}"
    );
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_the_file() {
    let text = r#"app = "My_App"
kill_timeout = "5"
[processes]
web = "it's"
worker = "w"
[http_service]
internal_port = "eighty"
processes = ["wbe"]
[[services]]
internal_port = 1
[checks.alive]
type = "ping"
interval = "1s"
[[restart]]
policy = "sometimes"
[deploy]
strategy = "yolo"
"#;
    let loaded = load(text, Format::Toml);
    assert!(!loaded.is_valid());
    let errors: Vec<String> = loaded
        .problems
        .iter()
        .filter(|p| p.stops_deploy())
        .map(ToString::to_string)
        .collect();
    let starts = [
        "refused: line 1 column 7: app: app name \"My_App\" is not valid",
        "error: line 2 column 16: kill_timeout: invalid duration \"5\"",
        "error: line 4 column 7: processes.web: Could not parse command for 'web' process group",
        "error: line 7 column 17: http_service.internal_port: must be a whole number, not a text",
        "error: line 8 column 13: http_service.processes: Service specifies 'wbe'",
        "error: line 9 column 1: services[0]: Service has no processes set but app has 2",
        "error: line 11 column 1: checks.alive: Can't process top level check 'alive'",
        "error: line 13 column 12: checks.alive.interval: Check 'alive' interval is too short: 1s",
        "error: line 14 column 1: restart[0]: invalid restart policy: sometimes",
        "error: line 17 column 12: deploy.strategy: unsupported deployment strategy 'yolo'",
    ];
    for (error, start) in errors.iter().zip(starts) {
        assert!(error.starts_with(start), "{error}\nshould be\n{start}");
    }
    assert_eq!(errors.len(), starts.len(), "{errors:#?}");
    assert!(
        errors[4].contains("hint: did you mean web?"),
        "{}",
        errors[4]
    );
}

#[test]
fn an_unknown_key_is_a_warning_that_guesses_what_was_meant() {
    let text = "[http_service]\ninternal_port = 1\nforce_htps = true\nmax_machines_running = 3\n[[services]]\ninternal_prot = 2\n[banana]\n";
    let loaded = load(text, Format::Toml);
    assert!(loaded.is_valid());
    let all = said(&loaded).join("\n");
    for part in [
        "line 3 column 1: http_service.force_htps: is not a key that is known here",
        "hint: did you mean force_https?",
        "line 4 column 1: http_service.max_machines_running",
        "hint: Machines are only added by `scale count`",
        "services[0].internal_prot",
        "hint: did you mean internal_port?",
        "line 7 column 2: banana",
    ] {
        assert!(all.contains(part), "{part} not in\n{all}");
    }
}

#[test]
fn one_bracket_too_few_says_so() {
    let loaded = load("[restart]\npolicy = \"always\"\n", Format::Toml);
    let text = said(&loaded).join("\n");
    assert!(
        text.contains("hint: write [[restart]] with two brackets"),
        "{text}"
    );
}

#[test]
fn a_typing_error_in_a_sections_groups_is_warned_of() {
    let text = "[processes]\nweb = 'w'\n[[vm]]\nsize = 'shared-cpu-1x'\nprocesses = ['wep']\n[checks.c]\ntype = 'tcp'\nport = 1\nprocesses = ['x']";
    let loaded = load(text, Format::Toml);
    assert!(loaded.is_valid());
    let text = said(&loaded).join("\n");
    assert!(
        text.contains("line 5 column 13: vm[0].processes: is for process group 'wep'"),
        "{text}"
    );
    assert!(text.contains("did you mean web?"), "{text}");
    assert!(text.contains("checks.c.processes"), "{text}");
}

#[test]
fn a_size_or_check_that_no_machine_can_have_is_told_before_the_deploy() {
    let size = load("[[vm]]\nsize = 'huge'", Format::Toml);
    assert!(
        said(&size)[0].contains("unknown size \"huge\""),
        "{:?}",
        said(&size)
    );
    let check = load("[checks.c]\ntype = 'tcp'", Format::Toml);
    assert!(
        said(&check)[0].contains("no port set"),
        "{:?}",
        said(&check)
    );
}

#[test]
fn the_values_of_env_are_never_shown() {
    let loaded = load("[env]\nPASSWORD = \"hunter2\\u0000\"\n", Format::Toml);
    assert!(!loaded.is_deployable());
    assert!(!said(&loaded).join("\n").contains("hunter2"));
}

#[test]
fn what_is_not_acted_on_is_named_in_one_line_or_refused() {
    let text = r#"
console_command = "sh"
[http_service]
internal_port = 1
auto_stop_machines = "stop"
min_machines_running = 0
[deploy]
strategy = "bluegreen"
[[metrics]]
port = 9
path = "/m"
"#;
    let loaded = load(text, Format::Toml);
    assert!(loaded.is_valid());
    assert_eq!(
        loaded.not_acted_on().unwrap(),
        "not acted on yet: metrics (line 9: the endpoint is not scraped)"
    );
    let quiet = "[http_service]\ninternal_port = 1\nauto_stop_machines = false\n[deploy]\nstrategy = 'rolling'";
    assert_eq!(load(quiet, Format::Toml).not_acted_on(), None);
    let refused = load("[[vm]]\ngpus = 1", Format::Toml);
    let text = said(&refused).join("\n");
    assert!(
        text.contains("refused: line 2 column 8: vm[0].gpus: is not supported"),
        "{text}"
    );
    assert!(refused.is_valid() && !refused.is_deployable());
}

#[test]
fn what_the_proxy_does_not_do_is_refused_with_its_line() {
    let text = r#"
[http_service]
internal_port = 1
[http_service.http_options.response.headers]
Content-Length = "3"
[http_service.tls_options]
versions = ["TLSv1.1"]
[[services]]
internal_port = 2
[[services.ports]]
port = 5432
handlers = ["pg_tsl"]
[[services.ports]]
port = 5433
handlers = ["edge_http", "tls"]
proxy_proto_options = { version = "v3" }
[[services.http_checks]]
protocol = "ftp"
[[services]]
protocol = "udp"
internal_port = 5
[[services.ports]]
port = 53
handlers = ["tls"]
[checks.up]
type = "http"
port = 1
path = "/a b"
[[statics]]
guest_path = "public"
url_prefix = "/x"
tigris_bucket = "b"
"#;
    let loaded = load(text, Format::Toml);
    let text = said(&loaded).join("\n");
    for part in [
        "line 4 column 1: http_service.http_options.response.headers: Content-Length says how",
        "line 7 column 12: http_service.tls_options.versions: \"TLSv1.1\" is not spoken",
        "line 12 column 12: services[0].ports[0].handlers: \"pg_tsl\" is not offered",
        "did you mean pg_tls?",
        "line 15 column 12: services[0].ports[1].handlers: \"edge_http\" is not offered",
        "services[0].ports[1].proxy_proto_options.version: \"v3\" is no version",
        "line 18 column 12: services[0].http_checks[0].protocol: \"ftp\" is not offered",
        "line 23 column 8: services[1].ports[0].port: the port of a datagram is never rewritten",
        "line 24 column 12: services[1].ports[0].handlers: must be left out for udp",
        "line 28 column 8: checks.up.path: holds spaces",
        "line 30 column 14: statics[0].guest_path: \"public\" must be an absolute path",
        "line 32 column 17: statics[0].tigris_bucket: buckets are not there",
    ] {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
    assert_eq!(text.matches("Content-Length").count(), 1, "{text}");
    assert!(loaded.is_valid() && !loaded.is_deployable());
}

/// Returns a value of the shape that the schema gives to a key, on as far as a key can be.
fn example(section: &Section, path: &str) -> serde_json::Value {
    let (first, rest) = path.split_once('.').unwrap_or((path, ""));
    let name = first.trim_end_matches("[]");
    let field = section
        .field(name)
        .unwrap_or_else(|| panic!("no key {name} in {}", section.name));
    let inner = |of: &Section, rest: &str| match rest {
        "" => serde_json::json!({}),
        rest => example(of, rest),
    };
    let value = match field.kind {
        schema::Kind::Table(of) => inner(of, rest),
        schema::Kind::List(of) => serde_json::json!([inner(of, rest)]),
        schema::Kind::Named(of) => {
            let rest = rest.strip_prefix("*.").unwrap_or("");
            serde_json::json!({ "some": inner(of, rest) })
        }
        schema::Kind::Flag | schema::Kind::FlagPtr => serde_json::json!(true),
        schema::Kind::Int | schema::Kind::IntPtr | schema::Kind::U32Ptr => serde_json::json!(1),
        schema::Kind::FloatPtr => serde_json::json!(0.5),
        schema::Kind::Duration => serde_json::json!("15s"),
        schema::Kind::Texts => serde_json::json!(["something"]),
        schema::Kind::TextMap | schema::Kind::AnyMap => serde_json::json!({ "some": "thing" }),
        schema::Kind::Autostop => serde_json::json!("suspend"),
        schema::Kind::Persist => serde_json::json!("always"),
        schema::Kind::Text | schema::Kind::TextPtr => match (section.name, name) {
            (_, "strategy") => serde_json::json!("canary"),
            _ => serde_json::json!("something"),
        },
    };
    serde_json::json!({ name: value })
}

#[test]
fn every_row_of_the_table_is_found_when_a_file_has_its_key() {
    for row in TABLE {
        let file = example(AppConfig::SECTION, row.path);
        let loaded = load(&file.to_string(), Format::Json);
        let key = row.path.replace("[]", "[0]").replace('*', "some");
        match row.kind {
            Kind::Named => assert!(loaded.named.iter().any(|n| n.path == key), "{}", row.path),
            Kind::Refused => assert!(
                loaded
                    .problems
                    .iter()
                    .any(|p| p.path == key && p.message.contains(row.why)),
                "{}: {:?}",
                row.path,
                said(&loaded)
            ),
        }
    }
}
