//! The byte ranges of requests: of what is sent (`Content-Range`) and of what is wanted (`Range`).
//! Pure.

use hangar_image::{HostedError, Part};

/// Which bytes of something are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    All,
    /// So many bytes from here.
    Some(u64, u64),
    /// None that there are.
    Nothing,
}

/// Reads what a request says of its body: `Content-Range: FIRST-LAST` and `Content-Length`.
pub(super) fn part(
    content_range: Option<&str>,
    content_length: Option<&str>,
) -> Result<Part, HostedError> {
    let length = content_length.and_then(|text| text.trim().parse().ok());
    let Some(range) = content_range else {
        return Ok(Part {
            start: None,
            length,
        });
    };
    let bad = || {
        let shown: String = range.chars().take(60).collect();
        HostedError::UploadInvalid(format!("Content-Range is FIRST-LAST, not {shown:?}"))
    };
    // Some clients write it as in other requests: `bytes FIRST-LAST/TOTAL`.
    let text = range.trim();
    let text = text.strip_prefix("bytes").map_or(text, str::trim_start);
    let text = text.split('/').next().unwrap_or(text);
    let (first, last) = text.split_once('-').ok_or_else(bad)?;
    let (first, last) = (
        number(first).ok_or_else(bad)?,
        number(last).ok_or_else(bad)?,
    );
    let said = last
        .checked_sub(first)
        .and_then(|n| n.checked_add(1))
        .ok_or_else(bad)?;
    if length.is_some_and(|length| length != said) {
        return Err(HostedError::SizeInvalid(format!(
            "the range {first}-{last} has {said} bytes, the body another number"
        )));
    }
    Ok(Part {
        start: Some(first),
        length: Some(said),
    })
}

/// Reads `Range: bytes=...` against what there is. Several ranges at once, and other units, give
/// everything, as HTTP allows.
pub(super) fn wanted(range: Option<&str>, len: u64) -> Wanted {
    let Some(text) = range.and_then(|text| text.trim().strip_prefix("bytes=")) else {
        return Wanted::All;
    };
    let Some((first, last)) = text.trim().split_once('-') else {
        return Wanted::All;
    };
    match (number(first), number(last)) {
        (Some(first), _) if first >= len => Wanted::Nothing,
        (Some(first), Some(last)) if last >= first => {
            Wanted::Some(first, last.min(len - 1) - first + 1)
        }
        (Some(first), None) if last.is_empty() => Wanted::Some(first, len - first),
        (None, Some(0)) if first.is_empty() => Wanted::Nothing,
        (None, Some(end)) if first.is_empty() => {
            let count = end.min(len);
            if count == 0 {
                return Wanted::Nothing;
            }
            Wanted::Some(len - count, count)
        }
        _ => Wanted::All,
    }
}

fn number(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_sent_is_read_and_must_agree_with_its_length() {
        let of = |start, length| Part { start, length };
        let cases = [
            (None, None, of(None, None)),
            (None, Some("7"), of(None, Some(7))),
            (Some("0-6"), Some("7"), of(Some(0), Some(7))),
            (Some("5-5"), None, of(Some(5), Some(1))),
            (Some("bytes 2-3/9"), None, of(Some(2), Some(2))),
        ];
        for (range, length, want) in cases {
            assert_eq!(part(range, length).unwrap(), want, "{range:?}");
        }
        for (range, length) in [
            ("0-6", Some("6")),
            ("6-0", None),
            ("-5", None),
            ("5-", None),
            ("x-y", None),
            ("0-18446744073709551615", None),
            ("+1-2", None),
            ("", None),
        ] {
            assert!(part(Some(range), length).is_err(), "{range}");
        }
    }

    #[test]
    fn what_is_wanted_is_cut_to_what_there_is() {
        let cases = [
            (None, Wanted::All),
            (Some("bytes=0-0"), Wanted::Some(0, 1)),
            (Some("bytes=2-"), Wanted::Some(2, 8)),
            (Some("bytes=2-99"), Wanted::Some(2, 8)),
            (Some("bytes=-3"), Wanted::Some(7, 3)),
            (Some("bytes=-99"), Wanted::Some(0, 10)),
            (Some("bytes=10-"), Wanted::Nothing),
            (Some("bytes=-0"), Wanted::Nothing),
            (Some("bytes=5-2"), Wanted::All),
            (Some("bytes=0-1,3-4"), Wanted::All),
            (Some("lines=0-1"), Wanted::All),
        ];
        for (range, want) in cases {
            assert_eq!(wanted(range, 10), want, "{range:?}");
        }
        assert_eq!(wanted(Some("bytes=-5"), 0), Wanted::Nothing);
    }

    proptest! {
        #[test]
        fn a_range_never_reaches_beyond_the_end(text in "bytes=[0-9]{0,20}-[0-9]{0,20}", len in 0_u64..100) {
            if let Wanted::Some(first, count) = wanted(Some(&text), len) {
                prop_assert!(count > 0 && first + count <= len);
            }
        }
    }
}
