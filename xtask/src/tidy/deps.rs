//! Who may use whom (ARCHITECTURE.md).

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

/// Each crate and the crates of ours that it may name. Tests may use more.
const ALLOWED: [(&str, &[&str]); 16] = [
    ("api", &[]),
    ("client", &["api"]),
    ("config", &["api"]),
    ("deploy", &["api", "config"]),
    ("store", &["api"]),
    ("image", &["api"]),
    ("server", &["api", "config", "deploy", "image", "store"]),
    ("graphql", &["api", "server"]),
    ("init", &[]),
    ("host", &["api", "image", "init"]),
    ("proxy", &["api"]),
    ("dns", &["api"]),
    (
        "node",
        &[
            "api", "dns", "graphql", "host", "image", "init", "proxy", "server", "store",
        ],
    ),
    (
        "cli",
        &[
            "api", "client", "config", "deploy", "host", "image", "init", "node",
        ],
    ),
    (
        "testkit",
        &[
            "api", "client", "config", "deploy", "dns", "host", "image", "init", "node", "proxy",
            "server", "store",
        ],
    ),
    ("xtask", &[]),
];

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    dependencies: BTreeMap<String, toml::Value>,
}

/// Checks the dependencies of every crate.
pub(super) fn check(root: &Path, breaches: &mut Vec<String>) -> Result<()> {
    for entry in std::fs::read_dir(root.join("crates")).context("list crates")? {
        let folder = entry?.path();
        let name = folder
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default();
        let path = folder.join("Cargo.toml");
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let manifest: Manifest =
            toml::from_str(&text).with_context(|| format!("parse {}", path.display()))?;
        let Some((_, allowed)) = ALLOWED.iter().find(|(known, _)| *known == name) else {
            breaches.push(format!(
                "crates/{name}: not in the list of crates; start a module, not a crate"
            ));
            continue;
        };
        for used in manifest
            .dependencies
            .keys()
            .filter_map(|d| d.strip_prefix("hangar-"))
        {
            if !allowed.contains(&used) {
                breaches.push(format!("crates/{name}: may not use {used}"));
            }
        }
    }
    Ok(())
}
