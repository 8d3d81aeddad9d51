//! The only place that prints. Standard output is data, standard error is talk and progress.

mod progress;

use std::io::{IsTerminal, Write};

use anyhow::{Context, Result};
use comfy_table::{Table, presets};
use serde::Serialize;

pub(crate) use progress::Progress;

use crate::error::Exit;

/// Prints data.
pub(crate) fn data(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out
        .write_all(text.as_bytes())
        .and_then(|()| out.write_all(b"\n"))
        .and_then(|()| out.flush())
    {
        // Whoever read our output has seen enough (`hangar logs | head`): that is no failure,
        // but there is nobody left to go on for.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(Exit::Done.with("")),
        other => other.context("write to standard output"),
    }
}

/// Prints a value as JSON, indented by 4 as flyctl does.
pub(crate) fn json<T: Serialize>(value: &T) -> Result<()> {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    value
        .serialize(&mut serde_json::Serializer::with_formatter(
            &mut bytes, formatter,
        ))
        .context("write JSON")?;
    data(&String::from_utf8_lossy(&bytes))
}

/// Prints a table under an optional title; headers are upper-cased as flyctl does.
pub(crate) fn table(title: Option<&str>, headers: &[&str], rows: &[Vec<String>]) -> Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(headers.iter().map(|h| h.to_uppercase()));
    for row in rows {
        table.add_row(row);
    }
    if let Some(title) = title {
        data(title)?;
    }
    let text: Vec<String> = table
        .to_string()
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    data(&text.join("\n"))
}

/// Prints one record, a line a field.
pub(crate) fn record(title: &str, fields: &[(&str, String)]) -> Result<()> {
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines: Vec<String> = fields
        .iter()
        .map(|(name, value)| format!("  {name:<width$} = {value}"))
        .collect();
    data(&format!("{title}\n{}", lines.join("\n")))
}

/// Says something to the person; never data.
pub(crate) fn say(text: &str) {
    // Where nobody can be told, the work goes on.
    let _unseen = writeln!(std::io::stderr().lock(), "{text}");
}

/// Returns whether a person watches: progress and questions make sense.
pub(crate) fn is_interactive() -> bool {
    std::io::stderr().is_terminal() && std::io::stdin().is_terminal()
}

/// Asks yes or no; without a terminal the answer must come as a flag.
pub(crate) fn confirm(question: &str) -> Result<bool> {
    if !is_interactive() {
        return Err(Exit::Usage.with(format!(
            "{question} Nobody is here to answer: say yes with --yes"
        )));
    }
    let mut err = std::io::stderr().lock();
    write!(err, "{question} (y/N) ")
        .and_then(|()| err.flush())
        .context("ask")?;
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .context("read the answer")?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// Shows options with numbers and returns which was chosen. Only on a terminal.
pub(crate) fn choose(question: &str, options: &[String]) -> Result<usize> {
    let mut err = std::io::stderr().lock();
    for (at, option) in options.iter().enumerate() {
        writeln!(err, "{:>3}  {option}", at + 1).context("ask")?;
    }
    write!(err, "{question} (1-{}) ", options.len())
        .and_then(|()| err.flush())
        .context("ask")?;
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .context("read the answer")?;
    let chosen = answer.trim().parse::<usize>().ok();
    let chosen = chosen.filter(|n| (1..=options.len()).contains(n));
    chosen
        .map(|n| n - 1)
        .ok_or_else(|| Exit::Usage.with("nothing was chosen"))
}

/// Returns a time in RFC 3339, to the second.
pub(crate) fn rfc3339(time: hangar_api::Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Passes on what a command in a Machine wrote, to the streams it wrote to.
pub(crate) fn raw(stdout: &str, stderr: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(stdout.as_bytes())
        .and_then(|()| out.flush())
        .context("write to standard output")?;
    let mut err = std::io::stderr().lock();
    err.write_all(stderr.as_bytes())
        .and_then(|()| err.flush())
        .context("write to standard error")
}

/// Where bytes of a session go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// Passes on bytes of a session.
pub(crate) fn bytes(bytes: &[u8], to: Stream) -> Result<()> {
    let written = match to {
        Stream::Out => {
            let mut out = std::io::stdout().lock();
            out.write_all(bytes).and_then(|()| out.flush())
        }
        Stream::Err => {
            let mut err = std::io::stderr().lock();
            err.write_all(bytes).and_then(|()| err.flush())
        }
    };
    written.context("write what the command wrote")
}
