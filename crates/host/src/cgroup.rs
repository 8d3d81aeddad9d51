//! Control groups: limits of a run, and the way to find and kill all of it.
//!
//! A run has one group in *every* mounted hierarchy, of the first version and of the second: a
//! process outside one of them would be outside its limits, or could not be found. Groups lie
//! under a directory per data directory at the root of each hierarchy, not below our own group:
//! the service manager that ends us must not end the Machines. Called by the helper to make and
//! remove, by the runtime to read; never keeps anything in memory.

mod freeze;
mod memory;
mod processes;
mod root;
mod v1;
mod v2;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::runtime::{Limits, RunKey};

/// The period of the CPU quota.
const CPU_PERIOD_US: u64 = 100_000;
/// How often killing is tried before it is given up, with [`KILL_PAUSE`] between.
const KILL_ROUNDS: u32 = 5000;
const KILL_PAUSE: Duration = Duration::from_millis(1);

/// Where this machine's hierarchies are mounted, and under which name we keep ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Name of the directory that holds the groups of one data directory.
    pub parent: String,
    /// The hierarchies.
    pub hierarchies: Vec<Hierarchy>,
}

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hierarchy {
    /// Whether it is of the second version.
    pub v2: bool,
    /// Where it is mounted.
    pub mount: PathBuf,
    /// Its controllers (`cpu`, `memory`, `name=systemd`).
    pub controllers: Vec<String>,
}

/// What one version of control groups does differently.
trait Version {
    /// Prepares the directory that holds the groups, after it was made.
    fn prepare_parent(&self, hierarchy: &Hierarchy, parent: &Path) -> io::Result<()>;
    /// Sets the limits that this hierarchy has controllers for.
    fn limit(&self, hierarchy: &Hierarchy, group: &Path, limits: &Limits) -> io::Result<()>;
    /// Asks the kernel to let no more processes in, and to kill what is there if it can do that.
    fn begin_kill(&self, group: &Path);
    /// Returns how many processes were killed for their memory, if this hierarchy counts them.
    fn oom_kills(&self, hierarchy: &Hierarchy, group: &Path) -> Option<u64>;
    /// Returns the files of a group that count and limit its memory.
    fn memory(&self) -> MemoryFiles;
    /// Returns the file of a group by which it is frozen, and what is written there to freeze it
    /// and to let it go on.
    fn freezer(&self) -> Freezer;
}

/// Where a group's memory is counted and limited.
struct MemoryFiles {
    limit: &'static str,
    usage: &'static str,
    /// The line of `memory.stat` with what can be taken back at once.
    inactive: &'static str,
    /// Memory and swap together, where one limit is for both.
    with_swap: Option<&'static str>,
}

/// How a group is frozen.
struct Freezer {
    control: &'static str,
    freeze: &'static str,
    thaw: &'static str,
    /// Where it is told that all have stopped.
    state: &'static str,
    /// The line that tells it.
    frozen: &'static str,
}

// === impl Layout ===

