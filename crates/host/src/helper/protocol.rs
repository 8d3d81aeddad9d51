//! What the host asks of the helper, and what it answers.

use std::collections::BTreeMap;
use std::path::PathBuf;

use hangar_api::error::ErrorKind;
use hangar_api::id::MachineId;
use hangar_api::volume::VolumeUsage;
use serde::{Deserialize, Serialize};

use super::volume::VolumeRequest;
use crate::cgroup::Layout;
use crate::runtime::{Limits, RunKey, RunNet, StartPlan};

/// A request. Comes in a memory file: it may hold secrets and be large.
#[derive(Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(crate) enum Request {
    /// Make a run.
    Start(Box<StartRequest>),
    /// Kill a run's processes.
    Kill(RemoveRequest),
    /// Kill and remove all of a run.
    Remove(RemoveRequest),
    /// Remove what a Machine without runs has kept beyond them: this directory.
    Wipe { kept: PathBuf },
    /// Work on the image of a volume or snapshot.
    Volume(VolumeRequest),
}

/// Everything that a run is made of.
#[derive(Serialize, Deserialize)]
pub(crate) struct StartRequest {
    pub(crate) key: RunKey,
    pub(crate) paths: Paths,
    pub(crate) layout: Layout,
    pub(crate) hostname: String,
    pub(crate) argv: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) user: String,
    pub(crate) workdir: PathBuf,
    pub(crate) layers: Vec<PathBuf>,
    /// The name of the writable layer that outlives the run.
    pub(crate) kept: Option<String>,
    pub(crate) files: Vec<FileRequest>,
    pub(crate) mounts: Vec<MountRequest>,
    pub(crate) limits: Limits,
    pub(crate) net: RunNet,
    pub(crate) log_dir: PathBuf,
    /// Whether the run is connected to the host's network.
    pub(crate) connect: bool,
    /// A mount of the host's, by its descriptor, that is seen as `/.fly`.
    pub(crate) api: Option<PathBuf>,
}

/// A file to write before the start.
#[derive(Serialize, Deserialize)]
pub(crate) struct FileRequest {
    pub(crate) path: PathBuf,
    pub(crate) base64: String,
    pub(crate) mode: u32,
}

/// A volume and where it is seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MountRequest {
    /// The volume's image on the host.
    pub(crate) image: PathBuf,
    /// Absolute path inside.
    pub(crate) path: PathBuf,
}

/// Which run to remove or kill, and where it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RemoveRequest {
    pub(crate) key: RunKey,
    pub(crate) paths: Paths,
    pub(crate) layout: Layout,
    pub(crate) connect: bool,
}

/// Where a run's things are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Paths {
    /// The run directory.
    pub(crate) run: PathBuf,
    /// The directory of its writable layer.
    pub(crate) rootfs: PathBuf,
    /// The directory of the Machine's writable layers that outlive runs.
    pub(crate) kept: PathBuf,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reply {
    /// What went wrong; absent when it is done.
    pub(crate) error: Option<String>,
    /// Whether trying again can help.
    pub(crate) transient: bool,
    /// What can be done about a failure with a volume.
    pub(crate) kind: Option<ErrorKind>,
    /// Bytes on disk of a copy.
    pub(crate) bytes: u64,
    /// Whether what was asked for shows only after a restart of the Machine.
    pub(crate) waits: bool,
    /// How full a volume is.
    pub(crate) usage: Option<VolumeUsage>,
}

// === impl Reply ===

impl Reply {
    pub(crate) fn done() -> Self {
        Self {
            error: None,
            transient: false,
            kind: None,
            bytes: 0,
            waits: false,
            usage: None,
        }
    }

    pub(crate) fn failed(message: String, transient: bool) -> Self {
        Self {
            error: Some(message),
            transient,
            ..Self::done()
        }
    }
}

// === impl Paths ===

impl Paths {
    pub(crate) fn new(machines: &std::path::Path, key: &RunKey) -> Self {
        let machine = machines.join(key.machine.as_str());
        let start = key.start.to_string();
        Self {
            run: machine.join("run").join(&start),
            rootfs: machine.join("rootfs").join(&start),
            kept: kept_dir(machines, &key.machine),
        }
    }
}

/// Returns the directory of a Machine's writable layers that outlive runs.
pub(crate) fn kept_dir(machines: &std::path::Path, machine: &MachineId) -> PathBuf {
    machines.join(machine.as_str()).join("kept")
}

// === impl StartRequest ===

impl StartRequest {
    /// Returns the directory of the writable layer.
    pub(crate) fn writable(&self) -> PathBuf {
        match &self.kept {
            Some(name) => self.paths.kept.join(name),
            None => self.paths.rootfs.clone(),
        }
    }

    pub(crate) fn new(
        plan: StartPlan,
        mounts: Vec<MountRequest>,
        paths: Paths,
        layout: Layout,
        connect: bool,
    ) -> Self {
        use base64::Engine as _;
        let encode = |bytes: Vec<u8>| base64::engine::general_purpose::STANDARD.encode(bytes);
        Self {
            key: plan.key,
            paths,
            layout,
            hostname: plan.hostname,
            argv: plan.argv,
            env: plan.env,
            user: plan.user,
            workdir: plan.workdir,
            layers: plan.layers,
            kept: plan.kept,
            files: plan
                .files
                .into_iter()
                .map(|(path, bytes, mode)| FileRequest {
                    path,
                    base64: encode(bytes),
                    mode,
                })
                .collect(),
            mounts,
            limits: plan.limits,
            net: plan.net,
            log_dir: plan.log_dir,
            connect,
            api: None,
        }
    }
}
