//! Uploads in progress: a file each, which outlives the server.
//!
//! ```text
//! uploads/<id>        the bytes so far
//! uploads/<id>.json   whose it is
//! ```
//!
//! The digest is computed while bytes come. After a restart it is computed again from the file. A
//! request that is refused leaves the upload as it was before; one that is cut off leaves what
//! came, so that its client goes on from there.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hangar_api::Timestamp;
use hangar_api::env::Env;
use hangar_api::id::AppName;
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

use crate::digest::{Digest, HashWriter};
use crate::disk::sync_dir;
use crate::error::ImageError;

use super::repository::RepositoryName;
use super::{HostedError, PUSH_KEEP};

/// Uploads at the same time, begun and not finished.
const MAX_OPEN: usize = 1000;
/// Of one app.
const MAX_OPEN_OF_APP: usize = 100;
/// Where there are too many, those that nobody has touched for so long make room, the oldest first.
const IDLE: SignedDuration = SignedDuration::from_mins(10);
/// Requests that write at the same time.
const MAX_WRITERS: usize = 64;
/// How long a request waits for its turn to write.
const TURN: Duration = Duration::from_secs(30);
/// How long it waits for another one of the same upload, whose client may just have gone.
const SAME_UPLOAD: Duration = Duration::from_secs(5);
/// Pieces of a body on their way to the disk.
pub(super) const QUEUE: usize = 16;
/// Most bytes of a blob.
pub(super) const MAX_BLOB: u64 = 32 << 30;
/// Bytes between two looks at the room on the disk.
const LOOK_EVERY: u64 = 32 << 20;
/// Room that stays free for what runs, at most; on a small disk a twentieth of it.
const RESERVE: u64 = 256 << 20;

/// All uploads.
#[derive(Debug)]
pub(super) struct Uploads {
    dir: PathBuf,
    env: Env,
    open: Mutex<BTreeMap<String, Arc<Upload>>>,
    writers: Arc<Semaphore>,
}

/// One upload.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) id: String,
    pub(super) repository: RepositoryName,
    path: PathBuf,
    progress: Arc<tokio::sync::Mutex<Progress>>,
    touched: Mutex<Timestamp>,
}

/// How far an upload is.
#[derive(Debug)]
pub(super) struct Progress {
    len: u64,
    /// The digest so far; nothing after a restart.
    hash: Option<HashWriter<io::Sink>>,
    /// Finished or cancelled.
    over: bool,
}

/// What an upload's second file says.
#[derive(Serialize, Deserialize)]
struct Record {
    repository: String,
}

/// What a request says of its body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// The number of its first byte, if it says.
    pub start: Option<u64>,
    /// How many bytes come, if it says.
    pub length: Option<u64>,
}

/// What the writer of an upload is sent.
pub(super) enum Piece {
    Data(Bytes),
    /// The body was whole.
    End,
}

/// The right to write to an upload: its turn, and nobody else.
pub(super) struct Turn {
    progress: OwnedMutexGuard<Progress>,
    path: PathBuf,
    _permit: OwnedSemaphorePermit,
}

// === impl Uploads ===

impl Uploads {
    /// Takes over what a former server left, but for what is too old or not whole.
    pub(super) fn open(dir: PathBuf, env: Env) -> Result<Self, ImageError> {
        let uploads = Self {
            env,
            open: Mutex::default(),
            writers: Arc::new(Semaphore::new(MAX_WRITERS)),
            dir,
        };
        let failed = |e| ImageError::disk("read directory", &uploads.dir, e);
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(&uploads.dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let kept = match name.strip_suffix(".json") {
                Some(id) => uploads.left(id, &path),
                None if path.with_extension("json").exists() => continue,
                None => None,
            };
            match kept {
                Some(upload) => drop(found.insert(upload.id.clone(), Arc::new(upload))),
                None => remove(&path.with_extension(""))
                    .and_then(|()| remove(&path))
                    .map_err(failed)?,
            }
        }
        *uploads.lock() = found;
        Ok(uploads)
    }

