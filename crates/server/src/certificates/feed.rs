//! The stream of certificates to the edge, private keys opened: the one way on which they leave
//! the server.
//!
//! The edge hears of all of them at first, then of each that changes. It is told of the revision
//! with everything, also where nothing changed for it, so that a writer can wait for it.

use std::collections::BTreeSet;
use std::sync::Arc;

use hangar_api::Timestamp;
use hangar_api::certificate::{EdgeCertificate, Hostname, PrivateKeyPem, ToEdge};
use hangar_api::id::AppName;
use hangar_store::tables::{CertificateRecord, Certificates, Hostnames};
use hangar_store::{Delta, Snapshot};
use tokio::sync::mpsc;

use crate::core::Core;
use crate::keyring::Sealed;

/// Returns the place that a private key is sealed for: its associated data.
pub(super) fn place(app: &AppName, host: &Hostname, imported_at: Timestamp) -> String {
    // No secret has a name with a space, so that neither opens in the other's place.
    format!("{app}/certificate {host}/{}", imported_at.as_nanosecond())
}

/// Tells the edge which certificates to serve, until the server stops or the edge is gone.
pub(crate) async fn tell_edge(core: Arc<Core>, to_edge: mpsc::Sender<ToEdge>) {
    let mut deltas = core.cache.deltas();
    let mut message = Some(everything(&core, &core.cache.snapshot()));
    loop {
        if let Some(message) = message.take() {
            let sent = tokio::select! {
                biased;
                () = core.stop.cancelled() => return,
                sent = to_edge.send(message) => sent,
            };
            if sent.is_err() {
                tracing::info!("edge has gone");
                return;
            }
        }
        let delta = tokio::select! {
            biased;
            () = core.stop.cancelled() => return,
            delta = deltas.next() => delta,
        };
        let Some(delta) = delta else { return };
        message = news(&core, &delta);
    }
}

fn everything(core: &Core, snapshot: &Snapshot) -> ToEdge {
    let certificates = snapshot
        .all::<Certificates>()
        .filter_map(|record| opened(core, &record.key, &record.value));
    ToEdge::Sync {
        certificates: certificates.collect(),
        revision: snapshot.revision(),
    }
}

fn news(core: &Core, delta: &Delta) -> Option<ToEdge> {
    let snapshot = core.cache.snapshot();
    let Some(keys) = delta.keys::<Certificates>() else {
        return Some(everything(core, &snapshot));
    };
    // A name may have gone from one app to another: whose it is now is what counts.
    let hosts: BTreeSet<Hostname> = keys.into_iter().map(|(_, host)| host).collect();
    if hosts.is_empty() {
        return None;
    }
    let (mut put, mut removed) = (Vec::new(), Vec::new());
    for host in hosts {
        let owner = snapshot.get::<Hostnames>(&host);
        let key = owner.map(|owner| (owner.value.app.clone(), host.clone()));
        let record = key.and_then(|key| snapshot.get::<Certificates>(&key));
        match record.and_then(|record| opened(core, &record.key, &record.value)) {
            Some(certificate) => put.push(certificate),
            None => removed.push(host),
        }
    }
    Some(ToEdge::Change {
        put,
        removed,
        revision: snapshot.revision(),
    })
}

/// Returns the certificate of a host name, if one was imported and its key opens.
fn opened(
    core: &Core,
    (app, host): &(AppName, Hostname),
    record: &CertificateRecord,
) -> Option<EdgeCertificate> {
    let custom = record.custom.as_ref()?;
    let sealed = Sealed {
        key: custom.key_id.clone(),
        nonce: custom.nonce.clone(),
        text: custom.sealed.clone(),
    };
    match core
        .keyring
        .open(&place(app, host, custom.imported_at), &sealed)
    {
        Ok(key) => Some(EdgeCertificate {
            hostname: host.clone(),
            app: app.clone(),
            fullchain: custom.fullchain.clone(),
            private_key: PrivateKeyPem(key),
        }),
        Err(error) => {
            tracing::error!(
                app = %app, hostname = %host, error = %error,
                "certificate held back from the edge: its key does not open; import it again"
            );
            None
        }
    }
}
