use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
};

use super::*;

fn host(name: &str) -> Hostname {
    Hostname::new(name).unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// Well within the times of certificates as they are made here.
fn now() -> Timestamp {
    at("2026-06-01T00:00:00Z")
}

fn params(names: &[&str]) -> CertificateParams {
    let names = names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let mut params = CertificateParams::new(names).unwrap();
    params.not_before = rcgen::date_time_ymd(2026, 1, 1);
    params.not_after = rcgen::date_time_ymd(2027, 1, 1);
    params.distinguished_name.push(DnType::CommonName, "leaf");
    params
}

fn issuer(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = params(&[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate and its key, self-signed.
fn alone(names: &[&str]) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let certificate = params(names).self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

#[test]
fn what_can_be_served_is_told_with_issuer_kind_and_end() {
    let ca = issuer("Example CA");
    for (algorithm, kind) in [
        (&PKCS_ECDSA_P256_SHA256, "ecdsa"),
        (&PKCS_ECDSA_P384_SHA384, "ecdsa"),
        (&PKCS_ED25519, "ed25519"),
    ] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let leaf = params(&["example.com", "*.example.com"])
            .signed_by(&key, &ca)
            .unwrap();
        let chain = format!("junk\n{}{}\n{}", leaf.pem(), ca.pem(), key.serialize_pem());
        for name in ["example.com", "*.example.com", "a.example.com"] {
            let sound = examine(&host(name), &chain, &key.serialize_pem(), now()).unwrap();
            assert_eq!((sound.kind, sound.issuer.as_str()), (kind, "Example CA"));
            assert_eq!(sound.expires_at, at("2027-01-01T00:00:00Z"));
            // Nothing but certificates is kept, not even a key that stood in the wrong file.
            assert_eq!(sound.fullchain.matches("-----BEGIN").count(), 2);
            assert!(!sound.fullchain.contains("PRIVATE"));
            let again = examine(&host(name), &sound.fullchain, &key.serialize_pem(), now());
            assert_eq!(again.unwrap(), sound);
        }
        let other = examine(
            &host("a.b.example.com"),
            &chain,
            &key.serialize_pem(),
            now(),
        );
        let text = other.unwrap_err().to_string();
        assert!(
            text.contains("not for a.b.example.com: it is for example.com, *"),
            "{text}"
        );
    }
}

#[test]
fn a_certificate_out_of_its_time_is_refused() {
    let (chain, key) = alone(&["example.com"]);
    let tried = |now| examine(&host("example.com"), &chain, &key, at(now));
    let end = at("2027-01-01T00:00:00Z");
    assert_eq!(tried("2027-01-01T00:00:01Z"), Err(Refusal::Expired(end)));
    let begin = at("2026-01-01T00:00:00Z");
    assert_eq!(
        tried("2025-12-31T23:59:59Z"),
        Err(Refusal::NotYetValid(begin))
    );
    assert!(tried("2026-12-31T23:59:59Z").is_ok());
}

#[test]
fn keys_that_do_not_fit_are_told_apart() {
    let (chain, key) = alone(&["example.com"]);
    let (_, other) = alone(&["example.com"]);
    let tried = |key: &str| examine(&host("example.com"), &chain, key, now()).unwrap_err();
    assert_eq!(tried(&other), Refusal::KeyMismatch);
    assert_eq!(tried(""), Refusal::NoKey);
    assert_eq!(tried(&chain), Refusal::NoKey);
    let pkcs8 = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    assert_eq!(tried(&pkcs8), Refusal::KeyEncrypted);
    let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n";
    assert_eq!(tried(old), Refusal::KeyEncrypted);
    let damaged = key.replace("MI", "AA");
    assert!(matches!(
        tried(&damaged),
        Refusal::KeyUnusable(_) | Refusal::NoKey
    ));
    assert_eq!(tried(&" ".repeat(MAX_KEY + 1)), Refusal::KeyTooLong);
}

#[test]
fn a_chain_must_be_in_order_and_signed() {
    let (root, stranger) = (issuer("Root"), issuer("Root"));
    let key = KeyPair::generate().unwrap();
    let leaf = params(&["example.com"]).signed_by(&key, &root).unwrap();
    let tried = |parts: &[&str]| {
        let chain = parts.concat();
        examine(&host("example.com"), &chain, &key.serialize_pem(), now())
    };
    let (leaf, root, stranger) = (leaf.pem(), root.pem(), stranger.pem());
    assert!(tried(&[&leaf, &root]).is_ok());
    assert!(tried(&[&leaf]).is_ok());
    assert_eq!(tried(&[&root, &leaf]), Err(Refusal::LeafNotFirst(2)));
    let other = issuer("Other").pem();
    assert_eq!(tried(&[&leaf, &other]), Err(Refusal::OutOfOrder(2)));
    assert_eq!(tried(&[&leaf, &root, &other]), Err(Refusal::OutOfOrder(3)));
    // Of the same name, and yet another.
    assert!(matches!(
        tried(&[&leaf, &stranger]),
        Err(Refusal::Broken(_))
    ));
    assert_eq!(tried(&[]), Err(Refusal::NoCertificate));
    let many = vec![leaf.as_str(); MAX_CERTIFICATES + 1];
    assert_eq!(tried(&many), Err(Refusal::ChainTooLong));
}

#[test]
fn the_common_name_counts_where_there_are_no_other_names() {
    let key = KeyPair::generate().unwrap();
    let mut named = params(&[]);
    named
        .distinguished_name
        .push(DnType::CommonName, "Old.Example.com");
    let chain = named.self_signed(&key).unwrap().pem();
    let tried = |name| examine(&host(name), &chain, &key.serialize_pem(), now());
    assert!(tried("old.example.com").is_ok());
    assert!(matches!(
        tried("example.com"),
        Err(Refusal::OtherHost { .. })
    ));
}

proptest! {
    #[test]
    fn damage_is_refused_or_harmless_and_never_panics(at in 0_usize..900, byte in any::<u8>()) {
        let (chain, key) = alone(&["example.com"]);
        let mut bytes = chain.into_bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        let text = String::from_utf8_lossy(&bytes);
        let _refused = examine(&host("example.com"), &text, &key, now());
    }
}
