//! Tables, records and typed transactions.

use futures_util::StreamExt;
use hangar_api::id::{AppName, DeploymentId, GroupName, HostId, MachineId};
use hangar_store::backend::{RawTxn, Write};
use hangar_store::tables::{Claim, ClaimRecord, Claims, Counters, MachineHome, MachineHomes};
use hangar_store::{Store, StoreError, Table, TableKey, Txn, TypedChange};
use serde::{Deserialize, Serialize};

/// A table of today whose values had one field less in the form before.
#[derive(Clone, Copy, Debug)]
struct Grown;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Named {
    name: String,
    size: u32,
}

impl Table for Grown {
    type Key = String;
    type Value = Named;
    const PREFIX: &'static str = "grown/";
    const FORM: u32 = 3;

    fn upgrade(mut older: serde_json::Value) -> serde_json::Value {
        older["size"] = 1.into();
        older
    }
}

fn app(name: &str) -> AppName {
    AppName::new(name).unwrap()
}

fn home(name: &str) -> MachineHome {
    MachineHome {
        app: app(name),
        host: HostId::new("local").unwrap(),
    }
}

async fn raw(store: &Store, key: &str, value: &str) {
    let txn = RawTxn {
        checks: Vec::new(),
        writes: vec![Write::Put(key.into(), value.as_bytes().into())],
    };
    store.backend().txn(txn).await.unwrap();
}

#[tokio::test]
async fn a_value_carries_the_form_it_was_written_in() {
    let store = Store::memory();
    store
        .commit(Txn::new().put::<Counters>(&"c".to_owned(), &5))
        .await
        .unwrap();
    let entry = store
        .backend()
        .get("counters/c".into())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&*entry.value, br#"{"v":1,"d":5}"#);
}

#[tokio::test]
async fn the_form_before_is_read_and_others_are_refused_in_words() {
    let store = Store::memory();
    let key = "x".to_owned();
    raw(&store, "grown/x", r#"{"v":2,"d":{"name":"old"}}"#).await;
    let record = store.get::<Grown>(&key).await.unwrap().unwrap();
    assert_eq!((record.value.name.as_str(), record.value.size), ("old", 1));
    store
        .commit(Txn::new().update(&record, &record.value))
        .await
        .unwrap();
    let now = store.get::<Grown>(&key).await.unwrap().unwrap();
    assert_eq!(now.value, record.value);

    for form in [0, 1, 4, 9] {
        raw(&store, "grown/x", &format!(r#"{{"v":{form},"d":{{}}}}"#)).await;
        let error = store.get::<Grown>(&key).await.unwrap_err();
        assert!(matches!(error, StoreError::OtherForm { found, .. } if found == form));
        assert!(error.to_string().contains("reads forms 2 to 3"), "{error}");
    }
    raw(&store, "grown/x", "not json").await;
    let error = store.get::<Grown>(&key).await.unwrap_err();
    assert!(matches!(error, StoreError::Malformed { .. }), "{error}");
}

#[tokio::test]
async fn a_typed_transaction_is_refused_when_a_record_has_changed() {
    let store = Store::memory();
    let key = "c".to_owned();
    store
        .commit(Txn::new().create::<Counters>(&key, &1))
        .await
        .unwrap();
    let again = store.commit(Txn::new().create::<Counters>(&key, &1)).await;
    assert!(again.unwrap_err().is_conflict());
    let read = store.get::<Counters>(&key).await.unwrap().unwrap();
    store.commit(Txn::new().update(&read, &2)).await.unwrap();
    assert!(
        store
            .commit(Txn::new().update(&read, &3))
            .await
            .unwrap_err()
            .is_conflict()
    );
    assert!(
        store
            .commit(Txn::new().remove(&read))
            .await
            .unwrap_err()
            .is_conflict()
    );
    let read = store.get::<Counters>(&key).await.unwrap().unwrap();
    assert_eq!(
        (read.value, read.create_revision, read.mod_revision),
        (2, 1, 2)
    );
    store.commit(Txn::new().remove(&read)).await.unwrap();
    assert!(store.get::<Counters>(&key).await.unwrap().is_none());
}

#[tokio::test]
async fn a_claim_lets_one_of_two_have_a_thing() {
    let store = Store::memory();
    let name = Claim::MachineName(app("a"), "blue sky".to_owned());
    let claim = |id: &str| ClaimRecord {
        app: app("a"),
        machine: MachineId::new(id).unwrap(),
    };
    let first = Txn::new().create::<Claims>(&name, &claim("0123456789abcd"));
    store.commit(first).await.unwrap();
    let second = Txn::new().create::<Claims>(&name, &claim("0123456789abce"));
    assert!(store.commit(second).await.unwrap_err().is_conflict());
}

#[test]
fn claims_of_all_kinds_come_back_from_their_keys() {
    let id = DeploymentId::new("01ARZ3NDEKTSV4RRFFQ69G5FAV").unwrap();
    let claims = [
        Claim::MachineName(app("a"), "a/b %".to_owned()),
        Claim::Low32(HostId::new("local").unwrap(), 0xdead_beef),
        Claim::Launch(id, GroupName::new("web%2Fx:y").unwrap(), 7),
    ];
    for claim in claims {
        assert_eq!(Claim::decode(&claim.encode()), Some(claim));
    }
    assert_eq!(Claim::decode("other/x"), None);
}

#[tokio::test]
async fn records_are_listed_by_table_and_by_first_part() {
    #[derive(Clone, Copy, Debug)]
    struct Pairs;
    impl Table for Pairs {
        type Key = (AppName, u64);
        type Value = String;
        const PREFIX: &'static str = "pairs/";
    }
    let store = Store::memory();
    for (name, number) in [("a", 1), ("a", 20), ("a", 3), ("a-b", 1), ("b", 1)] {
        let txn = Txn::new().put::<Pairs>(&(app(name), number), &"x".to_owned());
        store.commit(txn).await.unwrap();
    }
    let of_a = store.list_under::<Pairs, _>(&app("a")).await.unwrap();
    let numbers: Vec<u64> = of_a.records.iter().map(|record| record.key.1).collect();
    assert_eq!(numbers, [1, 3, 20]);
    let all = store.list::<Pairs>().await.unwrap();
    assert_eq!((all.records.len(), all.revision), (5, 5));
}

#[tokio::test]
async fn a_typed_watch_tells_puts_and_deletions() {
    let store = Store::memory();
    let id = MachineId::new("0123456789abcd").unwrap();
    let mut watch = store.watch::<MachineHomes>(1).await.unwrap();
    store
        .commit(Txn::new().put::<MachineHomes>(&id, &home("a")))
        .await
        .unwrap();
    let batch = watch.next().await.unwrap().unwrap();
    assert!(matches!(&batch.changes[..], [TypedChange::Put(record)] if record.value == home("a")));
    store
        .commit(Txn::new().delete::<MachineHomes>(&id))
        .await
        .unwrap();
    let batch = watch.next().await.unwrap().unwrap();
    assert!(matches!(&batch.changes[..], [TypedChange::Deleted(key)] if *key == id));
    assert_eq!(batch.revision, 2);
}
