//! What flags name outside of the command line: files, and documents in files.

use std::path::Path;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hangar_api::machine::config::File;

use super::edit::{Edit, files};
use crate::args::MachineConfigArgs;
use crate::error::Exit;

/// Most bytes of a local file: the server takes no larger configuration.
const MAX_FILE: u64 = 512 * 1024;

/// Reads what the flags name.
pub(in crate::commands) fn read(args: &MachineConfigArgs) -> Result<Edit<'_>> {
    let document = args.machine_config.as_deref().map(document).transpose()?;
    let mut all = Vec::new();
    for text in &args.file_local {
        let (path, from) = parse("--file-local", text)?;
        all.push(file(
            path,
            encoded(from, |from| bounded("--file-local", Path::new(from)))?,
        ));
    }
    for text in &args.file_literal {
        let (path, value) = parse("--file-literal", text)?;
        all.push(file(path, encoded(value, |v| Ok(v.as_bytes().to_vec()))?));
    }
    for text in &args.file_secret {
        let (path, secret) = parse("--file-secret", text)?;
        all.push(File {
            guest_path: path.to_owned(),
            secret_name: Some(secret.to_owned()).filter(|name| !name.is_empty()),
            ..File::default()
        });
    }
    Ok(Edit {
        args,
        document,
        files: all,
    })
}

fn parse<'a>(flag: &str, text: &'a str) -> Result<(&'a str, &'a str)> {
    files::parse(flag, text).map_err(|error| Exit::Usage.with(error))
}

/// Returns content for the API; nothing was given where the file is to be removed.
fn encoded(given: &str, content: impl FnOnce(&str) -> Result<Vec<u8>>) -> Result<Option<String>> {
    if given.is_empty() {
        return Ok(None);
    }
    Ok(Some(BASE64.encode(content(given)?)))
}

fn file(path: &str, raw_value: Option<String>) -> File {
    File {
        guest_path: path.to_owned(),
        raw_value,
        ..File::default()
    }
}

fn bounded(flag: &str, path: &Path) -> Result<Vec<u8>> {
    let doing = || format!("{flag}: read {}", path.display());
    let length = std::fs::metadata(path).with_context(doing)?.len();
    if length > MAX_FILE {
        return Err(Exit::Usage.with(format!(
            "{flag}: {} has {} KiB, a Machine's configuration may have {}: put it into the image",
            path.display(),
            length.div_ceil(1024),
            MAX_FILE / 1024
        )));
    }
    std::fs::read(path).with_context(doing)
}

/// Reads `--machine-config`: JSON text, or a file of it.
fn document(given: &str) -> Result<serde_json::Value> {
    let text = if given.trim_start().starts_with('{') {
        given.as_bytes().to_vec()
    } else {
        bounded("--machine-config", Path::new(given))?
    };
    serde_json::from_slice(&text)
        .map_err(|error| Exit::Usage.with(format!("--machine-config: {error}")))
}
