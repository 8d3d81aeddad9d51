//! One line of the log and its form on disk.

/// Who says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The program, on stdout or stderr.
    App,
    /// The host, about the Machine.
    Runner,
    /// The health checks.
    Health,
    /// The proxy.
    Proxy,
}

/// One line of a Machine's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When it was read, in microseconds since 1970.
    pub at_us: u64,
    /// Who says it.
    pub source: Source,
    /// Whether it is an error; for the program, whether it came on stderr.
    pub error: bool,
    /// The start of the Machine it belongs to.
    pub start: u64,
    /// The text, without the line end.
    pub text: String,
}

// === impl Source ===

impl Source {
    pub(super) fn tag(self, error: bool) -> u8 {
        match (self, error) {
            (Self::App, false) => b'o',
            (Self::App, true) => b'e',
            (Self::Runner, false) => b'r',
            (Self::Runner, true) => b'R',
            (Self::Health, false) => b'h',
            (Self::Health, true) => b'H',
            (Self::Proxy, false) => b'p',
            (Self::Proxy, true) => b'P',
        }
    }

    fn from_tag(tag: u8) -> Option<(Self, bool)> {
        Some(match tag {
            b'o' => (Self::App, false),
            b'e' => (Self::App, true),
            b'r' => (Self::Runner, false),
            b'R' => (Self::Runner, true),
            b'h' => (Self::Health, false),
            b'H' => (Self::Health, true),
            b'p' => (Self::Proxy, false),
            b'P' => (Self::Proxy, true),
            _ => return None,
        })
    }
}

// === impl Line ===

impl Line {
    /// Returns the line of these bytes (without the line end), or `None` if they are not one:
    /// the rest of a torn line is passed over.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut parts = bytes.splitn(4, |byte| *byte == b' ');
        let at_us = number(parts.next()?)?;
        let [tag] = parts.next()? else { return None };
        let (source, error) = Source::from_tag(*tag)?;
        let start = number(parts.next()?)?;
        let text = String::from_utf8_lossy(parts.next()?).into_owned();
        Some(Self {
            at_us,
            source,
            error,
            start,
            text,
        })
    }
}

fn number(bytes: &[u8]) -> Option<u64> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}
