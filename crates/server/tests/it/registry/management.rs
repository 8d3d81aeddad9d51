//! Content management: end-9 and end-10.

use super::{MANIFEST, Registry, digest};

#[tokio::test]
async fn end_9_deletes_a_tag_or_a_manifest_with_its_tags() {
    let registry = Registry::start().await;
    let (digest, text) = registry.image("web", "a", b"layer").await;
    registry.put("web", "b", MANIFEST, &text).await;
    registry
        .send("DELETE /v2/web/manifests/a", &[], b"")
        .await
        .expect(202);
    registry
        .get("/v2/web/manifests/a")
        .await
        .refused(404, "MANIFEST_UNKNOWN");
    registry.get("/v2/web/manifests/b").await.expect(200);
    let by_digest = format!("/v2/web/manifests/{digest}");
    registry.get(&by_digest).await.expect(200);
    registry
        .send(&format!("DELETE {by_digest}"), &[], b"")
        .await
        .expect(202);
    for path in [by_digest.as_str(), "/v2/web/manifests/b"] {
        registry.get(path).await.refused(404, "MANIFEST_UNKNOWN");
        let again = registry.send(&format!("DELETE {path}"), &[], b"").await;
        again.refused(404, "MANIFEST_UNKNOWN");
    }
    let tags = registry.get("/v2/web/tags/list").await.expect(200).json();
    assert_eq!(tags["tags"].as_array().unwrap().len(), 0);
    registry
        .send("DELETE /v2/web/none/manifests/a", &[], b"")
        .await
        .refused(404, "NAME_UNKNOWN");
}

#[tokio::test]
async fn end_10_deletes_a_blob_in_one_repository_alone() {
    let registry = Registry::start().await;
    let digest = registry.blob("web", b"layer").await;
    registry.blob("web/other", b"layer").await;
    let path = format!("/v2/web/blobs/{digest}");
    registry
        .send(&format!("DELETE {path}"), &[], b"")
        .await
        .expect(202);
    registry
        .get(&format!("/v2/web/other/blobs/{digest}"))
        .await
        .expect(200);
    registry.blob("web", b"more").await;
    registry.get(&path).await.refused(404, "BLOB_UNKNOWN");
    let again = registry.send(&format!("DELETE {path}"), &[], b"").await;
    again.refused(404, "BLOB_UNKNOWN");
    // It can be pushed again.
    registry.blob("web", b"layer").await;
    registry.get(&path).await.expect(200);
}

#[tokio::test]
async fn what_was_pushed_is_there_after_a_restart() {
    let mut registry = Registry::start().await;
    let (digest, text) = registry.image("web", "v1", b"layer").await;
    registry.cluster.down().await;
    registry.cluster.up().await;
    let reply = registry.get("/v2/web/manifests/v1").await.expect(200);
    assert_eq!(
        (reply.header("docker-content-digest"), &reply.bytes[..]),
        (digest.as_str(), text.as_bytes())
    );
    let layer = super::digest(b"layer");
    assert_eq!(
        registry
            .get(&format!("/v2/web/blobs/{layer}"))
            .await
            .expect(200)
            .bytes,
        "layer"
    );
}

#[tokio::test]
async fn a_blob_whose_file_was_lost_is_mended_by_a_push() {
    let registry = Registry::start().await;
    let digest = registry.blob("web", b"layer").await;
    let blobs = registry.cluster.dir.path().join("images/blobs/sha256");
    std::fs::remove_file(blobs.join(digest.trim_start_matches("sha256:"))).unwrap();
    let path = format!("/v2/web/blobs/{digest}");
    registry
        .send(&format!("HEAD {path}"), &[], b"")
        .await
        .expect(404);
    let mount = format!("POST /v2/web/x/blobs/uploads/?mount={digest}&from=web");
    registry.send(&mount, &[], b"").await.expect(202);
    registry.blob("web", b"layer").await;
    assert_eq!(registry.get(&path).await.expect(200).bytes, "layer");
}

#[tokio::test]
async fn what_was_pushed_goes_with_its_app_and_is_not_the_next_ones() {
    let registry = Registry::start().await;
    registry.image("web", "v1", b"layer").await;
    registry.begin("web/worker").await;
    let gone = registry.cluster.call(
        hyper::Method::DELETE,
        "/v1/apps/web",
        serde_json::Value::Null,
    );
    assert!(gone.await.0.is_success());
    registry
        .cluster
        .until("/v1/apps/web", |body| body["error"].is_string())
        .await;
    let images = registry.cluster.dir.path().join("images");
    let limit = std::time::Instant::now() + crate::cluster::PATIENCE;
    let count = |dir: &str| std::fs::read_dir(images.join(dir)).unwrap().count();
    while count("repositories") + count("uploads") > 0 {
        assert!(std::time::Instant::now() < limit, "it is still there");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    // Its name is free when all of it is gone.
    loop {
        let body = serde_json::json!({"name": "web", "org_slug": "personal"});
        let (status, _) = registry
            .cluster
            .call(hyper::Method::POST, "/v1/apps", body)
            .await;
        if status.is_success() {
            break;
        }
        assert!(std::time::Instant::now() < limit, "{status}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    registry
        .get("/v2/web/manifests/v1")
        .await
        .refused(404, "NAME_UNKNOWN");
    let blob = format!("/v2/web/blobs/{}", digest(b"layer"));
    registry.get(&blob).await.refused(404, "NAME_UNKNOWN");
}
