//! Images: from a name to unpacked layers that a Machine's root can be made of.
//!
//! Owns `images/` in the data directory. Called by the server (resolve a name when a release is
//! made, import, list, prune), by the host ([`ImageStore::ensure`] before each start) and by the
//! CLI, which makes images of its own with [`build`]. Never runs anything, never trusts what an
//! image says about paths, and never shows a layer that is not whole and verified.
//!
//! ```text
//! images/
//!   blobs/sha256/<hex>     manifests, indexes and configs, as they came; layers that were pushed
//!   layers/<diff id>/fs    one unpacked layer, ready to be a lower directory of overlayfs
//!   layers/<diff id>/layer.json   the marker: written before the directory gets its name
//!   names.json             which names were imported and pulled, and what they mean
//!   repositories/<name>.json   what was pushed to a repository of the embedded registry
//!   uploads/<id>, <id>.json    pushes in progress; they outlive a restart
//!   tmp/                   work in progress and things about to be deleted; emptied at start
//! ```
//!
//! Layers that were pulled are not kept compressed once they are unpacked; those that were pushed
//! are, since they may be pulled again. [`ImageStore::hosted`] is the registry that is embedded.
//!
//! # Which image a name means
//!
//! The order stands in `places.rs`: what was imported under the name, what is here by digest, what
//! was pushed, mirrors, the registry that the name starts with, else `registry-1.docker.io`. If
//! that cannot be reached at all: what the tag meant when it was last pulled.
//!
//! Imported names are user data: the daily collection keeps them; an explicit prune removes those
//! that nothing needs. A tag that was pushed keeps its image until the tag is deleted.
#![warn(missing_docs)]

mod archive;
pub mod build;
mod config;
mod digest;
mod disk;
mod error;
mod hosted;
mod layer;
mod manifest;
mod pins;
mod places;
mod platform;
mod reference;
mod registry;
mod store;

pub use config::{ImageConfig, ReadyImage};
pub use digest::Digest;
pub use error::ImageError;
pub use hosted::{
    FoundBlob, FoundManifest, Hosted, HostedError, Part, PutManifest, Reference, Referrers,
    RepositoryName, page,
};
pub use layer::{Unpacked, unpack};
pub use manifest::MAX_MANIFEST;
pub use platform::Platform;
pub use reference::Name;
pub use registry::{Credentials, Mirror, RegistryConfig};
pub use store::ImageStore;
