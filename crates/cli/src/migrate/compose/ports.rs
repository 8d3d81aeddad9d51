//! Ports that a Compose service publishes.

use serde_json::Value;

use crate::migrate::Converted;
use crate::migrate::service::Published;
use crate::migrate::value::{self, port, text};

/// Ports of programs that do not speak HTTP.
const NOT_HTTP: [u16; 28] = [
    21, 22, 25, 53, 110, 143, 389, 465, 587, 636, 993, 995, 1433, 1521, 1883, 2181, 3306, 4222,
    5432, 5672, 6379, 6380, 9042, 9092, 11211, 27017, 28015, 33060,
];

/// Reads `ports`; what is not TCP, or only for the machine itself, is noted.
pub(super) fn read(value: &Value, at: &str, out: &mut Converted) -> Vec<Published> {
    let mut found = Vec::new();
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        let at = format!("{at}[{index}]");
        match text(item) {
            Some(short) => short_form(&short, &at, &mut found, out),
            None => long_form(item, &at, &mut found, out),
        }
    }
    found
}

fn long_form(item: &Value, at: &str, found: &mut Vec<Published>, out: &mut Converted) {
    let host = text(&item["host_ip"]).unwrap_or_default();
    let published = text(&item["published"]).unwrap_or_default();
    let target = text(&item["target"]).unwrap_or_default();
    let protocol = text(&item["protocol"]).unwrap_or_else(|| "tcp".to_owned());
    let parts = [host, published, target]
        .into_iter()
        .filter(|part| !part.is_empty());
    let short: Vec<String> = parts.collect();
    short_form(&format!("{}/{protocol}", short.join(":")), at, found, out);
    for key in value::table(item).keys() {
        if !["target", "published", "protocol", "host_ip", "name", "mode"].contains(&key.as_str()) {
            out.note(format!("{at}.{key}"), "is not carried over");
        }
    }
}

fn short_form(short: &str, at: &str, found: &mut Vec<Published>, out: &mut Converted) {
    let (ports, protocol) = short.split_once('/').unwrap_or((short, "tcp"));
    if protocol == "udp" {
        let text = "datagrams are not carried over: add [[services]] with protocol = \"udp\", and the \
                    same port inside and outside";
        out.note(at, format!("{short}: {text}"));
        return;
    }
    if protocol != "tcp" {
        out.note(at, format!("{short}: the proxy serves TCP and UDP only"));
        return;
    }
    let mut parts = ports.rsplitn(3, ':');
    let target = parts.next().unwrap_or_default();
    let published = parts.next();
    let host = parts.next().unwrap_or_default().trim_matches(['[', ']']);
    if ["127.0.0.1", "::1", "localhost"].contains(&host) {
        out.note(
            at,
            format!("{short} is for the machine itself, so it is not published: other apps reach port {target} by the .internal name"),
        );
        return;
    }
    let number = |text: &str| port(&Value::String(text.to_owned()));
    match (number(target), published) {
        (Some(target), None | Some("")) => found.push(Published { target, published: None, http: is_http(target) }),
        (Some(target), Some(published)) if number(published).is_some() => found.push(Published {
            target,
            published: number(published),
            http: is_http(target),
        }),
        _ => out.note(at, format!("{short}: ranges are not carried over: write [[services]] with start_port and end_port")),
    }
}

/// Returns whether a port is to be served as HTTP: what is not known to be something else.
pub(in crate::migrate) fn is_http(port: u16) -> bool {
    !NOT_HTTP.contains(&port)
}
