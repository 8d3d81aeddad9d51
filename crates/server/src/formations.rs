//! Formations: what each process group should have, and the reconciler that sees to it
//! (process-groups-and-deploy.md 8.1; decided by `hangar_deploy::formation`).
//!
//! A group without a record gets one that says what it has. What clients do to Machines is written
//! as wishes with the deed ([`wish`]) and folded in here. Nothing is folded, adopted or repaired
//! during a deploy, and nothing is repaired while a client leases a Machine of the group.

mod act;
mod change;
mod view;
pub(crate) mod wish;
mod work;

use std::collections::BTreeMap;
use std::sync::Arc;

use hangar_api::formation::Formation;
use hangar_api::id::{AppName, GroupName};
use hangar_api::region::Slot;
use hangar_api::release::{Release, ReleaseStatus};
use hangar_deploy::FleetMachine;
use hangar_deploy::formation::{self, Member, adopt, fold_all};
use hangar_store::tables::{Formations, Releases, Wishes};
use hangar_store::{Record, Snapshot, Txn};

use crate::core::Core;
use crate::slots;
use crate::unit::Unit;

pub(crate) use change::update;
pub(crate) use view::view;
pub(crate) use work::{Memory, run};

/// Formations that end in the transaction that ends a deployment, at most.
const MAX_ENDED: usize = 20;

/// An app as formations see it, as of one view.
#[derive(Debug)]
struct Scene {
    app: AppName,
    units: Vec<Unit>,
    records: BTreeMap<GroupName, Arc<Record<Formations>>>,
    wishes: Vec<Arc<Record<Wishes>>>,
    /// The newest release that was carried out.
    release: Option<Arc<Record<Releases>>>,
    slots: Vec<Slot>,
}

/// Returns the formations of an app that are on record, wishes folded in: what a deploy goes by.
pub(crate) fn recorded(snapshot: &Snapshot, app: &AppName) -> BTreeMap<GroupName, Formation> {
    folded(
        snapshot.under::<Formations, _>(app),
        snapshot.under::<Wishes, _>(app),
    )
}

/// Returns the formations of records, with wishes folded in.
fn folded<'a>(
    records: impl Iterator<Item = &'a Arc<Record<Formations>>>,
    wishes: impl Iterator<Item = &'a Arc<Record<Wishes>>>,
) -> BTreeMap<GroupName, Formation> {
    let records = records.map(|record| (record.key.1.clone(), record.value.clone()));
    let mut formations: BTreeMap<GroupName, Formation> = records.collect();
    for record in wishes {
        fold_all(&mut formations, &record.key.1, &record.value);
    }
    formations
}

/// Returns the writes that end the formations of groups that a release, just carried out, does not
/// have: with the deployment, so that none of them steers the next one. What does not fit is the
/// reconciler's.
pub(crate) fn ended(snapshot: &Snapshot, release: &Release) -> Txn {
    let records = snapshot.under::<Formations, _>(&release.app);
    let over = records.filter(|record| {
        let since = record.value.since_release;
        !release.groups.contains_key(&record.key.1) && since < release.version
    });
    over.take(MAX_ENDED).fold(Txn::new(), |txn, record| {
        txn.delete::<Formations>(&record.key)
    })
}

// === impl Scene ===

impl Scene {
    fn of(core: &Core, app: &AppName) -> Self {
        let snapshot = core.cache.snapshot();
        let releases: Vec<_> = snapshot.under::<Releases, _>(app).collect();
        let complete = |r: &&&Arc<Record<Releases>>| r.value.status == ReleaseStatus::Complete;
        Self {
            app: app.clone(),
            release: releases.iter().rev().find(complete).map(|r| Arc::clone(r)),
            units: Unit::all(&snapshot, app),
            records: snapshot
                .under::<Formations, _>(app)
                .map(|record| (record.key.1.clone(), Arc::clone(record)))
                .collect(),
            wishes: snapshot.under::<Wishes, _>(app).cloned().collect(),
            slots: slots::now(core),
        }
    }

    fn release(&self) -> Option<&Release> {
        self.release.as_deref().map(|record| &record.value)
    }

    fn has_group(&self, group: &GroupName) -> bool {
        self.release()
            .is_some_and(|release| release.groups.contains_key(group))
    }

    fn members(&self) -> BTreeMap<GroupName, Vec<Member<'_>>> {
        let machines = self.units.iter().map(|unit| FleetMachine {
            is_lost: unit.is_lost,
            ..FleetMachine::new(unit.spec(), unit.observed(), unit.queue(), None)
        });
        formation::members(machines)
    }

    /// Returns the formation of every group that has one or has Machines, wishes folded in. A
    /// group without a record has what it has, and its wishes have come about.
    fn formations(
        &self,
        members: &BTreeMap<GroupName, Vec<Member<'_>>>,
    ) -> BTreeMap<GroupName, Formation> {
        let mut all = folded(self.records.values(), self.wishes.iter());
        // One whose last Machine went before anybody has looked was scaled to 0.
        let wished = self.wishes.iter().flat_map(|record| &record.value);
        let gone = wished.filter(|wish| !wish.more && !wish.moved);
        let mut unknown: Vec<GroupName> = gone.map(|wish| wish.group.clone()).collect();
        unknown.extend(members.keys().cloned());
        for group in unknown {
            let here = members.get(&group).map_or(&[][..], Vec::as_slice);
            all.entry(group).or_insert_with(|| self.adopted(here));
        }
        all
    }

    /// Returns the formation of a group that has no record.
    fn adopted(&self, members: &[Member<'_>]) -> Formation {
        let mut formation = adopt(members);
        if formation.regions.is_empty() {
            // Its last Machine went before anybody has looked.
            let region = self.home();
            formation.regions.extend(region.map(|region| (region, 0)));
        }
        formation
    }

    /// Returns the region that Machines go to when nobody says where.
    fn home(&self) -> Option<hangar_api::id::Region> {
        let named = self.release().and_then(crate::deployments::primary_region);
        named.or_else(|| self.slots.first().map(|slot| slot.region.clone()))
    }
}
