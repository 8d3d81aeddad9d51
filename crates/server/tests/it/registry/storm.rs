//! Requests that no client sends: whatever comes, the registry answers by its rules, at once.
//! `HANGAR_LONG=1` sends 20,000.

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use super::{MANIFEST, Registry, digest};

fn header() -> impl Strategy<Value = (&'static str, String)> {
    let of = |name: &'static str, values: &[&'static str]| {
        prop::sample::select(values.to_vec()).prop_map(move |value| (name, value.to_owned()))
    };
    prop_oneof![
        of(
            "content-range",
            &[
                "0-3",
                "4-1",
                "x",
                "bytes 0-3/9",
                "0-99999999999999999999",
                "-"
            ]
        ),
        of(
            "range",
            &["bytes=0-1", "bytes=9-", "bytes=-0", "bytes=a-b", "x"]
        ),
        of(
            "content-type",
            &[MANIFEST, "text/plain", "", "application/json; x"]
        ),
    ]
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let documents = [
        "{}",
        "[]",
        "null",
        r#"{"schemaVersion":2}"#,
        r#"{"schemaVersion":2,"manifests":[]}"#,
        r#"{"schemaVersion":2,"manifests":[{"digest":"x"}]}"#,
        r#"{"schemaVersion":2,"config":{"digest":7}}"#,
        r#"{"schemaVersion":2,"manifests":null}"#,
    ];
    prop_oneof![
        2 => Just(Vec::new()),
        1 => prop::collection::vec(any::<u8>(), 0..64),
        1 => prop::sample::select(documents.to_vec()).prop_map(|text| text.as_bytes().to_vec()),
    ]
}

/// What a request may be made of; `HERE` is a digest that is there, `UPLOAD` an open upload.
fn requests() -> impl Strategy<Value = (String, Vec<(&'static str, String)>, Vec<u8>)> {
    let methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    let method = prop::sample::select(methods.to_vec());
    let odd = vec![
        "web/a",
        "no-app",
        "Web",
        "web/../x",
        "",
        "web/blobs/uploads",
    ];
    let name = prop_oneof![
        6 => Just("web".to_owned()),
        1 => prop::sample::select(odd).prop_map(str::to_owned),
        1 => "[a-z0-9/._-]{0,12}",
    ];
    let known = prop::sample::select(vec![
        "blobs/uploads/",
        "blobs/uploads/UPLOAD",
        "blobs/HERE",
        "manifests/v1",
        "manifests/HERE",
        "tags/list",
        "referrers/HERE",
    ]);
    let rest = prop_oneof![
        3 => known.prop_map(str::to_owned),
        1 => "(blobs|blobs/uploads|manifests|referrers|_catalog|x|)/(sha256:12|sha512:12|sha256:|%zz|)",
    ];
    let query = prop_oneof![
        3 => Just(String::new()),
        1 => "(digest|mount|from|n|last|tag|artifactType)=(HERE|web|0|-1|v1|%00|&)",
        1 => "[a-z=&%0-9]{0,16}",
    ];
    let headers = prop::collection::vec(header(), 0..3);
    (method, name, rest, query, headers, body()).prop_map(
        |(method, name, rest, query, headers, body)| {
            let query = if query.is_empty() {
                query
            } else {
                format!("?{query}")
            };
            (format!("{method} /v2/{name}/{rest}{query}"), headers, body)
        },
    )
}

#[tokio::test]
async fn whatever_comes_is_answered_by_the_rules() {
    let registry = Registry::start().await;
    let here = digest(b"layer");
    let mut place = registry.begin("web").await;
    let mut runner = TestRunner::deterministic();
    let strategy = requests();
    let mut good = 0;
    let long = std::env::var_os("HANGAR_LONG").is_some();
    let rounds = if long { 20_000 } else { 600 };
    for number in 0..rounds {
        if number % 10 == 0 {
            registry.image("web", "v1", b"layer").await;
        }
        let (what, headers, body) = strategy.new_tree(&mut runner).unwrap().current();
        let what = what.replace("HERE", &here);
        let what = what.replace("UPLOAD", place.rsplit('/').next().unwrap());
        let path = what.split(' ').nth(1).unwrap_or_default();
        if path.parse::<hyper::Uri>().is_err() {
            continue;
        }
        let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let reply = registry.send(&what, &headers, &body).await;
        let status = reply.status.as_u16();
        assert!(status < 500, "{what} {headers:?}: {reply:?}");
        good += usize::from(reply.status.is_success());
        if status >= 400 && status != 416 && !what.starts_with("HEAD") {
            let code = reply.json()["errors"][0]["code"]
                .as_str()
                .unwrap()
                .to_owned();
            assert!(
                code.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'),
                "{what}: {code}"
            );
        }
        if registry.get(&place).await.status != 204 {
            // It was finished or dropped, or there are too many now.
            let begun = registry.send("POST /v2/web/blobs/uploads/", &[], b"").await;
            if begun.status == 202 {
                place = begun.header("location").to_owned();
            }
        }
    }
    assert!(good > rounds / 10, "only {good}");
    // And it still works.
    registry.image("web/after", "v1", b"layer").await;
}
