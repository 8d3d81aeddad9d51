//! Organisations and tokens.

use hangar_api::id::{AppName, OrgSlug};
use hangar_api::org::{CreateOrg, Org, OrgList};
use hangar_api::token::{CreateToken, CurrentTokens, TokenCreated, TokenInfo, TokenList};
use http::Method;

use crate::transport::encode;
use crate::{Client, ClientError};

impl Client {
    /// Returns the organisations that may be read.
    pub async fn orgs(&self) -> Result<OrgList, ClientError> {
        self.get("/v1/orgs").await
    }

    /// Returns one organisation.
    pub async fn org(&self, slug: &OrgSlug) -> Result<Org, ClientError> {
        self.get(&format!("/v1/orgs/{slug}")).await
    }

    /// Makes an organisation.
    pub async fn create_org(&self, org: &CreateOrg) -> Result<Org, ClientError> {
        self.post("/v1/orgs", org).await
    }

    /// Removes an organisation that has no app.
    pub async fn delete_org(&self, slug: &OrgSlug) -> Result<(), ClientError> {
        let path = format!("/v1/orgs/{slug}");
        self.call(Method::DELETE, &path, None::<&()>, &[]).await
    }

    /// Returns what the token of this client is.
    pub async fn current_tokens(&self) -> Result<CurrentTokens, ClientError> {
        self.get("/v1/tokens/current").await
    }

    /// Returns the tokens of an organisation, those of its apps included.
    pub async fn org_tokens(&self, slug: &OrgSlug) -> Result<TokenList, ClientError> {
        self.get(&format!("/v1/orgs/{slug}/tokens")).await
    }

    /// Returns the tokens of an app.
    pub async fn app_tokens(&self, app: &AppName) -> Result<TokenList, ClientError> {
        self.get(&format!("/v1/apps/{app}/tokens")).await
    }

    /// Makes a token of an organisation.
    pub async fn create_org_token(
        &self,
        slug: &OrgSlug,
        token: &CreateToken,
    ) -> Result<TokenCreated, ClientError> {
        self.post(&format!("/v1/orgs/{slug}/tokens"), token).await
    }

    /// Makes a token of an app.
    pub async fn create_app_token(
        &self,
        app: &AppName,
        token: &CreateToken,
    ) -> Result<TokenCreated, ClientError> {
        self.post(&format!("/v1/apps/{app}/tokens"), token).await
    }

    /// Revokes a token, and those that it has made. May be repeated.
    pub async fn revoke_token(&self, id: &str) -> Result<TokenInfo, ClientError> {
        let path = format!("/v1/tokens/{}", encode(id));
        self.call(Method::DELETE, &path, None::<&()>, &[]).await
    }
}
