//! Clients that speak HTTP/2 over TLS, and trust the proxy's own certificate only.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::{Method, Request};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme, crypto};

use super::clients::{Load, TIMEOUT, check};
use super::tally::Kind;

const CONNECTIONS: usize = 2;
/// Requests at a time on each connection.
const STREAMS: usize = 4;
/// Pause of a stream between an answer and its next request.
const PAUSE: Duration = Duration::from_millis(20);
const AFTER_FAULT: Duration = Duration::from_millis(200);

type Sender = SendRequest<Full<Bytes>>;

/// Runs the clients until the load ends.
pub(super) fn run(load: &Load) {
    let connector = connector(load);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let connections = (0..CONNECTIONS).map(|_| keep_asking(load, &connector));
    runtime.block_on(join_all(connections));
}

fn connector(load: &Load) -> TlsConnector {
    let kept = std::fs::read(&load.certificate).unwrap();
    let kept: serde_json::Value = serde_json::from_slice(&kept).unwrap();
    let certificate = kept["certificate"].as_str().unwrap();
    let provider = Arc::new(ring::default_provider());
    let pinned = Pinned {
        certificate: CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap(),
        provider: provider.clone(),
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(pinned))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsConnector::from(Arc::new(config))
}

async fn keep_asking(load: &Load, connector: &TlsConnector) {
    while !load.has_ended() {
        let began = Instant::now();
        match connect(load, connector).await {
            Ok(sender) => {
                join_all((0..STREAMS).map(|stream| ask_on(load, sender.clone(), stream))).await;
            }
            Err(why) => {
                load.tally().count(Kind::Http2, began, Err(why));
            }
        }
        // Either it ended, or something went wrong and is counted.
        sleep(AFTER_FAULT).await;
    }
}

async fn connect(load: &Load, connector: &TlsConnector) -> Result<Sender, String> {
    let stream = TcpStream::connect(load.tls)
        .await
        .map_err(|error| format!("connect: {error}"))?;
    let name = ServerName::try_from(load.host.clone()).map_err(|error| error.to_string())?;
    let stream = timeout(TIMEOUT, connector.connect(name, stream))
        .await
        .map_err(|_| "TLS took too long".to_owned())?
        .map_err(|error| format!("TLS: {error}"))?;
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(|error| format!("HTTP/2: {error:?}"))?;
    // Its errors are told to the requests on it.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

/// Asks on one stream after the other until the end or a fault.
async fn ask_on(load: &Load, mut sender: Sender, mut number: usize) {
    while !load.has_ended() {
        let began = Instant::now();
        let result = match timeout(TIMEOUT, ask(load, &mut sender, number)).await {
            Ok(result) => result,
            Err(_) => Err("no answer in time".to_owned()),
        };
        number += 1;
        if !load.tally().count(Kind::Http2, began, result) {
            return;
        }
        sleep(PAUSE).await;
    }
}

async fn ask(load: &Load, sender: &mut Sender, number: usize) -> Result<(), String> {
    let failed = |error: hyper::Error| format!("stream {number}: {error:?}");
    let body = load.body(number);
    let method = if body.is_some() {
        Method::POST
    } else {
        Method::GET
    };
    let bytes = body.map_or_else(Bytes::new, |body| Bytes::from(body.bytes.clone()));
    let request = Request::builder()
        .method(method)
        .uri(format!("https://{}/?n={number}", load.host))
        .body(Full::new(bytes))
        .unwrap();
    let answer = sender.send_request(request).await.map_err(failed)?;
    let status = answer.status().as_u16();
    let text = answer.into_body().collect().await.map_err(failed)?;
    check(status, &text.to_bytes(), body).map_err(|why| format!("stream {number}: {why}"))
}

/// Accepts one certificate, whatever names stand in it: no library takes `*.localhost`.
#[derive(Debug)]
struct Pinned {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        given: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if *given == self.certificate {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::General("another certificate was given".to_owned()))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}
