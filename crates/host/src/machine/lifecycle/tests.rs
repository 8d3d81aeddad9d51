use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::machine::restart;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

fn rules(policy: RestartPolicy, latest: u64) -> Rules {
    Rules {
        policy,
        auto_destroy: false,
        latest,
        stop_signal: 2,
        stop_timeout: Duration::from_secs(5),
        can_suspend: true,
        is_ready: false,
    }
}

const ON_FAILURE: RestartPolicy = RestartPolicy::OnFailure { max_retries: 2 };

fn op(number: u64, kind: OpKind) -> Op {
    Op {
        id: OpId::new(format!("01{number:024}")).unwrap(),
        kind,
        by: "user".to_owned(),
    }
}

fn ended(code: i32) -> ExitRecord {
    ExitRecord {
        exit_code: code,
        signal: None,
        oom_killed: false,
        requested_stop: false,
        spawn_error: None,
        exited_at: at(0),
    }
}

/// All that a host keeps across its death, and what it was about to do.
#[derive(Clone, Debug)]
struct World {
    state: State,
    latest: u64,
    policy: RestartPolicy,
    now: i64,
    runs: BTreeMap<u64, RunStatus>,
    frozen: BTreeSet<u64>,
    launched: Vec<u64>,
    effects: VecDeque<Effect>,
    news: VecDeque<Input>,
}

impl World {
    fn new(policy: RestartPolicy) -> Self {
        Self {
            state: State::default(),
            latest: 1,
            policy,
            now: 0,
            runs: BTreeMap::new(),
            frozen: BTreeSet::new(),
            launched: Vec::new(),
            effects: VecDeque::new(),
            news: VecDeque::new(),
        }
    }

    fn live(&self) -> usize {
        let mut runs = self.runs.values();
        runs.by_ref()
            .filter(|run| **run == RunStatus::Running)
            .count()
    }

    /// One turn of the actor: decide and write. Effects wait.
    fn input(&mut self, input: Input) {
        let rules = Rules {
            // The images of some generations are there already, those of others are pulled.
            is_ready: self.latest.is_multiple_of(2),
            ..rules(self.policy, self.latest)
        };
        if let Ok(step) = next(&self.state, &rules, at(self.now), input) {
            self.state = step.state;
            self.effects.extend(step.effects);
        }
    }

    /// Performs one effect, or takes one piece of news; false when there is neither.
    fn advance(&mut self) -> bool {
        if let Some(effect) = self.effects.pop_front() {
            self.perform(&effect);
            return true;
        }
        let Some(news) = self.news.pop_front() else {
            return false;
        };
        if let Input::Due = news {
            self.now += 3600;
        }
        self.input(news);
        true
    }

    fn perform(&mut self, effect: &Effect) {
        match effect {
            Effect::Prepare { generation } => self.news.push_back(Input::Prepared {
                generation: *generation,
            }),
            Effect::CancelPrepare => {
                self.news
                    .retain(|news| !matches!(news, Input::Prepared { .. }));
            }
            Effect::Launch { start } => {
                if !self.runs.contains_key(start) {
                    assert_eq!(self.live(), 0, "two runs at once: {:?}", self.state);
                    assert!(!self.launched.contains(start), "start {start} ran twice");
                    self.launched.push(*start);
                    self.runs.insert(*start, RunStatus::Running);
                }
                self.news.push_back(Input::Up { start: *start });
            }
            Effect::Stop { start, .. } | Effect::Kill { start } => {
                self.frozen.remove(start);
                if let Some(run) = self.runs.get_mut(start) {
                    *run = RunStatus::Exited(ended(0));
                }
                let record = ended(0);
                self.news.push_back(Input::Exited {
                    start: *start,
                    record,
                });
            }
            Effect::Suspend { start } => {
                if self.runs.get(start) == Some(&RunStatus::Running) {
                    self.frozen.insert(*start);
                    self.news.push_back(Input::Frozen { start: *start });
                }
            }
            Effect::Resume { start } => {
                self.frozen.remove(start);
                self.news
                    .retain(|news| !matches!(news, Input::Frozen { .. }));
                self.news.push_back(Input::Thawed { start: *start });
            }
            Effect::Remove { start } => {
                self.runs.remove(start);
                self.frozen.remove(start);
            }
            Effect::Timer { .. } => self.news.push_back(Input::Due),
            Effect::Wipe => {
                self.runs.clear();
                self.news.push_back(Input::Wiped);
            }
            Effect::Watch { .. }
            | Effect::Signal { .. }
            | Effect::Log { .. }
            | Effect::LogStarted { .. }
            | Effect::Event { .. } => {}
        }
    }

