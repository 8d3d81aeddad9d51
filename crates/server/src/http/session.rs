//! What goes on over an upgraded connection: sessions with a command in a Machine, and tunnels to
//! its ports (`hangar_api::session`). Hangar's own: on Fly this is ssh over WireGuard.

use std::net::SocketAddrV6;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use futures_util::{StreamExt as _, stream};
use hangar_api::id::{AppName, MachineId};
use hangar_api::machine::MachineState;
use hangar_api::machine::config::GROUP_CONSOLE;
use hangar_api::seam::BoxStream;
use hangar_api::session::{
    ClientNote, Frame, Frames, MAX_INPUT, PING_EVERY, SESSION_PROTOCOL, SILENCE, ServerNote,
    SessionInput, SessionOutput, SessionRequest, TUNNEL_PROTOCOL,
};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::extract::{Command, MachinePath, Params, Writer};
use crate::core::{Core, MAX_OPEN};
use crate::error::Problem;
use crate::lease::Holder;
use crate::machines::ops;
use crate::unit::Unit;

/// How long the connection may take to go over.
const UPGRADE_LIMIT: Duration = Duration::from_secs(10);
/// How long a client may go on sending after the end of its session.
const GOODBYE_LIMIT: Duration = Duration::from_secs(5);
/// Pieces of input that may wait for the host.
const INPUT_WAITING: usize = 4;
/// Bytes read at a time.
const READ_BYTES: usize = 16 * 1024;

/// A connection that can go over to another protocol, and the one that it asks for.
#[derive(Debug)]
pub(super) struct Upgrade {
    connection: OnUpgrade,
    protocol: String,
}

// === impl Upgrade ===

impl<S: Send + Sync> FromRequestParts<S> for Upgrade {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let named = parts.headers.get(header::UPGRADE);
        let protocol = named.and_then(|value| value.to_str().ok());
        let connection = parts.extensions.remove::<OnUpgrade>();
        match (protocol, connection) {
            (Some(protocol), Some(connection)) => Ok(Self {
                connection,
                protocol: protocol.to_owned(),
            }),
            _ => Err(Problem::Invalid(format!(
                "invalid_argument: this is a connection of its own: ask with Connection: upgrade and Upgrade: {SESSION_PROTOCOL} or {TUNNEL_PROTOCOL}"
            ))),
        }
    }
}

impl Upgrade {
    /// Refuses any other protocol.
    fn to(self, protocol: &'static str) -> Result<OnUpgrade, Problem> {
        if self.protocol.eq_ignore_ascii_case(protocol) {
            return Ok(self.connection);
        }
        Err(Problem::Invalid(format!(
            "invalid_argument: this server speaks {protocol} here, not {}",
            self.protocol
        )))
    }
}

pub(super) async fn open(
    State(core): State<Arc<Core>>,
    MachinePath { app, id }: MachinePath,
    // Looked at after the command, which the caller may have no right to.
    upgrade: Result<Upgrade, Problem>,
    Writer(holder): Writer,
    Command(request): Command<SessionRequest>,
) -> Result<Response, Problem> {
    let connection = upgrade?.to(SESSION_PROTOCOL)?;
    let unit = started(&core, &app, &id)?;
    if request.command.is_empty() {
        return Err(Problem::Invalid(
            "invalid_argument: command is required".to_owned(),
        ));
    }
    let place = place(&core)?;
    let goes_after =
        unit.spec().config.process_group() == GROUP_CONSOLE && unit.spec().config.auto_destroy;
    let (input_in, input) = mpsc::channel(INPUT_WAITING);
    let input = stream::unfold(input, async |mut input: mpsc::Receiver<SessionInput>| {
        let piece = input.recv().await?;
        Some((piece, input))
    });
    let output = core
        .calls
        .session(id.clone(), request, Box::pin(input))
        .await?;
    let work = {
        let core = core.clone();
        async move {
            serve(&core, connection, input_in, output).await;
            drop(place);
            if goes_after {
                destroy_console(&core, &app, &id, &holder).await;
            }
        }
    };
    drop(core.env.spawn(work));
    Ok(switching(SESSION_PROTOCOL))
}

pub(super) async fn tunnel(
    State(core): State<Arc<Core>>,
    MachinePath { app, id }: MachinePath,
    upgrade: Upgrade,
    params: Params,
) -> Result<Response, Problem> {
    let connection = upgrade.to(TUNNEL_PROTOCOL)?;
    let port = params.parsed::<u16>("port")?.filter(|port| *port > 0);
    let port = port.ok_or_else(|| {
        Problem::Invalid("invalid_argument: port is required, 1 to 65535".to_owned())
    })?;
    let unit = started(&core, &app, &id)?;
    let place = place(&core)?;
    let address = SocketAddrV6::new(unit.spec().private_ip(), port, 0, 0);
    let mut machine = core.calls.dial(id, address).await?;
    let stop = core.stop.clone();
    let work = async move {
        let upgraded = tokio::time::timeout(UPGRADE_LIMIT, connection).await;
        if let Ok(Ok(client)) = upgraded {
            let mut client = TokioIo::new(client);
            let both = tokio::io::copy_bidirectional(&mut client, &mut machine);
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                // However it ended, there is nobody to tell but the two sides.
                _ = both => {}
            }
        }
        drop(place);
    };
    drop(core.env.spawn(work));
    Ok(switching(TUNNEL_PROTOCOL))
}

