//! The embedded registry with the clients that people have, and what becomes of a push.

use std::io::Write as _;
use std::net::TcpStream;

use serde_json::Value;

use crate::images::{can_run, docker_registry, shell, toml};
use crate::world::{API, Answer, World, image_spec, request};

/// Returns a world with an app to push to, and the way that skopeo signs in.
fn world(app: &str) -> Option<(World, String)> {
    let world = World::start()?;
    world.ok(&["apps", "create", app]);
    let sign_in = format!("tls-verify=false --src-creds x:{}", world.token());
    Some((world, sign_in))
}

fn push(world: &World, archive: &str, to: &str) {
    let token = world.token();
    shell(
        world,
        &format!(
            "skopeo copy -q --dest-tls-verify=false --dest-creds x:{token} \
             oci-archive:{archive}.tar docker://localhost:4280/{to}"
        ),
    );
}

/// Sends a request to the registry with the admin token.
fn call(world: &World, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
    let head = format!("authorization: Bearer {}\r\n{headers}", world.token());
    world
        .inside(|| request(API, method, path, "localhost", &head, body))
        .unwrap()
}

#[test]
fn skopeo_pushes_an_image_that_an_app_runs_by_every_name_and_pulls_it_again() {
    if !can_run(&["skopeo"]) {
        return;
    }
    let Some((world, sign_in)) = world("pushed") else {
        return;
    };
    push(&world, "testapp", "pushed:v1");
    let folder = world.app("pushed", &toml("pushed", "registry.fly.io/pushed:v1"));
    world.ok(&["deploy", &folder, "--ha=false"]);
    assert_eq!(world.ask("pushed")["group"], "app");
    let image = world.machines("pushed")[0]["image_ref"].clone();
    assert_eq!(
        (&image["registry"], &image["repository"], &image["tag"]),
        (&"registry.fly.io".into(), &"pushed".into(), &"v1".into())
    );
    for name in ["pushed:v1", "localhost:4280/pushed:v1"] {
        world.ok(&["deploy", &folder, "--image", name]);
        assert_eq!(
            world.machines("pushed")[0]["image_ref"]["digest"],
            image["digest"],
            "{name}"
        );
    }
    let said = world.fails(
        3,
        &["deploy", &folder, "--image", "registry.fly.io/pushed:none"],
    );
    assert!(
        said.contains("nobody has pushed tag none of pushed"),
        "{said}"
    );
    let listed = world.ok(&["image", "list"]).stdout;
    assert!(listed.contains("registry.fly.io/pushed:v1"), "{listed}");

    let inspected = shell(
        &world,
        &format!(
            "skopeo inspect --tls-verify=false --creds x:{} docker://localhost:4280/pushed:v1",
            world.token()
        ),
    );
    let inspected: Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!(inspected["Digest"], image["digest"]);
    assert_eq!(inspected["RepoTags"], serde_json::json!(["v1"]));
    shell(
        &world,
        &format!(
            "skopeo copy -q --src-{sign_in} docker://localhost:4280/pushed:v1 oci-archive:back.tar"
        ),
    );
    world.ok(&[
        "image",
        "import",
        &world.path("back.tar").to_string_lossy(),
        "--name",
        "back",
    ]);
    let back = world.json(&["image", "list"]);
    let digest = |name: &str| {
        let found = back
            .as_array()
            .unwrap()
            .iter()
            .find(|row| row["name"] == name);
        found.unwrap_or_else(|| panic!("{name}: {back}"))["digest"].clone()
    };
    assert_eq!(digest("back:latest"), image["digest"]);
}

#[test]
fn docker_formats_and_many_platforms_are_pushed_and_run() {
    if !can_run(&["skopeo"]) {
        return;
    }
    let Some((world, _)) = world("formats") else {
        return;
    };
    let token = world.token();
    let to = "docker://localhost:4280/formats";
    shell(
        &world,
        &format!(
            "skopeo copy -q --format v2s2 --dest-tls-verify=false --dest-creds x:{token} \
             oci-archive:testapp.tar {to}:docker"
        ),
    );
    let folder = world.app(
        "formats",
        &toml("formats", "registry.fly.io/formats:docker"),
    );
    world.ok(&["deploy", &folder, "--ha=false"]);
    let docker = world.machines("formats")[0]["image_ref"]["digest"].clone();
    // An index of what was just pushed: the child for this machine is what runs.
    let size = shell(
        &world,
        &format!("skopeo inspect --raw --tls-verify=false --creds x:{token} {to}:docker | wc -c"),
    );
    let index = serde_json::json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "digest": docker,
            "size": size.trim().parse::<u64>().unwrap(),
            "platform": {"os": "linux", "architecture": hangar_image::Platform::this().architecture},
        }],
    });
    let kind = "content-type: application/vnd.oci.image.index.v1+json\r\n";
    let put = call(
        &world,
        "PUT",
        "/v2/formats/manifests/all",
        kind,
        index.to_string().as_bytes(),
    );
    assert_eq!(put.status, 201, "{put:?}");
    world.ok(&["deploy", &folder, "--image", "registry.fly.io/formats:all"]);
    assert_eq!(world.machines("formats")[0]["image_ref"]["digest"], docker);
    assert_eq!(world.ask("formats")["group"], "app");
}

