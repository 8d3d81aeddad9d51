//! What the registry refuses: statuses, and the specification's error body.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hangar_image::{HostedError, ImageError};
use serde_json::json;

/// What a client is asked for: a name, any, and a token as the password.
const CHALLENGE: HeaderValue = HeaderValue::from_static("Basic realm=\"Hangar\"");
/// Seconds after which a client may try again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");

/// Why a request is refused.
#[derive(Debug)]
pub(super) enum Refusal {
    /// No token, or none that is known.
    Unauthorized,
    /// The token may not write here, or there is no such app.
    Denied,
    /// The path takes other methods.
    Method,
    /// There is nothing at this path.
    Path,
    /// The request is wrong as it stands.
    Invalid(String),
    /// The range is none of the blob, which has so many bytes.
    Range(u64),
    /// What the content says.
    Hosted(HostedError),
}

// === impl Refusal ===

impl Refusal {
    fn status(&self) -> StatusCode {
        let error = match self {
            Self::Unauthorized => return StatusCode::UNAUTHORIZED,
            Self::Denied => return StatusCode::FORBIDDEN,
            Self::Method => return StatusCode::METHOD_NOT_ALLOWED,
            Self::Path => return StatusCode::NOT_FOUND,
            Self::Invalid(_) => return StatusCode::BAD_REQUEST,
            Self::Range(_) => return StatusCode::RANGE_NOT_SATISFIABLE,
            Self::Hosted(error) => error,
        };
        match error {
            HostedError::NameUnknown
            | HostedError::BlobUnknown(_)
            | HostedError::UploadUnknown
            | HostedError::ManifestUnknown(_)
            | HostedError::ManifestBlobUnknown(_) => StatusCode::NOT_FOUND,
            HostedError::NameInvalid(_)
            | HostedError::UploadInvalid(_)
            | HostedError::DigestInvalid(_)
            | HostedError::ManifestInvalid(_)
            | HostedError::SizeInvalid(_) => StatusCode::BAD_REQUEST,
            HostedError::OutOfOrder { .. } => StatusCode::RANGE_NOT_SATISFIABLE,
            HostedError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            HostedError::TooMany(_) | HostedError::Busy => StatusCode::TOO_MANY_REQUESTS,
            HostedError::Full(_) => StatusCode::INSUFFICIENT_STORAGE,
            HostedError::Failed(ImageError::CutOff) => StatusCode::SERVICE_UNAVAILABLE,
            HostedError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn words(&self) -> (&'static str, String) {
        match self {
            Self::Unauthorized => (
                "UNAUTHORIZED",
                "authentication required: sign in with any user name and a token as the password"
                    .to_owned(),
            ),
            // Clients look for these very words.
            Self::Denied => (
                "DENIED",
                "requested access to the resource is denied".to_owned(),
            ),
            Self::Method => (
                "UNSUPPORTED",
                "this path does not take that method".to_owned(),
            ),
            Self::Path => (
                "UNSUPPORTED",
                "there is nothing at this path of the registry".to_owned(),
            ),
            Self::Invalid(text) => ("UNSUPPORTED", text.clone()),
            Self::Range(len) => (
                "SIZE_INVALID",
                format!("the range is not one of the {len} bytes that there are"),
            ),
            Self::Hosted(error) => (error.code(), error.to_string()),
        }
    }
}

impl From<HostedError> for Refusal {
    fn from(error: HostedError) -> Self {
        Self::Hosted(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = self.status();
        let (code, message) = self.words();
        if status.is_server_error() {
            tracing::error!(status = status.as_u16(), error = %message, "request to the registry failed");
        }
        let mut error = json!({"code": code, "message": message});
        if matches!(self, Self::Denied) {
            // Go's clients show the message only when something else is there as well.
            error["detail"] = "there is no such app, or this token may not push to it".into();
        }
        let body = json!({"errors": [error]});
        let mut response = (status, Json(body)).into_response();
        let headers = response.headers_mut();
        match &self {
            Self::Unauthorized => drop(headers.insert(header::WWW_AUTHENTICATE, CHALLENGE)),
            Self::Range(len) => {
                if let Ok(value) = HeaderValue::from_str(&format!("bytes */{len}")) {
                    headers.insert(header::CONTENT_RANGE, value);
                }
            }
            _ if status == StatusCode::TOO_MANY_REQUESTS => {
                headers.insert(header::RETRY_AFTER, RETRY_AFTER);
            }
            _ => {}
        }
        response
    }
}
