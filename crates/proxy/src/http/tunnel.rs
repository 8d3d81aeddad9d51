//! Connections that went over to another protocol, WebSockets above all.
//!
//! They hold their claim until they end. When the Machine is drained and its time is nearly over
//! a WebSocket is closed between two frames, with "going away"; other protocols just end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{HeaderMap, UPGRADE};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use crate::connection::Place;
use crate::core::Core;
use crate::load::Claim;

/// Longest time until both sides have gone over.
const UPGRADE_LIMIT: Duration = Duration::from_secs(10);
/// How long the end of a frame is waited for before a WebSocket is closed.
const FRAME_LIMIT: Duration = Duration::from_millis(500);
/// How long a client may take to answer the close.
const GOODBYE_LIMIT: Duration = Duration::from_millis(300);
/// How long a client may go on sending after the app has closed its side.
const CLIENT_LIMIT: Duration = Duration::from_secs(30);
const BUFFER: usize = 16 * 1024;
/// A close frame with code 1001, "going away".
const GOING_AWAY: [u8; 4] = [0x88, 0x02, 0x03, 0xe9];
/// Longest head of a WebSocket frame.
const MAX_HEAD: usize = 14;

/// Returns whether an answer goes over to WebSocket.
pub(crate) fn is_websocket(headers: &HeaderMap) -> bool {
    let protocol = headers.get(UPGRADE);
    protocol.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Joins both sides once they have gone over, and gives the claim back when they have ended.
pub(crate) fn start(
    core: &Arc<Core>,
    client: OnUpgrade,
    machine: OnUpgrade,
    claim: Claim,
    is_websocket: bool,
    place: Place,
) {
    let work = async move {
        let both = async { tokio::try_join!(client, machine) };
        if let Ok(Ok((client, machine))) = tokio::time::timeout(UPGRADE_LIMIT, both).await {
            let cut = claim.load().cut.clone();
            // It ended: whether by one side or the other, there is nobody to tell.
            drop(join(client, machine, &cut, is_websocket).await);
        }
        drop(claim);
        drop(place);
    };
    let work = core.shared.connections.track_future(work);
    drop(core.shared.env.spawn(work));
}

async fn join(
    client: Upgraded,
    machine: Upgraded,
    cut: &CancellationToken,
    is_websocket: bool,
) -> io::Result<()> {
    let (mut from_client, mut to_client) = tokio::io::split(TokioIo::new(client));
    let (mut from_machine, mut to_machine) = tokio::io::split(TokioIo::new(machine));
    let up = copy(&mut from_client, &mut to_machine);
    let down = copy_down(&mut from_machine, &mut to_client, cut, is_websocket);
    tokio::pin!(up, down);
    tokio::select! {
        ended = &mut up => {
            ended?;
            down.await?;
            Ok(())
        }
        ended = &mut down => {
            // What the client still sends is taken, so that no reset overtakes the last bytes.
            let limit = if ended? { GOODBYE_LIMIT } else { CLIENT_LIMIT };
            tokio::time::timeout(limit, up).await.unwrap_or(Ok(()))
        }
    }
}

async fn copy<R, W>(from: &mut R, to: &mut W) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..count]).await?;
        to.flush().await?;
    }
}

/// Copies from the Machine to the client. Returns true when it was cut, after the goodbye.
async fn copy_down<R, W>(
    from: &mut R,
    to: &mut W,
    cut: &CancellationToken,
    is_websocket: bool,
) -> io::Result<bool>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; BUFFER];
    let mut frames = Frames::default();
    loop {
        let count = tokio::select! {
            biased;
            () = cut.cancelled() => break,
            count = from.read(&mut buffer) => count?,
        };
        if count == 0 {
            to.shutdown().await?;
            return Ok(false);
        }
        if is_websocket {
            frames.pass(&buffer[..count]);
        }
        to.write_all(&buffer[..count]).await?;
        to.flush().await?;
    }
    if is_websocket {
        let finish = finish_frame(from, to, &mut frames, &mut buffer);
        if let Ok(done) = tokio::time::timeout(FRAME_LIMIT, finish).await {
            done?;
        }
        if frames.is_between() {
            to.write_all(&GOING_AWAY).await?;
            to.flush().await?;
        }
    }
    to.shutdown().await?;
    Ok(true)
}

/// Copies until the end of the frame that was begun.
async fn finish_frame<R, W>(
    from: &mut R,
    to: &mut W,
    frames: &mut Frames,
    buffer: &mut [u8],
) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    while !frames.is_between() {
        let count = from.read(buffer).await?;
        if count == 0 {
            return Ok(());
        }
        let end = frames.pass_one(&buffer[..count]);
        to.write_all(&buffer[..end]).await?;
        to.flush().await?;
    }
    Ok(())
}

/// Follows where frames begin and end in a stream (RFC 6455, 5.2).
#[derive(Debug, Default)]
struct Frames {
    head: [u8; MAX_HEAD],
    have: usize,
    /// Bytes of the payload that are still to come.
    rest: u64,
}

// === impl Frames ===

impl Frames {
    fn is_between(&self) -> bool {
        self.have == 0 && self.rest == 0
    }

    /// Follows all of `bytes`.
    fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let used = self.pass_one(bytes);
            bytes = &bytes[used..];
        }
    }

    /// Follows `bytes` to the end of the frame at most. Returns how many were used, at least one
    /// of a slice that is not empty.
    fn pass_one(&mut self, bytes: &[u8]) -> usize {
        let mut used = 0;
        while used < bytes.len() {
            if self.rest > 0 {
                let left = bytes.len() - used;
                let take = usize::try_from(self.rest).map_or(left, |rest| rest.min(left));
                used += take;
                self.rest -= u64::try_from(take).unwrap_or(0);
            } else {
                self.head[self.have] = bytes[used];
                self.have += 1;
                used += 1;
                if self.have < self.head_length() {
                    continue;
                }
                self.rest = self.payload();
                self.have = 0;
            }
            if self.is_between() {
                return used;
            }
        }
        used
    }

    fn head_length(&self) -> usize {
        if self.have < 2 {
            return 2;
        }
        let mask = if self.head[1] & 0x80 == 0 { 0 } else { 4 };
        let long = match self.head[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        2 + long + mask
    }

    fn payload(&self) -> u64 {
        let long = match self.head[1] & 0x7f {
            126 => &self.head[2..4],
            127 => &self.head[2..10],
            short => return u64::from(short),
        };
        long.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_each_frame_is_found_whatever_the_pieces() {
        let mut stream = vec![0x81, 3, b'a', b'b', b'c'];
        stream.extend([0x82, 126, 1, 0]);
        stream.extend([7; 256]);
        stream.extend([0x81, 0x80 | 2, 1, 2, 3, 4, 9, 9]);
        stream.extend([0x89, 0]);
        let ends = [5, 265, 273, 275];
        for size in [1, 2, 3, 7, 100, 300] {
            let mut frames = Frames::default();
            let (mut at, mut found) = (0, Vec::new());
            for piece in stream.chunks(size) {
                let mut piece = piece;
                while !piece.is_empty() {
                    let used = frames.pass_one(piece);
                    at += used;
                    piece = &piece[used..];
                    if frames.is_between() {
                        found.push(at);
                    }
                }
            }
            assert_eq!(found, ends, "pieces of {size}");
        }
    }
}
