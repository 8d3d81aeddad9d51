//! Refuses what is asked for too often.

use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tokio::time::Instant;

use crate::error::Problem;
use crate::rate::{Buckets, RateLimit};

/// What requests are counted by.
#[derive(Clone, Debug)]
pub(super) struct Limiter {
    limit: RateLimit,
    since: Instant,
    buckets: Arc<Mutex<Buckets>>,
}

impl Limiter {
    pub(super) fn new(limit: RateLimit) -> Self {
        Self {
            limit,
            since: Instant::now(),
            buckets: Arc::default(),
        }
    }
}

pub(super) async fn limit(
    State(limiter): State<Limiter>,
    request: Request,
    next: Next,
) -> Response {
    if limiter.limit == RateLimit::OFF {
        return next.run(request).await;
    }
    let admitted = match request.extensions().get::<MatchedPath>() {
        None => true,
        Some(route) => {
            let asked = (request.method(), route.as_str(), request.uri().path());
            let mut buckets = limiter
                .buckets
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            buckets.admit(limiter.limit, asked, limiter.since.elapsed())
        }
    };
    if admitted {
        next.run(request).await
    } else {
        Problem::RateLimited.into_response()
    }
}
