//! What a token may do: caveats, and whether they permit an access. Pure.
//!
//! A token is a list of [`Caveat`]s, and a request is an [`Access`]. Every caveat must permit the
//! access, so that one more caveat never permits more, whoever adds it. A token without caveats
//! may do everything. Kinds, numbers and rules are those of Fly's macaroons
//! (superfly/macaroon `caveat.go`, `resset/`, `flyio/caveats.go`), so that what clients add
//! themselves means the same here; the ones with a number of our own are marked.

mod action;
mod wire;

use std::collections::BTreeMap;

use crate::Timestamp;

pub use action::Action;
pub(crate) use wire::GROUPS;
pub use wire::caveats_from_json;

/// What members may do with the features of their organisation: all, read, or nothing. With any
/// other, nothing (`flyio/access.go`).
const MEMBER_FEATURES: [(&str, Action); 11] = [
    ("wg", Action::ALL),
    ("domain", Action::ALL),
    ("site", Action::ALL),
    ("builder", Action::ALL),
    ("addon", Action::ALL),
    ("checks", Action::ALL),
    ("litefs-cloud", Action::ALL),
    ("membership", Action::READ),
    ("billing", Action::READ),
    (FEATURE_TOKENS, Action::READ),
    (FEATURE_DELETION, Action::NONE),
];
/// The feature of an organisation that its tokens are: listing, making and revoking them.
pub const FEATURE_TOKENS: &str = "authentication";
/// The feature of an organisation that its end is.
pub const FEATURE_DELETION: &str = "deletion";
/// The feature of an organisation that builders are.
pub const FEATURE_BUILDER: &str = "builder";
/// The feature of an organisation that its tunnels are.
pub const FEATURE_WIREGUARD: &str = "wg";
/// The feature of an app that its images in the registry are.
pub const FEATURE_IMAGES: &str = "images";
/// What a Machine is called in refusals.
const MACHINE: &str = "machine";
/// What a process group is called in them.
const GROUP: &str = "process group";
/// The role that may do all but what is an administrator's.
const MEMBER: u32 = 1;
/// The role that may do all.
const ADMIN: u32 = u32::MAX;

/// What somebody wants to do, and to what. What is not there is not touched: an access without an
/// app is to the organisation, one without an organisation to the platform.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// What is to be done.
    pub action: Action,
    /// The number of the organisation.
    pub org: Option<u64>,
    /// The number of the app.
    pub app: Option<u64>,
    /// A set of functions of the app.
    pub app_feature: Option<String>,
    /// A set of functions of the organisation.
    pub feature: Option<String>,
    /// The volume.
    pub volume: Option<String>,
    /// The Machine.
    pub machine: Option<String>,
    /// A set of functions of the Machine.
    pub machine_feature: Option<String>,
    /// The process group of the Machine, where it is known (Hangar's own).
    pub group: Option<String>,
    /// The command that is to be run in the Machine.
    pub command: Option<Vec<String>>,
    /// The GraphQL mutation.
    pub mutation: Option<String>,
    /// The Machine that asks.
    pub source_machine: Option<String>,
    /// Its app.
    pub source_app: Option<String>,
    /// Its organisation.
    pub source_org: Option<String>,
}

/// Which things may be touched, and how. A set with the empty name (0 for numbers) is for all of
/// them, and then has no other member.
pub type Masks<K> = BTreeMap<K, Action>;

/// A command that may be run.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
pub struct AllowedCommand {
    /// The command and its arguments, or what they begin with.
    #[serde(default, deserialize_with = "wire::list_or_null")]
    pub args: Vec<String>,
    /// Whether nothing may follow.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exact: bool,
}

