//! Answers of the proxy's own: short, in words, with the code that the logs have.

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};
use hyper::{Response, StatusCode};

use super::body::ResponseBody;
use crate::acquire::Refusal;

/// Seconds after which a client may try again.
const RETRY_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// Returns the answer to a request that went nowhere.
pub(crate) fn refusal(refusal: &Refusal) -> Response<ResponseBody> {
    let mut answer = words(
        refusal.status,
        &format!("[{}] {}", refusal.code, refusal.text),
    );
    if refusal.retry {
        answer.headers_mut().insert(RETRY_AFTER, RETRY_SECONDS);
    }
    answer
}

/// Returns a status with a sentence.
pub(crate) fn words(status: StatusCode, text: &str) -> Response<ResponseBody> {
    let body = Bytes::from(format!("{status}\n\n{text}\n"));
    let mut answer = Response::new(ResponseBody::Words(Some(body)));
    *answer.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

/// Returns a redirect to the https URL.
pub(crate) fn redirect(host: &str, port: u16, path: &str) -> Response<ResponseBody> {
    let url = if port == 443 {
        format!("https://{host}{path}")
    } else {
        format!("https://{host}:{port}{path}")
    };
    let Ok(location) = HeaderValue::from_str(&url) else {
        return words(
            StatusCode::BAD_REQUEST,
            "the host name cannot be redirected to",
        );
    };
    let mut answer = Response::new(ResponseBody::Words(None));
    *answer.status_mut() = StatusCode::MOVED_PERMANENTLY;
    let headers: &mut HeaderMap = answer.headers_mut();
    headers.insert(LOCATION, location);
    answer
}
