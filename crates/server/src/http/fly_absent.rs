//! What flyctl asks for and Hangar does not have: refused with the reason and what to do instead.

use hangar_api::error::{ErrorKind, Failure};

use crate::error::Problem;

fn refused(text: &str) -> Problem {
    Problem::Failed(Failure::new(ErrorKind::Unsupported, text))
}

pub(super) async fn login() -> Problem {
    refused(
        "Hangar has no login page: make a token with `hangar tokens create`, or take the \
         administrator's with `hangar auth token`, and set it as FLY_ACCESS_TOKEN; \
         `hangar flyctl-env` prints that and the rest",
    )
}

pub(super) async fn builder() -> Problem {
    refused(
        "Hangar has no builders of its own: use --local-only with a local Docker, \
         --buildkit-addr or BUILDKIT_ADDR with a buildkitd, or --image",
    )
}

pub(super) async fn egress() -> Problem {
    refused("Hangar gives no addresses of their own to outgoing connections")
}

/// Usage metrics are nobody's here: they are read and thrown away, so that no client complains.
pub(super) async fn metrics() -> axum::http::StatusCode {
    axum::http::StatusCode::OK
}
