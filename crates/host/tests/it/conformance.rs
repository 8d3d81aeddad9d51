//! The promises of a runtime, tried on the fake and on real containers.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use hangar_api::env::Env;
use hangar_host::runtime::container::{ContainerRuntime, Settings};
use hangar_host::runtime::fake::FakeRuntime;
use hangar_host::runtime::{Limits, RunKey, RunNet, Runtime, StartPlan};
use hangar_testkit::conformance::runtime::{Behaviour, Subject, run};

const BUSYBOX: &str = "/bin/busybox";

/// Returns a plan with a key and addresses that no other test of this machine uses now.
fn plan(dir: &Path, argv: &[&str]) -> StartPlan {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let process = std::process::id() & 0xffff;
    let id = format!("c04f00{process:04x}{number:04x}");
    let [c, d] = u16::try_from(process).unwrap().to_be_bytes();
    let low = u16::try_from(number).unwrap();
    StartPlan {
        hostname: id.clone(),
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
        env: BTreeMap::new(),
        user: String::new(),
        workdir: PathBuf::from("/"),
        layers: vec![dir.join("image")],
        kept: None,
        files: Vec::new(),
        mounts: Vec::new(),
        limits: Limits {
            cpus: 1,
            memory_bytes: 64 * 1024 * 1024,
            swap_bytes: 0,
            pids: 64,
        },
        net: RunNet {
            v6: Ipv6Addr::new(0xfdaa, 0xc04f, 0, 0, 0, 0, u16::from_be_bytes([c, d]), low),
            v4: Ipv4Addr::new(10, 200 + c % 50, d, u8::try_from(number & 0xff).unwrap()),
        },
        log_dir: dir.join("logs").join(&id),
        key: RunKey {
            machine: id.parse().unwrap(),
            start: 1,
        },
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn the_fake_keeps_the_promises_of_a_runtime() {
    let world = FakeRuntime::new(Env::simulated(1));
    let watched = world.clone();
    run(&Subject {
        open: Box::new(move || Arc::new(world.clone())),
        plan: Box::new(|behaviour| {
            let code = match behaviour {
                Behaviour::Exit(code) => code.to_string(),
                _ => String::new(),
            };
            let argv = match behaviour {
                Behaviour::Run => vec!["run"],
                Behaviour::Deaf => vec!["ignore-sigint"],
                Behaviour::Exit(_) => vec!["exit", &code],
                Behaviour::Short => vec!["exit-after", "333ms", "0"],
                Behaviour::Missing => vec!["missing"],
            };
            plan(Path::new("/none"), &argv)
        }),
        exec: Box::new(|code| words(&["exit", &code.to_string()])),
        is_ready: Box::new(|| words(&["exit", "0"])),
    })
    .await;
    assert!(watched.violations().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_keep_the_promises_of_a_runtime() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: needs root");
    }
    if !Path::new(BUSYBOX).exists() {
        return eprintln!("skipped: needs {BUSYBOX} (busybox-static)");
    }
    let dir = tempfile::tempdir().unwrap();
    let bin = dir.path().join("image/bin");
    std::fs::create_dir_all(&bin).unwrap();
    std::fs::copy(BUSYBOX, bin.join("busybox")).unwrap();
    for applet in ["sh", "sleep"] {
        symlink("busybox", bin.join(applet)).unwrap();
    }
    let data = dir.path().to_owned();
    let open = move || -> Arc<dyn Runtime> {
        let settings = Settings {
            data_dir: data.clone(),
            executable: PathBuf::from(env!("CARGO_BIN_EXE_hangar-roles")),
            connect: false,
            api: None,
        };
        Arc::new(ContainerRuntime::new(Env::real(), &settings).unwrap())
    };
    let data = dir.path().to_owned();
    let script = |behaviour| match behaviour {
        Behaviour::Run => {
            "trap 'exit 0' INT TERM; >/tmp/ready; while :; do sleep 0.01; done".to_owned()
        }
        Behaviour::Deaf => "trap '' INT; >/tmp/ready; while :; do sleep 0.01; done".to_owned(),
        Behaviour::Exit(code) => format!("exit {code}"),
        Behaviour::Short => "exec sleep 0.333".to_owned(),
        Behaviour::Missing => String::new(),
    };
    run(&Subject {
        open: Box::new(open),
        plan: Box::new(move |behaviour| match behaviour {
            Behaviour::Missing => plan(&data, &["/bin/none"]),
            _ => plan(&data, &["/bin/sh", "-c", &script(behaviour)]),
        }),
        exec: Box::new(|code| words(&["/bin/sh", "-c", &format!("exit {code}")])),
        is_ready: Box::new(|| words(&["/bin/sh", "-c", "test -e /tmp/ready"])),
    })
    .await;
}
