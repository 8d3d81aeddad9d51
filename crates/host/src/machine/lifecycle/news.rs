//! News: what images, runs, timers and a host's return lead to.

use hangar_api::Timestamp;
use hangar_api::event::ExitEvent;
use hangar_api::machine::OpKind;

use super::{Denied, Effect, Fallback, Input, Phase, Rest, Then, Turn};
use crate::machine::restart::{self, Verdict};
use crate::runtime::{ExitRecord, RunStatus};

pub(super) const KILLED: i32 = 137;

impl Turn<'_> {
    pub(super) fn take(&mut self, input: Input) -> Result<(), Denied> {
        match input {
            Input::Ops(ops) => self.enqueue(ops),
            Input::Wake => return self.wake(),
            Input::Idle { start, how } => return self.idle(start, how),
            Input::Frozen { start } => self.frozen(start),
            Input::FreezeFailed { start, message } => self.freeze_failed(start, message),
            Input::Thawed { start } => self.thawed(start),
            Input::ThawFailed { start, message } => self.thaw_failed(start, &message),
            Input::Prepared { generation } => self.prepared(generation),
            Input::PrepareFailed {
                generation,
                message,
            } => self.prepare_failed(generation, message),
            Input::Up { start } => self.up_and_watched(start),
            Input::StartFailed {
                start,
                message,
                transient,
            } => self.start_failed(start, message, transient),
            Input::Exited { start, record } => self.exited(start, &record),
            Input::Abandoned => self.abandoned(),
            Input::Due => self.due(),
            Input::Wiped => self.wiped(),
            Input::Resumed { run } => self.resumed(run),
        }
        Ok(())
    }

    /// Returns the update that is being prepared beside the run of the former generation.
    pub(super) fn update_beside(&self) -> Option<Then> {
        match (
            &self.state.phase,
            self.state.doing.as_ref().map(|op| &op.kind),
        ) {
            (Phase::Started { .. }, Some(OpKind::Update { skip_launch, .. })) => {
                Some(if *skip_launch {
                    Then::Rest
                } else {
                    Then::Launch
                })
            }
            // It did not run, so its new version does not either.
            (Phase::Suspended { .. }, Some(OpKind::Update { .. })) => Some(Then::Rest),
            _ => None,
        }
    }

    pub(super) fn prepared(&mut self, generation: u64) {
        let (beside, preparing) = (self.update_beside(), self.preparing());
        if beside.is_none() && preparing.is_none() {
            return;
        }
        if generation < self.rules.latest {
            // The spec moved on meanwhile: only the newest is worth starting.
            self.effects.push(Effect::Prepare {
                generation: self.rules.latest,
            });
            return;
        }
        self.state.generation = generation;
        self.state.prepared = Some(generation);
        if let (Some(then), Phase::Started { start } | Phase::Suspended { start }) =
            (beside, self.state.phase)
        {
            let (signal, timeout) = (self.rules.stop_signal, self.rules.stop_timeout);
            return self.begin_stop(start, then, signal, timeout);
        }
        match preparing {
            Some((Then::Launch, _)) => self.launch(),
            _ => self.rest_prepared(),
        }
    }

    pub(super) fn preparing(&self) -> Option<(Then, Fallback)> {
        match self.state.phase {
            Phase::Preparing { then, fallback } => Some((then, fallback)),
            _ => None,
        }
    }

    /// A prepared generation that is not to be started.
    fn rest_prepared(&mut self) {
        self.state.phase = Phase::Down {
            rest: Rest::Stopped,
        };
        self.state.reason = None;
        let update = match self.state.doing.as_ref().map(|op| &op.kind) {
            Some(OpKind::Update { skip_launch, .. }) => Some(*skip_launch),
            _ => None,
        };
        if let Some(skip_launch) = update {
            if !skip_launch {
                self.log(
                    "machine was in a non-started state prior to the update so leaving the new version stopped"
                        .to_owned(),
                );
            }
            self.event("update", "stopped", "flyd");
        }
        self.finish(None);
    }

    fn prepare_failed(&mut self, generation: u64, message: String) {
        if self.update_beside().is_none() && self.preparing().is_none() {
            return;
        }
        if generation < self.rules.latest {
            return self.effects.push(Effect::Prepare {
                generation: self.rules.latest,
            });
        }
        self.log_error(format!("failed to prepare the image: {message}"));
        if let Some((_, fallback)) = self.preparing() {
            match fallback {
                Fallback::Relaunch => self.wait_until(self.now),
                Fallback::Rest(rest) => {
                    if rest == Rest::Failed {
                        self.event("launch", "failed", "flyd");
                        self.state.reason = Some(message.clone());
                    }
                    self.state.phase = Phase::Down { rest };
                }
            }
        }
        self.finish(Some(message));
    }

    fn up_and_watched(&mut self, start: u64) {
        if self.state.phase == (Phase::Starting { start }) {
            self.effects.push(Effect::Watch { start });
            self.up(start);
        }
    }

    fn up(&mut self, start: u64) {
        if self.state.phase != (Phase::Starting { start }) {
            return;
        }
        self.state.phase = Phase::Started { start };
        self.state.reason = None;
        self.event("start", "started", "flyd");
        let created = matches!(
            self.state.doing.as_ref().map(|op| &op.kind),
            Some(OpKind::Create { .. } | OpKind::Update { .. })
        );
        self.effects.push(Effect::LogStarted { created });
        self.finish(None);
    }

    fn start_failed(&mut self, start: u64, message: String, transient: bool) {
        if self.state.phase != (Phase::Starting { start }) {
            return;
        }
        self.log_error(format!("failed to start: {message}"));
        self.event("start", "failed", "flyd");
        self.effects.push(Effect::Remove { start });
        restart::prune(&mut self.state.window, self.now);
        let verdict = restart::decide(self.rules.policy, true, &self.state.window);
        match verdict {
            Verdict::Restart(delay) if transient => {
                // A launch that could not be made is never tried again at once.
                self.restart_after(delay.max(restart::PACE));
            }
            _ => {
                self.state.phase = Phase::Down { rest: Rest::Failed };
                self.state.reason = Some(message.clone());
            }
        }
        self.finish(Some(message));
    }

    pub(super) fn exited(&mut self, start: u64, record: &ExitRecord) {
        if self.state.current_run() != Some(start) {
            return self.effects.push(Effect::Remove { start });
        }
        // An exit that is known before the launch was reported: both happened, in this order.
        self.up(start);
        self.thawed(start);
        self.log_exit(record);
        self.effects.push(Effect::Remove { start });
        match self.state.phase {
            Phase::Stopping { then, .. } => self.stopped(then, record),
            Phase::Destroying { .. } => {
                self.exit_event(record, true, false);
                self.state.phase = Phase::Destroying { start: None };
                self.effects.push(Effect::Wipe);
            }
            Phase::Suspending { .. } | Phase::Suspended { .. } => self.ended_at_rest(record),
            _ => self.ended_unasked(record),
        }
    }

    fn stopped(&mut self, then: Then, record: &ExitRecord) {
        self.exit_event(record, true, then == Then::Launch);
        if then == Then::Launch {
            self.event("restart", "starting", "flyd");
            return self.launch();
        }
        self.state.phase = Phase::Down {
            rest: Rest::Stopped,
        };
        self.state.reason = None;
        self.finish(None);
    }

    fn ended_unasked(&mut self, record: &ExitRecord) {
        let failed = record.exit_code != 0 || record.oom_killed;
        restart::prune(&mut self.state.window, self.now);
        let verdict = restart::decide(self.rules.policy, failed, &self.state.window);
        let again = matches!(verdict, Verdict::Restart(_));
        self.exit_event(record, record.requested_stop, again);
        if let Some(then) = self.update_beside() {
            // The new generation is on its way; the former one comes back only if that fails.
            let fallback = if again {
                Fallback::Relaunch
            } else {
                Fallback::Rest(Rest::Stopped)
            };
            self.state.phase = Phase::Preparing { then, fallback };
            return;
        }
        match verdict {
            Verdict::Restart(delay) => self.restart_after(delay),
            Verdict::Rest { log, reason } => {
                self.log(log);
                self.state.reason = reason.or_else(|| record.spawn_error.clone());
                self.state.phase = Phase::Down {
                    rest: Rest::Stopped,
                };
                self.destroy_if_asked();
            }
        }
    }

    /// Begins to remove a Machine that is to go after its end.
    pub(super) fn destroy_if_asked(&mut self) {
        if self.rules.auto_destroy {
            self.event("destroy", "destroying", "flyd");
            self.begin_destroy();
        }
    }

    fn abandoned(&mut self) {
        if matches!(
            self.state.phase,
            Phase::Destroying { .. } | Phase::Destroyed
        ) {
            return;
        }
        self.state.queue.clear();
        self.interrupt();
        self.event("destroy", "destroying", "flyd");
        self.begin_destroy();
    }

    fn restart_after(&mut self, delay: std::time::Duration) {
        self.state.window.push(self.now);
        if delay.is_zero() {
            self.event("restart", "starting", "flyd");
            self.launch();
        } else {
            self.wait_until(self.now.saturating_add(delay).unwrap_or(self.now));
        }
    }

    fn wait_until(&mut self, due: Timestamp) {
        self.state.phase = Phase::Waiting { due };
        self.effects.push(Effect::Timer { at: due });
    }

    fn due(&mut self) {
        if let Phase::Waiting { due } = self.state.phase {
            // A clock that was set back must not hold a Machine down for years.
            let sane = self.now.saturating_add(restart::WINDOW).unwrap_or(due);
            if due > self.now && due <= sane {
                return self.effects.push(Effect::Timer { at: due });
            }
            self.event("restart", "starting", "flyd");
            self.launch();
        }
    }

    fn wiped(&mut self) {
        if self.state.phase == (Phase::Destroying { start: None }) {
            self.state.phase = Phase::Destroyed;
            self.event("destroy", "destroyed", "flyd");
            self.finish(None);
        }
    }

    /// Asks again for what was outstanding when the host went down.
    fn resumed(&mut self, run: RunStatus) {
        match self.state.phase {
            Phase::New | Phase::Down { .. } | Phase::Destroyed => {}
            Phase::Preparing { .. } => self.effects.push(Effect::Prepare {
                generation: self.rules.latest,
            }),
            Phase::Waiting { due } => self.effects.push(Effect::Timer { at: due }),
            Phase::Destroying { start: None } => self.effects.push(Effect::Wipe),
            Phase::Starting { start } => self.resumed_starting(start, run),
            Phase::Started { start } => self.resumed_started(start, run),
            Phase::Suspending { start }
            | Phase::Suspended { start }
            | Phase::Resuming { start } => self.resumed_suspended(start, run),
            Phase::Stopping { start, .. } | Phase::Destroying { start: Some(start) } => {
                self.resumed_ending(start, run);
            }
        }
    }

    fn resumed_starting(&mut self, start: u64, run: RunStatus) {
        match run {
            RunStatus::Absent => self.effects.push(Effect::Launch { start }),
            RunStatus::Running => self.up_and_watched(start),
            RunStatus::Exited(record) => self.exited(start, &record),
            RunStatus::Lost => self.lost(start),
            // Nothing of it ran, so that no policy has a say: the start is made once more, under
            // a number of its own.
            RunStatus::Unmade => {
                self.effects.push(Effect::Remove { start });
                self.launch();
            }
        }
    }

    fn resumed_started(&mut self, start: u64, run: RunStatus) {
        match run {
            RunStatus::Running => {
                self.effects.push(Effect::Watch { start });
                if self.update_beside().is_some() {
                    self.effects.push(Effect::Prepare {
                        generation: self.rules.latest,
                    });
                }
            }
            RunStatus::Exited(record) => {
                self.exited(start, &record);
                if self.preparing().is_some() {
                    self.effects.push(Effect::Prepare {
                        generation: self.rules.latest,
                    });
                }
            }
            RunStatus::Lost | RunStatus::Unmade | RunStatus::Absent => {
                self.lost(start);
                if self.preparing().is_some() {
                    self.effects.push(Effect::Prepare {
                        generation: self.rules.latest,
                    });
                }
            }
        }
    }

    fn resumed_ending(&mut self, start: u64, run: RunStatus) {
        match (run, self.state.phase) {
            (RunStatus::Exited(record), _) => self.exited(start, &record),
            (RunStatus::Lost | RunStatus::Unmade | RunStatus::Absent, _) => {
                self.exited(start, &killed(self.now, true));
            }
            (
                RunStatus::Running,
                Phase::Stopping {
                    signal, timeout, ..
                },
            ) => {
                self.effects.push(Effect::Watch { start });
                self.effects.push(Effect::Stop {
                    start,
                    signal,
                    timeout,
                });
            }
            (RunStatus::Running, _) => {
                self.effects.push(Effect::Watch { start });
                self.effects.push(Effect::Kill { start });
            }
        }
    }

    /// A run that the host's own end (a power cut, a reboot) took with it. It was meant to run, and
    /// it did not end by itself: it is started again unless its policy is never to do that, and
    /// that is not counted as a failure of the app.
    fn lost(&mut self, start: u64) {
        use hangar_api::machine::config::RestartPolicy;
        let record = killed(self.now, false);
        if self.rules.policy == RestartPolicy::No || self.update_beside().is_some() {
            return self.exited(start, &record);
        }
        self.log("the machine went down with its host and is started again".to_owned());
        self.effects.push(Effect::Remove { start });
        self.exit_event(&record, false, true);
        self.event("restart", "starting", "flyd");
        self.launch();
    }

    pub(super) fn exit_event(&mut self, record: &ExitRecord, requested: bool, restarting: bool) {
        let exit = ExitEvent {
            exit_code: if record.oom_killed {
                KILLED
            } else {
                record.exit_code
            },
            guest_exit_code: record.exit_code,
            guest_signal: record.signal.unwrap_or(-1),
            signal: -1,
            oom_killed: record.oom_killed,
            requested_stop: requested,
            restarting,
            exited_at: record.exited_at,
        };
        self.state.exit = Some(exit);
        self.effects.push(Effect::Event {
            kind: "exit",
            status: "stopped",
            source: "flyd".to_owned(),
            exit: Some(exit),
        });
    }

    /// Says what `init` could not say itself.
    fn log_exit(&mut self, record: &ExitRecord) {
        if let Some(error) = &record.spawn_error {
            self.log_error(format!("failed to spawn command: {error}"));
        } else if record.oom_killed {
            self.log_error("Process appears to have been OOM killed!".to_owned());
        }
    }

    pub(super) fn log_error(&mut self, text: String) {
        self.effects.push(Effect::Log { error: true, text });
    }
}

pub(super) fn killed(now: Timestamp, requested_stop: bool) -> ExitRecord {
    ExitRecord {
        exit_code: KILLED,
        signal: Some(9),
        oom_killed: false,
        requested_stop,
        spawn_error: None,
        exited_at: now,
    }
}
