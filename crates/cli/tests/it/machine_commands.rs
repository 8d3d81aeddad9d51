//! `hangar machine` beyond the life of one Machine: making, changing, holding and finding them.

use std::process::{Child, Stdio};

use serde_json::{Value, json};

use crate::busybox::{SHELL, shell_spec};
use crate::world::{IMAGE, Ran, World, finish, fly_toml, service};

/// Returns the id that `machine run` and `machine create` print.
fn id_of(ran: &Ran) -> String {
    let mut words = ran.stdout.split("Machine ID: ");
    let rest = words.nth(1).unwrap_or_else(|| panic!("no id in {ran:?}"));
    rest.split_whitespace().next().unwrap().to_owned()
}

fn run(world: &World, app: &str, words: &[&str]) -> String {
    id_of(&world.ok(&[&["machine", "run", "-a", app], words].concat()))
}

fn state(world: &World, app: &str, id: &str) -> String {
    world.machine(app, id)["state"].as_str().unwrap().to_owned()
}

/// Runs `hangar` on a terminal and types `answer`.
fn on_a_terminal(world: &World, words: &[&str], answer: &str) -> Ran {
    let line = format!("{} {}", env!("CARGO_BIN_EXE_hangar"), words.join(" "));
    let mut command = world.command("script");
    command
        .args(["-qec", &line, "/dev/null"])
        .env("TERM", "dumb");
    let typed = world.path("typed");
    std::fs::write(&typed, answer).unwrap();
    command.stdin(std::fs::File::open(typed).unwrap());
    finish(&mut command)
}

#[test]
fn a_machine_is_run_with_what_its_flags_say_and_deploys_leave_it_alone() {
    let Some(world) = World::start() else { return };
    let toml = fly_toml("runs", &service(&[]));
    let folder = world.app("runs", &toml);
    world.ok(&["apps", "create", "runs"]);
    let words = [
        "machine",
        "run",
        "-a",
        "runs",
        IMAGE,
        "serve",
        "8080",
        "--name",
        "lone",
        "--port",
        "80:8080/tcp:http",
        "-e",
        "A=1",
        "-m",
        "team=blue",
        "--vm-memory",
        "512",
        "--region",
        "gru",
        "--restart",
        "always",
        "--autostart=false",
        "--autostop",
        "--skip-dns-registration",
    ];
    let ran = world.ok(&words);
    for line in [
        "Success! A Machine has been successfully launched in app runs",
        " Instance ID: ",
        " Attempting to start machine...",
        "Machine started, you can connect via the following private ip",
    ] {
        assert!(ran.stdout.contains(line), "{line}: {ran:?}");
    }
    let id = id_of(&ran);
    let machine = world.machine("runs", &id);
    assert_eq!(
        (&machine["state"], &machine["name"], &machine["region"]),
        (&json!("started"), &json!("lone"), &json!("gru"))
    );
    let config = &machine["config"];
    assert_eq!(config["init"]["cmd"], json!(["serve", "8080"]));
    assert_eq!(config["metadata"], json!({"team": "blue"}));
    assert_eq!(config["guest"]["memory_mb"], 512);
    assert_eq!(config["restart"]["policy"], "always");
    assert_eq!(config["dns"]["skip_registration"], true);
    let service = &config["services"][0];
    assert_eq!(
        (&service["autostart"], &service["autostop"]),
        (&json!(false), &json!(true))
    );
    assert!(world.get("runs", "/env").body.contains("A=1"));

    // A deploy neither counts nor touches it, and status says where to find it.
    world.ok(&["deploy", &folder, "--ha=false", "--smoke-checks=false"]);
    assert_eq!(world.machines("runs").len(), 2);
    assert_eq!(
        world.machine("runs", &id)["instance_id"],
        machine["instance_id"]
    );
    let told = world.ok(&["status", "-a", "runs"]).stderr;
    assert!(told.contains("aren't part of Fly Launch"), "{told}");
    let listed = world.ok(&["machine", "list", "-a", "runs"]).stdout;
    assert!(listed.contains(&id), "{listed}");
}

