//! Names for Machines that were given none: `adjective-noun-NNNN`, as Fly makes them.

use hangar_api::env::Env;

const ADJECTIVES: [&str; 32] = [
    "autumn",
    "billowing",
    "bitter",
    "black",
    "blue",
    "bold",
    "broken",
    "cold",
    "cool",
    "crimson",
    "damp",
    "dark",
    "dawn",
    "delicate",
    "divine",
    "dry",
    "empty",
    "falling",
    "floral",
    "fragrant",
    "frosty",
    "green",
    "hidden",
    "holy",
    "icy",
    "late",
    "lingering",
    "little",
    "lively",
    "misty",
    "polished",
    "quiet",
];
const NOUNS: [&str; 32] = [
    "bird",
    "breeze",
    "brook",
    "bush",
    "butterfly",
    "cherry",
    "cloud",
    "darkness",
    "dawn",
    "dew",
    "dream",
    "dust",
    "feather",
    "field",
    "fire",
    "firefly",
    "flower",
    "fog",
    "forest",
    "frog",
    "frost",
    "glade",
    "glitter",
    "grass",
    "haze",
    "hill",
    "lake",
    "leaf",
    "meadow",
    "moon",
    "pine",
    "river",
];

/// Returns a name; the caller's claim decides whether it is free.
pub(crate) fn generate(env: &Env) -> String {
    let random = env.random_u64();
    let pick = |words: &[&'static str; 32], bits: u32| {
        let index = usize::try_from((random >> bits) & 31).unwrap_or(0);
        words[index]
    };
    format!(
        "{}-{}-{}",
        pick(&ADJECTIVES, 0),
        pick(&NOUNS, 8),
        1000 + (random >> 16) % 9000
    )
}

/// Returns why a name cannot be a Machine's, or `None` when it can.
pub(crate) fn refuse(name: &str) -> Option<&'static str> {
    let fits = !name.is_empty()
        && name.len() <= 63
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    (!fits).then_some("a machine name is 1 to 63 letters, digits, dashes, dots and underscores")
}
