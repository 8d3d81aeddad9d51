//! A group's configuration laid over a Machine's: what comes from fly.toml, and what a Machine
//! keeps (process-groups-and-deploy.md 2.3, 4.6, 4.7, 4.14).
//!
//! Pure. Used by the planner for each Machine that it creates or updates.

use hangar_api::id::{GroupName, MachineId, ReleaseId};
use hangar_api::machine::config::{
    GROUP_RELEASE_COMMAND, GROUP_TEST, PLATFORM_VERSION, PROCESS_GROUP, RELEASE_ID,
    RELEASE_VERSION, Restart,
};
use hangar_api::machine::{Guest, MachineConfig, MachineSpec, Mount};
use hangar_api::release::{GroupSpec, ReleaseCommand, TestMachine};

use crate::desired::LaunchKey;

/// The variable that tells a standby whose loss it waits for.
pub const STANDBY_FOR: &str = "FLY_STANDBY_FOR";
/// Kept in `MachineConfig::other`, and made anew from fly.toml by each deployment.
const REBUILT: [&str; 2] = ["statics", "metrics"];
/// Kept in `Init::other`, and made anew from fly.toml by each deployment.
const REBUILT_INIT: [&str; 1] = ["swap_size_mb"];
/// Tells a canary.
const CANARY_KEY: &str = "fly_canary";
/// Tells which deployment made a green Machine, as seconds since 1970.
const GREEN_TAG: &str = "fly_bluegreen_deployment_tag";
/// What makes a green Machine unique.
const GREEN_LAUNCH: &str = "fly_flyctl_bluegreen_launch_id";
/// The size of a release command's Machine when nothing says another.
const RELEASE_SIZE: &str = "shared-cpu-2x";
/// Set on apps that are database clusters elsewhere; nobody's here.
const MANAGED_POSTGRES: &str = "fly-managed-postgres";

/// Returns a Machine's configuration after an update to a group's: commands, environment,
/// services, checks, files, stop and restart settings are made anew; the size is kept where
/// fly.toml sets none; the user's metadata and all the rest are kept.
#[must_use]
pub fn lay_over(existing: &MachineConfig, spec: &GroupSpec, group: &GroupName) -> MachineConfig {
    let new = &spec.config;
    let mut config = existing.clone();
    config.image.clone_from(&new.image);
    config.env.clone_from(&new.env);
    config.init.exec.clone_from(&new.init.exec);
    config.init.entrypoint.clone_from(&new.init.entrypoint);
    config.init.cmd.clone_from(&new.init.cmd);
    for key in REBUILT_INIT {
        replace(&mut config.init.other, &new.init.other, key);
    }
    if spec.sets_guest || (existing.guest.is_none() && existing.size.is_none()) {
        config.guest.clone_from(&new.guest);
        config.size = None;
    }
    config.services.clone_from(&new.services);
    config.checks.clone_from(&new.checks);
    config.restart.clone_from(&new.restart);
    config.stop_config.clone_from(&new.stop_config);
    config.files.clone_from(&new.files);
    config.mounts = mounts(&existing.mounts, &new.mounts);
    for key in REBUILT {
        replace(&mut config.other, &new.other, key);
    }
    overlay(&mut config, new);
    // A Machine that serves waits for nobody's loss.
    if !config.services.is_empty() {
        config.standbys.clear();
    }
    config.metadata.remove(MANAGED_POSTGRES);
    let added = new.metadata.iter().map(|(k, v)| (k.clone(), v.clone()));
    config.metadata.extend(added);
    adopt(&mut config, group);
    config
}

/// Returns the mounts of fly.toml with the volumes that the Machine has already: fly.toml knows
/// only their names. A mount without a name, as that of a copy, stays as it is (4.5).
fn mounts(has: &[Mount], wants: &[Mount]) -> Vec<Mount> {
    let known = |wanted: &Mount| {
        let same =
            |m: &&Mount| (m.name == wanted.name || m.name.is_empty()) && !m.volume.is_empty();
        has.iter().find(same).filter(|_| wanted.volume.is_empty())
    };
    let kept = |wanted: &Mount| match known(wanted) {
        Some(mount) => {
            let path = if mount.name.is_empty() {
                &mount.path
            } else {
                &wanted.path
            };
            Mount {
                path: path.clone(),
                name: mount.name.clone(),
                volume: mount.volume.clone(),
                size_gb: mount.size_gb,
                encrypted: mount.encrypted,
                ..wanted.clone()
            }
        }
        None => wanted.clone(),
    };
    wants.iter().map(kept).collect()
}

