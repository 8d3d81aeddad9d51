//! Files in a directory that somebody else writes to who is not trusted: a run directory, a log.
//!
//! A link that stands there in place of a file would lead anywhere on the host, and the opening of
//! a FIFO would wait for ever. Whoever opens something there does it by this.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;
use rustix::path::Arg;

/// Opens a file, or with `CREATE` makes it, for its owner only. Returns `None` where something
/// stands that is no regular file.
pub fn open(dir: impl AsFd, name: impl Arg, flags: OFlags) -> io::Result<Option<OwnedFd>> {
    let careful = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(dir, name, flags | careful, Mode::RUSR | Mode::WUSR) {
        Ok(file) => file,
        // A link; a FIFO or a socket that nobody reads; a directory.
        Err(Errno::LOOP | Errno::NXIO | Errno::ISDIR) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let kind = FileType::from_raw_mode(fstat(&file)?.st_mode);
    Ok((kind == FileType::RegularFile).then_some(file))
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, mknodat};

    use super::*;

    #[test]
    fn only_regular_files_are_opened_and_nothing_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("file"), "x").unwrap();
        std::fs::create_dir(path("dir")).unwrap();
        std::os::unix::fs::symlink(path("file"), path("link")).unwrap();
        std::os::unix::fs::symlink(path("made"), path("loose")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        mknodat(CWD, path("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        let ways = [OFlags::RDONLY, OFlags::WRONLY, OFlags::RDWR];
        for flags in ways.into_iter().chain([OFlags::RDWR | OFlags::CREATE]) {
            let opened = |name: &str| open(CWD, path(name), flags).unwrap().is_some();
            assert!(opened("file"), "{flags:?}");
            for name in ["dir", "link", "socket", "fifo", "loose"] {
                assert!(!opened(name), "{name} {flags:?}");
            }
        }
        assert!(!path("made").exists());
        let absent = open(CWD, path("absent"), OFlags::RDONLY).unwrap_err();
        assert_eq!(absent.kind(), io::ErrorKind::NotFound);
    }
}
