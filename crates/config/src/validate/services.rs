//! `[http_service]`, `[[services]]` and `[checks]`.

use std::collections::BTreeSet;

use hangar_api::check::CheckConfig;
use hangar_api::duration::GoDuration;
use hangar_api::machine::service::MAX_PORTS_PER_APP;
use hangar_api::machine::service::handling::HANDLERS;
use hangar_api::machine::{Static, statics};

use super::Check;
use crate::app::{Concurrency, Port, ServiceSection};
use crate::problem::Severity;
use crate::{machine, suggest};

const PORT: &str = "write internal_port = 8080, the port that the app listens on";

/// The times of a check of a service.
struct Times {
    interval: Option<GoDuration>,
    timeout: Option<GoDuration>,
    grace_period: Option<GoDuration>,
}

impl Check<'_> {
    pub(super) fn services(&self) {
        let config = self.config;
        if let Some(http) = &config.http_service {
            self.service_groups("http_service", &http.processes);
            self.internal_port("http_service", http.internal_port);
            self.concurrency("http_service", http.concurrency.as_ref());
            let (section, mut told) = (machine::expand(http), BTreeSet::new());
            for (key, message) in refusals(&section) {
                // Both of its ports have the same options.
                let key = key.split_once('.').map_or(key.as_str(), |(_, key)| key);
                if told.insert(message.clone()) {
                    self.refuse(&format!("http_service.{key}"), message);
                }
            }
            for (i, check) in http.checks.iter().enumerate() {
                let times = Times {
                    interval: check.interval,
                    timeout: check.timeout,
                    grace_period: check.grace_period,
                };
                let path = format!("http_service.checks[{i}]");
                self.service_check(&path, "HTTP", &times);
                self.probe(&path, machine::checked(check));
            }
        }
        for (i, service) in config.services.iter().enumerate() {
            self.service(&format!("services[{i}]"), service);
        }
        let ports = config.services.iter().flat_map(|s| &s.ports);
        let all: i64 = ports.map(span).sum();
        let most = i64::try_from(MAX_PORTS_PER_APP).unwrap_or(i64::MAX);
        if all > most {
            let message = format!("asks for {all} ports, and an app has at most {most}");
            self.refuse("services", message);
        }
    }

    fn service(&self, path: &str, service: &ServiceSection) {
        self.service_groups(path, &service.processes);
        if service.ports.is_empty() {
            let message = "Service must expose at least one port. Add a [[services.ports]] section to fly.toml";
            self.warn(path, message);
        }
        self.internal_port(path, service.internal_port);
        self.concurrency(path, service.concurrency.as_ref());
        if !matches!(service.protocol.as_deref(), None | Some("tcp" | "udp")) {
            self.refuse(&format!("{path}.protocol"), "must be tcp or udp");
        }
        for (key, message) in refusals(service) {
            let handlers = service.ports.iter().flat_map(|port| &port.handlers);
            let mut unknown = handlers.filter(|handler| !HANDLERS.contains(&handler.as_str()));
            let unknown = unknown.next().filter(|_| key.ends_with(".handlers"));
            let hint = unknown.and_then(|handler| suggest::name(handler, &HANDLERS));
            let path = format!("{path}.{key}");
            self.tell(Severity::Refused, &path, message, hint.as_deref());
        }
        let is_udp = service.protocol.as_deref() == Some("udp");
        for (i, port) in service.ports.iter().enumerate() {
            if let Some(external) = port
                .port
                .filter(|port| is_udp && *port != service.internal_port)
            {
                let message = format!(
                    "the port of a datagram is never rewritten, so that the app must listen on {external}"
                );
                self.warn(&format!("{path}.ports[{i}].port"), message);
            }
            self.port(&format!("{path}.ports[{i}]"), port);
        }
        for (i, check) in service.tcp_checks.iter().enumerate() {
            let times = Times {
                interval: check.interval,
                timeout: check.timeout,
                grace_period: check.grace_period,
            };
            self.service_check(&format!("{path}.tcp_checks[{i}]"), "TCP", &times);
        }
        for (i, check) in service.http_checks.iter().enumerate() {
            let times = Times {
                interval: check.interval,
                timeout: check.timeout,
                grace_period: check.grace_period,
            };
            let path = format!("{path}.http_checks[{i}]");
            self.service_check(&path, "HTTP", &times);
            self.probe(&path, machine::checked(check));
        }
    }

    /// Folders that the proxy serves files of.
    pub(super) fn statics(&self) {
        let statics = self.config.statics.iter().map(|one| Static {
            guest_path: one.guest_path.clone().unwrap_or_default(),
            url_prefix: one.url_prefix.clone().unwrap_or_default(),
            tigris_bucket: one.tigris_bucket.clone().unwrap_or_default(),
        });
        let statics: Vec<_> = statics.collect();
        for (key, message) in statics::refusals(&statics) {
            self.refuse(&key, message);
        }
    }

    fn internal_port(&self, path: &str, port: i64) {
        if port == 0 {
            let message = "has no internal_port, so nothing reaches the app";
            self.warn_with(path, message, PORT);
        } else if u16::try_from(port).is_err() {
            let message = format!("{port} is no port: 1 to 65535");
            self.refuse(&format!("{path}.internal_port"), message);
        }
    }

    fn concurrency(&self, path: &str, limits: Option<&Concurrency>) {
        let Some(limits) = limits else { return };
        let path = format!("{path}.concurrency");
        if let Some(kind) = limits.kind.as_deref()
            && !["connections", "requests"].contains(&kind)
        {
            let shown: String = kind.chars().take(40).collect();
            let message =
                format!("{shown:?} is neither connections nor requests; connections count");
            self.warn(&format!("{path}.type"), message);
        }
        let (soft, hard) = (limits.soft_limit, limits.hard_limit);
        for (key, limit) in [("soft_limit", soft), ("hard_limit", hard)] {
            if u32::try_from(limit).is_err() {
                let message = format!("{limit} is no limit: 0 to {}", u32::MAX);
                self.refuse(&format!("{path}.{key}"), message);
            }
        }
        if hard != 0 && soft > hard {
            let message = format!("is above hard_limit {hard}, so it is never reached");
            self.warn(&format!("{path}.soft_limit"), message);
        }
    }

    fn port(&self, path: &str, port: &Port) {
        let numbers = [
            ("port", port.port),
            ("start_port", port.start_port),
            ("end_port", port.end_port),
        ];
        for (key, number) in numbers {
            if let Some(number) = number
                && !(1..=65535).contains(&number)
            {
                let message = format!("{number} is no port: 1 to 65535");
                self.refuse(&format!("{path}.{key}"), message);
            }
        }
        match (port.port, port.start_port, port.end_port) {
            (None, None, None) => {
                let hint = "write port, or start_port and end_port";
                self.warn_with(path, "has no port", hint);
            }
            (_, Some(start), Some(end)) if start > end => {
                let message = format!("start_port {start} is above end_port {end}");
                self.warn(path, message);
            }
            _ => {}
        }
    }

    fn service_groups(&self, path: &str, processes: &[String]) {
        let count = self.config.processes.len();
        if count > 0 && processes.is_empty() {
            let message = format!(
                "Service has no processes set but app has {count} processes defined; update fly.toml to set processes for each service"
            );
            let first = self.config.groups().first().copied().unwrap_or_default();
            self.hinted(path, message, &format!("add processes = [\"{first}\"]"));
        }
        self.known_groups(path, "Service", processes, Severity::Error);
    }

    /// Fly only warns of these, and moves the value to the limit.
    fn service_check(&self, path: &str, kind: &str, times: &Times) {
        let second = GoDuration::from_secs(1);
        let minute = GoDuration::from_secs(60);
        let values = [
            ("an interval", "interval", times.interval),
            ("a timeout", "timeout", times.timeout),
            ("a grace period", "grace_period", times.grace_period),
        ];
        for (what, key, value) in values {
            let Some(value) = value else { continue };
            let zero_is_fine = key == "grace_period";
            let message = if zero_is_fine && value == GoDuration::default() {
                continue;
            } else if value < second && zero_is_fine {
                format!(
                    "Service {kind} check has {what} that is non-zero and less than 1 second ({value}); this will be raised to 1 second"
                )
            } else if value < second {
                format!(
                    "Service {kind} check has {what} less than 1 second ({value}); this will be raised to 1 second"
                )
            } else if value > minute {
                format!(
                    "Service {kind} check has {what} greater than 1 minute ({value}); this will be lowered to 1 minute"
                )
            } else {
                continue;
            };
            self.warn(&format!("{path}.{key}"), message);
        }
    }

    /// What a check asks for and that is not done. Its type is told of in Fly's words.
    fn probe(&self, path: &str, check: Option<CheckConfig>) {
        let refusals = check.map(|check| check.refusals()).unwrap_or_default();
        for (key, message) in refusals.into_iter().filter(|(key, _)| *key != "type") {
            self.refuse(&format!("{path}.{key}"), message);
        }
    }

    pub(super) fn checks(&self) {
        for (name, check) in &self.config.checks {
            let path = format!("checks.{name}");
            self.probe(&path, machine::checked(check));
            if !matches!(check.kind.as_deref(), Some("http" | "tcp")) {
                let message = format!(
                    "Can't process top level check '{name}': Missing or invalid check type, must be 'http' or 'tcp'"
                );
                self.hinted(&path, message, "write type = \"http\" or type = \"tcp\"");
            }
            if let Some(interval) = check.interval
                && interval < GoDuration::from_secs(2)
            {
                let message = format!(
                    "Check '{name}' interval is too short: {interval}, minimum is 2 seconds"
                );
                self.error(&format!("{path}.interval"), message);
            }
            if let Some(timeout) = check.timeout
                && timeout > GoDuration::from_secs(60)
            {
                let message =
                    format!("Check '{name}' timeout is too long: {timeout}, maximum is 60 seconds");
                self.error(&format!("{path}.timeout"), message);
            }
            if let Some(port) = check.port
                && !(1..=65535).contains(&port)
            {
                let message = format!("{port} is no port: 1 to 65535");
                self.refuse(&format!("{path}.port"), message);
            }
            self.known_groups(&path, "Check", &check.processes, Severity::Warning);
        }
    }
}

/// Returns what a service asks of the proxy that is not done, with its key below the section. What
/// else is said of protocol and number of ports is said of the file.
fn refusals(section: &ServiceSection) -> Vec<(String, String)> {
    let service = machine::proxied(section);
    let all = service.map(|service| service.refusals());
    let all = all.unwrap_or_default().into_iter();
    all.filter(|(key, _)| key.contains('.')).collect()
}

/// Returns how many ports an item covers.
fn span(port: &Port) -> i64 {
    match (port.port, port.start_port, port.end_port) {
        (Some(_), ..) => 1,
        (None, None, None) => 0,
        (None, start, end) => {
            let last = end.unwrap_or(65535);
            last.saturating_sub(start.unwrap_or(0))
                .saturating_add(1)
                .max(0)
        }
    }
}
