//! Answers that are compressed on their way to a client that takes it: `http_options.compress`
//! (proxy-network-runtime.md 3.7).
//!
//! Only answers that the app left as they are, of a kind that shrinks. What the app has sent so
//! far is never kept back: whenever it pauses, the client gets all of it. `Content-Encoding: none`
//! says that an answer shall stay as it is, and is taken off.

use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, VARY,
};
use hyper::{Method, Response, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::body::{Flight, land};
use super::stall;
use crate::policy::Answers;

/// Smaller answers are not worth it.
const WORTH_IT: u64 = 256;
/// A quick level: the proxy compresses anew for each client.
const LEVEL: Compression = Compression::new(4);
/// So much is gathered before it is sent, while the app goes on.
const GATHERED: usize = 16 * 1024;

/// A coding, the preferred one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    Deflate,
}

/// The right to compress an answer, and what does it.
#[derive(Debug)]
pub(super) struct Compressor {
    encoder: Encoder,
    /// A place among all that are at work, which bounds their memory.
    _place: OwnedSemaphorePermit,
}

#[derive(Debug)]
enum Encoder {
    Gzip(GzEncoder<Vec<u8>>),
    Deflate(ZlibEncoder<Vec<u8>>),
}

/// The body of an answer that is being compressed.
#[derive(Debug)]
pub(crate) struct Compressed {
    incoming: Incoming,
    flight: Option<Flight>,
    /// `None` once all has been put in.
    compressor: Option<Compressor>,
    /// Something was put in that has not come out.
    held_back: bool,
    ready: Bytes,
    trailers: Option<HeaderMap>,
}

/// Returns the coding for a client, or `None` where its answer stays as it is.
pub(super) fn wanted(answers: &Answers, method: &Method, headers: &HeaderMap) -> Option<Coding> {
    if !answers.compress || method == Method::HEAD {
        return None;
    }
    [Coding::Gzip, Coding::Deflate]
        .into_iter()
        .find(|coding| takes(headers, coding.name()))
}

/// Returns whether a client takes a coding (RFC 9110, 12.5.3): its own weight counts, else that
/// of `*`.
fn takes(headers: &HeaderMap, coding: &str) -> bool {
    let fields = headers.get_all(ACCEPT_ENCODING).iter();
    let items = fields
        .filter_map(|field| field.to_str().ok())
        .flat_map(|field| field.split(','));
    let mut any = false;
    for item in items {
        let mut parts = item.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let weight = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
        let taken = weight.is_none_or(|weight| weight.trim().parse::<f32>().is_ok_and(|q| q > 0.0));
        if name.eq_ignore_ascii_case(coding) {
            return taken;
        }
        any |= name == "*" && taken;
    }
    any
}

/// Returns what compresses an answer, after saying so in its head; `None` where it stays as it is.
pub(super) fn prepare(
    answers: &Answers,
    wanted: Option<Coding>,
    response: &mut Response<Incoming>,
    places: &Arc<Semaphore>,
) -> Option<Compressor> {
    let is_empty = response.body().is_end_stream();
    let status = response.status();
    let headers = response.headers_mut();
    let none = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"none");
    if headers.get(CONTENT_ENCODING).is_some_and(none) {
        headers.remove(CONTENT_ENCODING);
        return None;
    }
    if !answers.compress || is_empty || !suits(status, headers) {
        return None;
    }
    // Others may get another form of it, whatever this one gets.
    headers.append(VARY, HeaderValue::from_static("accept-encoding"));
    let coding = wanted?;
    let place = places.clone().try_acquire_owned().ok()?;
    mark(headers, coding);
    Some(Compressor {
        encoder: Encoder::new(coding),
        _place: place,
    })
}

