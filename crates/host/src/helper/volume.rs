//! Volumes and snapshots: what one request does to their images.
//!
//! A volume is an ext4 file system in a file of its full size, set aside on the disk when it is
//! made: it cannot grow beyond that, and it never finds the disk full. A snapshot is a sparse copy.
//! Each comes into being under another name, is written out and then renamed: it is whole or not
//! there. The lock on an image says who works with it (`loops`): whoever finds it taken works
//! through the device that has it, or waits.

mod copy;

use std::fs::{self, File};
use std::io::{self, ErrorKind as IoKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hangar_api::error::{ErrorKind, Failure};
use hangar_api::volume::VolumeUsage;
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock, fstatvfs};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, move_mount};
use serde::{Deserialize, Serialize};

use super::loops::{self, BLOCK, Device};
use super::{MountRequest, Reply};
use crate::sys::block;

/// A worker that takes longer than this for a volume is killed: time to copy a large one.
pub(super) const WORKER_SECONDS: u32 = 1800;
/// How long the host waits for an answer about a volume.
pub(crate) const ANSWER_TIME: Duration = Duration::from_secs(WORKER_SECONDS as u64 + 30);
/// How long a start waits for whoever still works with its volume.
const START_TIME: Duration = Duration::from_secs(45);
/// How long a removal waits for a Machine that has just ended.
const REMOVE_TIME: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);
/// Where the programs of e2fsprogs are looked for.
const PROGRAM_DIRS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];
/// Most bytes of what mkfs says that are handed on.
const MAX_WORDS: usize = 500;

/// What is asked about volumes. Paths are those of images.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub(crate) enum VolumeRequest {
    /// Make a volume, filled from another image or empty.
    Make {
        image: PathBuf,
        size: u64,
        from: Option<PathBuf>,
    },
    /// Make it as large as this.
    Extend { image: PathBuf, size: u64 },
    /// Copy it as of one moment.
    Copy { image: PathBuf, to: PathBuf },
    /// Remove an image.
    Remove { image: PathBuf },
    /// Say how full it is.
    Usage { image: PathBuf },
    /// Let go of what killed workers left: half-made images of these directories, file systems
    /// that are held still.
    Settle { dirs: Vec<PathBuf> },
}

/// Does what the request asks.
pub(super) fn work(request: &VolumeRequest) -> Reply {
    let done = match request {
        VolumeRequest::Make { image, size, from } => {
            make(image, *size, from.as_deref()).map(|()| Reply::done())
        }
        VolumeRequest::Extend { image, size } => extend(image, *size).map(|waits| Reply {
            waits,
            ..Reply::done()
        }),
        VolumeRequest::Copy { image, to } => copy_to(image, to).map(|bytes| Reply {
            bytes,
            ..Reply::done()
        }),
        VolumeRequest::Remove { image } => remove(image).map(|()| Reply::done()),
        VolumeRequest::Usage { image } => usage(image).map(|usage| Reply {
            usage: Some(usage),
            ..Reply::done()
        }),
        VolumeRequest::Settle { dirs } => settle(dirs).map(|()| Reply::done()),
    };
    done.unwrap_or_else(|failure| Reply {
        kind: Some(failure.kind),
        ..Reply::failed(failure.message, false)
    })
}

/// Attaches a Machine's volume and returns its mount, which nobody sees yet.
pub(super) fn mount_for_start(request: &MountRequest) -> Result<OwnedFd, Failure> {
    let image = open_image(&request.image)?;
    if !lock(&image, FlockOperation::NonBlockingLockExclusive, START_TIME)? {
        return Err(in_use(&request.image, "try again when that has ended"));
    }
    // It may have been extended while a Machine had it.
    fill_out(&image, &request.image)?;
    let device = loops::attach(&image).map_err(failed("attach the volume"))?;
    device.mount().map_err(failed("mount the volume"))
}

/// Shows a mount in the Machine's root, which is ours by now.
pub(super) fn show(mount: &OwnedFd, path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    let mut dirs = fs::DirBuilder::new();
    dirs.recursive(true).mode(0o755).create(path)?;
    let from_fd = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(move_mount(mount, "", rustix::fs::CWD, path, from_fd)?)
}

