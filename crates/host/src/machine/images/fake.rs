//! Images without a store: each repository has what it was given, after the time it was given.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hangar_api::error::{ErrorKind, Failure};
use hangar_api::image::ImageRef;
use hangar_api::seam::BoxFuture;

use super::{Images, PreparedImage, reference};

/// A fake image store. Clones share what it holds.
#[derive(Clone, Debug, Default)]
pub struct FakeImages(Arc<Mutex<BTreeMap<String, (Duration, PreparedImage)>>>);

// === impl FakeImages ===

impl FakeImages {
    /// Puts an image under a repository's name; preparing it takes this long, every time.
    pub fn put(&self, repository: &str, takes: Duration, image: PreparedImage) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(repository.to_owned(), (takes, image));
    }
}

impl Images for FakeImages {
    fn ensure(&self, image: &ImageRef) -> BoxFuture<'_, Result<PreparedImage, Failure>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = all.get(&image.repository).cloned();
        let name = reference(image);
        Box::pin(async move {
            let (takes, image) = found.ok_or_else(|| {
                Failure::new(ErrorKind::NotFound, format!("image {name} not found"))
            })?;
            tokio::time::sleep(takes).await;
            Ok(image)
        })
    }
}
