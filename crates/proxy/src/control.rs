//! The control task: follows the Catalog, and makes index and listeners follow it.
//!
//! It is the only one that builds an index, binds a port or writes the port memory. Running one
//! round twice does nothing the second time.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hangar_api::catalog::Catalog;
use hangar_api::edge::EdgeMap;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::index::{Builder, Entry, Index};
use crate::listen::{self, Door, Listening};
use crate::load::Transport;
use crate::ports;
use crate::shared::Shared;

/// Time between two rounds that no change asked for.
const TICK: Duration = Duration::from_secs(1);
/// Most ports that are listened on.
const MAX_LISTENERS: usize = 256;
/// Most refused ports that are named.
const MAX_REFUSED: usize = 64;
/// Most ports that are remembered.
const MAX_REMEMBERED: usize = 4096;
/// How long the first certificates are waited for once there is something to serve. Whoever came
/// before them would be shown one that the client does not trust.
const FIRST_CERTIFICATES: Duration = Duration::from_secs(5);
/// Time before a port that could not be bound is tried again.
const BIND_AGAIN: Duration = Duration::from_secs(15);

/// The control task's own state.
#[derive(Debug)]
pub(crate) struct Control {
    shared: Arc<Shared>,
    cores: Vec<mpsc::Sender<(Door, Listening)>>,
    open: BTreeMap<Entry, OpenPort>,
    refused: BTreeMap<Entry, Refused>,
    remembered: BTreeMap<Entry, u16>,
}

#[derive(Debug)]
struct OpenPort {
    bound: u16,
    closed: CancellationToken,
}

#[derive(Debug)]
struct Refused {
    why: String,
    again: Instant,
}

// === impl Control ===

impl Control {
    pub(crate) fn new(
        shared: Arc<Shared>,
        cores: Vec<mpsc::Sender<(Door, Listening)>>,
        remembered: BTreeMap<Entry, u16>,
    ) -> Self {
        Self {
            shared,
            cores,
            open: BTreeMap::new(),
            refused: BTreeMap::new(),
            remembered,
        }
    }

