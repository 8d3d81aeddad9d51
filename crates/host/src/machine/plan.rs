//! What a start looks like: command, environment, files, limits (proxy-network-runtime.md 12). Pure.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hangar_api::id::VolumeId;
use hangar_api::machine::{MachineConfig, MachineSpec, Mount, RootfsPersist};
use hangar_api::secret::SecretValues;
use hangar_api::signal;

use super::images::{PreparedImage, reference};
use super::lifecycle::Rules;
use crate::runtime::{Limits, RunKey, RunMount, RunNet, StartPlan};

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const DEFAULT_STOP_TIMEOUT: Duration = Duration::from_secs(5);
const SIGINT: i32 = 2;
/// Processes and threads of a Machine.
const MAX_PIDS: u32 = 4096;
const DEFAULT_FILE_MODE: u32 = 0o644;
const MIB: u64 = 1024 * 1024;

/// Why a Machine cannot be started as it is configured, in words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Neither image nor configuration name a command.
    #[error(
        "the image has no command: it has neither ENTRYPOINT nor CMD; name one in [processes] or in the image"
    )]
    NoCommand,
    /// Not absolute, or with `..`.
    #[error("file path {0:?} is not an absolute path without '..'")]
    FilePath(String),
    /// Not base64.
    #[error("the content of file {0:?} is not base64")]
    FileContent(String),
    /// Not a volume's id, or not a place for one.
    #[error(
        "volume {volume:?} cannot be mounted at {path:?}: name a volume by its ID and an absolute path without '..'"
    )]
    Mount {
        /// The volume.
        volume: String,
        /// The place.
        path: String,
    },
    /// No such secret.
    #[error("file {path:?} is to be made from secret {secret}, which is not set")]
    NoSecret {
        /// The file.
        path: String,
        /// The secret.
        secret: String,
    },
}

/// What a plan is made of.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// The generation to start.
    pub spec: &'a MachineSpec,
    /// Its secrets.
    pub secrets: &'a SecretValues,
    /// Its image.
    pub image: &'a PreparedImage,
    /// The start's number.
    pub start: u64,
    /// Its host-local address.
    pub v4: Ipv4Addr,
}

/// Returns what the lifecycle needs to know of a spec.
#[must_use]
pub fn rules(config: &MachineConfig, latest: u64) -> Rules {
    let stop = config.stop_config.clone().unwrap_or_default();
    let timeout = stop.timeout.map_or(DEFAULT_STOP_TIMEOUT, |t| t.to_std());
    Rules {
        policy: config.restart_policy(),
        auto_destroy: config.auto_destroy,
        latest,
        stop_signal: stop
            .signal
            .as_deref()
            .and_then(signal::number)
            .unwrap_or(SIGINT),
        stop_timeout: timeout.min(super::lifecycle::MAX_STOP_TIMEOUT),
        can_suspend: config.no_suspend().is_none(),
        is_ready: false,
    }
}

/// Returns what to start.
pub fn start_plan(inputs: Inputs<'_>, log_dir: PathBuf) -> Result<StartPlan, PlanError> {
    let Inputs { spec, image, .. } = inputs;
    let guest = spec.config.guest.clone().unwrap_or_default();
    Ok(StartPlan {
        key: RunKey {
            machine: spec.id.clone(),
            start: inputs.start,
        },
        hostname: spec.id.to_string(),
        argv: argv(&spec.config, image)?,
        env: environment(&inputs),
        user: image.user.clone(),
        workdir: PathBuf::from(if image.workdir.is_empty() {
            "/"
        } else {
            &image.workdir
        }),
        layers: image.layers.clone(),
        kept: kept(spec),
        files: files(&spec.config, inputs.secrets)?,
        mounts: mounts(&spec.config)?,
        limits: Limits {
            cpus: guest.cpus,
            memory_bytes: guest.memory_mb.saturating_mul(MIB),
            swap_bytes: spec.config.swap_mb().unwrap_or(0).saturating_mul(MIB),
            pids: MAX_PIDS,
        },
        net: RunNet {
            v6: spec.private_ip(),
            v4: inputs.v4,
        },
        log_dir,
    })
}

/// Returns the name under which what the program writes is kept: another one begins with the image.
/// Words that mean nothing were refused by the server.
fn kept(spec: &MachineSpec) -> Option<String> {
    match spec.config.rootfs_persist().unwrap_or_default() {
        RootfsPersist::Never => None,
        RootfsPersist::Restart => Some(format!("generation-{}", spec.generation)),
        RootfsPersist::Always => Some("always".to_owned()),
    }
}

