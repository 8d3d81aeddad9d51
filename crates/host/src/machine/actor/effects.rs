//! Performing effects: what an actor does to images, runs and time.

use std::sync::Arc;
use std::time::Duration;

use hangar_api::Timestamp;
use hangar_api::error::Failure;
use hangar_api::id::MachineId;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::{Actor, News};
use crate::agent::shared::Shared;
use crate::checks::runner::{self, Target};
use crate::checks::schedule::{Schedule, checks_of};
use crate::ledger::SpecEntry;
use crate::machine::images::{PreparedImage, reference};
use crate::machine::lifecycle::{Effect, Input};
use crate::machine::plan::{self, Inputs};
use crate::runtime::{RunKey, StartError};

/// Longest time for preparing an image.
const PREPARE_LIMIT: Duration = Duration::from_secs(15 * 60);
/// An image that was ready sooner than this was not pulled.
const WAS_READY: Duration = Duration::from_millis(100);
/// Longest time for a launch, its image being there.
const LAUNCH_LIMIT: Duration = Duration::from_secs(60);
/// How long requests may go on before a Machine is killed.
const DRAIN_BEFORE_KILL: Duration = Duration::from_secs(5);
/// What a run that was asked to stop has beyond its own time, before it is killed from outside:
/// `init` sends SIGTERM and then SIGKILL itself.
const STOP_MARGIN: Duration = Duration::from_secs(10);
/// Time between two tries to kill or remove what will not go.
const TRY_AGAIN: Duration = Duration::from_secs(5);
/// How long a launch waits for the former run to be removed.
const REMOVE_LIMIT: Duration = Duration::from_secs(30);
/// Tries to remove a run; what is left is swept at the next start of the host.
const REMOVE_TRIES: u32 = 3;

