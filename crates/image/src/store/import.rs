//! Imports: from a file or directory to a ready image with a name of its own.

use std::path::PathBuf;
use std::sync::Arc;

use hangar_api::image::ImageRef;

use super::layers::Source;
use super::{Described, Inner};
use crate::archive::Archive;
use crate::error::ImageError;
use crate::manifest::{Document, Manifest};
use crate::pins::Kind;
use crate::reference::Name;

impl Inner {
    pub(super) async fn import(
        self: Arc<Self>,
        path: PathBuf,
        name: Name,
    ) -> Result<ImageRef, ImageError> {
        if name.digest.is_some() {
            return Err(ImageError::Name {
                name: name.to_string(),
                reason: "an import cannot choose its digest; give a name and a tag".to_owned(),
            });
        }
        let key = name.import_key.clone();
        let (archive, found, layers) = self
            .blocking(move |inner| {
                let scratch = inner.disk.scratch();
                let archive = Archive::open(&path, scratch)?;
                let image = archive.image(&key, &inner.machine)?;
                let config = inner.config(&image.config, &key)?;
                let Document::Image(manifest) = Document::parse(&image.manifest, &key)? else {
                    return Err(ImageError::broken(
                        format!("image {key}"),
                        "its manifest is an index",
                    ));
                };
                let found = inner.keep(&image.manifest, &image.config, manifest, config)?;
                Ok((Arc::new(archive), found, image.layers))
            })
            .await?;
        let digest = found.digest.clone();
        let sources = layers
            .into_iter()
            .map(|layer| Source::Archive {
                archive: Arc::clone(&archive),
                layer,
            })
            .collect();
        let ready = self.finish(found, sources, &name.import_key).await?;
        {
            let mut state = self.lock();
            let now = self.env.now();
            state.names.import(&name.import_key, &digest, now);
            state.names.saw(&ready.digest, &name.import_key, now);
        }
        self.blocking(|inner| inner.save_names()).await?;
        let mut image = name.imported_ref(&digest);
        image.labels = ready.config.labels;
        Ok(image)
    }

    fn keep(
        &self,
        manifest_bytes: &[u8],
        config_bytes: &[u8],
        manifest: Manifest,
        config: crate::config::ConfigBlob,
    ) -> Result<Described, ImageError> {
        let digest = crate::digest::Digest::of(manifest_bytes);
        let pins = vec![
            self.pins.pin(Kind::Blob, &digest),
            self.pins.pin(Kind::Blob, &manifest.config.digest),
        ];
        self.disk.put_blob(config_bytes)?;
        self.disk.put_blob(manifest_bytes)?;
        Ok(Described {
            digest,
            manifest,
            config,
            pins,
        })
    }
}
