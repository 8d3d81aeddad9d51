//! Copying an image as of one moment, also while its file system is in use.
//!
//! A file system in use is copied twice: first while it is written to, then, held still, only what
//! has changed since: what programs have written is on the image by then, whole, and further writes
//! wait, for a fraction of the time that the first copy took. A guardian lets them go on when the copier is killed: it waits for the
//! copier's end of a pipe to be closed, and has a limit of its own.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use hangar_api::error::{ErrorKind, Failure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{
    Advice, FlockOperation, SeekFrom, copy_file_range, fadvise, fcntl_lock, ioctl_ficlone, seek,
};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use super::super::loops::{self, Device};
use super::{START_TIME, failed, in_use, lock, root};
use crate::sys::block;

/// How long the writes of a volume's programs may wait for a copy.
pub(crate) const FREEZE_LIMIT: Duration = Duration::from_secs(60);
/// Bytes that are read at once, between two looks at the clock.
const BUFFER: usize = 1 << 20;

/// Copies an image into an empty file.
pub(super) fn consistent(source: &File, path: &Path, to: &File) -> Result<(), Failure> {
    let until = Instant::now() + START_TIME;
    let pause = Duration::ZERO;
    loop {
        // Together with others who only read; a Machine that wants to start waits.
        if lock(source, FlockOperation::NonBlockingLockShared, pause)? {
            return copy(source, to).map_err(failed("copy the image"));
        }
        if let Some(device) = loops::find(source).map_err(failed("find the volume's device"))?
            && begins(source)?
        {
            return held_still(&device, source, to);
        }
        if Instant::now() > until {
            return Err(in_use(path, "try again later"));
        }
        std::thread::sleep(super::PAUSE);
    }
}

/// Returns whether nobody else holds the writes of this image: a lock of the process, beside that
/// of the loop device, which goes when the process does.
pub(super) fn begins(image: &File) -> Result<bool, Failure> {
    match fcntl_lock(image, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::AGAIN | Errno::ACCESS) => Ok(false),
        Err(error) => Err(failed("lock the volume for a copy")(error.into())),
    }
}

fn held_still(device: &Device, source: &File, to: &File) -> Result<(), Failure> {
    let root = root(device)?;
    // Where the file system below can do that, a clone is made in no time, twice.
    let clones = ioctl_ficlone(to, source).is_ok();
    if !clones {
        let copied = copy(source, to).and_then(|()| to.sync_data());
        copied.map_err(failed("copy the image"))?;
    }
    let guardian = Guardian::watch(&root).map_err(failed("watch over the copy"))?;
    let frozen = match block::freeze(&root) {
        // A copy that was killed, with its guardian, left it so.
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
            block::thaw(&root).and_then(|_| block::freeze(&root))
        }
        other => other,
    };
    frozen.map_err(failed("hold the volume's writes"))?;
    let copied = match clones {
        true => ioctl_ficlone(to, source).map_err(Into::into),
        false => patch(source, to, Instant::now() + FREEZE_LIMIT),
    };
    let still = block::thaw(&root).map_err(failed("let the volume's writes go on"))?;
    drop(guardian);
    copied.map_err(|error| {
        if error.kind() == io::ErrorKind::TimedOut {
            return too_long();
        }
        failed("copy the image")(error)
    })?;
    if still { Ok(()) } else { Err(too_long()) }
}

fn too_long() -> Failure {
    let text = format!(
        "the copy was given up: the volume's writes cannot wait longer than {} s; stop its \
         Machine first, or keep the data directory on a file system with reflinks, such as XFS",
        FREEZE_LIMIT.as_secs()
    );
    Failure::new(ErrorKind::TimedOut, text)
}

/// A process that lets writes go on when this one is gone.
struct Guardian {
    /// Closed last of all, whatever becomes of us.
    _ours: OwnedFd,
}

impl Guardian {
    fn watch(root: &OwnedFd) -> io::Result<Self> {
        let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC)?;
        if hangar_init::sys::fork()?.is_some() {
            return Ok(Self { _ours: ours });
        }
        drop(ours);
        let limit = Timespec::try_from(FREEZE_LIMIT).ok();
        let mut fds = [PollFd::new(&theirs, PollFlags::IN)];
        // Closed, broken off or too late: all mean the same.
        let _over = poll(&mut fds, limit.as_ref());
        let _thawed = block::thaw(root);
        hangar_init::sys::exit_now(0);
    }
}

/// Copies what is not a hole. A clone of the file system below, where it can do that, takes no time.
fn copy(source: &File, to: &File) -> io::Result<()> {
    if ioctl_ficlone(to, source).is_ok() {
        return Ok(());
    }
    // What was only read is not data: pages that are held of unwritten room would pass for it.
    source.sync_data()?;
    fadvise(source, 0, None, Advice::DontNeed)?;
    to.set_len(source.metadata()?.len())?;
    // All before the first is read: reading fetches what comes after it, too.
    for (begin, end) in data_of(source)? {
        copy_range(source, to, begin, end - begin)?;
    }
    Ok(())
}

/// Makes a copy like its source where it is not. Nothing is ever punched out of an image, so what
/// was data is data still.
fn patch(source: &File, to: &File, until: Instant) -> io::Result<()> {
    to.set_len(source.metadata()?.len())?;
    let (mut ours, mut theirs) = (vec![0; BUFFER], vec![0; BUFFER]);
    for (begin, end) in data_of(source)? {
        let mut at = begin;
        while at < end {
            if Instant::now() > until {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let left = usize::try_from(end - at).unwrap_or(usize::MAX);
            let count = left.min(BUFFER);
            source.read_exact_at(&mut theirs[..count], at)?;
            to.read_exact_at(&mut ours[..count], at)?;
            if ours[..count] != theirs[..count] {
                to.write_all_at(&theirs[..count], at)?;
            }
            at += u64::try_from(count).unwrap_or(0);
        }
    }
    Ok(())
}

/// Returns where a file has data: begin and end of each piece.
fn data_of(source: &File) -> io::Result<Vec<(u64, u64)>> {
    let mut pieces = Vec::new();
    let mut at = 0;
    loop {
        let begin = match seek(source, SeekFrom::Data(at)) {
            Ok(begin) => begin,
            Err(Errno::NXIO) => return Ok(pieces),
            Err(error) => return Err(error.into()),
        };
        at = seek(source, SeekFrom::Hole(begin))?;
        pieces.push((begin, at));
    }
}

fn copy_range(source: &File, to: &File, at: u64, count: u64) -> io::Result<()> {
    let mut done = 0;
    while done < count {
        let (mut from, mut into) = (at + done, at + done);
        let left = usize::try_from(count - done).unwrap_or(usize::MAX);
        match copy_file_range(source, Some(&mut from), to, Some(&mut into), left) {
            // The file ends sooner than it did: there is nothing more to copy.
            Ok(0) => return Ok(()),
            Ok(copied) => done += u64::try_from(copied).unwrap_or(0),
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => {
                return read_and_write(source, to, at + done, count - done);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn read_and_write(source: &File, to: &File, at: u64, count: u64) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut done = 0;
    while done < count {
        let left = usize::try_from(count - done).unwrap_or(usize::MAX);
        let want = left.min(BUFFER);
        source.read_exact_at(&mut buffer[..want], at + done)?;
        to.write_all_at(&buffer[..want], at + done)?;
        done += u64::try_from(want).unwrap_or(0);
    }
    Ok(())
}
