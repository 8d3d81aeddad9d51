//! The Catalog as the proxy looks it up: host name and external port to the Machines of a
//! service.
//!
//! Built by the control task when the Catalog changes, read by every core without a lock. Apps
//! that did not change are taken over from the index before.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use hangar_api::catalog::{Catalog, CatalogApp, CatalogMachine, Phase};
use hangar_api::certificate::domain_above;
use hangar_api::id::{AppName, MachineId, Region};
use hangar_api::machine::service::{MAX_PORTS_PER_APP, Port};
use hangar_api::machine::{Service, Static};
use hyper::header::HeaderValue;
use tokio::time::Instant;

use crate::config::{Limits, ProxyConfig};
use crate::load::{Load, Transport};
use crate::pick::{Status, View};
use crate::policy::{Policies, Policy};
use crate::queue::Queue;
use crate::registry::Registry;

/// How long a Machine that has just gone down, and that a request may not start, is waited for
/// before it counts as down: within a restart or an update the Catalog may show it so for a moment.
const SETTLING: Duration = Duration::from_secs(1);

/// A snapshot, ready to be looked up.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// Of the Catalog it was made from.
    pub(crate) revision: u64,
    pub(crate) apps: HashMap<AppName, Arc<App>>,
    /// What is spoken on each external port.
    pub(crate) ports: BTreeMap<u16, Arc<Spoken>>,
    /// The apps that take datagrams on each external port of UDP, at most two.
    pub(crate) datagrams: BTreeMap<u16, Vec<AppName>>,
    hosts: HashMap<Box<str>, Arc<App>>,
    /// By the domain below which all names are the app's, unless they are another's.
    below: HashMap<Box<str>, Arc<App>>,
}

/// What the services on one external port speak, to tell what to look for in the first bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spoken {
    /// A service speaks HTTP without TLS.
    pub(crate) http: bool,
    /// A service ends TLS here.
    pub(crate) tls: bool,
    /// A service ends TLS that is asked for as Postgres has it.
    pub(crate) postgres: bool,
    /// The apps that take raw TCP, at most two: a second one makes the port ambiguous.
    pub(crate) raw: Vec<AppName>,
    /// The apps that end TLS and take TCP or HTTP, at most two.
    pub(crate) behind_tls: Vec<AppName>,
}

/// An app with services.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) source: Arc<CatalogApp>,
    /// By transport and external port.
    groups: Vec<Arc<Group>>,
}

/// Where a client comes in.
pub(crate) type Entry = (Transport, u16);

/// What serves one external port of an app.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) app: AppName,
    pub(crate) transport: Transport,
    pub(crate) external: u16,
    pub(crate) policy: Arc<Policy>,
    pub(crate) candidates: Vec<Candidate>,
    pub(crate) queue: Arc<Queue>,
    /// The edge's region, as this app sees it.
    pub(crate) region: HeaderValue,
    /// Set on a service that has just vanished: until then requests wait for it.
    pub(crate) vanished_until: Option<Instant>,
}

/// A Machine that has the service.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) machine: MachineId,
    pub(crate) state: State,
    pub(crate) near: bool,
    pub(crate) soft: u32,
    pub(crate) hard: Option<u32>,
    /// Connections are kept for the next request.
    pub(crate) pooled: bool,
    /// HTTP/2 without TLS is spoken to it.
    pub(crate) http2: bool,
    /// Folders whose files answer requests.
    pub(crate) statics: Arc<[Static]>,
    /// Present while it is up.
    pub(crate) load: Option<Arc<Load>>,
}

/// Where a candidate is. Time decides how some of them count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Ready,
    /// Up, and its checks have not passed yet: on its way until then, unhealthy afterwards.
    WarmingUntil(Instant),
    Unhealthy,
    Coming,
    Draining,
    /// Down. Until `settled` it may be on its way from one generation to the next, where a request
    /// may not start it.
    Down {
        autostart: bool,
        settled: Instant,
    },
}

/// What is needed to build an index.
#[derive(Debug)]
pub(crate) struct Builder<'a> {
    pub(crate) config: &'a ProxyConfig,
    pub(crate) registry: &'a Registry,
    pub(crate) held: &'a Arc<AtomicUsize>,
    pub(crate) now: Instant,
    /// Nothing was known before.
    pub(crate) first: bool,
}

// === impl Index ===

impl Index {
    /// Returns the app of a host name in lower case, without port.
    pub(crate) fn host(&self, host: &str) -> Option<&Arc<App>> {
        let exact = self.hosts.get(host);
        exact.or_else(|| self.below.get(domain_above(host)?))
    }

