//! Updates that are tried again: `--deploy-retries` (process-groups-and-deploy.md 4.13).
//!
//! Only what may go better another time is: a host that could not do what was asked, or a Machine
//! that did not come up. An app that crashes, or whose checks fail, does so again.

use hangar_api::Timestamp;

use super::{Level, Planner, Step, after};
use crate::fleet::FleetMachine;
use crate::judge;
use crate::progress::{Again, Failure, Target};

/// Seconds between a failure and the next try.
const PAUSE_SECS: u64 = 1;

impl Planner<'_> {
    /// Returns whether the update of a Machine that failed is tried again, and does its part of it:
    /// the next try is noted first, and asked for after a pause.
    pub(super) fn tries_again(
        &mut self,
        machine: &FleetMachine<'_>,
        target: &mut Target,
        failure: &Failure,
    ) -> bool {
        let id = &machine.spec.id;
        let version = &machine.spec.instance_id;
        let noted = target.again.as_ref().filter(|again| again.of == *version);
        if let Some(again) = noted {
            let at = again.at;
            self.try_again(machine, target, at);
            return true;
        }
        let tried = target.again.as_ref().map_or(0, |again| again.tries);
        let retries = self.options.deploy_retries;
        if tried >= retries || !judge::may_go_better(machine) {
            return false;
        }
        let text = format!("{failure}; trying again ({} of {retries})", tried + 1);
        self.say(Level::Warning, text, Some(id), Some(&target.group));
        let at = after(self.now, PAUSE_SECS);
        target.again = Some(Again {
            tries: tried + 1,
            of: version.clone(),
            at,
        });
        self.wake(at);
        true
    }

    /// Asks for the same version once more, when its time has come.
    fn try_again(&mut self, machine: &FleetMachine<'_>, target: &mut Target, at: Timestamp) {
        if self.now < at {
            return self.wake(at);
        }
        let spec = machine.spec;
        target.since = Some(self.now);
        self.ready.push(Step::Update {
            machine: spec.id.clone(),
            expected: spec.instance_id.clone(),
            config: Box::new(spec.config.clone()),
            image_ref: spec.image_ref.clone(),
            secrets_version: spec.secrets_version,
            skip_launch: !target.run,
        });
    }

    /// Plans again then at the latest, whatever the gates say.
    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |other| other.min(at)));
    }
}
