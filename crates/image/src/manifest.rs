//! Manifests and indexes, OCI's and Docker's: parsed, judged, and one platform chosen.

use std::collections::BTreeSet;

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};
use serde::Deserialize;

use crate::digest::Digest;
use crate::error::ImageError;
use crate::platform::Platform;

/// Most bytes of a manifest or index.
pub const MAX_MANIFEST: u64 = 4 << 20;
/// Bytes of a config blob.
pub(crate) const MAX_CONFIG: u64 = 8 << 20;
/// Layers of one image: overlayfs can stack 500, and we may add one of our own.
const MAX_LAYERS: usize = 499;

/// What we ask registries for.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";

const CONFIGS: [&str; 2] = [
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
];
const LAYERS: [&str; 4] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
];
const IMAGES: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// A manifest, or a list of them for several platforms.
#[derive(Clone, Debug)]
pub(crate) enum Document {
    Image(Manifest),
    Index(Vec<Choice>),
}

/// The parts of an image.
#[derive(Clone, Debug)]
pub(crate) struct Manifest {
    pub(crate) config: Blob,
    pub(crate) layers: Vec<Blob>,
}

/// Something to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Blob {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// One image of an index.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    pub(crate) digest: Digest,
    pub(crate) platform: Platform,
    pub(crate) name: Option<String>,
}

/// The fields that tell the kinds of documents apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: u32,
    #[serde(default)]
    manifests: Option<serde::de::IgnoredAny>,
}

// === impl Document ===

impl Document {
    pub(crate) fn parse(bytes: &[u8], name: &str) -> Result<Self, ImageError> {
        let broken =
            |reason: String| ImageError::broken(format!("the manifest of image {name}"), reason);
        let shape: Shape = serde_json::from_slice(bytes).map_err(|e| broken(e.to_string()))?;
        if shape.schema_version != 2 {
            return Err(ImageError::Unsupported(format!(
                "image {name} has a manifest of version {}, which no tool of today makes; \
                 build or push it again",
                shape.schema_version
            )));
        }
        if shape.manifests.is_some() {
            let index: ImageIndex =
                serde_json::from_slice(bytes).map_err(|e| broken(e.to_string()))?;
            let choices: Result<Vec<_>, _> = index
                .manifests()
                .iter()
                .filter(|d| IMAGES.contains(&d.media_type().to_string().as_str()))
                .map(Choice::of)
                .collect();
            return Ok(Self::Index(choices?));
        }
        let manifest: ImageManifest =
            serde_json::from_slice(bytes).map_err(|e| broken(e.to_string()))?;
        Manifest::of(&manifest, name).map(Self::Image)
    }
}

impl Manifest {
    fn of(manifest: &ImageManifest, name: &str) -> Result<Self, ImageError> {
        let kind = manifest.config().media_type().to_string();
        if !CONFIGS.contains(&kind.as_str()) {
            return Err(ImageError::Unsupported(format!(
                "{name} is no container image but {kind}"
            )));
        }
        if manifest.layers().len() > MAX_LAYERS {
            return Err(ImageError::Unsupported(format!(
                "image {name} has {} layers; at most {MAX_LAYERS} can be stacked",
                manifest.layers().len()
            )));
        }
        for layer in manifest.layers() {
            let kind = layer.media_type().to_string();
            if kind.ends_with("zstd") {
                return Err(ImageError::Unsupported(format!(
                    "image {name} has layers compressed with zstd, which Hangar does not read \
                     yet; push it with gzip"
                )));
            }
            if !LAYERS.contains(&kind.as_str()) {
                return Err(ImageError::Unsupported(format!(
                    "image {name} has a layer of the kind {kind}, which Hangar cannot unpack"
                )));
            }
        }
        let layers: Result<Vec<_>, _> = manifest.layers().iter().map(Blob::of).collect();
        Ok(Self {
            config: Blob::of(manifest.config())?,
            layers: layers?,
        })
    }