impl Actor {
    pub(super) fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Prepare { generation } => self.prepare(generation),
            Effect::CancelPrepare => self.jobs.prepare = None,
            Effect::Launch { start } => self.launch(start),
            Effect::Watch { start } => self.watch(start),
            Effect::Stop {
                start,
                signal,
                timeout,
            } => self.stop(start, signal, timeout),
            Effect::Kill { start } => self.kill(start),
            Effect::Suspend { start } => self.suspend(start),
            Effect::Resume { start } => self.resume(start),
            Effect::Signal { start, signal } => self.signal(start, signal),
            Effect::Remove { start } => self.remove(start),
            Effect::Timer { at } => self.timer(at),
            Effect::Wipe => self.wipe(),
            Effect::Log { error, text } => self.log(error, &text),
            Effect::LogStarted { created } => self.log_started(created),
            // Events are part of the record, which is written already.
            Effect::Event { .. } => {}
        }
    }

    fn prepare(&mut self, generation: u64) {
        self.work_began.get_or_insert_with(Instant::now);
        let Some(entry) = self.record.entry(generation) else {
            // The lifecycle asks for the newest generation only, and that one is kept.
            return tracing::error!(machine = %self.record.active.spec.id, generation, "no such generation");
        };
        let (image, shared, tell) = (
            entry.spec.image_ref.clone(),
            self.shared.clone(),
            self.tell.clone(),
        );
        let (logs, id, start) = (
            self.shared.logs.clone(),
            self.record.active.spec.id.clone(),
            self.record.state.starts,
        );
        self.jobs.prepare = Some(self.shared.job(async move {
            let say = |text: &str| {
                logs.write(&id, hangar_api::logs::Provider::Runner, false, start, text);
            };
            let (name, began) = (reference(&image), Instant::now());
            let news = match timeout(PREPARE_LIMIT, shared.images.ensure(&image)).await {
                Ok(Ok(ready)) => {
                    let took = began.elapsed();
                    say(&if took < WAS_READY {
                        format!("Container image {name} already prepared")
                    } else {
                        format!(
                            "Successfully prepared image {name} ({:.1}s)",
                            took.as_secs_f64()
                        )
                    });
                    News::Image(generation, Box::new(ready))
                }
                Ok(Err(failure)) => prepare_failed(generation, failure.message),
                Err(_) => prepare_failed(
                    generation,
                    format!(
                        "image {name} was not there after {} s",
                        PREPARE_LIMIT.as_secs()
                    ),
                ),
            };
            drop(tell.send(news).await);
        }));
    }

    fn launch(&mut self, start: u64) {
        self.work_began.get_or_insert_with(Instant::now);
        let generation = self.record.state.generation;
        let image = self.image.clone().filter(|(of, _)| *of == generation);
        let launch = Launch {
            shared: self.shared.clone(),
            entry: self.record.active.clone(),
            image: image.map(|(_, image)| image),
            start,
            v4: self.address(),
        };
        let (tell, former) = (self.tell.clone(), self.jobs.remove.take());
        self.jobs.launch = Some(self.shared.job(async move {
            if let Some(former) = former {
                // Addresses and names of the former run must be free; it is swept if it hangs.
                drop(timeout(REMOVE_LIMIT, former).await);
            }
            let news = match launch.run().await {
                Ok(image) => News::Launched(start, generation, Box::new(image)),
                Err(StartError { message, transient }) => News::Input(Input::StartFailed {
                    start,
                    message,
                    transient,
                }),
            };
            drop(tell.send(news).await);
        }));
    }

    fn watch(&mut self, start: u64) {
        let (key, shared, tell) = (self.key(start), self.shared.clone(), self.tell.clone());
        let job = self.shared.job(async move {
            let record = shared.runtime.wait(key).await;
            drop(
                tell.send(News::Input(Input::Exited { start, record }))
                    .await,
            );
        });
        self.jobs.watch = Some((start, job));
        let rests = self.record.state.rests_with_memory();
        if self.jobs.checks.is_none() && !rests {
            self.begin_checks(start);
        }
    }

    fn suspend(&mut self, start: u64) {
        let (key, shared, tell) = (self.key(start), self.shared.clone(), self.tell.clone());
        let limit = plan::rules(&self.record.active.spec.config, 0).stop_timeout;
        self.end_checks();
        self.jobs.freeze = Some(self.shared.job(async move {
            shared
                .drain
                .drained(key.machine.clone(), start, limit)
                .await;
            let news = match shared.runtime.suspend(key).await {
                Ok(()) => Input::Frozen { start },
                Err(Failure { message, .. }) => Input::FreezeFailed { start, message },
            };
            drop(tell.send(News::Input(news)).await);
        }));
    }

    fn resume(&mut self, start: u64) {
        self.work_began.get_or_insert_with(Instant::now);
        let (key, shared, tell) = (self.key(start), self.shared.clone(), self.tell.clone());
        self.shared.drain.reopened(&key.machine, start);
        self.begin_checks(start);
        self.jobs.freeze = Some(self.shared.job(async move {
            let news = match shared.runtime.resume(key).await {
                Ok(()) => Input::Thawed { start },
                Err(Failure { message, .. }) => Input::ThawFailed { start, message },
            };
            drop(tell.send(News::Input(news)).await);
        }));
    }

    fn stop(&mut self, start: u64, signal: i32, limit: Duration) {
        let (key, shared) = (self.key(start), self.shared.clone());
        self.jobs.freeze = None;
        self.end_checks();
        self.jobs.stop = Some(self.shared.job(async move {
            // Requests that were frozen with it can end only when it goes on.
            if let Err(error) = shared.runtime.resume(key.clone()).await {
                tracing::warn!(machine = %key.machine, %error, "machine not thawed");
            }
            shared
                .drain
                .drained(key.machine.clone(), start, limit)
                .await;
            if let Err(error) = shared.runtime.stop(key.clone(), signal, limit).await {
                tracing::warn!(machine = %key.machine, %error, "stop not delivered, killing");
            } else {
                sleep(limit + STOP_MARGIN).await;
            }
            kill_until_gone(&shared, key).await;
        }));
    }

    fn kill(&mut self, start: u64) {
        let (key, shared) = (self.key(start), self.shared.clone());
        self.jobs.freeze = None;
        self.end_checks();
        self.jobs.stop = Some(self.shared.job(async move {
            let machine = key.machine.clone();
            shared
                .drain
                .drained(machine, start, DRAIN_BEFORE_KILL)
                .await;
            kill_until_gone(&shared, key).await;
        }));
    }

    fn signal(&mut self, start: u64, signal: i32) {
        let (key, shared) = (self.key(start), self.shared.clone());
        // Quick, and of no consequence for the lifecycle; the program's answer shows in its run.
        self.jobs.signal = Some(self.shared.job(async move {
            let machine = key.machine.clone();
            if let Err(error) = shared.runtime.signal(key, signal).await {
                tracing::warn!(%machine, signal, %error, "signal not delivered");
            }
        }));
    }

    fn remove(&mut self, start: u64) {
        let (key, shared, former) = (
            self.key(start),
            self.shared.clone(),
            self.jobs.remove.take(),
        );
        if self.jobs.watch.as_ref().is_some_and(|(of, _)| *of == start) {
            self.jobs.stop = None;
            self.jobs.freeze = None;
            self.jobs.watch = None;
            self.end_checks();
        }
        self.jobs.remove = Some(self.shared.job(async move {
            if let Some(former) = former {
                drop(former.await);
            }
            remove_run(&shared, key).await;
        }));
    }

    fn timer(&mut self, at: Timestamp) {
        let wait = at.duration_since(self.shared.env.now());
        let (wait, tell) = (
            Duration::try_from(wait).unwrap_or_default(),
            self.tell.clone(),
        );
        self.jobs.timer = Some(self.shared.job(async move {
            sleep(wait).await;
            drop(tell.send(News::Input(Input::Due)).await);
        }));
    }

    fn wipe(&mut self) {
        self.image = None;
        self.running_image = None;
        self.checks.clear();
        self.shared.logs.mark_destroyed(&self.record.active.spec.id);
        let (machine, shared, tell) = (
            self.record.active.spec.id.clone(),
            self.shared.clone(),
            self.tell.clone(),
        );
        let former = self.jobs.remove.take();
        self.jobs.wipe = Some(self.shared.job(async move {
            if let Some(former) = former {
                drop(former.await);
            }
            loop {
                if remove_all(&shared, &machine).await {
                    break;
                }
                sleep(TRY_AGAIN).await;
            }
            drop(tell.send(News::Input(Input::Wiped)).await);
        }));
    }

    fn log_started(&mut self, created: bool) {
        let took = self
            .work_began
            .take()
            .map_or(0.0, |at| at.elapsed().as_secs_f64());
        self.log(
            false,
            &if created {
                format!("Machine created and started in {took:.3}s")
            } else {
                format!("Machine started in {took:.3}s")
            },
        );
    }

    /// Begins to probe a run that is up.
    pub(super) fn begin_checks(&mut self, start: u64) {
        let config = &self.record.active.spec.config;
        let checks = checks_of(config);
        let schedule = Schedule::new(checks, self.shared.env.now());
        let services = config.services.len();
        self.healthy = (0..services)
            .map(|index| schedule.is_healthy(index))
            .collect();
        self.checks = schedule.statuses();
        self.jobs.checks = None;
        let Some(address) = self.address().filter(|_| config.has_checks()) else {
            return;
        };
        let target = Target {
            address,
            services,
            prober: Arc::clone(&self.shared.prober),
            env: self.shared.env.clone(),
        };
        let tell = self.tell.clone();
        self.jobs.checks = Some(self.shared.job(async move {
            let (reports, mut changed) = mpsc::channel(1);
            let forward = async {
                while let Some(report) = changed.recv().await {
                    drop(tell.send(News::Check(start, report)).await);
                }
            };
            tokio::join!(runner::run(target, schedule, reports), forward);
        }));
    }
}

