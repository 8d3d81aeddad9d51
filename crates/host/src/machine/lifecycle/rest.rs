//! Rest with memory: how a Machine is suspended, goes on, and what ends it meanwhile; and rest that
//! the proxy asks for because nobody uses the Machine.

use hangar_api::machine::Op;

use super::news::killed;
use super::{Denied, Effect, Fallback, Idle, Phase, Rest, Then, Turn};
use crate::runtime::{ExitRecord, RunStatus};

const SIGKILL: i32 = 9;

impl Turn<'_> {
    pub(super) fn suspend(&mut self, op: Op) {
        match self.state.phase {
            Phase::Started { .. } if !self.rules.can_suspend => {
                let text =
                    "failed_precondition: unable to suspend machine: not as it is configured";
                self.acknowledge(op, Some(text.to_owned()));
            }
            Phase::Started { start } => {
                self.begin_suspend(start, &op.by);
                self.state.doing = Some(op);
            }
            // On its way already, for the proxy.
            Phase::Suspending { .. } => self.state.doing = Some(op),
            Phase::Suspended { .. } => self.acknowledge(op, None),
            _ => self.refuse(op),
        }
    }

    fn begin_suspend(&mut self, start: u64, by: &str) {
        self.event("suspend", "suspending", by);
        self.state.phase = Phase::Suspending { start };
        self.effects.push(Effect::Suspend { start });
    }

    /// Lets a run go on that is frozen, or being frozen.
    pub(super) fn resume(&mut self, start: u64, by: &str) {
        self.event("start", "starting", by);
        self.state.reason = None;
        self.state.phase = Phase::Resuming { start };
        self.effects.push(Effect::Resume { start });
    }

    /// Brings a Machine to rest that nobody uses. Refused where it is not the start that was seen
    /// idle, or where somebody asks something of it.
    pub(super) fn idle(&mut self, start: u64, how: Idle) -> Result<(), Denied> {
        let free = self.state.doing.is_none() && self.state.queue.is_empty();
        if self.state.phase != (Phase::Started { start }) || !free {
            return Err(Denied {
                verb: match how {
                    Idle::Stop => "stop",
                    Idle::Suspend => "suspend",
                },
                state: self.state.machine_state(),
                busy: !free,
            });
        }
        match how {
            Idle::Suspend if self.rules.can_suspend => self.begin_suspend(start, "proxy"),
            Idle::Suspend | Idle::Stop => self.stop_idle(start),
        }
        Ok(())
    }

    fn stop_idle(&mut self, start: u64) {
        self.event("stop", "stopping", "proxy");
        let (signal, timeout) = (self.rules.stop_signal, self.rules.stop_timeout);
        self.begin_stop(start, Then::Rest, signal, timeout);
    }

    pub(super) fn frozen(&mut self, start: u64) {
        if self.state.phase == (Phase::Suspending { start }) {
            self.state.phase = Phase::Suspended { start };
            self.state.reason = None;
            self.event("suspend", "suspended", "flyd");
            self.log("Machine has been suspended".to_owned());
            self.finish(None);
        }
    }

    pub(super) fn freeze_failed(&mut self, start: u64, message: String) {
        if self.state.phase != (Phase::Suspending { start }) {
            return;
        }
        self.log_error(format!("failed to suspend: {message}"));
        if self.state.doing.is_none() {
            // Nobody uses it, and it is to rest.
            return self.stop_idle(start);
        }
        self.resume(start, "flyd");
        self.finish(Some(format!("unable to suspend machine: {message}")));
    }

    pub(super) fn thawed(&mut self, start: u64) {
        if self.state.phase == (Phase::Resuming { start }) {
            self.state.phase = Phase::Started { start };
            self.event("start", "started", "flyd");
            // Begins its checks too.
            self.effects.push(Effect::Watch { start });
            self.effects.push(Effect::LogStarted { created: false });
            self.finish(None);
        }
    }

    /// What cannot go on is started anew.
    pub(super) fn thaw_failed(&mut self, start: u64, message: &str) {
        if self.state.phase != (Phase::Resuming { start }) {
            return;
        }
        self.log_error(format!("failed to resume: {message}: starting it anew"));
        self.state.phase = Phase::Stopping {
            start,
            then: Then::Launch,
            signal: SIGKILL,
            timeout: std::time::Duration::ZERO,
        };
        self.effects.push(Effect::Kill { start });
    }

    /// A run that ended while it was frozen or being frozen: it was to rest, so it rests.
    pub(super) fn ended_at_rest(&mut self, record: &ExitRecord) {
        self.exit_event(record, record.requested_stop, false);
        self.log("the machine ended while it was suspended: its next start is a cold one".into());
        if let Some(then) = self.update_beside() {
            let fallback = Fallback::Rest(Rest::Stopped);
            self.state.phase = Phase::Preparing { then, fallback };
            return;
        }
        self.state.phase = Phase::Down {
            rest: Rest::Stopped,
        };
        self.finish(Some("the machine ended before it was suspended".to_owned()));
        self.destroy_if_asked();
    }

    /// Asks again for what was outstanding of a Machine that was suspended, or on its way there or
    /// back, when the host went down.
    pub(super) fn resumed_suspended(&mut self, start: u64, run: RunStatus) {
        match run {
            RunStatus::Running => {
                self.effects.push(Effect::Watch { start });
                match self.state.phase {
                    Phase::Suspending { .. } => self.effects.push(Effect::Suspend { start }),
                    Phase::Resuming { .. } => self.effects.push(Effect::Resume { start }),
                    _ => {}
                }
            }
            RunStatus::Exited(record) => self.exited(start, &record),
            RunStatus::Lost | RunStatus::Unmade | RunStatus::Absent => self.memory_lost(start),
        }
        if self.update_beside().is_some() || self.preparing().is_some() {
            self.effects.push(Effect::Prepare {
                generation: self.rules.latest,
            });
        }
    }

    /// The host's own end (a reboot) took the memory of a suspended Machine with it: it rests
    /// stopped, or is started anew where its start has been asked for.
    fn memory_lost(&mut self, start: u64) {
        let record = killed(self.now, true);
        if let Phase::Resuming { .. } = self.state.phase {
            self.log("the machine's memory was lost with its host: starting it anew".to_owned());
            self.effects.push(Effect::Remove { start });
            self.exit_event(&record, true, true);
            return self.launch();
        }
        self.effects.push(Effect::Remove { start });
        self.ended_at_rest(&record);
    }
}
