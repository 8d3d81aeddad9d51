//! Images in files: OCI layouts, OCI archives and what `docker save` writes.
//!
//! Called by the store's import, on a blocking thread. An archive is read where it lies: its
//! entries are found once, then opened by offset. Where both formats are there, as in archives of
//! newer Dockers, the OCI one is taken.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use serde_json::json;

use crate::config::ConfigBlob;
use crate::digest::Digest;
use crate::disk::Scratch;
use crate::error::ImageError;
use crate::layer::tar::{Entries, What};
use crate::manifest::{Choice, Document, MAX_CONFIG, MAX_MANIFEST, choose};
use crate::platform::Platform;

/// Entries of an archive: a few per layer.
const MAX_ENTRIES: usize = 100_000;
/// How many links may lead to a layer inside an archive.
const MAX_LINKS: usize = 8;
const MAX_INDEX_DEPTH: usize = 3;
const INDEX: &str = "index.json";
const LAYOUT: &str = "oci-layout";
const DOCKER: &str = "manifest.json";

/// An archive or a layout directory, opened.
#[derive(Debug)]
pub(crate) struct Archive {
    path: PathBuf,
    /// Where the entries of a tar file are; nothing for a directory.
    entries: Option<BTreeMap<String, Place>>,
    /// Holds the file if it had to be decompressed.
    _unpacked: Option<Scratch>,
}

#[derive(Debug)]
enum Place {
    File { offset: u64, size: u64 },
    Link(String),
}

/// One image of an archive.
#[derive(Debug)]
pub(crate) struct ArchiveImage {
    pub(crate) manifest: Vec<u8>,
    pub(crate) config: Vec<u8>,
    pub(crate) layers: Vec<ArchiveLayer>,
}

/// A layer of an archive.
#[derive(Clone, Debug)]
pub(crate) struct ArchiveLayer {
    name: String,
    /// Of the bytes in the archive, where the archive says.
    pub(crate) digest: Option<Digest>,
}

/// An image in `manifest.json` of a `docker save` archive.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

// === impl Archive ===

