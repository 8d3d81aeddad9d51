//! Volumes by example: who gets which in `scale count` and in a deploy, and what is made.

use std::collections::BTreeSet;

use hangar_api::Timestamp;
use hangar_api::deployment::{DeployOptions, Strategy};
use hangar_api::id::{MachineId, Region, VolumeId};
use hangar_api::machine::MachineState::{Started, Stopped};
use hangar_api::machine::Mount;
use hangar_api::volume::{Volume, VolumeState};
use hangar_deploy::mounts::new_volumes;
use hangar_deploy::scale::ScaleAction;
use hangar_deploy::scale::volumes::{Disk, Reuse, describe, disks};
use hangar_deploy::{Desired, Verdict};
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

use crate::sim::volumes::mount as in_fly_toml;
use crate::sim::{Fault, Sim, config, desired, drive, group};

fn volume(number: usize, name: &str, region: &str, size_gb: u64, attached: bool) -> Volume {
    Volume {
        id: VolumeId::new(format!("vol_{number:016}")).unwrap(),
        name: name.to_owned(),
        state: VolumeState::Created,
        size_gb,
        region: Region::new(region).unwrap(),
        zone: "a".to_owned(),
        encrypted: false,
        attached_machine_id: attached.then(|| MachineId::new("00000000000001").unwrap()),
        created_at: Timestamp::UNIX_EPOCH,
        blocks: 0,
        block_size: 4096,
        blocks_free: 0,
        blocks_avail: 0,
        bytes_total: 0,
        bytes_used: 0,
        fstype: "ext4".to_owned(),
        snapshot_retention: 5,
        auto_backup_enabled: true,
        host_status: "ok".to_owned(),
        slot: None,
        reason: None,
    }
}

fn create(region: &str, mount: Option<Mount>) -> ScaleAction {
    let mut config = config("v1", true);
    config.mounts = mount.into_iter().collect();
    ScaleAction::Create {
        group: group("web"),
        region: Region::new(region).unwrap(),
        config: Box::new(config),
    }
}

fn mount(name: &str, size_gb: Option<u64>) -> Mount {
    Mount {
        path: "/data".to_owned(),
        name: name.to_owned(),
        size_gb,
        ..Mount::default()
    }
}

fn new(name: &str, size_gb: u64) -> Option<Disk> {
    let name = name.to_owned();
    Some(Disk::New { name, size_gb })
}

#[test]
fn unattached_volumes_are_taken_first_and_new_ones_have_the_sources_size() {
    let volumes = [
        volume(1, "data", "iad", 4, true),
        volume(2, "data", "iad", 2, false),
        volume(3, "data", "gru", 2, false),
        volume(4, "other", "iad", 9, false),
    ];
    let actions: Vec<_> = (0..2)
        .map(|_| create("iad", Some(mount("data", Some(4)))))
        .collect();
    let found = disks(&actions, &volumes, Reuse::Unattached);
    let free = Some(Disk::Unattached(volumes[1].id.clone()));
    assert_eq!(found, [free, new("data", 4)]);
    let lines = describe(&actions, &found);
    let both = "  +1 volumes and 1 unattached volumes assigned to group 'web' in region 'iad'";
    assert_eq!(lines, [both]);
    let found = disks(&actions, &volumes, Reuse::Nothing);
    assert_eq!(found, [new("data", 4), new("data", 4)]);
    let lines = describe(&actions, &found);
    assert_eq!(lines, ["  +2 volumes  for group 'web' in region 'iad'"]);
    let one = disks(&actions[..1], &volumes, Reuse::Unattached);
    let lines = describe(&actions[..1], &one);
    let old = "   1 unattached volumes to be assigned to group 'web' in region 'iad'";
    assert_eq!(lines, [old]);
}

#[test]
fn a_size_that_nobody_says_is_that_of_the_largest_of_the_name_or_one() {
    let volumes = [
        volume(1, "data", "gru", 2, true),
        volume(2, "data", "gru", 7, true),
    ];
    let unsaid = |name| {
        disks(
            &[create("iad", Some(mount(name, None)))],
            &volumes,
            Reuse::Unattached,
        )
    };
    assert_eq!(unsaid("data"), [new("data", 7)]);
    assert_eq!(unsaid("else"), [new("else", 1)]);
    // A mount that names its volume alone is called as that is.
    let by_id = Mount {
        volume: volumes[0].id.to_string(),
        ..mount("", Some(0))
    };
    let found = disks(&[create("iad", Some(by_id))], &volumes, Reuse::Unattached);
    assert_eq!(found, [new("data", 7)]);
    assert_eq!(
        disks(&[create("iad", None)], &volumes, Reuse::Unattached),
        [None]
    );
}

