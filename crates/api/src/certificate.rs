//! Certificates and the host names they are for (machines-api.md 2.6).
//!
//! A host name belongs to one app. It leads requests there whether or not a certificate was
//! imported for it; the private key goes in and never comes out.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::id::AppName;

/// A host name of its own that an app answers to, in lower case: `example.com`, `*.example.com`.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
pub struct Hostname(String);

/// Why a text is no host name that an app can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("hostname {value:?} is not valid: {rule}")]
pub struct InvalidHostname {
    /// What was given, cut to 80 characters.
    pub value: String,
    /// What would be accepted, in words.
    pub rule: &'static str,
}

/// Longest host name, in bytes (RFC 1035).
const MAX_HOSTNAME: usize = 253;
/// Longest label, in bytes.
const MAX_LABEL: usize = 63;

// === impl Hostname ===

impl Hostname {
    /// Returns the host name, lower case and without a dot at its end, or why it is none.
    pub fn new(text: &str) -> Result<Self, InvalidHostname> {
        let name = text.trim();
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let refused = |rule| InvalidHostname {
            value: text.chars().take(80).collect(),
            rule,
        };
        if !name.is_ascii() {
            return Err(refused("write names outside ASCII in their xn-- form"));
        }
        let host = name.strip_prefix("*.").unwrap_or(&name);
        if host.contains('*') {
            return Err(refused("a * stands only for the whole first label"));
        }
        let fits = |label: &str| {
            (1..=MAX_LABEL).contains(&label.len())
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if name.len() > MAX_HOSTNAME || !host.contains('.') || !host.split('.').all(fits) {
            return Err(refused(
                "use labels of letters, digits and dashes with a dot between them",
            ));
        }
        let last = host.rsplit('.').next().unwrap_or_default();
        if last.bytes().all(|b| b.is_ascii_digit()) {
            return Err(refused("an IP address is no host name"));
        }
        Ok(Self(name))
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns what follows `*.`, where this stands for all names one label below.
    #[must_use]
    pub fn below(&self) -> Option<&str> {
        self.0.strip_prefix("*.")
    }
}

impl TryFrom<String> for Hostname {
    type Error = InvalidHostname;
    fn try_from(text: String) -> Result<Self, InvalidHostname> {
        Self::new(&text)
    }
}

impl std::str::FromStr for Hostname {
    type Err = InvalidHostname;
    fn from_str(text: &str) -> Result<Self, InvalidHostname> {
        Self::new(text)
    }
}

impl From<Hostname> for String {
    fn from(name: Hostname) -> Self {
        name.0
    }
}

impl std::fmt::Display for Hostname {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

/// Returns the domain whose `*.` covers a name in lower case: all after its first label.
#[must_use]
pub fn domain_above(name: &str) -> Option<&str> {
    let (first, above) = name.split_once('.')?;
    (!first.is_empty() && !above.is_empty()).then_some(above)
}

/// Body of `POST .../certificates/acme`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AddHostname {
    /// The host name.
    #[serde(default)]
    pub hostname: Option<String>,
}

/// Body of `POST .../certificates/custom`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImportCertificate {
    /// The host name.
    #[serde(default)]
    pub hostname: Option<String>,
    /// PEM: the certificate of the host, then those that lead to its root.
    #[serde(default)]
    pub fullchain: Option<String>,
    /// PEM: its private key.
    #[serde(default)]
    pub private_key: Option<String>,
}

impl std::fmt::Debug for ImportCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImportCertificate")
            .field("hostname", &self.hostname)
            .finish_non_exhaustive()
    }
}

/// Where a host name is in its way to a certificate that clients trust.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CertificateStatus {
    /// A certificate is served.
    Active,
    /// None was imported, and the edge's self-signed one is served; or it is past its end.
    PendingValidation,
    /// The right to the name is not shown. Hangar asks for no such proof; Fly does.
    PendingOwnership,
    /// A word of a newer server.
    #[serde(other)]
    Unknown,
}

