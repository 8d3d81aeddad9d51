//! A world for one test: a network namespace, a data directory, and a server in them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use hangar_image::build::{ImageFile, ImageSpec};
use serde_json::Value;

/// The name under which the test program's image is imported.
pub(crate) const IMAGE: &str = "testapp";
/// Longest wait for anything that should come by itself.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Where every world's API is, in its own network.
pub(crate) const API: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 4280);

static WORLDS: AtomicU32 = AtomicU32::new(0);

pub(crate) struct World {
    netns: String,
    folder: tempfile::TempDir,
    server: Option<Child>,
    arguments: Vec<String>,
    /// What the server runs from, from its next start on.
    program: PathBuf,
    /// Most descriptors that the server may open, from its next start on.
    descriptors: Option<(u64, u64)>,
    /// Programs that tests left running in the world.
    others: Vec<Child>,
    /// File systems that tests have mounted.
    mounts: Vec<PathBuf>,
}

/// What a command printed, and its exit code.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// An HTTP answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

// === impl World ===

impl World {
    /// Returns a world with a running server and the test image imported, or `None` without root.
    pub(crate) fn start() -> Option<Self> {
        let mut world = Self::empty()?;
        world.start_server();
        world.import(IMAGE, &image_spec());
        Some(world)
    }

    /// Makes an image and imports it under this name.
    pub(crate) fn import(&self, name: &str, spec: &ImageSpec) {
        let archive = self.path(&format!("{name}.tar"));
        hangar_image::build::write_oci_archive(spec, &archive).unwrap();
        self.ok(&[
            "image",
            "import",
            &archive.to_string_lossy(),
            "--name",
            name,
        ]);
    }