/// Returns whether an answer may be compressed, and is worth it.
fn suits(status: StatusCode, headers: &HeaderMap) -> bool {
    let untouchable = matches!(
        status,
        StatusCode::NO_CONTENT | StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED
    );
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let fixed = text(CACHE_CONTROL).is_some_and(|value| {
        let mut words = value.split(',').map(str::trim);
        words.any(|word| word.eq_ignore_ascii_case("no-transform"))
    });
    let length = text(CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    !untouchable
        && !fixed
        && !headers.contains_key(CONTENT_ENCODING)
        && !headers.contains_key(CONTENT_RANGE)
        && length.is_none_or(|length| length >= WORTH_IT)
        && text(CONTENT_TYPE).is_some_and(shrinks)
}

/// Returns whether content of a type is of the kind that gets smaller.
fn shrinks(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    let kind = kind.to_ascii_lowercase();
    kind.starts_with("text/")
        || kind.ends_with("+json")
        || kind.ends_with("+xml")
        || matches!(
            kind.as_str(),
            "application/json"
                | "application/javascript"
                | "application/x-javascript"
                | "application/xml"
                | "application/yaml"
                | "application/x-ndjson"
                | "application/graphql"
                | "application/wasm"
                | "application/vnd.ms-fontobject"
                | "font/ttf"
                | "font/otf"
                | "image/bmp"
                | "image/x-icon"
        )
}

/// Says in the head what becomes of the body.
fn mark(headers: &mut HeaderMap, coding: Coding) {
    headers.remove(CONTENT_LENGTH);
    headers.remove(ACCEPT_RANGES);
    let name = HeaderValue::from_static(coding.name());
    headers.insert(CONTENT_ENCODING, name);
    // The bytes are others now: only a weak tag holds for both forms.
    if let Some(tag) = headers.get_mut(ETAG)
        && !tag.as_bytes().starts_with(b"W/")
        && let Ok(weak) = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat())
    {
        *tag = weak;
    }
}

// === impl Coding ===

impl Coding {
    const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }
}

// === impl Encoder ===

impl Encoder {
    fn new(coding: Coding) -> Self {
        match coding {
            Coding::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), LEVEL)),
            Coding::Deflate => Self::Deflate(ZlibEncoder::new(Vec::new(), LEVEL)),
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        let put = match self {
            Self::Gzip(encoder) => encoder.write_all(bytes),
            Self::Deflate(encoder) => encoder.write_all(bytes),
        };
        put.expect("a vector takes what is written");
    }

    /// Brings out what was put in so far.
    fn flush(&mut self) {
        let flushed = match self {
            Self::Gzip(encoder) => encoder.flush(),
            Self::Deflate(encoder) => encoder.flush(),
        };
        flushed.expect("a vector takes what is written");
    }

    fn take(&mut self) -> Bytes {
        std::mem::take(self.out()).into()
    }

    fn out(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Gzip(encoder) => encoder.get_mut(),
            Self::Deflate(encoder) => encoder.get_mut(),
        }
    }

    fn finish(self) -> Bytes {
        let out = match self {
            Self::Gzip(encoder) => encoder.finish(),
            Self::Deflate(encoder) => encoder.finish(),
        };
        out.expect("a vector takes what is written").into()
    }
}

// === impl Compressed ===

