//! The reconciler of deployments: observe, plan, store what the plan remembers, carry out its
//! wave, wait, again, until the plan says that it is over (D1, D4).
//!
//! One task per deployment that is not over. It holds nothing that the store does not: a server
//! that was killed goes on from the record.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use hangar_api::Timestamp;
use hangar_api::deployment::{DeployEvent, DeployOptions, Deployment, DeploymentStatus, Strategy};
use hangar_api::id::{AppName, DeploymentId};
use hangar_api::logs::LogQuery;
use hangar_api::release::{Release, ReleaseStatus};
use hangar_deploy::progress::{Failure, Progress};
use hangar_deploy::{Gate, Plan, Verdict, plan};
use hangar_store::tables::{Apps, DeployClaims, Deployments, Releases};
use hangar_store::{Record, StoreError, Txn};

use super::fleet::{Fleet, view_of};
use super::listen::{Listening, When};
use super::steps::{self, By, Refusal, Wave};
use super::{desired, leases, primary_region, push_event};
use crate::core::Core;
use crate::error::Problem;
use crate::formations;
use crate::lease::{Acting, Holder};
use crate::unit::Unit;

/// Between two plans there is at least this, when nothing has changed in between: a gate may have
/// an edge that the planner makes nothing of, such as a crash that it forgives.
const SHORTEST_WAIT: Duration = Duration::from_millis(10);
/// A timer makes it true: a plan is made at least this often.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// First pause after a wave that was refused; doubles up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Longest pause after a wave that was refused.
const LAST_PAUSE: Duration = Duration::from_secs(2);
/// So many refused waves in a row are a failure: about a minute.
const MAX_REFUSALS: u32 = 35;
/// After so many, about two seconds, the followers are told what is waited for.
const TELL_AFTER: u32 = 5;
/// A round that fails for reasons outside of the deployment is tried again after this.
const RETRY: Duration = Duration::from_millis(250);
/// So many failed rounds in a row end the deployment as it is, once that can be written.
const MAX_FAILURES: u32 = 480;
/// Log lines that are shown with a failure.
const LOG_LINES: usize = 10;
/// Log lines that are shown with the failure of a release command or a test Machine.
const JOB_LOG_LINES: usize = 100;
/// Characters of all lines together: the last ones are kept.
const LOG_LENGTH: usize = 5_000;
/// Characters of each.
const LINE_LENGTH: usize = 500;
/// How long they are waited for.
const LOG_PATIENCE: Duration = Duration::from_secs(2);

/// Drives a deployment until it is over or the server stops.
pub(crate) async fn drive(core: Arc<Core>, app: AppName, id: DeploymentId) {
    let stop = core.stop.clone();
    let mut driver = Driver {
        holder: Holder {
            user: "deploy".to_owned(),
            nonce: None,
            acting: Acting::Deployment(id.clone()),
        },
        core,
        app,
        id,
        listening: Listening::default(),
        heard: false,
        refusals: 0,
        failures: 0,
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = driver.run() => {}
    }
}

struct Driver {
    core: Arc<Core>,
    app: AppName,
    id: DeploymentId,
    holder: Holder,
    listening: Listening,
    /// That it is cancelled was dealt with.
    heard: bool,
    /// Refused waves in a row.
    refusals: u32,
    /// Failed rounds in a row.
    failures: u32,
}

/// What a round came to.
enum Next {
    /// Plan again at once.
    Again,
    /// Plan again when one of the gates has an edge, or then.
    Wait(Vec<Gate>, Option<Timestamp>),
    /// It is over.
    Over,
}

/// The records of a deployment.
struct Records {
    app: Arc<Record<Apps>>,
    deployment: Arc<Record<Deployments>>,
    release: Arc<Record<Releases>>,
}

// === impl Driver ===

