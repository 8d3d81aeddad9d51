//! Tokens from being made to being over, and organisations.

use hangar_api::app::AppRecord;
use hangar_api::id::AppName;
use hangar_api::macaroon::{Macaroon, NONCE_LEN};
use hangar_api::rights::{Action, Caveat};
use hangar_store::tables::{AppNumbers, Apps};
use hangar_store::{Cache, Txn};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::cluster::{Cluster, PATIENCE};

const APPS: &str = "/v1/apps";

async fn status(cluster: &Cluster, token: &str, path: &str) -> StatusCode {
    let (status, _) = cluster.call_as(token, Method::GET, path, Value::Null).await;
    status
}

fn text(made: &Value) -> String {
    made["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_token_is_made_listed_revoked_and_ends_by_itself() {
    let mut cluster = Cluster::start().await;
    cluster.app("web").await;
    let nothing = json!({"kind": null, "expiry": null, "group": null, "commands": null,
        "opaque": null, "name": "ci"});
    let made = cluster.token("apps/web", nothing).await;
    let token = text(&made);
    assert!(token.starts_with("fm2_"));
    assert_eq!(
        status(&cluster, &token, "/v1/apps/web").await,
        StatusCode::OK
    );
    let listed = cluster.get("/v1/apps/web/tokens").await;
    let row = &listed["tokens"][0];
    for (key, value) in [
        ("name", "ci"),
        ("kind", "deploy"),
        ("org_slug", "personal"),
        ("app", "web"),
        ("user", "admin"),
    ] {
        assert_eq!(row[key], value, "{key}");
    }
    assert_eq!(row["id"], made["id"]);
    assert!(!listed.to_string().contains("fm2_"));
    let of_org = cluster.get("/v1/orgs/personal/tokens").await;
    assert_eq!(of_org["tokens"][0]["id"], made["id"]);

    // It is as good after a restart, and its text is in no record.
    cluster.down().await;
    cluster.up().await;
    assert_eq!(
        status(&cluster, &token, "/v1/apps/web").await,
        StatusCode::OK
    );

    let path = format!("/v1/tokens/{}", made["id"].as_str().unwrap());
    let (answer, _) = cluster.call(Method::DELETE, &path, Value::Null).await;
    assert_eq!(answer, StatusCode::OK);
    assert_eq!(
        status(&cluster, &token, APPS).await,
        StatusCode::UNAUTHORIZED
    );
    let (answer, again) = cluster.call(Method::DELETE, &path, Value::Null).await;
    assert_eq!(answer, StatusCode::OK);
    assert!(again["revoked_at"].is_string());

    let short = text(&cluster.token("apps/web", json!({"expiry": "1s"})).await);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while status(&cluster, &short, APPS).await != StatusCode::UNAUTHORIZED {
        assert!(tokio::time::Instant::now() < deadline, "it does not end");
    }
}

#[tokio::test]
async fn what_no_token_can_be_is_refused_in_words() {
    let cluster = Cluster::start().await;
    cluster.app("web").await;
    for (of, body, said) in [
        (
            "apps/web",
            json!({"kind": "org"}),
            "deploy, readonly or exec",
        ),
        (
            "orgs/personal",
            json!({"kind": "deploy"}),
            "org or readonly",
        ),
        ("apps/web", json!({"expiry": "-1h"}), "1s to 876000h"),
        ("apps/web", json!({"group": "web"}), "kind exec"),
        ("apps/web", json!({"name": "a\nb"}), "100 printable"),
    ] {
        let path = format!("/v1/{of}/tokens");
        let (status, answer) = cluster.call(Method::POST, &path, body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
        assert!(answer["error"].as_str().unwrap().contains(said), "{answer}");
    }
    for (path, missing) in [
        ("/v1/apps/none/tokens", "App"),
        ("/v1/orgs/none/tokens", "Organization"),
    ] {
        let (status, answer) = cluster.call(Method::POST, path, json!({})).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert!(answer["error"].as_str().unwrap().contains(missing));
    }
    let (status, answer) = cluster
        .call(Method::POST, "/v1/tokens/oidc", json!({}))
        .await;
    assert_eq!(status, StatusCode::NOT_IMPLEMENTED);
    assert!(answer["error"].as_str().unwrap().contains("OpenID"));
}

#[tokio::test]
async fn a_bearer_limits_a_macaroon_and_cannot_widen_it() {
    let cluster = Cluster::start().await;
    cluster.app("web").await;
    let full = text(&cluster.token("apps/web", json!({})).await);
    let set = "/v1/apps/web/secrets/KEY";
    let write = async |token: &str| {
        let (status, _) = cluster
            .call_as(token, Method::POST, set, json!({"value": "x"}))
            .await;
        status
    };
    assert_eq!(write(&full).await, StatusCode::CREATED);
    let limited = |caveat: Caveat| {
        let mut token = Macaroon::parse(&full).unwrap();
        token.add(&caveat).unwrap();
        token.text()
    };
    let reads = limited(Caveat::Action(Action::READ));
    assert_eq!(status(&cluster, &reads, set).await, StatusCode::OK);
    assert_eq!(write(&reads).await, StatusCode::FORBIDDEN);
    let over = limited(Caveat::ValidityWindow {
        not_before: 0,
        not_after: 1,
    });
    assert_eq!(status(&cluster, &over, set).await, StatusCode::FORBIDDEN);
    let elsewhere = limited(Caveat::FromMachine("0123456789abcd".to_owned()));
    assert_eq!(
        status(&cluster, &elsewhere, set).await,
        StatusCode::FORBIDDEN
    );
    // One of several that may is enough; several that may not are not.
    assert_eq!(write(&format!("{reads},{full}")).await, StatusCode::CREATED);
    assert_eq!(
        write(&format!("{reads},{over}")).await,
        StatusCode::FORBIDDEN
    );
    assert_eq!(write(&format!("fm2_xx,{full}")).await, StatusCode::CREATED);

    // With a key of one's own, and with a tail that is not the right one.
    let id = Macaroon::parse(&full).unwrap().key_id().to_vec();
    let forged = Macaroon::mint(&id, &[0; NONCE_LEN], &[0; 32]).text();
    assert_eq!(write(&forged).await, StatusCode::UNAUTHORIZED);
    let opaque = text(&cluster.token("apps/web", json!({"opaque": true})).await);
    assert!(opaque.starts_with("hangar_"));
    assert_eq!(write(&opaque).await, StatusCode::CREATED);
    assert_eq!(write(&format!("{opaque}0")).await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_token_makes_none_that_may_more_and_takes_them_with_it() {
    let cluster = Cluster::start().await;
    cluster.app("web").await;
    let org = cluster.token("orgs/personal", json!({})).await;
    let made = async |token: &str, of: &str, body: Value| {
        let path = format!("/v1/{of}/tokens");
        cluster.call_as(token, Method::POST, &path, body).await
    };
    let (code, child) = made(&text(&org), "apps/web", json!({"expiry": "876000h"})).await;
    assert_eq!(code, StatusCode::CREATED);
    // It has the window of the one that made it beside its own.
    let windows = child["caveats"].as_array().unwrap().iter();
    let windows = windows.filter(|caveat| caveat["type"] == "ValidityWindow");
    assert_eq!(windows.count(), 2);
    assert_eq!(child["user"], "admin/org token");
    for (of, body) in [
        ("orgs/personal", json!({"kind": "org"})),
        ("apps/web", json!({"kind": "readonly"})),
    ] {
        let (code, _) = made(&text(&child), of, body).await;
        assert_eq!(code, StatusCode::FORBIDDEN, "a deploy token makes none");
    }
    let mut limited = Macaroon::parse(&text(&org)).unwrap();
    let no_create = Caveat::Action(Action::READ | Action::WRITE);
    limited.add(&no_create).unwrap();
    let (code, _) = made(&limited.text(), "orgs/personal", json!({})).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    let mut limited = Macaroon::parse(&text(&org)).unwrap();
    let this_app = Caveat::Action(Action::READ | Action::CREATE);
    limited.add(&this_app).unwrap();
    let (code, narrow) = made(&limited.text(), "orgs/personal", json!({})).await;
    assert_eq!(code, StatusCode::CREATED);
    let set = "/v1/apps/web/secrets/KEY";
    let (code, _) = cluster
        .call_as(&text(&narrow), Method::POST, set, json!({"value": "x"}))
        .await;
    assert_eq!(code, StatusCode::FORBIDDEN, "what was added is inherited");

    // A token may revoke itself, and what it made goes with it.
    let path = format!("/v1/tokens/{}", org["id"].as_str().unwrap());
    let (code, _) = cluster
        .call_as(&text(&org), Method::DELETE, &path, Value::Null)
        .await;
    assert_eq!(code, StatusCode::OK);
    for gone in [&org, &child, &narrow] {
        let is = status(&cluster, &text(gone), APPS).await;
        assert_eq!(is, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn tokens_say_what_they_are() {
    let cluster = Cluster::start().await;
    cluster.app("web").await;
    let machine = cluster.machine("web").await;
    let token = text(&cluster.token("apps/web", json!({})).await);
    let (_, current) = cluster
        .call_as(&token, Method::GET, "/v1/tokens/current", Value::Null)
        .await;
    let row = &current["tokens"][0];
    assert_eq!(row["org_slug"], "personal");
    assert_eq!(row["apps"], json!(["web"]));
    assert_eq!(row["user"], "admin/deploy token");
    let admin = cluster.get("/v1/tokens/current").await;
    assert_eq!(
        admin["tokens"],
        json!([{"token_id": "admin", "user": "admin"}])
    );

    let header = format!("FlyV1 {token},fm2_other");
    let good = cluster
        .post("/v1/tokens/authenticate", json!({"header": header}))
        .await;
    assert_eq!(good.as_array().unwrap().len(), 1);
    assert_eq!(good[0]["caveats"][1]["type"], "Organization");
    let encoded = token.strip_prefix("fm2_").unwrap();
    assert_eq!(good[0]["permission_token"], encoded);
    let authorize = async |access: Value| {
        let body = json!({"header": header, "access": access});
        cluster
            .call(Method::POST, "/v1/tokens/authorize", body)
            .await
    };
    let (code, answer) = authorize(json!({"machine_id": machine, "action": "rw"})).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    assert_eq!(answer["access"]["machine"], machine.as_str());
    assert_eq!(answer["access"]["action"], "rw");
    let of_org = json!({"org_slug": "personal", "action": "w"});
    assert_eq!(authorize(of_org).await.0, StatusCode::FORBIDDEN);
    let nothing = json!({"action": "r"});
    assert_eq!(authorize(nothing).await.0, StatusCode::BAD_REQUEST);
    let (code, answer) = cluster
        .call(
            Method::POST,
            "/v1/tokens/authenticate",
            json!({"header": "x"}),
        )
        .await;
    assert_eq!(code, StatusCode::BAD_REQUEST, "{answer}");

    let deploy = cluster
        .post("/v1/apps/web/deploy_token", json!({"expiry": "24h0m0s"}))
        .await;
    let given = text(&deploy);
    assert!(given.starts_with("FlyV1 fm2_"), "{given}");
    let is = status(&cluster, &given, "/v1/apps/web").await;
    assert_eq!(
        is,
        StatusCode::OK,
        "with the scheme of another header in it too"
    );
}

#[tokio::test]
async fn an_organisation_has_apps_networks_and_an_end() {
    let cluster = Cluster::start().await;
    let made = cluster.post("/v1/orgs", json!({"name": "My Team!"})).await;
    assert_eq!(made["slug"], "my-team");
    assert_eq!(made["type"], "shared");
    let all = cluster.get("/v1/orgs").await;
    let slugs: Vec<&str> = all["organizations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|org| org["slug"].as_str().unwrap())
        .collect();
    assert_eq!(slugs, ["my-team", "personal"]);
    for bad in [json!({"name": "my team"}), json!({}), json!({"slug": "A"})] {
        let (status, _) = cluster.call(Method::POST, "/v1/orgs", bad).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    }
    let body = json!({"name": "web", "org_slug": "my-team"});
    cluster.post(APPS, body).await;
    cluster.app("other").await;
    let app = cluster.get("/v1/apps/web").await;
    assert_eq!(app["organization"]["slug"], "my-team");
    assert_eq!(app["organization"]["name"], "My Team!");
    let number = app["internal_numeric_id"].as_u64().unwrap();
    assert!((1..1 << 31).contains(&number));
    assert_eq!(app["network"], "default");
    let listed = cluster.get("/v1/apps?org_slug=my-team").await;
    assert_eq!(listed["total_apps"], 1);
    let none = cluster.get("/v1/apps?app_role=remote-docker-builder").await;
    assert_eq!(none, json!({"apps": [], "total_apps": 0}));

    // The same name of a network is another network in another organisation.
    let prefix = async |app: &str| {
        let id = cluster.machine(app).await;
        let machine = cluster.get(&format!("/v1/apps/{app}/machines/{id}")).await;
        let ip = machine["private_ip"].as_str().unwrap().to_owned();
        ip.split(':').take(3).collect::<Vec<_>>().join(":")
    };
    assert_ne!(prefix("web").await, prefix("other").await);

    let token = text(&cluster.token("orgs/my-team", json!({})).await);
    // Without an organisation, a token's app is of the one that it is for.
    let body = json!({"name": "by-token"});
    let (code, _) = cluster.call_as(&token, Method::POST, APPS, body).await;
    assert_eq!(code, StatusCode::CREATED);
    let app = cluster.get("/v1/apps/by-token").await;
    assert_eq!(app["organization"]["slug"], "my-team");
    cluster
        .call(Method::DELETE, "/v1/apps/by-token", Value::Null)
        .await;
    let (code, said) = cluster
        .call(Method::DELETE, "/v1/orgs/my-team", Value::Null)
        .await;
    assert_eq!(code, StatusCode::PRECONDITION_FAILED);
    assert!(said["error"].as_str().unwrap().contains("web"), "{said}");
    let path = "/v1/apps/web?force=true";
    cluster.call(Method::DELETE, path, Value::Null).await;
    let (code, _) = cluster
        .call(Method::DELETE, "/v1/orgs/my-team", Value::Null)
        .await;
    assert_eq!(code, StatusCode::NO_CONTENT);
    assert_eq!(
        status(&cluster, &token, APPS).await,
        StatusCode::UNAUTHORIZED
    );
    let (code, _) = cluster
        .call(Method::DELETE, "/v1/orgs/personal", Value::Null)
        .await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    // One of the same name is another one.
    let again = cluster.post("/v1/orgs", json!({"name": "My Team!"})).await;
    assert_ne!(again["internal_numeric_id"], made["internal_numeric_id"]);
}

#[tokio::test]
async fn an_app_of_before_there_were_numbers_gets_one_and_an_organisation() {
    let mut cluster = Cluster::start().await;
    cluster.app("old").await;
    cluster.down().await;
    // As it was written then.
    let (cache, _feed) = Cache::open(&cluster.store).await.unwrap();
    let name = AppName::new("old").unwrap();
    let record = cache.get::<Apps>(&name).unwrap();
    let mut fields = serde_json::to_value(&record.value).unwrap();
    for key in ["number", "org"] {
        fields.as_object_mut().unwrap().remove(key).unwrap();
    }
    let former: AppRecord = serde_json::from_value(fields).unwrap();
    let txn = Txn::new()
        .put::<Apps>(&name, &former)
        .delete::<AppNumbers>(&record.value.number);
    cluster.store.commit(txn).await.unwrap();
    cluster.up().await;
    let app = cluster.get("/v1/apps/old").await;
    assert!(app["internal_numeric_id"].as_u64().unwrap() > 0, "{app}");
    assert_eq!(app["organization"]["slug"], "personal");
    let token = text(&cluster.token("apps/old", json!({})).await);
    assert_eq!(
        status(&cluster, &token, "/v1/apps/old").await,
        StatusCode::OK
    );
}
