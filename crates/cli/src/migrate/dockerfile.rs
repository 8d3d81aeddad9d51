//! What a Dockerfile tells of the image it makes: ports, volumes, and the port variable. Only its
//! last stage counts; of what that stage is built from, only what the file itself says is known.

use std::collections::BTreeMap;

/// What the last stage of a Dockerfile says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dockerfile {
    /// TCP ports, in the order of the file.
    pub(crate) exposed: Vec<u16>,
    /// Paths of volumes.
    pub(crate) volumes: Vec<String>,
}

/// Reads a Dockerfile. What cannot be understood is passed over: the builder will say so.
pub(crate) fn read(text: &str) -> Dockerfile {
    let mut reader = Reader::default();
    for line in instructions(text) {
        let (word, rest) = line.split_once([' ', '\t']).unwrap_or((&line, ""));
        let rest = rest.trim();
        match word.to_ascii_uppercase().as_str() {
            "FROM" => reader.from(rest),
            "ARG" => reader.set(rest, true),
            "ENV" => reader.set(rest, false),
            "EXPOSE" => reader.expose(rest),
            "VOLUME" => reader.volume(rest),
            _ => {}
        }
    }
    reader.current
}

type Variables = BTreeMap<String, String>;

/// How far a Dockerfile has been read.
#[derive(Default)]
struct Reader {
    /// Stages that have a name.
    stages: BTreeMap<String, (Dockerfile, Variables)>,
    current: Dockerfile,
    variables: Variables,
    /// What `ARG` says before the first stage.
    globals: Variables,
    name: Option<String>,
    begun: bool,
}

// === impl Reader ===

impl Reader {
    fn from(&mut self, rest: &str) {
        if let Some(name) = self.name.take() {
            let stage = (self.current.clone(), self.variables.clone());
            self.stages.insert(name, stage);
        }
        self.begun = true;
        let words: Vec<&str> = rest
            .split_whitespace()
            .filter(|word| !word.starts_with("--"))
            .collect();
        let base = words.first().map(|word| word.to_ascii_lowercase());
        let base = base.unwrap_or_default();
        (self.current, self.variables) = self.stages.get(&base).cloned().unwrap_or_default();
        let named = words.get(1).is_some_and(|w| w.eq_ignore_ascii_case("as"));
        let name = words.get(2).filter(|_| named);
        self.name = name.map(|word| word.to_ascii_lowercase());
    }

    fn set(&mut self, rest: &str, argument: bool) {
        for (key, value) in assignments(rest) {
            let value = expand(&value, &self.variables);
            if !self.begun {
                self.globals.insert(key, value);
            } else if value.is_empty() && argument {
                // `ARG X` takes what was said before the first FROM.
                let global = self.globals.get(&key).cloned().unwrap_or_default();
                self.variables.entry(key).or_insert(global);
            } else {
                self.variables.insert(key, value);
            }
        }
    }

    fn expose(&mut self, rest: &str) {
        for part in rest.split_whitespace() {
            let part = expand(part, &self.variables);
            let (port, protocol) = part.split_once('/').unwrap_or((&part, "tcp"));
            let first = port.split('-').next().unwrap_or(port);
            if let Ok(port) = first.parse::<u16>()
                && protocol.eq_ignore_ascii_case("tcp")
                && port > 0
                && !self.current.exposed.contains(&port)
            {
                self.current.exposed.push(port);
            }
        }
    }

    fn volume(&mut self, rest: &str) {
        let listed: Option<Vec<String>> = serde_json::from_str(rest).ok();
        let words = || rest.split_whitespace().map(str::to_owned).collect();
        for path in listed.unwrap_or_else(words) {
            let path = expand(&path, &self.variables);
            if path.starts_with('/') && !self.current.volumes.contains(&path) {
                self.current.volumes.push(path);
            }
        }
    }
}

/// Returns the instructions, each on one line, without comments and the bodies of here-documents.
fn instructions(text: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut open = false;
    let mut heredoc: Option<String> = None;
    for line in text.lines() {
        if let Some(end) = &heredoc {
            if line.trim() == end {
                heredoc = None;
            }
            continue;
        }
        let line = line.trim();
        if line.starts_with('#') || (line.is_empty() && !open) {
            continue;
        }
        let (part, goes_on) = match line.strip_suffix('\\') {
            Some(part) => (part.trim_end(), true),
            None => (line, false),
        };
        match out.last_mut() {
            Some(last) if open => {
                last.push(' ');
                last.push_str(part);
            }
            _ => out.push(part.to_owned()),
        }
        open = goes_on;
        if !open && let Some((_, end)) = part.split_once("<<") {
            let end = end.trim_start_matches('-').split_whitespace().next();
            heredoc = end
                .map(|word| word.trim_matches(['"', '\'']).to_owned())
                .filter(|word| {
                    !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
                });
        }
    }
    out
}

/// Returns the pairs of `A=1 B="2 3"`, or of the old form `A 1`.
fn assignments(rest: &str) -> Vec<(String, String)> {
    let words = hangar_config::words::split(rest).unwrap_or_default();
    let mut words = words.into_iter();
    let Some(first) = words.next() else {
        return Vec::new();
    };
    if !first.contains('=') {
        let value: Vec<String> = words.collect();
        return vec![(first, value.join(" "))];
    }
    std::iter::once(first)
        .chain(words)
        .filter_map(|word| {
            word.split_once('=')
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
        })
        .collect()
}

/// Returns a text with `$NAME`, `${NAME}` and `${NAME:-default}` filled in.
fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let (name, after) = if let Some(inner) = rest.strip_prefix('{') {
            inner.split_once('}').unwrap_or((inner, ""))
        } else {
            let end = rest
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            rest.split_at(end)
        };
        let (name, default) = name.split_once(":-").unwrap_or((name, ""));
        let value = variables.get(name).filter(|v| !v.is_empty());
        out.push_str(value.map_or(default, String::as_str));
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_stage_says_which_ports_and_volumes() {
        let text = "
# syntax=docker/dockerfile:1
ARG VERSION=20
FROM node:${VERSION} AS base
ENV PORT=3000 MODE=\"a b\"
EXPOSE 9999/udp
FROM base AS build
RUN <<END
EXPOSE 1
END
RUN make \\
    EXPOSE=2
from base
expose $PORT \\
  9000-9010/tcp
VOLUME [\"/data\", \"/cache\"]
";
        let found = read(text);
        assert_eq!(found.exposed, [3000, 9000]);
        assert_eq!(found.volumes, ["/data", "/cache"]);
    }

    #[test]
    fn an_argument_may_be_given_before_the_first_stage() {
        assert_eq!(read("ARG P=81\nFROM x\nARG P\nEXPOSE ${P}").exposed, [81]);
        assert_eq!(read("FROM x\nEXPOSE ${P:-82}\nENV P 83").exposed, [82]);
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_strange(text in "(?s).{0,200}") {
            let _read = read(&text);
        }
    }
}
