//! TLS at the edge: rustls with certificates that were imported, else a self-signed one.
//!
//! Imported ones are [`imported`]. The self-signed certificate for `DOMAIN` and `*.DOMAIN` is made at the first start and kept beside the
//! port memory, so that an exception made for it in a browser lasts. Other host names of the
//! Catalog get certificates of their own under the same key, made when first asked for.

mod imported;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use hangar_api::machine::service::handling::TlsVersions;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedProtocolVersion, crypto};
use serde::{Deserialize, Serialize};

use crate::config::ProxyConfig;
use crate::error::ProxyError;
use crate::index::Index;
use crate::ports;

pub(crate) use imported::Imported;

/// Most certificates made for host names outside the domain; later ones get the domain's.
const MAX_CERTIFICATES: usize = 1024;
/// Most configurations that are kept; others are made for each handshake.
const MAX_CONFIGS: usize = 64;

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// The edge's side of TLS.
pub(crate) struct Tls {
    imported: Arc<Imported>,
    certificates: Arc<Certificates>,
    tickets: Arc<dyn ProducesTickets>,
    provider: Arc<CryptoProvider>,
    configs: Mutex<HashMap<Offer, Arc<ServerConfig>>>,
}

/// What a handshake offers: protocols and versions.
type Offer = (Vec<String>, TlsVersions);

struct Certificates {
    imported: Arc<Imported>,
    domain: String,
    usual: Arc<CertifiedKey>,
    key: KeyPair,
    provider: Arc<CryptoProvider>,
    index: Arc<ArcSwap<Index>>,
    made: Mutex<HashMap<Box<str>, Arc<CertifiedKey>>>,
}

/// The file that keeps key and certificate.
#[derive(Serialize, Deserialize)]
struct Kept {
    domain: String,
    certificate: String,
    key: String,
}

// === impl Tls ===

impl Tls {
    /// Opens the kept certificate, or makes and keeps one.
    pub(crate) fn open(
        config: &ProxyConfig,
        index: Arc<ArcSwap<Index>>,
    ) -> Result<Self, ProxyError> {
        let error = |source: Cause| ProxyError::Certificate {
            domain: config.domain.clone(),
            source,
        };
        let provider = Arc::new(crypto::ring::default_provider());
        let kept = keep(config)?;
        let certificate = CertificateDer::from_pem_slice(kept.certificate.as_bytes())
            .map_err(|source| error(source.into()))?;
        let key = KeyPair::from_pem(&kept.key).map_err(|source| error(source.into()))?;
        let imported = Arc::new(Imported::new(provider.clone()));
        let certificates = Arc::new(Certificates {
            imported: imported.clone(),
            domain: kept.domain,
            usual: certified(certificate, &key, &provider).map_err(error)?,
            key,
            provider: provider.clone(),
            index,
            made: Mutex::default(),
        });
        let tickets = crypto::ring::Ticketer::new().map_err(|source| error(source.into()))?;
        Ok(Self {
            imported,
            certificates,
            tickets,
            provider,
            configs: Mutex::default(),
        })
    }

    /// Returns the certificates that were imported.
    pub(crate) fn imported(&self) -> &Arc<Imported> {
        &self.imported
    }

    /// Returns the configuration that offers these protocols and versions, or `None` where there
    /// can be none.
    pub(crate) fn offering(
        &self,
        alpn: &[String],
        versions: TlsVersions,
    ) -> Option<Arc<ServerConfig>> {
        let offer = (alpn.to_vec(), versions);
        let mut configs = lock(&self.configs);
        if let Some(config) = configs.get(&offer) {
            return Some(config.clone());
        }
        let made = server_config(&self.provider, &self.certificates, &self.tickets, &offer);
        let config = match made {
            Ok(config) => Arc::new(config),
            Err(error) => {
                tracing::warn!(%error, ?alpn, ?versions, "no configuration of TLS");
                return None;
            }
        };
        if configs.len() < MAX_CONFIGS {
            configs.insert(offer, config.clone());
        }
        Some(config)
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls")
            .field("domain", &self.certificates.domain)
            .finish_non_exhaustive()
    }
}

