//! The conformance suite on both backends, and on the one in memory at its worst.

use std::sync::Arc;

use hangar_store::{MemoryBackend, MemoryOptions, SqliteBackend, SqliteOptions};
use hangar_testkit::conformance::store::{Fixture, histories, run};

fn memory(options: MemoryOptions) -> Fixture {
    Fixture::new(Arc::new(MemoryBackend::new(options)))
}

fn sqlite() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let backend = SqliteBackend::open(&path, SqliteOptions::default()).unwrap();
    Fixture {
        backend: Arc::new(backend),
        keep: Box::new(dir),
    }
}

#[test]
fn the_store_in_memory_conforms() {
    run(|| memory(MemoryOptions::default()));
}

#[test]
fn the_store_in_memory_conforms_when_it_merges_watches() {
    run(|| {
        memory(MemoryOptions {
            seed: 7,
            merge_watch: true,
            unknown_one_in: 0,
        })
    });
}

#[test]
fn the_store_on_disk_conforms() {
    run(sqlite);
}

#[test]
fn random_histories_in_memory_match_the_model() {
    let options = MemoryOptions {
        seed: 11,
        merge_watch: true,
        unknown_one_in: 5,
    };
    histories(500, || memory(options));
}

#[test]
fn random_histories_on_disk_match_the_model() {
    histories(30, sqlite);
}
