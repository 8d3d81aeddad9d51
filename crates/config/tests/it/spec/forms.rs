//! How each form of a file is read.

use super::*;

fn read(text: &str) -> AppConfig {
    load(text, Format::Toml).read.unwrap()
}

/// Row: app-name, build, build-with-args, docker, image.
#[test]
fn the_keys_of_build_are_read() {
    assert_eq!(config("app = 'shop'").app.as_deref(), Some("shop"));
    let build = |text: &str| config(text).build.unwrap();
    assert_eq!(
        build("[build]\nbuilder = 'some/builder'")
            .builder
            .as_deref(),
        Some("some/builder")
    );
    let args = build("[build]\n[build.args]\nONE = 'two'\nTHREE = 'four'").args;
    assert_eq!(
        args,
        [("ONE", "two"), ("THREE", "four")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into()
    );
    let docker = build("[build]\ndockerfile = 'D'\nignorefile = 'I'\nbuild-target = 'stage'");
    assert_eq!(docker.dockerfile.as_deref(), Some("D"));
    assert_eq!(docker.ignorefile.as_deref(), Some("I"));
    assert_eq!(docker.target.as_deref(), Some("stage"));
    assert_eq!(config("[build]\nimage = 'shop:2'").image(), Some("shop:2"));
}

/// Row: compose. Several containers in one Machine are refused, and the file is kept.
#[test]
fn a_compose_file_is_read_without_being_looked_for_and_refused_in_words() {
    let text = "[build.compose]\nfile = 'nowhere/compose.yml'";
    let loaded = load(text, Format::Toml);
    let build = loaded.read.clone().unwrap().build.unwrap();
    assert_eq!(
        build.compose.unwrap().file.as_deref(),
        Some("nowhere/compose.yml")
    );
    assert!(loaded.is_valid() && !loaded.is_deployable());
    let said = stops(text).join("\n");
    assert!(said.contains("migrate compose"), "{said}");
}

/// Row: always-invalid-v2. Everything else of the file is read too, so that all is told at once.
#[test]
fn a_concurrency_that_is_a_number_is_told_and_the_app_still_known() {
    let text = "app = 'shop'\n[[services]]\ninternal_port = 1\nconcurrency = 20";
    let said = errors(text).join("\n");
    assert!(said.contains("services[0].concurrency"), "{said}");
    let loaded = load(text, Format::Toml);
    assert!(!loaded.decodes && loaded.config.is_none());
    assert_eq!(
        hangar_config::app_name(text.as_bytes(), Format::Toml).as_deref(),
        Some("shop")
    );
}

/// Row: env-list.
#[test]
fn tables_of_variables_become_one_of_texts() {
    let env = config("[[env]]\nNAME = 'x'\nCOUNT = 7\n[[env]]\nON = true\nNAME = 'y'").env;
    let wanted = [("COUNT", "7"), ("NAME", "y"), ("ON", "true")];
    assert_eq!(
        env,
        wanted.map(|(k, v)| (k.to_owned(), v.to_owned())).into()
    );
}

/// Row: experimental-alt.
#[test]
fn old_settings_are_lists_and_move_to_their_new_places() {
    let config = config(
        "[experimental]\ncmd = 'one word'\nentrypoint = 'e'\nexec = ['x']\nkill_timeout = 3\nmetrics_port = 9100\nmetrics_path = '/m'",
    );
    let experimental = config.experimental.unwrap();
    assert_eq!(experimental.cmd, ["one word"], "not split");
    assert_eq!(experimental.entrypoint, ["e"]);
    assert_eq!(experimental.exec, ["x"]);
    assert_eq!(config.kill_timeout.unwrap().to_string(), "3s");
    assert_eq!(config.metrics.len(), 1);
    assert_eq!(config.metrics[0].port, 9100);
    assert_eq!(config.metrics[0].path.as_deref(), Some("/m"));
}

/// Row: format-quirks.
#[test]
fn single_tables_are_lists_and_numbers_sizes() {
    let config = config(
        "[vm]\nmemory = 768\n[mount]\nsource = 'd'\ndestination = '/d'\ninitial_size = 12\nsnapshot_retention = 9",
    );
    assert_eq!(config.vm.len(), 1);
    assert_eq!(config.vm[0].memory.as_deref(), Some("768"));
    assert_eq!(config.mounts.len(), 1);
    assert_eq!(config.mounts[0].initial_size.as_deref(), Some("12"));
    assert_eq!(config.mounts[0].snapshot_retention, Some(9));
}

/// Row: mounts-array.
#[test]
fn one_mount_in_double_brackets_is_a_list_of_one() {
    let config = config("[[mounts]]\nsource = 'd'\ndestination = '/d'");
    assert_eq!(config.mounts.len(), 1);
    assert_eq!(config.mounts[0].source.as_deref(), Some("d"));
}

const OLD: &str = r#"
app = "old"
[build]
build_target = "stage"
[env]
COUNT = 5
[[processes]]
[[services]]
internal_port = "4000"
concurrency = "12,23"
auto_stop_machines = false
[[services.ports]]
port = "80"
[[services.tcp_checks]]
interval = 10000
timeout = 2000
grace_period = ""
[[services.http_checks]]
interval = 30000
timeout = 4000
[[services.http_checks.headers]]
name = "X-One"
value = 1
[[services.http_checks.headers]]
name = "X-Two"
[[services.http_checks]]
[services.http_checks.headers]
X-Three = true
[mount]
source = "d"
destination = "/d"
[metrics]
port = 9100
"#;

/// Row: old-format.
#[test]
fn a_file_of_the_first_platform_is_read_as_it_was_meant() {
    let config = config(OLD);
    assert!(config.processes.is_empty());
    assert_eq!(config.env["COUNT"], "5");
    let build = config.build.unwrap();
    assert_eq!(build.target.as_deref(), Some("stage"));
    assert_eq!((config.mounts.len(), config.metrics.len()), (1, 1));
    let service = &config.services[0];
    assert_eq!(service.internal_port, 4000);
    assert_eq!(service.ports[0].port, Some(80));
    let limits = service.concurrency.as_ref().unwrap();
    assert_eq!(limits.kind.as_deref(), Some("requests"));
    assert_eq!((limits.soft_limit, limits.hard_limit), (12, 23));
    assert_eq!(
        json!(service)["auto_stop_machines"],
        json!(false),
        "off, and said"
    );
    let tcp = &service.tcp_checks[0];
    let text = |d: Option<hangar_api::duration::GoDuration>| d.map(|d| d.to_string());
    assert_eq!(text(tcp.interval).as_deref(), Some("10s"));
    assert_eq!(text(tcp.timeout).as_deref(), Some("2s"));
    assert_eq!(text(tcp.grace_period), None);
    let http = &service.http_checks;
    assert_eq!(text(http[0].interval).as_deref(), Some("30s"));
    assert_eq!(text(http[0].timeout).as_deref(), Some("4s"));
    assert_eq!(http[0].headers["X-One"], "1");
    assert_eq!(http[0].headers["X-Two"], "");
    assert_eq!(http[1].headers["X-Three"], "true");
}

/// Row: old-pg-checks.
#[test]
fn an_empty_list_of_headers_is_none() {
    let config = config("[checks.c]\ntype = 'http'\nport = 1\nheaders = []");
    assert!(config.checks["c"].headers.is_empty());
    assert!(!config.write(Format::Toml).contains("headers"));
}

/// Row: old-processes.
#[test]
fn processes_with_name_and_command_are_groups() {
    let config = config(
        "[[processes]]\nname = 'web'\ncommand = 'serve'\n[[processes]]\nname = 'worker'\ncommand = 'work'",
    );
    assert_eq!(config.app, None);
    assert_eq!(config.groups(), ["web", "worker"]);
    assert_eq!(config.processes["worker"], "work");
    assert_eq!(config.default_group(), "web");
}

/// Row: services-emptysection.
#[test]
fn an_empty_service_is_none() {
    assert!(config("app = 'a'\n[[services]]").services.is_empty());
}

/// Row: services-multi.
#[test]
fn services_keep_their_order_and_limits() {
    let config = config(
        "[[services]]\ninternal_port = 2\n[[services.ports]]\nport = 1\n[services.concurrency]\nhard_limit = 9\n[[services]]\ninternal_port = 1\n[[services.ports]]\nport = 2\n[services.concurrency]\nhard_limit = 8",
    );
    let seen: Vec<(i64, i64)> = config
        .services
        .iter()
        .map(|s| (s.internal_port, s.concurrency.as_ref().unwrap().hard_limit))
        .collect();
    assert_eq!(seen, [(2, 9), (1, 8)]);
}

/// Row: services-ports.
#[test]
fn options_belong_to_the_port_before_them() {
    let config = read(
        r#"
        [[services]]
        internal_port = 1
        [[services.ports]]
        port = 80
        handlers = ["http"]
        [services.ports.http_options.response.headers]
        gone = false
        one = "text"
        many = ["a", "b"]
        [[services.ports]]
        port = 443
        handlers = ["tls", "http"]
        [services.ports.tls_options]
        alpn = ["h2"]
        versions = ["TLSv1.3"]
        "#,
    );
    let ports = &config.services[0].ports;
    assert!(ports[0].tls_options.is_none());
    assert_eq!(ports[1].tls_options.as_ref().unwrap().alpn, ["h2"]);
    let options = ports[0].http_options.as_ref().unwrap();
    let headers = &options.response.as_ref().unwrap().headers;
    assert_eq!(
        json!(headers),
        json!({ "gone": false, "one": "text", "many": ["a", "b"] })
    );
}

/// Row: full-reference. A strategy that there is not is still read.
#[test]
fn what_is_written_in_any_format_reads_back_the_same() {
    let text = format!(
        "{}\n[deploy]\nstrategy = 'sideways'\nrelease_command = 'migrate'\nwait_timeout = '90s'\n",
        crate::FULL.split("[deploy]").next().unwrap()
    );
    let odd = load(&text, Format::Toml).read.unwrap();
    let deploy = odd.deploy.clone().unwrap();
    assert_eq!(deploy.strategy.as_deref(), Some("sideways"));
    for first in [odd, config(crate::FULL)] {
        for format in [Format::Toml, Format::Json, Format::Yaml] {
            let text = first.write(format);
            assert_eq!(load(&text, format).read.unwrap(), first, "{text}");
        }
    }
    let definition = config(crate::FULL).definition();
    assert_eq!(definition["kill_timeout"], "30s");
    assert_eq!(definition["deploy"]["wait_timeout"], "2m0s");
    assert_eq!(definition["http_service"]["auto_stop_machines"], false);
    assert_eq!(definition["http_service"]["internal_port"], 8080);
    let toml = config(crate::FULL).write(Format::Toml);
    assert!(toml.contains("auto_stop_machines = 'off'"), "{toml}");
}

/// Row: definition_test.
#[test]
fn a_definition_of_the_old_api_is_read() {
    let old = |kill: &str| {
        let text = format!(
            r#"{{"env": [{{"A": 1}}, {{"B": true}}], "kill_timeout": {kill}, "processes": [],
            "checks": [{{"name": "c", "type": "tcp", "port": 80}}],
            "services": [{{"internal_port": 1, "protocol": "tcp", "script_checks": [], "http_checks": [],
                "ports": [{{"port": 80, "handlers": ["http"]}}],
                "tcp_checks": [{{"interval": "15s", "restart_limit": 0}}]}}]}}"#
        );
        load(&text, Format::Json).config.expect("it is valid")
    };
    for (text, time) in [("5", "5s"), ("5.0", "5s"), ("1.5", "1s"), ("\"5s\"", "5s")] {
        let config = old(text);
        assert_eq!(config.kill_timeout.unwrap().to_string(), time, "{text}");
        assert!(config.processes.is_empty());
        assert_eq!(config.env["A"], "1");
        assert_eq!(config.env["B"], "true");
        assert_eq!(config.checks["c"].port, Some(80));
        assert!(config.services[0].http_checks.is_empty());
        assert_eq!(config.services[0].tcp_checks.len(), 1);
    }
    let none = load(r#"{"checks": []}"#, Format::Json).config.unwrap();
    assert!(none.checks.is_empty());
}
