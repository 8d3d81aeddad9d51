//! What can go wrong with a request, and the one place that decides its HTTP status and Fly's
//! error body (machines-api.md 1.10).

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use hangar_api::Timestamp;
use hangar_api::error::{ErrorBody, ErrorKind, Failure};
use hangar_api::id::{MachineId, VolumeId};
use hangar_api::machine::MachineState;
use hangar_store::StoreError;

use crate::keyring::KeyringError;
use crate::placement::Unplaceable;

/// Why a request is refused or failed. The texts are those that Fly's clients look for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    /// No token, or none that is known.
    #[error("Authenticate: token validation error")]
    Unauthorized,
    /// A token that is good, and not for this; the text says why.
    #[error("{0}; use a token that may")]
    Forbidden(String),
    /// No organisation of this slug that may be read.
    #[error("Could not find Organization {0:?}")]
    OrgNotFound(String),
    /// No app of this name.
    #[error("Could not find App {0:?}")]
    AppNotFound(String),
    /// No Machine of this id in the app.
    #[error("machine not found")]
    MachineNotFound,
    /// No lease, or it has expired.
    #[error("lease not found")]
    LeaseNotFound,
    /// Nothing of this kind; the text says what.
    #[error("{0}")]
    NotFound(String),
    /// Not 14 hexadecimal digits.
    #[error("invalid machine ID, '{0}'")]
    InvalidMachineId(String),
    /// The request is wrong as it stands.
    #[error("{0}")]
    Invalid(String),
    /// It is understood and refused.
    #[error("{0}")]
    Unprocessable(String),
    /// An app of this name exists.
    #[error("Validation failed: Name has already been taken")]
    AppNameTaken,
    /// No name for an app.
    #[error("Validation failed: Name under 63 chars using numbers, lowercase letters and dashes")]
    AppNameInvalid,
    /// A Machine of this name exists in the app.
    #[error("unique constraint violation: a machine named {0:?} already exists in this app")]
    MachineNameTaken(String),
    /// Somebody else holds the lease.
    #[error("machine ID {machine} lease currently held by {owner}, expires at {expires}")]
    LeaseHeld {
        /// Of which Machine.
        machine: MachineId,
        /// Who.
        owner: String,
        /// Until when.
        expires: Timestamp,
    },
    /// Somebody else holds it, or it changed meanwhile; the text says what.
    #[error("{0}")]
    Conflict(String),
    /// Not in this state.
    #[error("failed_precondition: {0}")]
    Precondition(String),
    /// Another Machine has the volume.
    #[error("volume already claimed by machine {0}")]
    VolumeClaimed(MachineId),
    /// The volume is where nothing can be placed.
    #[error("insufficient resources to create new machine with existing volume '{0}'")]
    VolumePlacement(VolumeId),
    /// A wait has elapsed.
    #[error("machine failed to reach desired state, {wanted}, currently {current}")]
    WaitElapsed {
        /// What was waited for.
        wanted: String,
        /// What is.
        current: MachineState,
    },
    /// No place for a Machine.
    #[error("out of capacity: {0}")]
    Lost(String),
    /// Too much of something; the text says what.
    #[error("{0}")]
    Exhausted(String),
    /// The body is too long.
    #[error("the request body is longer than {0} bytes")]
    TooLarge(usize),
    /// The path exists, the method does not.
    #[error("this path does not take that method")]
    MethodNotAllowed,
    /// The same was asked for too often.
    #[error("rate limit exceeded")]
    RateLimited,
    /// It is a thing of Fly's that this Hangar does not do; the text says why.
    #[error("{0}")]
    Unsupported(String),
    /// The other role failed.
    #[error("{0}")]
    Failed(#[from] Failure),
    /// The store failed.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// A secret cannot be sealed or opened.
    #[error("{0}")]
    Keyring(#[from] KeyringError),
    /// A fault of ours or of the machine; the text says what we were doing.
    #[error("{0}")]
    Internal(String),
}

// === impl Problem ===

impl Problem {
    fn status(&self) -> StatusCode {
        match self {
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::OrgNotFound(_)
            | Self::AppNotFound(_)
            | Self::MachineNotFound
            | Self::LeaseNotFound
            | Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::InvalidMachineId(_) | Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::Unprocessable(_)
            | Self::AppNameTaken
            | Self::AppNameInvalid
            | Self::MachineNameTaken(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::LeaseHeld { .. } | Self::Conflict(_) => StatusCode::CONFLICT,
            Self::Precondition(_) | Self::VolumeClaimed(_) | Self::VolumePlacement(_) => {
                StatusCode::PRECONDITION_FAILED
            }
            Self::WaitElapsed { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::Lost(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Exhausted(_) | Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Unsupported(_) => StatusCode::NOT_IMPLEMENTED,
            Self::Failed(failure) => of_kind(failure.kind),
            Self::Store(StoreError::Limit { .. }) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Keyring(_) | Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Returns what a caller can do about it, where it leaves the server by another way than HTTP.
    pub(crate) fn kind(&self) -> ErrorKind {
        if let Self::Failed(failure) = self {
            return failure.kind;
        }
        match self.status() {
            StatusCode::NOT_FOUND => ErrorKind::NotFound,
            StatusCode::CONFLICT => ErrorKind::Conflict,
            StatusCode::PRECONDITION_FAILED => ErrorKind::FailedPrecondition,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::PAYLOAD_TOO_LARGE => ErrorKind::Exhausted,
            StatusCode::REQUEST_TIMEOUT => ErrorKind::TimedOut,
            StatusCode::SERVICE_UNAVAILABLE => ErrorKind::Unavailable,
            StatusCode::NOT_IMPLEMENTED => ErrorKind::Unsupported,
            StatusCode::INTERNAL_SERVER_ERROR => ErrorKind::Internal,
            _ => ErrorKind::Invalid,
        }
    }

    /// Returns the stable code, for the few that clients act on.
    fn code(&self) -> Option<&'static str> {
        match self {
            Self::AppNameTaken => Some("name_taken"),
            Self::Lost(_) => Some("insufficient_capacity"),
            Self::VolumePlacement(_) => Some("volume_placement_capacity"),
            _ => None,
        }
    }

    /// Returns the text for a person, with the causes of what other modules report.
    pub(crate) fn text(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        if matches!(self, Self::Failed(_) | Self::Keyring(_) | Self::Store(_)) {
            // Their own text was shown; what is below it is not.
            cause = cause.and_then(std::error::Error::source);
        }
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    }
}

fn of_kind(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::Invalid => StatusCode::BAD_REQUEST,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::FailedPrecondition => StatusCode::PRECONDITION_FAILED,
        ErrorKind::Exhausted => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::TimedOut => StatusCode::REQUEST_TIMEOUT,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Unsupported => StatusCode::NOT_IMPLEMENTED,
        ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        let text = self.text();
        if status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED {
            tracing::error!(status = status.as_u16(), error = %text, "request failed");
        }
        let body = ErrorBody {
            error: text,
            status: self.code().map(str::to_owned),
        };
        (status, Json(body)).into_response()
    }
}

impl From<Unplaceable> for Problem {
    fn from(error: Unplaceable) -> Self {
        match error {
            Unplaceable::Unknown { .. } | Unplaceable::NoZone { .. } => {
                Self::Unprocessable(error.to_string())
            }
            Unplaceable::Lost { .. } => Self::Lost(error.to_string()),
        }
    }
}