    /// Returns under which of its names, `*.` ones among them, an app has this one.
    pub(crate) fn pattern<'a>(&self, host: &'a str) -> Option<Cow<'a, str>> {
        if self.hosts.contains_key(host) {
            return Some(Cow::Borrowed(host));
        }
        let domain = domain_above(host).filter(|domain| self.below.contains_key(*domain))?;
        Some(Cow::Owned(format!("*.{domain}")))
    }

    /// Returns the service of an app on an external port of TCP.
    pub(crate) fn group(&self, app: &AppName, external: u16) -> Option<&Arc<Group>> {
        self.apps.get(app)?.group(external)
    }

    /// Returns the service as it is now.
    pub(crate) fn renewed(&self, group: &Group) -> Option<&Arc<Group>> {
        let app = self.apps.get(&group.app)?;
        app.find((group.transport, group.external))
    }

    /// Returns the one service that takes datagrams on an external port.
    pub(crate) fn datagrams(&self, external: u16) -> Option<&Arc<Group>> {
        let [only] = &self.datagrams.get(&external)?[..] else {
            return None;
        };
        self.apps.get(only)?.find((Transport::Udp, external))
    }

    /// Returns where clients may come in.
    pub(crate) fn entries(&self) -> BTreeSet<Entry> {
        let tcp = self.ports.keys().map(|port| (Transport::Tcp, *port));
        let udp = self.datagrams.keys().map(|port| (Transport::Udp, *port));
        tcp.chain(udp).collect()
    }

    /// Returns whether a service that vanished has been waited for long enough.
    pub(crate) fn has_expired(&self, now: Instant) -> bool {
        self.groups()
            .any(|group| group.vanished_until.is_some_and(|until| until <= now))
    }

    /// Wakes all that wait for a service of this Machine.
    pub(crate) fn wake_waiters_for(&self, machine: &MachineId) {
        let serves = |group: &&Arc<Group>| group.candidates.iter().any(|c| c.machine == *machine);
        for group in self.groups().filter(serves) {
            group.queue.wake_all();
        }
    }

    pub(crate) fn groups(&self) -> impl Iterator<Item = &Arc<Group>> {
        self.apps.values().flat_map(|app| app.groups.iter())
    }
}

// === impl App ===

impl App {
    pub(crate) fn group(&self, external: u16) -> Option<&Arc<Group>> {
        self.find((Transport::Tcp, external))
    }

    fn find(&self, entry: Entry) -> Option<&Arc<Group>> {
        let mut groups = self.groups.iter();
        groups.find(|group| (group.transport, group.external) == entry)
    }

    /// Returns the external port that speaks https, 443 first.
    pub(crate) fn https_port(&self) -> Option<u16> {
        let https = |group: &&Arc<Group>| group.policy.http && group.policy.tls;
        let mut ports = self.groups.iter().filter(https).map(|group| group.external);
        let first = ports.next()?;
        Some(if first == 443 || ports.any(|port| port == 443) {
            443
        } else {
            first
        })
    }

    pub(crate) fn groups(&self) -> &[Arc<Group>] {
        &self.groups
    }
}

// === impl Candidate ===

impl Candidate {
    /// Returns how the decision sees it, leaving wakes and earlier attempts aside.
    pub(crate) fn view(&self, now: impl Fn() -> Instant) -> View {
        let load = self.load.as_ref();
        let status = match self.state {
            // A drain closes the load before the Catalog says so.
            State::Ready | State::WarmingUntil(_) | State::Unhealthy
                if load.is_none_or(|load| load.is_closed()) =>
            {
                Status::Draining
            }
            State::Ready => Status::Ready,
            State::WarmingUntil(until) if now() < until => Status::Coming,
            State::WarmingUntil(_) | State::Unhealthy => Status::Unhealthy,
            State::Coming => Status::Coming,
            State::Draining => Status::Draining,
            // Where something else is being done with it, the host says so.
            State::Down {
                autostart: true, ..
            } => Status::Startable,
            State::Down { settled, .. } if now() < settled => Status::Coming,
            State::Down { .. } => Status::Down,
        };
        View {
            status,
            near: self.near,
            load: load.map_or(0, |load| load.in_flight()),
            soft: self.soft,
            hard: self.hard,
            avoided: load.is_some_and(|load| load.is_avoided()),
        }
    }
}

// === impl Builder ===

