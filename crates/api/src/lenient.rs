//! Reading what clients in the wild send: nulls for what is optional, numbers and booleans as text,
//! lists as text with commas. For `deserialize_with`; writing is left to serde.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Longest part of a wrong value that an error repeats, in characters.
const SHOWN: usize = 40;

/// Returns one value: of a list the first, which is what a name that stands several times in a query
/// means where one is wanted.
fn single<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Array(list) => list.into_iter().next().unwrap_or_default(),
        other => other,
    })
}

fn wrong<E: Error>(value: &Value, wanted: &str) -> E {
    let shown: String = value.to_string().chars().take(SHOWN).collect();
    E::custom(format_args!("{shown} is not {wanted}"))
}

/// Reads null as the default.
pub fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads a flag: true, `"true"`, `"1"`, 1 and, as a name alone in a query has it, `""` set it; null,
/// false, `"false"`, `"0"` and 0 do not.
pub fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let value = single(deserializer)?;
    match &value {
        Value::Null => Ok(false),
        Value::Bool(set) => Ok(*set),
        Value::Number(number) if number.as_u64() == Some(0) => Ok(false),
        Value::Number(number) if number.as_u64() == Some(1) => Ok(true),
        Value::String(text) => match text.trim().to_ascii_lowercase().as_str() {
            "" | "1" | "t" | "true" | "yes" | "on" => Ok(true),
            "0" | "f" | "false" | "no" | "off" => Ok(false),
            _ => Err(wrong(&value, "true or false")),
        },
        _ => Err(wrong(&value, "true or false")),
    }
}

/// Reads a flag that need not be there; null is none.
pub fn maybe_flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    match single(deserializer)? {
        Value::Null => Ok(None),
        value => flag(value).map(Some).map_err(D::Error::custom),
    }
}

/// Reads a number that need not be there, also as text; null and `""` are none. 2.0 is 2.
pub fn number<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr + DeserializeOwned,
{
    let value = single(deserializer)?;
    let read = match &value {
        Value::Null => return Ok(None),
        Value::String(text) if text.trim().is_empty() => return Ok(None),
        Value::String(text) => text.trim().parse().ok(),
        Value::Number(number) => serde_json::from_value(value.clone())
            .ok()
            .or_else(|| number.to_string().strip_suffix(".0")?.parse().ok()),
        _ => None,
    };
    read.map(Some)
        .ok_or_else(|| wrong(&value, "a number in range"))
}

/// Reads a number; none is 0.
pub fn number_or_0<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    number(deserializer).map(Option::unwrap_or_default)
}

/// Reads a text that need not be there; null is none. A number is its digits.
pub fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let value = single(deserializer)?;
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        Value::Number(number) => Ok(Some(number.to_string())),
        Value::Bool(flag) => Ok(Some(flag.to_string())),
        other => Err(wrong(&other, "a text")),
    }
}

/// Reads texts by name, numbers and booleans as their texts; null is empty, and a null stays one.
pub fn text_map<'de, D>(deserializer: D) -> Result<BTreeMap<String, Option<String>>, D::Error>
where
    D: Deserializer<'de>,
{
    let given = Option::<BTreeMap<String, Value>>::deserialize(deserializer)?;
    let each = given.unwrap_or_default().into_iter().map(|(name, value)| {
        let value = text(value).map_err(D::Error::custom)?;
        Ok((name, value))
    });
    each.collect()
}

/// Reads a list of words: a list, a text with commas, or both; null is empty.
pub fn words<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let list = match value {
        Value::Null => Vec::new(),
        Value::Array(list) => list,
        one => vec![one],
    };
    let mut words = Vec::new();
    for item in list {
        let Value::String(text) = item else {
            return Err(wrong(&item, "a text"));
        };
        let each = text.split(',').map(str::trim);
        words.extend(each.filter(|word| !word.is_empty()).map(str::to_owned));
    }
    Ok(words)
}

/// Reads what is written as text, such as an id, that need not be there; null and `""` are none.
pub fn parsed<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr,
    T::Err: Display,
{
    let given = text(deserializer)?.filter(|text| !text.is_empty());
    let read = given.map(|text| text.parse().map_err(D::Error::custom));
    read.transpose()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default)]
    struct All {
        #[serde(deserialize_with = "flag")]
        on: bool,
        #[serde(deserialize_with = "number")]
        count: Option<u16>,
        #[serde(deserialize_with = "words")]
        list: Vec<String>,
        #[serde(deserialize_with = "text")]
        name: Option<String>,
    }

    fn read(value: Value) -> Result<All, String> {
        serde_json::from_value(value).map_err(|error| error.to_string())
    }

    #[test]
    fn what_clients_send_in_many_ways_is_read_in_one() {
        let wanted = All {
            on: true,
            count: Some(8),
            list: vec!["a".to_owned(), "b".to_owned()],
            name: Some("9".to_owned()),
        };
        for given in [
            json!({"on": true, "count": 8, "list": ["a", "b"], "name": "9"}),
            json!({"on": "true", "count": "8", "list": "a,b", "name": 9}),
            json!({"on": "", "count": 8.0, "list": ["a,b", ""], "name": ["9", "x"]}),
            json!({"on": 1, "count": [" 8 "], "list": " a , b ", "name": "9"}),
        ] {
            assert_eq!(read(given.clone()).unwrap(), wanted, "{given}");
        }
        for nothing in [
            json!({}),
            json!({"on": null, "count": null, "list": null, "name": null}),
            json!({"on": "0", "count": "", "list": []}),
        ] {
            assert_eq!(read(nothing.clone()).unwrap(), All::default(), "{nothing}");
        }
        for bad in [
            json!({"on": "maybe"}),
            json!({"on": {}}),
            json!({"count": 70000}),
            json!({"count": "eight"}),
            json!({"count": 1.5}),
            json!({"list": [1]}),
            json!({"name": {}}),
        ] {
            assert!(read(bad.clone()).is_err(), "{bad}");
        }
    }
}
