//! Uploads: end-4a, end-4c, end-5, end-6, end-13 and end-14; out of order, cut off, at once, after
//! a restart, on a full disk.

use std::io::Write as _;
use std::time::Duration;

use super::{Registry, digest};

#[tokio::test]
async fn end_4a_and_6_take_a_blob_by_post_and_put() {
    let registry = Registry::start().await;
    let begun = registry
        .send("POST /v2/web/blobs/uploads/", &[], b"")
        .await
        .expect(202);
    let place = begun.header("location").to_owned();
    let id = place.rsplit('/').next().unwrap();
    let lengths: Vec<usize> = id.split('-').map(str::len).collect();
    assert_eq!(lengths, [8, 4, 4, 4, 12], "{id}");
    assert_eq!(begun.header("docker-upload-uuid"), id);
    assert!(begun.header("oci-chunk-min-length").parse::<u64>().unwrap() > 0);

    let digest = digest(b"content");
    registry
        .send(&format!("PUT {place}"), &[], b"content")
        .await
        .refused(400, "DIGEST_INVALID");
    let other = super::digest(b"other");
    let wrong = format!("PUT {place}?digest={other}");
    registry
        .send(&wrong, &[], b"content")
        .await
        .refused(400, "DIGEST_INVALID");
    // What was refused has left nothing behind.
    let put = registry
        .send(&format!("PUT {place}?digest={digest}"), &[], b"content")
        .await;
    let put = put.expect(201);
    assert_eq!(put.header("location"), format!("/v2/web/blobs/{digest}"));
    assert_eq!(put.header("docker-content-digest"), digest);
    registry
        .get(&place)
        .await
        .refused(404, "BLOB_UPLOAD_UNKNOWN");
}

#[tokio::test]
async fn end_4c_other_digests_than_sha256_are_refused_in_words() {
    let registry = Registry::start().await;
    let path = "POST /v2/web/blobs/uploads/?digest-algorithm=";
    registry
        .send(&format!("{path}sha256"), &[], b"")
        .await
        .expect(202);
    let said = registry.send(&format!("{path}sha512"), &[], b"").await;
    assert!(said.refused(400, "DIGEST_INVALID").contains("use sha256"));
}

#[tokio::test]
async fn end_5_takes_chunks_in_order_and_end_13_says_how_far_it_is() {
    let registry = Registry::start().await;
    let place = registry.begin("web").await;
    let patch = |range: &'static str, body: &'static [u8]| {
        let (registry, place) = (&registry, place.clone());
        async move {
            let headers = [
                ("content-range", range),
                ("content-type", "application/octet-stream"),
            ];
            registry
                .send(&format!("PATCH {place}"), &headers, body)
                .await
        }
    };
    let first = patch("0-3", b"0123").await.expect(202);
    assert_eq!(
        (first.header("range"), first.header("location")),
        ("0-3", place.as_str())
    );
    for (range, body) in [("0-3", &b"0123"[..]), ("5-6", b"56"), ("3-4", b"34")] {
        let reply = patch(range, body).await.expect(416);
        assert_eq!(
            (reply.header("range"), reply.header("location")),
            ("0-3", place.as_str())
        );
    }
    patch("4-9", b"45").await.refused(400, "SIZE_INVALID");
    patch("nonsense", b"45")
        .await
        .refused(400, "BLOB_UPLOAD_INVALID");
    let status = registry.get(&place).await.expect(204);
    assert_eq!(
        (status.header("range"), status.header("location")),
        ("0-3", place.as_str())
    );
    patch("4-5", b"45").await.expect(202);
    // Streamed, without a range.
    let streamed = registry
        .send(&format!("PATCH {place}"), &[], b"67")
        .await
        .expect(202);
    assert_eq!(streamed.header("range"), "0-7");

    let digest = digest(b"0123456789");
    let put = format!("PUT {place}?digest={digest}");
    registry
        .send(&put, &[("content-range", "9-9")], b"9")
        .await
        .expect(416);
    registry
        .send(&put, &[("content-range", "8-9")], b"89")
        .await
        .expect(201);
    let blob = registry
        .get(&format!("/v2/web/blobs/{digest}"))
        .await
        .expect(200);
    assert_eq!(blob.bytes, "0123456789");
}

#[tokio::test]
async fn end_6_closes_an_upload_without_a_body() {
    let registry = Registry::start().await;
    let place = registry.begin("web").await;
    registry
        .send(&format!("PATCH {place}"), &[], b"content")
        .await
        .expect(202);
    let put = format!("PUT {place}?digest={}", digest(b"content"));
    registry.send(&put, &[], b"").await.expect(201);
}

