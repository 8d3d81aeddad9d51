//! TLS of the API's listener: with the operator's certificate, which is read again when its files
//! change, or with one that is made once and kept in the data directory.

use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use hangar_api::fingerprint::Fingerprint;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::crypto::{self, CryptoProvider};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

use crate::NodeError;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Where the certificate is kept that is made here.
const FOLDER: &str = "api-tls";

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Files of a certificate and its key, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, followed by those between it and an authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// The listener's side of TLS.
pub(crate) struct Tls {
    files: TlsFiles,
    provider: Arc<CryptoProvider>,
    current: Arc<ArcSwap<CertifiedKey>>,
    seen: Stamp,
}

/// When files were changed last; `None` for one that is not there.
type Stamp = [Option<SystemTime>; 2];

/// What a handshake is answered with.
#[derive(Debug)]
struct Current(Arc<ArcSwap<CertifiedKey>>);

// === impl Tls ===

impl Tls {
    /// Reads the operator's files.
    pub(crate) fn of_files(files: TlsFiles) -> Result<Self, NodeError> {
        let provider = Arc::new(crypto::ring::default_provider());
        let seen = stamp(&files);
        let read = read(&files, &provider).map_err(|source| NodeError::Certificate {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
            reason: source.to_string(),
        })?;
        Ok(Self {
            current: Arc::new(ArcSwap::new(Arc::new(read))),
            files,
            provider,
            seen,
        })
    }

    /// Reads the certificate that was made for this data directory, or makes it: for the address
    /// that is listened on, this computer's name, and loopback.
    pub(crate) fn self_signed(root: &Path, listen: IpAddr) -> Result<Self, NodeError> {
        let folder = root.join(FOLDER);
        let files = TlsFiles {
            certificate: folder.join("cert.pem"),
            key: folder.join("key.pem"),
        };
        if !files.certificate.exists() || !files.key.exists() {
            make(&folder, &files, listen).map_err(|source| NodeError::Certificate {
                certificate: files.certificate.clone(),
                key: files.key.clone(),
                reason: source.to_string(),
            })?;
        }
        Self::of_files(files)
    }

    /// Returns fingerprint and file of the certificate as it is now.
    pub(crate) fn certificate(&self) -> Option<(Fingerprint, PathBuf)> {
        let current = self.current.load();
        let first = current.cert.first()?;
        Some((Fingerprint::of(first), self.files.certificate.clone()))
    }

    /// Returns what makes connections into such with TLS.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let builder = rustls::ServerConfig::builder_with_provider(self.provider.clone());
        let mut config = builder
            .with_safe_default_protocol_versions()
            .expect("ring has the default protocol versions")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Current(self.current.clone())));
        // Sessions and tunnels take a connection over, which HTTP/2 does not do in this way.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }

    /// Reads the files again whenever they have changed. Files that cannot be used leave the
    /// certificate as it is. Never returns; may be cancelled.
    pub(crate) async fn watch(mut self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = stamp(&self.files);
            if now == self.seen {
                continue;
            }
            self.seen = now;
            let path = self.files.certificate.display();
            match read(&self.files, &self.provider) {
                Ok(read) => {
                    self.current.store(Arc::new(read));
                    tracing::info!(certificate = %path, "the API's certificate was read again");
                }
                Err(error) => {
                    tracing::error!(certificate = %path, %error, "the API's new certificate cannot be used, the former one stays");
                }
            }
        }
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

fn stamp(files: &TlsFiles) -> Stamp {
    [&files.certificate, &files.key].map(|path| path.metadata().ok()?.modified().ok())
}

/// Reads certificate and key, and refuses a key that is another's.
fn read(files: &TlsFiles, provider: &CryptoProvider) -> Result<CertifiedKey, Cause> {
    let chain =
        CertificateDer::pem_file_iter(&files.certificate)?.collect::<Result<Vec<_>, _>>()?;
    if chain.is_empty() {
        return Err("the file of the certificate holds none in PEM form".into());
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| match error {
        pem::Error::NoItemsFound => "the file of the key holds none in PEM form".to_owned(),
        other => other.to_string(),
    })?;
    Ok(CertifiedKey::from_der(chain, key, provider)?)
}

fn make(folder: &Path, files: &TlsFiles, listen: IpAddr) -> Result<(), Cause> {
    let mut names = vec![
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
    ];
    if !listen.is_unspecified() {
        names.push(listen.to_string());
    }
    let computer = rustix::system::uname();
    let computer = computer.nodename().to_string_lossy().to_ascii_lowercase();
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-.".contains(c);
    if !computer.is_empty() && computer.chars().all(is_name) {
        names.push(computer);
    }
    names.sort();
    names.dedup();
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "Hangar API (self-signed)");
    let certificate = params.self_signed(&key)?;
    std::fs::create_dir_all(folder)?;
    // The key first: a certificate that is there has its key.
    write(&files.key, key.serialize_pem().as_bytes(), 0o600)?;
    write(&files.certificate, certificate.pem().as_bytes(), 0o644)?;
    Ok(())
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    use std::io::Write as _;
    let temporary = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}