// === impl Certificates ===

impl Certificates {
    fn of(&self, name: &str) -> Arc<CertifiedKey> {
        let name = name.to_ascii_lowercase();
        let index = self.index.load();
        let owner = index.host(&name).map(|app| &app.source.name);
        if let Some(imported) = self.imported.of(&name, owner) {
            return imported;
        }
        let label = name.strip_suffix(&self.domain).map(|l| l.strip_suffix('.'));
        let covered =
            name == self.domain || matches!(label, Some(Some(label)) if !label.contains('.'));
        let Some(name) = index.pattern(&name).filter(|_| !covered) else {
            return self.usual.clone();
        };
        let mut made = lock(&self.made);
        if let Some(known) = made.get(&*name) {
            return known.clone();
        }
        if made.len() >= MAX_CERTIFICATES {
            return self.usual.clone();
        }
        let new = sign(vec![name.to_string()], &self.key)
            .and_then(|signed| certified(signed.der().clone(), &self.key, &self.provider));
        match new {
            Ok(new) => {
                made.insert(name.into(), new.clone());
                new
            }
            Err(error) => {
                tracing::warn!(%error, "self-signed certificate not made");
                self.usual.clone()
            }
        }
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(match hello.server_name() {
            Some(name) => self.of(name),
            None => self.usual.clone(),
        })
    }
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates").finish_non_exhaustive()
    }
}

/// Returns what is kept for the domain, after making it where there is nothing, or nothing that
/// fits.
fn keep(config: &ProxyConfig) -> Result<Kept, ProxyError> {
    let path: PathBuf = config.ports_file.with_file_name("edge-tls.json");
    if let Some(kept) = std::fs::read(&path)
        .ok()
        .and_then(|text| serde_json::from_slice::<Kept>(&text).ok())
        .filter(|kept| kept.domain == config.domain)
    {
        let whole = KeyPair::from_pem(&kept.key).is_ok()
            && CertificateDer::from_pem_slice(kept.certificate.as_bytes()).is_ok();
        if whole {
            return Ok(kept);
        }
        tracing::warn!(path = %path.display(), "the kept certificate is damaged, making a new one");
    }
    let error = |source: Cause| ProxyError::Certificate {
        domain: config.domain.clone(),
        source,
    };
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
        .map_err(|source| error(source.into()))?;
    let names = vec![config.domain.clone(), format!("*.{}", config.domain)];
    let certificate = sign(names, &key).map_err(error)?;
    let kept = Kept {
        domain: config.domain.clone(),
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    };
    let text = serde_json::to_vec_pretty(&kept).map_err(|source| error(source.into()))?;
    ports::write(&path, &text, 0o600)?;
    Ok(kept)
}

fn sign(names: Vec<String>, key: &KeyPair) -> Result<rcgen::Certificate, Cause> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "Hangar (self-signed)");
    Ok(params.self_signed(key)?)
}

fn certified(
    certificate: CertificateDer<'static>,
    key: &KeyPair,
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, Cause> {
    let der = PrivateKeyDer::try_from(key.serialize_der())?;
    let key = CertifiedKey::from_der(vec![certificate], der, provider)?;
    Ok(Arc::new(key))
}

fn server_config(
    provider: &Arc<CryptoProvider>,
    certificates: &Arc<Certificates>,
    tickets: &Arc<dyn ProducesTickets>,
    (alpn, versions): &Offer,
) -> Result<ServerConfig, Cause> {
    let versions: &[&SupportedProtocolVersion] = match versions {
        TlsVersions::Both => &[&TLS12, &TLS13],
        TlsVersions::Only12 => &[&TLS12],
        TlsVersions::Only13 => &[&TLS13],
    };
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_cert_resolver(certificates.clone());
    config.ticketer = tickets.clone();
    config.alpn_protocols = alpn.iter().map(|name| name.clone().into_bytes()).collect();
    Ok(config)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
