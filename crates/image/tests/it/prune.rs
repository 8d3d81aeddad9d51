//! What prunes and collections remove, and what they never touch.

use std::time::Duration;

use hangar_api::env::Env;
use hangar_api::image::ImageRef;
use hangar_image::{ImageStore, RegistryConfig, build};

use crate::world::{World, can_run, spec};

async fn import(world: &World, name: &str, content: &str) -> ImageRef {
    let file = world.path(&format!("{content}.tar"));
    build::write_oci_archive(&spec(content), &file).unwrap();
    world.store.import(file, name).await.unwrap()
}

#[tokio::test]
async fn a_prune_removes_what_nobody_needs_and_a_collection_keeps_imports() {
    if !can_run(&[]) {
        return;
    }
    let world = World::new();
    let kept = import(&world, "kept", "one").await;
    let lost = import(&world, "lost", "two").await;
    let collected = world
        .store
        .collect(vec![kept.digest.clone()])
        .await
        .unwrap();
    assert!(
        collected.images.is_empty() && collected.bytes == 0,
        "{collected:?}"
    );

    let held = world.store.ensure(&lost).await.unwrap();
    let pruned = world.store.prune(vec![kept.digest.clone()]).await.unwrap();
    assert!(pruned.images.is_empty(), "a held image went: {pruned:?}");
    drop(held);
    let pruned = world.store.prune(vec![kept.digest.clone()]).await.unwrap();
    assert_eq!(pruned.images, ["lost:latest"]);
    assert!(pruned.bytes > 0);
    assert_eq!(
        (
            world.stored("layers").len(),
            world.stored("blobs/sha256").len()
        ),
        (1, 2)
    );
    world.assert_clean();
    let error = world
        .store
        .resolve("localhost/lost")
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("no image was imported"), "{error}");
    world.store.ensure(&lost).await.unwrap_err();
    world.store.ensure(&kept).await.unwrap();
}

#[tokio::test]
async fn an_image_that_lost_its_name_is_collected_and_shared_layers_stay() {
    if !can_run(&[]) {
        return;
    }
    let world = World::new();
    let first = import(&world, "web", "one").await;
    let mut same = spec("one");
    same.cmd = vec!["other".to_owned()];
    build::write_oci_archive(&same, &world.path("same.tar")).unwrap();
    let second = world
        .store
        .import(world.path("same.tar"), "web")
        .await
        .unwrap();
    assert_ne!(first.digest, second.digest);
    assert_eq!(world.stored("layers").len(), 1);
    assert_eq!(world.store.list().await.unwrap().len(), 2);
    let collected = world.store.collect(Vec::new()).await.unwrap();
    assert_eq!(collected.images, ["web:latest"]);
    assert_eq!(world.stored("layers").len(), 1);
    world.store.ensure(&second).await.unwrap();
    world.store.ensure(&first).await.unwrap_err();
}

#[tokio::test]
async fn what_was_just_resolved_is_safe_for_a_minute() {
    if !can_run(&[]) {
        return;
    }
    let world = World::new();
    import(&world, "web", "one").await;
    world.store.resolve("web").await.unwrap();
    let pruned = world.store.prune(Vec::new()).await.unwrap();
    assert!(pruned.images.is_empty());
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    let pruned = world.store.prune(Vec::new()).await.unwrap();
    assert_eq!(pruned.images, ["web:latest"]);
}

#[tokio::test]
async fn what_a_crash_left_is_cleared_at_start() {
    if !can_run(&[]) {
        return;
    }
    let mut world = World::new();
    let image = import(&world, "web", "one").await;
    let half = world.path("images/tmp/7/fs");
    std::fs::create_dir_all(&half).unwrap();
    std::fs::write(half.join("file"), "half").unwrap();
    // A layer without its marker was never finished, by whatever accident it got its name.
    let layer = world.stored("layers").remove(0);
    std::fs::remove_file(world.path(&format!("images/layers/{layer}/layer.json"))).unwrap();
    world.restart();
    world.assert_clean();
    assert!(world.store.ensure(&image).await.is_err());
    let again = import(&world, "web", "one").await;
    world.store.ensure(&again).await.unwrap();
}

#[tokio::test]
async fn a_prune_makes_room_on_a_full_disk() {
    if !can_run(&["mount"]) {
        return;
    }
    let folder = tempfile::TempDir::new().unwrap();
    let disk = folder.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let mount = |words: &[&str]| {
        let status = std::process::Command::new(words[0])
            .args(&words[1..])
            .arg(&disk)
            .status();
        assert!(status.unwrap().success(), "{words:?}");
    };
    mount(&["mount", "-t", "tmpfs", "-o", "size=4m", "small"]);
    let store = ImageStore::open(disk.join("images"), Env::real(), RegistryConfig::default());
    let store = store.unwrap();
    let archive = folder.path().join("a.tar");
    build::write_oci_archive(&spec(&"x".repeat(1_000_000)), &archive).unwrap();
    store.import(archive, "web").await.unwrap();
    let mut fill = std::fs::File::create(disk.join("fill")).unwrap();
    let full = std::io::copy(&mut std::io::repeat(1), &mut fill);
    assert_eq!(full.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    let pruned = store.prune(Vec::new()).await;
    drop((store, fill));
    mount(&["umount", "-l"]);
    let pruned = pruned.unwrap();
    assert_eq!(pruned.images, ["web:latest"]);
    assert!(pruned.bytes > 0);
}