#[test]
fn buildah_signs_in_builds_pushes_and_pulls() {
    if !can_run(&["buildah"]) {
        return;
    }
    let Some((world, _)) = world("built") else {
        return;
    };
    std::fs::write(
        world.path("Dockerfile"),
        "FROM scratch\nCOPY testapp /\nENTRYPOINT [\"/testapp\"]\nCMD [\"serve\"]\n",
    )
    .unwrap();
    let program = &image_spec().files[0].content;
    std::fs::write(world.path("testapp"), program).unwrap();
    let mut permissions = std::fs::metadata(world.path("testapp"))
        .unwrap()
        .permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o755);
    std::fs::set_permissions(world.path("testapp"), permissions).unwrap();
    let buildah = "b='buildah --root st --runroot run --storage-driver vfs'";
    let auth = "--tls-verify=false --authfile auth.json";
    let token = world.token();
    shell(
        &world,
        &format!(
            "{buildah}; echo {token} | $b login {auth} -u x --password-stdin localhost:4280
            $b bud -q --isolation chroot -t localhost:4280/built/app:1 . >/dev/null
            $b push -q {auth} localhost:4280/built/app:1
            $b rmi localhost:4280/built/app:1 >/dev/null
            $b pull -q {auth} localhost:4280/built/app:1 >/dev/null
            $b logout --authfile auth.json localhost:4280"
        ),
    );
    let refused = format!("{buildah}; ! $b push -q {auth} localhost:4280/built/app:1 2>refused");
    shell(&world, &refused);
    let wrong =
        format!("{buildah}; ! echo wrong | $b login {auth} -u x --password-stdin localhost:4280");
    shell(&world, &wrong);
    let folder = world.app("built", &toml("built", "registry.fly.io/built/app:1"));
    world.ok(&["deploy", &folder, "--ha=false"]);
    assert_eq!(world.ask("built")["group"], "app");
}

#[test]
fn a_push_to_no_app_is_refused_with_the_words_that_clients_look_for() {
    if !can_run(&["skopeo"]) {
        return;
    }
    let Some(world) = World::start() else { return };
    let token = world.token();
    let said = shell(
        &world,
        &format!(
            "! skopeo copy -q --dest-tls-verify=false --dest-creds x:{token} oci-archive:testapp.tar \
             docker://localhost:4280/nobody:v1 2>&1"
        ),
    );
    assert!(
        said.contains("denied: requested access to the resource is denied"),
        "{said}"
    );
    let said = shell(
        &world,
        "! skopeo inspect --tls-verify=false --creds x:wrong docker://localhost:4280/nobody:v1 2>&1",
    );
    assert!(said.contains("authentication required"), "{said}");
}

#[test]
fn docker_signs_in_pushes_and_pulls() {
    if !can_run(&["docker"]) {
        return;
    }
    let Some((world, _)) = world("docked") else {
        return;
    };
    // Signing in and pushing are the daemon's work, which is not everywhere.
    let mut command = world.command("docker");
    if crate::world::finish(command.arg("version")).code != 0 {
        eprintln!("skipped: needs a docker daemon");
        return;
    }
    let token = world.token();
    shell(
        &world,
        &format!(
            "export DOCKER_CONFIG=$PWD/docker
            echo {token} | docker login -u x --password-stdin localhost:4280
            docker load -qi testapp.tar >/dev/null
            docker tag testapp localhost:4280/docked:1
            docker push -q localhost:4280/docked:1
            docker rmi localhost:4280/docked:1
            docker pull -q localhost:4280/docked:1"
        ),
    );
}

