//! Who gets in, and to which apps.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

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
