//! A scripted host: it speaks the link's messages and does at once what is asked, the way that a
//! Machine's environment says (`BEHAVIOUR`).

use std::collections::BTreeMap;
use std::net::{SocketAddr, SocketAddrV6};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use futures_util::StreamExt as _;
use hangar_api::check::{CheckStatus, Health};
use hangar_api::env::Env;
use hangar_api::error::{ErrorKind, Failure};
use hangar_api::event::{EventRequest, ExitEvent, MachineEvent};
use hangar_api::exec::{ExecRequest, ExecResponse};
use hangar_api::id::{AppName, EventId, MachineId};
use hangar_api::image::{ImageInfo, ImageRef, Pruned};
use hangar_api::link::{FromHost, HostMachine, ToHost};
use hangar_api::logs::{LogLine, LogQuery, Provider};
use hangar_api::machine::{MachineState, Observed, Op, OpKind, OpOutcome};
use hangar_api::process::Process;
use hangar_api::seam::{BoxFuture, BoxStream, Connection, HostCalls, ImageCalls, MayUse};
use hangar_api::session::{SessionInput, SessionOutput, SessionRequest};
use hangar_image::ImageStore;
use tokio::sync::mpsc;

/// What outlives the server: the Machines of the host, and what a test looks at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Host(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    machines: BTreeMap<MachineId, Machine>,
    forgotten: Vec<MachineId>,
    /// Ops that were done, with the Machine: none may be done twice.
    done: Vec<(MachineId, Op)>,
    /// Ops wait while this is set.
    frozen: bool,
    /// Each message takes a moment.
    slow: bool,
}

#[derive(Clone, Debug)]
struct Machine {
    should: HostMachine,
    observed: Observed,
}

// === impl Host ===

impl Host {
    /// Serves one server's link until that goes away.
    pub(crate) async fn serve(
        self,
        env: Env,
        mut to_host: mpsc::Receiver<ToHost>,
        from_host: mpsc::Sender<FromHost>,
    ) {
        while let Some(message) = to_host.recv().await {
            if self.is_slow() {
                tokio::time::sleep(std::time::Duration::from_millis(env.random_u64() % 4)).await;
            }
            let news = self.take(&env, message);
            for news in news {
                if from_host.send(news).await.is_err() {
                    return;
                }
            }
        }
    }

    /// Lets ops wait, or be done with the next message.
    pub(crate) fn freeze(&self, frozen: bool) {
        self.0.lock().unwrap().frozen = frozen;
    }

    /// Makes each message take a moment.
    pub(crate) fn slow_down(&self) {
        self.0.lock().unwrap().slow = true;
    }

    fn is_slow(&self) -> bool {
        self.0.lock().unwrap().slow
    }

    pub(crate) fn forgotten(&self) -> Vec<MachineId> {
        self.0.lock().unwrap().forgotten.clone()
    }

    /// Returns the secrets that a Machine was given.
    pub(crate) fn secrets(&self, id: &MachineId) -> BTreeMap<String, String> {
        self.0.lock().unwrap().machines[id].should.secrets.0.clone()
    }

    /// Returns the configuration that a Machine was given.
    pub(crate) fn config(&self, id: &MachineId) -> hangar_api::machine::MachineConfig {
        self.0.lock().unwrap().machines[id]
            .should
            .spec
            .config
            .clone()
    }

    /// Returns how often an op was done that no Machine was asked for twice.
    pub(crate) fn done_twice(&self) -> usize {
        let state = self.0.lock().unwrap();
        let mut ids: Vec<_> = state.done.iter().map(|(_, op)| &op.id).collect();
        let all = ids.len();
        ids.sort();
        ids.dedup();
        all - ids.len()
    }

    /// Returns how often a Machine was started.
    pub(crate) fn starts(&self, id: &MachineId) -> u64 {
        self.0.lock().unwrap().machines[id].observed.starts
    }

    /// Returns until when the host was told to keep the proxy away from a Machine.
    pub(crate) fn leased_until(&self, id: &MachineId) -> Option<hangar_api::Timestamp> {
        self.0.lock().unwrap().machines[id].should.leased_until
    }