/// One limit of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caveat {
    /// Only this organisation (0: any), and of it only this.
    Organization {
        /// Its number.
        id: u64,
        /// What may be done.
        mask: Action,
    },
    /// Only these apps, by number.
    Apps(Masks<u64>),
    /// Only these volumes, by id.
    Volumes(Masks<String>),
    /// Only these Machines, by id.
    Machines(Masks<String>),
    /// Only these features of the organisation.
    FeatureSet(Masks<String>),
    /// Only these features of Machines.
    MachineFeatureSet(Masks<String>),
    /// Only these features of apps.
    AppFeatureSet(Masks<String>),
    /// Only these clusters, of which Hangar has none.
    Clusters(Masks<String>),
    /// Only these objects, of which Hangar has none.
    StorageObjects(Masks<String>),
    /// Only from one time to another, in Unix seconds.
    ValidityWindow {
        /// From then on.
        not_before: i64,
        /// Until then, this second included.
        not_after: i64,
    },
    /// Only these GraphQL mutations.
    Mutations(Vec<String>),
    /// Says whose it is, and limits nothing.
    IsUser(u64),
    /// The caveats that concern what is touched hold; where none does, only these actions.
    IfPresent {
        /// The caveats.
        ifs: Vec<Caveat>,
        /// Otherwise.
        otherwise: Action,
    },
    /// Only from this Machine.
    FromMachine(String),
    /// Only what any member of the organisation may do.
    IsMember,
    /// Only what these roles may do.
    AllowedRoles(u32),
    /// Only these actions.
    Action(Action),
    /// Only these commands.
    Commands(Vec<AllowedCommand>),
    /// Only from this organisation, app and Machine; an empty text is any.
    FlySrc {
        /// The organisation's slug.
        organization: String,
        /// The app.
        app: String,
        /// The Machine.
        instance: String,
    },
    /// Only Machines of these process groups (Hangar's own).
    Groups(Masks<String>),
    /// Anything else: it permits nothing.
    Unknown(u64),
}

/// Why a caveat does not permit an access.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The caveat is about something that is not touched.
    #[error("the token is only for one {0}")]
    Unspecified(&'static str),
    /// It is, and says no.
    #[error("{0}")]
    Refused(String),
}

/// Returns nothing when every caveat permits the access, else why the first does not.
pub fn permits(caveats: &[Caveat], access: &Access, now: Timestamp) -> Result<(), Denied> {
    caveats
        .iter()
        .try_for_each(|caveat| caveat.permits(access, now))
}

/// Returns whether the access, which is to an app, may be permitted to some of its Machines: what
/// stands against it is only that no Machine or process group is named.
#[must_use]
pub fn permits_in_part(caveats: &[Caveat], access: &Access, now: Timestamp) -> bool {
    caveats
        .iter()
        .all(|caveat| match caveat.permits(access, now) {
            Ok(()) => true,
            Err(Denied::Unspecified(what)) => [MACHINE, GROUP].contains(&what),
            Err(Denied::Refused(_)) => false,
        })
}

// === impl Caveat ===

impl Caveat {
    /// Returns nothing when the access is permitted, else why not.
    pub fn permits(&self, access: &Access, now: Timestamp) -> Result<(), Denied> {
        match self {
            Self::Organization { id, mask } => match access.org {
                None => Err(Denied::Unspecified("organisation")),
                Some(org) if *id != 0 && *id != org => refuse("it is for another organisation"),
                Some(_) => within(access.action, *mask),
            },
            Self::Apps(set) => in_set(set, access.app.as_ref(), access.action, "app"),
            Self::Volumes(set) => in_set(set, access.volume.as_ref(), access.action, "volume"),
            Self::Machines(set) => in_set(set, access.machine.as_ref(), access.action, MACHINE),
            Self::Groups(set) => in_set(set, access.group.as_ref(), access.action, GROUP),
            Self::FeatureSet(set) => in_set(
                set,
                access.feature.as_ref(),
                access.action,
                "feature of an organisation",
            ),
            Self::MachineFeatureSet(set) => in_set(
                set,
                access.machine_feature.as_ref(),
                access.action,
                "feature of a machine",
            ),
            Self::AppFeatureSet(set) => in_set(
                set,
                access.app_feature.as_ref(),
                access.action,
                "feature of an app",
            ),
            Self::Clusters(_) => Err(Denied::Unspecified("cluster")),
            Self::StorageObjects(_) => Err(Denied::Unspecified("storage object")),
            Self::ValidityWindow {
                not_before,
                not_after,
            } => in_window(*not_before, *not_after, now),
            Self::Mutations(names) => match &access.mutation {
                None => Err(Denied::Unspecified("GraphQL mutation")),
                Some(name) if names.contains(name) => Ok(()),
                Some(name) => refuse(&format!("it is not for the mutation {name}")),
            },
            Self::IsUser(_) => Ok(()),
            Self::IfPresent { ifs, otherwise } => if_present(ifs, *otherwise, access, now),
            Self::FromMachine(id) => from("machine", id, access.source_machine.as_deref()),
            Self::IsMember => in_role(MEMBER, access),
            Self::AllowedRoles(roles) => in_role(*roles, access),
            Self::Action(mask) => within(access.action, *mask),
            Self::Commands(allowed) => in_commands(allowed, access.command.as_deref()),
            Self::FlySrc {
                organization,
                app,
                instance,
            } => [
                ("machine", instance, &access.source_machine),
                ("app", app, &access.source_app),
                ("organisation", organization, &access.source_org),
            ]
            .into_iter()
            .filter(|(_, wanted, _)| !wanted.is_empty())
            .try_for_each(|(what, wanted, is)| from(what, wanted, is.as_deref())),
            Self::Unknown(kind) => refuse(&format!(
                "it has a caveat of a kind that this server does not know: {kind}"
            )),
        }
    }
}

