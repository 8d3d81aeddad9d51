//! Which port is bound for an external port of a service, and the memory of it.
//!
//! The same port where it can be had. Where it is taken or not allowed: 80 becomes 8080 or one of
//! the next, 443 becomes 8443 or one of the next, any other becomes itself + 10000 or one of the
//! next. What was chosen is remembered in a file, so that it is the same after a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;

use hangar_api::edge::EdgeMap;

use crate::error::ProxyError;
use crate::index::Entry;
use crate::load::Transport;

/// How many ports are tried for one external port.
const TRIES: u16 = 20;

/// Returns the ports to try for an external port, best first: the remembered one, the same, the
/// stable others. Ports in `reserved` are bound for others, or will be, and are left out.
pub(crate) fn choices(
    external: u16,
    remembered: Option<u16>,
    reserved: &BTreeSet<u16>,
) -> Vec<u16> {
    let first: u16 = match external {
        80 => 8080,
        443 => 8443,
        other => other
            .checked_add(10_000)
            .unwrap_or_else(|| other.saturating_sub(10_000)),
    };
    let others = (0..TRIES).filter_map(|n| first.checked_add(n));
    let mut seen = BTreeSet::new();
    remembered
        .into_iter()
        .chain([external])
        .chain(others)
        .filter(|port| *port == external || !reserved.contains(port))
        .filter(|port| seen.insert(*port))
        .collect()
}

/// Returns the remembered ports. A file that is missing or cannot be understood is an empty one.
pub(crate) fn remembered(path: &Path) -> Result<BTreeMap<Entry, u16>, ProxyError> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(source) => {
            return Err(ProxyError::File {
                path: path.to_owned(),
                source,
            });
        }
    };
    match serde_json::from_slice::<EdgeMap>(&text) {
        Ok(map) => {
            let tcp = map
                .ports
                .into_iter()
                .map(|(port, to)| ((Transport::Tcp, port), to));
            let udp = map
                .udp
                .into_iter()
                .map(|(port, to)| ((Transport::Udp, port), to));
            Ok(tcp.chain(udp).collect())
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "port memory unreadable, starting afresh");
            Ok(BTreeMap::new())
        }
    }
}

/// Writes a file so that it is there whole or not at all, also after a power cut.
pub(crate) fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), ProxyError> {
    let error = |source| ProxyError::File {
        path: path.to_owned(),
        source,
    };
    write_atomically(path, bytes, mode).map_err(error)
}

fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let dir = dir.unwrap_or_else(|| Path::new("."));
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let temporary = Path::new(&name);
    // A leftover of a crash may have another mode.
    match std::fs::remove_file(temporary) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(temporary, path)?;
    std::fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_port_first_then_stable_others() {
        let none = BTreeSet::new();
        assert_eq!(choices(80, None, &none)[..3], [80, 8080, 8081]);
        assert_eq!(choices(443, None, &none)[..3], [443, 8443, 8444]);
        assert_eq!(choices(5432, None, &none)[..3], [5432, 15432, 15433]);
        assert_eq!(choices(60_000, None, &none)[..2], [60_000, 50_000]);
    }

    #[test]
    fn what_was_chosen_before_comes_first() {
        assert_eq!(choices(80, Some(8083), &BTreeSet::new())[..2], [8083, 80]);
    }

    #[test]
    fn the_external_port_of_another_service_is_not_taken() {
        let reserved = BTreeSet::from([80, 8080]);
        assert_eq!(choices(80, None, &reserved)[..2], [80, 8081]);
        assert_eq!(choices(80, Some(8080), &reserved)[..2], [80, 8081]);
    }

    #[test]
    fn a_broken_memory_is_an_empty_one_and_a_written_one_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("edge.json");
        assert!(remembered(&path).unwrap().is_empty());
        std::fs::write(&path, "{").unwrap();
        assert!(remembered(&path).unwrap().is_empty());
        let map = EdgeMap {
            ports: BTreeMap::from([(80, 8080)]),
            udp: BTreeMap::from([(80, 8081)]),
            ..EdgeMap::default()
        };
        write(&path, &serde_json::to_vec(&map).unwrap(), 0o600).unwrap();
        let both = [((Transport::Tcp, 80), 8080), ((Transport::Udp, 80), 8081)];
        assert_eq!(remembered(&path).unwrap(), both.into());
    }
}
