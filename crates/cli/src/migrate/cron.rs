//! Cron expressions that say no more than hourly, daily, weekly or monthly.
//!
//! Pure. A Machine's schedule is one of these words and begins with its first start: the minute and
//! the hour of an expression are not carried over, and the caller says so.

use hangar_api::machine::Schedule;

/// Returns the schedule that an expression stands for, or `None` for one that is none of the four:
/// several times a day, only on workdays, only in March.
pub(crate) fn schedule(expression: &str) -> Option<Schedule> {
    let expression = expression.trim();
    match expression.to_ascii_lowercase().as_str() {
        "@hourly" => return Some(Schedule::Hourly),
        "@daily" | "@midnight" => return Some(Schedule::Daily),
        "@weekly" => return Some(Schedule::Weekly),
        "@monthly" => return Some(Schedule::Monthly),
        _ => {}
    }
    let fields: Vec<&str> = expression.split_ascii_whitespace().collect();
    // Nomad's may have a year behind, and seconds before that.
    let [minute, hour, day, month, weekday] = match fields.as_slice() {
        [a, b, c, d, e] | [a, b, c, d, e, "*"] => [*a, *b, *c, *d, *e],
        [second, a, b, c, d, e, "*"] if is_one(second) => [*a, *b, *c, *d, *e],
        _ => return None,
    };
    let any = |field: &str| matches!(field, "*" | "?" | "*/1");
    if !is_one(minute) || !any(month) {
        return None;
    }
    match (is_one(hour), is_one(day), is_one(weekday)) {
        (false, false, false) if any(hour) && any(day) && any(weekday) => Some(Schedule::Hourly),
        (true, false, false) if any(day) && any(weekday) => Some(Schedule::Daily),
        (true, false, true) if any(day) => Some(Schedule::Weekly),
        (true, true, false) if any(weekday) => Some(Schedule::Monthly),
        _ => None,
    }
}

/// Returns whether a field names one moment, by number or by the name of a day.
fn is_one(field: &str) -> bool {
    const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
    let digits = !field.is_empty() && field.bytes().all(|b| b.is_ascii_digit());
    digits || DAYS.contains(&field.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_one_of_the_four_is_known_and_nothing_else() {
        for (expression, expected) in [
            ("@hourly", Some(Schedule::Hourly)),
            ("@midnight", Some(Schedule::Daily)),
            ("@weekly", Some(Schedule::Weekly)),
            (" @Monthly ", Some(Schedule::Monthly)),
            ("5 * * * *", Some(Schedule::Hourly)),
            ("0 3 * * *", Some(Schedule::Daily)),
            ("0 3 */1 * ?", Some(Schedule::Daily)),
            ("0 3 * * MON", Some(Schedule::Weekly)),
            ("30 4 1 * *", Some(Schedule::Monthly)),
            ("0 3 * * * *", Some(Schedule::Daily)),
            ("0 0 3 * * 0 *", Some(Schedule::Weekly)),
            ("*/15 * * * *", None),
            ("0,30 * * * *", None),
            ("0 */2 * * *", None),
            ("0 3,15 * * *", None),
            ("0 3 * * 1-5", None),
            ("0 3 1 3 *", None),
            ("0 3 1 * 1", None),
            ("* * * * *", None),
            ("@yearly", None),
            ("@every 1h", None),
            ("", None),
            ("0 3 * *", None),
        ] {
            assert_eq!(schedule(expression), expected, "{expression:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_strange(text in "[0-9a-z@*/,? -]{0,30}") {
            let _read = schedule(&text);
        }
    }
}