fn refuse(why: &str) -> Result<(), Denied> {
    Err(Denied::Refused(why.to_owned()))
}

fn within(action: Action, mask: Action) -> Result<(), Denied> {
    let missing = action.without(mask);
    if missing == Action::NONE {
        return Ok(());
    }
    refuse(&format!("it may not {}", missing.in_words()))
}

/// Members of a set that match are all to permit it (`resset/resource_set.go`).
fn in_set<K: Ord + Default>(
    set: &Masks<K>,
    id: Option<&K>,
    action: Action,
    what: &'static str,
) -> Result<(), Denied> {
    let every = set.get(&K::default());
    if every.is_some() && set.len() != 1 {
        return refuse(&format!("it names every {what} and single ones at once"));
    }
    let Some(id) = id else {
        return Err(Denied::Unspecified(what));
    };
    match every.or_else(|| set.get(id)) {
        Some(mask) => within(action, *mask),
        None => refuse(&format!("it is for another {what}")),
    }
}

fn in_window(not_before: i64, not_after: i64, now: Timestamp) -> Result<(), Denied> {
    // Whole seconds, as the caveat has: a token is good until the end of its last one.
    let second = now.as_second();
    if second > not_after {
        return refuse("it has expired");
    }
    if second < not_before {
        return refuse("it is not valid yet");
    }
    Ok(())
}

fn if_present(
    ifs: &[Caveat],
    otherwise: Action,
    access: &Access,
    now: Timestamp,
) -> Result<(), Denied> {
    let mut concerned = false;
    for caveat in ifs {
        match caveat.permits(access, now) {
            Err(Denied::Unspecified(_)) => {}
            Err(refused) => return Err(refused),
            Ok(()) => concerned = true,
        }
    }
    if concerned {
        return Ok(());
    }
    within(access.action, otherwise)
}

fn in_commands(allowed: &[AllowedCommand], command: Option<&[String]>) -> Result<(), Denied> {
    let Some(command) = command else {
        return Err(Denied::Unspecified("command"));
    };
    let fits = |allowed: &AllowedCommand| match allowed.exact {
        true => command == allowed.args,
        false => command.starts_with(&allowed.args),
    };
    if allowed.iter().any(fits) {
        return Ok(());
    }
    refuse("it is not for this command")
}

fn from(what: &str, wanted: &str, is: Option<&str>) -> Result<(), Denied> {
    if is == Some(wanted) {
        return Ok(());
    }
    refuse(&format!("it may only be used from the {what} {wanted}"))
}

/// Returns whether one of the roles in the mask may do it (`flyio/access.go`).
fn in_role(roles: u32, access: &Access) -> Result<(), Denied> {
    let of_members = match &access.feature {
        None => true,
        Some(feature) => MEMBER_FEATURES
            .iter()
            .any(|(name, mask)| name == feature && access.action.without(*mask) == Action::NONE),
    };
    let needed = if of_members { MEMBER } else { ADMIN };
    if roles & needed == needed {
        return Ok(());
    }
    refuse("that is for administrators of the organisation")
}

#[cfg(test)]
pub(crate) mod tests;
