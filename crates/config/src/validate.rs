//! What is wrong beyond types: all of it at once, each with its place, in Fly's words where Fly
//! has them (process-groups-and-deploy.md 1.6).
//!
//! An *error* is one on Fly too. What Fly takes and Hangar cannot carry out is *refused*: the
//! file is valid, and a deploy says no before anything is built.

mod mounts;
mod services;

use hangar_api::duration::GoDuration;
use hangar_api::id::{AppName, GroupName, Region};

use crate::app::AppConfig;
use crate::problem::{Severity, Span};
use crate::raw::{Node, Value};
use crate::read::{Reader, join};
use crate::{machine, suggest, words};

const STRATEGIES: [&str; 4] = ["canary", "rolling", "immediate", "bluegreen"];
/// Most regular seconds of `kill_timeout`.
const MAX_KILL_SECS: i64 = 300;

/// Checks a decoded file as a whole.
pub(crate) fn whole(reader: &Reader<'_>, config: &AppConfig, root: &Node) {
    let more_mounts = Severity::Refused;
    Check {
        reader,
        config,
        root,
        more_mounts,
    }
    .all();
}

/// Checks a configuration that was flattened for one group.
pub(crate) fn flat(reader: &Reader<'_>, config: &AppConfig, root: &Node) {
    let more_mounts = Severity::Error;
    Check {
        reader,
        config,
        root,
        more_mounts,
    }
    .all();
}

struct Check<'a> {
    reader: &'a Reader<'a>,
    config: &'a AppConfig,
    root: &'a Node,
    /// What a second mount of a group is: Fly's client finds it only in a flattened one.
    more_mounts: Severity,
}