    /// Returns how much there is to download.
    pub(crate) fn size(&self) -> u64 {
        self.layers.iter().fold(self.config.size, |sum, layer| {
            sum.saturating_add(layer.size)
        })
    }
}

impl Blob {
    fn of(descriptor: &Descriptor) -> Result<Self, ImageError> {
        Ok(Self {
            digest: descriptor.digest().to_string().parse()?,
            size: descriptor.size(),
        })
    }
}

impl Choice {
    fn of(descriptor: &Descriptor) -> Result<Self, ImageError> {
        let (os, architecture, variant) = match descriptor.platform() {
            Some(p) => (
                p.os().to_string(),
                p.architecture().to_string(),
                p.variant().clone(),
            ),
            None => Default::default(),
        };
        let named = |key: &str| descriptor.annotations().as_ref()?.get(key).cloned();
        Ok(Self {
            digest: descriptor.digest().to_string().parse()?,
            platform: Platform {
                os,
                architecture,
                variant: variant.unwrap_or_default(),
            },
            name: named(CONTAINERD_NAME).or_else(|| named(REF_NAME)),
        })
    }

    /// Returns whether it is an image at all: builders add entries that only attest to others.
    fn is_image(&self) -> bool {
        self.platform.os != "unknown"
    }
}

/// Chooses the image for a platform, or says which platforms there are.
pub(crate) fn choose<'a>(
    choices: &'a [Choice],
    machine: &Platform,
    name: &str,
) -> Result<&'a Choice, ImageError> {
    let images = || choices.iter().filter(|c| c.is_image());
    let exact = images().find(|c| c.platform == *machine);
    if let Some(choice) = exact.or_else(|| images().find(|c| machine.runs(&c.platform))) {
        return Ok(choice);
    }
    let found: BTreeSet<String> = images().map(|c| c.platform.to_string()).collect();
    let found: Vec<String> = found.into_iter().collect();
    Err(ImageError::NoPlatform {
        name: name.to_owned(),
        wanted: machine.to_string(),
        found: if found.is_empty() {
            "no platform at all".to_owned()
        } else {
            found.join(", ")
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(os: &str, architecture: &str, variant: &str) -> Choice {
        Choice {
            digest: Digest::of(format!("{os}{architecture}{variant}").as_bytes()),
            platform: Platform {
                os: os.to_owned(),
                architecture: architecture.to_owned(),
                variant: variant.to_owned(),
            },
            name: None,
        }
    }

    fn amd64() -> Platform {
        choice("linux", "amd64", "").platform
    }

    #[test]
    fn the_platform_of_this_machine_is_chosen_and_attestations_are_not() {
        let all = [
            choice("unknown", "unknown", ""),
            choice("linux", "arm64", "v8"),
            choice("linux", "amd64", "v3"),
            choice("linux", "amd64", ""),
        ];
        assert_eq!(choose(&all, &amd64(), "x").unwrap().digest, all[3].digest);
    }

    #[test]
    fn an_image_for_other_machines_says_for_which() {
        let all = [choice("linux", "s390x", ""), choice("linux", "arm", "v7")];
        let error = choose(&all, &amd64(), "x").unwrap_err().to_string();
        assert_eq!(
            error,
            "image x has nothing for linux/amd64; it is made for linux/arm/v7, linux/s390x"
        );
    }

    #[test]
    fn what_is_no_image_is_refused_in_words() {
        let chart = r#"{"schemaVersion":2,"config":{"mediaType":"application/vnd.cncf.helm.config.v1+json",
            "digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0},
            "layers":[]}"#;
        let error = Document::parse(chart.as_bytes(), "x")
            .unwrap_err()
            .to_string();
        assert!(error.contains("no container image"), "{error}");
        let old = r#"{"schemaVersion":1,"name":"x"}"#;
        let error = Document::parse(old.as_bytes(), "x")
            .unwrap_err()
            .to_string();
        assert!(error.contains("version 1"), "{error}");
    }
}
