//! What a fake program does, told by its argv.

use std::time::Duration;

use hangar_api::duration::GoDuration;

const SIGINT: i32 = 2;
const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;
const SPAWN_FAILED: i32 = 127;

/// A fake program. Durations are written as Go writes them.
///
/// | argv | what it does |
/// |---|---|
/// | `run [PORT...]` | listens on the ports and runs until SIGINT or SIGTERM |
/// | `slow TIME PORT...` | the same, but listens only after that time |
/// | `exit CODE` | ends at once |
/// | `exit-after TIME CODE` | ends after that time |
/// | `crash-after TIME` | ends with 1 after that time |
/// | `ignore-sigint` | ends by SIGTERM only |
/// | `ignore-all` | ends by SIGKILL only |
/// | `missing` | there is no such program |
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    end: Option<(Duration, i32, Option<String>)>,
    deaf_to: Deaf,
    ports: Vec<u16>,
    ready_after: Duration,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Deaf {
    #[default]
    No,
    Mostly,
    Fully,
}

// === impl Program ===

impl Program {
    /// Reads an argv; anything unknown runs like `run`.
    #[must_use]
    pub fn parse(argv: &[String]) -> Self {
        let word = |at: usize| argv.get(at).map_or("", String::as_str);
        let time = |at: usize| word(at).parse::<GoDuration>().unwrap_or_default().to_std();
        let code = |at: usize| word(at).parse::<i32>().unwrap_or(1);
        let ports = |from: usize| {
            let rest = argv.iter().skip(from);
            rest.filter_map(|text| text.parse().ok()).collect()
        };
        let ends = |after, code| Self {
            end: Some((after, code, None)),
            ..Self::default()
        };
        let deaf = |deaf_to| Self {
            deaf_to,
            ..Self::default()
        };
        match word(0) {
            "exit" => ends(Duration::ZERO, code(1)),
            "exit-after" => ends(time(1), code(2)),
            "crash-after" => ends(time(1), 1),
            "ignore-sigint" => deaf(Deaf::Mostly),
            "ignore-all" => deaf(Deaf::Fully),
            "missing" => Self {
                end: Some((
                    Duration::ZERO,
                    SPAWN_FAILED,
                    Some("no such file: missing".to_owned()),
                )),
                ..Self::default()
            },
            "slow" => Self {
                ready_after: time(1),
                ports: ports(2),
                ..Self::default()
            },
            _ => Self {
                ports: ports(1),
                ..Self::default()
            },
        }
    }

    /// Returns when, with which code and why it ends by itself.
    #[must_use]
    pub fn own_end(&self) -> Option<(Duration, i32, Option<String>)> {
        self.end.clone()
    }

    /// Returns whether a signal ends it.
    #[must_use]
    pub fn obeys(&self, signal: i32) -> bool {
        match self.deaf_to {
            Deaf::No => [SIGINT, SIGTERM, SIGKILL].contains(&signal),
            Deaf::Mostly => signal == SIGTERM || signal == SIGKILL,
            Deaf::Fully => signal == SIGKILL,
        }
    }

    /// Returns the ports that it listens on, so long after its start.
    #[must_use]
    pub fn ports(&self, after: Duration) -> &[u16] {
        if after >= self.ready_after {
            &self.ports
        } else {
            &[]
        }
    }
}
