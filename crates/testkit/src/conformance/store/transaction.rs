//! Transactions: revisions, checks, and all or nothing.

use super::{
    Arc, Backend, Check, RawTxn, StoreError, Write, checked, commit, delete, get, list, put, text,
    writes,
};

pub(super) async fn an_empty_store_is_at_revision_0(backend: Arc<dyn Backend>) {
    let page = backend.list("".into(), None, 10).await.expect("a list");
    assert_eq!((page.revision, page.entries.len()), (0, 0));
    assert!(page.next.is_none());
    assert!(get(&backend, "a").await.is_none());
}

pub(super) async fn each_change_makes_the_next_revision(backend: Arc<dyn Backend>) {
    assert_eq!(commit(&backend, writes([put("a", "1")])).await, 1);
    assert_eq!(
        commit(&backend, writes([put("b", "1"), put("c", "1")])).await,
        2
    );
    assert_eq!(commit(&backend, writes([put("a", "2")])).await, 3);
    let a = get(&backend, "a").await.expect("it was put");
    assert_eq!((a.create_revision, a.mod_revision), (1, 3));
    assert_eq!(&*a.value, b"2");
    let c = get(&backend, "c").await.expect("it was put");
    assert_eq!((c.create_revision, c.mod_revision), (2, 2));
    let page = backend.list("".into(), None, 10).await.expect("a list");
    assert_eq!(page.revision, 3);
}

pub(super) async fn a_deleted_key_is_created_anew(backend: Arc<dyn Backend>) {
    commit(&backend, writes([put("a", "1")])).await;
    assert_eq!(commit(&backend, writes([delete("a")])).await, 2);
    assert!(get(&backend, "a").await.is_none());
    assert_eq!(commit(&backend, writes([put("a", "2")])).await, 3);
    let a = get(&backend, "a").await.expect("it was put again");
    assert_eq!((a.create_revision, a.mod_revision), (3, 3));
}

pub(super) async fn what_changes_nothing_makes_no_revision(backend: Arc<dyn Backend>) {
    assert_eq!(commit(&backend, writes([delete("a")])).await, 0);
    assert_eq!(commit(&backend, RawTxn::default()).await, 0);
    commit(&backend, writes([put("a", "1")])).await;
    assert_eq!(commit(&backend, writes([delete("b")])).await, 1);
    // The same value again is a change.
    assert_eq!(commit(&backend, writes([put("a", "1")])).await, 2);
}

pub(super) async fn writes_happen_if_every_check_holds(backend: Arc<dyn Backend>) {
    commit(&backend, writes([put("a", "1")])).await;
    commit(&backend, writes([put("b", "1"), put("gone", "1")])).await;
    commit(&backend, writes([delete("gone")])).await;
    let cases = [
        (Check::Revision("a".into(), 1), true),
        (Check::Revision("a".into(), 2), false),
        (Check::Revision("a".into(), 0), false),
        (Check::Revision("b".into(), 2), true),
        (Check::Revision("gone".into(), 2), false),
        (Check::Revision("gone".into(), 0), false),
        (Check::Absent("gone".into()), true),
        (Check::Absent("a".into()), false),
        (Check::Present("a".into()), true),
        (Check::Present("gone".into()), false),
    ];
    for (number, (check, holds)) in cases.into_iter().enumerate() {
        let value = number.to_string();
        let key = check.key().to_string();
        let result = backend
            .txn(checked(check.clone(), put("out", &value)))
            .await;
        let written = text(&backend, "out").await == Some(value);
        assert_eq!((result.is_ok(), written), (holds, holds), "{check:?}");
        if let Err(error) = result {
            assert!(
                error.is_conflict() && error.to_string().contains(&key),
                "{error}"
            );
        }
    }
}

pub(super) async fn writes_happen_all_or_not_at_all(backend: Arc<dyn Backend>) {
    commit(&backend, writes([put("a", "1"), put("b", "1")])).await;
    let txn = RawTxn {
        checks: vec![
            Check::Present("a".into()),
            Check::Absent("c".into()),
            Check::Revision("b".into(), 9),
        ],
        writes: vec![put("a", "2"), put("c", "2"), delete("b")],
    };
    let error = backend.txn(txn).await.expect_err("one check does not hold");
    assert!(matches!(error, StoreError::Conflict { key } if key == "b"));
    let page = backend.list("".into(), None, 10).await.expect("a list");
    assert_eq!(page.revision, 1);
    let keys: Vec<&str> = page.entries.iter().map(|entry| &*entry.key).collect();
    assert_eq!(keys, ["a", "b"]);
    assert!(page.entries.iter().all(|entry| &*entry.value == b"1"));
}

pub(super) async fn checks_see_the_state_before_the_writes(backend: Arc<dyn Backend>) {
    let create = |value| RawTxn {
        checks: vec![Check::Absent("a".into()), Check::Absent("b".into())],
        writes: vec![put("a", value), put("b", value)],
    };
    assert_eq!(commit(&backend, create("1")).await, 1);
    assert!(
        backend
            .txn(create("2"))
            .await
            .expect_err("both exist")
            .is_conflict()
    );
    let swap = RawTxn {
        checks: vec![Check::Revision("a".into(), 1)],
        writes: vec![delete("a"), put("b", "3")],
    };
    assert_eq!(commit(&backend, swap.clone()).await, 2);
    assert!(
        backend
            .txn(swap)
            .await
            .expect_err("a is gone")
            .is_conflict()
    );
}

pub(super) async fn any_bytes_are_a_value(backend: Arc<dyn Backend>) {
    let values: [&[u8]; 4] = [b"", b"\0\xff\xfe", &[0; 70_000], "\u{fffd}".as_bytes()];
    for value in values {
        commit(&backend, writes([Write::Put("a".into(), value.into())])).await;
        let entry = get(&backend, "a").await.expect("it was put");
        assert_eq!(&*entry.value, value);
        assert_eq!(&*list(&backend, "a", 1).await[0].value, value);
    }
}
