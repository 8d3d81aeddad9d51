//! Push: end-4b, end-7, end-11. What uploads go through stands in [`super::uploads`].

use serde_json::json;

use super::{INDEX, MANIFEST, Registry, descriptor, digest};

#[tokio::test]
async fn end_4b_takes_a_blob_in_a_single_request() {
    let registry = Registry::start().await;
    let digest = digest(b"content");
    let path = format!("POST /v2/web/blobs/uploads/?digest={digest}");
    let created = registry.send(&path, &[], b"content").await.expect(201);
    assert_eq!(created.header("docker-content-digest"), digest);
    let place = created.header("location").to_owned();
    assert_eq!(registry.get(&place).await.expect(200).bytes, "content");

    let other = super::digest(b"other");
    let path = format!("POST /v2/web/blobs/uploads/?digest={other}");
    registry
        .send(&path, &[], b"content")
        .await
        .refused(400, "DIGEST_INVALID");
    let path = "POST /v2/web/blobs/uploads/?digest=sha512:1234";
    registry
        .send(path, &[], b"content")
        .await
        .refused(400, "DIGEST_INVALID");
    registry
        .get(&format!("/v2/web/blobs/{other}"))
        .await
        .refused(404, "BLOB_UNKNOWN");
}

#[tokio::test]
async fn end_7a_takes_a_manifest_when_its_parts_are_here() {
    let registry = Registry::start().await;
    let text = registry.manifest("web", b"layer", &json!({})).await;
    let what = "PUT /v2/web/manifests/v1";
    let kind = [("content-type", MANIFEST)];
    let put = registry
        .send(what, &kind, text.as_bytes())
        .await
        .expect(201);
    let place = put.header("location").to_owned();
    assert_eq!(
        registry.get(&place).await.expect(200).bytes,
        text.as_bytes()
    );

    // The same parts, but in another repository.
    let elsewhere = registry
        .send("PUT /v2/web/other/manifests/v1", &kind, text.as_bytes())
        .await;
    let said = elsewhere.refused(404, "MANIFEST_BLOB_UNKNOWN");
    assert!(said.contains(&digest(b"layer")), "{said}");

    let index = json!({"schemaVersion": 2, "manifests": [descriptor(MANIFEST, "{}")]});
    let index = index.to_string();
    let sparse = registry
        .send(what, &[("content-type", INDEX)], index.as_bytes())
        .await;
    sparse.refused(404, "MANIFEST_BLOB_UNKNOWN");
    registry
        .send(what, &kind, b"{")
        .await
        .refused(400, "MANIFEST_INVALID");
    let wrong = registry
        .send(what, &[("content-type", INDEX)], text.as_bytes())
        .await;
    wrong.refused(400, "MANIFEST_INVALID");
    let other = format!("PUT /v2/web/manifests/{}", digest(b"other"));
    registry
        .send(&other, &kind, text.as_bytes())
        .await
        .refused(400, "DIGEST_INVALID");
    // The tag means what it meant.
    let still = registry.get("/v2/web/manifests/v1").await.expect(200);
    assert_eq!(still.bytes, text.as_bytes());
}

#[tokio::test]
async fn end_7a_a_manifest_of_four_megabytes_is_taken_and_a_larger_one_is_not() {
    let registry = Registry::start().await;
    let of = |length: usize| json!({"annotations": {"filler": "x".repeat(length)}});
    let text = registry.manifest("web", b"layer", &of(4_000_000)).await;
    registry.put("web", "large", MANIFEST, &text).await;
    let text = registry.manifest("web", b"layer", &of(4_300_000)).await;
    let kind = [("content-type", MANIFEST)];
    let too_large = registry
        .send("PUT /v2/web/manifests/x", &kind, text.as_bytes())
        .await;
    too_large.refused(413, "SIZE_INVALID");
}

#[tokio::test]
async fn end_7b_gives_a_manifest_several_tags_at_once() {
    let registry = Registry::start().await;
    let text = registry.manifest("web", b"layer", &json!({})).await;
    let digest = digest(text.as_bytes());
    let what = format!("PUT /v2/web/manifests/{digest}?tag=1.2&tag=1&tag=latest");
    let put = registry
        .send(&what, &[("content-type", MANIFEST)], text.as_bytes())
        .await
        .expect(201);
    let tags: Vec<_> = put.headers.get_all("oci-tag").iter().collect();
    assert_eq!(tags, ["1.2", "1", "latest"]);
    for tag in ["1.2", "1", "latest"] {
        let reply = registry
            .get(&format!("/v2/web/manifests/{tag}"))
            .await
            .expect(200);
        assert_eq!(reply.header("docker-content-digest"), digest);
    }
    let bad = format!("PUT /v2/web/manifests/{digest}?tag=a/b");
    registry
        .send(&bad, &[], text.as_bytes())
        .await
        .refused(400, "MANIFEST_INVALID");
}

#[tokio::test]
async fn end_7_a_manifest_about_another_says_so_even_when_that_is_not_here() {
    let registry = Registry::start().await;
    let subject = descriptor(MANIFEST, "not pushed yet");
    let text = registry
        .manifest("web", b"layer", &json!({"subject": subject}))
        .await;
    let what = format!("PUT /v2/web/manifests/{}", digest(text.as_bytes()));
    let put = registry
        .send(&what, &[("content-type", MANIFEST)], text.as_bytes())
        .await
        .expect(201);
    assert_eq!(
        put.header("oci-subject"),
        subject["digest"].as_str().unwrap()
    );
}

#[tokio::test]
async fn end_11_mounts_what_is_there_and_begins_an_upload_otherwise() {
    let registry = Registry::start().await;
    registry.cluster.app("other").await;
    let digest = registry.blob("web/base", b"layer").await;
    for (to, from) in [
        ("other", "&from=web/base"),
        ("web", "&from=web/base"),
        ("web/more", ""),
    ] {
        let what = format!("POST /v2/{to}/blobs/uploads/?mount={digest}{from}");
        let mounted = registry.send(&what, &[], b"").await.expect(201);
        let place = mounted.header("location").to_owned();
        assert_eq!(place, format!("/v2/{to}/blobs/{digest}"));
        assert_eq!(registry.get(&place).await.expect(200).bytes, "layer");
    }
    let none = super::digest(b"none");
    // Without a source, only the same app is looked through.
    for query in [
        format!("mount={none}&from=web/base"),
        format!("mount={digest}&from=web/nothing"),
        format!("mount={digest}&from=no-app"),
        format!("mount={digest}&from=../x"),
        "mount=nonsense&from=web/base".to_owned(),
    ] {
        let what = format!("POST /v2/other/x/blobs/uploads/?{query}");
        let begun = registry.send(&what, &[], b"").await.expect(202);
        assert!(
            begun.header("location").contains("/blobs/uploads/"),
            "{query}"
        );
    }
    registry.cluster.app("third").await;
    let what = format!("POST /v2/third/blobs/uploads/?mount={digest}");
    registry.send(&what, &[], b"").await.expect(202);
}
