//! The way of a connection without the http handler: bytes both ways, TLS ended before or not.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::acquire::{Attempt, Chosen, Refusal, acquire};
use crate::announce;
use crate::connection::Ends;
use crate::core::Core;
use crate::http::upstream;
use crate::index::Group;

/// Buffer each way: 8 KiB, the usual size, costs twice the CPU.
const BUFFER: usize = 64 * 1024;

/// Passes a connection to a Machine until both sides have ended. Where no Machine can take it,
/// it is closed.
pub(crate) async fn pass<S>(core: Arc<Core>, group: Arc<Group>, mut client: S, ends: Ends)
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let (chosen, mut machine) = match connect(&core, &group).await {
        Ok(connected) => connected,
        Err(refusal) => {
            let (code, reason) = (refusal.code, refusal.text);
            tracing::debug!(app = %group.app, port = group.external, code, reason, "tcp refused");
            return;
        }
    };
    let passed = async {
        if let Some(form) = group.policy.proxy_proto {
            machine.write_all(&announce::header(form, ends)).await?;
        }
        tokio::io::copy_bidirectional_with_sizes(&mut client, &mut machine, BUFFER, BUFFER).await
    };
    let ended: io::Result<_> = tokio::select! {
        ended = passed => ended.map(drop),
        // At the proxy's own end; a drained Machine's connections are the app's to end.
        () = core.shared.exit.cancelled() => Ok(()),
    };
    if let Err(error) = ended {
        tracing::trace!(app = %group.app, %error, "tcp connection broke");
    }
    drop(chosen);
}

async fn connect(core: &Core, group: &Arc<Group>) -> Result<(Chosen, TcpStream), Refusal> {
    let mut attempt = Attempt::default();
    loop {
        let chosen = acquire(core, group, &mut attempt).await?;
        match upstream::dial(core, chosen.claim.load()).await {
            Ok(stream) => return Ok((chosen, stream)),
            Err(refusal) => attempt.failed(core, chosen.claim.load(), refusal)?,
        }
    }
}
