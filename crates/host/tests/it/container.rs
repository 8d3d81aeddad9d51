//! The container runtime with real containers: their roots are made of the static busybox.
#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::print_stderr, reason = "a test that is skipped says so")]

mod isolation;
mod kept;
mod life;
mod survival;
mod volumes;

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use hangar_api::env::Env;
use hangar_api::exec::{ExecRequest, ExecResponse};
use hangar_host::cgroup::Layout;
use hangar_host::runtime::container::{ContainerRuntime, Settings, cgroup_parent};
use hangar_host::runtime::{ExitRecord, Limits, RunKey, RunNet, RunStatus, Runtime, StartPlan};

const BUSYBOX: &str = "/bin/busybox";
const APPLETS: [&str; 16] = [
    "sh", "cat", "echo", "id", "sleep", "true", "ls", "env", "kill", "touch", "hostname", "nc",
    "mount", "dd", "ps", "grep",
];

/// The unit of CPU time in /proc.
const TICK: Duration = Duration::from_millis(10);

/// A data directory with an image and a runtime. Everything in it is removed with it.
struct World {
    dir: tempfile::TempDir,
    runtime: ContainerRuntime,
}

/// Returns a world, or says why there is none here.
fn world() -> Option<World> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return None;
    }
    if !Path::new(BUSYBOX).exists() {
        eprintln!("skipped: needs {BUSYBOX} (busybox-static)");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    for name in ["bin", "etc", "srv"] {
        fs::create_dir_all(image.join(name)).unwrap();
    }
    fs::copy(BUSYBOX, image.join("bin/busybox")).unwrap();
    for applet in APPLETS {
        symlink("busybox", image.join("bin").join(applet)).unwrap();
    }
    let passwd = "root:x:0:0::/root:/bin/sh\nweb:x:1000:1001::/srv:/bin/sh\n";
    fs::write(image.join("etc/passwd"), passwd).unwrap();
    fs::write(image.join("etc/group"), "web:x:1001:\nlogs:x:50:web\n").unwrap();
    fs::write(image.join("etc/plain"), "not a program").unwrap();
    fs::write(image.join("bin/garbage"), "\x7fELFgarbage").unwrap();
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(image.join("bin/garbage"), mode).unwrap();
    let runtime = runtime(dir.path());
    Some(World { dir, runtime })
}

fn runtime(data_dir: &Path) -> ContainerRuntime {
    let settings = Settings {
        data_dir: data_dir.to_owned(),
        executable: PathBuf::from(env!("CARGO_BIN_EXE_hangar-roles")),
        connect: true,
        api: None,
    };
    ContainerRuntime::new(Env::real(), &settings).unwrap()
}

/// Returns a key that no other test and no other process of this machine uses now.
fn new_key() -> RunKey {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let id = format!(
        "{:06x}{:04x}{number:04x}",
        0xfe_ed00,
        std::process::id() & 0xffff
    );
    RunKey {
        machine: id.parse().unwrap(),
        start: 1,
    }
}

impl World {
    /// Returns the plan of a shell script.
    fn plan(&self, script: &str) -> StartPlan {
        self.plan_of(&["/bin/sh", "-c", script])
    }

    fn plan_of(&self, argv: &[&str]) -> StartPlan {
        let key = new_key();
        let low = key.machine.low32();
        let [_, _, a, b] = low.to_be_bytes();
        let process = u16::try_from(std::process::id() & 0xffff).unwrap();
        let number = u16::from_be_bytes([a, b]);
        let [c, _] = process.to_be_bytes();
        StartPlan {
            hostname: key.machine.to_string(),
            argv: argv.iter().map(|text| (*text).to_owned()).collect(),
            env: BTreeMap::from([("GREETING".to_owned(), "hello world".to_owned())]),
            user: String::new(),
            workdir: PathBuf::from("/"),
            layers: vec![self.dir.path().join("image")],
            kept: None,
            files: Vec::new(),
            mounts: Vec::new(),
            limits: Limits {
                cpus: 1,
                memory_bytes: 64 * 1024 * 1024,
                swap_bytes: 0,
                pids: 64,
            },
            net: RunNet {
                v6: Ipv6Addr::new(0xfdaa, 0xfeed, 0, 0, 0, 0, process, number),
                v4: Ipv4Addr::new(10, c, a, b),
            },
            log_dir: self.dir.path().join("logs").join(key.machine.as_str()),
            key,
        }
    }

    async fn start(&self, plan: StartPlan) -> RunKey {
        let key = plan.key.clone();
        self.runtime.start(plan).await.unwrap();
        key
    }

