//! What is due when: daily snapshots, their end, the end of records. Pure.

use hangar_api::Timestamp;
use hangar_api::volume::SnapshotStatus;
use hangar_store::tables::{SnapshotRecord, VolumeRecord};
use jiff::SignedDuration;

/// Time between two snapshots of the schedule.
pub(crate) const DAY: SignedDuration = SignedDuration::from_hours(24);
/// How long the record of a destroyed volume is kept, for clients that look for its end.
pub(crate) const DESTROYED_KEPT: SignedDuration = SignedDuration::from_hours(24);

/// Returns whether the schedule wants a snapshot of a volume now: a day after it was created, and
/// a day after the last one that the schedule made.
pub(crate) fn wants_snapshot<'a>(
    now: Timestamp,
    volume: &VolumeRecord,
    snapshots: impl Iterator<Item = &'a SnapshotRecord>,
) -> bool {
    if !volume.scheduled_snapshots || !volume.state.is_usable() {
        return false;
    }
    let of_schedule = snapshots
        .filter(|snapshot| snapshot.volume == volume.id && snapshot.scheduled)
        .map(|snapshot| snapshot.created_at);
    let last = of_schedule.fold(volume.created_at, Timestamp::max);
    now.duration_since(last) >= DAY
}

/// Returns whether a snapshot has been kept as long as was said.
pub(crate) fn is_over(now: Timestamp, snapshot: &SnapshotRecord) -> bool {
    let ended = matches!(
        snapshot.status,
        SnapshotStatus::Created | SnapshotStatus::Failed
    );
    let kept = DAY.saturating_mul(i32::try_from(snapshot.retention_days).unwrap_or(i32::MAX));
    ended && now.duration_since(snapshot.created_at) >= kept
}

/// Returns whether the record of a destroyed volume may be forgotten.
pub(crate) fn is_forgotten(now: Timestamp, volume: &VolumeRecord) -> bool {
    let since = volume.destroyed_at.unwrap_or(now);
    volume.removed && now.duration_since(since) >= DESTROYED_KEPT
}

/// Returns the size in GB that a volume is given when it is this full, or `None` while it has room.
pub(crate) fn grows_to(
    size_gb: u64,
    percent: u64,
    (threshold, add, limit): (u64, u64, Option<u64>),
) -> Option<u64> {
    let most = limit
        .filter(|limit| *limit > 0)
        .unwrap_or(hangar_api::volume::MAX_SIZE_GB)
        .min(hangar_api::volume::MAX_SIZE_GB);
    let next = size_gb.saturating_add(add).min(most);
    (percent >= threshold && next > size_gb).then_some(next)
}

#[cfg(test)]
mod tests {
    use hangar_api::volume::{VolumeSource, VolumeState};

    use super::*;

    fn at(hours: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_hours(hours)
    }

    fn volume() -> VolumeRecord {
        VolumeRecord {
            id: "vol_0123456789abcdef".parse().unwrap(),
            app: "a".parse().unwrap(),
            name: "data".to_owned(),
            state: VolumeState::Created,
            size_gb: 1,
            growing_to: None,
            needs_restart: false,
            source: VolumeSource::Empty,
            slot: "iad-a".parse().unwrap(),
            host: "here".parse().unwrap(),
            region: "iad".parse().unwrap(),
            zone: "a".to_owned(),
            attached: None,
            retention_days: 5,
            scheduled_snapshots: true,
            created_at: at(0),
            destroyed_at: None,
            removed: false,
            failure: None,
        }
    }

    fn snapshot(hours: i64, scheduled: bool) -> SnapshotRecord {
        SnapshotRecord {
            id: "vs_0123456789abcdef".parse().unwrap(),
            app: "a".parse().unwrap(),
            volume: volume().id,
            host: "here".parse().unwrap(),
            status: SnapshotStatus::Created,
            size: 1,
            volume_gb: 1,
            retention_days: 2,
            scheduled,
            created_at: at(hours),
            failure: None,
        }
    }

    #[test]
    fn a_snapshot_is_made_a_day_after_the_last_of_the_schedule_whatever_was_made_by_hand() {
        let none: [SnapshotRecord; 0] = [];
        assert!(!wants_snapshot(at(23), &volume(), none.iter()));
        assert!(wants_snapshot(at(24), &volume(), none.iter()));
        let made = [snapshot(24, true), snapshot(40, false)];
        assert!(!wants_snapshot(at(47), &volume(), made.iter()));
        assert!(wants_snapshot(at(48), &volume(), made.iter()));
        let off = VolumeRecord {
            scheduled_snapshots: false,
            ..volume()
        };
        assert!(!wants_snapshot(at(1000), &off, none.iter()));
        let gone = VolumeRecord {
            state: VolumeState::PendingDestroy,
            ..volume()
        };
        assert!(!wants_snapshot(at(1000), &gone, none.iter()));
    }

    #[test]
    fn a_snapshot_is_kept_for_the_days_that_were_said_when_it_was_made() {
        assert!(!is_over(at(47), &snapshot(0, true)));
        assert!(is_over(at(48), &snapshot(0, true)));
        let running = SnapshotRecord {
            status: SnapshotStatus::Running,
            ..snapshot(0, true)
        };
        assert!(!is_over(at(1000), &running));
    }

    #[test]
    fn a_destroyed_volume_is_shown_for_a_day_and_as_long_as_its_data_is_there() {
        let gone = VolumeRecord {
            destroyed_at: Some(at(0)),
            removed: true,
            ..volume()
        };
        assert!(!is_forgotten(at(23), &gone));
        assert!(is_forgotten(at(24), &gone));
        let still = VolumeRecord {
            removed: false,
            ..gone
        };
        assert!(!is_forgotten(at(1000), &still));
    }

    #[test]
    fn a_volume_grows_by_steps_up_to_its_limit() {
        assert_eq!(grows_to(1, 79, (80, 2, Some(4))), None);
        assert_eq!(grows_to(1, 80, (80, 2, Some(4))), Some(3));
        assert_eq!(grows_to(3, 99, (80, 2, Some(4))), Some(4));
        assert_eq!(grows_to(4, 99, (80, 2, Some(4))), None);
        assert_eq!(grows_to(499, 99, (80, 100, None)), Some(500));
        assert_eq!(grows_to(500, 100, (80, 1, None)), None);
    }
}
