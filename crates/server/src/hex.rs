//! Bytes as hexadecimal text, as tokens, nonces and digests are written.

use std::fmt::Write as _;

/// Returns the bytes as lower-case hexadecimal digits.
pub(crate) fn encode(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
