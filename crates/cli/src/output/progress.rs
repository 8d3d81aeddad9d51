//! A line that shows that something goes on, while somebody watches.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// How often the line is drawn anew.
const TICK: Duration = Duration::from_millis(120);

/// Something that takes a while. Where nobody watches nothing is drawn; it goes when dropped.
#[derive(Debug)]
pub(crate) struct Progress(Option<ProgressBar>);

// === impl Progress ===

impl Progress {
    /// Begins to show what is done.
    pub(crate) fn start(what: String) -> Self {
        let dumb = crate::context::variable("TERM").is_none_or(|term| term == "dumb");
        if dumb || !std::io::stderr().is_terminal() {
            return Self(None);
        }
        let bar = ProgressBar::new_spinner().with_message(what);
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(TICK);
        Self(Some(bar))
    }

    /// Says something above the line.
    pub(crate) fn say(&self, text: &str) {
        match &self.0 {
            Some(bar) => bar.suspend(|| super::say(text)),
            None => super::say(text),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = self.0.take() {
            bar.finish_and_clear();
        }
    }
}
