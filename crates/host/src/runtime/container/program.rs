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
/// is there already is taken: it is only ever put in place whole. One whose mode somebody has
/// changed is made anew.
pub(super) fn keep(executable: &Path, dir: &Path) -> io::Result<PathBuf> {
    fs::create_dir_all(dir)?;
    let digest = digest(executable)?;
    let target = dir.join(&digest);
    let length = fs::metadata(executable)?.len();
    let whole =
        |have: fs::Metadata| have.len() == length && have.permissions().mode() & 0o7777 == MODE;
    if fs::metadata(&target).is_ok_and(whole) {
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
