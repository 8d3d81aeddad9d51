use proptest::prelude::*;

use super::*;

const NONE: SignedDuration = SignedDuration::ZERO;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn cycle(every: Schedule, began: &str) -> Cycle {
    Cycle {
        every,
        began: at(began),
        done: 0,
    }
}

fn facts(every: Schedule, state: MachineState) -> Facts {
    Facts {
        every: Some(every),
        state,
        has_run: true,
        is_free: true,
        spread: NONE,
    }
}

#[test]
fn runs_are_counted_from_the_first_start_and_months_are_those_of_the_calendar() {
    let began = "2026-01-31T10:20:30Z";
    for (every, number, expected) in [
        (Schedule::Hourly, 5, "2026-01-31T15:20:30Z"),
        (Schedule::Daily, 1, "2026-02-01T10:20:30Z"),
        (Schedule::Weekly, 2, "2026-02-14T10:20:30Z"),
        (Schedule::Monthly, 1, "2026-02-28T10:20:30Z"),
        // Not from the 28th: the day is that of the first start where the month has it.
        (Schedule::Monthly, 2, "2026-03-31T10:20:30Z"),
        (Schedule::Monthly, 25, "2028-02-29T10:20:30Z"),
    ] {
        let when = due(&cycle(every, began), number, NONE);
        assert_eq!(when, Some(at(expected)), "{every} {number}");
    }
    let far = cycle(Schedule::Monthly, began);
    assert_eq!(due(&far, u64::MAX, NONE), None);
}

#[test]
fn a_cycle_begins_with_the_first_start_and_ends_with_the_schedule() {
    let now = at("2026-01-01T00:00:00Z");
    let mut machine = facts(Schedule::Daily, MachineState::Created);
    machine.has_run = false;
    assert_eq!(decide(&machine, None, now), Turn::Rest);
    machine.has_run = true;
    let Turn::Begin(begun) = decide(&machine, None, now) else {
        panic!("it begins");
    };
    assert_eq!((begun.began, begun.done), (now, 0));
    // Another schedule is another cycle, from now on.
    machine.every = Some(Schedule::Hourly);
    let later = at("2026-03-01T00:00:00Z");
    assert!(matches!(
        decide(&machine, Some(&begun), later),
        Turn::Begin(Cycle { every: Schedule::Hourly, began, done: 0 }) if began == later
    ));
    machine.every = None;
    assert_eq!(decide(&machine, Some(&begun), later), Turn::Forget);
    let gone = facts(Schedule::Daily, MachineState::Destroyed);
    assert_eq!(decide(&gone, Some(&begun), later), Turn::Forget);
    assert_eq!(decide(&gone, None, later), Turn::Rest);
}

#[test]
fn one_run_makes_up_for_all_that_were_missed_and_one_that_still_runs_is_left() {
    let daily = cycle(Schedule::Daily, "2026-01-01T00:00:00Z");
    let stopped = facts(Schedule::Daily, MachineState::Stopped);
    let early = at("2026-01-01T23:59:59Z");
    assert_eq!(decide(&stopped, Some(&daily), early), Turn::Rest);
    let late = at("2026-01-05T12:00:00Z");
    let after = Cycle { done: 4, ..daily };
    assert_eq!(decide(&stopped, Some(&daily), late), Turn::Run(after));
    assert_eq!(decide(&stopped, Some(&after), late), Turn::Rest);
    assert_eq!(next(&after, NONE), Some(at("2026-01-06T00:00:00Z")));
    let runs = facts(Schedule::Daily, MachineState::Started);
    assert_eq!(decide(&runs, Some(&daily), late), Turn::Pass(after));
    // Not while it is on its way, or somebody else has a hand on it.
    let replacing = facts(Schedule::Daily, MachineState::Replacing);
    assert_eq!(decide(&replacing, Some(&daily), late), Turn::Rest);
    let held = Facts {
        is_free: false,
        ..stopped
    };
    assert_eq!(decide(&held, Some(&daily), late), Turn::Rest);
}

#[test]
fn machines_of_one_moment_are_spread_but_never_by_much() {
    let id = |text: &str| MachineId::new(text).unwrap();
    let (one, other) = (id("00000000000001"), id("0000000000fff2"));
    assert_ne!(
        spread(&one, Schedule::Hourly),
        spread(&other, Schedule::Hourly)
    );
    let most = id("000000ffffffff");
    assert!(spread(&most, Schedule::Hourly) < SignedDuration::from_mins(1));
    assert!(spread(&most, Schedule::Monthly) < SignedDuration::from_mins(10));
}

fn schedules() -> impl Strategy<Value = Schedule> {
    prop::sample::select(Schedule::ALL.to_vec())
}

proptest! {
    #[test]
    fn the_latest_run_is_due_and_the_one_after_is_not(
        every in schedules(), began in 0_i64..4_000_000_000, passed in 0_i64..400_000_000,
        offset in 0_i64..600_000,
    ) {
        let began = Timestamp::from_second(began).unwrap();
        let spread = SignedDuration::from_millis(offset);
        let cycle = Cycle { every, began, done: 0 };
        let now = began + SignedDuration::from_secs(passed);
        let number = latest(&cycle, now, spread);
        prop_assert!(number == 0 || due(&cycle, number, spread).unwrap() <= now);
        prop_assert!(due(&cycle, number + 1, spread).unwrap() > now);
    }

    /// However often and seldom somebody looks, and whenever it is forgotten what was seen: each
    /// run that comes due is asked for once, or made up for by a later one.
    #[test]
    fn no_run_is_doubled_or_lost(
        every in schedules(), gaps in prop::collection::vec((0_i64..3_000_000, 0_u8..4), 1..60),
    ) {
        let began = Timestamp::from_second(1_700_000_000).unwrap();
        let mut cycle = Cycle { every, began, done: 0 };
        let mut now = began;
        let mut asked = Vec::new();
        let mut settled = 0;
        for (gap, what) in gaps {
            now += SignedDuration::from_secs(gap);
            let state = match what {
                0 => MachineState::Started,
                1 => MachineState::Replacing,
                _ => MachineState::Stopped,
            };
            match decide(&facts(every, state), Some(&cycle), now) {
                Turn::Run(next) => {
                    prop_assert_eq!(state, MachineState::Stopped);
                    prop_assert!(next.done > cycle.done);
                    asked.push(next.done);
                    cycle = next;
                }
                Turn::Pass(next) => {
                    prop_assert_eq!(state, MachineState::Started);
                    prop_assert!(next.done > cycle.done);
                    cycle = next;
                }
                Turn::Rest => {}
                other => prop_assert!(false, "{other:?}"),
            }
            if state != MachineState::Replacing {
                settled = latest(&Cycle { done: 0, ..cycle }, now, NONE);
            }
            // At rest nothing that is due is left.
            prop_assert_eq!(cycle.done, settled);
            prop_assert_eq!(cycle.began, began);
        }
        let all = asked.len();
        asked.dedup();
        prop_assert_eq!(asked.len(), all);
    }
}
