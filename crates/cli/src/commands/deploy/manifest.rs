//! `--export-manifest` and `--from-manifest`: what a deploy was told, in the form of flyctl's file
//! (process-groups-and-deploy.md 4.1).
//!
//! It has the flags as they were given and the configuration whole, so that whoever deploys it
//! needs neither the folder nor a builder: only files that the configuration reads from there.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use hangar_api::deployment::DeploymentSource;
use hangar_api::id::AppName;
use hangar_api::machine::Guest;
use hangar_api::machine::config::File;
use hangar_config::{AppConfig, Format};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::{DeployInput, FromManifest, Prepared, options};
use crate::args::{PaceArgs, Retries, RolloutArgs, VmArgs};
use crate::commands::config;
use crate::error::Exit;
use crate::output;

/// Standard input or output, as a file's name.
const STREAM: &str = "-";
/// Nanoseconds in a second: Go writes times in them.
const NANOS: u64 = 1_000_000_000;

/// flyctl's `DeployManifest`; what is not said is left out. The last two are Hangar's own.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Manifest {
    #[serde(rename = "AppName")]
    app_name: String,
    config: Json,
    #[serde(skip_serializing_if = "is_default")]
    deployment_image: String,
    #[serde(skip_serializing_if = "is_default")]
    strategy: String,
    #[serde(skip_serializing_if = "is_default")]
    env_from_flags: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    primary_region_flag: String,
    #[serde(skip_serializing_if = "is_default")]
    skip_smoke_checks: bool,
    /// As with `--detach`.
    #[serde(skip_serializing_if = "is_default")]
    skip_health_checks: bool,
    /// There are none here.
    #[serde(skip_serializing_if = "is_default")]
    skip_dns_checks: bool,
    #[serde(skip_serializing_if = "is_default")]
    skip_release_command: bool,
    #[serde(skip_serializing_if = "is_default")]
    max_unavailable: Option<f64>,
    #[serde(skip_serializing_if = "is_default")]
    restart_only: bool,
    #[serde(skip_serializing_if = "is_default")]
    wait_timeout: Option<u64>,
    #[serde(skip_serializing_if = "is_default")]
    stop_signal: String,
    #[serde(skip_serializing_if = "is_default")]
    lease_timeout: Option<u64>,
    #[serde(skip_serializing_if = "is_default")]
    release_cmd_timeout: Option<u64>,
    #[serde(skip_serializing_if = "is_default")]
    guest: Option<Guest>,
    #[serde(skip_serializing_if = "is_default")]
    increased_availability: bool,
    #[serde(skip_serializing_if = "is_default")]
    update_only: bool,
    #[serde(skip_serializing_if = "is_default")]
    files: Vec<File>,
    #[serde(skip_serializing_if = "is_default")]
    exclude_regions: Names,
    #[serde(skip_serializing_if = "is_default")]
    only_regions: Names,
    #[serde(skip_serializing_if = "is_default")]
    exclude_machines: Names,
    #[serde(skip_serializing_if = "is_default")]
    only_machines: Names,
    #[serde(skip_serializing_if = "is_default")]
    process_groups: Names,
    #[serde(skip_serializing_if = "is_default")]
    max_concurrent: u32,
    #[serde(skip_serializing_if = "is_default")]
    volume_initial_size: u64,
    #[serde(skip_serializing_if = "is_default")]
    deploy_retries: u32,
    #[serde(skip_serializing_if = "is_default")]
    no_rollback: bool,
    #[serde(skip_serializing_if = "is_default")]
    detach_volumes: bool,
    /// Keys that nobody knows here, or that flyctl itself does nothing with.
    #[serde(flatten)]
    other: BTreeMap<String, Json>,
}

/// A set, as Go writes one.
type Names = BTreeMap<String, bool>;

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Writes down the deploy that is prepared.
pub(super) fn write(
    to: &Path,
    input: &DeployInput,
    prepared: &Prepared,
    detach: bool,
) -> Result<()> {
    let manifest = Manifest::of(input, prepared, detach)?;
    let text = serde_json::to_string_pretty(&manifest).context("write the manifest")?;
    if to == Path::new(STREAM) {
        return output::data(&text);
    }
    let mut path = to.to_owned();
    if path.extension().is_none_or(|ending| ending != "json") {
        path.as_mut_os_string().push(".json");
    }
    // Beside it first: half a manifest would be a wrong one.
    let beside = path.with_extension("json.new");
    let writing = || format!("write {}", path.display());
    std::fs::write(&beside, text + "\n").with_context(writing)?;
    std::fs::rename(&beside, &path).with_context(writing)?;
    output::say(&format!("Deploy manifest saved to {}", path.display()));
    Ok(())
}

