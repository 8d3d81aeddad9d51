//! Machines with a shell: an image of busybox and the test program, for tests that look around
//! inside a Machine.

use hangar_image::build::{ImageFile, ImageSpec};

use crate::world::{Ran, World, fly_toml};

/// The name under which the image with a shell is imported.
pub(crate) const SHELL: &str = "shell";

/// What a program that is to end begins with: it waits for [`World::go`], so that it does not end
/// while the deploy still watches it, which would fail that.
pub(crate) const AWAIT_GO: &str = "until [ -e /tmp/go ]; do sleep 0.02; done";

const BUSYBOX: &str = "/bin/busybox";
/// Commands of busybox that are in the image's path.
const APPLETS: [&str; 32] = [
    "cat", "chroot", "dd", "dmesg", "env", "false", "find", "grep", "head", "hostname", "id",
    "kill", "ls", "mkdir", "mknod", "mount", "nc", "ps", "readlink", "rm", "seq", "sh", "sleep",
    "sort", "stat", "touch", "tr", "true", "umount", "unshare", "wc", "yes",
];

/// Returns an image with a shell that sleeps, or says what is missing.
pub(crate) fn shell_spec() -> Option<ImageSpec> {
    let Some(busybox) = std::fs::read(BUSYBOX).ok().filter(|b| is_static(b)) else {
        eprintln!("skipped: needs {BUSYBOX} that is static (busybox-static)");
        return None;
    };
    let mut files = crate::world::image_spec().files;
    files.push(file(BUSYBOX, 0o755, busybox));
    for applet in APPLETS {
        // The kernel gives the script's path to busybox, which takes its last part as the applet.
        let script = format!("#!{BUSYBOX}\n");
        files.push(file(&format!("/bin/{applet}"), 0o755, script));
    }
    Some(ImageSpec {
        files,
        cmd: ["/bin/sleep", "100000"].map(str::to_owned).to_vec(),
        ..ImageSpec::default()
    })
}

/// Returns a file of an image.
pub(crate) fn file(path: &str, mode: u32, content: impl Into<Vec<u8>>) -> ImageFile {
    ImageFile {
        path: path.to_owned(),
        mode,
        content: content.into(),
    }
}

/// A program that names no interpreter needs no libraries.
fn is_static(program: &[u8]) -> bool {
    let head = &program[..program.len().min(4096)];
    head.starts_with(b"\x7fELF") && !head.windows(4).any(|w| w == b"/ld-")
}

impl World {
    /// Returns a world with a server and the image with a shell, or says what is missing.
    pub(crate) fn with_shell() -> Option<Self> {
        let spec = shell_spec()?;
        let world = Self::start()?;
        world.import(SHELL, &spec);
        Some(world)
    }

    /// Returns a world with a shell and with room for volumes, or says what is missing.
    pub(crate) fn with_disks() -> Option<Self> {
        if !std::path::Path::new("/dev/loop-control").exists() {
            eprintln!("skipped: needs loop devices (modprobe loop)");
            return None;
        }
        Self::with_shell()
    }

    /// Deploys an app of the image with a shell, and returns the only Machine of its group `app`.
    pub(crate) fn shell_app(&self, app: &str, rest: &str) -> String {
        self.deploy_shell(app, SHELL, rest);
        self.only(app, "app")
    }

    /// Deploys an app of an image, one Machine a group, and returns its folder.
    pub(crate) fn deploy_shell(&self, app: &str, image: &str, rest: &str) -> String {
        let line = |name: &str| format!("image = \"{name}\"");
        let toml = fly_toml(app, rest).replace(&line(crate::world::IMAGE), &line(image));
        let folder = self.app(app, &toml);
        self.ok(&["deploy", &folder, "--ha=false", "--smoke-checks=false"]);
        folder
    }

    /// Runs a script in a Machine as root, by `machine exec`.
    pub(crate) fn sh(&self, app: &str, id: &str, script: &str) -> Ran {
        self.hangar(&["machine", "exec", "-a", app, id, "/bin/sh", "-c", script])
    }

    /// Lets a program go on that waits with [`AWAIT_GO`]. It may end, and the command with it,
    /// before the command's own end is told.
    pub(crate) fn go(&self, app: &str, id: &str) {
        let _may_be_cut_off = self.sh(app, id, "touch /tmp/go");
    }

    /// Runs a script in a Machine, expects it to succeed, and returns what it printed.
    pub(crate) fn said(&self, app: &str, id: &str, script: &str) -> String {
        let ran = self.sh(app, id, script);
        assert_eq!(ran.code, 0, "{script}: {ran:?}");
        ran.stdout
    }

    /// Returns what the app itself has written, line by line, oldest first.
    pub(crate) fn app_lines(&self, app: &str) -> Vec<String> {
        let lines = self.log_lines(app).into_iter();
        lines
            .filter(|line| line["provider"] == "app")
            .map(|line| line["message"].as_str().unwrap().to_owned())
            .filter(|line| !line.starts_with(" INFO ") && !line.starts_with(" ERROR "))
            .collect()
    }

    /// Returns an app's log as the API gives it, oldest first.
    pub(crate) fn log_lines(&self, app: &str) -> Vec<serde_json::Value> {
        let path = format!("/v1/apps/{app}/logs?tail=10000");
        let answer = self.api("GET", &path, Some(&self.token()));
        assert_eq!(answer.status, 200, "{answer:?}");
        let lines = answer.body.lines().filter(|line| !line.is_empty());
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Returns the host's process id of the `init` of a Machine.
    pub(crate) fn init_of(&self, id: &str) -> u32 {
        let mut inits = self.inits();
        inits.retain(|pid| {
            let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup"));
            groups.unwrap_or_default().contains(&format!("/{id}-"))
        });
        assert_eq!(inits.len(), 1, "the inits of {id}");
        inits[0]
    }
}