/// All that one launch needs.
struct Launch {
    shared: Arc<Shared>,
    entry: SpecEntry,
    image: Option<PreparedImage>,
    start: u64,
    v4: Option<std::net::Ipv4Addr>,
}

impl Launch {
    /// Returns the image that it was started from.
    async fn run(self) -> Result<PreparedImage, StartError> {
        let (shared, spec) = (&self.shared, &self.entry.spec);
        let image = match &self.image {
            Some(image) => image.clone(),
            None => timeout(PREPARE_LIMIT, shared.images.ensure(&spec.image_ref))
                .await
                .map_err(|_| transient("the image was not ready in time"))?
                .map_err(|failure| transient(&failure.message))?,
        };
        let secrets = shared.ledger.secrets(&self.entry);
        let secrets = secrets.ok_or_else(|| {
            lasting("its secrets were sealed by another key: deploy the app again")
        })?;
        let v4 = self
            .v4
            .ok_or_else(|| lasting("this host has no address left for it"))?;
        let network = shared.net.ensure_network(spec.network).await;
        network.map_err(|failure| transient(&failure.message))?;
        let inputs = Inputs {
            spec,
            secrets: &secrets,
            image: &image,
            start: self.start,
            v4,
        };
        let plan = plan::start_plan(inputs, shared.logs.dir(&spec.id));
        let plan = plan.map_err(|error| lasting(&error.to_string()))?;
        let started = timeout(LAUNCH_LIMIT, shared.runtime.start(plan)).await;
        started.map_err(|_| transient("it was not up within 60 s"))??;
        Ok(image)
    }
}

fn transient(message: &str) -> StartError {
    StartError {
        message: message.to_owned(),
        transient: true,
    }
}

fn lasting(message: &str) -> StartError {
    StartError {
        message: message.to_owned(),
        transient: false,
    }
}

fn prepare_failed(generation: u64, message: String) -> News {
    News::Input(Input::PrepareFailed {
        generation,
        message,
    })
}

/// Kills a run until its end is known: the job is dropped then.
async fn kill_until_gone(shared: &Shared, key: RunKey) {
    loop {
        shared.runtime.kill(key.clone()).await;
        sleep(TRY_AGAIN).await;
        tracing::warn!(machine = %key.machine, start = key.start, "machine outlives a kill");
    }
}

/// Removes a run and returns whether it is gone.
async fn remove_run(shared: &Shared, key: RunKey) -> bool {
    for _ in 0..REMOVE_TRIES {
        match shared.runtime.remove(key.clone()).await {
            Ok(()) => return true,
            Err(error) => {
                tracing::warn!(machine = %key.machine, start = key.start, %error, "run not removed");
            }
        }
        sleep(TRY_AGAIN).await;
    }
    false
}

/// Removes all runs of a Machine, and then what it keeps beyond them; returns whether all is gone.
async fn remove_all(shared: &Shared, machine: &MachineId) -> bool {
    let runs = match shared.runtime.runs().await {
        Ok(runs) => runs,
        Err(error) => {
            tracing::warn!(%machine, %error, "runs not removed yet");
            return false;
        }
    };
    let mut gone = true;
    for key in runs.into_iter().filter(|key| key.machine == *machine) {
        gone &= remove_run(shared, key).await;
    }
    if gone && let Err(error) = shared.runtime.wipe(machine.clone()).await {
        tracing::warn!(%machine, %error, "kept files not removed yet");
        return false;
    }
    gone
}
