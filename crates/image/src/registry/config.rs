//! How registries are reached, as operators write it: mirrors and files of sign-ins. Pure, but for
//! reading the file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::error::ImageError;
use crate::reference::DEFAULT_REGISTRY;

/// Bytes of a file of sign-ins.
const MAX_FILE: u64 = 1 << 20;
/// How Docker Hub is called, in names and in files of sign-ins.
const DOCKER_HUB: [&str; 4] = [
    "docker.io",
    "index.docker.io",
    "registry-1.docker.io",
    "registry.hub.docker.com",
];

/// How registries are reached. The default needs nothing: https, public roots, no sign-in.
#[derive(Clone, Debug, Default)]
pub struct RegistryConfig {
    /// Registries (`host` or `host:port`) that are spoken to in plain http. Loopback ones are
    /// anyway.
    pub insecure: BTreeSet<String>,
    /// Hosts (`host` or `host:port`) that mean the registry that Hangar embeds, beside
    /// `registry.fly.io`.
    pub embedded: BTreeSet<String>,
    /// Registries to try first, in order, by the registry they stand for.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// Sign-ins by registry.
    pub credentials: BTreeMap<String, Credentials>,
    /// PEM files with certificates of authorities to trust beside the public ones.
    pub ca_files: Vec<PathBuf>,
}

/// A name and password for a registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The name.
    pub username: String,
    /// The password or access token.
    pub password: String,
}

/// A registry that is asked before another one: `[REGISTRY=]HOST[:PORT]`, with `http://` before
/// the host where it has no https. Without `REGISTRY=` it stands for Docker Hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    registry: String,
    host: String,
    is_plain: bool,
}

/// A file of sign-ins in the form of Docker's `config.json`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AuthFile {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
    #[serde(default)]
    creds_store: Option<String>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
struct Auth {
    #[serde(default)]
    auth: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    identitytoken: Option<String>,
}

// === impl RegistryConfig ===

impl RegistryConfig {
    /// Adds a mirror, behind those that there are.
    pub fn add_mirror(&mut self, mirror: &Mirror) {
        let host = mirror.host.clone();
        if mirror.is_plain {
            self.insecure.insert(host.clone());
        }
        let of = self.mirrors.entry(mirror.registry.clone()).or_default();
        of.push(host);
    }

    /// Adds the sign-ins of a file in the form of Docker's `config.json`, as `docker login` and
    /// `skopeo login` write it. One that keeps passwords elsewhere is refused.
    pub fn add_auth_file(&mut self, path: &Path) -> Result<(), ImageError> {
        let failed = |e| ImageError::disk("read", path, e);
        if std::fs::metadata(path).map_err(failed)?.len() > MAX_FILE {
            let reason = format!("it is larger than {MAX_FILE} bytes");
            return Err(ImageError::broken(path.display().to_string(), reason));
        }
        let text = std::fs::read(path).map_err(failed)?;
        let found = sign_ins(&text);
        let found = found.map_err(|r| ImageError::broken(path.display().to_string(), r))?;
        self.credentials.extend(found);
        Ok(())
    }
}

/// Reads a file of sign-ins.
fn sign_ins(text: &[u8]) -> Result<BTreeMap<String, Credentials>, String> {
    let file: AuthFile = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if file.creds_store.is_some_and(|s| !s.is_empty()) || !file.cred_helpers.is_empty() {
        return Err(
            "it keeps passwords in a helper program, which the server does not run; write each as \
             \"auth\" under \"auths\""
                .to_owned(),
        );
    }
    let pairs = file.auths.into_iter();
    pairs
        .map(|(key, auth)| Ok((host_of(&key)?, credentials(&key, auth)?)))
        .collect()
}

/// Returns the registry that a key means: `ghcr.io`, `https://ghcr.io`, `https://index.docker.io/v1/`.
fn host_of(key: &str) -> Result<String, String> {
    let text = key.split_once("://").map_or(key, |(_, rest)| rest);
    let (host, path) = text.split_once('/').unwrap_or((text, ""));
    if !matches!(path.trim_end_matches('/'), "" | "v1" | "v2") {
        return Err(format!(
            "sign-ins are by registry, and {key:?} is a part of one; write it for {host:?}"
        ));
    }
    if host.is_empty() {
        return Err(format!("{key:?} is no registry"));
    }
    Ok(registry_of(host))
}

fn registry_of(host: &str) -> String {
    let host = host.to_lowercase();
    if DOCKER_HUB.contains(&host.as_str()) {
        return DEFAULT_REGISTRY.to_owned();
    }
    host
}

