//! Formations: what process groups should have.

use hangar_api::formation::{FormationUpdate, Formations};
use hangar_api::id::AppName;
use http::Method;

use crate::{Client, ClientError};

impl Client {
    /// Returns what each group of an app should have.
    pub async fn formations(&self, app: &AppName) -> Result<Formations, ClientError> {
        self.get(&format!("/v1/apps/{app}/formation")).await
    }

    /// Changes what groups should have, all or none; the server sees to it from then on.
    pub async fn update_formations(
        &self,
        app: &AppName,
        update: &FormationUpdate,
    ) -> Result<Formations, ClientError> {
        let path = format!("/v1/apps/{app}/formation");
        self.call(Method::PUT, &path, Some(update), &[]).await
    }
}
