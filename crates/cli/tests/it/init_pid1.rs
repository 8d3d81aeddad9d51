//! What PID 1 makes of an image and a fly.toml: the command, its user, directory and environment,
//! how it is stopped, what becomes of its children, its end, and its log.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::busybox::{AWAIT_GO, SHELL, file, shell_spec};
use crate::world::{IMAGE, Ran, World};

/// Writes each of its arguments in brackets.
const SHOW: &str = "for word; do echo \"[$word]\"; done";

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

/// Returns the newest exit event of a Machine, once there is one.
fn exit_of(world: &World, app: &str, id: &str) -> Value {
    world.eventually("it exits", |world| {
        let machine = world.machine(app, id);
        let events = machine["events"].as_array()?.clone();
        let exit = events.into_iter().find(|event| event["type"] == "exit")?;
        Some(exit["request"]["exit_event"].clone())
    })
}

/// Returns what an app has written once it has written so many lines.
fn lines_of(world: &World, app: &str, count: usize) -> Vec<String> {
    world.eventually("the app has written its lines", |world| {
        let lines = world.app_lines(app);
        (lines.len() >= count).then_some(lines)
    })
}

// --- the command -------------------------------------------------------------------------------

#[test]
fn a_groups_command_replaces_cmd_and_never_the_entrypoint() {
    let Some(world) = World::with_shell() else {
        return;
    };
    let Some(mut spec) = shell_spec() else { return };
    let show = format!("{SHOW}; exec sleep 100000");
    spec.entrypoint = words(&["/bin/sh", "-c", &show, "show"]);
    spec.cmd = words(&["of the", "image"]);
    world.import("show", &spec);
    for (app, rest, expected) in [
        ("whole", "", &["[of the]", "[image]"][..]),
        (
            "group",
            "[processes]\napp = \"one 'two  three' \\\"four\\\" --five=\\\\ 6\"\n",
            &["[one]", "[two  three]", "[four]", "[--five= 6]"],
        ),
        (
            "empty",
            "[processes]\napp = \"\"\n",
            &["[of the]", "[image]"],
        ),
        (
            "other",
            "[experimental]\nentrypoint = [\"/bin/sh\", \"-c\", \"echo other $0 $1; sleep 100000\"]\n",
            &["other of the image"],
        ),
        (
            "exec",
            "[experimental]\nexec = [\"/bin/sh\", \"-c\", \"echo alone $#; sleep 100000\"]\n",
            &["alone 0"],
        ),
    ] {
        world.deploy_shell(app, "show", rest);
        assert_eq!(lines_of(&world, app, expected.len()), expected, "{app}");
    }
    // Each group has its own.
    let groups = "[processes]\nweb = \"w\"\ncron = \"c\"\n";
    world.deploy_shell("both", "show", groups);
    let mut said = lines_of(&world, "both", 2);
    said.sort();
    assert_eq!(said, ["[c]", "[w]"]);
}

#[test]
fn an_image_without_a_command_is_refused_and_says_where_to_name_one() {
    let Some(world) = World::with_shell() else {
        return;
    };
    let Some(mut spec) = shell_spec() else { return };
    spec.cmd.clear();
    world.import("mute", &spec);
    let folder = world.app("mute", "app = \"mute\"\n[build]\nimage = \"mute\"\n");
    let said = world.fails(5, &["deploy", &folder, "--ha=false"]);
    assert!(
        said.contains("neither ENTRYPOINT nor CMD") && said.contains("[processes]"),
        "{said}"
    );
    assert_eq!(world.machines("mute"), Vec::<Value>::new());
}

// --- the user ----------------------------------------------------------------------------------

const PASSWD: &str = "root:x:0:0:root:/srv/boss:/bin/sh\nweb:x:1000:1001::/srv/web:\n";
const GROUP: &str = "root:x:0:\nweb:x:1001:\nlogs:x:50:web,other\nmail:x:51:web\n";

