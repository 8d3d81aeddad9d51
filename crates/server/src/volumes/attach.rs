//! Who has a volume. A Machine's creation claims it in its own transaction, an update keeps it, and
//! it is given back when the Machine is destroyed: there is no moment at which two have it.

use std::sync::Arc;

use hangar_api::id::{AppName, VolumeId};
use hangar_api::machine::{MachineConfig, Mount};
use hangar_api::region::Slot;
use hangar_store::tables::{VolumeRecord, Volumes};
use hangar_store::{Record, Snapshot, Txn};

use crate::core::Core;
use crate::error::Problem;
use crate::placement;
use crate::slots;
use crate::unit::Unit;

/// Paths of a Machine that the platform mounts itself.
const TAKEN: [&str; 3] = ["/proc", "/sys", "/dev"];

/// A volume that a new Machine takes.
#[derive(Debug)]
pub(crate) struct Claimed {
    record: Arc<Record<Volumes>>,
}

/// Says why mounts are not as they must be (machines-api.md 4.2).
pub(crate) fn check(mounts: &[Mount]) -> Result<(), String> {
    if mounts.len() > 1 {
        return Err(format!(
            "config.mounts: a Machine has at most 1 volume, not {}",
            mounts.len()
        ));
    }
    for mount in mounts {
        let path = std::path::Path::new(&mount.path);
        let upwards = path.components().any(|part| part.as_os_str() == "..");
        if !path.is_absolute() || path.file_name().is_none() || upwards || mount.path.contains('\0')
        {
            return Err(format!(
                "config.mounts: path {:?} is not valid: it is absolute, not /, and without '..'",
                mount.path
            ));
        }
        if TAKEN.iter().any(|taken| path.starts_with(taken)) {
            return Err(format!(
                "config.mounts: path {} is the platform's own; use another, such as /data",
                mount.path
            ));
        }
        grows(mount)?;
    }
    Ok(())
}

/// Says why a volume cannot extend itself as is asked.
fn grows(mount: &Mount) -> Result<(), String> {
    let threshold = mount.extend_threshold_percent.unwrap_or(0);
    let (add, limit) = (mount.add_size_gb, mount.size_gb_limit);
    if threshold == 0 {
        return Ok(());
    }
    let within = |key: &str, value: u64, range: std::ops::RangeInclusive<u64>| {
        if range.contains(&value) {
            return Ok(());
        }
        Err(format!(
            "config.mounts: {key} {value} is not valid: use {} to {}",
            range.start(),
            range.end()
        ))
    };
    within("extend_threshold_percent", threshold, 50..=99)?;
    let add = add.ok_or("config.mounts: extend_threshold_percent needs add_size_gb")?;
    within("add_size_gb", add, 1..=100)?;
    limit.map_or(Ok(()), |limit| {
        within("size_gb_limit", limit, 1..=hangar_api::volume::MAX_SIZE_GB)
    })
}

/// Finds the volume of a new Machine: by its id, else the oldest free one of its name.
/// `region` is what the client asked for. Fills in what is known of it.
pub(crate) fn claim(
    snapshot: &Snapshot,
    app: &AppName,
    config: &mut MachineConfig,
    region: Option<&str>,
) -> Result<Option<Claimed>, Problem> {
    let Some(mount) = config.mounts.first_mut() else {
        return Ok(None);
    };
    let record = match VolumeId::new(mount.volume.as_str()) {
        Ok(id) => by_id(snapshot, app, id, region)?,
        Err(_) => by_name(snapshot, app, mount, region)?,
    };
    fill(mount, &record.value);
    Ok(Some(Claimed { record }))
}

fn by_id(
    snapshot: &Snapshot,
    app: &AppName,
    id: VolumeId,
    region: Option<&str>,
) -> Result<Arc<Record<Volumes>>, Problem> {
    let record = snapshot.get::<Volumes>(&(app.clone(), id));
    let record = record.ok_or_else(super::not_found)?;
    let volume = &record.value;
    if let Some(machine) = &volume.attached {
        return Err(Problem::VolumeClaimed(machine.clone()));
    }
    if !volume.state.is_usable() {
        return Err(super::busy(volume));
    }
    if !is_wanted(volume, region) {
        return Err(Problem::Unprocessable(format!(
            "volume {} is in region {}, and its machine can be nowhere else; leave the region out",
            volume.id, volume.region
        )));
    }
    Ok(Arc::clone(record))
}

fn by_name(
    snapshot: &Snapshot,
    app: &AppName,
    mount: &Mount,
    region: Option<&str>,
) -> Result<Arc<Record<Volumes>>, Problem> {
    let name = match mount.volume.as_str() {
        "" => mount.name.as_str(),
        name => name,
    };
    let name: String = name.chars().take(80).collect();
    if name.is_empty() {
        let text = "invalid_argument: config.mounts: name a volume by its ID or its name";
        return Err(Problem::Invalid(text.to_owned()));
    }
    let all = super::list(snapshot, app);
    let mut fitting = all.into_iter().filter(|record| {
        let volume = &record.value;
        let free = volume.attached.is_none() && volume.state.is_usable();
        free && volume.name == name && is_wanted(volume, region)
    });
    fitting.next().ok_or_else(|| {
        let place = region.map_or(String::new(), |region| format!(" in region '{region}'"));
        Problem::Precondition(format!(
            "no unattached volume named '{name}'{place}; create it with hangar volumes create {name}"
        ))
    })
}

fn is_wanted(volume: &VolumeRecord, region: Option<&str>) -> bool {
    placement::is_in(volume.region.as_str(), region)
}

