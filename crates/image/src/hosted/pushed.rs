//! Manifests as clients push them: judged by what the registry must know of them. Pure.
//!
//! A registry takes any artifact, not only images that Hangar can run: Helm charts, signatures,
//! images for other machines. Whether an image can run is judged when it is resolved.

use std::collections::BTreeMap;

use hangar_api::Timestamp;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;

use super::HostedError;
use super::repository::Entry;

pub(super) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Layers that lie elsewhere and are pushed by nobody.
const FOREIGN: [&str; 2] = ["nondistributable", "rootfs.foreign"];
/// Manifests, layers and children that one manifest may name.
const MAX_NAMED: usize = 2000;

/// One row of a list of referrers: a descriptor, by the specification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Referrer {
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) artifact_type: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
}

/// The parts of a manifest or an index that matter here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    subject: Option<Descriptor>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
}

/// Judges a manifest that was pushed with this content type ("" for none).
pub(super) fn entry(bytes: &[u8], content_type: &str, at: Timestamp) -> Result<Entry, HostedError> {
    let bad = HostedError::ManifestInvalid;
    let document = read(bytes)?;
    let said = document.media_type.as_deref().filter(|t| !t.is_empty());
    let sent = Some(essence(content_type)).filter(|t| !t.is_empty());
    if let (Some(said), Some(sent)) = (said, sent)
        && said != sent
    {
        return Err(bad(format!(
            "it says that it is {said}, and was sent as {sent}"
        )));
    }
    let shape = match document.manifests {
        Some(_) => OCI_INDEX,
        None => OCI_MANIFEST,
    };
    let media_type = sent.or(said).unwrap_or(shape).to_owned();
    let is_index = match media_type.as_str() {
        OCI_MANIFEST | DOCKER_MANIFEST => false,
        OCI_INDEX | DOCKER_LIST => true,
        other => {
            return Err(bad(format!(
                "manifests of the type {other:?} are not taken; push an OCI manifest or index, or \
                 Docker's of schema 2"
            )));
        }
    };
    let named = document
        .layers
        .iter()
        .chain(&document.manifests)
        .map(Vec::len);
    if named.sum::<usize>() > MAX_NAMED {
        return Err(bad(format!("it names more than {MAX_NAMED} others")));
    }
    let subject = document.subject.map(|d| digest(&d)).transpose()?;
    let (blobs, children) = if is_index {
        let manifests = document
            .manifests
            .ok_or_else(|| bad("an index has no list of manifests".to_owned()))?;
        let children: Result<_, _> = manifests.iter().map(digest).collect();
        (Vec::new(), children?)
    } else {
        let config = document
            .config
            .ok_or_else(|| bad("it has no config".to_owned()))?;
        let layers = document.layers.unwrap_or_default();
        let here = layers.iter().filter(|layer| !is_foreign(layer));
        let blobs: Result<_, _> = std::iter::once(&config).chain(here).map(digest).collect();
        (blobs?, Vec::new())
    };
    Ok(Entry {
        media_type,
        size: bytes.len().try_into().unwrap_or(u64::MAX),
        at,
        blobs,
        children,
        subject,
    })
}

/// Returns the row of a manifest in a list of referrers.
pub(super) fn referrer(
    digest: &Digest,
    entry: &Entry,
    bytes: &[u8],
) -> Result<Referrer, HostedError> {
    let document = read(bytes)?;
    let own = document.artifact_type.filter(|t| !t.is_empty());
    let of_config = || document.config.map(|c| c.media_type);
    Ok(Referrer {
        media_type: entry.media_type.clone(),
        digest: digest.clone(),
        size: entry.size,
        artifact_type: own.or_else(of_config).filter(|t| !t.is_empty()),
        annotations: document.annotations.unwrap_or_default(),
    })
}

fn read(bytes: &[u8]) -> Result<Document, HostedError> {
    let document: Document = serde_json::from_slice(bytes)
        .map_err(|error| HostedError::ManifestInvalid(format!("it cannot be read: {error}")))?;
    if document.schema_version != 2 {
        return Err(HostedError::ManifestInvalid(format!(
            "it has schema version {}; only 2 is taken",
            document.schema_version
        )));
    }
    Ok(document)
}

