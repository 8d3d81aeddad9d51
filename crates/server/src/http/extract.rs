//! Reading requests: paths, queries and bodies, with Fly's tolerance and Fly's error bodies.

use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts, Query, RawPathParams, Request};
use axum::http::request::Parts;
use bytes::Bytes;
use hangar_api::exec::ExecRequest;
use hangar_api::id::{AppName, MachineId, OrgSlug, VolumeId};
use hangar_api::rights::{Access, Action};
use hangar_api::session::SessionRequest;
use serde::de::DeserializeOwned;

use super::MAX_BODY;
use crate::auth::{Caller, caller};
use crate::core::Core;
use crate::error::Problem;
use crate::lease::{Acting, Holder};
use crate::volumes;

/// Header with the nonce of a lease.
const LEASE_NONCE: &str = "fly-machine-lease-nonce";

/// A JSON body; an empty one, `null` and `{}` are the default.
#[derive(Debug)]
pub(crate) struct Lenient<T>(pub(crate) T);

/// A JSON body that must be there.
#[derive(Debug)]
pub(crate) struct Strict<T>(pub(crate) T);

/// The `{app}` of the path: a name, not yet known to exist.
#[derive(Debug)]
pub(crate) struct AppPath(pub(crate) AppName);

/// The `{slug}` of the path: an organisation's, not yet known to exist.
#[derive(Debug)]
pub(crate) struct SlugPath(pub(crate) OrgSlug);

/// The `{app}` and `{machine}` of the path.
#[derive(Debug)]
pub(crate) struct MachinePath {
    pub(crate) app: AppName,
    pub(crate) id: MachineId,
}

/// The `{app}` and `{volume}` of the path.
#[derive(Debug)]
pub(crate) struct VolumePath {
    pub(crate) app: AppName,
    pub(crate) id: VolumeId,
}

/// Any other part of the path, by the order of the parts.
#[derive(Debug)]
pub(crate) struct LastPart(pub(crate) String);

/// The query, in which a name may stand several times.
#[derive(Debug)]
pub(crate) struct Params(Vec<(String, String)>);

/// Who writes: the caller, and the lease that it shows.
#[derive(Debug)]
pub(crate) struct Writer(pub(crate) Holder);

/// Who asks.
#[derive(Debug)]
pub(crate) struct Asker(pub(crate) Caller);

/// A body with a command to be run in the Machine of the path, which the caller may run there.
#[derive(Debug)]
pub(crate) struct Command<T>(pub(crate) T);

/// A body that has a command.
pub(crate) trait HasCommand: DeserializeOwned + Default {
    /// Returns the command and its arguments as they will be run; none when there is none.
    fn command(&self) -> Vec<String>;
}

// === impl Lenient and Strict ===

pub(super) async fn body_of<S: Send + Sync>(
    request: Request,
    state: &S,
    most: usize,
) -> Result<Bytes, Problem> {
    let length = request.headers().get(axum::http::header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > most) {
        return Err(Problem::TooLarge(most));
    }
    Bytes::from_request(request, state).await.map_err(|error| {
        if error.status() == axum::http::StatusCode::PAYLOAD_TOO_LARGE {
            Problem::TooLarge(most)
        } else {
            Problem::Invalid(format!("the request body cannot be read: {error}"))
        }
    })
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes)
        .map_err(|error| Problem::Invalid(format!("the request body is not valid: {error}")))
}

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for Lenient<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = body_of(request, state, MAX_BODY).await?;
        let text = bytes.trim_ascii();
        if text.is_empty() || text == b"null" {
            return Ok(Self(T::default()));
        }
        parse(text).map(Self)
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Strict<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        parse(&body_of(request, state, MAX_BODY).await?).map(Self)
    }
}

// === impl paths ===

async fn part<S: Send + Sync>(
    parts: &mut Parts,
    state: &S,
    name: Option<&str>,
) -> Result<String, Problem> {
    let params = RawPathParams::from_request_parts(parts, state)
        .await
        .map_err(|_| Problem::Invalid("the path is not valid UTF-8".to_owned()))?;
    let found = match name {
        Some(name) => params.iter().find(|(key, _)| *key == name),
        None => params.iter().last(),
    };
    Ok(found.map(|(_, value)| value.to_owned()).unwrap_or_default())
}

fn app_name(text: String) -> Result<AppName, Problem> {
    // No app can have such a name, so there is none.
    AppName::new(text).map_err(|error| Problem::AppNotFound(error.value))
}

