//! What this machine offers, found out once: a value that others take as an argument and that
//! `doctor` prints. What is missing is said in a sentence, with the command that mends it.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, getrlimit};
use rustix::thread::{CapabilitySet, capabilities};
use serde::Serialize;

use crate::cgroup::Layout;

/// Fewer open files than this make a busy host refuse connections.
const WANTED_FILES: u64 = 4096;
/// Where `nft` is looked for.
const PROGRAM_DIRS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// What this machine offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Probe {
    /// Whether we are root with the rights to make containers.
    pub root: bool,
    /// How control groups are mounted.
    pub cgroups: CgroupKind,
    /// Whether containers can be made.
    pub containers: bool,
    /// Whether containers can be connected to the host's network.
    pub network: bool,
    /// The `nft` program.
    pub nft: Option<PathBuf>,
    /// Most files that one of our processes may open.
    pub open_files: u64,
    /// User ids that are set aside for others to map: (first, count).
    pub subordinate_ids: Option<(u32, u32)>,
    /// Every look, in the order in which it matters.
    pub findings: Vec<Finding>,
}

/// How control groups are mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CgroupKind {
    /// Not at all.
    None,
    /// The first version only.
    V1,
    /// Both: limits by the first.
    Hybrid,
    /// The second version only.
    V2,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, but less well.
    Degraded,
    /// Machines cannot run.
    Missing,
}

/// One look at the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at: "control groups".
    pub what: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// The same in a sentence.
    pub sentence: String,
    /// The command that mends it.
    pub mend: Option<String>,
}

// === impl Probe ===

impl Probe {
    /// Looks at this machine. Reads files only, changes nothing and starts nothing.
    #[must_use]
    pub fn new(data_dir: &Path) -> Self {
        let layout = Layout::probe(String::new()).ok();
        let cgroups = cgroup_kind(layout.as_ref());
        let nft = find_program("nft");
        let limit = getrlimit(Resource::Nofile).maximum;
        let open_files = limit.unwrap_or(u64::MAX);
        let root = has_rights();
        let mut findings = vec![
            root_finding(root),
            cgroup_finding(cgroups, layout.as_ref()),
            overlay_finding(data_dir),
        ];
        findings.extend(namespace_findings());
        let containers = findings
            .iter()
            .all(|finding| finding.verdict != Verdict::Missing);
        findings.push(nft_finding(nft.as_deref()));
        findings.push(forward_finding());
        findings.push(volume_finding());
        findings.push(swap_finding(layout.as_ref()));
        findings.push(files_finding(open_files));
        findings.push(reaper_finding());
        Self {
            root,
            cgroups,
            containers,
            network: containers && nft.is_some(),
            nft,
            open_files,
            subordinate_ids: subordinate_ids(),
            findings,
        }
    }

    /// Returns the findings that keep Machines from running.
    pub fn missing(&self) -> impl Iterator<Item = &Finding> {
        self.findings
            .iter()
            .filter(|finding| finding.verdict == Verdict::Missing)
    }
}

// === impl Finding ===

impl Finding {
    fn ok(what: &'static str, sentence: impl Into<String>) -> Self {
        Self {
            what,
            verdict: Verdict::Ok,
            sentence: sentence.into(),
            mend: None,
        }
    }

    fn degraded(what: &'static str, sentence: impl Into<String>, mend: &str) -> Self {
        Self {
            verdict: Verdict::Degraded,
            mend: Some(mend.to_owned()),
            ..Self::ok(what, sentence)
        }
    }

    fn missing(what: &'static str, sentence: impl Into<String>, mend: &str) -> Self {
        Self {
            verdict: Verdict::Missing,
            ..Self::degraded(what, sentence, mend)
        }
    }
}

fn has_rights() -> bool {
    let needed = CapabilitySet::SYS_ADMIN
        | CapabilitySet::NET_ADMIN
        | CapabilitySet::MKNOD
        | CapabilitySet::SETPCAP
        | CapabilitySet::DAC_OVERRIDE;
    rustix::process::geteuid().is_root()
        && capabilities(None).is_ok_and(|sets| sets.effective.contains(needed))
}

fn root_finding(root: bool) -> Finding {
    let what = "rights";
    if root {
        Finding::ok(what, "running as root")
    } else {
        Finding::missing(
            what,
            "Machines are made by root; this process has not root's rights",
            "sudo hangar server",
        )
    }
}