    /// Returns a world without a server, or `None` without root.
    pub(crate) fn empty() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return None;
        }
        let number = WORLDS.fetch_add(1, Ordering::Relaxed);
        let netns = format!("hgt{}-{number}", std::process::id());
        run(Command::new("ip").args(["netns", "add", &netns]));
        run(Command::new("ip").args(["-n", &netns, "link", "set", "lo", "up"]));
        let folder = tempfile::tempdir().unwrap();
        Some(Self {
            netns,
            folder,
            server: None,
            arguments: Vec::new(),
            program: env!("CARGO_BIN_EXE_hangar").into(),
            descriptors: None,
            others: Vec::new(),
            mounts: Vec::new(),
        })
    }

    /// Gives the server more arguments from its next start on.
    pub(crate) fn set_arguments(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().map(ToString::to_string).collect();
    }

    /// Runs the server from another executable from its next start on.
    pub(crate) fn set_program(&mut self, program: PathBuf) {
        self.program = program;
    }

    /// Gives the server so many descriptors, and so many more that it may ask for, from its next
    /// start on.
    pub(crate) fn set_descriptors(&mut self, soft: u64, hard: u64) {
        self.descriptors = Some((soft, hard));
    }

    /// Mounts a file system in memory of so many megabytes.
    pub(crate) fn mount(&mut self, path: &Path, megabytes: u32) {
        std::fs::create_dir_all(path).unwrap();
        let size = format!("size={megabytes}m");
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "none"])
            .arg(path));
        self.mounts.push(path.to_owned());
    }

    /// Returns the server's process id.
    pub(crate) fn server_pid(&self) -> u32 {
        self.server.as_ref().expect("the server runs").id()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.path("data")
    }

    /// Returns a command that runs in the world's network.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{}", self.netns))
            .arg(program);
        command
            .env("HANGAR_DATA_DIR", self.data_dir())
            .env("HANGAR_CONFIG_DIR", self.path("config"))
            .env_remove("HANGAR_API_URL")
            .env_remove("HANGAR_ACCESS_TOKEN")
            .env_remove("HANGAR_TOKEN")
            .env_remove("FLY_ACCESS_TOKEN")
            .env_remove("FLY_ORG")
            .env_remove("FLY_APP");
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    /// Starts the server and waits until it answers.
    pub(crate) fn start_server(&mut self) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.path("server.log"))
            .unwrap();
        let program = self.program.to_string_lossy().into_owned();
        let mut command = match self.descriptors {
            Some(_) => self.command("prlimit"),
            None => self.command(&program),
        };
        if let Some((soft, hard)) = self.descriptors {
            command.arg(format!("--nofile={soft}:{hard}")).arg(program);
        }
        command
            .arg("server")
            .args(&self.arguments)
            .args(["--log-level", "debug"]);
        command.stdout(Stdio::null()).stderr(log);
        // A server file of a former life must not be taken for this one's.
        let _none = std::fs::remove_file(self.data_dir().join("server.json"));
        self.server = Some(command.spawn().unwrap());
        self.eventually("the server answers", |world| {
            (world.hangar(&["apps", "list"]).code == 0).then_some(())
        });
    }

    /// Kills the server as a power cut would.
    pub(crate) fn kill_server(&mut self) {
        let mut server = self.server.take().expect("the server runs");
        server.kill().unwrap();
        server.wait().unwrap();
    }

    /// Asks the server to stop and waits for its end; returns its exit code.
    pub(crate) fn stop_server(&mut self) -> Option<i32> {
        let mut server = self.server.take()?;
        let pid = rustix::process::Pid::from_child(&server);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let limit = Instant::now() + LIMIT;
        loop {
            if let Some(status) = server.try_wait().unwrap() {
                return status.code();
            }
            assert!(
                Instant::now() < limit,
                "the server did not stop:\n{}",
                self.server_log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Returns the process ids of all Machines' `init`.
    pub(crate) fn inits(&self) -> Vec<u32> {
        // Their executable is on a mount that nobody sees; their control groups have a name.
        let Ok(home) = self.data_dir().canonicalize() else {
            return Vec::new();
        };
        let parent = hangar_host::runtime::container::cgroup_parent(&home);
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else {
                continue;
            };
            let groups = std::fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
            let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if groups.contains(&parent) && words.starts_with(b"hangar-init\0") {
                found.push(pid);
            }
        }
        found.sort_unstable();
        found
    }

    pub(crate) fn server_log(&self) -> String {
        let text = std::fs::read_to_string(self.path("server.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(60).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Runs `hangar` in the world.
    pub(crate) fn hangar(&self, arguments: &[&str]) -> Ran {
        let mut command = self.command(env!("CARGO_BIN_EXE_hangar"));
        finish(command.args(arguments))
    }

    /// Starts `hangar` and does not wait; it ends with the world at the latest.
    pub(crate) fn start_hangar(&mut self, arguments: &[&str]) {
        let mut command = self.command(env!("CARGO_BIN_EXE_hangar"));
        command
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.keep(&mut command);
    }

    /// Starts a program that ends with the world at the latest.
    pub(crate) fn keep(&mut self, command: &mut Command) {
        self.others.push(command.spawn().unwrap());
    }

    /// Returns the program that was started last.
    pub(crate) fn last_started(&mut self) -> &mut Child {
        self.others.last_mut().expect("a program was started")
    }

    /// Runs `hangar` and expects it to fail with this code; returns what it said.
    pub(crate) fn fails(&self, code: i32, arguments: &[&str]) -> String {
        let ran = self.hangar(arguments);
        assert_eq!(
            ran.code, code,
            "hangar {arguments:?}\n{}\n{}",
            ran.stdout, ran.stderr
        );
        ran.stderr
    }

    /// Runs `hangar` and expects it to succeed.
    pub(crate) fn ok(&self, arguments: &[&str]) -> Ran {
        let ran = self.hangar(arguments);
        assert_eq!(
            ran.code,
            0,
            "hangar {arguments:?}\n{}\n{}\nserver:\n{}",
            ran.stdout,
            ran.stderr,
            self.server_log()
        );
        ran
    }

    /// Runs `hangar` with `--json` and returns what it printed.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let ran = self.ok(&[arguments, &["--json"]].concat());
        serde_json::from_str(&ran.stdout).unwrap()
    }

    /// Writes an app's folder with this fly.toml and returns its path.
    pub(crate) fn app(&self, name: &str, fly_toml: &str) -> String {
        let folder = self.path(name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("fly.toml"), fly_toml).unwrap();
        folder.to_string_lossy().into_owned()
    }

    /// Returns an app's Machines as the API shows them.
    pub(crate) fn machines(&self, app: &str) -> Vec<Value> {
        self.json(&["machine", "list", "-a", app])
            .as_array()
            .unwrap()
            .clone()
    }

    /// Returns the sorted groups of an app's started Machines.
    pub(crate) fn started_groups(&self, app: &str) -> Vec<String> {
        let started = self
            .machines(app)
            .into_iter()
            .filter(|m| m["state"] == "started");
        let mut groups: Vec<String> = started.map(|m| group(&m)).collect();
        groups.sort();
        groups
    }

    /// Runs code inside the world's network, on a thread of its own.
    pub(crate) fn inside<T: Send>(&self, code: impl FnOnce() -> T + Send) -> T {
        in_network(&Path::new("/run/netns").join(&self.netns), code)
    }

    /// Returns the address that an external port is bound at.
    pub(crate) fn edge(&self, external: u16) -> SocketAddr {
        self.eventually("the port is bound", |world| {
            let answer = world.api("GET", "/v1/platform/edge", Some(&world.token()));
            let edge: Value = serde_json::from_str(&answer.body).ok()?;
            let port = u16::try_from(edge["ports"][external.to_string()].as_u64()?).ok()?;
            Some(SocketAddr::from(([127, 0, 0, 1], port)))
        })
    }

    /// Returns the admin token.
    pub(crate) fn token(&self) -> String {
        let text = std::fs::read_to_string(self.data_dir().join("token")).unwrap();
        text.trim().to_owned()
    }

    /// Asks the API itself.
    pub(crate) fn api(&self, method: &str, path: &str, token: Option<&str>) -> Answer {
        let head = token.map_or_else(String::new, |token| {
            format!("authorization: Bearer {token}\r\n")
        });
        self.inside(|| request(API, method, path, "localhost", &head, b""))
            .unwrap()
    }

    /// Sends a body to the API, as the admin, and returns status and JSON answer.
    pub(crate) fn send(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let head = format!("authorization: Bearer {}\r\n", self.token());
        let body = body.to_string();
        let answer = self
            .inside(|| request(API, method, path, "localhost", &head, body.as_bytes()))
            .unwrap();
        let json = serde_json::from_str(&answer.body).unwrap_or(Value::String(answer.body));
        (answer.status, json)
    }

    /// Asks an app over HTTP through the proxy.
    pub(crate) fn get(&self, app: &str, path: &str) -> Answer {
        let address = self.edge(80);
        let host = format!("{app}.localhost");
        self.inside(|| request(address, "GET", path, &host, "", b""))
            .unwrap()
    }

    /// Asks an app for its own view of itself: group, machine, region, version, count.
    pub(crate) fn ask(&self, app: &str) -> Value {
        let answer = self.get(app, "/");
        assert_eq!(answer.status, 200, "{answer:?}\n{}", self.server_log());
        serde_json::from_str(&answer.body).unwrap()
    }

    /// Returns the Machines of one group.
    pub(crate) fn of_group(&self, app: &str, name: &str) -> Vec<Value> {
        let mut machines = self.machines(app);
        machines.retain(|m| group(m) == name);
        machines
    }

    /// Returns the only Machine of a group.
    pub(crate) fn only(&self, app: &str, name: &str) -> String {
        let machines = self.of_group(app, name);
        assert_eq!(machines.len(), 1, "{machines:?}");
        machines[0]["id"].as_str().unwrap().to_owned()
    }

    /// Returns one Machine as the API shows it.
    pub(crate) fn machine(&self, app: &str, id: &str) -> Value {
        self.json(&["machine", "status", id, "-a", app])
    }

    /// Runs the test program with other words in a Machine.
    pub(crate) fn exec(&self, app: &str, id: &str, words: &[&str]) -> Ran {
        let command = ["machine", "exec", "-a", app, id, "/testapp"];
        self.hangar(&[&command, words].concat())
    }

    /// Returns what an app has logged so far.
    pub(crate) fn logs(&self, app: &str) -> String {
        self.ok(&["logs", "-a", app, "--no-tail"]).stdout
    }

    /// Waits for something, and says what did not come.
    pub(crate) fn eventually<T>(&self, what: &str, mut look: impl FnMut(&Self) -> Option<T>) -> T {
        let limit = Instant::now() + LIMIT;
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            assert!(
                Instant::now() < limit,
                "it did not come to this: {what}\nserver:\n{}",
                self.server_log()
            );
            std::thread::sleep(Duration::from_millis(30));
        }
    }
}

impl World {
    /// Destroys all apps, so that nothing of them is left on this machine.
    fn destroy_apps(&self) {
        let listed = self.hangar(&["apps", "list", "--json"]);
        let apps: Value = serde_json::from_str(&listed.stdout).unwrap_or_default();
        for app in apps.as_array().into_iter().flatten() {
            let name = app["name"].as_str().unwrap_or_default();
            let ran = self.hangar(&["apps", "destroy", name, "--yes"]);
            if ran.code != 0 {
                eprintln!("{name} was not destroyed: {}", ran.stderr);
            }
        }
    }

    /// Returns what the world has left on this machine: processes and mounts.
    fn left_over(&self) -> Vec<String> {
        let folder = self.folder.path().to_string_lossy().into_owned();
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let mut left: Vec<String> = mounts
            .lines()
            .filter(|line| line.contains(&folder))
            .map(|line| format!("mount {line}"))
            .collect();
        left.extend(self.inits().iter().map(|pid| format!("init {pid}")));
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let exe = std::fs::read_link(entry.path().join("exe")).unwrap_or_default();
            if exe.starts_with(&folder) {
                left.push(format!(
                    "process {} of {}",
                    entry.path().display(),
                    exe.display()
                ));
            }
        }
        left
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let panicking = std::thread::panicking();
        if panicking {
            eprintln!("the server's last lines:\n{}", self.server_log());
        }
        for mut other in self.others.drain(..) {
            let _gone = other.kill();
            let _gone = other.wait();
        }
        if self.server.is_none() && self.data_dir().join("store.db").exists() && !panicking {
            self.start_server();
        }
        if self.server.is_some() {
            self.destroy_apps();
        }
        if let Some(mut server) = self.server.take() {
            let _gone = rustix::process::kill_process(
                rustix::process::Pid::from_child(&server),
                rustix::process::Signal::TERM,
            );
            let limit = Instant::now() + Duration::from_secs(20);
            while matches!(server.try_wait(), Ok(None)) && Instant::now() < limit {
                std::thread::sleep(Duration::from_millis(20));
            }
            let _gone = server.kill();
            let _gone = server.wait();
        }
        for path in self.mounts.drain(..) {
            let _gone = Command::new("umount").arg("-l").arg(path).status();
        }
        let limit = Instant::now() + Duration::from_secs(10);
        while !self.left_over().is_empty() && Instant::now() < limit {
            std::thread::sleep(Duration::from_millis(20));
        }
        let left = self.left_over();
        let _gone = Command::new("ip")
            .args(["netns", "del", &self.netns])
            .status();
        assert!(left.is_empty() || panicking, "left behind: {left:#?}");
    }
}

/// Returns a fly.toml for an app that runs the test image.
pub(crate) fn fly_toml(app: &str, rest: &str) -> String {
    format!("app = \"{app}\"\nprimary_region = \"iad\"\n[build]\nimage = \"{IMAGE}\"\n{rest}\n")
}

/// Returns a service on port 8080 with a health check, for these groups; none means all.
pub(crate) fn service(groups: &[&str]) -> String {
    let processes = match groups {
        [] => String::new(),
        some => format!("processes = {some:?}\n"),
    };
    format!(
        "[http_service]\ninternal_port = 8080\n{processes}[[http_service.checks]]\npath = \"/health\"\ninterval = \"2s\"\ntimeout = \"1s\"\n"
    )
}

pub(crate) fn group(machine: &Value) -> String {
    machine["config"]["metadata"]["fly_process_group"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// Sends one request and reads the whole answer.
pub(crate) fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    host: &str,
    headers: &str,
    body: &[u8],
) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(LIMIT))?;
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n"
    );
    stream.write_all(&[head.as_bytes(), body].concat())?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|s| s.parse().ok())
        .unwrap_or(0);
    let chunked = head.to_lowercase().contains("transfer-encoding: chunked");
    Ok(Answer {
        status,
        body: if chunked {
            unchunk(body)
        } else {
            body.to_owned()
        },
    })
}

