//! `--file-local`, `--file-literal` and `--file-secret`: files laid over those of fly.toml.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use base64::Engine as _;
use hangar_api::machine::MachineConfig;
use hangar_api::machine::config::File;

use crate::args::FileArgs;
use crate::error::Exit;

/// Files by their paths in the Machine; `None` leaves the one of fly.toml out.
pub(super) type Laid = BTreeMap<String, Option<File>>;

/// Reads the files that the flags name.
pub(super) fn read(args: &FileArgs, folder: &Path) -> Result<Laid> {
    let mut laid = Laid::new();
    for given in &args.file_local {
        let (path, local) = pair("--file-local", given)?;
        let content = std::fs::read(folder.join(local))
            .map_err(|e| Exit::Usage.with(format!("--file-local: read {local} for {path}: {e}")))?;
        laid.insert(path.to_owned(), Some(literal(path, &content)));
    }
    for given in &args.file_literal {
        let (path, content) = pair("--file-literal", given)?;
        let file = (!content.is_empty()).then(|| literal(path, content.as_bytes()));
        laid.insert(path.to_owned(), file);
    }
    for given in &args.file_secret {
        let (path, secret) = pair("--file-secret", given)?;
        if secret.is_empty() {
            return Err(Exit::Usage.with(format!("--file-secret {path}: name a secret")));
        }
        let file = File {
            guest_path: path.to_owned(),
            secret_name: Some(secret.to_owned()),
            ..File::default()
        };
        laid.insert(path.to_owned(), Some(file));
    }
    Ok(laid)
}

/// Lays the files over those of a configuration.
pub(super) fn lay_over(laid: &Laid, config: &mut MachineConfig) {
    config
        .files
        .retain(|file| !laid.contains_key(&file.guest_path));
    config.files.extend(laid.values().flatten().cloned());
}

fn literal(path: &str, content: &[u8]) -> File {
    File {
        guest_path: path.to_owned(),
        raw_value: Some(base64::engine::general_purpose::STANDARD.encode(content)),
        ..File::default()
    }
}

fn pair<'a>(flag: &str, given: &'a str) -> Result<(&'a str, &'a str)> {
    match given.split_once('=') {
        Some((path, value)) if path.starts_with('/') => Ok((path, value)),
        _ => Err(Exit::Usage.with(format!(
            "{flag} takes /PATH/IN/MACHINE=VALUE, this is {given:?}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_on_equal_paths_and_an_empty_literal_takes_a_file_away() {
        let args = FileArgs {
            file_literal: vec!["/a=new".to_owned(), "/b=".to_owned()],
            file_secret: vec!["/c=TOKEN".to_owned()],
            ..FileArgs::default()
        };
        let laid = read(&args, Path::new(".")).unwrap();
        let mut config = MachineConfig::default();
        for path in ["/a", "/b", "/d"] {
            config.files.push(literal(path, b"old"));
        }
        lay_over(&laid, &mut config);
        let files: Vec<(&str, Option<&str>)> = config
            .files
            .iter()
            .map(|f| (f.guest_path.as_str(), f.raw_value.as_deref()))
            .collect();
        assert_eq!(
            files,
            [("/d", Some("b2xk")), ("/a", Some("bmV3")), ("/c", None)]
        );
        assert_eq!(config.files[2].secret_name.as_deref(), Some("TOKEN"));
    }

    #[test]
    fn what_is_no_pair_is_refused_with_the_flag() {
        let args = FileArgs {
            file_local: vec!["relative=x".to_owned()],
            ..FileArgs::default()
        };
        let error = read(&args, Path::new(".")).unwrap_err().to_string();
        assert!(error.contains("--file-local takes /PATH"), "{error}");
    }
}