/// What a Machine keeps, but for what `machine_config` of fly.toml says: nothing else sets any of
/// it.
fn overlay(config: &mut MachineConfig, new: &MachineConfig) {
    config.auto_destroy |= new.auto_destroy;
    if !new.standbys.is_empty() {
        config.standbys.clone_from(&new.standbys);
    }
    if let Some(dns) = &new.dns {
        let kept = config.dns.get_or_insert_default();
        kept.skip_registration = dns.skip_registration.or(kept.skip_registration);
        kept.other.extend(dns.other.clone());
    }
    if new.init.tty.is_some() {
        config.init.tty = new.init.tty;
    }
    let said = |rebuilt: &'static [&'static str]| {
        move |(key, _): &(&String, &serde_json::Value)| !rebuilt.contains(&key.as_str())
    };
    let init = new.init.other.iter().filter(said(&REBUILT_INIT));
    let init: Vec<_> = init.map(|(k, v)| (k.clone(), v.clone())).collect();
    config.init.other.extend(init);
    let other = new.other.iter().filter(said(&REBUILT));
    let other: Vec<_> = other.map(|(k, v)| (k.clone(), v.clone())).collect();
    config.other.extend(other);
}

fn replace(
    into: &mut serde_json::Map<String, serde_json::Value>,
    from: &serde_json::Map<String, serde_json::Value>,
    key: &str,
) {
    match from.get(key) {
        Some(value) => into.insert(key.to_owned(), value.clone()),
        None => into.remove(key),
    };
}

/// Marks a configuration as that of a managed Machine of the group.
fn adopt(config: &mut MachineConfig, group: &GroupName) {
    let mut put = |key: &str, value: &str| config.metadata.insert(key.to_owned(), value.to_owned());
    put(PLATFORM_VERSION, "v2");
    put(PROCESS_GROUP, group.as_str());
}

/// The release that a configuration is marked with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark<'a> {
    pub(crate) release: &'a ReleaseId,
    pub(crate) version: u64,
}

impl Mark<'_> {
    fn put_on(self, config: &mut MachineConfig) {
        let mut put = |key: &str, value: String| config.metadata.insert(key.to_owned(), value);
        put(RELEASE_ID, self.release.to_string());
        put(RELEASE_VERSION, self.version.to_string());
    }
}

/// Returns the configuration of a Machine that goes over to the release.
pub(crate) fn onto(
    existing: &MachineConfig,
    spec: &GroupSpec,
    group: &GroupName,
    mark: Mark<'_>,
) -> MachineConfig {
    let mut config = lay_over(existing, spec, group);
    mark.put_on(&mut config);
    config
}

/// Returns the configuration of a Machine that only starts again: its own, of this release.
pub(crate) fn restarted(existing: &MachineConfig, mark: Mark<'_>) -> MachineConfig {
    let mut config = existing.clone();
    let group = config.group_or_app();
    config.metadata.remove(MANAGED_POSTGRES);
    adopt(&mut config, &group);
    mark.put_on(&mut config);
    config
}

/// Returns the configuration of a Machine that goes back to a former version: that version's, but
/// for the metadata that somebody has set or removed since the release took the Machine over.
pub(crate) fn back(
    former: &MachineConfig,
    now: &MachineConfig,
    taken_over: &MachineConfig,
) -> MachineConfig {
    let mut config = former.clone();
    for (key, value) in &now.metadata {
        if taken_over.metadata.get(key) != Some(value) {
            config.metadata.insert(key.clone(), value.clone());
        }
    }
    for key in taken_over.metadata.keys() {
        if !now.metadata.contains_key(key) {
            config.metadata.remove(key);
        }
    }
    config
}

