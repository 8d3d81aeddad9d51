//! Whether a certificate, its chain and its key can be served for a host name. Pure: time comes
//! in, nothing is looked up.
//!
//! What is refused is what clients would refuse, told while somebody is there to mend it.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hangar_api::Timestamp;
use hangar_api::certificate::{Hostname, domain_above};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use super::der;

/// Most bytes of a chain as PEM, and of a key.
const MAX_CHAIN: usize = 96 * 1024;
const MAX_KEY: usize = 32 * 1024;
/// Most certificates of a chain.
const MAX_CERTIFICATES: usize = 10;
/// Most names of a certificate that an error tells.
const MAX_TOLD: usize = 8;
/// Characters of a line of PEM.
const LINE: usize = 64;

/// What is to be kept of a certificate that can be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sound {
    /// The chain as PEM, and nothing else that stood in the file.
    pub(crate) fullchain: String,
    /// Who issued it.
    pub(crate) issuer: String,
    /// The kind of its key: `rsa`, `ecdsa`, `ed25519`.
    pub(crate) kind: &'static str,
    /// Its end.
    pub(crate) expires_at: Timestamp,
}

/// Why a certificate cannot be served, in words for whoever imports it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("fullchain is longer than {MAX_CHAIN} bytes or {MAX_CERTIFICATES} certificates")]
    ChainTooLong,
    #[error("fullchain holds no certificate: give PEM with -----BEGIN CERTIFICATE----- in it")]
    NoCertificate,
    #[error("certificate {0} of fullchain cannot be read: {1}")]
    Unreadable(usize, String),
    #[error("private_key is longer than {MAX_KEY} bytes")]
    KeyTooLong,
    #[error("private_key holds no key: give PEM with -----BEGIN PRIVATE KEY----- in it")]
    NoKey,
    #[error(
        "the private key is encrypted: take the passphrase off first, as with \
         `openssl pkey -in key.pem -out plain.pem`"
    )]
    KeyEncrypted,
    #[error(
        "the private key cannot be used: {0}; keys may be RSA of 2048 to 4096 bits, ECDSA on P-256 \
         or P-384, or Ed25519"
    )]
    KeyUnusable(String),
    #[error("the private key does not match the certificate")]
    KeyMismatch,
    #[error(
        "the certificates are not in order: the private key matches certificate {0} of fullchain, \
         which must come first"
    )]
    LeafNotFirst(usize),
    #[error(
        "the certificates are not in order: certificate {0} of fullchain did not issue the one \
         before it; put the host's own first, then the one that issued it, and so on"
    )]
    OutOfOrder(usize),
    #[error("the chain does not hold together: {0}")]
    Broken(String),
    #[error("the certificate expired at {0}: import a renewed one")]
    Expired(Timestamp),
    #[error("the certificate is not valid before {0}")]
    NotYetValid(Timestamp),
    #[error("the certificate is not for {host}: it is for {names}")]
    OtherHost { host: Hostname, names: String },
}

/// Returns what to keep of a certificate, or why it cannot be served for the host name.
pub(crate) fn examine(
    host: &Hostname,
    fullchain: &str,
    private_key: &str,
    now: Timestamp,
) -> Result<Sound, Refusal> {
    let chain = certificates(fullchain)?;
    let ends = chain.iter().enumerate().map(|(at, certificate)| {
        let read = EndEntityCert::try_from(certificate);
        read.map_err(|error| Refusal::Unreadable(at + 1, error.to_string()))
    });
    let ends: Vec<EndEntityCert<'_>> = ends.collect::<Result<_, _>>()?;
    let (Some(leaf), Some(first)) = (ends.first(), chain.first()) else {
        return Err(Refusal::NoCertificate);
    };
    let kind = matched(&ends, private_key)?;
    covers(host, leaf)?;
    let unread = || Refusal::Unreadable(1, "it has no times".to_owned());
    let times = der::validity(first).ok_or_else(unread)?;
    if times.not_after < now {
        return Err(Refusal::Expired(times.not_after));
    }
    if times.not_before > now {
        return Err(Refusal::NotYetValid(times.not_before));
    }
    holds(&chain, &ends, now)?;
    Ok(Sound {
        fullchain: chain.iter().map(|certificate| pem(certificate)).collect(),
        issuer: der::shown(leaf.issuer()),
        kind,
        expires_at: times.not_after,
    })
}

fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, Refusal> {
    if text.len() > MAX_CHAIN {
        return Err(Refusal::ChainTooLong);
    }
    let mut chain = Vec::new();
    for read in CertificateDer::pem_slice_iter(text.as_bytes()) {
        let number = chain.len() + 1;
        chain.push(read.map_err(|error| Refusal::Unreadable(number, error.to_string()))?);
        if chain.len() > MAX_CERTIFICATES {
            return Err(Refusal::ChainTooLong);
        }
    }
    Ok(chain)
}

/// Returns the kind of the key, which must be that of the first certificate.
fn matched(ends: &[EndEntityCert<'_>], text: &str) -> Result<&'static str, Refusal> {
    if text.len() > MAX_KEY {
        return Err(Refusal::KeyTooLong);
    }
    if text.contains("ENCRYPTED") {
        return Err(Refusal::KeyEncrypted);
    }
    let key = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| Refusal::NoKey)?;
    let unusable = |error: rustls::Error| Refusal::KeyUnusable(reason(&error));
    let key = ring::sign::any_supported_type(&key).map_err(unusable)?;
    let Some(public) = key.public_key() else {
        return Err(Refusal::KeyUnusable("it has no public half".to_owned()));
    };
    let is_its = |end: &EndEntityCert<'_>| end.subject_public_key_info() == public;
    match ends.iter().position(is_its) {
        Some(0) => {}
        Some(later) => return Err(Refusal::LeafNotFirst(later + 1)),
        None => return Err(Refusal::KeyMismatch),
    }
    use rustls::SignatureAlgorithm as Algorithm;
    match key.algorithm() {
        Algorithm::RSA => Ok("rsa"),
        Algorithm::ECDSA => Ok("ecdsa"),
        Algorithm::ED25519 => Ok("ed25519"),
        other => Err(Refusal::KeyUnusable(format!("{other:?} is not known"))),
    }
}

/// Returns an error of rustls without the words that are the same for all.
fn reason(error: &rustls::Error) -> String {
    match error {
        rustls::Error::General(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Refuses a certificate that is not for the host name: by its alternative names, or by its common
/// name where it has none of those.
fn covers(host: &Hostname, leaf: &EndEntityCert<'_>) -> Result<(), Refusal> {
    let mut names: Vec<String> = leaf
        .valid_dns_names()
        .map(str::to_ascii_lowercase)
        .collect();
    if names.is_empty() {
        names.extend(der::common_name(leaf.subject()).map(|name| name.to_ascii_lowercase()));
    }
    let above = domain_above(host.as_str());
    let is_for = |name: &String| {
        let below = name.strip_prefix("*.");
        *name == host.as_str() || (below.is_some() && below == above)
    };
    if names.iter().any(is_for) {
        return Ok(());
    }
    let names = match names.len() {
        0 => "no host at all".to_owned(),
        _ => names[..names.len().min(MAX_TOLD)].join(", "),
    };
    let host = host.clone();
    Err(Refusal::OtherHost { host, names })
}

/// Refuses a chain in which a certificate did not issue the one before it. One certificate alone
/// is taken as it is: whether clients trust its issuer cannot be told from here.
fn holds(
    chain: &[CertificateDer<'_>],
    ends: &[EndEntityCert<'_>],
    now: Timestamp,
) -> Result<(), Refusal> {
    for (at, pair) in ends.windows(2).enumerate() {
        if pair[0].issuer() != pair[1].subject() {
            return Err(Refusal::OutOfOrder(at + 2));
        }
    }
    let [first, between @ .., last] = chain else {
        return Ok(());
    };
    let broken = |error: webpki::Error| match error {
        webpki::Error::CertExpired { .. } => {
            Refusal::Broken("a certificate after the first has expired".to_owned())
        }
        other => Refusal::Broken(other.to_string()),
    };
    let anchor = anchor_from_trusted_cert(last).map_err(broken)?;
    let leaf = EndEntityCert::try_from(first).map_err(broken)?;
    let seconds = u64::try_from(now.as_second()).unwrap_or_default();
    let time = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let algorithms = ring::default_provider().signature_verification_algorithms;
    leaf.verify_for_usage(
        algorithms.all,
        &[anchor],
        between,
        time,
        KeyUsage::server_auth(),
        None,
        None,
    )
    .map(drop)
    .map_err(broken)
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    let text = BASE64.encode(certificate);
    let mut out = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(LINE));
        out.push_str(line);
        out.push('\n');
        rest = more;
    }
    out.push_str("-----END CERTIFICATE-----\n");
    out
}

#[cfg(test)]
mod tests;
