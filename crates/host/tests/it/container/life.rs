//! Starting, ending, stopping, executing, limits.

use std::time::{Duration, Instant};

use hangar_api::exec::ExecRequest;
use hangar_host::runtime::{RunStatus, Runtime as _};

use super::{until, world};

#[tokio::test(flavor = "multi_thread")]
async fn a_program_ends_with_its_own_code() {
    let Some(world) = world() else { return };
    let (exit, said) = world
        .run(world.plan("echo one; echo two >&2; exit 3"))
        .await;
    assert_eq!(exit.exit_code, 3);
    assert_eq!((exit.signal, exit.requested_stop), (None, false));
    assert_eq!(said, ["one", "two"]);
    let (exit, _) = world.run(world.plan("true")).await;
    assert_eq!(exit.exit_code, 0);
    let (exit, _) = world.run(world.plan("kill -SEGV $$")).await;
    assert_eq!((exit.exit_code, exit.signal), (139, Some(libc::SIGSEGV)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_cannot_be_executed_is_named() {
    let Some(world) = world() else { return };
    for (argv, code, words) in [
        ("/bin/x", 127, "no such file: /bin/x"),
        ("nonesuch", 127, "no such file: nonesuch (looked for in"),
        ("/etc/plain", 126, "permission denied: /etc/plain"),
        (
            "/bin/garbage",
            126,
            "wrong architecture or not a program: /bin/garbage",
        ),
    ] {
        let (exit, _) = world.run(world.plan_of(&[argv])).await;
        assert_eq!(exit.exit_code, code, "{exit:?}");
        let error = exit.spawn_error.unwrap();
        assert!(error.contains(words), "{error}");
    }
    let mut plan = world.plan("true");
    plan.user = "nobody".to_owned();
    let (exit, _) = world.run(plan).await;
    assert!(
        exit.spawn_error
            .unwrap()
            .contains("no user named \"nobody\"")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn user_groups_directory_environment_and_files_are_as_asked() {
    let Some(world) = world() else { return };
    let script = "id; pwd; echo $GREETING; echo $HOME; cat /etc/hostname /a/b/c; \
                  echo x > /dev/stdout; touch /etc/no 2>&1";
    let mut plan = world.plan(script);
    plan.user = "web".to_owned();
    plan.workdir = "/made/here".into();
    plan.files = vec![("/a/b/c".into(), b"content\n".to_vec(), 0o600 | 0o044)];
    let hostname = plan.hostname.clone();
    let (exit, said) = world.run(plan).await;
    assert_eq!(exit.exit_code, 1);
    let expected = [
        "uid=1000(web) gid=1001(web) groups=50(logs)",
        "/made/here",
        "hello world",
        "/srv",
        &hostname,
        "content",
        "x",
        "touch: /etc/no: Permission denied",
    ];
    assert_eq!(said, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_goes_from_the_signal_over_sigterm_to_sigkill() {
    let Some(world) = world() else { return };
    let ready = "echo ready; while :; do sleep 0.02; done";
    // Ends at the first signal.
    let key = world
        .start(world.plan(&format!("trap 'exit 7' INT; {ready}")))
        .await;
    world.until_said(&key, "ready").await;
    let second = Duration::from_secs(1);
    world
        .runtime
        .stop(key.clone(), libc::SIGINT, second * 30)
        .await
        .unwrap();
    let exit = world.runtime.wait(key.clone()).await;
    assert_eq!((exit.exit_code, exit.requested_stop), (7, true));
    // Stopping what has ended is no error.
    world.runtime.stop(key, libc::SIGINT, second).await.unwrap();
    // Ignores the first signal, ends at the second.
    let script = format!("trap '' INT; trap 'exit 8' TERM; {ready}");
    let key = world.start(world.plan(&script)).await;
    world.until_said(&key, "ready").await;
    let soon = Duration::from_millis(100);
    world
        .runtime
        .stop(key.clone(), libc::SIGINT, soon)
        .await
        .unwrap();
    assert_eq!(world.runtime.wait(key).await.exit_code, 8);
    // Ignores both.
    let key = world
        .start(world.plan(&format!("trap '' INT TERM; {ready}")))
        .await;
    world.until_said(&key, "ready").await;
    world
        .runtime
        .stop(key.clone(), libc::SIGINT, soon)
        .await
        .unwrap();
    let exit = world.runtime.wait(key).await;
    assert_eq!((exit.exit_code, exit.signal), (137, Some(libc::SIGKILL)));
    assert!(exit.requested_stop && !exit.oom_killed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_reaches_the_main_process_and_kill_ends_everything() {
    let Some(world) = world() else { return };
    let script = "trap 'echo hup' HUP; sleep 1000 & echo ready; while :; do sleep 0.02; done";
    let key = world.start(world.plan(script)).await;
    world.until_said(&key, "ready").await;
    world
        .runtime
        .signal(key.clone(), libc::SIGHUP)
        .await
        .unwrap();
    world.until_said(&key, "hup").await;
    world.runtime.kill(key.clone()).await;
    assert_eq!(world.pids(&key), Vec::<i32>::new());
    assert_eq!(world.runtime.status(key.clone()).await, RunStatus::Lost);
    assert_eq!(world.runtime.wait(key).await.exit_code, 137);
}

#[tokio::test(flavor = "multi_thread")]
async fn orphans_are_reaped_and_do_not_outlive_the_program() {
    let Some(world) = world() else { return };
    let script = "(sleep 0.05 & sleep 1000 &) ; sleep 0.3; ps; exit 5";
    let (exit, said) = world.run(world.plan(script)).await;
    assert_eq!(exit.exit_code, 5);
    assert!(
        said.iter().any(|line| line.contains("sleep 1000")),
        "{said:?}"
    );
    assert!(
        !said.iter().any(|line| line.contains("[sleep]")),
        "{said:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_beside_the_program() {
    let Some(world) = world() else { return };
    let mut plan = world.plan("echo ready; exec sleep 1000");
    plan.user = "web".to_owned();
    let key = world.start(plan).await;
    let done = world
        .exec(&key, "id -u; echo $GREETING; echo no >&2; exit 4")
        .await;
    assert_eq!((done.exit_code, done.exit_signal), (4, 0));
    assert_eq!(
        (done.stdout.as_str(), done.stderr.as_str()),
        ("0\nhello world\n", "no\n")
    );
    let request = |command: &[&str]| ExecRequest {
        command: command.iter().map(|text| (*text).to_owned()).collect(),
        ..ExecRequest::default()
    };
    let mut with_input = request(&["cat"]);
    with_input.stdin = Some("given".to_owned());
    let done = world.runtime.exec(key.clone(), with_input).await.unwrap();
    assert_eq!(done.stdout, "given");
    // Output is cut, the command is not held up.
    let done = world
        .exec(&key, "dd if=/dev/zero bs=1M count=3 2>/dev/null; exit 6")
        .await;
    assert_eq!((done.stdout.len(), done.exit_code), (1024 * 1024, 6));
    let error = world.runtime.exec(key.clone(), request(&["/bin/x"])).await;
    assert_eq!(error.unwrap_err().message, "no such file: /bin/x");
    let mut slow = request(&["sleep", "1001"]);
    slow.timeout = Some(1);
    let error = world.runtime.exec(key.clone(), slow).await.unwrap_err();
    assert!(error.message.contains("did not end within 1 s"), "{error}");
    // Nobody waits for it any more: it is killed.
    let pending = world.runtime.exec(key.clone(), request(&["sleep", "1002"]));
    drop(tokio::time::timeout(Duration::from_millis(300), pending).await);
    let left = world.exec(&key, "sleep 0.1; ps").await.stdout;
    assert!(
        !left.contains("sleep 1001") && !left.contains("sleep 1002"),
        "{left}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn listening_sockets_are_told() {
    let Some(world) = world() else { return };
    let key = world.start(world.plan("exec nc -l -p 8080")).await;
    for _ in 0..500 {
        let found = world.runtime.listeners(key.clone()).await;
        if found.is_ok_and(|found| found.iter().any(|socket| socket.port() == 8080)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the socket was not told of: {:?}", world.said(&key));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_takes_too_much_memory_is_killed_and_that_is_told() {
    let Some(world) = world() else { return };
    // `dd` touches a buffer as large as its block.
    let plan = world.plan_of(&["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"]);
    let (exit, said) = world.run(plan).await;
    assert_eq!(exit.exit_code, 137, "{said:?}");
    assert!(exit.oom_killed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_gets_no_more_of_the_cpus_than_its_limit() {
    let Some(world) = world() else { return };
    if std::thread::available_parallelism().unwrap().get() < 2 {
        eprintln!("skipped: needs two CPUs");
        return;
    }
    // The plan allows one CPU; three programs would take all there are.
    let spin = "while :; do :; done";
    let script = format!("({spin}) & ({spin}) & echo ready; {spin}");
    let key = world.start(world.plan(&script)).await;
    world.until_said(&key, "ready").await;
    // Else a busy machine alone keeps it from taking more than one.
    world.put_before_others(&key);
    let began = Instant::now();
    let before = world.cpu_time(&key);
    let wanted = Duration::from_secs(2);
    while world.cpu_time(&key) - before < wanted {
        // On a busy machine it takes longer, which is no fault.
        assert!(began.elapsed() < Duration::from_secs(120));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // A period's quota is there at once, and another may be left of the period before.
    let least = wanted - Duration::from_millis(400);
    let took = began.elapsed();
    assert!(took > least, "{wanted:?} of CPU time in {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_are_limited() {
    let Some(world) = world() else { return };
    let mut plan = world.plan("for i in 1 2 3 4 5 6 7 8 9 10; do sleep 5 & done; echo all");
    plan.limits.pids = 6;
    let (_, said) = world.run(plan).await;
    assert!(
        said.iter().any(|line| line.contains("can't fork")),
        "{said:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn all_output_is_kept_also_the_last_line_without_an_end() {
    let Some(world) = world() else { return };
    let script = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; echo -n last";
    let (_, said) = world.run(world.plan(script)).await;
    assert_eq!(said.len(), 2001);
    assert_eq!(
        (said[0].as_str(), said[1999].as_str()),
        ("line 0", "line 1999")
    );
    assert_eq!(said[2000], "last");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_fails_says_why_and_leaves_nothing() {
    let Some(world) = world() else { return };
    let mut plan = world.plan("true");
    plan.layers.push(world.dir.path().join("no-such-layer"));
    let key = plan.key.clone();
    let error = world.runtime.start(plan).await.unwrap_err();
    assert!(error.message.contains("no-such-layer"), "{error}");
    assert!(!error.transient);
    world.assert_nothing_left(&key);
    assert_eq!(world.runtime.status(key).await, RunStatus::Absent);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_after_a_removal_and_it_may_be_repeated() {
    let Some(world) = world() else { return };
    let script = "sleep 1000 & sleep 1000 & echo ready; sleep 1000";
    let key = world.start(world.plan(script)).await;
    world.until_said(&key, "ready").await;
    assert_eq!(world.pids(&key).len(), 4);
    let runs = world.runtime.runs().await.unwrap();
    assert_eq!(runs, std::slice::from_ref(&key));
    world.runtime.remove(key.clone()).await.unwrap();
    world.assert_nothing_left(&key);
    world.runtime.remove(key.clone()).await.unwrap();
    assert!(world.runtime.runs().await.unwrap().is_empty());
    assert!(world.said(&key).contains(&"ready".to_owned()), "logs stay");
    until(|| world.pids(&key).is_empty()).await;
}