/// Writes what is known of a volume into its mount.
pub(crate) fn fill(mount: &mut Mount, volume: &VolumeRecord) {
    volume.id.as_str().clone_into(&mut mount.volume);
    mount.name.clone_from(&volume.name);
    mount.size_gb = Some(volume.size_gb);
    mount.encrypted = Some(false);
}

/// Keeps a Machine's volume over an update, and fills in what is known of it.
pub(crate) fn keep(old: &MachineConfig, new: &mut MachineConfig) -> Result<(), Problem> {
    let refused = |text: String| Err(Problem::Invalid(format!("invalid_argument: {text}")));
    match (old.mounts.first(), new.mounts.first_mut()) {
        (None, None) => Ok(()),
        (Some(had), None) => refused(format!(
            "config.mounts: an update cannot take volume {} away; create a machine without it \
             and destroy this one",
            had.volume
        )),
        (None, Some(_)) => refused(
            "config.mounts: an update cannot give a machine a volume; create a machine with it \
             and destroy this one"
                .to_owned(),
        ),
        (Some(had), Some(asked)) => {
            let same = match asked.volume.as_str() {
                "" => asked.name.is_empty() || asked.name == had.name,
                volume => volume == had.volume || volume == had.name,
            };
            if !same {
                return refused(format!(
                    "config.mounts: an update cannot change volume {} for another; create a \
                     machine with that and destroy this one",
                    had.volume
                ));
            }
            asked.volume.clone_from(&had.volume);
            asked.name.clone_from(&had.name);
            asked.size_gb = had.size_gb;
            asked.encrypted = had.encrypted;
            Ok(())
        }
    }
}

/// Returns the writes that give back the volumes of a Machine that is destroyed.
pub(crate) fn freed(snapshot: &Snapshot, unit: &Unit) -> Txn {
    let volumes = snapshot.under::<Volumes, _>(&unit.spec().app);
    let its = volumes.filter(|record| record.value.attached.as_ref() == Some(unit.id()));
    its.fold(Txn::new(), |txn, record| {
        let free = VolumeRecord {
            attached: None,
            needs_restart: false,
            ..record.value.clone()
        };
        txn.update(record, &free)
    })
}

// === impl Claimed ===

impl Claimed {
    /// Returns the slot that the volume is on.
    pub(crate) fn slot(&self, core: &Core) -> Result<Slot, Problem> {
        let mut slots = slots::now(core).into_iter().filter(|slot| !slot.lost);
        let home = slots.find(|slot| slot.id == self.record.value.slot);
        home.ok_or_else(|| Problem::VolumePlacement(self.record.value.id.clone()))
    }

    /// Returns the write that gives the volume to a Machine, if it is still as it was read.
    pub(crate) fn taken_by(&self, machine: &hangar_api::id::MachineId) -> Txn {
        let taken = VolumeRecord {
            attached: Some(machine.clone()),
            ..self.record.value.clone()
        };
        Txn::new().update(&self.record, &taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounts(json: &str) -> Vec<Mount> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_mount_that_cannot_be_is_refused_in_words() {
        for (json, word) in [
            (r#"[{"path":"/a"},{"path":"/b"}]"#, "at most 1 volume"),
            (r#"[{"path":"/"}]"#, "absolute"),
            (r#"[{"path":"data"}]"#, "absolute"),
            (r#"[{"path":"/a/../b"}]"#, "'..'"),
            (r#"[{"path":"/proc/x"}]"#, "platform's own"),
            (
                r#"[{"path":"/d","extend_threshold_percent":40,"add_size_gb":1}]"#,
                "50 to 99",
            ),
            (
                r#"[{"path":"/d","extend_threshold_percent":80}]"#,
                "add_size_gb",
            ),
            (
                r#"[{"path":"/d","extend_threshold_percent":80,"add_size_gb":1,"size_gb_limit":501}]"#,
                "1 to 500",
            ),
        ] {
            let error = check(&mounts(json)).unwrap_err();
            assert!(error.contains(word), "{json}: {error}");
        }
        let good =
            r#"[{"path":"/data","extend_threshold_percent":80,"add_size_gb":1,"size_gb_limit":9}]"#;
        assert_eq!(check(&mounts(good)), Ok(()));
    }

    #[test]
    fn an_update_keeps_the_volume_however_it_is_named_and_may_move_it() {
        let with = |json: &str| MachineConfig {
            mounts: mounts(json),
            ..MachineConfig::default()
        };
        let old =
            with(r#"[{"path":"/data","volume":"vol_0123456789abcdef","name":"data","size_gb":3}]"#);
        for asked in [
            r#"[{"path":"/new"}]"#,
            r#"[{"path":"/new","name":"data"}]"#,
            r#"[{"path":"/new","volume":"data"}]"#,
            r#"[{"path":"/new","volume":"vol_0123456789abcdef","size_gb":9}]"#,
        ] {
            let mut new = with(asked);
            keep(&old, &mut new).unwrap();
            let mount = &new.mounts[0];
            assert_eq!(mount.volume, "vol_0123456789abcdef", "{asked}");
            assert_eq!((mount.path.as_str(), mount.size_gb), ("/new", Some(3)));
        }
        for asked in [
            "[]",
            r#"[{"path":"/data","name":"other"}]"#,
            r#"[{"path":"/data","volume":"vol_aaaaaaaaaaaaaaaa"}]"#,
        ] {
            assert!(keep(&old, &mut with(asked)).is_err(), "{asked}");
        }
        let none = MachineConfig::default();
        assert!(keep(&none, &mut with(r#"[{"path":"/data","name":"data"}]"#)).is_err());
        keep(&none, &mut MachineConfig::default()).unwrap();
    }
}