impl std::fmt::Display for CertificateStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Active => "active",
            Self::PendingValidation => "pending_validation",
            Self::PendingOwnership => "pending_ownership",
            Self::Unknown => "unknown",
        })
    }
}

/// A host name in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CertificateSummary {
    /// The host name.
    pub hostname: String,
    /// Where it is.
    pub status: CertificateStatus,
    /// Who runs its DNS; Hangar does not look.
    #[serde(default)]
    pub dns_provider: String,
    /// A certificate that is valid now is served.
    pub configured: bool,
    /// It was added without a certificate of its own.
    pub acme_requested: bool,
    /// Never, as long as there is no ACME.
    pub acme_dns_configured: bool,
    /// Never, as long as there is no ACME.
    pub acme_alpn_configured: bool,
    /// Never, as long as there is no ACME.
    pub acme_http_configured: bool,
    /// Never: no such proof is asked for.
    pub ownership_txt_configured: bool,
    /// A certificate was imported.
    pub has_custom_certificate: bool,
    /// Never, as long as there is no ACME.
    pub has_fly_certificate: bool,
    /// When the host name was added.
    #[schemars(with = "crate::schema::Time")]
    pub created_at: Timestamp,
    /// When anything of it last changed.
    #[schemars(with = "crate::schema::Time")]
    pub updated_at: Timestamp,
}

/// Answer of `GET .../certificates`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CertificateList {
    /// A page, by host name.
    #[serde(default)]
    pub certificates: Vec<CertificateSummary>,
    /// How many there are on all pages.
    #[serde(default)]
    pub total_count: u64,
    /// Where the next page begins; empty on the last.
    #[serde(default)]
    pub next_cursor: String,
}

/// All that is known of a host name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CertificateDetail {
    /// The host name.
    pub hostname: String,
    /// A certificate that is valid now is served.
    pub configured: bool,
    /// It was added without a certificate of its own.
    pub acme_requested: bool,
    /// Where it is.
    pub status: CertificateStatus,
    /// Who runs its DNS; Hangar does not look.
    #[serde(default)]
    pub dns_provider: String,
    /// The certificates: at most one, an imported one.
    #[serde(default)]
    pub certificates: Vec<CertificateEntry>,
    /// What of the proofs of a right to the name is there.
    #[serde(default)]
    pub validation: CertificateValidation,
    /// What its DNS should say.
    #[serde(default)]
    pub dns_requirements: DnsRequirements,
    /// What is in the way of a certificate that clients trust.
    #[serde(default)]
    pub validation_errors: Vec<ValidationError>,
    /// What its DNS says; only of a check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_records: Option<DnsRecords>,
    /// What follows from what was just done; only where a certificate was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// A certificate of a host name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CertificateEntry {
    /// `custom`: it was imported.
    pub source: String,
    /// Where it is.
    pub status: CertificateStatus,
    /// When it was imported.
    #[schemars(with = "crate::schema::Time")]
    pub created_at: Timestamp,
    /// Its end.
    #[schemars(with = "crate::schema::Time")]
    pub expires_at: Timestamp,
    /// Who issued it.
    pub issuer: String,
    /// Itself, by the kind of its key.
    #[serde(default)]
    pub issued: Vec<IssuedCertificate>,
}

/// A certificate by the kind of its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IssuedCertificate {
    /// `rsa`, `ecdsa` or `ed25519`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its end.
    #[schemars(with = "crate::schema::Time")]
    pub expires_at: Timestamp,
    /// Who issued it.
    pub certificate_authority: String,
}

/// What of the proofs of a right to a name is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CertificateValidation {
    /// Its DNS leads to this machine; known after a check.
    pub dns_configured: bool,
    /// Never, as long as there is no ACME.
    pub alpn_configured: bool,
    /// Never, as long as there is no ACME.
    pub http_configured: bool,
    /// Never: no such proof is asked for.
    pub ownership_txt_configured: bool,
}

