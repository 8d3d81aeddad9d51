//! Pulls manifests and blobs from registries that speak the OCI distribution protocol.
//!
//! Called by the store. Knows mirrors, sign-in, redirects and retries; the bytes travel by
//! [`http`]. Everything fetched by digest is checked against it on the way; nothing waits for a
//! silent peer longer than the limits below.

mod auth;
mod config;
mod http;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ::http::header::{ACCEPT, AUTHORIZATION, HeaderValue, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use ::http::{StatusCode, Uri};
use hangar_api::env::Env;

use crate::digest::{Digest, HashWriter};
use crate::error::ImageError;
use crate::manifest::{self, Blob, MAX_MANIFEST};
use crate::places::{self, places};
use crate::reference::Name;

pub use config::{Credentials, Mirror, RegistryConfig};

use http::{Client, Fault, Reply};

/// Tries of one request, the first included.
const MAX_TRIES: u32 = 4;
/// Pause before the second try; it doubles, with up to a half added by chance.
const FIRST_PAUSE: Duration = Duration::from_millis(400);
/// The longest pause a registry may ask for.
const MAX_PAUSE: Duration = Duration::from_secs(20);
const MAX_REDIRECTS: usize = 5;
/// Bytes of an error answer that are looked at.
const MAX_ERROR_BODY: u64 = 64 << 10;
/// Bytes of one blob: what a registry says is not believed beyond.
const MAX_BLOB: u64 = 128 << 30;
/// Sign-ins remembered.
const MAX_TOKENS: usize = 1000;

/// The client of all registries.
#[derive(Debug)]
pub(crate) struct Registry {
    config: RegistryConfig,
    env: Env,
    client: Client,
    /// What to send as authorization, by registry and repository.
    tokens: Mutex<BTreeMap<(String, String), HeaderValue>>,
}

/// One registry (or mirror) and the repository that is asked for there.
struct Place<'a> {
    host: &'a str,
    repository: &'a str,
}

