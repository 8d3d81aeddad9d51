//! Names for apps that are given none: `adjective-noun-NNNN`.

use hangar_api::env::Env;
use hangar_api::id::AppName;

const ADJECTIVES: [&str; 16] = [
    "ancient", "bright", "calm", "clear", "deep", "early", "gentle", "golden", "green", "happy",
    "little", "quiet", "rapid", "silent", "small", "warm",
];
const NOUNS: [&str; 16] = [
    "brook", "cloud", "field", "forest", "glade", "hill", "lake", "leaf", "meadow", "moon", "pine",
    "river", "sea", "sky", "stone", "wind",
];
/// Numbers that may stand at the end.
const NUMBERS: u64 = 10_000;

/// Returns a name that most likely nobody has.
pub(crate) fn made_up(env: &Env) -> AppName {
    let pick = |words: &'static [&'static str]| -> &'static str {
        let count = u64::try_from(words.len()).unwrap_or(1);
        let at = usize::try_from(env.random_u64() % count).unwrap_or(0);
        words.get(at).copied().unwrap_or("app")
    };
    let number = env.random_u64() % NUMBERS;
    let name = format!("{}-{}-{number:04}", pick(&ADJECTIVES), pick(&NOUNS));
    AppName::new(name).expect("words of lowercase letters and digits are a name")
}
