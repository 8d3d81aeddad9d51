//! Names, tags and what expires, by example and by chance.

use proptest::prelude::*;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn digest(number: u8) -> Digest {
    Digest::of(&[number])
}

fn entry(second: i64, blobs: &[u8], children: &[u8], subject: Option<u8>) -> Entry {
    Entry {
        media_type: "x".to_owned(),
        size: 1,
        at: at(second),
        blobs: blobs.iter().map(|n| digest(*n)).collect(),
        children: children.iter().map(|n| digest(*n)).collect(),
        subject: subject.map(digest),
    }
}

#[test]
fn names_are_those_of_the_specification_and_begin_with_an_app() {
    let deep = format!("web/{}", "a".repeat(196));
    for good in ["web", "web/a", "web-1/a.b/c__d/e---f/0", deep.as_str()] {
        let name: RepositoryName = good.parse().unwrap();
        assert_eq!(name.app().as_str(), good.split('/').next().unwrap());
        assert_eq!(RepositoryName::of_file(&name.file()), Some(name));
    }
    let long = format!("{deep}a");
    for bad in [
        "",
        "/",
        "web/",
        "/web",
        "web//a",
        "Web",
        "web/..",
        "web/a..b",
        "web/a___b",
        "web/-a",
        "web/a-",
        "web/a+b",
        "web/a b",
        "we.b",
        "_catalog",
        "web/a._b",
        long.as_str(),
    ] {
        assert!(bad.parse::<RepositoryName>().is_err(), "{bad:?}");
    }
}

#[test]
fn references_are_tags_or_digests() {
    let tag = "t".repeat(128);
    for good in ["latest", "_x", "1.2-3", tag.as_str()] {
        assert_eq!(
            good.parse::<Reference>().unwrap(),
            Reference::Tag(good.to_owned())
        );
    }
    let text = digest(1).to_string();
    assert_eq!(
        text.parse::<Reference>().unwrap(),
        Reference::Digest(digest(1))
    );
    let long = "t".repeat(129);
    for bad in [
        "",
        ".x",
        "-x",
        "a/b",
        "a b",
        "sha256:12",
        "sha512:12",
        "é",
        long.as_str(),
    ] {
        assert!(bad.parse::<Reference>().is_err(), "{bad:?}");
    }
}

#[test]
fn a_manifest_needs_its_blobs_and_children_but_not_its_subject() {
    let mut repository = Repository::default();
    let wanted = entry(0, &[1, 2], &[], Some(9));
    repository.link(&digest(1), at(0));
    assert_eq!(repository.missing(&wanted), [digest(2)]);
    repository.link(&digest(2), at(0));
    assert!(repository.missing(&wanted).is_empty());
    let index = entry(0, &[], &[7], None);
    assert_eq!(repository.missing(&index), [digest(7)]);
}

#[test]
fn a_deleted_tag_leaves_the_manifest_and_a_deleted_manifest_takes_its_tags() {
    let mut repository = Repository::default();
    let tags = ["a".to_owned(), "b".to_owned()];
    repository
        .put(&digest(1), entry(0, &[], &[], None), &tags)
        .unwrap();
    assert!(repository.remove(&Reference::Tag("a".to_owned())));
    assert!(!repository.remove(&Reference::Tag("a".to_owned())));
    let by_digest = Reference::Digest(digest(1));
    assert!(repository.manifest(&by_digest).is_some());
    assert!(repository.remove(&by_digest));
    assert_eq!(repository.tags().count(), 0);
    assert!(
        repository
            .manifest(&Reference::Tag("b".to_owned()))
            .is_none()
    );
}

#[test]
fn what_no_tag_needs_goes_when_it_is_old() {
    let mut repository = Repository::default();
    for blob in 1..=6 {
        repository.link(&digest(blob), at(0));
    }
    let tag = ["live".to_owned()];
    // An index with a child and a signature about the child; a manifest without a tag.
    repository
        .put(&digest(11), entry(0, &[1], &[], None), &[])
        .unwrap();
    repository
        .put(&digest(12), entry(0, &[], &[11], None), &tag)
        .unwrap();
    repository
        .put(&digest(13), entry(0, &[2], &[], Some(11)), &[])
        .unwrap();
    repository
        .put(&digest(14), entry(0, &[3], &[], None), &[])
        .unwrap();
    repository
        .put(&digest(15), entry(0, &[4], &[], None), &[])
        .unwrap();
    let keep = BTreeSet::from([digest(15)]);
    assert!(!repository.expire(&keep, at(0), |_| false), "it is new");
    assert!(repository.expire(&keep, at(1), |d| *d == digest(6)));
    let left: Vec<bool> = (1..=6).map(|n| repository.has_blob(&digest(n))).collect();
    assert_eq!(left, [true, true, false, true, false, true]);
    for (number, stays) in [(11, true), (12, true), (13, true), (14, false), (15, true)] {
        let found = repository.manifest(&Reference::Digest(digest(number)));
        assert_eq!(found.is_some(), stays, "{number}");
    }
}