    fn take(&self, env: &Env, message: ToHost) -> Vec<FromHost> {
        let mut state = self.0.lock().unwrap();
        let mut news = Vec::new();
        match message {
            ToHost::Sync { machines, .. } => {
                for machine in machines {
                    let id = machine.spec.id.clone();
                    news.extend(state.put(env, machine));
                    // After a Sync all is told, changed or not.
                    let observed = &mut state.machines.get_mut(&id).unwrap().observed;
                    observed.sequence += 1;
                    news.push(told(id, observed));
                }
            }
            ToHost::Put(machine) => news.extend(state.put(env, *machine)),
            ToHost::Forget { id } => {
                state.machines.remove(&id);
                state.forgotten.push(id);
            }
        }
        news
    }
}

fn told(id: MachineId, observed: &Observed) -> FromHost {
    FromHost::Observed {
        id,
        observed: Box::new(observed.clone()),
    }
}

// === impl State ===

impl State {
    fn put(&mut self, env: &Env, should: HostMachine) -> Vec<FromHost> {
        let id = should.spec.id.clone();
        let machine = self.machines.entry(id.clone()).or_insert_with(|| Machine {
            observed: Observed {
                boot: 1,
                sequence: 0,
                state: MachineState::Created,
                generation: 0,
                instance_id: should.spec.instance_id.clone(),
                starts: 0,
                last_op: None,
                exit: None,
                restart_count: 0,
                reason: None,
                checks: Vec::new(),
                events: Vec::new(),
                updated_at: env.now(),
            },
            should: should.clone(),
        });
        if should.revision >= machine.should.revision {
            machine.should = should;
        }
        let mut news = Vec::new();
        if self.frozen {
            return news;
        }
        for op in machine.should.ops.clone() {
            let last = machine.observed.last_op.as_ref();
            if last.is_some_and(|last| last.id >= op.id) {
                continue;
            }
            machine.perform(env, &op);
            machine.observed.last_op = Some(OpOutcome {
                id: op.id.clone(),
                error: None,
            });
            machine.observed.sequence += 1;
            machine.observed.updated_at = env.now();
            self.done.push((id.clone(), op));
            news.push(told(id.clone(), &machine.observed));
        }
        news
    }
}

// === impl Machine ===

impl Machine {
    fn perform(&mut self, env: &Env, op: &Op) {
        match &op.kind {
            OpKind::Create { skip_launch } => {
                self.adopt();
                self.event(env, "launch", "created");
                if *skip_launch {
                    self.observed.state = MachineState::Stopped;
                } else {
                    self.start(env, "start");
                }
            }
            OpKind::Update { skip_launch, .. } => {
                let ran = self.observed.state == MachineState::Started;
                self.event(env, "update", "replacing");
                if ran {
                    self.exit(env, 0, true);
                }
                self.adopt();
                self.observed.state = MachineState::Stopped;
                if (ran || self.observed.starts == 0) && !skip_launch {
                    self.start(env, "update");
                } else {
                    self.event(env, "update", "stopped");
                }
            }
            OpKind::Start if self.observed.state == MachineState::Suspended => {
                self.observed.state = MachineState::Started;
                self.event(env, "start", "started");
            }
            OpKind::Start => self.start(env, "start"),
            OpKind::Suspend => {
                self.observed.state = MachineState::Suspended;
                self.event(env, "suspend", "suspended");
            }
            OpKind::Stop { .. } => {
                self.event(env, "stop", "stopping");
                self.exit(env, 0, true);
            }
            OpKind::Restart { .. } => {
                self.event(env, "restart", "stopping");
                self.exit(env, 0, true);
                self.start(env, "start");
            }
            OpKind::Signal { .. } => {}
            OpKind::Destroy => {
                self.event(env, "destroy", "destroyed");
                self.observed.state = MachineState::Destroyed;
            }
        }
    }

    fn adopt(&mut self) {
        self.observed.generation = self.should.spec.generation;
        self.observed.instance_id = self.should.spec.instance_id.clone();
        self.observed.checks.clear();
        self.observed.exit = None;
        self.observed.restart_count = 0;
    }

