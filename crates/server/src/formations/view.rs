//! What the API shows of formations.

use hangar_api::formation::{Formation, Formations, GroupFormation};
use hangar_api::id::{AppName, GroupName};
use hangar_deploy::formation::{Decision, Look, Member, next};

use super::Scene;
use crate::core::Core;
use crate::deployments;
use crate::error::Problem;

/// Returns the formations of an app: of the groups of its release, of those that have Machines,
/// and of those that somebody has said something about.
pub(crate) fn view(core: &Core, app: &AppName) -> Result<Formations, Problem> {
    core.app(app)?;
    Ok(Scene::of(core, app).shown(core))
}

// === impl Scene ===

impl Scene {
    fn shown(&self, core: &Core) -> Formations {
        let members = self.members();
        let mut all = self.formations(&members);
        all.retain(|group, formation| {
            members.contains_key(group) || !self.is_over(group, formation.since_release)
        });
        if let Some(release) = self.release() {
            for group in release.groups.keys() {
                all.entry(group.clone())
                    .or_insert_with(|| self.adopted(&[]));
            }
        }
        let now = core.env.now();
        let leased = all.keys().find(|group| self.leased(group, now).is_some());
        let leased = leased.map(|group| format!("a client leases a machine of group {group}"));
        let groups = all.iter().map(|(group, formation)| {
            let here = members.get(group).map_or(&[][..], Vec::as_slice);
            (
                group.clone(),
                self.shown_group(core, group, formation, here),
            )
        });
        Formations {
            groups: groups.collect(),
            paused: deployments::under_way(core, &self.app).or(leased),
        }
    }

    /// Returns one group's formation, as it is or as it would be.
    pub(super) fn shown_group(
        &self,
        core: &Core,
        group: &GroupName,
        formation: &Formation,
        members: &[Member<'_>],
    ) -> GroupFormation {
        let mut trouble: Vec<String> = core.formations.of(&self.app, group).into_iter().collect();
        let decision = next(Look {
            formation,
            members,
            open: &self.open(),
            now: core.env.now(),
        });
        if let Decision::Rest { trouble: more, .. } = decision {
            trouble.extend(more);
        }
        let retires = |m: &&Member<'_>| formation.retiring.contains(&m.machine.spec.id);
        let counted = members.iter().filter(|m| !m.is_standby && !retires(m));
        GroupFormation {
            count: formation.count(),
            regions: formation.regions.clone(),
            backup_regions: formation.backup_regions.clone(),
            max_per_region: formation.max_per_region,
            guest: formation.guest.clone(),
            machines: counted.map(|m| m.machine.spec.id.clone()).collect(),
            retiring: formation.retiring.iter().cloned().collect(),
            trouble,
        }
    }
}
