//! Blobs and manifests that are here: read, put and removed.

use std::io::SeekFrom;

use axum::body::{Body, BodyDataStream};
use axum::http::{HeaderName, Method, StatusCode, header};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use hangar_image::{Digest, HostedError, ImageError, MAX_MANIFEST, Reference};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use super::range::{Wanted, wanted};
use super::refusal::Refusal;
use super::{Answer, Asked, CONTENT_DIGEST, reply};

const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");
const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
/// Bytes of a blob that are read at a time.
const READ: usize = 256 * 1024;
/// Longest silence of a client that sends a manifest.
const STALL: std::time::Duration = std::time::Duration::from_secs(60);
/// Most tags that one manifest gets in one request.
const MAX_TAGS: usize = 100;

/// `GET`, `HEAD` and `DELETE` of a blob.
pub(super) async fn blob(asked: &Asked, digest: &Digest) -> Answer {
    match asked.method {
        Method::GET | Method::HEAD => {}
        Method::DELETE => {
            asked.registry.remove_blob(&asked.name, digest).await?;
            return Ok(reply(StatusCode::ACCEPTED, [], Body::empty()));
        }
        _ => return Err(Refusal::Method),
    }
    let found = asked.registry.blob(&asked.name, digest).await?;
    let range = asked.headers.get(header::RANGE);
    let range = range.and_then(|value| value.to_str().ok());
    let mut headers = vec![
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
        (header::ETAG, format!("\"{digest}\"")),
        (CONTENT_DIGEST, digest.to_string()),
    ];
    let (status, first, count) = match wanted(range, found.len) {
        Wanted::Nothing => return Err(Refusal::Range(found.len)),
        Wanted::All => (StatusCode::OK, 0, found.len),
        Wanted::Some(first, count) => {
            let last = first + count - 1;
            let text = format!("bytes {first}-{last}/{}", found.len);
            headers.push((header::CONTENT_RANGE, text));
            (StatusCode::PARTIAL_CONTENT, first, count)
        }
    };
    headers.push((header::CONTENT_LENGTH, count.to_string()));
    if asked.method == Method::HEAD {
        return Ok(reply(status, headers, Body::empty()));
    }
    let mut file = tokio::fs::File::from_std(found.file);
    file.set_max_buf_size(READ);
    if first > 0 {
        file.seek(SeekFrom::Start(first)).await.map_err(|error| {
            HostedError::Failed(ImageError::Unsupported(format!(
                "failed to read {digest}: {error}"
            )))
        })?;
    }
    let body = Body::from_stream(ReaderStream::with_capacity(file.take(count), READ));
    Ok(reply(status, headers, body))
}

/// `GET`, `HEAD`, `PUT` and `DELETE` of a manifest.
pub(super) async fn manifest(
    asked: &Asked,
    reference: &Reference,
    body: &mut BodyDataStream,
) -> Answer {
    match asked.method {
        Method::GET | Method::HEAD => {
            let found = asked.registry.manifest(&asked.name, reference).await?;
            let headers = [
                (header::CONTENT_TYPE, found.media_type),
                (header::CONTENT_LENGTH, found.bytes.len().to_string()),
                (header::ETAG, format!("\"{}\"", found.digest)),
                (CONTENT_DIGEST, found.digest.to_string()),
            ];
            let body = match asked.method {
                Method::HEAD => Body::empty(),
                _ => Body::from(found.bytes),
            };
            Ok(reply(StatusCode::OK, headers, body))
        }
        Method::PUT => put(asked, reference, body).await,
        Method::DELETE => {
            asked
                .registry
                .remove_manifest(&asked.name, reference)
                .await?;
            Ok(reply(StatusCode::ACCEPTED, [], Body::empty()))
        }
        _ => Err(Refusal::Method),
    }
}

async fn put(asked: &Asked, reference: &Reference, body: &mut BodyDataStream) -> Answer {
    let mut tags = Vec::new();
    if let Reference::Digest(_) = reference {
        for tag in asked.query.list("tag") {
            match tag.parse()? {
                Reference::Tag(tag) if tags.len() < MAX_TAGS => tags.push(tag),
                Reference::Tag(_) => {
                    return Err(Refusal::Invalid(format!("at most {MAX_TAGS} tags at once")));
                }
                Reference::Digest(_) => {
                    return Err(Refusal::Invalid(format!("{tag} is no tag")));
                }
            }
        }
    }
    let content_type = asked.headers.get(header::CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok());
    let content_type = content_type.unwrap_or_default();
    let bytes = whole(body).await?;
    let put = asked
        .registry
        .put_manifest(&asked.name, reference, tags.clone(), content_type, bytes)
        .await?;
    let mut headers = vec![
        (
            header::LOCATION,
            format!("/v2/{}/manifests/{}", asked.name, put.digest),
        ),
        (CONTENT_DIGEST, put.digest.to_string()),
    ];
    headers.extend(
        put.subject
            .map(|subject| (OCI_SUBJECT, subject.to_string())),
    );
    headers.extend(tags.into_iter().map(|tag| (OCI_TAG, tag)));
    Ok(reply(StatusCode::CREATED, headers, Body::empty()))
}

/// Reads a manifest, which is small.
async fn whole(body: &mut BodyDataStream) -> Result<Bytes, Refusal> {
    let mut bytes = BytesMut::new();
    loop {
        let next = tokio::time::timeout(STALL, body.next()).await;
        let next = next.map_err(|_| Refusal::Invalid(format!("nothing came for {STALL:?}")))?;
        let Some(chunk) = next else {
            return Ok(bytes.freeze());
        };
        let chunk = chunk.map_err(|error| {
            Refusal::Invalid(format!("the manifest ended before its end: {error}"))
        })?;
        bytes.extend_from_slice(&chunk);
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_MANIFEST {
            return Err(HostedError::TooLarge(MAX_MANIFEST).into());
        }
    }
}
