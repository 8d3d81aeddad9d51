//! Certificates that were imported for host names: which one a handshake gets.
//!
//! They come by a stream of their own from the server, private keys with them, and are kept in
//! memory alone: a proxy that starts anew gets them again. A handshake looks up one name, or two,
//! without a lock; how many certificates there are does not matter to it.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use hangar_api::certificate::{EdgeCertificate, Hostname, ToEdge, domain_above};
use hangar_api::id::AppName;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::Cause;

/// Certificates that are read in one go; others may have their turn then.
const AT_ONCE: usize = 32;

/// The certificates. See the module.
pub(crate) struct Imported {
    names: ArcSwap<Names>,
    provider: Arc<CryptoProvider>,
    /// The server's revision that they are of; absent before the first of them came.
    served: watch::Sender<Option<u64>>,
}

/// Certificates by what they are for.
#[derive(Clone, Debug, Default)]
struct Names {
    exact: HashMap<Box<str>, Served>,
    /// By the domain below which they are for every label.
    below: HashMap<Box<str>, Served>,
}

/// A certificate and whose it is.
#[derive(Clone, Debug)]
struct Served {
    app: AppName,
    key: Arc<CertifiedKey>,
}

// === impl Names ===

impl Names {
    /// Returns the certificate for a name in lower case: its own, else one for all names beside it.
    /// That one must be of `owner`, the app that answers to the name, where there is one: no app
    /// speaks for a name of another's.
    fn choose(&self, name: &str, owner: Option<&AppName>) -> Option<&Arc<CertifiedKey>> {
        if let Some(served) = self.exact.get(name) {
            return Some(&served.key);
        }
        let served = self.below.get(domain_above(name)?)?;
        owner
            .is_none_or(|owner| *owner == served.app)
            .then_some(&served.key)
    }

    fn put(&mut self, host: &Hostname, served: Served) {
        match host.below() {
            Some(domain) => self.below.insert(domain.into(), served),
            None => self.exact.insert(host.as_str().into(), served),
        };
    }

    fn remove(&mut self, host: &Hostname) {
        match host.below() {
            Some(domain) => self.below.remove(domain),
            None => self.exact.remove(host.as_str()),
        };
    }
}

// === impl Imported ===

impl Imported {
    pub(super) fn new(provider: Arc<CryptoProvider>) -> Self {
        Self {
            names: ArcSwap::default(),
            provider,
            served: watch::Sender::new(None),
        }
    }

    /// Returns the certificate for a name in lower case. See [`Names::choose`].
    pub(super) fn of(&self, name: &str, owner: Option<&AppName>) -> Option<Arc<CertifiedKey>> {
        self.names.load().choose(name, owner).cloned()
    }

    /// Returns the revision that is served, following changes; absent before the first.
    pub(crate) fn served(&self) -> watch::Receiver<Option<u64>> {
        self.served.subscribe()
    }

    /// Follows the stream until the proxy stops. Without a server, what came last holds.
    pub(crate) async fn follow(&self, mut stream: mpsc::Receiver<ToEdge>, stop: CancellationToken) {
        loop {
            let message = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                message = stream.recv() => message,
            };
            let Some(message) = message else { break };
            self.apply(message).await;
        }
        // Nothing more will come that a start could wait for.
        self.served.send_if_modified(|served| {
            let first = served.is_none();
            served.get_or_insert(0);
            first
        });
    }

    async fn apply(&self, message: ToEdge) {
        let (mut names, put, removed, revision) = match message {
            ToEdge::Sync {
                certificates,
                revision,
            } => (Names::default(), certificates, Vec::new(), revision),
            ToEdge::Change {
                put,
                removed,
                revision,
            } => (Names::clone(&self.names.load()), put, removed, revision),
        };
        for host in &removed {
            names.remove(host);
        }
        for (at, certificate) in put.iter().enumerate() {
            if at % AT_ONCE == AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
            match self.read(certificate) {
                Ok(key) => {
                    let app = certificate.app.clone();
                    names.put(&certificate.hostname, Served { app, key });
                }
                Err(error) => {
                    // A former one is not what was asked for either.
                    names.remove(&certificate.hostname);
                    tracing::warn!(
                        hostname = %certificate.hostname, app = %certificate.app, %error,
                        "imported certificate cannot be served"
                    );
                }
            }
        }
        self.names.store(Arc::new(names));
        self.served.send_replace(Some(revision));
    }

    fn read(&self, certificate: &EdgeCertificate) -> Result<Arc<CertifiedKey>, Cause> {
        let chain = CertificateDer::pem_slice_iter(certificate.fullchain.as_bytes());
        let chain: Vec<CertificateDer<'static>> = chain.collect::<Result<_, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(certificate.private_key.0.as_bytes())?;
        let key = CertifiedKey::from_der(chain, key, &self.provider)?;
        Ok(Arc::new(key))
    }
}

