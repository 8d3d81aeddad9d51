//! Names and ids. Each is a type of its own, so that one cannot be passed for another, and each
//! is checked when it is made: a value of these types is safe in a path, a key and a host name.

use serde::{Deserialize, Serialize};

/// Why a text is not a name or id of the kind asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?} is not valid: {rule}")]
pub struct InvalidId {
    /// The kind, such as "app name".
    pub what: &'static str,
    /// What was given, cut to 80 characters.
    pub value: String,
    /// What would be accepted, in words.
    pub rule: &'static str,
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $pattern:literal, $example:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Returns the value, or why it is not one.
            pub fn new(value: impl Into<String>) -> Result<Self, InvalidId> {
                let value = value.into();
                let check: fn(&str) -> bool = $check;
                if check(&value) {
                    Ok(Self(value))
                } else {
                    Err(InvalidId { what: $what, value: value.chars().take(80).collect(), rule: $rule })
                }
            }

            /// Returns the text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "type": "string",
                    "description": concat!("A ", $what, ": ", $rule, "."),
                    "pattern": $pattern,
                    "examples": [$example],
                })
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(value: String) -> Result<Self, InvalidId> {
                Self::new(value)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;
            fn from_str(value: &str) -> Result<Self, InvalidId> {
                Self::new(value)
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(&self.0)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

fn only(value: &str, max: usize, allowed: fn(u8) -> bool) -> bool {
    !value.is_empty() && value.len() <= max && value.bytes().all(allowed)
}

fn lower_alnum(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// Returns whether a text is this prefix and 16 lowercase letters and digits.
fn is_prefixed(value: &str, prefix: &str) -> bool {
    value
        .strip_prefix(prefix)
        .is_some_and(|rest| rest.len() == 16 && rest.bytes().all(lower_alnum))
}

fn is_ulid(value: &str) -> bool {
    value.len() == 26
        && value
            .bytes()
            .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
}

text_id!(
    /// An app's name: one global namespace, a DNS label (machines-api.md 2.1).
    AppName, "app name", "use 1 to 62 lowercase letters, digits and dashes, with a letter or digit at both ends",
    "^[a-z0-9]([a-z0-9-]{0,60}[a-z0-9])?$", "my-app",
    |v| only(v, 62, |b| lower_alnum(b) || b == b'-') && !v.starts_with('-') && !v.ends_with('-')
);
text_id!(
    /// An organisation's slug.
    OrgSlug, "organization", "use 1 to 62 lowercase letters, digits and dashes, with a letter or digit at both ends",
    "^[a-z0-9]([a-z0-9-]{0,60}[a-z0-9])?$", "personal",
    |v| only(v, 62, |b| lower_alnum(b) || b == b'-') && !v.starts_with('-') && !v.ends_with('-')
);
text_id!(
    /// A Machine's id: 14 lowercase hex digits, stable for life.
    MachineId, "machine ID", "a machine ID is 14 hexadecimal digits",
    "^[0-9a-f]{14}$", "d891234f567890",
    |v| v.len() == 14 && v.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
);
text_id!(
    /// A Machine's version (`instance_id`): a ULID, new on every update.
    InstanceId, "instance ID", "an instance ID is a ULID of 26 characters",
    "^[0-9A-Z]{26}$", "01JD8Q0Z5KXW3M9V7T2R6B4N1C", is_ulid
);
text_id!(
    /// The id of one request made of a Machine: a ULID, so ids sort by time.
    OpId, "operation ID", "an operation ID is a ULID of 26 characters",
    "^[0-9A-Z]{26}$", "01JD8Q0Z5KXW3M9V7T2R6B4N1C", is_ulid
);
text_id!(
    /// The id of an event: a ULID.
    EventId, "event ID", "an event ID is a ULID of 26 characters",
    "^[0-9A-Z]{26}$", "01JD8Q0Z5KXW3M9V7T2R6B4N1C", is_ulid
);
text_id!(
    /// A release's id: a ULID.
    ReleaseId, "release ID", "a release ID is a ULID of 26 characters",
    "^[0-9A-Z]{26}$", "01JD8Q0Z5KXW3M9V7T2R6B4N1C", is_ulid
);
text_id!(
    /// A deployment's id: a ULID.
    DeploymentId, "deployment ID", "a deployment ID is a ULID of 26 characters",
    "^[0-9A-Z]{26}$", "01JD8Q0Z5KXW3M9V7T2R6B4N1C", is_ulid
);
text_id!(
    /// A volume's id: `vol_` and 16 lowercase letters and digits.
    VolumeId, "volume ID", "a volume ID is vol_ and 16 lowercase letters and digits",
    "^vol_[0-9a-z]{16}$", "vol_4k2m9x7q1w5e8r3t",
    |v| is_prefixed(v, "vol_")
);
text_id!(
    /// A snapshot's id: `vs_` and 16 lowercase letters and digits.
    SnapshotId, "snapshot ID", "a snapshot ID is vs_ and 16 lowercase letters and digits",
    "^vs_[0-9a-z]{16}$", "vs_4k2m9x7q1w5e8r3t",
    |v| is_prefixed(v, "vs_")
);
text_id!(
    /// A host: one computer that runs Machines.
    HostId, "host", "use 1 to 40 lowercase letters, digits and dashes",
    "^[a-z0-9-]{1,40}$", "host-1",
    |v| only(v, 40, |b| lower_alnum(b) || b == b'-')
);
text_id!(
    /// A slot of a host (D17): what placement places on. Unique among all hosts.
    SlotId, "slot", "use 1 to 60 lowercase letters, digits and dashes",
    "^[a-z0-9-]{1,60}$", "host-1-a",
    |v| only(v, 60, |b| lower_alnum(b) || b == b'-')
);
text_id!(
    /// A region's code, such as `iad`.
    Region, "region", "a region is 2 to 10 lowercase letters and digits",
    "^[a-z0-9]{2,10}$", "iad",
    |v| (2..=10).contains(&v.len()) && v.bytes().all(lower_alnum)
);
text_id!(
    /// A process group's name.
    ///
    /// Fly takes any text here; one that is no DNS label simply has no `.internal` name. The
    /// limits keep it printable and bounded.
    GroupName, "process group", "a process group is up to 63 printable characters without spaces or slashes",
    "^[!#-.0-~]{0,63}$", "web",
    |v| v.len() <= 63 && v.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b'"')
);

impl GroupName {
    /// Returns the group of an app without `[processes]`: `app`.
    #[must_use]
    pub fn app() -> Self {
        Self("app".to_owned())
    }
}

impl OrgSlug {
    /// Returns the organisation that is always there: `personal`.
    #[must_use]
    pub fn personal() -> Self {
        Self("personal".to_owned())
    }

    /// Returns whether it is the one that is always there.
    #[must_use]
    pub fn is_personal(&self) -> bool {
        self.0 == "personal"
    }
}

impl Default for OrgSlug {
    fn default() -> Self {
        Self::personal()
    }
}

macro_rules! ulid_id {
    ($($name:ident),*) => {$(
        impl $name {
            /// Returns a new id from the environment's clock and randomness.
            #[must_use]
            pub fn generate(env: &crate::env::Env) -> Self {
                Self(env.ulid().to_string())
            }
        }
    )*};
}
ulid_id!(InstanceId, OpId, EventId, ReleaseId, DeploymentId);

macro_rules! prefixed_id {
    ($($name:ident: $prefix:literal),*) => {$(
        impl $name {
            /// Returns a new id from the environment's randomness.
            #[must_use]
            pub fn generate(env: &crate::env::Env) -> Self {
                Self(format!("{}{}", $prefix, base36(env)))
            }
        }
    )*};
}
prefixed_id!(VolumeId: "vol_", SnapshotId: "vs_");

/// Returns 16 random lowercase letters and digits.
fn base36(env: &crate::env::Env) -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut random = u128::from(env.random_u64()) << 64 | u128::from(env.random_u64());
    let mut text = String::with_capacity(16);
    for _ in 0..16 {
        let digit = usize::try_from(random % 36).unwrap_or_default();
        text.push(char::from(DIGITS[digit]));
        random /= 36;
    }
    text
}

impl MachineId {
    /// Returns a new id. The caller checks that it, and its low 32 bits, are free.
    #[must_use]
    pub fn generate(env: &crate::env::Env) -> Self {
        Self(format!("{:014x}", env.random_u64() >> 8))
    }

    /// Returns the low 32 bits, the machine part of the 6PN address.
    #[must_use]
    pub fn low32(&self) -> u32 {
        u32::from_str_radix(&self.0[6..], 16).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_name_is_never_a_path() {
        for bad in [
            "",
            "../x",
            "a/b",
            "A",
            "-a",
            "a-",
            "a.b",
            &"x".repeat(63),
            "a\0b",
        ] {
            assert!(AppName::new(bad).is_err(), "{bad:?}");
        }
        assert!(AppName::new("my-app-2").is_ok());
    }

    #[test]
    fn a_new_volume_id_is_one_and_never_a_path() {
        let env = crate::env::Env::real();
        let id = VolumeId::generate(&env);
        assert_eq!(VolumeId::new(id.as_str()), Ok(id.clone()));
        assert_ne!(id, VolumeId::generate(&env));
        for bad in ["vol_", "vol_../../etc/passw", "vs_0123456789abcdef"] {
            assert!(VolumeId::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ids_refuse_other_shapes_when_read_from_json() {
        assert!(serde_json::from_str::<MachineId>("\"0123456789abcd\"").is_ok());
        assert!(serde_json::from_str::<MachineId>("\"../etc/passwd1\"").is_err());
    }
}