    /// Reads an upload that a former server left.
    fn left(&self, id: &str, record: &Path) -> Option<Upload> {
        let record: Record = serde_json::from_slice(&fs::read(record).ok()?).ok()?;
        let path = self.dir.join(id);
        let meta = fs::metadata(&path).ok()?;
        let touched = Timestamp::try_from(meta.modified().ok()?).ok()?;
        let age = self.env.now().duration_since(touched);
        (age < PUSH_KEEP).then_some(())?;
        Some(Upload {
            id: id.to_owned(),
            repository: record.repository.parse().ok()?,
            path,
            progress: Arc::new(tokio::sync::Mutex::new(Progress {
                len: meta.len(),
                hash: None,
                over: false,
            })),
            touched: Mutex::new(touched),
        })
    }

    /// Begins an upload. Blocks on the disk.
    pub(super) fn begin(&self, repository: &RepositoryName) -> Result<Arc<Upload>, HostedError> {
        self.make_room_for_one(repository.app())?;
        enough_room(&self.dir, 0)?;
        let id = uuid(&self.env);
        let path = self.dir.join(&id);
        let failed = |e| HostedError::from(ImageError::disk("begin an upload in", &self.dir, e));
        let record = serde_json::to_vec(&Record {
            repository: repository.to_string(),
        });
        let made = (|| {
            File::create(&path)?;
            let mut file = File::create(path.with_extension("json"))?;
            file.write_all(&record?)?;
            file.sync_all()?;
            sync_dir(&self.dir)
        })();
        if let Err(error) = made {
            // Nothing knows of them; the next start removes what stays.
            let _left = remove(&path).and_then(|()| remove(&path.with_extension("json")));
            return Err(failed(error));
        }
        let upload = Arc::new(Upload {
            id: id.clone(),
            repository: repository.clone(),
            path,
            progress: Arc::new(tokio::sync::Mutex::new(Progress {
                len: 0,
                hash: Some(HashWriter::new(io::sink())),
                over: false,
            })),
            touched: Mutex::new(self.env.now()),
        });
        self.lock().insert(id, Arc::clone(&upload));
        Ok(upload)
    }

    /// Gives up uploads that their clients have left, where there are too many for one more.
    fn make_room_for_one(&self, app: &AppName) -> Result<(), HostedError> {
        let now = self.env.now();
        loop {
            let oldest = {
                let open = self.lock();
                let own = || open.values().filter(|u| u.repository.app() == app);
                let idle = |u: &&Arc<Upload>| now.duration_since(u.touched()) >= IDLE;
                let free = |u: &&Arc<Upload>| u.progress.try_lock().is_ok();
                if own().count() >= MAX_OPEN_OF_APP {
                    own()
                        .filter(idle)
                        .filter(free)
                        .min_by_key(|u| u.touched())
                        .cloned()
                } else if open.len() >= MAX_OPEN {
                    let all = open.values().filter(idle).filter(free);
                    all.min_by_key(|u| u.touched()).cloned()
                } else {
                    return Ok(());
                }
            };
            let Some(oldest) = oldest else {
                return Err(HostedError::TooMany(format!(
                    "{MAX_OPEN_OF_APP} uploads of app {app} (or {MAX_OPEN} of all) are open, the \
                     most that may be; finish or cancel some"
                )));
            };
            if let Ok(mut progress) = oldest.progress.try_lock() {
                progress.over = true;
                self.end(&oldest)?;
            }
        }
    }

    /// Returns an upload of this repository.
    pub(super) fn find(
        &self,
        repository: &RepositoryName,
        id: &str,
    ) -> Result<Arc<Upload>, HostedError> {
        let upload = self.lock().get(id).cloned();
        let upload = upload.filter(|u| u.repository == *repository);
        let upload = upload.ok_or(HostedError::UploadUnknown)?;
        *upload
            .touched
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = self.env.now();
        Ok(upload)
    }

    /// Returns how many bytes of an upload are here.
    pub(super) async fn len(&self, upload: &Upload) -> Result<u64, HostedError> {
        let progress = timeout(SAME_UPLOAD, upload.progress.lock()).await;
        let progress = progress.map_err(|_| HostedError::Busy)?;
        if progress.over {
            return Err(HostedError::UploadUnknown);
        }
        Ok(progress.len)
    }

