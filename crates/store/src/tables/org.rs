//! Records of organisations and of tokens, which only the server understands.

use hangar_api::Timestamp;
use hangar_api::id::{AppName, OrgSlug};
use hangar_api::org::OrgKind;
use hangar_api::rights::Caveat;
use hangar_api::token::TokenKind;
use serde::{Deserialize, Serialize};

/// An organisation: owns apps, private networks and tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrgRecord {
    /// A stable id.
    pub id: String,
    /// Its number, never used again: what caveats call it.
    pub number: u64,
    /// Display name.
    pub name: String,
    /// What it is.
    pub kind: OrgKind,
    /// When it was made.
    pub created_at: Timestamp,
    /// It is being removed: nothing new begins in it.
    #[serde(default)]
    pub closing: bool,
}

/// A token. Its text is kept nowhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// What clients call it; empty for the admin token, which no client revokes.
    #[serde(default)]
    pub id: String,
    /// What it is called in lists.
    pub name: String,
    /// Who its bearer is, as leases and releases show it.
    pub user: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
    /// What it was made for.
    #[serde(default = "admin")]
    pub kind: TokenKind,
    /// The organisation that it is of; none for the admin token.
    #[serde(default)]
    pub org: Option<OrgSlug>,
    /// The app that it is of, where it is one's.
    #[serde(default)]
    pub app: Option<AppName>,
    /// Who made it.
    #[serde(default)]
    pub made_by: String,
    /// The key of the token that made it: it ends with it.
    #[serde(default)]
    pub parent: Option<String>,
    /// What limits it; what a bearer has added to a macaroon limits it further.
    #[serde(default)]
    pub caveats: Vec<Caveat>,
    /// The key of the keyring that a macaroon is made under; none when the token is opaque.
    #[serde(default)]
    pub key_id: Option<String>,
    /// When it was revoked.
    #[serde(default)]
    pub revoked_at: Option<Timestamp>,
}

/// Tokens of before there were kinds were the admin's.
fn admin() -> TokenKind {
    TokenKind::Admin
}