fn make(image: &Path, size: u64, from: Option<&Path>) -> Result<(), Failure> {
    let Some(new) = New::claim(image)? else {
        return Ok(());
    };
    if let Some(from) = from {
        let source = open_image(from)?;
        let least = source
            .metadata()
            .map_err(failed("look at the source"))?
            .len();
        if size < least {
            let text = format!("a volume made from it needs at least {} GB", gb(least));
            return Err(Failure::new(ErrorKind::Invalid, text));
        }
        copy::consistent(&source, from, &new.file)?;
        set_aside(&new.file, size)?;
        fill_out(&new.file, &new.path)?;
    } else {
        set_aside(&new.file, size)?;
        make_file_system(&new.path)?;
    }
    new.keep()
}

/// Gives a file its size and the disk's room for all of it, or leaves it as it is.
fn set_aside(file: &File, size: u64) -> Result<(), Failure> {
    let sized = |to: u64| file.set_len(to).map_err(failed("size the volume"));
    let before = file.metadata().map_err(failed("look at the volume"))?.len();
    // The size comes last: a file that is as long as it should be has all its room.
    let error = match fallocate(file, FallocateFlags::KEEP_SIZE, 0, size) {
        // This file system cannot promise room: the size is enforced all the same.
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => return sized(size),
        Err(error) => error,
    };
    // What was had before the disk was full goes back.
    sized(before)?;
    if !matches!(error, Errno::NOSPC | Errno::DQUOT | Errno::FBIG) {
        return Err(failed("set the volume's room aside")(error.into()));
    }
    let text = format!(
        "insufficient resources: the disk of the data directory has no room for a volume of {} \
         GB; free some, or make it smaller",
        gb(size)
    );
    Err(Failure::new(ErrorKind::Exhausted, text))
}

fn make_file_system(image: &Path) -> Result<(), Failure> {
    let words = ["-q", "-F", "-b", "4096"];
    // What is set aside must not be given back.
    let options = ["-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1"];
    let words: Vec<&str> = words.into_iter().chain(options).collect();
    run("mkfs.ext4", &words, image)
}

/// Runs a program of e2fsprogs on an image.
fn run(name: &str, words: &[&str], image: &Path) -> Result<(), Failure> {
    let program = PROGRAM_DIRS
        .iter()
        .map(|dir| Path::new(dir).join(name))
        .find(|path| path.exists());
    let Some(program) = program else {
        let text = format!("{name} is not installed: run apt-get install e2fsprogs");
        return Err(Failure::new(ErrorKind::Unavailable, text));
    };
    let ran = Command::new(program)
        .args(words)
        .arg(image)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .output()
        .map_err(failed(&format!("run {name}")))?;
    if ran.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ran.stderr);
    let said: String = said.trim().chars().take(MAX_WORDS).collect();
    let text = format!("{name} of the volume failed: {said}");
    Err(Failure::new(ErrorKind::Internal, text))
}

/// Returns whether the Machine that has it sees the size only after a restart.
fn extend(image: &Path, size: u64) -> Result<bool, Failure> {
    let until = Instant::now() + START_TIME;
    loop {
        let file = open_image(image)?;
        let now = file.metadata().map_err(failed("look at the volume"))?.len();
        if now < size {
            set_aside(&file, size)?;
            file.sync_all().map_err(failed("write the volume out"))?;
        }
        if lock(&file, FlockOperation::NonBlockingLockExclusive, PAUSE)? {
            return fill_out(&file, image).map(|()| false);
        }
        if let Some(device) = loops::find(&file).map_err(failed("find the volume's device"))? {
            return grow(&device, now.max(size));
        }
        if Instant::now() > until {
            return Err(in_use(image, "try again later"));
        }
    }
}

/// Makes a file system in use as large as its device's file. May be repeated. Returns whether that
/// has to wait for a restart, where this machine does not let root do it.
fn grow(device: &Device, size: u64) -> Result<bool, Failure> {
    device
        .take_size()
        .map_err(failed("let the device take the volume's size"))?;
    let root = root(device)?;
    match block::ext4_resize(&root, size / u64::from(BLOCK)) {
        Ok(()) => {}
        // Without CAP_SYS_RESOURCE.
        Err(error) if error.kind() == IoKind::PermissionDenied => return Ok(true),
        Err(error) => return Err(failed("extend the volume's file system")(error)),
    }
    rustix::fs::syncfs(&root).map_err(|error| failed("write the volume out")(error.into()))?;
    Ok(false)
}

