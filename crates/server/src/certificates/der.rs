//! The few parts of a certificate (RFC 5280) that nothing else in the house reads: its times, and
//! the names of subject and issuer. Pure; bytes of strangers never make it panic.
//!
//! Everything that decides about trust (names, keys, signatures) is read by `webpki`.

use hangar_api::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;
const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERAL_TIME: u8 = 0x18;
/// `[0] EXPLICIT`, around the version.
const VERSION: u8 = 0xa0;
/// UTF8String, PrintableString, T61String, IA5String: all that are bytes of text.
const TEXTS: [u8; 4] = [0x0c, 0x13, 0x14, 0x16];
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const ORGANIZATION: &[u8] = &[0x55, 0x04, 0x0a];
/// Most characters of a name that are shown.
const MAX_NAME: usize = 200;

/// From when to when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
}

/// Values one after another.
struct Reader<'a>(&'a [u8]);

// === impl Reader ===

impl<'a> Reader<'a> {
    /// Returns the tag and the content of the next value, or `None` where there is none.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let [tag, first, rest @ ..] = self.0 else {
            return None;
        };
        let (length, rest) = if *first < 0x80 {
            (usize::from(*first), rest)
        } else {
            // Certificates are far shorter than what three bytes can say.
            let count = usize::from(first & 0x7f);
            let digits = rest.get(..count).filter(|_| (1..=3).contains(&count))?;
            let length = digits.iter().fold(0, |sum, b| sum << 8 | usize::from(*b));
            (length, &rest[count..])
        };
        let content = rest.get(..length)?;
        self.0 = &rest[length..];
        Some((*tag, content))
    }

    /// Returns the content of the next value, which must have this tag.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (found, content) = self.next()?;
        (found == tag).then_some(content)
    }
}

/// Returns the times of a certificate, or `None` where they cannot be read.
pub(super) fn validity(certificate: &[u8]) -> Option<Validity> {
    let whole = Reader(certificate).take(SEQUENCE)?;
    let mut fields = Reader(Reader(whole).take(SEQUENCE)?);
    let (first, _) = fields.next()?;
    if first == VERSION {
        fields.take(INTEGER)?;
    }
    let _algorithm = fields.take(SEQUENCE)?;
    let _issuer = fields.take(SEQUENCE)?;
    let mut times = Reader(fields.take(SEQUENCE)?);
    Some(Validity {
        not_before: time(times.next()?)?,
        not_after: time(times.next()?)?,
    })
}

fn time((tag, text): (u8, &[u8])) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let text = match tag {
        // Two digits are a year from 1950 to 2049.
        UTC_TIME if text.get(..2)? < "50" => format!("20{text}"),
        UTC_TIME => format!("19{text}"),
        GENERAL_TIME => text.to_owned(),
        _ => return None,
    };
    if text.len() != 14 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<i8>().ok();
    let civil = DateTime::new(
        text.get(..4)?.parse().ok()?,
        number(4, 6)?,
        number(6, 8)?,
        number(8, 10)?,
        number(10, 12)?,
        number(12, 14)?,
        0,
    );
    TimeZone::UTC.to_timestamp(civil.ok()?).ok()
}

/// Returns the common name of a subject or issuer, as the content of its SEQUENCE.
pub(super) fn common_name(name: &[u8]) -> Option<String> {
    attribute(name, COMMON_NAME)
}

/// Returns what a subject or issuer is best called: its common name, else its organization.
pub(super) fn shown(name: &[u8]) -> String {
    common_name(name)
        .or_else(|| attribute(name, ORGANIZATION))
        .unwrap_or_else(|| "unnamed".to_owned())
}

fn attribute(name: &[u8], wanted: &[u8]) -> Option<String> {
    let mut parts = Reader(name);
    while let Some(part) = parts.take(SET) {
        let mut attributes = Reader(part);
        while let Some(attribute) = attributes.take(SEQUENCE) {
            let mut fields = Reader(attribute);
            let found = fields.take(OID)? == wanted;
            let (tag, text) = fields.next()?;
            if found && TEXTS.contains(&tag) {
                let text = String::from_utf8_lossy(text);
                // It is shown on terminals.
                let plain = text.chars().filter(|c| !c.is_control());
                return Some(plain.take(MAX_NAME).collect());
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_of_both_kinds_are_read_and_nothing_else_is() {
        let read = |tag, text: &str| time((tag, text.as_bytes())).map(|t| t.to_string());
        let is = |text: &str| Some(text.to_owned());
        assert_eq!(read(UTC_TIME, "491231235959Z"), is("2049-12-31T23:59:59Z"));
        assert_eq!(read(UTC_TIME, "500101000000Z"), is("1950-01-01T00:00:00Z"));
        let late = read(GENERAL_TIME, "20500101000000Z");
        assert_eq!(late, is("2050-01-01T00:00:00Z"));
        for wrong in [
            "",
            "Z",
            "4912312359Z",
            "49123123595+Z",
            "491332000000Z",
            "ä",
        ] {
            assert_eq!(read(UTC_TIME, wrong), None, "{wrong}");
        }
        assert_eq!(read(SET, "491231235959Z"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _any = (validity(&bytes), common_name(&bytes), shown(&bytes));
        }
    }
}
