use proptest::prelude::*;

use super::*;
use crate::rights::tests::caveats as any_caveat;
use crate::rights::{Action, AllowedCommand};

const KEY: &[u8; KEY_LEN] = b"0123456789abcdef0123456789abcdef";

/// Made with superfly/macaroon v0.3.0: every kind of caveat that it can add, under [`KEY`].
const OF_FLY: &str = "fm2_lJPEBTAxa2lkxBA+8WuSEpK3+B5Ct4JczpKQwrVodHRwczovL2FwaS5mbHkuaW8vdjHcACIEks5lU/EAzorr9wAAkgHN//8NkpQDkYMMzf//zQEsH853NZQAAQWRgqdidWlsZGVyH6J3Zx8BApGBp3ZvbF9hYmPN//8HkYGuMDEyMzQ1Njc4OWFiY2TN//8OkYGobWV0YWRhdGHN//8ckYGmaW1hZ2Vzzf//EJGBoWPN//8dkYGqaHR0cHM6Ly94L83//waRkrBpc3N1ZUNlcnRpZmljYXRlsGFkZFdpcmVHdWFyZFBlZXIKkU0Pka4wMTIzNDU2Nzg5YWJjZBaQHgEaERuTkpKibHOiLWzDkpDCksDCH5Ohb6FhoWnEIIUFv1IyXlbDDNcmwVAiMI+P+bwv52aZnsZopn83cq4h";
const JSON_OF_FLY: &str = r#"[{"type":"ValidityWindow","body":{"not_before":1700000000,"not_after":2330720000}},{"type":"Organization","body":{"id":1,"mask":"*"}},{"type":"IfPresent","body":{"ifs":[{"type":"Apps","body":{"apps":{"12":"*","2000000000":"r","300":"rwcdC"}}},{"type":"FeatureSet","body":{"features":{"builder":"rwcdC","wg":"rwcdC"}}}],"else":"r"}},{"type":"Volumes","body":{"volumes":{"vol_abc":"*"}}},{"type":"Machines","body":{"machines":{"0123456789abcd":"*"}}},{"type":"MachineFeatureSet","body":{"features":{"metadata":"*"}}},{"type":"AppFeatureSet","body":{"features":{"images":"*"}}},{"type":"Clusters","body":{"clusters":{"c":"*"}}},{"type":"StorageObjects","body":{"storage_objects":{"https://x/":"*"}}},{"type":"Mutations","body":{"mutations":["issueCertificate","addWireGuardPeer"]}},{"type":"IsUser","body":{"uint64":77}},{"type":"FromMachineSource","body":{"id":"0123456789abcd"}},{"type":"IsMember","body":{}},{"type":"AllowedRoles","body":1},{"type":"Action","body":"rC"},{"type":"Commands","body":[{"args":["ls","-l"],"exact":true},{"args":[]},{"args":null}]},{"type":"FlySrc","body":{"organization":"o","app":"a","instance":"i"}}]"#;

#[test]
fn a_macaroon_of_flys_library_is_read_verified_and_written_as_it_was() {
    let read = Macaroon::parse(OF_FLY).unwrap();
    assert_eq!(read.key_id(), b"01kid");
    assert!(read.is_genuine(KEY));
    assert!(!read.is_genuine(b"0123456789abcdef0123456789abcdeF"));
    assert_eq!(read.text(), OF_FLY);
    let ends = read.expires_at().unwrap();
    assert_eq!(ends.as_second(), 2_330_720_000);
    let of_json = crate::rights::caveats_from_json(JSON_OF_FLY).unwrap();
    let caveats: Vec<Caveat> = read.caveats().cloned().collect();
    assert_eq!(caveats, of_json);
    // The last command of the JSON stands there as nil in place of an empty list; the rest is
    // what this library writes too.
    for (caveat, signed) in of_json.iter().zip(&read.caveats) {
        if !matches!(caveat, Caveat::Commands(_)) {
            assert_eq!(msgpack::caveat(caveat), Some(signed.raw.clone()));
        }
    }
}

#[test]
fn a_caveat_is_added_once_and_a_token_has_limits() {
    let mut token = Macaroon::mint(b"id", &[7; NONCE_LEN], KEY);
    assert!(token.is_genuine(KEY));
    token.add(&Caveat::IsMember).unwrap();
    let once = token.clone();
    token.add(&Caveat::IsMember).unwrap();
    assert_eq!(token, once);
    assert_eq!(token.add(&Caveat::Unknown(99)), Err(MacaroonError::Unknown));
    for id in 1..u64::try_from(MAX_CAVEATS).unwrap() {
        token.add(&Caveat::IsUser(id)).unwrap();
    }
    let mut full = token.clone();
    assert_eq!(full.add(&Caveat::IsUser(0)), Err(MacaroonError::TooLong));
    let long = Caveat::Mutations(vec!["x".repeat(MAX_LEN)]);
    let mut short = Macaroon::mint(b"id", &[7; NONCE_LEN], KEY);
    assert_eq!(short.add(&long), Err(MacaroonError::TooLong));
    assert!(!format!("{token:?}").contains("tail"));
}