/// Reads a deploy that was written down; says which app it is of. `app` is the one that the
/// command line names.
pub(super) fn read(from: &Path, dir: Option<PathBuf>, app: Option<AppName>) -> Result<DeployInput> {
    let (name, text) = if from == Path::new(STREAM) {
        let mut text = String::new();
        let mut stdin = std::io::stdin();
        stdin
            .read_to_string(&mut text)
            .context("read the manifest from standard input")?;
        ("the manifest".to_owned(), text)
    } else {
        let text = std::fs::read_to_string(from)
            .map_err(|e| Exit::Usage.with(format!("read {}: {e}", from.display())))?;
        (from.display().to_string(), text)
    };
    let manifest: Manifest = serde_json::from_str(&text)
        .map_err(|e| Exit::Usage.with(format!("{name} is no deploy manifest: {e}")))?;
    let input = manifest.into_input(&name, dir.unwrap_or_else(|| PathBuf::from(".")))?;
    match (&app, &input.app) {
        (Some(app), Some(its)) if app != its => {
            Err(Exit::Usage.with(format!("{name} is a deploy of {its}, and -a says {app}")))
        }
        (_, Some(its)) => {
            output::say(&format!("Resuming {its} deploy from manifest"));
            Ok(input)
        }
        (_, None) => Ok(input),
    }
}

// === impl Manifest ===

impl Manifest {
    fn of(input: &DeployInput, prepared: &Prepared, detach: bool) -> Result<Self> {
        let options = &prepared.body.options;
        let (rollout, pace) = (&input.rollout, &input.pace);
        let DeploymentSource::Config {
            image,
            definition,
            primary_region,
            ..
        } = &prepared.body.source
        else {
            return Err(Exit::Failed.with("only the deploy of a configuration can be written down"));
        };
        let mut config =
            AppConfig::from_definition(definition).context("read the configuration")?;
        config.app = Some(prepared.app.to_string());
        let laid = input.laid_files()?;
        let nanos = |given: &Option<String>, seconds: u64| {
            given.is_some().then(|| seconds.saturating_mul(NANOS))
        };
        let release = match &pace.release_command_timeout {
            Some(text) => options::seconds("--release-command-timeout", text)?,
            None => 0,
        };
        Ok(Self {
            app_name: prepared.app.to_string(),
            config: serde_json::from_str(&config.write(Format::Json))
                .context("write the configuration")?,
            deployment_image: image.clone(),
            strategy: rollout.strategy.map_or_else(String::new, |s| s.to_string()),
            env_from_flags: input.env.clone(),
            primary_region_flag: text_of(primary_region.as_ref()),
            skip_smoke_checks: detach || pace.smoke_checks == Some(false),
            skip_health_checks: detach,
            skip_dns_checks: detach,
            skip_release_command: rollout.skip_release_command,
            max_unavailable: rollout.max_unavailable,
            restart_only: false,
            wait_timeout: nanos(&pace.wait_timeout, options.wait_timeout_secs),
            stop_signal: pace.signal.clone().unwrap_or_default(),
            lease_timeout: nanos(&pace.lease_timeout, options.lease_timeout_secs),
            release_cmd_timeout: nanos(&pace.release_command_timeout, release),
            // flyctl always has one, and counts on it.
            guest: Some(options.guest.clone().unwrap_or_default()),
            increased_availability: options.ha,
            update_only: rollout.update_only,
            files: laid
                .into_iter()
                .map(|(path, file)| file.unwrap_or(gone(path)))
                .collect(),
            exclude_regions: names(&rollout.exclude_regions),
            only_regions: names(&rollout.regions),
            exclude_machines: names(&rollout.exclude_machines),
            only_machines: names(&rollout.only_machines),
            process_groups: names(&rollout.process_groups),
            max_concurrent: options.max_concurrent,
            volume_initial_size: input.volume_initial_size.unwrap_or_default(),
            deploy_retries: options.deploy_retries,
            no_rollback: pace.no_rollback,
            detach_volumes: input.yes,
            other: BTreeMap::new(),
        })
    }

