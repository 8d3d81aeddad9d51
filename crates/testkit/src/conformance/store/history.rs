//! Random histories against a model: every answer, and what a watch makes of it.

use std::collections::BTreeMap;

use hangar_store::Revision;
use hangar_store::backend::{Check, RawTxn, Write};
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use super::{Arc, Backend, Fixture, PATIENCE, StoreError, list, watch};

/// Value, created at, put at.
type Model = BTreeMap<String, (Vec<u8>, Revision, Revision)>;

/// A step before the model has given it revisions.
#[derive(Clone, Debug)]
enum Step {
    Txn {
        checks: Vec<(u8, CheckKind)>,
        writes: Vec<(u8, Option<u16>)>,
    },
    /// Lets the watch of the case read what there is.
    Read,
}

#[derive(Clone, Copy, Debug)]
enum CheckKind {
    /// The revision that the model knows, so that it holds if the key exists.
    Right,
    Stale,
    Absent,
    Present,
}

/// Runs so many random histories, each on a new backend. "Outcome unknown" is taken as either.
pub fn histories(cases: u32, make: impl Fn() -> Fixture) {
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be made");
    let steps = proptest::collection::vec(step(), 1..40);
    let result = runner.run(&steps, |steps| {
        runtime
            .block_on(async {
                let Fixture { backend, keep } = make();
                let outcome = tokio::time::timeout(PATIENCE, follow(&backend, steps)).await;
                drop(backend);
                drop(keep);
                outcome.unwrap_or_else(|_| Err("it did not end".to_owned()))
            })
            .map_err(TestCaseError::fail)
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![
        3 => Just(CheckKind::Right),
        1 => Just(CheckKind::Stale),
        1 => Just(CheckKind::Absent),
        1 => Just(CheckKind::Present),
    ];
    let checks = proptest::collection::vec((0..6_u8, kind), 0..3);
    let writes = proptest::collection::btree_map(0..6_u8, proptest::option::of(any::<u16>()), 0..4);
    let txn = (checks, writes).prop_map(|(checks, writes)| Step::Txn {
        checks,
        writes: writes.into_iter().collect(),
    });
    prop_oneof![5 => txn, 1 => Just(Step::Read)]
}

fn key(number: u8) -> String {
    format!("k/{number}")
}

/// What a model does with a transaction: the state and revision after it, or the refusal.
fn predict(model: &Model, revision: Revision, txn: &RawTxn) -> Option<(Model, Revision)> {
    let found = |key: &str| model.get(key).map(|held| held.2);
    if !txn
        .checks
        .iter()
        .all(|check| check.holds(found(check.key())))
    {
        return None;
    }
    let (mut after, mut changed) = (model.clone(), false);
    for write in &txn.writes {
        match write {
            Write::Put(key, value) => {
                let created = model.get(&**key).map_or(revision + 1, |held| held.1);
                after.insert(key.to_string(), (value.to_vec(), created, revision + 1));
                changed = true;
            }
            Write::Delete(key) => changed |= after.remove(&**key).is_some(),
        }
    }
    Some((after, revision + u64::from(changed)))
}

fn make_txn(model: &Model, checks: &[(u8, CheckKind)], writes: &[(u8, Option<u16>)]) -> RawTxn {
    let checks = checks.iter().map(|(number, kind)| {
        let name: Arc<str> = key(*number).into();
        let right = model.get(&*name).map_or(0, |held| held.2);
        match kind {
            CheckKind::Right => Check::Revision(name, right),
            CheckKind::Stale => Check::Revision(name, right.saturating_sub(1)),
            CheckKind::Absent => Check::Absent(name),
            CheckKind::Present => Check::Present(name),
        }
    });
    let writes = writes.iter().map(|(number, value)| match value {
        Some(value) => Write::Put(key(*number).into(), value.to_string().as_bytes().into()),
        None => Write::Delete(key(*number).into()),
    });
    RawTxn {
        checks: checks.collect(),
        writes: writes.collect(),
    }
}

async fn follow(backend: &Arc<dyn Backend>, steps: Vec<Step>) -> Result<(), String> {
    let (mut model, mut revision) = (Model::new(), 0);
    // What the store held at each revision, for the watch.
    let mut moments = BTreeMap::from([(0, model.clone())]);
    let mut follower = Follower::new(backend).await;
    for step in steps {
        let Step::Txn { checks, writes } = step else {
            follower.read(revision, &moments).await?;
            continue;
        };
        let txn = make_txn(&model, &checks, &writes);
        let predicted = predict(&model, revision, &txn);
        let answer = backend.txn(txn.clone()).await;
        let known = !matches!(answer, Err(StoreError::Unknown { .. }));
        let taken = match (answer, predicted) {
            (Ok(at), Some((after, next))) if at == next => Some((after, next)),
            (Err(StoreError::Conflict { .. }), None) => None,
            // Either is right; what the store holds decides.
            (Err(StoreError::Unknown { .. }), predicted) => predicted,
            (answer, predicted) => {
                return Err(format!("{txn:?} gave {answer:?}, not {predicted:?}"));
            }
        };
        let before = (model, revision);
        let held = held(backend).await?;
        let right = match (known, &taken) {
            (true, Some(after)) => held == *after,
            (true, None) => held == before,
            (false, _) => held == before || Some(&held) == taken.as_ref(),
        };
        if !right {
            return Err(format!("after {txn:?} the store holds {held:?}"));
        }
        (model, revision) = held;
        moments.insert(revision, model.clone());
    }
    follower.read(revision, &moments).await
}

async fn held(backend: &Arc<dyn Backend>) -> Result<(Model, Revision), String> {
    let page = backend.list("".into(), None, 100).await;
    let page = page.map_err(|error| error.to_string())?;
    let model = page.entries.into_iter().map(|entry| {
        let held = (
            entry.value.to_vec(),
            entry.create_revision,
            entry.mod_revision,
        );
        (entry.key.to_string(), held)
    });
    Ok((model.collect(), page.revision))
}

/// A copy of the store, kept by a watch alone.
struct Follower {
    watch: super::Watch,
    copy: Model,
    at: Revision,
}

impl Follower {
    async fn new(backend: &Arc<dyn Backend>) -> Self {
        assert!(list(backend, "", 10).await.is_empty());
        Self {
            watch: watch(backend, "k/", 1).await,
            copy: Model::new(),
            at: 0,
        }
    }

    /// Reads up to a revision; after each batch, the copy is what the store held then.
    async fn read(
        &mut self,
        to: Revision,
        moments: &BTreeMap<Revision, Model>,
    ) -> Result<(), String> {
        while self.at < to {
            for batch in super::read_to(&mut self.watch, self.at + 1).await {
                for change in batch.changes {
                    let key = change.key.to_string();
                    match change.entry {
                        Some(e) => {
                            let held = (e.value.to_vec(), e.create_revision, e.mod_revision);
                            self.copy.insert(key, held)
                        }
                        None => self.copy.remove(&key),
                    };
                }
                self.at = batch.revision;
                if moments.get(&self.at) != Some(&self.copy) {
                    return Err(format!("at {} the watch made {:?}", self.at, self.copy));
                }
            }
        }
        Ok(())
    }
}