impl Layout {
    /// Reads which hierarchies are mounted. `parent` names the directory that holds our groups.
    pub fn probe(parent: String) -> io::Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        Ok(Self {
            parent,
            hierarchies: parse_mounts(&mounts),
        })
    }

    /// Returns the hierarchy that has this controller.
    #[must_use]
    pub fn with_controller(&self, name: &str) -> Option<&Hierarchy> {
        self.hierarchies
            .iter()
            .find(|hierarchy| hierarchy.controllers.iter().any(|have| have == name))
    }

    fn group(&self, hierarchy: &Hierarchy, key: &RunKey) -> PathBuf {
        hierarchy
            .mount
            .join(&self.parent)
            .join(format!("{}-{}", key.machine, key.start))
    }

    /// Makes the groups of a run with its limits. May be repeated.
    pub fn create(&self, key: &RunKey, limits: &Limits) -> io::Result<()> {
        for hierarchy in &self.hierarchies {
            let group = self.group(hierarchy, key);
            self.make_group(hierarchy, &group)?;
            hierarchy.version().limit(hierarchy, &group, limits)?;
        }
        Ok(())
    }

    fn make_group(&self, hierarchy: &Hierarchy, group: &Path) -> io::Result<()> {
        let parent = hierarchy.mount.join(&self.parent);
        // The parent goes when its last group goes, which may be between our two steps.
        for _ in 0..10 {
            match fs::create_dir(group) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            match fs::create_dir(&parent) {
                Ok(()) => match hierarchy.version().prepare_parent(hierarchy, &parent) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    prepared => prepared?,
                },
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }

    /// Returns the run's group of the second version, opened, for a clone right into it.
    /// `None` where that version is not mounted.
    pub fn open_v2(&self, key: &RunKey) -> io::Result<Option<fs::File>> {
        let hierarchy = self.hierarchies.iter().find(|hierarchy| hierarchy.v2);
        hierarchy
            .map(|hierarchy| fs::File::open(self.group(hierarchy, key)))
            .transpose()
    }

    /// Moves the calling thread, the only one of its process, into the run's groups of the first
    /// version.
    ///
    /// A thread that moves itself is spared the lock that every other move takes, for which the
    /// kernel waits until all CPUs have passed a quiet point: half a millisecond in place of five
    /// to thirty, measured.
    pub fn enter_v1(&self, key: &RunKey) -> io::Result<()> {
        for hierarchy in self.hierarchies.iter().filter(|hierarchy| !hierarchy.v2) {
            write_value(&self.group(hierarchy, key).join("tasks"), "0")?;
        }
        Ok(())
    }

    /// Sends SIGKILL to all processes of a run once. Returns how many were there.
    pub fn kill_once(&self, key: &RunKey) -> io::Result<usize> {
        let mut seen = 0;
        for hierarchy in &self.hierarchies {
            let group = self.group(hierarchy, key);
            let pids = pids_in(&group)?;
            if pids.is_empty() {
                continue;
            }
            seen += pids.len();
            hierarchy.version().begin_kill(&group);
            for pid in pids {
                kill_member(&group, pid);
            }
        }
        if seen > 0 {
            // What is frozen by the first version does not even end before it goes on.
            self.thaw(key)?;
        }
        Ok(seen)
    }

    /// Kills all processes of a run and waits until they are gone, for some seconds.
    pub fn kill(&self, key: &RunKey) -> io::Result<()> {
        let mut last = None;
        for _ in 0..KILL_ROUNDS {
            match self.kill_once(key) {
                Ok(0) => return Ok(()),
                Ok(_) => last = None,
                // Not to be able to look is not to have seen nobody: look again.
                Err(error) => last = Some(error),
            }
            std::thread::sleep(KILL_PAUSE);
        }
        Err(last.unwrap_or_else(|| {
            io::Error::new(
                io::ErrorKind::TimedOut,
                "processes do not end although they were killed",
            )
        }))
    }

    /// Removes the groups of a run. What is not there is no error; what still has processes is.
    pub fn remove(&self, key: &RunKey) -> io::Result<()> {
        for hierarchy in &self.hierarchies {
            let group = self.group(hierarchy, key);
            remove_group(&group)?;
            // Fails, and should, while other groups are in it.
            let _removed = fs::remove_dir(hierarchy.mount.join(&self.parent));
        }
        Ok(())
    }

    /// Returns how many processes of a run the kernel killed for their memory.
    #[must_use]
    pub fn oom_kills(&self, key: &RunKey) -> u64 {
        self.hierarchies
            .iter()
            .filter_map(|hierarchy| {
                let group = self.group(hierarchy, key);
                hierarchy.version().oom_kills(hierarchy, &group)
            })
            .max()
            .unwrap_or(0)
    }

    /// Returns the runs that have a group in any hierarchy, or an error: half a list would be taken
    /// for all there is.
    pub fn runs(&self) -> io::Result<Vec<RunKey>> {
        let mut found = Vec::new();
        for hierarchy in &self.hierarchies {
            let parent = hierarchy.mount.join(&self.parent);
            let listed = fs::read_dir(&parent)
                .and_then(|entries| entries.map(|e| Ok(e?.file_name())).collect());
            let names: Vec<OsString> = match listed {
                // The parent goes with its last group.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(|error| {
                    io::Error::new(error.kind(), format!("read {}: {error}", parent.display()))
                })?,
            };
            found.extend(names.iter().filter_map(|name| {
                let (machine, start) = name.to_str()?.split_once('-')?;
                Some(RunKey {
                    machine: machine.parse().ok()?,
                    start: start.parse().ok()?,
                })
            }));
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }
}

// === impl Hierarchy ===

impl Hierarchy {
    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|have| have == controller)
    }

    fn version(&self) -> &'static dyn Version {
        if self.v2 { &v2::V2 } else { &v1::V1 }
    }
}

/// Groups of the first version may be busy for a moment after their last process has gone.
fn remove_group(group: &Path) -> io::Result<()> {
    for _ in 0..KILL_ROUNDS {
        match fs::remove_dir(group) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                std::thread::sleep(KILL_PAUSE);
            }
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::from_raw_os_error(libc::EBUSY))
}

