//! The view in memory.

use std::sync::Arc;

use hangar_api::id::{AppName, HostId, MachineId};
use hangar_store::backend::{RawTxn, Write};
use hangar_store::tables::{Counters, MachineHome, MachineHomes};
use hangar_store::{Cache, Delta, MemoryBackend, MemoryOptions, Store, StoreError, Txn};

fn machine(number: u32) -> MachineId {
    MachineId::new(format!("{number:014x}")).unwrap()
}

fn home(name: &str) -> MachineHome {
    MachineHome {
        app: AppName::new(name).unwrap(),
        host: HostId::new("local").unwrap(),
    }
}

async fn open(store: &Store) -> Cache {
    let (cache, feed) = Cache::open(store).await.unwrap();
    tokio::spawn(feed.run());
    cache
}

#[tokio::test]
async fn a_writer_reads_what_it_wrote() {
    let store = Store::memory();
    let cache = open(&store).await;
    for number in 1..100 {
        let key = "n".to_owned();
        cache
            .commit(Txn::new().put::<Counters>(&key, &number))
            .await
            .unwrap();
        assert_eq!(cache.get::<Counters>(&key).unwrap().value, number);
    }
    let gone = Txn::new().delete::<Counters>(&"n".to_owned());
    let revision = cache.commit(gone).await.unwrap();
    assert!(cache.get::<Counters>(&"n".to_owned()).is_none());
    assert_eq!(cache.snapshot().revision(), revision);
}

#[tokio::test]
async fn a_view_begins_with_everything_that_is_stored() {
    let store = Store::memory();
    for number in 0..2500 {
        let txn = Txn::new().put::<MachineHomes>(&machine(number), &home("a"));
        store.commit(txn).await.unwrap();
    }
    let cache = open(&store).await;
    let snapshot = cache.snapshot();
    assert_eq!(
        (snapshot.count::<MachineHomes>(), snapshot.revision()),
        (2500, 2500)
    );
    let keys: Vec<MachineId> = snapshot
        .all::<MachineHomes>()
        .map(|r| r.key.clone())
        .collect();
    assert!(keys.is_sorted());
}

#[tokio::test]
async fn a_snapshot_stays_as_it_was() {
    let store = Store::memory();
    let cache = open(&store).await;
    let key = "n".to_owned();
    cache
        .commit(Txn::new().put::<Counters>(&key, &1))
        .await
        .unwrap();
    let before = cache.snapshot();
    cache
        .commit(Txn::new().put::<Counters>(&key, &2))
        .await
        .unwrap();
    assert_eq!(before.get::<Counters>(&key).unwrap().value, 1);
    assert_eq!(cache.snapshot().get::<Counters>(&key).unwrap().value, 2);
}

#[tokio::test]
async fn a_follower_is_told_which_keys_changed() {
    let store = Store::memory();
    let cache = open(&store).await;
    let mut deltas = cache.deltas();
    let mut changes = cache.changes();
    changes.mark_unchanged();
    let both = Txn::new()
        .put::<MachineHomes>(&machine(1), &home("a"))
        .put::<Counters>(&"n".to_owned(), &1);
    cache.commit(both).await.unwrap();
    let delta = deltas.next().await.unwrap();
    assert_eq!(delta.keys::<MachineHomes>(), Some(vec![machine(1)]));
    assert_eq!(delta.keys::<Counters>(), Some(vec!["n".to_owned()]));
    assert!(delta.touches::<Counters>());
    assert!(!delta.touches::<hangar_store::tables::Apps>());
    assert!(changes.has_changed().unwrap());
}

#[tokio::test]
async fn a_follower_that_missed_too_much_is_told_to_look_at_all() {
    let store = Store::memory();
    let cache = open(&store).await;
    let mut deltas = cache.deltas();
    for number in 0..1100 {
        cache
            .commit(Txn::new().put::<Counters>(&"n".to_owned(), &number))
            .await
            .unwrap();
    }
    assert!(matches!(deltas.next().await, Some(Delta::All { .. })));
}

#[tokio::test]
async fn a_view_whose_changes_were_compacted_reads_all_again() {
    let backend = Arc::new(MemoryBackend::default());
    let store = Store::new(Arc::clone(&backend) as _);
    let (cache, feed) = Cache::open(&store).await.unwrap();
    let mut deltas = cache.deltas();
    let key = "n".to_owned();
    store
        .commit(Txn::new().put::<Counters>(&key, &1))
        .await
        .unwrap();
    backend.compact();
    let revision = store
        .commit(Txn::new().put::<Counters>(&key, &2))
        .await
        .unwrap();
    tokio::spawn(feed.run());
    cache.wait_for(revision).await.unwrap();
    assert_eq!(cache.get::<Counters>(&key).unwrap().value, 2);
    assert!(matches!(deltas.next().await, Some(Delta::All { .. })));
}

#[tokio::test]
async fn a_view_is_right_whatever_is_merged() {
    for seed in 0..20 {
        let options = MemoryOptions {
            seed,
            merge_watch: true,
            unknown_one_in: 0,
        };
        let store = Store::new(Arc::new(MemoryBackend::new(options)));
        let cache = open(&store).await;
        for number in 0..60_u32 {
            let id = machine(number * 7 % 13);
            let txn = if number % 3 == 2 {
                Txn::new().delete::<MachineHomes>(&id)
            } else {
                Txn::new().put::<MachineHomes>(&id, &home("a"))
            };
            store.commit(txn).await.unwrap();
        }
        let listed = store.list::<MachineHomes>().await.unwrap();
        cache.wait_for(listed.revision).await.unwrap();
        let snapshot = cache.snapshot();
        let seen = snapshot
            .all::<MachineHomes>()
            .map(|r| (&r.key, r.mod_revision));
        let stored = listed.records.iter().map(|r| (&r.key, r.mod_revision));
        assert!(seen.eq(stored), "seed {seed}");
    }
}

#[tokio::test]
async fn a_value_that_cannot_be_read_stops_the_view_in_words() {
    let store = Store::memory();
    let (cache, feed) = Cache::open(&store).await.unwrap();
    let running = tokio::spawn(feed.run());
    let newer = RawTxn {
        checks: Vec::new(),
        writes: vec![Write::Put(
            "counters/n".into(),
            br#"{"v":9,"d":1}"#[..].into(),
        )],
    };
    store.backend().txn(newer).await.unwrap();
    let error = running.await.unwrap().unwrap_err();
    assert!(
        matches!(error, StoreError::OtherForm { found: 9, .. }),
        "{error}"
    );
    assert!(cache.get::<Counters>(&"n".to_owned()).is_none());
    assert!(Cache::open(&store).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_view_that_stands_still_ends() {
    let store = Store::memory();
    let (cache, _feed) = Cache::open(&store).await.unwrap();
    let put = Txn::new().put::<Counters>(&"n".to_owned(), &1);
    let error = cache.commit(put).await.unwrap_err();
    assert!(
        matches!(error, StoreError::Behind { wanted: 1, at: 0 }),
        "{error}"
    );
}
