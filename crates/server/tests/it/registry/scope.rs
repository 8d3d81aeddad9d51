//! Who gets in, and to which apps.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use hangar_api::env::Env;
use hangar_api::id::AppName;
use hangar_api::rights::{Action, Caveat};
use hangar_api::token::TokenKind;
use hangar_store::Txn;
use hangar_store::tables::{Apps, TokenRecord, Tokens};
use serde_json::json;

use super::{Registry, digest};

/// Returns a request for every endpoint of a repository.
fn everything(name: &str) -> Vec<String> {
    let digest = digest(b"layer");
    let upload = "00000000-0000-4000-8000-000000000000";
    [
        format!("GET /v2/{name}/blobs/{digest}"),
        format!("HEAD /v2/{name}/blobs/{digest}"),
        format!("GET /v2/{name}/manifests/v1"),
        format!("HEAD /v2/{name}/manifests/v1"),
        format!("GET /v2/{name}/tags/list"),
        format!("GET /v2/{name}/referrers/{digest}"),
        format!("GET /v2/{name}/blobs/uploads/{upload}"),
        format!("POST /v2/{name}/blobs/uploads/"),
        format!("POST /v2/{name}/blobs/uploads/?digest={digest}"),
        format!("POST /v2/{name}/blobs/uploads/?mount={digest}&from=web"),
        format!("PATCH /v2/{name}/blobs/uploads/{upload}"),
        format!("PUT /v2/{name}/blobs/uploads/{upload}?digest={digest}"),
        format!("DELETE /v2/{name}/blobs/uploads/{upload}"),
        format!("PUT /v2/{name}/manifests/v1"),
        format!("DELETE /v2/{name}/manifests/v1"),
        format!("DELETE /v2/{name}/blobs/{digest}"),
    ]
    .into()
}

#[tokio::test]
async fn everything_needs_a_token_and_says_how_to_give_one() {
    let mut registry = Registry::start().await;
    registry.image("web", "v1", b"layer").await;
    let token = registry.cluster.token.clone();
    let basic = |pair: String| Some(format!("Basic {}", STANDARD.encode(pair)));
    let mut paths = everything("web");
    paths.extend(["GET /v2/", "GET /v2/_catalog", "GET /v2/no/such/path"].map(str::to_owned));
    for wrong in [
        None,
        basic("x:hangar_wrong".to_owned()),
        basic(format!("{token}:")),
        Some("Basic nonsense".to_owned()),
        Some("Bearer hangar_wrong".to_owned()),
    ] {
        registry.authorization = wrong;
        for what in &paths {
            let reply = registry.send(what, &[], b"").await.expect(401);
            assert_eq!(reply.header("www-authenticate"), "Basic realm=\"Hangar\"");
            if !what.starts_with("HEAD") {
                reply.refused(401, "UNAUTHORIZED");
            }
        }
    }
    for right in [
        basic(format!("x:{token}")),
        basic(format!("anybody:{token}")),
        Some(format!("Bearer {token}")),
        Some(format!("FlyV1 fm2_other,{token}")),
    ] {
        registry.authorization = right;
        registry.get("/v2/").await.expect(200);
    }
}

#[tokio::test]
async fn an_app_that_does_not_exist_is_pushed_to_and_pulled_from_by_nobody() {
    let registry = Registry::start().await;
    for name in ["no-app", "no-app/worker"] {
        for what in everything(name) {
            let reply = registry.send(&what, &[], b"").await;
            match what.split(' ').next().unwrap() {
                "HEAD" => drop(reply.expect(404)),
                "GET" => drop(reply.refused(404, "NAME_UNKNOWN")),
                _ => {
                    let said = reply.refused(403, "DENIED");
                    assert_eq!(said, "requested access to the resource is denied");
                }
            }
        }
    }
    let blobs = registry.cluster.dir.path().join("images/blobs/sha256");
    assert_eq!(std::fs::read_dir(blobs).unwrap().count(), 0);
}

/// Makes a token that may do this to the app, and nothing else, and uses it from now on.
async fn limit(registry: &mut Registry, app: &str, action: Action) {
    let token = format!("hangar_{app}{}", action.letters());
    let key = AppName::new(app).unwrap();
    let record = registry
        .cluster
        .store
        .get::<Apps>(&key)
        .await
        .unwrap()
        .unwrap();
    let record = TokenRecord {
        id: app.to_owned(),
        name: app.to_owned(),
        user: app.to_owned(),
        created_at: Env::real().now(),
        expires_at: None,
        kind: TokenKind::Deploy,
        org: None,
        app: None,
        made_by: String::new(),
        parent: None,
        caveats: vec![Caveat::Apps([(record.value.number, action)].into())],
        key_id: None,
        revoked_at: None,
    };
    let hash = hangar_image::Digest::of(token.as_bytes()).hex().to_owned();
    let txn = Txn::new().put::<Tokens>(&hash, &record);
    registry.cluster.store.commit(txn).await.unwrap();
    registry.authorization = Some(format!("Basic {}", STANDARD.encode(format!("x:{token}"))));
    let limit = tokio::time::Instant::now() + crate::cluster::PATIENCE;
    while registry.get("/v2/").await.status != 200 {
        assert!(
            tokio::time::Instant::now() < limit,
            "the token is not let in"
        );
    }
}

