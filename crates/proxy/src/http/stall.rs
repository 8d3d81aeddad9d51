//! Clients that stop in the middle: of a body that they send, or of an answer that they take.
//!
//! Each holds a claim, so that a few of them could shut a service with a hard limit. They are
//! given up after a time without any progress. What the app is slow with has no such limit, nor
//! has a connection that went over to another protocol.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hangar_api::env::Env;
use http_body::Frame;
use hyper::rt::Executor;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::connection::Client;

/// Largest part of an answer that a stream of HTTP/2 takes at a time: what counts as progress.
const PIECE: usize = 16 * 1024;

/// Measures a time without progress. It costs nothing while there is some.
#[derive(Debug)]
pub(crate) struct Timer {
    limit: Duration,
    since: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

/// A client's connection whose writes fail when the client takes nothing for too long.
#[derive(Debug)]
pub(crate) struct Impatient<S> {
    inner: S,
    timer: Timer,
    client: Arc<Client>,
}

/// Runs the streams of an HTTP/2 connection, and ends one whose client takes nothing of its
/// answer for too long: the connection may go on, so that its writes do not tell.
#[derive(Clone, Debug)]
pub(crate) struct Streams {
    env: Env,
    limit: Duration,
    open: Arc<Mutex<Open>>,
}

/// The streams of a connection that have not ended.
#[derive(Debug)]
struct Open {
    count: usize,
    /// When the last one ended.
    last_end: Instant,
}

/// Counts a stream until it is dropped.
struct Counted(Arc<Mutex<Open>>);

/// What a stream of HTTP/2 was given of its answer.
#[derive(Debug, Default)]
struct Handed {
    frames: AtomicU64,
    /// The last frame is still waiting for the client.
    waits: AtomicBool,
}

tokio::task_local! {
    static HANDED: Arc<Handed>;
}

// === impl Timer ===

impl Timer {
    pub(crate) fn new(limit: Duration) -> Self {
        Self {
            limit,
            since: None,
            sleep: None,
        }
    }

    /// There was progress.
    pub(crate) fn moved(&mut self) {
        self.since = None;
    }

    /// There is none. Ready once that has lasted for the limit.
    pub(crate) fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let until = *self.since.get_or_insert_with(Instant::now) + self.limit;
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        poll_until(sleep, until, cx)
    }
}

/// Ready at `until`. A timer that was set for an earlier time is moved only when it has come:
/// moving it with each byte would cost more.
pub(super) fn poll_until(
    sleep: &mut Pin<Box<Sleep>>,
    until: Instant,
    cx: &mut Context<'_>,
) -> Poll<()> {
    loop {
        ready!(sleep.as_mut().poll(cx));
        if sleep.deadline() >= until {
            return Poll::Ready(());
        }
        sleep.as_mut().reset(until);
    }
}

// === impl Impatient ===

impl<S> Impatient<S> {
    pub(crate) fn new(inner: S, limit: Duration, client: Arc<Client>) -> Self {
        Self {
            inner,
            timer: Timer::new(limit),
            client,
        }
    }

    fn judge<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.timer.moved();
            return written;
        }
        if self.client.upgraded.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        ready!(self.timer.poll_stalled(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.judge(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, pieces);
        self.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let written = Pin::new(&mut self.inner).poll_flush(cx);
        self.judge(cx, written)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let written = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.judge(cx, written)
    }
}

// === impl Streams ===

impl Streams {
    pub(crate) fn new(env: Env, limit: Duration) -> Self {
        let open = Open {
            count: 0,
            last_end: Instant::now(),
        };
        Self {
            env,
            limit,
            open: Arc::new(Mutex::new(open)),
        }
    }

    /// Returns once there has been no stream for the time `limit`, from now on.
    pub(crate) async fn idle(&self, limit: Duration) {
        let mut since = Instant::now();
        loop {
            tokio::time::sleep_until(since + limit).await;
            let open = lock(&self.open);
            let now = Instant::now();
            since = if open.count == 0 {
                since.max(open.last_end)
            } else {
                now
            };
            if since + limit <= now {
                return;
            }
        }
    }
}

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        // It ends with its client at the latest.
        let (counted, limit) = (Counted::new(&self.open), self.limit);
        drop(self.env.spawn(async move {
            watch(stream, limit).await;
            drop(counted);
        }));
    }
}

// === impl Counted ===

impl Counted {
    fn new(open: &Arc<Mutex<Open>>) -> Self {
        lock(open).count += 1;
        Self(open.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut open = lock(&self.0);
        open.count -= 1;
        open.last_end = Instant::now();
    }
}

fn lock(open: &Mutex<Open>) -> MutexGuard<'_, Open> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a stream to its end, or until its client has taken nothing for the limit.
async fn watch(stream: impl Future<Output = ()>, limit: Duration) {
    let handed = Arc::new(Handed::default());
    let mut stream = pin!(HANDED.scope(handed.clone(), stream));
    let (mut timer, mut seen) = (Timer::new(limit), 0);
    poll_fn(|cx| {
        if stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let frames = handed.frames.load(Ordering::Relaxed);
        let waits = handed.waits.load(Ordering::Relaxed);
        if !waits || frames != seen {
            seen = frames;
            timer.moved();
        }
        if waits {
            timer.poll_stalled(cx)
        } else {
            Poll::Pending
        }
    })
    .await;
}

/// The client has taken all that it was handed of an answer, and asks for more.
pub(crate) fn asks() {
    // Only streams of HTTP/2 are watched like this.
    let _not_watched = HANDED.try_with(|handed| handed.waits.store(false, Ordering::Relaxed));
}

/// Hands a frame of an answer over; of a large one only a part, where parts are watched. The rest
/// comes next.
pub(crate) fn hand(frame: Frame<Bytes>, rest: &mut Bytes) -> Frame<Bytes> {
    let watched = HANDED.try_with(|handed| {
        handed.frames.fetch_add(1, Ordering::Relaxed);
        handed.waits.store(true, Ordering::Relaxed);
    });
    if watched.is_err() {
        return frame;
    }
    match frame.into_data() {
        Ok(mut data) => {
            *rest = data.split_off(data.len().min(PIECE));
            Frame::data(data)
        }
        Err(trailers) => trailers,
    }
}
