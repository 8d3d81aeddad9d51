//! Registries that fail, stall, lie, want a sign-in or send clients elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hangar_api::error::ErrorKind;
use hangar_api::image::ImageRef;
use hangar_image::{Credentials, ImageError, RegistryConfig, build};
use serde_json::json;

use crate::fake::{Answer, Asked, End, Fake, layout};
use crate::world::{World, can_run, spec};

type Answers = Box<dyn Fn(&Asked) -> Answer + Send + Sync>;

/// A world with an image in a layout, and the well-behaved registry's answers for it.
fn world() -> Option<(World, Answers)> {
    if !can_run(&[]) {
        return None;
    }
    let world = World::new();
    build::write_oci_layout(&spec(&"content ".repeat(5000)), &world.path("layout")).unwrap();
    let answers = layout(&world.path("layout"));
    Some((world, Box::new(answers)))
}

async fn pull(world: &World, fake: &Fake) -> Result<ImageRef, ImageError> {
    let name = format!("127.0.0.1:{}/team/web:1", fake.port);
    let image = world.store.resolve(&name).await?;
    world.store.ensure(&image).await?;
    Ok(image)
}

fn is_blob(asked: &Asked) -> bool {
    asked.path.contains("/blobs/")
}

#[tokio::test]
async fn transient_faults_are_tried_again_and_a_cut_download_starts_anew() {
    let Some((world, good)) = world() else { return };
    let count = AtomicUsize::new(0);
    let fake = Fake::start(move |asked| match count.fetch_add(1, Ordering::Relaxed) {
        0 => Answer::status(503, "").header("retry-after", "0"),
        1 => Answer::status(429, "").header("retry-after", "0"),
        n if n % 2 == 0 => good(asked).ending(End::Cut),
        _ => good(asked),
    })
    .await;
    pull(&world, &fake).await.unwrap();
    world.assert_clean();
    assert_eq!(fake.asked().len(), 8);
}

#[tokio::test]
async fn a_registry_that_keeps_failing_is_given_up_with_its_words() {
    let Some((world, _)) = world() else { return };
    let words = json!({"errors": [{"code": "X", "message": "out of order"}]}).to_string();
    let fake =
        Fake::start(move |_| Answer::status(500, words.clone()).header("retry-after", "0")).await;
    let error = pull(&world, &fake).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("out of order"), "{error}");
    assert_eq!(fake.asked().len(), 4);
}

#[tokio::test]
async fn wrong_bytes_are_never_used() {
    let Some((world, good)) = world() else { return };
    let fake = Fake::start(move |asked| {
        let mut answer = good(asked);
        if is_blob(asked) {
            let last = answer.body.len() - 1;
            answer.body[last] ^= 1;
        }
        answer
    })
    .await;
    let error = pull(&world, &fake).await.unwrap_err();
    assert!(error.to_string().contains("instead of sha256:"), "{error}");
    world.assert_clean();
    assert_eq!(world.stored("layers"), Vec::<String>::new());
}

#[tokio::test]
async fn more_bytes_than_announced_are_not_taken() {
    let Some((world, good)) = world() else { return };
    let fake = Fake::start(move |asked| {
        let mut answer = good(asked);
        if is_blob(asked) {
            answer.body.extend([0; 100]);
        }
        answer
    })
    .await;
    let error = pull(&world, &fake).await.unwrap_err();
    assert!(error.to_string().contains("larger than"), "{error}");
    world.assert_clean();
}

#[tokio::test]
async fn a_registry_that_falls_silent_does_not_hold_a_pull_for_ever() {
    let Some((world, good)) = world() else { return };
    let stalled = Arc::new(tokio::sync::Notify::new());
    let tell = Arc::clone(&stalled);
    let fake = Fake::start(move |asked| {
        if !is_blob(asked) {
            return good(asked);
        }
        tell.notify_one();
        good(asked).ending(End::Stall)
    })
    .await;
    let pulling = pull(&world, &fake);
    let clock = async {
        stalled.notified().await;
        // From here on the clock runs as fast as everybody waits.
        tokio::time::pause();
    };
    let (outcome, ()) = tokio::join!(pulling, clock);
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    world.assert_clean();
}

#[tokio::test]
async fn many_who_want_the_same_image_share_one_pull() {
    let Some((world, good)) = world() else { return };
    let fake = Fake::start(good).await;
    let name = format!("127.0.0.1:{}/team/web:1", fake.port);
    let image = world.store.resolve(&name).await.unwrap();
    let before = fake.count("/blobs/");
    let all = (0..20).map(|_| {
        let (store, image) = (Arc::clone(&world.store), image.clone());
        tokio::spawn(async move { store.ensure(&image).await.map(|ready| ready.layers) })
    });
    let all: Vec<_> = all.collect();
    for one in all {
        assert_eq!(one.await.unwrap().unwrap().len(), 1);
    }
    assert_eq!(fake.count("/blobs/") - before, 1);
    // What is here is not fetched again.
    assert_eq!(world.store.resolve(&name).await.unwrap(), image);
    assert_eq!(fake.count("/blobs/") - before, 1);
}

