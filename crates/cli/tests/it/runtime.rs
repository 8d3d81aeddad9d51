//! What a Machine is made of, seen from inside it and from the host: namespaces, limits, rights,
//! and a root of its own.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::busybox::{AWAIT_GO, file, shell_spec};
use crate::world::World;

const NAMESPACES: [&str; 6] = ["pid", "mnt", "net", "uts", "ipc", "cgroup"];

/// Returns a field of a text like `/proc/self/status`.
fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let line = line.unwrap_or_else(|| panic!("no {name} in\n{status}"));
    line.trim_start_matches(':').trim()
}

// --- namespaces --------------------------------------------------------------------------------

#[test]
fn every_machine_has_namespaces_of_its_own() {
    let Some(world) = World::with_shell() else {
        return;
    };
    let groups = "[processes]\none = \"/bin/sleep 100000\"\ntwo = \"/bin/sleep 100000\"\n";
    world.deploy_shell("spaces", "shell", groups);
    let inside = |group: &str, of: &str| -> Vec<String> {
        let id = world.only("spaces", group);
        let script = format!(
            "for n in {}; do readlink /proc/{of}/ns/$n; done",
            NAMESPACES.join(" ")
        );
        let said = world.said("spaces", &id, &script);
        said.lines().map(str::to_owned).collect()
    };
    let links = |place: &str| -> Vec<String> {
        let link = |name: &&str| std::fs::read_link(format!("{place}/ns/{name}")).unwrap();
        let all = NAMESPACES.iter().map(link);
        all.map(|path| path.to_string_lossy().into_owned())
            .collect()
    };
    let (one, two) = (inside("one", "self"), inside("two", "self"));
    // The world has a network of its own already: the server's is the one to be kept from.
    let server = links(&format!("/proc/{}", world.server_pid()));
    let places = [&one, &two, &links("/proc/self"), &server];
    for (at, name) in NAMESPACES.iter().enumerate() {
        let distinct: BTreeSet<&String> = places[..3].iter().map(|links| &links[at]).collect();
        assert_eq!(distinct.len(), 3, "{name}: {places:?}");
        assert!(
            one[at] != server[at] && two[at] != server[at],
            "{name}: {places:?}"
        );
    }
    // A command is where the program is, and that is where the host sees it.
    assert_eq!(inside("one", "2"), one);
    let init = world.init_of(&world.only("spaces", "one"));
    assert_eq!(links(&format!("/proc/{init}")), one);
}

#[test]
fn init_is_process_1_and_nobody_elses_processes_are_seen() {
    let Some(world) = World::with_shell() else {
        return;
    };
    let id = world.shell_app("first", "");
    let said = |script: &str| world.said("first", &id, script);
    let words = |pid: u32| said(&format!("cat /proc/{pid}/cmdline | tr '\\0' ' '"));
    assert!(words(1).starts_with("hangar-init "), "{}", words(1));
    assert!(words(2).ends_with("/bin/sleep 100000 "), "{}", words(2));
    let host = std::fs::read_to_string(format!("/proc/{}/status", world.init_of(&id))).unwrap();
    let numbers: Vec<&str> = field(&host, "NSpid").split_whitespace().collect();
    assert_eq!(numbers.last(), Some(&"1"), "{numbers:?}");
    // init, the program, the shell, and the two that look.
    let seen = said("ls /proc | grep -c '^[0-9]'");
    assert!(seen.trim().parse::<u32>().unwrap() <= 5, "{seen}");
    // Its name is its id.
    assert_eq!(said("hostname"), format!("{id}\n"));
    assert_eq!(said("cat /etc/hostname"), format!("{id}\n"));
    // It cannot be ended from inside.
    said("kill -9 1");
    assert_eq!(world.machine("first", &id)["state"], "started");
    // Nothing of the host's files can be told.
    let mounts = said("cat /proc/1/mounts /proc/self/mountinfo 2>/dev/null; true");
    let data = world.data_dir();
    assert!(mounts.contains(" / overlay"), "{mounts}");
    assert!(!mounts.contains(&*data.to_string_lossy()), "{mounts}");
}

