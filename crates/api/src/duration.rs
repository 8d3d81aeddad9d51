//! Durations as Go writes them: `"1m30s"` on the wire, or a number of nanoseconds.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A duration in Go's text form. Reads `"15s"`, `"1m30s"`, `"300ms"`, or a number of nanoseconds;
/// always writes text (machines-api.md 4.2). Negative values are kept, as Go keeps them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GoDuration {
    nanos: i64,
}

/// Why a text is not a Go duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid duration {0:?}: write a number and a unit, such as 300ms, 15s or 1m30s")]
pub struct InvalidDuration(pub String);

// === impl GoDuration ===

impl GoDuration {
    /// Returns the duration of so many nanoseconds.
    #[must_use]
    pub const fn from_nanos(nanos: i64) -> Self {
        Self { nanos }
    }

    /// Returns the duration of so many seconds.
    #[must_use]
    pub const fn from_secs(seconds: i64) -> Self {
        Self {
            nanos: seconds.saturating_mul(1_000_000_000),
        }
    }

    /// Returns nanoseconds.
    #[must_use]
    pub const fn nanos(self) -> i64 {
        self.nanos
    }

    /// Returns a std duration; negative becomes zero.
    #[must_use]
    pub fn to_std(self) -> Duration {
        Duration::from_nanos(u64::try_from(self.nanos).unwrap_or(0))
    }
}

impl From<Duration> for GoDuration {
    fn from(value: Duration) -> Self {
        Self {
            nanos: i64::try_from(value.as_nanos()).unwrap_or(i64::MAX),
        }
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos < 0 {
            f.write_str("-")?;
        }
        let nanos = self.nanos.unsigned_abs();
        if nanos == 0 {
            return f.write_str("0s");
        }
        let (unit, name) = match nanos {
            ..1_000 => (1, "ns"),
            1_000..1_000_000 => (1_000, "µs"),
            1_000_000..1_000_000_000 => (1_000_000, "ms"),
            _ => (1_000_000_000, "s"),
        };
        if unit == 1_000_000_000 {
            let (hours, minutes) = (nanos / 3_600_000_000_000, nanos / 60_000_000_000 % 60);
            if hours > 0 {
                write!(f, "{hours}h")?;
            }
            if hours > 0 || minutes > 0 {
                write!(f, "{minutes}m")?;
            }
        }
        let rest = if unit == 1_000_000_000 {
            nanos % 60_000_000_000
        } else {
            nanos
        };
        let (whole, fraction) = (rest / unit, rest % unit);
        if fraction == 0 {
            return write!(f, "{whole}{name}");
        }
        let width = unit.ilog10() as usize;
        let digits = format!("{fraction:0width$}");
        write!(f, "{whole}.{}{name}", digits.trim_end_matches('0'))
    }
}

impl FromStr for GoDuration {
    type Err = InvalidDuration;

    fn from_str(text: &str) -> Result<Self, InvalidDuration> {
        let invalid = || InvalidDuration(text.chars().take(80).collect());
        let (sign, mut rest) = match text.as_bytes().first() {
            Some(b'-') => (-1.0, &text[1..]),
            Some(b'+') => (1.0, &text[1..]),
            _ => (1.0, text),
        };
        if rest == "0" {
            return Ok(Self::default());
        }
        if rest.is_empty() {
            return Err(invalid());
        }
        let mut total: i128 = 0;
        while !rest.is_empty() {
            let number_len = rest
                .bytes()
                .take_while(|b| b.is_ascii_digit() || *b == b'.')
                .count();
            let (number, tail) = rest.split_at(number_len);
            let unit_len = tail
                .chars()
                .take_while(|c| !c.is_ascii_digit() && *c != '.')
                .map(char::len_utf8)
                .sum();
            let (unit, tail) = tail.split_at(unit_len);
            let scale: i128 = match unit {
                "ns" => 1,
                "us" | "µs" | "μs" => 1_000,
                "ms" => 1_000_000,
                "s" => 1_000_000_000,
                "m" => 60_000_000_000,
                "h" => 3_600_000_000_000,
                _ => return Err(invalid()),
            };
            total += scaled(number, scale).ok_or_else(invalid)?;
            rest = tail;
        }
        let total = if sign < 0.0 { -total } else { total };
        i64::try_from(total)
            .map(Self::from_nanos)
            .map_err(|_| invalid())
    }
}

/// Returns `number` (digits, at most one point) times `scale`, cut to a whole.
fn scaled(number: &str, scale: i128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || number.len() > 30 {
        return None;
    }
    let whole: i128 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let mut result = whole.checked_mul(scale)?;
    let mut unit = scale;
    for digit in fraction.bytes() {
        unit /= 10;
        result += i128::from(digit - b'0') * unit;
    }
    Some(result)
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = GoDuration;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as \"15s\", or a number of nanoseconds")
            }
            fn visit_str<E: de::Error>(self, value: &str) -> Result<GoDuration, E> {
                value.parse().map_err(E::custom)
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<GoDuration, E> {
                Ok(GoDuration::from_nanos(value))
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<GoDuration, E> {
                i64::try_from(value)
                    .map(GoDuration::from_nanos)
                    .map_err(E::custom)
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<GoDuration, E> {
                // Go's decoder cuts the fraction of a nanosecond; out of range saturates.
                #[expect(clippy::cast_possible_truncation, reason = "a float cast saturates")]
                Ok(GoDuration::from_nanos(value as i64))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_what_go_does() {
        for (text, canonical) in [
            ("90s", "1m30s"),
            ("3m", "3m0s"),
            ("1h", "1h0m0s"),
            ("300ms", "300ms"),
            ("1.5s", "1.5s"),
            ("0", "0s"),
            ("-2s", "-2s"),
            ("1h0.5s", "1h0m0.5s"),
            ("1500us", "1.5ms"),
            ("7ns", "7ns"),
        ] {
            let parsed: GoDuration = text.parse().unwrap();
            assert_eq!(parsed.to_string(), canonical, "{text}");
        }
        for bad in [
            "",
            "5",
            "5 s",
            "s",
            "1x",
            ".s",
            "1.2.3s",
            "99999999999999999999h",
        ] {
            assert!(bad.parse::<GoDuration>().is_err(), "{bad}");
        }
    }
}
