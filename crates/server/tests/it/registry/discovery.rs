//! Content discovery: end-8, end-12, and the catalog.

use serde_json::{Value, json};

use super::{INDEX, MANIFEST, Registry, Reply, descriptor, digest};

fn tags(reply: &Reply) -> Vec<String> {
    serde_json::from_value(reply.json()["tags"].clone()).unwrap()
}

/// Returns the address of the next page.
fn next(reply: &Reply) -> Option<String> {
    let link = reply.headers.get("link")?.to_str().unwrap();
    let place = link
        .strip_prefix('<')
        .unwrap()
        .strip_suffix(">; rel=\"next\"")
        .unwrap();
    Some(place.to_owned())
}

#[tokio::test]
async fn end_8_lists_tags_in_order_and_by_pages() {
    let registry = Registry::start().await;
    registry
        .get("/v2/web/tags/list")
        .await
        .refused(404, "NAME_UNKNOWN");
    let (_, text) = registry.image("web", "b", b"layer").await;
    for tag in ["a", "c", "B", "1.0", "latest"] {
        registry.put("web", tag, MANIFEST, &text).await;
    }
    let sorted = ["1.0", "B", "a", "b", "c", "latest"];
    let all = registry.get("/v2/web/tags/list").await.expect(200);
    assert_eq!(all.json()["name"], "web");
    assert_eq!(tags(&all), sorted);
    assert_eq!(next(&all), None);

    let mut seen = Vec::new();
    let mut path = Some("/v2/web/tags/list?n=4".to_owned());
    while let Some(page) = path {
        let reply = registry.get(&page).await.expect(200);
        seen.extend(tags(&reply));
        path = next(&reply);
    }
    assert_eq!(seen, sorted);
    for (query, want) in [
        ("n=2", &sorted[..2]),
        ("n=2&last=a", &sorted[3..5]),
        ("last=b", &sorted[4..]),
        ("last=zzz", &[]),
        ("n=100", &sorted[..]),
    ] {
        let reply = registry
            .get(&format!("/v2/web/tags/list?{query}"))
            .await
            .expect(200);
        assert_eq!(tags(&reply), want, "{query}");
    }
    let none = registry.get("/v2/web/tags/list?n=0").await.expect(200);
    assert_eq!((tags(&none).len(), next(&none)), (0, None));
    registry
        .get("/v2/web/tags/list?n=x")
        .await
        .refused(400, "UNSUPPORTED");
    registry
        .send("DELETE /v2/web/tags/list", &[], b"")
        .await
        .refused(405, "UNSUPPORTED");
}

#[tokio::test]
async fn end_12_lists_what_is_about_a_manifest() {
    let registry = Registry::start().await;
    let (subject, text) = registry.image("web", "v1", b"layer").await;
    let path = format!("/v2/web/referrers/{subject}");
    let none = registry.get(&path).await.expect(200);
    assert_eq!(none.header("content-type"), INDEX);
    let empty = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []});
    assert_eq!(none.json(), empty);

    let about = descriptor(MANIFEST, &text);
    let signature = json!({
        "subject": about,
        "artifactType": "application/x.signature",
        "annotations": {"by": "me"},
    });
    let signature = registry.manifest("web", b"signature", &signature).await;
    let signature_digest = registry
        .put("web", &digest(signature.as_bytes()), MANIFEST, &signature)
        .await;
    let bill = registry
        .manifest("web", b"bill", &json!({"subject": about}))
        .await;
    let bill_digest = registry.put("web", "bill", MANIFEST, &bill).await;
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [], "subject": about});
    let index_digest = registry.put("web", "i", INDEX, &index.to_string()).await;

    let all = registry.get(&path).await.expect(200).json();
    let rows = all["manifests"].as_array().unwrap();
    let row = |digest: &str| {
        rows.iter()
            .find(|row| row["digest"] == digest)
            .unwrap()
            .clone()
    };
    assert_eq!(rows.len(), 3);
    assert_eq!(
        row(&signature_digest),
        json!({
            "mediaType": MANIFEST,
            "digest": signature_digest,
            "size": signature.len(),
            "artifactType": "application/x.signature",
            "annotations": {"by": "me"},
        })
    );
    let of_config = "application/vnd.oci.image.config.v1+json";
    assert_eq!(row(&bill_digest)["artifactType"], of_config);
    assert_eq!(row(&index_digest)["artifactType"], Value::Null);

    let filtered = registry
        .get(&format!("{path}?artifactType=application/x.signature"))
        .await;
    let filtered = filtered.expect(200);
    assert_eq!(filtered.header("oci-filters-applied"), "artifactType");
    assert_eq!(
        filtered.json()["manifests"],
        json!([row(&signature_digest)])
    );
    registry
        .get("/v2/web/referrers/nonsense")
        .await
        .refused(400, "DIGEST_INVALID");
    // A repository that nobody pushed to has none.
    let other = registry
        .get(&format!("/v2/web/other/referrers/{subject}"))
        .await;
    assert_eq!(other.expect(200).json(), empty);

    registry
        .send(&format!("DELETE /v2/web/manifests/{bill_digest}"), &[], b"")
        .await
        .expect(202);
    let left = registry.get(&path).await.expect(200).json();
    assert_eq!(left["manifests"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn end_12_comes_in_pages_when_it_is_long() {
    let registry = Registry::start().await;
    let (subject, text) = registry.image("web", "v1", b"layer").await;
    let about = descriptor(MANIFEST, &text);
    for number in 0..4 {
        let more = json!({"subject": about, "annotations": {"filler": format!("{number}").repeat(1_700_000)}});
        let text = registry.manifest("web", b"x", &more).await;
        registry
            .put("web", &format!("t{number}"), MANIFEST, &text)
            .await;
    }
    let mut seen = Vec::new();
    let mut path = Some(format!("/v2/web/referrers/{subject}"));
    let mut pages = 0;
    while let Some(page) = path {
        let reply = registry.get(&page).await.expect(200);
        let body = reply.json();
        let rows = body["manifests"].as_array().unwrap();
        seen.extend(
            rows.iter()
                .map(|row| row["digest"].as_str().unwrap().to_owned()),
        );
        pages += 1;
        path = next(&reply);
    }
    assert!(pages > 1, "{pages}");
    let mut once = seen.clone();
    once.sort();
    once.dedup();
    assert_eq!((seen.len(), once.len()), (4, 4));
}

#[tokio::test]
async fn the_catalog_lists_repositories() {
    let registry = Registry::start().await;
    registry.cluster.app("other").await;
    for name in ["web", "web/worker", "other"] {
        registry.blob(name, b"x").await;
    }
    let all = registry.get("/v2/_catalog").await.expect(200).json();
    assert_eq!(all, json!({"repositories": ["other", "web", "web/worker"]}));
    let page = registry.get("/v2/_catalog?n=2").await.expect(200);
    assert_eq!(next(&page).unwrap(), "/v2/_catalog?n=2&last=web");
    let rest = registry
        .get("/v2/_catalog?n=2&last=web")
        .await
        .expect(200)
        .json();
    assert_eq!(rest, json!({"repositories": ["web/worker"]}));
}