// --- limits ------------------------------------------------------------------------------------

/// Returns the directory of a process's group in the hierarchy that has a controller.
fn group_of(pid: u32, controller: &str) -> PathBuf {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next().unwrap(), parts.next().unwrap());
        let v2 = controllers.is_empty();
        if !v2 && !controllers.split(',').any(|c| c == controller) {
            continue;
        }
        for mount in mounts.lines() {
            let (left, right) = mount.split_once(" - ").unwrap();
            let mut fields = left.split(' ').skip(3);
            let (root, place) = (fields.next().unwrap(), fields.next().unwrap());
            let kind = right.split(' ').next().unwrap();
            let options = right.rsplit(' ').next().unwrap();
            let fits = match kind {
                "cgroup2" => v2 && has_controller(place, controller),
                "cgroup" => !v2 && options.split(',').any(|o| o == controller),
                _ => false,
            };
            if fits {
                let below = path.strip_prefix(root).unwrap_or(path);
                return Path::new(place).join(below.trim_start_matches('/'));
            }
        }
    }
    panic!("process {pid} is in no group for {controller}:\n{groups}");
}

fn has_controller(mount: &str, controller: &str) -> bool {
    let all = std::fs::read_to_string(Path::new(mount).join("cgroup.controllers"));
    let all = all.unwrap_or_default();
    all.split_whitespace().any(|c| c == controller)
}

/// Returns the first of these files of a group that exists: versions name them differently.
fn value(group: &Path, names: [&str; 2]) -> String {
    let text = names
        .iter()
        .find_map(|name| std::fs::read_to_string(group.join(name)).ok());
    let text = text.unwrap_or_else(|| panic!("none of {names:?} in {}", group.display()));
    text.trim().to_owned()
}

/// Returns memory in MiB and CPUs that the host gives a process.
fn limits(pid: u32) -> (u64, f64) {
    let memory = value(
        &group_of(pid, "memory"),
        ["memory.max", "memory.limit_in_bytes"],
    );
    let cpu = group_of(pid, "cpu");
    let quota = match std::fs::read_to_string(cpu.join("cpu.cfs_period_us")) {
        Ok(period) => format!(
            "{} {period}",
            value(&cpu, ["cpu.cfs_quota_us", "cpu.cfs_quota_us"])
        ),
        Err(_) => value(&cpu, ["cpu.max", "cpu.max"]),
    };
    let numbers: Vec<f64> = quota
        .split_whitespace()
        .map(|n| n.parse().unwrap_or(f64::INFINITY))
        .collect();
    (
        memory.parse::<u64>().unwrap_or(u64::MAX) >> 20,
        numbers[0] / numbers[1],
    )
}

#[test]
fn a_machine_gets_the_memory_and_processors_of_its_size() {
    let Some(world) = World::with_shell() else {
        return;
    };
    let rest = "[processes]\nsmall = \"/bin/sleep 100000\"\nbig = \"/bin/sleep 100000\"\n\
                [[vm]]\nmemory = \"256mb\"\nprocesses = [\"small\"]\n\
                [[vm]]\nmemory = \"512mb\"\ncpus = 2\nprocesses = [\"big\"]\n";
    world.deploy_shell("sized", "shell", rest);
    let (small, big) = (world.only("sized", "small"), world.only("sized", "big"));
    assert_eq!(limits(world.init_of(&small)), (256, 1.0));
    assert_eq!(limits(world.init_of(&big)), (512, 2.0));
    let pids = group_of(world.init_of(&small), "pids");
    assert!(
        value(&pids, ["pids.max", "pids.max"])
            .parse::<u32>()
            .is_ok()
    );
    // The program itself is in there, and what is executed beside it.
    let members = |id: &str| {
        let procs = group_of(world.init_of(id), "memory").join("cgroup.procs");
        std::fs::read_to_string(procs).unwrap().lines().count()
    };
    assert_eq!(members(&small), 2);
    world.said("sized", &small, "sleep 1000 >/dev/null 2>&1 & echo");
    assert_eq!(members(&small), 3);
    // From inside, its group is the root of all, and nothing can be written there.
    let inside = world.said("sized", &small, "cat /proc/self/cgroup");
    assert!(inside.lines().all(|line| line.ends_with(":/")), "{inside}");

    let before = group_of(world.init_of(&small), "memory");
    let size = ["--vm-size", "shared-cpu-4x"];
    let words = ["machine", "update", &small, "-a", "sized", "--yes"];
    world.ok(&[&words[..], &size].concat());
    assert_eq!(limits(world.init_of(&small)), (1024, 4.0));
    world.eventually("the group of the run before goes", |_| {
        (!before.exists()).then_some(())
    });
    let env = world.said("sized", &small, "env");
    assert!(env.contains("FLY_VM_MEMORY_MB=1024\n"), "{env}");
}