#[test]
fn flags_that_are_wrong_are_refused_before_anything_is_made() {
    let Some(world) = World::start() else { return };
    world.ok(&["apps", "create", "runs"]);
    for (words, why) in [
        (&["--port", "99999"][..], "1 to 65535"),
        (&["--restart", "maybe"], "no, always or on-failure"),
        (&["--file-literal", "a=b"], "must be absolute"),
        (&["--machine-config", "{"], "--machine-config"),
        (&["--autostop"], "--port"),
        (&["--env", "NOVALUE"], "NAME=VALUE"),
    ] {
        let base = ["machine", "run", "-a", "runs", IMAGE];
        let said = world.fails(2, &[&base[..], words].concat());
        assert!(said.contains(why), "{words:?}: {said}");
    }
    assert_eq!(world.machines("runs"), Vec::<Value>::new());
    let said = world.fails(3, &["machine", "run", "-a", "nobody", IMAGE]);
    assert!(said.contains("hangar apps create nobody"), "{said}");
}

#[test]
fn what_is_created_waits_what_is_for_once_goes_and_a_standby_stands_by() {
    let Some(world) = World::start() else { return };
    world.ok(&["apps", "create", "odd"]);
    let created = id_of(&world.ok(&["machine", "create", "-a", "odd", IMAGE, "serve"]));
    world.eventually("it is prepared", |world| {
        (world.hangar(&["machine", "start", &created]).code == 0).then_some(())
    });
    assert_eq!(state(&world, "odd", &created), "started");

    let once = run(&world, "odd", &[IMAGE, "exit", "0", "--rm"]);
    world.eventually("it goes by itself", |world| {
        let all = world.machines("odd");
        (!all.iter().any(|m| m["id"] == *once)).then_some(())
    });

    let standby = run(&world, "odd", &[IMAGE, "serve", "--standby-for", &created]);
    assert_ne!(state(&world, "odd", &standby), "started");
    let config = world.machine("odd", &standby)["config"].clone();
    assert_eq!(config["standbys"], json!([created]));
    assert_eq!(config["env"]["FLY_STANDBY_FOR"], json!(created));
    // One that stands by for nobody any more is not started by that.
    let clear = ["machine", "update", &standby, "--standby-for", "", "--yes"];
    world.ok(&clear);
    let cleared = world.machine("odd", &standby);
    assert_eq!(cleared["config"]["standbys"], Value::Null);
    assert_ne!(cleared["state"], "started");
}

#[test]
fn files_ports_and_whole_configurations_are_given_by_flags() {
    let Some(spec) = shell_spec() else { return };
    let Some(world) = World::start() else { return };
    world.import(SHELL, &spec);
    world.ok(&["apps", "create", "given"]);
    std::fs::write(world.path("local"), "from a file").unwrap();
    std::fs::write(
        world.path("machine.json"),
        r#"{"env": {"FROM": "document"}, "services": [{"protocol": "tcp", "internal_port": 9000, "ports": [{"port": 9000}]}]}"#,
    )
    .unwrap();
    let id = run(
        &world,
        "given",
        &[
            SHELL,
            "--file-local",
            "/etc/one=local",
            "--file-literal",
            "/etc/two=plain text",
            "--machine-config",
            "machine.json",
            "--port",
            "80:9000/tcp:http",
            "--port",
            "81-90:9001",
            "--entrypoint",
            "/bin/sh -c 'exec sleep 1000' sh",
        ],
    );
    assert_eq!(world.said("given", &id, "cat /etc/one"), "from a file");
    assert_eq!(world.said("given", &id, "cat /etc/two"), "plain text");
    assert!(world.said("given", &id, "env").contains("FROM=document"));
    let services = world.machine("given", &id)["config"]["services"].clone();
    assert_eq!(services.as_array().unwrap().len(), 2, "{services}");
    assert_eq!(services[0]["ports"].as_array().unwrap().len(), 2);
    assert_eq!(services[1]["ports"][0]["end_port"], 90);
    let words = [
        "machine",
        "update",
        &id,
        "--yes",
        "--port",
        "9000/tcp:-",
        "--file-literal",
        "/etc/one=",
    ];
    let told = world.ok(&words).stderr;
    assert!(
        told.contains("9000/tcp has no ports and is dropped"),
        "{told}"
    );
    let config = world.machine("given", &id)["config"].clone();
    assert_eq!(config["services"].as_array().unwrap().len(), 1);
    assert_ne!(world.sh("given", &id, "cat /etc/one").code, 0);
    assert_eq!(world.said("given", &id, "cat /etc/two"), "plain text");
}

