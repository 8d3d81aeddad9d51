//! What Fly offers and this Hangar does not: answered with 501 and the reason, never with a success
//! that did nothing.

use crate::error::Problem;

fn refused(text: &str) -> Problem {
    Problem::Unsupported(text.to_owned())
}

pub(super) async fn network_policies() -> Problem {
    refused(
        "network policies are not offered by this Hangar: apps on different private networks do not \
         reach each other; make apps with a network of their own",
    )
}

pub(super) async fn postgres() -> Problem {
    refused(
        "managed Postgres is not offered by this Hangar: run a database as an app with a volume",
    )
}

pub(super) async fn oidc() -> Problem {
    refused("OpenID Connect tokens are not offered by this Hangar: it is no identity provider")
}

pub(super) async fn kms() -> Problem {
    refused("a key management service is not offered by this Hangar: keep values as secrets")
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

pub(super) async fn secret_keys() -> Problem {
    refused(
        "secret keys are not offered by this Hangar: keep a key as a secret, and encrypt and sign \
         with it in the app",
    )
}
