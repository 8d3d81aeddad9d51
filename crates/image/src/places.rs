//! Where an image is looked for: from a name to a list of places, in order. Pure.
//!
//! The order is told to users in docs/guide/images.md:
//!
//! 1. what was imported under the name;
//! 2. with a digest: what is here already;
//! 3. the registry that Hangar embeds, for names that begin with one of its hosts, and for `APP` and
//!    `APP:TAG` without a host;
//! 4. mirrors of the registry that the name means, then that registry itself. Not for names of the
//!    embedded registry, nor for `localhost/NAME`.

use crate::digest::Digest;
use crate::hosted::{Reference, RepositoryName};
use crate::reference::Name;
use crate::registry::RegistryConfig;

/// The host by which Fly's clients name the registry of their platform.
pub(crate) const FLY_REGISTRY: &str = "registry.fly.io";

/// One place to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// What was imported under this name.
    Imported(String),
    /// The store, by digest.
    Here(Digest),
    /// The embedded registry.
    Embedded {
        repository: RepositoryName,
        reference: Reference,
        /// Whether the image is named by a host of the registry, and nowhere else then.
        only: bool,
    },
    /// A mirror of a registry, by its host.
    Mirror(String),
    /// The registry itself, by its host.
    Registry(String),
}

/// Returns where to look for a name.
pub(crate) fn places(name: &Name, config: &RegistryConfig) -> Vec<Place> {
    let keys = name.import_keys().into_iter();
    let mut places: Vec<Place> = keys.map(Place::Imported).collect();
    places.extend(name.digest.clone().map(Place::Here));
    let only = is_embedded(&name.registry, config);
    places.extend(embedded(name, only));
    if only || name.only_local {
        return places;
    }
    let mirrors = config.mirrors.get(&name.registry).into_iter().flatten();
    places.extend(mirrors.cloned().map(Place::Mirror));
    places.push(Place::Registry(name.registry.clone()));
    places
}

/// Returns whether a host means the embedded registry.
pub(crate) fn is_embedded(host: &str, config: &RegistryConfig) -> bool {
    let host = host.to_ascii_lowercase();
    let host = host.strip_suffix(":443").unwrap_or(&host);
    host == FLY_REGISTRY || config.embedded.contains(host)
}

/// Returns where in the embedded registry a name is, if it may be there.
fn embedded(name: &Name, only: bool) -> Option<Place> {
    let repository = if only { &name.repository } else { name.bare()? };
    let reference = match &name.digest {
        Some(digest) => Reference::Digest(digest.clone()),
        None => Reference::Tag(name.tag.clone()),
    };
    Some(Place::Embedded {
        repository: repository.parse().ok()?,
        reference,
        only,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn config() -> RegistryConfig {
        RegistryConfig {
            embedded: ["localhost:4280", "127.0.0.1:4280", "images.example"]
                .map(str::to_owned)
                .into(),
            mirrors: [(
                "registry-1.docker.io".to_owned(),
                vec!["mirror.example".to_owned(), "second.example".to_owned()],
            )]
            .into(),
            ..RegistryConfig::default()
        }
    }

    /// Writes places in short: `import K`, `here`, `embedded R` (`!` for nowhere else), hosts.
    fn look(text: &str, config: &RegistryConfig) -> String {
        let places = places(&text.parse().unwrap(), config);
        let shown = places.into_iter().map(|place| match place {
            Place::Imported(key) => format!("import {key}"),
            Place::Here(_) => "here".to_owned(),
            Place::Embedded {
                repository,
                reference,
                only,
            } => {
                let what = match reference {
                    Reference::Tag(tag) => format!(":{tag}"),
                    Reference::Digest(_) => "@".to_owned(),
                };
                format!("embedded {repository}{what}{}", if only { "!" } else { "" })
            }
            Place::Mirror(host) => format!("mirror {host}"),
            Place::Registry(host) => host,
        });
        shown.collect::<Vec<_>>().join(", ")
    }

    #[track_caller]
    fn check(cases: &[(&str, String)]) {
        for (text, want) in cases {
            assert_eq!(look(text, &config()), *want, "{text}");
        }
    }

    #[test]
    fn a_name_of_docker_hub_is_an_import_in_any_spelling_then_a_push_then_the_hub() {
        let hub = "mirror mirror.example, mirror second.example, registry-1.docker.io";
        // The spelling that was used comes first.
        let imports = |tag: &str, first: usize| {
            let mut all = ["nginx", "library/nginx", "docker.io/library/nginx"];
            all[..=first].rotate_right(1);
            all.map(|path| format!("import {path}:{tag}")).join(", ")
        };
        check(&[
            (
                "nginx",
                format!("{}, embedded nginx:latest, {hub}", imports("latest", 0)),
            ),
            (
                "library/nginx:1.29",
                format!("{}, {hub}", imports("1.29", 1)),
            ),
            (
                "docker.io/library/nginx",
                format!("{}, {hub}", imports("latest", 2)),
            ),
            (
                "team/web:2",
                format!("import team/web:2, import docker.io/team/web:2, {hub}"),
            ),
            (
                &format!("nginx@{D}"),
                format!("{}, here, embedded nginx@, {hub}", imports("latest", 0)),
            ),
        ]);
    }

    #[test]
    fn a_name_with_a_host_is_an_import_or_what_that_host_has() {
        check(&[
            (
                "registry.fly.io/web:deployment-01",
                "import registry.fly.io/web:deployment-01, embedded web:deployment-01!".to_owned(),
            ),
            (
                "Registry.Fly.io:443/web:1",
                "import Registry.Fly.io:443/web:1, embedded web:1!".to_owned(),
            ),
            (
                "registry.fly.io/web/worker",
                "import registry.fly.io/web/worker:latest, embedded web/worker:latest!".to_owned(),
            ),
            (
                "localhost:4280/web:1",
                "import localhost:4280/web:1, embedded web:1!".to_owned(),
            ),
            (
                "images.example/web:1",
                "import images.example/web:1, embedded web:1!".to_owned(),
            ),
            (
                &format!("registry.fly.io/web:1@{D}"),
                "import registry.fly.io/web:1, here, embedded web@!".to_owned(),
            ),
            ("localhost/web:1", "import web:1".to_owned()),
            (
                "localhost:5000/web:1",
                "import localhost:5000/web:1, localhost:5000".to_owned(),
            ),
            (
                "ghcr.io/a/b",
                "import ghcr.io/a/b:latest, ghcr.io".to_owned(),
            ),
        ]);
    }

    #[test]
    fn an_embedded_name_is_never_asked_for_elsewhere() {
        let text = look("registry.fly.io/not-an.app:1", &config());
        assert_eq!(text, "import registry.fly.io/not-an.app:1");
    }
}
