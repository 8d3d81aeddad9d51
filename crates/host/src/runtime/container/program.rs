//! The copy of our executable that helper and `init` run from, and names made from digests.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

/// A copy's mode: nobody writes to it.
const MODE: u32 = 0o500;
/// Bytes copied at a time.
const BLOCK: usize = 256 * 1024;

/// Keeps a copy of `executable` in `dir`, named by its digest, and returns its path. A copy that
/// is there already is taken, unless it is no longer the same or its mode is another: every
/// Machine depends on it, and a new one is soon made. What runs from the old one goes on.
pub(super) fn keep(executable: &Path, dir: &Path) -> io::Result<PathBuf> {
    fs::create_dir_all(dir)?;
    let digest = digest(executable)?;
    let target = dir.join(&digest);
    let length = fs::metadata(executable)?.len();
    // What cannot be read is made anew, and that says what is wrong if it fails too.
    if is_good(&target, executable).unwrap_or(false) {
        return Ok(target);
    }
    let temporary = dir.join(format!(".{digest}.{}", std::process::id()));
    let copied = copy(executable, &temporary).and_then(|()| fs::rename(&temporary, &target));
    if copied.is_err() {
        // The first error is the one to tell.
        let _removed = fs::remove_file(&temporary);
    }
    copied.map_err(|error| {
        let text = format!(
            "keep a copy of this program, {} MB, in {}: {error}",
            length >> 20,
            dir.display()
        );
        io::Error::new(error.kind(), text)
    })?;
    File::open(dir)?.sync_all()?;
    Ok(target)
}

/// Returns whether a copy is there, of the right mode, and equal. Bytes are compared because that
/// is ten times as fast as another digest.
fn is_good(copy: &Path, executable: &Path) -> io::Result<bool> {
    let (mut copy, mut executable) = (File::open(copy)?, File::open(executable)?);
    let (have, wanted) = (copy.metadata()?, executable.metadata()?);
    let mode = have.permissions().mode() & 0o7777;
    if !have.is_file() || mode != MODE || have.len() != wanted.len() {
        return Ok(false);
    }
    let (mut ours, mut theirs) = (vec![0; BLOCK], vec![0; BLOCK]);
    loop {
        let count = executable.read(&mut theirs)?;
        let (Some(ours), Some(theirs)) = (ours.get_mut(..count), theirs.get(..count)) else {
            return Ok(false);
        };
        if count == 0 {
            return Ok(true);
        }
        copy.read_exact(ours)?;
        if ours != theirs {
            return Ok(false);
        }
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut from = File::open(from)?;
    let mut to = File::create(to)?;
    io::copy(&mut from, &mut to)?;
    to.flush()?;
    to.set_permissions(fs::Permissions::from_mode(MODE))?;
    to.sync_all()
}

fn digest(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut block = vec![0; BLOCK];
    loop {
        match file.read(&mut block)? {
            0 => return Ok(hex(&hasher.finalize())),
            count => hasher.update(block.get(..count).unwrap_or_default()),
        }
    }
}

/// Returns the name under which the control groups of one data directory lie.
#[must_use]
pub fn cgroup_parent(data_dir: &Path) -> String {
    let digest = hex(&Sha256::digest(data_dir.as_os_str().as_bytes()));
    format!("hangar-{}", digest.get(..8).unwrap_or_default())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_that_was_changed_is_made_anew_and_a_good_one_is_left() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().unwrap();
        let executable = dir.path().join("program");
        let bytes: Vec<u8> = (0_u32..200_000).flat_map(u32::to_le_bytes).collect();
        fs::write(&executable, &bytes).unwrap();
        let home = dir.path().join("init");
        let kept = || {
            let path = keep(&executable, &home).unwrap();
            let meta = fs::metadata(&path).unwrap();
            assert!(fs::read(&path).unwrap() == bytes);
            assert_eq!(meta.mode() & 0o7777, MODE);
            (path, meta.ino())
        };
        let (path, first) = kept();
        assert_eq!(kept().1, first);
        let running = File::open(&path).unwrap();
        let mut changed = bytes.clone();
        *changed.last_mut().unwrap() ^= 1;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(&path, &changed).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(MODE)).unwrap();
        let (_, second) = kept();
        assert_ne!(second, first);
        assert_eq!(running.metadata().unwrap().len(), bytes.len() as u64);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
        let (_, third) = kept();
        assert_ne!(third, second);
        assert_eq!(fs::read_dir(&home).unwrap().count(), 1);
    }
}
