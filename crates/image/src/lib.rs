//! Images: from a name to unpacked layers that a Machine's root can be made of.
//!
//! Owns `images/` in the data directory. Called by the server (resolve a name when a release is
//! made, import, list, prune), by the host ([`ImageStore::ensure`] before each start) and by the
//! CLI, which makes images of its own with [`build`]. Never runs anything, never trusts what an
//! image says about paths, and never shows a layer that is not whole and verified.
//!
//! ```text
//! images/
//!   blobs/sha256/<hex>     manifests, indexes and configs, as they came
//!   layers/<diff id>/fs    one unpacked layer, ready to be a lower directory of overlayfs
//!   layers/<diff id>/layer.json   the marker: written before the directory gets its name
//!   names.json             which names were imported and pulled, and what they mean
//!   tmp/                   work in progress and things about to be deleted; emptied at start
//! ```
//!
//! Compressed layers are not kept once they are unpacked.
//!
//! # Which image a name means
//!
//! 1. A name that was imported, compared as `name:tag` (`latest` where no tag is given).
//!    `localhost/name` means an imported name too, as with other tools.
//! 2. A digest that is here already.
//! 3. The registry: the one that the name starts with, else `registry-1.docker.io`.
//! 4. If that registry cannot be reached at all: what the tag meant when it was last pulled.
//!
//! Imported names are user data: the daily collection keeps them; an explicit prune removes those
//! that nothing needs.
#![warn(missing_docs)]

mod archive;
pub mod build;
mod config;
mod digest;
mod disk;
mod error;
mod layer;
mod manifest;
mod pins;
mod platform;
mod reference;
mod registry;
mod store;

pub use config::{ImageConfig, ReadyImage};
pub use digest::Digest;
pub use error::ImageError;
pub use layer::{Unpacked, unpack};
pub use platform::Platform;
pub use reference::Name;
pub use registry::{Credentials, RegistryConfig};
pub use store::ImageStore;