fn started(core: &Core, app: &AppName, id: &MachineId) -> Result<Unit, Problem> {
    let unit = Unit::find(core, app, id)?;
    match unit.state() {
        MachineState::Started => Ok(unit),
        state => Err(Problem::Precondition(format!(
            "unable to connect to machine from current state: '{state}'"
        ))),
    }
}

fn place(core: &Core) -> Result<OwnedSemaphorePermit, Problem> {
    core.open.clone().try_acquire_owned().map_err(|_| {
        Problem::Exhausted(format!(
            "{MAX_OPEN} sessions and tunnels are open already: close one first"
        ))
    })
}

fn switching(protocol: &'static str) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static(protocol));
    response
}

/// A console's Machine is for its session alone: it goes even when the client could not say so.
async fn destroy_console(core: &Core, app: &AppName, id: &MachineId, holder: &Holder) {
    let asked = ops::ask(core, (app, id), holder, None, |unit| {
        ops::destroy(unit, true)
    });
    match asked.await {
        // The client was first.
        Ok(_) | Err(Problem::MachineNotFound | Problem::AppNotFound(_)) => {}
        Err(error) => tracing::warn!(machine = %id, %error, "a console's machine stays behind"),
    }
}

/// Carries a session until one side has ended. Dropping the output ends the command.
async fn serve(
    core: &Core,
    connection: OnUpgrade,
    input: mpsc::Sender<SessionInput>,
    output: BoxStream<SessionOutput>,
) {
    let Ok(Ok(client)) = tokio::time::timeout(UPGRADE_LIMIT, connection).await else {
        return;
    };
    let (from_client, to_client) = tokio::io::split(TokioIo::new(client));
    let up = read_frames(from_client, input);
    let down = write_frames(to_client, output);
    tokio::pin!(up, down);
    tokio::select! {
        biased;
        () = core.stop.cancelled() => {}
        () = &mut down => {
            // What the client still sends is taken, so that no reset overtakes the last bytes.
            let _gone = tokio::time::timeout(GOODBYE_LIMIT, up).await;
        }
        () = &mut up => {}
    }
}

/// Passes on what the client sends; returns when it is gone, silent or makes no sense.
async fn read_frames(mut from: impl AsyncRead + Unpin, input: mpsc::Sender<SessionInput>) {
    let (mut frames, mut buffer) = (Frames::default(), vec![0; READ_BYTES]);
    loop {
        let frame = match frames.next_frame() {
            Ok(Some(frame)) => frame,
            Ok(None) => {
                let read = tokio::time::timeout(SILENCE, from.read(&mut buffer)).await;
                match read {
                    Ok(Ok(count)) if count > 0 => {
                        frames.feed(buffer.get(..count).unwrap_or_default());
                        continue;
                    }
                    _ => return,
                }
            }
            Err(_) => return,
        };
        let piece = match frame {
            Frame::Stdin(bytes) if bytes.len() > MAX_INPUT => return,
            Frame::Stdin(bytes) if bytes.is_empty() => SessionInput::End,
            Frame::Stdin(bytes) => SessionInput::Stdin(bytes),
            Frame::Note(body) => match serde_json::from_slice(&body) {
                Ok(ClientNote::Resize(size)) => SessionInput::Resize(size),
                Ok(ClientNote::Ping {}) | Err(_) => continue,
            },
            Frame::Stdout(_) | Frame::Stderr(_) | Frame::Unknown(_) => continue,
        };
        // One that has ended takes none: the rest is for nobody.
        let _unread = input.send(piece).await;
    }
}

/// Passes on what the command writes; returns after its end, or when the client takes no more.
async fn write_frames(mut to: impl AsyncWrite + Unpin, mut output: BoxStream<SessionOutput>) {
    loop {
        let next = tokio::time::timeout(PING_EVERY, output.next()).await;
        let (frame, is_last) = match next {
            Err(_) => (Frame::note(&ServerNote::Ping {}), false),
            Ok(Some(SessionOutput::Stdout(bytes))) => (Frame::Stdout(bytes), false),
            Ok(Some(SessionOutput::Stderr(bytes))) => (Frame::Stderr(bytes), false),
            Ok(Some(SessionOutput::Exit { code })) => (Frame::note(&ServerNote::Exit(code)), true),
            Ok(Some(SessionOutput::Lost(why))) => (Frame::note(&ServerNote::Error(why)), true),
            Ok(None) => return,
        };
        let written = async {
            to.write_all(&frame.encode()).await?;
            to.flush().await
        };
        if written.await.is_err() {
            return;
        }
        if is_last {
            // It may be closed already.
            let _closed = to.shutdown().await;
            return;
        }
    }
}