    /// Runs a plan to its end and returns how it ended and what it said.
    async fn run(&self, plan: StartPlan) -> (ExitRecord, Vec<String>) {
        let key = self.start(plan).await;
        let exit = self.runtime.wait(key.clone()).await;
        let said = self.said(&key);
        self.runtime.remove(key.clone()).await.unwrap();
        assert_eq!(self.runtime.status(key).await, RunStatus::Absent);
        (exit, said)
    }

    /// Runs a script and returns what it said; it must end well.
    async fn output(&self, script: &str) -> String {
        let (exit, said) = self.run(self.plan(script)).await;
        assert_eq!(exit.exit_code, 0, "{said:?}");
        said.join("\n")
    }

    /// Returns the program's lines, without those of `init`.
    fn said(&self, key: &RunKey) -> Vec<String> {
        let dir = self.dir.path().join("logs").join(key.machine.as_str());
        let (lines, _) = hangar_init::logfile::tail(&dir, 10_000).unwrap();
        let texts = lines.into_iter().map(|line| line.text);
        texts.filter(|text| !text.starts_with(" INFO ")).collect()
    }

    async fn exec(&self, key: &RunKey, script: &str) -> ExecResponse {
        let request = ExecRequest {
            command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            ..ExecRequest::default()
        };
        self.runtime.exec(key.clone(), request).await.unwrap()
    }

    /// Waits until the program has said this.
    async fn until_said(&self, key: &RunKey, text: &str) {
        until(|| self.said(key).iter().any(|line| line == text)).await;
    }

    /// Returns the host's view of the run's processes.
    fn pids(&self, key: &RunKey) -> Vec<i32> {
        let name = format!("{}-{}", key.machine, key.start);
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let group = fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            // What has ended stays listed until somebody reaps it.
            if group.contains(&name) && !stat.contains(") Z ") {
                found.extend(entry.file_name().to_str().unwrap().parse::<i32>());
            }
        }
        found
    }

    /// Returns the CPU time that the run's processes have taken, in all.
    fn cpu_time(&self, key: &RunKey) -> Duration {
        let ticks = |pid: i32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let after_name = stat.rsplit(')').next().unwrap_or_default();
            let fields: Vec<u64> = after_name
                .split_whitespace()
                .map(|field| field.parse().unwrap_or(0))
                .collect();
            fields.get(11..13).unwrap_or_default().iter().sum::<u64>()
        };
        let all: u64 = self.pids(key).into_iter().map(ticks).sum();
        TICK * u32::try_from(all).unwrap()
    }

    /// Lets a run have the CPUs before everything else, as far as its limit goes.
    fn put_before_others(&self, key: &RunKey) {
        let parent = cgroup_parent(&self.dir.path().canonicalize().unwrap());
        let layout = Layout::probe(parent).unwrap();
        let hierarchy = layout.with_controller("cpu").unwrap();
        let (file, most) = match hierarchy.v2 {
            true => ("cpu.weight", "10000"),
            false => ("cpu.shares", "262144"),
        };
        let parent = hierarchy.mount.join(&layout.parent);
        let group = parent.join(format!("{}-{}", key.machine, key.start));
        for dir in [parent, group] {
            fs::write(dir.join(file), most).unwrap();
        }
    }

    /// Asserts that nothing of a run is left on this machine.
    fn assert_nothing_left(&self, key: &RunKey) {
        assert_eq!(self.pids(key), Vec::<i32>::new());
        let name = format!("{}-{}", key.machine, key.start);
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(key.machine.as_str()), "a mount is left");
        for line in mounts.lines().filter(|line| line.contains(" - cgroup")) {
            let mount = line.split(' ').nth(4).unwrap();
            for parent in fs::read_dir(mount).unwrap().flatten() {
                assert!(!parent.path().join(&name).exists(), "{:?}", parent.path());
            }
        }
        let interface = hangar_host::net::veth::interface_name(key);
        assert!(!Path::new("/sys/class/net").join(interface).exists());
        let machine = self.dir.path().join("machines").join(key.machine.as_str());
        let start = key.start.to_string();
        assert!(!machine.join("run").join(&start).exists());
        assert!(!machine.join("rootfs").join(&start).exists());
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let dir = self.dir.path().to_owned();
        let cleaned = std::thread::spawn(move || {
            let tokio = tokio::runtime::Builder::new_current_thread();
            let tokio = { tokio }.enable_all().build().unwrap();
            tokio.block_on(async {
                let runtime = runtime(&dir);
                for key in runtime.runs().await.unwrap() {
                    drop(runtime.remove(key).await);
                }
            });
        });
        drop(cleaned.join());
    }
}

/// Waits for a condition, for ten seconds.
async fn until(mut condition: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it did not come about within ten seconds");
}
