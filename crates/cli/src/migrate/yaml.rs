//! YAML as a tree of JSON values: anchors, merge keys, bounded in depth and size.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use serde_json::{Map, Value};

use super::Unreadable;

/// Deepest nesting that is read.
const MAX_DEPTH: usize = 100;
/// Most values of a document, those that aliases repeat included.
const MAX_NODES: usize = 200_000;

/// Reads the first document of a text.
pub(crate) fn parse(text: &str) -> Result<Value, Unreadable> {
    let mut loader = Loader::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            let at = error.marker();
            let info = error.info();
            Unreadable(format!(
                "line {} column {}: {info}",
                at.line(),
                at.col() + 1
            ))
        })?;
        if event == Event::DocumentEnd {
            break;
        }
        loader.take(event, span)?;
    }
    Ok(loader.root.unwrap_or(Value::Null))
}

/// A table or list that is not closed yet.
struct Open {
    value: Value,
    /// The key that waits for its value.
    key: Option<String>,
    anchor: usize,
}

#[derive(Default)]
struct Loader {
    open: Vec<Open>,
    anchors: BTreeMap<usize, Value>,
    nodes: usize,
    root: Option<Value>,
}

// === impl Loader ===

impl Loader {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Unreadable> {
        let about = |text: &str| Unreadable(format!("line {}: {text}", span.start.line()));
        match event {
            Event::SequenceStart(anchor, _) | Event::MappingStart(anchor, _)
                if self.open.len() >= MAX_DEPTH =>
            {
                let _unused = anchor;
                return Err(about("it is nested too deeply"));
            }
            Event::SequenceStart(anchor, _) => self.begin(Value::Array(Vec::new()), anchor),
            Event::MappingStart(anchor, _) => self.begin(Value::Object(Map::new()), anchor),
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(done) = self.open.pop() {
                    let (value, anchor) = (merged(done.value), done.anchor);
                    return self.put(value, anchor).map_err(|text| about(&text));
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && tag.is_none();
                let value = if plain {
                    scalar(&text)
                } else {
                    Value::String(text.into_owned())
                };
                return self.put(value, anchor).map_err(|text| about(&text));
            }
            Event::Alias(anchor) => {
                let known = self.anchors.get(&anchor).cloned();
                let value =
                    known.ok_or_else(|| about("an alias of an anchor that is not there"))?;
                self.nodes += count(&value);
                return self.put(value, 0).map_err(|text| about(&text));
            }
            _ => {}
        }
        Ok(())
    }

    fn begin(&mut self, value: Value, anchor: usize) {
        self.open.push(Open {
            value,
            key: None,
            anchor,
        });
    }

    /// Puts a whole value where it belongs.
    fn put(&mut self, value: Value, anchor: usize) -> Result<(), String> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(format!("it holds more than {MAX_NODES} values"));
        }
        if anchor > 0 {
            self.anchors.insert(anchor, value.clone());
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(value);
            return Ok(());
        };
        match (&mut open.value, open.key.take()) {
            (Value::Array(items), _) => items.push(value),
            (Value::Object(_), None) => {
                let key = super::value::text(&value);
                open.key = Some(match (key, value) {
                    (Some(key), _) => key,
                    (None, Value::Null) => "null".to_owned(),
                    _ => return Err("a key is a list or a table".to_owned()),
                });
            }
            (Value::Object(map), Some(key)) => {
                if map.contains_key(&key) {
                    return Err(format!("{key} stands twice in one table"));
                }
                map.insert(key, value);
            }
            _ => {}
        }
        Ok(())
    }
}

/// Returns a table with what its `<<` brings; its own keys win, then the first of several.
fn merged(value: Value) -> Value {
    let Value::Object(mut own) = value else {
        return value;
    };
    let sources = match own.remove("<<") {
        Some(Value::Array(items)) => items,
        Some(one) => vec![one],
        None => Vec::new(),
    };
    for source in sources {
        for (key, value) in source.as_object().cloned().unwrap_or_default() {
            own.entry(key).or_insert(value);
        }
    }
    Value::Object(own)
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(map) => map.values().map(count).sum(),
        _ => 0,
    }
}

/// Returns what a plain word means: null, a truth value, a number, or itself.
fn scalar(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    // A number that would be written in another way, such as 007 or 1.10, stays as it is.
    if let Ok(number) = text.parse::<i64>()
        && number.to_string() == text
    {
        return Value::from(number);
    }
    if let Ok(number) = text.parse::<f64>()
        && number.is_finite()
        && number.to_string() == text
    {
        return Value::from(number);
    }
    Value::String(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn anchors_and_merge_keys_are_filled_in() {
        let text = "
base: &base
  a: 1
  b: [x, 'y: z', 1.10]
one:
  <<: *base
  a: 2
  c: |
    two
    lines
two: {<<: [*base, {a: 9, d: ~}], e: \"\\u0041\"}
";
        let value = parse(text).unwrap();
        assert_eq!(
            value["one"],
            json!({"a": 2, "b": ["x", "y: z", "1.10"], "c": "two\nlines\n"})
        );
        assert_eq!(value["two"]["a"], 1);
        assert_eq!(value["two"]["d"], Value::Null);
        assert_eq!(value["two"]["e"], "A");
    }

    #[test]
    fn mistakes_say_their_line_and_bombs_are_refused() {
        assert!(parse("a: [1\nb: 2").unwrap_err().0.starts_with("line "));
        let twice = parse("a: 1\nb: 2\na: 3").unwrap_err().0;
        assert!(
            twice.contains("line 3") && twice.contains("twice"),
            "{twice}"
        );
        let deep = parse(&"- ".repeat(5000)).unwrap_err().0;
        assert!(deep.contains("deep"), "{deep}");
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for n in 1..12 {
            let items = vec![format!("*a{}", n - 1); 9].join(", ");
            bomb.push_str(&format!("a{n}: &a{n} [{items}]\n"));
        }
        assert!(parse(&bomb).unwrap_err().0.contains("values"));
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_strange(text in "(?s)[ -~\n\t&*!|>'\"{}\\[\\]:#-]{0,200}") {
            let _read = parse(&text);
        }
    }
}
