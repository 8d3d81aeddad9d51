//! What every backend of the store must do: [`run`] on a new one, then [`histories`].
//!
//! The cases ask for no more than etcd gives, and no less: what a backend gives beyond that (no
//! step of a watch ever skipped, say) is not to be relied on.

mod history;
mod limits;
mod race;
mod transaction;
mod watching;

use std::any::Any;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use hangar_api::seam::BoxStream;
use hangar_store::backend::{Backend, Batch, Check, Entry, RawTxn, Write};
use hangar_store::{Revision, StoreError};

pub use history::histories;

/// How long anything here may take: far more than it does.
const PATIENCE: Duration = Duration::from_secs(60);

/// A new, empty backend, with what must live as long as it (a directory, say).
pub struct Fixture {
    /// The backend.
    pub backend: Arc<dyn Backend>,
    /// Dropped after it.
    pub keep: Box<dyn Any>,
}

/// A watch that is being read.
type Watch = BoxStream<Result<Batch, StoreError>>;

// === impl Fixture ===

impl Fixture {
    /// Returns a fixture that needs nothing but the backend.
    pub fn new(backend: Arc<dyn Backend>) -> Self {
        let keep = Box::new(());
        Self { backend, keep }
    }
}

impl std::fmt::Debug for Fixture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.backend.fmt(f)
    }
}

/// Runs every case on a backend of its own; panics where a promise is broken. `make` is called
/// within a runtime.
pub fn run(make: impl Fn() -> Fixture) {
    block(&make, transaction::an_empty_store_is_at_revision_0);
    block(&make, transaction::each_change_makes_the_next_revision);
    block(&make, transaction::a_deleted_key_is_created_anew);
    block(&make, transaction::what_changes_nothing_makes_no_revision);
    block(&make, transaction::writes_happen_if_every_check_holds);
    block(&make, transaction::writes_happen_all_or_not_at_all);
    block(&make, transaction::checks_see_the_state_before_the_writes);
    block(&make, transaction::any_bytes_are_a_value);
    block(&make, limits::lists_are_in_order_and_end_with_the_prefix);
    block(&make, limits::pages_cover_everything_once);
    block(&make, limits::a_page_is_bounded_in_bytes);
    block(&make, limits::a_transaction_at_its_limits_is_taken);
    block(&make, limits::a_transaction_beyond_its_limits_is_refused);
    block(&make, limits::what_is_no_key_is_refused);
    block(&make, limits::a_key_is_written_once_in_a_transaction);
    block(&make, watching::a_watch_begins_in_the_past);
    block(&make, watching::a_watch_tells_what_comes);
    block(&make, watching::a_watch_of_the_future_waits_for_it);
    block(
        &make,
        watching::a_watch_sees_its_prefix_only_and_every_revision,
    );
    block(&make, watching::a_watch_can_be_resumed_where_it_ended);
    block(&make, watching::a_list_and_a_watch_leave_no_gap);
    block(
        &make,
        watching::a_watch_that_falls_behind_says_so_or_tells_all,
    );
    block(&make, race::one_of_many_creates_a_key);
    block(&make, race::no_increment_is_lost);
    block(&make, race::a_sum_is_kept_while_many_move_parts_of_it);
}

fn block<F, G>(make: &impl Fn() -> Fixture, case: F)
where
    F: FnOnce(Arc<dyn Backend>) -> G,
    G: Future<Output = ()>,
{
    let name = std::any::type_name::<F>();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime can be made");
    runtime.block_on(async {
        let Fixture { backend, keep } = make();
        if tokio::time::timeout(PATIENCE, case(backend)).await.is_err() {
            panic!("{name} did not end");
        }
        drop(keep);
    });
}

fn put(key: &str, value: &str) -> Write {
    Write::Put(key.into(), value.as_bytes().into())
}

fn delete(key: &str) -> Write {
    Write::Delete(key.into())
}

fn writes(writes: impl IntoIterator<Item = Write>) -> RawTxn {
    RawTxn {
        checks: Vec::new(),
        writes: writes.into_iter().collect(),
    }
}

fn checked(check: Check, write: Write) -> RawTxn {
    RawTxn {
        checks: vec![check],
        writes: vec![write],
    }
}

async fn commit(backend: &Arc<dyn Backend>, txn: RawTxn) -> Revision {
    backend.txn(txn).await.expect("nothing refuses it")
}

async fn get(backend: &Arc<dyn Backend>, key: &str) -> Option<Entry> {
    let entry = backend.get(key.into()).await;
    entry.expect("a get succeeds")
}

async fn text(backend: &Arc<dyn Backend>, key: &str) -> Option<String> {
    let entry = get(backend, key).await?;
    Some(String::from_utf8_lossy(&entry.value).into_owned())
}

async fn list(backend: &Arc<dyn Backend>, prefix: &str, limit: usize) -> Vec<Entry> {
    let mut all: Vec<Entry> = Vec::new();
    let mut after = None;
    loop {
        let page = backend.list(prefix.into(), after, limit).await;
        let page = page.expect("a list succeeds");
        assert!(page.entries.len() <= limit, "a page keeps its limit");
        after = page.next;
        for entry in page.entries {
            let before = all.last().is_none_or(|last| last.key < entry.key);
            assert!(before, "keys come in order, and once");
            all.push(entry);
        }
        if after.is_none() {
            return all;
        }
    }
}

async fn watch(backend: &Arc<dyn Backend>, prefix: &str, from: Revision) -> Watch {
    let stream = backend.watch(prefix.into(), from).await;
    stream.expect("changes since are kept")
}

/// Reads a watch up to a revision, and checks that its revisions grow.
async fn read_to(watch: &mut Watch, revision: Revision) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    while batches.last().is_none_or(|batch| batch.revision < revision) {
        let next = watch.next().await.expect("the watch goes on");
        let batch = next.expect("the watch does not fail");
        let before = batches.last().map_or(0, |batch| batch.revision);
        assert!(batch.revision > before, "the revisions of batches grow");
        batches.push(batch);
    }
    batches
}

/// Returns each change as `key=value` or `key` when it is deleted.
fn shown(batches: &[Batch]) -> Vec<String> {
    let changes = batches.iter().flat_map(|batch| &batch.changes);
    changes
        .map(|change| match &change.entry {
            Some(entry) => {
                assert_eq!(entry.key, change.key);
                format!("{}={}", change.key, String::from_utf8_lossy(&entry.value))
            }
            None => change.key.to_string(),
        })
        .collect()
}
