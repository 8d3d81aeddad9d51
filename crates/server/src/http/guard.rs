//! Who may call which endpoint: the need of each row of the table, checked before its handler.

use std::sync::Arc;

use axum::extract::{FromRequestParts, RawPathParams, Request, State};
use axum::http::header;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use hangar_api::app::AppRecord;
use hangar_api::id::{AppName, MachineId, OrgSlug};
use hangar_api::rights::{Access, Action, FEATURE_TOKENS};
use hangar_store::Snapshot;
use hangar_store::tables::{Apps, Orgs};

use crate::auth::{self, Caller, caller};
use crate::core::Core;
use crate::error::Problem;
use crate::inside;

/// What an endpoint asks of its caller. A row of the table cannot be written without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing, not even a token.
    Open,
    /// Any token that is good: what is answered is everybody's.
    Token,
    /// To do this to the platform itself: a token of an organisation never may.
    Platform(Action),
    /// To do this to the organisation `{slug}`.
    Org(Action),
    /// To do this to the tokens of the organisation `{slug}`, or of the one of `{app}`.
    Tokens(Action),
    /// To do this to `{app}`.
    App(Action),
    /// To deploy to `{app}`. Where there is no such app, anybody may look at what its first
    /// deployment would be: the handler sees [`Absent`], and does no more.
    Deploy,
    /// To read some Machines of `{app}`: the handler leaves out the others.
    MachineList,
    /// To do this to `{machine}` of `{app}`.
    Machine(Action),
    /// To run the command of the body in `{machine}` of `{app}`: the extractor
    /// [`super::extract::Command`] checks that.
    Exec,
    /// To do this to `{volume}` of `{app}`.
    Volume(Action),
    /// Any token: the handler leaves out of its answer what the caller may not read.
    Listed,
    /// Any token: what is touched stands in the body or the query, and the handler checks it.
    Body,
}

/// Noted for a handler: the app did not exist when its need was checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Absent;

/// What a guard works with.
#[derive(Clone)]
pub(super) struct Guard {
    pub(super) core: Arc<Core>,
    pub(super) need: Need,
}

