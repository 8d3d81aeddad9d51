//! A simulated host and an executor of plans: what the server and the hosts do with a plan, in
//! milliseconds of an invented clock.

pub(crate) mod host;
pub(crate) mod volumes;

use std::collections::{BTreeMap, BTreeSet};

use self::host::blank;
use hangar_api::Timestamp;
use hangar_api::check::{CheckConfig, CheckStatus, Health};
use hangar_api::deployment::{DeployOptions, Strategy};
use hangar_api::event::{EventRequest, ExitEvent, MachineEvent};
use hangar_api::formation::Formation;
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
use hangar_api::release::{GroupSpec, ReleaseCommand, TestMachine};
use hangar_deploy::progress::Failure;
use hangar_deploy::{
    Desired, FleetMachine, Kind, LaunchKey, ObservedFleet, Plan, Progress, Step, Verdict, plan,
};

/// What the new version does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Its image cannot be prepared.
    NoImage,
    /// It exits with 1 soon after each start.
    Crashes,
    /// It runs and never passes a check.
    NeverHealthy,
    /// It passes its checks and then exits.
    PassesThenCrashes,
    /// It passes its checks and then fails them for ever.
    PassesThenFails,
    /// A job: it exits with 0 after 12 seconds and rests.
    EndsWell,
}

#[derive(Clone, Debug)]
pub(crate) struct SimMachine {
    pub(crate) spec: MachineSpec,
    pub(crate) observed: Option<Observed>,
    pub(crate) pending: Vec<Op>,
    pub(crate) key: Option<LaunchKey>,
    /// Its slot is marked lost.
    pub(crate) lost: bool,
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
    End(u64),
    Sick(u64),
    Down,
    Gone,
}

pub(crate) struct Sim {
    pub(crate) now: i64,
    pub(crate) machines: BTreeMap<MachineId, SimMachine>,
    pub(crate) keys: BTreeSet<LaunchKey>,
    /// Fault of version 2 by the order in which Machines take it; the last one is for the rest.
    pub(crate) faults: Vec<Fault>,
    taken: usize,
    /// What groups should have, where somebody has said so.
    pub(crate) formations: BTreeMap<GroupName, Formation>,
    /// What release commands and test Machines exit with.
    pub(crate) release_exit: i32,
    pub(crate) test_exit: i32,
    /// How often a release command was started.
    pub(crate) releases_run: usize,
    /// The app's volumes, attached or not, in the order in which they were made.
    pub(crate) volumes: Vec<volumes::SimVolume>,
    /// Whether a slot has no room for the next Machine, in the order in which they are asked for;
    /// the last one is for the rest.
    pub(crate) no_room: Vec<bool>,
    asked: usize,
    ids: u64,
    sequence: u64,
    pub(crate) log: Vec<String>,
}

pub(crate) fn group(name: &str) -> GroupName {
    GroupName::new(name).unwrap()
}

pub(crate) fn image(version: &str) -> ImageRef {
    ImageRef {
        digest: format!("sha256:{version}"),
        ..ImageRef::default()
    }
}

pub(crate) fn release_id(number: u64) -> ReleaseId {
    ReleaseId::new(format!("{number:026}")).unwrap()
}

