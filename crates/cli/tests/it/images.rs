//! Images on their way from other tools to a Machine.

use std::process::{Command, Stdio};

use crate::world::{World, fly_toml, image_spec, service};

/// Returns whether the tools are there; says which is not.
pub(crate) fn can_run(tools: &[&str]) -> bool {
    for tool in tools {
        let found = Command::new("sh")
            .args(["-c", &format!("command -v {tool}")])
            .stdout(Stdio::null())
            .status();
        if !found.is_ok_and(|status| status.success()) {
            eprintln!("skipped: needs {tool}");
            return false;
        }
    }
    true
}

/// Runs a script in the world and returns what it printed.
pub(crate) fn shell(world: &World, script: &str) -> String {
    let mut command = world.command("sh");
    let ran = crate::world::finish(command.args(["-ec", script]));
    assert_eq!(ran.code, 0, "{script}\n{}\n{}", ran.stdout, ran.stderr);
    ran.stdout
}

/// Returns the fly.toml of an app that serves an image of this name.
pub(crate) fn toml(app: &str, image: &str) -> String {
    let text = fly_toml(app, &service(&[]));
    text.replace("\"testapp\"", &format!("\"{image}\""))
}

/// Starts Debian's registry server in the world, with more lines of its configuration.
pub(crate) fn docker_registry(world: &mut World, port: u16, more: &str) {
    let config = world.path(&format!("registry-{port}.yml"));
    let data = world.path(&format!("registry-{port}"));
    std::fs::write(
        &config,
        format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: \"127.0.0.1:{port}\"}}\n{more}\n",
            data.display()
        ),
    )
    .unwrap();
    let mut command = world.command("docker-registry");
    command.arg("serve").arg(&config);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    world.keep(&mut command);
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    world.eventually("the registry answers", |world| {
        world
            .inside(|| std::net::TcpStream::connect(address))
            .ok()
            .map(drop)
    });
}

