//! Consoles, commands with open streams, and tunnels to ports of Machines: all over the API.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Child, Stdio};

use serde_json::Value;

use crate::world::{LIMIT, Ran, World, service};

const APP: &str = "talks";

fn ssh(world: &World, words: &[&str], input: &[u8]) -> Ran {
    let mut child = start(world, &[&["ssh", "console", "-a", APP], words].concat());
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // A command that ends early takes no more.
        let feeding = scope.spawn(move || stdin.write_all(input).is_ok());
        let output = child.wait_with_output().unwrap();
        let _fed = feeding.join().unwrap();
        Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    })
}

fn start(world: &World, words: &[&str]) -> Child {
    let mut command = world.command(env!("CARGO_BIN_EXE_hangar"));
    command
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Returns whether a Machine runs a command with this word.
fn runs(world: &World, id: &str, word: &str) -> bool {
    world.said(APP, id, "/bin/busybox ps").contains(word)
}

#[test]
fn a_command_has_its_streams_apart_and_its_own_exit_code() {
    let Some(world) = World::with_shell() else {
        return;
    };
    let id = world.shell_app(APP, "");
    let ran = ssh(
        &world,
        &["-C", "sh -c 'echo out; echo err >&2; cat; exit 42'"],
        b"typed",
    );
    assert_eq!(
        (ran.code, ran.stdout.as_str(), ran.stderr.as_str()),
        (42, "out\ntyped", "err\n")
    );
    // Much in both directions at once, and not a byte lost.
    let much: Vec<u8> = (0..5_000_000_u32).map(|n| b'a' + (n % 23) as u8).collect();
    let ran = ssh(&world, &["-C", "cat"], &much);
    assert_eq!(
        (ran.code, ran.stdout.len()),
        (0, much.len()),
        "{}",
        ran.stderr
    );
    assert!(ran.stdout.as_bytes() == much, "the bytes are others");
    // A command that takes no input is not held up by it, nor by its own end.
    let ran = ssh(&world, &["-C", "sh -c 'exit 3'"], &much);
    assert_eq!(ran.code, 3, "{ran:?}");
    // Without a terminal a shell reads its commands from standard input.
    let ran = ssh(&world, &[], b"echo $((6 * 7)); exit 5\n");
    assert_eq!((ran.code, ran.stdout.as_str()), (5, "42\n"), "{ran:?}");
    let who = ssh(
        &world,
        &["-u", "1000", "-C", "id -u", "--machine", &id],
        b"",
    );
    assert_eq!(who.stdout, "1000\n", "{who:?}");
    let killed = ssh(&world, &["-C", "sh -c 'kill -9 $$'"], b"");
    assert_eq!(killed.code, 137);

    let missing = ssh(&world, &["-C", "/no/such"], b"");
    assert!(
        missing.code == 1 && missing.stderr.contains("no such file: /no/such"),
        "{missing:?}"
    );
    let nobody = ssh(&world, &["-u", "nobody-there", "-C", "id"], b"");
    assert!(
        nobody.code == 1 && nobody.stderr.contains("nobody-there"),
        "{nobody:?}"
    );
    for (words, told) in [
        (&["-g", "other"][..], "no VMs in process group other"),
        (&["-r", "gru"], "no VMs in region gru"),
        (&["--machine", "00000000000000"], "00000000000000"),
        (&["-C", "'"], "closing quote"),
        (&["-A", "example.com"], "leads to no Machine"),
    ] {
        let said = ssh(&world, words, b"");
        assert!(said.code != 0 && said.stderr.contains(told), "{said:?}");
    }
    let there = ssh(
        &world,
        &["-A", "app.process.talks.internal", "-C", "true"],
        b"",
    );
    assert_eq!(there.code, 0, "{there:?}");
    world.ok(&["machine", "stop", &id]);
    let none = ssh(&world, &[], b"");
    assert!(none.stderr.contains("no started VMs"), "{none:?}");
}

/// A command line on a terminal of its own, and what has come of it so far.
struct OnTerminal {
    child: Child,
    terminal: std::fs::File,
    seen: Vec<u8>,
}

impl OnTerminal {
    fn start(world: &World, words: &[&str], size: (u16, u16)) -> Self {
        use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let ours = openpt(flags).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let theirs = ioctl_tiocgptpeer(&ours, flags).unwrap();
        let mut on = world.command("setsid");
        on.args(["--ctty", "--wait", env!("CARGO_BIN_EXE_hangar")]);
        on.args(words).env("TERM", "xterm");
        on.stdin(theirs.try_clone().unwrap());
        on.stdout(theirs.try_clone().unwrap()).stderr(theirs);
        let terminal = std::fs::File::from(ours);
        resize(&terminal, size);
        Self {
            child: on.spawn().unwrap(),
            terminal,
            seen: Vec::new(),
        }
    }

    fn press(&mut self, keys: &str) {
        self.terminal.write_all(keys.as_bytes()).unwrap();
    }

    /// Reads until this has come.
    fn expect(&mut self, text: &str) {
        let mut buffer = [0; 1024];
        let find = |seen: &[u8]| seen.windows(text.len()).position(|w| w == text.as_bytes());
        while find(&self.seen).is_none() {
            let so_far = String::from_utf8_lossy(&self.seen).into_owned();
            let timeout = rustix::event::Timespec::try_from(LIMIT).unwrap();
            let mut fds = [rustix::event::PollFd::new(
                &self.terminal,
                rustix::event::PollFlags::IN,
            )];
            let ready = rustix::event::poll(&mut fds, Some(&timeout)).unwrap();
            assert!(ready > 0, "{text} did not come: {so_far:?}");
            let count = self.terminal.read(&mut buffer);
            let count = count.unwrap_or_else(|_| panic!("ended without {text}: {so_far:?}"));
            self.seen.extend_from_slice(&buffer[..count]);
        }
        if let Some(at) = find(&self.seen) {
            self.seen.drain(..at + text.len());
        }
    }

    fn code(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

fn resize(terminal: &std::fs::File, (rows, cols): (u16, u16)) {
    let size = rustix::termios::Winsize {
        ws_row: rows,
        ws_col: cols,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(terminal, size).unwrap();
}

#[test]
fn a_terminal_has_its_size_follows_it_and_ends_with_the_shells_code() {
    let Some(world) = World::with_shell() else {
        return;
    };
    world.shell_app(APP, "");
    let words = ["ssh", "console", "-a", APP];
    let mut shell = OnTerminal::start(&world, &words, (40, 100));
    shell.press("echo begin-$((1 + 1))\n");
    shell.expect("begin-2");
    shell.press("/bin/busybox stty size; echo term=$TERM; /bin/busybox tty\n");
    shell.expect("40 100");
    shell.expect("term=xterm");
    // One that is resized tells the other end.
    resize(&shell.terminal, (50, 120));
    shell.press(
        "until [ \"$(/bin/busybox stty size)\" = '50 120' ]; do sleep 0.02; done; echo re''sized\n",
    );
    shell.expect("resized");
    // Control-C is the command's, not ours.
    shell.press("echo sle''eps; sleep 1000\n");
    shell.expect("sleeps");
    shell.press("\u{3}");
    shell.press("echo inter''rupted; exit 7\n");
    shell.expect("interrupted");
    assert_eq!(shell.code(), Some(7));
    // Control-D ends its input.
    let mut cat = OnTerminal::start(
        &world,
        &[&words[..], &["--pty", "-C", "cat"]].concat(),
        (24, 80),
    );
    cat.press("echoed\n");
    cat.expect("echoed\r\nechoed\r\n");
    cat.press("\u{4}");
    assert_eq!(cat.code(), Some(0));
}

#[test]
fn a_session_ends_with_its_client_its_machine_or_its_server() {
    let Some(mut world) = World::with_shell() else {
        return;
    };
    let id = world.shell_app(APP, "");
    let words = ["ssh", "console", "-a", APP, "-C", "sleep 54321"];
    let mut client = start(&world, &words);
    world.eventually("it runs", |world| runs(world, &id, "54321").then_some(()));
    client.kill().unwrap();
    client.wait().unwrap();
    world.eventually("it went with its client", |world| {
        (!runs(world, &id, "54321")).then_some(())
    });

    // No more sessions than the Machine's init has connections to spare.
    let mut clients: Vec<Child> = (0..8).map(|_| start(&world, &words)).collect();
    world.eventually("all run", |world| {
        let all = world.said(APP, &id, "/bin/busybox ps");
        (all.matches("54321").count() == 8).then_some(())
    });
    let more = ssh(&world, &["-C", "true"], b"");
    assert!(
        more.code == 1 && more.stderr.contains("8 sessions are open"),
        "{more:?}"
    );
    // They hold nobody up who wants to stop the Machine, and end with it.
    world.ok(&["machine", "stop", &id]);
    for client in &mut clients {
        let status = client.wait().unwrap();
        assert_eq!(status.code(), Some(137));
    }
    world.ok(&["machine", "start", &id]);

    let mut client = start(&world, &words);
    world.eventually("it runs", |world| runs(world, &id, "54321").then_some(()));
    world.kill_server();
    assert_eq!(client.wait().unwrap().code(), Some(7));
    world.start_server();
    world.eventually("it went with the server", |world| {
        (!runs(world, &id, "54321")).then_some(())
    });
    let client = start(&world, &words);
    world.eventually("it runs", |world| runs(world, &id, "54321").then_some(()));
    assert_eq!(world.stop_server(), Some(0));
    assert_eq!(client.wait_with_output().unwrap().status.code(), Some(7));
    world.start_server();
}

#[test]
fn a_console_has_a_machine_of_its_own_that_goes_with_it() {
    let Some(world) = World::with_shell() else {
        return;
    };
    world.ok(&["apps", "create", "never"]);
    let early = world.fails(1, &["console", "-a", "never"]);
    assert!(early.contains("has not yet been released"), "{early}");
    let groups = "[env]\nKEPT = \"1\"\n[processes]\napp = \"sleep 1000\"\nbig = \"sleep 1000\"\n\
                  [[vm]]\nsize = \"shared-cpu-2x\"\nprocesses = [\"big\"]\n";
    world.deploy_shell(APP, crate::busybox::SHELL, groups);
    let console = |words: &[&str]| world.hangar(&[&["console", "-a", APP], words].concat());
    let ran = console(&["-C", "sh -c 'env; exit 4'", "-e", "NEW=2"]);
    assert_eq!(ran.code, 4, "{ran:?}");
    for line in [
        "KEPT=1",
        "NEW=2",
        "FLY_PROCESS_GROUP=fly_app_console",
        "FLY_VM_MEMORY_MB=256",
    ] {
        assert!(ran.stdout.contains(line), "{line}: {ran:?}");
    }
    assert!(ran.stderr.contains("to run the console."), "{ran:?}");
    assert_eq!(world.machines(APP).len(), 2);
    let file = format!("app = \"{APP}\"\nconsole_command = \"sh -c 'echo by the file'\"\n");
    let folder = world.app("by-file", &file);
    let ran = world.ok(&["console", "-c", &folder]);
    assert_eq!(ran.stdout, "by the file\n", "{ran:?}");
    let ran = console(&["-g", "big", "-C", "env"]);
    assert!(ran.stdout.contains("FLY_VM_MEMORY_MB=512"), "{ran:?}");
    let wrong = world.fails(2, &["console", "-a", APP, "-g", "none"]);
    assert!(wrong.contains("app, big"), "{wrong}");
    let id = world.only(APP, "app");
    let there = console(&["--machine", &id, "-C", "sh -c 'echo $FLY_MACHINE_ID'"]);
    assert_eq!(there.stdout, format!("{id}\n"), "{there:?}");
    assert_eq!(world.machines(APP).len(), 2);

    // It serves nobody, is no part of the app, and goes even when its client cannot say so.
    let words = ["console", "-a", APP, "-C", "sleep 54321"];
    let mut client = start(&world, &words);
    let made = world.eventually("it runs", |world| {
        let consoles = world.of_group(APP, "fly_app_console");
        let id = consoles.first()?["id"].as_str()?.to_owned();
        let up = consoles[0]["state"] == "started";
        (up && world
            .sh(APP, &id, "/bin/busybox ps")
            .stdout
            .contains("54321"))
        .then_some(id)
    });
    let status = world.json(&["status", "-a", APP]);
    assert_eq!(status["Machines"].as_array().unwrap().len(), 2, "{status}");
    client.kill().unwrap();
    client.wait().unwrap();
    world.eventually("its Machine goes with it", |world| {
        let all = world.machines(APP);
        (!all.iter().any(|m| m["id"] == *made)).then_some(())
    });
}

#[test]
fn a_shell_is_opened_in_a_machine_that_is_run_for_it() {
    let Some(world) = World::with_shell() else {
        return;
    };
    world.ok(&["apps", "create", APP]);
    let image = crate::busybox::SHELL;
    let words = ["machine", "run", "-a", APP, image, "--shell", "-e", "A=1"];
    let mut child = start(&world, &words);
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"echo A is $A; exit 6\n").unwrap();
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(6), "{ended:?}");
    assert_eq!(ended.stdout, b"A is 1\n");
    assert_eq!(world.machines(APP), Vec::<Value>::new());
    let words = [&words[..], &["--command", "id -u", "--user", "1000"]].concat();
    assert_eq!(world.ok(&words).stdout, "1000\n");
    world.fails(2, &["machine", "run", "-a", APP, image, "--user", "1000"]);
}

/// Starts `hangar proxy` and returns the address that it listens at.
fn proxy(world: &World, words: &[&str]) -> (Child, SocketAddr) {
    let mut child = start(world, &[&["proxy"], words].concat());
    let mut line = String::new();
    let out = child.stdout.as_mut().unwrap();
    let mut byte = [0];
    while out.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
        line.push(char::from(byte[0]));
    }
    let address = line.split(' ').nth(1).and_then(|word| word.parse().ok());
    let address = address.unwrap_or_else(|| panic!("{line:?}"));
    (child, address)
}

fn exchange(address: SocketAddr, sent: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut reader = stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let _may_be_reset = stream.write_all(sent);
            // Our side ends; the other one goes on.
            let _may_be_reset = stream.shutdown(Shutdown::Write);
        });
        let mut got = Vec::new();
        // One that leads nowhere is reset.
        let ended = reader.read_to_end(&mut got);
        assert!(ended.is_ok() || got.is_empty(), "{ended:?}");
        got
    })
}