impl<S: Send + Sync> FromRequestParts<S> for AppPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        part(parts, state, Some("app"))
            .await
            .and_then(app_name)
            .map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for SlugPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let text = part(parts, state, Some("slug")).await?;
        // No organisation can have such a slug, so there is none.
        let slug = OrgSlug::new(text);
        slug.map(Self)
            .map_err(|error| Problem::OrgNotFound(error.value))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for MachinePath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let app = app_name(part(parts, state, Some("app")).await?)?;
        let id = MachineId::new(part(parts, state, Some("machine")).await?)
            .map_err(|error| Problem::InvalidMachineId(error.value))?;
        Ok(Self { app, id })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for VolumePath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let app = app_name(part(parts, state, Some("app")).await?)?;
        // No volume can have such an id, so there is none.
        let id = VolumeId::new(part(parts, state, Some("volume")).await?)
            .map_err(|_| volumes::not_found())?;
        Ok(Self { app, id })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for LastPart {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        part(parts, state, None).await.map(Self)
    }
}

// === impl Params ===

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Query::<Vec<(String, String)>>::try_from_uri(&parts.uri)
            .map(|Query(pairs)| Self(pairs))
            .map_err(|error| Problem::Invalid(format!("the query is not valid: {error}")))
    }
}

impl Params {
    /// Returns the values of a name, each split at its commas.
    pub(crate) fn list(&self, name: &str) -> Vec<&str> {
        let values = self.0.iter().filter(|(key, _)| key == name);
        values
            .flat_map(|(_, value)| value.split(','))
            .map(str::trim)
            .filter(|value| !value.is_empty())
            .collect()
    }

    /// Returns the first value of a name; an empty one is none.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let mut values = self.0.iter().filter(|(key, _)| key == name);
        let value = values.find(|(_, value)| !value.is_empty());
        value.map(|(_, value)| value.as_str())
    }

    /// Returns whether a name stands there with `true`, `1` or no value.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.0
            .iter()
            .any(|(key, value)| key == name && matches!(value.as_str(), "" | "1" | "true"))
    }

    /// Returns a value as something that can be read from text.
    pub(crate) fn parsed<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Problem> {
        self.get(name)
            .map(|text| {
                text.parse().map_err(|_| {
                    Problem::Invalid(format!("invalid_argument: {name} cannot be {text:?}"))
                })
            })
            .transpose()
    }
}

// === impl Writer ===

impl FromRequestParts<Arc<Core>> for Writer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Core>) -> Result<Self, Problem> {
        let Asker(caller) = Asker::from_request_parts(parts, &()).await?;
        let nonce = parts
            .headers
            .get(LEASE_NONCE)
            .and_then(|value| value.to_str().ok())
            .filter(|nonce| !nonce.is_empty())
            .map(str::to_owned);
        Ok(Self(Holder {
            user: caller.user().to_owned(),
            nonce,
            acting: Acting::Client,
        }))
    }
}

// === impl Asker ===

impl<S: Send + Sync> FromRequestParts<S> for Asker {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let caller = parts.extensions.get::<Caller>().cloned();
        caller.map(Self).ok_or(Problem::Unauthorized)
    }
}

// === impl Command ===

impl HasCommand for ExecRequest {
    fn command(&self) -> Vec<String> {
        match &self.cmd {
            _ if !self.command.is_empty() => self.command.clone(),
            // Kept as one word where it does not split: no token is for such a command alone.
            Some(text) => shlex::split(text).unwrap_or_else(|| vec![text.clone()]),
            None => Vec::new(),
        }
    }
}

impl HasCommand for SessionRequest {
    /// Variables can change what a command does, so they are a part of it, as with `env`; but for
    /// the kind of the terminal, which every client tells.
    fn command(&self) -> Vec<String> {
        let variables = self.env.iter().filter(|(name, _)| *name != "TERM");
        let mut words: Vec<String> = variables
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        if !words.is_empty() {
            words.insert(0, "env".to_owned());
        }
        words.extend(self.command.iter().cloned());
        words
    }
}

impl<T: HasCommand> FromRequest<Arc<Core>> for Command<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, core: &Arc<Core>) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let MachinePath { app, id } = MachinePath::from_request_parts(&mut parts, core).await?;
        let Asker(caller) = Asker::from_request_parts(&mut parts, core).await?;
        let request = Request::from_parts(parts, body);
        let Lenient(body) = Lenient::<T>::from_request(request, core).await?;
        let record = core.app(&app)?;
        let access = Access {
            command: Some(body.command()),
            ..caller::machine(&core.cache.snapshot(), &record.value, &id, Action::WRITE)
        };
        caller.require(&access, &format!("machine {id} of app {app}"))?;
        Ok(Self(body))
    }
}