/// A configuration, with a service and a check or without both.
pub(crate) fn config(version: &str, serves: bool) -> MachineConfig {
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

pub(crate) fn desired(groups: &[(&str, bool)]) -> Desired {
    let spec = |serves| GroupSpec {
        config: config("v2", serves),
        sets_guest: false,
        test_machines: Vec::new(),
        volumes: Vec::new(),
    };
    Desired {
        deployment: DeploymentId::new("D".repeat(26)).unwrap(),
        release: release_id(2),
        version: 2,
        image_ref: image("v2"),
        secrets_version: 7,
        groups: groups.iter().map(|(g, s)| (group(g), spec(*s))).collect(),
        release_command: None,
        region: Region::new("iad").unwrap(),
        kind: Kind::Full,
    }
}

pub(crate) fn release_command() -> ReleaseCommand {
    ReleaseCommand {
        config: config("v2", false),
        sets_guest: false,
        timeout_secs: 60,
    }
}

pub(crate) fn test_machine() -> TestMachine {
    TestMachine {
        config: MachineConfig::default(),
        image_ref: None,
    }
}

impl Sim {
    pub(crate) fn new(faults: Vec<Fault>) -> Self {
        Self {
            now: 1_000_000,
            machines: BTreeMap::new(),
            keys: BTreeSet::new(),
            faults,
            taken: 0,
            formations: BTreeMap::new(),
            release_exit: 0,
            test_exit: 0,
            releases_run: 0,
            volumes: Vec::new(),
            no_room: Vec::new(),
            asked: 0,
            ids: 0,
            sequence: 0,
            log: Vec::new(),
        }
    }

    pub(crate) fn time(&self) -> Timestamp {
        Timestamp::from_millisecond(self.now).unwrap()
    }

    fn ulid(&mut self) -> String {
        self.ids += 1;
        format!("{:026}", self.ids)
    }

    /// Adds a Machine of version 1 that is at rest in `state`.
    pub(crate) fn add(&mut self, of: &str, serves: bool, state: MachineState) -> MachineId {
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

    /// Adds a Machine of version 1 that somebody has just asked for.
    pub(crate) fn add_coming(&mut self, of: &str, serves: bool) -> MachineId {
        let like = self.add(of, serves, MachineState::Started);
        let like = self.machines.remove(&like).unwrap();
        let id = self.insert(like.spec.config, like.spec.image_ref, None);
        self.push(&id, OpKind::Create { skip_launch: false });
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
            lost: false,
            running: None,
            agenda: Vec::new(),
            busy: false,
            fault: Fault::None,
        };
        self.machines.insert(id.clone(), machine);
        id
    }

    pub(crate) fn fleet(&self) -> ObservedFleet<'_> {
        let view = |m: &'_ SimMachine| -> MachineId { m.spec.id.clone() };
        let machines = self.machines.values().map(|m| {
            let seen = FleetMachine {
                is_lost: m.lost,
                ..FleetMachine::new(&m.spec, m.observed.as_ref(), &m.pending, m.key.as_ref())
            };
            (view(m), seen)
        });
        ObservedFleet {
            machines: machines.collect(),
            free_volumes: self.free_volumes(),
            formations: self.formations.clone(),
        }
    }

    pub(crate) fn alive(&self, of: &str) -> Vec<&SimMachine> {
        let machines = self.machines.values();
        machines
            .filter(|m| m.spec.config.process_group() == of && m.state() != MachineState::Destroyed)
            .collect()
    }

    pub(crate) fn healthy(&self, of: &str) -> usize {
        let fleet = self.fleet();
        let of_group = |m: &&SimMachine| fleet.machines[&m.spec.id].is_healthy();
        self.alive(of).into_iter().filter(of_group).count()
    }

    /// Returns how many Machines of a group are healthy and in the proxy.
    pub(crate) fn serving(&self, of: &str) -> usize {
        let fleet = self.fleet();
        let serves = |m: &&SimMachine| !m.spec.cordoned && fleet.machines[&m.spec.id].is_healthy();
        self.alive(of).into_iter().filter(serves).count()
    }

    // --- the executor's part ---

    /// Carries a step out, as the server does; what it says was not done.
    pub(crate) fn execute(&mut self, step: &Step) -> Outcome {
        self.log.push(format!("{} {}", self.now, name(step)));
        match step {
            Step::Create { .. } => return self.create(step),
            Step::Update { .. } => return self.update(step),
            Step::Start { machine, expected } => {
                if self.checked(machine, expected).is_some() {
                    self.push(machine, OpKind::Start);
                }
            }
            Step::Cordon { machine } => {
                self.machines.get_mut(machine).unwrap().spec.cordoned = true;
            }
            Step::Uncordon { machine } => {
                self.machines.get_mut(machine).unwrap().spec.cordoned = false;
            }
            Step::Stop {
                machine,
                expected,
                signal,
            } => {
                if self.checked(machine, expected).is_some() {
                    self.push(
                        machine,
                        OpKind::Stop {
                            signal: signal.clone(),
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
        Outcome::Done
    }

    fn create(&mut self, step: &Step) -> Outcome {
        let Step::Create {
            launch_key,
            config,
            image_ref,
            secrets_version,
            skip_launch,
            cordoned,
            region,
            ..
        } = step
        else {
            return Outcome::Done;
        };
        if self.keys.contains(launch_key) {
            return Outcome::Done;
        }
        let last = self.no_room.last().copied().unwrap_or(false);
        let no_room = self.no_room.get(self.asked).copied().unwrap_or(last);
        self.asked += 1;
        if no_room {
            return Outcome::Failed("no slot has room".to_owned());
        }
        let mut config = (**config).clone();
        let claimed = match self.claim(&mut config, region) {
            Ok(claimed) => claimed,
            Err(reason) => return Outcome::Moved(reason),
        };
        self.keys.insert(launch_key.clone());
        let id = self.insert(config, image_ref.clone(), Some(launch_key.clone()));
        if let Some(at) = claimed {
            self.volumes[at].attached = Some(id.clone());
        }
        let spec = &mut self.machines.get_mut(&id).unwrap().spec;
        spec.secrets_version = *secrets_version;
        spec.cordoned = *cordoned;
        spec.region = region.clone();
        let kind = OpKind::Create {
            skip_launch: *skip_launch,
        };
        self.push(&id, kind);
        Outcome::Done
    }

    fn update(&mut self, step: &Step) -> Outcome {
        let Step::Update {
            machine,
            expected,
            config,
            image_ref,
            secrets_version,
            skip_launch,
        } = step
        else {
            return Outcome::Done;
        };
        let Some(generation) = self.checked(machine, expected) else {
            return Outcome::Done;
        };
        let mut config = (**config).clone();
        if let Err(reason) = volumes::keep(&self.machines[machine].spec.config, &mut config) {
            return Outcome::Failed(reason);
        }
        let instance = InstanceId::new(self.ulid()).unwrap();
        let at = self.time();
        let spec = &mut self.machines.get_mut(machine).unwrap().spec;
        spec.config = config;
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
        Outcome::Done
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
}

/// What became of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is done, or was done before.
    Done,
    /// Refused, because the world has moved: plan again.
    Moved(String),
    /// It cannot be done.
    Failed(String),
}

impl SimMachine {
    pub(crate) fn state(&self) -> MachineState {
        hangar_api::machine::state::api_state(&self.spec, &self.pending, self.observed.as_ref())
    }
}

/// Returns a step in a short text.
pub(crate) fn name(step: &Step) -> String {
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
        Step::Uncordon { machine } => format!("uncordon {}", id(machine)),
        Step::Stop { machine, .. } => format!("stop {}", id(machine)),
        Step::Destroy { machine, .. } => format!("destroy {}", id(machine)),
    }
}

/// Returns the options of a strategy.
pub(crate) fn by(strategy: Strategy) -> DeployOptions {
    DeployOptions {
        strategy,
        ..DeployOptions::default()
    }
}

/// Drives a deployment to its end without any trouble, and returns how it ended.
pub(crate) fn run(sim: &mut Sim, wanted: &Desired, options: &DeployOptions) -> Verdict {
    drive(sim, wanted, options, &[], |_, _| {}).0
}

/// Drives a deployment to its end as the server does, and returns how it ended.
///
/// `crashes` says, plan by plan, how many of its steps are carried out before the server dies and
/// starts again from the stored progress; `watch` sees the fleet after everything that happens.
pub(crate) fn drive(
    sim: &mut Sim,
    desired: &Desired,
    options: &DeployOptions,
    crashes: &[Option<usize>],
    mut watch: impl FnMut(&Sim, &Progress),
) -> (Verdict, Progress) {
    let mut stored = serde_json::to_value(Progress::default()).unwrap();
    let mut crashes = crashes.iter().copied();
    let mut refusals = 0;
    for _ in 0..2_000 {
        let progress: Progress = serde_json::from_value(stored.clone()).unwrap();
        let next: Plan = plan(desired, &sim.fleet(), &progress, sim.time(), options);
        assert_eq!(next.changed, next.progress != progress);
        stored = serde_json::to_value(&next.progress).unwrap();
        let dies = crashes.next().flatten().unwrap_or(usize::MAX);
        let mut outcomes = Vec::new();
        for step in next.ready.iter().take(dies) {
            outcomes.push((step, sim.execute(step)));
            watch(sim, &next.progress);
        }
        if dies < next.ready.len() {
            continue;
        }
        if !next.ready.is_empty() {
            let failed = after_wave(sim, &outcomes, &mut refusals);
            let mut progress = next.progress.clone();
            failed.into_iter().for_each(|f| progress.report(f));
            stored = serde_json::to_value(&progress).unwrap();
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

/// Most waves in a row of nothing but refusals that the server tries again.
const MAX_REFUSALS: usize = 8;

/// Returns what the server reports after a wave: what failed, and, when there was nothing but
/// refusals for long enough, what was refused.
fn after_wave(sim: &mut Sim, outcomes: &[(&Step, Outcome)], refusals: &mut usize) -> Vec<Failure> {
    let said = |step: &Step, reason: &String| Failure {
        machine: step.machine().cloned(),
        group: None,
        reason: reason.clone(),
    };
    let mut failed = Vec::new();
    let mut refused = Vec::new();
    let mut done = 0;
    for (step, outcome) in outcomes {
        match outcome {
            Outcome::Done => done += 1,
            Outcome::Failed(reason) => failed.push(said(step, reason)),
            Outcome::Moved(reason) => refused.push(said(step, reason)),
        }
    }
    if refused.is_empty() || done > 0 {
        *refusals = 0;
        return failed;
    }
    *refusals += 1;
    if *refusals > MAX_REFUSALS {
        *refusals = 0;
        failed.extend(refused);
    }
    let until = sim.now + 500;
    while sim.step(until) {}
    failed
}
