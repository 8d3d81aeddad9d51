//! Names for apps that are given none, as Fly's `launch` makes them.

const ADJECTIVES: [&str; 16] = [
    "autumn", "bitter", "blue", "bold", "crimson", "dawn", "frosty", "green", "hidden", "icy",
    "lively", "misty", "polished", "quiet", "silent", "wild",
];
const NOUNS: [&str; 16] = [
    "bird", "breeze", "brook", "cloud", "dew", "feather", "field", "firefly", "forest", "frost",
    "glade", "lake", "meadow", "moon", "pine", "river",
];

/// Returns a name of random bits, after a prefix where there is one. Whether it is free is for the
/// server to say.
pub(crate) fn generate(prefix: Option<&str>, random: u64) -> String {
    let pick = |words: &[&'static str; 16], bits: u32| {
        words[usize::try_from((random >> bits) & 15).unwrap_or(0)]
    };
    let (adjective, noun) = (pick(&ADJECTIVES, 0), pick(&NOUNS, 8));
    let number = 1000 + (random >> 16) % 9000;
    match prefix {
        // An app's name has 62 characters at most.
        Some(prefix) => {
            let prefix: String = prefix.chars().take(32).collect();
            format!(
                "{}-{adjective}-{noun}-{number}",
                prefix.trim_end_matches('-')
            )
        }
        None => format!("{adjective}-{noun}-{number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::generate;

    proptest::proptest! {
        #[test]
        fn a_made_up_name_is_a_name(prefix in proptest::option::of("[a-z0-9][a-z0-9-]{0,60}[a-z0-9]"), random: u64) {
            let name = generate(prefix.as_deref(), random);
            proptest::prop_assert!(hangar_api::id::AppName::new(name).is_ok());
        }
    }
}