#[tokio::test]
async fn a_token_for_one_app_does_nothing_to_what_was_pushed_to_another() {
    let mut registry = Registry::start().await;
    registry.cluster.app("other").await;
    registry.image("web", "v1", b"layer").await;
    registry.image("other", "v1", b"layer").await;
    let theirs = registry.begin("web").await;
    limit(&mut registry, "other", Action::ALL).await;
    for what in everything("web")
        .into_iter()
        .chain([format!("GET {theirs}")])
    {
        let reply = registry.send(&what, &[], b"").await;
        let status = if what.starts_with("GET") || what.starts_with("HEAD") {
            404
        } else {
            403
        };
        assert_eq!(reply.status.as_u16(), status, "{what} {reply:?}");
    }
    // Nor may it have the other app's layers in its own repository.
    let layer = digest(b"layer");
    let mount = format!("POST /v2/other/x/blobs/uploads/?mount={layer}&from=web");
    registry.send(&mount, &[], b"").await.expect(202);
    registry
        .get(&format!("/v2/other/x/blobs/{layer}"))
        .await
        .refused(404, "NAME_UNKNOWN");
    let all = registry.get("/v2/_catalog").await.expect(200).json();
    assert_eq!(all, json!({"repositories": ["other"]}));
    registry.image("other", "v2", b"more").await;
    registry
        .send("DELETE /v2/other/manifests/v2", &[], b"")
        .await
        .expect(202);
}

#[tokio::test]
async fn a_token_that_reads_pulls_and_one_that_writes_pushes() {
    let mut registry = Registry::start().await;
    let (_, text) = registry.image("web", "v1", b"layer").await;
    limit(&mut registry, "web", Action::READ).await;
    registry.get("/v2/web/manifests/v1").await.expect(200);
    registry.get("/v2/web/tags/list").await.expect(200);
    for what in [
        "POST /v2/web/blobs/uploads/",
        "PUT /v2/web/manifests/v2",
        "DELETE /v2/web/manifests/v1",
    ] {
        registry
            .send(what, &[], text.as_bytes())
            .await
            .refused(403, "DENIED");
    }
    limit(&mut registry, "web", Action::READ | Action::WRITE).await;
    registry.image("web", "v2", b"other").await;
    registry
        .send("DELETE /v2/web/manifests/v1", &[], b"")
        .await
        .refused(403, "DENIED");
}

#[tokio::test]
async fn an_app_runs_no_image_that_its_caller_may_not_read() {
    let mut registry = Registry::start().await;
    registry.cluster.app("other").await;
    let (_, text) = registry.image("web", "v1", b"layer").await;
    limit(&mut registry, "other", Action::ALL).await;
    let authorization = registry.authorization.clone().unwrap();
    let call = async |path: &str, body: serde_json::Value| {
        let what = format!("POST {path}");
        let sent = [
            ("content-type", "application/json"),
            ("authorization", authorization.as_str()),
        ];
        registry
            .send(&what, &sent[..1], body.to_string().as_bytes())
            .await
    };
    let image = "registry.fly.io/web:v1";
    let machine = call(
        "/v1/apps/other/machines",
        json!({"config": {"image": image}}),
    )
    .await;
    let said = machine.expect(403).json()["error"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(said.contains("pushed to app web"), "{said}");
    // Nor by its digest, which may be known, under its own app's name or any other.
    for name in ["registry.fly.io/other", "registry.fly.io/web", "alpine"] {
        let image = format!("{name}@{}", digest(text.as_bytes()));
        let machine = call(
            "/v1/apps/other/machines",
            json!({"config": {"image": image}}),
        )
        .await;
        machine.expect(403);
        let resolve = format!("/v1/images/resolve?name={image}");
        registry.get(&resolve).await.expect(403);
    }
    let source = json!({"kind": "config", "groups": {}, "image": image, "definition": {}});
    call("/v1/apps/other/deployments", json!({"source": source}))
        .await
        .expect(403);
    let resolve = format!("/v1/images/resolve?name={image}");
    registry.get(&resolve).await.expect(403);
}
