//! Certificates, with the clients that people use: openssl makes them, curl asks.

use serde_json::Value;

use crate::world::{Ran, World, finish, fly_toml, request, run, service};

/// Makes an authority, and certificates under it.
struct Authority<'a>(&'a World);

impl Authority<'_> {
    fn openssl(&self, words: &[&str]) {
        run(self.0.command("openssl").args(words));
    }

    fn make(&self) {
        let subject = [
            "-subj",
            "/CN=Test CA",
            "-addext",
            "basicConstraints=critical,CA:TRUE",
        ];
        let key = [
            "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem",
        ];
        self.openssl(&[&["req", "-x509", "-days", "30"][..], &key, &subject].concat());
    }

    /// Makes `NAME.pem`, the chain, and `NAME.key` for these hosts, with a key of this kind.
    fn issue(&self, name: &str, key: &[&str], hosts: &[&str], days: &str) {
        let file = |end: &str| format!("{name}.{end}");
        let (secret, asked, issued) = (file("key"), file("csr"), file("leaf"));
        self.openssl(&[&["genpkey", "-out", &secret][..], key].concat());
        let names: Vec<String> = hosts.iter().map(|host| format!("DNS:{host}")).collect();
        let names = format!("subjectAltName={}", names.join(","));
        let subject = ["-subj", "/CN=leaf", "-addext", &names];
        let ask = ["req", "-new", "-key", &secret, "-out", &asked];
        self.openssl(&[&ask[..], &subject].concat());
        let sign = [
            "x509", "-req", "-in", &asked, "-out", &issued, "-days", days,
        ];
        let by = [
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-copy_extensions",
            "copy",
        ];
        self.openssl(&[&sign[..], &by].concat());
        let read = |name: &str| std::fs::read_to_string(self.0.path(name)).unwrap();
        let chain = read(&issued) + &read("ca.pem");
        std::fs::write(self.0.path(&file("pem")), chain).unwrap();
    }

    /// Asks over TLS, believing this authority alone.
    fn ask(&self, host: &str) -> Ran {
        let port = self.0.edge(443).port();
        let resolve = format!("{host}:{port}:127.0.0.1");
        let url = format!("https://{host}:{port}/");
        let mut curl = self.0.command("curl");
        let known = ["--cacert", "ca.pem", "--resolve", &resolve];
        finish(curl.args(["-sS", "--max-time", "20"]).args(known).arg(url))
    }

    fn machine_of(&self, host: &str) -> String {
        let ran = self.ask(host);
        assert_eq!(
            ran.code,
            0,
            "{host}: {}\n{}",
            ran.stderr,
            self.0.server_log()
        );
        let answer: Value = serde_json::from_str(&ran.stdout).unwrap();
        answer["machine"].as_str().unwrap().to_owned()
    }
}

const RSA: &[&str] = &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
const ECDSA: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
const ED25519: &[&str] = &["-algorithm", "ED25519"];

/// What curl says when it does not believe a certificate.
const NOT_BELIEVED: i32 = 60;
/// What it says when nobody listens.
const NO_CONNECTION: i32 = 7;

fn deploy(world: &World, app: &str) -> String {
    let folder = world.app(app, &fly_toml(app, &service(&[])));
    world.ok(&["deploy", &folder, "--ha=false"]);
    world.only(app, "app")
}

fn import<'a>(app: &'a str, host: &'a str, files: [&'a str; 2]) -> Vec<&'a str> {
    let [chain, key] = files;
    let what = ["certs", "import", host, "-a", app];
    [&what[..], &["--fullchain", chain, "--private-key", key]].concat()
}

/// A world with two apps, the id of each one's Machine, and certificates for hosts of theirs.
fn with_apps() -> Option<(World, String, String)> {
    let world = World::start()?;
    let (web, api) = (deploy(&world, "web"), deploy(&world, "api"));
    let ca = Authority(&world);
    ca.make();
    ca.issue("one", RSA, &["example.com", "www.example.com"], "9");
    ca.issue("wild", ECDSA, &["*.example.com"], "9");
    ca.issue("ed", ED25519, &["api.example.com"], "9");
    Some((world, web, api))
}

/// Asks without TLS.
fn plain(world: &World, host: &str) -> crate::world::Answer {
    let edge = world.edge(80);
    let answer = world.inside(|| request(edge, "GET", "/", host, "", b""));
    answer.unwrap()
}