/// Returns the processes of a group; one that is not there has none.
fn pids_in(group: &Path) -> io::Result<Vec<i32>> {
    let text = match fs::read_to_string(group.join("cgroup.procs")) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        // It was removed after it was opened.
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    Ok(text
        .lines()
        .filter_map(|line| line.parse().ok())
        // 0 stands for a process that this namespace cannot see.
        .filter(|pid| *pid > 0)
        .collect())
}

/// Kills a process if it still is in the group: its number may have gone to another meanwhile.
fn kill_member(group: &Path, pid: i32) {
    let Some(id) = Pid::from_raw(pid) else { return };
    // From here on the descriptor means one process, whoever gets the number later.
    let Ok(pidfd) = pidfd_open(id, PidfdFlags::empty()) else {
        return;
    };
    // What cannot be read now is tried again in the next round.
    if pids_in(group).is_ok_and(|pids| pids.contains(&pid)) {
        // It may have ended by itself.
        let _sent = pidfd_send_signal(&pidfd, Signal::KILL);
    }
}

/// Returns whether a write failed because its group has been removed meanwhile.
fn is_gone(error: &io::Error) -> bool {
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref());
    cause.is_some_and(|write: &WriteError| write.source.raw_os_error() == Some(libc::ENODEV))
}

pub(crate) fn write_value(path: &Path, value: &str) -> io::Result<()> {
    let written = fs::OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()));
    written.map_err(|source| {
        let kind = source.kind();
        let error = WriteError {
            path: path.to_owned(),
            value: value.to_owned(),
            source,
        };
        io::Error::new(kind, error)
    })
}

/// Keeps the kernel's number, by which it is told whether trying again can help.
#[derive(Debug, thiserror::Error)]
#[error("write {value:?} to {}: {source}", path.display())]
struct WriteError {
    path: PathBuf,
    value: String,
    source: io::Error,
}

fn parse_mounts(mountinfo: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let (Some(mount), mut right) = (left.split(' ').nth(4), right.split(' ')) else {
            continue;
        };
        let kind = right.next().unwrap_or_default();
        let mount = PathBuf::from(mount);
        let hierarchy = match kind {
            "cgroup2" => Hierarchy {
                v2: true,
                controllers: fs::read_to_string(mount.join("cgroup.controllers"))
                    .unwrap_or_default()
                    .split_ascii_whitespace()
                    .map(str::to_owned)
                    .collect(),
                mount,
            },
            "cgroup" => Hierarchy {
                v2: false,
                controllers: right
                    .nth(1)
                    .unwrap_or_default()
                    .split(',')
                    .filter(|option| !matches!(*option, "rw" | "ro" | "xattr" | "clone_children"))
                    .map(str::to_owned)
                    .collect(),
                mount,
            },
            _ => continue,
        };
        let known = |have: &Hierarchy| {
            have.v2 == hierarchy.v2 && (have.v2 || have.controllers == hierarchy.controllers)
        };
        if !found.iter().any(known) {
            found.push(hierarchy);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(mount: &Path) -> Layout {
        Layout {
            parent: "hangar".to_owned(),
            hierarchies: vec![Hierarchy {
                v2: true,
                mount: mount.to_owned(),
                controllers: Vec::new(),
            }],
        }
    }

    #[test]
    fn a_list_of_runs_is_whole_or_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let layout = layout(dir.path());
        assert!(layout.runs().unwrap().is_empty());
        fs::create_dir_all(dir.path().join("hangar/00000000000001-7")).unwrap();
        assert_eq!(layout.runs().unwrap()[0].start, 7);
        fs::remove_dir_all(dir.path().join("hangar")).unwrap();
        fs::write(dir.path().join("hangar"), "no directory").unwrap();
        let error = layout.runs().unwrap_err().to_string();
        assert!(error.contains("/hangar: "), "{error}");
    }

    #[test]
    fn hierarchies_of_both_versions_are_found_once() {
        let text = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /cg/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct
33 31 0:29 / /other/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct
40 31 0:37 / /cg/systemd rw,relatime shared:3 - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /cg/unified rw,relatime - cgroup2 cgroup2 rw";
        let found = parse_mounts(text);
        assert_eq!(found.len(), 3);
        assert_eq!(found[0].controllers, ["cpu", "cpuacct"]);
        assert_eq!(found[1].controllers, ["name=systemd"]);
        assert!(found[2].v2);
    }
}
