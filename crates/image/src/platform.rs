//! Which of an image's platforms fits this machine.

use std::fmt;

/// An operating system and a processor, in the words of OCI images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`.
    pub architecture: String,
    /// `v8`, or "".
    pub variant: String,
}

// === impl Platform ===

impl Platform {
    /// Returns the platform of this machine.
    #[must_use]
    pub fn this() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", ""),
            "aarch64" => ("arm64", "v8"),
            other => (other, ""),
        };
        Self {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
        }
    }

    /// Returns whether this machine can run what is made for `other`.
    ///
    /// An image that does not say is believed. A variant above the base of the processor
    /// (`amd64/v3`) is not taken, since nothing here knows whether the processor has it.
    pub(crate) fn runs(&self, other: &Self) -> bool {
        let same = |mine: &str, theirs: &str| theirs.is_empty() || mine == theirs;
        let base = match self.architecture.as_str() {
            "amd64" => matches!(other.variant.as_str(), "" | "v1"),
            "arm64" => matches!(other.variant.as_str(), "" | "v8"),
            _ => true,
        };
        same(&self.os, &other.os) && same(&self.architecture, &other.architecture) && base
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or = |text: &'_ str| {
            if text.is_empty() {
                "unknown".to_owned()
            } else {
                text.to_owned()
            }
        };
        write!(f, "{}/{}", or(&self.os), or(&self.architecture))?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}