#[test]
fn what_takes_too_much_memory_is_killed_alone_and_told_of_by_name() {
    let Some(world) = World::with_shell() else {
        return;
    };
    let restart = "[[restart]]\npolicy = \"never\"\n";
    let id = world.shell_app("thirst", restart);
    // A command that is too big is killed, and the program goes on.
    let ate = world.exec("thirst", &id, &["eat", "400"]);
    assert_eq!(ate.code, 137, "{ate:?}");
    assert_eq!(world.machine("thirst", &id)["state"], "started");
    // That somebody else was killed before is not said of a program that ends well.
    // The command may be cut off by the end it brings about.
    let _cut_off = world.sh("thirst", &id, "kill -TERM 2");
    let ended = world.eventually("it ends", |world| {
        let machine = world.machine("thirst", &id);
        (machine["state"] == "stopped").then_some(machine)
    });
    let exit = &ended["events"].as_array().unwrap().iter();
    let exit = exit.clone().find(|e| e["type"] == "exit").unwrap();
    let exit = &exit["request"]["exit_event"];
    assert_ne!(exit["oom_killed"], true, "{exit}");
    assert_eq!(exit["exit_code"], 143, "{exit}");

    // Nor of one that has to be killed to be stopped.
    world.ok(&["machine", "start", &id, "-a", "thirst"]);
    assert_eq!(world.exec("thirst", &id, &["eat", "400"]).code, 137);
    let force = ["machine", "stop", &id, "-a", "thirst", "--signal", "KILL"];
    world.ok(&force);
    let status = world.ok(&["machine", "status", &id, "-a", "thirst"]).stdout;
    let told = "exit_code=137,oom_killed=false,requested_stop=true";
    assert!(status.contains(told), "{status}");
    let log = world.logs("thirst");
    assert!(!log.contains("OOM killed"), "{log}");

    let program = format!("/bin/sh -c '{AWAIT_GO}; exec /testapp eat 400'");
    let command = format!("[processes]\napp = \"{program}\"\n{restart}");
    let id = world.shell_app("glutton", &command);
    world.go("glutton", &id);
    let status = world.eventually("the program is killed", |world| {
        let words = ["machine", "status", &id, "-a", "glutton"];
        let status = world.ok(&words).stdout;
        status.contains("exit_code=").then_some(status)
    });
    let told = "exit_code=137,oom_killed=true,requested_stop=false";
    assert!(status.contains(told), "{status}");
    let log = world.logs("glutton");
    assert!(
        log.contains("Process appears to have been OOM killed!"),
        "{log}"
    );
}

// --- rights ------------------------------------------------------------------------------------

/// Docker's default list of capabilities but MKNOD: a Machine's devices are made for it.
const CAPABILITIES: u64 = 0xa804_25fb & !(1 << 27);

