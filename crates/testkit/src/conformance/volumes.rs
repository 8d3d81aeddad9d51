//! What everything that keeps volumes must do: [`run`] drives one through all the cases.
//!
//! The cases are about what a server builds on: every method may be repeated, a volume holds what
//! was written whatever is done to others, and what fails changes nothing.

use std::fmt;
use std::sync::Arc;

use hangar_api::env::Env;
use hangar_api::error::ErrorKind;
use hangar_api::id::{SnapshotId, VolumeId};
use hangar_api::seam::VolumeCalls;
use hangar_api::volume::VolumeSource;

const MIB: u64 = 1 << 20;
const SIZE: u64 = 64 * MIB;
/// More than any disk has.
const TOO_MUCH: u64 = 1 << 52;

/// Writes a text into a volume that no Machine has.
pub type Write = Box<dyn Fn(&VolumeId, &str)>;
/// Returns what such a volume holds, or `None` where there is no such volume.
pub type Read = Box<dyn Fn(&VolumeId) -> Option<String>>;

/// Volumes to be tried.
pub struct Subject {
    /// Returns a new object over the same disk every time.
    pub open: Box<dyn Fn() -> Arc<dyn VolumeCalls>>,
    /// Writes.
    pub write: Write,
    /// Reads.
    pub read: Read,
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subject")
    }
}

/// Runs every case. Panics with what is wrong.
pub async fn run(subject: &Subject) {
    a_volume_is_made_once_and_keeps_what_is_written(subject).await;
    a_volume_that_is_not_there_is_not_found(subject).await;
    what_the_disk_has_no_room_for_is_refused_and_leaves_nothing(subject).await;
    a_volume_grows_and_never_shrinks(subject).await;
    a_snapshot_holds_what_was_there_when_it_was_made(subject).await;
    a_fork_is_a_volume_of_its_own(subject).await;
    what_is_removed_is_gone_and_may_be_removed_again(subject).await;
}

impl Subject {
    async fn volume(&self, text: &str) -> VolumeId {
        let id = VolumeId::generate(&Env::real());
        let made = (self.open)()
            .make(id.clone(), SIZE, VolumeSource::Empty)
            .await;
        made.expect("a volume can be made");
        (self.write)(&id, text);
        id
    }

    fn holds(&self, volume: &VolumeId, text: &str) {
        assert_eq!((self.read)(volume).as_deref(), Some(text), "{volume}");
    }
}

async fn a_volume_is_made_once_and_keeps_what_is_written(subject: &Subject) {
    let id = subject.volume("one").await;
    let again = (subject.open)()
        .make(id.clone(), 2 * SIZE, VolumeSource::Empty)
        .await;
    assert_eq!(again, Ok(()));
    subject.holds(&id, "one");
    let usage = (subject.open)().usage(id).await.expect("it is there");
    assert!(usage.bytes_total() <= SIZE && usage.bytes_total() > SIZE / 2);
    assert!(usage.bytes_used() > 0 && usage.percent() < 50, "{usage:?}");
}

async fn a_volume_that_is_not_there_is_not_found(subject: &Subject) {
    let volumes = (subject.open)();
    let env = Env::real();
    let (id, snapshot) = (VolumeId::generate(&env), SnapshotId::generate(&env));
    let kind = |result: Result<(), hangar_api::error::Failure>| result.expect_err("it fails").kind;
    let extended = volumes.extend(id.clone(), SIZE).await;
    assert_eq!(kind(extended.map(drop)), ErrorKind::NotFound);
    let copied = volumes.snapshot(id.clone(), snapshot.clone()).await;
    assert_eq!(kind(copied.map(drop)), ErrorKind::NotFound);
    assert_eq!(
        kind(volumes.usage(id.clone()).await.map(drop)),
        ErrorKind::NotFound
    );
    for source in [
        VolumeSource::Snapshot { id: snapshot },
        VolumeSource::Volume { id: id.clone() },
    ] {
        let new = VolumeId::generate(&env);
        let made = volumes.make(new.clone(), SIZE, source).await;
        assert_eq!(kind(made), ErrorKind::NotFound);
        assert_eq!((subject.read)(&new), None, "nothing is left of it");
    }
}

