//! Server-sent events: the text form, read as it comes.

use std::collections::VecDeque;

/// One event of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SseEvent {
    /// Its type, "" for plain messages.
    pub(crate) event: String,
    /// Its id.
    pub(crate) id: String,
    /// Its data, lines joined.
    pub(crate) data: String,
}

/// Most bytes of one line; a longer one ends the stream.
const MAX_LINE: usize = 4 << 20;

/// Puts events together from chunks cut anywhere.
#[derive(Debug, Default)]
pub(crate) struct SseParser {
    buffer: Vec<u8>,
    current: SseEvent,
    ready: VecDeque<SseEvent>,
}

// === impl SseParser ===

impl SseParser {
    /// Takes a chunk; returns false when a line is too long to go on.
    pub(crate) fn push(&mut self, chunk: &[u8]) -> bool {
        self.buffer.extend_from_slice(chunk);
        while let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            self.line(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']));
        }
        self.buffer.len() <= MAX_LINE
    }

    /// Returns the next whole event.
    pub(crate) fn next(&mut self) -> Option<SseEvent> {
        self.ready.pop_front()
    }

    fn line(&mut self, line: &str) {
        if line.is_empty() {
            let event = std::mem::take(&mut self.current);
            if event != SseEvent::default() {
                self.ready.push_back(event);
            }
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.current.event),
            "id" => value.clone_into(&mut self.current.id),
            "data" => {
                if !self.current.data.is_empty() {
                    self.current.data.push('\n');
                }
                self.current.data.push_str(value);
            }
            // Comments (an empty field name) keep the connection alive; others mean nothing here.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_whole_wherever_the_chunks_are_cut() {
        let text = b": hello\n\nevent: a\nid: 7\ndata: one\ndata: two\n\ndata: {}\r\n\r\n";
        for cut in 0..text.len() {
            let mut parser = SseParser::default();
            assert!(parser.push(&text[..cut]) && parser.push(&text[cut..]));
            let first = SseEvent {
                event: "a".into(),
                id: "7".into(),
                data: "one\ntwo".into(),
            };
            assert_eq!(parser.next(), Some(first), "cut at {cut}");
            assert_eq!(parser.next().map(|e| e.data), Some("{}".into()));
            assert_eq!(parser.next(), None);
        }
    }
}
