//! Makes images from files at hand: the CLI's builder for cargo projects, and tests.
//!
//! The same input gives the same bytes and so the same digest: no times, owners or orders of the
//! moment get in. This is no builder of Dockerfiles; that is left to the tools people have.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use serde_json::json;

use crate::config::{ConfigBlob, RootBlob, RunBlob};
use crate::digest::Digest;
use crate::error::ImageError;
use crate::platform::Platform;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const DIR_MODE: u32 = 0o755;

/// What an image is to hold and how it is run.
#[derive(Clone, Debug, Default)]
pub struct ImageSpec {
    /// The files, in any order. Directories above them are made.
    pub files: Vec<ImageFile>,
    /// What is always run.
    pub entrypoint: Vec<String>,
    /// The default command.
    pub cmd: Vec<String>,
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// `User` of the image, or "".
    pub user: String,
    /// The directory to start in, or "".
    pub workdir: String,
    /// Ports such as `8080/tcp`.
    pub exposed_ports: Vec<String>,
    /// The signal that asks it to stop.
    pub stop_signal: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// One file of an image, owned by root.
#[derive(Clone, Debug, Default)]
pub struct ImageFile {
    /// The absolute path inside.
    pub path: String,
    /// The mode, such as `0o755`.
    pub mode: u32,
    /// The content.
    pub content: Vec<u8>,
}

/// The parts of a built image, by their paths in an OCI layout, and the manifest's digest.
struct Parts {
    files: BTreeMap<String, Vec<u8>>,
    manifest: Digest,
}

/// Writes an OCI archive (a tar file) and returns the digest of the image's manifest.
pub fn write_oci_archive(spec: &ImageSpec, path: &Path) -> Result<Digest, ImageError> {
    let parts = parts(spec)?;
    let written = (|| {
        let mut archive = tar::Builder::new(File::create(path)?);
        for (name, content) in &parts.files {
            append(&mut archive, name, 0o644, content)?;
        }
        archive.into_inner()?.sync_all()
    })();
    written.map_err(|e| ImageError::disk("write image archive", path, e))?;
    Ok(parts.manifest)
}

/// Writes an OCI layout (a directory) and returns the digest of the image's manifest.
pub fn write_oci_layout(spec: &ImageSpec, dir: &Path) -> Result<Digest, ImageError> {
    let parts = parts(spec)?;
    let written = (|| {
        std::fs::create_dir_all(dir.join("blobs/sha256"))?;
        for (name, content) in &parts.files {
            let mut file = File::create(dir.join(name))?;
            file.write_all(content)?;
            file.sync_all()?;
        }
        io::Result::Ok(())
    })();
    written.map_err(|e| ImageError::disk("write image layout", dir, e))?;
    Ok(parts.manifest)
}

/// Packs an OCI layout (or an unpacked `docker save` archive) into a tar file, to be sent.
pub fn pack_layout(dir: &Path, archive: &Path) -> Result<(), ImageError> {
    if !dir.join("index.json").is_file() && !dir.join("manifest.json").is_file() {
        return Err(ImageError::broken(
            format!("the folder {}", dir.display()),
            "it holds no image: neither index.json nor manifest.json is there",
        ));
    }
    let written = (|| {
        let mut tar = tar::Builder::new(File::create(archive)?);
        tar.mode(tar::HeaderMode::Deterministic);
        tar.append_dir_all(".", dir)?;
        tar.into_inner()?.sync_all()
    })();
    written.map_err(|e| ImageError::disk("pack image folder", dir, e))
}

fn parts(spec: &ImageSpec) -> Result<Parts, ImageError> {
    let layer = layer(&spec.files)
        .map_err(|e| ImageError::broken("the list of files for the image", e.to_string()))?;
    let layer_digest = Digest::of(&layer);
    let config = json_bytes(&config(spec, layer_digest.clone()))?;
    let config_digest = Digest::of(&config);
    let manifest = json_bytes(&json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": { "mediaType": CONFIG, "digest": config_digest, "size": config.len() },
        "layers": [{ "mediaType": LAYER, "digest": layer_digest, "size": layer.len() }],
    }))?;
    let manifest_digest = Digest::of(&manifest);
    let index = json_bytes(&json!({
        "schemaVersion": 2,
        "manifests": [
            { "mediaType": MANIFEST, "digest": manifest_digest, "size": manifest.len() },
        ],
    }))?;
    let layout = json_bytes(&json!({ "imageLayoutVersion": "1.0.0" }))?;
    let blob = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
    Ok(Parts {
        files: BTreeMap::from([
            (blob(&layer_digest), layer),
            (blob(&config_digest), config),
            (blob(&manifest_digest), manifest),
            ("index.json".to_owned(), index),
            ("oci-layout".to_owned(), layout),
        ]),
        manifest: manifest_digest,
    })
}

fn config(spec: &ImageSpec, layer: Digest) -> ConfigBlob {
    let platform = Platform::this();
    ConfigBlob {
        architecture: platform.architecture,
        os: platform.os,
        variant: Some(platform.variant).filter(|v| !v.is_empty()),
        config: RunBlob {
            user: spec.user.clone(),
            exposed_ports: spec
                .exposed_ports
                .iter()
                .map(|port| (port.clone(), json!({})))
                .collect(),
            env: spec.env.iter().map(|(k, v)| format!("{k}={v}")).collect(),
            entrypoint: spec.entrypoint.clone(),
            cmd: spec.cmd.clone(),
            working_dir: spec.workdir.clone(),
            labels: spec.labels.clone(),
            stop_signal: spec.stop_signal.clone(),
        },
        rootfs: RootBlob {
            kind: "layers".to_owned(),
            diff_ids: vec![layer],
        },
    }
}

fn layer(files: &[ImageFile]) -> io::Result<Vec<u8>> {
    let mut files: Vec<(&str, &ImageFile)> = files
        .iter()
        .map(|file| (file.path.trim_matches('/'), file))
        .collect();
    files.sort_by_key(|(path, _)| *path);
    let mut dirs = BTreeSet::new();
    let mut archive = tar::Builder::new(Vec::new());
    for (path, file) in files {
        for (at, _) in path.match_indices('/') {
            if dirs.insert(&path[..at]) {
                let mut header = header(DIR_MODE, 0);
                header.set_entry_type(tar::EntryType::Directory);
                archive.append_data(&mut header, format!("{}/", &path[..at]), io::empty())?;
            }
        }
        append(&mut archive, path, file.mode, &file.content)?;
    }
    archive.into_inner()
}

fn append(
    archive: &mut tar::Builder<impl Write>,
    path: &str,
    mode: u32,
    content: &[u8],
) -> io::Result<()> {
    let size = content.len().try_into().unwrap_or(u64::MAX);
    archive.append_data(&mut header(mode, size), path, content)
}

fn header(mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn json_bytes(value: &impl serde::Serialize) -> Result<Vec<u8>, ImageError> {
    serde_json::to_vec(value).map_err(|e| ImageError::broken("the image's config", e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_files_in_another_order_make_the_same_image() {
        let file = |path: &str| ImageFile {
            path: path.to_owned(),
            mode: 0o755,
            content: path.as_bytes().to_vec(),
        };
        let mut spec = ImageSpec {
            files: vec![file("/bin/a"), file("/etc/x/b")],
            entrypoint: vec!["/bin/a".to_owned()],
            ..ImageSpec::default()
        };
        let one = parts(&spec).unwrap();
        spec.files.reverse();
        let two = parts(&spec).unwrap();
        assert_eq!(one.manifest, two.manifest);
        assert_eq!(one.files, two.files);
    }
}
