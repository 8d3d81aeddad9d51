//! The API as Machines reach it: by their own socket, and over the private network at
//! `_api.internal`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use hangar_api::id::MachineId;
use hangar_api::net::{API_PORT, RESOLVER};
use hangar_api::seam::{BoxFuture, Connection, MachineApi};
use hangar_server::ServerHandle;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long a Machine's connection waits for a server that is still starting.
const START_TIME: Duration = Duration::from_secs(10);
/// Connections that one address of the private network has at a time; one more is closed at once.
const PER_ADDRESS: usize = 64;
/// Connections of all of them.
const ALL: usize = 4096;
/// Pause after an accept that failed for want of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(50);

/// A [`MachineApi`] that is known before the server is: the host starts first. It keeps no server
/// alive.
#[derive(Debug)]
pub(crate) struct LateApi(watch::Sender<Option<Weak<ServerHandle>>>);

/// How many connections each address has.
#[derive(Debug, Default)]
struct Addresses(Mutex<HashMap<IpAddr, usize>>);

/// A connection that is counted, until this is dropped.
#[derive(Debug)]
struct Counted {
    all: Arc<Addresses>,
    address: IpAddr,
}

// === impl LateApi ===

impl LateApi {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    /// Says who serves.
    pub(crate) fn set(&self, server: &Arc<ServerHandle>) {
        self.0.send_replace(Some(Arc::downgrade(server)));
    }
}

impl MachineApi for LateApi {
    fn serve(&self, machine: MachineId, connection: Box<dyn Connection>) -> BoxFuture<'_, ()> {
        let mut known = self.0.subscribe();
        Box::pin(async move {
            let there = async {
                let known = known.wait_for(Option::is_some).await.ok()?;
                known.as_ref().and_then(Weak::upgrade)
            };
            let server = tokio::time::timeout(START_TIME, there).await.ok().flatten();
            // Without a server the connection is closed.
            if let Some(server) = server {
                server.serve(machine, connection).await;
            }
        })
    }
}

// === impl Addresses ===

impl Addresses {
    /// Counts a connection, unless there are too many.
    fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Counted> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = counts.values().sum();
        let own = counts.entry(address).or_default();
        if *own >= PER_ADDRESS || all >= ALL {
            return None;
        }
        *own += 1;
        Some(Counted {
            all: self.clone(),
            address,
        })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

/// Serves Machines that come over the private network, with a token as anybody, until told to stop.
/// The firewall lets nobody else in. Where the port is taken Machines do without, and the log says so.
pub(crate) async fn serve(server: Arc<ServerHandle>, stop: CancellationToken) {
    let listener = match TcpListener::bind((RESOLVER, API_PORT)).await {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(port = API_PORT, %error, "no API at _api.internal: cannot listen there");
            return stop.cancelled().await;
        }
    };
    let addresses = Arc::new(Addresses::default());
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection to _api.internal");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Some(counted) = addresses.admit(peer.ip()) else {
            continue;
        };
        // A failure to turn off batching only costs time.
        let _slower = stream.set_nodelay(true);
        let server = server.clone();
        tokio::spawn(async move {
            server.serve_connection(Box::new(stream)).await;
            drop(counted);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_that_takes_all_it_can_leaves_room_for_others() {
        let addresses = Arc::new(Addresses::default());
        let (greedy, other) = (IpAddr::from([1; 16]), IpAddr::from([2; 16]));
        let taken: Vec<_> = (0..1000).filter_map(|_| addresses.admit(greedy)).collect();
        assert_eq!(taken.len(), PER_ADDRESS);
        let one = addresses.admit(other);
        assert!(one.is_some());
        drop(taken);
        assert!(addresses.admit(greedy).is_some());
        drop(one);
        assert!(addresses.0.lock().unwrap().is_empty());
    }
}
