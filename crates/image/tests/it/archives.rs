//! Imports of what other tools write.

use std::fs;
use std::path::Path;

use hangar_api::error::ErrorKind;
use hangar_image::{ImageError, ReadyImage, build};

use crate::world::{World, can_run, run, sh, skopeo_copy, spec, umoci_image};

/// What is in a directory, one line an entry. Overlayfs counts links of directories its own way.
const SHOW: &str = r#"
    find . -mindepth 1 -type d -printf '%P %y %m %U %G %T@\n' | sort
    find . ! -type d -printf '%P %y %m %U %G %T@ %n %s %l\n' | sort
    find . -type f -exec sha256sum {} + | sort"#;

/// Returns what a Machine would see: the layers stacked by overlayfs.
fn show_stacked(image: &ReadyImage, dir: &Path) -> String {
    let lower: Vec<_> = image
        .layers
        .iter()
        .rev()
        .map(|l| l.to_str().unwrap())
        .collect();
    let mount = dir.join("mount");
    fs::create_dir_all(&mount).unwrap();
    let mount = mount.to_str().unwrap();
    // A single layer cannot be an overlay of lower directories alone.
    let empty = dir.join("empty");
    fs::create_dir_all(&empty).unwrap();
    let script = format!(
        "set -e; mount -t overlay overlay -o lowerdir={}:{} {mount}; cd {mount}; {SHOW}",
        lower.join(":"),
        empty.display()
    );
    run("unshare", &["-m", "sh", "-c", &script])
}

#[tokio::test]
async fn an_image_of_umoci_looks_as_umoci_unpacks_it() {
    if !can_run(&["umoci", "unshare"]) {
        return;
    }
    let world = World::new();
    umoci_image(world.dir.path());
    let image = world
        .store
        .import(world.path("layout"), "web")
        .await
        .unwrap();
    assert_eq!(
        (image.registry.as_str(), image.repository.as_str()),
        ("localhost", "web")
    );
    assert_eq!(
        (image.tag.as_str(), image.labels["team"].as_str()),
        ("latest", "blue")
    );
    let ready = world.store.ensure(&image).await.unwrap();
    // Two layers, and one that gives unlisted directories their attributes back.
    assert_eq!(ready.layers.len(), 3);
    let config = &ready.config;
    assert_eq!(
        (config.entrypoint.as_slice(), config.cmd.as_slice()),
        (&["/bin/app".to_owned()][..], &["serve".to_owned()][..])
    );
    assert_eq!(
        (config.env["A"].as_str(), config.user.as_str()),
        ("1", "1000:1001")
    );
    assert_eq!(
        (config.workdir.as_str(), config.exposed_ports.as_slice()),
        ("/data", &["8080/tcp".to_owned()][..])
    );
    assert_eq!(config.stop_signal.as_deref(), Some("SIGQUIT"));

    sh(world.dir.path(), "umoci unpack --image layout:new whole");
    let want = sh(&world.path("whole/rootfs"), SHOW);
    let got = show_stacked(&ready, world.dir.path());
    assert_eq!(got, want);
    for entry in [
        "bin/app f 4755 1000 1001",
        "opt d 750 1000 1001",
        "tmp d 1777 0 0",
    ] {
        assert!(got.contains(entry), "{got}");
    }
    assert!(!got.contains("etc/conf"), "{got}");
    world.assert_clean();
}

#[tokio::test]
async fn every_kind_of_archive_gives_the_same_layers_and_config() {
    if !can_run(&["umoci", "skopeo", "gzip"]) {
        return;
    }
    let world = World::new();
    let dir = world.dir.path();
    umoci_image(dir);
    skopeo_copy(dir, "oci:layout:new oci-archive:oci.tar:web:1");
    skopeo_copy(dir, "oci:layout:new docker-archive:docker.tar:web:1");
    sh(
        dir,
        "gzip -k docker.tar; mkdir packed; tar -C packed -xf docker.tar",
    );
    build::pack_layout(&world.path("layout"), &world.path("packed.tar")).unwrap();
    let layout = world
        .store
        .import(world.path("layout"), "web")
        .await
        .unwrap();
    let want = world.store.ensure(&layout).await.unwrap();
    for kind in [
        "oci.tar",
        "docker.tar",
        "docker.tar.gz",
        "packed",
        "packed.tar",
    ] {
        let other = World::new();
        let image = other.store.import(world.path(kind), "web:1").await.unwrap();
        let ready = other.store.ensure(&image).await.unwrap();
        assert_eq!(ready.config, want.config, "{kind}");
        assert_eq!(other.stored("layers"), world.stored("layers"), "{kind}");
        other.assert_clean();
        // A second time changes nothing.
        assert_eq!(
            other.store.import(world.path(kind), "web:1").await.unwrap(),
            image
        );
    }
}

#[tokio::test]
async fn an_image_of_buildah_is_imported_and_found_again_after_a_restart() {
    if !can_run(&["buildah"]) {
        return;
    }
    let mut world = World::new();
    sh(
        world.dir.path(),
        "echo hello > file; b='buildah --root st --runroot run --storage-driver vfs'
        c=$($b from scratch); $b copy -q $c file /srv/file >/dev/null
        $b config --entrypoint '[\"/srv/file\"]' --env X=y $c
        $b commit -q $c oci-archive:out.tar:any:thing >/dev/null",
    );
    let image = world
        .store
        .import(world.path("out.tar"), "team/web:3")
        .await
        .unwrap();
    world.restart();
    assert_eq!(world.store.resolve("team/web:3").await.unwrap(), image);
    assert_eq!(
        world.store.resolve("localhost/team/web:3").await.unwrap(),
        image
    );
    let ready = world.store.ensure(&image).await.unwrap();
    assert_eq!(ready.config.env["X"], "y");
    let file = ready.layers.last().unwrap().join("srv/file");
    assert_eq!(fs::read_to_string(file).unwrap(), "hello\n");
    let listed = world.store.list().await.unwrap();
    assert_eq!((listed.len(), listed[0].name.as_str()), (1, "team/web:3"));
    assert_eq!(listed[0].digest, image.digest);
}

