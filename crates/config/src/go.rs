//! What Go's printing and conversions make of a value: Fly's client leaves many of them to them.

use std::collections::BTreeMap;

use hangar_api::duration::GoDuration;

use crate::raw::{Node, Value};

/// Prints a value as Go's `%v` does.
pub(crate) fn print(node: &Node) -> String {
    match &node.value {
        Value::Null => "<nil>".to_owned(),
        Value::Bool(yes) => yes.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Float(number) => print_float(*number),
        Value::Text(text) => text.clone(),
        Value::Date(date) => print_date(date),
        Value::List(items) => {
            let items: Vec<String> = items.iter().map(print).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Table(entries) => {
            let sorted: BTreeMap<&str, String> = entries
                .iter()
                .map(|e| (e.key.as_str(), print(&e.node)))
                .collect();
            let pairs: Vec<String> = sorted.iter().map(|(k, v)| format!("{k}:{v}")).collect();
            format!("map[{}]", pairs.join(" "))
        }
    }
}

/// Prints a float as Go's `%v` does: shortest digits, with an exponent below 1e-4 and from 1e6 on.
pub(crate) fn print_float(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let text = format!("{number:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if number != 0.0 && !(-4..6).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    format!("{number}")
}

/// Prints a moment as Go's `%v` does; dates without a time, and times without a zone, as written.
fn print_date(date: &str) -> String {
    let Some((day, time)) = date.split_once(['T', 't', ' ']) else {
        return date.to_owned();
    };
    if let Some(time) = time.strip_suffix(['Z', 'z']) {
        return format!("{day} {time} +0000 UTC");
    }
    match time.rfind(['+', '-']) {
        Some(at) => {
            let (time, zone) = time.split_at(at);
            let zone = zone.replace(':', "");
            format!("{day} {time} {zone} {zone}")
        }
        None => date.to_owned(),
    }
}

/// Reads a whole number as Go's `Atoi` does.
pub(crate) fn atoi(text: &str) -> Option<i64> {
    text.parse().ok()
}

/// Cuts the fraction of a number; what does not fit becomes the smallest number, as on the
/// machines that Fly's client runs on.
#[expect(clippy::cast_possible_truncation, reason = "checked to fit")]
pub(crate) fn truncate(number: f64) -> i64 {
    let cut = number.trunc();
    if (-9.223_372_036_854_775e18..=9.223_372_036_854_775e18).contains(&cut) {
        cut as i64
    } else {
        i64::MIN
    }
}

/// Returns a number of so many nanoseconds each as a duration; overflow wraps, as in Go.
pub(crate) fn scaled(number: i64, nanos: i64) -> GoDuration {
    GoDuration::from_nanos(number.wrapping_mul(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_print_as_go_prints_them() {
        for (number, text) in [
            (1.5, "1.5"),
            (0.0, "0"),
            (100.0, "100"),
            (1e6, "1e+06"),
            (1_048_576.0, "1.048576e+06"),
            (12_345_678.5, "1.23456785e+07"),
            (1e-5, "1e-05"),
            (-2.25, "-2.25"),
            (f64::INFINITY, "+Inf"),
        ] {
            assert_eq!(print_float(number), text);
        }
    }
}