#[tokio::test]
async fn a_pull_that_is_abandoned_leaves_nothing_and_can_be_begun_again() {
    let Some((world, good)) = world() else { return };
    let (sent, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let first = AtomicUsize::new(0);
    let fake = Fake::start(move |asked| {
        let layer = good(asked).body.len() > 10_000;
        if layer && first.fetch_add(1, Ordering::Relaxed) == 0 {
            sent.send(()).unwrap();
            return good(asked).ending(End::Stall);
        }
        good(asked)
    })
    .await;
    tokio::select! {
        _ = pull(&world, &fake) => panic!("the pull does not wait"),
        _ = seen.recv() => {}
    }
    world.assert_clean();
    pull(&world, &fake).await.unwrap();
}

/// Answers like `good`, to those who bring the authorization.
fn guarded(good: Answers, realm: String, wanted: &'static str) -> Answers {
    Box::new(move |asked| {
        if asked.authorization.as_deref() == Some(wanted) {
            return good(asked);
        }
        Answer::status(401, "").header("www-authenticate", realm.clone())
    })
}

#[tokio::test]
async fn a_bearer_token_is_fetched_once_and_stays_between_us_and_the_registry() {
    let Some((world, good)) = world() else { return };
    let storage = Fake::start(layout(&world.path("layout"))).await;
    let tokens = Fake::start(|_| Answer::ok(json!({"access_token": "sesame"}).to_string())).await;
    let away = storage.port;
    let redirecting: Answers = Box::new(move |asked| {
        if is_blob(asked) {
            let to = format!("http://127.0.0.1:{away}{}", asked.path);
            return Answer::status(307, "").header("location", to);
        }
        good(asked)
    });
    let realm = format!(
        "Bearer realm=\"http://127.0.0.1:{}/token\",service=\"reg\"",
        tokens.port
    );
    let fake = Fake::start(guarded(redirecting, realm, "Bearer sesame")).await;
    pull(&world, &fake).await.unwrap();
    let asked: Vec<String> = tokens.asked().into_iter().map(|a| a.path).collect();
    assert_eq!(
        asked,
        ["/token?service=reg&scope=repository%3Ateam%2Fweb%3Apull"]
    );
    assert_eq!(storage.asked().len(), 2);
    assert!(storage.asked().iter().all(|a| a.authorization.is_none()));
}

#[tokio::test]
async fn a_name_and_password_are_given_only_where_they_are_configured() {
    let Some((world, _)) = world() else { return };
    let start = || {
        let good: Answers = Box::new(layout(&world.path("layout")));
        Fake::start(guarded(
            good,
            "Basic realm=\"x\"".to_owned(),
            "Basic dXNlcjpwYXNz",
        ))
    };
    let fake = start().await;
    let error = pull(&world, &fake).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    let sign_in = Credentials {
        username: "user".to_owned(),
        password: "pass".to_owned(),
    };
    assert!(!format!("{sign_in:?}").contains("pass\""));
    let other = World::with(RegistryConfig {
        credentials: BTreeMap::from([(format!("127.0.0.1:{}", fake.port), sign_in)]),
        ..RegistryConfig::default()
    });
    pull(&other, &fake).await.unwrap();
}

#[tokio::test]
async fn a_sign_in_that_is_never_good_enough_ends() {
    let Some((world, _)) = world() else { return };
    let tokens = Fake::start(|_| Answer::ok(json!({"token": "no"}).to_string())).await;
    let realm = format!("Bearer realm=\"http://127.0.0.1:{}/token\"", tokens.port);
    let fake =
        Fake::start(move |_| Answer::status(401, "").header("www-authenticate", realm.clone()))
            .await;
    let error = pull(&world, &fake).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("does not exist, or needs a sign-in"),
        "{error}"
    );
    assert_eq!(fake.asked().len(), 2);
}

#[tokio::test]
async fn redirects_in_circles_end() {
    let Some((world, _)) = world() else { return };
    let fake =
        Fake::start(|asked| Answer::status(302, "").header("location", asked.path.clone())).await;
    let error = pull(&world, &fake).await.unwrap_err();
    assert!(error.to_string().contains("circles"), "{error}");
}

#[tokio::test]
async fn a_mirror_is_asked_first_and_the_registry_when_it_fails() {
    let Some((_, good)) = world() else { return };
    let lame = Fake::start(|_| Answer::status(404, "")).await;
    let mirror = Fake::start(good).await;
    let hosts = [&lame, &mirror].map(|fake| format!("127.0.0.1:{}", fake.port));
    let world = World::with(RegistryConfig {
        mirrors: BTreeMap::from([("registry-1.docker.io".to_owned(), hosts.to_vec())]),
        insecure: BTreeSet::new(),
        ..RegistryConfig::default()
    });
    let image = world.store.resolve("web").await.unwrap();
    assert_eq!(
        (image.registry.as_str(), image.repository.as_str()),
        ("registry-1.docker.io", "library/web")
    );
    world.store.ensure(&image).await.unwrap();
    assert!(lame.count("/v2/library/web/manifests/latest") == 1);
}
