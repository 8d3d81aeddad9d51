//! The processes of a run, read from `/proc`. What has ended meanwhile is left out.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use hangar_api::process::{ListenSocket, Process};

use super::{Layout, pids_in};
use crate::runtime::RunKey;

/// Most processes that are listed, and most sockets of one.
const MAX_LISTED: usize = 1000;
/// Most bytes of a command.
const MAX_COMMAND: usize = 4096;
/// The tables of sockets: protocol and the state of one that takes what comes.
const TABLES: [(&str, &str); 4] = [("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")];

/// Sockets that listen, by their inode.
type Sockets = BTreeMap<u64, ListenSocket>;

impl Layout {
    /// Returns the processes of a run, those of its `init` included. Blocks on `/proc`.
    pub fn processes(&self, key: &RunKey) -> io::Result<Vec<Process>> {
        let Some(hierarchy) = self.hierarchies.first() else {
            let text = "this machine has no control groups to find processes by";
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        };
        let pids = pids_in(&self.group(hierarchy, key))?;
        let proc = Path::new("/proc");
        let Some(first) = pids.first() else {
            return Ok(Vec::new());
        };
        let uptime = uptime(proc).unwrap_or_default();
        // All of them are in one network.
        let sockets = sockets(&proc.join(first.to_string()).join("net"));
        let listed = pids.iter().take(MAX_LISTED);
        let look = |pid: &i32| process(&proc.join(pid.to_string()), uptime, &sockets);
        Ok(listed.filter_map(look).collect())
    }
}

/// Returns the hundredths of a second since the machine booted.
fn uptime(proc: &Path) -> Option<u64> {
    let text = fs::read_to_string(proc.join("uptime")).ok()?;
    let (seconds, rest) = text.split_once('.')?;
    let hundredths = rest.split_ascii_whitespace().next()?;
    Some(seconds.parse::<u64>().ok()? * 100 + hundredths.parse::<u64>().ok()?)
}

fn process(dir: &Path, uptime: u64, sockets: &Sockets) -> Option<Process> {
    let stat = fs::read_to_string(dir.join("stat")).ok()?;
    // A name may hold spaces and brackets: what follows is counted from the last of them.
    let (head, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at - 3)?.parse::<u64>().ok();
    let (utime, stime, began) = (number(14)?, number(15)?, number(22)?);
    let rtime = uptime.saturating_sub(began);
    let status = fs::read_to_string(dir.join("status")).ok()?;
    let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let resident = line("VmRSS:").and_then(|text| {
        let kib = text.split_ascii_whitespace().next()?;
        kib.parse::<u64>().ok()
    });
    let pid = line("NSpid:")?
        .split_ascii_whitespace()
        .last()?
        .parse()
        .ok()?;
    let command = fs::read(dir.join("cmdline")).unwrap_or_default();
    let name = head.split_once('(').map_or("", |(_, name)| name);
    let directory = fs::read_link(dir.join("cwd")).unwrap_or_else(|_| PathBuf::new());
    Some(Process {
        pid,
        stime,
        rtime,
        command: command_of(&command, name),
        directory: directory.to_string_lossy().into_owned(),
        cpu: (utime + stime) * 100 / rtime.max(1),
        // A thread of the kernel has none.
        rss: resident.unwrap_or(0).saturating_mul(1024),
        listen_sockets: sockets_of(&dir.join("fd"), sockets),
    })
}

/// Returns a command line; one without is its name in brackets, as `ps` has it.
fn command_of(bytes: &[u8], name: &str) -> String {
    let cut = &bytes[..bytes.len().min(MAX_COMMAND)];
    let words = cut.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
    if words.is_empty() {
        return format!("[{name}]");
    }
    words.join(" ")
}

fn sockets_of(dir: &Path, sockets: &Sockets) -> Vec<ListenSocket> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let inodes = entries.filter_map(|entry| {
        let target = fs::read_link(entry.path()).ok()?;
        let inner = target.to_str()?.strip_prefix("socket:[")?;
        inner.strip_suffix(']')?.parse::<u64>().ok()
    });
    let mut found: Vec<_> = inodes
        .filter_map(|inode| sockets.get(&inode))
        .cloned()
        .collect();
    found.sort();
    found.dedup();
    found.truncate(MAX_LISTED);
    found
}

fn sockets(net: &Path) -> Sockets {
    let mut found = Sockets::new();
    for (proto, state) in TABLES {
        let text = fs::read_to_string(net.join(proto)).unwrap_or_default();
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let (Some(local), Some(is), Some(inode)) =
                (fields.get(1), fields.get(3), fields.get(9))
            else {
                continue;
            };
            if *is != state {
                continue;
            }
            if let (Some(address), Ok(inode)) = (address(local), inode.parse()) {
                let socket = ListenSocket {
                    proto: proto.to_owned(),
                    address: address.to_string(),
                };
                found.insert(inode, socket);
            }
        }
    }
    found
}

/// Reads an address as the kernel writes it: words of the machine's own byte order, in hexadecimal.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let word = u32::from_str_radix(ip.get(at..at + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    match ip.len() {
        8 => Some((Ipv4Addr::from(word(0)?), port).into()),
        32 => {
            let mut bytes = [0; 16];
            for index in 0..4 {
                bytes[index * 4..index * 4 + 4].copy_from_slice(&word(index * 8)?);
            }
            Some((Ipv6Addr::from(bytes), port).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_with_what_it_listens_on() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let proc = Path::new("/proc/self");
        let sockets = sockets(&proc.join("net"));
        let uptime = uptime(Path::new("/proc")).unwrap();
        let found = process(proc, uptime, &sockets).unwrap();
        assert!(found.pid > 0 && found.rss > 4096, "{found:?}");
        let directory = std::env::current_dir().unwrap();
        assert_eq!(found.directory, directory.to_string_lossy());
        let mine = ListenSocket {
            proto: "tcp".to_owned(),
            address: listener.local_addr().unwrap().to_string(),
        };
        assert!(found.listen_sockets.contains(&mine), "{found:?}");
        assert!(process(Path::new("/proc/0"), uptime, &sockets).is_none());
    }

    #[test]
    fn addresses_and_commands_are_read_as_the_kernel_writes_them() {
        let local = u32::from_ne_bytes([127, 0, 0, 1]);
        let read = address(&format!("{local:08X}:1F90")).unwrap();
        assert_eq!(read.to_string(), "127.0.0.1:8080");
        assert_eq!(address("junk"), None);
        assert_eq!(command_of(b"/bin/a\0-b\0c d\0", "a"), "/bin/a -b c d");
        assert_eq!(command_of(b"", "kworker"), "[kworker]");
    }
}
