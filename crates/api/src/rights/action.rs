//! What can be done to a thing, as a set of bits (`resset/action.go`).

use std::ops::BitOr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A set of actions. On the wire it is letters: `r`, `w`, `c`, `d`, `C`; `*` is all bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Action(pub u16);

const NAMES: [(Action, char, &str); 5] = [
    (Action::READ, 'r', "read"),
    (Action::WRITE, 'w', "write"),
    (Action::CREATE, 'c', "create"),
    (Action::DELETE, 'd', "delete"),
    (Action::CONTROL, 'C', "control"),
];

// === impl Action ===

impl Action {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Reading.
    pub const READ: Self = Self(1);
    /// Changing.
    pub const WRITE: Self = Self(2);
    /// Making one.
    pub const CREATE: Self = Self(4);
    /// Removing.
    pub const DELETE: Self = Self(8);
    /// Starting, stopping and signalling: changing the state and nothing else.
    pub const CONTROL: Self = Self(16);
    /// All of these.
    pub const ALL: Self = Self(31);
    /// Every bit, those that have no meaning yet included.
    pub const EVERYTHING: Self = Self(u16::MAX);

    /// Returns what is in this set and not in the other.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Returns the actions of letters; others are passed over, as Fly's clients do.
    #[must_use]
    pub fn from_letters(text: &str) -> Self {
        if text == "*" {
            return Self::EVERYTHING;
        }
        let known = |letter| NAMES.iter().find(|(_, known, _)| *known == letter);
        let actions = text.chars().filter_map(known);
        actions.fold(Self::NONE, |all, (action, _, _)| all | *action)
    }

    /// Returns the letters.
    #[must_use]
    pub fn letters(self) -> String {
        if self == Self::EVERYTHING {
            return "*".to_owned();
        }
        let in_it = NAMES.iter().filter(|(action, _, _)| self.0 & action.0 != 0);
        in_it.map(|(_, letter, _)| letter).collect()
    }

    /// Returns the actions as words, such as `read and write`.
    #[must_use]
    pub fn in_words(self) -> String {
        let in_it = NAMES.iter().filter(|(action, _, _)| self.0 & action.0 != 0);
        let words: Vec<&str> = in_it.map(|(_, _, word)| *word).collect();
        match words.as_slice() {
            [] => "do that".to_owned(),
            [one] => (*one).to_owned(),
            [first @ .., last] => format!("{} and {last}", first.join(", ")),
        }
    }
}

impl BitOr for Action {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl Serialize for Action {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.letters())
    }
}

impl<'de> Deserialize<'de> for Action {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Letters as clients write them, or the bits as Fly's own document has it.
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Letters(String),
            Bits(u16),
        }
        Ok(match Either::deserialize(deserializer)? {
            Either::Letters(text) => Self::from_letters(&text),
            Either::Bits(bits) => Self(bits),
        })
    }
}
