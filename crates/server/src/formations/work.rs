//! The reconciler: for each app whose records changed, one step after the other until nothing is
//! left to do. Changes wake it, a timer makes it true.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hangar_api::Timestamp;
use hangar_api::formation::Formation;
use hangar_api::id::{AppName, GroupName};
use hangar_deploy::formation::{Decision, Look, next};
use hangar_store::tables::{
    Apps, DeployClaims, Formations, Leases, Observations, Ops, Slots, Specs, Volumes, Wishes,
};
use hangar_store::{Delta, Record, Table, Txn};
use tokio::time::Instant;

use super::{Scene, act, folded};
use crate::core::Core;
use crate::deployments;
use crate::error::Problem;

/// All apps are looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Changes that come within this are looked at together.
const GATHER: Duration = Duration::from_millis(20);
/// A step that failed is tried again after this, or when something of the app changes.
const RETRY: Duration = Duration::from_secs(5);
/// After a look, an app rests so many times as long as that took: a large one that changes all
/// the time takes a small share of the processor.
const SHARE: u32 = 8;
/// Steps of one app in one go, so that no app waits for another for ever.
const MAX_STEPS: usize = 256;
/// Wishes folded in one transaction; the store takes 128 writes.
pub(super) const MAX_WISHES: usize = 40;
/// Other writes in one transaction.
const MAX_WRITES: usize = 100;

/// Why a step could not be done, by group: what the API tells of it.
#[derive(Debug, Default)]
pub(crate) struct Memory(Mutex<BTreeMap<(AppName, GroupName), String>>);

/// When an app is to be looked at again without a change.
type Again = Option<Duration>;

/// Looks after formations until the server stops.
pub(crate) async fn run(core: Arc<Core>) {
    let mut deltas = core.cache.deltas();
    let mut due: BTreeMap<AppName, Instant> = BTreeMap::new();
    let mut not_before: BTreeMap<AppName, Instant> = BTreeMap::new();
    let mut all_at = Instant::now();
    loop {
        let now = Instant::now();
        if all_at <= now {
            due.extend(everybody(&core).into_iter().map(|app| (app, now)));
            all_at = now + LOOK_EVERY;
        }
        let ready: Vec<AppName> = due
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(app, _)| app.clone())
            .collect();
        for app in ready {
            due.remove(&app);
            let began = Instant::now();
            let again = tend(&core, &app).await.unwrap_or_else(|problem| {
                tracing::warn!(app = %app, error = %problem.text(), "formations not looked after, trying again");
                Some(RETRY)
            });
            let ended = Instant::now();
            let next = ended + began.elapsed() * SHARE;
            due.extend(again.map(|rest| (app.clone(), next.max(ended + rest))));
            not_before.insert(app, next);
        }
        not_before.retain(|_, at| *at > now);
        let next = due.values().min().copied().unwrap_or(all_at).min(all_at);
        tokio::select! {
            biased;
            () = core.stop.cancelled() => return,
            delta = deltas.next() => match delta {
                Some(delta) => {
                    let at = Instant::now() + GATHER;
                    for app in touched(&core, &delta) {
                        let at = not_before.get(&app).map_or(at, |soonest| at.max(*soonest));
                        let due = due.entry(app).or_insert(at);
                        *due = (*due).min(at);
                    }
                }
                None => return,
            },
            () = tokio::time::sleep_until(next) => {}
        }
    }
}

fn everybody(core: &Core) -> Vec<AppName> {
    let snapshot = core.cache.snapshot();
    let apps = snapshot.all::<Apps>().filter(|app| !app.value.deleting);
    apps.map(|app| app.key.clone()).collect()
}

/// Returns the apps that a change may have given something to do.
fn touched(core: &Core, delta: &Delta) -> BTreeSet<AppName> {
    fn of<T: Table<Key = (AppName, K)>, K>(delta: &Delta, apps: &mut BTreeSet<AppName>) -> bool {
        let Some(keys) = delta.keys::<T>() else {
            return false;
        };
        apps.extend(keys.into_iter().map(|key| key.0));
        true
    }
    let mut apps = BTreeSet::new();
    let known = of::<Specs, _>(delta, &mut apps)
        && of::<Ops, _>(delta, &mut apps)
        && of::<Observations, _>(delta, &mut apps)
        && of::<Leases, _>(delta, &mut apps)
        && of::<Formations, _>(delta, &mut apps)
        && of::<Wishes, _>(delta, &mut apps)
        && of::<Volumes, _>(delta, &mut apps);
    apps.extend(delta.keys::<DeployClaims>().into_iter().flatten());
    if !known || delta.touches::<Slots>() {
        apps.extend(everybody(core));
    }
    apps
}