impl Compressed {
    pub(super) fn new(incoming: Incoming, flight: Flight, compressor: Compressor) -> Self {
        Self {
            incoming,
            flight: Some(flight),
            compressor: Some(compressor),
            held_back: false,
            ready: Bytes::new(),
            trailers: None,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.compressor.is_none() && self.ready.is_empty() && self.trailers.is_none()
    }

    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        stall::asks();
        loop {
            if !self.ready.is_empty() {
                let next = Frame::data(std::mem::take(&mut self.ready));
                return Poll::Ready(Some(Ok(stall::hand(next, &mut self.ready))));
            }
            let Some(compressor) = &mut self.compressor else {
                let trailers = self.trailers.take().map(Frame::trailers);
                return Poll::Ready(trailers.map(Ok));
            };
            let frame = Pin::new(&mut self.incoming).poll_frame(cx);
            if frame.is_pending() && self.held_back {
                compressor.encoder.flush();
                self.ready = compressor.encoder.take();
                self.held_back = false;
                continue;
            }
            match ready!(frame) {
                None => self.finish(),
                Some(Err(error)) => {
                    self.compressor = None;
                    self.flight = None;
                    return Poll::Ready(Some(Err(error)));
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        compressor.encoder.put(&data);
                        self.held_back = true;
                        if compressor.encoder.out().len() >= GATHERED {
                            self.ready = compressor.encoder.take();
                        }
                    }
                    Err(trailers) => {
                        self.trailers = trailers.into_trailers().ok();
                        self.finish();
                    }
                },
            }
        }
    }

    /// All of the answer is here: brings out the rest, and lets the Machine go.
    fn finish(&mut self) {
        if let Some(compressor) = self.compressor.take() {
            self.ready = compressor.encoder.finish();
        }
        land(&mut self.flight);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn coding(accept: &str) -> Option<Coding> {
        let answers = Answers {
            compress: true,
            ..Answers::default()
        };
        let accept = HeaderValue::from_str(accept).unwrap();
        let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, accept)]);
        wanted(&answers, &Method::GET, &headers)
    }

    #[test]
    fn a_client_gets_what_it_takes() {
        assert_eq!(coding("br, gzip"), Some(Coding::Gzip));
        assert_eq!(coding("deflate, GZIP;q=0.1"), Some(Coding::Gzip));
        assert_eq!(coding("gzip;q=0, deflate"), Some(Coding::Deflate));
        assert_eq!(coding("gzip; q=0.000, *"), Some(Coding::Deflate));
        assert_eq!(coding("*"), Some(Coding::Gzip));
        assert_eq!(coding("*;q=0"), None);
        assert_eq!(coding("br, zstd, identity"), None);
        assert_eq!(coding("gzip;q=x"), None);
        assert_eq!(coding(""), None);
    }

    fn head(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let lines = lines.iter().map(|(name, value)| {
            let name = hyper::header::HeaderName::from_static(name);
            (name, HeaderValue::from_static(value))
        });
        lines.collect()
    }

    #[test]
    fn only_what_shrinks_and_may_be_changed_is_compressed() {
        let html = ("content-type", "text/html; charset=utf-8");
        let fits = |lines: &[_]| suits(StatusCode::OK, &head(lines));
        assert!(fits(&[html]));
        assert!(fits(&[("content-type", "application/vnd.api+json")]));
        assert!(fits(&[html, ("content-length", "256")]));
        assert!(!fits(&[html, ("content-length", "255")]));
        assert!(!fits(&[("content-type", "image/png")]));
        assert!(!fits(&[]));
        assert!(!fits(&[html, ("content-encoding", "br")]));
        assert!(!fits(&[html, ("cache-control", "public, No-Transform")]));
        assert!(!suits(StatusCode::PARTIAL_CONTENT, &head(&[html])));
        assert!(!suits(StatusCode::NOT_MODIFIED, &head(&[html])));
    }

    #[test]
    fn a_strong_tag_becomes_a_weak_one() {
        let mut headers = head(&[("etag", "\"a\""), ("content-length", "9")]);
        mark(&mut headers, Coding::Gzip);
        assert_eq!(headers["etag"], "W/\"a\"");
        assert_eq!(headers["content-encoding"], "gzip");
        assert!(!headers.contains_key("content-length"));
        mark(&mut headers, Coding::Deflate);
        assert_eq!(headers["etag"], "W/\"a\"");
    }

    fn unpack(coding: Coding, packed: &[u8]) -> std::io::Result<Vec<u8>> {
        use std::io::Read;
        let mut plain = Vec::new();
        match coding {
            Coding::Gzip => flate2::read::GzDecoder::new(packed).read_to_end(&mut plain)?,
            Coding::Deflate => flate2::read::ZlibDecoder::new(packed).read_to_end(&mut plain)?,
        };
        Ok(plain)
    }

    proptest! {
        #[test]
        fn what_comes_out_is_what_was_put_in(
            pieces in prop::collection::vec((prop::collection::vec(0u8..8, 0..2000), any::<bool>()), 0..20),
            deflate in any::<bool>(),
        ) {
            let coding = if deflate { Coding::Deflate } else { Coding::Gzip };
            let mut encoder = Encoder::new(coding);
            let (mut packed, mut plain) = (Vec::new(), Vec::new());
            for (piece, flush) in pieces {
                encoder.put(&piece);
                plain.extend(piece);
                if flush {
                    encoder.flush();
                    packed.extend(encoder.take());
                }
            }
            packed.extend(encoder.finish());
            prop_assert_eq!(unpack(coding, &packed).unwrap(), plain);
        }

        #[test]
        fn any_wish_of_a_client_is_read(accept in "[ -~]{0,60}") {
            let _read = coding(&accept);
        }
    }
}