    /// Waits until a part may be written.
    pub(super) async fn turn(&self, upload: &Upload, part: Part) -> Result<Turn, HostedError> {
        let permit = timeout(TURN, Arc::clone(&self.writers).acquire_owned()).await;
        let permit = permit
            .map_err(|_| {
                HostedError::TooMany(format!(
                    "{MAX_WRITERS} uploads are being written; try again in a moment"
                ))
            })?
            .map_err(|_| HostedError::Failed(ImageError::CutOff))?;
        let progress = Arc::clone(&upload.progress).lock_owned();
        let progress = timeout(SAME_UPLOAD, progress).await;
        let progress = progress.map_err(|_| HostedError::Busy)?;
        if progress.over {
            return Err(HostedError::UploadUnknown);
        }
        if part.start.is_some_and(|start| start != progress.len) {
            return Err(HostedError::OutOfOrder { have: progress.len });
        }
        let whole = progress.len.saturating_add(part.length.unwrap_or(0));
        if whole > MAX_BLOB {
            return Err(HostedError::TooLarge(MAX_BLOB));
        }
        Ok(Turn {
            progress,
            path: upload.path.clone(),
            _permit: permit,
        })
    }

    /// Forgets an upload and removes what is left of it. Blocks on the disk.
    pub(super) fn end(&self, upload: &Upload) -> Result<(), ImageError> {
        self.lock().remove(&upload.id);
        // The record last: with it alone, the next start clears up.
        remove(&upload.path)
            .and_then(|()| remove(&upload.path.with_extension("json")))
            .map_err(|e| ImageError::disk("remove the upload", &upload.path, e))
    }

    /// Cancels an upload.
    pub(super) async fn cancel(&self, upload: &Upload) -> Result<(), HostedError> {
        let progress = timeout(SAME_UPLOAD, upload.progress.lock()).await;
        let mut progress = progress.map_err(|_| HostedError::Busy)?;
        progress.over = true;
        Ok(self.end(upload)?)
    }

    /// Removes uploads that nobody has touched for long, and those of apps for which `gone` holds.
    pub(super) fn sweep_if(&self, gone: impl Fn(&RepositoryName) -> bool) {
        let now = self.env.now();
        let old: Vec<_> = {
            let open = self.lock();
            let old = open.values().filter(|upload| {
                now.duration_since(upload.touched()) >= PUSH_KEEP || gone(&upload.repository)
            });
            old.cloned().collect()
        };
        for upload in old {
            match upload.progress.try_lock() {
                Ok(mut progress) => progress.over = true,
                // Somebody writes: what is taken away under it cannot be finished.
                Err(_) if gone(&upload.repository) => {}
                Err(_) => continue,
            }
            if let Err(error) = self.end(&upload) {
                tracing::warn!(%error, "an old upload is not removed");
            }
        }
    }

