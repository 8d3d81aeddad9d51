//! One core: a thread with a single-threaded runtime, listeners and upstream connections of its
//! own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use crate::error::ProxyError;
use crate::listen::{self, Door, Listening};
use crate::shared::Shared;
use crate::udp;

/// Most listeners on their way to a core.
const MAX_MESSAGES: usize = 64;
/// Step of the sequence that random numbers are mixed from.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// What the tasks of one core need.
#[derive(Debug)]
pub(crate) struct Core {
    /// Its number, from 0.
    pub(crate) number: usize,
    pub(crate) shared: Arc<Shared>,
    random: AtomicU64,
}

/// The way to a core's thread.
#[derive(Debug)]
pub(crate) struct CoreThread {
    /// Sockets to serve.
    pub(crate) doors: mpsc::Sender<(Door, Listening)>,
    thread: std::thread::JoinHandle<()>,
}

// === impl Core ===

impl Core {
    /// Starts a core's thread.
    pub(crate) fn start(number: usize, shared: Arc<Shared>) -> Result<CoreThread, ProxyError> {
        let random = AtomicU64::new(shared.env.random_u64());
        let core = Arc::new(Self {
            number,
            shared,
            random,
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(ProxyError::Thread)?;
        let (doors, messages) = mpsc::channel(MAX_MESSAGES);
        let thread = std::thread::Builder::new()
            .name(format!("proxy-{number}"))
            .spawn(move || runtime.block_on(core.run(messages)))
            .map_err(ProxyError::Thread)?;
        Ok(CoreThread { doors, thread })
    }

    /// Returns a random number. Never waits for another core.
    pub(crate) fn random(&self) -> u64 {
        let mut z = self.random.fetch_add(GOLDEN, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    async fn run(self: Arc<Self>, mut messages: mpsc::Receiver<(Door, Listening)>) {
        let exit = self.shared.exit.clone();
        loop {
            tokio::select! {
                biased;
                () = exit.cancelled() => break,
                door = messages.recv() => match door {
                    // What serves it ends with the door's token.
                    Some((door, Listening::Tcp(socket))) => {
                        let work = listen::accept(self.clone(), door, socket);
                        drop(self.shared.env.spawn(work));
                    }
                    Some((door, Listening::Udp(socket))) => {
                        let work = udp::serve(self.clone(), door, socket);
                        drop(self.shared.env.spawn(work));
                    }
                    None => break,
                },
            }
        }
        exit.cancelled().await;
    }
}

// === impl CoreThread ===

impl CoreThread {
    /// Waits for the thread to end. Its `exit` token must have been cancelled.
    pub(crate) fn join(self) {
        drop(self.doors);
        if self.thread.join().is_err() {
            tracing::error!("a thread of the proxy panicked");
        }
    }
}
