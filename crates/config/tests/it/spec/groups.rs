//! Names of groups, and a configuration as one of them sees it.

use super::*;

/// Row: processes-none.
#[test]
fn an_empty_section_is_the_group_app() {
    let config = config("app = 'a'\n[processes]");
    assert_eq!(config.groups(), ["app"]);
    assert_eq!(config.default_group(), "app");
}

/// Row: processes-one.
#[test]
fn the_only_group_is_the_default() {
    let config = config("[processes]\nweb = 'serve'");
    assert_eq!(
        (config.groups(), config.default_group()),
        (vec!["web"], "web")
    );
}

/// Row: processes-multi.
#[test]
fn without_app_the_first_by_name_is_the_default() {
    let config = config("[processes]\nzed = '1'\nbee = '2'\nfly = '3'");
    assert_eq!(config.groups(), ["bee", "fly", "zed"]);
    assert_eq!(config.default_group(), "bee");
}

/// Row: processes-multiwithapp.
#[test]
fn app_is_the_default_wherever_it_stands() {
    let config = config("[processes]\naab = '1'\nant = '2'\napp = '3'\nbbb = '4'\nabc = '5'");
    assert_eq!(config.groups(), ["aab", "abc", "ant", "app", "bbb"]);
    assert_eq!(config.default_group(), "app");
}

/// Row: processgroups_test nil/empty.
#[test]
fn a_flattened_configuration_is_of_its_group() {
    assert_eq!(AppConfig::default().groups(), ["app"]);
    assert_eq!(AppConfig::default().flatten("app").default_group(), "app");
    let config = config("[processes]\nweb = 'w'\nfoo = 'f'");
    assert_eq!(config.flatten("foo").default_group(), "foo");
    assert_eq!(config.flatten("foo").groups(), ["foo"]);
    assert_eq!(config.flatten("foo").processes["foo"], "f");
}

/// Section 2.2: who gets which section.
#[test]
fn flattening_keeps_what_is_for_the_group_and_makes_the_same_machine() {
    for text in [crate::FULL, SECTIONS] {
        let mut whole = config(text);
        // Every Machine gets every file: flattening is not asked for them.
        let files = std::mem::take(&mut whole.files);
        for group in whole.groups() {
            let flat = whole.flatten(group);
            let inputs = Inputs::default();
            assert_eq!(
                flat.machine_json(group, &inputs),
                whole.machine_json(group, &inputs),
                "{group}"
            );
            assert_eq!(flat.flatten(group), flat, "once is enough");
        }
        whole.files = files;
        let default = whole.default_group();
        assert_eq!(whole.flatten(default).files.len(), whole.files.len());
    }
    let flat = config(SECTIONS).flatten("back");
    assert_eq!(flat.host_dedication_id.as_deref(), Some("own"));
    assert_eq!(flat.services.len(), 1);
    assert_eq!(flat.services[0].processes, ["back"]);
    assert!(flat.mounts.is_empty() && flat.http_service.is_none());
}

const SECTIONS: &str = r#"
host_dedication_id = "top"
[processes]
front = "f"
back = "b"
[http_service]
internal_port = 1
processes = ["front"]
[[services]]
internal_port = 2
processes = ["front", "back"]
[[services.ports]]
port = 5000
[[mounts]]
source = "d"
destination = "/d"
processes = ["front"]
[[vm]]
size = "shared-cpu-2x"
[[vm]]
host_dedication_id = "own"
processes = ["back"]
"#;

/// Row: tomachine-processgroups.
#[test]
fn each_group_gets_its_services_words_and_checks() {
    let text = r#"
        [processes]
        app = ""
        net = ""
        foo = "stay 'for ever' up"
        [http_service]
        internal_port = 8080
        processes = ["app"]
        [checks.up]
        type = "tcp"
        port = 8080
        processes = ["app", "foo"]
        [[services]]
        protocol = "tcp"
        internal_port = 1111
        processes = ["app", "net", "foo"]
        [[services.ports]]
        port = 1111
        [[services]]
        protocol = "udp"
        internal_port = 9999
        processes = ["net"]
        [[services.ports]]
        port = 9999
    "#;
    let ports = |group: &str| -> Vec<Json> {
        let machine = sent(text, group);
        let services = machine["services"].as_array().unwrap().clone();
        services
            .iter()
            .map(|s| s["internal_port"].clone())
            .collect()
    };
    assert_eq!(ports("app"), [json!(8080), json!(1111)]);
    assert_eq!(ports("net"), [json!(1111), json!(9999)]);
    assert_eq!(ports("foo"), [json!(1111)]);
    assert_eq!(sent(text, "net")["services"][1]["protocol"], "udp");
    assert_eq!(
        sent(text, "foo")["init"]["cmd"],
        json!(["stay", "for ever", "up"])
    );
    assert!(sent(text, "app")["checks"]["up"].is_object());
    assert!(sent(text, "foo")["checks"]["up"].is_object());
    assert!(sent(text, "net").get("checks").is_none());
}

/// Row: tomachine-mounts.
#[test]
fn a_mount_without_groups_is_the_default_groups() {
    let text = "[processes]\napp = 'a'\nback = 'b'\nother = 'o'\n[[mounts]]\nsource = 'data'\ndestination = '/data'\n[[mounts]]\nsource = 'bin'\ndestination = '/bin2'\nprocesses = ['back']";
    assert_eq!(
        sent(text, "app")["mounts"],
        json!([{ "name": "data", "path": "/data" }])
    );
    assert_eq!(
        sent(text, "back")["mounts"],
        json!([{ "name": "bin", "path": "/bin2" }])
    );
    assert!(sent(text, "other").get("mounts").is_none());
}