    pub(super) fn sweep(&self) {
        self.sweep_if(|_| false);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<Upload>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Upload ===

impl Upload {
    /// Returns when a client last asked for it.
    fn touched(&self) -> Timestamp {
        let touched = self.touched.lock();
        *touched.unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Turn ===

impl Turn {
    /// Writes what comes behind what is there, up to the end of the body or of the connection, and
    /// returns how much there is then. Blocks. With a digest the upload is to be whole by then.
    pub(super) fn write(
        &mut self,
        pieces: mpsc::Receiver<Piece>,
        length: Option<u64>,
        wanted: Option<&Digest>,
    ) -> Result<u64, HostedError> {
        let failed = |e| HostedError::from(ImageError::disk("store the upload at", &self.path, e));
        let start = self.progress.len;
        let file = File::options().write(true).open(&self.path);
        let mut file = file.map_err(failed)?;
        // What an unfinished request left beyond is not part of it.
        file.set_len(start).map_err(failed)?;
        file.seek(SeekFrom::Start(start)).map_err(failed)?;
        let mut hash = match self.progress.hash.take() {
            Some(hash) => hash,
            None => hash_of(&self.path).map_err(failed)?,
        };
        let before = hash.clone();
        let written = take(&mut file, &mut hash, pieces, length, &self.path);
        let written = written.and_then(|whole| match wanted {
            Some(wanted) if whole => matches(&hash, wanted).map(|()| whole),
            _ => Ok(whole),
        });
        let written = written.and_then(|whole| {
            file.sync_data().map_err(failed)?;
            Ok(whole)
        });
        match written {
            Ok(whole) => {
                self.progress.len = hash.len();
                self.progress.hash = Some(hash);
                if !whole {
                    return Err(HostedError::UploadInvalid("it was cut off".to_owned()));
                }
                Ok(self.progress.len)
            }
            Err(error) => {
                // The room is needed. If this fails too, the next request does it.
                let _later = file.set_len(start);
                self.progress.hash = Some(before);
                Err(error)
            }
        }
    }

    /// Moves the upload, which is whole and synced, to its place. Blocks.
    pub(super) fn commit(mut self, place: &Path) -> Result<(), HostedError> {
        let moved = fs::rename(&self.path, place);
        let moved = moved.and_then(|()| place.parent().map_or(Ok(()), sync_dir));
        moved.map_err(|e| ImageError::disk("put the blob in its place,", place, e))?;
        self.progress.over = true;
        Ok(())
    }
}

/// Writes pieces until the end; returns whether the body was whole.
fn take(
    file: &mut File,
    hash: &mut HashWriter<io::Sink>,
    mut pieces: mpsc::Receiver<Piece>,
    length: Option<u64>,
    path: &Path,
) -> Result<bool, HostedError> {
    let failed = |e| HostedError::from(ImageError::disk("store the upload at", path, e));
    let dir = path.parent().unwrap_or(path);
    enough_room(dir, length.unwrap_or(0))?;
    let (mut count, mut looked) = (0_u64, 0_u64);
    while let Some(piece) = pieces.blocking_recv() {
        let Piece::Data(data) = piece else {
            return match length.filter(|length| *length != count) {
                Some(length) => Err(HostedError::SizeInvalid(format!(
                    "{length} bytes were announced and {count} came"
                ))),
                None => Ok(true),
            };
        };
        count = count.saturating_add(data.len().try_into().unwrap_or(u64::MAX));
        if let Some(length) = length.filter(|length| count > *length) {
            return Err(HostedError::SizeInvalid(format!(
                "{length} bytes were announced and more came"
            )));
        }
        if hash.len().saturating_add(count) > MAX_BLOB {
            return Err(HostedError::TooLarge(MAX_BLOB));
        }
        if count - looked >= LOOK_EVERY {
            looked = count;
            enough_room(dir, 0)?;
        }
        file.write_all(&data).map_err(failed)?;
        hash.write_all(&data).map_err(failed)?;
    }
    Ok(false)
}

fn matches(hash: &HashWriter<io::Sink>, wanted: &Digest) -> Result<(), HostedError> {
    let (got, _, _) = hash.clone().finish();
    if got == *wanted {
        return Ok(());
    }
    Err(HostedError::DigestInvalid(format!(
        "it is {got}, not {wanted}"
    )))
}

fn hash_of(path: &Path) -> io::Result<HashWriter<io::Sink>> {
    let mut hash = HashWriter::new(io::sink());
    io::copy(&mut File::open(path)?, &mut hash)?;
    Ok(hash)
}

/// Refuses what would fill the disk: databases and ledgers of what runs are on it.
pub(super) fn enough_room(dir: &Path, length: u64) -> Result<(), HostedError> {
    let stat = rustix::fs::statvfs(dir)
        .map_err(|e| ImageError::disk("look at the room in", dir, e.into()))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let reserve = RESERVE.min(stat.f_blocks.saturating_mul(stat.f_frsize) / 20);
    if free >= reserve.saturating_add(length) {
        return Ok(());
    }
    Err(HostedError::Full(format!(
        "the disk that holds {} is full: {} MB are free; free some space, or remove images with \
         `hangar image prune`",
        dir.display(),
        free >> 20
    )))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Returns a random UUID (RFC 9562, version 4): the specification wants one in the address.
fn uuid(env: &Env) -> String {
    let mut bytes = [0_u8; 16];
    env.secret_bytes(&mut bytes);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    let parts = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ];
    parts.join("-")
}
