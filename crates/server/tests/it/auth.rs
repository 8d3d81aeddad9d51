//! Who is let in.

use std::os::unix::fs::PermissionsExt as _;

use hangar_server::{Need, endpoints};
use hyper::{Method, StatusCode};
use serde_json::Value;

use crate::cluster::{Cluster, read};

/// All that is answered without a token in the header.
const OPEN: [&str; 8] = [
    "/api/v1/cli_sessions",
    "/api/v1/sessions",
    "/docs",
    "/metrics_post",
    "/v1/health",
    "/v1/openapi.json",
    "/v1/tokens/authenticate",
    "/v1/tokens/authorize",
];

fn filled(path: &str) -> String {
    path.replace("{app}", "anapp")
        .replace("{machine}", "0123456789abcd")
        .replace("{id}", "x")
        .replace("{name}", "X")
        .replace("{key}", "k")
        .replace("{version}", "1")
        .replace("{slug}", "personal")
}

#[tokio::test]
async fn every_endpoint_that_is_not_open_needs_a_known_token() {
    let cluster = Cluster::start().await;
    let all = endpoints();
    assert!(all.len() > 40);
    for (method, path, need) in all {
        for header in [None, Some("Bearer hangar_wrong"), Some("Basic x")] {
            let mut request = cluster.request(method.clone(), &filled(&path), &Value::Null);
            request.headers_mut().remove("authorization");
            if let Some(header) = header {
                request
                    .headers_mut()
                    .insert("authorization", header.parse().unwrap());
            }
            let response = cluster.send(request).await;
            assert!(response.headers().contains_key("fly-request-id"));
            let (status, body) = read(response).await;
            if need == Need::Open {
                assert!(OPEN.contains(&path.as_str()), "{path}");
                assert_ne!(status, StatusCode::UNAUTHORIZED, "{path}");
            } else {
                assert_eq!(status, StatusCode::UNAUTHORIZED, "{method} {path}");
                assert_eq!(body["error"], "Authenticate: token validation error");
            }
        }
        // With the token, each one is reached: there is a handler, whatever it says.
        let request = cluster.request(method.clone(), &filled(&path), &Value::Null);
        let (status, body) = read(cluster.send(request).await).await;
        assert_ne!(status, StatusCode::UNAUTHORIZED, "{method} {path}");
        assert_ne!(status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
        // What is not offered says so.
        assert!(
            !status.is_server_error() || status == StatusCode::NOT_IMPLEMENTED,
            "{method} {path}: {status} {body}"
        );
    }
}

#[tokio::test]
async fn unknown_paths_are_closed_too() {
    let cluster = Cluster::start().await;
    for path in ["/", "/v1", "/v1/nothing", "/v1/apps/x/../../y"] {
        let mut request = cluster.request(Method::GET, path, &Value::Null);
        request.headers_mut().remove("authorization");
        let (status, _) = read(cluster.send(request).await).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}");
        let (status, body) = cluster.call(Method::GET, path, Value::Null).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
        assert!(body["error"].is_string());
    }
    let (status, _) = cluster.call(Method::PUT, "/v1/apps", Value::Null).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn the_admin_token_is_private_and_survives_a_restart() {
    let mut cluster = Cluster::start().await;
    let path = cluster.dir.path().join("token");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(cluster.token.starts_with("hangar_"));
    let before = cluster.token.clone();
    cluster.down().await;
    cluster.up().await;
    assert_eq!(cluster.token, before);
    cluster.get("/v1/apps").await;
    let mut request = cluster.request(Method::GET, "/v1/apps", &Value::Null);
    let header = format!("FlyV1 fm2_other,{before}");
    request
        .headers_mut()
        .insert("authorization", header.parse().unwrap());
    assert_eq!(cluster.send(request).await.status(), StatusCode::OK);
}
