//! What can be done.

use async_graphql::{Context, Error, ID, InputObject, Object, Result, SimpleObject};
use hangar_api::ip::AssignIp;
use hangar_server::desk::NewToken;

use crate::app::{App, IpAddress, IpAddressType};
use crate::org::Organization;
use crate::query::app;
use crate::scalar::Json;
use crate::secret;
use crate::session::{Session, refused};

/// What can be done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mutations;

/// Nothing to say.
#[derive(Clone, Debug, InputObject)]
pub(crate) struct LogOutInput {
    /// Told back.
    client_mutation_id: Option<String>,
}

/// What became of it.
#[derive(Clone, Debug, SimpleObject)]
pub(crate) struct LogOutPayload {
    /// As it was told.
    client_mutation_id: Option<String>,
    /// Whether the client may forget its token: yes. The token itself stays good until it is
    /// revoked: it may be in use elsewhere.
    ok: bool,
}

/// A token to be made.
#[derive(Clone, Debug, InputObject)]
pub(crate) struct CreateLimitedAccessTokenInput {
    /// Told back.
    client_mutation_id: Option<String>,
    /// What it is called in lists.
    name: String,
    /// The organisation that it is of, or whose app it is of.
    organization_id: ID,
    /// `deploy` or `deploy_organization`.
    profile: String,
    /// `app_id` for `deploy`.
    profile_params: Option<Json>,
    /// How long it is good, as Go writes it.
    expiry: Option<String>,
}

/// A token, with its text: the only time that it is seen.
#[derive(Clone, Debug, SimpleObject)]
pub(crate) struct TokenMade {
    /// What goes into an `Authorization` header.
    token_header: String,
}

/// What became of it.
#[derive(Clone, Debug, SimpleObject)]
pub(crate) struct CreateLimitedAccessTokenPayload {
    /// As it was told.
    client_mutation_id: Option<String>,
    /// The token.
    limited_access_token: TokenMade,
}

/// A token to be revoked.
#[derive(Clone, Debug, InputObject)]
pub(crate) struct DeleteLimitedAccessTokenInput {
    /// Told back.
    client_mutation_id: Option<String>,
    /// Its id.
    id: ID,
}

/// What became of it.
#[derive(Clone, Debug, SimpleObject)]
pub(crate) struct DeleteLimitedAccessTokenPayload {
    /// As it was told.
    client_mutation_id: Option<String>,
    /// The token's id: its text is kept nowhere.
    token: String,
}

/// An organisation to be made.
#[derive(Clone, Debug, InputObject)]
pub(crate) struct CreateOrganizationInput {
    /// Told back.
    client_mutation_id: Option<String>,
    /// Its name; the slug is made of it.
    name: String,
}

/// What became of it.
#[derive(Clone, Debug, SimpleObject)]
pub(crate) struct CreateOrganizationPayload {
    /// As it was told.
    client_mutation_id: Option<String>,
    /// The organisation.
    organization: Organization,
}

/// An organisation to be removed.
#[derive(Clone, Debug, InputObject)]
pub(crate) struct DeleteOrganizationInput {
    /// Told back.
    client_mutation_id: Option<String>,
    /// Which.
    organization_id: ID,
}

/// What became of it.
#[derive(Clone, Debug, SimpleObject)]
pub(crate) struct DeleteOrganizationPayload {
    /// As it was told.
    client_mutation_id: Option<String>,
    /// Which is gone.
    deleted_organization_id: ID,
}

/// An address to be given to an app.
#[derive(Clone, Debug, InputObject)]
#[graphql(name = "AllocateIPAddressInput")]
pub(crate) struct AllocateIpAddressInput {
    /// Told back.
    client_mutation_id: Option<String>,
    /// The app, by name.
    app_id: ID,
    /// What it is to be.
    #[graphql(name = "type")]
    kind: IpAddressType,
    /// Accepted: there is one address, wherever it is.
    region: Option<String>,
    /// Accepted: an app has one organisation.
    organization_id: Option<ID>,
    /// For `private_v6`.
    network: Option<String>,
    /// The service that it is for.
    service_name: Option<String>,
}

/// What became of it.
#[derive(Clone, Debug, SimpleObject)]
#[graphql(name = "AllocateIPAddressPayload")]
pub(crate) struct AllocateIpAddressPayload {
    /// As it was told.
    client_mutation_id: Option<String>,
    /// The app.
    app: App,
    /// The address.
    ip_address: IpAddress,
}

/// An address to be taken back.
#[derive(Clone, Debug, InputObject)]
#[graphql(name = "ReleaseIPAddressInput")]
pub(crate) struct ReleaseIpAddressInput {
    /// Told back.
    client_mutation_id: Option<String>,
    /// The app, by name.
    app_id: ID,
    /// The address.
    ip: Option<String>,
    /// The address, too.
    ip_address_id: Option<ID>,
}

/// What became of it.
#[derive(Clone, Debug, SimpleObject)]
#[graphql(name = "ReleaseIPAddressPayload")]
pub(crate) struct ReleaseIpAddressPayload {
    /// As it was told.
    client_mutation_id: Option<String>,
    /// The app.
    app: App,
}