/// Does what an app needs; returns when to look again.
async fn tend(core: &Core, app: &AppName) -> Result<Again, Problem> {
    let exists = core.app(app).is_ok();
    if !exists || deployments::under_way(core, app).is_some() {
        return Ok(None);
    }
    if !fold(core, app).await? {
        return Ok(Some(Duration::ZERO));
    }
    let mut stuck: BTreeSet<GroupName> = BTreeSet::new();
    let mut wake_at: Option<Timestamp> = None;
    for _ in 0..MAX_STEPS {
        let scene = Scene::of(core, app);
        let Some((group, decision)) = scene.first_step(core.env.now(), &stuck, &mut wake_at) else {
            let rest = wake_at.map(|at| {
                let rest = at.duration_since(core.env.now());
                Duration::try_from(rest).unwrap_or_default()
            });
            let retry = (!stuck.is_empty()).then_some(RETRY);
            return Ok(rest.into_iter().chain(retry).min());
        };
        match act::carry_out(core, &scene, &group, decision).await {
            Ok(true) => core.formations.forget(app, &group),
            // Somebody was first: their change wakes us, and so does this.
            Ok(false) => return Ok(Some(GATHER)),
            Err(Problem::Store(error)) => return Err(error.into()),
            Err(problem) => {
                tracing::warn!(app = %app, group = %group, error = %problem.text(), "formation not kept");
                core.formations.note(app, &group, problem.text());
                stuck.insert(group);
            }
        }
    }
    Ok(Some(Duration::ZERO))
}

/// Brings the records up to date: wishes are folded in, groups that have none get one, and those
/// of groups that are gone go. Returns false when it is to be called again.
pub(super) async fn fold(core: &Core, app: &AppName) -> Result<bool, Problem> {
    let txn = Scene::of(core, app).housekeeping();
    if txn.is_empty() {
        return Ok(true);
    }
    // During a deploy it is the deploy's fleet.
    if let Some(alone) = deployments::none_begins(core, app) {
        core.try_commit(alone.and(txn)).await?;
    }
    Ok(false)
}

// === impl Scene ===

impl Scene {
    /// Returns the first step that any group needs. Nothing is decided while somebody leases a Machine
    /// of the group; `wake_at` is when the first of those that rest is to be looked at again.
    fn first_step(
        &self,
        now: Timestamp,
        stuck: &BTreeSet<GroupName>,
        wake_at: &mut Option<Timestamp>,
    ) -> Option<(GroupName, Decision)> {
        let (members, open) = (self.members(), self.open());
        let mut sooner = |at: Timestamp| *wake_at = Some(wake_at.map_or(at, |old| old.min(at)));
        for (group, formation) in self.formations(&members) {
            if stuck.contains(&group) {
                continue;
            }
            if let Some(until) = self.leased(&group, now) {
                sooner(until);
                continue;
            }
            let here = members.get(&group).map_or(&[][..], Vec::as_slice);
            if here.is_empty() && !self.has_group(&group) {
                // It is yet to be deployed, or its end is a matter of folding.
                continue;
            }
            let decision = next(Look {
                formation: &formation,
                members: here,
                open: &open,
                now,
            });
            match decision {
                Decision::Rest { wake_at, .. } => wake_at.into_iter().for_each(&mut sooner),
                step => return Some((group, step)),
            }
        }
        None
    }

    /// Returns writes that bring the records nearer to what is; none where they are up to date.
    fn housekeeping(&self) -> Txn {
        let is_known = |record: &&Arc<Record<Wishes>>| {
            let mut groups = record.value.iter().map(|wish| &wish.group);
            groups.any(|group| self.records.contains_key(group))
        };
        let (known, unknown): (Vec<_>, Vec<_>) = self.wishes.iter().partition(|r| is_known(r));
        if !unknown.is_empty() {
            return self.without_record(&unknown[..unknown.len().min(MAX_WISHES)]);
        }
        if !known.is_empty() {
            return self.with_wishes(&known[..known.len().min(MAX_WISHES)]);
        }
        self.adopted_and_ended()
    }

