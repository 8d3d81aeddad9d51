//! What is done with the connections of an external port, understood once.
//!
//! The one truth of what handlers and their options may say (proxy-network-runtime.md 1.12, 1.13,
//! 3): a fly.toml is told before anything is built, the server refuses what is not in it, and the
//! proxy acts on it.

use std::time::Duration;

use serde_json::Value;

use super::{HttpOptions, MAX_PORTS_PER_APP, Port, ProxyProtoOptions, Service, TlsOptions};

/// The handlers that there are.
pub const HANDLERS: [&str; 5] = ["http", "tls", "pg_tls", "proxy_proto", "tcp"];
/// Most protocols that a port offers in a TLS handshake.
const MAX_ALPN: usize = 16;
/// Most headers that are set or removed.
const MAX_HEADERS: usize = 64;
/// Most bytes of the values of one header that is set.
const MAX_VALUES: usize = 8 * 1024;
/// Headers that say how a message is sent: the proxy's own.
const FRAMING: [&str; 9] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-encoding",
];

/// What is done with the connections of a TCP port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handling {
    /// HTTP is parsed; `None` passes bytes through.
    pub http: Option<Http>,
    /// TLS is ended; `None` leaves it to the app.
    pub tls: Option<Tls>,
    /// The app is told of the client first.
    pub proxy_proto: Option<ProxyProto>,
    /// Plain HTTP is answered with a redirect to https.
    pub force_https: bool,
}

/// What the http handler does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Http {
    /// Answers are compressed for clients that take it.
    pub compress: bool,
    /// HTTP/2 without TLS is spoken to the app.
    pub h2_backend: bool,
    /// A connection to the app on which nothing moves for so long is closed.
    pub idle_timeout: Option<Duration>,
    /// The app may take so long to begin its answer.
    pub headers_read_timeout: Option<Duration>,
    /// `Server`, `Via`, `Fly-Request-Id` and `Fly-Cache-Status` of an answer stay as they are.
    pub pristine: bool,
    /// What is done to headers of answers, last of all.
    pub headers: Vec<HeaderRule>,
}

/// What is done to one header of answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderRule {
    /// Its name, in lower case.
    pub name: String,
    /// What it is set to; none removes it.
    pub values: Vec<String>,
}

/// How TLS is ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// The client asks for it as Postgres has it.
    pub postgres: bool,
    /// Protocols that are offered instead of the usual ones.
    pub alpn: Option<Vec<String>>,
    /// Versions that are offered.
    pub versions: TlsVersions,
}

/// Versions of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TlsVersions {
    /// 1.2 and 1.3.
    #[default]
    Both,
    /// Only 1.2.
    Only12,
    /// Only 1.3.
    Only13,
}

/// The form of the PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProto {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// Something that is asked for and not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The key below the port or the service, such as `http_options.response.headers`.
    pub key: &'static str,
    /// A sentence fragment that fits after the key.
    pub text: String,
}

fn refusal(key: &'static str, text: impl Into<String>) -> Refusal {
    let text = text.into();
    Refusal { key, text }
}

// === impl Service ===

impl Service {
    /// Returns what the service asks for and is not done, each with its key below the service,
    /// such as `ports[0].handlers`; nothing when all of it is served.
    #[must_use]
    pub fn refusals(&self) -> Vec<(String, String)> {
        let mut all = Vec::new();
        let udp = self.protocol == "udp";
        if !udp && self.protocol != "tcp" {
            let text = format!("{:?} is not offered; use tcp or udp", self.protocol);
            all.push(("protocol".to_owned(), text));
        }
        for (index, port) in self.ports.iter().enumerate() {
            let refused = if udp { port.of_udp() } else { port.handling() };
            let below = refused.err().into_iter().flatten();
            all.extend(below.map(|r| (format!("ports[{index}].{}", r.key), r.text)));
        }
        let asked: usize = self.ports.iter().map(|port| port.range().len()).sum();
        if asked > MAX_PORTS_PER_APP {
            let text = format!(
                "{asked} external ports are too many, an app has at most {MAX_PORTS_PER_APP}"
            );
            all.push(("ports".to_owned(), text));
        }
        all
    }
}

// === impl Port ===

impl Port {
    /// Returns what is done with connections to this TCP port, or all that is asked for and not
    /// done.
    pub fn handling(&self) -> Result<Handling, Vec<Refusal>> {
        let mut wrong = Vec::new();
        let unknown = |h: &&String| !HANDLERS.contains(&h.as_str());
        if let Some(handler) = self.handlers.iter().find(unknown) {
            let known = HANDLERS.join(", ");
            let text = format!("{handler:?} is not offered; use {known}");
            wrong.push(refusal("handlers", text));
        }
        let http = self.has("http");
        if http && self.has("pg_tls") {
            wrong.push(refusal("handlers", "http and pg_tls exclude each other"));
        }
        if self.force_https && !http {
            wrong.push(refusal("force_https", "needs the http handler"));
        }
        // Options are looked at also without their handler: a mistake is one either way.
        let http_options = Http::of(self.http_options.as_ref(), &mut wrong);
        let tls_options = Tls::of(self.tls_options.as_ref(), self.has("pg_tls"), &mut wrong);
        let version = ProxyProto::of(self.proxy_proto_options.as_ref(), &mut wrong);
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let ends_tls = self.has("tls") || self.has("pg_tls");
        Ok(Handling {
            http: http.then_some(http_options),
            tls: ends_tls.then_some(tls_options),
            proxy_proto: self.has("proxy_proto").then_some(version),
            force_https: self.force_https,
        })
    }

