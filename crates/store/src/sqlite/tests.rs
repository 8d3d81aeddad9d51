//! What concerns the file alone; the rest is the conformance suite's.

use super::*;
use crate::backend::Write;

fn file() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    (dir, path)
}

fn put(key: &str, bytes: usize) -> RawTxn {
    RawTxn {
        writes: vec![Write::Put(key.into(), vec![b'x'; bytes].into())],
        ..RawTxn::default()
    }
}

#[test]
fn a_newer_store_is_refused_in_words() {
    let (_dir, path) = file();
    drop(SqliteBackend::open(&path, SqliteOptions::default()).unwrap());
    let connection = Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    let error = SqliteBackend::open(&path, SqliteOptions::default()).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("schema 99") && text.contains("newer Hangar"),
        "{text}"
    );
}

#[test]
fn an_older_store_is_migrated_and_keeps_what_it_holds() {
    let (_dir, path) = file();
    create_file(&path).unwrap();
    let connection = connect(&path, Access::Write).unwrap();
    schema::prepare(&path, &connection, schema::MIGRATIONS).unwrap();
    connection
        .execute_batch("UPDATE head SET revision = 7")
        .unwrap();
    let newer = [
        schema::MIGRATIONS[0],
        "ALTER TABLE kv ADD COLUMN extra INTEGER",
    ];
    assert_eq!(schema::prepare(&path, &connection, &newer).unwrap(), 7);
    assert_eq!(schema::prepare(&path, &connection, &newer).unwrap(), 7);
    let refused = schema::prepare(&path, &connection, schema::MIGRATIONS).unwrap_err();
    assert!(
        matches!(refused, StoreError::NewerStore { found: 2, .. }),
        "{refused}"
    );
}

#[test]
fn a_file_that_is_no_store_is_refused_in_words() {
    let (_dir, path) = file();
    std::fs::write(
        &path,
        "not a database, but long enough to be looked at".repeat(40),
    )
    .unwrap();
    let error = SqliteBackend::open(&path, SqliteOptions::default()).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");

    let (_dir, path) = file();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("CREATE TABLE theirs (x)").unwrap();
    drop(other);
    let error = SqliteBackend::open(&path, SqliteOptions::default()).unwrap_err();
    assert!(error.to_string().contains("another program"), "{error}");
}

#[test]
fn a_store_that_cannot_be_made_says_where() {
    let (dir, _) = file();
    let path = dir.path().join("missing/store.db");
    let error = SqliteBackend::open(&path, SqliteOptions::default()).unwrap_err();
    assert!(error.to_string().contains("missing/store.db"), "{error}");
}

#[test]
fn only_the_owner_can_read_the_file() {
    use std::os::unix::fs::PermissionsExt;
    let (_dir, path) = file();
    let _store = SqliteBackend::open(&path, SqliteOptions::default()).unwrap();
    for name in [path.clone(), path.with_extension("db-wal")] {
        let mode = std::fs::metadata(&name).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name:?}");
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_in_words_and_leaves_reads_alone() {
    let (_dir, path) = file();
    let options = SqliteOptions {
        max_pages: Some(64),
    };
    let store = SqliteBackend::open(&path, options).unwrap();
    store.txn(put("kept", 100)).await.unwrap();
    let error = store.txn(put("big", 512 * 1024)).await.unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    assert!(error.to_string().contains("free disk space"), "{error}");
    assert!(store.get("big".into()).await.unwrap().is_none());
    assert!(store.get("kept".into()).await.unwrap().is_some());
    assert_eq!(store.txn(put("small", 10)).await.unwrap(), 2);
}

#[tokio::test]
async fn transactions_that_wait_are_committed_together() {
    let (_dir, path) = file();
    let store = Arc::new(SqliteBackend::open(&path, SqliteOptions::default()).unwrap());
    let keys: Vec<String> = (0..200).map(|n| format!("k/{n:03}")).collect();
    let all = keys.iter().map(|key| store.txn(put(key, 100)));
    let mut revisions: Vec<Revision> = futures_util::future::join_all(all)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    revisions.sort_unstable();
    assert_eq!(revisions, (1..=200).collect::<Vec<_>>());
}
