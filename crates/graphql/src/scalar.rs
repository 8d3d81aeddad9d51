//! Scalars of Fly's schema.

use async_graphql::{InputValueError, InputValueResult, Scalar, ScalarType, Value};
use hangar_api::Timestamp;

/// Any JSON.
pub(crate) type Json = async_graphql::Json<serde_json::Value>;

/// A number that may not fit 32 bits: a string of digits on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BigInt(pub(crate) u64);

/// A moment, as RFC 3339 has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DateTime(pub(crate) Timestamp);

/// A number that may not fit 32 bits, as a string of digits.
#[Scalar(name = "BigInt")]
impl ScalarType for BigInt {
    fn parse(value: Value) -> InputValueResult<Self> {
        let number = match &value {
            Value::String(text) => text.parse().ok(),
            Value::Number(number) => number.as_u64(),
            _ => None,
        };
        number
            .map(Self)
            .ok_or_else(|| InputValueError::expected_type(value))
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.to_string())
    }
}

/// A moment, as RFC 3339 has it.
#[Scalar(name = "ISO8601DateTime")]
impl ScalarType for DateTime {
    fn parse(value: Value) -> InputValueResult<Self> {
        match &value {
            Value::String(text) => Ok(Self(text.parse().map_err(InputValueError::custom)?)),
            _ => Err(InputValueError::expected_type(value)),
        }
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.to_string())
    }
}

/// Returns a count that clients read as a 32-bit number.
pub(crate) fn int(number: impl TryInto<i32>) -> i32 {
    number.try_into().unwrap_or(i32::MAX)
}
