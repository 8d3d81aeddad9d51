//! Bad input: one clear message, nothing half-made, and what runs goes on.

use crate::world::{IMAGE, World};

#[test]
fn a_wrong_token_is_refused_in_words() {
    let Some(world) = World::start() else { return };
    let mut command = world.command(env!("CARGO_BIN_EXE_hangar"));
    let output = command
        .args(["apps", "list"])
        .env("HANGAR_ACCESS_TOKEN", "wrong")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("token"),
        "{output:?}"
    );
}

#[test]
fn an_app_name_that_is_a_path_is_refused() {
    let Some(world) = World::start() else { return };
    let ran = world.hangar(&["apps", "create", "../etc"]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("lowercase letters"), "{}", ran.stderr);
    let folder = world.app(
        "path",
        &format!("app = \"../../etc\"\n[build]\nimage = \"{IMAGE}\"\n"),
    );
    let ran = world.hangar(&["deploy", &folder]);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
}

#[test]
fn a_missing_image_leaves_no_machine_behind() {
    let Some(world) = World::start() else { return };
    let folder = world.app(
        "noimage",
        "app = \"noimage\"\n[build]\nimage = \"127.0.0.1:1/no/such:tag\"\n",
    );
    let ran = world.hangar(&["deploy", &folder]);
    assert_ne!(ran.code, 0);
    assert!(ran.stderr.contains("no/such"), "{}", ran.stderr);
    let listed = world.hangar(&["machine", "list", "-a", "noimage", "--quiet"]);
    assert_eq!(listed.stdout.trim(), "", "{listed:?}");
}

#[test]
fn a_second_server_is_told_that_the_directory_is_taken() {
    let Some(world) = World::start() else { return };
    let ran = world.hangar(&["server", "--listen", "127.0.0.1:0"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains("is in use by another Hangar server"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_taken_port_is_named() {
    let Some(world) = World::start() else { return };
    let other = world.path("other").to_string_lossy().into_owned();
    let ran = world.hangar(&["server", "--data-dir", &other]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains("127.0.0.1:4280") && ran.stderr.contains("--listen"),
        "{}",
        ran.stderr
    );
}
