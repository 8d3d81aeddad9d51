//! Blobs on their way in: uploads in one piece or many, and mounts.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::digest::Digest;
use crate::error::ImageError;
use crate::pins::Kind;

use super::repository::RepositoryName;
use super::upload::{self, Part, Piece, Turn, Upload};
use super::{Hosted, HostedError};

/// Longest silence of a client that sends.
const STALL: Duration = Duration::from_secs(60);

impl Hosted {
    /// Begins an upload and returns its id. It survives a restart, and is dropped when nobody goes
    /// on with it for a day.
    pub async fn begin(self: &Arc<Self>, name: &RepositoryName) -> Result<String, HostedError> {
        let name = name.clone();
        self.changing(move |hosted| Ok(hosted.uploads.begin(&name)?.id.clone()))
            .await
    }

    /// Returns how many bytes of an upload are here.
    pub async fn uploaded(&self, name: &RepositoryName, id: &str) -> Result<u64, HostedError> {
        let upload = self.uploads.find(name, id)?;
        self.uploads.len(&upload).await
    }

    /// Adds to an upload and returns how many bytes are here then, synced. Dropped, or with a body
    /// that breaks off, what came stays; refused, the upload is as before.
    pub async fn append<S, E>(
        self: &Arc<Self>,
        name: &RepositoryName,
        id: &str,
        part: Part,
        body: S,
    ) -> Result<u64, HostedError>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin,
        E: std::fmt::Display,
    {
        let upload = self.uploads.find(name, id)?;
        self.receive(&upload, part, body, None).await
    }

    /// Adds the last bytes, if any, to an upload, and makes it a blob of the repository. With
    /// another digest than this the upload is as before.
    pub async fn finish<S, E>(
        self: &Arc<Self>,
        name: &RepositoryName,
        id: &str,
        digest: &Digest,
        part: Part,
        body: S,
    ) -> Result<(), HostedError>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin,
        E: std::fmt::Display,
    {
        let upload = self.uploads.find(name, id)?;
        let whole = Some(digest.clone());
        self.receive(&upload, part, body, whole).await.map(drop)
    }

    /// Drops an upload.
    pub async fn cancel(&self, name: &RepositoryName, id: &str) -> Result<(), HostedError> {
        let upload = self.uploads.find(name, id)?;
        self.uploads.cancel(&upload).await
    }

    /// Makes a blob of another repository (or, without one, of any of the same app) this one's
    /// too. Returns whether there is such a blob; whether the caller may read it is known before.
    pub async fn mount(
        self: &Arc<Self>,
        name: &RepositoryName,
        digest: &Digest,
        from: Option<&RepositoryName>,
    ) -> Result<bool, HostedError> {
        let (name, digest, from) = (name.clone(), digest.clone(), from.cloned());
        self.changing(move |hosted| {
            let _pin = hosted.pins.pin(Kind::Blob, &digest);
            let there = {
                let state = hosted.lock();
                match &from {
                    Some(from) => state
                        .repositories
                        .get(from)
                        .is_some_and(|r| r.has_blob(&digest)),
                    None => {
                        let own = state.repositories.iter();
                        let mut own = own.filter(|(other, _)| other.app() == name.app());
                        own.any(|(_, r)| r.has_blob(&digest))
                    }
                }
            };
            if !there || !hosted.disk.blob_path(&digest).exists() {
                return Ok(false);
            }
            let at = hosted.env.now();
            hosted.change(&name, |own| {
                own.link(&digest, at);
                Ok(true)
            })
        })
        .await
    }

    /// Receives a body into an upload; with a digest, as the whole of a blob.
    async fn receive<S, E>(
        self: &Arc<Self>,
        upload: &Arc<Upload>,
        part: Part,
        body: S,
        whole: Option<Digest>,
    ) -> Result<u64, HostedError>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin,
        E: std::fmt::Display,
    {
        let mut turn = self.uploads.turn(upload, part).await?;
        let (to_disk, pieces) = mpsc::channel(upload::QUEUE);
        let (hosted, upload) = (Arc::clone(self), Arc::clone(upload));
        // It goes on when this request is dropped: what came is kept.
        let writer = tokio::task::spawn_blocking(move || {
            let len = turn.write(pieces, part.length, whole.as_ref())?;
            if let Some(digest) = whole {
                hosted.own(turn, &upload, &digest)?;
            }
            Ok(len)
        });
        let sent = feed(body, to_disk).await;
        let written = writer
            .await
            .map_err(|_| HostedError::Failed(ImageError::CutOff))?;
        match (sent, written) {
            (Err(reason), Err(HostedError::UploadInvalid(_))) => {
                Err(HostedError::UploadInvalid(reason))
            }
            (_, written) => written,
        }
    }

    /// Makes an upload that is whole a blob of its repository. Blocks.
    fn own(&self, turn: Turn, upload: &Upload, digest: &Digest) -> Result<(), HostedError> {
        // Until it is linked, nothing else keeps the blob from a prune.
        let _pin = self.pins.pin(Kind::Blob, digest);
        turn.commit(&self.disk.blob_path(digest))?;
        let at = self.env.now();
        let linked = self.change(&upload.repository, |own| {
            own.link(digest, at);
            Ok(())
        });
        // Its bytes have moved; only its record is left.
        self.uploads.end(upload)?;
        linked
    }
}

/// Sends a body to the writer, which may end first. Returns why it broke off.
async fn feed<S, E>(mut body: S, to_disk: mpsc::Sender<Piece>) -> Result<(), String>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: std::fmt::Display,
{
    loop {
        let next = timeout(STALL, body.next()).await;
        let piece = match next {
            Err(_) => return Err(format!("nothing came for {STALL:?}")),
            Ok(Some(Err(error))) => return Err(format!("the connection broke: {error}")),
            Ok(Some(Ok(data))) => Piece::Data(data),
            Ok(None) => Piece::End,
        };
        let is_end = matches!(piece, Piece::End);
        // A writer that has ended says why itself.
        if to_disk.send(piece).await.is_err() || is_end {
            return Ok(());
        }
    }
}
