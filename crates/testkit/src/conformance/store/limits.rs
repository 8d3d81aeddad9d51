//! Lists and their pages, and what is too much.

use hangar_store::backend::{MAX_KEY_BYTES, MAX_PAGE_BYTES, MAX_TXN_BYTES, MAX_TXN_OPS};

use super::{Arc, Backend, Check, RawTxn, StoreError, Write, commit, get, list, put, writes};

pub(super) async fn lists_are_in_order_and_end_with_the_prefix(backend: Arc<dyn Backend>) {
    let keys = ["a/2", "a/10", "a/1", "a0", "a", "b/1", "a/~", "a/!"];
    commit(&backend, writes(keys.map(|key| put(key, key)))).await;
    let found = |entries: Vec<super::Entry>| -> Vec<String> {
        entries.iter().map(|entry| entry.key.to_string()).collect()
    };
    let under = found(list(&backend, "a/", 100).await);
    assert_eq!(under, ["a/!", "a/1", "a/10", "a/2", "a/~"]);
    assert_eq!(found(list(&backend, "a/1", 100).await), ["a/1", "a/10"]);
    assert_eq!(found(list(&backend, "", 100).await).len(), keys.len());
    assert!(list(&backend, "c", 100).await.is_empty());
}

pub(super) async fn pages_cover_everything_once(backend: Arc<dyn Backend>) {
    let keys: Vec<String> = (0..100).map(|n| format!("k/{n:03}")).collect();
    commit(&backend, writes(keys.iter().map(|key| put(key, key)))).await;
    commit(&backend, writes([put("j", ""), put("l", "")])).await;
    for limit in [1, 7, 50, 99, 100, 101, 1000] {
        let entries = list(&backend, "k/", limit).await;
        let found: Vec<&str> = entries.iter().map(|entry| &*entry.key).collect();
        assert_eq!(found, keys, "pages of {limit}");
    }
    let full = backend.list("k/".into(), None, 100).await.expect("a list");
    assert!(full.next.is_none(), "a last page that is full is the last");
}

pub(super) async fn a_page_is_bounded_in_bytes(backend: Arc<dyn Backend>) {
    let value = "x".repeat(MAX_PAGE_BYTES / 4);
    for number in 0..10 {
        commit(&backend, writes([put(&format!("k/{number}"), &value)])).await;
    }
    let page = backend.list("".into(), None, 1000).await.expect("a list");
    let bytes: usize = page.entries.iter().map(|entry| entry.value.len()).sum();
    assert!(bytes <= 2 * MAX_PAGE_BYTES, "{bytes} bytes in a page");
    assert!(page.next.is_some());
    assert_eq!(list(&backend, "", 1000).await.len(), 10);
}

pub(super) async fn a_transaction_at_its_limits_is_taken(backend: Arc<dyn Backend>) {
    let keys = (0..MAX_TXN_OPS).map(|n| format!("k/{n}"));
    let txn = RawTxn {
        checks: keys.clone().map(|key| Check::Absent(key.into())).collect(),
        writes: keys.map(|key| put(&key, "1")).collect(),
    };
    assert_eq!(commit(&backend, txn).await, 1);
    assert_eq!(list(&backend, "k/", 1000).await.len(), MAX_TXN_OPS);
    let value = "x".repeat(MAX_TXN_BYTES - 3);
    commit(&backend, writes([put("big", &value)])).await;
    let long = "k".repeat(MAX_KEY_BYTES);
    commit(&backend, writes([put(&long, "1")])).await;
    assert!(get(&backend, &long).await.is_some());
}

pub(super) async fn a_transaction_beyond_its_limits_is_refused(backend: Arc<dyn Backend>) {
    let keys = (0..=MAX_TXN_OPS).map(|n| format!("k/{n}"));
    let too_many_writes = writes(keys.clone().map(|key| put(&key, "1")));
    let too_many_checks = RawTxn {
        checks: keys.map(|key| Check::Absent(key.into())).collect(),
        writes: vec![put("a", "1")],
    };
    let too_big = writes([put("big", &"x".repeat(MAX_TXN_BYTES - 2))]);
    let half = "x".repeat(MAX_TXN_BYTES / 2);
    let too_big_together = writes([put("a", &half), put("b", &half)]);
    for txn in [too_many_writes, too_many_checks, too_big, too_big_together] {
        let error = backend.txn(txn).await.expect_err("it is too much");
        assert!(matches!(error, StoreError::Limit { .. }), "{error}");
    }
    assert!(list(&backend, "", 10).await.is_empty());
}

pub(super) async fn what_is_no_key_is_refused(backend: Arc<dyn Backend>) {
    let long = "k".repeat(MAX_KEY_BYTES + 1);
    for key in ["", " ", "a b", "a\0", "ä", "a\n", long.as_str()] {
        let refused = |error: StoreError| matches!(error, StoreError::InvalidKey { .. });
        let txn = writes([Write::Put(key.into(), [].into())]);
        assert!(
            refused(backend.txn(txn).await.expect_err("no key")),
            "{key:?}"
        );
        let got = backend.get(key.into()).await;
        assert!(refused(got.expect_err("no key")), "{key:?}");
        if !key.is_empty() {
            let listed = backend.list(key.into(), None, 1).await;
            assert!(refused(listed.expect_err("no prefix")), "{key:?}");
            let Err(error) = backend.watch(key.into(), 1).await else {
                panic!("{key:?} is no prefix");
            };
            assert!(refused(error), "{key:?}");
        }
    }
}

pub(super) async fn a_key_is_written_once_in_a_transaction(backend: Arc<dyn Backend>) {
    for second in [put("a", "2"), Write::Delete("a".into())] {
        let error = backend.txn(writes([put("a", "1"), second])).await;
        let error = error.expect_err("the key is written twice");
        assert!(matches!(error, StoreError::InvalidKey { .. }), "{error}");
    }
    assert!(get(&backend, "a").await.is_none());
}
