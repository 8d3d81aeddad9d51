use serde_json::json;

use super::*;

fn of(json: serde_json::Value) -> Result<Handling, Vec<Refusal>> {
    serde_json::from_value::<Port>(json).unwrap().handling()
}

#[test]
fn handlers_and_options_are_understood() {
    assert_eq!(of(json!({"port": 1})).unwrap(), Handling::default());
    let handling = of(json!({
        "port": 443, "handlers": ["http", "tls", "proxy_proto"],
        "proxy_proto_options": {"version": "v2"},
        "tls_options": {"alpn": ["h2"], "versions": ["TLSv1.3"], "default_self_signed": true},
        "http_options": {
            "compress": true, "h2_backend": true, "idle_timeout": 600, "headers_read_timeout": 0,
            "response": {"pristine": true, "headers": {"A": false, "B": "x", "C": ["y", "z"]}},
        },
    }));
    let handling = handling.unwrap();
    let http = handling.http.unwrap();
    assert!(http.compress && http.h2_backend && http.pristine);
    assert_eq!(http.idle_timeout, Some(Duration::from_secs(600)));
    assert_eq!(http.headers_read_timeout, None);
    let rules = http
        .headers
        .iter()
        .map(|r| (r.name.as_str(), r.values.len()));
    assert_eq!(rules.collect::<Vec<_>>(), [("a", 0), ("b", 1), ("c", 2)]);
    let tls = handling.tls.unwrap();
    assert_eq!(tls.alpn, Some(vec!["h2".to_owned()]));
    assert_eq!((tls.versions, tls.postgres), (TlsVersions::Only13, false));
    assert_eq!(handling.proxy_proto, Some(ProxyProto::V2));
    let postgres = of(json!({"port": 5432, "handlers": ["pg_tls"]})).unwrap();
    assert!(postgres.tls.unwrap().postgres && postgres.http.is_none());
}

#[test]
fn each_thing_that_is_not_done_is_refused_with_its_key() {
    let long = "x".repeat(MAX_VALUES + 1);
    for (port, key, word) in [
        (json!({"handlers": ["edge_http"]}), "handlers", "edge_http"),
        (
            json!({"handlers": ["http", "pg_tls"]}),
            "handlers",
            "exclude",
        ),
        (json!({"force_https": true}), "force_https", "http handler"),
        (
            json!({"tls_options": {"versions": ["TLSv1.1"]}}),
            "tls_options.versions",
            "TLSv1.1",
        ),
        (
            json!({"tls_options": {"alpn": [""]}}),
            "tls_options.alpn",
            "255 bytes",
        ),
        (
            json!({"proxy_proto_options": {"version": "3"}}),
            "proxy_proto_options.version",
            "v1 or v2",
        ),
        (header("a b", json!("x")), HEADERS, "no name"),
        (header("Content-Length", json!("3")), HEADERS, "proxy's own"),
        (header("A", json!(true)), HEADERS, "false, a text"),
        (header("A", json!([])), HEADERS, "false, a text"),
        (
            header("A", json!("x\r\nB: y")),
            HEADERS,
            "control characters",
        ),
        (header("A", json!(long)), HEADERS, "longer than"),
    ] {
        let wrong = of(port.clone()).unwrap_err();
        assert_eq!(wrong.len(), 1, "{port}: {wrong:?}");
        assert_eq!(wrong[0].key, key, "{port}");
        assert!(wrong[0].text.contains(word), "{port}: {}", wrong[0].text);
    }
}

const HEADERS: &str = "http_options.response.headers";

fn header(name: &str, value: serde_json::Value) -> serde_json::Value {
    json!({"handlers": ["http"], "http_options": {"response": {"headers": {name: value}}}})
}

#[test]
fn a_service_names_the_port_that_is_wrong() {
    let service = |json| serde_json::from_value::<Service>(json).unwrap().refusals();
    let keys = |all: Vec<(String, String)>| all.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    let fine = json!({"internal_port": 1, "ports": [{"port": 1, "handlers": ["tls"]}]});
    assert!(service(fine).is_empty());
    let wrong = json!({"ports": [{"port": 1}, {"port": 2, "handlers": ["x"]}]});
    assert_eq!(keys(service(wrong)), ["ports[1].handlers"]);
    let wrong =
        json!({"protocol": "udp", "ports": [{"port": 1}, {"port": 2, "handlers": ["tls"]}]});
    assert_eq!(keys(service(wrong)), ["ports[1].handlers"]);
    let wrong = json!({"protocol": "sctp", "ports": [{"start_port": 1000, "end_port": 2000}]});
    assert_eq!(keys(service(wrong)), ["protocol", "ports"]);
}

#[test]
fn what_was_sent_comes_back_as_it_was() {
    let port = json!({
        "port": 80, "handlers": ["http"],
        "http_options": {"compress": false, "x": 1, "response": {"headers": {"A": 1}, "y": 2}},
        "tls_options": {"default_self_signed": true}, "proxy_proto_options": {"version": "v1"},
    });
    let read: Port = serde_json::from_value(port.clone()).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), port);
}
