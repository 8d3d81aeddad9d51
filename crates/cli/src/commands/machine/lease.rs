//! Holding the leases of Machines while they are changed (machines-api.md 10).

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use anyhow::Result;
use futures_util::{StreamExt, stream};
use hangar_api::id::{AppName, MachineId};
use hangar_api::lease::LeaseRequest;

use crate::context::Context;
use crate::error::Exit;
use crate::{interrupt, output};

/// Seconds that a lease lasts, unless refreshed.
const TTL: i64 = 120;
/// How often leases that are held are refreshed.
const REFRESH: Duration = Duration::from_secs(40);
/// How long somebody else's lease is waited for, as Fly's client does.
const PATIENCE: Duration = Duration::from_secs(60);
/// After this one is told what is waited for.
const TELL_AFTER: Duration = Duration::from_secs(2);
/// Pause between tries.
const PAUSE: Duration = Duration::from_millis(250);
/// Leases taken or given back at the same time.
const AT_ONCE: usize = 20;
/// How long giving back is tried while the server is away.
const GIVE_BACK: Duration = Duration::from_secs(5);

/// The leases that are held.
#[derive(Debug, Default)]
pub(in crate::commands) struct Leases(BTreeMap<MachineId, String>);

// === impl Leases ===

impl Leases {
    /// Returns what proves that the lease is ours.
    pub(in crate::commands) fn nonce(&self, id: &MachineId) -> Option<&str> {
        self.0.get(id).map(String::as_str)
    }
}

/// Takes the lease of a Machine, does the work, and gives it back however that ended.
pub(in crate::commands) async fn holding<T>(
    context: &Context,
    app: &AppName,
    id: &MachineId,
    work: impl AsyncFnOnce(Option<&str>) -> Result<T>,
) -> Result<T> {
    let ids = std::slice::from_ref(id);
    holding_all(context, app, ids, async |leases: &Leases| {
        work(leases.nonce(id)).await
    })
    .await
}

/// Takes the leases of Machines, does the work, and gives them back however that ended, also when
/// interrupted.
pub(in crate::commands) async fn holding_all<T>(
    context: &Context,
    app: &AppName,
    ids: &[MachineId],
    work: impl AsyncFnOnce(&Leases) -> Result<T>,
) -> Result<T> {
    let (leases, failed) = take_all(context, app, ids).await;
    let done = match failed {
        Some(error) => Err(error),
        None => {
            let mut work = pin!(work(&leases));
            let mut refresh = tokio::time::interval(REFRESH);
            refresh.tick().await;
            loop {
                tokio::select! {
                    biased;
                    done = &mut work => break done,
                    pressed = interrupt::pressed() => {
                        pressed?;
                        break Err(Exit::Command(interrupt::INTERRUPTED).with("interrupted"));
                    }
                    _ = refresh.tick() => refresh_all(context, app, &leases).await,
                }
            }
        }
    };
    give_back_all(context, app, &leases).await;
    done
}

async fn take_all(
    context: &Context,
    app: &AppName,
    ids: &[MachineId],
) -> (Leases, Option<anyhow::Error>) {
    let takes = ids
        .iter()
        .map(async |id| (id.clone(), take(context, app, id).await));
    let taken: Vec<_> = stream::iter(takes)
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let (mut leases, mut failed) = (Leases::default(), None);
    for (id, outcome) in taken {
        match outcome {
            Ok(nonce) => {
                leases.0.insert(id, nonce);
            }
            Err(error) => failed = Some(error),
        }
    }
    (leases, failed)
}

async fn take(context: &Context, app: &AppName, id: &MachineId) -> Result<String> {
    let request = LeaseRequest {
        ttl: Some(TTL),
        description: Some("hangar".to_owned()),
    };
    let since = tokio::time::Instant::now();
    let mut told = false;
    loop {
        match context.client.lease(app, id, &request, None).await {
            Ok(lease) => return Ok(lease.nonce),
            Err(error) if error.status() == Some(409) && since.elapsed() < PATIENCE => {
                if !told && since.elapsed() >= TELL_AFTER {
                    output::say(&format!("Waiting on lease for machine {id}..."));
                    told = true;
                }
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) if error.status() == Some(409) => {
                return Err(Exit::Failed.with(format!(
                    "failed to obtain lease: {error}; wait for it, or take it away with `hangar machine leases clear {id}`"
                )));
            }
            Err(error) => return Err(anyhow::Error::new(error).context("failed to obtain lease")),
        }
    }
}

async fn refresh_all(context: &Context, app: &AppName, leases: &Leases) {
    let request = LeaseRequest {
        ttl: Some(TTL),
        description: None,
    };
    let all = leases.0.iter().map(async |(id, nonce)| {
        // A lease that is lost shows in the next write, which is then refused.
        let _lost = context.client.lease(app, id, &request, Some(nonce)).await;
    });
    stream::iter(all).buffer_unordered(AT_ONCE).count().await;
}

async fn give_back_all(context: &Context, app: &AppName, leases: &Leases) {
    let all = leases
        .0
        .iter()
        .map(async |(id, nonce)| give_back(context, app, id, nonce).await);
    stream::iter(all).buffer_unordered(AT_ONCE).count().await;
}

async fn give_back(context: &Context, app: &AppName, id: &MachineId, nonce: &str) {
    let since = tokio::time::Instant::now();
    while let Err(error) = context.client.release_lease(app, id, nonce).await {
        match error.status() {
            // One whose Machine is destroyed went with it; one that is another's is not ours.
            Some(404 | 409) => return,
            None if since.elapsed() < GIVE_BACK => tokio::time::sleep(PAUSE).await,
            _ => {
                return output::say(&format!(
                    "failed to release lease for machine {id}: {error}; it ends by itself in {TTL} s"
                ));
            }
        }
    }
}
