use super::*;
use hangar_api::duration::GoDuration;
use hangar_api::machine::Service;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(1_000_000_000 + millis).unwrap()
}

fn config(check: CheckConfig) -> MachineConfig {
    let service = Service {
        internal_port: 8080,
        checks: vec![check],
        ..Service::default()
    };
    MachineConfig {
        services: vec![service],
        ..MachineConfig::default()
    }
}

fn http() -> CheckConfig {
    CheckConfig {
        kind: Some("http".to_owned()),
        interval: Some(GoDuration::from_secs(10)),
        ..CheckConfig::default()
    }
}

#[test]
fn until_its_first_pass_a_check_is_probed_within_a_sixteenth_of_its_time_then_every_interval() {
    let mut schedule = Schedule::new(checks_of(&config(http())), at(0));
    let mut now = at(0);
    let mut pauses = Vec::new();
    while now < at(4000) {
        assert_eq!(schedule.take_due(now).len(), 1);
        assert!(schedule.take_due(now).is_empty(), "one probe at a time");
        schedule.finish(0, Err("too early".to_owned().into()), now);
        let next = schedule.next_due().unwrap();
        let (pause, since) = (next.duration_since(now), now.duration_since(at(0)));
        let most = (since.as_millis() / 16).clamp(10, 100) + 1;
        assert!(pause.as_millis() <= most, "{pause} after {since}");
        pauses.push(pause.as_millis());
        now = next;
    }
    assert_eq!((pauses[0], pauses.last()), (10, Some(&100)));
    let mut schedule = Schedule::new(checks_of(&config(http())), at(0));
    schedule.take_due(at(500));
    let (_, status) = schedule.finish(0, Ok("ok".to_owned()), at(510)).unwrap();
    assert_eq!(status.status, Health::Passing);
    assert!(schedule.is_healthy(0));
    assert_eq!(schedule.next_due(), Some(at(10_510)));
    schedule.take_due(at(10_510));
    assert!(
        schedule
            .finish(0, Ok("ok".to_owned()), at(10_520))
            .is_none()
    );
    assert_eq!(schedule.next_due(), Some(at(20_510)));
}

#[test]
fn as_long_as_nothing_listens_it_is_asked_more_often() {
    let refused = || Missed {
        text: "refused".to_owned(),
        is_refused: true,
    };
    let mut schedule = Schedule::new(checks_of(&config(http())), at(0));
    let mut now = at(0);
    let mut pauses = Vec::new();
    while now < at(12_000) {
        assert_eq!(schedule.take_due(now).len(), 1);
        schedule.finish(0, Err(refused()), now);
        let next = schedule.next_due().unwrap();
        pauses.push(next.duration_since(now).as_millis());
        now = next;
    }
    assert_eq!((pauses[0], pauses.last()), (4, Some(&100)));
    assert!(pauses.is_sorted());
    // Once it listens, it is asked as an app that is asked for something.
    let late = now.duration_since(at(0)).as_millis();
    schedule.take_due(now);
    schedule.finish(0, Err("got status 503".to_owned().into()), now);
    let pause = schedule.next_due().unwrap().duration_since(now).as_millis();
    assert_eq!(pause, (late / 16).clamp(10, 100));
    // And one that has passed is probed at its interval, also where it is refused then.
    schedule.take_due(at(20_000));
    schedule.finish(0, Ok("ok".to_owned()), at(20_000));
    schedule.take_due(at(30_000));
    schedule.finish(0, Err(refused()), at(30_000));
    assert_eq!(schedule.next_due(), Some(at(40_000)));
}

#[test]
fn failures_within_the_grace_period_do_not_count() {
    let mut check = http();
    check.grace_period = Some(GoDuration::from_secs(2));
    let mut schedule = Schedule::new(checks_of(&config(check)), at(0));
    schedule.take_due(at(0));
    assert!(
        schedule
            .finish(0, Err("x".to_owned().into()), at(100))
            .is_none()
    );
    assert_eq!(schedule.statuses()[0].status, Health::Warning);
    schedule.take_due(at(2000));
    let (check, status) = schedule
        .finish(0, Err("x".to_owned().into()), at(2100))
        .unwrap();
    assert_eq!(status.status, Health::Critical);
    let (error, line) = log_line(&check, &status);
    assert!(error && line.contains("'servicecheck-00-http-8080' on port 8080 has failed"));
}

#[test]
fn a_readiness_check_of_the_machine_counts_for_every_service_and_an_informational_one_for_none() {
    let mut config = config(http());
    let named = |purpose: Option<&str>| CheckConfig {
        port: Some(9),
        purpose: purpose.map(str::to_owned),
        ..http()
    };
    config.checks.insert("a".to_owned(), named(None));
    config
        .checks
        .insert("b".to_owned(), named(Some("readiness")));
    let mut schedule = Schedule::new(checks_of(&config), at(0));
    assert_eq!(schedule.take_due(at(0)).len(), 3);
    schedule.finish(0, Ok(String::new()), at(1));
    assert!(!schedule.is_healthy(0));
    schedule.finish(2, Ok(String::new()), at(1));
    assert!(schedule.is_healthy(0));
    schedule.finish(1, Err(String::new().into()), at(1));
    assert!(schedule.is_healthy(0));
}

#[test]
fn a_check_over_https_says_how_its_certificate_is_looked_at() {
    let tls_of = |check: CheckConfig| match &checks_of(&config(check))[0].kind {
        ProbeKind::Http { tls, .. } => tls.clone(),
        other => panic!("{other:?}"),
    };
    let mut check = http();
    assert_eq!(tls_of(check.clone()), None);
    check.protocol = Some("https".to_owned());
    assert_eq!(tls_of(check.clone()), Some(ProbeTls::default()));
    check.tls_skip_verify = Some(true);
    check.tls_server_name = Some("app.example".to_owned());
    let tls = tls_of(check).unwrap();
    assert!(tls.skip_verify);
    assert_eq!(tls.server_name.as_deref(), Some("app.example"));
}