impl Driver {
    async fn run(&mut self) {
        loop {
            match Box::pin(self.round()).await {
                Ok(Next::Again) => self.failures = 0,
                Ok(Next::Wait(gates, until)) => {
                    self.failures = 0;
                    self.wait(&gates, until).await;
                }
                Ok(Next::Over) => return,
                Err(problem) if self.failures >= MAX_FAILURES => {
                    self.failures = 0;
                    self.end_as_it_is(&problem.text()).await;
                }
                Err(problem) => {
                    self.failures += 1;
                    tracing::warn!(
                        app = %self.app,
                        error = %problem.text(),
                        "deployment round failed, trying again"
                    );
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    fn records(&self) -> Option<Records> {
        let snapshot = self.core.cache.snapshot();
        let key = (self.app.clone(), self.id.clone());
        let deployment = snapshot.get::<Deployments>(&key)?;
        let release = (self.app.clone(), deployment.value.version);
        Some(Records {
            app: snapshot.get::<Apps>(&self.app)?.clone(),
            release: snapshot.get::<Releases>(&release)?.clone(),
            deployment: deployment.clone(),
        })
    }

    async fn round(&mut self) -> Result<Next, Problem> {
        let Some(records) = self.records() else {
            return Ok(Next::Over);
        };
        let record = &records.deployment.value;
        if record.status.is_over() || records.app.value.deleting {
            return Ok(Next::Over);
        }
        let fleet = Fleet::observe(&self.core, &self.app, &self.id);
        let progress: Progress = read_progress(record)?;
        if self.turns_back(&progress).await? {
            return Ok(Next::Again);
        }
        let held = leases::hold(&self.core, record, &self.holder, &fleet.units).await?;
        // On the way forward all wait for a lease of somebody else. Where it only remains to
        // tidy up, it is in the way of its own Machine alone.
        let forward = record.status == DeploymentStatus::Running && !progress.is_past_return();
        if let Some(problem) = held.filter(|_| forward) {
            let refusal = Refusal {
                machine: None,
                problem,
            };
            return self.refused(&records, vec![refusal]).await;
        }
        let desired = desired(&self.core, &records.app, &records.release.value, record);
        let now = self.core.env.now();
        let mut plan = plan(&desired, &fleet.view(), &progress, now, &record.options);
        if plan.verdict == Verdict::Complete && listens(&record.options) {
            let later = self
                .listening
                .unsettled(&self.core, &fleet.units, &desired.release);
            if let Some(later) = later.await {
                return Ok(Next::Wait(Vec::new(), Some(later)));
            }
        }
        let over = plan.verdict.status().is_over();
        let first_failure = record.error.is_none() && plan.verdict.failure().is_some();
        // An app has not had its time to listen where `immediate` ends, or somebody cancels.
        let is_time = record.options.strategy != Strategy::Immediate && !self.heard;
        let when = if is_time && (over || first_failure) {
            When::Now
        } else {
            When::Patiently
        };
        let warnings = self
            .listening
            .look(&self.core, &fleet.units, &desired.release, when)
            .await;
        // The warning explains what the verdict then says.
        plan.notes.splice(0..0, warnings);
        self.remember(&records, &plan).await?;
        if over {
            return Ok(Next::Over);
        }
        if plan.ready.is_empty() {
            // Often enough for its leases to be renewed in their second half.
            let renewal = after(now, leases::ttl(record) / 4);
            let until = [plan.wake_at, self.listening.next(), Some(renewal)];
            return Ok(Next::Wait(plan.gates, until.into_iter().flatten().min()));
        }
        let by = By {
            holder: &self.holder,
            lease_ttl: leases::ttl(record),
        };
        let wave = steps::carry_out(&self.core, &self.app, &by, plan.ready).await;
        self.after(wave).await
    }

    /// Begins to turn back where somebody has asked for it and it can; returns whether it has.
    async fn turns_back(&mut self, progress: &Progress) -> Result<bool, Problem> {
        let Some(user) = self.cancelled_by() else {
            return Ok(false);
        };
        if std::mem::replace(&mut self.heard, true) || !progress.may_turn_back() {
            return Ok(false);
        }
        let failure = Failure {
            reason: format!("it was cancelled by {user}"),
            ..Failure::default()
        };
        self.report(failure).await?;
        Ok(true)
    }

    /// Deals with what became of a wave.
    async fn after(&mut self, wave: Wave) -> Result<Next, Problem> {
        for failure in wave.failed {
            tracing::warn!(app = %self.app, error = %failure, "deployment step failed");
            self.report(failure).await?;
        }
        if wave.refused.is_empty() || wave.done > 0 {
            self.refusals = 0;
            return Ok(Next::Again);
        }
        match self.records() {
            Some(records) => self.refused(&records, wave.refused).await,
            None => Ok(Next::Over),
        }
    }

    /// Waits a little after a wave of nothing but refusals, and gives up when there are too many
    /// in a row.
    async fn refused(
        &mut self,
        records: &Records,
        refusals: Vec<Refusal>,
    ) -> Result<Next, Problem> {
        self.refusals += 1;
        let first = refusals.first().map(|refusal| refusal.problem.text());
        let text = first.unwrap_or_default();
        tracing::debug!(app = %self.app, error = %text, "deployment step refused");
        if self.refusals > MAX_REFUSALS {
            self.refusals = 0;
            self.give_up(records, refusals).await?;
            return Ok(Next::Again);
        }
        if self.refusals == TELL_AFTER {
            self.tell(records, format!("Waiting: {text}")).await?;
        }
        let doubled = FIRST_PAUSE.saturating_mul(1 << self.refusals.min(16));
        tokio::time::sleep(doubled.min(LAST_PAUSE)).await;
        Ok(Next::Again)
    }

    async fn tell(&self, records: &Records, message: String) -> Result<(), Problem> {
        let mut next = records.deployment.value.clone();
        push_event(&mut next, event(self.core.env.now(), "info", &message));
        self.core
            .try_commit(Txn::new().update(&records.deployment, &next))
            .await?;
        Ok(())
    }

    /// Makes the deployment fail; where it is being put back already, leaves out the Machines
    /// that refuse. One that has not begun, or still cannot go on, ends as it is.
    async fn give_up(&mut self, records: &Records, refusals: Vec<Refusal>) -> Result<(), Problem> {
        let record = &records.deployment.value;
        let mut progress = read_progress(record)?;
        let before = progress.clone();
        let mut reason = String::new();
        for Refusal { machine, problem } in refusals {
            reason = problem.text();
            progress.report(Failure {
                machine,
                group: None,
                reason: reason.clone(),
            });
        }
        if progress == before || before.is_untouched() {
            let reason = record.error.as_deref().unwrap_or(&reason);
            let txn = self.failed(records, reason);
            self.core.try_commit(txn).await?;
            return Ok(());
        }
        let mut next = record.clone();
        next.progress = to_value(&progress)?;
        self.core
            .try_commit(Txn::new().update(&records.deployment, &next))
            .await?;
        Ok(())
    }

    /// Returns the writes that end the deployment as it is.
    fn failed(&self, records: &Records, reason: &str) -> Txn {
        let now = self.core.env.now();
        let mut next = records.deployment.value.clone();
        next.status = DeploymentStatus::Failed;
        next.finished_at = Some(now);
        next.error = Some(reason.to_owned());
        // Nobody plans from it any more, and with it the record may be more than the store takes.
        next.progress = serde_json::Value::Null;
        push_event(&mut next, event(now, "error", reason));
        let end = self.final_writes(records, &next);
        Txn::new().update(&records.deployment, &next).and(end)
    }

    async fn end_as_it_is(&self, reason: &str) {
        let Some(records) = self.records() else {
            return;
        };
        let txn = self.failed(&records, reason);
        if let Err(error) = self.core.try_commit(txn).await {
            tracing::error!(app = %self.app, error = %error, "deployment cannot be ended");
        }
    }

    async fn report(&self, failure: Failure) -> Result<(), Problem> {
        let Some(records) = self.records() else {
            return Ok(());
        };
        let mut progress = read_progress(&records.deployment.value)?;
        progress.report(failure);
        let mut next = records.deployment.value.clone();
        next.progress = to_value(&progress)?;
        // Nobody else writes the record of a deployment that runs.
        self.core
            .try_commit(Txn::new().update(&records.deployment, &next))
            .await?;
        Ok(())
    }

    /// Stores what a plan says is to be remembered, before any of its steps is carried out.
    async fn remember(&self, records: &Records, plan: &Plan) -> Result<(), Problem> {
        let old = &records.deployment.value;
        let status = plan.verdict.status();
        if !plan.changed && plan.notes.is_empty() && status == old.status {
            return Ok(());
        }
        let mut next = old.clone();
        next.progress = to_value(&plan.progress)?;
        next.status = status;
        for note in &plan.notes {
            push_event(&mut next, note.clone());
        }
        if let (None, Some(failure)) = (&old.error, plan.verdict.failure()) {
            let lines = self.last_lines(failure, old.created_at).await;
            if let Some(lines) = &lines {
                push_event(&mut next, event(self.core.env.now(), "error", lines));
            }
            let lines = lines.map(|lines| format!("\n{lines}")).unwrap_or_default();
            next.error = Some(format!("{failure}{lines}"));
        }
        let mut txn = Txn::new().update(&records.deployment, &next);
        if status.is_over() {
            next.finished_at = Some(self.core.env.now());
            // Nobody plans from it any more, and it may be large.
            next.progress = serde_json::Value::Null;
            if let (Some(error), trouble @ [_, ..]) = (&mut next.error, &*plan.progress.trouble) {
                let left = trouble.join("; ");
                error.push_str(&format!("\nWhile things were put back: {left}"));
            }
            txn = Txn::new()
                .update(&records.deployment, &next)
                .and(self.final_writes(records, &next));
            tracing::info!(app = %self.app, release = old.version, status = ?status, "deployment over");
        }
        match self.core.try_commit(txn).await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(Problem::Conflict(
                "the deployment's records changed".to_owned(),
            )),
            Err(StoreError::Limit { what, .. }) => {
                let touched = if old.progress.is_null() {
                    "no machine was changed"
                } else {
                    "it ends as it is"
                };
                let reason = format!(
                    "what the machines were before is more than the store takes ({what}), so \
                     there would be no way back: {touched}; put large [[files]] into the image"
                );
                let txn = self.failed(records, &reason);
                self.core.try_commit(txn).await?;
                Err(Problem::Exhausted(reason))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Returns what ends with a deployment: its release's status, its claim and its leases.
    fn final_writes(&self, records: &Records, ended: &Deployment) -> Txn {
        let complete = ended.status == DeploymentStatus::Complete;
        let release = Release {
            status: if complete {
                ReleaseStatus::Complete
            } else {
                ReleaseStatus::Failed
            },
            ..records.release.value.clone()
        };
        let given_back = leases::given_back(&self.core.cache.snapshot(), &self.app, &self.id);
        let mut txn = given_back.update(&records.release, &release);
        if let Some(claim) = self.claim() {
            txn = txn.remove(&claim);
        }
        if complete && !ended.restart_only {
            txn = txn.and(formations::ended(&self.core.cache.snapshot(), &release));
        }
        let region = primary_region(&release);
        if complete && region.is_some() && region != records.app.value.primary_region {
            let mut app = records.app.value.clone();
            app.primary_region = region;
            txn = txn.update(&records.app, &app);
        }
        txn
    }

    /// Returns the last log lines of the Machine that a failure is about, of this deployment: what
    /// an earlier version said explains nothing.
    async fn last_lines(&self, failure: &Failure, since: Timestamp) -> Option<String> {
        let machine = failure.machine.clone()?;
        let count = if failure.is_of_job() {
            JOB_LOG_LINES
        } else {
            LOG_LINES
        };
        let query = LogQuery {
            app: self.app.clone(),
            group: None,
            machine: Some(machine.clone()),
            region: None,
            tail: count,
            follow: false,
            since: Some(since),
        };
        let read = async {
            let lines = self.core.calls.logs(query).await.ok()?;
            Some(
                lines
                    .take(count)
                    .map(|line| line.message)
                    .collect::<Vec<_>>()
                    .await,
            )
        };
        let lines = tokio::time::timeout(LOG_PATIENCE, read).await.ok()??;
        if lines.is_empty() {
            return None;
        }
        let short = |line: &String| line.chars().take(LINE_LENGTH).collect::<String>();
        let mut room = LOG_LENGTH;
        let shown = lines.iter().map(|line| format!("\n  {}", short(line)));
        let mut shown: Vec<String> = shown
            .rev()
            .take_while(|line| {
                let fits = line.len() <= room;
                room = room.saturating_sub(line.len());
                fits
            })
            .collect();
        shown.reverse();
        let shown = shown.concat();
        Some(format!("Last log lines of machine {machine}:{shown}"))
    }

    /// Waits until planning again may change something.
    async fn wait(&self, gates: &[Gate], until: Option<Timestamp>) {
        let mut changes = self.core.cache.changes();
        let mut applied = self.core.applied.clone();
        let now = self.core.env.now();
        let rest = until.map_or(LONGEST_WAIT, |until| {
            Duration::try_from(until.duration_since(now)).unwrap_or_default()
        });
        let rest = rest.clamp(SHORTEST_WAIT, LONGEST_WAIT);
        let deadline = tokio::time::Instant::now() + rest;
        changes.borrow_and_update();
        if self.has_edge(gates) {
            return tokio::time::sleep(SHORTEST_WAIT).await;
        }
        loop {
            changes.borrow_and_update();
            if self.has_edge(gates) {
                return;
            }
            tokio::select! {
                biased;
                changed = changes.changed() => if changed.is_err() {
                    return;
                },
                Ok(()) = applied.changed() => {}
                () = tokio::time::sleep_until(deadline) => return,
            }
        }
    }

    /// Returns the app's claim while it is this deployment's.
    fn claim(&self) -> Option<Arc<Record<DeployClaims>>> {
        let claim = self.core.cache.get::<DeployClaims>(&self.app)?;
        claim.value.is_of(&self.id).then_some(claim)
    }

    /// Returns who wants the deployment to turn back.
    fn cancelled_by(&self) -> Option<String> {
        self.claim()?.value.cancelled_by.clone()
    }

    fn has_edge(&self, gates: &[Gate]) -> bool {
        if !self.heard && self.cancelled_by().is_some() {
            return true;
        }
        let now = self.core.env.now();
        let applied = *self.core.applied.borrow();
        let snapshot = self.core.cache.snapshot();
        gates.iter().any(|gate| {
            let unit = Unit::of(&snapshot, &(self.app.clone(), gate.machine.clone()));
            let machine = unit.as_ref().map(|unit| view_of(unit, None, applied));
            gate.has_edge(machine.as_ref(), now)
        })
    }
}

/// Returns a time so many seconds later.
fn after(time: Timestamp, seconds: i64) -> Timestamp {
    let span = jiff::SignedDuration::from_secs(seconds);
    time.saturating_add(span).unwrap_or(Timestamp::MAX)
}

/// Returns whether a deployment waits for its Machines to listen where their services lead.
fn listens(options: &DeployOptions) -> bool {
    options.smoke_checks && !options.detach && options.strategy != Strategy::Immediate
}

fn event(at: Timestamp, level: &str, message: &str) -> DeployEvent {
    DeployEvent {
        at,
        message: message.to_owned(),
        machine: None,
        group: None,
        level: level.to_owned(),
    }
}

/// Returns the planner's memory of a deployment.
pub(crate) fn read_progress(record: &Deployment) -> Result<Progress, Problem> {
    if record.progress.is_null() {
        return Ok(Progress::default());
    }
    serde_json::from_value(record.progress.clone()).map_err(|error| {
        Problem::Internal(format!(
            "read the memory of deployment {}: {error}",
            record.id
        ))
    })
}

fn to_value(progress: &Progress) -> Result<serde_json::Value, Problem> {
    serde_json::to_value(progress)
        .map_err(|error| Problem::Internal(format!("write the memory of a deployment: {error}")))
}
