//! Organisations, and who calls.

use async_graphql::{Enum, ID, Interface, Object, SimpleObject};
use hangar_server::desk::{Org, Viewer};

use crate::page::Connection;
use crate::scalar::{BigInt, DateTime};

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
        &self.0.slug
    }
    /// Its slug: there is no alias.
    async fn raw_slug(&self) -> &str {
        &self.0.slug
    }
    /// Its name.
    async fn name(&self) -> &str {
        &self.0.name
    }
    /// What it is.
    #[graphql(name = "type")]
    async fn kind(&self) -> OrganizationType {
        match self.0.is_personal {
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
    /// Peers of its WireGuard gateway: there is none.
    async fn wire_guard_peers(&self) -> Connection<WireGuardPeer> {
        Connection::whole([])
    }
}

/// A token, without its text.
#[derive(Clone, Debug, SimpleObject)]
pub(crate) struct LimitedAccessToken {
    /// Its id.
    pub(crate) id: ID,
    /// Its name.
    pub(crate) name: String,
    /// When it ends.
    pub(crate) expires_at: Option<DateTime>,
    /// When it was revoked.
    pub(crate) revoked_at: Option<DateTime>,
}
