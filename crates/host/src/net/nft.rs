//! Running the `nft` program, and hearing from the kernel when anybody changed the ruleset.
//!
//! Used by the keeper of [`super::keeper`] alone: at start, for a new network, and to repair.
//! Never on the way of a Machine's start.

use std::future::poll_fn;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{AsyncSocket, Socket, SocketAddr, TokioSocket};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::NetError;

/// Longest that one run of the program may take.
const RUN_LIMIT: Duration = Duration::from_secs(10);
/// Where the program is looked for before the search path, which often lacks the sbin folders.
const PLACES: [&str; 4] = [
    "/usr/sbin/nft",
    "/sbin/nft",
    "/usr/local/sbin/nft",
    "/usr/bin/nft",
];
/// Most of the program's complaint that is kept for an error.
const COMPLAINT_LIMIT: usize = 400;
/// Most notices read in one go; the rest are read in the next.
const NOTICES_AT_ONCE: usize = 1_000;

/// Bytes of a notice that are taken; the rest of it is dropped unread.
const NOTICE: usize = 64;
/// Room for the kernel's answer to a question.
const ANSWER: usize = 4096;
/// Multicast group of changes to nftables (`NFNLGRP_NFTABLES`).
const GROUP_NFTABLES: u32 = 7;
/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN`.
const GET_GENERATION: u16 = 10 << 8 | 16;
const NLM_F_REQUEST: u16 = 1;

/// The program.
#[derive(Clone, Debug)]
pub(super) struct Nft {
    program: &'static str,
}

// === impl Nft ===

impl Nft {
    /// Finds the program, or falls back on the search path.
    pub(super) fn find() -> Self {
        let found = PLACES.into_iter().find(|place| Path::new(place).exists());
        Self {
            program: found.unwrap_or("nft"),
        }
    }

    /// Returns whether the program is there.
    pub(super) fn is_installed(&self) -> bool {
        Path::new(self.program).exists()
    }

    /// Carries out one transaction: all of it or nothing.
    pub(super) async fn apply(&self, transaction: &str) -> Result<(), NetError> {
        self.run(&["-f", "-"], transaction).await.map(|_| ())
    }

    /// Returns what a listing command prints.
    pub(super) async fn list(&self, command: &str) -> Result<String, NetError> {
        self.run(&["-j", command], "").await
    }

    /// Returns the answer to a listing command.
    pub(super) async fn read(&self, command: &str) -> Result<Value, NetError> {
        let text = self.list(command).await?;
        serde_json::from_str(&text).map_err(|error| NetError::Rules {
            message: format!("nft answered {command:?} with something else than JSON: {error}"),
        })
    }

    async fn run(&self, arguments: &[&str], input: &str) -> Result<String, NetError> {
        let finished = tokio::time::timeout(RUN_LIMIT, self.run_unlimited(arguments, input)).await;
        let output = match finished {
            Ok(Ok(output)) => output,
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
                return Err(NetError::NoNft);
            }
            Ok(Err(source)) => {
                return Err(NetError::System {
                    doing: "run nft",
                    source,
                });
            }
            Err(_) => {
                return Err(NetError::Rules {
                    message: format!("nft did not end within {} s", RUN_LIMIT.as_secs()),
                });
            }
        };
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let complaint = String::from_utf8_lossy(&output.stderr);
        Err(NetError::Rules {
            message: complaint.trim().chars().take(COMPLAINT_LIMIT).collect(),
        })
    }

    async fn run_unlimited(
        &self,
        arguments: &[&str],
        input: &str,
    ) -> io::Result<std::process::Output> {
        let mut child = Command::new(self.program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // nft reads all of a transaction before it says anything; a program that has already
            // given up tells why by its exit.
            let _broken_pipe = stdin.write_all(input.as_bytes()).await;
        }
        child.wait_with_output().await
    }
}

/// Tells when somebody, ourselves included, changed the ruleset of this network namespace.
pub(super) struct Changes {
    notices: TokioSocket,
    asking: Socket,
}

// === impl Changes ===

impl Changes {
    /// Begins to listen, in the network namespace of the calling thread.
    pub(super) fn subscribe() -> io::Result<Self> {
        let mut notices = TokioSocket::new(NETLINK_NETFILTER)?;
        notices.socket_mut().bind_auto()?;
        notices.socket_ref().add_membership(GROUP_NFTABLES)?;
        let mut asking = Socket::new(NETLINK_NETFILTER)?;
        asking.bind_auto()?;
        Ok(Self { notices, asking })
    }

    /// Waits for a change. May be cancelled; then the change is told the next time.
    ///
    /// What the notice says is not read, and one that the kernel had to throw away is as good: it
    /// comes as an error.
    pub(super) async fn wait(&self) {
        let mut buffer = Vec::with_capacity(NOTICE);
        let _any = poll_fn(|context| self.notices.poll_recv(context, &mut buffer)).await;
    }

    /// Forgets what has been heard: the ruleset is about to be read.
    pub(super) fn forget(&self) {
        let mut buffer = Vec::with_capacity(NOTICE);
        for _ in 0..NOTICES_AT_ONCE {
            buffer.clear();
            match self.notices.socket_ref().recv(&mut buffer, 0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// Returns the number of the ruleset: it grows with every change that anybody makes.
    pub(super) fn generation(&self) -> io::Result<u32> {
        let mut request = Vec::with_capacity(20);
        request.extend(20_u32.to_ne_bytes());
        request.extend(GET_GENERATION.to_ne_bytes());
        request.extend(NLM_F_REQUEST.to_ne_bytes());
        // Sequence, sender, and the header of netfilter's own: all zero.
        request.extend([0; 12]);
        self.asking.send_to(&request, &SocketAddr::new(0, 0), 0)?;
        let mut answer = Vec::with_capacity(ANSWER);
        self.asking.recv(&mut answer, 0)?;
        // Two headers of 16 and 4 bytes, then the first attribute: 4 bytes of its own header and
        // the number.
        let number = answer.get(24..28).and_then(|bytes| bytes.try_into().ok());
        number
            .map(u32::from_be_bytes)
            .ok_or_else(|| io::Error::other("the kernel does not number its ruleset"))
    }
}

impl std::fmt::Debug for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Changes").finish_non_exhaustive()
    }
}
