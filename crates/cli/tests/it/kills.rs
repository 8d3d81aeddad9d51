//! The server, the container helper, its workers, and all of them at once, killed at random
//! moments of everything they do. Afterwards every Machine is what the store says: none lost, none twice, every exit code
//! known, no log line doubled, nothing left behind.
//!
//! `HANGAR_LONG=1` kills 200 times, `HANGAR_SEED` repeats a run.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hangar_testkit::random::Random;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::world::{World, fly_toml, group, service};

const APP: &str = "kills";
const HELPER: &str = "__helper";
const SHORT: u32 = 25;
const LONG: u32 = 200;
/// A kill falls at most so long after a deploy was asked for, and after anything else.
const DEPLOY_MS: u64 = 250;
const OTHER_MS: u64 = 30;

/// Whom the kills are for.
#[derive(Clone, Copy, PartialEq)]
enum Victim {
    Server,
    Helper,
    /// Those who make and remove containers, the helper's children.
    Workers,
    /// Server, helper and workers: what a server's end by the out-of-memory killer, or by a
    /// service manager that ends a whole group, comes to.
    All,
}

struct Story {
    world: World,
    random: Random,
    victim: Victim,
    version: u32,
    /// Kills that met something in flight.
    in_flight: u32,
}

fn toml(version: u32) -> String {
    // `job` ends with a code of its own and is not run again; `lines` numbers what it says.
    let groups =
        "[processes]\nweb = \"serve\"\nlines = \"lines 1000000 5\"\njob = \"exit 7 300\"\n";
    let restart = "[[restart]]\npolicy = \"never\"\nprocesses = [\"job\"]\n";
    fly_toml(
        APP,
        &format!(
            "kill_timeout = \"2s\"\n[env]\nVERSION = \"{version}\"\n{groups}{restart}{}",
            service(&["web"])
        ),
    )
}

#[test]
fn a_server_killed_at_random_moments_loses_nothing_and_does_nothing_twice() {
    run(Victim::Server);
}

#[test]
fn a_helper_killed_at_random_moments_loses_nothing_and_does_nothing_twice() {
    run(Victim::Helper);
}

#[test]
fn workers_killed_at_random_moments_lose_nothing_and_do_nothing_twice() {
    run(Victim::Workers);
}

#[test]
fn all_of_hangar_killed_at_random_moments_loses_nothing_and_does_nothing_twice() {
    run(Victim::All);
}

fn run(victim: Victim) {
    let Some(world) = World::start() else { return };
    let kills = if std::env::var_os("HANGAR_LONG").is_some() {
        LONG
    } else {
        SHORT
    };
    let chosen = std::env::var("HANGAR_SEED")
        .ok()
        .and_then(|s| s.parse().ok());
    let seed = chosen.unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("HANGAR_SEED={seed}");
    let mut story = Story {
        world,
        random: Random::new(seed),
        victim,
        version: 1,
        in_flight: 0,
    };
    story.begin();
    for number in 0..kills {
        story.round(number);
    }
    story.judge(kills);
}

// === impl Story ===

impl Story {
    fn begin(&mut self) {
        let folder = self.world.app(APP, &toml(1));
        self.world
            .ok(&["deploy", &folder, "--ha=false", "--smoke-checks=false"]);
        self.world.ok(&[
            "scale", "count", "web=2", "lines=2", "job=2", "-a", APP, "--yes",
        ]);
    }

