//! `[http_service]` and `[[services]]`.

use hangar_api::machine::service::{Autostop, Concurrency, HttpOptions, Port, TlsOptions};
use serde_json::{Map, Value as Json};

use super::check::{Of, of_service};
use crate::app::{HttpService, ServiceSection};
use crate::raw::{Node, Value};
use crate::read::{Reader, Table};

const HTTP_OPTIONS: [&str; 6] = [
    "compress",
    "response",
    "h2_backend",
    "idle_timeout",
    "headers_read_timeout",
    "replay_cache",
];
const TLS_OPTIONS: [&str; 3] = ["alpn", "versions", "default_self_signed"];

pub(super) fn http_service<'a>(reader: &'a Reader<'a>, node: &'a Node) -> Option<HttpService> {
    let mut table = reader.table("http_service", node)?;
    let concurrency = table
        .take("concurrency")
        .and_then(|n| limits(reader, &table.path_of("concurrency"), n));
    let service = HttpService {
        internal_port: table.number("internal_port"),
        force_https: table.bool("force_https").unwrap_or(false),
        auto_stop_machines: autostop(reader, &mut table),
        auto_start_machines: table.bool("auto_start_machines"),
        min_machines_running: table.number("min_machines_running"),
        processes: table.texts("processes").unwrap_or_default(),
        concurrency,
        tls_options: options(reader, &mut table, "tls_options", &TLS_OPTIONS),
        http_options: options(reader, &mut table, "http_options", &HTTP_OPTIONS),
        checks: of_service(reader, &mut table, "checks", Of::HttpService),
        machine_checks: table.kept("machine_checks"),
    };
    table.done();
    Some(service)
}

pub(super) fn services<'a>(reader: &'a Reader<'a>, node: &'a Node) -> Vec<ServiceSection> {
    let items = reader.items("services", node, true);
    let services = items
        .into_iter()
        .filter_map(|(path, item)| service(reader, &path, item));
    services.collect()
}

fn service<'a>(reader: &'a Reader<'a>, path: &str, node: &'a Node) -> Option<ServiceSection> {
    let mut table = reader.table(path, node)?;
    if table.is_empty() {
        return None;
    }
    let concurrency = table
        .take("concurrency")
        .and_then(|n| loose_limits(reader, &table.path_of("concurrency"), n));
    let ports = table
        .take("ports")
        .map(|n| reader.items(&table.path_of("ports"), n, true))
        .unwrap_or_default();
    let service = ServiceSection {
        protocol: table.text("protocol").unwrap_or_default(),
        internal_port: table.loose_number("internal_port"),
        auto_stop_machines: autostop(reader, &mut table),
        auto_start_machines: table.bool("auto_start_machines"),
        min_machines_running: table.number("min_machines_running"),
        ports: ports
            .into_iter()
            .filter_map(|(path, item)| port(reader, &path, item))
            .collect(),
        concurrency,
        tcp_checks: of_service(reader, &mut table, "tcp_checks", Of::Tcp),
        http_checks: of_service(reader, &mut table, "http_checks", Of::Http),
        machine_checks: table.kept("machine_checks"),
        processes: table.texts("processes").unwrap_or_default(),
        key: path.to_owned(),
    };
    for old in ["script_checks", "restart_limit"] {
        if table.take(old).is_some() {
            let place = table.place(old);
            reader.warn(&table.path_of(old), &place, "does nothing any more");
        }
    }
    table.done();
    Some(service)
}

fn port<'a>(reader: &'a Reader<'a>, path: &str, node: &'a Node) -> Option<Port> {
    let mut table = reader.table(path, node)?;
    let mut port = Port {
        port: table.loose_number("port"),
        start_port: table.number("start_port"),
        end_port: table.number("end_port"),
        handlers: table.texts("handlers").unwrap_or_default(),
        force_https: table.bool("force_https").unwrap_or(false),
        ..Port::default()
    };
    let http = options(reader, &mut table, "http_options", &HTTP_OPTIONS);
    let tls = options(reader, &mut table, "tls_options", &TLS_OPTIONS);
    (port.http_options, port.tls_options) = (http_options(http), tls_options(tls));
    if let Some(proxy) = options(reader, &mut table, "proxy_proto_options", &["version"]) {
        port.other.insert("proxy_proto_options".to_owned(), proxy);
    }
    table.done();
    Some(port)
}