#[test]
fn an_imported_certificate_is_served_at_once_and_for_its_own_app_alone() {
    let Some((world, web, api)) = with_apps() else {
        return;
    };
    let ca = Authority(&world);
    // Nobody's as yet: not even plain requests for it are anybody's.
    assert_eq!(plain(&world, "example.com").status, 404);
    let added = world
        .ok(&["certs", "add", "example.com", "-a", "web"])
        .stdout;
    assert!(added.contains("does not issue certificates yet"), "{added}");
    let answer: Value = serde_json::from_str(&plain(&world, "example.com").body).unwrap();
    assert_eq!(answer["machine"], web.as_str());
    assert_eq!(ca.ask("example.com").code, NOT_BELIEVED);

    // No waiting: what the answer says is served is served.
    world.ok(&import("web", "example.com", ["one.pem", "one.key"]));
    assert_eq!(ca.machine_of("example.com"), web);
    world.ok(&import("web", "*.example.com", ["wild.pem", "wild.key"]));
    assert_eq!(ca.machine_of("www.example.com"), web);
    world.ok(&["certs", "add", "api.example.com", "-a", "api"]);
    // It is the other app's, and what is imported for this one does not speak for it.
    assert_eq!(ca.ask("api.example.com").code, NOT_BELIEVED);
    world.ok(&import("api", "api.example.com", ["ed.pem", "ed.key"]));
    assert_eq!(ca.machine_of("api.example.com"), api);
    let taken = import("api", "example.com", ["one.pem", "one.key"]);
    let refused = world.fails(1, &taken);
    assert!(refused.contains("already been taken"), "{refused}");

    let listed = world.ok(&["certs", "list", "-a", "web"]).stdout;
    assert!(
        listed.contains("*.example.com  Custom  Verified"),
        "{listed}"
    );
    let checked = world
        .ok(&["certs", "check", "example.com", "-a", "web"])
        .stdout;
    assert!(
        checked.contains("Issuer") && checked.contains("Test CA"),
        "{checked}"
    );
    let setup = world
        .ok(&["certs", "setup", "example.com", "-a", "web"])
        .stdout;
    assert!(
        setup.contains("CNAME example.com -> web.localhost"),
        "{setup}"
    );
    let key = std::fs::read_to_string(world.path("one.key")).unwrap();
    let line = key.lines().nth(2).unwrap();
    for file in ["data/store.db", "data/store.db-wal", "server.log"] {
        let bytes = std::fs::read(world.path(file)).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains(line), "the key stands in {file}");
    }
}

#[test]
fn a_certificate_is_served_after_a_restart_until_it_goes() {
    let Some((mut world, web, _)) = with_apps() else {
        return;
    };
    world.ok(&import("web", "example.com", ["one.pem", "one.key"]));
    world.ok(&import("web", "*.example.com", ["wild.pem", "wild.key"]));
    world.ok(&import("api", "api.example.com", ["ed.pem", "ed.key"]));
    world.edge(443);
    world.kill_server();
    world.start_server();
    let ca = Authority(&world);
    // The first answer of a new server is over the right certificate, or there is none.
    let first = world.eventually("it listens again", |_| {
        let ran = ca.ask("example.com");
        (ran.code != NO_CONNECTION).then_some(ran)
    });
    assert_eq!(first.code, 0, "{first:?}");
    assert_eq!(ca.machine_of("www.example.com"), web);

    let custom = ["certs", "remove", "example.com", "-a", "web", "--custom"];
    let asked = world.fails(2, &custom);
    assert!(asked.contains("--yes"), "{asked}");
    world.ok(&[&custom[..], &["--yes"]].concat());
    assert_eq!(ca.ask("example.com").code, NOT_BELIEVED);
    assert_eq!(plain(&world, "example.com").status, 200);
    for host in ["example.com", "*.example.com"] {
        world.ok(&["certs", "remove", host, "-a", "web", "--yes"]);
    }
    assert_eq!(ca.ask("www.example.com").code, NOT_BELIEVED);
    assert_eq!(plain(&world, "example.com").status, 404);
    world.ok(&["apps", "destroy", "api", "--yes"]);
    world.eventually("the app's hostname is free", |world| {
        let files = import("web", "api.example.com", ["ed.pem", "ed.key"]);
        (world.hangar(&files).code == 0).then_some(())
    });
    assert_eq!(ca.machine_of("api.example.com"), web);
}