/// What is to be fetched.
enum Want<'a> {
    Manifest(&'a str),
    Bytes(&'a Blob, u64),
    File(&'a Blob, &'a Path),
}

/// Why one try came to nothing.
enum Failed {
    /// Trying again may help, after this pause if the registry named one.
    Transient(String, Option<Duration>),
    Final(ImageError),
}

// === impl Registry ===

impl Registry {
    pub(crate) fn new(config: RegistryConfig, env: Env) -> Result<Self, ImageError> {
        Ok(Self {
            client: Client::new(&config.ca_files, env.clone())?,
            config,
            env,
            tokens: Mutex::default(),
        })
    }

    /// Fetches a manifest or index by tag or digest.
    pub(crate) async fn manifest(&self, name: &Name, wanted: &str) -> Result<Vec<u8>, ImageError> {
        self.fetch(name, &Want::Manifest(wanted)).await
    }

    /// Fetches a small blob into memory.
    pub(crate) async fn blob(
        &self,
        name: &Name,
        blob: &Blob,
        limit: u64,
    ) -> Result<Vec<u8>, ImageError> {
        self.fetch(name, &Want::Bytes(blob, limit)).await
    }

    /// Fetches a blob into a file, whose content is checked by then.
    pub(crate) async fn blob_to_file(
        &self,
        name: &Name,
        blob: &Blob,
        path: &Path,
    ) -> Result<(), ImageError> {
        self.fetch(name, &Want::File(blob, path)).await.map(drop)
    }

    async fn once(&self, place: &Place<'_>, want: &Want<'_>) -> Result<Vec<u8>, Failed> {
        match *want {
            Want::Manifest(wanted) => {
                let path = format!("/v2/{}/manifests/{wanted}", place.repository);
                let reply = self.get(place, &path, Some(manifest::ACCEPT)).await?;
                let mut out = HashWriter::new(Vec::new());
                receive(reply, &mut out, MAX_MANIFEST).await?;
                let (got, _, bytes) = out.finish();
                check(wanted.parse().ok().as_ref(), &got, "a manifest")?;
                Ok(bytes)
            }
            Want::Bytes(blob, limit) => {
                let mut out = HashWriter::new(Vec::new());
                self.stream(place, blob, &mut out, limit).await?;
                let (got, _, bytes) = out.finish();
                check(Some(&blob.digest), &got, "the config")?;
                Ok(bytes)
            }
            Want::File(blob, path) => {
                let disk = |e| Failed::Final(ImageError::disk("write a layer to", path, e));
                let mut out = HashWriter::new(File::create(path).map_err(disk)?);
                self.stream(place, blob, &mut out, MAX_BLOB).await?;
                let (got, _, _) = out.finish();
                check(Some(&blob.digest), &got, "a layer")?;
                Ok(Vec::new())
            }
        }
    }

    async fn stream(
        &self,
        place: &Place<'_>,
        blob: &Blob,
        out: &mut HashWriter<impl Write>,
        limit: u64,
    ) -> Result<(), Failed> {
        let path = format!("/v2/{}/blobs/{}", place.repository, blob.digest);
        let reply = self.get(place, &path, None).await?;
        receive(reply, out, blob.size.min(limit)).await
    }

    /// Returns how registries are reached.
    pub(crate) fn config(&self) -> &RegistryConfig {
        &self.config
    }

    /// Fetches from the mirrors of a registry, in order, and then at itself. Each is tried
    /// a few times. What went wrong at the registry itself is what the caller hears.
    async fn fetch(&self, name: &Name, want: &Want<'_>) -> Result<Vec<u8>, ImageError> {
        for found in places(name, &self.config) {
            let (host, is_last) = match &found {
                places::Place::Mirror(host) => (host, false),
                places::Place::Registry(host) => (host, true),
                _ => continue,
            };
            let place = Place {
                host,
                repository: &name.repository,
            };
            match self.retried(&place, want).await {
                Err(error @ (ImageError::DiskFull { .. } | ImageError::Disk { .. })) => {
                    return Err(error);
                }
                Err(error) if !is_last => {
                    tracing::info!(%error, mirror = host, image = %name, "mirror does not have the image");
                }
                done => return done,
            }
        }
        Err(ImageError::NotFound {
            name: name.to_string(),
            reason: "a part of it is not here any more; push or import it again".to_owned(),
        })
    }

    async fn retried(&self, place: &Place<'_>, want: &Want<'_>) -> Result<Vec<u8>, ImageError> {
        let mut pause = FIRST_PAUSE;
        for attempt in 1.. {
            let (reason, asked) = match Box::pin(self.once(place, want)).await {
                Ok(done) => return Ok(done),
                Err(Failed::Final(error)) => return Err(error),
                Err(Failed::Transient(reason, asked)) => (reason, asked),
            };
            if attempt >= MAX_TRIES {
                return Err(ImageError::Registry {
                    registry: place.host.to_owned(),
                    name: place.repository.to_owned(),
                    reason,
                });
            }
            let chance = pause.mul_f64(self.chance() / 2.0);
            let wait = asked.unwrap_or(pause + chance).min(MAX_PAUSE);
            tracing::debug!(
                registry = place.host,
                reason,
                attempt,
                "trying a registry again"
            );
            tokio::time::sleep(wait).await;
            pause *= 2;
        }
        Err(ImageError::CutOff)
    }

    fn chance(&self) -> f64 {
        f64::from(u32::try_from(self.env.random_u64() >> 32).unwrap_or(0)) / f64::from(u32::MAX)
    }

    /// Sends a request, signing in where the registry asks for it and following redirects.
    async fn get(
        &self,
        place: &Place<'_>,
        path: &str,
        accept: Option<&'static str>,
    ) -> Result<Reply, Failed> {
        let key = (place.host.to_owned(), place.repository.to_owned());
        let mut token = self.tokens().get(&key).cloned();
        let mut renewed = false;
        loop {
            let uri = self.uri(place.host, path)?;
            let reply = self.follow(place, uri, accept, token.as_ref()).await?;
            match reply.status() {
                StatusCode::OK => return Ok(reply),
                StatusCode::UNAUTHORIZED if !renewed => {
                    renewed = true;
                    let fresh = self.sign_in(place, &reply).await?;
                    let mut tokens = self.tokens();
                    if tokens.len() >= MAX_TOKENS {
                        tokens.clear();
                    }
                    tokens.insert(key.clone(), fresh.clone());
                    drop(tokens);
                    token = Some(fresh);
                }
                _ => return Err(refusal(place, path, reply).await),
            }
        }
    }

    async fn follow(
        &self,
        place: &Place<'_>,
        mut uri: Uri,
        accept: Option<&'static str>,
        token: Option<&HeaderValue>,
    ) -> Result<Reply, Failed> {
        let origin = uri.authority().cloned();
        for _ in 0..=MAX_REDIRECTS {
            let mut headers = Vec::new();
            if let Some(accept) = accept {
                headers.push((ACCEPT, HeaderValue::from_static(accept)));
            }
            // What signs us in here is nobody else's business.
            if let Some(token) = token.filter(|_| uri.authority() == origin.as_ref()) {
                headers.push((AUTHORIZATION, token.clone()));
            }
            let reply = self
                .client
                .get(&uri, headers)
                .await
                .map_err(|e| fault(place, e))?;
            if !reply.status().is_redirection() {
                return Ok(reply);
            }
            let target = reply.header(&LOCATION).unwrap_or_default();
            uri = self.redirect(place, &uri, &target)?;
        }
        Err(Failed::Final(protocol(place, "it redirects in circles")))
    }

    fn redirect(&self, place: &Place<'_>, from: &Uri, target: &str) -> Result<Uri, Failed> {
        let bad = || Failed::Final(protocol(place, &format!("it redirects to {target:?}")));
        let uri = match target.strip_prefix('/') {
            Some(_) => format!(
                "{}://{}{target}",
                from.scheme_str().unwrap_or("https"),
                from.authority().ok_or_else(bad)?
            )
            .parse::<Uri>(),
            None => target.parse(),
        }
        .map_err(|_| bad())?;
        let host = uri.authority().ok_or_else(bad)?.as_str();
        if !self.may_lead(place, &uri, host) {
            return Err(bad());
        }
        Ok(uri)
    }

    /// Gets what the registry wants to see as authorization.
    async fn sign_in(&self, place: &Place<'_>, reply: &Reply) -> Result<HeaderValue, Failed> {
        let challenge = reply.header(&WWW_AUTHENTICATE).unwrap_or_default();
        let credentials = self.config.credentials.get(place.host);
        let denied = |reason: &str| {
            Failed::Final(ImageError::Denied {
                registry: place.host.to_owned(),
                name: place.repository.to_owned(),
                reason: reason.to_owned(),
            })
        };
        match auth::Challenge::parse(&challenge) {
            Some(auth::Challenge::Basic) => match credentials {
                Some(credentials) => Ok(auth::basic(credentials)),
                None => Err(denied(
                    "it wants a user name and password; give the server those of this registry, in a \
                     file that --registry-auth names",
                )),
            },
            Some(auth::Challenge::Bearer(bearer)) => {
                let uri = bearer
                    .token_uri(place.repository)
                    .ok_or_else(|| denied("it names no proper place to sign in at"))?;
                let host = uri.authority().map_or("", |a| a.as_str());
                if !self.may_lead(place, &uri, host) {
                    return Err(denied("it wants the sign-in at a place that is not safe"));
                }
                let basic = credentials.map(|c| (AUTHORIZATION, auth::basic(c)));
                let sent = self.client.get(&uri, basic.into_iter().collect()).await;
                let reply = sent.map_err(|e| fault(place, e))?;
                if reply.status() != StatusCode::OK {
                    return Err(refusal(place, "the sign-in", reply).await);
                }
                let mut body = HashWriter::new(Vec::new());
                receive(reply, &mut body, MAX_ERROR_BODY).await?;
                let (_, _, body) = body.finish();
                auth::token(&body).ok_or_else(|| denied("its sign-in gave no token"))
            }
            None => Err(denied(
                "it wants a kind of sign-in that Hangar does not know",
            )),
        }
    }

    fn tokens(&self) -> std::sync::MutexGuard<'_, BTreeMap<(String, String), HeaderValue>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn uri(&self, host: &str, path: &str) -> Result<Uri, Failed> {
        let scheme = if self.is_plain(host) { "http" } else { "https" };
        format!("{scheme}://{host}{path}").parse().map_err(|_| {
            Failed::Final(ImageError::Name {
                name: format!("{host}{path}"),
                reason: "it makes no web address".to_owned(),
            })
        })
    }

    /// Returns whether a registry may send us to an address: never from https down to plain http
    /// on the way, and never from outside to services of this machine.
    fn may_lead(&self, place: &Place<'_>, to: &Uri, host: &str) -> bool {
        let plain = to.scheme_str() == Some("http");
        let inward = http::is_loopback(host) && !http::is_loopback(place.host);
        !inward && (!plain || self.is_plain(host) || self.is_plain(place.host))
    }

    fn is_plain(&self, authority: &str) -> bool {
        self.config.insecure.contains(authority) || http::is_loopback(authority)
    }
}