#[test]
fn a_local_port_leads_to_a_machines_port() {
    let Some(world) = World::with_shell() else {
        return;
    };
    let groups = "[processes]\nweb = \"/testapp serve\"\n\
                  echo = \"/bin/busybox nc -ll -p 7000 -e /bin/cat\"\n";
    let rest = format!("{groups}{}", service(&["web"]));
    world.deploy_shell(APP, crate::busybox::SHELL, &rest);
    let web = world.only(APP, "web");
    let echo = world.only(APP, "echo");
    let host = format!("echo.process.{APP}.internal");
    let (mut child, address) = proxy(&world, &["0:7000", &host]);
    world.inside(|| {
        assert_eq!(exchange(address, b"hello"), b"hello");
        // Each side ends by itself: what was sent comes back whole after we have closed ours.
        let much = vec![b'x'; 3_000_000];
        assert_eq!(exchange(address, &much).len(), much.len());
    });
    // The Machine of today is asked, not the one of when it began.
    world.ok(&["machine", "stop", &echo]);
    let gone = world.inside(|| exchange(address, b"hello"));
    assert!(gone.is_empty());
    world.ok(&["machine", "start", &echo]);
    world.eventually("it leads there again", |world| {
        world.inside(|| (exchange(address, b"hello") == b"hello").then_some(()))
    });
    child.kill().unwrap();
    let said = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("no started Machine"), "{said}");

    // By the Machine's address, and by its id; a port that nobody listens on says so.
    let ip = world.machine(APP, &web)["private_ip"]
        .as_str()
        .unwrap()
        .to_owned();
    for host in [ip.as_str(), &web] {
        let (mut child, address) = proxy(&world, &["0:8080", host, "-a", APP]);
        let ask = move || crate::world::request(address, "GET", "/", "x", "", b"").unwrap();
        let answers: Vec<_> = world.inside(|| {
            std::thread::scope(|scope| {
                let many: Vec<_> = (0..20).map(|_| scope.spawn(ask)).collect();
                many.into_iter().map(|one| one.join().unwrap()).collect()
            })
        });
        for answer in answers {
            let answer: Value = serde_json::from_str(&answer.body).unwrap();
            assert_eq!(answer["machine"], *web);
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let (mut child, address) = proxy(&world, &["0:9", &web]);
    assert!(world.inside(|| exchange(address, b"x")).is_empty());
    child.kill().unwrap();
    let said = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("connect to port 9"), "{said}");
    let wrong = world.fails(2, &["proxy", "0:80", "example.com", "-a", APP]);
    assert!(wrong.contains("leads to no Machine"), "{wrong}");
    // It ends with its parent when it was told to.
    let (mut child, _) = proxy(&world, &["0:8080", &web, "--watch-stdin"]);
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let plain = world.fails(2, &["proxy", "80:0", "-a", APP]);
    assert!(plain.contains("cannot be 0"), "{plain}");
}
