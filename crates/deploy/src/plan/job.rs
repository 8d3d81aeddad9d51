//! Machines that run once and have to exit with 0: the release command (4.8) and the test Machines
//! of an updated one (4.12).
//!
//! What keeps one from running twice: its launch key makes it one Machine, its restart policy
//! makes that run once, and that it has ended well is remembered.

use hangar_api::deployment::{DeployOptions, Strategy};
use hangar_api::id::{GroupName, MachineId};
use hangar_api::image::ImageRef;
use hangar_api::machine::config::{GROUP_RELEASE_COMMAND, GROUP_TEST};
use hangar_api::machine::{Guest, MachineConfig, MachineState};
use hangar_api::release::{ReleaseCommand, TestMachine};

use super::{Condition, Level, Planner, Step, deadline};
use crate::desired::{Desired, Kind};
use crate::fleet::{FleetMachine, ObservedFleet};
use crate::merge;
use crate::progress::{Failure, Job, JobPhase, Stage};

/// What is asked for when a job's Machine is not there yet.
struct Order<'a> {
    config: MachineConfig,
    image_ref: ImageRef,
    /// Where.
    region: &'a hangar_api::id::Region,
    /// How long it may run; 0 for as long as it takes.
    timeout_secs: u64,
}

/// Returns the release command that a deployment runs.
pub(crate) fn release_command<'a>(
    desired: &'a Desired,
    options: &DeployOptions,
) -> Option<&'a ReleaseCommand> {
    let runs = desired.kind == Kind::Full && !options.skip_release_command;
    desired.release_command.as_ref().filter(|_| runs)
}

/// Returns a command in one line.
pub(crate) fn command_line(config: &MachineConfig) -> String {
    config.init.cmd.clone().unwrap_or_default().join(" ")
}

impl Planner<'_> {
    /// Runs the release command, before any Machine is touched.
    pub(super) fn release(&mut self) {
        let Some(command) = release_command(self.desired, self.options) else {
            self.progress.stage = Stage::Trying;
            return;
        };
        let group = group_of(GROUP_RELEASE_COMMAND);
        let mut job = match &self.progress.release_command {
            Some(job) => job.clone(),
            None => {
                let text = format!("Running release_command: {}", command_line(&command.config));
                self.say(Level::Info, text, None, None);
                self.destroy_former_release_commands();
                Job::planned(0)
            }
        };
        let guest = release_guest(self.desired, self.fleet, self.options);
        let order = Order {
            config: merge::for_release(command, guest, self.desired.mark()),
            image_ref: self.desired.image_ref.clone(),
            region: &self.desired.region,
            timeout_secs: command.timeout_secs,
        };
        let outcome = self.run_once(&group, &mut job, order, "--release-command-timeout");
        self.progress.release_command = Some(job.clone());
        match (outcome, &job.machine) {
            (Ok(false), _) => {}
            (Ok(true), id) => {
                let name = id.as_ref().map(ToString::to_string).unwrap_or_default();
                let text = format!("release_command {name} completed successfully");
                self.say(Level::Info, text, id.as_ref(), None);
                self.progress.stage = Stage::Trying;
            }
            (Err(reason), id) => self.fail(Failure {
                machine: id.clone(),
                group: Some(group),
                reason: format!("release command failed - aborting deployment. {reason}"),
            }),
        }
    }

    /// Asks once for the end of what a client that went away has left behind.
    fn destroy_former_release_commands(&mut self) {
        let left = self.fleet.machines.values().filter(|machine| {
            machine.state.is_active()
                && machine.spec.config.process_group() == GROUP_RELEASE_COMMAND
                && machine.launch_key.is_none()
        });
        let steps = left.map(|machine| Step::Destroy {
            machine: machine.spec.id.clone(),
            expected: machine.spec.instance_id.clone(),
        });
        self.ready.extend(steps);
    }

    /// Runs the test Machines of a Machine that has passed its gates, all of them at once. Returns
    /// whether all have ended well.
    pub(super) fn tests_pass(
        &mut self,
        machine: &FleetMachine<'_>,
        group: &GroupName,
    ) -> Result<bool, Failure> {
        let gated = matches!(self.options.strategy, Strategy::Rolling | Strategy::Canary);
        let spec = self.desired.groups.get(group);
        let tests: &[TestMachine] = match spec {
            Some(spec) if gated && !self.options.detach && self.desired.kind == Kind::Full => {
                &spec.test_machines
            }
            _ => &[],
        };
        if tests.is_empty() {
            return Ok(true);
        }
        let id = &machine.spec.id;
        let mut jobs = match self.progress.tests.get(id) {
            Some(jobs) => jobs.clone(),
            None => self.plan_tests(id, group, tests),
        };
        let mut all = true;
        let mut failure = None;
        for (job, test) in jobs.iter_mut().zip(tests) {
            match self.run_test(machine, job, test) {
                Ok(done) => all &= done,
                Err(reason) => failure = failure.or(Some((job.machine.clone(), reason))),
            }
        }
        self.progress.tests.insert(id.clone(), jobs);
        match failure {
            None => Ok(all),
            Some((of, reason)) => Err(Failure {
                machine: of,
                group: Some(group_of(GROUP_TEST)),
                reason: format!("Machine {id} of group {group}: Error test command {reason}"),
            }),
        }
    }

    fn plan_tests(&mut self, id: &MachineId, group: &GroupName, tests: &[TestMachine]) -> Vec<Job> {
        let mut plan = |test: &TestMachine| {
            let text = format!(
                "Test machine for Machine {id} [{group}] runs: {}",
                command_line(&test.config)
            );
            self.say(Level::Info, text, Some(id), Some(group));
            let job = Job::planned(self.progress.tests_planned);
            self.progress.tests_planned += 1;
            job
        };
        tests.iter().map(&mut plan).collect()
    }

    fn run_test(
        &mut self,
        tested: &FleetMachine<'_>,
        job: &mut Job,
        test: &TestMachine,
    ) -> Result<bool, String> {
        if job.phase == JobPhase::Done {
            return Ok(true);
        }
        let image_ref = test.image_ref.clone();
        let order = Order {
            config: merge::for_test(test, tested.spec, self.desired.mark()),
            image_ref: image_ref.unwrap_or_else(|| tested.spec.image_ref.clone()),
            region: &tested.spec.region,
            timeout_secs: self.options.wait_timeout_secs,
        };
        let group = group_of(GROUP_TEST);
        let done = self.run_once(&group, job, order, "--wait-timeout")?;
        if let (true, Some(id)) = (done, &job.machine) {
            let text = format!("Test machine {id} completed successfully");
            self.say(Level::Info, text, Some(id), None);
        }
        Ok(done)
    }

    /// Takes a job one step further. Returns whether it has ended well, or why it never will.
    fn run_once(
        &mut self,
        group: &GroupName,
        job: &mut Job,
        order: Order<'_>,
        flag: &str,
    ) -> Result<bool, String> {
        if job.phase == JobPhase::Done {
            return Ok(true);
        }
        let wait = self.options.wait_timeout_secs;
        let Some(machine) = self.made(group, job.ordinal) else {
            let late = job.since.is_some_and(|s| self.now >= deadline(s, wait));
            return match &job.machine {
                Some(id) => Err(format!(
                    "machine {id} is gone, and nobody knows how it ended"
                )),
                None if late => Err("its machine could not be created".to_owned()),
                None => {
                    self.ask_for_job(group, job, order);
                    Ok(false)
                }
            };
        };
        let id = machine.spec.id.clone();
        job.phase = JobPhase::Asked;
        job.machine = Some(id.clone());
        let since = *job.since.get_or_insert(self.now);
        if let Some(end) = ended(&machine) {
            return end.map(|()| {
                job.phase = JobPhase::Done;
                true
            });
        }
        let started = crate::judge::started_at(&machine);
        let (until, limit, flag) = match started {
            Some(at) => (deadline(at, order.timeout_secs), order.timeout_secs, flag),
            None => (deadline(since, wait), wait, "--wait-timeout"),
        };
        if self.now >= until {
            let what = if started.is_some() {
                "has not ended"
            } else {
                "has not started"
            };
            return Err(format!(
                "machine {id} {what} after {limit} s; raise {flag} if it needs longer"
            ));
        }
        self.wait(&id, Condition::Ended, until);
        Ok(false)
    }

    fn ask_for_job(&mut self, group: &GroupName, job: &mut Job, order: Order<'_>) {
        job.phase = JobPhase::Asked;
        job.since.get_or_insert(self.now);
        self.ready.push(Step::Create {
            launch_key: self.desired.launch_key(group, job.ordinal),
            group: group.clone(),
            region: order.region.clone(),
            config: Box::new(order.config),
            image_ref: order.image_ref,
            secrets_version: self.desired.secrets_version,
            skip_launch: false,
            cordoned: false,
        });
    }
}