    fn into_input(self, name: &str, folder: PathBuf) -> Result<DeployInput> {
        let wrong = |error: &dyn Display| Exit::Usage.with(format!("{name}: {error}"));
        let app = AppName::new(&self.app_name).map_err(|e| wrong(&format!("AppName: {e}")))?;
        if self.restart_only {
            return Err(wrong(
                &"restart_only: a restart is no deploy here; use `hangar apps restart`",
            ));
        }
        if self.deployment_image.is_empty() {
            return Err(wrong(&"it has no deployment_image"));
        }
        for key in self.other.keys() {
            output::say(&format!("{name}: warning: {key} is not acted on"));
        }
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let rollout = self.rollout().map_err(|e| wrong(&e))?;
        let pace = PaceArgs {
            wait_timeout: self.wait_timeout.map(time),
            release_command_timeout: self.release_cmd_timeout.map(time),
            lease_timeout: self.lease_timeout.map(time),
            smoke_checks: Some(!self.skip_smoke_checks),
            deploy_retries: Some(Retries(self.deploy_retries)),
            no_rollback: self.no_rollback,
            signal: some(&self.stop_signal),
        };
        let config = config::read_definition(name, &self.config)?;
        let files = self.files.into_iter();
        let files = files.map(|file| (file.guest_path.clone(), Some(file).filter(is_there)));
        let region = some(&self.primary_region_flag).map(|region| region.parse());
        Ok(DeployInput {
            manifest: Some(Box::new(FromManifest {
                name: name.to_owned(),
                config,
                files: files.collect(),
            })),
            folder,
            app: Some(app),
            image: Some(self.deployment_image),
            ha: Some(self.increased_availability),
            rollout,
            pace,
            primary_region: region
                .transpose()
                .map_err(|e| wrong(&format!("primary_region_flag: {e}")))?,
            env: self.env_from_flags,
            vm: self.guest.map_or_else(VmArgs::default, size),
            volume_initial_size: Some(self.volume_initial_size).filter(|size| *size > 0),
            yes: self.detach_volumes,
            detach: self.skip_health_checks,
            ..DeployInput::default()
        })
    }

    fn rollout(&self) -> Result<RolloutArgs, String> {
        let strategy = (!self.strategy.is_empty()).then(|| self.strategy.parse());
        Ok(RolloutArgs {
            strategy: strategy.transpose()?,
            max_unavailable: self.max_unavailable,
            max_concurrent: Some(self.max_concurrent).filter(|count| *count > 0),
            skip_release_command: self.skip_release_command,
            update_only: self.update_only,
            process_groups: parsed("process_groups", &self.process_groups)?,
            regions: parsed("only_regions", &self.only_regions)?,
            exclude_regions: parsed("exclude_regions", &self.exclude_regions)?,
            only_machines: parsed("only_machines", &self.only_machines)?,
            exclude_machines: parsed("exclude_machines", &self.exclude_machines)?,
        })
    }
}

fn names<T: Display>(list: &[T]) -> Names {
    list.iter().map(|name| (name.to_string(), true)).collect()
}

fn parsed<T>(key: &str, names: &Names) -> Result<Vec<T>, String>
where
    T: std::str::FromStr,
    T::Err: Display,
{
    let chosen = names.iter().filter(|(_, chosen)| **chosen);
    chosen
        .map(|(name, _)| name.parse().map_err(|e| format!("{key}: {e}")))
        .collect()
}

fn text_of<T: Display>(value: Option<&T>) -> String {
    value.map_or_else(String::new, ToString::to_string)
}

/// Returns a time as a flag has it.
fn time(nanos: u64) -> String {
    match nanos {
        0 => options::NONE.to_owned(),
        nanos => format!("{nanos}ns"),
    }
}

/// Returns the flags for a size; the default one is none that was said.
fn size(guest: Guest) -> VmArgs {
    if guest == Guest::default() {
        return VmArgs::default();
    }
    VmArgs {
        vm_size: None,
        vm_cpus: Some(guest.cpus),
        vm_cpu_kind: Some(guest.cpu_kind),
        vm_memory: Some(guest.memory_mb.to_string()),
    }
}

/// A file that is left out: one without content.
fn gone(guest_path: String) -> File {
    File {
        guest_path,
        ..File::default()
    }
}

fn is_there(file: &File) -> bool {
    let has_content = file
        .raw_value
        .as_ref()
        .is_some_and(|value| !value.is_empty());
    has_content || file.secret_name.is_some()
}

#[cfg(test)]
mod tests {
    use hangar_api::deployment::Strategy;
    use serde_json::json;

    use super::*;

