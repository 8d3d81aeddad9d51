//! Watches: from the past, into the future, and when they cannot keep up.

use std::collections::BTreeMap;

use futures_util::StreamExt;
use hangar_store::backend::MAX_TXN_BYTES;

use super::{
    Arc, Backend, Batch, StoreError, commit, delete, list, put, read_to, shown, watch, writes,
};

pub(super) async fn a_watch_begins_in_the_past(backend: Arc<dyn Backend>) {
    commit(&backend, writes([put("a", "1")])).await;
    commit(&backend, writes([put("b", "1")])).await;
    commit(&backend, writes([delete("a")])).await;
    let batches = read_to(&mut watch(&backend, "", 3).await, 3).await;
    assert_eq!(shown(&batches), ["a"]);
    let batches = read_to(&mut watch(&backend, "", 2).await, 3).await;
    assert_eq!(shown(&batches), ["b=1", "a"]);
    // The put of `a` may be skipped, its deletion may not.
    let batches = read_to(&mut watch(&backend, "", 1).await, 3).await;
    assert_eq!(shown(&batches).last().map(String::as_str), Some("a"));
}

pub(super) async fn a_watch_tells_what_comes(backend: Arc<dyn Backend>) {
    let mut all = watch(&backend, "", 1).await;
    for number in 1..=20 {
        let value = number.to_string();
        let revision = commit(&backend, writes([put("a", &value), put("b", &value)])).await;
        let batches = read_to(&mut all, revision).await;
        // What one transaction wrote comes together.
        let last = shown(&batches[batches.len() - 1..]);
        assert_eq!(last, [format!("a={value}"), format!("b={value}")]);
    }
}

pub(super) async fn a_watch_of_the_future_waits_for_it(backend: Arc<dyn Backend>) {
    let mut later = watch(&backend, "", 3).await;
    commit(&backend, writes([put("a", "1")])).await;
    commit(&backend, writes([put("b", "1")])).await;
    commit(&backend, writes([put("c", "1")])).await;
    assert_eq!(shown(&read_to(&mut later, 3).await), ["c=1"]);
}

pub(super) async fn a_watch_sees_its_prefix_only_and_every_revision(backend: Arc<dyn Backend>) {
    let mut under = watch(&backend, "a/", 1).await;
    commit(
        &backend,
        writes([put("a", "1"), put("a0", "1"), put("b/1", "1")]),
    )
    .await;
    commit(&backend, writes([put("a/1", "1"), put("b/2", "1")])).await;
    let last = commit(&backend, writes([put("b/3", "1")])).await;
    // The last revision is told, though no key of the prefix changed.
    let batches = read_to(&mut under, last).await;
    assert_eq!(shown(&batches), ["a/1=1"]);
}

pub(super) async fn a_watch_can_be_resumed_where_it_ended(backend: Arc<dyn Backend>) {
    let mut replica = BTreeMap::new();
    let mut next = 1;
    for number in 0..50 {
        let key = format!("k/{}", number % 7);
        let txn = if number % 5 == 4 {
            writes([delete(&key)])
        } else {
            writes([put(&key, &number.to_string())])
        };
        let revision = commit(&backend, txn).await;
        if number % 3 == 0 && revision >= next {
            let batches = read_to(&mut watch(&backend, "k/", next).await, revision).await;
            next = batches.last().map_or(next, |batch| batch.revision + 1);
            apply(&mut replica, &batches);
        }
    }
    let last = commit(&backend, writes([put("end", "")])).await;
    apply(
        &mut replica,
        &read_to(&mut watch(&backend, "k/", next).await, last).await,
    );
    assert_eq!(replica, held(&backend).await);
}

pub(super) async fn a_list_and_a_watch_leave_no_gap(backend: Arc<dyn Backend>) {
    let writer = {
        let backend = Arc::clone(&backend);
        tokio::spawn(async move {
            for number in 0..300 {
                let key = format!("k/{:02}", number * 7 % 31);
                let txn = if number % 4 == 3 {
                    writes([delete(&key)])
                } else {
                    writes([put(&key, &number.to_string())])
                };
                commit(&backend, txn).await;
            }
            commit(&backend, writes([put("end", "")])).await
        })
    };
    // Small pages: they are of different revisions, and the watch mends that.
    let mut replica = BTreeMap::new();
    let (mut first, mut after) = (None, None);
    loop {
        let page = backend.list("k/".into(), after, 3).await.expect("a list");
        first = first.or(Some(page.revision));
        replica.extend(
            page.entries
                .iter()
                .map(|e| (e.key.to_string(), e.value.clone())),
        );
        after = page.next;
        if after.is_none() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let mut changes = watch(&backend, "k/", first.unwrap_or(0) + 1).await;
    let last = writer.await.expect("the writer ends");
    if last > first.unwrap_or(0) {
        apply(&mut replica, &read_to(&mut changes, last).await);
    }
    assert_eq!(replica, held(&backend).await);
}

pub(super) async fn a_watch_that_falls_behind_says_so_or_tells_all(backend: Arc<dyn Backend>) {
    let mut slow = watch(&backend, "", 1).await;
    let value = "x".repeat(MAX_TXN_BYTES - 100);
    let mut last = 0;
    for number in 0..24 {
        let key = format!("k/{number}");
        last = commit(&backend, writes([put(&key, &value)])).await;
    }
    let mut told = Vec::new();
    loop {
        match slow.next().await.expect("an end is said first") {
            Ok(batch) => told.push(batch),
            Err(StoreError::Compacted { oldest }) => {
                assert!(oldest > 1 && oldest <= last + 1, "{oldest}");
                assert!(slow.next().await.is_none(), "it ends after an error");
                let begun = backend.watch("".into(), oldest - 1).await;
                assert!(matches!(begun, Err(StoreError::Compacted { .. })));
                // Listing and watching again works.
                let mut again = watch(&backend, "", last + 1).await;
                assert_eq!(list(&backend, "k/", 100).await.len(), 24);
                let revision = commit(&backend, writes([put("a", "1")])).await;
                assert_eq!(shown(&read_to(&mut again, revision).await), ["a=1"]);
                return;
            }
            Err(error) => panic!("{error}"),
        }
        if told.last().is_some_and(|batch| batch.revision >= last) {
            assert_eq!(shown(&told).len(), 24);
            return;
        }
    }
}

/// Applies what a watch told.
fn apply(replica: &mut BTreeMap<String, Arc<[u8]>>, batches: &[Batch]) {
    for change in batches.iter().flat_map(|batch| &batch.changes) {
        match &change.entry {
            Some(entry) => replica.insert(change.key.to_string(), entry.value.clone()),
            None => replica.remove(&*change.key),
        };
    }
}

async fn held(backend: &Arc<dyn Backend>) -> BTreeMap<String, Arc<[u8]>> {
    let entries = list(backend, "k/", 100).await;
    let pairs = entries.into_iter().map(|e| (e.key.to_string(), e.value));
    pairs.collect()
}
