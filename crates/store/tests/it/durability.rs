//! What is still there after the process is gone.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use hangar_store::tables::Counters;
use hangar_store::{SqliteBackend, SqliteOptions, Store, StoreError, Txn};

/// Tells the child that it is one, and where the store is.
const CHILD: &str = "HANGAR_TEST_STORE_CHILD";
/// The same for the child on a small disk.
const SMALL: &str = "HANGAR_TEST_STORE_SMALL";

fn open(path: &Path) -> Store {
    let backend = SqliteBackend::open(path, SqliteOptions::default()).unwrap();
    Store::new(Arc::new(backend))
}

#[tokio::test]
async fn a_store_that_is_opened_again_holds_what_it_held() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let key = |n: u64| n.to_string();
    let store = open(&path);
    for number in 0..20 {
        store
            .commit(Txn::new().put::<Counters>(&key(number), &number))
            .await
            .unwrap();
    }
    store
        .commit(Txn::new().delete::<Counters>(&key(3)))
        .await
        .unwrap();
    drop(store);

    let store = open(&path);
    let listed = store.list::<Counters>().await.unwrap();
    assert_eq!((listed.records.len(), listed.revision), (19, 21));
    // The revision of a deletion counts, though nothing in the file carries it.
    let next = store
        .commit(Txn::new().put::<Counters>(&key(3), &3))
        .await
        .unwrap();
    assert_eq!(next, 22);
    // Changes from before are not kept: who resumes is told to list.
    let resumed = store.watch::<Counters>(5).await;
    assert!(matches!(resumed, Err(StoreError::Compacted { oldest: 22 })));
}

/// Not a test of its own: what the next one starts and kills.
#[test]
fn child_that_writes_until_it_is_killed() {
    let Some(path) = std::env::var_os(CHILD) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = open(Path::new(&path));
        let key = |lane: u64| format!("lane-{lane}");
        let lanes = (0..8_u64).map(|lane| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut at = store
                    .get::<Counters>(&key(lane))
                    .await
                    .unwrap()
                    .map_or(0, |r| r.value);
                // Both records of a transaction are there, or none.
                while at < 1_000_000 {
                    at += 1;
                    let twin = format!("twin-{lane}");
                    let both = Txn::new()
                        .put::<Counters>(&key(lane), &at)
                        .put::<Counters>(&twin, &at);
                    store.commit(both).await.unwrap();
                    println!("\ncommitted {lane} {at}");
                }
            })
        });
        futures_util::future::join_all(lanes).await;
    });
}

#[tokio::test]
async fn what_was_answered_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let mut answered = [0_u64; 8];
    for round in 1..=5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "durability::child_that_writes_until_it_is_killed",
            ])
            .arg("--nocapture")
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        let mut take = |line: String, seen: &mut u64| {
            let mut words = line.strip_prefix("committed ")?.split(' ');
            let lane: usize = words.next()?.parse().ok()?;
            // The last line may be cut: only whole numbers count, and they only grow.
            answered[lane] = answered[lane].max(words.next()?.parse().ok()?);
            *seen += 1;
            Some(())
        };
        while seen < 137 * round {
            let line = lines.next().expect("the child goes on").unwrap();
            take(line, &mut seen);
        }
        child.kill().unwrap();
        for line in lines.map_while(Result::ok) {
            take(line, &mut seen);
        }
        child.wait().unwrap();

        let store = open(&path);
        for (lane, answered) in (0_u64..).zip(answered) {
            let value = |name: String| {
                let store = store.clone();
                async move {
                    store
                        .get::<Counters>(&name)
                        .await
                        .unwrap()
                        .map_or(0, |r| r.value)
                }
            };
            let (kept, twin) = (
                value(format!("lane-{lane}")).await,
                value(format!("twin-{lane}")).await,
            );
            assert_eq!(kept, twin, "a transaction is whole");
            assert!(
                kept == answered || kept == answered + 1,
                "{kept} after {answered}"
            );
        }
    }
}

/// Not a test of its own: what the next one runs on a disk of 2 MiB.
#[tokio::test]
async fn child_that_fills_the_disk() {
    let Some(dir) = std::env::var_os(SMALL) else {
        return;
    };
    let dir = Path::new(&dir);
    let ballast = dir.join("ballast");
    std::fs::write(&ballast, vec![0; 1024 * 1024]).unwrap();
    let store = open(&dir.join("store.db"));
    let mut written = 0;
    let error = loop {
        match store
            .commit(Txn::new().put::<Counters>(&format!("n-{written}"), &written))
            .await
        {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 100_000, "a disk of 2 MiB holds less");
    };
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    let listed = store.list::<Counters>().await.unwrap();
    assert_eq!(u64::try_from(listed.records.len()).unwrap(), written);
    assert!(
        store
            .commit(Txn::new().put::<Counters>(&"again".to_owned(), &1))
            .await
            .is_err()
    );

    std::fs::remove_file(ballast).unwrap();
    let revision = store
        .commit(Txn::new().put::<Counters>(&"later".to_owned(), &1))
        .await
        .unwrap();
    assert_eq!(revision, written + 1);
    drop(store);
    let store = open(&dir.join("store.db"));
    let listed = store.list::<Counters>().await.unwrap();
    assert_eq!(u64::try_from(listed.records.len()).unwrap(), written + 1);
}

#[test]
fn a_full_disk_loses_nothing_and_is_mended_by_room() {
    let dir = tempfile::tempdir().unwrap();
    // A mount of the child's own: nothing of it is left behind.
    let script = "mount -t tmpfs -o size=2m none \"$1\" || exit 77; shift; exec \"$@\"";
    let status = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh"])
        .arg(dir.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "durability::child_that_fills_the_disk"])
        .env(SMALL, dir.path())
        .status();
    match status.map(|status| status.code()) {
        Ok(Some(0)) => {}
        Ok(Some(1 | 77)) => eprintln!("skipped: needs root, to mount a small disk"),
        Err(error) => eprintln!("skipped: needs unshare ({error})"),
        Ok(code) => panic!("the child ended with {code:?}"),
    }
}