    /// Runs until the proxy stops listening.
    pub(crate) async fn run(mut self, mut catalog: watch::Receiver<Arc<Catalog>>) {
        let stop = self.shared.stop.clone();
        self.await_certificates(&mut catalog, &stop).await;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut following = true;
        let mut applied: Option<Arc<Catalog>> = None;
        loop {
            let ticked = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                changed = catalog.changed(), if following => {
                    // Without a publisher the last snapshot holds.
                    following = changed.is_ok();
                    false
                }
                _ = tick.tick() => true,
            };
            let snapshot = catalog.borrow_and_update().clone();
            let afresh = ticked && self.tidy(Instant::now());
            // A snapshot may have come after the look that found none: what was applied decides,
            // not what woke us.
            let is_new = applied
                .as_ref()
                .is_none_or(|old| !Arc::ptr_eq(old, &snapshot));
            if is_new || afresh {
                self.apply(&snapshot, afresh);
                applied = Some(snapshot);
            }
            self.follow_ports().await;
        }
        for port in self.open.values() {
            port.closed.cancel();
        }
    }

    async fn await_certificates(
        &self,
        catalog: &mut watch::Receiver<Arc<Catalog>>,
        stop: &CancellationToken,
    ) {
        let mut served = self.shared.tls.imported().served();
        let came = async {
            // Without a publisher there is nothing to serve.
            drop(catalog.wait_for(|catalog| catalog.revision > 0).await);
            let first = served.wait_for(Option::is_some);
            if tokio::time::timeout(FIRST_CERTIFICATES, first)
                .await
                .is_err()
            {
                tracing::warn!("no certificates came from the server yet, listening without");
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = came => {}
        }
    }

    /// Makes the index follow a snapshot and wakes those who wait for a change.
    fn apply(&self, catalog: &Catalog, afresh: bool) {
        let shared = &self.shared;
        let before = shared.index.load_full();
        let builder = Builder {
            config: &shared.config,
            registry: &shared.registry,
            held: &shared.held,
            now: Instant::now(),
            first: before.revision == 0,
        };
        let index = Arc::new(builder.build(catalog, &before, afresh));
        shared.index.store(index.clone());
        shared.applied.send_replace(catalog.routes);
        self.forget_wakes(&before, &index);
        wake_waiters(&before, &index);
    }

    /// A start that shows in the Catalog need not be remembered, nor that there could be none
    /// before something changed.
    fn forget_wakes(&self, before: &Index, now: &Index) {
        if self.shared.wakes.is_empty() {
            return;
        }
        for (name, app) in &now.apps {
            let old = before.apps.get(name);
            let same = old.is_some_and(|old| Arc::ptr_eq(&old.source, &app.source));
            for machine in &app.source.machines {
                let id = &machine.route.id;
                if !machine.live.phase.is_down() {
                    self.shared.wakes.seen(id);
                } else if !same {
                    self.shared.wakes.ask_again(id);
                }
            }
        }
    }

    /// Drops what is over. Returns whether the snapshot must be taken in again.
    fn tidy(&self, now: Instant) -> bool {
        let shared = &self.shared;
        let max_idle = shared.config.limits.upstream_idle;
        for load in shared.registry.all() {
            load.reap(max_idle);
        }
        shared.wakes.tidy(now);
        let drain_ran_out = shared.registry.tidy(now);
        drain_ran_out || shared.index.load().has_expired(now)
    }

    /// Opens a listener for each external port of the index, and closes the others.
    async fn follow_ports(&mut self) {
        let wanted = self.shared.index.load().entries();
        let now = Instant::now();
        let before = self.edge();
        self.open.retain(|port, open| {
            let stays = wanted.contains(port);
            if !stays {
                open.closed.cancel();
            }
            stays
        });
        self.refused.retain(|port, _| wanted.contains(port));
        for external in &wanted {
            let tried = self.refused.get(external);
            let wait = tried.is_some_and(|refused| now < refused.again);
            if wait || self.open.contains_key(external) {
                continue;
            }
            self.open_port(*external, &wanted, now).await;
        }
        let after = self.edge();
        if before != after {
            self.remember(&after);
        }
        self.shared
            .edge
            .send_if_modified(|edge| std::mem::replace(edge, after.clone()) != after);
    }

    async fn open_port(&mut self, entry: Entry, wanted: &BTreeSet<Entry>, now: Instant) {
        let (_, external) = entry;
        match self.bind(entry, wanted) {
            Ok((bound, sockets)) => {
                if bound != external {
                    tracing::info!(port = external, bound, "external port bound elsewhere");
                }
                self.refused.remove(&entry);
                let closed = CancellationToken::new();
                let places = self.shared.config.limits.connections_per_port;
                let places = Arc::new(Semaphore::new(places));
                for (core, socket) in self.cores.iter().zip(sockets) {
                    let door = Door {
                        external,
                        places: places.clone(),
                        closed: closed.clone(),
                    };
                    if core.send((door, socket)).await.is_err() {
                        tracing::error!(port = external, "a thread of the proxy is gone");
                    }
                }
                self.open.insert(entry, OpenPort { bound, closed });
            }
            Err(why) => {
                if self.refused.len() >= MAX_REFUSED {
                    return;
                }
                let again = now + BIND_AGAIN;
                let told = self.refused.insert(
                    entry,
                    Refused {
                        why: why.clone(),
                        again,
                    },
                );
                if told.is_none() {
                    tracing::warn!(port = external, reason = %why, "external port not bound");
                }
            }
        }
    }

    fn bind(
        &self,
        entry: Entry,
        wanted: &BTreeSet<Entry>,
    ) -> Result<(u16, Vec<Listening>), String> {
        if self.open.len() >= MAX_LISTENERS {
            return Err(format!(
                "more than {MAX_LISTENERS} external ports are in use"
            ));
        }
        let (transport, external) = entry;
        let alike = |other: &Transport| *other == transport;
        let open = self.open.iter().filter(|((t, _), _)| alike(t));
        let taken: BTreeSet<u16> = open.map(|(_, open)| open.bound).collect();
        let wanted = wanted.iter().filter(|(t, _)| alike(t));
        let wanted: BTreeSet<u16> = wanted.map(|(_, port)| *port).collect();
        let reserved = &wanted | &taken;
        let remembered = self.remembered.get(&entry).copied();
        let config = &self.shared.config;
        let mut first = None;
        for port in ports::choices(external, remembered, &reserved) {
            if taken.contains(&port) {
                continue;
            }
            match listen::bind(config.address, (transport, port), config.cores) {
                Ok(sockets) => return Ok((port, sockets)),
                Err(error) => {
                    first.get_or_insert_with(|| in_words(port, &error));
                    if !is_about_the_port(&error) {
                        break;
                    }
                }
            }
        }
        Err(first.unwrap_or_else(|| "all ports that could stand for it are in use".to_owned()))
    }

    fn edge(&self) -> EdgeMap {
        let config = &self.shared.config;
        let bound = |of: Transport| {
            let open = self.open.iter().filter(move |((t, _), _)| *t == of);
            open.map(|((_, port), open)| (*port, open.bound)).collect()
        };
        let unbound = |of: Transport| {
            let refused = self.refused.iter().filter(move |((t, _), _)| *t == of);
            refused.map(|((_, port), r)| (*port, r.why.clone()))
        };
        let index = self.shared.index.load();
        let ambiguous = index
            .ports
            .iter()
            .filter(|(_, spoken)| spoken.raw.len() > 1);
        let ambiguous = ambiguous.map(|(port, _)| (*port, several_apps(*port)));
        let crowded = index.datagrams.iter().filter(|(_, apps)| apps.len() > 1);
        let crowded = crowded.map(|(port, _)| (*port, several_apps_of_udp(*port)));
        EdgeMap {
            address: config.address,
            domain: config.domain.clone(),
            ports: bound(Transport::Tcp),
            udp: bound(Transport::Udp),
            refused: ambiguous
                .take(MAX_REFUSED)
                .chain(unbound(Transport::Tcp))
                .collect(),
            udp_refused: crowded
                .take(MAX_REFUSED)
                .chain(unbound(Transport::Udp))
                .collect(),
        }
    }

    /// Writes the port memory. Where that fails the ports work, and may move after a restart.
    fn remember(&mut self, edge: &EdgeMap) {
        let before = self.remembered.clone();
        let tcp = edge.ports.iter().map(|bound| (Transport::Tcp, bound));
        let udp = edge.udp.iter().map(|bound| (Transport::Udp, bound));
        for (transport, (external, bound)) in tcp.chain(udp) {
            self.remembered.insert((transport, *external), *bound);
        }
        while self.remembered.len() > MAX_REMEMBERED {
            self.remembered.pop_last();
        }
        let path = &self.shared.config.ports_file;
        if before == self.remembered && path.exists() {
            return;
        }
        let kept = |of: Transport| {
            let kept = self.remembered.iter().filter(move |((t, _), _)| *t == of);
            kept.map(|((_, external), bound)| (*external, *bound))
                .collect()
        };
        let memory = EdgeMap {
            ports: kept(Transport::Tcp),
            udp: kept(Transport::Udp),
            ..edge.clone()
        };
        let written =
            serde_json::to_vec_pretty(&memory).map(|text| ports::write(path, &text, 0o644));
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, "port memory not written");
        }
    }
}

/// Wakes all that wait for an app that changed.
fn wake_waiters(before: &Index, now: &Index) {
    for (name, app) in &before.apps {
        let same = now.apps.get(name).is_some_and(|new| Arc::ptr_eq(new, app));
        if !same {
            app.groups().iter().for_each(|group| group.queue.wake_all());
        }
    }
}

fn several_apps(port: u16) -> String {
    format!(
        "several apps take raw TCP on port {port}, and nothing tells whose a connection is: give \
         each a port of its own, or the tls handler"
    )
}

fn several_apps_of_udp(port: u16) -> String {
    format!(
        "several apps take datagrams on port {port}, and nothing tells whose one is: give each a \
         port of its own"
    )
}

fn is_about_the_port(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied
    )
}

fn in_words(port: u16, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!("port {port} is taken by another program"),
        io::ErrorKind::PermissionDenied => format!("port {port} needs the right to bind low ports"),
        io::ErrorKind::AddrNotAvailable => {
            "the proxy's address is not one of this machine".to_owned()
        }
        _ => format!("port {port} cannot be bound: {error}"),
    }
}