/// Reads an answer's body, at most `limit` bytes of it.
async fn receive(
    mut reply: Reply,
    out: &mut HashWriter<impl Write>,
    limit: u64,
) -> Result<(), Failed> {
    loop {
        let chunk = match reply.chunk().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => return Ok(()),
            Err(reason) => return Err(Failed::Transient(reason, None)),
        };
        let more = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        if out.len().saturating_add(more) > limit {
            return Err(Failed::Final(ImageError::broken(
                "what the registry sent",
                format!("it is larger than the {limit} bytes announced or allowed"),
            )));
        }
        out.write_all(&chunk).map_err(|e| {
            Failed::Final(ImageError::disk(
                "write what was downloaded to",
                Path::new("the image store"),
                e,
            ))
        })?;
    }
}

fn check(wanted: Option<&Digest>, got: &Digest, what: &str) -> Result<(), Failed> {
    match wanted {
        // A cut connection looks like this too when no length was announced.
        Some(wanted) if wanted != got => {
            let reason = format!("it sent {what} with digest {got} instead of {wanted}");
            Err(Failed::Transient(reason, None))
        }
        _ => Ok(()),
    }
}

/// Turns an answer other than "here it is" into an error for a person.
async fn refusal(place: &Place<'_>, path: &str, reply: Reply) -> Failed {
    let status = reply.status();
    let after = reply
        .header(&RETRY_AFTER)
        .and_then(|text| text.parse().ok());
    let mut body = HashWriter::new(Vec::new());
    let said = match receive(reply, &mut body, MAX_ERROR_BODY).await {
        Ok(()) => auth::error_text(&body.finish().2),
        Err(_) => None,
    };
    let said = said.map_or(String::new(), |text| format!(" ({text})"));
    if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
        let reason = format!("it answered {status}{said}");
        return Failed::Transient(reason, after.map(Duration::from_secs));
    }
    let what = path.rsplit('/').next().unwrap_or(path);
    let kind = if what.contains(':') { "" } else { "tag " };
    Failed::Final(match status {
        StatusCode::NOT_FOUND => ImageError::NotFound {
            name: format!("{}/{}", place.host, place.repository),
            reason: format!("the registry has no {kind}{what}{said}"),
        },
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ImageError::Denied {
            registry: place.host.to_owned(),
            name: place.repository.to_owned(),
            reason: format!("it does not exist, or needs a sign-in{said}"),
        },
        _ => protocol(place, &format!("it answered {status} for {what}{said}")),
    })
}