/// Makes the file system of an image that nobody uses, whose lock is ours, as large as the file.
fn fill_out(file: &File, image: &Path) -> Result<(), Failure> {
    let look = failed("look at the volume");
    let wanted = file.metadata().map_err(&look)?.len() / u64::from(BLOCK);
    if blocks_of(file).map_err(&look)? >= wanted {
        return Ok(());
    }
    // What the kernel has in its journal is written to its place first.
    let device = loops::attach(file).map_err(failed("attach the volume"))?;
    drop(root(&device)?);
    drop(device);
    let until = Instant::now() + REMOVE_TIME;
    while loops::find(file)
        .map_err(failed("find the volume's device"))?
        .is_some()
    {
        if Instant::now() > until {
            return Err(in_use(image, "try again later"));
        }
        std::thread::sleep(PAUSE);
    }
    run("resize2fs", &["-f"], image)?;
    file.sync_all().map_err(failed("write the volume out"))
}

/// Returns how many blocks the ext4 file system of an image has, by its superblock.
fn blocks_of(file: &File) -> io::Result<u64> {
    use std::os::unix::fs::FileExt as _;
    const SUPERBLOCK: u64 = 1024;
    let number = |at: u64| -> io::Result<u64> {
        let mut bytes = [0; 4];
        file.read_exact_at(&mut bytes, SUPERBLOCK + at)?;
        Ok(u64::from(u32::from_le_bytes(bytes)))
    };
    Ok(number(0x150)? << 32 | number(0x4)?)
}

fn copy_to(image: &Path, to: &Path) -> Result<u64, Failure> {
    let source = open_image(image)?;
    let Some(new) = New::claim(to)? else {
        let meta = fs::metadata(to).map_err(failed("look at the snapshot"))?;
        return Ok(meta.blocks() * 512);
    };
    copy::consistent(&source, image, &new.file)?;
    new.file.sync_all().map_err(failed("write the copy out"))?;
    let meta = new.file.metadata().map_err(failed("look at the copy"))?;
    new.keep()?;
    Ok(meta.blocks() * 512)
}

fn remove(image: &Path) -> Result<(), Failure> {
    let file = match File::open(image) {
        Err(error) if error.kind() == IoKind::NotFound => return Ok(()),
        other => other.map_err(failed("open the image"))?,
    };
    if !lock(&file, FlockOperation::NonBlockingLockExclusive, REMOVE_TIME)? {
        return Err(in_use(image, "destroy the Machine first"));
    }
    match fs::remove_file(image) {
        Err(error) if error.kind() != IoKind::NotFound => {
            return Err(failed("remove the image")(error));
        }
        _ => {}
    }
    sync_dir(image)
}

fn usage(image: &Path) -> Result<VolumeUsage, Failure> {
    on_device(image, |device| {
        let root = root(device)?;
        let found = fstatvfs(&root);
        let found = found.map_err(|error| failed("look at the volume")(error.into()))?;
        Ok(VolumeUsage {
            blocks: found.f_blocks,
            block_size: found.f_frsize,
            blocks_free: found.f_bfree,
            blocks_avail: found.f_bavail,
        })
    })
}

fn settle(dirs: &[PathBuf]) -> Result<(), Failure> {
    let mut ours = Vec::new();
    for dir in dirs {
        let listed = fs::read_dir(dir).map_err(failed("list the volumes"))?;
        for entry in listed {
            let entry = entry.map_err(failed("list the volumes"))?;
            let path = entry.path();
            if path.extension().is_some_and(|end| end == New::END) {
                let file = File::open(&path).map_err(failed("open what is left over"))?;
                // Whoever still makes it keeps it.
                if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                    drop(fs::remove_file(&path));
                }
            } else if let Ok(meta) = entry.metadata() {
                ours.push(((meta.dev(), meta.ino()), path));
            }
        }
    }
    for (device, backing) in loops::attached().map_err(failed("list loop devices"))? {
        let Some((_, image)) = ours.iter().find(|(file, _)| *file == backing) else {
            continue;
        };
        let image = open_image(image)?;
        if copy::begins(&image)? {
            let root = root(&device)?;
            block::thaw(&root).map_err(failed("let the volume's writes go on"))?;
        }
    }
    Ok(())
}

