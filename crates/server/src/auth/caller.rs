//! Who makes a request, and what they may do.

use std::sync::Arc;

use hangar_api::Timestamp;
use hangar_api::app::AppRecord;
use hangar_api::id::MachineId;
use hangar_api::rights::{Access, Action, Caveat, Denied, permits, permits_in_part};
use hangar_store::tables::{OrgRecord, Orgs, Specs, Tokens};
use hangar_store::{Record, Snapshot};

use crate::error::Problem;

/// Whose tokens a request carried, and when. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Caller {
    tokens: Arc<[Grant]>,
    /// The Machine that asks without a token, and what limits it.
    inside: Option<Arc<(String, Vec<Caveat>)>>,
    at: Timestamp,
}

/// A token that was let in.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    /// The key of its record.
    pub(crate) key: String,
    /// Its record.
    pub(crate) record: Arc<Record<Tokens>>,
    /// What limits it: the record's caveats and those that its bearers have added.
    pub(crate) caveats: Vec<Caveat>,
}

// === impl Caller ===

impl Caller {
    /// Returns the bearer of tokens; `None` when there is none.
    pub(crate) fn of(tokens: Vec<Grant>, at: Timestamp) -> Option<Self> {
        let tokens: Arc<[Grant]> = tokens.into();
        (!tokens.is_empty()).then_some(Self {
            tokens,
            inside: None,
            at,
        })
    }

    /// Returns a Machine that asks without a token, as this user and within these limits.
    pub(crate) fn inside(user: String, limits: Vec<Caveat>, at: Timestamp) -> Self {
        Self {
            tokens: Arc::default(),
            inside: Some(Arc::new((user, limits))),
            at,
        }
    }

    /// Returns the limits of each of the tokens.
    fn limits(&self) -> impl Iterator<Item = &[Caveat]> {
        let tokens = self.tokens.iter().map(|token| &*token.caveats);
        tokens.chain(self.inside.iter().map(|inside| &*inside.1))
    }

    /// Returns the user, as leases and releases show it.
    #[must_use]
    pub fn user(&self) -> &str {
        let of_token = self.tokens.first().map(|token| &token.record.value.user);
        let inside = || self.inside.as_ref().map(|inside| &inside.0);
        of_token.or_else(inside).map_or("", String::as_str)
    }

    /// Returns nothing when one of the tokens permits the access, else why the first does not.
    pub fn permits(&self, access: &Access) -> Result<(), Denied> {
        let mut first = None;
        for limits in self.limits() {
            match permits(limits, access, self.at) {
                Ok(()) => return Ok(()),
                Err(denied) => first = first.or(Some(denied)),
            }
        }
        Err(first.unwrap_or_else(|| Denied::Refused("there is no token".to_owned())))
    }

    /// Returns whether one of the tokens permits the access.
    #[must_use]
    pub fn may(&self, access: &Access) -> bool {
        self.permits(access).is_ok()
    }

    /// Returns whether the access to an app may be permitted to some of its Machines.
    pub(crate) fn may_in_part(&self, access: &Access) -> bool {
        self.limits()
            .any(|limits| permits_in_part(limits, access, self.at))
    }

    /// Refuses what none of the tokens permits; `what` ends "this token may not do that to".
    pub(crate) fn require(&self, access: &Access, what: &str) -> Result<(), Problem> {
        self.permits(access).map_err(|denied| {
            Problem::Forbidden(format!("this token may not do that to {what}: {denied}"))
        })
    }

    /// Returns whether this one of the tokens permits the access.
    pub(crate) fn one_may(&self, token: &Grant, access: &Access) -> bool {
        permits(&token.caveats, access, self.at).is_ok()
    }

    /// Returns the tokens.
    pub(crate) fn tokens(&self) -> &[Grant] {
        &self.tokens
    }

    /// Returns whether everything on this server is permitted.
    pub(crate) fn is_unlimited(&self) -> bool {
        self.may(&platform(Action::ALL))
    }
}

/// Returns the access to the platform itself, which a token of an organisation never has.
pub(crate) fn platform(action: Action) -> Access {
    Access {
        action,
        ..Access::default()
    }
}

/// Returns the access to an organisation.
pub(crate) fn org(record: &OrgRecord, action: Action) -> Access {
    Access {
        action,
        org: Some(record.number),
        ..Access::default()
    }
}

/// Returns the access to an app.
pub(crate) fn app(snapshot: &Snapshot, record: &AppRecord, action: Action) -> Access {
    let org = snapshot.get::<Orgs>(&record.org);
    Access {
        action,
        // An app without a number, or of an organisation that is gone, is nobody's but the admin's.
        org: org.map(|org| org.value.number),
        app: Some(record.number).filter(|number| *number != 0),
        ..Access::default()
    }
}

/// Returns the access to a Machine of an app, whether there is such a Machine or not.
pub(crate) fn machine(
    snapshot: &Snapshot,
    record: &AppRecord,
    id: &MachineId,
    action: Action,
) -> Access {
    let spec = snapshot.get::<Specs>(&(record.name.clone(), id.clone()));
    Access {
        machine: Some(id.to_string()),
        group: spec.map(|spec| spec.value.config.group_or_app().to_string()),
        ..app(snapshot, record, action)
    }
}
