//! A server that is reached through the system's `ssh`, so that hosts, keys, agents and jumps are
//! what the person has set up for it.
//!
//! `hangar __dial-stdio` on the far side connects to the server of that machine, as its user would
//! there. It says so in a line of JSON, with the token that the user has there; what follows, both
//! ways, is the connection.

use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll};

use serde::{Deserialize, Serialize};
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, BufReader, ReadBuf,
};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// The command on the far side.
pub const DIAL_COMMAND: &str = "__dial-stdio";
/// What the line begins with: what a shell writes at a login comes before it and is passed over.
const MARK: &str = "{\"hangar_dial\":";
/// The version of what is said here.
const VERSION: u32 = 1;
/// Most bytes before and in the line.
const MAX_HELLO: u64 = 64 * 1024;

/// Who is asked to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// `user@host` or `host`, as `ssh` takes it.
    pub(crate) destination: String,
    pub(crate) port: Option<u16>,
}

/// The line of the far side.
#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    hangar_dial: u32,
    #[serde(default)]
    token: String,
}

/// Returns the line that the far side says once it is connected.
#[must_use]
pub fn dial_hello(token: &str) -> String {
    let hello = Hello {
        hangar_dial: VERSION,
        token: token.to_owned(),
    };
    // A number and a text: nothing that cannot be written.
    serde_json::to_string(&hello).unwrap_or_default()
}

/// The streams of an `ssh` that runs; it ends with this.
pub(crate) struct Piped {
    _child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Target {
    /// Reads what stands behind `ssh://`.
    pub(crate) fn parse(rest: &str) -> Result<Self, String> {
        let rest = rest.trim_end_matches('/');
        let (destination, port) = match rest.rsplit_once(':') {
            Some((before, port)) if !port.contains(']') => {
                let port = port.parse::<u16>();
                (
                    before,
                    Some(port.map_err(|_| "its port is no number".to_owned())?),
                )
            }
            _ => (rest, None),
        };
        let host = destination
            .rsplit_once('@')
            .map_or(destination, |(_, host)| host);
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "@.-_:[]%+".contains(c);
        if host.is_empty() || destination.starts_with('-') || host.starts_with('-') {
            return Err("it names no host".to_owned());
        }
        if !destination.chars().all(is_plain) {
            return Err("write ssh://USER@HOST or ssh://USER@HOST:PORT".to_owned());
        }
        Ok(Self {
            destination: destination.replace(['[', ']'], ""),
            port,
        })
    }

    /// Returns the host, without user and port.
    pub(crate) fn host(&self) -> &str {
        let user_and_host = self.destination.rsplit_once('@');
        user_and_host.map_or(&self.destination, |(_, host)| host)
    }

    /// Runs `ssh`, and returns the connection with the token that the far side hands over.
    pub(crate) async fn dial(&self) -> Result<(Piped, String), String> {
        let mut command = Command::new("ssh");
        command.arg("-T");
        if let Some(port) = self.port {
            command.arg("-p").arg(port.to_string());
        }
        command
            .arg("--")
            .args([self.destination.as_str(), "hangar", DIAL_COMMAND])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Questions and complaints of ssh are for the person.
            .stderr(Stdio::inherit())
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => "there is no program ssh here".to_owned(),
            _ => format!("run ssh: {error}"),
        })?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("ssh has no streams".to_owned());
        };
        let mut output = BufReader::new(output);
        let Some(hello) = hello(&mut output).await.map_err(|e| e.to_string())? else {
            let ended = child.wait().await;
            let code = ended.ok().and_then(|status| status.code()).unwrap_or(-1);
            return Err(format!(
                "ssh {} hangar {DIAL_COMMAND} ended with code {code}; what it said is above (is \
                 hangar on the PATH there?)",
                self.destination
            ));
        };
        if hello.hangar_dial != VERSION {
            return Err("hangar over there is of another version: update the older one".to_owned());
        }
        let piped = Piped {
            _child: child,
            input,
            output,
        };
        Ok((piped, hello.token))
    }
}

/// Reads lines up to the one that counts.
async fn hello(output: &mut BufReader<ChildStdout>) -> io::Result<Option<Hello>> {
    let mut limited = output.take(MAX_HELLO);
    let mut line = Vec::new();
    loop {
        line.clear();
        if limited.read_until(b'\n', &mut line).await? == 0 {
            return Ok(None);
        }
        if line.starts_with(MARK.as_bytes()) {
            return Ok(serde_json::from_slice(&line).ok());
        }
    }
}

// === impl Piped ===

impl AsyncRead for Piped {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.output).poll_read(context, into)
    }
}

impl AsyncWrite for Piped {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.input).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_what_ssh_takes_and_no_option_of_it() {
        let read = |text: &str| Target::parse(text).map(|target| (target.destination, target.port));
        assert_eq!(read("me@box"), Ok(("me@box".to_owned(), None)));
        assert_eq!(read("box:2222/"), Ok(("box".to_owned(), Some(2222))));
        assert_eq!(
            read("me@[fd00::1]:22"),
            Ok(("me@fd00::1".to_owned(), Some(22)))
        );
        for bad in [
            "",
            "-oProxyCommand=x",
            "me@-x",
            "box:port",
            "a b",
            "box;ls",
            "@",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
