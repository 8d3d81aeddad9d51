//! A session with a command in a Machine: this end's input, output and terminal, over the API.

use std::collections::BTreeMap;
use std::io::Read as _;

use anyhow::{Context as _, Result};
use hangar_api::id::{AppName, MachineId};
use hangar_api::session::{
    ClientNote, Frame, Frames, MAX_INPUT, PING_EVERY, SILENCE, ServerNote, SessionRequest,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::args::CommandArgs;
use crate::context::{self, Context};
use crate::error::Exit;
use crate::{output, terminal};

/// Pieces of input that may wait to be sent.
const WAITING: usize = 4;
/// Bytes read at a time.
const READ_BYTES: usize = 16 * 1024;
/// A shell, the better one that there is.
const SHELL: [&str; 3] = [
    "/bin/sh",
    "-c",
    "if command -v bash >/dev/null 2>&1; then exec bash -l; else exec sh -l; fi",
];

/// Whether the command gets a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Terminal {
    /// When this end has one.
    IfThere,
    /// Always.
    Always,
    /// Never: its streams stay apart.
    Never,
}

/// Returns the words of a command, or of a shell.
pub(super) fn words(command: Option<&str>) -> Result<Vec<String>> {
    let words = match command {
        Some(text) => hangar_config::words::split(text)
            .map_err(|error| Exit::Usage.with(format!("--command: {error}")))?,
        None => Vec::new(),
    };
    if words.is_empty() {
        return Ok(SHELL.map(str::to_owned).to_vec());
    }
    Ok(words)
}

/// Runs a command in a Machine and returns its exit code.
pub(super) async fn run(
    context: &Context,
    (app, id): (&AppName, &MachineId),
    command: Vec<String>,
    args: &CommandArgs,
    kind: Terminal,
) -> Result<Exit> {
    let on_terminal = match kind {
        Terminal::IfThere => terminal::is_there(),
        Terminal::Always => true,
        Terminal::Never => false,
    };
    let mut env = BTreeMap::new();
    if on_terminal {
        let term = context::variable("TERM").unwrap_or_else(|| "xterm".to_owned());
        env.insert("TERM".to_owned(), term);
    }
    let request = SessionRequest {
        command,
        env,
        user: args.user.clone(),
        terminal: on_terminal.then(terminal::size),
    };
    let connection = context.client.session(app, id, &request).await?;
    let _raw = on_terminal.then(terminal::Raw::begin).flatten();
    let (from, to) = tokio::io::split(connection);
    let code = {
        let up = send(to, keys(), on_terminal);
        let down = receive(from);
        tokio::pin!(up, down);
        tokio::select! {
            biased;
            code = &mut down => code?,
            // What was on its way when the other side closed is still read.
            sent = &mut up => {
                sent?;
                down.await?
            }
        }
    };
    Ok(Exit::Command(u8::try_from(code & 0xff).unwrap_or(1)))
}

/// Reads standard input on a thread of its own, which ends with the program.
pub(super) fn keys() -> mpsc::Receiver<Vec<u8>> {
    let (pieces, receiver) = mpsc::channel(WAITING);
    std::thread::spawn(move || {
        let mut buffer = vec![0; MAX_INPUT];
        while let Ok(count) = std::io::stdin().lock().read(&mut buffer) {
            let piece = buffer.get(..count).unwrap_or_default().to_vec();
            if count == 0 || pieces.blocking_send(piece).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Sends input, sizes of the terminal, and that we are still here.
async fn send(
    mut to: impl AsyncWrite + Unpin,
    mut input: mpsc::Receiver<Vec<u8>>,
    on_terminal: bool,
) -> Result<()> {
    let mut resized = signal(SignalKind::window_change()).context("watch the terminal's size")?;
    let mut ping = tokio::time::interval(PING_EVERY);
    let mut ended = false;
    loop {
        let frame = tokio::select! {
            piece = input.recv(), if !ended => {
                ended = piece.is_none();
                Frame::Stdin(piece.unwrap_or_default())
            }
            _ = resized.recv(), if on_terminal => {
                Frame::note(&ClientNote::Resize(terminal::size()))
            }
            _ = ping.tick() => Frame::note(&ClientNote::Ping {}),
        };
        if to.write_all(&frame.encode()).await.is_err() || to.flush().await.is_err() {
            // Why it is closed, the other direction tells.
            return Ok(());
        }
    }
}

/// Writes what comes to standard output and standard error, until the command has ended.
async fn receive(mut from: impl AsyncRead + Unpin) -> Result<i32> {
    let lost = "the connection to the server was lost: the command was ended with it";
    let (mut frames, mut buffer) = (Frames::default(), vec![0; READ_BYTES]);
    loop {
        let frame = frames
            .next_frame()
            .map_err(|error| Exit::Failed.with(error.to_string()))?;
        match frame {
            None => {
                let read = tokio::time::timeout(SILENCE, from.read(&mut buffer)).await;
                match read {
                    Ok(Ok(count)) if count > 0 => {
                        frames.feed(buffer.get(..count).unwrap_or_default());
                    }
                    _ => return Err(Exit::NoServer.with(lost)),
                }
            }
            Some(Frame::Stdout(bytes)) => write(bytes, output::Stream::Out).await?,
            Some(Frame::Stderr(bytes)) => write(bytes, output::Stream::Err).await?,
            Some(Frame::Note(body)) => match serde_json::from_slice(&body) {
                Ok(ServerNote::Exit(code)) => return Ok(code),
                Ok(ServerNote::Error(why)) => return Err(Exit::Failed.with(why)),
                Ok(ServerNote::Ping {}) | Err(_) => {}
            },
            Some(Frame::Stdin(_) | Frame::Unknown(_)) => {}
        }
    }
}

/// Writes on a thread of its own: who reads it may take as long as they like, while the server
/// is told that we are here.
pub(super) async fn write(bytes: Vec<u8>, to: output::Stream) -> Result<()> {
    tokio::task::spawn_blocking(move || output::bytes(&bytes, to))
        .await
        .context("write what the command wrote")?
}