#[tokio::test]
async fn an_archive_of_several_images_gives_the_one_that_is_named() {
    if !can_run(&["umoci", "skopeo"]) {
        return;
    }
    let world = World::new();
    let dir = world.dir.path();
    umoci_image(dir);
    sh(
        dir,
        "umoci tag --image layout:new old; umoci config --image layout:old --config.cmd other",
    );
    let image = world
        .store
        .import(world.path("layout"), "web:old")
        .await
        .unwrap();
    let ready = world.store.ensure(&image).await.unwrap();
    assert_eq!(ready.config.cmd, ["other"]);
    let error = world
        .store
        .import(world.path("layout"), "web:none")
        .await
        .unwrap_err();
    assert!(error.to_string().contains("new, old"), "{error}");
}

#[tokio::test]
async fn what_our_builder_writes_is_imported_and_ensured_quickly() {
    if !can_run(&[]) {
        return;
    }
    let world = World::new();
    let digest = build::write_oci_archive(&spec("one"), &world.path("a.tar")).unwrap();
    let layout = build::write_oci_layout(&spec("one"), &world.path("a")).unwrap();
    assert_eq!(digest, layout);
    let image = world
        .store
        .import(world.path("a.tar"), "built")
        .await
        .unwrap();
    assert_eq!(image.digest, digest.to_string());
    world.store.import(world.path("a"), "built").await.unwrap();
    let start = std::time::Instant::now();
    for _ in 0..100 {
        world.store.ensure(&image).await.unwrap();
    }
    assert!(start.elapsed().as_millis() < 100, "{:?}", start.elapsed());
    let root = world.store.ensure(&image).await.unwrap().layers.remove(0);
    assert_eq!(fs::read_to_string(root.join("app")).unwrap(), "one");
}

async fn refused(world: &World, file: &str) -> ImageError {
    let error = world
        .store
        .import(world.path(file), "web")
        .await
        .unwrap_err();
    world.assert_clean();
    assert_eq!(world.stored("layers"), Vec::<String>::new());
    assert!(world.store.list().await.unwrap().is_empty());
    error
}

#[tokio::test]
async fn broken_archives_are_refused_and_leave_nothing() {
    if !can_run(&[]) {
        return;
    }
    let world = World::new();
    build::write_oci_archive(&spec(&"x".repeat(10_000)), &world.path("good.tar")).unwrap();
    let good = fs::read(world.path("good.tar")).unwrap();
    let at = good.windows(10).position(|w| w == b"xxxxxxxxxx").unwrap();
    let mut flipped = good.clone();
    flipped[at + 100] ^= 1;
    fs::write(world.path("flipped.tar"), flipped).unwrap();
    let error = refused(&world, "flipped.tar").await;
    assert!(error.to_string().contains("get the image again"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    for len in [good.len() / 2, 700, 10, 0] {
        fs::write(world.path("cut.tar"), &good[..len]).unwrap();
        let error = refused(&world, "cut.tar").await;
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    let error = refused(&world, "none.tar").await;
    assert!(error.to_string().contains("no such file"), "{error}");
    fs::create_dir(world.path("empty")).unwrap();
    let error = refused(&world, "empty").await;
    assert!(error.to_string().contains("holds no image"), "{error}");
}

#[tokio::test]
async fn an_image_for_another_machine_is_refused_with_its_platform() {
    if !can_run(&["umoci"]) {
        return;
    }
    let world = World::new();
    umoci_image(world.dir.path());
    sh(
        world.dir.path(),
        "umoci config --image layout:new --architecture s390x",
    );
    let error = refused(&world, "layout").await.to_string();
    assert!(error.contains("made for linux/s390x"), "{error}");
}

/// A file system of 2 MB, gone when dropped.
struct SmallDisk(std::path::PathBuf);

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(std::process::Command::new("umount").arg(&self.0).status());
    }
}

#[tokio::test]
async fn a_full_disk_is_said_and_leaves_nothing_half_made() {
    if !can_run(&["mount", "umount"]) {
        return;
    }
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("images");
    fs::create_dir(&path).unwrap();
    let small = SmallDisk(path.clone());
    run(
        "mount",
        &[
            "-t",
            "tmpfs",
            "-o",
            "size=2m",
            "tmpfs",
            path.to_str().unwrap(),
        ],
    );
    {
        let env = hangar_api::env::Env::real();
        let store = hangar_image::ImageStore::open(&path, env, Default::default()).unwrap();
        let world = World { dir, store };
        build::write_oci_archive(&spec(&"x".repeat(4 << 20)), &world.path("big.tar")).unwrap();
        let error = refused(&world, "big.tar").await;
        assert_eq!(error.kind(), ErrorKind::Exhausted);
        assert!(error.to_string().contains("full"), "{error}");
        build::write_oci_archive(&spec("small"), &world.path("small.tar")).unwrap();
        let image = world
            .store
            .import(world.path("small.tar"), "web")
            .await
            .unwrap();
        world.store.ensure(&image).await.unwrap();
        drop(small);
    }
}
