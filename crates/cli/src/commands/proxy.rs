//! `hangar proxy`: a local port whose connections lead to a port of a Machine, over the API.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use hangar_api::id::{AppName, MachineId};
use hangar_client::{Client, MachineFilter};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::target::{self, Target};
use super::{session, ssh};
use crate::args::ProxyArgs;
use crate::context::Context;
use crate::error::Exit;
use crate::{interrupt, output};

/// Most connections at the same time; more wait to be accepted.
const CONNECTIONS: usize = 256;

/// Where connections go.
#[derive(Debug)]
struct Way {
    client: Client,
    app: AppName,
    target: Target,
    port: u16,
}

pub(super) async fn run(context: &Context, args: ProxyArgs) -> Result<Exit> {
    let (local, remote) = ports(&args.ports).map_err(|error| Exit::Usage.with(error))?;
    let (app, host) = host(context, &args).await?;
    let target = target::parse(&host).map_err(|error| Exit::Usage.with(error))?;
    let way = Arc::new(Way {
        client: context.client.clone(),
        app,
        target,
        port: remote,
    });
    // A mistake in the name is told now, not at the first connection.
    way.machine().await?;
    let listener = TcpListener::bind((args.bind_addr, local))
        .await
        .with_context(|| format!("listen on port {local} of {}", args.bind_addr))?;
    let address = listener.local_addr().context("listen")?;
    if !args.quiet {
        output::data(&format!(
            "Proxying {address} to remote {}:{remote}",
            bracketed(&host)
        ))?;
    }
    let mut keys = args.watch_stdin.then(session::keys);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let closed = async {
            match &mut keys {
                // What is typed means nothing; its end does.
                Some(keys) => while keys.recv().await.is_some() {},
                None => std::future::pending().await,
            }
        };
        let accepted = async {
            let place = places.clone().acquire_owned().await?;
            anyhow::Ok((listener.accept().await?.0, place))
        };
        tokio::select! {
            biased;
            () = closed => return Ok(Exit::Done),
            pressed = interrupt::pressed() => {
                pressed?;
                return Ok(Exit::Done);
            }
            accepted = accepted => {
                let (mut stream, place) = accepted.context("accept a connection")?;
                let way = way.clone();
                tokio::spawn(async move {
                    if let Err(error) = way.carry(&mut stream).await {
                        output::say(&format!("Error: {error:#}"));
                    }
                    // Closed once it has been told why.
                    drop((stream, place));
                });
            }
        }
    }
}

/// Returns the app, and the name of the Machine that is meant.
async fn host(context: &Context, args: &ProxyArgs) -> Result<(AppName, String)> {
    if let Some(host) = &args.host {
        let target = target::parse(host).map_err(|error| Exit::Usage.with(error))?;
        let app = match target.app {
            Some(app) => app,
            None => match MachineId::new(host) {
                Ok(id) => super::machine::app_of(context, &args.app, &id).await?,
                Err(_) => context.app(&args.app).await?.name,
            },
        };
        return Ok((app, host.clone()));
    }
    let app = context.app(&args.app).await?.name;
    if args.select {
        let machines = ssh::started(context, &app).await?;
        let chosen = machines.get(ssh::choose(&machines)?);
        let chosen = chosen.ok_or_else(|| Exit::Usage.with("nothing was chosen"))?;
        return Ok((app, chosen.id.to_string()));
    }
    let host = format!("{app}.internal");
    Ok((app, host))
}

fn bracketed(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

/// Reads `LOCAL:REMOTE`, or one port for both.
fn ports(text: &str) -> Result<(u16, u16), String> {
    let number = |part: &str| {
        part.parse::<u16>()
            .map_err(|_| format!("{text:?}: {part:?} is no port; write LOCAL:REMOTE"))
    };
    let (local, remote) = text.split_once(':').unwrap_or((text, text));
    match (number(local)?, number(remote)?) {
        (_, 0) => Err(format!("{text:?}: the remote port cannot be 0")),
        both => Ok(both),
    }
}

// === impl Way ===

impl Way {
    /// Returns a started Machine that is meant, as things are now.
    async fn machine(&self) -> Result<MachineId> {
        let machines = self
            .client
            .machines(&self.app, &MachineFilter::default())
            .await?;
        let found = self.target.pick(&machines).map(|m| m.id.clone());
        found.ok_or_else(|| {
            Exit::NotFound.with(format!(
                "no started Machine of app {} is meant by that; see `hangar machine list`",
                self.app
            ))
        })
    }

    /// Carries one connection until both ways have ended.
    async fn carry(&self, local: &mut TcpStream) -> Result<()> {
        // A failure to turn off batching only costs time.
        let _slower = local.set_nodelay(true);
        let id = self.machine().await?;
        let mut remote = self.client.tunnel(&self.app, &id, self.port).await?;
        // However it ended, both sides know.
        let _ended = tokio::io::copy_bidirectional(local, &mut remote).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_two_or_one_for_both() {
        assert_eq!(ports("5432:5433"), Ok((5432, 5433)));
        assert_eq!(ports("80"), Ok((80, 80)));
        assert_eq!(ports("0:80"), Ok((0, 80)));
        for bad in ["", "a", "1:2:3", "1:0", "70000", "80:"] {
            assert!(ports(bad).is_err(), "{bad}");
        }
    }
}
