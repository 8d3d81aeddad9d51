//! A simulated host and an executor of plans: what the server and the hosts do with a plan, in
//! milliseconds of an invented clock.

use std::collections::{BTreeMap, BTreeSet};

use hangar_api::Timestamp;
use hangar_api::check::{CheckConfig, CheckStatus, Health};
use hangar_api::deployment::DeployOptions;
use hangar_api::event::{EventRequest, ExitEvent, MachineEvent};
use hangar_api::id::{
    AppName, DeploymentId, EventId, GroupName, HostId, InstanceId, MachineId, OpId, Region,
    ReleaseId, SlotId,
};
use hangar_api::image::ImageRef;
use hangar_api::machine::config::{PLATFORM_VERSION, PROCESS_GROUP, RELEASE_ID};
use hangar_api::machine::state::is_done;
use hangar_api::machine::{
    MachineConfig, MachineSpec, MachineState, Observed, Op, OpKind, OpOutcome, Service,
};
use hangar_api::net::{HostPart, NetworkId};
use hangar_api::release::GroupSpec;
use hangar_deploy::{
    Desired, FleetMachine, Kind, LaunchKey, ObservedFleet, Plan, Progress, Step, Verdict, plan,
};

/// What the new version does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Its image cannot be prepared.
    NoImage,
    /// It exits with 1 soon after each start.
    Crashes,
    /// It runs and never passes a check.
    NeverHealthy,
}

#[derive(Clone, Debug)]
pub struct SimMachine {
    pub spec: MachineSpec,
    pub observed: Option<Observed>,
    pub pending: Vec<Op>,
    pub key: Option<LaunchKey>,
    /// The version that runs: config and image of the last generation taken.
    running: Option<(MachineConfig, ImageRef)>,
    agenda: Vec<(i64, Act)>,
    busy: bool,
    fault: Fault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Ready,
    Up(u64),
    Healthy(u64),
    Crash(u64),
    Down,
    Gone,
}

pub struct Sim {
    pub now: i64,
    pub machines: BTreeMap<MachineId, SimMachine>,
    pub keys: BTreeSet<LaunchKey>,
    /// Fault of version 2 by the order in which Machines take it; the last one is for the rest.
    pub faults: Vec<Fault>,
    taken: usize,
    ids: u64,
    sequence: u64,
    pub log: Vec<String>,
}

pub fn group(name: &str) -> GroupName {
    GroupName::new(name).unwrap()
}

pub fn image(version: &str) -> ImageRef {
    ImageRef {
        digest: format!("sha256:{version}"),
        ..ImageRef::default()
    }
}

pub fn release_id(number: u64) -> ReleaseId {
    ReleaseId::new(format!("{number:026}")).unwrap()
}

/// A configuration, with a service and a check or without both.
pub fn config(version: &str, serves: bool) -> MachineConfig {
    let mut config = MachineConfig {
        image: format!("app:{version}"),
        ..MachineConfig::default()
    };
    config.env.insert("VERSION".to_owned(), version.to_owned());
    if serves {
        config.services.push(Service {
            internal_port: 8080,
            checks: vec![CheckConfig {
                kind: Some("http".to_owned()),
                ..CheckConfig::default()
            }],
            ..Service::default()
        });
    }
    config
}

pub fn desired(groups: &[(&str, bool)]) -> Desired {
    let spec = |serves| GroupSpec {
        config: config("v2", serves),
        sets_guest: false,
    };
    Desired {
        deployment: DeploymentId::new("D".repeat(26)).unwrap(),
        release: release_id(2),
        version: 2,
        image_ref: image("v2"),
        secrets_version: 7,
        groups: groups.iter().map(|(g, s)| (group(g), spec(*s))).collect(),
        region: Region::new("iad").unwrap(),
        kind: Kind::Full,
    }
}

impl Sim {
    pub fn new(faults: Vec<Fault>) -> Self {
        Self {
            now: 1_000_000,
            machines: BTreeMap::new(),
            keys: BTreeSet::new(),
            faults,
            taken: 0,
            ids: 0,
            sequence: 0,
            log: Vec::new(),
        }
    }

    pub fn time(&self) -> Timestamp {
        Timestamp::from_millisecond(self.now).unwrap()
    }

    fn ulid(&mut self) -> String {
        self.ids += 1;
        format!("{:026}", self.ids)
    }

