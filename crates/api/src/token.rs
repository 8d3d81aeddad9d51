//! Tokens as the API makes and lists them (`/v1/orgs/{slug}/tokens` and so on, Hangar's own). What
//! they may do is [`crate::rights`].

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::Timestamp;
use crate::duration::GoDuration;
use crate::id::{AppName, GroupName, OrgSlug};
use crate::rights::{AllowedCommand, Caveat};

/// What a token was made for. What it may do is in its caveats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TokenKind {
    /// Everything on this server.
    Admin,
    /// An organisation and all that is in it.
    Org,
    /// One app.
    Deploy,
    /// Reading an organisation or an app.
    Readonly,
    /// Running commands in Machines of an app, and reading these Machines.
    Exec,
}

/// Body of a request for a token of an organisation or an app.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CreateToken {
    /// What for: `org` or `readonly` for an organisation (`org` when absent), `deploy`, `readonly`
    /// or `exec` for an app (`deploy` when absent).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<TokenKind>,
    /// What it is called in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How long it is good; 175200h (20 years) when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiry: Option<GoDuration>,
    /// `exec`: only in Machines of this process group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupName>,
    /// `exec`: only these commands; any when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commands: Option<Vec<AllowedCommand>>,
    /// An opaque `hangar_...` token in place of a macaroon: it is short, and its bearer cannot
    /// limit it further.
    #[serde(
        default,
        deserialize_with = "flag",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub opaque: bool,
}

/// Reads a flag; null is no.
fn flag<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    Option::<bool>::deserialize(from).map(Option::unwrap_or_default)
}

/// A token as lists show it: without its text, which is kept nowhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TokenInfo {
    /// What it is revoked by.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// What it was made for.
    pub kind: TokenKind,
    /// The organisation that it is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org_slug: Option<OrgSlug>,
    /// The app that it is of, where it is one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<AppName>,
    /// Who made it.
    pub user: String,
    /// When.
    #[schemars(with = "crate::schema::Time")]
    pub created_at: Timestamp,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<crate::schema::Time>")]
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<crate::schema::Time>")]
    pub revoked_at: Option<Timestamp>,
    /// What limits it.
    pub caveats: Vec<Caveat>,
}

/// Answer to a request for a token: the only time that its text is seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TokenCreated {
    /// What goes into an `Authorization` header.
    pub token: String,
    /// What lists show.
    #[serde(flatten)]
    pub info: TokenInfo,
}

/// Answer of the lists of tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TokenList {
    /// The tokens, oldest first.
    pub tokens: Vec<TokenInfo>,
}

/// Answer of `GET /v1/tokens/current` (machines-api.md 2.7).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CurrentTokens {
    /// The tokens of the request that are good.
    pub tokens: Vec<CurrentToken>,
}

/// One of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CurrentToken {
    /// Its id; `admin` is the token of the server's own file.
    pub token_id: String,
    /// The display name of its organisation.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub organization: String,
    /// Its organisation.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub org_slug: String,
    /// The apps that it is restricted to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub apps: Vec<String>,
    /// The Machine that it may only be used from.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub restricted_to_machine: String,
    /// The Machine that asks.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source_machine_id: String,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
}
