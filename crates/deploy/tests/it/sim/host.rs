//! What the hosts do: ops in order, starts, checks and exits, as a host reports them.

use super::*;

impl Sim {
    fn edit(&mut self, id: &MachineId, change: impl FnOnce(&mut SimMachine, &mut Observed)) {
        self.sequence += 1;
        let (sequence, now) = (self.sequence, self.time());
        let machine = self.machines.get_mut(id).unwrap();
        let mut observed = machine
            .observed
            .take()
            .unwrap_or_else(|| blank(&machine.spec, now));
        observed.sequence = sequence;
        change(machine, &mut observed);
        observed.events.truncate(20);
        machine.observed = Some(observed);
    }

    /// Begins the next op of a Machine that is not busy with one.
    pub(super) fn kick(&mut self, id: &MachineId) {
        let machine = self.machines.get_mut(id).unwrap();
        let observed = machine.observed.clone();
        machine.pending.retain(|op| !is_done(op, observed.as_ref()));
        let starting = observed.is_some_and(|o| o.state == MachineState::Starting);
        if machine.busy || starting {
            return;
        }
        let Some(op) = machine.pending.first().cloned() else {
            return;
        };
        machine.busy = true;
        let now = self.now;
        match op.kind {
            OpKind::Create { .. } => self.edit(id, |m, o| {
                o.events.insert(0, event("launch", "created", now, None));
                m.agenda.push((now + 20, Act::Ready));
            }),
            OpKind::Update { .. } => self.edit(id, |m, o| {
                o.events.insert(0, event("update", "replacing", now, None));
                m.agenda.push((now + 20, Act::Ready));
            }),
            OpKind::Stop { .. } => self.edit(id, |m, o| {
                m.agenda.clear();
                if o.state == MachineState::Started {
                    o.state = MachineState::Stopping;
                }
                m.agenda.push((now + 5, Act::Down));
            }),
            OpKind::Destroy => self.edit(id, |m, o| {
                m.agenda.clear();
                o.state = MachineState::Destroying;
                m.agenda.push((now + 5, Act::Gone));
            }),
            _ => self.launch(id),
        }
    }

    fn launch(&mut self, id: &MachineId) {
        let now = self.now;
        self.edit(id, |m, o| {
            o.starts += 1;
            o.state = MachineState::Starting;
            o.checks.clear();
            m.agenda.push((now + 10, Act::Up(o.starts)));
        });
    }

    fn finish(&mut self, id: &MachineId, error: Option<&str>) {
        let error = error.map(str::to_owned);
        self.edit(id, |m, o| {
            if m.busy
                && let Some(op) = m.pending.first()
            {
                o.last_op = Some(OpOutcome {
                    id: op.id.clone(),
                    error,
                });
            }
            m.busy = false;
        });
        self.kick(id);
    }

    /// Runs the hosts until `until`, or only the next thing that happens before.
    pub(crate) fn step(&mut self, until: i64) -> bool {
        let all = self.machines.iter();
        let next = all
            .flat_map(|(id, m)| {
                m.agenda
                    .iter()
                    .map(move |(at, act)| (*at, id.clone(), *act))
            })
            .min_by_key(|(at, id, _)| (*at, id.clone()));
        let Some((at, id, act)) = next.filter(|(at, ..)| *at <= until) else {
            self.now = self.now.max(until);
            return false;
        };
        self.now = self.now.max(at);
        let agenda = &mut self.machines.get_mut(&id).unwrap().agenda;
        let index = agenda.iter().position(|a| *a == (at, act)).unwrap();
        agenda.remove(index);
        self.act(&id, act);
        true
    }

    fn act(&mut self, id: &MachineId, act: Act) {
        let now = self.now;
        match act {
            Act::Ready => self.ready(id),
            Act::Up(run) => self.up(id, run),
            Act::Healthy(run) => self.edit(id, |m, o| {
                if o.starts == run && o.state == MachineState::Started {
                    let config = &m.running.as_ref().unwrap().0;
                    o.checks = config
                        .service_checks()
                        .into_iter()
                        .map(|(name, ..)| CheckStatus {
                            name,
                            status: Health::Passing,
                            output: "ok".to_owned(),
                            updated_at: Timestamp::from_millisecond(now).unwrap(),
                        })
                        .collect();
                }
            }),
            Act::Sick(run) => self.edit(id, |_, o| {
                if o.starts == run {
                    o.checks.clear();
                }
            }),
            Act::Crash(run) => {
                let current = self.machines[id].observed.as_ref().unwrap();
                if current.starts != run || current.state != MachineState::Started {
                    return;
                }
                self.edit(id, |_, o| {
                    o.events
                        .insert(0, event("exit", "stopped", now, Some(exit(now, false))));
                    o.state = MachineState::Starting;
                });
                // One that is being updated comes up with its new version.
                if !self.machines[id].busy {
                    self.launch(id);
                }
            }
            Act::End(run) => self.end(id, run),
            Act::Down => self.down(id),
            Act::Gone => {
                self.edit(id, |_, o| o.state = MachineState::Destroyed);
                self.free(id);
                self.finish(id, None);
            }
        }
    }

    /// A Machine that runs once is over, and destroys itself.
    fn job_over(&mut self, id: &MachineId) {
        let now = self.now;
        let is_release = self.machines[id].spec.config.process_group() == "fly_app_release_command";
        let code = if is_release {
            self.release_exit
        } else {
            self.test_exit
        };
        let ended = ExitEvent {
            exit_code: code,
            guest_exit_code: code,
            restarting: false,
            ..exit(now, false)
        };
        self.edit(id, |m, o| {
            o.events
                .insert(0, event("exit", "stopped", now, Some(ended)));
            o.exit = Some(ended);
            o.state = MachineState::Destroying;
            m.agenda.push((now + 5, Act::Gone));
        });
    }