#[test]
fn an_update_shows_what_it_changes_and_asks() {
    let Some(world) = World::start() else { return };
    world.ok(&["apps", "create", "ask"]);
    let id = run(&world, "ask", &[IMAGE, "serve", "-e", "A=1"]);
    let update = ["machine", "update", id.as_str()];
    let with = |words: &[&'static str]| [&update[..], words].concat();
    let none = world.fails(1, &with(&["-e", "A=1"]));
    assert!(none.contains("no config changes found"), "{none}");
    let alone = world.fails(2, &with(&["-e", "A=2"]));
    assert!(
        alone.contains("Apply changes?") && alone.contains("--yes"),
        "{alone}"
    );
    assert!(
        alone.contains("-     \"A\": \"1\"") && alone.contains("+     \"A\": \"2\""),
        "{alone}"
    );
    let before = world.machine("ask", &id)["instance_id"].clone();
    let no = on_a_terminal(&world, &with(&["-e", "A=2"]), "n\n");
    assert!(no.stdout.contains("No changes to apply"), "{no:?}");
    assert_eq!(world.machine("ask", &id)["instance_id"], before);
    let yes = on_a_terminal(&world, &with(&["-e", "A=2"]), "y\n");
    assert_eq!(yes.code, 0, "{yes:?}");
    let after = world.machine("ask", &id);
    assert_eq!(after["config"]["env"]["A"], "2");
    assert_eq!(after["state"], "started");
    // With --yes an update without a difference is sent all the same.
    world.ok(&with(&["-e", "A=2", "--yes"]));
    assert_ne!(
        world.machine("ask", &id)["instance_id"],
        after["instance_id"]
    );
    // Of a Machine that does not run it changes only what is written down.
    world.ok(&["machine", "stop", &id]);
    world.ok(&with(&["-e", "A=3", "--yes"]));
    assert_eq!(state(&world, "ask", &id), "stopped");
    // The lease is given back, whatever became of the update.
    let leases = world.ok(&["machine", "leases", "view", "-a", "ask"]);
    assert_eq!(leases.stdout, "No leases found\n");
    // Without an id one chooses from a list, and only where there is somebody to choose.
    let nobody = world.fails(2, &["machine", "update", "-a", "ask", "-e", "A=4"]);
    assert!(nobody.contains("not running interactively"), "{nobody}");
    let chosen = on_a_terminal(&world, &["machine", "start", "-a", "ask"], "1\n");
    assert!(chosen.stdout.contains(&id), "{chosen:?}");
    assert_eq!(state(&world, "ask", &id), "started");
}

#[test]
fn a_machine_that_somebody_holds_is_waited_for_or_taken_from_them() {
    let Some(world) = World::start() else { return };
    world.ok(&["apps", "create", "held"]);
    let id = run(&world, "held", &[IMAGE, "serve"]);
    let hold = |seconds: u32| {
        let path = format!("/v1/apps/held/machines/{id}/lease?ttl={seconds}");
        let answer = world.api("POST", &path, Some(&world.token()));
        assert_eq!(answer.status, 201, "{answer:?}");
        let lease: Value = serde_json::from_str(&answer.body).unwrap();
        lease["data"]["nonce"].as_str().unwrap().to_owned()
    };
    hold(4);
    let ran = world.ok(&["machine", "stop", &id]);
    let told = format!("Waiting on lease for machine {id}...");
    assert!(ran.stderr.contains(&told), "{ran:?}");
    assert_eq!(state(&world, "held", &id), "stopped");

    let nonce = hold(600);
    let view = world.ok(&["machine", "leases", "view", &id]).stdout;
    assert!(view.contains("NONCE") && view.contains(&nonce), "{view}");
    let view = world.json(&["machine", "leases", "view", "-a", "held"]);
    assert_eq!(view[&id]["data"]["nonce"], json!(nonce));
    // A signal is not gated by leases.
    let killed = world.fails(1, &["machine", "kill", &id]);
    assert!(killed.contains("current state: 'stopped'"), "{killed}");
    let clear = world.ok(&["machine", "leases", "clear", &id]).stdout;
    assert!(
        clear.contains(&format!("clearing lease for machine {id}"))
            && clear.contains("Lease(s) cleared"),
        "{clear}"
    );
    world.ok(&["machine", "start", &id]);

    // One who waits goes on when the other is made to let go.
    hold(600);
    let waiting = spawned(&world, &["machine", "stop", &id]);
    world.ok(&["machine", "leases", "clear", &id]);
    let ended = waiting.wait_with_output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(state(&world, "held", &id), "stopped");
    let left = world.ok(&["machine", "leases", "view", &id]).stdout;
    assert_eq!(left, "No leases found\n");
}

#[test]
fn whoever_interrupts_a_command_leaves_no_lease_behind() {
    let Some(world) = World::start() else { return };
    world.ok(&["apps", "create", "cut"]);
    let id = run(&world, "cut", &[IMAGE, "serve"]);
    // Nobody listens there: its health is waited for in vain.
    let ill =
        r#"{"checks": {"ill": {"type": "tcp", "port": 9, "interval": "2s", "timeout": "1s"}}}"#;
    let words = ["machine", "update", &id, "--yes", "--machine-config", ill];
    let waiting = spawned(&world, &words);
    world.eventually("the update is under way", |world| {
        let lease = world.ok(&["machine", "leases", "view", &id]).stdout;
        let checked = world.machine("cut", &id)["checks"][0]["status"] == "critical";
        (checked && lease.contains(&id)).then_some(())
    });
    let pid = rustix::process::Pid::from_child(&waiting);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let ended = waiting.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(130), "{ended:?}");
    let left = world.ok(&["machine", "leases", "view", &id]).stdout;
    assert_eq!(left, "No leases found\n");
}

