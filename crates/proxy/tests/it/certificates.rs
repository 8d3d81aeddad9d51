//! Certificates that were imported: which one is served, from when on, and at what cost.

use hangar_api::certificate::{EdgeCertificate, Hostname, PrivateKeyPem, ToEdge};
use hangar_api::id::AppName;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::json;

use crate::rig::{Rig, Server, service, talk, tls, up};

const HTTPS: u16 = 8443;

/// Makes certificates under one key: keys take long to make.
struct Maker(KeyPair);

impl Maker {
    fn new() -> Self {
        Self(KeyPair::generate().unwrap())
    }

    fn make(&self, host: &str, app: &str) -> EdgeCertificate {
        let params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        EdgeCertificate {
            hostname: Hostname::new(host).unwrap(),
            app: AppName::new(app).unwrap(),
            fullchain: params.self_signed(&self.0).unwrap().pem(),
            private_key: PrivateKeyPem(self.0.serialize_pem()),
        }
    }
}

async fn rig() -> (Rig, Server, Server) {
    let rig = Rig::start();
    let (one, two) = (Server::start("one").await, Server::start("two").await);
    let web = service(json!({
        "internal_port": Server::PORT,
        "ports": [
            {"port": 8080, "handlers": ["http"]},
            {"port": HTTPS, "handlers": ["tls", "http"]},
        ],
    }));
    rig.app("one", vec![up(1, one.address, &web)]).await;
    rig.app("two", vec![up(2, two.address, &web)]).await;
    (rig, one, two)
}

/// Returns the certificate that a client gets, and what answers it.
async fn ask(rig: &Rig, name: &'static str) -> (CertificateDer<'static>, String) {
    let stream = tls(rig, HTTPS, name, &[]).await;
    let certificate = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
    let words = format!("GET /name HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n");
    let answer = talk(stream, &words).await;
    let last = answer.rsplit("\r\n\r\n").next().unwrap_or_default();
    (certificate.into_owned(), last.to_owned())
}

fn der(certificate: &EdgeCertificate) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(certificate.fullchain.as_bytes()).unwrap()
}

#[tokio::test]
async fn each_name_gets_its_certificate_and_its_app_from_one_moment_to_the_next() {
    let (rig, _one, _two) = rig().await;
    rig.name("one", &["example.com", "*.example.com"]).await;
    rig.name("two", &["api.example.com"]).await;
    let maker = Maker::new();
    let (exact, wild) = (
        maker.make("example.com", "one"),
        maker.make("*.example.com", "one"),
    );
    let (made, answer) = ask(&rig, "www.example.com").await;
    assert_ne!(made, der(&wild));
    assert!(answer.contains("one"), "{answer}");
    rig.certify(ToEdge::Sync {
        certificates: vec![exact.clone(), wild.clone()],
        revision: 1,
    })
    .await;
    for (name, wanted, app) in [
        ("example.com", &exact, "one"),
        ("www.example.com", &wild, "one"),
        ("WWW.example.com", &wild, "one"),
    ] {
        let (served, answer) = ask(&rig, name).await;
        assert_eq!(served, der(wanted), "{name}");
        assert!(answer.contains(app), "{name}: {answer}");
    }
    // The other app's name is not one for this app's certificate.
    let (served, answer) = ask(&rig, "api.example.com").await;
    assert_ne!(served, der(&wild));
    assert!(answer.contains("two"), "{answer}");
    let api = maker.make("api.example.com", "two");
    let renewed = maker.make("example.com", "one");
    rig.certify(ToEdge::Change {
        put: vec![api.clone(), renewed.clone()],
        removed: vec![wild.hostname.clone()],
        revision: 2,
    })
    .await;
    assert_eq!(ask(&rig, "api.example.com").await.0, der(&api));
    assert_eq!(ask(&rig, "example.com").await.0, der(&renewed));
    assert_eq!(ask(&rig, "www.example.com").await.0, made);
}

#[tokio::test]
async fn of_a_thousand_certificates_each_is_served_by_its_name() {
    let (rig, _one, _two) = rig().await;
    let maker = Maker::new();
    let many: Vec<_> = (0..1000)
        .map(|n| maker.make(&format!("n{n}.example.com"), "one"))
        .collect();
    let all = ToEdge::Sync {
        certificates: many.clone(),
        revision: 2,
    };
    rig.certify(all).await;
    for (name, at) in [
        ("n0.example.com", 0),
        ("n500.example.com", 500),
        ("n999.example.com", 999),
    ] {
        assert_eq!(ask(&rig, name).await.0, der(&many[at]), "{name}");
    }
}
