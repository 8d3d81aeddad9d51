//! Bodies on their way: requests to a Machine, answers to a client.
//!
//! Nothing is collected, except the first part of a request that may be sent again. The body of
//! an answer carries the claim on its Machine: both end together.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::compress::{Compressed, Compressor};
use super::stall::{self, Timer};
use super::statics::FileBody;
use super::upstream::Kept;
use crate::load::Claim;

/// Most bytes of a request's body that are kept to be sent again.
const MAX_KEPT: usize = 64 * 1024;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a request on its way to a Machine.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// There is none.
    Empty,
    /// Sent once.
    Direct {
        incoming: Incoming,
        progress: Arc<Progress>,
        timer: Timer,
    },
    /// May be sent again.
    Kept(KeptBody),
}

/// How far the body of a request has come.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// When all of it was handed over.
    sent: OnceLock<Instant>,
    /// The client may be silent: it takes the answer meanwhile, and may have more to say then.
    patient: AtomicBool,
    /// The client stopped sending it.
    stalled: AtomicBool,
}

/// A body of which the first part is remembered.
#[derive(Debug)]
pub(crate) struct KeptBody {
    shared: Arc<Mutex<Beginning>>,
    /// Which sending this is: an earlier one gets nothing more.
    sending: u32,
    /// The next remembered piece to send.
    next: usize,
    progress: Arc<Progress>,
    timer: Timer,
}

#[derive(Debug)]
struct Beginning {
    incoming: Incoming,
    pieces: Vec<Bytes>,
    bytes: usize,
    /// Grew too large, or has trailers: it cannot be sent again.
    lost: bool,
    sending: u32,
    /// Longest time without progress.
    idle: Duration,
}

/// The body of an answer on its way to a client.
#[derive(Debug)]
pub(crate) enum ResponseBody {
    /// Words of the proxy's own.
    Words(Option<Bytes>),
    /// From a Machine.
    Upstream {
        incoming: Incoming,
        flight: Option<Flight>,
        /// Of the frame before.
        rest: Bytes,
    },
    /// A file of a Machine.
    File(Box<FileBody>),
    /// From a Machine, and compressed on the way.
    Compressed(Box<Compressed>),
}

/// What a request holds until its answer is over.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) claim: Claim,
    /// The core, to which an idle connection returns.
    pub(crate) core: usize,
    /// The connection, if the next request may use it.
    pub(crate) sender: Option<Kept>,
    /// How long the connection may be silent.
    pub(crate) idle_timeout: Option<Duration>,
    /// How far the request's body has come; `None` when there was none.
    pub(crate) progress: Option<Arc<Progress>>,
}

// === impl Progress ===

impl Progress {
    /// Lets the client be silent from now on.
    pub(crate) fn be_patient(&self) {
        self.patient.store(true, Ordering::Relaxed);
    }

    /// Returns whether the client stopped sending.
    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed)
    }

    /// Returns when all of it was handed over.
    pub(crate) fn sent_at(&self) -> Option<Instant> {
        self.sent.get().copied()
    }

    fn note_sent(&self) {
        self.sent.get_or_init(Instant::now);
    }

    /// Nothing came from the client. Ready with an error once that has lasted too long.
    fn poll_silent(
        &self,
        timer: &mut Timer,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.patient.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        ready!(timer.poll_stalled(cx));
        self.stalled.store(true, Ordering::Relaxed);
        Poll::Ready(Some(Err("the client stopped sending".into())))
    }
}

// === impl RequestBody ===

impl RequestBody {
    /// Takes over a client's body; `again` when the request may be sent a second time. It fails
    /// when the client sends nothing for the time `idle`.
    pub(crate) fn new(incoming: Incoming, again: bool, idle: Duration) -> Self {
        if incoming.is_end_stream() {
            return Self::Empty;
        }
        let (progress, timer) = (Arc::default(), Timer::new(idle));
        if !again {
            return Self::Direct {
                incoming,
                progress,
                timer,
            };
        }
        let kept = Beginning {
            incoming,
            pieces: Vec::new(),
            bytes: 0,
            lost: false,
            sending: 0,
            idle,
        };
        Self::Kept(KeptBody {
            shared: Arc::new(Mutex::new(kept)),
            sending: 0,
            next: 0,
            progress,
            timer,
        })
    }

    /// Returns how far it has come, and will have.
    pub(crate) fn progress(&self) -> Option<Arc<Progress>> {
        match self {
            Self::Empty => None,
            Self::Direct { progress, .. } => Some(progress.clone()),
            Self::Kept(kept) => Some(kept.progress.clone()),
        }
    }

    /// Returns a handle by which the body can be sent again later, if that is possible at all.
    pub(crate) fn again(&self) -> Option<Again> {
        match self {
            Self::Empty => Some(Again(None)),
            Self::Direct { .. } => None,
            Self::Kept(kept) => Some(Again(Some(kept.shared.clone()))),
        }
    }
}

/// The right to send a body again.
#[derive(Debug)]
pub(crate) struct Again(Option<Arc<Mutex<Beginning>>>);

