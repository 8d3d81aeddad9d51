//! The conformance suite is worth something: backends with one fault each do not pass it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::StreamExt;
use hangar_api::seam::{BoxFuture, BoxStream};
use hangar_store::backend::{Backend, Batch, Entry, Page, RawTxn};
use hangar_store::{MemoryBackend, Revision, StoreError};
use hangar_testkit::conformance::store::{Fixture, histories, run};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    IgnoresChecks,
    SplitsTransactions,
    ForgetsDeletionsInWatches,
    WatchesBeginOneEarly,
    WatchesShowOtherPrefixes,
    PagesRepeatTheirFirstKey,
    LosesLongValues,
    AnswersTheNextRevision,
}

#[derive(Debug)]
struct Faulty {
    inner: MemoryBackend,
    fault: Fault,
}

impl Backend for Faulty {
    fn get(&self, key: Arc<str>) -> BoxFuture<'_, Result<Option<Entry>, StoreError>> {
        self.inner.get(key)
    }

    fn list(
        &self,
        prefix: Arc<str>,
        after: Option<Arc<str>>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page, StoreError>> {
        let repeats = self.fault == Fault::PagesRepeatTheirFirstKey;
        let after = after.map(|key| match key.char_indices().next_back() {
            Some((last, _)) if repeats => key[..last].into(),
            _ => key,
        });
        self.inner.list(prefix, after, limit)
    }

    fn txn(&self, mut txn: RawTxn) -> BoxFuture<'_, Result<Revision, StoreError>> {
        Box::pin(async move {
            match self.fault {
                Fault::IgnoresChecks => txn.checks.clear(),
                Fault::LosesLongValues if txn.bytes() > 900_000 => return Ok(1),
                Fault::AnswersTheNextRevision => return Ok(self.inner.txn(txn).await? + 1),
                Fault::SplitsTransactions if txn.validate().is_ok() && txn.writes.len() > 1 => {
                    let rest = txn.writes.split_off(1);
                    self.inner.txn(txn).await?;
                    txn = RawTxn {
                        checks: Vec::new(),
                        writes: rest,
                    };
                }
                _ => {}
            }
            self.inner.txn(txn).await
        })
    }

    fn watch(
        &self,
        prefix: Arc<str>,
        from: Revision,
    ) -> BoxFuture<'_, Result<BoxStream<Result<Batch, StoreError>>, StoreError>> {
        let fault = self.fault;
        Box::pin(async move {
            let early = fault == Fault::WatchesBeginOneEarly && from > 1;
            let from = from - u64::from(early);
            let prefix = match fault {
                Fault::WatchesShowOtherPrefixes => "".into(),
                _ => prefix,
            };
            let batches = self.inner.watch(prefix, from).await?;
            let changed = batches.filter_map(move |item| async move {
                let Ok(mut batch) = item else {
                    return Some(item);
                };
                if fault == Fault::ForgetsDeletionsInWatches {
                    batch.changes.retain(|change| change.entry.is_some());
                }
                Some(Ok(batch))
            });
            Ok(Box::pin(changed) as BoxStream<_>)
        })
    }
}

fn passes(fault: Fault) -> bool {
    let make = || {
        let inner = MemoryBackend::default();
        Fixture::new(Arc::new(Faulty { inner, fault }))
    };
    let suite = AssertUnwindSafe(|| run(make));
    let random = AssertUnwindSafe(|| histories(200, make));
    std::panic::catch_unwind(suite).is_ok() && std::panic::catch_unwind(random).is_ok()
}

#[test]
fn a_backend_with_a_fault_does_not_conform() {
    let faults = [
        Fault::IgnoresChecks,
        Fault::SplitsTransactions,
        Fault::ForgetsDeletionsInWatches,
        Fault::WatchesBeginOneEarly,
        Fault::WatchesShowOtherPrefixes,
        Fault::PagesRepeatTheirFirstKey,
        Fault::LosesLongValues,
        Fault::AnswersTheNextRevision,
    ];
    for fault in faults {
        assert!(!passes(fault), "{fault:?} went unseen");
    }
}