impl std::fmt::Debug for Imported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Imported").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use hangar_api::certificate::PrivateKeyPem;
    use proptest::prelude::*;
    use rcgen::KeyPair;

    use super::*;

    fn imported() -> Imported {
        Imported::new(Arc::new(rustls::crypto::ring::default_provider()))
    }

    fn app(name: &str) -> AppName {
        AppName::new(name).unwrap()
    }

    fn certificate(host: &str, owner: &str) -> EdgeCertificate {
        let key = KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap();
        EdgeCertificate {
            hostname: Hostname::new(host).unwrap(),
            app: app(owner),
            fullchain: params.self_signed(&key).unwrap().pem(),
            private_key: PrivateKeyPem(key.serialize_pem()),
        }
    }

    fn sync(certificates: Vec<EdgeCertificate>) -> ToEdge {
        ToEdge::Sync {
            certificates,
            revision: 7,
        }
    }

    #[tokio::test]
    async fn the_exact_name_comes_before_the_wildcard_and_nobody_speaks_for_anothers_name() {
        let imported = imported();
        let all = [
            certificate("example.com", "web"),
            certificate("*.example.com", "web"),
            certificate("a.example.com", "api"),
        ];
        imported.apply(sync(all.to_vec())).await;
        let of = |name: &str, owner: Option<&str>| {
            let owner = owner.map(app);
            imported.of(name, owner.as_ref()).map(|key| {
                let is = |one: &&EdgeCertificate| {
                    let der = CertificateDer::from_pem_slice(one.fullchain.as_bytes());
                    der.unwrap() == key.cert[0]
                };
                all.iter().find(is).unwrap().hostname.to_string()
            })
        };
        let found = |name: &str| Some(name.to_owned());
        assert_eq!(of("example.com", Some("web")), found("example.com"));
        assert_eq!(of("a.example.com", Some("api")), found("a.example.com"));
        assert_eq!(of("b.example.com", Some("web")), found("*.example.com"));
        assert_eq!(of("b.example.com", None), found("*.example.com"));
        // It is another app's by its exact name, which has no certificate.
        assert_eq!(of("b.example.com", Some("api")), None);
        assert_eq!(of("a.b.example.com", None), None);
        assert_eq!(of("com", None), None);
    }

    #[tokio::test]
    async fn what_changes_and_goes_is_followed_and_damage_takes_nothing_else_along() {
        let imported = imported();
        let (send, stream) = mpsc::channel(8);
        let two = vec![certificate("a.com", "web"), certificate("*.b.com", "web")];
        send.send(sync(two)).await.unwrap();
        let mut damaged = certificate("a.com", "web");
        damaged.private_key = PrivateKeyPem("nothing".to_owned());
        let change = ToEdge::Change {
            put: vec![damaged, certificate("c.com", "web")],
            removed: vec![Hostname::new("*.b.com").unwrap()],
            revision: 9,
        };
        send.send(change).await.unwrap();
        drop(send);
        imported.follow(stream, CancellationToken::new()).await;
        assert_eq!(*imported.served().borrow(), Some(9));
        for (name, there) in [("a.com", false), ("x.b.com", false), ("c.com", true)] {
            assert_eq!(imported.of(name, None).is_some(), there, "{name}");
        }
    }

    #[tokio::test]
    async fn a_stream_that_ends_before_it_began_is_not_waited_for() {
        let imported = imported();
        let (send, stream) = mpsc::channel(1);
        drop(send);
        imported.follow(stream, CancellationToken::new()).await;
        assert_eq!(*imported.served().borrow(), Some(0));
    }

    proptest! {
        #[test]
        fn no_name_is_served_that_no_certificate_is_for(name in "([a-c]{0,2}\\.){0,3}[a-c]{1,2}") {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let imported = imported();
            let hosts = ["a.b", "*.b.c", "a.b.c", "*.a.b"];
            let all = hosts.map(|host| certificate(host, "web"));
            runtime.block_on(imported.apply(sync(all.to_vec())));
            let covers = |host: &&str| match host.strip_prefix("*.") {
                Some(domain) => name.split_once('.').is_some_and(|(label, above)| {
                    !label.is_empty() && above == domain
                }),
                None => name == **host,
            };
            let covered = hosts.iter().any(covers);
            prop_assert_eq!(imported.of(&name, None).is_some(), covered);
        }
    }
}
