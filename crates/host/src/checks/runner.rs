//! The task that probes one running Machine.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use hangar_api::check::CheckStatus;
use hangar_api::env::Env;
use tokio::sync::mpsc;

use super::schedule::{Check, Schedule, log_line};
use super::{Probe, Prober};

/// A status that changed, with what all checks say now.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    /// What all checks say.
    pub(crate) statuses: Vec<CheckStatus>,
    /// For each service, in order, whether requests may go to it.
    pub(crate) healthy: Vec<bool>,
    /// The line for the Machine's log: whether it is an error, and the text.
    pub(crate) line: (bool, String),
}

/// Where and with what a Machine is probed.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) address: Ipv4Addr,
    pub(crate) services: usize,
    pub(crate) prober: Arc<dyn Prober>,
    pub(crate) env: Env,
}

/// Probes until the receiver is gone or the future is dropped. Tells every change.
pub(crate) async fn run(target: Target, mut schedule: Schedule, reports: mpsc::Sender<Report>) {
    let mut probes = FuturesUnordered::new();
    loop {
        for (index, check) in schedule.take_due(target.env.now()) {
            let probe = target.probe(&check);
            let prober = Arc::clone(&target.prober);
            probes.push(async move { (index, prober.probe(probe).await) });
        }
        let pause = schedule.next_due().map(|due| {
            let wait = due.duration_since(target.env.now());
            std::time::Duration::try_from(wait).unwrap_or_default()
        });
        let (index, result) = tokio::select! {
            biased;
            Some(done) = probes.next() => done,
            () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => continue,
            else => return,
        };
        if let Some((check, status)) = schedule.finish(index, result, target.env.now()) {
            let report = Report {
                statuses: schedule.statuses(),
                healthy: (0..target.services)
                    .map(|s| schedule.is_healthy(s))
                    .collect(),
                line: log_line(&check, &status),
            };
            if reports.send(report).await.is_err() {
                return;
            }
        }
    }
}

impl Target {
    fn probe(&self, check: &Check) -> Probe {
        Probe {
            target: SocketAddr::new(IpAddr::V4(self.address), check.port),
            timeout: check.timeout,
            kind: check.kind.clone(),
        }
    }
}