    /// Returns the writes that do away with wishes of groups that have no record. Such a group has
    /// what it has, and that they came about is all there is; but one that has nothing any more
    /// was scaled to 0.
    fn without_record(&self, wishes: &[&Arc<Record<Wishes>>]) -> Txn {
        let members = self.members();
        let mut empty: BTreeMap<&GroupName, Formation> = BTreeMap::new();
        let mut txn = Txn::new();
        for record in wishes {
            let gone = record.value.iter().filter(|w| !w.more && !w.moved);
            for wish in gone.filter(|wish| !members.contains_key(&wish.group)) {
                let formation = Formation {
                    regions: [(wish.region.clone(), 0)].into(),
                    guest: wish.guest.clone(),
                    ..Formation::default()
                };
                empty.insert(&wish.group, formation);
            }
            txn = txn.remove::<Wishes>(record);
        }
        for (group, formation) in empty {
            if !self.is_over(group, formation.since_release) {
                txn = txn.create::<Formations>(&(self.app.clone(), group.clone()), &formation);
            }
        }
        txn
    }

    /// Returns the writes that fold wishes into the records of their groups.
    fn with_wishes(&self, wishes: &[&Arc<Record<Wishes>>]) -> Txn {
        let formations = folded(self.records.values(), wishes.iter().copied());
        let mut txn = Txn::new();
        for record in wishes {
            txn = txn.remove::<Wishes>(record);
        }
        for (group, record) in &self.records {
            txn = match formations.get(group) {
                Some(formation) if *formation == record.value => txn,
                Some(formation) => txn.update(record, formation),
                None => txn.remove::<Formations>(record),
            };
        }
        txn
    }

    /// Returns the writes that give groups a record, and take it from those that are over.
    fn adopted_and_ended(&self) -> Txn {
        let members = self.members();
        let mut txn = Txn::new();
        for (group, formation) in self.formations(&members) {
            if txn.len() >= MAX_WRITES {
                break;
            }
            let here = members.get(&group).map_or(&[][..], Vec::as_slice);
            let over = here.is_empty() && self.is_over(&group, formation.since_release);
            txn = match self.records.get(&group) {
                None if over => txn,
                None => txn.create::<Formations>(&(self.app.clone(), group), &formation),
                Some(record) if over => txn.remove::<Formations>(record),
                Some(_) => txn,
            };
        }
        txn
    }

    /// Returns whether a group has gone with a release that does not have it.
    pub(super) fn is_over(&self, group: &GroupName, since: u64) -> bool {
        self.release()
            .is_some_and(|release| release.version > since && !release.groups.contains_key(group))
    }

    /// Returns until when somebody leases a Machine of the group.
    pub(super) fn leased(&self, group: &GroupName, now: Timestamp) -> Option<Timestamp> {
        let of_group = self
            .units
            .iter()
            .filter(|unit| unit.state().is_active() && unit.spec().config.group_or_app() == *group);
        let ends = of_group.filter_map(|unit| unit.lease(now).map(|lease| lease.expires_at));
        ends.max()
            .map(|end| Timestamp::from_second(end).unwrap_or(Timestamp::MAX))
    }

    /// Returns the regions in which a slot can be had.
    pub(super) fn open(&self) -> BTreeSet<hangar_api::id::Region> {
        let slots = self.slots.iter().filter(|slot| !slot.lost);
        slots.map(|slot| slot.region.clone()).collect()
    }
}

// === impl Memory ===

impl Memory {
    fn note(&self, app: &AppName, group: &GroupName, why: String) {
        self.lock().insert((app.clone(), group.clone()), why);
    }

    fn forget(&self, app: &AppName, group: &GroupName) {
        self.lock().remove(&(app.clone(), group.clone()));
    }

    /// Returns why the last step of a group could not be done.
    pub(super) fn of(&self, app: &AppName, group: &GroupName) -> Option<String> {
        self.lock().get(&(app.clone(), group.clone())).cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<(AppName, GroupName), String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
