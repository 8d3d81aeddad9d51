//! Flags of `deploy` that decide what is looked at, and how it is carried out and told.

use crate::world::{World, fly_toml, service};

#[test]
fn chosen_groups_are_checked_and_mistakes_of_others_do_not_matter() {
    let Some(world) = World::start() else { return };
    let mount = "[[mounts]]\nsource = \"data\"\ndestination = \"/data\"\nprocesses = [\"app\"]\n";
    let groups = "[processes]\napp = \"lines 1 0\"\nfoo = \"lines 1 0\"\n";
    let folder = world.app("chosen", &fly_toml("chosen", &format!("{groups}{mount}")));
    let canary = ["deploy", &folder, "--strategy", "canary", "--ha=false"];

    // Rows validate-groups: canary and a mount for `app` alone.
    let refused = "canary deployment strategy is not supported when using mounted volumes";
    let said = world.fails(2, &canary);
    assert!(said.contains(refused), "{said}");
    let said = world.fails(2, &[&canary[..], &["--process-groups", "app"]].concat());
    assert!(
        said.contains(refused) && said.contains("for process group app"),
        "{said}"
    );
    assert!(world.json(&["apps", "list"]).as_array().unwrap().is_empty());
    let only_foo = ["--process-groups", "foo", "--smoke-checks=false"];
    world.ok(&[&canary[..], &only_foo].concat());
    assert_eq!(world.started_groups("chosen"), ["foo"]);

    // The same of a release that is deployed again.
    let again = ["deploy", "-a", "chosen", "--strategy", "canary"];
    let said = world.fails(2, &again);
    assert!(said.contains(refused), "{said}");
    world.ok(&[&again[..], &only_foo].concat());

    let said = world.fails(2, &["deploy", &folder, "--process-groups", "fo"]);
    assert!(
        said.contains("there is no process group 'fo'") && said.contains("foo"),
        "{said}"
    );
}

#[test]
fn what_the_file_itself_asks_for_is_checked_whole_whatever_is_chosen() {
    let Some(world) = World::start() else { return };
    let groups = "[processes]\nfailure = \"serve\"\nsuccess = \"serve\"\n";
    let strategy = "[deploy]\nstrategy = \"canary\"\n";
    let mount =
        "[[mounts]]\nsource = \"data\"\ndestination = \"/data\"\nprocesses = [\"failure\"]\n";
    let text = format!("{groups}{strategy}{mount}{}", service(&["success"]));
    let folder = world.app("whole", &fly_toml("whole", &text));
    let said = world.fails(2, &["deploy", &folder, "--process-groups", "success"]);
    assert!(said.contains("canary deployment strategy"), "{said}");
}
