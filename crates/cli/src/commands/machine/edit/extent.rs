//! Swap and the root file system, and what a container cannot have (process-groups-and-deploy.md
//! 6.2). The texts are flyctl's where it has one.

use hangar_api::machine::MachineConfig;
use hangar_config::size::{self, Unit};
use serde_json::{Map, Value};

use crate::args::MachineConfigArgs;

pub(super) fn apply(config: &mut MachineConfig, args: &MachineConfigArgs) -> Result<(), String> {
    if !args.kernel_arg.is_empty() {
        return Err(
            "--kernel-arg: Machines are containers and share the host's kernel, which has its own arguments; leave it out"
                .to_owned(),
        );
    }
    if args.cachedrive_size.is_some() {
        return Err(
            "--cachedrive-size: there are no cache drives; use a volume, or leave it out"
                .to_owned(),
        );
    }
    if let Some(text) = &args.swap_size {
        let mb = megabytes(text).map_err(|e| format!("invalid swap size: {e}"))?;
        if mb <= 0 {
            return Err("--swap-size must be greater than zero".to_owned());
        }
        config
            .init
            .other
            .insert("swap_size_mb".to_owned(), mb.into());
        config.swap_mb().map_err(|e| format!("--swap-size: {e}"))?;
    }
    if let Some(word) = &args.rootfs_persist {
        if !["never", "restart", "always"].contains(&word.as_str()) {
            return Err(
                "invalid rootfs-persist value, must be one of: never, always, restart".to_owned(),
            );
        }
        set(config, "persist", Some(word.as_str().into()));
    }
    if let Some(text) = &args.rootfs_size {
        let gb = match text.parse::<i64>() {
            Ok(gb) => gb,
            // Rounded up: what was asked for is less, never more, than what is written down.
            Err(_) => {
                let mb = megabytes(text).map_err(|e| format!("invalid rootfs size: {e}"))?;
                mb.div_euclid(1024) + i64::from(mb.rem_euclid(1024) > 0)
            }
        };
        if gb < 0 {
            return Err("--rootfs-size must not be negative".to_owned());
        }
        set(config, "size_gb", (gb > 0).then(|| gb.into()));
    }
    Ok(())
}

fn megabytes(text: &str) -> Result<i64, String> {
    size::parse(text, Unit::MemoryMb).map_err(|error| error.to_string())
}

/// Sets a key of `rootfs`, or takes it away; an empty `rootfs` is none.
fn set(config: &mut MachineConfig, key: &str, value: Option<Value>) {
    let there = config.other.remove("rootfs");
    let mut rootfs = match there {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    };
    match value {
        Some(value) => rootfs.insert(key.to_owned(), value),
        None => rootfs.remove(key),
    };
    if !rootfs.is_empty() {
        config.other.insert("rootfs".to_owned(), rootfs.into());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn after(
        from: Value,
        change: impl FnOnce(&mut MachineConfigArgs),
    ) -> Result<MachineConfig, String> {
        let mut args = MachineConfigArgs::default();
        change(&mut args);
        let mut config = serde_json::from_value(from).unwrap();
        apply(&mut config, &args).map(|()| config)
    }

    #[test]
    fn swap_is_a_number_of_megabytes_or_a_size() {
        let swap = |text: &str| {
            after(json!({}), |args| args.swap_size = Some(text.to_owned()))
                .map(|config| config.init.other["swap_size_mb"].clone())
        };
        assert_eq!(swap("512"), Ok(json!(512)));
        assert_eq!(swap("1gb"), Ok(json!(1024)));
        assert!(swap("0").unwrap_err().contains("greater than zero"));
        assert!(swap("-5").unwrap_err().contains("greater than zero"));
        assert!(swap("much").unwrap_err().contains("invalid swap size"));
        assert!(swap("9999999999").unwrap_err().contains("--swap-size"));
    }

    #[test]
    fn the_root_file_system_has_a_size_and_a_word_that_can_be_taken_back() {
        let size = |from: Value, text: &str| {
            after(from, |args| args.rootfs_size = Some(text.to_owned()))
                .map(|config| config.other.get("rootfs").cloned())
        };
        assert_eq!(size(json!({}), "5"), Ok(Some(json!({"size_gb": 5}))));
        assert_eq!(size(json!({}), "10gb"), Ok(Some(json!({"size_gb": 10}))));
        assert_eq!(size(json!({}), "1500mb"), Ok(Some(json!({"size_gb": 2}))));
        let both = json!({"rootfs": {"size_gb": 5, "persist": "always"}});
        assert_eq!(size(both, "0"), Ok(Some(json!({"persist": "always"}))));
        assert_eq!(size(json!({"rootfs": {"size_gb": 5}}), "0"), Ok(None));
        assert!(size(json!({}), "-1").unwrap_err().contains("negative"));
        assert!(
            size(json!({}), "big")
                .unwrap_err()
                .contains("invalid rootfs size")
        );
        let persist = |word: &str| {
            after(json!({}), |args| {
                args.rootfs_persist = Some(word.to_owned())
            })
        };
        for word in ["never", "restart", "always"] {
            assert_eq!(
                persist(word).unwrap().rootfs_persist().unwrap().as_str(),
                word
            );
        }
        assert!(persist("2").unwrap_err().contains("must be one of"));
    }

    #[test]
    fn what_a_container_cannot_have_is_refused_with_the_reason() {
        let kernel = after(json!({}), |args| args.kernel_arg = vec!["quiet".to_owned()]);
        assert!(kernel.unwrap_err().contains("share the host's kernel"));
        let cache = after(json!({}), |args| {
            args.cachedrive_size = Some("1gb".to_owned())
        });
        assert!(cache.unwrap_err().contains("no cache drives"));
    }
}
