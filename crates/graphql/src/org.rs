//! Organisations, and who calls.

use async_graphql::{Context, Enum, ID, Interface, Object, Result, SimpleObject};
use hangar_api::id::{AppName, OrgSlug};
use hangar_api::org::Org;
use hangar_api::token::TokenInfo;
use hangar_server::desk::Viewer;

use crate::page::Connection;
use crate::scalar::{BigInt, DateTime};
use crate::session::{Session, refused};

/// An organisation.
#[derive(Clone, Debug)]
pub(crate) struct Organization(pub(crate) Org);

/// A bearer of a token.
#[derive(Clone, Debug)]
pub(crate) struct User(pub(crate) Viewer);

/// A bearer of a macaroon.
#[derive(Clone, Debug)]
pub(crate) struct Macaroon(pub(crate) Viewer);

/// Who calls.
#[derive(Clone, Debug, Interface)]
#[graphql(field(
    name = "email",
    ty = "&str",
    desc = "What stands where Fly has an address."
))]
pub(crate) enum Principal {
    /// The bearer of a token.
    User(User),
    /// The bearer of a macaroon.
    Macaroon(Macaroon),
}

/// What an organisation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
pub(crate) enum OrganizationType {
    /// The one that there is without being made.
    Personal,
    /// One that was made.
    Shared,
}

/// How its bills stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
pub(crate) enum BillingStatus {
    /// Always: Hangar bills nobody.
    Current,
}

/// Extensions of Fly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(rename_items = "snake_case")]
pub(crate) enum AddOnType {
    Arcjet,
    Enveloop,
    FlyMysql,
    Kubernetes,
    Redis,
    Sentry,
    Supabase,
    Tigris,
    UpstashKafka,
    UpstashRedis,
    UpstashVector,
    Wafris,
}

/// An extension: there are none.
#[derive(Clone, Debug, SimpleObject)]
pub(crate) struct AddOn {
    /// Its id.
    id: ID,
    /// Its name.
    name: Option<String>,
    /// Its plan.
    add_on_plan: Option<AddOnPlan>,
    /// Its address in the private network.
    private_ip: Option<String>,
    /// Where it is.
    primary_region: Option<String>,
    /// Where it is read.
    read_regions: Option<Vec<String>>,
    /// How it is set up.
    options: Option<crate::scalar::Json>,
    /// What is known of it.
    metadata: Option<crate::scalar::Json>,
    /// How it is.
    status: Option<String>,
    /// Why it is not well.
    error_message: Option<String>,
}

/// A peer of a WireGuard gateway: there is none.
#[derive(Clone, Debug, SimpleObject)]
pub(crate) struct WireGuardPeer {
    /// Its id.
    id: ID,
    /// Its name.
    name: String,
    /// Its key.
    pubkey: String,
    /// Where it is.
    region: String,
    /// Its address.
    peerip: String,
}

/// Plans of an extension.
#[derive(Clone, Debug, SimpleObject)]
pub(crate) struct AddOnPlan {
    /// Its name.
    display_name: Option<String>,
    /// What it is.
    description: Option<String>,
}

/// A bearer of a token.
#[Object(name = "User")]
impl User {
    /// A stable id.
    async fn id(&self) -> ID {
        self.0.id.as_str().into()
    }
    /// What stands where Fly has an address.
    async fn email(&self) -> &str {
        &self.0.email
    }
    /// The name.
    async fn name(&self) -> &str {
        &self.0.id
    }
    /// Always true: nothing is held back.
    async fn enable_paid_hobby(&self) -> bool {
        true
    }
    /// Always false: there are no extensions.
    async fn agreed_to_provider_tos(&self, provider_name: String) -> bool {
        let _there_are_none = provider_name;
        false
    }
}

/// A bearer of a macaroon.
#[Object(name = "Macaroon")]
impl Macaroon {
    /// What stands where Fly has an address.
    async fn email(&self) -> &str {
        &self.0.email
    }
}

