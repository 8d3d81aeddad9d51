//! Image names as people write them: `nginx`, `ghcr.io/a/b:tag`, `localhost:5000/a@sha256:...`.

use std::fmt;
use std::str::FromStr;

use hangar_api::image::ImageRef;
use oci_spec::distribution::Reference;

use crate::digest::Digest;
use crate::error::ImageError;

/// The registry of names that start with none.
pub(crate) const DEFAULT_REGISTRY: &str = "registry-1.docker.io";
/// The registry that stands for "imported here", in names and in references.
pub(crate) const LOCAL_REGISTRY: &str = "localhost";
const DOCKER_HUB: &str = "docker.io";

/// A parsed image name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// The name under which an import would be found: as written, with its tag, without
    /// `localhost/` and without digest.
    pub(crate) import_key: String,
    /// Whether only an import can be meant.
    pub(crate) only_local: bool,
    /// Host and port of the registry.
    pub registry: String,
    /// The repository there.
    pub repository: String,
    /// The tag; `latest` if neither tag nor digest was given, else what was given or "".
    pub tag: String,
    /// The digest, if one was given.
    pub digest: Option<Digest>,
}

// === impl Name ===

impl FromStr for Name {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        let bad = |reason: String| ImageError::Name {
            name: text.to_owned(),
            reason,
        };
        let parsed: Reference = text
            .parse()
            .map_err(|e: oci_spec::distribution::ParseError| bad(e.to_string()))?;
        let digest = match parsed.digest() {
            Some(d) => Some(d.parse::<Digest>().map_err(|e| bad(e.to_string()))?),
            None => None,
        };
        let registry = match parsed.registry() {
            DOCKER_HUB => DEFAULT_REGISTRY,
            other => other,
        };
        let written = text.split('@').next().unwrap_or(text);
        let mut import_key = written
            .strip_prefix("localhost/")
            .unwrap_or(written)
            .to_owned();
        let last = import_key.rsplit('/').next().unwrap_or_default();
        if !last.contains(':') {
            import_key.push_str(":latest");
        }
        Ok(Self {
            import_key,
            only_local: registry == LOCAL_REGISTRY,
            registry: registry.to_owned(),
            repository: parsed.repository().to_owned(),
            tag: parsed.tag().unwrap_or_default().to_owned(),
            digest,
        })
    }
}

impl Name {
    /// Returns the name of a resolved reference.
    pub(crate) fn of(image: &ImageRef) -> Result<Self, ImageError> {
        let mut text = format!("{}/{}", image.registry, image.repository);
        if image.registry.is_empty() {
            text = image.repository.clone();
        }
        if !image.tag.is_empty() {
            text = format!("{text}:{}", image.tag);
        }
        if !image.digest.is_empty() {
            text = format!("{text}@{}", image.digest);
        }
        text.parse()
    }

    /// Returns the reference of an image that was imported under this name.
    pub(crate) fn imported_ref(&self, digest: &Digest) -> ImageRef {
        let (path, tag) = self
            .import_key
            .rsplit_once(':')
            .unwrap_or((&self.import_key, ""));
        let explicit = self.import_key.starts_with(&format!("{}/", self.registry));
        let (registry, repository) = if explicit && !self.only_local {
            (self.registry.clone(), self.repository.clone())
        } else {
            (LOCAL_REGISTRY.to_owned(), path.to_owned())
        };
        ImageRef {
            registry,
            repository,
            tag: tag.to_owned(),
            digest: digest.to_string(),
            ..ImageRef::default()
        }
    }

    /// Returns the keys of imports that the name means: as written, then the other spellings of a
    /// name of Docker Hub.
    pub(crate) fn import_keys(&self) -> Vec<String> {
        let mut keys = vec![self.import_key.clone()];
        if self.registry == DEFAULT_REGISTRY && !self.only_local {
            let (_, tag) = self.import_key.rsplit_once(':').unwrap_or_default();
            let short = self.repository.strip_prefix("library/");
            let paths = short.into_iter().chain([self.repository.as_str()]);
            let mut spelled: Vec<String> = paths.map(|path| format!("{path}:{tag}")).collect();
            spelled.push(format!("{DOCKER_HUB}/{}:{tag}", self.repository));
            spelled.retain(|key| *key != self.import_key);
            keys.extend(spelled);
        }
        keys
    }

    /// Returns the one word of a name that was written without host and path, such as `web:2`.
    pub(crate) fn bare(&self) -> Option<&str> {
        let (path, _) = self.import_key.rsplit_once(':')?;
        let is_bare = !self.only_local && !path.contains('/');
        is_bare.then_some(path)
    }

    /// Returns what the registry is to be asked for: the digest, else the tag.
    pub(crate) fn wanted(&self) -> String {
        match &self.digest {
            Some(digest) => digest.to_string(),
            None => self.tag.clone(),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if !self.tag.is_empty() {
            write!(f, ":{}", self.tag)?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_mean_what_docker_means_by_them() {
        let cases = [
            ("nginx", "registry-1.docker.io/library/nginx:latest"),
            ("nginx:1.27", "registry-1.docker.io/library/nginx:1.27"),
            ("a/b", "registry-1.docker.io/a/b:latest"),
            ("docker.io/a/b", "registry-1.docker.io/a/b:latest"),
            ("ghcr.io/a/b/c:t", "ghcr.io/a/b/c:t"),
            ("localhost:5000/a/b:tag", "localhost:5000/a/b:tag"),
        ];
        for (text, want) in cases {
            assert_eq!(text.parse::<Name>().unwrap().to_string(), want);
        }
        let both: Name = format!("localhost:5000/a/b:tag@{D}").parse().unwrap();
        assert_eq!(both.to_string(), format!("localhost:5000/a/b:tag@{D}"));
        assert_eq!(both.wanted(), D);
        let only: Name = format!("nginx@{D}").parse().unwrap();
        assert_eq!(
            (only.tag.as_str(), only.import_key.as_str()),
            ("", "nginx:latest")
        );
    }

    #[test]
    fn what_is_no_name_is_refused_in_words() {
        for text in [
            "",
            "Nginx",
            "a b",
            "a:b:c",
            "../x",
            "x@sha256:12",
            "/x",
            "x/",
        ] {
            let error = text.parse::<Name>().unwrap_err().to_string();
            assert!(error.starts_with("image name"), "{text}: {error}");
        }
    }

    #[test]
    fn a_reference_made_by_an_import_finds_the_import_again() {
        for text in [
            "web",
            "web:2",
            "team/web:2",
            "localhost/web:2",
            "ghcr.io/team/web:2",
        ] {
            let name: Name = text.parse().unwrap();
            let image = name.imported_ref(&D.parse().unwrap());
            let again = Name::of(&image).unwrap();
            assert_eq!(again.import_key, name.import_key, "{text} {image:?}");
        }
    }
}