/// What the DNS of a host name should say, one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DnsRequirements {
    /// IPv4 addresses of the edge, where it listens on one of its own.
    #[serde(default)]
    pub a: Vec<String>,
    /// IPv6 addresses of the edge, where it listens on one of its own.
    #[serde(default)]
    pub aaaa: Vec<String>,
    /// The app's own host name.
    #[serde(default)]
    pub cname: String,
}

/// What is in the way of a certificate that clients trust.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ValidationError {
    /// A stable word.
    pub code: String,
    /// What it is.
    pub message: String,
    /// What to do.
    pub remediation: String,
    /// As of when.
    #[schemars(with = "crate::schema::Time")]
    pub timestamp: Timestamp,
}

/// What the DNS of a host name says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DnsRecords {
    /// Its IPv4 addresses.
    #[serde(default)]
    pub a: Vec<String>,
    /// Its IPv6 addresses.
    #[serde(default)]
    pub aaaa: Vec<String>,
    /// What it is another name for.
    #[serde(default)]
    pub cname: Vec<String>,
    /// All addresses that it leads to.
    #[serde(default)]
    pub resolved_addresses: Vec<String>,
}

/// A private key on its way to the edge. Never printed, never stored in the clear.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PrivateKeyPem(pub String);

impl std::fmt::Debug for PrivateKeyPem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PrivateKeyPem(hidden)")
    }
}

/// A certificate as the edge serves it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EdgeCertificate {
    /// For this host name, or all one label below.
    pub hostname: Hostname,
    /// Of this app.
    pub app: AppName,
    /// PEM: the certificate, then those that lead to its root.
    pub fullchain: String,
    /// PEM: its private key.
    pub private_key: PrivateKeyPem,
}

/// From the server to an edge: a stream of its own, so that no key is ever in the Catalog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ToEdge {
    /// All certificates: sent first. What the edge has beside them is gone.
    Sync {
        /// All of them.
        certificates: Vec<EdgeCertificate>,
        /// The store's revision that they are of.
        revision: u64,
    },
    /// Some are new or changed, and some are gone.
    Change {
        /// New or changed.
        put: Vec<EdgeCertificate>,
        /// Gone.
        removed: Vec<Hostname>,
        /// The store's revision that they are of.
        revision: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_are_brought_into_one_form_and_others_are_refused_with_a_rule() {
        for (text, name) in [
            ("Example.COM", "example.com"),
            ("example.com.", "example.com"),
            ("*.Example.com", "*.example.com"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("_dmarc.example.com", "_dmarc.example.com"),
        ] {
            assert_eq!(Hostname::new(text).unwrap().as_str(), name);
        }
        for text in [
            "",
            ".",
            "com",
            "*.",
            "*",
            "a..b",
            "-a.b",
            "a-.b",
            "bücher.example",
            "*.*.b.c",
            "a.*.c",
            "1.2.3.4",
            "a b.c",
            "a.b/c",
            "http://a.b",
            "a.b:80",
            "[::1]",
        ] {
            assert!(Hostname::new(text).is_err(), "{text}");
        }
        assert!(Hostname::new(&format!("{}.com", "a".repeat(64))).is_err());
        assert!(Hostname::new(&["a"; 130].join(".")).is_err());
    }

    #[test]
    fn keys_are_not_printed() {
        let key = PrivateKeyPem("BEGIN".to_owned());
        let import = ImportCertificate {
            private_key: Some("BEGIN".to_owned()),
            ..ImportCertificate::default()
        };
        assert!(!format!("{key:?} {import:?}").contains("BEGIN"));
    }

    #[test]
    fn the_domain_above_is_what_follows_the_first_label() {
        assert_eq!(domain_above("a.b.c"), Some("b.c"));
        assert_eq!(domain_above("localhost"), None);
        assert_eq!(domain_above(".b"), None);
        assert_eq!(domain_above("a."), None);
    }
}
