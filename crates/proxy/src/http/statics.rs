//! `[[statics]]`: requests that a file of the Machine answers, without its app.
//!
//! The Machine is chosen and counted as for any request, and started where that is needed; what
//! is no file there is the app's to answer.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hangar_api::machine::Static;
use http_body::Frame;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH};
use hyper::{Method, Request, Response, StatusCode};
use tokio::io::{AsyncRead, ReadBuf};

use super::body::{RequestBody, ResponseBody};
use super::stall;
use crate::acquire::Chosen;
use crate::core::Core;
use crate::load::Claim;

/// Bytes read at a time.
const BLOCK: usize = 64 * 1024;

/// The content of a file on its way to a client.
#[derive(Debug)]
pub(crate) struct FileBody {
    file: tokio::fs::File,
    /// Bytes that are still to be read.
    left: u64,
    block: Vec<u8>,
    rest: Bytes,
    _claim: Claim,
}

/// Returns the file that a path stands for: below the folder with the longest prefix of it.
/// `None` for anything that is no plain path of a file.
pub(super) fn find(statics: &[Static], path: &str) -> Option<PathBuf> {
    let matching = statics.iter().filter_map(|one| {
        let rest = path.strip_prefix(one.prefix())?;
        Some((one, rest.strip_prefix('/')?))
    });
    let (one, rest) = matching.max_by_key(|(one, _)| one.prefix().len())?;
    let mut file = PathBuf::from(&one.guest_path);
    for name in rest.split('/') {
        let name = decoded(name)?;
        if matches!(name.as_str(), "" | "." | "..") || name.contains(['/', '\0']) {
            return None;
        }
        file.push(name);
    }
    Some(file)
}

/// Undoes percent encoding; `None` for what is not text then.
fn decoded(text: &str) -> Option<String> {
    let (mut bytes, mut out) = (text.bytes(), Vec::with_capacity(text.len()));
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        out.push(u8::try_from(high << 4 | low).ok()?);
    }
    String::from_utf8(out).ok()
}

/// Returns the answer that a file of the chosen Machine gives, or gives the Machine back where
/// there is no such file.
pub(super) async fn answer(
    core: &Core,
    chosen: Chosen,
    request: &Request<RequestBody>,
) -> Result<Response<ResponseBody>, Chosen> {
    if chosen.statics.is_empty() || !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(chosen);
    }
    let Some(path) = find(&chosen.statics, request.uri().path()) else {
        return Err(chosen);
    };
    let kind = content_type(&path);
    let machine = chosen.claim.load().machine.clone();
    let file = match core.shared.files.open(machine, path).await {
        Ok(Some(file)) => file,
        Ok(None) => return Err(chosen),
        Err(error) => {
            let machine = &chosen.claim.load().machine;
            tracing::debug!(%machine, %error, "file not opened, the app is asked");
            return Err(chosen);
        }
    };
    let Ok(about) = file.metadata() else {
        return Err(chosen);
    };
    Ok(respond(file, &about, kind, chosen.claim, request.headers()))
}

