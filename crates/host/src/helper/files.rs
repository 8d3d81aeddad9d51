//! The files that the platform writes into a Machine before it starts.
//!
//! Called when the image is the whole root and nothing else is mounted: a link in the image can
//! lead only to another place in the image.

use std::fs;
use std::io::{self, Write as _};
use std::net::Ipv6Addr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};

use base64::Engine as _;

use super::StartRequest;
use super::worker::{MakeError, Step as _};

/// The resolver that every Machine asks (proxy-network-runtime.md 9.2).
const RESOLVER: Ipv6Addr = Ipv6Addr::new(0xfdaa, 0, 0, 0, 0, 0, 0, 3);

pub(super) fn write_all(request: &StartRequest) -> Result<(), MakeError> {
    let hosts = format!(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
         ff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n\
         {v6}\tfly-local-6pn\n{v4}\tfly-global-services\n{v4}\t{name}\n{v6}\t{name}\n",
        v6 = request.net.v6,
        v4 = request.net.v4,
        name = request.hostname,
    );
    let resolv = format!("nameserver {RESOLVER}\n");
    let hostname = format!("{}\n", request.hostname);
    for (path, text) in [
        ("/etc/hosts", hosts),
        ("/etc/resolv.conf", resolv),
        ("/etc/hostname", hostname),
    ] {
        let written = write(Path::new(path), text.as_bytes(), 0o644);
        written.step(format_args!("write {path}"))?;
    }
    for file in &request.files {
        let path = inside(&file.path);
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(&file.base64)
            .map_err(io::Error::other);
        bytes
            .and_then(|bytes| write(&path, &bytes, file.mode & 0o7777))
            .step(format_args!("write file {}", file.path.display()))?;
    }
    Ok(())
}

/// Returns the path from the root, without steps upwards.
fn inside(path: &Path) -> PathBuf {
    let names = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name),
        _ => None,
    });
    Path::new("/").join(names.collect::<PathBuf>())
}

/// Writes a file of root's, in place of whatever has its name.
fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        let mut dirs = fs::DirBuilder::new();
        dirs.recursive(true).mode(0o755).create(parent)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::File::options()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_always_inside() {
        assert_eq!(inside(Path::new("../../etc/x")), Path::new("/etc/x"));
        assert_eq!(inside(Path::new("a/./b")), Path::new("/a/b"));
    }
}