impl Check<'_> {
    fn all(&self) {
        self.names();
        self.commands();
        self.deploy();
        self.services();
        self.statics();
        self.checks();
        self.mounts();
        self.restart();
        self.groups_of_other_sections();
        self.build();
        self.rest();
        self.variables("", self.root);
        // A size or a check that no Machine can have is told here, not in the deploy. After an error
        // it would only be told twice.
        if !self.reader.has_errors() {
            for (path, message) in machine::faults(self.config) {
                self.refuse(&path, format!("cannot be deployed: {message}"));
            }
        }
    }

    fn place(&self, path: &str) -> Span {
        find(self.root, path).map_or(0..0, |n| n.span.clone())
    }

    fn tell(&self, severity: Severity, path: &str, message: String, hint: Option<&str>) {
        let hint = hint.map(str::to_owned);
        self.reader
            .tell(severity, path, &self.place(path), message, hint);
    }

    fn error(&self, path: &str, message: impl Into<String>) {
        self.tell(Severity::Error, path, message.into(), None);
    }

    fn hinted(&self, path: &str, message: impl Into<String>, hint: &str) {
        self.tell(Severity::Error, path, message.into(), Some(hint));
    }

    fn refuse(&self, path: &str, message: impl Into<String>) {
        self.tell(Severity::Refused, path, message.into(), None);
    }

    fn warn(&self, path: &str, message: impl Into<String>) {
        self.tell(Severity::Warning, path, message.into(), None);
    }

    fn warn_with(&self, path: &str, message: impl Into<String>, hint: &str) {
        self.tell(Severity::Warning, path, message.into(), Some(hint));
    }

    fn names(&self) {
        if let Some(app) = &self.config.app
            && let Err(error) = AppName::new(app.as_str())
        {
            self.refuse("app", error.to_string());
        }
        if let Some(region) = &self.config.primary_region
            && let Err(error) = Region::new(region.as_str())
        {
            self.refuse("primary_region", error.to_string());
        }
        for group in self.config.processes.keys() {
            if let Err(error) = GroupName::new(group.as_str()) {
                self.refuse(&join("processes", group), error.to_string());
            }
        }
    }

    fn commands(&self) {
        for (group, command) in &self.config.processes {
            let path = join("processes", group);
            match words::split(command) {
                Err(error) => {
                    let message = format!(
                        "Could not parse command for '{group}' process group; check [processes] section: {error}"
                    );
                    self.hinted(&path, message, QUOTES);
                }
                Ok(words) if words.is_empty() && !command.is_empty() => {
                    let message = "holds no command: the image's runs, and not experimental.cmd";
                    self.warn(&path, message);
                }
                Ok(words) => self.shell_syntax(&path, &words),
            }
        }
        if let Some(command) = &self.config.console_command
            && words::split(command).is_err()
        {
            let message = format!("Can't shell split console command: '{command}'");
            self.hinted("console_command", message, QUOTES);
        }
        let deploy = self.config.deploy.as_ref();
        if let Some(command) = deploy.and_then(|d| d.release_command.as_ref()) {
            match words::split(command) {
                Err(_) => {
                    let message = format!("Can't shell split release command: '{command}'");
                    self.hinted("deploy.release_command", message, QUOTES);
                }
                Ok(words) => self.shell_syntax("deploy.release_command", &words),
            }
        }
    }

    /// `&&` is an ordinary word: hardly ever meant.
    fn shell_syntax(&self, path: &str, words: &[String]) {
        let program = words
            .first()
            .and_then(|w| w.rsplit('/').next())
            .unwrap_or_default();
        if ["sh", "ash", "bash", "dash", "zsh"].contains(&program) {
            return;
        }
        let syntax = words
            .iter()
            .find(|w| ["&&", "||", "|", ";", ">", ">>"].contains(&w.as_str()));
        if let Some(word) = syntax {
            let message =
                format!("no shell reads this: {word:?} is passed to the program as it is");
            self.warn_with(path, message, "write sh -c '…'");
        }
    }

    fn deploy(&self) {
        let Some(deploy) = &self.config.deploy else {
            return;
        };
        let zero = |time: Option<GoDuration>| time.is_some_and(|t| t <= GoDuration::from_secs(0));
        if zero(deploy.wait_timeout) {
            let message = "no Machine starts in no time: it must be more than 0";
            self.refuse("deploy.wait_timeout", message);
        }
        if let Some(strategy) = &deploy.strategy
            && !STRATEGIES.contains(&strategy.as_str())
        {
            let message = format!(
                "unsupported deployment strategy '{strategy}'; Apps v2 supports the following strategies: {}",
                STRATEGIES.join(", ")
            );
            self.error("deploy.strategy", message);
        }
        if deploy.strategy.as_deref() == Some("canary") && !self.config.mounts.is_empty() {
            let message =
                "error canary deployment strategy is not supported when using mounted volumes";
            self.error("deploy.strategy", message);
        }
        if deploy.max_unavailable.is_some_and(|n| n <= 0.0) {
            self.refuse("deploy.max_unavailable", "must be greater than 0");
        }
        let rolls = matches!(
            deploy.strategy.as_deref(),
            None | Some("rolling" | "canary")
        );
        if deploy.max_unavailable.is_some() && !rolls {
            let message = "does nothing: only rolling and canary replace Machines in turns";
            self.warn("deploy.max_unavailable", message);
        }
    }

    /// Tells when a section is for a group that does not exist.
    fn known_groups(&self, path: &str, what: &str, processes: &[String], severity: Severity) {
        let groups = self.config.groups();
        for name in processes {
            // In a section that Fly checks, "" is a group that does not exist.
            let everybody = name.is_empty() && severity == Severity::Warning;
            if everybody || groups.contains(&name.as_str()) {
                continue;
            }
            let message = match severity {
                Severity::Error => format!(
                    "{what} specifies '{name}' as one of its processes, but no processes are defined with that name; update fly.toml [processes] to add '{name}' process or remove it from {}'s processes list",
                    what.to_lowercase()
                ),
                _ => format!("is for process group '{name}', which does not exist: nobody gets it"),
            };
            let hint = suggest::name(name, &groups)
                .unwrap_or_else(|| format!("the groups are: {}", groups.join(", ")));
            let key = join(path, "processes");
            self.tell(severity, &key, message, Some(&hint));
        }
    }

    fn restart(&self) {
        for (i, restart) in self.config.restart.iter().enumerate() {
            let path = format!("restart[{i}]");
            let policy = restart.policy.as_deref().unwrap_or_default();
            if !["always", "never", "on-failure"].contains(&policy) {
                let message = format!("invalid restart policy: {policy}");
                self.hinted(&path, message, "write always, never or on-failure");
            }
            self.known_groups(&path, "Restart policy", &restart.processes, Severity::Error);
        }
    }

    /// A typing error here silently gives nobody the section on Fly.
    fn groups_of_other_sections(&self) {
        let config = self.config;
        let lists: [(&str, Vec<&[String]>); 4] = [
            ("vm", config.vm.iter().map(|s| &s.processes[..]).collect()),
            (
                "mounts",
                config.mounts.iter().map(|s| &s.processes[..]).collect(),
            ),
            (
                "metrics",
                config.metrics.iter().map(|s| &s.processes[..]).collect(),
            ),
            (
                "files",
                config.files.iter().map(|s| &s.processes[..]).collect(),
            ),
        ];
        for (key, sections) in lists {
            for (i, processes) in sections.into_iter().enumerate() {
                let path = format!("{key}[{i}]");
                self.known_groups(&path, "Section", processes, Severity::Warning);
            }
        }
    }

    fn build(&self) {
        let Some(build) = &self.config.build else {
            return;
        };
        if let Some(kind) = &build.compression
            && !["gzip", "zstd"].contains(&kind.as_str())
        {
            let message = format!(
                "Invalid value '{kind}' for compression. Valid options are 'gzip', 'zstd', or leave unset."
            );
            self.error("build.compression", message);
        }
        if let Some(level) = build.compression_level
            && !(0..=9).contains(&level)
        {
            let message = format!(
                "Invalid value '{level}' for compression level. Must be an integer between 0 and 9."
            );
            self.error("build.compression_level", message);
        }
        let mut ways = Vec::new();
        if let Some(image) = &build.image {
            ways.push(format!("the \"{image}\" docker image"));
        }
        if build.builder.is_some() || !build.buildpacks.is_empty() {
            ways.push("a buildpack".to_owned());
        }
        match (&build.dockerfile, &build.target) {
            (Some(file), _) => ways.push(format!("the \"{}\" dockerfile", shown_url(file))),
            (None, Some(_)) => ways.push("a dockerfile".to_owned()),
            (None, None) => {}
        }
        if let Some(name) = &build.builtin {
            ways.push(format!("the \"{name}\" builtin image"));
        }
        if ways.len() > 1 {
            let ways = ways.join(", ");
            let message = format!("more than one build configuration found: [{ways}]");
            self.warn("build", message);
        }
    }

    fn rest(&self) {
        if let Some(signal) = self.config.kill_signal.as_deref()
            && !signal.is_empty()
            && hangar_api::signal::number(signal).is_none()
        {
            let message = format!("no signal is called {signal:?}");
            let hint = "write SIGINT, SIGTERM, SIGQUIT or another one of Linux";
            self.tell(Severity::Refused, "kill_signal", message, Some(hint));
        }
        let time = self.config.kill_timeout;
        if time.is_some_and(|t| t < GoDuration::from_secs(0)) {
            self.refuse("kill_timeout", "is negative");
        }
        if time.is_some_and(|t| t > GoDuration::from_secs(MAX_KILL_SECS)) {
            let message = "is longer than 5 minutes and will be cut to that";
            self.warn("kill_timeout", message);
        }
        for (key, value) in &self.config.env {
            let path = join("env", key);
            if key.is_empty() || key.contains('=') {
                self.refuse(&path, "a variable's name is empty or holds a '='");
            }
            if key.contains('\0') || value.contains('\0') {
                self.refuse(&path, "a name or value holds a NUL character");
            }
        }
    }

    /// Nothing is replaced in this file. Commands may be meant for a shell, files for anything.
    fn variables(&self, path: &str, node: &Node) {
        const READ_BY_OTHERS: [&str; 7] = [
            "processes",
            "experimental",
            "files",
            "release_command",
            "console_command",
            "machine_config",
            "command",
        ];
        match &node.value {
            Value::Text(text) if text.contains("${") && text.contains('}') => {
                let message = "variables are not replaced in this file";
                let hint = "write the value itself, or set it with `secrets set`";
                self.reader.tell(
                    Severity::Warning,
                    path,
                    &node.span,
                    message,
                    Some(hint.to_owned()),
                );
            }
            Value::List(items) => {
                for (i, item) in items.iter().enumerate() {
                    self.variables(&format!("{path}[{i}]"), item);
                }
            }
            Value::Table(entries) => {
                let told = entries
                    .iter()
                    .filter(|e| !READ_BY_OTHERS.contains(&e.key.as_str()));
                told.for_each(|e| self.variables(&join(path, &e.key), &e.node));
            }
            _ => {}
        }
    }
}