/// Two stages, an argument, a secret, and a file that must not get in.
const DOCKERFILE: &str = "FROM scratch AS wrong
COPY none /none
FROM scratch AS right
ARG COLOUR=none
ARG SHAPE=none
COPY context /
ENV BUILT=$COLOUR-$SHAPE
ENTRYPOINT [\"/testapp\"]
CMD [\"serve\"]
";

#[test]
fn a_dockerfile_is_built_with_its_arguments_target_and_ignore_file() {
    if !can_run(&["buildah"]) {
        return;
    }
    let Some(world) = World::start() else { return };
    let section = "[build]\ndockerfile = \"docker/Own\"\nignorefile = \"own.ignore\"\nbuild-target = \"right\"\n[build.args]\nCOLOUR = \"blue\"\n";
    let text = toml("built", "testapp");
    let text = text.replace("[build]\nimage = \"testapp\"\n", section);
    assert!(text.contains("own.ignore"), "{text}");
    let folder = world.app("built", &text);
    let context = world.path("built/context");
    std::fs::create_dir_all(&context).unwrap();
    std::fs::create_dir_all(world.path("built/docker")).unwrap();
    let testapp = std::path::Path::new(env!("CARGO_BIN_EXE_hangar"));
    let testapp = testapp.with_file_name("examples").join("testapp");
    std::fs::copy(testapp, context.join("testapp")).unwrap();
    std::fs::write(context.join("private"), "left out").unwrap();
    std::fs::write(world.path("built/own.ignore"), "context/private\n").unwrap();
    std::fs::write(world.path("built/docker/Own"), DOCKERFILE).unwrap();
    let ran = world.ok(&[
        "deploy",
        &folder,
        "--ha=false",
        "--build-arg",
        "SHAPE=round",
        "--label",
        "made.by=a test",
    ]);
    assert!(ran.stderr.contains("with buildah"), "{}", ran.stderr);
    // What the builder says is passed on.
    assert!(ran.stderr.contains("COPY context"), "{}", ran.stderr);
    let machines = world.machines("built");
    let id = machines[0]["id"].as_str().unwrap();
    let exec = |words: &[&str]| {
        let command = [&["machine", "exec", "-a", "built", id, "/testapp"], words].concat();
        world.hangar(&command)
    };
    let env = exec(&["env"]).stdout;
    assert!(env.contains("BUILT=blue-round"), "{env}");
    assert_eq!(exec(&["has", "/testapp"]).code, 0);
    assert_eq!(
        exec(&["has", "/private"]).code,
        1,
        "the ignore file was not heeded"
    );
    let blobs = std::fs::read_dir(world.data_dir().join("images/blobs/sha256")).unwrap();
    let label = b"\"made.by\":\"a test\"";
    let has_it = |blob: Vec<u8>| blob.windows(label.len()).any(|part| part == label);
    let mut blobs = blobs.flatten();
    assert!(
        blobs.any(|blob| std::fs::read(blob.path()).is_ok_and(has_it)),
        "no label"
    );
    let said = world.fails(2, &["deploy", &folder, "--build-arg", "NOTHING"]);
    assert!(said.contains("NAME=VALUE"), "{said}");
    let built = world.ok(&["deploy", &folder, "--build-only", "--build-target", "right"]);
    assert_eq!(built.stdout.trim(), "built:built");
    world.fails(1, &["deploy", &folder, "--build-target", "wrong"]);
}

#[test]
fn images_of_other_tools_are_imported_in_every_form_and_deployed_by_name() {
    if !can_run(&["skopeo"]) {
        return;
    }
    let Some(world) = World::start() else { return };
    shell(
        &world,
        "skopeo copy -q oci-archive:testapp.tar oci:layout:one
         skopeo copy -q oci-archive:testapp.tar oci-archive:again.tar:one
         skopeo copy -q oci-archive:testapp.tar docker-archive:saved.tar:some/name:tag",
    );
    for (path, name) in [("layout", "a:1"), ("again.tar", "b"), ("saved.tar", "c:x")] {
        world.ok(&["image", "import", path, "--name", name]);
    }
    let folder = world.app("forms", &toml("forms", "a:1"));
    world.ok(&["deploy", &folder, "--ha=false"]);
    assert_eq!(world.ask("forms")["group"], "app");
    for image in ["b", "c:x", "saved.tar", "layout"] {
        world.ok(&["deploy", &folder, "--image", image]);
        assert_eq!(world.ask("forms")["group"], "app");
    }
    let listed = world.json(&["image", "list"]);
    let names: Vec<&str> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|image| image["name"].as_str().unwrap())
        .collect();
    for name in ["a:1", "b:latest", "c:x", "forms:built"] {
        assert!(names.iter().any(|n| n.ends_with(name)), "{names:?}");
    }
}

#[test]
fn images_are_pulled_from_a_registry_by_tag_and_by_digest() {
    if !can_run(&["skopeo", "docker-registry"]) {
        return;
    }
    let Some(mut world) = World::start() else {
        return;
    };
    docker_registry(&mut world, 5000, "");
    shell(
        &world,
        "skopeo copy -q --dest-tls-verify=false oci-archive:testapp.tar docker://127.0.0.1:5000/team/web:v1",
    );
    let by_tag = "127.0.0.1:5000/team/web:v1";
    let folder = world.app("pulled", &toml("pulled", by_tag));
    world.ok(&["deploy", &folder, "--ha=false"]);
    assert_eq!(world.ask("pulled")["group"], "app");
    let machine = world.machines("pulled").remove(0);
    let digest = machine["image_ref"]["digest"].as_str().unwrap().to_owned();
    assert_eq!(machine["image_ref"]["tag"], "v1");
    let by_digest = format!("127.0.0.1:5000/team/web@{digest}");
    world.ok(&["deploy", &folder, "--image", &by_digest]);
    assert_eq!(
        world.machines("pulled")[0]["image_ref"]["digest"],
        digest.as_str()
    );

    let said = world.fails(
        3,
        &["deploy", &folder, "--image", "127.0.0.1:5000/team/web:none"],
    );
    assert!(
        said.contains("team/web") && said.contains("no tag none"),
        "{said}"
    );
    assert_eq!(world.ask("pulled")["group"], "app");
}

#[test]
fn pruning_keeps_what_machines_and_the_last_releases_need() {
    let Some(world) = World::start() else { return };
    let folder = world.app("prune", &toml("prune", "v0"));
    for number in 0..7 {
        let mut spec = image_spec();
        spec.env.insert("NUMBER".into(), number.to_string());
        let name = format!("v{number}");
        world.import(&name, &spec);
        world.ok(&["deploy", &folder, "--ha=false", "--image", &name]);
    }
    world.import("unused", &{
        let mut spec = image_spec();
        spec.env.insert("NUMBER".into(), "none".into());
        spec
    });
    world.ok(&["image", "prune"]);
    let listed = world.ok(&["image", "list"]).stdout;
    for kept in ["v2", "v3", "v4", "v5", "v6"] {
        assert!(listed.contains(kept), "{kept}: {listed}");
    }
    // Images that were asked for a moment ago are about to be used, and stay for a while.
    for gone in ["unused", "testapp"] {
        assert!(!listed.contains(gone), "{gone}: {listed}");
    }
    // What is kept can still be gone back to.
    world.ok(&["releases", "rollback", "v3", "-a", "prune"]);
    assert!(world.get("prune", "/env").body.contains("NUMBER=2"));
}