async fn what_the_disk_has_no_room_for_is_refused_and_leaves_nothing(subject: &Subject) {
    let volumes = (subject.open)();
    let id = VolumeId::generate(&Env::real());
    let refused = volumes
        .make(id.clone(), TOO_MUCH, VolumeSource::Empty)
        .await;
    assert_eq!(refused.expect_err("no room").kind, ErrorKind::Exhausted);
    assert_eq!((subject.read)(&id), None);
    let id = subject.volume("small").await;
    let refused = volumes.extend(id.clone(), TOO_MUCH).await;
    assert_eq!(refused.expect_err("no room").kind, ErrorKind::Exhausted);
    let usage = volumes.usage(id.clone()).await.expect("it is there");
    assert!(usage.bytes_total() <= SIZE, "{usage:?}");
    subject.holds(&id, "small");
}

async fn a_volume_grows_and_never_shrinks(subject: &Subject) {
    let volumes = (subject.open)();
    let id = subject.volume("grown").await;
    let before = volumes.usage(id.clone()).await.expect("it is there");
    for size in [2 * SIZE, 2 * SIZE, SIZE] {
        let extended = volumes
            .extend(id.clone(), size)
            .await
            .expect("there is room");
        assert!(!extended.needs_restart, "nobody has it");
        let now = volumes.usage(id.clone()).await.expect("it is there");
        assert!(
            now.bytes_total() > before.bytes_total() + SIZE / 2,
            "{before:?} {now:?}"
        );
    }
    subject.holds(&id, "grown");
}

async fn a_snapshot_holds_what_was_there_when_it_was_made(subject: &Subject) {
    let volumes = (subject.open)();
    let env = Env::real();
    let id = subject.volume("then").await;
    let snapshot = SnapshotId::generate(&env);
    let bytes = volumes.snapshot(id.clone(), snapshot.clone()).await;
    let bytes = bytes.expect("it can be copied");
    assert!(bytes > 0 && bytes < SIZE, "{bytes}");
    (subject.write)(&id, "later");
    let again = volumes.snapshot(id.clone(), snapshot.clone()).await;
    assert_eq!(again, Ok(bytes), "it is made once");
    volumes
        .remove_volume(id)
        .await
        .expect("a volume goes without its snapshots");
    let source = VolumeSource::Snapshot { id: snapshot };
    for size in [SIZE, 2 * SIZE] {
        let new = VolumeId::generate(&env);
        let made = volumes.make(new.clone(), size, source.clone()).await;
        assert_eq!(made, Ok(()));
        subject.holds(&new, "then");
        let usage = volumes.usage(new).await.expect("it is there");
        assert!(usage.bytes_total() > size / 2, "{usage:?}");
    }
    let new = VolumeId::generate(&env);
    let made = volumes.make(new, SIZE / 2, source).await;
    assert_eq!(made.expect_err("too small").kind, ErrorKind::Invalid);
}

async fn a_fork_is_a_volume_of_its_own(subject: &Subject) {
    let volumes = (subject.open)();
    let id = subject.volume("forked").await;
    let fork = VolumeId::generate(&Env::real());
    let source = VolumeSource::Volume { id: id.clone() };
    let made = volumes.make(fork.clone(), SIZE, source).await;
    assert_eq!(made, Ok(()));
    (subject.write)(&id, "original");
    subject.holds(&fork, "forked");
    (subject.write)(&fork, "copy");
    subject.holds(&id, "original");
}

async fn what_is_removed_is_gone_and_may_be_removed_again(subject: &Subject) {
    let volumes = (subject.open)();
    let id = subject.volume("gone").await;
    let other = subject.volume("stays").await;
    let snapshot = SnapshotId::generate(&Env::real());
    volumes
        .snapshot(id.clone(), snapshot.clone())
        .await
        .expect("it can be copied");
    for _ in 0..2 {
        assert_eq!(volumes.remove_volume(id.clone()).await, Ok(()));
        assert_eq!(volumes.remove_snapshot(snapshot.clone()).await, Ok(()));
    }
    assert_eq!((subject.read)(&id), None);
    let source = VolumeSource::Snapshot { id: snapshot };
    let made = volumes.make(id, SIZE, source).await;
    assert_eq!(made.expect_err("it is removed").kind, ErrorKind::NotFound);
    subject.holds(&other, "stays");
}