#[test]
fn pages_come_in_order_and_end() {
    let all = || ["a", "b", "c"].map(str::to_owned).into_iter();
    assert_eq!(
        page(all(), None, None),
        (vec!["a".into(), "b".into(), "c".into()], false)
    );
    assert_eq!(
        page(all(), None, Some(2)),
        (vec!["a".into(), "b".into()], true)
    );
    assert_eq!(page(all(), Some("b"), Some(2)), (vec!["c".into()], false));
    assert_eq!(page(all(), Some("bb"), None), (vec!["c".into()], false));
    assert_eq!(page(all(), None, Some(0)), (vec![], false));
}

/// Any manifests over a few digests, some of them tagged.
fn repositories() -> impl Strategy<Value = Repository> {
    let numbers = || prop::collection::vec(0_u8..20, 0..4);
    let one = (
        0_u8..20,
        0_i64..4,
        numbers(),
        numbers(),
        prop::option::of(0_u8..20),
        any::<bool>(),
    );
    let blobs = prop::collection::vec((0_u8..20, 0_i64..4), 0..20);
    (prop::collection::vec(one, 0..12), blobs).prop_map(|(manifests, blobs)| {
        let mut repository = Repository::default();
        for (number, second) in blobs {
            repository.link(&digest(number), at(second));
        }
        for (number, second, blobs, children, subject, tagged) in manifests {
            let tags: Vec<String> = tagged.then(|| format!("t{number}")).into_iter().collect();
            let entry = entry(second, &blobs, &children, subject);
            repository.put(&digest(number), entry, &tags).unwrap();
        }
        repository
    })
}

proptest! {
    #[test]
    fn no_tag_and_nothing_needed_is_ever_lost(
        before in repositories(),
        now in 0_i64..5,
        keep in prop::collection::btree_set(0_u8..20, 0..4),
    ) {
        let keep: BTreeSet<Digest> = keep.into_iter().map(digest).collect();
        let mut after = before.clone();
        after.expire(&keep, at(now), |_| false);
        prop_assert_eq!(&after.tags, &before.tags);
        for (digest, entry) in &before.manifests {
            let needed = before.tags.values().any(|d| d == digest)
                || keep.contains(digest)
                || entry.at >= at(now);
            prop_assert!(!needed || after.manifests.contains_key(digest));
        }
        // Whatever stays has what it had.
        for entry in after.manifests.values() {
            for blob in &entry.blobs {
                prop_assert_eq!(after.blobs.contains_key(blob), before.blobs.contains_key(blob));
            }
            for child in &entry.children {
                let same = after.manifests.contains_key(child) == before.manifests.contains_key(child);
                prop_assert!(same);
            }
        }
        let mut again = after.clone();
        prop_assert!(!again.expire(&keep, at(now), |_| false));
    }

    #[test]
    fn pages_put_together_are_the_whole(count in 0_usize..30, n in 1_usize..7) {
        let all: Vec<String> = (0..count).map(|i| format!("{i:03}")).collect();
        let (mut seen, mut last) = (Vec::new(), None::<String>);
        loop {
            let (found, more) = page(all.clone().into_iter(), last.as_deref(), Some(n));
            last = found.last().cloned();
            seen.extend(found);
            if !more {
                break;
            }
        }
        prop_assert_eq!(seen, all);
    }

    #[test]
    fn no_text_makes_a_name_that_leaves_its_folder(text in "[a-z0-9./_+-]{0,40}") {
        if let Ok(name) = text.parse::<RepositoryName>() {
            prop_assert!(!name.file().contains('/') && !name.file().contains(".."));
            prop_assert_eq!(name.as_str(), &text);
        }
    }
}
