//! A host on fakes with a small server beside it: what the tests of this crate drive.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hangar_api::catalog::Liveness;
use hangar_api::env::Env;
use hangar_api::id::{HostId, InstanceId, MachineId, OpId};
use hangar_api::link::{FromHost, HostMachine, ToHost};
use hangar_api::machine::state::is_done;
use hangar_api::machine::{MachineSpec, MachineState, Observed, Op, OpKind};
use hangar_api::seam::NoDrain;
use hangar_api::secret::SecretValues;
use hangar_host::agent::{HostAgent, HostConfig, HostHandle, HostLink, HostParts, NoNet};
use hangar_host::ledger::MemoryFiles;
use hangar_host::machine::images::PreparedImage;
use hangar_host::machine::images::fake::FakeImages;
use hangar_host::runtime::fake::FakeRuntime;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// How long (of the paused clock) a test waits for something.
const PATIENCE: Duration = Duration::from_secs(900);

pub(crate) struct Rig {
    pub(crate) env: Env,
    pub(crate) files: MemoryFiles,
    pub(crate) runtime: FakeRuntime,
    pub(crate) images: FakeImages,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) machines: BTreeMap<MachineId, ServerMachine>,
    pub(crate) host: Option<HostHandle>,
    to_host: Option<mpsc::Sender<ToHost>>,
    from_host: Option<mpsc::Receiver<FromHost>>,
    revision: u64,
    next_op: u64,
}

pub(crate) struct ServerMachine {
    pub(crate) spec: MachineSpec,
    pub(crate) ops: Vec<Op>,
    pub(crate) secrets: SecretValues,
    pub(crate) observed: Option<Observed>,
    pub(crate) leased_until: Option<hangar_api::Timestamp>,
    /// Every (boot, sequence) seen.
    pub(crate) last_seen: (u64, u64),
}

impl Rig {
    pub(crate) async fn new(seed: u64) -> Self {
        let env = Env::simulated(seed);
        let images = FakeImages::default();
        images.put("app", Duration::ZERO, PreparedImage::default());
        let mut rig = Self {
            runtime: FakeRuntime::new(env.clone()),
            files: MemoryFiles::default(),
            images,
            dir: tempfile::tempdir().unwrap(),
            machines: BTreeMap::new(),
            host: None,
            to_host: None,
            from_host: None,
            revision: 0,
            next_op: 0,
            env,
        };
        rig.boot().await;
        rig
    }

    /// Starts the host (again) and gives it all Machines.
    pub(crate) async fn boot(&mut self) {
        self.boot_alone().await;
        self.sync().await;
    }

    /// Starts the host (again) with a server that says nothing.
    pub(crate) async fn boot_alone(&mut self) {
        let (to_host, incoming) = mpsc::channel(64);
        let (outgoing, from_host) = mpsc::channel(64);
        let parts = HostParts {
            runtime: Arc::new(self.runtime.clone()),
            images: Arc::new(self.images.clone()),
            net: Arc::new(NoNet),
            drain: Arc::new(NoDrain),
            prober: Arc::new(self.runtime.prober()),
            files: Arc::new(self.files.clone()),
            env: self.env.clone(),
        };
        let config = HostConfig {
            host: HostId::new("here").unwrap(),
            slots: Vec::new(),
            data_dir: self.dir.path().to_owned(),
        };
        let link = HostLink { incoming, outgoing };
        let host = HostAgent::start(config, parts, link).await.unwrap();
        self.host = Some(host);
        (self.to_host, self.from_host) = (Some(to_host), Some(from_host));
    }

    pub(crate) async fn sync(&mut self) {
        self.revision += 1;
        let machines = self.machines.keys().map(|id| self.message(id)).collect();
        let revision = self.revision;
        self.send(ToHost::Sync { machines, revision }).await;
    }

    /// Ends the host's tasks where they are.
    pub(crate) async fn crash(&mut self) {
        if let Some(host) = self.host.take() {
            host.crash();
        }
        (self.to_host, self.from_host) = (None, None);
        // Aborted tasks are dropped when they are scheduled next.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    pub(crate) async fn crash_and_boot(&mut self) {
        self.crash().await;
        self.boot().await;
    }

    async fn send(&self, message: ToHost) {
        if let Some(to_host) = &self.to_host {
            to_host.send(message).await.unwrap();
        }
    }

    fn message(&self, id: &MachineId) -> HostMachine {
        let machine = &self.machines[id];
        HostMachine {
            spec: machine.spec.clone(),
            ops: machine.ops.clone(),
            secrets: machine.secrets.clone(),
            revision: self.revision,
            leased_until: machine.leased_until,
        }
    }

    /// Sends a Machine as the server knows it.
    pub(crate) async fn put(&mut self, id: &MachineId) {
        self.revision += 1;
        let message = self.message(id);
        self.send(ToHost::Put(Box::new(message))).await;
    }

    /// Makes a Machine that runs this command, without an op.
    pub(crate) fn add(
        &mut self,
        number: u64,
        argv: &[&str],
        change: impl FnOnce(&mut MachineSpec),
    ) -> MachineId {
        let id = MachineId::new(format!("{number:014x}")).unwrap();
        let value = serde_json::json!({
            "id": id, "name": "m", "app": "app1", "network": 1, "slot": "here-iad", "host": "here",
            "host_part": 1, "region": "iad", "generation": 1, "instance_id": instance(1),
            "config": {
                "image": "app", "init": {"exec": argv}, "metadata": {"fly_process_group": "web"},
                // Each Machine has a volume of its own: no two runs may have it.
                "mounts": [{"volume": format!("vol_00{id}"), "path": "/data"}],
            },
            "image_ref": {"repository": "app", "digest": "sha256:1"},
            "created_at": "2024-01-01T00:00:00Z", "updated_at": "2024-01-01T00:00:00Z",
        });
        let mut spec: MachineSpec = serde_json::from_value(value).unwrap();
        change(&mut spec);
        let machine = ServerMachine {
            spec,
            ops: Vec::new(),
            secrets: SecretValues::default(),
            observed: None,
            leased_until: None,
            last_seen: (0, 0),
        };
        self.machines.insert(id.clone(), machine);
        id
    }