    fn start(&mut self, env: &Env, kind: &str) {
        self.observed.starts += 1;
        self.observed.state = MachineState::Started;
        self.event(env, kind, "started");
        let config = &self.should.spec.config;
        match config.env.get("BEHAVIOUR").map(String::as_str) {
            Some("crash") => self.exit(env, 1, false),
            Some("job") => self.exit(env, 0, false),
            Some("sick") => self.check(env, Health::Critical),
            _ => self.check(env, Health::Passing),
        }
    }

    fn check(&mut self, env: &Env, status: Health) {
        let checks = self.should.spec.config.service_checks();
        let results = checks.into_iter().map(|(name, ..)| CheckStatus {
            name,
            status,
            output: "answered".to_owned(),
            updated_at: env.now(),
        });
        self.observed.checks = results.collect();
    }

    fn exit(&mut self, env: &Env, code: i32, asked: bool) {
        let exit = ExitEvent {
            exit_code: code,
            guest_exit_code: code,
            guest_signal: -1,
            signal: -1,
            oom_killed: false,
            requested_stop: asked,
            restarting: false,
            exited_at: env.now(),
        };
        self.observed.exit = Some(exit);
        self.observed.state = MachineState::Stopped;
        self.event(env, "exit", "stopped");
        self.observed.events[0].request = Some(EventRequest {
            exit_event: Some(exit),
            restart_count: 0,
        });
    }

    fn event(&mut self, env: &Env, kind: &str, status: &str) {
        let event = MachineEvent {
            id: EventId::generate(env),
            kind: kind.to_owned(),
            status: status.to_owned(),
            source: "flyd".to_owned(),
            timestamp: env.now().as_millisecond(),
            request: None,
        };
        self.observed.events.insert(0, event);
        self.observed
            .events
            .truncate(hangar_api::machine::MAX_EVENTS);
    }
}

impl HostCalls for Host {
    fn exec(
        &self,
        _: MachineId,
        request: ExecRequest,
    ) -> BoxFuture<'_, Result<ExecResponse, Failure>> {
        let stdout = request.cmd.unwrap_or_else(|| request.command.join(" "));
        let answer = ExecResponse {
            exit_code: 3,
            stdout,
            ..ExecResponse::default()
        };
        Box::pin(std::future::ready(Ok(answer)))
    }

    fn session(
        &self,
        _: MachineId,
        request: SessionRequest,
        input: BoxStream<SessionInput>,
    ) -> BoxFuture<'_, Result<BoxStream<SessionOutput>, Failure>> {
        // It says its command, gives back what it is given, and ends with 3.
        let words = request.command.join(" ").into_bytes();
        let said = input
            .take_while(|piece| std::future::ready(*piece != SessionInput::End))
            .map(|piece| match piece {
                SessionInput::Stdin(bytes) => SessionOutput::Stdout(bytes),
                other => SessionOutput::Stderr(format!("{other:?}").into_bytes()),
            });
        let first = futures_util::stream::iter([SessionOutput::Stdout(words)]);
        let last = futures_util::stream::iter([SessionOutput::Exit { code: 3 }]);
        let all: BoxStream<SessionOutput> = Box::pin(first.chain(said).chain(last));
        Box::pin(std::future::ready(Ok(all)))
    }

    fn dial(
        &self,
        _: MachineId,
        _: SocketAddrV6,
    ) -> BoxFuture<'_, Result<Box<dyn Connection>, Failure>> {
        // Whoever is dialled gives back what it is given.
        let (near, far) = tokio::io::duplex(1024);
        tokio::spawn(async move {
            let (mut from, mut to) = tokio::io::split(far);
            tokio::io::copy(&mut from, &mut to).await?;
            tokio::io::AsyncWriteExt::shutdown(&mut to).await
        });
        Box::pin(std::future::ready(
            Ok(Box::new(near) as Box<dyn Connection>),
        ))
    }

    fn logs(&self, query: LogQuery) -> BoxFuture<'_, Result<BoxStream<LogLine>, Failure>> {
        let state = self.0.lock().unwrap();
        let wanted = state.machines.values().filter(|machine| {
            machine.should.spec.app == query.app
                && query
                    .machine
                    .as_ref()
                    .is_none_or(|id| *id == machine.should.spec.id)
        });
        let lines: Vec<LogLine> = wanted
            .map(|machine| LogLine {
                timestamp: machine.observed.updated_at,
                provider: Provider::App,
                level: "info".to_owned(),
                instance: machine.should.spec.id.clone(),
                group: machine.should.spec.config.group_or_app(),
                region: machine.should.spec.region.clone(),
                message: "the last words".to_owned(),
            })
            .collect();
        let stream: BoxStream<LogLine> = if query.follow {
            Box::pin(futures_util::stream::iter(lines).chain(futures_util::stream::pending()))
        } else {
            Box::pin(futures_util::stream::iter(lines))
        };
        Box::pin(std::future::ready(Ok(stream)))
    }

    fn listeners(&self, machine: MachineId) -> BoxFuture<'_, Result<Vec<SocketAddr>, Failure>> {
        let state = self.0.lock().unwrap();
        let env = &state.machines[&machine].should.spec.config.env;
        let sockets = env.get("LISTEN").map_or("0.0.0.0:8080", String::as_str);
        let sockets = sockets.split(',').filter_map(|text| text.parse().ok());
        Box::pin(std::future::ready(Ok(sockets.collect())))
    }

    fn processes(&self, _: MachineId) -> BoxFuture<'_, Result<Vec<Process>, Failure>> {
        let of = |pid, rss, command: &str| Process {
            pid,
            rss,
            command: command.to_owned(),
            ..Process::default()
        };
        let listed = vec![of(7, 10, "b"), of(1, 30, "c"), of(9, 20, "a")];
        Box::pin(std::future::ready(Ok(listed)))
    }
}

