//! What is true of a run, from its directory.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use hangar_api::Timestamp;
use hangar_init::exit::ExitFile;
use hangar_init::spec::file;
use hangar_init::untrusted;
use rustix::fs::{CWD, FlockOperation, OFlags, flock};

use super::start_of;
use crate::runtime::{ExitRecord, RunKey};

/// Most bytes of an `exit.json`: what is longer is not ours.
const MAX_EXIT: u64 = 16 * 1024;
/// The code of a run that was killed.
const KILLED: i32 = 128 + libc::SIGKILL;

/// What a run directory shows.
#[derive(Debug)]
pub(super) enum Seen {
    /// There is none.
    Absent,
    /// Somebody makes it.
    Making,
    /// `init` lives.
    Running,
    /// `init` has written down how it ended.
    Exited(ExitFile),
    /// Nobody holds the lock and nothing is written down.
    Dead,
    /// The same, and `init` never got as far as its program.
    Unmade,
}

pub(super) fn look(run: &Path) -> Seen {
    let lock = match untrusted::open(CWD, run.join(file::LOCK), OFlags::RDONLY) {
        Ok(Some(lock)) => lock,
        // Something else stands in its place: whoever put it there has given up its run.
        Ok(None) => return Seen::Dead,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !run.exists() => {
            return Seen::Absent;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return dead(run),
        // Not to be able to look, for want of descriptors say, tells nothing: look again.
        Err(_) => return Seen::Making,
    };
    // Shared, so that two who only look do not see each other.
    if flock(&lock, FlockOperation::NonBlockingLockShared).is_err() {
        return match has_socket(run) {
            Ok(true) => Seen::Running,
            _ => Seen::Making,
        };
    }
    drop(lock);
    match read_exit(run) {
        Ok(exit) => exit.map_or(Seen::Dead, Seen::Exited),
        Err(error) if error.kind() == io::ErrorKind::NotFound => dead(run),
        Err(_) => Seen::Making,
    }
}

/// Tells a run that was killed from one that never was: `init` makes its socket before it
/// executes the program, and nobody removes it.
fn dead(run: &Path) -> Seen {
    match has_socket(run) {
        Ok(true) => Seen::Dead,
        Ok(false) => Seen::Unmade,
        Err(_) => Seen::Making,
    }
}

fn has_socket(run: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(run.join(file::SOCKET)) {
        Ok(found) => Ok(found.file_type().is_socket()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Returns how a run ended, or `None` when what is written there is not ours.
fn read_exit(run: &Path) -> io::Result<Option<ExitFile>> {
    let mut bytes = Vec::new();
    let Some(file) = untrusted::open(CWD, run.join(file::EXIT), OFlags::RDONLY)? else {
        return Ok(None);
    };
    File::from(file).take(MAX_EXIT).read_to_end(&mut bytes)?;
    Ok(ExitFile::parse(&bytes))
}

/// Returns the record of an exit. A run killed by SIGKILL, or by a shell that passes that on,
/// ran out of memory if the kernel counted a kill for that, which may have met a command beside
/// the program: where `init` sent the SIGKILL, it was not that.
pub(super) fn record(exit: &ExitFile, oom_kills: u64) -> ExitRecord {
    let killed = exit.signal == Some(libc::SIGKILL) || exit.exit_code == KILLED;
    ExitRecord {
        exit_code: exit.exit_code,
        signal: exit.signal,
        oom_killed: killed && !exit.killed_by_init && oom_kills > 0,
        requested_stop: exit.requested_stop,
        spawn_error: exit.spawn_error.clone(),
        exited_at: Timestamp::from_microsecond(exit.exited_at_us).unwrap_or_default(),
    }
}

/// Returns the record of a run that nobody wrote one for.
pub(super) fn lost(now: Timestamp, oom_kills: u64) -> ExitRecord {
    ExitRecord {
        exit_code: KILLED,
        signal: Some(libc::SIGKILL),
        oom_killed: oom_kills > 0,
        requested_stop: false,
        spawn_error: None,
        exited_at: now,
    }
}

/// Returns every run that has a directory of any kind, or an error: half a list would be taken
/// for all there is.
pub(super) fn runs_on_disk(machines: &Path) -> io::Result<Vec<RunKey>> {
    let mut found = Vec::new();
    for machine in entries(machines)? {
        let name = machine.file_name().and_then(|name| name.to_str());
        let Some(id) = name.and_then(|name| name.parse().ok()) else {
            continue;
        };
        for kind in ["run", "rootfs"] {
            let starts = entries(&machine.join(kind))?;
            found.extend(starts.iter().filter_map(|path| {
                Some(RunKey {
                    machine: Clone::clone(&id),
                    start: start_of(path)?,
                })
            }));
        }
    }
    Ok(found)
}

/// Returns what is in a directory; one that is not there, or no longer, is empty.
fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let listed =
        fs::read_dir(dir).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    match listed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other.map_err(|error| {
            io::Error::new(error.kind(), format!("read {}: {error}", dir.display()))
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::fs::{FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn a_list_of_runs_is_whole_or_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let machines = dir.path().join("machines");
        assert!(runs_on_disk(&machines).unwrap().is_empty());
        let machine = machines.join("00000000000001");
        fs::create_dir_all(machine.join("run/3")).unwrap();
        assert_eq!(runs_on_disk(&machines).unwrap().len(), 1);
        fs::write(machine.join("rootfs"), "no directory").unwrap();
        let error = runs_on_disk(&machines).unwrap_err().to_string();
        assert!(error.contains("rootfs"), "{error}");
    }

    #[test]
    fn what_is_no_file_of_ours_in_a_run_directory_is_not_followed_nor_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        fs::create_dir(&run).unwrap();
        let elsewhere = dir.path().join("elsewhere");
        fs::write(&elsewhere, r#"{"exit_code": 0}"#).unwrap();
        let put = |name: &str, kind: FileType| {
            let path = run.join(name);
            let _absent = fs::remove_file(&path);
            match kind {
                FileType::Symlink => symlink(&elsewhere, path).unwrap(),
                FileType::RegularFile => fs::write(path, r#"{"exit_code": 4}"#).unwrap(),
                other => mknodat(CWD, path, other, Mode::RUSR, 0).unwrap(),
            }
        };
        for odd in [FileType::Symlink, FileType::Fifo] {
            put(file::EXIT, FileType::RegularFile);
            put(file::LOCK, FileType::RegularFile);
            assert!(matches!(look(&run), Seen::Exited(exit) if exit.exit_code == 4));
            put(file::EXIT, odd);
            assert!(matches!(look(&run), Seen::Dead), "{odd:?}");
            put(file::EXIT, FileType::RegularFile);
            put(file::LOCK, odd);
            assert!(matches!(look(&run), Seen::Dead), "{odd:?}");
        }
    }
}
