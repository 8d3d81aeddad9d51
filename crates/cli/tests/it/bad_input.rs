//! Bad input: one clear message, nothing half-made, and what runs goes on.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use crate::world::{API, IMAGE, World, fly_toml, service};

/// One group of one Machine that serves.
fn web(app: &str, env: &str) -> String {
    fly_toml(app, &format!("[env]\n{env}\n{}", service(&[])))
}

#[test]
fn a_wrong_token_is_refused_in_words() {
    let Some(world) = World::start() else { return };
    let mut command = world.command(env!("CARGO_BIN_EXE_hangar"));
    let output = command
        .args(["apps", "list"])
        .env("HANGAR_ACCESS_TOKEN", "wrong")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("token"),
        "{output:?}"
    );
}

#[test]
fn an_app_name_that_is_a_path_is_refused() {
    let Some(world) = World::start() else { return };
    let ran = world.hangar(&["apps", "create", "../etc"]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("lowercase letters"), "{}", ran.stderr);
    let folder = world.app(
        "path",
        &format!("app = \"../../etc\"\n[build]\nimage = \"{IMAGE}\"\n"),
    );
    let ran = world.hangar(&["deploy", &folder]);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
}

#[test]
fn a_first_deploy_that_cannot_be_made_leaves_nothing_behind() {
    let Some(world) = World::start() else { return };
    for (toml, told) in [
        ("[build]\nimage = \"127.0.0.1:1/no/such:tag\"\n", "no/such"),
        ("[build]\nimage = \"testapp\"\n[[vm]]\ncpus = 3\n", "CPUs"),
        ("[build]\ndockerfile = \"None\"\n", "no such file"),
    ] {
        let folder = world.app("nothing", &format!("app = \"nothing\"\n{toml}"));
        let ran = world.hangar(&["deploy", &folder]);
        assert_ne!(ran.code, 0);
        assert!(ran.stderr.contains(told), "{}", ran.stderr);
        assert_eq!(world.json(&["apps", "list"]), serde_json::json!([]));
    }
}

#[test]
fn what_is_refused_is_refused_in_every_case_of_its_letters() {
    let Some(world) = World::start() else { return };
    for (toml, told) in [
        (
            "[[Mounts]]\nsource = \"data\"\ndestination = \"/data\"\n",
            "write mounts",
        ),
        ("[[compute]]\ngpu_kind = \"a100-40gb\"\n", "GPUs"),
        ("[deploy]\nwait_timeout = \"-1s\"\n", "more than 0"),
        ("[[vm]]\nmemory = \"100mb\"\n", "memory"),
    ] {
        let folder = world.app("case", &fly_toml("case", toml));
        let file = format!("{folder}/fly.toml");
        let said = world.fails(2, &["deploy", "-c", &file]);
        assert!(said.contains(told), "{toml}: {said}");
        // Fly takes it, so it is valid; what stands in the way here is told.
        let ran = world.ok(&["config", "validate", "-c", &file]);
        assert!(ran.stderr.contains("refused: line"), "{}", ran.stderr);
        assert!(ran.stdout.contains("valid, but"), "{}", ran.stdout);
        // The app is named all the same: other commands go on.
        let said = world.fails(3, &["status", "-c", &file]);
        assert!(said.contains("case"), "{said}");
    }
}

#[test]
fn an_image_name_that_is_none_is_told_before_an_archive_is_taken() {
    let Some(world) = World::start() else { return };
    for (name, told) in [
        ("UPPER CASE", "not valid"),
        ("a/../b", "not valid"),
        ("", "needs a name"),
    ] {
        let said = world.hangar(&["image", "import", "testapp.tar", "--name", name]);
        assert_ne!(said.code, 0);
        assert!(said.stderr.contains(told), "{name:?}: {}", said.stderr);
    }
}