/// An organisation.
#[Object(name = "Organization")]
impl Organization {
    /// Its slug.
    async fn id(&self) -> ID {
        self.0.slug.as_str().into()
    }
    /// Its number, as macaroons name it.
    async fn internal_numeric_id(&self) -> BigInt {
        BigInt(self.0.internal_numeric_id)
    }
    /// Its slug.
    async fn slug(&self) -> &str {
        self.0.slug.as_str()
    }
    /// Its slug: there is no alias.
    async fn raw_slug(&self) -> &str {
        self.0.slug.as_str()
    }
    /// Its name.
    async fn name(&self) -> &str {
        &self.0.name
    }
    /// What it is.
    #[graphql(name = "type")]
    async fn kind(&self) -> OrganizationType {
        match self.0.slug.is_personal() {
            true => OrganizationType::Personal,
            false => OrganizationType::Shared,
        }
    }
    /// Always true: Hangar bills nobody, and clients hold features back where it is false.
    async fn paid_plan(&self) -> bool {
        true
    }
    /// Always true, for the same reason.
    async fn billable(&self) -> bool {
        true
    }
    /// Always current, for the same reason.
    async fn billing_status(&self) -> BillingStatus {
        BillingStatus::Current
    }
    /// `admin`: what a caller may do stands in its token.
    async fn viewer_role(&self) -> &'static str {
        "admin"
    }
    /// Always null: there are no extensions.
    async fn add_on_sso_link(&self) -> Option<String> {
        None
    }
    /// Always false: there are no extensions.
    async fn provisions_beta_extensions(&self) -> bool {
        false
    }
    /// Always empty: images are built where the client runs.
    async fn remote_builder_image(&self) -> &'static str {
        ""
    }
    /// Always null, for the same reason.
    async fn remote_builder_app(&self) -> Option<crate::app::App> {
        None
    }
    /// Its extensions: there are none.
    async fn add_ons(
        &self,
        #[graphql(name = "type")] kind: Option<AddOnType>,
    ) -> Connection<AddOn> {
        let _there_are_none = kind;
        Connection::whole([])
    }
    /// Its tokens, with those of its apps.
    async fn limited_access_tokens(
        &self,
        ctx: &Context<'_>,
    ) -> Result<Connection<LimitedAccessToken>> {
        limited_access_tokens(ctx, &self.0.slug, None)
    }
    /// Its members: Hangar keeps no users, who has a token is one.
    async fn members(&self) -> OrganizationMemberships {
        OrganizationMemberships { edges: Vec::new() }
    }
    /// Peers of its WireGuard gateway: there is none.
    async fn wire_guard_peers(&self) -> Connection<WireGuardPeer> {
        Connection::whole([])
    }
}

/// Members of an organisation.
#[derive(Clone, Debug, SimpleObject)]
#[graphql(name = "OrganizationMembershipsConnection")]
pub(crate) struct OrganizationMemberships {
    /// Each of them.
    edges: Vec<OrganizationMembership>,
}

/// A member of an organisation.
#[derive(Clone, Debug, SimpleObject)]
#[graphql(name = "OrganizationMembershipsEdge")]
pub(crate) struct OrganizationMembership {
    /// Its place in the list.
    cursor: String,
    /// Who it is.
    node: Option<User>,
    /// Since when.
    joined_at: DateTime,
    /// What it may do.
    role: String,
}

/// A token, without its text.
#[derive(Clone, Debug, SimpleObject)]
pub(crate) struct LimitedAccessToken {
    /// Its id.
    id: ID,
    /// Its name.
    name: String,
    /// Empty: the text is kept nowhere.
    token: String,
    /// When it was made.
    created_at: DateTime,
    /// When it ends.
    expires_at: Option<DateTime>,
    /// When it was revoked.
    revoked_at: Option<DateTime>,
    /// Who made it.
    user: User,
}

/// Returns the tokens of an organisation, or of one app of it.
pub(crate) fn limited_access_tokens(
    ctx: &Context<'_>,
    org: &OrgSlug,
    app: Option<&AppName>,
) -> Result<Connection<LimitedAccessToken>> {
    let session = Session::of(ctx)?;
    let tokens = session.desk.tokens(session.caller, org.as_str(), app);
    let shown = tokens.map_err(refused)?;
    let shown = shown.into_iter().map(|info: TokenInfo| LimitedAccessToken {
        id: info.id.into(),
        name: info.name,
        token: String::new(),
        created_at: DateTime(info.created_at),
        expires_at: info.expires_at.map(DateTime),
        revoked_at: info.revoked_at.map(DateTime),
        user: User(session.desk.user(&info.user)),
    });
    Ok(Connection::whole(shown))
}
