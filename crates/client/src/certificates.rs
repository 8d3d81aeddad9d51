//! Host names of apps' own, and certificates for them.

use std::time::Duration;

use hangar_api::certificate::{
    AddHostname, CertificateDetail, CertificateList, CertificateSummary, Hostname,
    ImportCertificate,
};
use hangar_api::id::AppName;
use http::Method;

use crate::transport::{encode, with_query};
use crate::{Client, ClientError};

/// Host names on a page: the most that a server gives.
const PAGE: usize = 500;
/// How long DNS may take.
const LOOKS: Duration = Duration::from_secs(10);

impl Client {
    /// Returns all host names of an app, by name.
    pub async fn certificates(
        &self,
        app: &AppName,
    ) -> Result<Vec<CertificateSummary>, ClientError> {
        let mut all = Vec::new();
        let mut cursor = None;
        loop {
            let query = [("limit", Some(PAGE.to_string())), ("cursor", cursor)];
            let path = with_query(&format!("/v1/apps/{app}/certificates"), &query);
            let page: CertificateList = self.get(&path).await?;
            all.extend(page.certificates);
            if page.next_cursor.is_empty() {
                return Ok(all);
            }
            cursor = Some(page.next_cursor);
        }
    }

    /// Adds a host name without a certificate. May be repeated.
    pub async fn add_hostname(
        &self,
        app: &AppName,
        host: &Hostname,
    ) -> Result<CertificateDetail, ClientError> {
        let body = AddHostname {
            hostname: Some(host.to_string()),
        };
        let path = format!("/v1/apps/{app}/certificates/acme");
        self.post(&path, &body).await
    }

    /// Imports a certificate; it is served when this returns. May be repeated.
    pub async fn import_certificate(
        &self,
        app: &AppName,
        input: &ImportCertificate,
    ) -> Result<CertificateDetail, ClientError> {
        let path = format!("/v1/apps/{app}/certificates/custom");
        self.post(&path, input).await
    }

    /// Returns a host name with what DNS says of it.
    pub async fn check_certificate(
        &self,
        app: &AppName,
        host: &Hostname,
    ) -> Result<CertificateDetail, ClientError> {
        let path = format!(
            "/v1/apps/{app}/certificates/{}/check",
            encode(host.as_str())
        );
        let patient = self.with_patience(LOOKS);
        patient.post(&path, &serde_json::json!({})).await
    }

    /// Removes a host name with its certificate.
    pub async fn remove_hostname(&self, app: &AppName, host: &Hostname) -> Result<(), ClientError> {
        let path = format!("/v1/apps/{app}/certificates/{}", encode(host.as_str()));
        self.call(Method::DELETE, &path, None::<&()>, &[]).await
    }

    /// Removes a part of what there is for a host name, `custom` or `acme`.
    pub async fn remove_certificate(
        &self,
        app: &AppName,
        host: &Hostname,
        part: &str,
    ) -> Result<CertificateDetail, ClientError> {
        let host = encode(host.as_str());
        let path = format!("/v1/apps/{app}/certificates/{host}/{part}");
        self.call(Method::DELETE, &path, None::<&()>, &[]).await
    }
}
