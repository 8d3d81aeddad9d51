//! Every endpoint against every kind of token, from the list that the server itself serves by: a
//! row without a need does not compile, and one that no test here has a word for fails.

use hangar_server::{Need, endpoints};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::cluster::{Cluster, read};

/// Two apps of `personal`, and one of another organisation, each with a Machine, a volume, a
/// secret, an image's name and a token.
struct Site {
    cluster: Cluster,
}

/// The things of an app that stand in paths.
#[derive(Clone)]
struct Things {
    app: String,
    org: &'static str,
    machine: String,
    volume: String,
    token: String,
}

// === impl Site ===

impl Site {
    async fn start() -> Self {
        let cluster = Cluster::start().await;
        cluster.post("/v1/orgs", json!({"name": "Others"})).await;
        Self { cluster }
    }

    async fn things(&self, app: &str, org: &'static str) -> Things {
        let cluster = &self.cluster;
        let body = json!({"name": app, "org_slug": org});
        cluster.post("/v1/apps", body).await;
        let machine = self.machine(app, "web").await;
        let volumes = format!("/v1/apps/{app}/volumes");
        let volume = cluster
            .post(&volumes, json!({"name": "data", "size_gb": 1}))
            .await;
        let secrets = format!("/v1/apps/{app}/secrets/KEY");
        cluster.post(&secrets, json!({"value": "hidden"})).await;
        let token = cluster.token(&format!("apps/{app}"), json!({})).await;
        Things {
            app: app.to_owned(),
            org,
            machine,
            volume: text(&volume["id"]),
            token: text(&token["id"]),
        }
    }

    async fn machine(&self, app: &str, group: &str) -> String {
        let config = json!({"image": "nginx", "metadata": {"fly_process_group": group}});
        let path = format!("/v1/apps/{app}/machines");
        let machine = self.cluster.post(&path, json!({"config": config})).await;
        let id = text(&machine["id"]);
        self.cluster.wait(app, &id, "started").await;
        id
    }

    /// Makes a token and returns its text.
    async fn minted(&self, of: &str, body: Value) -> String {
        text(&self.cluster.token(of, body).await["token"])
    }

