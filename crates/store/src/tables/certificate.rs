//! Host names of apps, and the certificates that were imported for them.

use hangar_api::Timestamp;
use hangar_api::id::AppName;
use serde::{Deserialize, Serialize};

/// A host name of an app's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateRecord {
    /// It was added without a certificate, for one to be issued.
    pub acme_requested: bool,
    /// The certificate that was imported for it.
    #[serde(default)]
    pub custom: Option<CustomCertificate>,
    /// When it was added.
    pub created_at: Timestamp,
    /// When anything of it last changed.
    pub updated_at: Timestamp,
}

/// A certificate as it is kept: its key encrypted under a key of the keyring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CustomCertificate {
    /// The chain, PEM.
    pub fullchain: String,
    /// The key of the keyring.
    pub key_id: String,
    /// The nonce, base64.
    pub nonce: String,
    /// The encrypted private key, base64; app, host name and `imported_at` are its associated data.
    pub sealed: String,
    /// Who issued it.
    pub issuer: String,
    /// The kind of its key: `rsa`, `ecdsa`, `ed25519`.
    pub kind: String,
    /// Its end.
    pub expires_at: Timestamp,
    /// When it was imported.
    pub imported_at: Timestamp,
}

/// Whose a host name is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostnameRecord {
    /// The app.
    pub app: AppName,
}
