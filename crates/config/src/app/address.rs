//! Where an app is reached, and what kind of public address it needs
//! (process-groups-and-deploy.md 1.6).

use super::{AppConfig, Port, ServiceSection};

/// The kind of public address that an app needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpKind {
    /// None: only its own network reaches it.
    Private,
    /// One of its own: something else than web pages on the usual ports is served.
    Dedicated,
    /// One that it shares with others, told apart by the host name.
    Shared,
}

impl AppConfig {
    /// Returns the kind of public address that the services need. `private` is that somebody has
    /// asked for none.
    #[must_use]
    pub fn ip_kind(&self, private: bool) -> IpKind {
        if private {
            return IpKind::Private;
        }
        if self.services.iter().any(needs_its_own) {
            return IpKind::Dedicated;
        }
        IpKind::Shared
    }

    /// Returns where the app is reached, on Fly's own domain: `None` where nothing serves HTTP.
    /// `domain` is put in place of `fly.dev`.
    #[must_use]
    pub fn url(&self, domain: &str) -> Option<String> {
        let app = self.app.as_deref().unwrap_or_default();
        let host = format!("{app}.{domain}");
        if self
            .http_service
            .as_ref()
            .is_some_and(|h| h.internal_port > 0)
        {
            return Some(format!("https://{host}/"));
        }
        let (mut plain, mut secure) = (Vec::new(), Vec::new());
        for port in self.services.iter().flat_map(|s| &s.ports) {
            let has = |handler: &str| port.handlers.iter().any(|h| h == handler);
            match port.port {
                Some(number) if has("http") && has("tls") => secure.push(number),
                Some(number) if has("http") => plain.push(number),
                _ => {}
            }
        }
        if secure.contains(&443) {
            return Some(format!("https://{host}/"));
        }
        if plain.contains(&80) {
            return Some(format!("http://{host}/"));
        }
        if let Some(port) = secure.iter().min() {
            return Some(format!("https://{host}:{port}/"));
        }
        let port = plain.iter().min()?;
        Some(format!("http://{host}:{port}/"))
    }
}

fn needs_its_own(service: &ServiceSection) -> bool {
    match service.protocol.as_deref() {
        Some("udp") => true,
        Some("tcp") => service.ports.iter().any(is_no_web_port),
        _ => false,
    }
}

/// Returns whether a port serves something else than HTTP where everybody looks for it.
fn is_no_web_port(port: &Port) -> bool {
    let mut handlers: Vec<&str> = port.handlers.iter().map(String::as_str).collect();
    handlers.sort_unstable();
    match (port.port, port.start_port, port.end_port) {
        (Some(80), None, None) => handlers != ["http"],
        (Some(443), None, None) => handlers != ["http", "tls"],
        (None, None, None) => false,
        (None, start, end) => {
            let (start, end) = (start.unwrap_or(0), end.unwrap_or(65535));
            (start..=end).any(|number| number != 80 && number != 443)
        }
        _ => true,
    }
}