#[test]
fn what_is_no_macaroon_is_refused_in_words() {
    assert_eq!(Macaroon::parse("hangar_x"), Err(MacaroonError::OtherToken));
    for text in ["fm2_", "fm2_!", "fm2_wA==", "fm2_lJA="] {
        let error = Macaroon::parse(text).unwrap_err();
        assert!(matches!(error, MacaroonError::Malformed(_)), "{text}");
    }
    let long = format!("fm2_{}", "A".repeat(2 * MAX_LEN));
    assert_eq!(Macaroon::parse(&long), Err(MacaroonError::TooLong));
}

#[test]
fn a_proof_and_one_of_another_place_are_not_let_in() {
    let mut token = Macaroon::mint(b"id", &[7; NONCE_LEN], KEY);
    "https://other/v1".clone_into(&mut token.location);
    let elsewhere = Macaroon::parse(&token.text()).unwrap();
    assert!(!elsewhere.is_genuine(KEY));
    let mut nonce = msgpack::nonce(b"id", &[7; NONCE_LEN]);
    // The last byte says whether it is one.
    *nonce.last_mut().unwrap() = 0xc3;
    let proof = Macaroon {
        tail: sign(KEY, &nonce),
        nonce,
        location: LOCATION.to_owned(),
        ..token
    };
    let mut read = Macaroon::parse(&proof.text()).unwrap();
    assert!(!read.is_genuine(KEY));
    assert_eq!(read.add(&Caveat::IsMember), Err(MacaroonError::Proof));
}

#[test]
fn a_body_with_more_than_is_known_permits_nothing() {
    let mut token = Macaroon::mint(b"id", &[7; NONCE_LEN], KEY);
    // IsMember with a field, and an Action with something behind it inside its body.
    for raw in [vec![22, 0x91, 1], vec![26, 0x92, 1, 2]] {
        token.tail = sign(&token.tail, &msgpack::one_caveat(&raw));
        token.caveats.push(Signed {
            caveat: Caveat::IsMember,
            raw,
        });
    }
    let read = Macaroon::parse(&token.text()).unwrap();
    assert!(read.is_genuine(KEY), "what is not known is signed too");
    let caveats: Vec<&Caveat> = read.caveats().collect();
    assert_eq!(caveats, [&Caveat::Unknown(22), &Caveat::Unknown(26)]);
}

#[test]
fn each_token_has_a_key_of_its_own() {
    let one = derived_key(KEY, b"a");
    assert_ne!(one, derived_key(KEY, b"b"));
    assert_ne!(one, *KEY);
    assert_eq!(one, derived_key(KEY, b"a"));
}

proptest! {
    #[test]
    fn any_caveats_come_back_and_none_can_be_changed_or_left_out(
        caveats in proptest::collection::vec(any_caveat(), 0..6),
        place in any::<proptest::sample::Index>(),
        bit in 0_u8..8,
    ) {
        let mut token = Macaroon::mint(b"id", &[7; NONCE_LEN], KEY);
        let added: Vec<&Caveat> = caveats.iter().filter(|one| token.add(one).is_ok()).collect();
        let read = Macaroon::parse(&token.text()).unwrap();
        prop_assert!(read.is_genuine(KEY));
        for caveat in read.caveats() {
            prop_assert!(added.contains(&caveat));
        }
        if !token.caveats.is_empty() {
            let mut fewer = read.clone();
            fewer.caveats.pop();
            prop_assert!(!fewer.is_genuine(KEY));
            fewer.caveats.clear();
            prop_assert!(!fewer.is_genuine(KEY));
        }
        let mut bytes = BASE64.decode(token.text().strip_prefix(PREFIX).unwrap()).unwrap();
        let at = place.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let changed = Macaroon::parse(&format!("{PREFIX}{}", BASE64.encode(bytes)));
        prop_assert!(changed.is_err() || !changed.unwrap().is_genuine(KEY));
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _any = Macaroon::parse(&format!("{PREFIX}{}", BASE64.encode(bytes)));
    }

    #[test]
    fn a_bearer_adds_what_the_server_reads(args in proptest::collection::vec("[a-z]{1,3}", 0..3)) {
        let mut token = Macaroon::mint(b"id", &[7; NONCE_LEN], KEY);
        token.add(&Caveat::Action(Action::READ)).unwrap();
        let mut bearer = Macaroon::parse(&token.text()).unwrap();
        let more = Caveat::Commands(vec![AllowedCommand { args, exact: true }]);
        bearer.add(&more).unwrap();
        let server = Macaroon::parse(&bearer.text()).unwrap();
        prop_assert!(server.is_genuine(KEY));
        prop_assert_eq!(server.caveats().last(), Some(&more));
    }
}