    /// As flyctl writes one with every flag that it has.
    fn full() -> Json {
        json!({
            "AppName": "web", "config": { "app": "web", "env": { "A": "1" } },
            "deployment_image": "registry.example/web:1", "strategy": "canary",
            "env_from_flags": ["A=1"], "primary_region_flag": "ams", "skip_smoke_checks": true,
            "skip_dns_checks": true, "skip_release_command": true, "max_unavailable": 0.5,
            "wait_timeout": 90_000_000_000_u64, "stop_signal": "SIGTERM",
            "lease_timeout": 13_000_000_000_u64, "release_cmd_timeout": 0,
            "guest": { "cpu_kind": "shared", "cpus": 2, "memory_mb": 512 },
            "increased_availability": true, "update_only": true,
            "files": [{ "guest_path": "/a", "raw_value": "YQ==" }, { "guest_path": "/gone" }],
            "exclude_regions": { "lhr": true }, "only_regions": { "ams": true, "iad": false },
            "exclude_machines": { "00000000000001": true },
            "only_machines": { "00000000000002": true },
            "process_groups": { "app": true }, "max_concurrent": 4, "volume_initial_size": 3,
            "deploy_retries": 2,
        })
    }

    fn input(manifest: &Json) -> Result<DeployInput> {
        let manifest: Manifest = serde_json::from_value(manifest.clone()).unwrap();
        manifest.into_input("the manifest", PathBuf::from("."))
    }

    #[test]
    fn every_key_of_flyctls_file_says_what_its_flag_says() {
        let input = input(&full()).unwrap();
        let DeployInput {
            rollout, pace, vm, ..
        } = &input;
        assert_eq!(input.app, Some("web".parse().unwrap()));
        assert_eq!(input.image.as_deref(), Some("registry.example/web:1"));
        assert_eq!((input.ha, input.detach), (Some(true), false));
        assert_eq!(input.env, ["A=1"]);
        assert_eq!(input.primary_region, Some("ams".parse().unwrap()));
        assert_eq!(input.volume_initial_size, Some(3));
        assert_eq!(rollout.strategy, Some(Strategy::Canary));
        assert_eq!(rollout.max_unavailable, Some(0.5));
        assert_eq!(rollout.max_concurrent, Some(4));
        assert!(rollout.skip_release_command && rollout.update_only);
        assert_eq!(rollout.process_groups, ["app".parse().unwrap()]);
        assert_eq!(rollout.regions, ["ams".parse().unwrap()]);
        assert_eq!(rollout.exclude_regions, ["lhr".parse().unwrap()]);
        assert_eq!(rollout.only_machines, ["00000000000002".parse().unwrap()]);
        assert_eq!(
            rollout.exclude_machines,
            ["00000000000001".parse().unwrap()]
        );
        assert_eq!(pace.smoke_checks, Some(false));
        assert_eq!(pace.signal.as_deref(), Some("SIGTERM"));
        assert_eq!(pace.release_command_timeout.as_deref(), Some("none"));
        let seconds =
            |time: &Option<String>| options::seconds("x", time.as_ref().unwrap()).unwrap();
        assert_eq!(seconds(&pace.wait_timeout), 90);
        assert_eq!(seconds(&pace.lease_timeout), 13);
        assert_eq!(pace.deploy_retries, Some(Retries(2)));
        assert_eq!(
            (vm.vm_cpus, vm.vm_memory.as_deref()),
            (Some(2), Some("512"))
        );
        let from = input.manifest.as_ref().unwrap();
        assert_eq!(from.config.env["A"], "1");
        assert!(from.files["/a"].is_some() && from.files["/gone"].is_none());
    }

    #[test]
    fn what_cannot_be_carried_out_is_refused_with_its_key() {
        for (key, value, part) in [
            ("restart_only", json!(true), "restart_only"),
            ("deployment_image", json!(""), "deployment_image"),
            ("AppName", json!("No Name"), "AppName"),
            ("strategy", json!("slow"), "slow"),
            ("only_machines", json!({"x": true}), "only_machines"),
            ("config", json!({"app": 1}), "not valid"),
            ("config", json!(null), "not valid"),
        ] {
            let mut manifest = full();
            manifest[key] = value;
            let error = input(&manifest).unwrap_err().to_string();
            assert!(
                error.contains("the manifest") && error.contains(part),
                "{error}"
            );
        }
        for text in ["", "[]", "{", "{\"max_concurrent\": -1}"] {
            assert!(serde_json::from_str::<Manifest>(text).is_err(), "{text}");
        }
    }
}
