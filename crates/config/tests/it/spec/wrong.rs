//! What is said of mistakes, of the whole and of single groups.

use hangar_config::IpKind;

use super::*;

/// Row: validate-groups.
#[test]
fn a_mistake_of_one_group_is_not_anothers() {
    let text = "[deploy]\nstrategy = 'canary'\n[processes]\napp = 'a'\nfoo = 'f'\n[[mounts]]\nsource = 'd'\ndestination = '/d'\nprocesses = ['app']";
    let canary = "canary deployment strategy is not supported when using mounted volumes";
    assert!(errors(text).join("\n").contains(canary));
    assert!(errors_of(text, &[]).join("\n").contains(canary));
    assert!(errors_of(text, &["app"]).join("\n").contains(canary));
    assert_eq!(errors_of(text, &["foo"]), [""; 0]);
    assert_eq!(errors_of(text, &["foo", "app"]).len(), 1);
}

/// Row: validate-mounts.
#[test]
fn two_mounts_of_a_group_are_an_error_when_it_is_asked_for_alone() {
    let mount = |size: &str, group: &str| {
        format!(
            "[[mounts]]\nsource = 'd'\ndestination = '/d'\ninitial_size = '{size}'\nprocesses = ['{group}']\n"
        )
    };
    let groups = "[processes]\napp = 'a'\nback = 'b'\nlast = 'l'\n";
    let text = format!(
        "{groups}{}{}{}{}",
        mount("15Mb", "back"),
        mount("large", "last"),
        mount("1gb", "app"),
        mount("2gb", "app")
    );
    let whole = errors(&text).join("\n");
    assert!(
        whole.contains("mounts[0].initial_size: mount 'd' has an initial_size '15Mb' value which is smaller than 1GB"),
        "{whole}"
    );
    assert!(whole.contains("mounts[1].initial_size"), "{whole}");
    assert!(!whole.contains("more than one [[mounts]]"), "{whole}");
    assert_eq!(
        errors_of(&text, &["app"]),
        ["mounts[3]: group 'app' has more than one [[mounts]] section defined"]
    );
    let back = errors_of(&text, &["back"]);
    assert!(
        back.len() == 1 && back[0].contains("smaller than 1GB"),
        "{back:?}"
    );
    let last = errors_of(&text, &["last"]);
    assert!(last.len() == 1, "{last:?}");
    assert!(
        last[0].starts_with("mounts[1].initial_size: "),
        "its place in the file: {last:?}"
    );
}

/// Row: validate-services.
#[test]
fn a_service_of_nobody_and_without_ports_is_told_of_both() {
    let text = "[processes]\nok = 'a'\nbad = 'b'\n[[services]]\ninternal_port = 1\n[[services]]\ninternal_port = 2\nprocesses = ['ok']\n[[services.ports]]\nport = 80\nhandlers = ['http']";
    let loaded = load(text, Format::Toml);
    let all = messages(loaded.problems.iter()).join("\n");
    assert!(
        all.contains("services[0]: Service has no processes set but app has 2 processes defined"),
        "{all}"
    );
    assert!(
        all.contains("services[0]: Service must expose at least one port"),
        "{all}"
    );
    assert!(!loaded.is_valid());
    assert_eq!(errors_of(text, &["ok"]), [""; 0]);
}

/// Section 1.6: a group that there is not is named, with those that there are.
#[test]
fn a_group_that_does_not_exist_is_named() {
    let config = config("[processes]\nweb = 'w'");
    let problems = config.validate_groups(&["wbe"]);
    assert_eq!(problems.len(), 1);
    let text = problems[0].to_string();
    assert!(text.contains("there is no process group 'wbe'"), "{text}");
    assert!(text.contains("web"), "{text}");
    assert!(config.validate_groups(&["web"]).is_empty());
}

/// Row: strict_validate_test. Keys of all sections are found, those in lists too.
#[test]
fn unknown_keys_are_listed_with_their_paths() {
    let text = r#"
        [banana]
        x = 1
        [build]
        dockerfil = "D"
        [checks.up]
        type = "tcp"
        port = 1
        colour = "red"
        [http_service]
        internal_port = 1
        speed = 9
        [http_service.concurrency]
        kind = "requests"
        [http_service.http_options]
        squeeze = true
        [[http_service.checks]]
        often = true
        [[http_service.machine_checks]]
        command = ["t"]
        where = "here"
        [[services]]
        internal_port = 2
        door = 1
        [[services.ports]]
        port = 3
        nr = 4
    "#;
    let loaded = load(text, Format::Toml);
    let found: Vec<&str> = loaded.problems.iter().map(|p| p.path.as_str()).collect();
    for path in [
        "banana",
        "build.dockerfil",
        "checks.up.colour",
        "http_service.speed",
        "http_service.concurrency.kind",
        "http_service.http_options.squeeze",
        "http_service.checks[0].often",
        "http_service.machine_checks[0].where",
        "services[0].door",
        "services[0].ports[0].nr",
    ] {
        assert!(found.contains(&path), "{path} is not among {found:?}");
    }
    assert!(loaded.is_valid(), "they are no errors unless strict");
}