fn credentials(key: &str, auth: Auth) -> Result<Credentials, String> {
    if auth.identitytoken.is_some_and(|token| !token.is_empty()) {
        return Err(format!(
            "{key} has an identity token, which is not offered; give a user name and a password"
        ));
    }
    let pair = match (
        auth.auth.filter(|a| !a.is_empty()),
        auth.username,
        auth.password,
    ) {
        (Some(text), _, _) => {
            let bytes = STANDARD.decode(text.trim()).ok();
            let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
            // Docker ends some of them with zero bytes.
            text.as_deref()
                .and_then(|text| text.trim_end_matches('\0').split_once(':'))
                .map(|(name, word)| (name.to_owned(), word.to_owned()))
        }
        (None, Some(name), Some(word)) => Some((name, word)),
        (None, _, _) => None,
    };
    let (username, password) = pair.ok_or_else(|| {
        format!("{key} has no \"auth\", which is USER:PASSWORD in base64, that can be read")
    })?;
    Ok(Credentials { username, password })
}

// === impl Mirror ===

impl FromStr for Mirror {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (registry, place) = text.split_once('=').unwrap_or(("docker.io", text));
        let (is_plain, host) = match place.split_once("://") {
            Some(("http", host)) => (true, host),
            Some(("https", host)) => (false, host),
            Some((scheme, _)) => {
                return Err(format!("{scheme}:// is not spoken; https:// or http://"));
            }
            None => (false, place),
        };
        let host = host.strip_suffix('/').unwrap_or(host);
        for name in [registry, host] {
            let fits = |b: u8| b.is_ascii_alphanumeric() || b".-:[]".contains(&b);
            if name.is_empty() || !name.bytes().all(fits) {
                return Err(format!(
                    "{name:?} is no HOST[:PORT]; write REGISTRY=HOST, or HOST for a mirror of Docker Hub"
                ));
            }
        }
        Ok(Self {
            registry: registry_of(registry),
            host: host.to_lowercase(),
            is_plain,
        })
    }
}

// === impl Credentials ===

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_stands_for_docker_hub_unless_it_says_for_whom() {
        let cases = [
            ("mirror.example", DEFAULT_REGISTRY, "mirror.example", false),
            (
                "docker.io=https://m.example/",
                DEFAULT_REGISTRY,
                "m.example",
                false,
            ),
            (
                "ghcr.io=http://10.0.0.1:5000",
                "ghcr.io",
                "10.0.0.1:5000",
                true,
            ),
            (
                "http://localhost:5000",
                DEFAULT_REGISTRY,
                "localhost:5000",
                true,
            ),
        ];
        for (text, registry, host, is_plain) in cases {
            let want = Mirror {
                registry: registry.to_owned(),
                host: host.to_owned(),
                is_plain,
            };
            assert_eq!(text.parse::<Mirror>().unwrap(), want, "{text}");
        }
        for bad in ["", "=x", "x=", "ftp://x", "https://x/path", "a b", "x=y=z"] {
            assert!(bad.parse::<Mirror>().is_err(), "{bad}");
        }
        let mut config = RegistryConfig::default();
        config.add_mirror(&"a.example".parse().unwrap());
        config.add_mirror(&"http://b.example".parse().unwrap());
        assert_eq!(config.mirrors[DEFAULT_REGISTRY], ["a.example", "b.example"]);
        assert_eq!(config.insecure, BTreeSet::from(["b.example".to_owned()]));
    }

    #[test]
    fn sign_ins_are_read_as_docker_and_podman_write_them() {
        let text = br#"{"auths":{
            "https://index.docker.io/v1/":{"auth":"dXNlcjpwYTpzcw=="},
            "ghcr.io":{"username":"me","password":"word"},
            "https://r.example:5000":{"auth":"YTpiAA=="}},
            "HttpHeaders":{}}"#;
        let found = sign_ins(text).unwrap();
        let pair = |registry: &str| {
            let found = &found[registry];
            (found.username.as_str(), found.password.as_str())
        };
        assert_eq!(pair(DEFAULT_REGISTRY), ("user", "pa:ss"));
        assert_eq!(pair("ghcr.io"), ("me", "word"));
        assert_eq!(pair("r.example:5000"), ("a", "b"));
    }

    #[test]
    fn what_cannot_be_used_is_refused_in_words() {
        let cases = [
            ("{", "EOF"),
            (r#"{"auths":{"ghcr.io":{}}}"#, "no \"auth\""),
            (r#"{"auths":{"ghcr.io":{"auth":"!"}}}"#, "no \"auth\""),
            (
                r#"{"auths":{"quay.io/team":{"auth":"YTpi"}}}"#,
                "by registry",
            ),
            (r#"{"auths":{"":{"auth":"YTpi"}}}"#, "no registry"),
            (r#"{"auths":{"x":{"identitytoken":"t"}}}"#, "identity token"),
            (r#"{"credsStore":"desktop"}"#, "helper program"),
            (r#"{"credHelpers":{"gcr.io":"gcloud"}}"#, "helper program"),
        ];
        for (text, words) in cases {
            let error = sign_ins(text.as_bytes()).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
