//! What the tests share: scratch directories, other tools, images made by them, a registry.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hangar_api::env::Env;
use hangar_image::build::{ImageFile, ImageSpec};
use hangar_image::{ImageStore, RegistryConfig};
use tempfile::TempDir;

/// Returns whether a test can run: root and these tools. Says aloud what is missing.
pub(crate) fn can_run(tools: &[&str]) -> bool {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return false;
    }
    for tool in tools {
        let dirs = ["/usr/bin", "/usr/sbin", "/bin", "/usr/local/bin"];
        if !dirs.iter().any(|dir| Path::new(dir).join(tool).exists()) {
            eprintln!("skipped: needs {tool}");
            return false;
        }
    }
    true
}

/// A directory that holds a store and whatever the test puts beside it.
pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) store: Arc<ImageStore>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(RegistryConfig::default())
    }

    pub(crate) fn with(registries: RegistryConfig) -> Self {
        let dir = TempDir::new().unwrap();
        let store = ImageStore::open(dir.path().join("images"), Env::real(), registries).unwrap();
        Self { dir, store }
    }

    /// Opens the store again, as after a restart.
    pub(crate) fn restart(&mut self) {
        let images = self.path("images");
        self.store = ImageStore::open(images, Env::real(), RegistryConfig::default()).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Returns the names in a directory of the store.
    pub(crate) fn stored(&self, dir: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path("images").join(dir)).unwrap();
        let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    /// Nothing half-made lies about.
    pub(crate) fn assert_clean(&self) {
        assert_eq!(self.stored("tmp"), Vec::<String>::new());
    }
}

/// Runs a tool to its end and returns what it printed.
pub(crate) fn run(tool: &str, args: &[&str]) -> String {
    let output = Command::new(tool)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{tool} {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn sh(dir: &Path, script: &str) -> String {
    run(
        "sh",
        &["-c", &format!("set -e; cd '{}'; {script}", dir.display())],
    )
}

pub(crate) fn skopeo_copy(dir: &Path, args: &str) {
    sh(dir, &format!("skopeo copy -q --insecure-policy {args}"));
}

/// Makes `layout:new` in `dir` with umoci: one layer, and a second one that removes things.
pub(crate) fn umoci_image(dir: &Path) {
    sh(
        dir,
        "umoci init --layout layout; umoci new --image layout:new
        umoci unpack --image layout:new one 2>/dev/null
        r=one/rootfs
        mkdir -p $r/bin $r/etc $r/data $r/opt/old $r/tmp
        echo program > $r/bin/app; chown 1000:1001 $r/bin/app; chmod 4755 $r/bin/app
        ln $r/bin/app $r/bin/app2; ln -s ../bin/app $r/etc/app; ln -s /etc $r/absolute
        echo conf > $r/etc/conf; chmod 600 $r/etc/conf
        echo a > $r/data/a; echo b > $r/data/b; echo o > $r/opt/old/o
        chmod 1777 $r/tmp; touch $r/tmp/t; chown 1000:1001 $r/opt; chmod 750 $r/opt; mkfifo $r/data/fifo
        old='touch -d 2001-02-03T04:05:06'; $old $r/etc/conf $r/etc $r/data $r/opt $r/tmp
        umoci repack --image layout:new one 2>/dev/null
        rm -rf one; umoci unpack --image layout:new two 2>/dev/null
        r=two/rootfs
        rm $r/etc/conf $r/data/a $r/tmp/t; rm -r $r/opt/old
        mkdir $r/opt/new; echo n > $r/opt/new/n; echo changed > $r/data/b
        # umoci leaves directories out whose time has not changed.
        $old $r/etc $r/data $r/opt $r/tmp
        umoci repack --image layout:new two 2>/dev/null
        rm -rf two
        umoci config --image layout:new --config.entrypoint /bin/app --config.cmd serve \
          --config.env A=1 --config.user 1000:1001 --config.workingdir /data \
          --config.exposedports 8080/tcp --config.stopsignal SIGQUIT --config.label team=blue",
    );
}

/// An image of one file, made by our own builder.
pub(crate) fn spec(content: &str) -> ImageSpec {
    ImageSpec {
        files: vec![ImageFile {
            path: "/app".to_owned(),
            mode: 0o755,
            content: content.as_bytes().to_vec(),
        }],
        entrypoint: vec!["/app".to_owned()],
        ..ImageSpec::default()
    }
}

/// Debian's registry server, ended when dropped.
pub(crate) struct DockerRegistry {
    child: Child,
    pub(crate) port: u16,
}

impl DockerRegistry {
    /// Starts one with its data in `dir`; `http` and `more` are lines of its configuration.
    pub(crate) fn start(dir: &Path, http: &str, more: &str) -> Self {
        let data = dir.join("registry");
        fs::create_dir_all(&data).unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
             http:\n  addr: 127.0.0.1:{port}\n{http}\n{more}\n",
            data.display()
        );
        let file = data.join("config.yml");
        fs::write(&file, config).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let start = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "the registry does not come up"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { child, port }
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
