//! TLS of a probe: the certificate is checked against the authorities that browsers know, unless
//! the check says that any will do.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{self, CryptoProvider};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::checks::{Probe, ProbeTls};

/// Both ways to begin TLS.
#[derive(Clone)]
pub(super) struct Tls {
    checked: TlsConnector,
    unchecked: TlsConnector,
}

/// Takes any certificate; the handshake must still be signed with its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

// === impl Tls ===

impl Tls {
    pub(super) fn new(roots: RootCertStore) -> Self {
        let provider = Arc::new(crypto::ring::default_provider());
        let builder = || {
            ClientConfig::builder_with_provider(provider.clone())
                .with_safe_default_protocol_versions()
                .expect("ring has the default protocol versions")
        };
        let checked = builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let any = Arc::new(AnyCertificate(provider.clone()));
        let unchecked = builder()
            .dangerous()
            .with_custom_certificate_verifier(any)
            .with_no_client_auth();
        Self {
            checked: TlsConnector::from(Arc::new(checked)),
            unchecked: TlsConnector::from(Arc::new(unchecked)),
        }
    }

    /// Begins TLS, or returns what is wrong in words.
    pub(super) async fn begin(
        &self,
        probe: &Probe,
        tls: &ProbeTls,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, String> {
        let name = match &tls.server_name {
            Some(name) => ServerName::try_from(name.clone())
                .map_err(|_| format!("tls_server_name {name:?} is no name of a host"))?,
            None => ServerName::IpAddress(probe.target.ip().into()),
        };
        let connector = if tls.skip_verify {
            &self.unchecked
        } else {
            &self.checked
        };
        let port = probe.target.port();
        let begun = connector.connect(name, stream).await;
        begun.map_err(|error| match rustls_error(&error) {
            Some(rustls::Error::InvalidCertificate(why)) => format!(
                "the certificate on port {port} is not valid: {why}; set tls_server_name to the \
                 name it is for, or tls_skip_verify to take any"
            ),
            Some(rustls::Error::InvalidMessage(_)) => {
                format!("port {port} does not speak TLS: use protocol http")
            }
            _ => format!("begin TLS with port {port}: {error}"),
        })
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

fn rustls_error(error: &std::io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

// === impl AnyCertificate ===

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        crypto::verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        crypto::verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