    /// Adds a Machine of version 1 that is at rest in `state`.
    pub fn add(&mut self, of: &str, serves: bool, state: MachineState) -> MachineId {
        let mut config = config("v1", serves);
        let mut put = |k: &str, v: &str| config.metadata.insert(k.to_owned(), v.to_owned());
        put(PLATFORM_VERSION, "v2");
        put(PROCESS_GROUP, of);
        put(RELEASE_ID, release_id(1).as_str());
        put("mine", "kept");
        let id = self.insert(config, image("v1"), None);
        let now = self.time();
        let machine = self.machines.get_mut(&id).unwrap();
        machine.running = Some((machine.spec.config.clone(), machine.spec.image_ref.clone()));
        let checks = machine.spec.config.service_checks();
        let checks = checks.into_iter().map(|(name, ..)| CheckStatus {
            name,
            status: Health::Passing,
            output: String::new(),
            updated_at: now,
        });
        machine.observed = Some(Observed {
            state,
            starts: 1,
            checks: checks.collect(),
            ..blank(&machine.spec, now)
        });
        id
    }

    fn insert(
        &mut self,
        config: MachineConfig,
        image_ref: ImageRef,
        key: Option<LaunchKey>,
    ) -> MachineId {
        self.ids += 1;
        let id = MachineId::new(format!("{:014x}", self.ids)).unwrap();
        let at = self.time();
        let spec = MachineSpec {
            id: id.clone(),
            name: format!("m{}", self.ids),
            app: AppName::new("app").unwrap(),
            network: NetworkId(1),
            slot: SlotId::new("s").unwrap(),
            host: HostId::new("h").unwrap(),
            host_part: HostPart(1),
            region: Region::new("iad").unwrap(),
            generation: 1,
            instance_id: InstanceId::new(self.ulid()).unwrap(),
            config,
            image_ref,
            secrets_version: 3,
            cordoned: false,
            created_at: at,
            updated_at: at,
        };
        let machine = SimMachine {
            spec,
            observed: None,
            pending: Vec::new(),
            key,
            running: None,
            agenda: Vec::new(),
            busy: false,
            fault: Fault::None,
        };
        self.machines.insert(id.clone(), machine);
        id
    }

