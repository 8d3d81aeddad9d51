//! What is done with the connections of an external port, ready to be acted on.

use std::sync::Arc;
use std::time::Duration;

use hangar_api::machine::service::Port;
use hangar_api::machine::service::handling::{Handling, ProxyProto, TlsVersions};
use hyper::header::{HeaderName, HeaderValue};

/// What is offered to clients of the http handler, unless the service says otherwise.
const HTTP_ALPN: [&str; 2] = ["h2", "http/1.1"];
/// What is offered to clients of the pg_tls handler: those that begin with TLS insist on it.
const POSTGRES_ALPN: [&str; 1] = ["postgresql"];

/// What is done with connections to a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) http: bool,
    pub(crate) tls: bool,
    /// TLS is asked for as Postgres has it.
    pub(crate) postgres: bool,
    pub(crate) force_https: bool,
    /// How a Machine is told of the client.
    pub(crate) proxy_proto: Option<ProxyProto>,
    /// Protocols offered in the TLS handshake.
    pub(crate) alpn: Vec<String>,
    pub(crate) versions: TlsVersions,
    pub(crate) answers: Answers,
    /// A connection to a Machine on which nothing moves for so long is closed.
    pub(crate) idle_timeout: Option<Duration>,
    /// A Machine may take so long to begin its answer.
    pub(crate) headers_read_timeout: Option<Duration>,
}

/// What is done to the answers of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answers {
    pub(crate) compress: bool,
    /// The headers that the proxy would add stay as they are.
    pub(crate) pristine: bool,
    /// Headers and what they are set to; nothing removes one.
    pub(crate) rules: Vec<(HeaderName, Vec<HeaderValue>)>,
}

/// The policies of an app's ports while its index is built: most of its Machines have the same.
#[derive(Debug, Default)]
pub(crate) struct Policies(Vec<(Port, Option<Arc<Policy>>)>);

/// Most different ports that are remembered.
const MAX_REMEMBERED: usize = 16;

// === impl Policies ===

impl Policies {
    /// Returns what is done on a port, or `None` where it asks for something that is not done.
    pub(crate) fn of(&mut self, port: &Port) -> Option<Arc<Policy>> {
        if let Some((_, known)) = self.0.iter().find(|(seen, _)| seen == port) {
            return known.clone();
        }
        let policy = Policy::of(port).map(Arc::new);
        if self.0.len() < MAX_REMEMBERED {
            self.0.push((port.clone(), policy.clone()));
        }
        policy
    }
}

// === impl Policy ===

impl Policy {
    /// Returns what is offered to clients of the http handler, unless a service says otherwise.
    pub(crate) fn http_alpn() -> Vec<String> {
        HTTP_ALPN.map(str::to_owned).to_vec()
    }

    /// Returns what is done on a port, or `None` where it asks for something that is not done:
    /// such a service is not served, rather than served wrongly.
    fn of(port: &Port) -> Option<Self> {
        let Handling {
            http,
            tls,
            proxy_proto,
            force_https,
        } = port.handling().ok()?;
        let is_http = http.is_some();
        let http = http.unwrap_or_default();
        let ends_tls = tls.is_some();
        let tls = tls.unwrap_or_default();
        let usual: &[&str] = match (is_http, tls.postgres) {
            (true, _) => &HTTP_ALPN,
            (false, true) => &POSTGRES_ALPN,
            (false, false) => &[],
        };
        let usual = || usual.iter().map(ToString::to_string).collect();
        let rules = http.headers.iter().filter_map(|rule| {
            let name = HeaderName::try_from(rule.name.as_str()).ok()?;
            let values = rule.values.iter().map(|value| value.as_bytes());
            let values: Result<Vec<_>, _> = values.map(HeaderValue::from_bytes).collect();
            Some((name, values.ok()?))
        });
        Some(Self {
            http: is_http,
            tls: ends_tls,
            postgres: tls.postgres,
            force_https,
            proxy_proto,
            alpn: tls.alpn.unwrap_or_else(usual),
            versions: tls.versions,
            answers: Answers {
                compress: http.compress,
                pristine: http.pristine,
                rules: rules.collect(),
            },
            idle_timeout: http.idle_timeout,
            headers_read_timeout: http.headers_read_timeout,
        })
    }
}