#[test]
fn programs_and_commands_have_few_rights_and_cannot_get_more() {
    let Some(world) = World::with_shell() else {
        return;
    };
    let Some(mut spec) = shell_spec() else { return };
    let busybox = spec.files.iter().find(|f| f.path == "/bin/busybox");
    let content = busybox.unwrap().content.clone();
    spec.files.push(file("/grow/busybox", 0o4755, content));
    spec.user = "1000".to_owned();
    world.import("user", &spec);
    world.deploy_shell("rights", "shell", "");
    world.deploy_shell("nobody", "user", "");
    let full = format!("{CAPABILITIES:016x}");
    let none = "0000000000000000".to_owned();
    for (app, pid, effective) in [
        ("rights", "2", &full),
        ("rights", "self", &full),
        ("nobody", "2", &none),
    ] {
        let id = world.only(app, "app");
        let status = world.said(app, &id, &format!("cat /proc/{pid}/status"));
        for (name, expected) in [
            ("CapEff", effective.as_str()),
            ("CapPrm", effective),
            ("CapBnd", &full),
            ("CapInh", &none),
            ("CapAmb", &none),
            ("NoNewPrivs", "1"),
            ("Seccomp", "2"),
        ] {
            assert_eq!(field(&status, name), expected, "{app} {pid} {name}");
        }
    }
    // A program that says it runs as root runs as who executes it. Only the program is that user:
    // commands are root's.
    let run = "[processes]\napp = \"/grow/busybox sh -c 'id -u; sleep 100000'\"\n";
    world.deploy_shell("grow", "user", run);
    world.eventually("it has said who it is", |world| {
        let said = world.app_lines("grow");
        assert!(
            said.len() <= 1 && said.iter().all(|l| l == "1000"),
            "{said:?}"
        );
        (said == ["1000"]).then_some(())
    });
}

#[test]
fn nothing_can_be_mounted_made_or_set_that_is_the_hosts() {
    let Some(world) = World::with_shell() else {
        return;
    };
    let id = world.shell_app("tame", "");
    let before = std::fs::read_to_string("/proc/sys/kernel/panic").unwrap();
    for script in [
        "mkdir -p /m; mount -t tmpfs none /m",
        "mkdir -p /m; mount -t proc none /m",
        "mount -o bind /bin /sbin",
        "mount -o remount,rw /sys",
        "umount /proc/kcore",
        "mknod /sda b 8 0",
        "mknod /tmp/mem c 1 1",
        "unshare -n true",
        "unshare -m true",
        "unshare -r true",
        "hostname other",
        "dmesg",
        "echo 1 > /proc/sys/kernel/panic",
        "echo h > /proc/sysrq-trigger",
        "echo x > /proc/sys/kernel/core_pattern",
        "echo 1 > /proc/sys/net/ipv4/ip_forward",
        "touch /sys/x",
        "mkdir /sys/fs/cgroup/x",
        "touch /proc/x",
        "busybox swapoff /dev/null",
        "busybox ip addr add 203.0.113.9/32 dev eth0",
        "busybox ip link set eth0 down",
        "busybox reboot -f",
        "busybox chroot /proc/1/root true",
        "cat /proc/1/environ",
        "cat /proc/1/mem",
        "readlink -v /proc/1/fd/3",
        "busybox chmod 0 /proc/1/exe",
        "dd if=/dev/null of=/proc/1/exe",
    ] {
        let ran = world.sh("tame", &id, script);
        assert_ne!(ran.code, 0, "{script}: {ran:?}");
        // It was refused, and did not fail for another reason.
        let refusals = [
            "not permitted",
            "denied",
            "Read-only",
            "No such file",
            "nonexistent",
        ];
        let said = &ran.stderr;
        assert!(
            refusals.iter().any(|r| said.contains(r)),
            "{script}: {said}"
        );
    }
    assert_eq!(world.machine("tame", &id)["state"], "started");
    let after = std::fs::read_to_string("/proc/sys/kernel/panic").unwrap();
    assert_eq!(after, before);
    assert!(!Path::new("/sys/x").exists());
    // What it may do with rights that it kept.
    world.said(
        "tame",
        &id,
        "touch /x && busybox chown 5:6 /x && busybox chmod 600 /x && chroot / true",
    );
}