/// `exec` alone if given; else (entrypoint or the image's) then (cmd or the image's). A group's
/// command comes as `cmd`, so the image's ENTRYPOINT stays (12.3.1).
fn argv(config: &MachineConfig, image: &PreparedImage) -> Result<Vec<String>, PlanError> {
    let given = |list: &Option<Vec<String>>| list.clone().filter(|list| !list.is_empty());
    let argv = given(&config.init.exec).unwrap_or_else(|| {
        let mut argv = given(&config.init.entrypoint).unwrap_or_else(|| image.entrypoint.clone());
        argv.extend(given(&config.init.cmd).unwrap_or_else(|| image.cmd.clone()));
        argv
    });
    if argv.first().is_none_or(String::is_empty) {
        return Err(PlanError::NoCommand);
    }
    Ok(argv)
}

/// Image, then `env`, then secrets, then the platform's own; later ones win (12.1).
fn environment(inputs: &Inputs<'_>) -> BTreeMap<String, String> {
    let Inputs { spec, .. } = inputs;
    let guest = spec.config.guest.clone().unwrap_or_default();
    let mut env = BTreeMap::from([("PATH".to_owned(), DEFAULT_PATH.to_owned())]);
    env.extend(inputs.image.env.clone());
    env.extend(spec.config.env.clone());
    env.extend(inputs.secrets.0.clone());
    let own = [
        ("FLY_APP_NAME", spec.app.to_string()),
        ("FLY_MACHINE_ID", spec.id.to_string()),
        ("FLY_ALLOC_ID", spec.id.to_string()),
        ("FLY_REGION", spec.region.to_string()),
        ("FLY_PRIVATE_IP", spec.private_ip().to_string()),
        ("FLY_IMAGE_REF", reference(&spec.image_ref)),
        ("FLY_MACHINE_VERSION", spec.instance_id.to_string()),
        ("FLY_PROCESS_GROUP", spec.config.process_group().to_owned()),
        ("FLY_VM_MEMORY_MB", guest.memory_mb.to_string()),
    ];
    env.extend(own.map(|(name, value)| (name.to_owned(), value)));
    // What no process can be given must not keep the Machine from starting.
    env.retain(|name, value| {
        !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0')
    });
    env
}

fn mounts(config: &MachineConfig) -> Result<Vec<RunMount>, PlanError> {
    let mount = |mount: &Mount| {
        let path = PathBuf::from(&mount.path);
        let safe = is_safe(&mount.path);
        let volume = VolumeId::new(mount.volume.as_str()).ok().filter(|_| safe);
        let volume = volume.ok_or_else(|| PlanError::Mount {
            volume: mount.volume.clone(),
            path: mount.path.clone(),
        })?;
        Ok(RunMount { volume, path })
    };
    config.mounts.iter().map(mount).collect()
}

/// Returns whether a path inside is absolute, not the root, and without steps upwards.
fn is_safe(text: &str) -> bool {
    let path = Path::new(text);
    path.is_absolute()
        && path.file_name().is_some()
        && !path.components().any(|c| c.as_os_str() == "..")
        && !text.contains('\0')
}

fn files(
    config: &MachineConfig,
    secrets: &SecretValues,
) -> Result<Vec<(PathBuf, Vec<u8>, u32)>, PlanError> {
    let mut files = Vec::new();
    for file in &config.files {
        let path = PathBuf::from(&file.guest_path);
        if !is_safe(&file.guest_path) {
            return Err(PlanError::FilePath(file.guest_path.clone()));
        }
        let text =
            match &file.secret_name {
                Some(secret) => secrets.0.get(secret).map(String::as_str).ok_or_else(|| {
                    PlanError::NoSecret {
                        path: file.guest_path.clone(),
                        secret: secret.clone(),
                    }
                })?,
                None => file.raw_value.as_deref().unwrap_or_default(),
            };
        let content = STANDARD
            .decode(text.trim())
            .map_err(|_| PlanError::FileContent(file.guest_path.clone()))?;
        files.push((
            path,
            content,
            file.mode.unwrap_or(DEFAULT_FILE_MODE) & 0o7777,
        ));
    }
    Ok(files)
}

#[cfg(test)]
mod tests;
