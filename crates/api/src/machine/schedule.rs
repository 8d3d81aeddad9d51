//! `config.schedule`: a Machine that is started once in each interval (machines-api.md 7.4).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::config::MachineConfig;

/// How often a scheduled Machine is started.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// Every hour.
    Hourly,
    /// Every 24 hours.
    Daily,
    /// Every seven days.
    Weekly,
    /// Every month of the calendar, in UTC; on its last day where it has no such day.
    Monthly,
}

/// The text is none of the four words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("schedule {0:?} is not known: use hourly, daily, weekly or monthly")]
pub struct UnknownSchedule(pub String);

// === impl Schedule ===

impl Schedule {
    /// All of them, the most frequent first.
    pub const ALL: [Self; 4] = [Self::Hourly, Self::Daily, Self::Weekly, Self::Monthly];

    /// Returns the word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
        }
    }
}

impl std::str::FromStr for Schedule {
    type Err = UnknownSchedule;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|one| one.as_str() == text);
        found.ok_or_else(|| UnknownSchedule(text.to_owned()))
    }
}

impl std::fmt::Display for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

// === impl MachineConfig ===

impl MachineConfig {
    /// Returns its schedule; none where the key is absent, null or "". The error is a word that is
    /// none of the four, or no text at all.
    pub fn schedule(&self) -> Result<Option<Schedule>, UnknownSchedule> {
        match self.other.get("schedule") {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(Value::String(text)) => text.parse().map(Some),
            Some(other) => Err(UnknownSchedule(other.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_is_one_of_four_words_or_none() {
        let of = |value: Value| {
            let mut config = MachineConfig::default();
            config.other.insert("schedule".to_owned(), value);
            config.schedule()
        };
        for one in Schedule::ALL {
            assert_eq!(of(one.as_str().into()), Ok(Some(one)));
            assert_eq!(serde_json::to_value(one).unwrap(), one.as_str());
        }
        assert_eq!(of("".into()), Ok(None));
        assert_eq!(of(Value::Null), Ok(None));
        assert_eq!(MachineConfig::default().schedule(), Ok(None));
        for wrong in [Value::from("Daily"), "0 3 * * *".into(), 3.into()] {
            let error = of(wrong).unwrap_err().to_string();
            assert!(
                error.contains("hourly, daily, weekly or monthly"),
                "{error}"
            );
        }
    }
}
