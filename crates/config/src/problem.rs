//! What is wrong with a configuration file: where, what, and what to write instead.
//!
//! Made by every stage of reading; printed by the command line.

use std::ops::Range;

/// Something wrong, or worth a warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Whether it stops a deployment.
    pub severity: Severity,
    /// The key, such as `services[0].ports[1].handlers`; empty for a syntax error.
    pub path: String,
    /// Line in the file, from 1; absent where it is about the whole file.
    pub line: Option<usize>,
    /// Column in the line, in characters, from 1.
    pub column: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The line itself, cut to 120 characters; only for syntax errors.
    pub excerpt: Option<String>,
}

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The file cannot be used, here or on Fly.
    Error,
    /// Fly takes it, and Hangar cannot deploy it.
    Refused,
    /// The file can be used, but somebody should look.
    Warning,
}

/// Positions of a text, found by byte offset.
#[derive(Clone, Debug, Default)]
pub(crate) struct Source {
    text: String,
}

/// A stretch of the source.
pub(crate) type Span = Range<usize>;

// === impl Source ===

impl Source {
    pub(crate) fn new(text: &str) -> Self {
        Self {
            text: text.to_owned(),
        }
    }

    /// Returns line and column of an offset, from 1.
    pub(crate) fn position(&self, offset: usize) -> (usize, usize) {
        position(&self.text, offset)
    }
}

/// Returns line and column of a byte offset, from 1. An offset past the end is the end.
pub(crate) fn position(text: &str, offset: usize) -> (usize, usize) {
    let mut end = offset.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let before = &text[..end];
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |i| i + 1);
    (line, before[start..].chars().count() + 1)
}

// === impl Problem ===

impl Problem {
    /// Returns whether the file cannot be used, here or on Fly.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// Returns whether it stops a deployment.
    #[must_use]
    pub fn stops_deploy(&self) -> bool {
        matches!(self.severity, Severity::Error | Severity::Refused)
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = match self.severity {
            Severity::Error => "error",
            Severity::Refused => "refused",
            Severity::Warning => "warning",
        };
        match (self.line, self.column) {
            (Some(line), Some(column)) => write!(f, "{word}: line {line} column {column}: ")?,
            (Some(line), None) => write!(f, "{word}: line {line}: ")?,
            (None, _) => write!(f, "{word}: ")?,
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        if let (Some(excerpt), Some(line)) = (&self.excerpt, self.line) {
            let margin = " ".repeat(line.to_string().len());
            let column = self.column.unwrap_or(1).min(121);
            let blank = " ".repeat(column.saturating_sub(1));
            write!(f, "\n{margin} |\n{line} | {excerpt}\n{margin} | {blank}^")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}
