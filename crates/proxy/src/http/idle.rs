//! A connection to a Machine that is given up when nothing moves on it, either way, for the time
//! of `http_options.idle_timeout`. Without that option nothing is measured.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::stall::poll_until;

/// A connection, and how long it may be silent.
#[derive(Debug)]
pub(super) struct Watched<S> {
    inner: S,
    silence: Option<Silence>,
}

/// Tells whether a connection was given up for its silence. What HTTP makes of it does not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Silent(Arc<AtomicBool>);

#[derive(Debug)]
struct Silence {
    limit: Duration,
    moved: Instant,
    sleep: Pin<Box<Sleep>>,
    told: Silent,
}

// === impl Silent ===

impl Silent {
    pub(super) fn is_told(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

// === impl Watched ===

impl<S> Watched<S> {
    pub(super) fn new(inner: S, limit: Option<Duration>) -> Self {
        let silence = limit.map(|limit| Silence {
            limit,
            moved: Instant::now(),
            sleep: Box::pin(tokio::time::sleep(limit)),
            told: Silent::default(),
        });
        Self { inner, silence }
    }

    /// Returns what will tell of its silence.
    pub(super) fn silent(&self) -> Silent {
        let silence = self.silence.as_ref();
        silence
            .map(|silence| silence.told.clone())
            .unwrap_or_default()
    }

    fn note<T>(&mut self, result: Poll<T>) -> Poll<T> {
        if let Some(silence) = self.silence.as_mut().filter(|_| result.is_ready()) {
            silence.moved = Instant::now();
        }
        result
    }
}

impl Silence {
    /// Ready once it has lasted for too long.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        poll_until(&mut self.sleep, self.moved + self.limit, cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.inner).poll_read(cx, buffer);
        if let Some(silence) = self.silence.as_mut().filter(|_| read.is_pending()) {
            ready!(silence.poll(cx));
            silence.told.0.store(true, Ordering::Relaxed);
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        self.note(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, pieces);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_ends_it_and_a_byte_either_way_does_not() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut watched = Watched::new(near, Some(Duration::from_secs(10)));
        let start = Instant::now();
        let mut byte = [0; 1];
        for n in 0..3 {
            tokio::time::sleep(Duration::from_secs(8)).await;
            if n == 1 {
                watched.write_all(b"x").await.unwrap();
            } else {
                far.write_all(b"y").await.unwrap();
                watched.read_exact(&mut byte).await.unwrap();
            }
        }
        let silent = watched.silent();
        assert!(!silent.is_told());
        let error = watched.read_exact(&mut byte).await.unwrap_err();
        assert!(silent.is_told());
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed().as_secs(), 34);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_silence_is_no_end() {
        let (near, _far) = tokio::io::duplex(64);
        let mut watched = Watched::new(near, None);
        let mut byte = [0; 1];
        let read = watched.read_exact(&mut byte);
        let day = Duration::from_secs(86_400);
        assert!(tokio::time::timeout(day, read).await.is_err());
    }
}