    /// The host dies and comes back: what was not written or done is forgotten.
    fn crash(&mut self) {
        self.effects.clear();
        self.news.clear();
        let current = self.state.current_run();
        self.runs.retain(|start, _| Some(*start) == current);
        let run = current.and_then(|start| self.runs.get(&start).cloned());
        self.input(Input::Resumed {
            run: run.unwrap_or(RunStatus::Absent),
        });
    }

    fn settle(&mut self) {
        for _ in 0..1000 {
            if !self.advance() {
                return;
            }
        }
        panic!("never at rest: {:?}", self.state);
    }
}

fn any_kind() -> impl Strategy<Value = OpKind> {
    let stop = OpKind::Stop {
        signal: None,
        timeout: None,
    };
    let restart = OpKind::Restart {
        signal: Some("SIGTERM".to_owned()),
        timeout: None,
    };
    prop_oneof![
        4 => Just(OpKind::Start),
        4 => Just(OpKind::Suspend),
        4 => Just(stop),
        4 => Just(restart),
        4 => any::<bool>().prop_map(|skip_launch| OpKind::Update { generation: 0, skip_launch }),
        1 => Just(OpKind::Signal { signal: 10 }),
        1 => Just(OpKind::Destroy),
        1 => any::<bool>().prop_map(|skip_launch| OpKind::Create { skip_launch }),
    ]
}

fn any_idle() -> impl Strategy<Value = Idle> {
    prop_oneof![Just(Idle::Stop), Just(Idle::Suspend)]
}

fn any_policy() -> impl Strategy<Value = RestartPolicy> {
    prop_oneof![
        Just(RestartPolicy::No),
        Just(ON_FAILURE),
        Just(RestartPolicy::Always)
    ]
}

fn any_input() -> impl Strategy<Value = Input> {
    let start = 0..4_u64;
    prop_oneof![
        4 => (1..6_u64, any_kind()).prop_map(|(n, kind)| Input::Ops(vec![op(n, kind)])),
        1 => Just(Input::Wake),
        1 => (start.clone(), any_idle()).prop_map(|(start, how)| Input::Idle { start, how }),
        2 => start.clone().prop_map(|start| Input::Frozen { start }),
        1 => start.clone().prop_map(|start| Input::FreezeFailed { start, message: "x".to_owned() }),
        2 => start.clone().prop_map(|start| Input::Thawed { start }),
        1 => start.clone().prop_map(|start| Input::ThawFailed { start, message: "x".to_owned() }),
        3 => (0..3_u64).prop_map(|generation| Input::Prepared { generation }),
        1 => (0..3_u64).prop_map(|generation| Input::PrepareFailed {
            generation, message: "x".to_owned() }),
        3 => start.clone().prop_map(|start| Input::Up { start }),
        1 => (start.clone(), any::<bool>()).prop_map(|(start, transient)| Input::StartFailed {
            start, message: "x".to_owned(), transient }),
        3 => (start, 0..2_i32).prop_map(|(start, code)| Input::Exited { start, record: ended(code) }),
        1 => Just(Input::Due),
        1 => Just(Input::Wiped),
        1 => Just(Input::Abandoned),
        1 => prop_oneof![Just(RunStatus::Running), Just(RunStatus::Absent), Just(RunStatus::Lost),
            Just(RunStatus::Unmade),
            Just(RunStatus::Exited(ended(1)))].prop_map(|run| Input::Resumed { run }),
    ]
}

/// Gives ops their numbers and updates their generations, as the server does.
fn numbered(world: &mut World, index: usize, kind: OpKind) -> Op {
    let number = u64::try_from(index).unwrap() + 2;
    let kind = match kind {
        OpKind::Update { skip_launch, .. } => {
            world.latest += 1;
            let generation = world.latest;
            OpKind::Update {
                generation,
                skip_launch,
            }
        }
        other => other,
    };
    op(number, kind)
}

/// What must be the same however often the host died.
fn essence(world: &World) -> (MachineState, u64, u64, Option<OpOutcome>, (usize, usize)) {
    let state = &world.state;
    (
        state.machine_state(),
        state.generation,
        state.starts,
        state.last_op.clone(),
        (world.live(), world.frozen.len()),
    )
}

