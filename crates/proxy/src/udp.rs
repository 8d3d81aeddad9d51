//! Datagrams: each client of a port has a flow to one Machine, until nothing moves any more.
//!
//! ```text
//! client ─► port ─► its flow, or a new one: pick, claim ─► Machine, at the same port
//!        ◄────────────────────────────────────────────────┘
//! ```
//!
//! A datagram goes to the port that it came to, whatever the internal port is, as on Fly
//! (proxy-network-runtime.md 9.3). What cannot be taken at once, or kept for a moment while a
//! Machine starts, is dropped, as any network may. The kernel spreads clients over the cores, and
//! keeps each at its core.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{Interest, Ready};
use tokio::net::UdpSocket;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;

use crate::acquire::{Attempt, Chosen, acquire};
use crate::core::Core;
use crate::index::Group;
use crate::listen::Door;

/// Largest datagram.
const LARGEST: usize = 64 * 1024;
/// Most datagrams of a flow that wait.
const MAX_WAITING: usize = 16;
/// Most bytes that wait in all flows of a port on one core.
const MAX_WAITING_BYTES: usize = 4 * 1024 * 1024;
/// Most answers that one flow passes on before the others have their turn.
const MAX_AT_ONCE: usize = 32;
/// Time between two looks at whether a Machine goes.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// A Machine that goes is let go after so long without an answer.
const LAST_ANSWER: Duration = Duration::from_secs(1);
/// Pause before a datagram is sent again to a Machine that has just come up and does not listen
/// yet.
const NOT_YET: Duration = Duration::from_millis(20);
/// Pause after a receive that failed.
const RECEIVE_PAUSE: Duration = Duration::from_millis(50);

thread_local! {
    /// What every flow of a core receives into.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; LARGEST]);
}

/// A port of one core.
#[derive(Debug)]
struct Port {
    core: Arc<Core>,
    door: Door,
    socket: UdpSocket,
    flows: Mutex<HashMap<SocketAddr, mpsc::Sender<Datagram>>>,
    /// Room for bytes that wait.
    room: Arc<Semaphore>,
}

#[derive(Debug)]
struct Datagram {
    bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

/// What came from a Machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Nothing,
    Answers,
    /// Nothing listens there.
    Refused,
}

/// Serves a port until its door is closed or the proxy finishes; its flows end with it.
pub(crate) async fn serve(core: Arc<Core>, door: Door, socket: std::net::UdpSocket) {
    let socket = match UdpSocket::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::error!(port = door.external, %error, "socket not taken over");
            return;
        }
    };
    let port = Arc::new(Port {
        core,
        door,
        socket,
        flows: Mutex::default(),
        room: Arc::new(Semaphore::new(MAX_WAITING_BYTES)),
    });
    let mut buffer = vec![0; LARGEST];
    loop {
        let received = tokio::select! {
            biased;
            () = port.over() => return,
            received = port.socket.recv_from(&mut buffer) => received,
        };
        match received {
            Ok((count, peer)) => port.take(&buffer[..count], peer),
            Err(error) => {
                tracing::debug!(port = port.door.external, %error, "receive failed");
                tokio::time::sleep(RECEIVE_PAUSE).await;
            }
        }
    }
}

// === impl Port ===

impl Port {
    async fn over(&self) {
        tokio::select! {
            () = self.door.closed.cancelled() => {}
            () = self.core.shared.finish.cancelled() => {}
            () = self.core.shared.exit.cancelled() => {}
        }
    }

