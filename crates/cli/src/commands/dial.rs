//! `hangar __dial-stdio`: the far side of `ssh://`. Connects to this machine's server as its user
//! would, says so with the user's token, and then passes bytes.

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, split};

use super::session;
use crate::context;
use crate::error::Exit;
use crate::output::{self, Stream};

/// Bytes passed on at a time.
const PIECE: usize = 64 * 1024;

pub(super) async fn run() -> Result<Exit> {
    let choice = context::choose()?;
    let connection = choice.client()?.connect().await?;
    let (mut from, mut to) = split(connection);
    output::data(&hangar_client::dial_hello(&choice.token))?;
    let mut input = session::keys();
    let up = async {
        while let Some(piece) = input.recv().await {
            to.write_all(&piece).await?;
            to.flush().await?;
        }
        to.shutdown().await?;
        // The client has said all; the server may still answer.
        std::future::pending::<std::io::Result<()>>().await
    };
    let down = async {
        let mut piece = vec![0; PIECE];
        loop {
            let count = from
                .read(&mut piece)
                .await
                .context("read from the server")?;
            if count == 0 {
                return anyhow::Ok(());
            }
            session::write(piece[..count].to_vec(), Stream::Out).await?;
        }
    };
    // Over when the server has ended its side.
    tokio::select! {
        biased;
        ended = down => ended?,
        ended = up => ended.context("pass on what the client sends")?,
    }
    Ok(Exit::Done)
}