#[test]
fn what_clients_would_refuse_is_refused_with_the_reason() {
    let Some(world) = World::start() else { return };
    world.ok(&["apps", "create", "web"]);
    let ca = Authority(&world);
    ca.make();
    ca.issue("good", ECDSA, &["example.com"], "9");
    ca.issue("other", ECDSA, &["example.org"], "9");
    let leaf = std::fs::read_to_string(world.path("good.leaf")).unwrap();
    let root = std::fs::read_to_string(world.path("ca.pem")).unwrap();
    std::fs::write(world.path("turned.pem"), format!("{root}{leaf}")).unwrap();
    ca.openssl(&[
        "pkey",
        "-in",
        "good.key",
        "-out",
        "locked.key",
        "-aes256",
        "-passout",
        "pass:x",
    ]);
    ca.openssl(&[
        "genpkey",
        "-out",
        "521.key",
        "-algorithm",
        "EC",
        "-pkeyopt",
        "ec_paramgen_curve:P-521",
    ]);
    // Whatever kind of PEM openssl writes a key as.
    ca.openssl(&["ec", "-in", "good.key", "-out", "sec1.key"]);
    for (chain, key, why) in [
        (
            "other.pem",
            "other.key",
            "not for example.com: it is for example.org",
        ),
        ("good.pem", "other.key", "does not match"),
        ("turned.pem", "good.key", "must come first"),
        ("good.pem", "locked.key", "encrypted"),
        ("good.pem", "521.key", "P-256"),
        ("good.key", "good.key", "no certificate"),
        ("good.pem", "good.pem", "no key"),
    ] {
        let said = world.fails(1, &import("web", "example.com", [chain, key]));
        assert!(said.contains(why), "{chain} {key}: {said}");
    }
    let expired = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["example.com".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let certificate = params.self_signed(&expired).unwrap();
    std::fs::write(world.path("old.pem"), certificate.pem()).unwrap();
    std::fs::write(world.path("old.key"), expired.serialize_pem()).unwrap();
    let said = world.fails(1, &import("web", "example.com", ["old.pem", "old.key"]));
    assert!(said.contains("expired at 2020-01-01"), "{said}");
    for host in ["other.localhost", "x.internal", "web.flycast"] {
        let said = world.fails(1, &import("web", host, ["good.pem", "good.key"]));
        assert!(
            said.contains("not free") || said.contains("not for"),
            "{said}"
        );
        let said = world.fails(1, &["certs", "add", host, "-a", "web"]);
        assert!(said.contains("not free"), "{said}");
    }
    let none = world.json(&["certs", "list", "-a", "web"]);
    assert_eq!(
        none.as_array().unwrap().len(),
        0,
        "nothing was half applied: {none}"
    );
    world.ok(&import("web", "example.com", ["good.pem", "sec1.key"]));
}

/// Asks the certificates of app `web`.
fn call(world: &World, method: &str, path: &str, body: &str) -> (u16, Value) {
    let token = world.token();
    let head = format!("authorization: Bearer {token}\r\ncontent-type: application/json\r\n");
    let path = format!("/v1/apps/web/certificates{path}");
    let body = body.as_bytes();
    let answer = world.inside(|| request(crate::world::API, method, &path, "x", &head, body));
    let answer = answer.unwrap();
    let value = serde_json::from_str(&answer.body).unwrap_or_default();
    (answer.status, value)
}

#[test]
fn the_api_answers_as_the_wire_has_it() {
    let Some(world) = World::start() else { return };
    world.ok(&["apps", "create", "web"]);
    let call = |method: &str, path: &str, body: &str| call(&world, method, path, body);
    for name in [
        "c.example.com",
        "a.example.com",
        "*.example.com",
        "b.example.com",
    ] {
        let body = format!("{{\"hostname\": \"{name}\"}}");
        let (status, added) = call("POST", "/acme", &body);
        assert_eq!(
            (status, added["acme_requested"].as_bool()),
            (201, Some(true))
        );
        assert_eq!(added["configured"], false);
        assert_eq!(added["status"], "pending_validation");
        assert_eq!(added["validation_errors"][0]["code"], "acme_not_available");
        // Once more changes nothing.
        assert_eq!(call("POST", "/acme", &body).0, 201);
    }
    let (_, page) = call("GET", "?limit=3", "");
    assert_eq!(page["total_count"], 4);
    assert_eq!(page["certificates"].as_array().unwrap().len(), 3);
    let next = page["next_cursor"].as_str().unwrap();
    let (_, rest) = call("GET", &format!("?limit=3&cursor={next}"), "");
    assert_eq!(rest["certificates"][0]["hostname"], "c.example.com");
    assert_eq!(rest["next_cursor"], "");
    assert_eq!(call("GET", "?filter=b.ex", "").1["total_count"], 1);
    let (status, wild) = call("GET", "/%2A.example.com", "");
    assert_eq!(
        (status, wild["hostname"].as_str()),
        (200, Some("*.example.com"))
    );
    let (status, checked) = call("POST", "/c.example.com/check", "");
    assert_eq!(status, 200);
    assert!(
        checked["dns_records"]["resolved_addresses"].is_array(),
        "{checked}"
    );
    assert_eq!(call("DELETE", "/c.example.com/custom", "").0, 404);
    let (status, left) = call("DELETE", "/c.example.com/acme", "");
    assert_eq!(
        (status, left["acme_requested"].as_bool()),
        (200, Some(false))
    );
    assert!(left["warning"].as_str().unwrap().contains("self-signed"));
    assert_eq!(call("DELETE", "/%2A.example.com", "").0, 204);
    assert_eq!(call("DELETE", "/%2A.example.com", "").0, 404);
    assert_eq!(call("GET", "/nobody.example.net", "").0, 404);
}

#[test]
fn a_hostname_that_is_none_is_unprocessable() {
    let Some(world) = World::start() else { return };
    world.ok(&["apps", "create", "web"]);
    for body in [
        "",
        "null",
        "{}",
        "{\"hostname\": null}",
        "{\"hostname\": \"1.2.3.4\"}",
    ] {
        for path in ["/acme", "/custom"] {
            let (status, said) = call(&world, "POST", path, body);
            assert_eq!(status, 422, "{path} {body}: {said}");
        }
    }
}
