//! A person's change of formations: all groups of it or none, in one transaction.

use std::collections::BTreeMap;

use hangar_api::formation::{Formation, FormationUpdate, Formations, GroupUpdate, PoolUpdate};
use hangar_api::id::{AppName, GroupName, Region};
use hangar_deploy::formation::change;
use hangar_store::Txn;
use hangar_store::tables::{self, Wishes};

use super::work::{MAX_WISHES, fold};
use super::{Scene, view};
use crate::core::{Core, MAX_TRIES, too_contended};
use crate::deployments;
use crate::error::Problem;

/// Changes formations, or says what they would be. What follows from it is the reconciler's.
pub(crate) async fn update(
    core: &Core,
    app: &AppName,
    update: &FormationUpdate,
) -> Result<Formations, Problem> {
    core.app(app)?;
    for update in update.groups.values() {
        if let Some(guest) = &update.guest {
            guest
                .validate()
                .map_err(|error| Problem::Unprocessable(error.to_string()))?;
        }
    }
    for _ in 0..MAX_TRIES {
        deployments::refuse_second(core, app)?;
        let since = core.app(app)?.value.last_release;
        let scene = Scene::of(core, app);
        if scene.wishes.len() > MAX_WISHES && !update.dry_run {
            fold(core, app).await?;
            continue;
        }
        let next = scene.changed(update, since)?;
        if update.dry_run {
            let members = scene.members();
            let groups = next.iter().map(|(group, formation)| {
                let here = members.get(group).map_or(&[][..], Vec::as_slice);
                (
                    group.clone(),
                    scene.shown_group(core, group, formation, here),
                )
            });
            return Ok(Formations {
                groups: groups.collect(),
                paused: None,
            });
        }
        let Some(alone) = deployments::none_begins(core, app) else {
            continue;
        };
        let txn = alone
            .check_present::<tables::Apps>(app)
            .and(scene.written(next));
        if core.try_commit(txn).await?.is_some() {
            tracing::info!(app = %app, "formation changed");
            return view(core, app);
        }
    }
    Err(too_contended())
}

// === impl Scene ===

impl Scene {
    /// Returns the formations that a change names, as they are after it.
    fn changed(
        &self,
        update: &FormationUpdate,
        since: u64,
    ) -> Result<BTreeMap<GroupName, Formation>, Problem> {
        let members = self.members();
        let all = self.formations(&members);
        let home = self
            .home()
            .ok_or_else(|| Problem::Lost("there is no region to place machines in".to_owned()))?;
        let mut out = BTreeMap::new();
        for (group, update) in &update.groups {
            let here = members.get(group).map_or(&[][..], Vec::as_slice);
            self.check_group(group, &all)?;
            self.check_regions(update)?;
            let old = all.get(group).cloned();
            let old = old.unwrap_or_else(|| self.adopted(here));
            let new = change(group, &old, update, here, &home)
                .map_err(|error| Problem::Unprocessable(error.to_string()))?;
            let new = Formation {
                since_release: since,
                ..new
            };
            out.insert(group.clone(), new);
        }
        Ok(out)
    }

    /// A group that nobody knows is a typo, unless nothing was deployed yet.
    fn check_group(
        &self,
        group: &GroupName,
        all: &BTreeMap<GroupName, Formation>,
    ) -> Result<(), Problem> {
        let Some(release) = self.release() else {
            return Ok(());
        };
        if release.groups.contains_key(group) || all.contains_key(group) {
            return Ok(());
        }
        let known: Vec<&str> = release.groups.keys().map(GroupName::as_str).collect();
        Err(Problem::Unprocessable(format!(
            "there is no process group {group}; there are {}. Add it to [processes] and deploy",
            known.join(", ")
        )))
    }

    fn check_regions(&self, update: &GroupUpdate) -> Result<(), Problem> {
        let of_pool: Vec<&Region> = match &update.regions {
            Some(PoolUpdate::Spread(list)) => list.iter().collect(),
            Some(PoolUpdate::Exact(counts)) => counts.keys().collect(),
            None => Vec::new(),
        };
        let backups = update.backup_regions.iter().flatten();
        let mut named = of_pool
            .into_iter()
            .chain(&update.add_regions)
            .chain(backups);
        let unknown = named.find(|region| !self.slots.iter().any(|s| s.region == **region));
        let Some(unknown) = unknown else {
            return Ok(());
        };
        let mut known: Vec<&str> = self.slots.iter().map(|s| s.region.as_str()).collect();
        known.sort_unstable();
        known.dedup();
        Err(Problem::Unprocessable(format!(
            "region {unknown} is not offered here; there are {}",
            known.join(", ")
        )))
    }

    /// Returns the write of these formations, with every wish that they hold taken away.
    fn written(&self, mut next: BTreeMap<GroupName, Formation>) -> Txn {
        let mut txn = Txn::new();
        let members = self.members();
        // A wish may be about two groups: those that it names are all written.
        for (group, formation) in self.formations(&members) {
            let mut wished = self.wishes.iter().flat_map(|record| &record.value);
            if wished.any(|wish| wish.group == group) {
                next.entry(group).or_insert(formation);
            }
        }
        for (group, formation) in next {
            txn = match self.records.get(&group) {
                Some(record) => txn.update(record, &formation),
                None => {
                    let key = (self.app.clone(), group);
                    txn.create::<tables::Formations>(&key, &formation)
                }
            };
        }
        for record in &self.wishes {
            txn = txn.remove::<Wishes>(record);
        }
        txn
    }
}
