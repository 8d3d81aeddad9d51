//! Control-C, for commands that have something to put in order before they end.

use std::sync::OnceLock;

use anyhow::{Context as _, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Whether it has been pressed. Kept for the life of the program: one that is pressed while
/// nobody waits for it is not lost.
static PRESSED: OnceLock<watch::Sender<bool>> = OnceLock::new();

/// Returns once Control-C has been pressed, also when that was before. From the first call on it
/// no longer ends the program by itself.
pub(crate) async fn pressed() -> Result<()> {
    let state = match PRESSED.get() {
        Some(state) => state,
        None => {
            let signals = signal(SignalKind::interrupt()).context("watch for Control-C")?;
            PRESSED.get_or_init(|| follow(signals))
        }
    };
    state
        .subscribe()
        .wait_for(|pressed| *pressed)
        .await
        .context("watch for Control-C")?;
    Ok(())
}

fn follow(mut signals: Signal) -> watch::Sender<bool> {
    let state = watch::Sender::new(false);
    let told = state.clone();
    tokio::spawn(async move {
        while signals.recv().await.is_some() {
            told.send_replace(true);
        }
    });
    state
}
