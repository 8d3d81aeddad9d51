//! Files of a running Machine, opened from outside: never above its root, never by a link, and
//! only regular ones.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::io::Errno;

/// Opens a regular file below a root, or returns `None` where there is none. Blocks on the disk.
pub(super) fn open(root: &File, path: &Path) -> io::Result<Option<File>> {
    // Not opened before it is known to be a file: to open a device may do something.
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let found = match openat2(root, path, flags, Mode::empty(), within) {
        Ok(found) => found,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG | Errno::INVAL) => {
            return Ok(None);
        }
        Err(errno) => return Err(errno.into()),
    };
    if FileType::from_raw_mode(fstat(&found)?.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    File::open(format!("/proc/self/fd/{}", found.as_raw_fd())).map(Some)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_regular_files_below_the_root_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("www/sub")).unwrap();
        std::fs::write(dir.path().join("secret"), "outside").unwrap();
        std::fs::write(root.join("www/a.txt"), "inside").unwrap();
        symlink("../../../secret", root.join("www/up")).unwrap();
        symlink(dir.path().join("secret"), root.join("www/absolute")).unwrap();
        symlink("a.txt", root.join("www/link")).unwrap();
        symlink("www", root.join("linked")).unwrap();
        let fifo = root.join("www/fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).unwrap();
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let root = File::from(rustix::fs::open(&root, flags, Mode::empty()).unwrap());
        let look = |path: &str| {
            let found = open(&root, Path::new(path)).unwrap();
            found.map(|mut file| {
                let mut text = String::new();
                file.read_to_string(&mut text).unwrap();
                text
            })
        };
        assert_eq!(look("/www/a.txt").as_deref(), Some("inside"));
        // `..` ends at the root.
        assert_eq!(look("/../../www/a.txt").as_deref(), Some("inside"));
        let long = "x".repeat(5000);
        for path in [
            "/www/up",
            "/www/absolute",
            "/www/link",
            "/linked/a.txt",
            "/www/fifo",
            "/www/sub",
            "/www/none",
            "/www/a.txt/b",
            "/../secret",
            "",
            long.as_str(),
        ] {
            assert_eq!(look(path), None, "{path:?}");
        }
    }
}