#[test]
fn the_user_is_looked_up_in_the_images_own_files() {
    let Some(world) = World::with_shell() else {
        return;
    };
    let Some(mut spec) = shell_spec() else { return };
    spec.files.push(file("/etc/passwd", 0o644, PASSWD));
    spec.files.push(file("/etc/group", 0o644, GROUP));
    spec.entrypoint = words(&["/bin/sh", "-c"]);
    let look = "echo $(id -u) $(id -g) $(id -G) $HOME $(pwd); exec sleep 100000";
    spec.cmd = words(&[look]);
    spec.workdir = "/srv/made/here".to_owned();
    for (number, (user, expected)) in [
        ("", "0 0 0 /srv/boss"),
        ("web", "1000 1001 1001 50 51 /srv/web"),
        ("1000", "1000 1001 1001 50 51 /srv/web"),
        ("web:logs", "1000 50 50 /srv/web"),
        ("1000:0", "1000 0 0 /srv/web"),
        ("77:88", "77 88 88 /"),
        ("77", "77 77 77 /"),
    ]
    .into_iter()
    .enumerate()
    {
        spec.user = user.to_owned();
        let name = format!("user{number}");
        world.import(&name, &spec);
        world.deploy_shell(&name, &name, "");
        let said = lines_of(&world, &name, 1);
        assert_eq!(said, [format!("{expected} /srv/made/here")], "{user:?}");
    }
    for (user, told) in [
        (
            "ghost",
            "no user named \"ghost\" in the image's /etc/passwd",
        ),
        (
            "web:ghosts",
            "no group named \"ghosts\" in the image's /etc/group",
        ),
    ] {
        spec.user = user.to_owned();
        world.import("ghost", &spec);
        let toml = "app = \"ghost\"\n[build]\nimage = \"ghost\"\n";
        let folder = world.app("ghost", toml);
        let said = world.fails(5, &["deploy", &folder, "--ha=false"]);
        assert!(said.contains(told), "{said}");
        assert_eq!(world.machines("ghost"), Vec::<Value>::new());
    }
}

// --- the environment ---------------------------------------------------------------------------

#[test]
fn secrets_win_over_env_and_env_over_the_image_and_the_platform_over_all() {
    let Some(world) = World::with_shell() else {
        return;
    };
    let Some(mut spec) = shell_spec() else { return };
    for name in ["IMAGE", "ENV", "SECRET", "FLY_REGION", "FLY_APP_NAME"] {
        spec.env.insert(name.to_owned(), "image".to_owned());
    }
    spec.env
        .insert("PATH".to_owned(), "/bin:/of/the/image".to_owned());
    world.import("talks", &spec);
    world.ok(&["apps", "create", "vars"]);
    let secrets = ["secrets", "set", "SECRET=secret", "FLY_MACHINE_ID=forged"];
    world.ok(&[&secrets[..], &["--stage", "-a", "vars"]].concat());
    let rest = "[env]\nENV = \"env\"\nSECRET = \"env\"\nPRIMARY_REGION = \"env\"\nNUMBER = 7\n\
                [processes]\nworker = \"/bin/sleep 100000\"\n";
    world.deploy_shell("vars", "talks", rest);
    let id = world.only("vars", "worker");
    // What the program itself was given, not what a command is given.
    let program = "cat /proc/2/environ | tr '\\0' '\\n' | sort";
    let all = world.said("vars", &id, program);
    let value = |name: &str| {
        let line = all.lines().find(|l| l.starts_with(&format!("{name}=")));
        line.map(|line| line[name.len() + 1..].to_owned())
    };
    let machine = world.machine("vars", &id);
    let text = |key: &str| machine[key].as_str().unwrap();
    for (name, expected) in [
        ("IMAGE", "image"),
        ("ENV", "env"),
        ("SECRET", "secret"),
        ("NUMBER", "7"),
        ("PATH", "/bin:/of/the/image"),
        ("HOME", "/"),
        ("PRIMARY_REGION", "iad"),
        ("FLY_APP_NAME", "vars"),
        ("FLY_MACHINE_ID", &id),
        ("FLY_ALLOC_ID", &id),
        ("FLY_REGION", "iad"),
        ("FLY_PRIVATE_IP", text("private_ip")),
        ("FLY_MACHINE_VERSION", text("instance_id")),
        ("FLY_PROCESS_GROUP", "worker"),
        ("FLY_VM_MEMORY_MB", "256"),
    ] {
        assert_eq!(value(name).as_deref(), Some(expected), "{name}: {all}");
    }
    assert_eq!(value("FLY_MACHINE_VERSION").unwrap().len(), 26);
    let image = value("FLY_IMAGE_REF").unwrap();
    let digest = machine["image_ref"]["digest"].as_str().unwrap();
    assert!(
        image.contains("talks") && image.ends_with(&format!("@{digest}")),
        "{image}"
    );
    for absent in ["RELEASE_COMMAND", "FLY_TEST_COMMAND", "FLY_STANDBY_FOR"] {
        assert_eq!(value(absent), None, "{all}");
    }
    // A command beside it sees the same.
    let command = world.said("vars", &id, "env | grep ^FLY_ | sort");
    let program: Vec<&str> = all.lines().filter(|l| l.starts_with("FLY_")).collect();
    assert_eq!(command.lines().collect::<Vec<_>>(), program);
    assert!(program.len() >= 9, "{program:?}");
    // Nothing of the server's environment gets in.
    assert!(!all.contains("HANGAR"), "{all}");
}

