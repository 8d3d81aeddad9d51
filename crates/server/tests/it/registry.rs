//! The embedded registry, by the OCI distribution specification: a case for each of its endpoints
//! ("end-1" to "end-14"), by category, and what Hangar adds: apps, tokens, restarts, limits.

mod discovery;
mod management;
mod pull;
mod push;
mod scope;
mod storm;
mod uploads;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{HeaderMap, Method, Request, StatusCode};
use serde_json::{Value, json};

use crate::cluster::{Cluster, PATIENCE};

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A server with an app `web`, and a client of its registry.
pub(crate) struct Registry {
    pub(crate) cluster: Cluster,
    pub(crate) authorization: Option<String>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Bytes,
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    hangar_image::Digest::of(bytes).to_string()
}

// === impl Reply ===

impl Reply {
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        self
    }

    /// Checks status and code of a refusal.
    #[track_caller]
    pub(crate) fn refused(self, status: u16, code: &str) -> String {
        let reply = self.expect(status);
        let body = reply.json();
        assert_eq!(body["errors"][0]["code"], code, "{body}");
        body["errors"][0]["message"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value
            .unwrap_or_else(|| panic!("no {name} in {self:?}"))
            .to_str()
            .unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap()
    }
}

// === impl Registry ===

impl Registry {
    pub(crate) async fn start() -> Self {
        let cluster = Cluster::start().await;
        cluster.app("web").await;
        let pair = STANDARD.encode(format!("x:{}", cluster.token));
        Self {
            authorization: Some(format!("Basic {pair}")),
            cluster,
        }
    }

    /// Sends a request; `method` and path in one, as in `GET /v2/`.
    pub(crate) async fn send(&self, what: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let (method, path) = what.split_once(' ').unwrap();
        let mut request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(path)
            .header("host", "localhost");
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = Full::new(Bytes::copy_from_slice(body));
        let response = self.cluster.send(request.body(body).unwrap()).await;
        let (parts, body) = response.into_parts();
        let bytes = tokio::time::timeout(PATIENCE, body.collect()).await;
        Reply {
            status: parts.status,
            headers: parts.headers,
            bytes: bytes.expect("a whole answer in time").unwrap().to_bytes(),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(&format!("GET {path}"), &[], b"").await
    }

    /// Begins an upload and returns where it goes on.
    pub(crate) async fn begin(&self, name: &str) -> String {
        let begun = self
            .send(&format!("POST /v2/{name}/blobs/uploads/"), &[], b"")
            .await;
        begun.expect(202).header("location").to_owned()
    }

    /// Pushes a blob in one piece and returns its digest.
    pub(crate) async fn blob(&self, name: &str, bytes: &[u8]) -> String {
        let digest = digest(bytes);
        let place = self.begin(name).await;
        let put = self
            .send(&format!("PUT {place}?digest={digest}"), &[], bytes)
            .await;
        put.expect(201);
        digest
    }

    /// Pushes a manifest and returns its digest.
    pub(crate) async fn put(&self, name: &str, reference: &str, kind: &str, text: &str) -> String {
        let what = format!("PUT /v2/{name}/manifests/{reference}");
        let put = self
            .send(&what, &[("content-type", kind)], text.as_bytes())
            .await;
        let put = put.expect(201);
        assert_eq!(put.header("docker-content-digest"), digest(text.as_bytes()));
        put.header("docker-content-digest").to_owned()
    }

    /// Pushes an image of one layer and returns the digest and text of its manifest.
    pub(crate) async fn image(&self, name: &str, tag: &str, layer: &[u8]) -> (String, String) {
        let text = self.manifest(name, layer, &json!({})).await;
        let digest = self.put(name, tag, MANIFEST, &text).await;
        (digest, text)
    }

    /// Pushes the parts of an image and returns its manifest, with more fields.
    pub(crate) async fn manifest(&self, name: &str, layer: &[u8], more: &Value) -> String {
        let config = self.blob(name, b"{}").await;
        let layer_digest = self.blob(name, layer).await;
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": config,
                "size": 2,
            },
            "layers": [{
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": layer_digest,
                "size": layer.len(),
            }],
        });
        for (key, value) in more.as_object().unwrap() {
            manifest[key] = value.clone();
        }
        manifest.to_string()
    }
}

/// Returns the descriptor of a manifest.
pub(crate) fn descriptor(kind: &str, text: &str) -> Value {
    json!({"mediaType": kind, "digest": digest(text.as_bytes()), "size": text.len()})
}