/// Lets in who carries a token that is good, and notes who it is.
pub(super) async fn check_token(
    State(core): State<Arc<Core>>,
    mut request: Request,
    next: Next,
) -> Response {
    let caller = match request.headers().get(header::AUTHORIZATION) {
        Some(value) => value
            .to_str()
            .ok()
            .and_then(|header| auth::caller(&core, header)),
        None => inside::admitted(&core, &request),
    };
    match caller {
        Some(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        None => Problem::Unauthorized.into_response(),
    }
}

/// Lets through who may do what the endpoint does to what the path names.
pub(super) async fn check_need(
    State(guard): State<Guard>,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    match judge(&guard, &mut parts).await {
        Ok(()) => next.run(Request::from_parts(parts, body)).await,
        Err(problem) => problem.into_response(),
    }
}

async fn judge(guard: &Guard, parts: &mut Parts) -> Result<(), Problem> {
    let caller = parts.extensions.get::<Caller>().cloned();
    let params = RawPathParams::from_request_parts(parts, &guard.core)
        .await
        .map_err(|_| Problem::Invalid("the path is not valid UTF-8".to_owned()))?;
    let part = |name: &str| {
        let found = params.iter().find(|(key, _)| *key == name);
        found.map_or("", |(_, value)| value)
    };
    if guard.need == Need::Open {
        return Ok(());
    }
    let caller = caller.ok_or(Problem::Unauthorized)?;
    let snapshot = guard.core.cache.snapshot();
    match guard.need {
        Need::Open | Need::Token | Need::Listed | Need::Body => Ok(()),
        Need::Platform(action) => {
            let access = caller::platform(action);
            caller.require(&access, "the platform")
        }
        Need::Org(action) => org(&snapshot, &caller, part("slug"), |access| Access {
            action,
            ..access
        }),
        Need::Tokens(action) if part("app").is_empty() => {
            org(&snapshot, &caller, part("slug"), |access| Access {
                action,
                feature: Some(FEATURE_TOKENS.to_owned()),
                ..access
            })
        }
        Need::MachineList => app(&snapshot, &caller, part("app"), |record| {
            let access = caller::app(&snapshot, record, Action::READ);
            match caller.may_in_part(&access) {
                true => Ok(None),
                false => Ok(Some((access, format!("app {}", record.name)))),
            }
        }),
        Need::Deploy if !is_app(&snapshot, part("app")) => {
            parts.extensions.insert(Absent);
            Ok(())
        }
        need => app(&snapshot, &caller, part("app"), |record| {
            in_app(&snapshot, need, record, part)
        }),
    }
}

/// Returns what is done to an app or something in it, and that in words.
fn in_app<'a>(
    snapshot: &Snapshot,
    need: Need,
    record: &AppRecord,
    part: impl Fn(&str) -> &'a str,
) -> Result<Option<(Access, String)>, Problem> {
    let name = &record.name;
    let touched = match need {
        Need::Machine(action) => (
            caller::machine(snapshot, record, &machine_id(part("machine"))?, action),
            format!("machine {} of app {name}", part("machine")),
        ),
        Need::Volume(action) => (
            Access {
                volume: Some(part("volume").to_owned()),
                ..caller::app(snapshot, record, action)
            },
            format!("volume {} of app {name}", part("volume")),
        ),
        Need::Tokens(action) => (
            Access {
                app: None,
                feature: Some(FEATURE_TOKENS.to_owned()),
                ..caller::app(snapshot, record, action)
            },
            format!("the tokens of app {name}"),
        ),
        Need::App(action) => (caller::app(snapshot, record, action), format!("app {name}")),
        Need::Deploy => {
            let access = caller::app(snapshot, record, Action::WRITE);
            (access, format!("app {name}"))
        }
        // The command stands in the body.
        Need::Exec => return Ok(None),
        // Not of an app, or checked before: whoever comes here is not let through.
        Need::Open
        | Need::Token
        | Need::Platform(_)
        | Need::Org(_)
        | Need::MachineList
        | Need::Listed
        | Need::Body => return Err(Problem::Unauthorized),
    };
    Ok(Some(touched))
}

fn is_app(snapshot: &Snapshot, name: &str) -> bool {
    AppName::new(name).is_ok_and(|name| snapshot.get::<Apps>(&name).is_some())
}

fn machine_id(text: &str) -> Result<MachineId, Problem> {
    MachineId::new(text).map_err(|error| Problem::InvalidMachineId(error.value))
}

/// Checks what is done to an organisation. One that may not even be read is not there.
fn org(
    snapshot: &Snapshot,
    caller: &Caller,
    slug: &str,
    access: impl Fn(Access) -> Access,
) -> Result<(), Problem> {
    let missing = || Problem::OrgNotFound(slug.to_owned());
    let key = OrgSlug::new(slug).map_err(|_| missing())?;
    let record = snapshot.get::<Orgs>(&key).ok_or_else(missing)?;
    let reading = caller::org(&record.value, Action::READ);
    if !caller.may(&reading) {
        return Err(missing());
    }
    caller.require(&access(reading), &format!("organization {slug}"))
}

/// Checks what is done to an app or something in it. As on Fly, an app that exists and may not be
/// used is refused, and one that does not exist is not found.
fn app(
    snapshot: &Snapshot,
    caller: &Caller,
    name: &str,
    access: impl Fn(&AppRecord) -> Result<Option<(Access, String)>, Problem>,
) -> Result<(), Problem> {
    let missing = || Problem::AppNotFound(name.to_owned());
    let key = AppName::new(name).map_err(|_| missing())?;
    let Some(record) = snapshot.get::<Apps>(&key) else {
        // What one who may do all does to it is the handler's to say; nobody else may be first
        // at an app that is being made right now.
        return if caller.is_unlimited() {
            Ok(())
        } else {
            Err(missing())
        };
    };
    match access(&record.value)? {
        Some((access, what)) => caller.require(&access, &what),
        None => Ok(()),
    }
}
