//! Pull: end-1, end-2 and end-3.

use super::{INDEX, MANIFEST, Registry, descriptor, digest};
use serde_json::json;

#[tokio::test]
async fn end_1_says_that_this_is_a_registry() {
    let registry = Registry::start().await;
    for path in ["/v2/", "/v2"] {
        let reply = registry.get(path).await.expect(200);
        assert_eq!(
            reply.header("docker-distribution-api-version"),
            "registry/2.0"
        );
    }
    registry
        .send("POST /v2/", &[], b"")
        .await
        .refused(405, "UNSUPPORTED");
}

#[tokio::test]
async fn end_2_gives_a_blob_whole_or_in_part_and_head_gives_what_is_said_of_it() {
    let registry = Registry::start().await;
    let content = b"0123456789";
    let digest = registry.blob("web", content).await;
    let path = format!("/v2/web/blobs/{digest}");
    let whole = registry.get(&path).await.expect(200);
    assert_eq!(&whole.bytes[..], content);
    assert_eq!(whole.header("docker-content-digest"), digest);
    assert_eq!(whole.header("accept-ranges"), "bytes");
    let head = registry
        .send(&format!("HEAD {path}"), &[], b"")
        .await
        .expect(200);
    assert!(head.bytes.is_empty());
    assert_eq!(head.header("content-length"), "10");
    assert_eq!(head.header("docker-content-digest"), digest);

    for (range, content, shown) in [
        ("bytes=0-0", "0", "bytes 0-0/10"),
        ("bytes=4-", "456789", "bytes 4-9/10"),
        ("bytes=4-100", "456789", "bytes 4-9/10"),
        ("bytes=-2", "89", "bytes 8-9/10"),
    ] {
        let part = registry
            .send(&format!("GET {path}"), &[("range", range)], b"")
            .await;
        let part = part.expect(206);
        assert_eq!(part.bytes, content, "{range}");
        assert_eq!(part.header("content-range"), shown);
        assert_eq!(part.header("content-length"), content.len().to_string());
    }
    let beyond = registry
        .send(&format!("GET {path}"), &[("range", "bytes=10-")], b"")
        .await;
    assert_eq!(beyond.header("content-range"), "bytes */10");
    beyond.refused(416, "SIZE_INVALID");
}

#[tokio::test]
async fn end_2_an_empty_blob_is_one_too() {
    let registry = Registry::start().await;
    let digest = registry.blob("web", b"").await;
    let reply = registry
        .get(&format!("/v2/web/blobs/{digest}"))
        .await
        .expect(200);
    assert_eq!(
        (reply.header("content-length"), reply.bytes.len()),
        ("0", 0)
    );
}

#[tokio::test]
async fn end_2_and_3_what_is_not_there_is_404() {
    let registry = Registry::start().await;
    let none = digest(b"never pushed");
    for path in [
        format!("/v2/web/blobs/{none}"),
        format!("/v2/web/manifests/{none}"),
        "/v2/web/manifests/latest".to_owned(),
    ] {
        registry.get(&path).await.refused(404, "NAME_UNKNOWN");
    }
    registry.blob("web", b"something").await;
    registry
        .get(&format!("/v2/web/blobs/{none}"))
        .await
        .refused(404, "BLOB_UNKNOWN");
    for reference in [none.as_str(), "latest"] {
        let path = format!("/v2/web/manifests/{reference}");
        registry.get(&path).await.refused(404, "MANIFEST_UNKNOWN");
        registry
            .send(&format!("HEAD {path}"), &[], b"")
            .await
            .expect(404);
    }
    for path in ["/v2/web/blobs/sha256:12", "/v2/web/manifests/sha512:12"] {
        registry.get(path).await.refused(400, "DIGEST_INVALID");
    }
    registry
        .get("/v2/Web/tags/list")
        .await
        .refused(400, "NAME_INVALID");
}

#[tokio::test]
async fn end_3_gives_a_manifest_by_tag_and_digest_as_it_came() {
    let registry = Registry::start().await;
    let text = registry.manifest("web", b"layer", &json!({})).await;
    // Any bytes that mean the same: they are kept as they are.
    let spaced = text.replacen('{', "{\n\t", 1);
    let digest = registry.put("web", "v1", MANIFEST, &spaced).await;
    for reference in [digest.as_str(), "v1"] {
        let path = format!("/v2/web/manifests/{reference}");
        let reply = registry.get(&path).await.expect(200);
        assert_eq!(reply.bytes, spaced.as_bytes());
        assert_eq!(reply.header("content-type"), MANIFEST);
        assert_eq!(reply.header("docker-content-digest"), digest);
        let head = registry
            .send(&format!("HEAD {path}"), &[], b"")
            .await
            .expect(200);
        assert!(head.bytes.is_empty());
        assert_eq!(head.header("content-length"), spaced.len().to_string());
        assert_eq!(head.header("content-type"), MANIFEST);
        assert_eq!(head.header("docker-content-digest"), digest);
    }
}

#[tokio::test]
async fn end_3_gives_the_types_of_oci_and_docker() {
    let registry = Registry::start().await;
    let (_, child) = registry.image("web", "child", b"layer").await;
    let plain = child.replace(&format!("\"mediaType\":\"{MANIFEST}\","), "");
    assert_ne!(plain, child);
    let docker = "application/vnd.docker.distribution.manifest.v2+json";
    let list = "application/vnd.docker.distribution.manifest.list.v2+json";
    let index =
        json!({"schemaVersion": 2, "manifests": [descriptor(MANIFEST, &child)]}).to_string();
    for (kind, text) in [(docker, &plain), (list, &index), (INDEX, &index)] {
        registry.put("web", "t", kind, text).await;
        let reply = registry.get("/v2/web/manifests/t").await.expect(200);
        assert_eq!(reply.header("content-type"), kind);
    }
}