/// Starts `hangar` and does not wait for it.
fn spawned(world: &World, words: &[&str]) -> Child {
    let mut command = world.command(env!("CARGO_BIN_EXE_hangar"));
    command
        .args(words)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command.spawn().unwrap()
}

#[test]
fn machines_are_cordoned_killed_waited_for_and_destroyed_several_at_once() {
    let Some(world) = World::start() else { return };
    world.ok(&["apps", "create", "many"]);
    let port = ["--port", "80:8080/tcp:http", "--restart", "no"];
    let one = run(&world, "many", &[&[IMAGE, "serve"], &port[..]].concat());
    let two = run(&world, "many", &[&[IMAGE, "serve"], &port[..]].concat());
    let asked = |world: &World| world.ask("many")["machine"].as_str().unwrap().to_owned();
    let ran = world.ok(&["machine", "cordon", &one]);
    assert_eq!(
        ran.stdout,
        format!("Activating cordon on machine {one}...\ndone!\n")
    );
    world.eventually("only the other one answers", |world| {
        (0..10).all(|_| asked(world) == two).then_some(())
    });
    world.ok(&["machine", "uncordon", &one, &two]);
    world.ok(&["machine", "cordon", &two]);
    world.eventually("the other one answers", |world| {
        (asked(world) == one).then_some(())
    });

    let kill = world.ok(&["machine", "kill", &one]).stdout;
    assert!(kill.contains("kill signal has been sent"), "{kill}");
    let words = ["machine", "wait", &one, "--state", "stopped", "-w", "20s"];
    let waited = world.ok(&words).stdout;
    assert_eq!(waited, format!("Machine {one} reached state \"stopped\"\n"));
    let settled = world.ok(&["machine", "wait", &two]).stdout;
    assert!(settled.contains("\"started\""), "{settled}");
    let words = ["machine", "wait", &two, "--state", "stopped", "-w", "1s"];
    let late = world.fails(1, &words);
    assert!(
        late.contains("did not reach \"stopped\" within 1s"),
        "{late}"
    );

    world.ok(&["machine", "start", &one]);
    world.ok(&["machine", "stop", &one, &two]);
    let listed = world.ok(&["machine", "list", "-a", "many"]).stdout;
    let image = listed
        .split_whitespace()
        .find(|word| word.contains(IMAGE))
        .unwrap()
        .to_owned();
    let nobody = ["machine", "destroy", "-a", "many", "-i", "other", "--yes"];
    assert!(world.ok(&nobody).stderr.contains("No machine to destroy"));
    let alone = world.fails(2, &["machine", "destroy", "-a", "many", "-i", &image]);
    assert!(alone.contains("2 Machines"), "{alone}");
    let words = ["machine", "destroy", "-a", "many", "-i", &image, "--yes"];
    let gone = world.ok(&words).stdout;
    assert!(gone.contains(&one) && gone.contains(&two), "{gone}");
    assert_eq!(world.machines("many"), Vec::<Value>::new());
}