#[test]
fn parts_of_proc_and_sys_are_hidden() {
    let Some(world) = World::with_shell() else {
        return;
    };
    let id = world.shell_app("hidden", "");
    // What this kernel has at all is found on the host, so that nothing is asserted of what is
    // not there.
    let (mut files, mut folders) = (Vec::new(), Vec::new());
    for path in [
        "/proc/kcore",
        "/proc/keys",
        "/proc/timer_list",
        "/proc/interrupts",
        "/proc/sched_debug",
        "/proc/latency_stats",
        "/proc/timer_stats",
        "/proc/acpi",
        "/proc/asound",
        "/proc/scsi",
        "/sys/firmware",
        "/sys/devices/virtual/powercap",
    ] {
        match std::fs::metadata(path) {
            Ok(meta) if meta.is_dir() => folders.push(path),
            Ok(_) => files.push(path),
            Err(_) => {}
        }
    }
    assert!(files.contains(&"/proc/keys") || files.contains(&"/proc/kcore"));
    let said = |script: &str| world.said("hidden", &id, script);
    assert_eq!(said(&format!("head -c 10 {} | wc -c", files[0])), "0\n");
    for path in &files {
        let size = said(&format!("cat {path} 2>/dev/null | wc -c"));
        assert_eq!(size.trim(), "0", "{path}");
    }
    for path in &folders {
        assert_eq!(said(&format!("ls -A {path}")), "", "{path}");
    }
    let options = said("cat /proc/mounts");
    for (place, option) in [
        ("/sys", "ro"),
        ("/proc/sys", "ro"),
        ("/proc/sysrq-trigger", "ro"),
        ("/proc/irq", "ro"),
        ("/", "nodev"),
        ("/dev", "nosuid"),
        ("/proc", "nosuid"),
    ] {
        let of_place = |line: &&str| line.split(' ').nth(1) == Some(place);
        // The one that was mounted last is the one that is seen.
        let Some(line) = options.lines().rfind(of_place) else {
            assert!(!Path::new(place).exists(), "{place} is no mount: {options}");
            continue;
        };
        let options = line.split(' ').nth(3).unwrap();
        assert!(options.split(',').any(|o| o == option), "{line}");
    }
}

// --- the root ----------------------------------------------------------------------------------

#[test]
fn devices_are_the_usual_ones_and_can_be_used() {
    let Some(world) = World::with_shell() else {
        return;
    };
    let id = world.shell_app("devices", "");
    let said = |script: &str| world.said("devices", &id, script);
    let usual = "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero";
    let found: Vec<String> = said("ls /dev").lines().map(str::to_owned).collect();
    assert_eq!(found.join(" "), usual);
    let nodes = said("find /dev -type b -o -type c | sort");
    let expected: Vec<&str> = vec![
        "/dev/full",
        "/dev/null",
        "/dev/pts/ptmx",
        "/dev/random",
        "/dev/tty",
        "/dev/urandom",
        "/dev/zero",
    ];
    assert_eq!(nodes.lines().collect::<Vec<_>>(), expected);
    assert_eq!(said("echo x > /dev/null; cat /dev/null"), "");
    assert_eq!(said("head -c 5 /dev/zero | wc -c"), "5\n");
    assert_eq!(said("head -c 9 /dev/urandom | wc -c"), "9\n");
    assert_eq!(said("echo out > /dev/stdout"), "out\n");
    let full = world.sh("devices", &id, "echo x > /dev/full");
    assert_ne!(full.code, 0, "{full:?}");
    said("echo x > /dev/shm/x && cat /dev/shm/x");
}

