//! What each method asks for, and how it reads the answer.

use std::time::Duration;

use hangar_api::deployment::{CreateDeployment, DeployOptions, DeploymentSource};
use hangar_api::exec::ExecRequest;
use hangar_api::id::{AppName, DeploymentId, GroupName, InstanceId, MachineId};
use hangar_api::lease::LeaseRequest;
use hangar_api::logs::LogQuery;
use hangar_api::machine::LaunchInput;
use hangar_api::secret::SecretsUpdate;
use hangar_client::{Client, ClientError, MachineFilter, WaitFor};
use serde_json::{Value, json};

use crate::server::{Seen, Server, answer};

const ID: &str = "0123456789abcd";
const ULID: &str = "01ARZ3NDEKTSV4RRFFQ69G5FAV";

fn app() -> AppName {
    AppName::new("shop").unwrap()
}

fn id() -> MachineId {
    MachineId::new(ID).unwrap()
}

fn deployment() -> DeploymentId {
    DeploymentId::new(ULID).unwrap()
}

/// Answers `answer_text` to one call and returns what was asked, if the call was content.
async fn asked<T: std::fmt::Debug>(
    answer_text: Value,
    call: impl AsyncFnOnce(Client) -> Result<T, ClientError>,
) -> Seen {
    let text = answer_text.to_string();
    let server = Server::start(move |_| answer(200, text.clone())).await;
    call(server.client()).await.unwrap();
    server.last()
}

#[tokio::test]
async fn every_request_names_host_token_and_client() {
    let seen = asked(json!({"ok": true}), async |c| c.health().await).await;
    assert_eq!(seen.line, "GET /v1/health");
    assert_eq!(seen.headers["authorization"], "Bearer secret");
    assert!(
        seen.headers["host"]
            .to_str()
            .unwrap()
            .starts_with("127.0.0.1:")
    );
    let agent = seen.headers["user-agent"].to_str().unwrap();
    assert!(agent.starts_with("hangar/"), "{agent}");
}

#[tokio::test]
async fn apps_are_asked_for_by_name() {
    let seen = asked(json!({"apps": [], "total_apps": 0}), async |c| {
        c.apps().await
    })
    .await;
    assert_eq!(seen.line, "GET /v1/apps");
    let created = json!({
        "id": "x", "created_at": 1, "name": "shop", "internal_numeric_id": 1, "network": "default",
        "status": "pending",
        "organization": {"name": "personal", "slug": "personal", "internal_numeric_id": 1},
    });
    let seen = asked(created, async |c| {
        c.create_app(&app(), None, Some("net")).await
    })
    .await;
    assert_eq!(seen.line, "POST /v1/apps");
    let body: Value = serde_json::from_slice(&seen.body).unwrap();
    assert_eq!(
        (&body["name"], &body["network"]),
        (&json!("shop"), &json!("net"))
    );
    assert_eq!(seen.headers["content-type"], "application/json");
    let seen = asked(Value::Null, async |c| c.delete_app(&app()).await).await;
    assert_eq!(seen.line, "DELETE /v1/apps/shop?force=true");
}