#[test]
fn a_second_server_is_told_that_the_directory_is_taken() {
    let Some(world) = World::start() else { return };
    let ran = world.hangar(&["server", "--listen", "127.0.0.1:0"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains("is in use by another Hangar server"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_taken_port_is_named() {
    let Some(world) = World::start() else { return };
    let other = world.path("other").to_string_lossy().into_owned();
    let ran = world.hangar(&["server", "--data-dir", &other]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains("127.0.0.1:4280") && ran.stderr.contains("--listen"),
        "{}",
        ran.stderr
    );
}

#[test]
fn every_mistake_of_a_fly_toml_is_told_at_once_with_its_line() {
    let Some(world) = World::start() else { return };
    let toml = "app = \"broken\"\n[build]\nimage = \"testapp\"\n[processes]\nweb = \"serve\"\n\
                [http_service]\ninternal_port = \"eighty\"\nprocesses = [\"wbe\"]\nforce_htps = true\n";
    let folder = world.app("broken", toml);
    for command in [
        &["deploy", &folder][..],
        &["config", "validate", "-c", &folder],
    ] {
        let said = world.fails(2, command);
        assert!(said.contains("fly.toml"), "{said}");
        for (line, words) in [(7, "internal_port"), (8, "wbe"), (9, "force_htps")] {
            let told = said
                .lines()
                .any(|l| l.contains(&format!("line {line} ")) && l.contains(words));
            assert!(told, "line {line} about {words}:\n{said}");
        }
        assert!(said.contains("did you mean force_https?"), "{said}");
    }
    let folder = world.app("syntax", "app = \"syntax\"\n[build\nimage = \"testapp\"\n");
    let said = world.fails(2, &["deploy", &folder]);
    assert!(
        said.contains("fly.toml") && said.contains("line 2"),
        "{said}"
    );
    assert_eq!(world.json(&["apps", "list"]), serde_json::json!([]));
}

#[test]
fn a_command_that_is_not_in_the_image_fails_the_deploy_and_leaves_nothing() {
    let Some(world) = World::start() else { return };
    let mut spec = crate::world::image_spec();
    spec.entrypoint.clear();
    world.import("bare", &spec);
    let toml =
        "app = \"nocmd\"\n[build]\nimage = \"bare\"\n[processes]\nweb = \"/no/such --flag\"\n";
    let folder = world.app("nocmd", toml);
    let said = world.fails(5, &["deploy", &folder, "--ha=false"]);
    assert!(said.contains("no such file: /no/such"), "{said}");
    assert_eq!(
        world.json(&["machine", "list", "-a", "nocmd"]),
        serde_json::json!([])
    );
}

#[test]
fn a_port_that_nothing_listens_on_is_told_with_what_does_listen() {
    let Some(world) = World::start() else { return };
    let toml = fly_toml("deaf", "[http_service]\ninternal_port = 9090\n");
    let folder = world.app("deaf", &toml);
    let ran = world.ok(&["deploy", &folder, "--ha=false"]);
    let said = ran.stderr;
    assert!(
        said.contains("The app is not listening on the expected address"),
        "{said}"
    );
    assert!(
        said.contains("9090") && said.contains("0.0.0.0:8080"),
        "{said}"
    );
    let toml = web("local", "LOOPBACK_ONLY = \"1\"");
    let folder = world.app("local", &toml);
    let said = world.fails(
        5,
        &["deploy", &folder, "--ha=false", "--wait-timeout", "1s"],
    );
    assert!(said.contains("127.0.0.1:8080"), "{said}");
}

#[test]
fn a_port_of_the_edge_that_is_taken_is_replaced_and_named() {
    let Some(mut world) = World::start() else {
        return;
    };
    let taken = world.inside(|| std::net::TcpListener::bind("127.0.0.1:80").unwrap());
    let folder = world.app("moved", &web("moved", "VERSION = \"1\""));
    world.ok(&["deploy", &folder, "--ha=false"]);
    let port = world.edge(80).port();
    assert_ne!(port, 80);
    assert_eq!(world.ask("moved")["version"], "1");
    let listed = world.ok(&["services", "list", "-a", "moved"]).stdout;
    assert!(listed.contains(&format!("127.0.0.1:{port}")), "{listed}");
    let status = world.ok(&["status", "-a", "moved"]).stdout;
    assert!(
        status.contains(&format!("http://moved.localhost:{port}/")),
        "{status}"
    );
    // It stays the same, also when the usual one is free.
    drop(taken);
    world.stop_server();
    world.start_server();
    assert_eq!(world.edge(80).port(), port);
    assert_eq!(world.ask("moved")["version"], "1");
}

#[test]
fn without_root_the_server_says_what_it_needs() {
    let Some(world) = World::empty() else { return };
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(world.path(""), open.clone()).unwrap();
    let copy = world.path("hangar");
    std::fs::copy(env!("CARGO_BIN_EXE_hangar"), &copy).unwrap();
    std::fs::set_permissions(&copy, open).unwrap();
    let mut command = world.command("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    command.arg(&copy).args(["server", "--data-dir"]);
    let ran = crate::world::finish(command.arg(world.path("nobodys")));
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("root"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
}

#[test]
fn on_a_full_disk_what_runs_goes_on_and_what_is_asked_is_refused_in_words() {
    let Some(mut world) = World::empty() else {
        return;
    };
    let data = world.data_dir();
    world.mount(&data, 600);
    world.start_server();
    world.import(IMAGE, &crate::world::image_spec());
    let folder = world.app("full", &web("full", "VERSION = \"1\""));
    world.ok(&["deploy", &folder, "--ha=false"]);
    let before = world.machines("full");

    let filler = data.join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while file.write_all(&[7; 1 << 20]).is_ok() {}
    while file.write_all(&[7; 4096]).is_ok() {}
    drop(file);
    let refusals = [
        world.fails(1, &["secrets", "set", "A=1", "-a", "full"]),
        world.fails(1, &["apps", "create", "more"]),
        world.fails(
            1,
            &[
                "machine",
                "stop",
                before[0]["id"].as_str().unwrap(),
                "-a",
                "full",
            ],
        ),
    ];
    for said in refusals {
        assert!(said.contains("free disk space"), "{said}");
    }
    let mut other = crate::world::image_spec();
    other.files[0].content.push(0);
    let archive = world.path("other.tar");
    hangar_image::build::write_oci_archive(&other, &archive).unwrap();
    let archive = archive.to_string_lossy().into_owned();
    let said = world.fails(1, &["image", "import", &archive, "--name", "other"]);
    assert!(said.contains("free disk space"), "{said}");
    // What runs goes on, and what was asked did not happen by half.
    assert_eq!(world.ask("full")["version"], "1");
    assert_eq!(world.machines("full"), before);

    std::fs::remove_file(&filler).unwrap();
    world.eventually("the store takes writes again", |world| {
        (world.hangar(&["apps", "create", "more"]).code == 0).then_some(())
    });
    world.app("full", &web("full", "VERSION = \"2\""));
    world.ok(&["deploy", &folder]);
    assert_eq!(world.ask("full")["version"], "2");
}

#[test]
fn without_descriptors_left_connections_wait_and_what_runs_goes_on() {
    let Some(mut world) = World::empty() else {
        return;
    };
    world.set_descriptors(128, 128);
    world.start_server();
    world.import(IMAGE, &crate::world::image_spec());
    let folder = world.app("few", &web("few", "VERSION = \"1\""));
    world.ok(&["deploy", &folder, "--ha=false"]);
    let machine = world.only("few", "app");
    let edge = world.edge(80);
    let crowd: Vec<TcpStream> = world.inside(|| {
        let all = (0..300).map(|_| TcpStream::connect_timeout(&edge, Duration::from_secs(5)));
        all.flatten().collect()
    });
    assert!(crowd.len() > 128, "the crowd is too small: {}", crowd.len());
    // The Machine is untouched, and the server is still there.
    std::thread::sleep(Duration::from_millis(500));
    let alive = std::path::Path::new("/proc").join(world.server_pid().to_string());
    assert!(alive.exists(), "{}", world.server_log());
    drop(crowd);
    world.eventually("requests are answered again", |world| {
        (world.get("few", "/").status == 200).then_some(())
    });
    assert_eq!(world.only("few", "app"), machine);
    world.app("few", &web("few", "VERSION = \"2\""));
    world.ok(&["deploy", &folder]);
    assert_eq!(world.ask("few")["version"], "2");
}

/// Sends bytes, and their end where that is wanted; returns the status of the answer, if one comes.
fn status_of(world: &World, address: std::net::SocketAddr, bytes: &[u8], end: bool) -> Option<u16> {
    world.inside(|| {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        // A server that has had enough may close before all is sent.
        let _closed = stream.write_all(bytes);
        if end {
            let _closed = stream.shutdown(std::net::Shutdown::Write);
        }
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        let timed_out = read.is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock);
        assert!(!timed_out, "no answer and no end to {bytes:?}");
        let text = String::from_utf8_lossy(&answer).into_owned();
        text.split(' ').nth(1)?.parse().ok()
    })
}

#[test]
fn nonsense_is_answered_or_ended_and_never_a_fault_of_the_server() {
    let Some(world) = World::start() else { return };
    let folder = world.app("calm", &web("calm", "VERSION = \"1\""));
    world.ok(&["deploy", &folder, "--ha=false"]);
    let token = world.token();
    let api = |head: &str, body: &[u8]| {
        let length = body.len();
        let head = format!(
            "{head} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        );
        status_of(&world, API, &[head.as_bytes(), body].concat(), false).unwrap_or(0)
    };
    let big = vec![b' '; 2 << 20];
    for (head, body) in [
        ("POST /v1/apps", &b"{"[..]),
        ("POST /v1/apps", b"\xff\xfe"),
        ("POST /v1/apps", b"[]"),
        ("POST /v1/apps", b"{\"app_name\":\"\\u0000\"}"),
        ("POST /v1/apps", b"{\"app_name\":\"../../etc\"}"),
        ("POST /v1/apps", &big),
        (
            "POST /v1/apps/calm/machines",
            b"{\"config\":{\"image\":\"../../x\"}}",
        ),
        (
            "POST /v1/apps/calm/machines",
            b"{\"config\":{\"image\":\"testapp\",\"guest\":{\"cpus\":-1}}}",
        ),
        ("GET /v1/apps/..%2f..%2fetc", b""),
        ("GET /v1/apps/calm/machines/..%2f..%2f", b""),
        ("GET /v1/apps/calm/machines/%00", b""),
        ("GET /v1/apps/calm/machines/0/wait?timeout=nope", b""),
        ("DELETE /v1/apps/%f0%9f%92%a9", b""),
        ("BREW /v1/apps", b""),
    ] {
        let status = api(head, body);
        assert!(
            (400..500).contains(&status),
            "{head} {:?}: {status}",
            String::from_utf8_lossy(&body[..body.len().min(80)])
        );
    }
    let edge = world.edge(80);
    let long = format!(
        "GET / HTTP/1.1\r\nhost: calm.localhost\r\nx: {}\r\n\r\n",
        "y".repeat(1 << 20)
    );
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01"[..],
        b"\0\0\0\0",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: calm.localhost\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\nhello",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnonsense",
        long.as_bytes(),
    ] {
        for address in [edge, API] {
            if let Some(status) = status_of(&world, address, bytes, true) {
                assert!(status < 500, "{status} for {:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(80)]));
            }
        }
    }
    assert_eq!(world.ask("calm")["version"], "1");
    assert_eq!(world.machines("calm").len(), 1);
}