/// Returns the configuration of a new Machine of the group, of the size `guest` where fly.toml
/// sets none.
pub(crate) fn for_new(
    spec: &GroupSpec,
    group: &GroupName,
    guest: Option<Guest>,
    mark: Mark<'_>,
) -> MachineConfig {
    let mut config = spec.config.clone();
    if !spec.sets_guest {
        config.guest = guest.or(config.guest).or_else(|| Some(Guest::default()));
    }
    adopt(&mut config, group);
    mark.put_on(&mut config);
    config
}

/// Returns the configuration of a Machine that runs once for the release: the release command's.
pub(crate) fn for_release(
    command: &ReleaseCommand,
    guest: Option<Guest>,
    mark: Mark<'_>,
) -> MachineConfig {
    let mut config = runs_once(&command.config, GROUP_RELEASE_COMMAND, mark);
    if !command.sets_guest || config.guest.is_none() {
        config.guest = guest.or_else(|| Guest::preset(RELEASE_SIZE).ok());
    }
    let mut put = |key: &str, value: &str| config.env.insert(key.to_owned(), value.to_owned());
    put("RELEASE_COMMAND", "1");
    put("FLY_PROCESS_GROUP", GROUP_RELEASE_COMMAND);
    config
}

/// Returns the configuration of a Machine that tests another one.
pub(crate) fn for_test(test: &TestMachine, tested: &MachineSpec, mark: Mark<'_>) -> MachineConfig {
    let mut config = runs_once(&test.config, GROUP_TEST, mark);
    let of = &tested.config;
    if config.image.is_empty() {
        config.image.clone_from(&of.image);
    }
    if config.init.entrypoint.is_none() {
        config.init.entrypoint.clone_from(&of.init.entrypoint);
    }
    if config.guest.is_none() {
        config.guest.clone_from(&of.guest);
    }
    let own = of.env.iter().map(|(k, v)| (k.clone(), v.clone()));
    config.env.extend(own);
    let ip = tested.private_ip().to_string();
    let group = GROUP_TEST.to_owned();
    let mut put = |key: &str, value| config.env.insert(key.to_owned(), value);
    put("FLY_TEST_COMMAND", "1".to_owned());
    put("FLY_TEST_MACHINE_IP", ip);
    put("FLY_PROCESS_GROUP", group);
    config
}

/// Lays what every Machine has that runs once and is then gone over a configuration (4.8, 4.12).
fn runs_once(from: &MachineConfig, group: &str, mark: Mark<'_>) -> MachineConfig {
    let mut config = from.clone();
    config.services.clear();
    config.checks.clear();
    config.standbys.clear();
    for key in REBUILT {
        config.other.remove(key);
    }
    config.restart = Some(Restart {
        policy: Some("no".to_owned()),
        ..Restart::default()
    });
    config.auto_destroy = true;
    skip_dns(&mut config);
    let mut put = |key: &str, value: &str| config.metadata.insert(key.to_owned(), value.to_owned());
    put(PLATFORM_VERSION, "v2");
    put(PROCESS_GROUP, group);
    mark.put_on(&mut config);
    config
}

/// Makes it the configuration of a canary.
pub(crate) fn as_canary(config: &mut MachineConfig) {
    let key = CANARY_KEY.to_owned();
    config.metadata.insert(key, "true".to_owned());
    skip_dns(config);
}

/// Makes it the configuration of a green Machine.
pub(crate) fn as_green(config: &mut MachineConfig, tag: &str, launch: &LaunchKey) {
    let mut put = |key: &str, value: String| config.metadata.insert(key.to_owned(), value);
    put(GREEN_TAG, tag.to_owned());
    put(GREEN_LAUNCH, launch.to_string());
}

fn skip_dns(config: &mut MachineConfig) {
    config.dns.get_or_insert_default().skip_registration = Some(true);
}

/// Makes it the configuration of a Machine that stands by no other.
pub(crate) fn stand_alone(config: &mut MachineConfig) {
    config.standbys.clear();
    config.env.remove(STANDBY_FOR);
}

/// Makes it the configuration of a standby of another Machine.
pub(crate) fn stand_by(config: &mut MachineConfig, first: &MachineId) {
    config.standbys = vec![first.to_string()];
    let name = STANDBY_FOR.to_owned();
    config.env.insert(name, first.to_string());
}
