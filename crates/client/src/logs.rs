//! Log lines, one JSON object a line, as they come.

use hangar_api::logs::{LogLine, LogQuery};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::transport::with_query;
use crate::{Client, ClientError};

/// Most bytes of one line.
const MAX_LINE: usize = 1 << 20;

/// Log lines on their way.
#[derive(Debug)]
pub struct Logs {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Client {
    /// Returns log lines, oldest first; goes on as they come when `follow` is set.
    pub async fn logs(&self, query: &LogQuery) -> Result<Logs, ClientError> {
        let pairs = [
            ("group", query.group.as_ref().map(ToString::to_string)),
            ("machine", query.machine.as_ref().map(ToString::to_string)),
            ("region", query.region.as_ref().map(ToString::to_string)),
            ("tail", Some(query.tail.to_string())),
            ("follow", query.follow.then(|| "true".to_owned())),
            ("since", query.since.map(|t| t.to_string())),
        ];
        let body = self
            .stream(&with_query(&format!("/v1/apps/{}/logs", query.app), &pairs))
            .await?;
        Ok(Logs {
            body,
            buffer: Vec::new(),
        })
    }
}

// === impl Logs ===

impl Logs {
    /// Returns the next line, or `None` at the end.
    pub async fn next(&mut self) -> Result<Option<LogLine>, ClientError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                if line.trim_ascii().is_empty() {
                    continue;
                }
                return serde_json::from_slice(&line)
                    .map(Some)
                    .map_err(|e| ClientError::BadAnswer(e.to_string()));
            }
            if self.buffer.len() > MAX_LINE {
                return Err(ClientError::BadAnswer("a log line is too long".to_owned()));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(ClientError::Broken(error.to_string())),
                Some(Ok(frame)) => self
                    .buffer
                    .extend_from_slice(frame.data_ref().map_or(&[][..], |d| d)),
            }
        }
    }
}