proptest! {
    #[test]
    fn no_input_panics_destroyed_stays_and_starts_never_shrink(
        policy in any_policy(), auto_destroy in any::<bool>(),
        inputs in prop::collection::vec(any_input(), 0..60),
    ) {
        let mut state = State::default();
        for (second, input) in inputs.into_iter().enumerate() {
            let rules = Rules { auto_destroy, ..rules(policy, 2) };
            let now = at(i64::try_from(second).unwrap() * 20);
            let Ok(step) = next(&state, &rules, now, input) else { continue };
            if state.phase == Phase::Destroyed {
                prop_assert_eq!(step.state.phase, Phase::Destroyed);
            }
            prop_assert!(step.state.starts >= state.starts);
            let launches = step.effects.iter().filter(|e| matches!(e, Effect::Launch { .. })).count();
            prop_assert!(launches <= 1);
            prop_assert!(step.state.window.len() <= 301);
            state = step.state;
        }
    }

    #[test]
    fn every_request_is_acknowledged_in_order_and_one_run_lives_at_most(
        policy in any_policy(),
        asked in prop::collection::vec((any_kind(), 0..8_usize), 0..20),
    ) {
        let mut world = World::new(policy);
        world.input(Input::Ops(vec![op(1, OpKind::Create { skip_launch: false })]));
        let mut last = op(1, OpKind::Start).id;
        for (index, (kind, steps)) in asked.into_iter().enumerate() {
            let op = numbered(&mut world, index, kind);
            last = op.id.clone();
            world.input(Input::Ops(vec![op]));
            for _ in 0..steps {
                world.advance();
            }
        }
        world.settle();
        prop_assert_eq!(world.state.last_op.as_ref().map(|o| o.id.clone()), Some(last));
        prop_assert!(world.state.doing.is_none() && world.state.queue.is_empty());
        let state = world.state.machine_state();
        let is_frozen = state == MachineState::Suspended;
        prop_assert_eq!(world.live(), usize::from(is_frozen || state == MachineState::Started));
        prop_assert_eq!(world.frozen.len(), usize::from(is_frozen));
    }

    #[test]
    fn a_host_that_dies_at_any_point_ends_where_it_would_have_anyway(
        policy in any_policy(),
        asked in prop::collection::vec((any_kind(), 0..10_usize, any::<bool>()), 0..12),
    ) {
        let mut steady = World::new(policy);
        let mut shaken = World::new(policy);
        for world in [&mut steady, &mut shaken] {
            world.input(Input::Ops(vec![op(1, OpKind::Create { skip_launch: false })]));
        }
        shaken.crash();
        for (index, (kind, crash_after, twice)) in asked.into_iter().enumerate() {
            steady.settle();
            shaken.settle();
            let op = numbered(&mut steady, index, kind);
            shaken.latest = steady.latest;
            steady.input(Input::Ops(vec![op.clone()]));
            shaken.input(Input::Ops(vec![op.clone()]));
            for _ in 0..crash_after {
                shaken.advance();
            }
            shaken.crash();
            // The server sends again what it has not seen acknowledged.
            shaken.input(Input::Ops(vec![op.clone()]));
            if twice {
                shaken.advance();
                shaken.crash();
                shaken.input(Input::Ops(vec![op]));
            }
        }
        steady.settle();
        shaken.settle();
        prop_assert_eq!(essence(&steady), essence(&shaken));
        prop_assert_eq!(steady.launched, shaken.launched);
    }

    #[test]
    fn a_run_that_ends_while_the_host_is_away_is_judged_as_if_it_were_there(
        policy in any_policy(), code in 0..2_i32,
    ) {
        let mut there = World::new(policy);
        there.input(Input::Ops(vec![op(1, OpKind::Create { skip_launch: false })]));
        there.settle();
        let mut away = there.clone();
        there.input(Input::Exited { start: 1, record: ended(code) });
        away.runs.insert(1, RunStatus::Exited(ended(code)));
        away.crash();
        there.settle();
        away.settle();
        prop_assert_eq!(essence(&there), essence(&away));
        let again = match policy {
            RestartPolicy::No => false,
            RestartPolicy::OnFailure { .. } => code != 0,
            RestartPolicy::Always => true,
        };
        prop_assert_eq!(there.state.machine_state() == MachineState::Started, again);
        prop_assert_eq!(there.launched.len(), 1 + usize::from(again));
    }
}

#[test]
fn a_start_in_the_wrong_state_is_refused_in_the_apis_words() {
    let mut world = World::new(ON_FAILURE);
    world.input(Input::Ops(vec![op(1, OpKind::Destroy)]));
    world.settle();
    world.input(Input::Ops(vec![op(2, OpKind::Start)]));
    let error = world.state.last_op.unwrap().error.unwrap();
    let wanted = "failed_precondition: unable to start machine from current state: 'destroyed'";
    assert_eq!(error, wanted);
}

