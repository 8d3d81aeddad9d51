//! What a Machine has beside CPUs and memory: swap, and a root file system that may outlive a run
//! (machines-api.md 4.2: `init.swap_size_mb`, `rootfs`, `guest.persist_rootfs`).

use serde_json::Value;

use super::config::MachineConfig;

/// Most swap of a Machine, in MB.
pub const MAX_SWAP_MB: u64 = 1024 * 1024;

/// How long what a program writes beside its volume is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RootfsPersist {
    /// Each start begins with the image.
    #[default]
    Never,
    /// Over stops and starts; an update begins with the image again.
    Restart,
    /// Over updates too.
    Always,
}

/// A part of a configuration that means nothing, with the words that do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidExtent {
    /// Neither a word nor a number that stands for one.
    #[error("config.rootfs: persist {0} is not known: use never, restart or always")]
    Persist(String),
    /// Not a number of GB.
    #[error("config.rootfs: size_gb {0} is not valid: use a whole number of GB")]
    Size(String),
    /// Not a number of MB, or too many.
    #[error("config.init: swap_size_mb {0} is not valid: use 0 to {MAX_SWAP_MB}")]
    Swap(String),
}

// === impl RootfsPersist ===

impl RootfsPersist {
    /// Returns the word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Restart => "restart",
            Self::Always => "always",
        }
    }

    /// Reads a word, or one of the numbers 0 to 3 that clients send for it.
    fn read(value: &Value) -> Result<Option<Self>, InvalidExtent> {
        Ok(Some(match (value.as_str(), value.as_u64()) {
            (None, None) if value.is_null() => return Ok(None),
            (Some("" | "none"), _) | (_, Some(0)) => return Ok(None),
            (Some("never"), _) | (_, Some(1)) => Self::Never,
            (Some("restart"), _) | (_, Some(2)) => Self::Restart,
            (Some("always"), _) | (_, Some(3)) => Self::Always,
            _ => return Err(InvalidExtent::Persist(value.to_string())),
        }))
    }
}

// === impl MachineConfig ===

impl MachineConfig {
    /// Returns how long its root file system is kept: `rootfs.persist`, else the older
    /// `guest.persist_rootfs`.
    pub fn rootfs_persist(&self) -> Result<RootfsPersist, InvalidExtent> {
        let rootfs = self.other.get("rootfs").unwrap_or(&Value::Null);
        if let Some(persist) = RootfsPersist::read(&rootfs["persist"])? {
            return Ok(persist);
        }
        let guest = self.guest.as_ref();
        let older = guest.and_then(|guest| guest.other.get("persist_rootfs"));
        Ok(RootfsPersist::read(older.unwrap_or(&Value::Null))?.unwrap_or_default())
    }

    /// Returns the room that it asks for its root file system, in GB; 0 for none in particular.
    pub fn rootfs_size_gb(&self) -> Result<u64, InvalidExtent> {
        let rootfs = self.other.get("rootfs").unwrap_or(&Value::Null);
        whole(&rootfs["size_gb"]).ok_or_else(|| InvalidExtent::Size(rootfs["size_gb"].to_string()))
    }

    /// Returns its swap in MB; 0 for none.
    pub fn swap_mb(&self) -> Result<u64, InvalidExtent> {
        let given = self.init.other.get("swap_size_mb").unwrap_or(&Value::Null);
        whole(given)
            .filter(|mb| *mb <= MAX_SWAP_MB)
            .ok_or_else(|| InvalidExtent::Swap(given.to_string()))
    }
}

/// Returns a whole number, 0 where there is none.
fn whole(value: &Value) -> Option<u64> {
    if value.is_null() {
        return Some(0);
    }
    value.as_u64()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(value: Value) -> MachineConfig {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn persistence_is_a_word_or_its_number_and_the_newer_key_wins() {
        for (given, expected) in [
            (json!(null), RootfsPersist::Never),
            (json!(""), RootfsPersist::Never),
            (json!("none"), RootfsPersist::Never),
            (json!(1), RootfsPersist::Never),
            (json!("restart"), RootfsPersist::Restart),
            (json!(2), RootfsPersist::Restart),
            (json!("always"), RootfsPersist::Always),
            (json!(3), RootfsPersist::Always),
        ] {
            let new = config(json!({"rootfs": {"persist": given}}));
            assert_eq!(new.rootfs_persist(), Ok(expected), "{given}");
            let old = config(json!({"guest": {"persist_rootfs": given}}));
            assert_eq!(old.rootfs_persist(), Ok(expected), "{given}");
        }
        let both = json!({"rootfs": {"persist": "never"}, "guest": {"persist_rootfs": "always"}});
        assert_eq!(config(both).rootfs_persist(), Ok(RootfsPersist::Never));
        for wrong in [json!("sometimes"), json!(4), json!([])] {
            let error = config(json!({"rootfs": {"persist": wrong}})).rootfs_persist();
            let text = error.unwrap_err().to_string();
            assert!(text.contains("never, restart or always"), "{text}");
        }
    }

    #[test]
    fn sizes_are_whole_numbers() {
        let swap = |value: Value| config(json!({"init": {"swap_size_mb": value}})).swap_mb();
        assert_eq!(swap(json!(512)), Ok(512));
        assert_eq!(swap(json!("512")), Ok(512));
        assert_eq!(config(json!({})).swap_mb(), Ok(0));
        for wrong in [json!(-1), json!("half"), json!(1.5), json!(MAX_SWAP_MB + 1)] {
            assert!(swap(wrong.clone()).is_err(), "{wrong}");
        }
        let size = |value: Value| config(json!({"rootfs": {"size_gb": value}})).rootfs_size_gb();
        assert_eq!(size(json!(5)), Ok(5));
        assert!(size(json!(-5)).is_err());
    }
}
