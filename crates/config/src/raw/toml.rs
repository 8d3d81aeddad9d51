//! TOML as a tree.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Entry, MAX_DEPTH, Node, Value, syntax};
use crate::problem::Problem;

pub(super) fn parse(text: &str) -> Result<Node, Box<Problem>> {
    let table = DeTable::parse(text).map_err(|error| {
        let offset = error.span().map(|s| s.start);
        let message = error.message().trim().replace('\n', ", ");
        Box::new(syntax(text, offset, message))
    })?;
    let span = table.span();
    let value = table_of(table.get_ref(), 0);
    let value = value.map_err(|(at, message)| Box::new(syntax(text, Some(at), message)))?;
    Ok(Node { value, span })
}

/// Where something is wrong, and what.
type Wrong = (usize, String);

fn too_deep(at: usize) -> Wrong {
    (at, format!("values are nested more than {MAX_DEPTH} deep"))
}

fn table_of(table: &DeTable<'_>, depth: usize) -> Result<Value, Wrong> {
    let entries = table.iter().map(|(key, value)| {
        if depth > MAX_DEPTH {
            return Err(too_deep(key.span().start));
        }
        Ok(Entry {
            key: key.get_ref().to_string(),
            span: key.span(),
            node: node_of(value, depth + 1)?,
        })
    });
    let mut entries = entries.collect::<Result<Vec<Entry>, Wrong>>()?;
    entries.sort_by_key(|e| e.span.start);
    Ok(Value::Table(entries))
}

fn node_of(value: &Spanned<DeValue<'_>>, depth: usize) -> Result<Node, Wrong> {
    let inner = match value.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => {
            let parsed = i64::from_str_radix(number.as_str(), number.radix());
            let out_of_range = |_| {
                (
                    value.span().start,
                    format!("{number} is too large a number"),
                )
            };
            Value::Int(i128::from(parsed.map_err(out_of_range)?))
        }
        DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(yes) => Value::Bool(*yes),
        DeValue::Datetime(date) => {
            let mut date = *date;
            // TOML 1.1 lets them out; Go writes them.
            if let Some(time) = &mut date.time {
                time.second.get_or_insert(0);
            }
            Value::Date(date.to_string())
        }
        DeValue::Array(items) => {
            if depth > MAX_DEPTH {
                return Err(too_deep(value.span().start));
            }
            let items = items.iter().map(|item| node_of(item, depth + 1));
            Value::List(items.collect::<Result<Vec<Node>, Wrong>>()?)
        }
        DeValue::Table(table) => table_of(table, depth)?,
    };
    Ok(Node {
        value: inner,
        span: value.span(),
    })
}
