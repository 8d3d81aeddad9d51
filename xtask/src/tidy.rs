//! The house rules, executed: file and function lengths, module docs, direction of
//! dependencies, `unwrap` outside tests, where `unsafe` may stand, and words that must not.

mod deps;
mod source;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Checks every rule and prints every breach.
pub(crate) fn run() -> Result<()> {
    let root = crate::root();
    let mut breaches = Vec::new();
    let files = tracked_files(&root)?;
    for file in &files {
        let path = root.join(file);
        // Fixtures of parsers may be any bytes; only text has rules.
        let Ok(text) = std::fs::read_to_string(&path) else {
            continue;
        };
        words(file, &text, &mut breaches);
        if file.extension().is_some_and(|e| e == "rs") {
            source::check(file, &text, &mut breaches);
        }
    }
    deps::check(&root, &mut breaches)?;
    if breaches.is_empty() {
        crate::say(&format!("tidy: {} files, nothing to mend", files.len()));
        return Ok(());
    }
    for breach in &breaches {
        crate::say(breach);
    }
    bail!("{} rules of the house are broken", breaches.len())
}

fn tracked_files(root: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .context("run git ls-files")?;
    let list = String::from_utf8(output.stdout).context("read git ls-files")?;
    Ok(list
        .lines()
        .map(PathBuf::from)
        .filter(|f| root.join(f).is_file())
        .collect())
}

/// Words that mark unfinished work, or a place that a stranger does not have.
fn words(file: &Path, text: &str, breaches: &mut Vec<String>) {
    if file.starts_with("xtask") || file.extension().is_some_and(|e| e == "lock") {
        return;
    }
    for (number, line) in text.lines().enumerate() {
        for word in ["FIXME", "XXX:", "HACK:", "/root/", "/home/"] {
            if line.contains(word) {
                breaches.push(format!(
                    "{}:{}: the text holds {word:?}",
                    file.display(),
                    number + 1
                ));
            }
        }
    }
}
