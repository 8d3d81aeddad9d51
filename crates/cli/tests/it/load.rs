//! Under load: Machines are replaced, renamed, restarted and scaled while clients that never try
//! again count every answer. Not one may be lost.
//!
//! 64 connections are kept alive and 50 new ones are made a second, with GET and POST; two more
//! speak HTTP/2 over TLS, and a WebSocket echoes frames all along. It may be closed politely when
//! its Machine is replaced, and comes again. `HANGAR_LONG=1` makes each scenario 30 s long.

mod clients;
mod http2;
mod tally;
mod websocket;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::world::{IMAGE, World};
use clients::Load;

/// One at a time: each of them takes all the processors there are.
static ALONE: Mutex<()> = Mutex::new(());
/// Every change is made at least so often, however long one takes.
const MIN_ROUNDS: usize = 2;
/// How long the load goes on before the first change and after each of them.
const MARGIN: Duration = Duration::from_millis(500);

const APP: &str = "load";

#[test]
fn rolling_deploys_of_two_machines_lose_no_request() {
    under_load(&Fleet::of("web", 2), |world, round| {
        deploy(world, &Fleet::of("web", 2).version(round));
    });
}

#[test]
fn deploys_of_a_group_of_one_hold_requests_and_lose_none() {
    under_load(&Fleet::of("web", 1), |world, round| {
        deploy(world, &Fleet::of("web", 1).version(round));
    });
}

#[test]
fn renames_of_a_group_lose_no_request() {
    under_load(&Fleet::of("web", 1), |world, round| {
        let name = ["site", "web"][(round - 1) % 2];
        deploy(world, &Fleet::of(name, 1).version(round));
        assert_eq!(world.started_groups(APP), [name]);
    });
}

#[test]
fn restarts_lose_no_request() {
    for count in [1, 2] {
        under_load(&Fleet::of("web", count), |world, _| {
            world.ok(&["apps", "restart", APP]);
        });
    }
}

#[test]
fn scaling_up_and_down_loses_no_request() {
    under_load(&Fleet::of("web", 1), |world, round| {
        let count = if round % 2 == 1 { "web=3" } else { "web=1" };
        world.ok(&["scale", "count", count, "-a", APP, "--yes"]);
    });
}

#[test]
fn deploys_that_fail_and_are_put_back_lose_no_request() {
    for count in [1, 2] {
        under_load(&Fleet::of("web", count), |world, round| {
            let mut broken = Fleet::of("web", count);
            if round % 2 == 1 {
                broken.env = "UNHEALTHY = \"1\"".to_owned();
            } else {
                broken.command = "exit 3 200";
            }
            let folder = world.app(APP, &broken.version(round).fly_toml());
            let ran = world.hangar(&["deploy", &folder, "--ha=false", "--wait-timeout", "3s"]);
            assert_ne!(ran.code, 0, "{}", ran.stderr);
        });
    }
}

#[test]
fn bluegreen_deploys_lose_no_request() {
    for count in [1, 2] {
        under_load(&Fleet::of("web", count), |world, round| {
            deploy_by(world, "bluegreen", &Fleet::of("web", count).version(round));
        });
    }
}

#[test]
fn canary_deploys_lose_no_request() {
    for count in [1, 2] {
        under_load(&Fleet::of("web", count), |world, round| {
            deploy_by(world, "canary", &Fleet::of("web", count).version(round));
        });
    }
}

#[test]
fn bluegreen_and_canary_deploys_that_fail_lose_no_request() {
    under_load(&Fleet::of("web", 2), |world, round| {
        let strategy = ["bluegreen", "canary"][round % 2];
        let mut broken = Fleet::of("web", 2);
        broken.env = "UNHEALTHY = \"1\"".to_owned();
        let folder = world.app(APP, &broken.version(round).fly_toml());
        let how = ["--strategy", strategy, "--wait-timeout", "3s"];
        let ran = world.hangar(&[&["deploy", &folder], &how[..]].concat());
        assert_ne!(ran.code, 0, "{}", ran.stderr);
    });
}

/// Runs the load on a fleet while `change` is made again and again, and judges what was counted.
fn under_load(fleet: &Fleet, change: impl Fn(&World, usize)) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(world) = World::start() else { return };
    deploy(&world, fleet);
    if fleet.count > 1 {
        let count = format!("{}={}", fleet.group, fleet.count);
        world.ok(&["scale", "count", &count, "-a", APP, "--yes"]);
    }
    let load = Load::new(APP, world.edge(80), world.edge(443), &world.data_dir());
    let long = std::env::var_os("HANGAR_LONG").is_some();
    let time = Duration::from_secs(if long { 30 } else { 10 });
    let mut rounds = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| world.inside(|| load.run()));
        // Also when a change fails: the clients must end before the scope does.
        let _end = load.end_on_drop();
        let end = Instant::now() + time;
        std::thread::sleep(MARGIN);
        while rounds < MIN_ROUNDS || Instant::now() < end {
            rounds += 1;
            change(&world, rounds);
            std::thread::sleep(MARGIN);
        }
    });
    load.tally().judge(rounds);
}

fn deploy(world: &World, fleet: &Fleet) {
    let folder = world.app(APP, &fleet.fly_toml());
    world.ok(&["deploy", &folder, "--ha=false"]);
}

fn deploy_by(world: &World, strategy: &str, fleet: &Fleet) {
    let folder = world.app(APP, &fleet.fly_toml());
    world.ok(&["deploy", &folder, "--strategy", strategy]);
    assert_eq!(world.started_groups(APP).len(), fleet.count);
}

/// What the app consists of.
struct Fleet {
    group: &'static str,
    count: usize,
    command: &'static str,
    version: usize,
    /// More lines of the environment.
    env: String,
}

// === impl Fleet ===

impl Fleet {
    fn of(group: &'static str, count: usize) -> Self {
        Self {
            group,
            count,
            command: "serve",
            version: 0,
            env: String::new(),
        }
    }

    fn version(mut self, version: usize) -> Self {
        self.version = version;
        self
    }

    fn fly_toml(&self) -> String {
        let Self {
            group,
            command,
            version,
            env,
            ..
        } = self;
        // A WebSocket keeps a Machine for most of its stop time: a short one makes more rounds.
        format!(
            r#"
app = "{APP}"
primary_region = "iad"
kill_timeout = "2s"
[build]
image = "{IMAGE}"
[env]
VERSION = "{version}"
{env}
[processes]
{group} = "{command}"
[http_service]
internal_port = 8080
processes = ["{group}"]
[[http_service.checks]]
path = "/health"
interval = "2s"
timeout = "2s"
"#
        )
    }
}
