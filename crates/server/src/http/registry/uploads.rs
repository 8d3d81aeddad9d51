//! Blobs on their way in: `blobs/uploads/`.

use axum::body::{Body, BodyDataStream};
use axum::http::{HeaderName, Method, StatusCode, header};
use axum::response::Response;
use hangar_image::{Digest, HostedError, Part, RepositoryName};

use super::refusal::Refusal;
use super::{Answer, Asked, CONTENT_DIGEST, range, reply, route};

const UPLOAD_ID: HeaderName = HeaderName::from_static("docker-upload-uuid");
const CHUNK_MIN: HeaderName = HeaderName::from_static("oci-chunk-min-length");
/// What chunks are best not smaller than: each is synced to the disk. Smaller ones are taken.
const CHUNK: u64 = 64 * 1024;

/// `POST`: mounts a blob of another repository, takes a whole one, or begins an upload.
pub(super) async fn begin(
    asked: &Asked,
    from: Option<RepositoryName>,
    body: &mut BodyDataStream,
) -> Answer {
    if asked.method != Method::POST {
        return Err(Refusal::Method);
    }
    if let Some(algorithm) = asked.query.get("digest-algorithm")
        && algorithm != "sha256"
    {
        let reason = format!("{algorithm:?} is not computed here; use sha256");
        return Err(HostedError::DigestInvalid(reason).into());
    }
    let (registry, name) = (&asked.registry, &asked.name);
    if let Some(Ok(digest)) = asked.query.get("mount").map(str::parse) {
        let is_named = asked.query.get("from").is_some();
        // A source that may not be read is as good as none that has the blob.
        if (from.is_some() || !is_named) && registry.mount(name, &digest, from.as_ref()).await? {
            return Ok(created(name, &digest));
        }
    }
    let whole = asked.query.get("digest").map(route::digest).transpose()?;
    let part = part(asked)?;
    let id = registry.begin(name).await?;
    let Some(digest) = whole else {
        let chunk = [(CHUNK_MIN, CHUNK.to_string())];
        return Ok(open(StatusCode::ACCEPTED, asked, &id, 0, chunk));
    };
    match registry.finish(name, &id, &digest, part, body).await {
        Ok(()) => Ok(created(name, &digest)),
        Err(error) => {
            // Its id was told to nobody.
            if let Err(error) = registry.cancel(name, &id).await {
                tracing::debug!(%error, "an upload in one piece is left to expire");
            }
            Err(error.into())
        }
    }
}

/// `GET`, `PATCH`, `PUT` and `DELETE` of one upload.
pub(super) async fn go_on(asked: &Asked, id: &str, body: &mut BodyDataStream) -> Answer {
    let (registry, name) = (&asked.registry, &asked.name);
    match asked.method {
        Method::GET | Method::HEAD => {
            let len = registry.uploaded(name, id).await?;
            Ok(open(StatusCode::NO_CONTENT, asked, id, len, []))
        }
        Method::PATCH => match registry.append(name, id, part(asked)?, body).await {
            Ok(len) => Ok(open(StatusCode::ACCEPTED, asked, id, len, [])),
            Err(error) => out_of_order(asked, id, error),
        },
        Method::PUT => {
            let digest = asked.query.get("digest").unwrap_or_default();
            let digest = route::digest(digest)?;
            let finished = registry.finish(name, id, &digest, part(asked)?, body).await;
            match finished {
                Ok(()) => Ok(created(name, &digest)),
                Err(error) => out_of_order(asked, id, error),
            }
        }
        Method::DELETE => {
            registry.cancel(name, id).await?;
            Ok(reply(StatusCode::NO_CONTENT, [], Body::empty()))
        }
        _ => Err(Refusal::Method),
    }
}

/// Tells a client that is out of step where to go on.
fn out_of_order(asked: &Asked, id: &str, error: HostedError) -> Answer {
    match error {
        HostedError::OutOfOrder { have } => {
            Ok(open(StatusCode::RANGE_NOT_SATISFIABLE, asked, id, have, []))
        }
        other => Err(other.into()),
    }
}

fn part(asked: &Asked) -> Result<Part, HostedError> {
    let text = |name| {
        asked
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    range::part(text(header::CONTENT_RANGE), text(header::CONTENT_LENGTH))
}

/// Returns the answer about an upload that goes on, with so many bytes here.
fn open<const N: usize>(
    status: StatusCode,
    asked: &Asked,
    id: &str,
    len: u64,
    more: [(HeaderName, String); N],
) -> Response {
    let headers = [
        (
            header::LOCATION,
            format!("/v2/{}/blobs/uploads/{id}", asked.name),
        ),
        // Of nothing there is no last byte; every registry says it like this.
        (header::RANGE, format!("0-{}", len.saturating_sub(1))),
        (UPLOAD_ID, id.to_owned()),
    ];
    reply(status, headers.into_iter().chain(more), Body::empty())
}

fn created(name: &RepositoryName, digest: &Digest) -> Response {
    let headers = [
        (header::LOCATION, format!("/v2/{name}/blobs/{digest}")),
        (CONTENT_DIGEST, digest.to_string()),
    ];
    reply(StatusCode::CREATED, headers, Body::empty())
}