impl Archive {
    /// Opens a file or directory. A compressed file is decompressed into `scratch` first.
    pub(crate) fn open(path: &Path, scratch: Scratch) -> Result<Self, ImageError> {
        let failed = |e| ImageError::disk("open", path, e);
        let meta = std::fs::metadata(path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => ImageError::NotFound {
                name: path.display().to_string(),
                reason: "there is no such file or directory".to_owned(),
            },
            _ => failed(e),
        })?;
        if meta.is_dir() {
            return Ok(Self {
                path: path.to_owned(),
                entries: None,
                _unpacked: None,
            });
        }
        let mut file = File::open(path).map_err(failed)?;
        let mut magic = [0_u8; 4];
        let read = file.read(&mut magic).map_err(failed)?;
        file.rewind().map_err(failed)?;
        let (path, unpacked) = match magic.get(..read) {
            Some([0x1f, 0x8b, ..]) => {
                decompress(file, scratch.path())?;
                (scratch.path().to_owned(), Some(scratch))
            }
            Some([0x28, 0xb5, 0x2f, 0xfd]) => {
                return Err(ImageError::Unsupported(format!(
                    "{} is compressed with zstd, which Hangar does not read yet; decompress it",
                    path.display()
                )));
            }
            _ => (path.to_owned(), None),
        };
        Ok(Self {
            entries: Some(index(&path)?),
            path,
            _unpacked: unpacked,
        })
    }

    /// Finds the image for this machine. Where the archive holds several, `name` chooses.
    pub(crate) fn image(&self, name: &str, machine: &Platform) -> Result<ArchiveImage, ImageError> {
        if self.has(INDEX)? && self.has(LAYOUT)? {
            return self.oci(name, machine);
        }
        if self.has(DOCKER)? {
            return self.docker(name);
        }
        Err(ImageError::broken(
            self.path.display().to_string(),
            "it holds no image: neither index.json (OCI) nor manifest.json (docker save) is there",
        ))
    }

    /// Opens a layer for reading.
    pub(crate) fn open_layer(&self, layer: &ArchiveLayer) -> Result<impl Read + use<>, ImageError> {
        self.reader(&layer.name).map(|(reader, _)| reader)
    }

    fn oci(&self, name: &str, machine: &Platform) -> Result<ArchiveImage, ImageError> {
        let mut bytes = self.small(INDEX, MAX_MANIFEST)?;
        for depth in 0..MAX_INDEX_DEPTH {
            match Document::parse(&bytes, name)? {
                Document::Index(choices) => {
                    let choices = if depth == 0 {
                        named(choices, name)?
                    } else {
                        choices
                    };
                    let choice = choose(&choices, machine, name)?;
                    bytes = self.blob(&choice.digest, MAX_MANIFEST)?;
                }
                Document::Image(manifest) => {
                    let layers = manifest.layers.into_iter().map(|blob| ArchiveLayer {
                        name: blob_path(&blob.digest),
                        digest: Some(blob.digest),
                    });
                    return Ok(ArchiveImage {
                        config: self.blob(&manifest.config.digest, MAX_CONFIG)?,
                        layers: layers.collect(),
                        manifest: bytes,
                    });
                }
            }
        }
        Err(ImageError::broken(
            format!("the index of image {name}"),
            "it points too deep",
        ))
    }

    /// Reads Docker's own format. It has no manifest of the kind that registries have, so one is
    /// made that names each layer by what it holds unpacked.
    fn docker(&self, name: &str) -> Result<ArchiveImage, ImageError> {
        let broken = |reason: String| ImageError::broken(self.path.display().to_string(), reason);
        let bytes = self.small(DOCKER, MAX_MANIFEST)?;
        let mut all: Vec<Saved> =
            serde_json::from_slice(&bytes).map_err(|e| broken(format!("manifest.json: {e}")))?;
        if all.len() > 1 {
            let tags = |s: &Saved| s.repo_tags.clone().unwrap_or_default();
            let found: BTreeSet<String> = all.iter().flat_map(tags).collect();
            all.retain(|saved| tags(saved).iter().any(|tag| same_name(tag, name)));
            if all.is_empty() {
                return Err(several(name, &found));
            }
        }
        let saved = all
            .into_iter()
            .next()
            .ok_or_else(|| broken("it is empty".to_owned()))?;
        let config = self.small(&saved.config, MAX_CONFIG)?;
        let diff_ids = ConfigBlob::parse(&config, name)?.rootfs.diff_ids;
        if diff_ids.len() != saved.layers.len() {
            return Err(broken(format!(
                "its config lists {} layers, its manifest.json {}",
                diff_ids.len(),
                saved.layers.len()
            )));
        }
        let mut descriptors = Vec::new();
        for (path, diff_id) in saved.layers.iter().zip(&diff_ids) {
            let (_, size) = self.reader(path)?;
            descriptors.push(json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": diff_id,
                "size": size,
            }));
        }
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": Digest::of(&config),
                "size": config.len(),
            },
            "layers": descriptors,
        });
        let layers = saved
            .layers
            .into_iter()
            .map(|name| ArchiveLayer { name, digest: None });
        Ok(ArchiveImage {
            manifest: manifest.to_string().into_bytes(),
            config,
            layers: layers.collect(),
        })
    }

    fn has(&self, name: &str) -> Result<bool, ImageError> {
        match self.reader(name) {
            Ok(_) => Ok(true),
            Err(ImageError::Broken { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn blob(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, ImageError> {
        let bytes = self.small(&blob_path(digest), limit)?;
        if Digest::of(&bytes) != *digest {
            return Err(ImageError::broken(
                format!("{} of {}", blob_path(digest), self.path.display()),
                "its content has another digest; make the archive again",
            ));
        }
        Ok(bytes)
    }

    fn small(&self, name: &str, limit: u64) -> Result<Vec<u8>, ImageError> {
        let (reader, size) = self.reader(name)?;
        if size > limit {
            return Err(ImageError::broken(
                format!("{name} of {}", self.path.display()),
                format!("it is {size} bytes large; {limit} is the limit"),
            ));
        }
        let mut bytes = Vec::new();
        reader
            .take(limit)
            .read_to_end(&mut bytes)
            .map_err(|e| ImageError::disk("read", &self.path, e))?;
        Ok(bytes)
    }

    /// Opens an entry; `Broken` if there is none.
    fn reader(&self, name: &str) -> Result<(io::Take<File>, u64), ImageError> {
        let missing =
            || ImageError::broken(self.path.display().to_string(), format!("it has no {name}"));
        let Some(entries) = &self.entries else {
            let inside = Path::new(name)
                .components()
                .all(|c| matches!(c, Component::Normal(_)));
            let path = self.path.join(name);
            let file = if inside { File::open(&path).ok() } else { None };
            let file = file.ok_or_else(missing)?;
            let meta = file
                .metadata()
                .map_err(|e| ImageError::disk("open", &path, e))?;
            if !meta.is_file() {
                return Err(missing());
            }
            return Ok((file.take(meta.len()), meta.len()));
        };
        let mut name = normal(name);
        for _ in 0..MAX_LINKS {
            match entries.get(&name).ok_or_else(missing)? {
                Place::Link(target) => name.clone_from(target),
                Place::File { offset, size } => {
                    let failed = |e| ImageError::disk("read", &self.path, e);
                    let mut file = File::open(&self.path).map_err(failed)?;
                    file.seek(SeekFrom::Start(*offset)).map_err(failed)?;
                    return Ok((file.take(*size), *size));
                }
            }
        }
        Err(missing())
    }
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Returns where the entries of a tar file are.
fn index(path: &Path) -> Result<BTreeMap<String, Place>, ImageError> {
    let failed = |e: crate::layer::LayerError| {
        ImageError::broken(format!("archive {}", path.display()), e.to_string())
    };
    let file = File::open(path).map_err(|e| ImageError::disk("open", path, e))?;
    let mut entries = Entries::new(BufReader::new(file));
    let mut found = BTreeMap::new();
    while let Some(entry) = entries.next_by_seek().map_err(failed)? {
        let name = normal(&String::from_utf8_lossy(&entry.path));
        let link = String::from_utf8_lossy(&entry.link).into_owned();
        let place = match entry.what {
            What::File => Place::File {
                offset: entries.offset(),
                size: entry.size,
            },
            What::Hardlink => Place::Link(normal(&link)),
            What::Symlink => {
                let dir = name.rsplit_once('/').map_or("", |(dir, _)| dir);
                Place::Link(normal(&format!("{dir}/{link}")))
            }
            _ => continue,
        };
        found.insert(name, place);
        if found.len() > MAX_ENTRIES {
            return Err(ImageError::broken(
                format!("archive {}", path.display()),
                "it has too many entries for an image",
            ));
        }
    }
    Ok(found)
}

/// Returns a path without `.`, `..` and empty parts.
fn normal(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

fn decompress(file: File, to: &Path) -> Result<(), ImageError> {
    let failed = |e| ImageError::disk("decompress the archive to", to, e);
    let mut out = File::create(to).map_err(failed)?;
    let copied = io::copy(&mut MultiGzDecoder::new(BufReader::new(file)), &mut out);
    copied.map(drop).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
            ImageError::broken("the archive", format!("its compression: {error}"))
        }
        _ => failed(error),
    })
}

/// Keeps the images of a layout that `name` means, if they have names and these differ.
fn named(choices: Vec<Choice>, name: &str) -> Result<Vec<Choice>, ImageError> {
    let found: BTreeSet<String> = choices.iter().filter_map(|c| c.name.clone()).collect();
    if found.len() < 2 {
        return Ok(choices);
    }
    let mut choices = choices;
    choices.retain(|c| c.name.as_ref().is_some_and(|found| same_name(found, name)));
    if choices.is_empty() {
        return Err(several(name, &found));
    }
    Ok(choices)
}

/// Returns whether an archive's name for an image is the one we look for. Layouts may give only a
/// tag.
fn same_name(found: &str, name: &str) -> bool {
    let short = |text: &str| {
        let text = text.strip_prefix("docker.io/").unwrap_or(text);
        text.strip_prefix("library/").unwrap_or(text).to_owned()
    };
    let tag = name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    short(found) == short(name) || found == tag
}

fn several(name: &str, found: &BTreeSet<String>) -> ImageError {
    let list: Vec<&str> = found.iter().map(String::as_str).collect();
    ImageError::NotFound {
        name: name.to_owned(),
        reason: format!(
            "the archive holds several images, none of them by this name: {}; \
             import it under the name of the one you mean",
            list.join(", ")
        ),
    }
}
