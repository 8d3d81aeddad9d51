//! What is wrong beyond types: all of it at once, each with its place, in Fly's words where Fly
//! has them (process-groups-and-deploy.md 1.6).

use hangar_api::duration::GoDuration;
use hangar_api::id::{AppName, GroupName, Region};
use hangar_api::machine::service::MAX_PORTS_PER_APP;

use crate::Loaded;
use crate::app::{AppConfig, CheckSection};
use crate::problem::{Severity, Span};
use crate::raw::{Node, RawConfig, Value};
use crate::read::Reader;
use crate::{decode, machine, support, words};

const STRATEGIES: [&str; 4] = ["canary", "rolling", "immediate", "bluegreen"];
const HANDLERS: [&str; 5] = ["http", "tls", "proxy_proto", "pg_tls", "edge_http"];
/// Most regular seconds of `kill_timeout`.
const MAX_KILL_SECS: i64 = 300;

impl RawConfig {
    /// Checks the file as a whole and returns all that there is to say about it.
    #[must_use]
    pub fn validate(&self) -> Loaded {
        let reader = Reader::new(&self.source);
        let config = decode::decode(&reader, &self.root);
        let check = Check {
            reader: &reader,
            config: &config,
            root: &self.root,
        };
        check.all();
        let named = support::find(&reader, &self.root);
        let valid = !reader.has_errors();
        Loaded {
            config: valid.then_some(config),
            problems: reader.into_problems(),
            named,
        }
    }
}

struct Check<'a> {
    reader: &'a Reader<'a>,
    config: &'a AppConfig,
    root: &'a Node,
}