#[test]
fn a_clone_differs_in_what_its_flags_say() {
    let Some(world) = World::start() else { return };
    world.ok(&["apps", "create", "twin"]);
    let rm = ["--rm", "--restart", "no"];
    let id = run(&world, "twin", &[&[IMAGE, "serve"], &rm[..]].concat());
    let clone = |words: &[&str]| {
        let ran = world.ok(&[&["machine", "clone", &id], words].concat());
        (world.machine("twin", ran.stdout.trim()), ran.stderr)
    };
    let (other, told) = clone(&["--override-cmd", "serve '9090'"]);
    assert_eq!(other["config"]["init"]["cmd"], json!(["serve", "9090"]));
    assert!(told.contains("Auto destroy enabled"), "{told}");
    let (plain, told) = clone(&["--clear-cmd", "--clear-auto-destroy"]);
    assert_eq!(plain["config"]["init"]["cmd"], Value::Null);
    assert_eq!(plain["config"]["auto_destroy"], Value::Null);
    assert!(!told.contains("Auto destroy"), "{told}");
    let other_id = other["id"].as_str().unwrap();
    let (standby, _) = clone(&["--standby-for", &format!("source,{other_id}")]);
    assert_eq!(standby["config"]["standbys"], json!([id, other_id]));
    assert_ne!(standby["state"], "started");
    // A copy of a standby stands by for the same Machines.
    let standby_id = standby["id"].as_str().unwrap();
    let copy = world.ok(&["machine", "clone", standby_id]).stdout;
    let copy = world.machine("twin", copy.trim());
    assert_eq!(copy["config"]["standbys"], standby["config"]["standbys"]);
    assert_ne!(copy["state"], "started");
}

#[test]
fn a_machine_moves_to_another_group_by_its_metadata_and_the_next_deploy() {
    let Some(world) = World::start() else { return };
    let groups = "[processes]\napp = \"serve\"\nworker = \"lines 1 0\"\n";
    let toml = fly_toml("moves", &format!("{groups}{}", service(&["app"])));
    let folder = world.app("moves", &toml);
    let deploy = |world: &World| {
        let words = ["deploy", &folder, "--ha=false", "--smoke-checks=false"];
        world.ok(&words)
    };
    deploy(&world);
    let worker = world.only("moves", "worker");
    let to = |group: &str| {
        let pair = format!("fly_process_group={group}");
        world.ok(&["machine", "update", &worker, "--metadata", &pair, "--yes"]);
        world.machine("moves", &worker)["config"].clone()
    };
    // Only the metadata changes: it runs what it ran.
    let moved = to("app");
    assert_eq!(moved["metadata"]["fly_process_group"], "app");
    assert_eq!(moved["init"]["cmd"], json!(["lines", "1", "0"]));
    assert_eq!(moved["services"], Value::Null);
    deploy(&world);
    let config = world.machine("moves", &worker)["config"].clone();
    assert_eq!(config["init"]["cmd"], json!(["serve"]));
    assert_eq!(config["services"][0]["internal_port"], 8080);
    assert_eq!(world.of_group("moves", "app").len(), 2);
    let fresh = world.only("moves", "worker");
    assert_ne!(fresh, worker);
    // One whose group is not in fly.toml goes with the next deploy.
    to("nowhere");
    deploy(&world);
    let left = world.machines("moves");
    assert!(!left.iter().any(|m| m["id"] == worker), "{left:?}");
    // One that was only run becomes the app's by its metadata.
    let lone = run(&world, "moves", &[IMAGE, "serve"]);
    let adopt = [
        "machine",
        "update",
        &lone,
        "-m",
        "fly_platform_version=v2",
        "-m",
        "fly_process_group=app",
        "--yes",
    ];
    world.ok(&adopt);
    deploy(&world);
    let config = world.machine("moves", &lone)["config"].clone();
    assert_eq!(config["services"][0]["internal_port"], 8080);
}