impl Builder<'_> {
    /// Returns the index of a snapshot. Takes over the apps of `before` that are the same, unless
    /// `afresh`.
    pub(crate) fn build(&self, catalog: &Catalog, before: &Index, afresh: bool) -> Index {
        let mut index = Index {
            revision: catalog.revision,
            ..Index::default()
        };
        for (name, source) in &catalog.apps {
            let known = before.apps.get(name);
            let same = known.filter(|app| !afresh && Arc::ptr_eq(&app.source, source));
            let app = same
                .cloned()
                .unwrap_or_else(|| Arc::new(self.app(source, known.map(Arc::as_ref))));
            for host in &source.hostnames {
                let host = host.to_ascii_lowercase();
                let (hosts, host) = match host.strip_prefix("*.") {
                    Some(domain) => (&mut index.below, domain),
                    None => (&mut index.hosts, host.as_str()),
                };
                hosts.entry(host.into()).or_insert_with(|| app.clone());
            }
            index.apps.insert(name.clone(), app);
        }
        self.forget_lost(before, &index);
        index.ports = spoken(&index);
        for group in index.apps.values().flat_map(|app| app.groups.iter()) {
            if group.transport == Transport::Udp {
                let apps = index.datagrams.entry(group.external).or_default();
                apps.push(group.app.clone());
                apps.truncate(2);
            }
        }
        index
    }

    fn forget_lost(&self, before: &Index, index: &Index) {
        for (name, old) in &before.apps {
            let new = index.apps.get(name);
            if new.is_some_and(|new| Arc::ptr_eq(&new.source, &old.source)) {
                continue;
            }
            let machines = new.iter().flat_map(|app| app.source.machines.iter());
            let stay: HashSet<_> = machines.map(|machine| &machine.route.id).collect();
            let all = old.source.machines.iter().map(|machine| &machine.route.id);
            for lost in all.filter(|id| !stay.contains(id)) {
                self.registry.forget(lost);
            }
        }
    }

    fn app(&self, source: &Arc<CatalogApp>, before: Option<&App>) -> App {
        let mut groups: BTreeMap<Entry, Group> = BTreeMap::new();
        let mut policies = Policies::default();
        for machine in &source.machines {
            if self.first {
                self.registry.find(machine);
            }
            let alive = self.registry.observe(machine, self.now);
            let settled = alive.map_or(self.now, |at| at + SETTLING);
            if !machine.route.cordoned {
                self.machine(source, machine, settled, before, &mut groups, &mut policies);
            }
        }
        for old in before.iter().flat_map(|app| app.groups.iter()) {
            let since_now = self.now + self.limits().vanished;
            let until = old.vanished_until.unwrap_or(since_now);
            let entry = (old.transport, old.external);
            if !groups.contains_key(&entry) && self.now < until {
                let mut group = self.group(source, entry, Some(old));
                group.policy = old.policy.clone();
                group.vanished_until = Some(until);
                groups.insert(entry, group);
            }
        }
        let groups: Vec<_> = groups.into_values().map(Arc::new).collect();
        feed_queues(&groups);
        App {
            source: source.clone(),
            groups,
        }
    }

    /// Adds a Machine to the services it has. What runs is what counts while it is up; else what
    /// it is going to run.
    fn machine(
        &self,
        source: &CatalogApp,
        machine: &CatalogMachine,
        settled: Instant,
        before: Option<&App>,
        groups: &mut BTreeMap<Entry, Group>,
        policies: &mut Policies,
    ) {
        let runs = matches!(machine.live.phase, Phase::Up | Phase::Draining);
        let live = machine
            .live
            .services
            .iter()
            .map(|s| (&s.service, s.healthy));
        let planned = machine.route.services.iter().map(|s| (s, false));
        let services: Vec<_> = if runs {
            live.collect()
        } else {
            planned.collect()
        };
        for (service, healthy) in services {
            let transport = match service.protocol.as_str() {
                "tcp" => Transport::Tcp,
                "udp" => Transport::Udp,
                _ => continue,
            };
            for port in &service.ports {
                let Some(policy) = policies.of(port) else {
                    continue;
                };
                for external in port.range().filter(|port| *port != 0) {
                    let entry = (transport, external);
                    if groups.len() >= MAX_PORTS_PER_APP && !groups.contains_key(&entry) {
                        break;
                    }
                    let group = groups.entry(entry).or_insert_with(|| {
                        let old = before.and_then(|app| app.find(entry));
                        self.group(source, entry, old)
                    });
                    // The first of its services with this port counts.
                    let last = group.candidates.last();
                    if last.is_some_and(|c| c.machine == machine.route.id) {
                        continue;
                    }
                    let from = (service, port, entry);
                    let candidate = self.candidate(machine, settled, from, healthy);
                    // Those that run say how the port is spoken to.
                    if group.candidates.is_empty() || candidate.state == State::Ready {
                        group.policy = policy.clone();
                    }
                    group.candidates.push(candidate);
                }
            }
        }
    }

    fn candidate(
        &self,
        machine: &CatalogMachine,
        settled: Instant,
        (service, port, (transport, external)): (&Service, &Port, Entry),
        healthy: bool,
    ) -> Candidate {
        let (route, live) = (&machine.route, &machine.live);
        let seen = match live.address {
            Some(address) if live.phase == Phase::Up => {
                let port = service.internal_port;
                // The port of a datagram is never rewritten (9.3).
                let reached = match transport {
                    Transport::Tcp => port,
                    Transport::Udp => external,
                };
                let target = (transport, (address, reached).into());
                self.registry.service(&route.id, port, target, self.now)
            }
            _ => None,
        };
        let autostart = service.allows_autostart() && !route.standby;
        let state = match (live.phase, &seen) {
            (Phase::Down | Phase::Suspended, _) => State::Down { autostart, settled },
            (Phase::Draining, _) => State::Draining,
            (Phase::Coming, _) | (Phase::Up, None) => State::Coming,
            (Phase::Up, Some(_)) if healthy => State::Ready,
            (Phase::Up, Some(seen)) if !seen.was_healthy => {
                let limits = self.limits();
                let warming = if seen.found {
                    limits.first_checks.min(limits.warming)
                } else {
                    limits.warming
                };
                State::WarmingUntil(seen.load.up_since + warming)
            }
            (Phase::Up, Some(_)) => State::Unhealthy,
        };
        let regions = &self.config.regions;
        Candidate {
            machine: route.id.clone(),
            state,
            near: regions.is_empty() || regions.contains(&route.region),
            soft: service.soft_limit(),
            hard: service.hard_limit(),
            pooled: service.counts_requests(),
            http2: port.has("http")
                && port
                    .http_options
                    .as_ref()
                    .and_then(|options| options.h2_backend)
                    .unwrap_or(false),
            statics: live.statics.clone(),
            load: seen.map(|seen| seen.load),
        }
    }

    fn group(
        &self,
        source: &CatalogApp,
        (transport, external): Entry,
        old: Option<&Arc<Group>>,
    ) -> Group {
        Group {
            app: source.name.clone(),
            transport,
            external,
            policy: Arc::default(),
            candidates: Vec::new(),
            queue: old.map_or_else(
                || Arc::new(Queue::new(self.held.clone())),
                |old| old.queue.clone(),
            ),
            region: self.region(source),
            vanished_until: None,
        }
    }

    /// Returns the edge's region: the app's primary one where the edge stands for it.
    fn region(&self, source: &CatalogApp) -> HeaderValue {
        let own = &self.config.regions;
        let primary = source.primary_region.as_ref();
        let region = primary
            .filter(|region| own.is_empty() || own.contains(region))
            .or(own.first());
        region
            .map(Region::as_str)
            .and_then(|code| HeaderValue::from_str(code).ok())
            .unwrap_or_else(|| HeaderValue::from_static("local"))
    }

    fn limits(&self) -> &Limits {
        &self.config.limits
    }
}

