//! The memory of a run: how much it uses, and how much it may.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Layout, MemoryFiles, write_value};
use crate::runtime::{MemoryAsk, MemoryUse, RunKey};

/// Where the second version takes memory back.
const RECLAIM: &str = "memory.reclaim";

impl Layout {
    /// Looks at the memory of a run after doing with it what is asked. `Unsupported` where this
    /// machine cannot do that, `InvalidInput` where the run uses more than it is to have.
    pub fn memory(&self, key: &RunKey, ask: MemoryAsk) -> io::Result<MemoryUse> {
        let hierarchy = self.with_controller("memory").ok_or_else(|| {
            let text = "this machine has no control groups that count memory";
            io::Error::new(io::ErrorKind::Unsupported, text)
        })?;
        let (group, files) = (self.group(hierarchy, key), hierarchy.version().memory());
        let before = look(&group, &files)?;
        match ask {
            MemoryAsk::Look => Ok(before),
            MemoryAsk::Limit(bytes) => {
                limit(&group, &files, &before, bytes)?;
                look(&group, &files)
            }
            MemoryAsk::Reclaim(bytes) => {
                let had = number(&group.join(files.usage))?;
                reclaim(&group, bytes)?;
                let has = number(&group.join(files.usage))?;
                Ok(MemoryUse {
                    reclaimed: had.saturating_sub(has),
                    ..look(&group, &files)?
                })
            }
        }
    }
}

fn look(group: &Path, files: &MemoryFiles) -> io::Result<MemoryUse> {
    let usage = number(&group.join(files.usage))?;
    let stat = read(&group.join("memory.stat"))?;
    let inactive = stat
        .lines()
        .find_map(|line| line.strip_prefix(files.inactive));
    let inactive: u64 = inactive.and_then(|n| n.trim().parse().ok()).unwrap_or(0);
    Ok(MemoryUse {
        limit: number(&group.join(files.limit))?,
        used: usage.saturating_sub(inactive),
        reclaimed: 0,
    })
}

/// Sets a limit; one below what is used would have the kernel kill the run's programs.
fn limit(group: &Path, files: &MemoryFiles, before: &MemoryUse, bytes: u64) -> io::Result<()> {
    if before.used > bytes {
        let text = format!(
            "it uses {} MiB now, more than the {} MiB that it is to have",
            before.used.div_ceil(1 << 20),
            bytes >> 20
        );
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let swap = files.with_swap.map(|name| group.join(name));
    let swap: Option<PathBuf> = swap.filter(|file| file.exists());
    let both = match &swap {
        Some(file) => number(file)?.saturating_sub(before.limit),
        None => 0,
    };
    let both = both.saturating_add(bytes).to_string();
    let set = |file: &Path, value: &str| match write_value(file, value) {
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            let text = "it uses more than that, and the kernel cannot take it back";
            Err(io::Error::new(io::ErrorKind::InvalidInput, text))
        }
        written => written,
    };
    // The limit for both is never below the one for memory alone.
    if bytes > before.limit
        && let Some(swap) = &swap
    {
        set(swap, &both)?;
    }
    set(&group.join(files.limit), &bytes.to_string())?;
    match swap {
        Some(swap) if bytes <= before.limit => set(&swap, &both),
        _ => Ok(()),
    }
}

fn reclaim(group: &Path, bytes: u64) -> io::Result<()> {
    let file = group.join(RECLAIM);
    if !file.exists() {
        let text = "this machine's kernel takes no memory back on demand: that needs Linux 5.19 \
                    and the memory controller of control groups of the second version";
        return Err(io::Error::new(io::ErrorKind::Unsupported, text));
    }
    match fs::write(&file, bytes.to_string()) {
        // It took back what it could, which was less.
        Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => Ok(()),
        written => written,
    }
}

/// Reads a number; `max` stands for no limit.
fn number(file: &Path) -> io::Result<u64> {
    let text = read(file)?;
    match text.trim() {
        "max" => Ok(u64::MAX),
        digits => digits.parse().map_err(io::Error::other),
    }
}

fn read(file: &Path) -> io::Result<String> {
    fs::read_to_string(file).map_err(|error| {
        let text = format!("read {}: {error}", file.display());
        io::Error::new(error.kind(), text)
    })
}

#[cfg(test)]
mod tests {
    use super::super::Hierarchy;
    use super::*;

    /// A group of the second version as plain files: what is written is what the kernel would get.
    fn group() -> (tempfile::TempDir, Layout, RunKey, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let key = RunKey {
            machine: "00000000000001".parse().unwrap(),
            start: 1,
        };
        let layout = Layout {
            parent: "hangar".to_owned(),
            hierarchies: vec![Hierarchy {
                v2: true,
                mount: dir.path().to_owned(),
                controllers: vec!["memory".to_owned()],
            }],
        };
        let group = dir.path().join("hangar/00000000000001-1");
        fs::create_dir_all(&group).unwrap();
        for (name, text) in [
            ("memory.max", "268435456\n"),
            ("memory.current", "104857600\n"),
            ("memory.stat", "anon 1\ninactive_file 20971520\n"),
        ] {
            fs::write(group.join(name), text).unwrap();
        }
        (dir, layout, key, group)
    }

    #[test]
    fn files_that_can_be_dropped_count_as_left() {
        let (_dir, layout, key, _) = group();
        let memory = layout.memory(&key, MemoryAsk::Look).unwrap();
        assert_eq!((memory.limit, memory.used), (256 << 20, 80 << 20));
    }

    #[test]
    fn a_limit_is_set_but_never_below_what_is_used() {
        let (_dir, layout, key, group) = group();
        let memory = layout.memory(&key, MemoryAsk::Limit(128 << 20)).unwrap();
        assert_eq!(memory.limit, 128 << 20);
        let error = layout.memory(&key, MemoryAsk::Limit(64 << 20)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains("uses 80 MiB"), "{error}");
        let kept = fs::read_to_string(group.join("memory.max")).unwrap();
        assert_eq!(kept.trim(), (128 << 20).to_string());
    }

    #[test]
    fn what_the_kernel_cannot_do_is_said() {
        let (_dir, mut layout, key, _) = group();
        let error = layout.memory(&key, MemoryAsk::Reclaim(1)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        layout.hierarchies.clear();
        let error = layout.memory(&key, MemoryAsk::Look).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    }
}
