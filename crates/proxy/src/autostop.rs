//! The loop that brings Machines to rest that nobody uses: a look, a decision, and one request to
//! the host for each region.
//!
//! A Machine is closed for new requests before the host is asked, and only if nothing is in flight
//! to it, so that none is lost in between: what comes meanwhile is held, and wakes it again. Where
//! the host refuses, it is opened again. Apps that are being deployed are left alone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use hangar_api::catalog::{CatalogMachine, Phase};
use hangar_api::id::MachineId;
use hangar_api::machine::service::Autostop as How;
use hangar_api::seam::IdleMachine;
use tokio::time::Instant;

use crate::autoscale::{Excess, Member, excess};
use crate::index::{App, Candidate};
use crate::pick::Status;
use crate::shared::Shared;

/// Longest time for the host to accept or refuse.
const ASK_LIMIT: Duration = Duration::from_secs(10);
/// How long a Machine stays closed that the host has accepted, though no snapshot shows it yet.
const CLOSED_LIMIT: Duration = Duration::from_secs(30);
/// Most Machines of a region that are tried when the host refuses.
const MAX_TRIES: usize = 16;

/// See the module.
#[derive(Debug)]
pub(crate) struct Autostop {
    shared: Arc<Shared>,
    /// The starts that were up at the last look.
    seen: HashMap<MachineId, u64>,
}

/// What one look at an app found.
struct Look<'a> {
    members: Vec<Member>,
    machines: Vec<&'a CatalogMachine>,
}

// === impl Autostop ===

impl Autostop {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            seen: HashMap::new(),
        }
    }

    /// Runs until the proxy stops listening.
    pub(crate) async fn run(mut self) {
        let every = self.shared.config.autostop_every;
        if every.is_zero() {
            return;
        }
        let stop = self.shared.stop.clone();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(every) => {}
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.pass() => {}
            }
        }
    }

    /// One look at all apps.
    async fn pass(&mut self) {
        let index = self.shared.index.load_full();
        let now = self.shared.env.now();
        let mut seen = HashMap::new();
        for app in index.apps.values() {
            let look = self.look(app);
            for machine in &look.machines {
                seen.insert(machine.route.id.clone(), machine.live.starts);
            }
            let deploying = app.source.deploying_until;
            if deploying.is_some_and(|until| now < until) {
                continue;
            }
            for region in excess(&look.members) {
                self.rest_one(app, &look, &region).await;
            }
        }
        self.seen = seen;
    }

    /// Gathers the Machines of an app that are up and serve something.
    fn look<'a>(&self, app: &'a App) -> Look<'a> {
        let mut of: HashMap<&MachineId, (Vec<&Candidate>, bool)> = HashMap::new();
        for group in app.groups() {
            let awaited = group.queue.is_waiting();
            for candidate in group.candidates.iter().filter(|c| c.load.is_some()) {
                let (candidates, waits) = of.entry(&candidate.machine).or_default();
                candidates.push(candidate);
                *waits |= awaited;
            }
        }
        let mut look = Look {
            members: Vec::new(),
            machines: Vec::new(),
        };
        for machine in &app.source.machines {
            let up = machine.live.phase == Phase::Up && !machine.route.standby;
            // One that takes nothing any more is about to stop.
            let open = |(candidates, _): &&(Vec<&Candidate>, bool)| {
                let mut loads = candidates.iter().filter_map(|c| c.load.as_ref());
                up && loads.all(|load| !load.is_closed())
            };
            if let Some((candidates, awaited)) = of.get(&machine.route.id).filter(open) {
                look.members
                    .push(self.member(app, machine, candidates, *awaited));
                look.machines.push(machine);
            }
        }
        look
    }

    fn member(
        &self,
        app: &App,
        machine: &CatalogMachine,
        candidates: &[&Candidate],
        awaited: bool,
    ) -> Member {
        let (mut in_use, mut over_soft, mut usable, mut used) = (false, false, true, false);
        for candidate in candidates {
            let view = candidate.view(Instant::now);
            in_use |= view.load > 0;
            over_soft |= view.load >= view.soft;
            usable &= view.status == Status::Ready;
            // One service may be there on several ports; whoever asks first is told.
            used |= candidate.load.as_ref().is_some_and(|load| load.take_used());
        }
        let route = &machine.route;
        let services = || machine.live.services.iter().map(|live| &live.service);
        let primary = app.source.primary_region.as_ref();
        let min = if primary.is_none_or(|primary| *primary == route.region) {
            services().filter_map(|s| s.min_machines_running).max()
        } else {
            None
        };
        Member {
            group: route.group.clone(),
            region: route.region.clone(),
            usable,
            in_use,
            over_soft,
            settled: self.seen.get(&route.id) == Some(&machine.live.starts),
            rested: !used,
            awaited,
            autostop: How::of(services()),
            min: min.map_or(0, |min| usize::try_from(min).unwrap_or(usize::MAX)),
        }
    }

    /// Brings the first of these to rest that the host lets go.
    async fn rest_one(&self, app: &App, look: &Look<'_>, region: &[Excess]) {
        for excess in region.iter().take(MAX_TRIES) {
            let machine = look.machines[excess.index];
            let (id, starts) = (&machine.route.id, machine.live.starts);
            let pool = |other: &&Arc<CatalogMachine>| {
                let (other, own) = (&other.route, &machine.route);
                (&other.group, &other.region) == (&own.group, &own.region)
            };
            let idle = IdleMachine {
                machine: id.clone(),
                starts,
                suspend: excess.suspend,
                left: excess.left,
                all: app.source.machines.iter().filter(pool).count(),
            };
            let until = Instant::now() + CLOSED_LIMIT;
            if !self.shared.registry.close_if_idle(id, starts, until) {
                continue;
            }
            let asked = self.shared.wakes.waker().rest(idle);
            let why = match tokio::time::timeout(ASK_LIMIT, asked).await {
                Ok(Ok(())) => {
                    tracing::info!(app = %app.source.name, machine = %id, suspend = excess.suspend, "idle machine brought to rest");
                    return;
                }
                Ok(Err(failure)) => failure.message,
                Err(_) => "the host did not answer in time".to_owned(),
            };
            tracing::debug!(app = %app.source.name, machine = %id, reason = %why, "idle machine goes on");
            self.shared.registry.reopen(id, starts);
            self.shared.index.load().wake_waiters_for(id);
        }
    }
}
