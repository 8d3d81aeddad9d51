//! Pulls from Debian's registry server, filled by skopeo.

use std::fs;
use std::path::Path;

use hangar_api::error::ErrorKind;
use hangar_image::{Digest, RegistryConfig, build};
use serde_json::{Value, json};

use crate::world::{DockerRegistry, World, can_run, sh, skopeo_copy, spec, umoci_image};

const TOOLS: [&str; 3] = ["docker-registry", "skopeo", "umoci"];
const PUSH: &str = "--dest-tls-verify=false";

#[tokio::test]
async fn an_image_is_pulled_by_tag_and_by_digest_in_both_formats() {
    if !can_run(&TOOLS) {
        return;
    }
    let world = World::new();
    let dir = world.dir.path();
    umoci_image(dir);
    let registry = DockerRegistry::start(dir, "", "");
    let host = format!("127.0.0.1:{}", registry.port);
    let local = world
        .store
        .import(world.path("layout"), "web")
        .await
        .unwrap();
    let want = world.store.ensure(&local).await.unwrap();
    for (format, tag) in [("oci", "1"), ("v2s2", "2")] {
        skopeo_copy(
            dir,
            &format!("--format {format} {PUSH} oci:layout:new docker://{host}/team/web:{tag}"),
        );
        let other = World::new();
        let name = format!("{host}/team/web:{tag}");
        let image = other.store.resolve(&name).await.unwrap();
        assert_eq!(
            (image.registry.as_str(), image.repository.as_str()),
            (host.as_str(), "team/web")
        );
        assert_eq!(
            (image.tag.as_str(), image.labels["team"].as_str()),
            (tag, "blue")
        );
        let ready = other.store.ensure(&image).await.unwrap();
        assert_eq!(ready.config, want.config);
        assert_eq!(other.stored("layers"), world.stored("layers"));
        other.assert_clean();

        let third = World::new();
        let name = format!("{host}/team/web@{}", image.digest);
        let by_digest = third.store.resolve(&name).await.unwrap();
        assert_eq!(
            (by_digest.digest.as_str(), by_digest.tag.as_str()),
            (image.digest.as_str(), "")
        );
        third.store.ensure(&by_digest).await.unwrap();
        assert_eq!(third.store.list().await.unwrap()[0].name, name);
    }
}

#[tokio::test]
async fn a_tag_follows_the_registry_and_outlives_it() {
    if !can_run(&TOOLS) {
        return;
    }
    let mut world = World::new();
    let registry = DockerRegistry::start(world.dir.path(), "", "");
    let name = format!("localhost:{}/web:live", registry.port);
    let push = |world: &World, content: &str| {
        build::write_oci_archive(&spec(content), &world.path("a.tar")).unwrap();
        skopeo_copy(
            world.dir.path(),
            &format!("{PUSH} oci-archive:a.tar docker://{name}"),
        );
    };
    push(&world, "one");
    let one = world.store.resolve(&name).await.unwrap();
    world.store.ensure(&one).await.unwrap();
    push(&world, "two");
    let two = world.store.resolve(&name).await.unwrap();
    assert_ne!(one.digest, two.digest);
    world.store.ensure(&two).await.unwrap();

    let none = format!("localhost:{}/web:none", registry.port);
    let error = world.store.resolve(&none).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("has no tag none"), "{error}");
    drop(registry);
    world.restart();
    assert_eq!(world.store.resolve(&name).await.unwrap(), two);
    world.store.ensure(&one).await.unwrap();
    let error = world.store.resolve(&none).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

#[tokio::test]
async fn an_imported_name_wins_over_the_registry() {
    if !can_run(&TOOLS) {
        return;
    }
    let world = World::new();
    let registry = DockerRegistry::start(world.dir.path(), "", "");
    let name = format!("localhost:{}/web:1", registry.port);
    build::write_oci_archive(&spec("pushed"), &world.path("a.tar")).unwrap();
    skopeo_copy(
        world.dir.path(),
        &format!("{PUSH} oci-archive:a.tar docker://{name}"),
    );
    build::write_oci_archive(&spec("imported"), &world.path("b.tar")).unwrap();
    let pushed = world.store.resolve(&name).await.unwrap();
    let imported = world
        .store
        .import(world.path("b.tar"), &name)
        .await
        .unwrap();
    assert_eq!(world.store.resolve(&name).await.unwrap(), imported);
    assert_eq!(imported.registry, pushed.registry);
    let exact = format!("{name}@{}", pushed.digest);
    assert_eq!(
        world.store.resolve(&exact).await.unwrap().digest,
        pushed.digest
    );
}

/// Makes a layout whose one entry is an index of images for these platforms.
fn index_layout(dir: &Path, platforms: &[&str]) -> Digest {
    let mut entries = Vec::new();
    let put = |bytes: &[u8]| {
        let digest = Digest::of(bytes);
        fs::write(dir.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
        digest
    };
    for platform in platforms {
        let manifest = build::write_oci_layout(&spec(platform), dir).unwrap();
        let blob = |digest: &str| {
            let hex = digest.strip_prefix("sha256:").unwrap();
            serde_json::from_slice(&fs::read(dir.join("blobs/sha256").join(hex)).unwrap()).unwrap()
        };
        let mut manifest: Value = blob(&manifest.to_string());
        let mut config: Value = blob(manifest["config"]["digest"].as_str().unwrap());
        config["architecture"] = json!(platform);
        let config = config.to_string();
        manifest["config"]["digest"] = json!(put(config.as_bytes()));
        manifest["config"]["size"] = json!(config.len());
        let manifest = manifest.to_string();
        entries.push(json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": put(manifest.as_bytes()),
            "size": manifest.len(),
            "platform": { "os": "linux", "architecture": platform },
        }));
    }
    let kind = "application/vnd.oci.image.index.v1+json";
    let index = json!({ "schemaVersion": 2, "mediaType": kind, "manifests": entries }).to_string();
    let digest = put(index.as_bytes());
    let top = json!({ "schemaVersion": 2, "manifests": [
        { "mediaType": kind, "digest": digest, "size": index.len() },
    ]});
    fs::write(dir.join("index.json"), top.to_string()).unwrap();
    digest
}