fn cgroup_kind(layout: Option<&Layout>) -> CgroupKind {
    let hierarchies = layout.map_or(&[][..], |layout| &layout.hierarchies);
    let v1 = hierarchies
        .iter()
        .any(|have| !have.v2 && have.controllers.iter().any(|name| name == "memory"));
    let v2 = hierarchies.iter().any(|have| have.v2);
    match (v1, v2) {
        (true, true) => CgroupKind::Hybrid,
        (true, false) => CgroupKind::V1,
        (false, true) => CgroupKind::V2,
        (false, false) => CgroupKind::None,
    }
}

fn cgroup_finding(kind: CgroupKind, layout: Option<&Layout>) -> Finding {
    let what = "control groups";
    let mount = "mount -t cgroup2 cgroup2 /sys/fs/cgroup";
    let Some(layout) = layout.filter(|_| kind != CgroupKind::None) else {
        let sentence = "no control groups are mounted: Machines cannot be limited";
        return Finding::missing(what, sentence, mount);
    };
    let lacking: Vec<&str> = ["cpu", "memory", "pids"]
        .into_iter()
        .filter(|name| layout.with_controller(name).is_none())
        .collect();
    let read_only = layout.hierarchies.iter().find(|hierarchy| {
        let access = rustix::fs::Access::WRITE_OK;
        rustix::fs::access(&hierarchy.mount, access).is_err()
    });
    if let Some(hierarchy) = read_only {
        let sentence = format!("{} cannot be written to", hierarchy.mount.display());
        let mend = format!("mount -o remount,rw {}", hierarchy.mount.display());
        return Finding::missing(what, sentence, &mend);
    }
    let version = match kind {
        CgroupKind::V1 => "version 1",
        CgroupKind::Hybrid => "versions 1 and 2",
        CgroupKind::V2 | CgroupKind::None => "version 2",
    };
    if lacking.is_empty() {
        return Finding::ok(what, format!("{version}, with cpu, memory and pids"));
    }
    let sentence = format!("{version}, without {}: not limited", lacking.join(", "));
    Finding::degraded(what, sentence, "boot with cgroup_enable=memory")
}

fn overlay_finding(data_dir: &Path) -> Finding {
    let what = "overlayfs";
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !known.lines().any(|line| line.ends_with("\toverlay")) {
        let sentence = "this kernel has no overlayfs, or has not loaded it";
        return Finding::missing(what, sentence, "modprobe overlay");
    }
    let existing = data_dir.ancestors().find(|dir| dir.exists());
    let overlay_magic = 0x794c_7630;
    let on_overlay = existing
        .and_then(|dir| rustix::fs::statfs(dir).ok())
        .is_some_and(|stat| stat.f_type == overlay_magic);
    if on_overlay {
        return Finding::missing(
            what,
            "the data directory is on overlayfs itself, which cannot hold writable layers",
            "hangar server --data-dir DIR, on a disk or a volume",
        );
    }
    Finding::ok(what, "present")
}

fn namespace_findings() -> Vec<Finding> {
    let lacking: Vec<&str> = ["pid", "mnt", "net", "uts", "ipc", "cgroup"]
        .into_iter()
        .filter(|name| !Path::new("/proc/self/ns").join(name).exists())
        .collect();
    let what = "namespaces";
    if lacking.is_empty() {
        return vec![Finding::ok(what, "all kinds are present")];
    }
    let sentence = format!("this kernel lacks namespaces: {}", lacking.join(", "));
    let mend = "use a kernel with CONFIG_NAMESPACES and all its kinds";
    vec![Finding::missing(what, sentence, mend)]
}

fn find_program(name: &str) -> Option<PathBuf> {
    PROGRAM_DIRS
        .iter()
        .map(|dir| Path::new(dir).join(name))
        .find(|path| path.exists())
}

fn nft_finding(nft: Option<&Path>) -> Finding {
    let what = "nft";
    match nft {
        Some(path) => Finding::ok(what, format!("{}", path.display())),
        None => Finding::missing(
            what,
            "the nft program is not installed: Machines cannot be kept apart on the network",
            "apt-get install nftables",
        ),
    }
}