#[test]
fn an_upload_that_a_killed_server_was_taking_goes_on_after_the_restart() {
    let Some((mut world, _)) = world("resumed") else {
        return;
    };
    let content: Vec<u8> = (0..4_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let half = content.len() / 2;
    let token = world.token();
    let begin = "/v2/resumed/blobs/uploads/";
    let head = format!(
        "POST {begin} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    let answer = world.inside(|| {
        let mut stream = TcpStream::connect(API).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        std::io::read_to_string(stream).unwrap()
    });
    let place = answer
        .lines()
        .find_map(|line| line.strip_prefix("location: "))
        .unwrap()
        .to_owned();
    // One chunk is promised; of the next one a part is on its way when the server is killed.
    let first = call(&world, "PATCH", &place, "", &content[..half]);
    assert_eq!(first.status, 202, "{first:?}");
    let head = format!(
        "PATCH {place} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-range: {half}-{}\r\n\
         content-length: {half}\r\n\r\n",
        content.len() - 1
    );
    let mut stream = world.inside(|| TcpStream::connect(API)).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&content[half..half + half / 2]).unwrap();
    let file = world
        .data_dir()
        .join("images/uploads")
        .join(place.rsplit('/').next().unwrap());
    world.eventually("some of it is written", |_| {
        let len = std::fs::metadata(&file).unwrap().len();
        (len > u64::try_from(half).unwrap()).then_some(())
    });
    world.kill_server();
    drop(stream);
    world.start_server();

    let have = usize::try_from(std::fs::metadata(&file).unwrap().len()).unwrap();
    assert!((half..content.len()).contains(&have), "{have}");
    let status = call(&world, "GET", &place, "", b"");
    assert_eq!(status.status, 204, "{status:?}");
    let range = format!("content-range: {have}-{}\r\n", content.len() - 1);
    let digest = hangar_image::Digest::of(&content);
    let put = call(
        &world,
        "PUT",
        &format!("{place}?digest={digest}"),
        &range,
        &content[have..],
    );
    assert_eq!(put.status, 201, "{put:?}");
    let stored = world
        .data_dir()
        .join("images/blobs/sha256")
        .join(digest.hex());
    assert!(std::fs::read(stored).unwrap() == content);
}

#[test]
fn a_name_of_docker_hub_is_found_at_a_mirror_and_a_private_registry_is_signed_in_to() {
    if !can_run(&["skopeo", "docker-registry"]) {
        return;
    }
    let Some(mut world) = World::start() else {
        return;
    };
    // The password is "secret".
    let hash = "$2b$04$cxYm6eGaw4AVoXCp016Wyen2lAvTwatqFyces5zeP59mVfPy1YaLK";
    std::fs::write(world.path("htpasswd"), format!("user:{hash}\n")).unwrap();
    let path = world.path("htpasswd");
    let auth = format!("auth: {{htpasswd: {{realm: r, path: {}}}}}", path.display());
    docker_registry(&mut world, 5000, "");
    docker_registry(&mut world, 5001, &auth);
    for (to, creds) in [
        ("5000/library/mirrored:1", ""),
        ("5001/team/private:1", "--dest-creds user:secret"),
    ] {
        shell(
            &world,
            &format!(
                "skopeo copy -q --dest-tls-verify=false {creds} oci-archive:testapp.tar docker://127.0.0.1:{to}"
            ),
        );
    }
    let private = "127.0.0.1:5001/team/private:1";
    let folder = world.app("private", &toml("private", private));
    let said = world.fails(1, &["deploy", &folder, "--ha=false"]);
    assert!(said.contains("--registry-auth"), "{said}");

    let sign_in = r#"{"auths": {"127.0.0.1:5001": {"auth": "dXNlcjpzZWNyZXQ="}}}"#;
    std::fs::write(world.path("auth.json"), sign_in).unwrap();
    world.stop_server();
    let file = world.path("auth.json").to_string_lossy().into_owned();
    world.set_arguments(&[
        "--registry-auth",
        &file,
        "--registry-mirror",
        "docker.io=http://127.0.0.1:5000",
        "--registry-host",
        "images.example",
    ]);
    world.start_server();
    world.ok(&["deploy", &folder, "--ha=false"]);
    assert_eq!(world.ask("private")["group"], "app");
    for name in [
        "mirrored:1",
        "library/mirrored:1",
        "docker.io/library/mirrored:1",
    ] {
        world.ok(&["deploy", &folder, "--image", name]);
        let image = &world.machines("private")[0]["image_ref"];
        assert_eq!(image["repository"], "library/mirrored", "{name}");
    }
    push(&world, "testapp", "private:own");
    world.ok(&["deploy", &folder, "--image", "images.example/private:own"]);
    // What was pushed to an app of this name comes before Docker Hub and its mirrors.
    world.ok(&["apps", "create", "mirrored"]);
    push(&world, "testapp", "mirrored:1");
    world.ok(&["deploy", &folder, "--image", "mirrored:1"]);
    let image = &world.machines("private")[0]["image_ref"];
    assert_eq!(image["registry"], "registry.fly.io");
}