#[tokio::test]
async fn end_14_drops_an_upload() {
    let registry = Registry::start().await;
    let place = registry.begin("web").await;
    registry
        .send(&format!("PATCH {place}"), &[], b"content")
        .await
        .expect(202);
    registry
        .send(&format!("DELETE {place}"), &[], b"")
        .await
        .expect(204);
    for method in ["GET", "PATCH", "DELETE"] {
        let reply = registry.send(&format!("{method} {place}"), &[], b"").await;
        reply.refused(404, "BLOB_UPLOAD_UNKNOWN");
    }
    let put = format!("PUT {place}?digest={}", digest(b"content"));
    registry
        .send(&put, &[], b"")
        .await
        .refused(404, "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(left(&registry), 0);
}

#[tokio::test]
async fn an_upload_is_that_of_its_repository() {
    let registry = Registry::start().await;
    let place = registry.begin("web").await;
    let other = place.replace("/web/", "/web/other/");
    registry
        .get(&other)
        .await
        .refused(404, "BLOB_UPLOAD_UNKNOWN");
    registry
        .send(&format!("PATCH {other}"), &[], b"x")
        .await
        .refused(404, "BLOB_UPLOAD_UNKNOWN");
    registry.get(&place).await.expect(204);
}

#[tokio::test]
async fn an_upload_goes_on_after_a_restart_of_the_server() {
    let mut registry = Registry::start().await;
    let place = registry.begin("web").await;
    registry
        .send(&format!("PATCH {place}"), &[], b"0123")
        .await
        .expect(202);
    registry.cluster.down().await;
    // A half that nobody may rely on, beside it.
    let uploads = registry.cluster.dir.path().join("images/uploads");
    std::fs::write(uploads.join("stray"), "x").unwrap();
    registry.cluster.up().await;
    assert_eq!(
        registry.get(&place).await.expect(204).header("range"),
        "0-3"
    );
    registry
        .send(
            &format!("PATCH {place}"),
            &[("content-range", "4-5")],
            b"45",
        )
        .await
        .expect(202);
    let put = format!("PUT {place}?digest={}", digest(b"012345"));
    registry.send(&put, &[], b"").await.expect(201);
    assert_eq!(left(&registry), 0);
    let blob = registry
        .get(&format!("/v2/web/blobs/{}", digest(b"012345")))
        .await;
    assert_eq!(blob.expect(200).bytes, "012345");
}

#[tokio::test]
async fn a_client_that_is_cut_off_goes_on_where_it_was() {
    let registry = Registry::start().await;
    let place = registry.begin("web").await;
    let authorization = registry.authorization.clone().unwrap();
    let mut stream = registry.cluster.connect().await.into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    let head = format!(
        "PATCH {place} HTTP/1.1\r\nhost: x\r\nauthorization: {authorization}\r\n\
         content-range: 0-9\r\ncontent-length: 10\r\n\r\n0123"
    );
    stream.write_all(head.as_bytes()).unwrap();
    // It is on disk before it is promised, so it is seen to come.
    let file = registry.cluster.dir.path().join("images/uploads");
    let file = file.join(place.rsplit('/').next().unwrap());
    let limit = std::time::Instant::now() + Duration::from_secs(20);
    while std::fs::metadata(&file).unwrap().len() < 4 {
        assert!(std::time::Instant::now() < limit, "nothing came");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(stream);
    // The server may still be at it; then it says that the upload is busy.
    let status = loop {
        let status = registry.get(&place).await;
        if status.status != 429 {
            break status.expect(204);
        }
    };
    assert_eq!(status.header("range"), "0-3");
    let rest = [("content-range", "4-9")];
    registry
        .send(&format!("PATCH {place}"), &rest, b"456789")
        .await
        .expect(202);
    let put = format!("PUT {place}?digest={}", digest(b"0123456789"));
    registry.send(&put, &[], b"").await.expect(201);
}

#[tokio::test]
async fn one_blob_is_pushed_by_many_at_once_and_is_there_once() {
    let registry = Registry::start().await;
    let content: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let pushes = (0..8).map(|_| registry.blob("web", &content));
    let digests = futures_util::future::join_all(pushes).await;
    let path = format!("/v2/web/blobs/{}", digests[0]);
    assert_eq!(registry.get(&path).await.expect(200).bytes, content);
    let blobs = registry.cluster.dir.path().join("images/blobs/sha256");
    assert_eq!(std::fs::read_dir(blobs).unwrap().count(), 1);
    assert_eq!(left(&registry), 0);
}

#[tokio::test]
async fn more_open_uploads_than_there_may_be_are_refused_and_room_is_made_by_a_cancel() {
    let registry = Registry::start().await;
    let mut places = Vec::new();
    for _ in 0..100 {
        places.push(registry.begin("web").await);
    }
    let path = "POST /v2/web/x/blobs/uploads/";
    let refused = registry.send(path, &[], b"").await;
    assert_eq!(refused.header("retry-after"), "5");
    assert!(
        refused
            .refused(429, "TOOMANYREQUESTS")
            .contains("100 uploads of app web")
    );
    registry.cluster.app("other").await;
    registry.begin("other").await;
    registry
        .send(&format!("DELETE {}", places[0]), &[], b"")
        .await
        .expect(204);
    registry.send(path, &[], b"").await.expect(202);
}

#[tokio::test]
async fn what_is_refused_early_is_heard_by_a_client_that_sends_a_lot() {
    let registry = Registry::start().await;
    let body = vec![7_u8; 3 << 20];
    let lost = "PATCH /v2/web/blobs/uploads/00000000-0000-4000-8000-000000000000";
    registry
        .send(lost, &[], &body)
        .await
        .refused(404, "BLOB_UPLOAD_UNKNOWN");
    let place = registry.begin("web").await;
    let range = format!("7-{}", body.len() + 6);
    registry
        .send(
            &format!("PATCH {place}"),
            &[("content-range", &range)],
            &body,
        )
        .await
        .expect(416);
}

/// Returns how many files of uploads there are.
fn left(registry: &Registry) -> usize {
    let uploads = registry.cluster.dir.path().join("images/uploads");
    std::fs::read_dir(uploads).unwrap().count()
}
