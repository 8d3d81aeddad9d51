//! Which part of the registry a path means. Pure.
//!
//! A repository's name has slashes and may have parts called `blobs` or `tags`, so paths are read
//! from their ends.

use hangar_image::{Digest, HostedError, Reference, RepositoryName};

use super::refusal::Refusal;

const ROOT: &str = "/v2";

/// A path, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// `/v2/`: whether this is a registry at all, and whether the token is known.
    Support,
    /// `/v2/_catalog`.
    Catalog,
    /// Something in a repository.
    In(RepositoryName, Target),
}

/// What a path means in a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Tags,
    Referrers(Digest),
    Manifest(Reference),
    Blob(Digest),
    /// Where uploads begin.
    Uploads,
    /// One upload.
    Upload(String),
}

/// Reads a path, percent-encoded as it came.
pub(super) fn parse(path: &str) -> Result<Route, Refusal> {
    let rest = path.strip_prefix(ROOT).ok_or(Refusal::Path)?;
    let rest = rest.strip_prefix('/').unwrap_or(rest);
    let parts: Option<Vec<String>> = rest.split('/').map(decode).collect();
    let parts = parts.ok_or(Refusal::Path)?;
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let (name, target) = match parts.as_slice() {
        [""] => return Ok(Route::Support),
        ["_catalog"] => return Ok(Route::Catalog),
        [name @ .., "tags", "list"] => (name, Target::Tags),
        [name @ .., "manifests", reference] => (name, Target::Manifest(reference.parse()?)),
        [name @ .., "referrers", of] => (name, Target::Referrers(digest(of)?)),
        [name @ .., "blobs", "uploads" | "uploads/"] | [name @ .., "blobs", "uploads", ""] => {
            (name, Target::Uploads)
        }
        [name @ .., "blobs", "uploads", id] => (name, Target::Upload((*id).to_owned())),
        [name @ .., "blobs", of] => (name, Target::Blob(digest(of)?)),
        _ => return Err(Refusal::Path),
    };
    Ok(Route::In(name.join("/").parse()?, target))
}

/// Reads a digest, or says which ones are taken.
pub(super) fn digest(text: &str) -> Result<Digest, Refusal> {
    text.parse().map_err(|_| {
        let shown: String = text.chars().take(100).collect();
        HostedError::DigestInvalid(format!("{shown:?} is no sha256 digest")).into()
    })
}

/// Undoes the percent-encoding of one part of a path.
fn decode(part: &str) -> Option<String> {
    if !part.contains('%') {
        return Some(part.to_owned());
    }
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first != b'%' {
            bytes.push(*first);
            rest = after;
            continue;
        }
        let hex = std::str::from_utf8(after.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(hex, 16).ok()?);
        rest = &after[2..];
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn within(name: &str, target: Target) -> Route {
        Route::In(name.parse().unwrap(), target)
    }

    #[test]
    fn every_path_of_the_specification_is_understood() {
        let digest: Digest = D.parse().unwrap();
        let tag = || Target::Manifest("v1".parse().unwrap());
        let cases = [
            ("/v2".to_owned(), Route::Support),
            ("/v2/".to_owned(), Route::Support),
            ("/v2/_catalog".to_owned(), Route::Catalog),
            ("/v2/web/tags/list".to_owned(), within("web", Target::Tags)),
            ("/v2/web/manifests/v1".to_owned(), within("web", tag())),
            (
                format!("/v2/web/manifests/{D}"),
                within("web", Target::Manifest(Reference::Digest(digest.clone()))),
            ),
            (
                format!("/v2/web/a/b/blobs/{D}"),
                within("web/a/b", Target::Blob(digest.clone())),
            ),
            (
                format!("/v2/web/blobs/{}", D.replace(':', "%3A")),
                within("web", Target::Blob(digest.clone())),
            ),
            (
                format!("/v2/web/referrers/{D}"),
                within("web", Target::Referrers(digest)),
            ),
            (
                "/v2/web/blobs/uploads/".to_owned(),
                within("web", Target::Uploads),
            ),
            (
                "/v2/web/blobs/uploads".to_owned(),
                within("web", Target::Uploads),
            ),
            (
                "/v2/web/blobs/uploads/0-1".to_owned(),
                within("web", Target::Upload("0-1".to_owned())),
            ),
            // Names that look like paths.
            (
                "/v2/web/blobs/tags/list".to_owned(),
                within("web/blobs", Target::Tags),
            ),
            (
                "/v2/manifests/manifests/v1".to_owned(),
                within("manifests", tag()),
            ),
        ];
        for (path, want) in cases {
            assert_eq!(parse(&path).unwrap(), want, "{path}");
        }
    }

    #[test]
    fn other_paths_are_refused_with_the_code_that_fits() {
        let cases = [
            ("/v2/web", "UNSUPPORTED"),
            ("/v2/tags/list", "NAME_INVALID"),
            ("/v2//tags/list", "NAME_INVALID"),
            ("/v2/Web/tags/list", "NAME_INVALID"),
            ("/v2/a%2Fb/tags/%zz", "UNSUPPORTED"),
            ("/v2/../tags/list", "NAME_INVALID"),
            ("/v2/web/blobs/sha512:12", "DIGEST_INVALID"),
            ("/v2/web/manifests/sha256:12", "DIGEST_INVALID"),
            ("/v2/web/manifests/.x", "MANIFEST_INVALID"),
            ("/v2/web/referrers/x", "DIGEST_INVALID"),
        ];
        for (path, code) in cases {
            let found = match parse(path).unwrap_err() {
                Refusal::Hosted(error) => error.code(),
                _ => "UNSUPPORTED",
            };
            assert_eq!(found, code, "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_path_panics_and_no_name_leaves_its_app(path in "/v2/[a-z0-9/%._:A-Z-]{0,60}") {
            if let Ok(Route::In(name, _)) = parse(&path) {
                prop_assert!(!name.as_str().contains(".."));
            }
        }
    }
}