impl Check<'_> {
    fn all(&self) {
        self.names();
        self.commands();
        self.deploy();
        self.services();
        self.checks();
        self.restart();
        self.groups_of_other_sections();
        self.build();
        self.rest();
        // A size or a check that no Machine can have is told here, not in the deploy.
        if !self.reader.has_errors() {
            for (path, message) in machine::faults(self.config) {
                self.error(&path, message);
            }
        }
    }

    fn place(&self, path: &str) -> Span {
        find(self.root, path).map_or(0..0, |n| n.span.clone())
    }

    fn error(&self, path: &str, message: impl Into<String>) {
        self.reader.error(path, &self.place(path), message);
    }

    fn hinted(&self, path: &str, message: impl Into<String>, hint: &str) {
        let hint = Some(hint.to_owned());
        self.reader
            .tell(Severity::Error, path, &self.place(path), message, hint);
    }

    fn warn(&self, path: &str, message: impl Into<String>) {
        self.reader.warn(path, &self.place(path), message);
    }

    fn warn_with(&self, path: &str, message: impl Into<String>, hint: &str) {
        let (place, hint) = (self.place(path), Some(hint.to_owned()));
        self.reader
            .tell(Severity::Warning, path, &place, message, hint);
    }

    fn names(&self) {
        if let Some(app) = &self.config.app
            && let Err(error) = AppName::new(app.as_str())
        {
            self.error("app", error.to_string());
        }
        if let Some(region) = &self.config.primary_region
            && !region.is_empty()
            && let Err(error) = Region::new(region.as_str())
        {
            self.error("primary_region", error.to_string());
        }
        for group in self.config.processes.keys() {
            if let Err(error) = GroupName::new(group.as_str()) {
                self.error(&format!("processes.{group}"), error.to_string());
            }
        }
    }

    fn commands(&self) {
        for (group, command) in &self.config.processes {
            if let Err(error) = words::split(command) {
                let message = format!(
                    "Could not parse command for '{group}' process group; check [processes] section: {error}"
                );
                self.hinted(&format!("processes.{group}"), message, QUOTES);
            }
        }
        if let Some(command) = &self.config.console_command
            && words::split(command).is_err()
        {
            let message = format!("Can't shell split console command: '{command}'");
            self.hinted("console_command", message, QUOTES);
        }
        let deploy = self.config.deploy.as_ref();
        let release = deploy.and_then(|d| d.other.get("release_command"));
        if let Some(command) = release.and_then(|c| c.as_str())
            && words::split(command).is_err()
        {
            let message = format!("Can't shell split release command: '{command}'");
            self.hinted("deploy.release_command", message, QUOTES);
        }
    }

    fn deploy(&self) {
        let Some(deploy) = &self.config.deploy else {
            return;
        };
        if deploy
            .wait_timeout
            .is_some_and(|time| time <= GoDuration::from_secs(0))
        {
            self.error("deploy.wait_timeout", "wait_timeout must be more than 0");
        }
        if let Some(strategy) = &deploy.strategy
            && !strategy.is_empty()
            && !STRATEGIES.contains(&strategy.as_str())
        {
            let message = format!(
                "unsupported deployment strategy '{strategy}'; Apps v2 supports the following strategies: {}",
                STRATEGIES.join(", ")
            );
            self.error("deploy.strategy", message);
        }
        if deploy.strategy.as_deref() == Some("canary") && !self.config.kept.mounts.is_empty() {
            let message =
                "error canary deployment strategy is not supported when using mounted volumes";
            self.error("deploy.strategy", message);
        }
        if deploy.max_unavailable.is_some_and(|n| n <= 0.0) {
            self.error("deploy.max_unavailable", "must be greater than 0");
        }
    }

    /// Tells when a section is for a group that does not exist.
    fn known_groups(&self, path: &str, what: &str, processes: &[String], severity: Severity) {
        let groups = self.config.groups();
        for name in processes {
            if name.is_empty() || groups.contains(&name.as_str()) {
                continue;
            }
            let message = match severity {
                Severity::Error => format!(
                    "{what} specifies '{name}' as one of its processes, but no processes are defined with that name; update fly.toml [processes] to add '{name}' process or remove it from {what}'s processes list"
                ),
                Severity::Warning => {
                    format!("is for process group '{name}', which does not exist: nobody gets it")
                }
            };
            let hint = crate::suggest::hint(name, &groups)
                .or_else(|| Some(format!("the groups are: {}", groups.join(", "))));
            let key = format!("{path}.processes");
            self.reader
                .tell(severity, &key, &self.place(&key), message, hint);
        }
    }

    fn services(&self) {
        let config = self.config;
        if let Some(http) = &config.http_service {
            self.service_groups("http_service", &http.processes);
            if http.internal_port.is_none_or(|p| p == 0) {
                self.port_missing("http_service");
            }
            for (i, check) in http.checks.iter().enumerate() {
                self.service_check(&format!("http_service.checks[{i}]"), "HTTP", check);
            }
        }
        for service in &config.services {
            let key = &service.key;
            self.service_groups(key, &service.processes);
            if service.ports.is_empty() {
                let message = "Service must expose at least one port. Add a [[services.ports]] section to fly.toml";
                self.warn(key, message);
            }
            if service.internal_port.is_none_or(|p| p == 0) {
                self.port_missing(key);
            }
            if !["", "tcp", "udp"].contains(&service.protocol.as_str()) {
                self.error(&format!("{key}.protocol"), "must be tcp or udp");
            }
            self.ports(key, service);
            for (i, check) in service.tcp_checks.iter().enumerate() {
                self.service_check(&format!("{key}.tcp_checks[{i}]"), "TCP", check);
            }
            for (i, check) in service.http_checks.iter().enumerate() {
                self.service_check(&format!("{key}.http_checks[{i}]"), "HTTP", check);
            }
        }
    }

    fn port_missing(&self, key: &str) {
        let message = "has no internal_port, so nothing reaches the app";
        self.warn_with(key, message, PORT);
    }

    fn ports(&self, key: &str, service: &crate::app::ServiceSection) {
        for (i, port) in service.ports.iter().enumerate() {
            let path = format!("{key}.ports[{i}]");
            for handler in &port.handlers {
                if !HANDLERS.contains(&handler.as_str()) {
                    let hint = crate::suggest::hint(handler, &HANDLERS)
                        .unwrap_or_else(|| format!("the handlers are: {}", HANDLERS.join(", ")));
                    let message = format!("{handler:?} is no handler");
                    self.warn_with(&format!("{path}.handlers"), message, &hint);
                }
            }
            if port.port.is_none() && port.start_port.is_none() && port.end_port.is_none() {
                self.warn_with(
                    &path,
                    "has no port",
                    "write port, or start_port and end_port",
                );
            }
            if let (Some(start), Some(end)) = (port.start_port, port.end_port)
                && start > end
            {
                let message = format!("start_port {start} is above end_port {end}");
                self.warn(&path, message);
            }
        }
        let all: usize = service.ports.iter().map(|port| port.range().len()).sum();
        if all > MAX_PORTS_PER_APP {
            let message =
                format!("asks for {all} ports, and an app has at most {MAX_PORTS_PER_APP}");
            self.error(&format!("{key}.ports"), message);
        }
    }

    fn service_groups(&self, key: &str, processes: &[String]) {
        let count = self.config.processes.len();
        if count > 0 && processes.iter().all(String::is_empty) {
            let message = format!(
                "Service has no processes set but app has {count} processes defined; update fly.toml to set processes for each service"
            );
            let hint = format!(
                "add processes = [\"{}\"]",
                self.config.groups().first().copied().unwrap_or_default()
            );
            self.hinted(key, message, &hint);
        }
        self.known_groups(key, "Service", processes, Severity::Error);
    }

    /// Fly only warns of these, and moves the value to the limit.
    fn service_check(&self, path: &str, kind: &str, check: &CheckSection) {
        let bounds = [
            ("an interval", "interval", check.interval),
            ("a timeout", "timeout", check.timeout),
        ];
        for (what, key, value) in bounds {
            let Some(value) = value else { continue };
            let path = format!("{path}.{key}");
            if value < GoDuration::from_secs(1) {
                self.warn(
                    &path,
                    format!("Service {kind} check has {what} less than 1 second ({value}); this will be raised to 1 second"),
                );
            } else if value > GoDuration::from_secs(60) {
                self.warn(
                    &path,
                    format!("Service {kind} check has {what} greater than 1 minute ({value}); this will be lowered to 1 minute"),
                );
            }
        }
        let Some(grace) = check.grace_period else {
            return;
        };
        let path = format!("{path}.grace_period");
        if grace > GoDuration::from_secs(60) {
            self.warn(
                &path,
                format!("Service {kind} check has a grace period greater than 1 minute ({grace}); this will be lowered to 1 minute"),
            );
        } else if grace != GoDuration::default() && grace < GoDuration::from_secs(1) {
            self.warn(
                &path,
                format!("Service {kind} check has a grace period that is non-zero and less than 1 second ({grace}); this will be raised to 1 second"),
            );
        }
    }

    fn checks(&self) {
        for (name, check) in &self.config.checks {
            let path = format!("checks.{name}");
            if !matches!(check.kind.as_deref(), Some("http" | "tcp")) {
                self.error(
                    &path,
                    format!("Can't process top level check '{name}': Missing or invalid check type, must be 'http' or 'tcp'"),
                );
            }
            if let Some(interval) = check.interval
                && interval < GoDuration::from_secs(2)
            {
                self.error(
                    &format!("{path}.interval"),
                    format!(
                        "Check '{name}' interval is too short: {interval}, minimum is 2 seconds"
                    ),
                );
            }
            if let Some(timeout) = check.timeout
                && timeout > GoDuration::from_secs(60)
            {
                self.error(
                    &format!("{path}.timeout"),
                    format!("Check '{name}' timeout is too long: {timeout}, maximum is 60 seconds"),
                );
            }
            self.known_groups(&path, "Check", &check.processes, Severity::Warning);
        }
    }

    fn restart(&self) {
        for (i, restart) in self.config.restart.iter().enumerate() {
            let path = format!("restart[{i}]");
            if !["always", "never", "on-failure"].contains(&restart.policy.as_str()) {
                self.hinted(
                    &path,
                    format!("invalid restart policy: {}", restart.policy),
                    "write always, never or on-failure",
                );
            }
            self.known_groups(&path, "Restart policy", &restart.processes, Severity::Error);
        }
    }

    /// A typing error here silently gives nobody the section on Fly.
    fn groups_of_other_sections(&self) {
        for key in ["vm", "compute", "computes", "mounts", "metrics", "files"] {
            let Some(node) = self.root.get(key) else {
                continue;
            };
            let items: Vec<(String, &Node)> = match &node.value {
                Value::List(items) => items
                    .iter()
                    .enumerate()
                    .map(|(i, item)| (format!("{key}[{i}]"), item))
                    .collect(),
                _ => vec![(key.to_owned(), node)],
            };
            for (path, item) in items {
                let Some(Value::List(names)) = item.get("processes").map(|n| &n.value) else {
                    continue;
                };
                let texts = names.iter().filter_map(|n| match &n.value {
                    Value::Text(text) => Some(text.clone()),
                    _ => None,
                });
                let names: Vec<String> = texts.collect();
                self.known_groups(&path, "Section", &names, Severity::Warning);
            }
        }
    }

    fn build(&self) {
        let Some(build) = &self.config.build else {
            return;
        };
        self.compression(&build.other);
        let mut ways = Vec::new();
        if let Some(image) = &build.image {
            ways.push(format!("the {image:?} docker image"));
        }
        if build.other.contains_key("builder") || build.other.contains_key("buildpacks") {
            ways.push("a buildpack".to_owned());
        }
        if build.dockerfile.is_some() || build.target.is_some() {
            ways.push("a dockerfile".to_owned());
        }
        if build.other.contains_key("builtin") {
            ways.push("a builtin image".to_owned());
        }
        if ways.len() > 1 {
            let ways = ways.join(", ");
            self.warn(
                "build",
                format!("more than one build configuration found: [{ways}]"),
            );
        }
    }

    fn compression(&self, other: &serde_json::Map<String, serde_json::Value>) {
        if let Some(kind) = other.get("compression").and_then(|v| v.as_str())
            && !["", "gzip", "zstd"].contains(&kind)
        {
            let message = format!(
                "Invalid value '{kind}' for compression. Valid options are 'gzip', 'zstd', or leave unset."
            );
            self.error("build.compression", message);
        }
        if let Some(level) = other.get("compression_level").and_then(|v| v.as_i64())
            && !(0..=9).contains(&level)
        {
            let message = format!(
                "Invalid value '{level}' for compression level. Must be an integer between 0 and 9."
            );
            self.error("build.compression_level", message);
        }
    }

    fn rest(&self) {
        if let Some(signal) = self.config.kill_signal.as_deref()
            && !signal.is_empty()
            && hangar_api::signal::number(signal).is_none()
        {
            self.hinted(
                "kill_signal",
                format!("no signal is called {signal:?}"),
                "write SIGINT, SIGTERM, SIGQUIT or another one of Linux",
            );
        }
        let negative = |t: GoDuration| t < GoDuration::from_secs(0);
        if self.config.kill_timeout.is_some_and(negative) {
            self.error("kill_timeout", "is negative");
        }
        let too_long = |t: GoDuration| t > GoDuration::from_secs(MAX_KILL_SECS);
        if self.config.kill_timeout.is_some_and(too_long) {
            self.warn(
                "kill_timeout",
                "is longer than 5 minutes and will be cut to that",
            );
        }
        if self
            .config
            .env
            .keys()
            .any(|k| k.is_empty() || k.contains('='))
        {
            self.error("env", "a name is empty or holds a '='");
        }
        if self
            .config
            .env
            .iter()
            .any(|(k, v)| k.contains('\0') || v.contains('\0'))
        {
            self.error("env", "a name or value holds a NUL character");
        }
    }
}

const QUOTES: &str = "close the quote, or write sh -c '…' for shell syntax";
const PORT: &str = "write internal_port = 8080, the port that the app listens on";

/// Returns the value at a path such as `services[0].ports[1]`, or the nearest one above it.
fn find<'a>(root: &'a Node, path: &str) -> Option<&'a Node> {
    let mut at = root;
    for part in path.split('.') {
        let (name, index) = match part.split_once('[') {
            Some((name, index)) => (name, index.trim_end_matches(']').parse::<usize>().ok()),
            None => (part, None),
        };
        let Some(next) = at.get(name) else { break };
        at = next;
        if let (Some(index), Value::List(items)) = (index, &at.value) {
            at = items.get(index)?;
        }
    }
    Some(at)
}
