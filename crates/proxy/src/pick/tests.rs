use super::*;
use proptest::prelude::*;

fn view(status: Status, load: u32) -> View {
    View {
        status,
        near: true,
        load,
        soft: 2,
        hard: Some(4),
        avoided: false,
    }
}

fn choose(views: &[View]) -> Pick {
    pick(views.iter().copied(), Duration::ZERO, 0x1234_5678_9abc)
}

fn used(index: usize) -> Pick {
    Pick::Use { index, start: None }
}

#[test]
fn below_the_soft_limit_comes_before_above_it() {
    let views = [view(Status::Ready, 3), view(Status::Ready, 1)];
    assert_eq!(choose(&views), used(1));
}

#[test]
fn a_far_machine_is_used_only_when_all_near_ones_are_full_or_unhealthy() {
    let far = View {
        near: false,
        ..view(Status::Ready, 0)
    };
    assert_eq!(choose(&[far, view(Status::Ready, 3)]), used(1));
    assert_eq!(choose(&[far, view(Status::Ready, 4)]), used(0));
    assert_eq!(choose(&[far, view(Status::Unhealthy, 0)]), used(0));
}

#[test]
fn a_machine_over_its_soft_limit_is_used_and_another_one_started() {
    let views = [view(Status::Ready, 2), view(Status::Startable, 0)];
    let expected = Pick::Use {
        index: 0,
        start: Some(1),
    };
    assert_eq!(choose(&views), expected);
    let views = [view(Status::Ready, 1), view(Status::Startable, 0)];
    assert_eq!(choose(&views), used(0));
}

#[test]
fn one_on_its_way_keeps_others_from_being_started() {
    let views = [view(Status::Coming, 0), view(Status::Startable, 0)];
    assert_eq!(choose(&views), Pick::Wait { full: false });
}

#[test]
fn whoever_has_waited_for_those_on_their_way_starts_another_one() {
    let after = |seconds, coming: usize| {
        let mut views = vec![view(Status::Coming, 0); coming];
        views.push(view(Status::Startable, 0));
        pick(views.into_iter(), Duration::from_secs(seconds), 1)
    };
    assert_eq!(after(1, 1), Pick::Start(1));
    assert_eq!(after(1, 2), Pick::Wait { full: false });
    assert_eq!(after(2, 2), Pick::Start(2));
    assert_eq!(after(30, 6), Pick::Wait { full: false });
}

#[test]
fn a_request_waits_for_a_full_a_coming_a_draining_or_a_busy_machine() {
    assert_eq!(choose(&[view(Status::Ready, 4)]), Pick::Wait { full: true });
    assert_eq!(
        choose(&[view(Status::Coming, 0)]),
        Pick::Wait { full: false }
    );
    assert_eq!(
        choose(&[view(Status::Draining, 0)]),
        Pick::Wait { full: false }
    );
    assert_eq!(choose(&[view(Status::Busy, 0)]), Pick::Wait { full: false });
    let views = [view(Status::Busy, 0), view(Status::Startable, 0)];
    assert_eq!(choose(&views), Pick::Start(1));
}

#[test]
fn a_request_is_refused_when_nobody_can_come() {
    assert_eq!(choose(&[]), Pick::Refuse(Reason::Nobody));
    assert_eq!(choose(&[view(Status::Down, 0)]), Pick::Refuse(Reason::Down));
    let views = [view(Status::Down, 0), view(Status::Unhealthy, 0)];
    assert_eq!(choose(&views), Pick::Refuse(Reason::Unhealthy));
}

#[test]
fn equals_all_get_their_share() {
    let views = [view(Status::Ready, 0); 5];
    let mut counts = [0_u32; 5];
    for seed in 1..=5_000_u64 {
        let random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        if let Pick::Use { index, .. } = pick(views.iter().copied(), Duration::ZERO, random) {
            counts[index] += 1;
        }
    }
    assert!(counts.iter().all(|n| (800..1200).contains(n)), "{counts:?}");
}

fn any_view() -> impl Strategy<Value = View> {
    let status = prop_oneof![
        Just(Status::Ready),
        Just(Status::Coming),
        Just(Status::Draining),
        Just(Status::Busy),
        Just(Status::Unhealthy),
        Just(Status::Startable),
        Just(Status::Down),
    ];
    let hard = prop_oneof![Just(None), (0_u32..8).prop_map(Some)];
    (
        status,
        any::<bool>(),
        0_u32..8,
        0_u32..8,
        hard,
        any::<bool>(),
    )
        .prop_map(|(status, near, load, soft, hard, avoided)| View {
            status,
            near,
            load,
            soft,
            hard,
            avoided,
        })
}

proptest! {
    #[test]
    fn only_a_ready_machine_with_room_is_used_and_the_best_of_them(
        views in prop::collection::vec(any_view(), 0..12),
        waited in 0_u64..40,
        random in any::<u64>(),
    ) {
        let eligible = |v: &View| v.status == Status::Ready && v.hard.is_none_or(|h| v.load < h);
        let rank = |v: &View| (v.avoided, !v.near, v.load >= v.soft);
        match pick(views.iter().copied(), Duration::from_secs(waited), random) {
            Pick::Use { index, start } => {
                prop_assert!(eligible(&views[index]));
                let best = views.iter().filter(|v| eligible(v)).map(rank).min();
                prop_assert_eq!(Some(rank(&views[index])), best);
                if let Some(start) = start {
                    prop_assert_eq!(views[start].status, Status::Startable);
                    prop_assert!(views[index].load >= views[index].soft);
                }
            }
            Pick::Start(index) => {
                prop_assert_eq!(views[index].status, Status::Startable);
                prop_assert!(!views.iter().any(eligible));
            }
            Pick::Wait { full } => {
                prop_assert!(!views.iter().any(eligible));
                let waits_for = |v: &View| if full {
                    v.status == Status::Ready
                } else {
                    matches!(v.status, Status::Coming | Status::Draining | Status::Busy)
                };
                prop_assert!(views.iter().any(waits_for));
            }
            Pick::Refuse(_) => prop_assert!(views
                .iter()
                .all(|v| matches!(v.status, Status::Down | Status::Unhealthy))),
        }
    }
}
