//! Requests: how an op begins in each phase, and how it ends.

use std::time::Duration;

use hangar_api::duration::GoDuration;
use hangar_api::machine::{MachineState, Op, OpKind, OpOutcome};
use hangar_api::signal;

use super::{Denied, Effect, Fallback, MAX_QUEUE, Phase, Rest, Then, Turn};

/// The longest time that a stop may take (machines-api.md, `stop_config`).
pub(crate) const MAX_STOP_TIMEOUT: Duration = Duration::from_secs(300);

impl Turn<'_> {
    /// Takes in ops that are not known yet.
    pub(super) fn enqueue(&mut self, ops: Vec<Op>) {
        for op in ops {
            // What finds no room is still in the server's queue, and comes again.
            if !self.state.knows(&op.id) && self.state.queue.len() < MAX_QUEUE {
                self.state.queue.push_back(op);
            }
        }
    }

    /// Begins as many of the waiting ops as may begin now.
    pub(super) fn begin_ops(&mut self) {
        while let Some(op) = self.state.queue.front() {
            if !self.may_begin(&op.kind) {
                return;
            }
            let Some(op) = self.state.queue.pop_front() else {
                return;
            };
            self.interrupt();
            self.begin(op);
        }
    }

    fn may_begin(&self, kind: &OpKind) -> bool {
        if let Phase::Starting { .. } | Phase::Resuming { .. } = self.state.phase {
            // A launch is short and bounded; what comes of it is needed to go on.
            return self.state.doing.is_none() && *kind == OpKind::Start;
        }
        let Some(doing) = &self.state.doing else {
            // What is being frozen for the proxy: short and bounded too.
            return !matches!(self.state.phase, Phase::Suspending { .. })
                || matches!(
                    kind,
                    OpKind::Start | OpKind::Suspend | OpKind::Stop { .. } | OpKind::Destroy
                );
        };
        match kind {
            OpKind::Destroy => doing.kind != OpKind::Destroy,
            OpKind::Stop { .. } => !matches!(
                self.state.phase,
                Phase::Stopping {
                    then: Then::Rest,
                    ..
                } | Phase::Destroying { .. }
            ),
            _ => false,
        }
    }

    /// Acknowledges the op that is broken off by the next, if one is.
    pub(super) fn interrupt(&mut self) {
        let Some(doing) = &self.state.doing else {
            return;
        };
        let preparing = match self.state.phase {
            Phase::Preparing { .. } => true,
            Phase::Started { .. } | Phase::Suspended { .. } => {
                matches!(doing.kind, OpKind::Update { .. })
            }
            _ => false,
        };
        if preparing {
            self.effects.push(Effect::CancelPrepare);
        }
        self.finish(Some("interrupted by a later request".to_owned()));
    }

    fn begin(&mut self, op: Op) {
        if matches!(
            self.state.phase,
            Phase::Destroying { .. } | Phase::Destroyed
        ) {
            return self.begin_when_gone(op);
        }
        match op.kind.clone() {
            OpKind::Create { skip_launch } => self.create(op, skip_launch),
            OpKind::Start => self.start(op),
            OpKind::Suspend => self.suspend(op),
            OpKind::Restart { signal, timeout } => {
                let (signal, timeout) = self.how_to_stop(signal.as_deref(), timeout);
                self.restart(op, signal, timeout);
            }
            OpKind::Stop { signal, timeout } => {
                let (signal, timeout) = self.how_to_stop(signal.as_deref(), timeout);
                self.stop(op, signal, timeout);
            }
            OpKind::Update {
                generation,
                skip_launch,
            } => self.update(op, generation, skip_launch),
            OpKind::Signal { signal } => self.signal(op, signal),
            OpKind::Destroy => self.destroy(op),
        }
    }

    fn begin_when_gone(&mut self, op: Op) {
        match (&op.kind, self.state.phase) {
            (OpKind::Destroy, Phase::Destroying { .. }) => self.state.doing = Some(op),
            (OpKind::Destroy, _) => self.acknowledge(op, None),
            _ => self.refuse(op),
        }
    }

    fn create(&mut self, op: Op, skip_launch: bool) {
        if self.state.phase != Phase::New {
            return self.acknowledge(op, None);
        }
        self.event("launch", "created", &op.by);
        let then = if skip_launch {
            Then::Rest
        } else {
            Then::Launch
        };
        self.prepare(op, then, Fallback::Rest(Rest::Failed));
    }

    /// Prepares the latest generation while nothing runs.
    fn prepare(&mut self, op: Op, then: Then, fallback: Fallback) {
        self.state.doing = Some(op);
        self.state.phase = Phase::Preparing { then, fallback };
        self.effects.push(Effect::Prepare {
            generation: self.rules.latest,
        });
    }

    fn start(&mut self, op: Op) {
        match self.state.phase {
            Phase::Started { .. } => self.acknowledge(op, None),
            Phase::Starting { .. } | Phase::Resuming { .. } => self.state.doing = Some(op),
            Phase::Suspending { start } | Phase::Suspended { start } => {
                self.resume(start, &op.by);
                self.state.doing = Some(op);
            }
            _ => {
                self.event("start", "starting", &op.by);
                self.bring_up(op);
            }
        }
    }

    /// Launches a Machine that is down, after preparing it where that was not done or failed.
    fn bring_up(&mut self, op: Op) {
        if self.state.prepared == Some(self.state.generation) {
            self.state.doing = Some(op);
            self.launch();
        } else {
            self.prepare(op, Then::Launch, Fallback::Rest(Rest::Failed));
        }
    }

    fn restart(&mut self, op: Op, signal: i32, timeout: Duration) {
        match self.state.phase {
            Phase::Started { start } | Phase::Suspended { start } => {
                self.event("restart", "stopping", &op.by);
                self.state.doing = Some(op);
                self.begin_stop(start, Then::Launch, signal, timeout);
            }
            // It comes up anew at this moment.
            Phase::Starting { .. } => self.state.doing = Some(op),
            // It ended between the request and now. A job is not run a second time for that.
            Phase::Down { .. } | Phase::New => {
                let text = "the machine is not running any more: start it to run it again";
                self.acknowledge(op, Some(text.to_owned()));
            }
            _ => {
                self.event("restart", "stopping", &op.by);
                self.bring_up(op);
            }
        }
    }

    fn stop(&mut self, op: Op, signal: i32, timeout: Duration) {
        match self.state.phase {
            Phase::Started { start } | Phase::Suspending { start } | Phase::Suspended { start } => {
                self.event("stop", "stopping", &op.by);
                self.state.doing = Some(op);
                self.begin_stop(start, Then::Rest, signal, timeout);
            }
            Phase::Stopping { start, .. } => {
                self.event("stop", "stopping", &op.by);
                self.state.doing = Some(op);
                // The sequence is under way; a shorter time counts from now.
                self.begin_stop(start, Then::Rest, signal, timeout);
            }
            Phase::New => self.acknowledge(op, None),
            _ => {
                self.state.reason = None;
                self.state.phase = Phase::Down {
                    rest: Rest::Stopped,
                };
                self.acknowledge(op, None);
            }
        }
    }

    pub(super) fn begin_stop(&mut self, start: u64, then: Then, signal: i32, timeout: Duration) {
        self.state.phase = Phase::Stopping {
            start,
            then,
            signal,
            timeout,
        };
        self.effects.push(Effect::Stop {
            start,
            signal,
            timeout,
        });
    }

    fn update(&mut self, op: Op, generation: u64, skip_launch: bool) {
        if self.state.generation >= generation {
            // An earlier op took this generation, or a later one, with it.
            return self.acknowledge(op, None);
        }
        if self.rules.latest < generation {
            return self.acknowledge(op, Some("the new configuration has not arrived".to_owned()));
        }
        self.event("update", "replacing", &op.by);
        let then = if skip_launch {
            Then::Rest
        } else {
            Then::Launch
        };
        match self.state.phase {
            Phase::Started { .. } | Phase::Suspended { .. } => {
                self.state.doing = Some(op);
                if self.rules.is_ready {
                    // Nothing is to be waited for: it is taken and gone over to in one write.
                    return self.prepared(self.rules.latest);
                }
                self.effects.push(Effect::Prepare {
                    generation: self.rules.latest,
                });
            }
            Phase::Waiting { .. } => self.prepare(op, then, Fallback::Relaunch),
            Phase::Down { rest } => self.prepare(op, Then::Rest, Fallback::Rest(rest)),
            _ => self.prepare(op, Then::Rest, Fallback::Rest(Rest::Failed)),
        }
    }

    fn signal(&mut self, op: Op, signal: i32) {
        if let Phase::Started { start } = self.state.phase {
            self.effects.push(Effect::Signal { start, signal });
            self.acknowledge(op, None);
        } else {
            self.refuse(op);
        }
    }

    fn destroy(&mut self, op: Op) {
        self.event("destroy", "destroying", &op.by);
        self.state.doing = Some(op);
        self.begin_destroy();
    }

    /// Begins to remove the Machine: first what runs of it, then all that is its own.
    pub(super) fn begin_destroy(&mut self) {
        let start = self.state.current_run();
        self.state.phase = Phase::Destroying { start };
        self.effects.push(match start {
            Some(start) => Effect::Kill { start },
            None => Effect::Wipe,
        });
    }

    /// Starts it for a request, where that needs nobody's decision.
    pub(super) fn wake(&mut self) -> Result<(), Denied> {
        let ready = self.state.prepared == Some(self.state.generation);
        match self.state.phase {
            Phase::Starting { .. } | Phase::Started { .. } => Ok(()),
            Phase::Waiting { .. }
            | Phase::Preparing {
                then: Then::Launch, ..
            }
            | Phase::Stopping {
                then: Then::Launch, ..
            } => Ok(()),
            Phase::Down {
                rest: Rest::Stopped,
            } if ready => {
                self.event("start", "starting", "proxy");
                self.launch();
                Ok(())
            }
            Phase::Resuming { .. } => Ok(()),
            // Not where somebody has just asked for it, or is replacing it.
            Phase::Suspending { start } | Phase::Suspended { start }
                if self.state.doing.is_none() =>
            {
                self.resume(start, "proxy");
                Ok(())
            }
            phase => Err(Denied {
                verb: "start",
                state: self.state.machine_state(),
                busy: matches!(
                    phase,
                    Phase::New
                        | Phase::Preparing { .. }
                        | Phase::Stopping { .. }
                        | Phase::Suspending { .. }
                        | Phase::Suspended { .. }
                ),
            }),
        }
    }

    pub(super) fn launch(&mut self) {
        self.state.starts += 1;
        self.state.reason = None;
        let start = self.state.starts;
        self.state.phase = Phase::Starting { start };
        self.effects.push(Effect::Launch { start });
    }

    fn how_to_stop(&self, signal: Option<&str>, timeout: Option<GoDuration>) -> (i32, Duration) {
        let signal = signal.and_then(signal::number);
        let timeout = timeout.map(GoDuration::to_std);
        (
            signal.unwrap_or(self.rules.stop_signal),
            timeout
                .unwrap_or(self.rules.stop_timeout)
                .min(MAX_STOP_TIMEOUT),
        )
    }

    // --- ends ---

    /// Ends the op being worked on, if there is one.
    pub(super) fn finish(&mut self, error: Option<String>) {
        if let Some(op) = self.state.doing.take() {
            self.acknowledge(op, error);
        }
    }

    pub(super) fn acknowledge(&mut self, op: Op, error: Option<String>) {
        self.state.last_op = Some(OpOutcome { id: op.id, error });
    }

    pub(super) fn refuse(&mut self, op: Op) {
        let verb = match op.kind {
            OpKind::Create { .. } => "create",
            OpKind::Update { .. } => "update",
            OpKind::Start => "start",
            OpKind::Suspend => "suspend",
            OpKind::Stop { .. } => "stop",
            OpKind::Restart { .. } => "restart",
            OpKind::Signal { .. } => "signal",
            OpKind::Destroy => "destroy",
        };
        let state: MachineState = self.state.machine_state();
        let text =
            format!("failed_precondition: unable to {verb} machine from current state: '{state}'");
        self.acknowledge(op, Some(text));
    }

    pub(super) fn event(&mut self, kind: &'static str, status: &'static str, by: &str) {
        let source = match by {
            "proxy" | "flyd" => by,
            _ => "user",
        };
        self.effects.push(Effect::Event {
            kind,
            status,
            source: source.to_owned(),
            exit: None,
        });
    }

    pub(super) fn log(&mut self, text: String) {
        self.effects.push(Effect::Log { error: false, text });
    }
}