    async fn ask(&self, token: &str, row: &Row, things: &Things) -> (StatusCode, Value) {
        let (path, body) = (row.filled(things), row.body(things));
        let mut request = self.cluster.request(row.method.clone(), &path, &body);
        let header = format!("Bearer {token}").parse().unwrap();
        request.headers_mut().insert("authorization", header);
        let response = self.cluster.send(request).await;
        let kind = response.headers().get("content-type").cloned();
        if kind.is_some_and(|kind| kind == "text/event-stream") {
            // It has no end.
            return (response.status(), Value::Null);
        }
        read(response).await
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

struct Row {
    method: Method,
    path: String,
    need: Need,
}

fn rows() -> Vec<Row> {
    let all = endpoints().into_iter();
    let rows: Vec<Row> = all
        .map(|(method, path, need)| Row { method, path, need })
        .collect();
    assert!(rows.len() > 50);
    rows
}

// === impl Row ===

impl Row {
    fn is(&self, method: &Method, path: &str) -> bool {
        self.method == *method && self.path == path
    }

    /// Returns the path with the things of an app in it. A part that has no word here is a new
    /// kind of thing, and needs one.
    fn filled(&self, things: &Things) -> String {
        let query = match self.path.as_str() {
            "/v1/images" | "/v1/images/resolve" => format!("?name={}:built", things.app),
            _ => String::new(),
        };
        let id = match self.path.starts_with("/v1/tokens") {
            true => &things.token,
            false => "01J00000000000000000000000",
        };
        let filled = self
            .path
            .replace("{app}", &things.app)
            .replace("{slug}", things.org)
            .replace("{machine}", &things.machine)
            .replace("{volume}", &things.volume)
            .replace("{snapshot}", "vs_0123456789abcdef")
            .replace("{id}", id)
            .replace("{version}", "1")
            .replace("{name}", "KEY")
            .replace("{key}", "fly_process_group")
            .replace("{action}", "sign")
            .replace("{ip}", "fdaa::1")
            .replace("{*rest}", "x")
            .replace("{hostname}", "a.example.com")
            .replace("{slot}", "iad-a");
        assert!(!filled.contains('{'), "no word for a part of {filled}");
        filled + &query
    }

    fn body(&self, things: &Things) -> Value {
        if self.method == Method::GET {
            return Value::Null;
        }
        if self.is(&Method::POST, "/v1/apps") {
            return json!({"name": "new", "org_slug": things.org});
        }
        if self.names_app() {
            return json!({"app_name": things.app});
        }
        match self.need {
            Need::Exec => json!({"command": ["ls"]}),
            _ => json!({}),
        }
    }

    /// Returns whether the body names the app: what flyctl asks beside the Machines API.
    fn names_app(&self) -> bool {
        let known = ["/builds", "/builds/finish", "/releases"];
        let rest = self.path.strip_prefix("/api/v1");
        rest.is_some_and(|rest| known.contains(&rest))
    }

    /// Returns whether it is about a client's own release: there is none.
    fn is_report(&self) -> bool {
        self.is(&Method::PATCH, "/api/v1/releases/{id}")
    }

    /// Asserts that the need is about what the path names.
    fn assert_fits(&self) {
        let has = |part: &str| self.path.contains(part);
        let fits = match self.need {
            Need::Machine(_) | Need::Exec => has("{app}") && has("{machine}"),
            Need::Volume(_) => has("{app}") && has("{volume}"),
            Need::App(_) | Need::Deploy | Need::MachineList => {
                has("{app}") && !has("{machine}") && !has("{volume}")
            }
            Need::Tokens(_) => has("{app}") || has("{slug}"),
            Need::Org(_) => has("{slug}"),
            Need::Open | Need::Token | Need::Platform(_) | Need::Listed | Need::Body => {
                !has("{app}") && !has("{slug}")
            }
        };
        assert!(fits, "{} {}: {:?}", self.method, self.path, self.need);
    }
}

/// Asserts what a token that is of no use for these things is answered.
/// `sees_org` says whether it may read the organisation `personal`.
fn assert_nothing_told(
    row: &Row,
    things: &Things,
    sees_org: bool,
    (status, answer): (StatusCode, &Value),
) {
    let sees_org = sees_org && things.org == "personal";
    let what = format!("{} {}: {status} {answer}", row.method, row.path);
    // The document is the same for everybody, and has words that are names here.
    if ["/docs", "/v1/openapi.json"].contains(&row.path.as_str()) {
        return;
    }
    match row.need {
        Need::Open => {}
        Need::Token => assert_ne!(status, StatusCode::FORBIDDEN, "{what}"),
        Need::Listed => assert_eq!(status, StatusCode::OK, "{what}"),
        // The organisation may be read by a token of one of its apps, and no more.
        Need::Org(hangar_api::rights::Action::READ) if sees_org => {
            assert_eq!(status, StatusCode::OK, "{what}");
        }
        Need::Org(_) | Need::Tokens(_) if row.path.contains("{slug}") => {
            let expected = match sees_org {
                true => StatusCode::FORBIDDEN,
                false => StatusCode::NOT_FOUND,
            };
            assert_eq!(status, expected, "{what}");
        }
        Need::Body => {
            let is_token = row.is(&Method::DELETE, "/v1/tokens/{id}");
            let is_app = row.is(&Method::POST, "/v1/apps");
            let is_image = row.path.starts_with("/v1/images");
            let is_fly = row.names_app() || row.is_report();
            let has_word = is_token || is_app || is_image || is_fly;
            assert!(has_word, "no word for {what}");
            let expected = match is_token || row.is_report() || (is_app && !sees_org) {
                true => StatusCode::NOT_FOUND,
                false => StatusCode::FORBIDDEN,
            };
            assert_eq!(status, expected, "{what}");
        }
        _ => assert_eq!(status, StatusCode::FORBIDDEN, "{what}"),
    }
    let told = answer.to_string();
    let refused = status == StatusCode::FORBIDDEN || status == StatusCode::NOT_FOUND;
    for hidden in [&things.app, &things.volume, &things.machine] {
        // A refusal names what was asked for.
        assert!(refused || !told.contains(hidden.as_str()), "{what}");
    }
}

#[tokio::test]
async fn a_token_of_one_app_is_refused_on_every_endpoint_of_another() {
    let site = Site::start().await;
    site.things("mine", "personal").await;
    let sibling = site.things("sibling", "personal").await;
    let theirs = site.things("theirs", "others").await;
    let mut tokens = Vec::new();
    for body in [
        json!({}),
        json!({"opaque": true}),
        json!({"kind": "readonly"}),
        json!({"kind": "exec"}),
        json!({"kind": "exec", "group": "web"}),
    ] {
        let sees_org = body["kind"] != "exec";
        tokens.push((site.minted("apps/mine", body).await, sees_org));
    }
    for row in rows() {
        row.assert_fits();
        for (token, sees_org) in &tokens {
            for things in [&sibling, &theirs] {
                let (status, answer) = site.ask(token, &row, things).await;
                assert_nothing_told(&row, things, *sees_org, (status, &answer));
            }
        }
    }
    // Nothing was done to them meanwhile.
    for things in [&sibling, &theirs] {
        let path = format!("/v1/apps/{}/machines/{}", things.app, things.machine);
        assert_eq!(site.cluster.get(&path).await["state"], "started");
        let path = format!("/v1/apps/{}/tokens", things.app);
        let tokens = site.cluster.get(&path).await;
        assert_eq!(tokens["tokens"].as_array().unwrap().len(), 1);
        assert!(tokens["tokens"][0]["revoked_at"].is_null());
    }
}

#[tokio::test]
async fn a_refusal_does_not_tell_what_there_is_in_an_app() {
    let site = Site::start().await;
    site.things("mine", "personal").await;
    let theirs = site.things("theirs", "others").await;
    let nothing = Things {
        machine: "ffffffffffffff".to_owned(),
        volume: "vol_0000000000000000".to_owned(),
        token: "01000000000000000000000000".to_owned(),
        ..theirs.clone()
    };
    let token = site.minted("apps/mine", json!({})).await;
    for row in rows() {
        let there = site.ask(&token, &row, &theirs).await;
        let not = site.ask(&token, &row, &nothing).await;
        let same = |(status, answer): (StatusCode, Value), things: &Things| {
            let told = answer.to_string();
            let told = told.replace(&things.token, "").replace(&things.machine, "");
            (status, told.replace(&things.volume, ""))
        };
        let (there, not) = (same(there, &theirs), same(not, &nothing));
        assert_eq!(there, not, "{} {}", row.method, row.path);
    }
}

#[tokio::test]
async fn a_read_only_token_reads_and_is_refused_on_every_write() {
    let site = Site::start().await;
    let mine = site.things("mine", "personal").await;
    let of_org = site
        .minted("orgs/personal", json!({"kind": "readonly"}))
        .await;
    let of_app = site.minted("apps/mine", json!({"kind": "readonly"})).await;
    for row in rows() {
        for token in [&of_org, &of_app] {
            let (status, answer) = site.ask(token, &row, &mine).await;
            let what = format!("{} {}: {status} {answer}", row.method, row.path);
            // A check of a certificate only looks.
            let looks = row.path.ends_with("/{hostname}/check");
            let reads = looks || (row.method == Method::GET && !row.path.ends_with("/tunnel"));
            // What the server has not is so for everybody; a token of an app sees no tokens.
            let is_tokens = matches!(row.need, Need::Tokens(_)) && *token == of_app;
            let is_revoke = row.is(&Method::DELETE, "/v1/tokens/{id}") && *token == of_app;
            match row.need {
                Need::Open | Need::Token => assert_ne!(status, StatusCode::FORBIDDEN, "{what}"),
                _ if is_revoke || row.is_report() => {
                    assert_eq!(status, StatusCode::NOT_FOUND, "{what}");
                }
                _ if reads && !is_tokens => {
                    assert_ne!(status, StatusCode::FORBIDDEN, "{what}");
                    assert_ne!(status, StatusCode::UNAUTHORIZED, "{what}");
                }
                _ => assert_eq!(status, StatusCode::FORBIDDEN, "{what}"),
            }
        }
    }
}

#[tokio::test]
async fn an_exec_token_runs_commands_in_its_group_and_does_nothing_else() {
    let site = Site::start().await;
    let mine = site.things("mine", "personal").await;
    let worker = Things {
        machine: site.machine("mine", "worker").await,
        ..mine.clone()
    };
    let token = site
        .minted("apps/mine", json!({"kind": "exec", "group": "web"}))
        .await;
    for row in rows() {
        let (status, answer) = site.ask(&token, &row, &mine).await;
        let what = format!("{} {}: {status} {answer}", row.method, row.path);
        let may = match row.need {
            Need::Exec | Need::Machine(hangar_api::rights::Action::READ) => true,
            Need::Open | Need::Token | Need::Listed | Need::MachineList => true,
            // The organisation is not there for it.
            Need::Org(_) | Need::Tokens(_) if row.path.contains("{slug}") => true,
            Need::Body if row.is(&Method::POST, "/v1/apps") => true,
            Need::Body if row.is(&Method::DELETE, "/v1/tokens/{id}") => continue,
            Need::Body if row.is_report() => continue,
            _ => false,
        };
        assert_eq!(status != StatusCode::FORBIDDEN, may, "{what}");
        let (status, answer) = site.ask(&token, &row, &worker).await;
        if row.path.contains("{machine}") {
            assert_eq!(status, StatusCode::FORBIDDEN, "{what}: {answer}");
        }
    }
    let list = "/v1/apps/mine/machines";
    let (_, machines) = site
        .cluster
        .call_as(&token, Method::GET, list, Value::Null)
        .await;
    assert_eq!(machines.as_array().unwrap().len(), 1);
    assert_eq!(machines[0]["id"], mine.machine.as_str());
}

#[tokio::test]
async fn a_token_for_one_command_runs_that_one() {
    let site = Site::start().await;
    let mine = site.things("mine", "personal").await;
    let commands = json!([
        {"args": ["bin/task", "one"], "exact": true},
        {"args": ["ls"]},
    ]);
    let token = site
        .minted("apps/mine", json!({"kind": "exec", "commands": commands}))
        .await;
    let path = format!("/v1/apps/mine/machines/{}/exec", mine.machine);
    for (body, expected) in [
        (json!({"command": ["bin/task", "one"]}), StatusCode::OK),
        (json!({"cmd": "ls -l '/a b'"}), StatusCode::OK),
        (
            json!({"command": ["bin/task", "one", "two"]}),
            StatusCode::FORBIDDEN,
        ),
        (json!({"cmd": "bin/task two"}), StatusCode::FORBIDDEN),
        // What is run is the list, whatever the text beside it says.
        (
            json!({"command": ["sh"], "cmd": "ls"}),
            StatusCode::FORBIDDEN,
        ),
        (json!({"cmd": "ls 'open"}), StatusCode::FORBIDDEN),
        (json!({}), StatusCode::FORBIDDEN),
    ] {
        let asked = body.to_string();
        let (status, answer) = site
            .cluster
            .call_as(&token, Method::POST, &path, body)
            .await;
        assert_eq!(status, expected, "{asked}: {answer}");
    }
}

#[tokio::test]
async fn variables_are_a_part_of_the_command_that_is_allowed() {
    let site = Site::start().await;
    let mine = site.things("mine", "personal").await;
    let commands = json!([{"args": ["ls"]}]);
    let token = site
        .minted("apps/mine", json!({"kind": "exec", "commands": commands}))
        .await;
    let path = format!("/v1/apps/mine/machines/{}/session", mine.machine);
    for (env, expected) in [
        // It may run; it only asks in the wrong way.
        (json!({}), StatusCode::BAD_REQUEST),
        (json!({"TERM": "xterm"}), StatusCode::BAD_REQUEST),
        (json!({"LD_PRELOAD": "/x"}), StatusCode::FORBIDDEN),
        (
            json!({"PATH": "/x", "TERM": "xterm"}),
            StatusCode::FORBIDDEN,
        ),
    ] {
        let body = json!({"command": ["ls"], "env": env});
        let (status, answer) = site
            .cluster
            .call_as(&token, Method::POST, &path, body)
            .await;
        assert_eq!(status, expected, "{env}: {answer}");
    }
}

#[tokio::test]
async fn a_first_deployment_may_be_looked_at_and_nothing_is_made_by_that() {
    let site = Site::start().await;
    let token = site.minted("orgs/others", json!({})).await;
    let group = json!({"config": {"image": "nginx"}, "count": 1});
    let body = |dry_run: bool| {
        json!({
            "source": {"kind": "config", "groups": {"app": group}, "image": "nginx", "definition": {}},
            "dry_run": dry_run,
        })
    };
    let path = "/v1/apps/unborn/deployments";
    let post = async |body: Value| site.cluster.call_as(&token, Method::POST, path, body).await;
    let (status, answer) = post(body(true)).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let (status, answer) = post(body(false)).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "{answer}");
}

#[tokio::test]
async fn what_is_in_another_app_is_not_found_in_ones_own() {
    let site = Site::start().await;
    let mine = site.things("mine", "personal").await;
    let theirs = site.things("theirs", "others").await;
    let mixed = Things {
        app: mine.app.clone(),
        org: mine.org,
        ..theirs.clone()
    };
    let token = site.minted("apps/mine", json!({})).await;
    let admin = site.cluster.token.clone();
    let mut found_not = 0;
    let within = |row: &Row| row.path.contains("{machine}") || row.path.contains("{volume}");
    for row in rows().iter().filter(|row| within(row)) {
        for token in [&token, &admin] {
            let (status, answer) = site.ask(token, row, &mixed).await;
            let what = format!("{} {}: {status} {answer}", row.method, row.path);
            // Some look at what was sent first, and find it wrong.
            let refused = [StatusCode::NOT_FOUND, StatusCode::BAD_REQUEST];
            assert!(refused.contains(&status), "{what}");
            found_not += usize::from(status == StatusCode::NOT_FOUND);
        }
    }
    assert!(found_not > 40, "{found_not} were not found");
}

#[tokio::test]
async fn a_token_that_is_over_is_let_in_nowhere() {
    let site = Site::start().await;
    let mine = site.things("mine", "personal").await;
    let revoked = site.cluster.token("apps/mine", json!({})).await;
    let path = format!("/v1/tokens/{}", text(&revoked["id"]));
    site.cluster.call(Method::DELETE, &path, Value::Null).await;
    for row in rows().iter().filter(|row| row.need != Need::Open) {
        let (status, _) = site.ask(&text(&revoked["token"]), row, &mine).await;
        assert_eq!(
            status,
            StatusCode::UNAUTHORIZED,
            "{} {}",
            row.method,
            row.path
        );
    }
}
