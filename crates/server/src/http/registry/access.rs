//! Who may do what in the registry.

use axum::http::{HeaderMap, Method, header};
use hangar_api::id::AppName;
use hangar_api::rights::Action;

use super::refusal::Refusal;
use super::route::Target;
use crate::auth::{self, Caller};
use crate::core::Core;
use crate::images;

/// Returns what a request does to what was pushed to an app.
pub(super) fn action(method: &Method, target: &Target) -> Action {
    match (method, target) {
        (&Method::GET | &Method::HEAD, _) => Action::READ,
        // To give up an upload takes nothing away that is there.
        (&Method::DELETE, Target::Upload(_)) => Action::WRITE,
        (&Method::DELETE, _) => Action::DELETE,
        _ => Action::WRITE,
    }
}

/// Lets through who may do this to what was pushed to an app. Whoever may not read hears of no app;
/// whoever may not write hears the words that clients look for, whether there is one or not.
pub(super) fn require(
    core: &Core,
    caller: &Caller,
    app: &AppName,
    action: Action,
) -> Result<(), Refusal> {
    match action {
        _ if images::may(core, caller, app, action) => Ok(()),
        Action::READ => Err(hangar_image::HostedError::NameUnknown.into()),
        _ => Err(Refusal::Denied),
    }
}

/// Returns whose tokens a request carries; clients of registries send them as a password.
pub(super) fn caller(core: &Core, headers: &HeaderMap) -> Option<Caller> {
    let header = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    auth::caller(core, header)
}
