//! What an actor tells the others: the observed state to the server, liveness to the Catalog.

use std::sync::Arc;

use hangar_api::catalog::{LiveService, Liveness, Phase as LivePhase};
use hangar_api::check::Health;
use hangar_api::logs::Provider;
use hangar_api::machine::{MachineSpec, Observed};

use super::Actor;
use crate::checks::runner::Report;
use crate::machine::lifecycle::{Phase, Then};

impl Actor {
    /// Tells what has changed.
    pub(super) fn publish(&mut self) {
        self.publish_liveness();
        let mut observed = self.observed();
        if let Some(last) = &self.last_sent {
            observed.sequence = last.sequence;
            observed.updated_at = last.updated_at;
            if observed == *last {
                return;
            }
        }
        self.sequence += 1;
        observed.sequence = self.sequence;
        observed.updated_at = self.shared.env.now();
        self.last_sent = Some(observed.clone());
        let id = self.record.active.spec.id.clone();
        self.shared.outbox.put(id, observed);
    }

    fn observed(&self) -> Observed {
        let (state, spec) = (&self.record.state, self.observed_spec());
        let last_op = [state.last_op.as_ref(), self.refused.as_ref()];
        Observed {
            boot: self.shared.boot,
            sequence: 0,
            state: state.machine_state(),
            generation: spec.generation,
            instance_id: spec.instance_id.clone(),
            starts: state.starts,
            last_op: last_op
                .into_iter()
                .flatten()
                .max_by(|a, b| a.id.cmp(&b.id))
                .cloned(),
            exit: state.exit,
            restart_count: u32::try_from(state.window.len()).unwrap_or(u32::MAX),
            reason: state.reason.clone(),
            checks: self.checks.clone(),
            events: self.record.events.clone(),
            updated_at: spec.updated_at,
        }
    }

    /// The generation that runs, ran, or is started next.
    fn observed_spec(&self) -> &MachineSpec {
        &self.record.active.spec
    }

    pub(super) fn publish_liveness(&self) {
        let id = &self.record.active.spec.id;
        if self.record.state.phase == Phase::Destroyed {
            return self.shared.forget_liveness(id);
        }
        let phase = self.live_phase();
        let reachable = matches!(phase, LivePhase::Up | LivePhase::Draining);
        let healthy = |index: usize| self.healthy.get(index).copied().unwrap_or(false);
        let config = &self.record.active.spec.config;
        let services = config
            .services
            .iter()
            .enumerate()
            .map(|(index, service)| LiveService {
                service: service.clone(),
                healthy: reachable && healthy(index),
            });
        let live = Liveness {
            phase,
            instance: Some(self.record.active.spec.instance_id.clone()),
            starts: self.record.state.starts,
            address: self.address().filter(|_| reachable),
            services: if reachable {
                services.collect()
            } else {
                Arc::new([])
            },
            // The server has looked at them; what is not understood is not served.
            statics: config.statics().unwrap_or_default().into(),
        };
        self.shared.set_liveness(id, live);
    }

    fn live_phase(&self) -> LivePhase {
        match self.record.state.phase {
            Phase::Started { .. } => LivePhase::Up,
            Phase::Starting { .. } | Phase::Waiting { .. } => LivePhase::Coming,
            // The kernel takes its connections already, and it answers them once it is thawed,
            // which is a moment from now: requests need not wait for that to be written down.
            Phase::Resuming { .. } if !self.healthy.is_empty() => LivePhase::Up,
            Phase::Resuming { .. } | Phase::Suspended { .. } => LivePhase::Suspended,
            // Requests wait for the new run, and none is given to the old one any more.
            Phase::Preparing {
                then: Then::Launch, ..
            }
            | Phase::Stopping {
                then: Then::Launch, ..
            } => LivePhase::Coming,
            Phase::Stopping { .. }
            | Phase::Suspending { .. }
            | Phase::Destroying { start: Some(_) } => LivePhase::Draining,
            _ => LivePhase::Down,
        }
    }

    pub(super) fn address(&self) -> Option<std::net::Ipv4Addr> {
        self.shared.net.v4(self.record.v4_index)
    }

    /// Takes the result of a check of the run that is up.
    pub(super) fn on_check(&mut self, start: u64, report: Report) {
        if self.record.state.current_run() != Some(start) {
            return;
        }
        let (error, text) = &report.line;
        let id = &self.record.active.spec.id;
        self.shared
            .logs
            .write(id, Provider::Health, *error, start, text);
        self.checks = report.statuses;
        self.healthy = report.healthy;
        self.publish();
    }

    /// Forgets what the checks of a run said that is over.
    pub(super) fn end_checks(&mut self) {
        self.jobs.checks = None;
        self.healthy.clear();
        for check in &mut self.checks {
            if check.status == Health::Passing {
                check.status = Health::Warning;
                check.output = "the machine is not running".to_owned();
                check.updated_at = self.shared.env.now();
            }
        }
    }
}
