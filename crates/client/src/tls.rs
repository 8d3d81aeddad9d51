//! TLS to a server: with a certificate that the authorities of browsers vouch for, or with the one
//! that a person has seen and agreed to.

use std::sync::{Arc, Mutex, PoisonError};

use hangar_api::fingerprint::Fingerprint;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{self, CryptoProvider};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Which certificates are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Those that an authority vouches for.
    Authorities,
    /// This one.
    Pinned(Fingerprint),
}

/// Begins TLS, or returns what is wrong in words.
pub(crate) async fn begin(
    host: &str,
    trust: Trust,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, String> {
    let provider = Arc::new(crypto::ring::default_provider());
    let config = match trust {
        Trust::Authorities => {
            let roots = RootCertStore {
                roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
            };
            let builder = builder(&provider).with_root_certificates(roots);
            builder.with_no_client_auth()
        }
        Trust::Pinned(pin) => {
            let verifier = Known {
                pin: Some(pin),
                seen: Mutex::default(),
                provider: provider.clone(),
            };
            unusual(&provider, Arc::new(verifier))
        }
    };
    let connector = TlsConnector::from(Arc::new(config));
    let begun = connector.connect(server_name(host)?, stream).await;
    begun.map_err(|error| in_words(host, trust, &error))
}

/// Returns the fingerprint of the certificate that a server shows, whoever vouches for it. Nothing
/// is sent to it.
pub(crate) async fn look(host: &str, stream: TcpStream) -> Result<Fingerprint, String> {
    let provider = Arc::new(crypto::ring::default_provider());
    let verifier = Arc::new(Known {
        pin: None,
        seen: Mutex::default(),
        provider: provider.clone(),
    });
    let config = unusual(&provider, verifier.clone());
    let connector = TlsConnector::from(Arc::new(config));
    let begun = connector.connect(server_name(host)?, stream).await;
    begun.map_err(|error| format!("begin TLS with {host}: {error}"))?;
    let seen = *verifier.seen.lock().unwrap_or_else(PoisonError::into_inner);
    seen.ok_or_else(|| format!("{host} shows no certificate"))
}

fn builder(
    provider: &Arc<CryptoProvider>,
) -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("ring has the default protocol versions")
}

fn unusual(provider: &Arc<CryptoProvider>, verifier: Arc<Known>) -> ClientConfig {
    let builder = builder(provider).dangerous();
    builder
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth()
}

fn server_name(host: &str) -> Result<ServerName<'static>, String> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    ServerName::try_from(bare.to_owned()).map_err(|_| format!("{host} is no name of a host"))
}

fn in_words(host: &str, trust: Trust, error: &std::io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    match (inner, trust) {
        (Some(rustls::Error::InvalidCertificate(_)), Trust::Pinned(pin)) => format!(
            "its certificate is another than the one that was agreed to ({pin}). If the server has \
             a new one, log in again: hangar auth login"
        ),
        (Some(rustls::Error::InvalidCertificate(why)), Trust::Authorities) => format!(
            "no authority vouches for its certificate ({why}): `hangar auth login` shows it and \
             remembers it"
        ),
        (Some(rustls::Error::InvalidMessage(_)), _) => {
            "it does not speak TLS: is its URL http://...?".to_owned()
        }
        _ => format!("begin TLS with {host}: {error}"),
    }
}

/// Takes one certificate, or any where there is no pin; the handshake must be signed with its key.
#[derive(Debug)]
struct Known {
    pin: Option<Fingerprint>,
    seen: Mutex<Option<Fingerprint>>,
    provider: Arc<CryptoProvider>,
}

// === impl Known ===

impl ServerCertVerifier for Known {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let is = Fingerprint::of(end_entity);
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(is);
        if self.pin.is_some_and(|pin| pin != is) {
            let why = rustls::CertificateError::ApplicationVerificationFailure;
            return Err(rustls::Error::InvalidCertificate(why));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        crypto::verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        crypto::verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}
