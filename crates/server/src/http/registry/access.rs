//! Who may do what in the registry. The one place that decides it.

use axum::http::{HeaderMap, Method, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hangar_api::id::AppName;

use super::refusal::Refusal;
use crate::auth;
use crate::core::Core;
use crate::http::Caller;

/// What a request wants to do in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// To read.
    Pull,
    /// To add, or to take away.
    Push,
}

// === impl Want ===

impl Want {
    pub(super) fn of(method: &Method) -> Self {
        match *method {
            Method::GET | Method::HEAD => Self::Pull,
            _ => Self::Push,
        }
    }
}

/// Returns whether a caller may do this in the repositories of an app: read with a token that reads
/// the app, write with one that writes it. The app must exist.
pub(super) fn may(core: &Core, caller: &Caller, app: &AppName, want: Want) -> bool {
    // Every token of today may do everything.
    let _ = (caller, want);
    core.app(app).is_ok()
}

/// Returns how a request is refused that is not allowed. Whoever may not read hears of no app.
pub(super) fn denied(want: Want) -> Refusal {
    match want {
        Want::Pull => hangar_image::HostedError::NameUnknown.into(),
        Want::Push => Refusal::Denied,
    }
}

/// Returns whose token a request carries: as other requests do, or as the password of Basic, with
/// any user name.
pub(super) fn caller(core: &Core, headers: &HeaderMap) -> Option<Caller> {
    let header = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let user = match password(header) {
        Some(password) => auth::user_of(core, &format!("Bearer {password}")),
        None => auth::user_of(core, header),
    };
    user.map(|user| Caller { user })
}

/// Returns the password of `Basic base64(USER:PASSWORD)`.
fn password(header: &str) -> Option<String> {
    let (scheme, rest) = header.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
    let (_, password) = text.split_once(':')?;
    Some(password.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_of_basic_is_the_token_whatever_the_user() {
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        assert_eq!(password(&basic("x:hangar_1")).as_deref(), Some("hangar_1"));
        assert_eq!(password(&basic(":a:b")).as_deref(), Some("a:b"));
        let lower = basic("x:t").replace("Basic", "basic");
        assert_eq!(password(&lower).as_deref(), Some("t"));
        for bad in ["Basic", "Basic ?", "Bearer eDp0", &basic("no colon"), ""] {
            assert_eq!(password(bad), None, "{bad}");
        }
    }
}
