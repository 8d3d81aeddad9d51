//! Signals by name and number, as `stop_config` and the API write them. Linux numbers.

/// Names without "SIG" and their numbers, those that may be asked for.
const SIGNALS: [(&str, i32); 19] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("WINCH", 28),
];

/// Returns the number of `SIGTERM`, `term` or `15`; `None` for what is no signal.
#[must_use]
pub fn number(text: &str) -> Option<i32> {
    let upper = text.trim().to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    SIGNALS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, number)| *number)
        .or_else(|| name.parse().ok().filter(|number| (1..=64).contains(number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_every_spelling_and_numbers_are_signals_and_nothing_else_is() {
        for text in ["SIGTERM", "sigterm", "TERM", " term ", "15"] {
            assert_eq!(number(text), Some(15), "{text}");
        }
        for text in ["", "SIG", "SIGFOO", "0", "65", "-9", "9.5"] {
            assert_eq!(number(text), None, "{text}");
        }
    }
}