    /// Makes a Machine and asks for it to be created.
    pub(crate) async fn create(
        &mut self,
        argv: &[&str],
        change: impl FnOnce(&mut MachineSpec),
    ) -> MachineId {
        let number = u64::try_from(self.machines.len()).unwrap() + 1;
        let id = self.add(number, argv, change);
        self.ask(&id, OpKind::Create { skip_launch: false }).await;
        id
    }

    /// Writes an op in the queue, without telling the host.
    pub(crate) fn enqueue(&mut self, id: &MachineId, kind: OpKind) -> OpId {
        self.next_op += 1;
        let op_id = OpId::new(format!("01{:024}", self.next_op)).unwrap();
        let op = Op {
            id: op_id.clone(),
            kind,
            by: "user".to_owned(),
        };
        self.machines.get_mut(id).unwrap().ops.push(op);
        op_id
    }

    pub(crate) async fn ask(&mut self, id: &MachineId, kind: OpKind) -> OpId {
        let op = self.enqueue(id, kind);
        self.put(id).await;
        op
    }

    /// Takes a new generation with this command and asks for the update.
    pub(crate) async fn update(
        &mut self,
        id: &MachineId,
        argv: &[&str],
        change: impl FnOnce(&mut MachineSpec),
    ) -> OpId {
        let kind = self.new_generation(id, argv, change);
        self.ask(id, kind).await
    }

    pub(crate) fn new_generation(
        &mut self,
        id: &MachineId,
        argv: &[&str],
        change: impl FnOnce(&mut MachineSpec),
    ) -> OpKind {
        let spec = &mut self.machines.get_mut(id).unwrap().spec;
        spec.generation += 1;
        spec.instance_id = instance(spec.generation);
        spec.config.init.exec = Some(argv.iter().map(|word| (*word).to_owned()).collect());
        change(spec);
        let generation = spec.generation;
        OpKind::Update {
            generation,
            skip_launch: false,
        }
    }

    /// Takes one message of the host; false when none came in this time.
    pub(crate) async fn take(&mut self, within: Duration) -> bool {
        let Some(from_host) = &mut self.from_host else {
            return false;
        };
        let Ok(Some(message)) = timeout(within, from_host.recv()).await else {
            return false;
        };
        let FromHost::Observed { id, observed } = message else {
            return true;
        };
        let Some(machine) = self.machines.get_mut(&id) else {
            return true;
        };
        let seen = (observed.boot, observed.sequence);
        assert!(
            seen > machine.last_seen,
            "{seen:?} after {:?}",
            machine.last_seen
        );
        machine.last_seen = seen;
        machine.ops.retain(|op| !is_done(op, Some(&observed)));
        machine.observed = Some(*observed);
        true
    }

    /// Takes messages until a Machine is as wanted, and returns what is observed then.
    pub(crate) async fn until(
        &mut self,
        id: &MachineId,
        wanted: impl Fn(&Observed) -> bool,
    ) -> Observed {
        loop {
            if let Some(observed) = self.machines[id].observed.clone().filter(&wanted) {
                return observed;
            }
            assert!(
                self.take(PATIENCE).await,
                "waited in vain: {:?}",
                self.machines[id].observed
            );
        }
    }

    pub(crate) async fn until_state(&mut self, id: &MachineId, state: MachineState) -> Observed {
        self.until(id, |observed| observed.state == state).await
    }

    /// Waits until an op is acknowledged and returns what is observed then.
    pub(crate) async fn until_done(&mut self, id: &MachineId, op: &OpId) -> Observed {
        let op = op.clone();
        self.until(id, |o| o.last_op.as_ref().is_some_and(|last| last.id >= op))
            .await
    }

    /// Takes messages until nothing has come for this long.
    pub(crate) async fn settle(&mut self, quiet: Duration) {
        while self.take(quiet).await {}
    }

    pub(crate) fn liveness(&self, id: &MachineId) -> Liveness {
        let feed = self.host.as_ref().unwrap().liveness();
        let map = feed.borrow();
        map.get(id).map(|live| (**live).clone()).unwrap_or_default()
    }

    pub(crate) fn host(&self) -> &HostHandle {
        self.host.as_ref().unwrap()
    }

    /// Returns the Machine's log lines of the host, in order.
    pub(crate) async fn log(&self) -> Vec<String> {
        use futures_util::StreamExt as _;
        use hangar_api::seam::HostCalls as _;
        let query = serde_json::json!({"app": "app1", "tail": 1000});
        let query = serde_json::from_value(query).unwrap();
        let lines = self.host().logs(query).await.unwrap();
        lines.map(|line| line.message).collect().await
    }

    /// Returns how often a start of this Machine was made.
    pub(crate) fn starts_made(&self, id: &MachineId) -> usize {
        let journal = self.runtime.journal();
        journal.iter().filter(|key| key.machine == *id).count()
    }
}

pub(crate) fn instance(generation: u64) -> InstanceId {
    InstanceId::new(format!("01H{generation:023}")).unwrap()
}

/// Returns the events oldest first, as "type/status/source".
pub(crate) fn events(observed: &Observed) -> Vec<String> {
    let events = observed.events.iter().rev();
    events
        .map(|event| format!("{}/{}/{}", event.kind, event.status, event.source))
        .collect()
}