/// Works with an image's device: the one that has it, or one for the moment.
fn on_device<T>(image: &Path, act: impl Fn(&Device) -> Result<T, Failure>) -> Result<T, Failure> {
    let until = Instant::now() + START_TIME;
    loop {
        let file = open_image(image)?;
        if lock(&file, FlockOperation::NonBlockingLockExclusive, PAUSE)? {
            let device = loops::attach(&file).map_err(failed("attach the volume"))?;
            return act(&device);
        }
        if let Some(device) = loops::find(&file).map_err(failed("find the volume's device"))? {
            return act(&device);
        }
        if Instant::now() > until {
            return Err(in_use(image, "try again later"));
        }
    }
}

fn root(device: &Device) -> Result<OwnedFd, Failure> {
    let mount = device.mount().map_err(failed("mount the volume"))?;
    loops::root_of(&mount).map_err(failed("open the volume"))
}

/// An image that is being made, under another name; the lock says by whom.
struct New {
    file: File,
    path: PathBuf,
    image: PathBuf,
}

impl New {
    const END: &str = "new";

    /// Begins to make an image, after whoever does so now. Returns `None` when it is there.
    fn claim(image: &Path) -> Result<Option<Self>, Failure> {
        let path = image.with_extension(Self::END);
        let patience = Duration::from_secs(u64::from(WORKER_SECONDS));
        loop {
            if image.exists() {
                return Ok(None);
            }
            let file = File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .map_err(failed("make the image"))?;
            if !lock(&file, FlockOperation::NonBlockingLockExclusive, patience)? {
                return Err(in_use(image, "try again later"));
            }
            let (ours, found) = (file.metadata(), fs::metadata(&path));
            let same = matches!((ours, found), (Ok(ours), Ok(found)) if ours.ino() == found.ino());
            if !same {
                // It was finished, or given up, while we waited for its lock.
                continue;
            }
            file.set_len(0).map_err(failed("make the image"))?;
            return Ok(Some(Self {
                file,
                path,
                image: image.to_owned(),
            }));
        }
    }

    /// Writes it out and gives it its name.
    fn keep(self) -> Result<(), Failure> {
        self.file
            .sync_all()
            .map_err(failed("write the image out"))?;
        fs::rename(&self.path, &self.image).map_err(failed("name the image"))?;
        sync_dir(&self.image)
    }
}

impl Drop for New {
    fn drop(&mut self) {
        // Gone already when it was kept.
        drop(fs::remove_file(&self.path));
    }
}

fn sync_dir(image: &Path) -> Result<(), Failure> {
    let dir = image.parent().unwrap_or(Path::new("/"));
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(failed("write the directory of images out"))
}

fn open_image(image: &Path) -> Result<File, Failure> {
    let opened = File::options().read(true).write(true).open(image);
    opened.map_err(|error| {
        if error.kind() == IoKind::NotFound {
            let text = format!("{} is not on this host", name(image));
            return Failure::new(ErrorKind::NotFound, text);
        }
        failed("open the image")(error)
    })
}

fn lock(file: &File, how: FlockOperation, limit: Duration) -> Result<bool, Failure> {
    let until = Instant::now() + limit;
    loop {
        match flock(file, how) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) if Instant::now() < until => std::thread::sleep(PAUSE),
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(error) => return Err(failed("lock the image")(error.into())),
        }
    }
}

fn in_use(image: &Path, hint: &str) -> Failure {
    let text = format!("{} is in use; {hint}", name(image));
    Failure::new(ErrorKind::FailedPrecondition, text)
}

/// Returns what an image is called: a volume's or snapshot's id.
fn name(image: &Path) -> String {
    let id = image.file_stem().unwrap_or_default().to_string_lossy();
    let what = if id.starts_with("vs_") {
        "snapshot"
    } else {
        "volume"
    };
    format!("{what} {id}")
}

fn gb(bytes: u64) -> u64 {
    bytes.div_ceil(hangar_api::volume::GB)
}

/// Returns what turns an error of the machine into one that says what we were doing.
fn failed(what: &str) -> impl Fn(io::Error) -> Failure + '_ {
    move |error| {
        let kind = match error.kind() {
            IoKind::StorageFull | IoKind::QuotaExceeded => ErrorKind::Exhausted,
            _ => ErrorKind::Internal,
        };
        Failure::new(kind, format!("{what}: {error}"))
    }
}
