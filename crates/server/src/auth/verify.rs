//! Whether a request's `Authorization` header carries a token that is known. Pure.
//!
//! Tokens are kept hashed: what is compared is the digest of what was presented, in constant
//! time and against every known token, so that time tells nothing about how close a guess is.

use sha2::{Digest, Sha256};

use crate::hex;

/// Most tokens that one header may carry; clients send several, comma separated.
const MAX_PRESENTED: usize = 16;

/// A token as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known<'a> {
    /// The digest of the token, hexadecimal.
    pub(crate) hash: &'a str,
    /// Whose it is.
    pub(crate) user: &'a str,
}

/// Returns the tokens that an `Authorization` header presents: `Bearer T` or `FlyV1 T,T`.
pub(crate) fn presented(header: &str) -> Vec<&str> {
    let Some((scheme, rest)) = header.trim().split_once(' ') else {
        return Vec::new();
    };
    if !scheme.eq_ignore_ascii_case("bearer") && !scheme.eq_ignore_ascii_case("flyv1") {
        return Vec::new();
    }
    rest.split(',')
        .map(str::trim)
        .filter(|token| !token.is_empty())
        .take(MAX_PRESENTED)
        .collect()
}

/// Returns the digest that a token is kept as.
pub(crate) fn hash(token: &str) -> String {
    hex::encode(&Sha256::digest(token.as_bytes()))
}

/// Returns whose token the header carries, or `None` when none of them is known.
pub(crate) fn verify<'a>(header: &str, known: &[Known<'a>]) -> Option<&'a str> {
    let mut user = None;
    for token in presented(header) {
        let digest = hash(token);
        for candidate in known {
            // No early return: every candidate costs the same.
            if equal(digest.as_bytes(), candidate.hash.as_bytes()) {
                user = Some(candidate.user);
            }
        }
    }
    user
}

/// Compares in a time that depends on the lengths alone.
fn equal(a: &[u8], b: &[u8]) -> bool {
    let differing = a
        .iter()
        .zip(b)
        .fold(0_u8, |sum, (x, y)| sum | std::hint::black_box(x ^ y));
    a.len() == b.len() && std::hint::black_box(differing) == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_schemes_are_taken_and_others_are_not() {
        let digest = hash("hangar_abc");
        let known = [Known {
            hash: &digest,
            user: "admin",
        }];
        for good in [
            "Bearer hangar_abc",
            "bearer  hangar_abc ",
            "FlyV1 fm2_x,hangar_abc",
            "FlyV1 hangar_abc,fm2_x",
        ] {
            assert_eq!(verify(good, &known), Some("admin"), "{good}");
        }
        for bad in [
            "",
            "hangar_abc",
            "Bearer",
            "Bearer ",
            "Basic hangar_abc",
            "Bearer hangar_ab",
            "Bearer hangar_abcd",
        ] {
            assert_eq!(verify(bad, &known), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn only_the_very_token_is_let_in(token in "[a-z0-9_]{1,40}", other in "[ -~]{0,60}") {
            let digest = hash(&token);
            let known = [Known { hash: &digest, user: "admin" }];
            let bearer = format!("Bearer {token}");
            prop_assert_eq!(verify(&bearer, &known), Some("admin"));
            prop_assert_eq!(verify(&bearer, &[]), None);
            let carries = presented(&other).contains(&token.as_str());
            prop_assert_eq!(verify(&other, &known).is_some(), carries);
        }
    }
}
