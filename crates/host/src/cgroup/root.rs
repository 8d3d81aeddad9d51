//! The root of a run's file system, as its `init` sees it.
//!
//! A run's programs may do what they like with process numbers and with their socket: only a
//! process that is in the run's group is believed, as by [`Layout::kill_once`].

use std::fs::{self, File};
use std::io;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::{Layout, pids_in};
use crate::runtime::RunKey;

impl Layout {
    /// Returns the root, or `None` where no `init` of the run lives.
    pub fn root(&self, key: &RunKey) -> io::Result<Option<File>> {
        for hierarchy in &self.hierarchies {
            let group = self.group(hierarchy, key);
            for pid in pids_in(&group)?.into_iter().filter(|pid| is_init(*pid)) {
                if let Some(root) = root_of(&group, pid)? {
                    return Ok(Some(root));
                }
            }
        }
        Ok(None)
    }
}

/// Returns whether a process is the first of a namespace of processes just below this one.
fn is_init(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status"));
    status.is_ok_and(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("NSpid:"));
        let mut numbers = line.unwrap_or_default().split_whitespace().skip(1);
        numbers.next() == Some("1") && numbers.next().is_none()
    })
}

/// Returns the root of a process that is in the group, or `None` where it is not, or is gone.
fn root_of(group: &Path, pid: i32) -> io::Result<Option<File>> {
    let Some(id) = Pid::from_raw(pid) else {
        return Ok(None);
    };
    // From here on the descriptor means one process, whoever gets the number later.
    let pidfd = match pidfd_open(id, PidfdFlags::empty()) {
        Err(Errno::SRCH) => return Ok(None),
        opened => opened?,
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = match rustix::fs::open(format!("/proc/{pid}/root"), flags, Mode::empty()) {
        Err(Errno::SRCH | Errno::NOENT) => return Ok(None),
        opened => File::from(opened?),
    };
    let is_member = pids_in(group)?.contains(&pid);
    // While it lives, the number is its own: it was when the root was opened, and in the group.
    let mut ended = [PollFd::new(&pidfd, PollFlags::IN)];
    let lives = poll(&mut ended, Some(&Timespec::default()))? == 0;
    Ok((is_member && lives).then_some(root))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_process_of_the_group_that_lives_is_believed() {
        let group = tempfile::tempdir().unwrap();
        let procs = group.path().join("cgroup.procs");
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert!(!is_init(pid), "it has no namespace of its own");
        // In another group.
        fs::write(&procs, "1\n").unwrap();
        assert!(root_of(group.path(), pid).unwrap().is_none());
        fs::write(&procs, format!("1\n{pid}\n")).unwrap();
        assert!(root_of(group.path(), pid).unwrap().is_some());
        // It has ended, and its number is still there.
        child.kill().unwrap();
        let mut info = None;
        while info.is_none() {
            let id = rustix::process::WaitId::Pid(Pid::from_child(&child));
            let options =
                rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
            info = rustix::process::waitid(id, options).unwrap();
        }
        assert!(!matches!(root_of(group.path(), pid), Ok(Some(_))));
        child.wait().unwrap();
        assert!(root_of(group.path(), pid).unwrap().is_none());
    }
}