fn respond(
    file: std::fs::File,
    about: &Metadata,
    kind: &'static str,
    claim: Claim,
    asked: &HeaderMap,
) -> Response<ResponseBody> {
    let changed = format!("{:x}{:08x}", about.mtime(), about.mtime_nsec());
    let tag = format!("\"{:x}-{changed}\"", about.len());
    let known = asked.get_all(IF_NONE_MATCH).iter().any(|field| {
        let field = field.to_str().unwrap_or_default();
        let mut tags = field.split(',').map(str::trim);
        tags.any(|known| known == "*" || known.trim_start_matches("W/") == tag)
    });
    let body = if known {
        ResponseBody::Words(None)
    } else {
        ResponseBody::File(Box::new(FileBody {
            file: tokio::fs::File::from_std(file),
            left: about.len(),
            block: Vec::new(),
            rest: Bytes::new(),
            _claim: claim,
        }))
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    if let Ok(tag) = HeaderValue::try_from(tag) {
        headers.insert(ETAG, tag);
    }
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return response;
    }
    headers.insert(CONTENT_LENGTH, about.len().into());
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// Returns the type of a file's content, by the end of its name.
fn content_type(path: &std::path::Path) -> &'static str {
    let end = path.extension().and_then(|end| end.to_str());
    match end.unwrap_or_default().to_ascii_lowercase().as_str() {
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" | "map" => "application/json",
        "txt" | "md" => "text/plain; charset=utf-8",
        "csv" => "text/csv; charset=utf-8",
        "xml" => "application/xml",
        "pdf" => "application/pdf",
        "wasm" => "application/wasm",
        "webmanifest" => "application/manifest+json",
        "zip" => "application/zip",
        "gz" => "application/gzip",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "avif" => "image/avif",
        "ico" => "image/x-icon",
        "mp3" => "audio/mpeg",
        "mp4" => "video/mp4",
        "webm" => "video/webm",
        "woff" => "font/woff",
        "woff2" => "font/woff2",
        "ttf" => "font/ttf",
        "otf" => "font/otf",
        _ => "application/octet-stream",
    }
}

// === impl FileBody ===

impl FileBody {
    pub(super) fn left(&self) -> u64 {
        let rest = u64::try_from(self.rest.len()).unwrap_or(u64::MAX);
        self.left.saturating_add(rest)
    }

    /// Returns the next part. A file that ends before its length was reached ends the answer,
    /// which the client sees by that length.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        stall::asks();
        if self.rest.is_empty() && self.left > 0 {
            let most = usize::try_from(self.left).unwrap_or(BLOCK).min(BLOCK);
            self.block.resize(most, 0);
            let mut buffer = ReadBuf::new(&mut self.block);
            let read = ready!(Pin::new(&mut self.file).poll_read(cx, &mut buffer));
            let count = buffer.filled().len();
            if read.is_err() || count == 0 {
                return Poll::Ready(None);
            }
            self.left -= u64::try_from(count).unwrap_or(self.left);
            self.rest = Bytes::copy_from_slice(&self.block[..count]);
        }
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let next = Frame::data(std::mem::take(&mut self.rest));
        Poll::Ready(Some(stall::hand(next, &mut self.rest)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn statics() -> Vec<Static> {
        let one = |prefix: &str, folder: &str| Static {
            url_prefix: prefix.to_owned(),
            guest_path: folder.to_owned(),
            ..Static::default()
        };
        vec![one("/public", "/app/www"), one("/public/img/", "/img")]
    }

    fn found(path: &str) -> Option<String> {
        let file = find(&statics(), path)?;
        Some(file.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_path_below_a_prefix_is_a_file_below_its_folder() {
        assert_eq!(found("/public/a.css").as_deref(), Some("/app/www/a.css"));
        assert_eq!(found("/public/a%20b/c").as_deref(), Some("/app/www/a b/c"));
        assert_eq!(found("/public/img/x.png").as_deref(), Some("/img/x.png"));
        for path in [
            "/",
            "/public",
            "/public/",
            "/publicity",
            "/public/../x",
            "/public/%2e%2e/x",
            "/public/a//b",
            "/public/a%2Fb",
            "/public/a%00",
            "/public/%ff",
            "/public/%zz",
            "/public/%2",
            "/public/./a",
            "/public/img/",
        ] {
            assert_eq!(found(path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_path_leads_out_of_its_folder(path in "/public/[ -~]{0,40}") {
            if let Some(file) = find(&statics(), &path) {
                prop_assert!(file.starts_with("/app/www") || file.starts_with("/img"));
                let plain = |c| matches!(c, std::path::Component::RootDir | std::path::Component::Normal(_));
                prop_assert!(file.components().all(plain), "{file:?}");
            }
        }
    }
}