/// Returns a release whose group has a mount.
fn with_mount(of: &str) -> Desired {
    let mut wanted = desired(&[(of, true)]);
    let config = &mut wanted.groups.get_mut(&group(of)).unwrap().config;
    config.mounts = vec![in_fly_toml("data")];
    wanted
}

#[test]
fn a_first_deploy_makes_a_volume_where_its_machine_will_be() {
    let mut sim = Sim::new(vec![]);
    let options = DeployOptions::default();
    sim.add_volume("data", "gru");
    let made = new_volumes(&with_mount("web"), &sim.fleet(), &options);
    assert_eq!(made.len(), 1, "one elsewhere is of no use");
    assert_eq!(made[0].region.as_str(), "iad");
    sim.add_volume("data", "iad");
    assert_eq!(new_volumes(&with_mount("web"), &sim.fleet(), &options), []);
}

#[test]
fn of_a_machine_and_the_one_in_its_place_one_is_left_when_nothing_is_put_back() {
    for (fault, stays) in [(Fault::None, false), (Fault::NeverHealthy, true)] {
        // The Machine of `api` that is made anew is well or not; that of `web` is updated and crashes.
        let mut sim = Sim::new(vec![fault, Fault::Crashes]);
        let old = sim.add("api", true, Started);
        let _updated = sim.add("web", true, Started);
        sim.add_volume("data", "iad");
        let mut wanted = with_mount("api");
        wanted.groups.extend(desired(&[("web", true)]).groups);
        let options = DeployOptions {
            rollback: false,
            ..DeployOptions::default()
        };
        let (verdict, _) = drive(&mut sim, &wanted, &options, &[], |_, _| {});
        assert!(matches!(verdict, Verdict::Failed { .. }), "{verdict:?}");
        let left = sim.alive("api");
        assert_eq!(left.len(), 1, "{:?}", sim.log);
        assert_eq!(left[0].spec.id == old, stays);
        assert_eq!(sim.volumes[0].attached.is_none(), stays);
        assert_eq!(sim.misattached(), None);
    }
}

#[test]
fn a_machine_at_rest_is_made_anew_at_rest_with_its_volume() {
    let mut sim = Sim::new(vec![]);
    let old = sim.add("web", true, Stopped);
    sim.add_volume("data", "iad");
    let options = DeployOptions {
        strategy: Strategy::Immediate,
        ..DeployOptions::default()
    };
    let (verdict, _) = drive(&mut sim, &with_mount("web"), &options, &[], |_, _| {});
    assert_eq!(verdict, Verdict::Complete);
    let left = sim.alive("web");
    assert_eq!(left.len(), 1);
    assert!(left[0].spec.id != old && left[0].state() != Started);
    assert_eq!(sim.volumes[0].attached.as_ref(), Some(&left[0].spec.id));
}

proptest! {
    #[test]
    fn no_volume_is_given_twice_nor_from_elsewhere_nor_from_somebody(
        have in proptest::collection::vec((0_usize..2, 0_usize..2, any::<bool>(), any::<bool>()), 0..12),
        want in proptest::collection::vec((0_usize..2, 0_usize..3), 0..12),
    ) {
        let (names, regions) = (["data", "logs"], ["iad", "gru"]);
        let volumes: Vec<Volume> = have
            .iter()
            .enumerate()
            .map(|(at, (name, region, attached, gone))| {
                let mut made = volume(at, names[*name], regions[*region], 1, *attached);
                if *gone {
                    made.state = VolumeState::PendingDestroy;
                }
                made
            })
            .collect();
        let actions: Vec<ScaleAction> = want
            .iter()
            .map(|(region, name)| create(regions[*region], names.get(*name).map(|name| mount(name, None))))
            .collect();
        let found = disks(&actions, &volumes, Reuse::Unattached);
        prop_assert_eq!(found.len(), actions.len());
        let mut given = BTreeSet::new();
        for ((region, name), disk) in want.iter().zip(&found) {
            prop_assert_eq!(disk.is_some(), *name < 2);
            match disk {
                Some(Disk::Unattached(id)) => {
                    prop_assert!(given.insert(id.clone()), "{} twice", id);
                    let volume = volumes.iter().find(|v| v.id == *id).unwrap();
                    prop_assert!(volume.attached_machine_id.is_none() && !volume.state.is_gone());
                    prop_assert_eq!(volume.region.as_str(), regions[*region]);
                    prop_assert_eq!(volume.name.as_str(), names[*name]);
                }
                Some(Disk::New { size_gb, .. }) => {
                    prop_assert!(*size_gb >= 1);
                    // Only where none was left.
                    let left = volumes.iter().filter(|v| {
                        v.name == names[*name] && v.region.as_str() == regions[*region]
                            && v.attached_machine_id.is_none() && !v.state.is_gone()
                    });
                    prop_assert!(left.clone().all(|v| found.contains(&Some(Disk::Unattached(v.id.clone())))));
                }
                None => {}
            }
        }
    }
}
