//! Which tokens an `Authorization` header presents, and the digest that an opaque one is kept by.
//! Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest, Sha256};

use crate::hex;

/// Most tokens that one header may carry; clients send several, comma separated.
const MAX_PRESENTED: usize = 16;

/// Returns the tokens that an `Authorization` header presents: `Bearer T`, `FlyV1 T,T`, or `Basic`
/// with any user and the tokens as the password, as clients of registries send it.
pub(crate) fn presented(header: &str) -> Vec<String> {
    let Some((scheme, rest)) = header.trim().split_once(' ') else {
        return Vec::new();
    };
    match scheme.to_ascii_lowercase().as_str() {
        "bearer" | "flyv1" => listed(rest),
        "basic" => password(rest.trim()).map_or_else(Vec::new, |text| listed(&text)),
        _ => Vec::new(),
    }
}

fn password(encoded: &str) -> Option<String> {
    let text = String::from_utf8(BASE64.decode(encoded).ok()?).ok()?;
    text.split_once(':')
        .map(|(_, password)| password.to_owned())
}

/// Returns the tokens of a list; each may still have the scheme of the header that it was copied
/// from.
pub(crate) fn listed(text: &str) -> Vec<String> {
    text.split(',')
        .map(|token| {
            let token = token.trim();
            let bare = token.split_once(' ').filter(|(scheme, _)| {
                scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("flyv1")
            });
            bare.map_or(token, |(_, rest)| rest.trim())
        })
        .filter(|token| !token.is_empty())
        .take(MAX_PRESENTED)
        .map(str::to_owned)
        .collect()
}

/// Returns the digest that an opaque token is kept by. It is looked up as it is: how long that
/// takes tells something about the digest, which tells nothing about a token that would have it.
pub(crate) fn hash(token: &str) -> String {
    hex::encode(&Sha256::digest(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_schemes_of_clients_are_taken_and_others_are_not() {
        let basic = format!("Basic {}", BASE64.encode("x:hangar_abc,fm2_y"));
        for (header, tokens) in [
            ("Bearer hangar_abc", vec!["hangar_abc"]),
            ("bearer  hangar_abc ", vec!["hangar_abc"]),
            ("FlyV1 fm2_x,hangar_abc", vec!["fm2_x", "hangar_abc"]),
            ("Bearer FlyV1 fm2_x, fm2_y", vec!["fm2_x", "fm2_y"]),
            (&basic, vec!["hangar_abc", "fm2_y"]),
            ("", vec![]),
            ("hangar_abc", vec![]),
            ("Bearer", vec![]),
            ("Bearer ", vec![]),
            ("Basic hangar_abc", vec![]),
            ("Digest hangar_abc", vec![]),
        ] {
            assert_eq!(presented(header), tokens, "{header}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_read_and_a_token_comes_out_as_it_went_in(
            token in "[a-z0-9_]{1,40}",
            other in "[ -~]{0,60}",
        ) {
            prop_assert_eq!(presented(&format!("Bearer {token}")), vec![token.clone()]);
            let basic = BASE64.encode(format!("anybody:{token}"));
            prop_assert_eq!(presented(&format!("Basic {basic}")), vec![token]);
            prop_assert!(presented(&other).len() <= MAX_PRESENTED);
        }
    }
}