#[tokio::test]
async fn an_index_gives_this_machines_image_or_the_list_of_platforms() {
    if !can_run(&TOOLS) {
        return;
    }
    let world = World::new();
    let mine = hangar_image::Platform::this().architecture;
    let registry = DockerRegistry::start(world.dir.path(), "", "");
    let host = format!("localhost:{}", registry.port);
    let digest = index_layout(&world.path("both"), &["s390x", &mine]);
    let copy = |layout: &str, tag: &str| {
        let args =
            format!("--all --preserve-digests {PUSH} oci:{layout} docker://{host}/web:{tag}");
        skopeo_copy(world.dir.path(), &args);
    };
    copy("both", "both");
    for name in [format!("{host}/web:both"), format!("{host}/web@{digest}")] {
        let image = world.store.resolve(&name).await.unwrap();
        assert_ne!(image.digest, digest.to_string());
        let ready = world.store.ensure(&image).await.unwrap();
        assert_eq!(
            fs::read_to_string(ready.layers[0].join("app")).unwrap(),
            mine
        );
    }
    // A reference that still has the index's digest means the same image.
    let mut image = world
        .store
        .resolve(&format!("{host}/web:both"))
        .await
        .unwrap();
    let ready = world.store.ensure(&image).await.unwrap();
    image.digest = digest.to_string();
    assert_eq!(
        world.store.ensure(&image).await.unwrap().digest,
        ready.digest
    );
    drop(ready);
    let pruned = world.store.prune(vec![digest.to_string()]).await.unwrap();
    assert_eq!(pruned.images, Vec::<String>::new());

    index_layout(&world.path("others"), &["s390x", "riscv64"]);
    copy("others", "others");
    let error = world
        .store
        .resolve(&format!("{host}/web:others"))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.ends_with("it is made for linux/riscv64, linux/s390x"),
        "{error}"
    );
    let imported = world
        .store
        .import(world.path("both"), "both")
        .await
        .unwrap();
    world.store.ensure(&imported).await.unwrap();
}

#[tokio::test]
async fn layers_compressed_with_zstd_are_refused_in_words() {
    if !can_run(&TOOLS) {
        return;
    }
    let world = World::new();
    let dir = world.dir.path();
    umoci_image(dir);
    let registry = DockerRegistry::start(dir, "", "");
    let name = format!("localhost:{}/web:z", registry.port);
    skopeo_copy(
        dir,
        &format!("--dest-compress-format zstd {PUSH} oci:layout:new docker://{name}"),
    );
    let error = world.store.resolve(&name).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("push it with gzip"), "{error}");
}

#[tokio::test]
async fn https_is_trusted_by_the_authorities_that_are_configured() {
    if !can_run(&TOOLS) {
        return;
    }
    let world = World::new();
    let dir = world.dir.path();
    let host = "registry.localhost";
    let made = rcgen::generate_simple_self_signed(vec![host.to_owned()]).unwrap();
    fs::write(world.path("cert.pem"), made.cert.pem()).unwrap();
    fs::write(world.path("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let http = format!(
        "  tls: {{certificate: {0}/cert.pem, key: {0}/key.pem}}",
        dir.display()
    );
    let sign_in = "$2b$04$cxYm6eGaw4AVoXCp016Wyen2lAvTwatqFyces5zeP59mVfPy1YaLK";
    fs::write(world.path("htpasswd"), format!("user:{sign_in}\n")).unwrap();
    let auth = format!(
        "auth: {{htpasswd: {{realm: r, path: {}/htpasswd}}}}",
        dir.display()
    );
    let registry = DockerRegistry::start(dir, &http, &auth);
    build::write_oci_archive(&spec("one"), &world.path("a.tar")).unwrap();
    let port = registry.port;
    sh(
        dir,
        &format!(
            "skopeo copy -q --insecure-policy {PUSH} --dest-creds user:secret oci-archive:a.tar docker://127.0.0.1:{port}/web:1"
        ),
    );

    let name = format!("{host}:{port}/web:1");
    let error = world.store.resolve(&name).await.unwrap_err();
    assert!(error.to_string().contains("TLS failed"), "{error}");
    let config = RegistryConfig {
        ca_files: vec![world.path("cert.pem")],
        ..RegistryConfig::default()
    };
    let trusting = World::with(config.clone());
    let error = trusting.store.resolve(&name).await.unwrap_err();
    assert!(
        error.to_string().contains("user name and password"),
        "{error}"
    );
    let credentials = hangar_image::Credentials {
        username: "user".to_owned(),
        password: "secret".to_owned(),
    };
    let signed_in = World::with(RegistryConfig {
        credentials: [(format!("{host}:{port}"), credentials)].into(),
        ..config
    });
    let image = signed_in.store.resolve(&name).await.unwrap();
    signed_in.store.ensure(&image).await.unwrap();
}