    pub fn fleet(&self) -> ObservedFleet<'_> {
        let view = |m: &'_ SimMachine| -> MachineId { m.spec.id.clone() };
        let machines = self.machines.values().map(|m| {
            let seen = FleetMachine::new(&m.spec, m.observed.as_ref(), &m.pending, m.key.as_ref());
            (view(m), seen)
        });
        ObservedFleet {
            machines: machines.collect(),
        }
    }

    pub fn alive(&self, of: &str) -> Vec<&SimMachine> {
        let machines = self.machines.values();
        machines
            .filter(|m| m.spec.config.process_group() == of && m.state() != MachineState::Destroyed)
            .collect()
    }

    pub fn healthy(&self, of: &str) -> usize {
        let fleet = self.fleet();
        let of_group = |m: &&SimMachine| fleet.machines[&m.spec.id].is_healthy();
        self.alive(of).into_iter().filter(of_group).count()
    }

    // --- the executor's part ---

    pub fn execute(&mut self, step: &Step) {
        self.log.push(format!("{} {}", self.now, name(step)));
        match step {
            Step::Create {
                launch_key,
                config,
                image_ref,
                secrets_version,
                skip_launch,
                ..
            } => {
                if !self.keys.insert(launch_key.clone()) {
                    return;
                }
                let key = Some(launch_key.clone());
                let id = self.insert((**config).clone(), image_ref.clone(), key);
                self.machines.get_mut(&id).unwrap().spec.secrets_version = *secrets_version;
                self.push(
                    &id,
                    OpKind::Create {
                        skip_launch: *skip_launch,
                    },
                );
            }
            Step::Update {
                machine,
                expected,
                config,
                image_ref,
                secrets_version,
                skip_launch,
            } => {
                let Some(generation) = self.checked(machine, expected) else {
                    return;
                };
                let instance = InstanceId::new(self.ulid()).unwrap();
                let at = self.time();
                let spec = &mut self.machines.get_mut(machine).unwrap().spec;
                spec.config = (**config).clone();
                spec.image_ref = image_ref.clone();
                spec.secrets_version = *secrets_version;
                spec.instance_id = instance;
                spec.generation = generation + 1;
                spec.updated_at = at;
                let kind = OpKind::Update {
                    generation: generation + 1,
                    skip_launch: *skip_launch,
                };
                self.push(machine, kind);
            }
            Step::Start { machine, expected } => {
                if self.checked(machine, expected).is_some() {
                    self.push(machine, OpKind::Start);
                }
            }
            Step::Cordon { machine } => {
                self.machines.get_mut(machine).unwrap().spec.cordoned = true;
            }
            Step::Stop { machine, expected } => {
                if self.checked(machine, expected).is_some() {
                    self.push(
                        machine,
                        OpKind::Stop {
                            signal: None,
                            timeout: None,
                        },
                    );
                }
            }
            Step::Destroy { machine, expected } => {
                if self.checked(machine, expected).is_some() {
                    self.push(machine, OpKind::Destroy);
                }
            }
        }
    }

    /// Returns the generation of a Machine that still has the expected version.
    fn checked(&self, machine: &MachineId, expected: &InstanceId) -> Option<u64> {
        let machine = self.machines.get(machine)?;
        (machine.spec.instance_id == *expected).then_some(machine.spec.generation)
    }

    fn push(&mut self, machine: &MachineId, kind: OpKind) {
        let op = Op {
            id: OpId::new(self.ulid()).unwrap(),
            kind,
            by: "deploy".to_owned(),
        };
        self.machines.get_mut(machine).unwrap().pending.push(op);
        self.kick(machine);
    }

    // --- the host's part ---

    fn edit(&mut self, id: &MachineId, change: impl FnOnce(&mut SimMachine, &mut Observed)) {
        self.sequence += 1;
        let (sequence, now) = (self.sequence, self.time());
        let machine = self.machines.get_mut(id).unwrap();
        let mut observed = machine
            .observed
            .take()
            .unwrap_or_else(|| blank(&machine.spec, now));
        observed.sequence = sequence;
        change(machine, &mut observed);
        observed.events.truncate(20);
        machine.observed = Some(observed);
    }

    /// Begins the next op of a Machine that is not busy with one.
    fn kick(&mut self, id: &MachineId) {
        let machine = self.machines.get_mut(id).unwrap();
        let observed = machine.observed.clone();
        machine.pending.retain(|op| !is_done(op, observed.as_ref()));
        let starting = observed.is_some_and(|o| o.state == MachineState::Starting);
        if machine.busy || starting {
            return;
        }
        let Some(op) = machine.pending.first().cloned() else {
            return;
        };
        machine.busy = true;
        let now = self.now;
        match op.kind {
            OpKind::Create { .. } => self.edit(id, |m, o| {
                o.events.insert(0, event("launch", "created", now, None));
                m.agenda.push((now + 20, Act::Ready));
            }),
            OpKind::Update { .. } => self.edit(id, |m, o| {
                o.events.insert(0, event("update", "replacing", now, None));
                m.agenda.push((now + 20, Act::Ready));
            }),
            OpKind::Stop { .. } => self.edit(id, |m, o| {
                m.agenda.clear();
                if o.state == MachineState::Started {
                    o.state = MachineState::Stopping;
                }
                m.agenda.push((now + 5, Act::Down));
            }),
            OpKind::Destroy => self.edit(id, |m, o| {
                m.agenda.clear();
                o.state = MachineState::Destroying;
                m.agenda.push((now + 5, Act::Gone));
            }),
            _ => self.launch(id),
        }
    }

    fn launch(&mut self, id: &MachineId) {
        let now = self.now;
        self.edit(id, |m, o| {
            o.starts += 1;
            o.state = MachineState::Starting;
            o.checks.clear();
            m.agenda.push((now + 10, Act::Up(o.starts)));
        });
    }

    fn finish(&mut self, id: &MachineId, error: Option<&str>) {
        let error = error.map(str::to_owned);
        self.edit(id, |m, o| {
            if m.busy
                && let Some(op) = m.pending.first()
            {
                o.last_op = Some(OpOutcome {
                    id: op.id.clone(),
                    error,
                });
            }
            m.busy = false;
        });
        self.kick(id);
    }

    /// Runs the hosts until `until`, or only the next thing that happens before.
    pub fn step(&mut self, until: i64) -> bool {
        let all = self.machines.iter();
        let next = all
            .flat_map(|(id, m)| {
                m.agenda
                    .iter()
                    .map(move |(at, act)| (*at, id.clone(), *act))
            })
            .min_by_key(|(at, id, _)| (*at, id.clone()));
        let Some((at, id, act)) = next.filter(|(at, ..)| *at <= until) else {
            self.now = self.now.max(until);
            return false;
        };
        self.now = self.now.max(at);
        let agenda = &mut self.machines.get_mut(&id).unwrap().agenda;
        let index = agenda.iter().position(|a| *a == (at, act)).unwrap();
        agenda.remove(index);
        self.act(&id, act);
        true
    }

    fn act(&mut self, id: &MachineId, act: Act) {
        let now = self.now;
        match act {
            Act::Ready => self.ready(id),
            Act::Up(run) => self.up(id, run),
            Act::Healthy(run) => self.edit(id, |m, o| {
                if o.starts == run && o.state == MachineState::Started {
                    let config = &m.running.as_ref().unwrap().0;
                    o.checks = config
                        .service_checks()
                        .into_iter()
                        .map(|(name, ..)| CheckStatus {
                            name,
                            status: Health::Passing,
                            output: "ok".to_owned(),
                            updated_at: Timestamp::from_millisecond(now).unwrap(),
                        })
                        .collect();
                }
            }),
            Act::Crash(run) => {
                let current = self.machines[id].observed.as_ref().unwrap();
                if current.starts != run || current.state != MachineState::Started {
                    return;
                }
                self.edit(id, |_, o| {
                    o.events
                        .insert(0, event("exit", "stopped", now, Some(exit(now, false))));
                    o.state = MachineState::Starting;
                });
                // One that is being updated comes up with its new version.
                if !self.machines[id].busy {
                    self.launch(id);
                }
            }
            Act::Down => {
                self.edit(id, |_, o| {
                    o.state = MachineState::Stopped;
                    o.checks.clear();
                    o.events
                        .insert(0, event("exit", "stopped", now, Some(exit(now, true))));
                });
                let relaunch = self.machines[id].pending.first().is_some_and(|op| {
                    matches!(
                        op.kind,
                        OpKind::Update {
                            skip_launch: false,
                            ..
                        }
                    )
                });
                if relaunch && self.machines[id].busy {
                    self.launch(id);
                } else {
                    self.finish(id, None);
                }
            }
            Act::Gone => {
                self.edit(id, |_, o| o.state = MachineState::Destroyed);
                self.finish(id, None);
            }
        }
    }

    /// The image is prepared, or cannot be.
    fn ready(&mut self, id: &MachineId) {
        let now = self.now;
        let is_v2 = self.machines[id].spec.image_ref == image("v2");
        let fault = if is_v2 {
            let last = self.faults.last().copied().unwrap_or(Fault::None);
            let fault = self.faults.get(self.taken).copied().unwrap_or(last);
            self.taken += 1;
            fault
        } else {
            Fault::None
        };
        let mut up = false;
        let mut launch = false;
        let mut error = None;
        self.edit(id, |m, o| {
            up = o.state == MachineState::Started;
            let op = m.pending.first().map(|op| op.kind.clone());
            if fault == Fault::NoImage {
                error = Some("image not found");
                if matches!(op, Some(OpKind::Create { .. })) {
                    o.state = MachineState::Failed;
                }
                return;
            }
            m.fault = fault;
            m.running = Some((m.spec.config.clone(), m.spec.image_ref.clone()));
            o.generation = m.spec.generation;
            o.instance_id = m.spec.instance_id.clone();
            launch = matches!(op, Some(OpKind::Create { skip_launch: false }))
                || o.state == MachineState::Starting;
            if up {
                o.state = MachineState::Stopping;
                m.agenda
                    .retain(|(_, a)| !matches!(a, Act::Crash(_) | Act::Up(_)));
                m.agenda.push((now + 5, Act::Down));
            } else if !launch {
                o.state = MachineState::Stopped;
            }
        });
        match (error, up, launch) {
            (Some(_), ..) => self.finish(id, error),
            (None, true, _) => {}
            (None, false, true) => self.launch(id),
            (None, false, false) => self.finish(id, None),
        }
    }

    fn up(&mut self, id: &MachineId, run: u64) {
        let now = self.now;
        let current = self.machines[id].observed.as_ref().unwrap();
        if current.starts != run || current.state != MachineState::Starting {
            return;
        }
        self.edit(id, |m, o| {
            o.state = MachineState::Started;
            o.events.insert(0, event("start", "started", now, None));
            match m.fault {
                Fault::Crashes => m.agenda.push((now + 300, Act::Crash(run))),
                Fault::NeverHealthy => {}
                _ => m.agenda.push((now + 200, Act::Healthy(run))),
            }
        });
        self.finish(id, None);
    }
}