fn forward_finding() -> Finding {
    let what = "forwarding";
    let off: Vec<&str> = ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"]
        .into_iter()
        .filter(|name| {
            let value = fs::read_to_string(Path::new("/proc/sys").join(name));
            !value.is_ok_and(|value| value.trim() == "1")
        })
        .collect();
    if off.is_empty() {
        return Finding::ok(what, "on for IPv4 and IPv6");
    }
    let names: Vec<String> = off.iter().map(|name| name.replace('/', ".")).collect();
    let mend: Vec<String> = names.iter().map(|name| format!("{name}=1")).collect();
    Finding::degraded(
        what,
        format!("{} is off; the server turns it on", names.join(" and ")),
        &format!("sysctl -w {}", mend.join(" ")),
    )
}

fn volume_finding() -> Finding {
    let what = "volumes";
    let programs = ["mkfs.ext4", "resize2fs"].into_iter();
    if let Some(lacking) = programs.clone().find(|name| find_program(name).is_none()) {
        let sentence = format!("{lacking} is not installed: volumes cannot be made or extended");
        return Finding::degraded(what, sentence, "apt-get install e2fsprogs");
    }
    if !Path::new("/dev/loop-control").exists() {
        let sentence = "this machine offers no loop devices: volumes cannot be mounted";
        return Finding::degraded(what, sentence, "modprobe loop");
    }
    let may_extend =
        capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_RESOURCE));
    if !may_extend {
        return Finding::degraded(
            what,
            "this process lacks CAP_SYS_RESOURCE: a volume that is extended while its Machine runs \
             has the room after a restart of that Machine",
            "sudo hangar server",
        );
    }
    Finding::ok(what, "loop devices and e2fsprogs are there")
}

/// Swap is only of use to Machines that ask for it.
fn swap_finding(layout: Option<&Layout>) -> Finding {
    let what = "swap";
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("SwapTotal:"))
        .and_then(|rest| rest.split_ascii_whitespace().next()?.parse::<u64>().ok())
        .unwrap_or(0);
    if total == 0 {
        let sentence = "this machine has none: swap_size_mb gives Machines nothing";
        return Finding::ok(what, sentence);
    }
    let accounts = layout.and_then(|layout| {
        let memory = layout.with_controller("memory")?;
        let counted = |dir: PathBuf| dir.join("memory.memsw.limit_in_bytes").exists();
        Some(memory.v2 || counted(memory.mount.clone()))
    });
    let mb = total / 1024;
    if accounts == Some(true) {
        return Finding::ok(what, format!("{mb} MB, for Machines with swap_size_mb"));
    }
    let sentence = format!("{mb} MB, not counted by Machine: all of them may use it");
    Finding::degraded(what, sentence, "boot with swapaccount=1")
}

fn files_finding(limit: u64) -> Finding {
    let what = "open files";
    if limit < WANTED_FILES {
        let sentence = format!("only {limit} files may be open: few connections can be carried");
        return Finding::degraded(what, sentence, "ulimit -n 65536");
    }
    Finding::ok(what, format!("up to {limit}"))
}

fn reaper_finding() -> Finding {
    let what = "orphans";
    let first = fs::read_to_string("/proc/1/comm").unwrap_or_default();
    let first = first.trim();
    if rustix::process::getpid().as_raw_nonzero().get() == 1 {
        return Finding::degraded(
            what,
            "we are process 1 here and nobody reaps what other processes leave",
            "docker run --init",
        );
    }
    Finding::ok(what, format!("reaped by process 1 ({first})"))
}

/// Returns root's subordinate user ids of `/etc/subuid`.
fn subordinate_ids() -> Option<(u32, u32)> {
    let text = fs::read_to_string("/etc/subuid").ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.trim().split(':');
        if !matches!(fields.next(), Some("root" | "0")) {
            return None;
        }
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_wrong_comes_with_a_way_to_mend_it() {
        let probe = Probe::new(Path::new("/var/lib/hangar"));
        for finding in &probe.findings {
            assert!(!finding.sentence.is_empty(), "{finding:?}");
            let mended = finding.mend.is_some() || finding.verdict == Verdict::Ok;
            assert!(mended, "{finding:?}");
        }
        assert!(probe.open_files > 0);
        if !probe.root {
            assert!(probe.missing().any(|finding| finding.what == "rights"));
        }
    }
}