/// Returns typed options; their parts were checked when they were read.
pub(crate) fn http_options(json: Option<Json>) -> Option<HttpOptions> {
    json.and_then(|json| serde_json::from_value(json).ok())
}

/// Returns typed options; their parts were checked when they were read.
pub(crate) fn tls_options(json: Option<Json>) -> Option<TlsOptions> {
    json.and_then(|json| serde_json::from_value(json).ok())
}

/// Reads a table of options, checks the parts that have a type, and keeps all.
fn options<'a>(
    reader: &'a Reader<'a>,
    table: &mut Table<'a>,
    key: &'static str,
    known: &[&'static str],
) -> Option<Json> {
    let node = table.take(key)?;
    let mut inner = reader.table(&table.path_of(key), node)?;
    let mut kept = Map::new();
    for name in known {
        let value = match *name {
            "compress" | "h2_backend" | "default_self_signed" => inner.bool(name).map(Json::from),
            "idle_timeout" | "headers_read_timeout" => inner.number::<u32>(name).map(Json::from),
            "alpn" | "versions" => {
                let texts = inner.texts(name).filter(|t| !t.is_empty());
                texts.map(Json::from)
            }
            "version" => inner.text(name).map(Json::from),
            _ => inner.kept(name),
        };
        if let Some(value) = value {
            kept.insert((*name).to_owned(), value);
        }
    }
    inner.done();
    Some(Json::Object(kept))
}

fn autostop<'a>(reader: &'a Reader<'a>, table: &mut Table<'a>) -> Option<Autostop> {
    let node = table.take("auto_stop_machines")?;
    match &node.value {
        Value::Bool(false) => Some(Autostop::Off),
        Value::Bool(true) => Some(Autostop::Stop),
        Value::Text(text) => match text.as_str() {
            "off" => Some(Autostop::Off),
            "stop" => Some(Autostop::Stop),
            "suspend" => Some(Autostop::Suspend),
            other => {
                let path = table.path_of("auto_stop_machines");
                let shown: String = other.chars().take(40).collect();
                let message =
                    format!("invalid autostop string value {shown:?}: write off, stop or suspend");
                reader.error(&path, &node.span, message);
                None
            }
        },
        _ => {
            let path = table.path_of("auto_stop_machines");
            reader.wrong(&path, node, "\"off\", \"stop\", \"suspend\", true or false");
            None
        }
    }
}

fn limits<'a>(reader: &'a Reader<'a>, path: &str, node: &'a Node) -> Option<Concurrency> {
    let mut table = reader.table(path, node)?;
    let kind = table.text("type");
    if let Some(kind) = kind.as_deref()
        && !["", "connections", "requests"].contains(&kind)
    {
        let shown: String = kind.chars().take(40).collect();
        let message = format!("{shown:?} is neither connections nor requests; connections count");
        reader.warn(&format!("{path}.type"), &table.place("type"), message);
    }
    // A limit of 0 is none.
    let limits = Concurrency {
        kind,
        soft_limit: table.number("soft_limit").filter(|n| *n != 0),
        hard_limit: table.number("hard_limit").filter(|n| *n != 0),
    };
    table.done();
    Some(limits)
}

/// Limits of `[[services]]`: a table, or a text "soft,hard" that counts requests.
fn loose_limits<'a>(reader: &'a Reader<'a>, path: &str, node: &'a Node) -> Option<Concurrency> {
    let Value::Text(text) = &node.value else {
        return limits(reader, path, node);
    };
    let pair = text.split_once(',');
    let both = pair.and_then(|(soft, hard)| Some((soft.parse().ok()?, hard.parse().ok()?)));
    let Some((soft, hard)) = both else {
        let shown: String = text.chars().take(40).collect();
        let message =
            format!("unknown value {shown:?} for concurrency limits: write \"soft,hard\"");
        reader.error(path, &node.span, message);
        return None;
    };
    Some(Concurrency {
        kind: Some("requests".to_owned()),
        soft_limit: Some(soft),
        hard_limit: Some(hard),
    })
}