impl SimMachine {
    pub fn state(&self) -> MachineState {
        hangar_api::machine::state::api_state(&self.spec, &self.pending, self.observed.as_ref())
    }
}

fn blank(spec: &MachineSpec, at: Timestamp) -> Observed {
    Observed {
        boot: 1,
        sequence: 0,
        state: MachineState::Created,
        generation: if spec.generation == 1 { 1 } else { 0 },
        instance_id: spec.instance_id.clone(),
        starts: 0,
        last_op: None,
        exit: None,
        restart_count: 0,
        reason: None,
        checks: Vec::new(),
        events: Vec::new(),
        updated_at: at,
    }
}

fn event(kind: &str, status: &str, at: i64, exit: Option<ExitEvent>) -> MachineEvent {
    MachineEvent {
        id: EventId::new("0".repeat(26)).unwrap(),
        kind: kind.to_owned(),
        status: status.to_owned(),
        source: "flyd".to_owned(),
        timestamp: at,
        request: exit.map(|exit| EventRequest {
            exit_event: Some(exit),
            restart_count: 0,
        }),
    }
}

fn exit(at: i64, asked: bool) -> ExitEvent {
    ExitEvent {
        exit_code: i32::from(!asked),
        guest_exit_code: i32::from(!asked),
        guest_signal: -1,
        signal: -1,
        oom_killed: false,
        requested_stop: asked,
        restarting: !asked,
        exited_at: Timestamp::from_millisecond(at).unwrap(),
    }
}

