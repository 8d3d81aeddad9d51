//! Sizes and times as flyctl writes them.

use hangar_api::Timestamp;

/// Returns bytes in binary units: "33 MiB", "1.0 GiB".
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // Tenths of the unit, rounded, without going through floating point.
    let mut unit = 0;
    let mut one: u128 = 1024;
    let bytes = u128::from(bytes);
    while bytes >= one * 1024 && unit + 1 < UNITS.len() {
        one *= 1024;
        unit += 1;
    }
    let tenths = (bytes * 10 + one / 2) / one;
    let name = UNITS[unit];
    if tenths < 100 {
        format!("{}.{} {name}", tenths / 10, tenths % 10)
    } else {
        format!("{} {name}", (bytes + one / 2) / one)
    }
}

/// Returns how long ago a time was: "now", "3 minutes ago".
pub(super) fn ago(now: Timestamp, then: Timestamp) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    let steps = [
        (DAY * 365, "year"),
        (DAY * 30, "month"),
        (DAY * 7, "week"),
        (DAY, "day"),
        (HOUR, "hour"),
        (MINUTE, "minute"),
        (1, "second"),
    ];
    let seconds = now.duration_since(then).as_secs();
    for (length, name) in steps {
        let count = seconds / length;
        if count >= 1 {
            let plural = if count == 1 { "" } else { "s" };
            return format!("{count} {name}{plural} ago");
        }
    }
    "now".to_owned()
}

/// Returns a time as `02 Jan 06 15:04 UTC`.
pub(super) fn rfc822(time: Timestamp) -> String {
    time.strftime("%d %b %y %H:%M UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_written_as_flyctl_writes_them() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (35 << 20, "35 MiB"),
            (1 << 30, "1.0 GiB"),
            (10 << 30, "10 GiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
        let at = |seconds: i64| Timestamp::from_second(1_700_000_000 + seconds).unwrap();
        for (seconds, text) in [
            (-5, "now"),
            (0, "now"),
            (1, "1 second ago"),
            (119, "1 minute ago"),
            (7200, "2 hours ago"),
            (86_400 * 6, "6 days ago"),
            (86_400 * 400, "1 year ago"),
        ] {
            assert_eq!(ago(at(seconds), at(0)), text);
        }
        assert_eq!(rfc822(at(0)), "14 Nov 23 22:13 UTC");
    }
}
