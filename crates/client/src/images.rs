//! Images on the server.

use std::path::Path;

use futures_util::StreamExt;
use hangar_api::image::{ImageInfo, ImageRef, Pruned};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::io::AsyncReadExt;

use crate::transport::with_query;
use crate::{Client, ClientError};

/// Bytes sent at a time.
const CHUNK: usize = 256 << 10;

impl Client {
    /// Returns the images that are ready.
    pub async fn images(&self) -> Result<Vec<ImageInfo>, ClientError> {
        self.get("/v1/images").await
    }

    /// Sends an archive, which the server imports under a name.
    pub async fn import_image(&self, archive: &Path, name: &str) -> Result<ImageRef, ClientError> {
        let file = tokio::fs::File::open(archive)
            .await
            .map_err(|source| ClientError::File {
                path: archive.to_owned(),
                source,
            })?;
        let chunks = futures_util::stream::try_unfold(file, |mut file| async move {
            let mut buffer = vec![0; CHUNK];
            let length = file.read(&mut buffer).await?;
            buffer.truncate(length);
            Ok::<_, std::io::Error>((length > 0).then_some((buffer, file)))
        });
        let frames = chunks.map(|chunk| chunk.map(|bytes| Frame::data(bytes.into())));
        let body = BodyExt::boxed_unsync(StreamBody::new(frames));
        self.upload(
            &with_query("/v1/images", &[("name", Some(name.to_owned()))]),
            body,
        )
        .await
    }

    /// Returns what a name stands for: an imported image, else the registry's.
    pub async fn resolve_image(&self, name: &str) -> Result<ImageRef, ClientError> {
        self.get(&with_query(
            "/v1/images/resolve",
            &[("name", Some(name.to_owned()))],
        ))
        .await
    }

    /// Removes images that nobody needs.
    pub async fn prune_images(&self) -> Result<Pruned, ClientError> {
        self.post("/v1/images/prune", &()).await
    }
}