#[test]
fn a_machine_runs_on_and_can_be_made_again_when_its_tag_is_deleted_and_images_are_pruned() {
    if !can_run(&["skopeo"]) {
        return;
    }
    let Some((mut world, _)) = world("untagged") else {
        return;
    };
    push(&world, "testapp", "untagged:v1");
    let folder = world.app("untagged", &toml("untagged", "registry.fly.io/untagged:v1"));
    world.ok(&["deploy", &folder, "--ha=false"]);
    let deleted = call(&world, "DELETE", "/v2/untagged/manifests/v1", "", b"");
    assert_eq!(deleted.status, 202, "{deleted:?}");
    world.ok(&["image", "prune"]);
    world.ok(&["scale", "count", "2", "-a", "untagged", "--yes"]);
    world.stop_server();
    world.start_server();
    world.ok(&["image", "prune"]);
    world.ok(&["scale", "count", "3", "-a", "untagged", "--yes"]);
    world.eventually("all of them run", |world| {
        (world.started_groups("untagged").len() == 3).then_some(())
    });
}

#[test]
fn a_push_that_would_fill_the_disk_is_refused_and_what_runs_goes_on() {
    let Some(mut world) = World::empty() else {
        return;
    };
    let data = world.data_dir();
    // The server's own program is copied there for Machines, and has debug information here.
    let program = std::fs::metadata(env!("CARGO_BIN_EXE_hangar"))
        .unwrap()
        .len();
    world.mount(&data, 100 + u32::try_from(program >> 20).unwrap());
    world.start_server();
    world.import("testapp", &image_spec());
    let folder = world.app("full", &toml("full", "testapp"));
    world.ok(&["deploy", &folder, "--ha=false"]);
    let content = vec![7_u8; 300 << 20];
    let digest = hangar_image::Digest::of(&content);
    // With its length announced, and as a stream that nobody knows the end of.
    let announced = format!("/v2/full/blobs/uploads/?digest={digest}");
    let refused = call(&world, "POST", &announced, "", &content);
    assert_eq!(refused.status, 507, "{refused:?}");
    assert!(
        refused.body.contains("is full") && refused.body.contains("DENIED"),
        "{refused:?}"
    );
    let file = world.path("content");
    std::fs::write(&file, &content).unwrap();
    drop(content);
    let token = world.token();
    let streamed = shell(
        &world,
        &format!(
            "place=$(curl -s -i -u x:{token} -X POST http://localhost:4280/v2/full/blobs/uploads/ |
                tr -d '\\r' | awk '$1 == \"location:\" {{ print $2 }}')
            curl -s -u x:{token} -X PATCH -T - http://localhost:4280$place < content"
        ),
    );
    assert!(streamed.contains("is full"), "{streamed}");
    assert_eq!(world.ask("full")["group"], "app");
    world.ok(&["apps", "create", "another"]);
    world.ok(&["scale", "count", "2", "-a", "full", "--yes"]);
    let small = b"small";
    let digest = hangar_image::Digest::of(small);
    let path = format!("/v2/full/blobs/uploads/?digest={digest}");
    let pushed = call(&world, "POST", &path, "", small);
    assert_eq!(pushed.status, 201, "{pushed:?}");
}

#[test]
fn what_is_wrong_with_the_flags_of_registries_stops_the_start_in_words() {
    let Some(world) = World::empty() else { return };
    std::fs::write(world.path("auth.json"), r#"{"credsStore": "desktop"}"#).unwrap();
    let file = world.path("auth.json").to_string_lossy().into_owned();
    let said = world.fails(1, &["server", "--registry-auth", &file]);
    assert!(said.contains("helper program"), "{said}");
    let said = world.fails(1, &["server", "--registry-auth", "/does/not/exist"]);
    assert!(said.contains("/does/not/exist"), "{said}");
    let said = world.fails(2, &["server", "--registry-mirror", "ftp://x"]);
    assert!(said.contains("https:// or http://"), "{said}");
}