const QUOTES: &str = "close the quote, or write sh -c '…' for shell syntax";

/// Returns a Dockerfile's path or address without what may be secret in it.
fn shown_url(file: &str) -> String {
    let Some((scheme, rest)) = file.split_once("://") else {
        return file.to_owned();
    };
    if !["http", "https"].contains(&scheme) {
        return file.to_owned();
    }
    let end = rest.find(['?', '#']).unwrap_or(rest.len());
    let (host, path) = match rest[..end].split_once('/') {
        Some((host, path)) => (host, format!("/{path}")),
        None => (&rest[..end], String::new()),
    };
    let host = host.rsplit('@').next().unwrap_or(host);
    let port = host.rsplit_once(':').map(|(_, port)| port);
    let bad_port = port.is_some_and(|p| !p.is_empty() && p.parse::<u16>().is_err());
    let strange = |c: char| c.is_whitespace() || c.is_control();
    if host.is_empty() || bad_port || host.contains(strange) {
        return "invalid URL".to_owned();
    }
    format!("{scheme}://{host}{path}")
}

/// Returns the value at a path such as `services[0].ports[1]`, or the nearest one above it.
fn find<'a>(root: &'a Node, path: &str) -> Option<&'a Node> {
    let mut at = root;
    let mut rest = path;
    while !rest.is_empty() {
        // A name may hold dots itself: the longest that is there is meant.
        let entries = at.entries().iter().filter(|e| {
            let after = rest.strip_prefix(e.key.as_str());
            after.is_some_and(|a| a.is_empty() || a.starts_with(['.', '[']))
        });
        let Some(entry) = entries.max_by_key(|e| e.key.len()) else {
            break;
        };
        at = &entry.node;
        rest = &rest[entry.key.len()..];
        if let (Some((index, after)), Value::List(items)) = (
            rest.strip_prefix('[').and_then(|r| r.split_once(']')),
            &at.value,
        ) {
            at = items.get(index.parse::<usize>().ok()?)?;
            rest = after;
        }
        rest = rest.strip_prefix('.').unwrap_or(rest);
    }
    Some(at)
}
