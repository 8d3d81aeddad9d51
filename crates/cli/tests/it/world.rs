//! A world for one test: a network namespace, a data directory, and a server in them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The name under which the test program's image is imported.
pub(crate) const IMAGE: &str = "testapp";
/// Longest wait for anything that should come by itself.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

static WORLDS: AtomicU32 = AtomicU32::new(0);

pub(crate) struct World {
    netns: String,
    folder: tempfile::TempDir,
    server: Option<Child>,
    arguments: Vec<String>,
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
    pub(crate) head: String,
    pub(crate) body: String,
}

// === impl World ===

impl World {
    /// Returns a world with a running server and the test image imported, or `None` without root.
    pub(crate) fn start() -> Option<Self> {
        let mut world = Self::empty()?;
        world.start_server();
        let archive = world.path("testapp.tar");
        write_image(&archive);
        world.ok(&[
            "image",
            "import",
            &archive.to_string_lossy(),
            "--name",
            IMAGE,
        ]);
        Some(world)
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
        })
    }

    /// Gives the server more arguments from its next start on.
    pub(crate) fn with_arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments = arguments.iter().map(ToString::to_string).collect();
        self
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
            .env_remove("HANGAR_API_URL")
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
        let mut command = self.command(env!("CARGO_BIN_EXE_hangar"));
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

    /// Asks the server to stop and waits for its end.
    pub(crate) fn stop_server(&mut self) {
        let Some(mut server) = self.server.take() else {
            return;
        };
        let pid = rustix::process::Pid::from_child(&server);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let limit = Instant::now() + LIMIT;
        while server.try_wait().unwrap().is_none() {
            assert!(
                Instant::now() < limit,
                "the server did not stop:\n{}",
                self.server_log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
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
        let file = std::fs::File::open(format!("/run/netns/{}", self.netns)).unwrap();
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

    /// Returns the address that an external port is bound at.
    pub(crate) fn edge(&self, external: u16) -> SocketAddr {
        let text = std::fs::read_to_string(self.data_dir().join("server.json")).unwrap();
        let file: Value = serde_json::from_str(&text).unwrap();
        let token = std::fs::read_to_string(file["token_file"].as_str().unwrap()).unwrap();
        let api: SocketAddr = file["url"]
            .as_str()
            .unwrap()
            .trim_start_matches("http://")
            .parse()
            .unwrap();
        self.eventually("the port is bound", |world| {
            let head = format!("authorization: Bearer {}\r\n", token.trim());
            let answer = world
                .inside(|| request(api, "GET", "/v1/platform/edge", "localhost", &head, b""))
                .ok()?;
            let edge: Value = serde_json::from_str(&answer.body).ok()?;
            let port = u16::try_from(edge["ports"][external.to_string()].as_u64()?).ok()?;
            Some(SocketAddr::from(([127, 0, 0, 1], port)))
        })
    }

    /// Asks an app over HTTP through the proxy.
    pub(crate) fn get(&self, app: &str, path: &str) -> Answer {
        let address = self.edge(80);
        let host = format!("{app}.localhost");
        self.inside(|| request(address, "GET", path, &host, "", b""))
            .unwrap()
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

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the server's last lines:\n{}", self.server_log());
        }
        if self.server.is_none()
            && self.data_dir().join("store.db").exists()
            && !std::thread::panicking()
        {
            self.start_server();
        }
        if self.server.is_some() {
            let listed = self.hangar(&["apps", "list", "--json"]);
            let apps: Value = serde_json::from_str(&listed.stdout).unwrap_or_default();
            for app in apps.as_array().into_iter().flatten() {
                self.hangar(&[
                    "apps",
                    "destroy",
                    app["name"].as_str().unwrap_or_default(),
                    "--yes",
                ]);
            }
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
        }
        let _gone = Command::new("ip")
            .args(["netns", "del", &self.netns])
            .status();
    }
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
        head: head.to_owned(),
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

/// Writes an image that holds the test program and nothing else.
pub(crate) fn write_image(archive: &Path) {
    let binary = Path::new(env!("CARGO_BIN_EXE_hangar"))
        .parent()
        .unwrap()
        .join("examples/testapp");
    let content =
        std::fs::read(&binary).unwrap_or_else(|e| panic!("read {}: {e}", binary.display()));
    let spec = hangar_image::build::ImageSpec {
        files: vec![hangar_image::build::ImageFile {
            path: "/testapp".into(),
            mode: 0o755,
            content,
        }],
        entrypoint: vec!["/testapp".into()],
        cmd: vec!["serve".into()],
        ..hangar_image::build::ImageSpec::default()
    };
    hangar_image::build::write_oci_archive(&spec, archive).unwrap();
}

fn finish(command: &mut Command) -> Ran {
    let output = command.output().unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn run(command: &mut Command) {
    let ran = finish(command);
    assert_eq!(ran.code, 0, "{command:?}: {}", ran.stderr);
}