fn spoken(index: &Index) -> BTreeMap<u16, Arc<Spoken>> {
    let mut ports: BTreeMap<u16, Spoken> = BTreeMap::new();
    let tcp = |group: &&Arc<Group>| group.transport == Transport::Tcp;
    for group in index.groups().filter(tcp) {
        let spoken = ports.entry(group.external).or_default();
        let Policy {
            http,
            tls,
            postgres,
            ..
        } = *group.policy;
        spoken.http |= http && !tls;
        spoken.tls |= tls;
        spoken.postgres |= postgres;
        let list = if tls {
            &mut spoken.behind_tls
        } else {
            &mut spoken.raw
        };
        if (tls || !http) && list.len() < 2 {
            list.push(group.app.clone());
        }
    }
    let shared = ports
        .into_iter()
        .map(|(port, spoken)| (port, Arc::new(spoken)));
    shared.collect()
}

/// Tells every load which queues wait for it: a service may have several external ports.
fn feed_queues(groups: &[Arc<Group>]) {
    let mut fed: HashMap<*const Load, (&Arc<Load>, Vec<Arc<Queue>>)> = HashMap::new();
    for group in groups {
        for load in group.candidates.iter().filter_map(|c| c.load.as_ref()) {
            let (_, queues) = fed
                .entry(Arc::as_ptr(load))
                .or_insert_with(|| (load, Vec::new()));
            queues.push(group.queue.clone());
        }
    }
    for (load, queues) in fed.into_values() {
        load.feed(queues);
    }
}
