//! Health checks of Compose: commands that ask over HTTP or TCP become checks, others are noted.

use serde_json::{Map, Value};

use crate::migrate::Converted;
use crate::migrate::draft::Check;
use crate::migrate::value::{self, text, texts};

/// Programs that ask a server of a known port whether it is up.
const KNOWN: [(&str, u16); 8] = [
    ("pg_isready", 5432),
    ("redis-cli", 6379),
    ("valkey-cli", 6379),
    ("mysqladmin", 3306),
    ("mariadb-admin", 3306),
    ("mongosh", 27017),
    ("rabbitmq-diagnostics", 5672),
    ("healthcheck.sh", 3306),
];

/// Returns the port that is probed, and the check; none where a command cannot become one.
pub(super) fn read(
    section: &Map<String, Value>,
    at: &str,
    out: &mut Converted,
) -> Option<(u16, Check)> {
    let empty = Value::Null;
    let get = |key: &str| section.get(key).unwrap_or(&empty);
    let mut words = texts(get("test"));
    if get("disable") == &Value::Bool(true) || words.first().is_some_and(|w| w == "NONE") {
        return None;
    }
    words.retain(|word| word != "CMD" && word != "CMD-SHELL");
    let line = words.join(" ");
    let Some((port, mut check)) = probe(&line) else {
        out.note(
            at,
            format!("{line:?} is run inside the container, which is not offered: name an HTTP path or a TCP port in a check"),
        );
        return None;
    };
    if check.kind.as_deref() == Some("tcp") {
        out.note(
            at,
            format!("{line:?} becomes a check that connects to port {port}"),
        );
    }
    let time = |key: &str, low: f64| {
        let seconds = text(get(key)).and_then(|text| seconds(&text))?;
        Some(format!("{}s", seconds.clamp(low, 60.0).ceil()))
    };
    check.interval = time("interval", 2.0).or_else(|| Some("30s".to_owned()));
    check.timeout = time("timeout", 1.0).or_else(|| Some("30s".to_owned()));
    check.grace_period = time("start_period", 1.0);
    for key in section.keys() {
        if !["test", "interval", "timeout", "start_period", "disable"].contains(&key.as_str())
            && !value::is_empty(get(key))
        {
            out.note(
                format!("{at}.{key}"),
                "one failed probe marks a Machine, one passed probe takes the mark away",
            );
        }
    }
    Some((port, check))
}

/// Returns the probe that a command makes.
fn probe(line: &str) -> Option<(u16, Check)> {
    if let Some(found) = http(line) {
        return Some(found);
    }
    let mut words = line.split_whitespace();
    let program = words.next()?;
    let program = program.rsplit('/').next().unwrap_or(program);
    if ["nc", "ncat", "netcat"].contains(&program) {
        let port = words
            .filter_map(|word| word.parse::<u16>().ok())
            .next_back()?;
        return Some(tcp(port));
    }
    let known = KNOWN.iter().find(|(name, _)| *name == program)?;
    let mut rest = line.split_whitespace();
    let said = rest
        .find(|word| ["-p", "--port", "-P"].contains(word))
        .and_then(|_| rest.next()?.parse().ok());
    Some(tcp(said.unwrap_or(known.1)))
}

fn tcp(port: u16) -> (u16, Check) {
    let check = Check {
        kind: Some("tcp".to_owned()),
        ..Check::default()
    };
    (port, check)
}

/// Returns the probe of a command that asks a URL of the container itself.
fn http(line: &str) -> Option<(u16, Check)> {
    for (scheme, default) in [("http://", 80), ("https://", 443)] {
        let Some(at) = line.find(scheme) else {
            continue;
        };
        let rest = &line[at + scheme.len()..];
        let end = rest
            .find(|c: char| c.is_whitespace() || "\"'|;)&".contains(c))
            .unwrap_or(rest.len());
        let (authority, path) = rest[..end].split_once('/').unwrap_or((&rest[..end], ""));
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if port.parse::<u16>().is_ok() => (host, port.parse().ok()?),
            _ => (authority, default),
        };
        if !["localhost", "127.0.0.1", "0.0.0.0", "[::1]"].contains(&host) {
            return None;
        }
        let check = Check {
            kind: Some("http".to_owned()),
            path: Some(format!("/{path}")),
            protocol: (default == 443).then(|| "https".to_owned()),
            ..Check::default()
        };
        return Some((port, check));
    }
    None
}

/// Returns a time of Compose's in seconds: `1m30s`, `500ms`, `10`.
pub(super) fn seconds(text: &str) -> Option<f64> {
    if let Ok(seconds) = text.parse::<f64>() {
        return seconds.is_finite().then_some(seconds);
    }
    let time: hangar_api::duration::GoDuration = text.parse().ok()?;
    Some(time.to_std().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_that_ask_over_the_network_become_probes() {
        let of = |line: &str| {
            probe(line).map(|(port, check)| {
                format!(
                    "{} {port} {}",
                    check.kind.unwrap_or_default(),
                    check.path.unwrap_or_default()
                )
            })
        };
        for (line, expected) in [
            (
                "curl -f http://localhost:8080/health || exit 1",
                "http 8080 /health",
            ),
            ("wget -qO- 'http://127.0.0.1/up?x=1'", "http 80 /up?x=1"),
            ("pg_isready -U postgres -p 5433", "tcp 5433 "),
            ("/usr/bin/redis-cli ping", "tcp 6379 "),
            ("nc -z localhost 9000", "tcp 9000 "),
        ] {
            assert_eq!(of(line).as_deref(), Some(expected), "{line}");
        }
        assert_eq!(of("curl http://other/health"), None);
        assert_eq!(of("test -f /tmp/ready"), None);
    }

    #[test]
    fn times_are_read_in_both_forms() {
        assert_eq!(seconds("1m30s"), Some(90.0));
        assert_eq!(seconds("10"), Some(10.0));
        assert_eq!(seconds("soon"), None);
    }
}
