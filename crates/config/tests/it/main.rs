//! Reading fly.toml from outside: what each group gets, what is said of mistakes, and that
//! nothing makes it fall over.
#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

mod golden;
mod groups;
mod keys;
mod mistakes;
mod reference;
mod robust;
mod spec;

use hangar_api::id::GroupName;
use hangar_api::machine::MachineConfig;
use hangar_config::{AppConfig, Format, Inputs, Loaded, load};

/// Reads a file that must be right.
fn config(text: &str) -> AppConfig {
    let loaded = load(text, Format::Toml);
    let problems: Vec<String> = loaded.problems.iter().map(ToString::to_string).collect();
    loaded
        .config
        .unwrap_or_else(|| panic!("{}", problems.join("\n")))
}

/// Returns the Machine configuration of a group.
fn machine(text: &str, group: &str) -> MachineConfig {
    let specs = config(text).machine_configs(&Inputs::default()).unwrap();
    specs[&GroupName::new(group).unwrap()].config.clone()
}

/// Returns everything that is said, one line a problem.
fn said(loaded: &Loaded) -> Vec<String> {
    loaded.problems.iter().map(ToString::to_string).collect()
}

/// A file that uses most of what there is.
const FULL: &str = r##"
app = "shop"
primary_region = "iad"
kill_signal = "SIGTERM"
kill_timeout = 30

[build]
image = "shop:1"

[deploy]
strategy = "rolling"
max_unavailable = 0.5
wait_timeout = "2m"

[env]
PORT = 8080
DEBUG = true
RATIO = 1.50

[processes]
web = "bin/web --port 8080"
worker = "sh -c 'work && rest'"
cron = ""

[http_service]
internal_port = 8080
force_https = true
auto_stop_machines = "off"
processes = ["web"]
[http_service.concurrency]
type = "requests"
soft_limit = 200
[[http_service.checks]]
path = "/up"
interval = "10s"
[http_service.checks.headers]
Host = "shop.example"

[[services]]
protocol = "tcp"
internal_port = "7000"
processes = ["worker", "web"]
concurrency = "20,25"
[[services.ports]]
port = "7001"
handlers = ["tls"]
[[services.tcp_checks]]
interval = 15000
timeout = "2s"

[checks.alive]
type = "http"
method = "get"
path = "/alive"
interval = "5s"
processes = ["web"]

[[restart]]
policy = "never"
retries = 3
processes = ["cron"]

[[files]]
guest_path = "/etc/motd"
raw_value = "hello"

[[vm]]
size = "shared-cpu-2x"
[[vm]]
memory = "1gb"
processes = ["worker"]
"##;
