//! Host names: one app's, kept sealed, gone with their app.

use hyper::{Method, StatusCode};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};

use crate::cluster::Cluster;

/// Returns the body that imports a certificate for a host.
fn import(host: &str) -> Value {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![host.to_owned()]).unwrap();
    let fullchain = params.self_signed(&key).unwrap().pem();
    json!({"hostname": host, "fullchain": fullchain, "private_key": key.serialize_pem()})
}

#[tokio::test]
async fn of_many_who_want_a_hostname_at_once_one_app_gets_it() {
    let cluster = Cluster::start().await;
    let apps = ["one", "two", "three"];
    for app in apps {
        cluster.app(app).await;
    }
    let asked = (0..12).map(|at| {
        let path = format!("/v1/apps/{}/certificates/custom", apps[at % apps.len()]);
        let cluster = &cluster;
        async move {
            let (status, _) = cluster
                .call(Method::POST, &path, import("example.com"))
                .await;
            (at % 3, status)
        }
    });
    let answers = futures_util::future::join_all(asked).await;
    let won = |at: &(usize, StatusCode)| at.1 == StatusCode::CREATED;
    let owner = answers.iter().find(|at| won(at)).expect("one gets it").0;
    for (app, status) in &answers {
        let wanted = if *app == owner { 201 } else { 422 };
        assert_eq!(status.as_u16(), wanted, "{answers:?}");
    }
    for (at, app) in apps.iter().enumerate() {
        let list = cluster.get(&format!("/v1/apps/{app}/certificates")).await;
        assert_eq!(list["total_count"], u64::from(at == owner), "{app}");
    }
}

#[tokio::test]
async fn hostnames_go_with_their_app() {
    let cluster = Cluster::start().await;
    cluster.app("one").await;
    cluster.app("two").await;
    for n in 0..120 {
        let host = json!({"hostname": format!("n{n}.example.com")});
        cluster.post("/v1/apps/one/certificates/acme", host).await;
    }
    let (status, _) = cluster
        .call(Method::DELETE, "/v1/apps/one", Value::Null)
        .await;
    assert_eq!(status, StatusCode::ACCEPTED);
    for n in [0, 60, 119] {
        let host = json!({"hostname": format!("n{n}.example.com")});
        let path = "/v1/apps/two/certificates/acme";
        let limit = std::time::Instant::now() + std::time::Duration::from_secs(20);
        loop {
            let (status, said) = cluster.call(Method::POST, path, host.clone()).await;
            if status == StatusCode::CREATED {
                break;
            }
            assert!(std::time::Instant::now() < limit, "{status} {said}");
            tokio::task::yield_now().await;
        }
    }
}
