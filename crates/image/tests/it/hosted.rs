//! What is pushed to the embedded registry: resolved, unpacked, kept and let go of.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use hangar_api::env::Env;
use hangar_image::{
    Digest, Hosted, HostedError, ImageStore, Part, Reference, RegistryConfig, RepositoryName, build,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::world::{can_run, spec};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A store with a clock of its own.
struct Pushed {
    dir: TempDir,
    store: Arc<ImageStore>,
}

fn name(text: &str) -> RepositoryName {
    text.parse().unwrap()
}

fn tag(text: &str) -> Reference {
    Reference::Tag(text.to_owned())
}

fn pieces(
    content: &[u8],
) -> impl futures_util::Stream<Item = Result<Bytes, String>> + Unpin + use<> {
    let chunks: Vec<_> = content
        .chunks(1 << 16)
        .map(|c| Ok(Bytes::copy_from_slice(c)))
        .collect();
    stream::iter(chunks)
}

async fn push_blob(hosted: &Arc<Hosted>, to: &str, content: &[u8]) -> Result<Digest, HostedError> {
    let (to, digest) = (name(to), Digest::of(content));
    let id = hosted.begin(&to).await?;
    let body = pieces(content);
    hosted
        .finish(&to, &id, &digest, Part::default(), body)
        .await?;
    Ok(digest)
}

/// Passes time on the store's clock.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

impl Pushed {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let store = Self::open(dir.path());
        Self { dir, store }
    }

    fn open(dir: &Path) -> Arc<ImageStore> {
        let config = RegistryConfig {
            embedded: ["localhost:4280".to_owned()].into(),
            ..RegistryConfig::default()
        };
        ImageStore::open(dir.join("images"), Env::simulated(1), config).unwrap()
    }

    fn hosted(&self) -> Arc<Hosted> {
        self.store.hosted()
    }

    /// Pushes an image of one file as `to:tag` and returns the digest of its manifest.
    async fn image(&self, to: &str, tag: &str, content: &str) -> Digest {
        let layout = self.dir.path().join(format!("layout-{content}"));
        build::write_oci_layout(&spec(content), &layout).unwrap();
        let read = |digest: &str| {
            let hex = digest.trim_start_matches("sha256:");
            std::fs::read(layout.join("blobs/sha256").join(hex)).unwrap()
        };
        let index: Value =
            serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap();
        let bytes = read(index["manifests"][0]["digest"].as_str().unwrap());
        let manifest: Value = serde_json::from_slice(&bytes).unwrap();
        let hosted = self.hosted();
        let layers = manifest["layers"].as_array().unwrap().iter();
        for part in layers.chain([&manifest["config"]]) {
            let content = read(part["digest"].as_str().unwrap());
            push_blob(&hosted, to, &content).await.unwrap();
        }
        let reference = Reference::Tag(tag.to_owned());
        let to = name(to);
        let put = hosted.put_manifest(&to, &reference, Vec::new(), "", bytes.into());
        put.await.unwrap().digest
    }

    fn stored(&self, dir: &str) -> usize {
        std::fs::read_dir(self.dir.path().join("images").join(dir))
            .unwrap()
            .count()
    }
}

#[tokio::test]
async fn what_is_pushed_is_what_its_names_mean_and_runs_from_where_it_is() {
    if !can_run(&[]) {
        return;
    }
    let mut world = Pushed::new();
    let digest = world.image("web", "v1", "one").await;
    let other = world.image("web/worker", "latest", "two").await;
    for (text, registry, repository, want) in [
        ("registry.fly.io/web:v1", "registry.fly.io", "web", &digest),
        ("localhost:4280/web:v1", "localhost:4280", "web", &digest),
        ("web:v1", "registry.fly.io", "web", &digest),
        (
            "registry.fly.io/web/worker",
            "registry.fly.io",
            "web/worker",
            &other,
        ),
    ] {
        let image = world.store.resolve(text).await.unwrap();
        assert_eq!(
            (image.registry.as_str(), image.repository.as_str()),
            (registry, repository)
        );
        assert_eq!(image.digest, want.to_string(), "{text}");
        let ready = world.store.ensure(&image).await.unwrap();
        let content = std::fs::read_to_string(ready.layers[0].join("app")).unwrap();
        assert_eq!(content, if *want == digest { "one" } else { "two" });
    }
    let by_digest = format!("registry.fly.io/web@{digest}");
    assert_eq!(
        world.store.resolve(&by_digest).await.unwrap().digest,
        digest.to_string()
    );
    // Three blobs of each, kept once; the layers were unpacked from them.
    assert_eq!(
        (
            world.stored("blobs/sha256"),
            world.stored("layers"),
            world.stored("tmp")
        ),
        (6, 2, 0)
    );
    let listed = world.store.list().await.unwrap();
    let names: Vec<&str> = listed.iter().map(|image| image.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "registry.fly.io/web:v1",
            "registry.fly.io/web/worker:latest"
        ]
    );

    world.store = Pushed::open(world.dir.path());
    let error = world
        .store
        .resolve("registry.fly.io/web:none")
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("nobody has pushed tag none of web"),
        "{error}"
    );
    world.store.resolve("registry.fly.io/web:v1").await.unwrap();
}