fn group_of(name: &str) -> GroupName {
    GroupName::new(name).unwrap_or_else(|_| GroupName::app())
}

/// Returns how a Machine that runs once has ended: `None` while it has not.
pub(super) fn ended(machine: &FleetMachine<'_>) -> Option<Result<(), String>> {
    let id = &machine.spec.id;
    let observed = machine.observed?;
    let why = observed.reason.as_deref();
    let is_down = matches!(
        observed.state,
        MachineState::Stopped
            | MachineState::Failed
            | MachineState::Destroying
            | MachineState::Destroyed
    );
    if !is_down {
        return None;
    }
    let Some(exit) = &observed.exit else {
        return match observed.state {
            MachineState::Failed => Some(Err(format!(
                "machine {id} could not be started: {}",
                why.unwrap_or("the host did not say why")
            ))),
            // Prepared, and not started yet.
            MachineState::Stopped if machine.undone().next().is_some() => None,
            _ => Some(Err(format!("machine {id} was destroyed before it ended"))),
        };
    };
    if exit.oom_killed {
        return Some(Err(format!(
            "machine {id} was killed for using more memory than it has"
        )));
    }
    if exit.requested_stop {
        return Some(Err(format!("machine {id} was stopped before it ended")));
    }
    if exit.exit_code != 0 {
        let why = why.map_or_else(String::new, |why| format!(" ({why})"));
        return Some(Err(format!(
            "machine {id} exited with non-zero status of {}{why}",
            exit.exit_code
        )));
    }
    Some(Ok(()))
}

/// Returns the size of a release command that fly.toml does not size: that of the default group's
/// Machine with most memory, else that of new Machines.
fn release_guest(
    desired: &Desired,
    fleet: &ObservedFleet<'_>,
    options: &DeployOptions,
) -> Option<Guest> {
    let default = desired.default_group();
    let of_default = fleet.managed().filter(|m| m.group(&default) == default);
    let sizes = of_default.filter_map(|m| m.spec.config.guest.as_ref());
    let largest = sizes.max_by_key(|guest| guest.memory_mb).cloned();
    largest.or_else(|| options.guest.clone())
}
