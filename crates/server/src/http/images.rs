//! `/v1/images`: what is ready, bringing more, and letting go of the rest.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, BodyDataStream};
use axum::extract::State;
use axum::http::StatusCode;
use futures_util::StreamExt as _;
use hangar_api::image::{ImageInfo, ImageRef, Pruned};
use hangar_api::rights::Action;
use tokio::io::AsyncWriteExt as _;

use super::extract::{Asker, Params};
use crate::auth::caller;
use crate::core::Core;
use crate::error::Problem;
use crate::images;

/// Most bytes of an uploaded archive.
const MAX_UPLOAD: u64 = 32 * 1024 * 1024 * 1024;
/// How long the rest of an upload is taken that has failed already.
const DRAIN_TIME: Duration = Duration::from_secs(30);

/// Lists the images that the caller may read: all, or the ones of apps.
pub(super) async fn list(
    State(core): State<Arc<Core>>,
    Asker(caller): Asker,
) -> Result<Json<Vec<ImageInfo>>, Problem> {
    let mut images = core.images.list().await?;
    let snapshot = core.cache.snapshot();
    let all = caller.may(&caller::platform(Action::READ));
    images.retain(|image| {
        let app = images::owner(&snapshot, &image.name);
        all || app.is_some_and(|app| caller.may(&images::access(&snapshot, app, Action::READ)))
    });
    let needed = images::needed(&snapshot);
    for image in &mut images {
        image.in_use = needed.contains(&image.digest);
    }
    Ok(Json(images))
}

pub(super) async fn resolve(
    State(core): State<Arc<Core>>,
    Asker(caller): Asker,
    params: Params,
) -> Result<Json<ImageRef>, Problem> {
    let name = name_of(&params)?;
    images::require(&core, &caller, [name.as_str()])?;
    Ok(Json(images::resolve_as(&core, &caller, name).await?))
}

pub(super) async fn prune(State(core): State<Arc<Core>>) -> Result<Json<Pruned>, Problem> {
    images::prune(&core).await.map(Json)
}

pub(super) async fn import(
    State(core): State<Arc<Core>>,
    Asker(caller): Asker,
    params: Params,
    body: Body,
) -> Result<(StatusCode, Json<ImageRef>), Problem> {
    let mut chunks = body.into_data_stream();
    let dir = core.data_dir.join("tmp");
    let path = dir.join(format!("upload-{}", core.env.ulid()));
    let upload = Upload(path.clone());
    let named = name_of(&params).and_then(|name| {
        images::require_import(&core, &caller, &name)?;
        Ok(name)
    });
    let received = match named {
        Ok(name) => receive(&dir, &path, &mut chunks).await.map(|()| name),
        Err(problem) => Err(problem),
    };
    if received.is_err() {
        drain(chunks).await;
    }
    let name = received?;
    let image = core.images.import(path, name).await?;
    drop(upload);
    Ok((StatusCode::CREATED, Json(image)))
}

fn name_of(params: &Params) -> Result<String, Problem> {
    let name = params.get("name").map(str::to_owned);
    name.ok_or_else(|| {
        Problem::Invalid("invalid_argument: the image needs a name, NAME or NAME:TAG".to_owned())
    })
}

/// A file that goes with the request, however that ends.
struct Upload(std::path::PathBuf);

impl Drop for Upload {
    fn drop(&mut self) {
        // It may never have been made; what is left behind is removed at the next start.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Takes what is still being sent: a client that writes on would see a broken connection in place
/// of the reason.
pub(super) async fn drain(mut chunks: BodyDataStream) {
    let rest = async {
        let mut length = 0_u64;
        while let Some(Ok(chunk)) = chunks.next().await {
            length += u64::try_from(chunk.len()).unwrap_or(u64::MAX);
            if length > MAX_UPLOAD {
                return;
            }
        }
    };
    // Who sends for longer than that learns the reason from the log.
    let _late = tokio::time::timeout(DRAIN_TIME, rest).await;
}

async fn receive(dir: &Path, path: &Path, chunks: &mut BodyDataStream) -> Result<(), Problem> {
    let failed = |error: std::io::Error| {
        let full = error.kind() == std::io::ErrorKind::StorageFull;
        let hint = if full {
            "; free disk space, then try again"
        } else {
            ""
        };
        Problem::Internal(format!(
            "store the upload at {}: {error}{hint}",
            path.display()
        ))
    };
    tokio::fs::create_dir_all(dir).await.map_err(failed)?;
    let mut file = tokio::fs::File::create(path).await.map_err(failed)?;
    let mut length = 0_u64;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| {
            Problem::Invalid(format!("the upload ended before its end: {error}"))
        })?;
        length += u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        if length > MAX_UPLOAD {
            return Err(Problem::Exhausted(format!(
                "the upload is longer than {MAX_UPLOAD} bytes"
            )));
        }
        file.write_all(&chunk).await.map_err(failed)?;
    }
    file.flush().await.map_err(failed)
}
