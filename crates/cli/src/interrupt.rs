//! Control-C, for commands that have something to put in order before they end.

use std::sync::OnceLock;

use anyhow::{Context as _, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// The exit code of a program that was interrupted.
pub(crate) const INTERRUPTED: u8 = 130;

/// How often it has been pressed. Kept for the life of the program: one that is pressed while
/// nobody waits for it is not lost.
static PRESSED: OnceLock<watch::Sender<u32>> = OnceLock::new();

/// Returns once Control-C has been pressed, also when that was before. From the first call on it
/// no longer ends the program by itself.
pub(crate) async fn pressed() -> Result<()> {
    pressed_times(1).await
}

/// As [`pressed`], once it has been pressed so often.
pub(crate) async fn pressed_times(times: u32) -> Result<()> {
    let state = match PRESSED.get() {
        Some(state) => state,
        None => {
            let signals = signal(SignalKind::interrupt()).context("watch for Control-C")?;
            PRESSED.get_or_init(|| follow(signals))
        }
    };
    state
        .subscribe()
        .wait_for(|pressed| *pressed >= times)
        .await
        .context("watch for Control-C")?;
    Ok(())
}

fn follow(mut signals: Signal) -> watch::Sender<u32> {
    let state = watch::Sender::new(0_u32);
    let told = state.clone();
    tokio::spawn(async move {
        while signals.recv().await.is_some() {
            told.send_modify(|pressed| *pressed = pressed.saturating_add(1));
        }
    });
    state
}