impl Again {
    /// Returns the body from its start, or `None` when that is no longer there. An earlier
    /// sending gets nothing more.
    pub(crate) fn body(self) -> Option<RequestBody> {
        let Some(shared) = self.0 else {
            return Some(RequestBody::Empty);
        };
        let (sending, idle) = {
            let mut kept = lock(&shared);
            if kept.lost {
                return None;
            }
            kept.sending += 1;
            (kept.sending, kept.idle)
        };
        Some(RequestBody::Kept(KeptBody {
            shared,
            sending,
            next: 0,
            progress: Arc::default(),
            timer: Timer::new(idle),
        }))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Direct {
                incoming,
                progress,
                timer,
            } => {
                let Poll::Ready(frame) = Pin::new(&mut *incoming).poll_frame(cx) else {
                    return progress.poll_silent(timer, cx);
                };
                timer.moved();
                if frame.is_none() || incoming.is_end_stream() {
                    progress.note_sent();
                }
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Self::Kept(kept) => kept.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Direct { incoming, .. } => incoming.is_end_stream(),
            Self::Kept(body) => {
                let kept = lock(&body.shared);
                body.next >= kept.pieces.len() && kept.incoming.is_end_stream()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Direct { incoming, .. } => incoming.size_hint(),
            Self::Kept(body) => {
                let kept = lock(&body.shared);
                let waiting = kept.pieces.iter().skip(body.next).map(Bytes::len);
                let waiting = u64::try_from(waiting.sum::<usize>()).unwrap_or(u64::MAX);
                match kept.incoming.size_hint().exact() {
                    Some(rest) => SizeHint::with_exact(rest.saturating_add(waiting)),
                    None => SizeHint::default(),
                }
            }
        }
    }
}

impl KeptBody {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut kept = lock(&self.shared);
        if kept.sending != self.sending {
            return Poll::Ready(Some(Err("the request was sent again".into())));
        }
        if let Some(piece) = kept.pieces.get(self.next) {
            self.next += 1;
            let piece = piece.clone();
            if self.next >= kept.pieces.len() && kept.incoming.is_end_stream() {
                self.progress.note_sent();
            }
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let Poll::Ready(frame) = Pin::new(&mut kept.incoming).poll_frame(cx) else {
            return self.progress.poll_silent(&mut self.timer, cx);
        };
        self.timer.moved();
        match &frame {
            Some(Ok(frame)) => match frame.data_ref() {
                Some(data) if !kept.lost && kept.bytes + data.len() <= MAX_KEPT => {
                    kept.bytes += data.len();
                    kept.pieces.push(data.clone());
                    self.next = kept.pieces.len();
                }
                _ => {
                    kept.lost = true;
                    kept.pieces.clear();
                }
            },
            Some(Err(_)) => kept.lost = true,
            None => {}
        }
        if frame.is_none() || kept.incoming.is_end_stream() {
            self.progress.note_sent();
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }
}

// === impl ResponseBody ===

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Words(words) => Poll::Ready(words.take().map(|words| Ok(Frame::data(words)))),
            Self::Upstream {
                incoming,
                flight,
                rest,
            } => {
                stall::asks();
                if !rest.is_empty() {
                    let next = Frame::data(std::mem::take(rest));
                    return Poll::Ready(Some(Ok(stall::hand(next, rest))));
                }
                let frame = ready!(Pin::new(&mut *incoming).poll_frame(cx));
                match &frame {
                    Some(Err(_)) => drop(flight.take()),
                    Some(Ok(_)) if !incoming.is_end_stream() => {}
                    Some(Ok(_)) | None => land(flight),
                }
                Poll::Ready(frame.map(|frame| frame.map(|frame| stall::hand(frame, rest))))
            }
            Self::Compressed(body) => body.poll(cx),
            Self::File(body) => body.poll(cx).map(|frame| frame.map(Ok)),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Words(words) => words.is_none(),
            Self::Upstream { incoming, rest, .. } => rest.is_empty() && incoming.is_end_stream(),
            Self::Compressed(body) => body.is_over(),
            Self::File(body) => body.left() == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Words(words) => {
                let length = words.as_ref().map_or(0, Bytes::len);
                SizeHint::with_exact(u64::try_from(length).unwrap_or(u64::MAX))
            }
            Self::Upstream { incoming, .. } => incoming.size_hint(),
            Self::Compressed(_) => SizeHint::default(),
            Self::File(body) => SizeHint::with_exact(body.left()),
        }
    }
}

impl ResponseBody {
    /// Takes over the body of a Machine's answer.
    pub(super) fn upstream(
        incoming: Incoming,
        flight: Flight,
        compressor: Option<Compressor>,
    ) -> Self {
        if let Some(compressor) = compressor {
            return Self::Compressed(Box::new(Compressed::new(incoming, flight, compressor)));
        }
        let mut flight = Some(flight);
        if incoming.is_end_stream() {
            land(&mut flight);
        }
        let rest = Bytes::new();
        Self::Upstream {
            incoming,
            flight,
            rest,
        }
    }
}

/// Ends a flight whose answer was read to the end: the connection can serve the next request.
pub(super) fn land(flight: &mut Option<Flight>) {
    let Some(flight) = flight.take() else {
        return;
    };
    let complete = flight
        .progress
        .as_ref()
        .is_none_or(|body| body.sent_at().is_some());
    if let Some(sender) = flight.sender.filter(|_| complete) {
        let load = flight.claim.load();
        load.put_idle(flight.core, sender, flight.idle_timeout);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
