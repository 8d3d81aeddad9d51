//! What a service asks for and the proxy does not do, in sentences: never ignored in silence.

use hangar_api::machine::Service;
use hangar_api::machine::service::{MAX_PORTS_PER_APP, Port};
use serde_json::{Map, Value};

/// Returns a sentence for each thing that a service asks for and the proxy does not do; nothing
/// when all of it is served.
#[must_use]
pub fn unsupported(service: &Service) -> Vec<String> {
    let mut all = Vec::new();
    let internal = service.internal_port;
    if service.protocol != "tcp" && !service.protocol.is_empty() {
        let protocol = &service.protocol;
        all.push(format!(
            "the service on internal port {internal} asks for {protocol}: only tcp is served"
        ));
    }
    let kind = service.concurrency.as_ref().and_then(|c| c.kind.as_deref());
    if let Some(kind) = kind.filter(|kind| !["", "connections", "requests"].contains(kind)) {
        all.push(format!(
            "concurrency type {kind:?} of internal port {internal} is not known: use connections or requests"
        ));
    }
    let ports: usize = service.ports.iter().map(|port| port.range().len()).sum();
    if ports > MAX_PORTS_PER_APP {
        all.push(format!(
            "internal port {internal} asks for {ports} external ports: at most {MAX_PORTS_PER_APP} of an app are served"
        ));
    }
    for port in &service.ports {
        of_port(port, &mut all);
    }
    all
}

fn of_port(port: &Port, all: &mut Vec<String>) {
    let name = match (port.port, port.range()) {
        (Some(port), _) => format!("port {port}"),
        (None, range) => format!("ports {}-{}", range.start(), range.end()),
    };
    let http = port.has("http");
    for handler in &port.handlers {
        match handler.as_str() {
            "http" | "tls" | "tcp" => {}
            "proxy_proto" if !http => {}
            "proxy_proto" => all.push(format!(
                "handler proxy_proto on {name} is not served together with http"
            )),
            other => all.push(format!("handler {other} on {name} is not served")),
        }
    }
    if port.force_https && !http {
        all.push(format!("force_https on {name} needs the http handler"));
    }
    if let Some(options) = &port.http_options {
        name_options("http_options", &name, &options.other, all);
    }
    if let Some(options) = &port.tls_options {
        name_options("tls_options", &name, &options.other, all);
    }
    let version_1 = |value: &Value| {
        let version = value.get("version").and_then(Value::as_str);
        version.is_none_or(|version| version.is_empty() || version == "v1")
    };
    for (key, value) in port.other.iter().filter(|(_, value)| asks(value)) {
        if key == "proxy_proto_options" && version_1(value) {
            continue;
        }
        all.push(format!("{key} on {name} is not served"));
    }
}

fn name_options(options: &str, name: &str, given: &Map<String, Value>, all: &mut Vec<String>) {
    for (key, value) in given {
        // The certificate is self-signed either way, and TLS 1.2 and 1.3 are what is spoken.
        let is_met = match key.as_str() {
            "default_self_signed" => true,
            "versions" => value.as_array().is_some_and(|versions| {
                let both = ["TLSv1.2", "TLSv1.3"].map(Value::from);
                both.iter().all(|version| versions.contains(version))
            }),
            _ => false,
        };
        if asks(value) && !is_met {
            all.push(format!("{options}.{key} on {name} is not served"));
        }
    }
}

/// Returns whether a value asks for anything: null, false and empty ones do not.
fn asks(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => map.values().any(asks),
        Value::Bool(true) | Value::Number(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: serde_json::Value) -> Vec<String> {
        unsupported(&serde_json::from_value(json).unwrap())
    }

    #[test]
    fn a_usual_service_is_served_whole() {
        let service = serde_json::json!({
            "internal_port": 8080,
            "concurrency": {"type": "requests", "soft_limit": 20},
            "ports": [
                {"port": 80, "handlers": ["http"], "force_https": true},
                {"port": 443, "handlers": ["http", "tls"], "http_options": {"compress": false}},
                {"port": 5432, "handlers": ["tls", "proxy_proto"], "tls_options": {"alpn": ["x"]}},
            ],
        });
        assert_eq!(of(service), Vec::<String>::new());
    }

    #[test]
    fn each_thing_that_is_not_served_is_named() {
        let service = serde_json::json!({
            "protocol": "udp",
            "internal_port": 53,
            "ports": [
                {"port": 53, "handlers": ["pg_tls"], "force_https": true},
                {"port": 54, "handlers": ["http", "proxy_proto"],
                 "http_options": {"compress": true, "idle_timeout": 60},
                 "tls_options": {"versions": ["TLSv1.3"]}},
                {"port": 55, "handlers": ["proxy_proto"], "proxy_proto_options": {"version": "v2"}},
                {"start_port": 1000, "end_port": 2000},
            ],
        });
        let all = of(service).join("\n");
        for part in [
            "asks for udp",
            "handler pg_tls on port 53",
            "force_https on port 53",
            "proxy_proto on port 54",
            "http_options.compress on port 54",
            "http_options.idle_timeout on port 54",
            "tls_options.versions on port 54",
            "proxy_proto_options on port 55",
            "1004 external ports",
        ] {
            assert!(all.contains(part), "{part:?} is missing in:\n{all}");
        }
    }
}
