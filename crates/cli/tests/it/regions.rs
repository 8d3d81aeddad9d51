//! One machine stands for every region.

use crate::world::{World, fly_toml, service};

#[test]
fn a_clone_in_another_region_says_so_everywhere() {
    let Some(world) = World::start() else { return };
    let folder = world.app("far", &fly_toml("far", &service(&[])));
    world.ok(&["deploy", &folder, "--ha=false"]);
    let home = world.only("far", "app");
    let ran = world.ok(&["machine", "clone", &home, "--region", "gru", "-a", "far"]);
    let clone = ran.stdout.trim().to_owned();
    assert_eq!(world.machine("far", &clone)["region"], "gru");
    let env = world.exec("far", &clone, &["env"]).stdout;
    assert!(env.contains("FLY_REGION=gru\n"), "{env}");
    assert!(env.contains("PRIMARY_REGION=iad\n"), "{env}");
    let status = world.ok(&["status", "-a", "far"]).stdout;
    let line = status.lines().find(|line| line.contains(&clone)).unwrap();
    assert!(line.contains(" gru "), "{status}");

    let ip = |id: &str| {
        world.machine("far", id)["private_ip"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let resolve = |name: &str| {
        let ran = world.exec("far", &home, &["resolve", name]);
        let mut found: Vec<String> = ran.stdout.lines().map(str::to_owned).collect();
        found.sort();
        found
    };
    assert_eq!(resolve("gru.far.internal"), [ip(&clone)]);
    assert_eq!(resolve("iad.far.internal"), [ip(&home)]);
    assert_eq!(resolve(&format!("{clone}.vm.far.internal")), [ip(&clone)]);
    assert_eq!(resolve("far.internal").len(), 2);

    let said = world.fails(
        1,
        &["machine", "clone", &home, "--region", "xyz", "-a", "far"],
    );
    assert!(said.contains("xyz"), "{said}");
    let regions = world.ok(&["platform", "regions"]).stdout;
    assert!(
        regions.contains("gru") && regions.contains("iad"),
        "{regions}"
    );
}
