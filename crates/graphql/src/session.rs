//! What a resolver works with: the desk, for whom, and how refusals are told.

use async_graphql::{Context, Error, ErrorExtensions as _};
use hangar_api::error::{ErrorKind, Failure};
use hangar_server::desk::{Caller, Desk};

/// The desk and the caller of one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Session<'a> {
    /// The server's functions.
    pub(crate) desk: &'a Desk,
    /// For whom.
    pub(crate) caller: &'a Caller,
}

impl<'a> Session<'a> {
    /// Returns the session of a request: the endpoint lets none through without a caller.
    pub(crate) fn of(ctx: &'a Context<'_>) -> Result<Self, Error> {
        Ok(Self {
            desk: ctx.data::<Desk>()?,
            caller: ctx.data::<Caller>()?,
        })
    }
}

/// Returns a refusal as clients read it: its text, and a code in the extensions.
pub(crate) fn refused(failure: Failure) -> Error {
    let code = match failure.kind {
        ErrorKind::NotFound => "NOT_FOUND",
        ErrorKind::Invalid => "BAD_REQUEST",
        ErrorKind::Conflict | ErrorKind::FailedPrecondition => "UNPROCESSABLE",
        ErrorKind::Exhausted => "LIMIT_REACHED",
        ErrorKind::Unsupported => "NOT_IMPLEMENTED",
        ErrorKind::TimedOut | ErrorKind::Unavailable | ErrorKind::Internal => "SERVER_ERROR",
    };
    Error::new(failure.message).extend_with(|_, extensions| extensions.set("code", code))
}