#[test]
fn tmp_hosts_and_resolver_are_there_also_for_a_user_without_rights() {
    let Some(world) = World::with_shell() else {
        return;
    };
    let Some(mut spec) = shell_spec() else { return };
    // What an image brings of these files is not what a Machine has.
    for path in ["/etc/hosts", "/etc/resolv.conf", "/etc/hostname"] {
        spec.files.push(file(path, 0o644, "of the image\n"));
    }
    spec.user = "1000:1000".to_owned();
    world.import("user", &spec);
    let command = "[processes]\napp = \"/bin/sh -c 'echo mine > /tmp/x && cat /tmp/x; \
                   cat /etc/resolv.conf; touch /etc/no && echo wrote; sleep 100000'\"\n";
    world.deploy_shell("files", "user", command);
    let id = world.only("files", "app");
    world.eventually("the program has looked", |world| {
        let said = world.app_lines("files");
        let done = said.len() >= 3;
        assert!(!said.iter().any(|l| l == "wrote"), "{said:?}");
        done.then(|| assert_eq!(said[..2], ["mine", "nameserver fdaa::3"]))
    });
    let said = |script: &str| world.said("files", &id, script);
    assert_eq!(said("stat -c '%a %u' /tmp"), "1777 0\n");
    assert_eq!(said("stat -c '%a %u' /etc/hosts"), "644 0\n");
    assert_eq!(said("cat /etc/resolv.conf"), "nameserver fdaa::3\n");
    let machine = world.machine("files", &id);
    let address = machine["private_ip"].as_str().unwrap();
    let hosts = said("cat /etc/hosts");
    let has = |address: &str, name: &str| {
        let mut lines = hosts.lines();
        lines.any(|line| {
            let mut words = line.split_whitespace();
            words.next() == Some(address) && words.any(|word| word == name)
        })
    };
    assert!(has("127.0.0.1", "localhost"), "{hosts}");
    assert!(has("::1", "localhost"), "{hosts}");
    assert!(has(address, "fly-local-6pn"), "{hosts}");
    assert!(has(address, &id), "{hosts}");
    assert!(!hosts.contains("of the image"), "{hosts}");
}

#[test]
fn what_a_machine_writes_is_its_own_and_goes_with_its_run() {
    let Some(world) = World::with_shell() else {
        return;
    };
    let groups = "[processes]\none = \"/bin/sleep 100000\"\ntwo = \"/bin/sleep 100000\"\n";
    world.deploy_shell("apart", "shell", groups);
    let (one, two) = (world.only("apart", "one"), world.only("apart", "two"));
    let write = "echo changed > /bin/true; echo new > /new; rm /bin/false; mkdir /d; \
                 echo x > /tmp/x; echo x > /dev/shm/x";
    let look = "cat /bin/true; ls -d /new /d /tmp/x /dev/shm/x /bin/false 2>/dev/null; true";
    let clean = world.said("apart", &one, look);
    assert!(clean.contains("#!/bin/busybox"), "{clean}");
    assert!(clean.ends_with("/bin/false\n"), "{clean}");
    world.said("apart", &one, write);
    assert_ne!(world.said("apart", &one, look), clean);
    assert_eq!(world.said("apart", &two, look), clean);
    // Neither is the image changed for a Machine that comes later, nor for the next run of this one.
    let ran = world.ok(&["machine", "clone", &one, "-a", "apart"]);
    let clone = ran.stdout.trim();
    assert_eq!(world.said("apart", clone, look), clean);
    world.ok(&["machine", "restart", &one, "-a", "apart"]);
    assert_eq!(world.said("apart", &one, look), clean);
}

#[test]
fn output_of_a_command_that_is_too_long_is_not_taken_for_all_of_it() {
    let Some(world) = World::with_shell() else {
        return;
    };
    let id = world.shell_app("wordy", "");
    let ran = world.sh("wordy", &id, "yes | head -c 1048576");
    assert_eq!((ran.code, ran.stdout.len()), (0, 1 << 20), "{}", ran.stderr);
    let ran = world.sh("wordy", &id, "yes | head -c 1048577");
    assert_eq!((ran.code, ran.stdout.len()), (1, 1 << 20), "{}", ran.stderr);
    assert!(ran.stderr.contains("cut at 1 MiB"), "{}", ran.stderr);
}
