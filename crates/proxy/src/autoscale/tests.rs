use proptest::prelude::*;

use super::*;

fn member(group: &str, region: &str) -> Member {
    Member {
        group: GroupName::new(group).unwrap(),
        region: Region::new(region).unwrap(),
        usable: true,
        in_use: false,
        over_soft: false,
        settled: true,
        rested: true,
        awaited: false,
        autostop: Autostop::Stop,
        min: 0,
    }
}

fn busy(mut member: Member) -> Member {
    (member.in_use, member.rested) = (true, false);
    member
}

fn full(member: Member) -> Member {
    let mut member = busy(member);
    member.over_soft = true;
    member
}

fn first(members: &[Member]) -> Vec<usize> {
    excess(members)
        .iter()
        .map(|region| region[0].index)
        .collect()
}

#[test]
fn two_idle_ones_go_one_after_the_other() {
    let one = member("app", "iad");
    assert_eq!(first(&[one.clone(), one.clone()]), [1]);
    assert_eq!(first(&[one]), [0]);
}

#[test]
fn the_last_one_goes_only_when_nothing_came_since_the_look_before() {
    let mut last = member("app", "iad");
    last.rested = false;
    assert!(excess(&[last.clone()]).is_empty());
    // Of two that were used in turns, one is enough.
    assert_eq!(first(&[last.clone(), last.clone()]), [1]);
    assert!(excess(&[busy(last)]).is_empty());
}

#[test]
fn as_many_are_needed_as_are_full_and_one_more() {
    let one = member("app", "iad");
    let three = [full(one.clone()), one.clone(), one.clone()];
    assert_eq!(first(&three), [2]);
    assert!(excess(&three[..2]).is_empty());
    let all = [full(one.clone()), full(one.clone()), one.clone()];
    assert!(excess(&all).is_empty());
}

#[test]
fn groups_and_regions_are_counted_apart_and_one_goes_in_each_region() {
    let members = [
        member("web", "iad"),
        member("web", "iad"),
        member("api", "iad"),
        member("web", "gru"),
    ];
    let found = excess(&members);
    assert_eq!(found.len(), 2);
    let of = |region: usize| {
        found[region]
            .iter()
            .map(|excess| excess.index)
            .collect::<Vec<_>>()
    };
    assert_eq!((of(0), of(1)), (vec![3], vec![2, 1, 0]));
    assert_eq!(found[1][1].left, 1);
}

#[test]
fn what_nobody_can_use_goes_first_but_never_below_what_is_needed() {
    let one = member("app", "iad");
    let mut sick = one.clone();
    sick.usable = false;
    assert_eq!(first(&[sick.clone(), one.clone(), one.clone()]), [0]);
    assert_eq!(first(&[sick.clone(), busy(one.clone())]), [0]);
    assert!(excess(&[sick, full(one)]).is_empty());
}

fn any_member() -> impl Strategy<Value = Member> {
    let flags = (
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        prop::bool::weighted(0.05),
    );
    let how = prop_oneof![
        Just(Autostop::Off),
        Just(Autostop::Stop),
        Just(Autostop::Suspend)
    ];
    (0..2_usize, 0..2_usize, flags, how, 0..3_usize).prop_map(
        |(group, region, (usable, in_use, full, settled, rested, awaited), autostop, min)| {
            let own = member(["web", "api"][group], ["iad", "gru"][region]);
            Member {
                usable,
                in_use,
                over_soft: in_use && full,
                settled,
                rested: rested && !in_use,
                awaited,
                autostop,
                min: if region == 0 { min } else { 0 },
                ..own
            }
        },
    )
}

proptest! {
    #[test]
    fn whoever_goes_is_idle_and_not_needed(members in prop::collection::vec(any_member(), 0..12)) {
        let regions = excess(&members);
        let mut seen = std::collections::BTreeSet::new();
        for region in &regions {
            prop_assert!(!region.is_empty());
            let of: std::collections::BTreeSet<_> =
                region.iter().map(|excess| &members[excess.index].region).collect();
            prop_assert_eq!(of.len(), 1);
            prop_assert!(seen.insert(of.into_iter().next().unwrap().clone()), "a region twice");
            for Excess { index, suspend, left } in region {
                let gone = &members[*index];
                let pool = |m: &&Member| (&m.group, &m.region) == (&gone.group, &gone.region);
                let rest: Vec<&Member> = members.iter().enumerate()
                    .filter(|(other, _)| other != index).map(|(_, m)| m).filter(pool).collect();
                prop_assert!(!gone.in_use && gone.settled && !gone.awaited);
                prop_assert_eq!(*suspend, gone.autostop == Autostop::Suspend);
                prop_assert!(gone.autostop != Autostop::Off);
                prop_assert_eq!(*left, rest.len());
                prop_assert!(rest.iter().all(|m| !m.awaited));
                let usable = rest.iter().filter(|m| m.usable).count();
                let min = rest.iter().map(|m| m.min).max().unwrap_or(0).max(gone.min);
                prop_assert!(usable >= min, "below the minimum");
                let over = rest.iter().filter(|m| m.usable && m.over_soft).count();
                let loaded = rest.iter().any(|m| m.in_use || !m.rested) || !gone.rested;
                // Under load one below its soft limit stays.
                prop_assert!(!loaded || usable > over, "load is left without capacity");
            }
        }
    }

    #[test]
    fn idle_pools_shrink_to_their_minimum_one_a_look(count in 1..20_usize, min in 0..4_usize) {
        let mut members = vec![Member { min, ..member("app", "iad") }; count];
        for left in (min.min(count)..count).rev() {
            let found = excess(&members);
            prop_assert_eq!(found.len(), 1);
            members.remove(found[0][0].index);
            prop_assert_eq!(members.len(), left);
        }
        prop_assert!(excess(&members).is_empty());
    }
}
