//! Values of JSON and YAML files, read with care: whatever is not understood is noted.

use serde_json::{Map, Value};

/// Returns a scalar as a text: numbers and truth values as they are written.
pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(yes) => Some(yes.to_string()),
        _ => None,
    }
}

/// Returns the texts of a list, or of one text.
pub(super) fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) => items.iter().filter_map(text).collect(),
        other => text(other).into_iter().collect(),
    }
}

/// Returns a number that fits, also where it is written as a text.
pub(super) fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// Returns a number with a fraction, also where it is written as a text.
pub(super) fn fraction(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    number.filter(|n| n.is_finite() && *n >= 0.0)
}

/// Returns a port: 1 to 65535.
pub(super) fn port(value: &Value) -> Option<u16> {
    number(value)
        .and_then(|n| u16::try_from(n).ok())
        .filter(|n| *n > 0)
}

/// Returns a table, or an empty one.
pub(super) fn table(value: &Value) -> &Map<String, Value> {
    static EMPTY: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    value.as_object().unwrap_or(&EMPTY)
}

/// Returns whether a value says nothing: null, false, zero, or empty.
pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(yes) => !yes,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.iter().all(is_empty),
        Value::Object(map) => map.values().all(is_empty),
    }
}

/// Returns a size in MiB: a number of bytes, or a text such as `512m`, `1.5gb`, `2GiB`.
pub(super) fn size_mb(value: &Value) -> Option<u64> {
    let text = text(value)?.trim().to_ascii_lowercase();
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let amount: f64 = digits.parse().ok()?;
    let bytes = amount
        * match unit.trim() {
            "" | "b" => 1.0,
            "k" | "kb" | "kib" => 1024.0,
            "m" | "mb" | "mib" => 1024.0 * 1024.0,
            "g" | "gb" | "gib" => 1024.0 * 1024.0 * 1024.0,
            _ => return None,
        };
    let mb = (bytes / 1_048_576.0).ceil();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be positive and small"
    )]
    (1.0..1e9).contains(&mb).then_some(mb as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sizes_are_read_in_all_their_forms() {
        for (value, mb) in [
            (json!("512m"), 512),
            (json!("1.5gb"), 1536),
            (json!("2GiB"), 2048),
            (json!(268_435_456), 256),
            (json!("100000k"), 98),
        ] {
            assert_eq!(size_mb(&value), Some(mb), "{value}");
        }
        assert_eq!(size_mb(&json!("lots")), None);
        assert_eq!(size_mb(&json!("-5m")), None);
    }
}