/// Returns a step in a short text.
pub fn name(step: &Step) -> String {
    let id = |m: &MachineId| m.as_str()[10..].to_owned();
    match step {
        Step::Create {
            launch_key,
            skip_launch,
            ..
        } => {
            let kind = if *skip_launch { "standby" } else { "create" };
            format!("{kind} {}/{}", launch_key.group, launch_key.ordinal)
        }
        Step::Update {
            machine,
            image_ref,
            skip_launch,
            ..
        } => {
            let skip = if *skip_launch { " skip" } else { "" };
            format!("update {} {}{skip}", id(machine), image_ref.digest)
        }
        Step::Start { machine, .. } => format!("start {}", id(machine)),
        Step::Cordon { machine } => format!("cordon {}", id(machine)),
        Step::Stop { machine, .. } => format!("stop {}", id(machine)),
        Step::Destroy { machine, .. } => format!("destroy {}", id(machine)),
    }
}

/// Drives a deployment to its end as the server does, and returns how it ended.
///
/// `crashes` says, plan by plan, how many of its steps are carried out before the server dies and
/// starts again from the stored progress; `watch` sees the fleet after everything that happens.
pub fn drive(
    sim: &mut Sim,
    desired: &Desired,
    options: &DeployOptions,
    crashes: &[Option<usize>],
    mut watch: impl FnMut(&Sim, &Progress),
) -> (Verdict, Progress) {
    let mut stored = serde_json::to_value(Progress::default()).unwrap();
    let mut crashes = crashes.iter().copied();
    for _ in 0..2_000 {
        let progress: Progress = serde_json::from_value(stored.clone()).unwrap();
        let next: Plan = plan(desired, &sim.fleet(), &progress, sim.time(), options);
        assert_eq!(next.changed, next.progress != progress);
        stored = serde_json::to_value(&next.progress).unwrap();
        let dies = crashes.next().flatten().unwrap_or(usize::MAX);
        for step in next.ready.iter().take(dies) {
            sim.execute(step);
            watch(sim, &next.progress);
        }
        if dies < next.ready.len() {
            continue;
        }
        if !next.ready.is_empty() {
            continue;
        }
        if next.verdict.status().is_over() {
            return (next.verdict, next.progress);
        }
        let wake = next.wake_at.unwrap_or_else(|| {
            panic!(
                "nothing to do and nothing to wait for: {:#?}",
                next.progress
            )
        });
        // Until a gate has an edge, or the time has come.
        while sim.step(wake.as_millisecond()) {
            watch(sim, &next.progress);
            let fleet = sim.fleet();
            let edge =
                |g: &hangar_deploy::Gate| g.has_edge(fleet.machines.get(&g.machine), sim.time());
            if next.gates.iter().any(edge) {
                break;
            }
        }
    }
    panic!("the deployment does not end:\n{}", sim.log.join("\n"));
}