    /// Asks for something, kills in the middle of it, and brings everything up again.
    fn round(&mut self, number: u32) {
        let mut asked = self.meet();
        let busy = self.something_moves();
        self.in_flight += u32::from(busy);
        match self.victim {
            Victim::Server => {
                self.world.kill_server();
                std::thread::sleep(Duration::from_millis(self.random.below(30)));
                self.world.start_server();
            }
            Victim::Helper => kill(&helpers(&self.world)),
            Victim::Workers => {
                let helpers = helpers(&self.world);
                let mut workers = makers(&self.world);
                workers.retain(|pid| !helpers.contains(pid));
                kill(&workers);
            }
            Victim::All => {
                let makers = makers(&self.world);
                self.world.kill_server();
                kill(&makers);
                std::thread::sleep(Duration::from_millis(self.random.below(30)));
                self.world.start_server();
            }
        }
        // It follows what it asked for to the end, whatever that is; or was cut off.
        let limit = Instant::now() + Duration::from_secs(90);
        while asked.try_wait().unwrap().is_none() {
            if Instant::now() > limit {
                let machines = self.world.machines(APP);
                panic!("kill {number}: a command does not come back: {machines:#?}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        if number % 5 == 4 {
            self.settle(number);
        }
    }

    /// Asks for something and waits for a random moment of it. Where nothing has begun by then, or
    /// all is over, it is waited for, or something else asked for, most of the time.
    fn meet(&mut self) -> Child {
        loop {
            let (mut asked, window) = self.ask();
            std::thread::sleep(Duration::from_millis(self.random.below(window)));
            loop {
                if self.something_moves() || self.random.below(40) == 0 {
                    return asked;
                }
                if asked.try_wait().unwrap().is_some() {
                    break;
                }
            }
        }
    }

    /// Begins one of the things that users do; the command goes on by itself. Returns it, with the
    /// time in milliseconds in which it is to be met.
    fn ask(&mut self) -> (Child, u64) {
        let words = loop {
            if let Some(words) = self.words() {
                break words;
            }
        };
        let window = if words[0] == "deploy" {
            DEPLOY_MS
        } else {
            OTHER_MS
        };
        let mut command = self.world.command(env!("CARGO_BIN_EXE_hangar"));
        command
            .args(&words)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        (command.spawn().unwrap(), window)
    }

    /// Returns the words of one of the things that users do, if it can be done now.
    fn words(&mut self) -> Option<Vec<String>> {
        let machines = self.world.machines(APP);
        let of = |name: &str, state: &str| -> Vec<String> {
            let fits = |m: &&Value| group(m) == name && m["state"] == state;
            let ids = machines
                .iter()
                .filter(fits)
                .map(|m| m["id"].as_str().unwrap().to_owned());
            ids.collect()
        };
        let words: Vec<String> = match self.random.below(10) {
            0..3 => {
                self.version += 1;
                let folder = self.world.app(APP, &toml(self.version));
                vec![
                    "deploy".into(),
                    folder,
                    "--ha=false".into(),
                    "--smoke-checks=false".into(),
                ]
            }
            3..5 => {
                let name = ["web", "lines", "job"][usize::try_from(self.random.below(3)).unwrap()];
                let count = 1 + self.random.below(3);
                let count = format!("{name}={count}");
                ["scale", "count", &count, "-a", APP, "--yes"]
                    .map(String::from)
                    .to_vec()
            }
            5 => {
                let id = self.random.pick(&of("lines", "started"))?.clone();
                ["machine", "stop", &id, "-a", APP]
                    .map(String::from)
                    .to_vec()
            }
            6 => {
                let id = self.random.pick(&of("lines", "stopped"))?.clone();
                ["machine", "start", &id, "-a", APP]
                    .map(String::from)
                    .to_vec()
            }
            7 => {
                let id = self.random.pick(&of("job", "stopped"))?.clone();
                ["machine", "start", &id, "-a", APP]
                    .map(String::from)
                    .to_vec()
            }
            8 => {
                let id = self.random.pick(&of("web", "started"))?.clone();
                ["machine", "restart", &id, "-a", APP]
                    .map(String::from)
                    .to_vec()
            }
            _ => {
                self.version += 1;
                let secret = format!("WORD={}", self.version);
                ["secrets", "set", &secret, "--stage", "-a", APP]
                    .map(String::from)
                    .to_vec()
            }
        };
        Some(words)
    }

    /// Returns whether a deployment is under way, or a Machine on its way from one state to
    /// another, as the server tells it right before the kill.
    fn something_moves(&self) -> bool {
        let rest = ["started", "stopped", "destroyed", "failed"];
        let list = |what: &str| -> Vec<Value> {
            let path = format!("/v1/apps/{APP}/{what}");
            let answer = self.world.api("GET", &path, Some(&self.world.token()));
            serde_json::from_str(&answer.body).unwrap_or_default()
        };
        let moves = |m: &Value| !rest.contains(&m["state"].as_str().unwrap_or_default());
        list("machines").iter().any(moves)
            || list("deployments?limit=1")
                .iter()
                .any(|d| d["finished_at"].is_null())
    }

    /// Waits until nothing moves, and compares what the store says with what runs.
    fn settle(&self, number: u32) {
        self.world.eventually("every deployment is over", |world| {
            let path = format!("/v1/apps/{APP}/deployments");
            let answer = world.api("GET", &path, Some(&world.token()));
            let all: Value = serde_json::from_str(&answer.body).ok()?;
            let over = |d: &Value| d["status"] != "running" && d["status"] != "rolling_back";
            all.as_array()?.iter().all(over).then_some(())
        });
        let mut last = String::new();
        let limit = Instant::now() + Duration::from_secs(60);
        while let Err(difference) = self.compare() {
            assert!(Instant::now() < limit, "kill {number}: {difference}");
            last.clone_from(&difference);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Compares what the store says with what runs on this machine.
    fn compare(&self) -> Result<(), String> {
        let machines = self.world.machines(APP);
        let running = self.running();
        for machine in &machines {
            let id = machine["id"].as_str().unwrap();
            let lives = running.get(id).copied().unwrap_or(0);
            let wanted = usize::from(machine["state"] == "started");
            if lives != wanted {
                return Err(format!(
                    "{id} is {}, and {lives} of it run",
                    machine["state"]
                ));
            }
            if !["started", "stopped"].contains(&machine["state"].as_str().unwrap()) {
                return Err(format!("{id} is {}", machine["state"]));
            }
        }
        let known: BTreeSet<&str> = machines.iter().map(|m| m["id"].as_str().unwrap()).collect();
        match running.keys().find(|id| !known.contains(id.as_str())) {
            Some(unknown) => Err(format!("{unknown} runs, and the store does not know it")),
            None => Ok(()),
        }
    }

    /// Returns how many `init` each Machine has, by the Machine's id, which is its host name.
    fn running(&self) -> BTreeMap<String, usize> {
        let mut found = BTreeMap::new();
        for pid in self.world.inits() {
            // It may end while we look.
            if let Some(id) = host_name(pid) {
                *found.entry(id).or_default() += 1;
            }
        }
        found
    }

    fn judge(mut self, kills: u32) {
        self.settle(kills);
        eprintln!(
            "{} of {kills} kills met something in flight",
            self.in_flight
        );
        assert!(self.in_flight * 2 >= kills, "too few kills met something");
        for machine in self.world.machines(APP) {
            self.judge_exits(&machine);
        }
        self.judge_log();
        // Nothing holds the next deploy up.
        self.version += 1;
        let folder = self.world.app(APP, &toml(self.version));
        self.world
            .ok(&["scale", "count", "web=1", "-a", APP, "--yes"]);
        self.world
            .ok(&["deploy", &folder, "--ha=false", "--smoke-checks=false"]);
        self.settle(kills);
        let version = self.version.to_string();
        assert_eq!(self.world.ask(APP)["version"], version.as_str());
        // And nothing is left of it in the end.
        self.world.ok(&["apps", "destroy", APP, "--yes"]);
        self.world.eventually("nothing is left", |world| {
            let left = left_behind(world);
            if !left.is_empty() {
                std::thread::sleep(Duration::from_millis(50));
            }
            left.is_empty().then_some(())
        });
    }

    /// Every end of a program is known: jobs by their own code, the others were asked to stop.
    fn judge_exits(&self, machine: &Value) {
        for event in machine["events"].as_array().into_iter().flatten() {
            if event["type"] != "exit" {
                continue;
            }
            let exit = &event["request"]["exit_event"];
            let code = exit["exit_code"].as_i64();
            let requested = exit["requested_stop"] == true;
            let fine = match group(machine).as_str() {
                "job" => code == Some(7) || requested,
                _ => requested,
            };
            assert!(fine, "{machine:#?}");
        }
    }

    /// No line that a run has numbered is in the log twice or missing.
    fn judge_log(&self) {
        for machine in self.world.machines(APP) {
            if group(&machine) != "lines" {
                continue;
            }
            let id = machine["id"].as_str().unwrap();
            let path = format!("/v1/apps/{APP}/logs?machine={id}&tail=10000");
            let log = self.world.api("GET", &path, Some(&self.world.token())).body;
            let mut next = None;
            let mut seen = 0;
            for text in log.split("\"message\":\"line ").skip(1) {
                let number: u64 = text.split('"').next().unwrap().parse().unwrap();
                // A run begins at 0; the first that is kept may have lost its beginning.
                let fits = number == 0 || next.is_none_or(|next| number == next);
                assert!(fits, "{id}: line {number} where {next:?} was to come");
                next = Some(number + 1);
                seen += 1;
            }
            assert!(seen > 0, "{id} has said nothing: {log}");
        }
    }
}

/// Returns the helper, unless none has been needed yet or it is just being started again.
fn helpers(world: &World) -> Vec<i32> {
    children(world.server_pid(), HELPER)
}

/// Returns helper, workers, and those of their children that have not become `init` yet.
pub(crate) fn makers(world: &World) -> Vec<i32> {
    let home = world.data_dir().join("init");
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let exe = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        exe.starts_with(&home) && has_role(*pid, HELPER)
    })
    .collect()
}

pub(crate) fn kill(pids: &[i32]) {
    // One that has become `init` meanwhile is a Machine, and none of those that are meant.
    let meant = pids.iter().filter(|pid| has_role(**pid, HELPER));
    for pid in meant.filter_map(|pid| Pid::from_raw(*pid)) {
        let _gone = kill_process(pid, Signal::KILL);
    }
}

fn has_role(pid: i32, role: &str) -> bool {
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    words.split(|b| *b == 0).any(|word| word == role.as_bytes())
}

/// Returns the children of a process that run in this role.
fn children(parent: u32, role: &str) -> Vec<i32> {
    let path = format!("/proc/{parent}/task");
    let mut found = Vec::new();
    for task in std::fs::read_dir(path).into_iter().flatten().flatten() {
        let text = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(
            text.split_whitespace()
                .filter_map(|pid| pid.parse::<i32>().ok()),
        );
    }
    found.retain(|pid| has_role(*pid, role));
    found
}

/// Returns the host name that a process has.
fn host_name(pid: u32) -> Option<String> {
    let mut command = Command::new("nsenter");
    command.args([&format!("--uts=/proc/{pid}/ns/uts"), "uname", "-n"]);
    let ran = crate::world::finish(&mut command);
    let name = ran.stdout.trim();
    (ran.code == 0 && !name.is_empty()).then(|| name.to_owned())
}

/// Returns what is left of Machines on this machine.
fn left_behind(world: &World) -> Vec<String> {
    let mut left: Vec<String> = world
        .inits()
        .iter()
        .map(|pid| format!("process {pid}"))
        .collect();
    let data = world.data_dir();
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let ours = data.to_string_lossy().into_owned();
    left.extend(
        mounts
            .lines()
            .filter(|l| l.contains(&ours))
            .map(|l| format!("mount {l}")),
    );
    let links = world.inside(|| {
        let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
        let names = text
            .lines()
            .filter_map(|l| l.split_once(':').map(|(n, _)| n.trim().to_owned()));
        names
            .filter(|name| name.starts_with("hg"))
            .collect::<Vec<_>>()
    });
    left.extend(links.into_iter().map(|name| format!("interface {name}")));
    for machine in std::fs::read_dir(data.join("machines"))
        .into_iter()
        .flatten()
        .flatten()
    {
        for kind in ["run", "rootfs"] {
            let entries = std::fs::read_dir(machine.path().join(kind))
                .into_iter()
                .flatten()
                .flatten();
            left.extend(entries.map(|entry| format!("directory {}", entry.path().display())));
        }
    }
    let parent = hangar_host::runtime::container::cgroup_parent(&data.canonicalize().unwrap());
    for mount in mounts.lines().filter(|line| {
        line.split(' ')
            .nth(2)
            .is_some_and(|kind| kind.starts_with("cgroup"))
    }) {
        let place = std::path::Path::new(mount.split(' ').nth(1).unwrap()).join(&parent);
        let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
        let groups = entries.filter(|entry| entry.path().is_dir());
        left.extend(groups.map(|entry| format!("control group {}", entry.path().display())));
    }
    left
}