/// Row: validation_test Dockerfile URL.
#[test]
fn what_is_secret_in_the_address_of_a_dockerfile_is_not_shown() {
    let said = |file: &str| {
        let text = format!("[build]\nbuilder = 'b'\ndockerfile = '{file}'");
        let loaded = load(&text, Format::Toml);
        assert!(loaded.is_valid(), "{file}");
        messages(loaded.problems.iter()).join("\n")
    };
    let bad = said("https://me:hidden@host:port/Dockerfile?token=hidden#hidden");
    assert!(bad.contains("invalid URL"), "{bad}");
    let good = said("https://me:hidden@example.com/Dockerfile?token=hidden#hidden");
    assert!(good.contains("https://example.com/Dockerfile"), "{good}");
    for text in [bad, good] {
        assert!(!text.contains("hidden") && !text.contains("me:"), "{text}");
    }
}

fn service(protocol: &str, ports: &[(&str, &str)]) -> AppConfig {
    let ports: Vec<String> = ports
        .iter()
        .map(|(port, handlers)| format!("[[services.ports]]\n{port}\nhandlers = {handlers}\n"))
        .collect();
    let text = format!(
        "app = 'test'\n[[services]]\ninternal_port = 1\nprotocol = '{protocol}'\n{}",
        ports.concat()
    );
    load(&text, Format::Toml).read.unwrap()
}

/// Row: config_test IP type.
#[test]
fn only_web_pages_on_the_usual_ports_share_an_address() {
    let tcp = |port: &str, handlers: &str| service("tcp", &[(port, handlers)]).ip_kind(false);
    assert_eq!(tcp("port = 80", "['http']"), IpKind::Shared);
    assert_eq!(tcp("port = 443", "['http', 'tls']"), IpKind::Shared);
    assert_eq!(tcp("port = 443", "['tls', 'http']"), IpKind::Shared);
    assert_eq!(tcp("port = 443", "['tls']"), IpKind::Dedicated);
    assert_eq!(tcp("port = 443", "['tls', 'odd']"), IpKind::Dedicated);
    assert_eq!(tcp("port = 80", "['http', 'tls']"), IpKind::Dedicated);
    assert_eq!(tcp("port = 80", "[]"), IpKind::Dedicated);
    assert_eq!(tcp("port = 8443", "['http', 'tls']"), IpKind::Dedicated);
    assert_eq!(
        tcp("start_port = 80\nend_port = 90", "['http']"),
        IpKind::Dedicated
    );
    let udp = service("udp", &[("port = 443", "['http', 'tls']")]);
    assert_eq!(udp.ip_kind(false), IpKind::Dedicated);
    assert_eq!(udp.ip_kind(true), IpKind::Private);
    let http = config("[http_service]\ninternal_port = 1");
    assert_eq!(http.ip_kind(false), IpKind::Shared);
    assert_eq!(AppConfig::default().ip_kind(false), IpKind::Shared);
}

/// Row: config_test URL.
#[test]
fn the_address_is_the_best_of_the_ports_that_speak_http() {
    let url = |ports: &[(&str, &str)]| service("tcp", ports).url("fly.dev");
    let plain = ("port = 80", "['http']");
    let secure = ("port = 443", "['http', 'tls']");
    assert_eq!(url(&[plain]).as_deref(), Some("http://test.fly.dev/"));
    assert_eq!(
        url(&[plain, secure]).as_deref(),
        Some("https://test.fly.dev/")
    );
    let odd = [
        ("port = 8443", "['tls', 'http']"),
        ("port = 7443", "['tls', 'http']"),
        ("port = 81", "['http']"),
    ];
    assert_eq!(url(&odd).as_deref(), Some("https://test.fly.dev:7443/"));
    assert_eq!(url(&odd[2..]).as_deref(), Some("http://test.fly.dev:81/"));
    assert_eq!(url(&[("port = 5432", "['pg_tls']")]), None);
    let http = config("app = 'test'\n[http_service]\ninternal_port = 1");
    assert_eq!(
        http.url("fly.dev").as_deref(),
        Some("https://test.fly.dev/")
    );
}

/// Row: config_test build strategies.
#[test]
fn more_than_one_way_to_build_is_warned_of_with_all_of_them() {
    let said = |lines: &str| {
        let loaded = load(&format!("[build]\n{lines}"), Format::Toml);
        assert!(loaded.is_valid());
        messages(loaded.problems.iter().filter(|p| p.path == "build")).join("\n")
    };
    assert_eq!(said(""), "");
    assert_eq!(said("builder = 'b'"), "");
    let four = said("dockerfile = 'D'\nbuilder = 'b'\nbuiltin = 'node'\nimage = 'i'");
    assert!(
        four.contains("more than one build configuration found"),
        "{four}"
    );
    for way in [
        "\"i\" docker image",
        "a buildpack",
        "\"D\" dockerfile",
        "\"node\" builtin image",
    ] {
        assert!(four.contains(way), "{way}: {four}");
    }
}