    /// A job ends by itself.
    fn end(&mut self, id: &MachineId, run: u64) {
        let now = self.now;
        let current = self.machines[id].observed.as_ref().unwrap();
        if current.starts != run || current.state != MachineState::Started {
            return;
        }
        if self.machines[id].spec.config.auto_destroy {
            return self.job_over(id);
        }
        let ended = ExitEvent {
            exit_code: 0,
            guest_exit_code: 0,
            restarting: false,
            ..exit(now, false)
        };
        self.edit(id, |_, o| {
            o.events
                .insert(0, event("exit", "stopped", now, Some(ended)));
            o.state = MachineState::Stopped;
        });
    }

    fn down(&mut self, id: &MachineId) {
        let now = self.now;
        self.edit(id, |_, o| {
            o.state = MachineState::Stopped;
            o.checks.clear();
            o.events
                .insert(0, event("exit", "stopped", now, Some(exit(now, true))));
        });
        let relaunch = self.machines[id].pending.first().is_some_and(|op| {
            matches!(
                op.kind,
                OpKind::Update {
                    skip_launch: false,
                    ..
                }
            )
        });
        if relaunch && self.machines[id].busy {
            self.launch(id);
        } else {
            self.finish(id, None);
        }
    }

    /// The image is prepared, or cannot be.
    fn ready(&mut self, id: &MachineId) {
        let now = self.now;
        let machine = &self.machines[id];
        let is_v2 = machine.spec.image_ref == image("v2");
        let fault = if is_v2 && !machine.spec.config.auto_destroy {
            let last = self.faults.last().copied().unwrap_or(Fault::None);
            let fault = self.faults.get(self.taken).copied().unwrap_or(last);
            self.taken += 1;
            fault
        } else {
            Fault::None
        };
        let mut up = false;
        let mut launch = false;
        let mut error = None;
        self.edit(id, |m, o| {
            up = o.state == MachineState::Started;
            let op = m.pending.first().map(|op| op.kind.clone());
            if fault == Fault::NoImage {
                error = Some("image not found");
                if matches!(op, Some(OpKind::Create { .. })) {
                    o.state = MachineState::Failed;
                }
                return;
            }
            m.fault = fault;
            m.running = Some((m.spec.config.clone(), m.spec.image_ref.clone()));
            o.generation = m.spec.generation;
            o.instance_id = m.spec.instance_id.clone();
            launch = matches!(op, Some(OpKind::Create { skip_launch: false }))
                || o.state == MachineState::Starting;
            if up {
                o.state = MachineState::Stopping;
                m.agenda
                    .retain(|(_, a)| !matches!(a, Act::Crash(_) | Act::Sick(_) | Act::Up(_)));
                m.agenda.push((now + 5, Act::Down));
            } else if !launch {
                o.state = MachineState::Stopped;
            }
        });
        match (error, up, launch) {
            (Some(_), ..) => self.finish(id, error),
            (None, true, _) => {}
            (None, false, true) => self.launch(id),
            (None, false, false) => self.finish(id, None),
        }
    }

    fn up(&mut self, id: &MachineId, run: u64) {
        let now = self.now;
        let current = self.machines[id].observed.as_ref().unwrap();
        if current.starts != run || current.state != MachineState::Starting {
            return;
        }
        let config = &self.machines[id].spec.config;
        let is_job = config.auto_destroy;
        let is_release = config.process_group() == "fly_app_release_command";
        self.releases_run += usize::from(is_release);
        self.edit(id, |m, o| {
            o.state = MachineState::Started;
            o.events.insert(0, event("start", "started", now, None));
            if is_job {
                return m.agenda.push((now + 100, Act::End(run)));
            }
            match m.fault {
                Fault::Crashes => m.agenda.push((now + 300, Act::Crash(run))),
                Fault::NeverHealthy => {}
                Fault::PassesThenCrashes => {
                    m.agenda.push((now + 200, Act::Healthy(run)));
                    m.agenda.push((now + 350, Act::Crash(run)));
                }
                Fault::PassesThenFails => {
                    m.agenda.push((now + 200, Act::Healthy(run)));
                    m.agenda.push((now + 350, Act::Sick(run)));
                }
                Fault::EndsWell => m.agenda.push((now + 12_000, Act::End(run))),
                _ => m.agenda.push((now + 200, Act::Healthy(run))),
            }
        });
        self.finish(id, None);
    }
}

pub(crate) fn blank(spec: &MachineSpec, at: Timestamp) -> Observed {
    Observed {
        boot: 1,
        sequence: 0,
        state: MachineState::Created,
        generation: if spec.generation == 1 { 1 } else { 0 },
        instance_id: spec.instance_id.clone(),
        starts: 0,
        last_op: None,
        exit: None,
        restart_count: 0,
        reason: None,
        checks: Vec::new(),
        events: Vec::new(),
        updated_at: at,
    }
}

fn event(kind: &str, status: &str, at: i64, exit: Option<ExitEvent>) -> MachineEvent {
    MachineEvent {
        id: EventId::new("0".repeat(26)).unwrap(),
        kind: kind.to_owned(),
        status: status.to_owned(),
        source: "flyd".to_owned(),
        timestamp: at,
        request: exit.map(|exit| EventRequest {
            exit_event: Some(exit),
            restart_count: 0,
        }),
    }
}

fn exit(at: i64, asked: bool) -> ExitEvent {
    ExitEvent {
        exit_code: i32::from(!asked),
        guest_exit_code: i32::from(!asked),
        guest_signal: -1,
        signal: -1,
        oom_killed: false,
        requested_stop: asked,
        restarting: !asked,
        exited_at: Timestamp::from_millisecond(at).unwrap(),
    }
}
