//! The terminal that a command line runs on: its size, and its raw mode.

use std::io::IsTerminal as _;

use hangar_api::session::TerminalSize;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// What a terminal has that does not tell its size.
const USUAL: TerminalSize = TerminalSize { rows: 24, cols: 80 };

/// A terminal whose keys go to a session as they are pressed, until this is dropped.
#[derive(Debug)]
pub(crate) struct Raw(Termios);

/// Returns whether both input and output are a terminal.
pub(crate) fn is_there() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// Returns the size of the terminal.
pub(crate) fn size() -> TerminalSize {
    match tcgetwinsize(std::io::stdin()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => TerminalSize {
            rows: size.ws_row,
            cols: size.ws_col,
        },
        _ => USUAL,
    }
}

// === impl Raw ===

impl Raw {
    /// Goes over to raw mode; where input is no terminal, nothing changes.
    pub(crate) fn begin() -> Option<Self> {
        let before = tcgetattr(std::io::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Drain, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone has no mode to go back to.
        let _back = tcsetattr(std::io::stdin(), OptionalActions::Drain, &self.0);
    }
}

/// Asks for something that is not to be seen, and returns the line. Where input is no terminal, a
/// line is read all the same.
pub(crate) fn ask_hidden(question: &str) -> std::io::Result<String> {
    use std::io::Write as _;
    let quiet = Quiet::begin();
    if quiet.is_some() {
        let mut err = std::io::stderr().lock();
        write!(err, "{question} ")?;
        err.flush()?;
    }
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    if quiet.is_some() {
        // The line's end was not shown either.
        writeln!(std::io::stderr().lock())?;
    }
    Ok(line.trim().to_owned())
}

/// A terminal that does not show what is typed, until this is dropped.
#[derive(Debug)]
struct Quiet(Termios);

impl Quiet {
    fn begin() -> Option<Self> {
        let before = tcgetattr(std::io::stdin()).ok()?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(rustix::termios::LocalModes::ECHO);
        tcsetattr(std::io::stdin(), OptionalActions::Flush, &quiet).ok()?;
        Some(Self(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // A terminal that is gone has no mode to go back to.
        let _back = tcsetattr(std::io::stdin(), OptionalActions::Drain, &self.0);
    }
}
