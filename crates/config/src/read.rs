//! Collecting what is wrong while a file is read, each with its place.

use std::cell::RefCell;

use crate::problem::{Problem, Severity, Source, Span};
use crate::raw::{Format, Node};

/// Most problems that are told; after so many nobody reads on.
const MAX_PROBLEMS: usize = 200;

/// Collects problems.
pub(crate) struct Reader<'a> {
    source: &'a Source,
    pub(crate) format: Format,
    problems: RefCell<Vec<Problem>>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(source: &'a Source, format: Format) -> Self {
        Self {
            source,
            format,
            problems: RefCell::new(Vec::new()),
        }
    }

    /// Returns all problems, by place, each once.
    pub(crate) fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|p| (p.line, p.column));
        problems.dedup();
        problems
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.problems.borrow().iter().any(Problem::is_error)
    }

    pub(crate) fn line(&self, span: &Span) -> usize {
        self.source.position(span.start).0
    }

    pub(crate) fn tell(
        &self,
        severity: Severity,
        path: &str,
        span: &Span,
        message: impl Into<String>,
        hint: Option<String>,
    ) {
        let mut problems = self.problems.borrow_mut();
        if problems.len() >= MAX_PROBLEMS {
            return;
        }
        let (line, column) = self.source.position(span.start);
        problems.push(Problem {
            severity,
            path: path.to_owned(),
            line: Some(line),
            column: Some(column),
            message: message.into(),
            hint,
            excerpt: None,
        });
    }

    pub(crate) fn error(&self, path: &str, span: &Span, message: impl Into<String>) {
        self.tell(Severity::Error, path, span, message, None);
    }

    pub(crate) fn warn(&self, path: &str, span: &Span, message: impl Into<String>) {
        self.tell(Severity::Warning, path, span, message, None);
    }

    /// Tells that a value has the wrong type.
    pub(crate) fn wrong(&self, path: &str, node: &Node, wanted: &str) {
        self.wrong_with(path, node, wanted, None);
    }

    /// Tells that a value has the wrong type, and what to write instead.
    pub(crate) fn wrong_with(&self, path: &str, node: &Node, wanted: &str, hint: Option<String>) {
        let is = node.value.kind();
        let message = format!("must be {wanted}, not {is}");
        self.tell(Severity::Error, path, &node.span, message, hint);
    }
}

/// Returns the path of a key below a path.
pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}