#[tokio::test]
async fn an_import_wins_over_a_push_of_the_same_name() {
    if !can_run(&[]) {
        return;
    }
    let world = Pushed::new();
    let pushed = world.image("web", "v1", "pushed").await;
    let archive = world.dir.path().join("a.tar");
    build::write_oci_archive(&spec("imported"), &archive).unwrap();
    let imported = world
        .store
        .import(archive, "docker.io/library/web:v1")
        .await
        .unwrap();
    // Other spellings of a name of Docker Hub mean the import too.
    for text in ["web:v1", "library/web:v1", "docker.io/library/web:v1"] {
        let found = world.store.resolve(text).await.unwrap();
        assert_eq!(found, imported, "{text}");
        world.store.ensure(&found).await.unwrap();
    }
    let found = world.store.resolve("registry.fly.io/web:v1").await.unwrap();
    assert_eq!(found.digest, pushed.to_string());
}

#[tokio::test]
async fn a_tag_keeps_its_image_and_what_no_tag_needs_goes_after_a_day() {
    if !can_run(&[]) {
        return;
    }
    let world = Pushed::new();
    let hosted = world.hosted();
    world.image("web", "kept", "one").await;
    let gone = world.image("web", "gone", "two").await;
    let half = push_blob(&hosted, "web", b"half a push").await.unwrap();
    let asked = push_blob(&hosted, "web", b"asked about").await.unwrap();
    let upload = hosted.begin(&name("web")).await.unwrap();
    hosted
        .remove_manifest(&name("web"), &tag("gone"))
        .await
        .unwrap();
    let image = world.store.resolve("web:kept").await.unwrap();
    world.store.ensure(&image).await.unwrap();

    pass(DAY - Duration::from_secs(60)).await;
    hosted.blob(&name("web"), &asked).await.unwrap();
    let pruned = world.store.prune(Vec::new()).await.unwrap();
    assert!(pruned.images.is_empty(), "{pruned:?}");
    // A tag needs its blobs; unpacked again is what is needed again.
    assert_eq!(
        (world.stored("blobs/sha256"), world.stored("layers")),
        (8, 0)
    );
    pass(Duration::from_secs(120)).await;
    assert!(world.store.prune(Vec::new()).await.unwrap().bytes > 0);
    assert_eq!(world.stored("blobs/sha256"), 4);
    let unknown = hosted.blob(&name("web"), &half).await.unwrap_err();
    assert!(matches!(unknown, HostedError::BlobUnknown(_)), "{unknown}");
    let unknown = hosted
        .manifest(&name("web"), &Reference::Digest(gone))
        .await
        .unwrap_err();
    assert!(
        matches!(unknown, HostedError::ManifestUnknown(_)),
        "{unknown}"
    );
    let unknown = hosted.uploaded(&name("web"), &upload).await.unwrap_err();
    assert!(matches!(unknown, HostedError::UploadUnknown), "{unknown}");
    assert_eq!(world.stored("uploads"), 0);
    world.store.ensure(&image).await.unwrap();
    hosted.blob(&name("web"), &asked).await.unwrap();
    pass(DAY + Duration::from_secs(60)).await;
    world.store.prune(Vec::new()).await.unwrap();
    assert_eq!(world.stored("blobs/sha256"), 3);
}

#[tokio::test]
async fn the_image_of_a_machine_stays_whatever_becomes_of_its_tag() {
    if !can_run(&[]) {
        return;
    }
    let world = Pushed::new();
    let digest = world.image("web", "v1", "one").await;
    let image = world.store.resolve("web:v1").await.unwrap();
    world.hosted().remove_app(name("web").app()).await.unwrap();
    pass(2 * DAY).await;
    // Not unpacked yet: its layers can be had from nowhere else.
    for _ in 0..2 {
        world.store.prune(vec![digest.to_string()]).await.unwrap();
        world.store.ensure(&image).await.unwrap();
    }
    world.store.prune(Vec::new()).await.unwrap();
    assert_eq!(
        (world.stored("blobs/sha256"), world.stored("layers")),
        (0, 0)
    );
}