#[tokio::test]
async fn an_answer_without_a_body_is_fine_where_none_is_due() {
    let server = Server::always(202, "").await;
    server.client().delete_app(&app()).await.unwrap();
    let server = Server::always(204, "").await;
    let set = server
        .client()
        .set_metadata(&app(), &id(), "a/b", "c")
        .await;
    set.unwrap();
    let seen = server.last();
    assert_eq!(
        seen.line,
        format!("POST /v1/apps/shop/machines/{ID}/metadata/a%2Fb")
    );
    assert_eq!(&seen.body[..], br#"{"value":"c"}"#);
}

#[tokio::test]
async fn machines_are_changed_under_their_lease() {
    let nonce = Some("abc");
    let path = format!("/v1/apps/shop/machines/{ID}");
    let ok = json!({"ok": true});
    let start = asked(ok.clone(), async |c| {
        c.start_machine(&app(), &id(), nonce).await
    })
    .await;
    assert_eq!(start.line, format!("POST {path}/start"));
    assert_eq!(start.headers["fly-machine-lease-nonce"], "abc");
    let stop = asked(ok.clone(), async |c| {
        let limit = Some(Duration::from_secs(7));
        c.stop_machine(&app(), &id(), Some("SIGTERM"), limit, nonce)
            .await
    });
    let stop = stop.await;
    let body: Value = serde_json::from_slice(&stop.body).unwrap();
    assert_eq!(body, json!({"signal": "SIGTERM", "timeout": "7s"}));
    let signal = asked(ok.clone(), async |c| {
        c.signal_machine(&app(), &id(), "SIGHUP", nonce).await
    });
    let signal = signal.await;
    assert_eq!(signal.line, format!("POST {path}/signal"));
    assert_eq!(&signal.body[..], br#"{"signal":"SIGHUP"}"#);
    let cordon = asked(ok.clone(), async |c| {
        c.cordon_machine(&app(), &id(), nonce).await
    })
    .await;
    assert_eq!(cordon.line, format!("POST {path}/cordon"));
    let uncordon = asked(ok.clone(), async |c| {
        c.uncordon_machine(&app(), &id(), None).await
    });
    let uncordon = uncordon.await;
    assert_eq!(uncordon.line, format!("POST {path}/uncordon"));
    assert!(!uncordon.headers.contains_key("fly-machine-lease-nonce"));
    let gone = asked(ok, async |c| {
        c.destroy_machine(&app(), &id(), true, nonce).await
    })
    .await;
    assert_eq!(gone.line, format!("DELETE {path}?force=true"));
}

#[tokio::test]
async fn machines_are_listed_waited_for_and_asked_to_run_commands() {
    let filter = MachineFilter {
        include_deleted: true,
    };
    let seen = asked(json!([]), async |c| c.machines(&app(), &filter).await).await;
    assert_eq!(seen.line, "GET /v1/apps/shop/machines?include_deleted=true");
    let seen = asked(json!([]), async |c| {
        c.machine_events(&app(), &id(), 5).await
    })
    .await;
    assert_eq!(
        seen.line,
        format!("GET /v1/apps/shop/machines/{ID}/events?limit=5")
    );
    let version = InstanceId::new(ULID).unwrap();
    let wait = WaitFor {
        state: "started",
        version: Some(&version),
        timeout: Duration::from_secs(600),
    };
    let seen = asked(json!({"ok": true}), async |c| {
        c.wait(&app(), &id(), &wait).await
    })
    .await;
    let query = format!("wait?state=started&timeout=60&version={ULID}");
    assert_eq!(
        seen.line,
        format!("GET /v1/apps/shop/machines/{ID}/{query}")
    );
    let exec = ExecRequest {
        command: vec!["ls".to_owned(), "/".to_owned()],
        timeout: Some(300),
        ..ExecRequest::default()
    };
    let done = json!({"exit_code": 3, "stdout": "a"});
    let seen = asked(done, async |c| {
        let answer = c.exec(&app(), &id(), &exec).await?;
        assert_eq!((answer.exit_code, answer.stdout.as_str()), (3, "a"));
        Ok(())
    });
    assert_eq!(
        seen.await.line,
        format!("POST /v1/apps/shop/machines/{ID}/exec")
    );
}

#[tokio::test]
async fn a_lease_is_read_out_of_its_envelope() {
    let lease = json!({"nonce": "n", "expires_at": 9, "owner": "me", "description": ""});
    let envelope = json!({"status": "success", "data": lease});
    let request = LeaseRequest {
        ttl: Some(30),
        description: None,
    };
    let seen = asked(envelope.clone(), async |c| {
        let lease = c.lease(&app(), &id(), &request, None).await?;
        assert_eq!((lease.nonce.as_str(), lease.expires_at), ("n", 9));
        Ok(())
    });
    assert_eq!(
        seen.await.line,
        format!("POST /v1/apps/shop/machines/{ID}/lease")
    );
    let seen = asked(envelope, async |c| c.current_lease(&app(), &id()).await).await;
    assert_eq!(seen.line, format!("GET /v1/apps/shop/machines/{ID}/lease"));
    let released = json!({"status": "success", "data": {"ok": true}});
    let seen = asked(released, async |c| {
        c.release_lease(&app(), &id(), "n").await
    })
    .await;
    assert_eq!(
        seen.line,
        format!("DELETE /v1/apps/shop/machines/{ID}/lease")
    );
    assert_eq!(seen.headers["fly-machine-lease-nonce"], "n");
}

#[tokio::test]
async fn secrets_are_sent_with_null_for_removal() {
    let update = SecretsUpdate {
        values: [
            ("A".to_owned(), Some("1".to_owned())),
            ("B".to_owned(), None),
        ]
        .into(),
    };
    let updated = json!({"secrets": [], "version": 2, "Version": 2});
    let seen = asked(updated, async |c| c.update_secrets(&app(), &update).await).await;
    assert_eq!(seen.line, "POST /v1/apps/shop/secrets");
    assert_eq!(&seen.body[..], br#"{"values":{"A":"1","B":null}}"#);
}

#[tokio::test]
async fn a_preview_is_a_deployment_that_changes_nothing() {
    let create = CreateDeployment {
        source: DeploymentSource::Release { version: 3 },
        options: DeployOptions::default(),
        dry_run: false,
    };
    let preview = json!({"steps": ["update web"]});
    let seen = asked(preview, async |c| {
        c.preview_deployment(&app(), &create).await
    })
    .await;
    assert_eq!(seen.line, "POST /v1/apps/shop/deployments");
    let body: Value = serde_json::from_slice(&seen.body).unwrap();
    assert_eq!(
        (&body["dry_run"], &body["source"]["version"]),
        (&json!(true), &json!(3))
    );
    let seen = asked(json!([]), async |c| c.deployments(&app()).await).await;
    assert_eq!(seen.line, "GET /v1/apps/shop/deployments");
    let server = Server::always(200, "").await;
    let client = server.client();
    let mut follow = client
        .follow_deployment(&app(), &deployment(), "5 6")
        .await
        .unwrap();
    assert!(follow.next().await.unwrap().is_none());
    let path = format!("/v1/apps/shop/deployments/{ULID}/events?from=5%206");
    assert_eq!(server.last().line, format!("GET {path}"));
}

#[tokio::test]
async fn what_a_query_holds_is_encoded() {
    let query = LogQuery {
        app: app(),
        group: Some(GroupName::new("a&b").unwrap()),
        machine: None,
        region: None,
        tail: 10,
        follow: true,
        since: None,
    };
    let server = Server::always(200, "").await;
    server.client().logs(&query).await.unwrap();
    assert_eq!(
        server.last().line,
        "GET /v1/apps/shop/logs?group=a%26b&tail=10&follow=true"
    );
    let image = json!({"repository": "a", "digest": "sha256:0"});
    let seen = asked(image, async |c| c.resolve_image("reg:5000/a b:1").await).await;
    assert_eq!(
        seen.line,
        "GET /v1/images/resolve?name=reg%3A5000%2Fa%20b%3A1"
    );
    let pruned = json!({"images": [], "bytes": 0});
    let seen = asked(pruned, async |c| c.prune_images().await).await;
    assert_eq!(seen.line, "POST /v1/images/prune");
}

#[tokio::test]
async fn the_platform_tells_its_regions_and_its_edge() {
    let regions = json!({"nearest": "iad", "regions": [{"code": "iad", "name": "Ashburn"}]});
    let seen = asked(regions, async |c| {
        assert_eq!(c.regions().await?.len(), 1);
        Ok(())
    });
    assert_eq!(seen.await.line, "GET /v1/platform/regions");
    let edge = json!({"address": "127.0.0.1", "domain": "localhost", "ports": {"80": 8080}});
    let seen = asked(edge, async |c| {
        assert_eq!(c.edge().await?.ports[&80], 8080);
        Ok(())
    });
    assert_eq!(seen.await.line, "GET /v1/platform/edge");
    let seen = asked(json!([]), async |c| c.releases(&app(), 25).await).await;
    assert_eq!(seen.line, "GET /v1/apps/shop/releases?limit=25");
}

#[tokio::test]
async fn a_machine_is_created_from_its_input() {
    let server = Server::always(422, r#"{"error":"no image"}"#).await;
    let input = LaunchInput {
        name: Some("a".to_owned()),
        ..LaunchInput::default()
    };
    let client = server.client();
    client.create_machine(&app(), &input).await.unwrap_err();
    assert_eq!(server.last().line, "POST /v1/apps/shop/machines");
    client
        .update_machine(&app(), &id(), &input, Some("n"))
        .await
        .unwrap_err();
    let seen = server.last();
    assert_eq!(seen.line, format!("POST /v1/apps/shop/machines/{ID}"));
    assert_eq!(seen.headers["fly-machine-lease-nonce"], "n");
}