/// What can be done.
#[Object(name = "Mutations")]
impl Mutations {
    /// Ends the session of a client, which forgets its token.
    async fn log_out(&self, input: LogOutInput) -> LogOutPayload {
        LogOutPayload {
            client_mutation_id: input.client_mutation_id,
            ok: true,
        }
    }

    /// Makes a token that may at most what the caller may.
    async fn create_limited_access_token(
        &self,
        ctx: &Context<'_>,
        input: CreateLimitedAccessTokenInput,
    ) -> Result<CreateLimitedAccessTokenPayload> {
        let session = Session::of(ctx)?;
        let params = input.profile_params.as_ref();
        let app = params.and_then(|params| params.0.get("app_id"));
        let app = match app {
            None | Some(serde_json::Value::Null) => None,
            Some(serde_json::Value::String(name)) => Some(name.clone()),
            Some(_) => return Err(Error::new("app_id of profileParams is the name of an app")),
        };
        let new = NewToken {
            name: input.name,
            org: input.organization_id.0,
            profile: input.profile,
            app,
            expiry: input.expiry.unwrap_or_default(),
        };
        let token = session.desk.create_token(session.caller, new).await;
        Ok(CreateLimitedAccessTokenPayload {
            client_mutation_id: input.client_mutation_id,
            limited_access_token: TokenMade {
                // Clients print it as it is, to be put into a header.
                token_header: format!("FlyV1 {}", token.map_err(refused)?),
            },
        })
    }

    /// Revokes a token.
    async fn delete_limited_access_token(
        &self,
        ctx: &Context<'_>,
        input: DeleteLimitedAccessTokenInput,
    ) -> Result<DeleteLimitedAccessTokenPayload> {
        let session = Session::of(ctx)?;
        let revoked = session.desk.revoke_token(session.caller, &input.id).await;
        revoked.map_err(refused)?;
        Ok(DeleteLimitedAccessTokenPayload {
            client_mutation_id: input.client_mutation_id,
            token: input.id.0,
        })
    }

    /// Makes an organisation.
    async fn create_organization(
        &self,
        ctx: &Context<'_>,
        input: CreateOrganizationInput,
    ) -> Result<CreateOrganizationPayload> {
        let session = Session::of(ctx)?;
        let made = session
            .desk
            .create_organization(session.caller, &input.name)
            .await;
        Ok(CreateOrganizationPayload {
            client_mutation_id: input.client_mutation_id,
            organization: Organization(made.map_err(refused)?),
        })
    }

    /// Removes an organisation that has no apps.
    async fn delete_organization(
        &self,
        ctx: &Context<'_>,
        input: DeleteOrganizationInput,
    ) -> Result<DeleteOrganizationPayload> {
        let session = Session::of(ctx)?;
        let slug = input.organization_id.as_str();
        let gone = session.desk.delete_organization(session.caller, slug).await;
        gone.map_err(refused)?;
        Ok(DeleteOrganizationPayload {
            client_mutation_id: input.client_mutation_id,
            deleted_organization_id: input.organization_id,
        })
    }

    /// Gives an app an address.
    async fn allocate_ip_address(
        &self,
        ctx: &Context<'_>,
        input: AllocateIpAddressInput,
    ) -> Result<AllocateIpAddressPayload> {
        let session = Session::of(ctx)?;
        let assign = AssignIp {
            kind: Some(input.kind.wire().to_owned()),
            region: input.region,
            org_slug: input.organization_id.map(|id| id.0),
            network: input.network,
            service_name: input.service_name,
        };
        let given = session
            .desk
            .assign_address(session.caller, &input.app_id, assign)
            .await;
        Ok(AllocateIpAddressPayload {
            client_mutation_id: input.client_mutation_id,
            app: app(ctx, &input.app_id)?,
            ip_address: IpAddress::of(given.map_err(refused)?),
        })
    }

    /// Takes an address of an app back.
    async fn release_ip_address(
        &self,
        ctx: &Context<'_>,
        input: ReleaseIpAddressInput,
    ) -> Result<ReleaseIpAddressPayload> {
        let session = Session::of(ctx)?;
        let ip = input.ip.or_else(|| input.ip_address_id.map(|id| id.0));
        let ip = ip.ok_or_else(|| Error::new("name the address to be released by ip"))?;
        let gone = session
            .desk
            .release_address(session.caller, &input.app_id, &ip)
            .await;
        gone.map_err(refused)?;
        Ok(ReleaseIpAddressPayload {
            client_mutation_id: input.client_mutation_id,
            app: app(ctx, &input.app_id)?,
        })
    }

    /// Sets secrets.
    async fn set_secrets(
        &self,
        ctx: &Context<'_>,
        input: secret::SetSecretsInput,
    ) -> Result<secret::SetSecretsPayload> {
        secret::set(ctx, input).await
    }

    /// Removes secrets.
    async fn unset_secrets(
        &self,
        ctx: &Context<'_>,
        input: secret::UnsetSecretsInput,
    ) -> Result<secret::UnsetSecretsPayload> {
        secret::unset(ctx, input).await
    }
}
