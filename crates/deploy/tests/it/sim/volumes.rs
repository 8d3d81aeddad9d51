//! The app's volumes, as the server keeps them: claimed with the creation of a Machine, kept by
//! its updates, given back when it is gone.

use hangar_api::id::{MachineId, Region, VolumeId};
use hangar_api::machine::{MachineConfig, Mount};
use hangar_deploy::mounts::{FreeVolume, NewVolume};

use super::Sim;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SimVolume {
    pub(crate) id: VolumeId,
    pub(crate) name: String,
    pub(crate) region: Region,
    pub(crate) attached: Option<MachineId>,
}

/// A mount of fly.toml.
pub(crate) fn mount(name: &str) -> Mount {
    Mount {
        path: "/data".to_owned(),
        name: name.to_owned(),
        ..Mount::default()
    }
}

impl Sim {
    /// Makes a volume that no Machine has.
    pub(crate) fn add_volume(&mut self, name: &str, region: &str) -> usize {
        let id = VolumeId::new(format!("vol_{:016}", self.volumes.len())).unwrap();
        self.volumes.push(SimVolume {
            id,
            name: name.to_owned(),
            region: Region::new(region).unwrap(),
            attached: None,
        });
        self.volumes.len() - 1
    }

    /// Makes the volumes of a first deploy.
    pub(crate) fn make(&mut self, wanted: &[NewVolume]) {
        for volume in wanted {
            self.add_volume(&volume.name, volume.region.as_str());
        }
    }

    /// Gives a Machine that is there a volume of its own.
    pub(crate) fn attach(&mut self, id: &MachineId, name: &str) {
        let region = self.machines[id].spec.region.to_string();
        let at = self.add_volume(name, &region);
        let volume = &mut self.volumes[at];
        volume.attached = Some(id.clone());
        let mut has = mount(name);
        has.volume = volume.id.to_string();
        let machine = self.machines.get_mut(id).unwrap();
        machine.spec.config.mounts = vec![has.clone()];
        machine.running.as_mut().unwrap().0.mounts = vec![has];
    }

    pub(super) fn free_volumes(&self) -> Vec<FreeVolume> {
        let free = self.volumes.iter().filter(|v| v.attached.is_none());
        free.map(|v| FreeVolume {
            name: v.name.clone(),
            region: v.region.clone(),
        })
        .collect()
    }

    /// Finds the volume of a new Machine: the oldest free one of its name in its region.
    pub(super) fn claim(
        &self,
        config: &mut MachineConfig,
        region: &Region,
    ) -> Result<Option<usize>, String> {
        let Some(mount) = config.mounts.first_mut() else {
            return Ok(None);
        };
        let fits = |v: &SimVolume| {
            let named = match mount.volume.as_str() {
                "" => v.name == mount.name,
                id => v.id.as_str() == id,
            };
            v.attached.is_none() && named && v.region == *region
        };
        let at = self.volumes.iter().position(fits);
        let at = at.ok_or_else(|| format!("no unattached volume named {:?}", mount.name))?;
        mount.volume = self.volumes[at].id.to_string();
        Ok(Some(at))
    }

    /// Gives the volumes of a Machine back.
    pub(super) fn free(&mut self, id: &MachineId) {
        let its = self.volumes.iter_mut();
        its.filter(|v| v.attached.as_ref() == Some(id))
            .for_each(|v| v.attached = None);
    }

    /// Returns what is wrong with who has which volume.
    pub(crate) fn misattached(&self) -> Option<String> {
        for machine in self.machines.values() {
            let gone = machine.state() == hangar_api::machine::MachineState::Destroyed;
            let (id, config) = (&machine.spec.id, &machine.spec.config);
            let Some(mount) = config.mounts.first().filter(|_| !gone) else {
                continue;
            };
            let Some(volume) = self.volumes.iter().find(|v| v.id.as_str() == mount.volume) else {
                return Some(format!("{id} has volume {:?}", mount.volume));
            };
            if volume.attached.as_ref() != Some(id) {
                let other = &volume.attached;
                return Some(format!("{id} mounts {}, which is {other:?}'s", volume.id));
            }
            if volume.name != mount.name || volume.region != machine.spec.region {
                return Some(format!("{id} mounts {volume:?} as {mount:?}"));
            }
        }
        None
    }
}

/// Keeps a Machine's volume over an update: an update neither gives nor takes one.
pub(super) fn keep(old: &MachineConfig, new: &mut MachineConfig) -> Result<(), String> {
    match (old.mounts.first(), new.mounts.first_mut()) {
        (None, None) => Ok(()),
        (Some(had), Some(asked)) => {
            let same = match asked.volume.as_str() {
                "" => asked.name.is_empty() || asked.name == had.name,
                volume => volume == had.volume,
            };
            if !same {
                return Err(format!("{had:?} cannot become {asked:?}"));
            }
            asked.volume.clone_from(&had.volume);
            asked.name.clone_from(&had.name);
            Ok(())
        }
        (had, asked) => Err(format!("{had:?} cannot become {asked:?}")),
    }
}
