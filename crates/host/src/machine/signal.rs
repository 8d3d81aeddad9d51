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

/// Returns `SIGTERM` for 15, or `signal 40` for one without a name.
#[must_use]
pub fn name(number: i32) -> String {
    SIGNALS
        .iter()
        .find(|(_, known)| *known == number)
        .map_or_else(
            || format!("signal {number}"),
            |(name, _)| format!("SIG{name}"),
        )
}