/// Returns a content type without its parameters.
fn essence(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

fn is_foreign(layer: &Descriptor) -> bool {
    FOREIGN.iter().any(|word| layer.media_type.contains(word))
}

fn digest(descriptor: &Descriptor) -> Result<Digest, HostedError> {
    descriptor.digest.parse().map_err(|_| {
        HostedError::ManifestInvalid(format!(
            "it names {:?}, no sha256 digest",
            descriptor.digest
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn judge(text: &str, content_type: &str) -> Result<Entry, HostedError> {
        entry(text.as_bytes(), content_type, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn the_type_is_what_was_sent_else_what_it_says_else_its_shape() {
        let config = format!(r#""config":{{"mediaType":"x","digest":"{D}","size":0}}"#);
        let plain = format!(r#"{{"schemaVersion":2,{config}}}"#);
        assert_eq!(judge(&plain, "").unwrap().media_type, OCI_MANIFEST);
        let docker = judge(&plain, &format!("{DOCKER_MANIFEST}; charset=utf-8"));
        assert_eq!(docker.unwrap().media_type, DOCKER_MANIFEST);
        let says = format!(r#"{{"schemaVersion":2,"mediaType":"{DOCKER_MANIFEST}",{config}}}"#);
        assert_eq!(judge(&says, "").unwrap().media_type, DOCKER_MANIFEST);
        let error = judge(&says, OCI_MANIFEST).unwrap_err().to_string();
        assert!(error.contains("was sent as"), "{error}");
        let index = r#"{"schemaVersion":2,"manifests":[]}"#;
        assert_eq!(judge(index, "").unwrap().media_type, OCI_INDEX);
    }

    #[test]
    fn layers_that_lie_elsewhere_need_not_be_here() {
        let other = Digest::of(b"other");
        let text = format!(
            r#"{{"schemaVersion":2,"config":{{"digest":"{D}"}},"layers":[
            {{"mediaType":"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip","digest":"{D}"}},
            {{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"{other}"}}]}}"#
        );
        let found = judge(&text, "").unwrap();
        assert_eq!(found.blobs, [D.parse().unwrap(), other]);
    }

    #[test]
    fn what_is_no_manifest_is_refused_in_words() {
        let cases = [
            ("", "", "cannot be read"),
            ("[]", "", "cannot be read"),
            (r#"{"schemaVersion":1}"#, "", "schema version 1"),
            (r#"{"schemaVersion":2}"#, "", "no config"),
            (r#"{"schemaVersion":2}"#, OCI_INDEX, "no list of manifests"),
            (r#"{"schemaVersion":2}"#, "text/plain", "not taken"),
            (
                r#"{"schemaVersion":2,"config":{"digest":"md5:1"}}"#,
                "",
                "no sha256 digest",
            ),
        ];
        for (text, content_type, words) in cases {
            let error = judge(text, content_type).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn a_referrer_shows_its_type_or_that_of_its_config() {
        let row = |text: &str| {
            let entry = judge(text, "").unwrap();
            referrer(&Digest::of(b""), &entry, text.as_bytes()).unwrap()
        };
        let config = format!(r#""config":{{"mediaType":"application/x","digest":"{D}"}}"#);
        let own = format!(
            r#"{{"schemaVersion":2,"artifactType":"application/y",{config},"annotations":{{"a":"b"}}}}"#
        );
        assert_eq!(row(&own).artifact_type.unwrap(), "application/y");
        assert_eq!(row(&own).annotations["a"], "b");
        let of_config = format!(r#"{{"schemaVersion":2,{config}}}"#);
        assert_eq!(row(&of_config).artifact_type.unwrap(), "application/x");
        let index = r#"{"schemaVersion":2,"manifests":[]}"#;
        assert_eq!(row(index).artifact_type, None);
    }
}