#[tokio::test]
async fn uploads_that_were_left_make_room_for_new_ones() {
    let world = Pushed::new();
    let hosted = world.hosted();
    let web = name("web");
    let first = hosted.begin(&web).await.unwrap();
    let second = hosted.begin(&web).await.unwrap();
    for _ in 2..100 {
        hosted.begin(&web).await.unwrap();
    }
    let refused = hosted.begin(&web).await.unwrap_err();
    assert!(matches!(refused, HostedError::TooMany(_)), "{refused}");
    pass(Duration::from_secs(11 * 60)).await;
    // Somebody goes on with the first one.
    hosted.uploaded(&web, &first).await.unwrap();
    hosted.begin(&web).await.unwrap();
    hosted.uploaded(&web, &first).await.unwrap();
    let gone = hosted.uploaded(&web, &second).await.unwrap_err();
    assert!(matches!(gone, HostedError::UploadUnknown), "{gone}");
    assert_eq!(world.stored("uploads"), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_push_loses_anything_to_a_prune_at_the_same_time() {
    let world = Pushed::new();
    let (hosted, store) = (world.hosted(), Arc::clone(&world.store));
    let prunes = tokio::spawn(async move {
        loop {
            store.prune(Vec::new()).await.unwrap();
        }
    });
    let pushers = (0..4).map(|pusher| {
        let hosted = Arc::clone(&hosted);
        tokio::spawn(async move {
            for number in 0..40 {
                // Every blob by two of them.
                let content = format!("{} {number}", pusher % 2);
                let to = format!("web/{pusher}");
                let digest = push_blob(&hosted, &to, content.as_bytes()).await.unwrap();
                hosted.blob(&name(&to), &digest).await.unwrap();
                let more = name("more");
                assert!(
                    hosted
                        .mount(&more, &digest, Some(&name(&to)))
                        .await
                        .unwrap()
                );
                hosted.remove_blob(&name(&to), &digest).await.unwrap();
                hosted.blob(&more, &digest).await.unwrap();
            }
        })
    });
    for pusher in pushers.collect::<Vec<_>>() {
        pusher.await.unwrap();
    }
    prunes.abort();
    assert_eq!(world.stored("blobs/sha256"), 80);
}

#[tokio::test]
async fn a_push_that_would_fill_the_disk_is_refused_and_gives_the_room_back() {
    if !can_run(&["mount"]) {
        return;
    }
    let folder = TempDir::new().unwrap();
    let disk = folder.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let mount = |words: &[&str]| {
        let status = std::process::Command::new(words[0])
            .args(&words[1..])
            .arg(&disk)
            .status();
        assert!(status.unwrap().success(), "{words:?}");
    };
    mount(&["mount", "-t", "tmpfs", "-o", "size=40m", "small"]);
    let store = Pushed::open(&disk);
    let hosted = store.hosted();
    let content = vec![7_u8; 60 << 20];
    let unannounced = push_blob(&hosted, "web", &content).await.map(drop);
    let id = hosted.begin(&name("web")).await.unwrap();
    let part = Part {
        start: Some(0),
        length: Some(60 << 20),
    };
    let announced = hosted
        .append(&name("web"), &id, part, pieces(&content))
        .await
        .map(drop);
    let after = hosted.uploaded(&name("web"), &id).await;
    let small = push_blob(&hosted, "web", &content[..1 << 20]).await;
    drop((hosted, store));
    mount(&["umount", "-l"]);
    for refused in [unannounced, announced] {
        let error = refused.unwrap_err();
        assert!(matches!(error, HostedError::Full(_)), "{error}");
        let said = error.to_string();
        assert!(
            said.contains("is full") && said.contains("hangar image prune"),
            "{said}"
        );
    }
    assert_eq!(after.unwrap(), 0);
    small.unwrap();
}

#[tokio::test]
async fn a_repository_of_a_newer_hangar_stops_the_start_in_words() {
    let world = Pushed::new();
    push_blob(&world.hosted(), "web/a", b"x").await.unwrap();
    let file = world.dir.path().join("images/repositories/web+a.json");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("\"version\":1", "\"version\":2")).unwrap();
    let opened = ImageStore::open(
        world.dir.path().join("images"),
        Env::simulated(1),
        RegistryConfig::default(),
    );
    let error = opened.unwrap_err().to_string();
    assert!(error.contains("a newer Hangar wrote it"), "{error}");
}