    /// Datagrams are passed on as they are.
    fn of_udp(&self) -> Result<Handling, Vec<Refusal>> {
        let mut wrong = Vec::new();
        if !self.handlers.is_empty() {
            let text = "must be left out for udp: datagrams are passed on as they are";
            wrong.push(refusal("handlers", text));
        }
        if self.force_https {
            wrong.push(refusal("force_https", "needs the http handler"));
        }
        if wrong.is_empty() {
            Ok(Handling::default())
        } else {
            Err(wrong)
        }
    }
}

// === impl Http ===

impl Http {
    fn of(options: Option<&HttpOptions>, wrong: &mut Vec<Refusal>) -> Self {
        let Some(options) = options else {
            return Self::default();
        };
        let seconds = |given: Option<u32>| {
            let given = given.filter(|seconds| *seconds > 0);
            given.map(|seconds| Duration::from_secs(seconds.into()))
        };
        let response = options.response.as_ref();
        let headers = response.map(|response| &response.headers);
        let headers: Vec<_> = headers.into_iter().flatten().collect();
        let key = "http_options.response.headers";
        if headers.len() > MAX_HEADERS {
            let text = format!("{} are too many, at most {MAX_HEADERS}", headers.len());
            wrong.push(refusal(key, text));
        }
        let rules = headers.into_iter().map(|(name, value)| rule(name, value));
        let (rules, errors): (Vec<_>, Vec<_>) = rules.partition(Result::is_ok);
        let errors = errors.into_iter().filter_map(Result::err);
        wrong.extend(errors.map(|text| refusal(key, text)));
        Self {
            compress: options.compress.unwrap_or(false),
            h2_backend: options.h2_backend.unwrap_or(false),
            idle_timeout: seconds(options.idle_timeout),
            headers_read_timeout: seconds(options.headers_read_timeout),
            pristine: response.and_then(|r| r.pristine).unwrap_or(false),
            headers: rules.into_iter().filter_map(Result::ok).collect(),
        }
    }
}

fn rule(name: &str, value: &Value) -> Result<HeaderRule, String> {
    let shown: String = name.chars().take(40).collect();
    let is_name = !name.is_empty() && name.len() <= 256 && name.bytes().all(is_token);
    if !is_name {
        return Err(format!("{shown:?} is no name of a header"));
    }
    let lower = name.to_ascii_lowercase();
    if FRAMING.contains(&lower.as_str()) {
        return Err(format!(
            "{name} says how an answer is sent, and is the proxy's own"
        ));
    }
    let values = match value {
        Value::Bool(false) => Some(Vec::new()),
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(list) if !list.is_empty() => list
            .iter()
            .map(|item| item.as_str().map(str::to_owned))
            .collect(),
        _ => None,
    };
    let Some(values) = values else {
        return Err(format!(
            "{name} must be false, a text or a list of texts, not {value}"
        ));
    };
    let is_value = |text: &String| text.bytes().all(|b| b == b'\t' || (b >= b' ' && b != 0x7f));
    if !values.iter().all(is_value) {
        return Err(format!("the value of {name} holds control characters"));
    }
    if values.iter().map(String::len).sum::<usize>() > MAX_VALUES {
        return Err(format!(
            "the value of {name} is longer than {MAX_VALUES} bytes"
        ));
    }
    let name = lower;
    Ok(HeaderRule { name, values })
}

/// Returns whether a byte may stand in a header's name (RFC 9110, 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

// === impl Tls ===

impl Tls {
    fn of(options: Option<&TlsOptions>, postgres: bool, wrong: &mut Vec<Refusal>) -> Self {
        let Some(options) = options else {
            return Self {
                postgres,
                ..Self::default()
            };
        };
        let alpn = options.alpn.clone().filter(|list| !list.is_empty());
        let list = alpn.as_deref().unwrap_or_default();
        let is_protocol = |name: &String| (1..=255).contains(&name.len());
        if list.len() > MAX_ALPN || !list.iter().all(is_protocol) {
            let text =
                format!("must be at most {MAX_ALPN} names of protocols, each of 1 to 255 bytes");
            wrong.push(refusal("tls_options.alpn", text));
        }
        let versions = options.versions.as_deref().unwrap_or_default();
        let known = |version: &&String| matches!(version.as_str(), "TLSv1.2" | "TLSv1.3");
        if let Some(other) = versions.iter().find(|v| !known(v)) {
            let text = format!("{other:?} is not spoken; use TLSv1.2 and TLSv1.3");
            wrong.push(refusal("tls_options.versions", text));
        }
        let has = |wanted: &str| versions.iter().any(|version| version == wanted);
        let versions = match (has("TLSv1.2"), has("TLSv1.3")) {
            (true, false) => TlsVersions::Only12,
            (false, true) => TlsVersions::Only13,
            _ => TlsVersions::Both,
        };
        Self {
            postgres,
            alpn,
            versions,
        }
    }
}

// === impl ProxyProto ===

impl ProxyProto {
    fn of(options: Option<&ProxyProtoOptions>, wrong: &mut Vec<Refusal>) -> Self {
        let version = options.and_then(|options| options.version.as_deref());
        match version.unwrap_or_default() {
            "" | "v1" => Self::V1,
            "v2" => Self::V2,
            other => {
                let text = format!("{other:?} is no version; use v1 or v2");
                wrong.push(refusal("proxy_proto_options.version", text));
                Self::V1
            }
        }
    }
}

#[cfg(test)]
mod tests;
