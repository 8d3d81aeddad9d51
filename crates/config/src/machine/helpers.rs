//! Machines beside those of the groups: the release command's, the console's, and those that test
//! others (process-groups-and-deploy.md 4.8, 4.12, 7).

use hangar_api::machine::MachineConfig;
use hangar_api::machine::config::{GROUP_CONSOLE, GROUP_RELEASE_COMMAND, Init, StopConfig};
use hangar_api::release::{ReleaseCommand, TestMachine};
use serde_json::{Map, Value as Json, json};

use super::{Inputs, MachineError, guest, metadata_of, parts, set, split, typed};
use crate::app::{AppConfig, MachineCheck};

/// How long the release command may run where fly.toml does not say.
const RELEASE_TIMEOUT_SECS: u64 = 300;

impl AppConfig {
    /// Returns the release command, where `[deploy]` names one.
    pub fn release_command(&self, inputs: &Inputs) -> Result<Option<ReleaseCommand>, MachineError> {
        let Some(json) = self.release_command_json(inputs)? else {
            return Ok(None);
        };
        let config = typed(GROUP_RELEASE_COMMAND, json)?;
        let deploy = self.deploy.as_ref();
        let timeout = deploy.and_then(|d| d.release_command_timeout);
        // The last second begun counts: 0 is for ever, and half a second is not.
        let secs = timeout.map(|t| {
            let time = t.to_std();
            time.as_secs() + u64::from(time.subsec_nanos() > 0)
        });
        Ok(Some(ReleaseCommand {
            sets_guest: config.guest.is_some(),
            config,
            timeout_secs: secs.unwrap_or(RELEASE_TIMEOUT_SECS),
        }))
    }

    /// Returns the Machines that test each new one of a group: those of its services, and those
    /// of the top level. Here a service without `processes` is one of every group.
    pub(super) fn test_machines(
        &self,
        group: &str,
        inputs: &Inputs,
    ) -> Result<Vec<TestMachine>, MachineError> {
        let mine =
            |processes: &[String]| processes.is_empty() || processes.iter().any(|p| p == group);
        let mut sections: Vec<(String, &[MachineCheck])> = Vec::new();
        if let Some(http) = self.http_service.as_ref().filter(|h| mine(&h.processes)) {
            sections.push((
                "http_service.machine_checks".to_owned(),
                &http.machine_checks,
            ));
        }
        for (i, service) in self.services.iter().enumerate() {
            if mine(&service.processes) {
                let path = format!("services[{i}].machine_checks");
                sections.push((path, &service.machine_checks));
            }
        }
        sections.push(("machine_checks".to_owned(), &self.machine_checks));
        let mut tests = Vec::new();
        for (path, checks) in sections {
            for (i, check) in checks.iter().enumerate() {
                if check.command.is_empty() {
                    let section = format!("{path}[{i}]");
                    return Err(MachineError::TestCommand { section });
                }
                tests.push(self.test_machine(check, inputs));
            }
        }
        Ok(tests)
    }

    fn test_machine(&self, check: &MachineCheck, inputs: &Inputs) -> TestMachine {
        let some = |words: &[String]| (!words.is_empty()).then(|| words.to_vec());
        let experimental = self.experimental.as_ref();
        let entrypoint = experimental.and_then(|e| some(&e.entrypoint));
        let mut init = Init {
            cmd: some(&check.command),
            entrypoint: entrypoint.or_else(|| some(&check.entrypoint)),
            ..Init::default()
        };
        if let Some(mb) = self.swap_size_mb {
            init.other.insert("swap_size_mb".to_owned(), Json::from(mb));
        }
        // With an image of its own it has nothing of the app's way to end.
        let own_image = check.image.is_some();
        let signal = check.kill_signal.clone();
        let timeout = check.kill_timeout;
        let stop = StopConfig {
            signal: signal.or_else(|| self.kill_signal.clone().filter(|_| !own_image)),
            timeout: timeout.or(self.kill_timeout.filter(|_| !own_image)),
        };
        let mut env = self.env.clone();
        env.extend(inputs.env.clone());
        TestMachine {
            config: MachineConfig {
                image: check.image.clone().unwrap_or_default(),
                env,
                init,
                stop_config: (stop != StopConfig::default()).then_some(stop),
                ..MachineConfig::default()
            },
            image_ref: None,
        }
    }

    /// Returns the configuration of the Machine that runs the release command; `None` where
    /// there is none. Without a size where fly.toml sets none for it.
    pub fn release_command_json(&self, inputs: &Inputs) -> Result<Option<Json>, MachineError> {
        let Some(deploy) = &self.deploy else {
            return Ok(None);
        };
        let Some(command) = &deploy.release_command else {
            return Ok(None);
        };
        let words = split(GROUP_RELEASE_COMMAND, command)?;
        let experimental = self.experimental.as_ref();
        let entrypoint = experimental.map(|e| e.entrypoint.clone());
        let mut config = self.helper(GROUP_RELEASE_COMMAND, &[("RELEASE_COMMAND", "1")], inputs);
        let init = parts::init(words, entrypoint.unwrap_or_default(), Vec::new());
        set(&mut config, "init", self.with_swap(init));
        set(&mut config, "stop_config", self.stop_config());
        set(&mut config, "files", self.files_of(inputs)?);
        if let Some(vm) = &deploy.release_command_vm {
            let dedicated = self.host_dedication_id.as_deref();
            let guest = guest::of(vm, dedicated).map_err(|reason| MachineError::Size {
                group: GROUP_RELEASE_COMMAND.to_owned(),
                reason,
            })?;
            set(&mut config, "guest", guest);
        }
        Ok(Some(Json::Object(config)))
    }

    /// Returns the configuration of the Machine that `console` makes.
    #[must_use]
    pub fn console_json(&self, inputs: &Inputs) -> Json {
        let mut config = self.helper(GROUP_CONSOLE, &[], inputs);
        let sleep = vec!["/bin/sleep".to_owned(), "inf".to_owned()];
        let init = parts::init(Vec::new(), Vec::new(), sleep);
        set(&mut config, "init", self.with_swap(init));
        Json::Object(config)
    }

    /// Returns what all Machines beside the groups' have: they end once, and nobody finds them.
    fn helper(&self, group: &str, env: &[(&str, &str)], inputs: &Inputs) -> Map<String, Json> {
        let mut config = Map::new();
        set(&mut config, "env", self.environment(group, env, inputs));
        let metadata = Json::Object(metadata_of(group, inputs));
        set(&mut config, "metadata", metadata);
        set(&mut config, "restart", json!({ "policy": "no" }));
        set(&mut config, "auto_destroy", Json::Bool(true));
        set(&mut config, "dns", json!({ "skip_registration": true }));
        if !inputs.image.is_empty() {
            set(&mut config, "image", Json::from(inputs.image.as_str()));
        }
        config
    }
}
