//! What a Machine can see and do.

use std::os::unix::fs::MetadataExt as _;

use hangar_host::runtime::Runtime as _;

use super::world;

#[tokio::test(flavor = "multi_thread")]
async fn capabilities_are_few_and_the_filter_is_on() {
    let Some(world) = world() else { return };
    let status = world.output("cat /proc/self/status").await;
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_ascii_whitespace().nth(1).unwrap().to_owned()
    };
    // Docker's default set without MKNOD (bit 27).
    let expected = format!("{:016x}", 0xa804_25fb_u64 & !(1 << 27));
    for name in ["CapPrm:", "CapEff:", "CapBnd:"] {
        assert_eq!(field(name), expected, "{name}");
    }
    assert_eq!(field("CapInh:"), "0000000000000000");
    assert_eq!(field("CapAmb:"), "0000000000000000");
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("Seccomp:"), "2");
    let mut plan = world.plan("cat /proc/self/status");
    plan.user = "1000".to_owned();
    let (_, said) = world.run(plan).await;
    assert!(
        said.contains(&"CapEff:\t0000000000000000".to_owned()),
        "{said:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executed_command_has_no_more_rights_than_the_program() {
    let Some(world) = world() else { return };
    let key = world.start(world.plan("exec sleep 1000")).await;
    let wanted = "cat /proc/self/status | grep -E 'Cap|Seccomp|NoNew'";
    let command = world.exec(&key, wanted).await.stdout;
    let program = world
        .exec(&key, "grep -E 'Cap|Seccomp|NoNew' /proc/2/status")
        .await;
    assert_eq!(command, program.stdout);
    // Nobody inside can look into init, which knows the secrets.
    for secret in [
        "cat /proc/1/environ",
        "cat /proc/1/mem",
        "busybox readlink /proc/1/fd/3",
        "ls /proc/1/fd/3/ | grep .",
    ] {
        let done = world.exec(&key, secret).await;
        assert_ne!(done.exit_code, 0, "{secret}");
        assert!(done.stdout.is_empty(), "{done:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_inside_can_change_the_file_that_init_runs_from() {
    let Some(world) = world() else { return };
    // The program is the very file of init, and root inside may look at its own processes.
    let plan = world.plan_of(&["/proc/self/exe", "wait"]);
    let key = world.start(plan).await;
    let exe = world.exec(&key, "busybox readlink /proc/2/exe").await;
    assert_eq!(exe.exit_code, 0, "{exe:?}");
    for attempt in [
        "busybox chmod 0 /proc/2/exe",
        "busybox chown 1 /proc/2/exe",
        "touch /proc/2/exe",
        "echo x >> /proc/2/exe",
    ] {
        let done = world.exec(&key, attempt).await;
        assert_ne!(done.exit_code, 0, "{attempt}");
        let refused = ["Read-only", "Text file busy"];
        let said = &done.stderr;
        assert!(
            refused.iter().any(|r| said.contains(r)),
            "{attempt}: {said}"
        );
    }
    assert_eq!(world.output("echo up").await, "up");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_descriptor_of_init_leads_up_to_the_host() {
    let Some(world) = world() else { return };
    let key = world.start(world.plan("echo ready; exec sleep 1000")).await;
    world.until_said(&key, "ready").await;
    let init = world.pids(&key).into_iter().min().unwrap();
    let place = |path: String| {
        let meta = std::fs::metadata(path).unwrap();
        (meta.dev(), meta.ino())
    };
    let mut seen = 0;
    for entry in std::fs::read_dir(format!("/proc/{init}/fd")).unwrap() {
        let fd = entry.unwrap().path();
        if fd.is_dir() {
            seen += 1;
            // Above the root of a mount that hangs nowhere there is nothing.
            let (here, above) = (
                fd.display().to_string(),
                fd.join("..").display().to_string(),
            );
            assert_eq!(place(here), place(above), "{}", fd.display());
        }
    }
    assert_eq!(seen, 2, "the run directory and the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_cgroup_file_can_be_seen_or_written() {
    let Some(world) = world() else { return };
    let script = "ls -A /sys/fs/cgroup | cat; \
        find / -name 'memory.limit_in_bytes' -o -name 'memory.max' -o -name cgroup.procs 2>/dev/null | cat; \
        mkdir /c; for t in cgroup cgroup2 tmpfs proc sysfs; do \
          mount -t $t x /c 2>/dev/null && echo mounted $t; done; \
        mount -o remount,rw /sys 2>/dev/null && echo remounted; \
        touch /sys/x 2>/dev/null && echo wrote; echo end";
    let script = script
        .replace("find ", "busybox find ")
        .replace("mkdir", "busybox mkdir");
    assert_eq!(world.output(&script).await, "end");
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_proc_and_sys_are_hidden_or_read_only() {
    let Some(world) = world() else { return };
    let script = "cat /proc/kcore /proc/keys /proc/timer_list /proc/interrupts 2>/dev/null; \
        ls -A /proc/scsi /sys/firmware 2>/dev/null | grep -v : | grep .; \
        (echo 1 > /proc/sys/kernel/panic) 2>/dev/null && echo wrote sys; \
        (echo h > /proc/sysrq-trigger) 2>/dev/null && echo wrote sysrq; \
        (echo x > /proc/sys/kernel/core_pattern) 2>/dev/null && echo wrote pattern; \
        cat /proc/mounts | grep -c ' / overlay'; grep -c /tmp/ /proc/mounts; true";
    assert_eq!(world.output(script).await, "1\n0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_has_processes_devices_a_name_and_files_of_its_own() {
    let Some(world) = world() else { return };
    let script = "echo $$; hostname; ls /dev; cat /dev/null; echo y > /dev/shm/x; ls -ld /tmp; \
        cat /etc/resolv.conf; grep -c fly-local-6pn /etc/hosts; ls /proc | grep -c '^[0-9]'";
    let plan = world.plan(script);
    let name = plan.hostname.clone();
    let (exit, said) = world.run(plan).await;
    assert_eq!(exit.exit_code, 0, "{said:?}");
    assert_eq!((said[0].as_str(), said[1].as_str()), ("2", name.as_str()));
    let devices = [
        "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin",
        "stdout", "tty", "urandom", "zero",
    ];
    assert_eq!(said[2..16], devices);
    assert!(said[16].starts_with("drwxrwxrwt"), "{}", said[16]);
    assert_eq!(said[17], "nameserver fdaa::3");
    assert_eq!(said[18], "1");
    // init, the shell, ls and grep.
    assert_eq!(said[19], "4");
}

#[tokio::test(flavor = "multi_thread")]
async fn links_in_an_image_lead_nowhere_else() {
    let Some(world) = world() else { return };
    let outside = world.dir.path().join("outside");
    std::fs::write(&outside, "untouched").unwrap();
    let image = world.dir.path().join("image");
    std::os::unix::fs::symlink(&outside, image.join("etc/resolv.conf")).unwrap();
    std::os::unix::fs::symlink("/proc/sys/kernel", image.join("trap")).unwrap();
    std::fs::create_dir_all(image.join("proc/sys/kernel")).unwrap();
    std::os::unix::fs::symlink("/srv", image.join("dev")).unwrap();
    let mut plan = world.plan("cat /etc/resolv.conf; ls -d /dev/null; ls /srv");
    plan.files = vec![("/trap/panic".into(), b"1".to_vec(), 0o644)];
    let before = std::fs::read_to_string("/proc/sys/kernel/panic").unwrap();
    let (exit, said) = world.run(plan).await;
    assert_eq!(exit.exit_code, 0, "{said:?}");
    assert_eq!(said, ["nameserver fdaa::3", "/dev/null"]);
    assert_eq!(std::fs::read_to_string(&outside).unwrap(), "untouched");
    assert_eq!(
        std::fs::read_to_string("/proc/sys/kernel/panic").unwrap(),
        before
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_image_is_not_changed_by_what_a_machine_writes() {
    let Some(world) = world() else { return };
    let script = "echo changed > /etc/plain; rm() { busybox rm \"$@\"; }; rm /bin/garbage";
    world.output(script).await;
    let image = world.dir.path().join("image");
    let plain = std::fs::read_to_string(image.join("etc/plain")).unwrap();
    assert_eq!(plain, "not a program");
    assert!(image.join("bin/garbage").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_run_directory_and_secrets_are_out_of_sight() {
    let Some(world) = world() else { return };
    let mut plan = world.plan("echo ready; exec sleep 1000");
    plan.env
        .insert("SECRET".to_owned(), "sesame-9f2".to_owned());
    let key = world.start(plan).await;
    world.until_said(&key, "ready").await;
    let done = world.exec(&key, "ls -l /proc/self/fd; ls /").await;
    assert!(
        !done.stdout.contains("lock") && !done.stdout.contains("sock"),
        "{done:?}"
    );
    let machine = world.dir.path().join("machines").join(key.machine.as_str());
    let run = machine.join("run/1");
    for entry in std::fs::read_dir(run).unwrap().flatten() {
        // A socket has nothing to read.
        let bytes = std::fs::read(entry.path()).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains("sesame-9f2"), "{:?}", entry.path());
    }
    world.runtime.remove(key).await.unwrap();
}