#[test]
fn the_first_restart_comes_at_once_and_the_next_a_second_later() {
    let mut world = World::new(RestartPolicy::Always);
    world.input(Input::Ops(vec![op(
        1,
        OpKind::Create { skip_launch: false },
    )]));
    world.settle();
    let crash = |world: &mut World, start: u64| {
        world.runs.insert(start, RunStatus::Exited(ended(1)));
        world.input(Input::Exited {
            start,
            record: ended(1),
        });
    };
    crash(&mut world, 1);
    assert_eq!(world.state.phase, Phase::Starting { start: 2 });
    world.settle();
    crash(&mut world, 2);
    let due = at(world.now) + restart::PACE;
    assert_eq!(world.state.phase, Phase::Waiting { due });
}

#[test]
fn a_wake_starts_only_what_is_stopped_and_ready() {
    let mut world = World::new(ON_FAILURE);
    let wake = |world: &World| next(&world.state, &rules(ON_FAILURE, 1), at(0), Input::Wake);
    assert!(wake(&world).is_err(), "nothing was prepared");
    world.input(Input::Ops(vec![op(
        1,
        OpKind::Create { skip_launch: true },
    )]));
    world.settle();
    let step = wake(&world).unwrap();
    assert_eq!(step.state.phase, Phase::Starting { start: 1 });
    assert_eq!(
        step.state.last_op, world.state.last_op,
        "a wake is no op of the queue"
    );
    world.input(Input::Ops(vec![op(2, OpKind::Destroy)]));
    world.settle();
    assert!(!wake(&world).unwrap_err().busy, "it is gone");
}

#[test]
fn a_wake_while_a_stopped_machine_is_prepared_is_worth_another_try() {
    let mut world = World::new(ON_FAILURE);
    let create = OpKind::Create { skip_launch: true };
    world.input(Input::Ops(vec![op(1, create)]));
    let wake = |world: &World| next(&world.state, &rules(ON_FAILURE, 1), at(0), Input::Wake);
    assert!(matches!(world.state.phase, Phase::Preparing { .. }));
    assert!(wake(&world).unwrap_err().busy);
    world.settle();
    assert!(wake(&world).is_ok());
}

fn create() -> Op {
    op(1, OpKind::Create { skip_launch: false })
}

#[test]
fn a_start_that_was_broken_off_is_made_again_under_every_policy_and_counts_as_nothing() {
    for policy in [RestartPolicy::No, ON_FAILURE, RestartPolicy::Always] {
        let mut world = World::new(policy);
        world.input(Input::Ops(vec![create()]));
        while world.state.phase != (Phase::Starting { start: 1 }) {
            assert!(world.advance());
        }
        world.effects.clear();
        world.input(Input::Resumed {
            run: RunStatus::Unmade,
        });
        assert_eq!(
            Vec::from(world.effects.clone()),
            [Effect::Remove { start: 1 }, Effect::Launch { start: 2 }],
            "nobody is told of an exit"
        );
        world.settle();
        assert_eq!(world.state.phase, Phase::Started { start: 2 });
        assert_eq!((&world.state.exit, world.state.window.len()), (&None, 0));
    }
}

#[test]
fn a_job_that_ended_before_its_restart_was_begun_is_not_run_again() {
    let mut world = World::new(RestartPolicy::No);
    world.input(Input::Ops(vec![create()]));
    world.settle();
    world.input(Input::Exited {
        start: 1,
        record: ended(0),
    });
    let restart = OpKind::Restart {
        signal: None,
        timeout: None,
    };
    world.input(Input::Ops(vec![op(2, restart)]));
    world.settle();
    assert_eq!(world.launched, [1]);
    let outcome = world.state.last_op.clone().unwrap();
    assert_eq!(outcome.id, op(2, OpKind::Start).id);
    assert!(outcome.error.unwrap().contains("start it"));
    world.input(Input::Ops(vec![op(3, OpKind::Start)]));
    world.settle();
    assert_eq!(world.launched, [1, 2]);
}

#[test]
fn an_update_whose_image_is_ready_is_gone_over_to_in_one_turn() {
    let mut world = World::new(RestartPolicy::Always);
    world.input(Input::Ops(vec![op(
        1,
        OpKind::Create { skip_launch: false },
    )]));
    world.settle();
    let update = |generation| OpKind::Update {
        generation,
        skip_launch: false,
    };
    for generation in [2, 3] {
        let start = world.state.current_run().unwrap();
        world.latest = generation;
        world.input(Input::Ops(vec![op(generation, update(generation))]));
        let stops = matches!(
            world.state.phase,
            Phase::Stopping {
                then: Then::Launch,
                ..
            }
        );
        let prepares = world
            .effects
            .iter()
            .any(|e| matches!(e, Effect::Prepare { .. }));
        assert_eq!((stops, prepares), (generation == 2, generation == 3));
        world.settle();
        assert_eq!(world.state.generation, generation);
        assert_eq!(world.state.phase, Phase::Started { start: start + 1 });
        assert_eq!(world.live(), 1);
    }
}