fn fault(place: &Place<'_>, fault: Fault) -> Failed {
    match fault {
        Fault::Transient(reason) => Failed::Transient(reason, None),
        Fault::Final(reason) => Failed::Final(protocol(place, &reason)),
    }
}

fn protocol(place: &Place<'_>, reason: &str) -> ImageError {
    ImageError::Registry {
        registry: place.host.to_owned(),
        name: place.repository.to_owned(),
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_registry_may_not_send_us_to_this_machine_or_down_to_plain_http() {
        let config = RegistryConfig {
            insecure: BTreeSet::from(["old.example:5000".to_owned()]),
            ..RegistryConfig::default()
        };
        let registry = Registry::new(config, Env::real()).unwrap();
        let cases = [
            ("example.com", "https://storage.example/x", true),
            ("example.com", "http://storage.example/x", false),
            ("example.com", "http://old.example:5000/x", true),
            ("example.com", "https://127.0.0.1/x", false),
            ("example.com", "http://localhost:4280/v1/apps", false),
            ("old.example:5000", "http://storage.example/x", true),
            ("localhost:5000", "http://127.0.0.1:9000/x", true),
        ];
        for (host, to, may) in cases {
            let place = Place {
                host,
                repository: "a",
            };
            let to: Uri = to.parse().unwrap();
            let target = to.authority().unwrap().to_string();
            assert_eq!(registry.may_lead(&place, &to, &target), may, "{host} {to}");
        }
    }
}