/// Images by name: any is there but those called `missing`. What was pushed is a real store's.
#[derive(Debug)]
pub(crate) struct Images(pub(crate) Arc<ImageStore>);

fn image(name: &str) -> ImageRef {
    ImageRef {
        registry: "registry-1.docker.io".to_owned(),
        repository: name.to_owned(),
        tag: "latest".to_owned(),
        digest: format!("sha256:{name:0<64}"),
        labels: BTreeMap::new(),
    }
}

impl ImageCalls for Images {
    fn import(&self, archive: PathBuf, name: String) -> BoxFuture<'_, Result<ImageRef, Failure>> {
        let length = std::fs::metadata(archive).map(|meta| meta.len());
        Box::pin(std::future::ready(match length {
            Ok(length) => Ok(ImageRef {
                tag: length.to_string(),
                ..image(&name)
            }),
            Err(error) => Err(Failure::new(ErrorKind::Internal, error.to_string())),
        }))
    }

    fn resolve(&self, name: String) -> BoxFuture<'_, Result<ImageRef, Failure>> {
        Box::pin(std::future::ready(if name.starts_with("missing") {
            let text = format!("image {name} was not found; import it, or check its name");
            Err(Failure::new(ErrorKind::NotFound, text))
        } else {
            Ok(image(&name))
        }))
    }

    fn resolve_for(
        &self,
        name: String,
        may_use: MayUse,
    ) -> BoxFuture<'_, Result<ImageRef, Failure>> {
        if self.0.pushed_to(&name).is_empty() {
            return self.resolve(name);
        }
        Box::pin(async move { Ok(self.0.resolve_for(&name, may_use).await?) })
    }

    fn pushed_to(&self, name: &str) -> Vec<AppName> {
        self.0.pushed_to(name)
    }

    fn is_imported(&self, name: &str) -> bool {
        self.0.pushed_to(name).is_empty()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<ImageInfo>, Failure>> {
        let of = |name: &str| ImageInfo {
            name: name.to_owned(),
            digest: image(name).digest,
            size: 1,
            created_at: hangar_api::Timestamp::UNIX_EPOCH,
            in_use: false,
        };
        Box::pin(std::future::ready(Ok(vec![of("used"), of("unused")])))
    }

    fn prune(&self, keep: Vec<String>) -> BoxFuture<'_, Result<Pruned, Failure>> {
        Box::pin(std::future::ready(Ok(Pruned {
            images: keep,
            bytes: 0,
        })))
    }
}
