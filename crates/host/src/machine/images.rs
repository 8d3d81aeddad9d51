//! The seam between a Machine and the image store: what an actor needs to know of an image.
//!
//! Called by the actor before each launch and during an update. The node's image store is adapted
//! to it; fakes implement the trait themselves.

pub mod fake;

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use hangar_api::error::Failure;
use hangar_api::image::ImageRef;
use hangar_api::seam::BoxFuture;

/// An image that is ready to run: unpacked layers and what the image itself says.
#[derive(Clone, Debug, Default)]
pub struct PreparedImage {
    /// Unpacked layers, lowest first.
    pub layers: Vec<PathBuf>,
    /// ENTRYPOINT.
    pub entrypoint: Vec<String>,
    /// CMD.
    pub cmd: Vec<String>,
    /// ENV.
    pub env: BTreeMap<String, String>,
    /// USER, or "".
    pub user: String,
    /// WORKDIR, or "".
    pub workdir: String,
    /// Held as long as the Machine may be started from it, so that its layers stay.
    pub guard: Option<Guard>,
}

/// Keeps an image from being removed while it lives.
#[derive(Clone)]
pub struct Guard(pub Arc<dyn Any + Send + Sync>);

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guard")
    }
}

/// Prepares images.
///
/// An implementer promises: asking again for an image that is ready is quick and does no network
/// I/O; a half-prepared image is never given out; dropping the future is safe.
pub trait Images: Send + Sync + fmt::Debug {
    /// Makes sure that an image is on this host and unpacked. The reference carries a digest.
    fn ensure(&self, image: &ImageRef) -> BoxFuture<'_, Result<PreparedImage, Failure>>;
}

/// Returns a reference as people write it: `registry/repository:tag@digest`, without what is not
/// known.
#[must_use]
pub fn reference(image: &ImageRef) -> String {
    let mut text = String::new();
    if !image.registry.is_empty() {
        text.push_str(&image.registry);
        text.push('/');
    }
    text.push_str(&image.repository);
    for (mark, part) in [(':', &image.tag), ('@', &image.digest)] {
        if !part.is_empty() {
            text.push(mark);
            text.push_str(part);
        }
    }
    text
}