    /// Gives a datagram to the flow of its sender, or drops it.
    fn take(self: &Arc<Self>, bytes: &[u8], peer: SocketAddr) {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX).max(1);
        let Ok(room) = self.room.clone().try_acquire_many_owned(length) else {
            return;
        };
        let mut datagram = Datagram {
            bytes: Bytes::copy_from_slice(bytes),
            _room: room,
        };
        let mut flows = self.flows();
        if let Some(flow) = flows.get(&peer) {
            match flow.try_send(datagram) {
                Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => return,
                Err(mpsc::error::TrySendError::Closed(back)) => datagram = back,
            }
        }
        let index = self.core.shared.index.load();
        let Some(group) = index.datagrams(self.door.external).cloned() else {
            return;
        };
        let Ok(place) = self.door.places.clone().try_acquire_owned() else {
            return;
        };
        let (flow, inbox) = mpsc::channel(MAX_WAITING);
        flows.insert(peer, flow);
        let port = self.clone();
        let work = async move {
            port.flow(group, peer, datagram, inbox).await;
            drop(place);
        };
        let work = self.core.shared.connections.track_future(work);
        drop(self.core.shared.env.spawn(work));
    }

    /// Runs a flow to its end.
    async fn flow(
        &self,
        group: Arc<Group>,
        peer: SocketAddr,
        mut next: Datagram,
        mut inbox: mpsc::Receiver<Datagram>,
    ) {
        let passing = async {
            while let Some((chosen, machine)) = self.connect(&group).await {
                let ended = self.pass(&chosen, &machine, peer, next, &mut inbox);
                match ended.await {
                    Some(datagram) => next = datagram,
                    None => return,
                }
            }
        };
        tokio::select! {
            biased;
            () = self.over() => {}
            () = passing => {}
        }
        // While the inbox is there: nobody else has taken the place.
        self.flows().remove(&peer);
    }

    async fn connect(&self, group: &Arc<Group>) -> Option<(Chosen, UdpSocket)> {
        let mut attempt = Attempt::default();
        let chosen = match acquire(&self.core, group, &mut attempt).await {
            Ok(chosen) => chosen,
            Err(refusal) => {
                let (code, reason) = (refusal.code, refusal.text);
                let (app, port) = (&group.app, group.external);
                tracing::debug!(%app, port, code, reason, "datagram refused");
                return None;
            }
        };
        let connected = async {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
            socket.connect(chosen.claim.load().address).await?;
            io::Result::Ok(socket)
        };
        match connected.await {
            Ok(socket) => Some((chosen, socket)),
            Err(error) => {
                tracing::debug!(app = %group.app, %error, "no socket for datagrams");
                None
            }
        }
    }

    /// Passes datagrams both ways until nothing has moved for long enough. Returns a datagram for
    /// another Machine when this one takes nothing new.
    async fn pass(
        &self,
        chosen: &Chosen,
        machine: &UdpSocket,
        peer: SocketAddr,
        first: Datagram,
        inbox: &mut mpsc::Receiver<Datagram>,
    ) -> Option<Datagram> {
        let load = chosen.claim.load();
        let limits = &self.core.shared.config.limits;
        let (mut moved, mut silence) = (Instant::now(), limits.datagrams_unanswered);
        let mut heard = send(machine, &first).await;
        let mut unanswered = Some(first);
        loop {
            if heard == Heard::Answers {
                (moved, silence) = (Instant::now(), limits.datagrams_idle);
                unanswered = None;
            } else if heard == Heard::Refused
                && let Some(first) = &unanswered
                && load.up_since.elapsed() < limits.connect_just_up
            {
                tokio::time::sleep(NOT_YET).await;
                heard = send(machine, first).await;
                continue;
            }
            heard = Heard::Nothing;
            let now = Instant::now();
            let goes = load.is_closed() && now >= moved + LAST_ANSWER;
            if goes || now >= moved + silence {
                return None;
            }
            tokio::select! {
                biased;
                () = load.cut.cancelled() => return None,
                // An error alone does not make it readable.
                ready = machine.ready(Interest::READABLE | Interest::ERROR) => {
                    heard = match refusal(machine, ready.ok()?) {
                        Heard::Nothing => self.pass_back(machine, peer),
                        refused => refused,
                    };
                }
                next = inbox.recv() => {
                    let next = next?;
                    if load.is_closed() {
                        return Some(next);
                    }
                    moved = Instant::now();
                    heard = send(machine, &next).await;
                }
                () = tokio::time::sleep_until((moved + silence).min(now + LOOK_AGAIN)) => {}
            }
        }
    }

    /// Passes on what a Machine has answered.
    fn pass_back(&self, machine: &UdpSocket, peer: SocketAddr) -> Heard {
        SCRATCH.with_borrow_mut(|buffer| {
            let mut heard = Heard::Nothing;
            for _ in 0..MAX_AT_ONCE {
                match machine.try_recv(buffer) {
                    Ok(count) => {
                        heard = Heard::Answers;
                        // Where the socket is full it is dropped, as by any router.
                        drop(self.socket.try_send_to(&buffer[..count], peer));
                    }
                    Err(_) => return heard,
                }
            }
            heard
        })
    }

    fn flows(&self) -> MutexGuard<'_, HashMap<SocketAddr, mpsc::Sender<Datagram>>> {
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether nothing listens where the last datagram went.
fn refusal(machine: &UdpSocket, ready: Ready) -> Heard {
    if !ready.is_error() {
        return Heard::Nothing;
    }
    let taken = machine.try_io(Interest::ERROR, || match machine.take_error()? {
        Some(error) => Err(error),
        None => Err(io::ErrorKind::WouldBlock.into()),
    });
    match taken {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Heard::Refused,
        Ok(()) | Err(_) => Heard::Nothing,
    }
}

/// Sends a datagram. What the kernel says of the one before counts as heard.
async fn send(machine: &UdpSocket, datagram: &Datagram) -> Heard {
    match machine.send(&datagram.bytes).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Heard::Refused,
        Ok(_) | Err(_) => Heard::Nothing,
    }
}