fn unchunk(mut body: &str) -> String {
    let mut out = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        if size == 0 || rest.len() < size {
            break;
        }
        out.push_str(&rest[..size]);
        body = rest[size..].trim_start_matches("\r\n");
    }
    out
}

/// Returns an image that holds the test program and nothing else.
pub(crate) fn image_spec() -> ImageSpec {
    let binary = Path::new(env!("CARGO_BIN_EXE_hangar"))
        .parent()
        .unwrap()
        .join("examples/testapp");
    let content =
        std::fs::read(&binary).unwrap_or_else(|e| panic!("read {}: {e}", binary.display()));
    ImageSpec {
        files: vec![ImageFile {
            path: "/testapp".into(),
            mode: 0o755,
            content,
        }],
        entrypoint: vec!["/testapp".into()],
        cmd: vec!["serve".into()],
        ..ImageSpec::default()
    }
}

pub(crate) fn finish(command: &mut Command) -> Ran {
    let output = command.output().unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

pub(crate) fn run(command: &mut Command) {
    let ran = finish(command);
    assert_eq!(ran.code, 0, "{command:?}: {}", ran.stderr);
}

/// Runs code inside a network namespace, on a thread of its own.
pub(crate) fn in_network<T: Send>(namespace: &Path, code: impl FnOnce() -> T + Send) -> T {
    let file = std::fs::File::open(namespace).unwrap();
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                let kind = rustix::thread::LinkNameSpaceType::Network;
                rustix::thread::move_into_link_name_space(file.as_fd(), Some(kind)).unwrap();
                code()
            })
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