#[test]
fn a_standby_is_told_whom_it_stands_for_and_a_version_changes_with_the_configuration() {
    let Some(world) = World::with_shell() else {
        return;
    };
    let toml = format!("app = \"pair\"\n[build]\nimage = \"{SHELL}\"\n");
    let folder = world.app("pair", &toml);
    world.ok(&["deploy", &folder, "--smoke-checks=false"]);
    let machines = world.machines("pair");
    let of_state = |state: &str| {
        let found = machines.iter().find(|m| m["state"] == state);
        found.unwrap_or_else(|| panic!("{machines:?}"))["id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let (first, standby) = (of_state("started"), of_state("stopped"));
    let seen = |id: &str, name: &str| world.said("pair", id, &format!("echo ${name}"));
    let version = seen(&first, "FLY_MACHINE_VERSION");
    world.ok(&["machine", "start", &standby, "-a", "pair"]);
    assert_eq!(seen(&standby, "FLY_STANDBY_FOR"), format!("{first}\n"));
    assert_eq!(seen(&first, "FLY_STANDBY_FOR"), "\n");
    world.ok(&["machine", "restart", &first, "-a", "pair"]);
    assert_eq!(seen(&first, "FLY_MACHINE_VERSION"), version);
    let update = ["machine", "update", &first, "-a", "pair", "--yes"];
    world.ok(&[&update[..], &["--env", "NEW=1"]].concat());
    assert_ne!(seen(&first, "FLY_MACHINE_VERSION"), version);
}

// --- stopping ----------------------------------------------------------------------------------

#[test]
fn a_program_that_hears_the_signal_ends_by_itself_and_one_that_does_not_is_killed() {
    let Some(world) = World::with_shell() else {
        return;
    };
    let wait = "echo ready; while :; do sleep 0.05; done";
    let groups = format!(
        "kill_signal = \"SIGUSR1\"\nkill_timeout = 1\n[processes]\n\
         polite = \"/bin/sh -c \\\"trap 'echo bye; exit 7' USR1; {wait}\\\"\"\n\
         late = \"/bin/sh -c \\\"trap '' USR1; trap 'echo late; exit 8' TERM; {wait}\\\"\"\n\
         deaf = \"/bin/sh -c \\\"trap '' USR1 TERM INT; {wait}\\\"\"\n"
    );
    let toml =
        format!("app = \"ends\"\nprimary_region = \"iad\"\n{groups}[build]\nimage = \"{SHELL}\"\n");
    let folder = world.app("ends", &toml);
    world.ok(&["deploy", &folder, "--ha=false", "--smoke-checks=false"]);
    lines_of(&world, "ends", 3);
    let log_of = |id: &str| {
        let words = ["logs", "-a", "ends", "-n", "--machine", id];
        world.ok(&words).stdout
    };
    for (group, code, signal) in [("polite", 7, -1), ("late", 8, -1), ("deaf", 137, 9)] {
        let id = world.only("ends", group);
        let began = Instant::now();
        world.ok(&["machine", "stop", &id, "-a", "ends"]);
        let took = began.elapsed();
        assert_eq!(world.machine("ends", &id)["state"], "stopped");
        let exit = exit_of(&world, "ends", &id);
        assert_eq!(exit["exit_code"], code, "{group}: {exit}");
        assert_eq!(exit["guest_signal"], signal, "{group}: {exit}");
        assert_eq!(exit["requested_stop"], true, "{group}: {exit}");
        assert_ne!(exit["oom_killed"], true, "{group}: {exit}");
        let log = log_of(&id);
        assert!(
            log.contains("Sending signal SIGUSR1 to main child"),
            "{log}"
        );
        assert_eq!(
            log.contains("Sending signal SIGTERM to main child"),
            group != "polite",
            "{group}: {log}"
        );
        // The time it was given is its own: nobody is killed sooner.
        if group != "polite" {
            assert!(took >= Duration::from_secs(1), "{group}: {took:?}");
        }
    }
    let said = world.app_lines("ends");
    assert!(said.iter().any(|l| l == "bye") && said.iter().any(|l| l == "late"));
    // Who asks for another signal and another time gets them.
    let id = world.only("ends", "deaf");
    world.ok(&["machine", "start", &id, "-a", "ends"]);
    lines_of(&world, "ends", 6);
    world.ok(&[
        "machine",
        "stop",
        &id,
        "-a",
        "ends",
        "--signal",
        "SIGKILL",
        "--timeout",
        "300",
    ]);
    let exit = exit_of(&world, "ends", &id);
    assert_eq!(exit["guest_signal"], 9, "{exit}");
    assert_eq!(exit["requested_stop"], true, "{exit}");
    let said = world.fails(
        1,
        &["machine", "stop", &id, "-a", "ends", "--signal", "SIGNONE"],
    );
    assert!(said.contains("SIGNONE"), "{said}");
}

#[test]
fn a_stop_signal_that_is_none_is_told_and_not_taken_for_another() {
    let Some(world) = World::start() else { return };
    for (line, told) in [
        ("kill_signal = \"SIGFOO\"", "no signal is called \"SIGFOO\""),
        ("kill_timeout = -1", "kill_timeout: is negative"),
    ] {
        let wrong = world.app("wrong", &format!("app = \"wrong\"\n{line}\n"));
        let said = world.fails(2, &["deploy", &wrong, "--image", IMAGE]);
        assert!(said.contains(told) && said.contains("line 2"), "{said}");
    }
    world.fails(3, &["status", "-a", "wrong"]);
}

// --- children ----------------------------------------------------------------------------------

#[test]
fn orphans_come_to_init_are_reaped_by_it_and_end_with_the_program() {
    let Some(world) = World::with_shell() else {
        return;
    };
    let wait = "while [ ! -e /tmp/go ]; do sleep 0.02; done";
    let orphan = format!("sh -c '({wait}) & echo $!'");
    // The shell between ends at once, so that its child has no parent but init.
    let command = format!(
        "[processes]\napp = \"/bin/sh -c \\\"{orphan}; {orphan}; {orphan}; exec sleep 100000\\\"\"\n"
    );
    let id = world.shell_app("orphans", &command);
    let orphans = lines_of(&world, "orphans", 3);
    assert_eq!(orphans.len(), 3);
    let parents: Vec<String> = orphans
        .iter()
        .map(|pid| {
            let script = format!("grep PPid /proc/{pid}/status");
            world.said("orphans", &id, &script).trim().to_owned()
        })
        .collect();
    assert_eq!(parents, ["PPid:\t1"; 3]);
    world.said("orphans", &id, "touch /tmp/go");
    let states = "cat /proc/[0-9]*/status 2>/dev/null | grep ^State";
    world.eventually("they have ended and are gone", |world| {
        let gone = format!("ls -d /proc/{} 2>/dev/null; true", orphans.join(" /proc/"));
        let all = world.said("orphans", &id, states);
        (world.said("orphans", &id, &gone).is_empty() && !all.contains('Z')).then_some(())
    });
    // One that does not end by itself is not left behind.
    let left = format!("({wait}) >/dev/null 2>&1 & echo $!");
    world.said("orphans", &id, "rm /tmp/go");
    world.said("orphans", &id, &left);
    let init = world.init_of(&id);
    let children = format!("/proc/{init}/task/{init}/children");
    let before = std::fs::read_to_string(&children).unwrap();
    assert!(before.split_whitespace().count() >= 2, "{before}");
    world.ok(&["machine", "stop", &id, "-a", "orphans"]);
    assert!(world.inits().is_empty());
    for pid in before.split_whitespace() {
        assert!(!std::path::Path::new("/proc").join(pid).exists(), "{pid}");
    }
}

// --- the end -----------------------------------------------------------------------------------

#[test]
fn codes_and_signals_of_the_end_are_in_the_events() {
    let Some(world) = World::with_shell() else {
        return;
    };
    let cases = [
        ("fine", "exit 0", 0, -1),
        ("three", "exit 3", 3, -1),
        ("most", "exit 255", 255, -1),
        ("segv", "kill -SEGV $$", 139, 11),
        ("abrt", "kill -ABRT $$", 134, 6),
        ("kill", "kill -KILL $$", 137, 9),
    ];
    let mut toml = "[[restart]]\npolicy = \"never\"\n[processes]\n".to_owned();
    for (group, script, _, _) in cases {
        toml.push_str(&format!(
            "{group} = \"/bin/sh -c '{AWAIT_GO}; {script}'\"\n"
        ));
    }
    world.deploy_shell("codes", SHELL, &toml);
    for (group, _, code, signal) in cases {
        let id = world.only("codes", group);
        world.go("codes", &id);
        let exit = exit_of(&world, "codes", &id);
        assert_eq!(exit["exit_code"], code, "{group}: {exit}");
        assert_eq!(exit["guest_exit_code"], code, "{group}: {exit}");
        assert_eq!(exit["guest_signal"], signal, "{group}: {exit}");
        // Killed from inside is neither asked for nor out of memory.
        assert_ne!(exit["requested_stop"], true, "{group}: {exit}");
        assert_ne!(exit["oom_killed"], true, "{group}: {exit}");
        assert!(exit["exited_at"].as_str().unwrap().contains('T'), "{exit}");
        let status = world.ok(&["machine", "status", &id, "-a", "codes"]).stdout;
        let told = format!("exit_code={code},oom_killed=false,requested_stop=false");
        assert!(status.contains(&told), "{status}");
    }
    let log = world.logs("codes");
    for said in [
        "Main child exited normally with code: 3",
        "Main child exited with signal (with signal 'SIGSEGV', core dumped? false)",
        "machine restart policy set to 'no', not restarting",
    ] {
        assert!(log.contains(said), "{said}: {log}");
    }
}

#[test]
fn an_executed_command_gives_back_its_code_and_both_streams() {
    let Some(world) = World::with_shell() else {
        return;
    };
    let id = world.shell_app("exec", "");
    let sh = |script: &str| world.sh("exec", &id, script);
    let ran = sh("echo out; echo err >&2; exit 9");
    assert_eq!(ran.code, 9);
    assert_eq!((&*ran.stdout, &*ran.stderr), ("out\n", "err\n"));
    for (script, code) in [
        ("exit 255", 255),
        ("kill -TERM $$", 143),
        ("kill -9 $$", 137),
    ] {
        assert_eq!(sh(script).code, code, "{script}");
    }
    // Nothing is added to what has no line end, and binary bytes do no harm.
    assert_eq!(sh("printf 'no end'").stdout, "no end");
    let odd = sh("printf 'a\\000b\\377c\\n'");
    assert_eq!((odd.code, &*odd.stdout), (0, "a\0b\u{fffd}c\n"));
    let much = sh("head -c 3000000 /dev/zero | tr '\\0' x; exit 4");
    assert_eq!((much.code, much.stdout.len()), (4, 1 << 20));
    // The words are the command's, also those that look like options of ours.
    let on = |words: &[&str]| -> Ran {
        let command = ["machine", "exec", "-a", "exec", &id];
        world.hangar(&[&command, words].concat())
    };
    let shown = on(&[
        "/bin/sh",
        "-c",
        SHOW,
        "show",
        "--json",
        "-a",
        "two words",
        "",
    ]);
    assert_eq!(
        shown.stdout, "[--json]\n[-a]\n[two words]\n[]\n",
        "{shown:?}"
    );
    assert_eq!(on(&["sh -c 'echo one line'"]).stdout, "one line\n");
    for (words, told) in [
        (&["nonesuch"][..], "nonesuch"),
        (&["/etc/hosts"], "permission denied: /etc/hosts"),
    ] {
        let ran = on(words);
        assert_ne!(ran.code, 0);
        assert!(ran.stderr.contains(told), "{ran:?}");
    }
    let slow = ["machine", "exec", "-a", "exec", "--timeout", "1", &id];
    let slow = world.hangar(&[&slow[..], &["sleep", "1001"]].concat());
    assert_ne!(slow.code, 0);
    assert!(slow.stderr.contains("did not end within 1 s"), "{slow:?}");
    world.eventually("it is killed", |world| {
        let left = world.said("exec", &id, "ps | grep 'sleep 100[1]'; true");
        left.is_empty().then_some(())
    });
    assert_eq!(world.machine("exec", &id)["state"], "started");
}

// --- the log -----------------------------------------------------------------------------------

#[test]
fn the_log_has_every_line_of_both_streams_whatever_is_in_them() {
    let Some(world) = World::with_shell() else {
        return;
    };
    let script = "i=0; while [ $i -lt 500 ]; do echo line $i; i=$((i+1)); done; \
                  echo from stderr >&2; echo; printf 'a\\000b\\377c\\r\\n'; \
                  printf '\\033[31mred\\n'; echo 'grüße 🚀'; \
                  head -c 40000 /dev/zero | tr '\\0' x; echo; echo after; printf 'no end'";
    let Some(mut spec) = shell_spec() else { return };
    spec.cmd = words(&["/bin/sh", "-c", &format!("{AWAIT_GO}; {script}")]);
    world.import("talker", &spec);
    world.deploy_shell("talker", "talker", "");
    let id = world.only("talker", "app");
    world.go("talker", &id);
    exit_of(&world, "talker", &id);
    let lines = world.app_lines("talker");
    // Streams are two pipes: only within one is there an order.
    let (errors, lines): (Vec<String>, Vec<String>) =
        lines.into_iter().partition(|line| line == "from stderr");
    assert_eq!(errors.len(), 1);
    for (number, line) in lines[..500].iter().enumerate() {
        assert_eq!(line, &format!("line {number}"));
    }
    let rest = &lines[500..];
    assert_eq!(rest[..2], ["", "a\0b\u{fffd}c"]);
    assert_eq!(rest[2..4], ["\u{1b}[31mred", "grüße 🚀"]);
    let long: Vec<&String> = rest[4..]
        .iter()
        .take_while(|l| l.starts_with('x'))
        .collect();
    assert!(long.iter().all(|line| line.len() <= 16 * 1024));
    assert_eq!(long.iter().map(|line| line.len()).sum::<usize>(), 40_000);
    assert_eq!(rest[4 + long.len()..], ["after", "no end"]);
    // The last line was kept although the Machine is destroyed.
    world.ok(&["machine", "destroy", &id, "-a", "talker"]);
    assert_eq!(world.machines("talker"), Vec::<Value>::new());
    let kept = world.logs("talker");
    assert!(
        kept.contains("after\n") && kept.contains("no end\n"),
        "{kept}"
    );
    assert_eq!(world.app_lines("talker").len(), lines.len() + 1);
}

#[test]
fn who_follows_a_log_misses_nothing_and_reads_nothing_twice_when_the_server_is_killed() {
    let Some(mut world) = World::with_shell() else {
        return;
    };
    let program = "[processes]\napp = \"/testapp lines 1000000 1\"\n";
    let id = world.shell_app("follow", program);
    let path = world.path("followed");
    let mut follower = world.command(env!("CARGO_BIN_EXE_hangar"));
    follower.args(["logs", "-a", "follow"]);
    follower.stdout(std::fs::File::create(&path).unwrap());
    world.keep(follower.stderr(std::process::Stdio::null()));
    let numbers = |path: &std::path::Path| -> Vec<usize> {
        let text = std::fs::read_to_string(path).unwrap();
        // The last one may be half there.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines = whole
            .lines()
            .filter_map(|l| l.split_once("] line ").or(l.split_once(" line ")));
        lines.map(|(_, number)| number.parse().unwrap()).collect()
    };
    let log = world.data_dir().join("logs").join(&id).join("app.0.log");
    for _ in 0..2 {
        let shown = numbers(&path).last().copied().unwrap_or(0);
        world.eventually("it follows", |_| {
            (numbers(&path).last().copied()? > shown + 50).then_some(())
        });
        world.kill_server();
        // More is written meanwhile than a log shows at first.
        let written = numbers(&log).len();
        world.eventually("the program goes on", |_| {
            (numbers(&log).len() > written + 500).then_some(())
        });
        world.start_server();
        world.eventually("it follows again", |_| {
            (numbers(&path).last().copied()? > written + 600).then_some(())
        });
    }
    let shown = numbers(&path);
    let expected: Vec<usize> = (shown[0]..shown[0] + shown.len()).collect();
    let wrong = shown.iter().zip(&expected).find(|(a, b)| a != b);
    assert_eq!(wrong, None, "of {} lines", shown.len());
}

#[test]
fn a_log_that_is_written_without_end_takes_no_more_than_its_share_of_the_disk() {
    let Some(world) = World::with_shell() else {
        return;
    };
    // Lines of 1,000 bytes, 90 MB of them, and then a last one.
    let line = "x".repeat(999);
    let script = format!("yes {line} | head -n 90000; echo the end; exec sleep 100000");
    let Some(mut spec) = shell_spec() else { return };
    spec.cmd = words(&["/bin/sh", "-c", &script]);
    world.import("flood", &spec);
    world.deploy_shell("flood", "flood", "");
    let id = world.only("flood", "app");
    let folder = world.data_dir().join("logs").join(&id);
    let size = || -> u64 {
        let files = std::fs::read_dir(&folder).unwrap().flatten();
        let sizes = files.filter_map(|file| file.metadata().ok());
        sizes.map(|meta| meta.len()).sum()
    };
    let mut most = 0;
    world.eventually("all is written", |world| {
        most = most.max(size());
        let lines = world.api("GET", "/v1/apps/flood/logs?tail=1", Some(&world.token()));
        lines.body.contains("the end").then_some(())
    });
    // One more than five are there for a moment, while a segment begins.
    assert!(most <= 61_000_000, "{most}");
    assert!((40_000_000..=51_000_000).contains(&size()), "{}", size());
    let lines = world.app_lines("flood");
    assert_eq!(lines.last().unwrap(), "the end");
    assert!(lines.len() > 5_000, "{}", lines.len());
    assert!(lines[..lines.len() - 1].iter().all(|l| *l == line));
}
