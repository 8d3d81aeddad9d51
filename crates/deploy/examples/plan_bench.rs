//! How long reading a fly.toml and planning a deploy take, and how much memory the plan needs: for
//! fleets of 1 to 100,000 Machines in 1 to 50 groups. Called by `benches/run.py plan`; prints one
//! JSON object a line.
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Instant;

use hangar_api::Timestamp;
use hangar_api::check::{CheckStatus, Health};
use hangar_api::deployment::DeployOptions;
use hangar_api::id::{
    AppName, DeploymentId, GroupName, HostId, InstanceId, MachineId, Region, ReleaseId, SlotId,
};
use hangar_api::image::ImageRef;
use hangar_api::machine::{MachineSpec, MachineState, Observed};
use hangar_api::net::{HostPart, NetworkId};
use hangar_config::{AppConfig, Format, Inputs};
use hangar_deploy::{Desired, FleetMachine, Kind, ObservedFleet, Progress, plan};

/// Times that each step is repeated; the median counts.
const ROUNDS: usize = 9;

fn main() {
    for (machines, groups) in [
        (1, 1),
        (100, 1),
        (100, 10),
        (10_000, 1),
        (10_000, 50),
        (100_000, 50),
    ] {
        measure(machines, groups);
    }
}

fn measure(machines: usize, groups: usize) {
    let text = file(groups);
    let parse = median(|| {
        let config = read(&text);
        config.machine_configs(&inputs()).expect("it is right");
    });
    let desired = desired(&text, 2);
    let before = resident_kib();
    let fleet = Fleet::new(&text, machines);
    let of_fleet = resident_kib().saturating_sub(before);
    let observed = fleet.view();
    let options = DeployOptions::default();
    let now = Timestamp::from_second(1_000).expect("it is right");
    let before = resident_kib();
    let mut plans = Vec::new();
    let first = median(|| {
        let planned = plan(&desired, &observed, &Progress::default(), now, &options);
        plans.clear();
        plans.push(planned);
    });
    let of_plan = resident_kib().saturating_sub(before);
    let mut progress = plans.remove(0).progress;
    // Begin, releasing, creating: the next one updates.
    for _ in 0..4 {
        progress = plan(&desired, &observed, &progress, now, &options).progress;
    }
    let next = median(|| {
        std::hint::black_box(plan(&desired, &observed, &progress, now, &options));
    });
    println!(
        "{{\"machines\": {machines}, \"groups\": {groups}, \"parse_ms\": {parse:.3}, \"first_plan_ms\": {first:.3}, \"next_plan_ms\": {next:.3}, \"fleet_kib\": {of_fleet}, \"plan_kib\": {of_plan}}}"
    );
}

fn median(mut work: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let begun = Instant::now();
            work();
            begun.elapsed().as_secs_f64() * 1000.0
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[ROUNDS / 2]
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let number = line.and_then(|l| l.split_whitespace().next());
    number.and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// A fly.toml with so many groups, each with a service, a check and a size.
fn file(groups: usize) -> String {
    let mut text =
        "app = \"bench\"\nprimary_region = \"iad\"\n[env]\nA = \"1\"\nB = \"2\"\n[processes]\n"
            .to_owned();
    for i in 0..groups {
        writeln!(text, "g{i} = \"serve --group {i}\"").expect("it is right");
    }
    for i in 0..groups {
        write!(
            text,
            "[[services]]\ninternal_port = 8080\nprotocol = \"tcp\"\nprocesses = [\"g{i}\"]\n[[services.ports]]\nport = {}\n[[services.http_checks]]\npath = \"/\"\ninterval = \"10s\"\n[[vm]]\nsize = \"shared-cpu-1x\"\nprocesses = [\"g{i}\"]\n",
            10_000 + i
        )
        .expect("it is right");
    }
    text
}

fn read(text: &str) -> AppConfig {
    let loaded = hangar_config::load(text, Format::Toml);
    loaded.config.expect("the file is right")
}

fn inputs() -> Inputs {
    Inputs {
        image: "bench:1".to_owned(),
        ..Inputs::default()
    }
}

fn release_id(version: u64) -> ReleaseId {
    ReleaseId::new(format!("{version:026}")).expect("it is right")
}

fn desired(text: &str, version: u64) -> Desired {
    Desired {
        deployment: DeploymentId::new("D".repeat(26)).expect("it is right"),
        release: release_id(version),
        version,
        image_ref: ImageRef::default(),
        secrets_version: 1,
        groups: read(text).machine_configs(&inputs()).expect("it is right"),
        release_command: None,
        region: Region::new("iad").expect("it is right"),
        kind: Kind::Full,
    }
}

struct Fleet(Vec<(MachineSpec, Observed)>);

impl Fleet {
    /// A fleet at rest, of a former version, its Machines dealt to the groups in turn.
    fn new(text: &str, machines: usize) -> Self {
        let groups: BTreeMap<GroupName, _> =
            read(text).machine_configs(&inputs()).expect("it is right");
        let groups: Vec<_> = groups.into_values().collect();
        let at = Timestamp::from_second(1).expect("it is right");
        let all = (0..machines).map(|i| {
            let mut config = groups[i % groups.len()].config.clone();
            config
                .metadata
                .insert("fly_release_id".to_owned(), release_id(1).to_string());
            let spec = MachineSpec {
                id: MachineId::new(format!("{:014x}", i + 1)).expect("it is right"),
                name: format!("m{i}"),
                app: AppName::new("bench").expect("it is right"),
                network: NetworkId(1),
                slot: SlotId::new("s").expect("it is right"),
                host: HostId::new("h").expect("it is right"),
                host_part: HostPart(1),
                region: Region::new("iad").expect("it is right"),
                generation: 1,
                instance_id: InstanceId::new(format!("{i:026}")).expect("it is right"),
                config,
                image_ref: ImageRef::default(),
                secrets_version: 1,
                cordoned: false,
                created_at: at,
                updated_at: at,
            };
            let checks = spec.config.service_checks();
            let checks = checks.into_iter().map(|(name, ..)| CheckStatus {
                name,
                status: Health::Passing,
                output: String::new(),
                updated_at: at,
            });
            let observed = Observed {
                boot: 1,
                sequence: 1,
                state: MachineState::Started,
                generation: 1,
                instance_id: spec.instance_id.clone(),
                starts: 1,
                last_op: None,
                exit: None,
                restart_count: 0,
                reason: None,
                checks: checks.collect(),
                events: Vec::new(),
                updated_at: at,
            };
            (spec, observed)
        });
        Self(all.collect())
    }

    fn view(&self) -> ObservedFleet<'_> {
        let machines = self.0.iter().map(|(spec, observed)| {
            let machine = FleetMachine::new(spec, Some(observed), &[], None);
            (spec.id.clone(), machine)
        });
        ObservedFleet {
            machines: machines.collect(),
            free_volumes: Vec::new(),
            formations: BTreeMap::new(),
        }
    }
}
