//! The clients of HTTP/1.1, and the run of all of them. None ever sends a request twice.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::tally::{Kind, Tally};
use super::{http2, websocket};

/// Connections that are kept alive.
const KEPT: usize = 64;
/// Pause of one of them between an answer and its next request.
const PAUSE: Duration = Duration::from_millis(15);
/// Time between two new connections: 50 a second.
const NEW_EVERY: Duration = Duration::from_millis(20);
/// Pause after a fault, which would else be counted thousands of times.
const AFTER_FAULT: Duration = Duration::from_millis(200);
/// Longer than requests are held: nothing may take so long.
pub(super) const TIMEOUT: Duration = Duration::from_secs(35);
/// Small enough for hundreds of threads.
const STACK: usize = 256 * 1024;
/// Lengths of the bodies that are posted.
const LENGTHS: [usize; 6] = [0, 1, 100, 3_000, 20_000, 100_000];

/// The load on one app.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) host: String,
    pub(super) plain: SocketAddr,
    pub(super) tls: SocketAddr,
    /// Where the proxy keeps its certificate.
    pub(super) certificate: PathBuf,
    bodies: Vec<Body>,
    tally: Tally,
    ended: AtomicBool,
}

/// A body to post, and what the app says of it.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) bytes: Vec<u8>,
    pub(super) answer: String,
}

/// Ends the load when it is dropped.
#[derive(Debug)]
pub(super) struct EndOnDrop<'a>(&'a Load);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Relaxed);
    }
}

// === impl Load ===

impl Load {
    pub(super) fn new(app: &str, plain: SocketAddr, tls: SocketAddr, data_dir: &Path) -> Self {
        Self {
            host: format!("{app}.localhost"),
            plain,
            tls,
            certificate: data_dir.join("edge-tls.json"),
            bodies: LENGTHS.map(Body::new).into(),
            tally: Tally::new(),
            ended: AtomicBool::new(false),
        }
    }

    pub(super) fn tally(&self) -> &Tally {
        &self.tally
    }

    pub(super) fn end_on_drop(&self) -> EndOnDrop<'_> {
        EndOnDrop(self)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Runs all clients until the end. Each has its answer when this returns.
    pub(super) fn run(&self) {
        std::thread::scope(|scope| {
            let small = || std::thread::Builder::new().stack_size(STACK);
            scope.spawn(|| websocket::run(self));
            scope.spawn(|| http2::run(self));
            for number in 0..KEPT {
                let work = move || self.keep_asking(number);
                small().spawn_scoped(scope, work).unwrap();
            }
            let mut next = Instant::now();
            for number in 0.. {
                if self.has_ended() {
                    break;
                }
                let work = move || self.ask_once(number);
                small().spawn_scoped(scope, work).unwrap();
                next += NEW_EVERY;
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
            }
        });
    }

    /// Returns what the request with this number posts; `None` for a GET.
    pub(super) fn body(&self, number: usize) -> Option<&Body> {
        // Two in three are GETs.
        (number % 3 == 2).then(|| &self.bodies[number / 3 % self.bodies.len()])
    }

    fn keep_asking(&self, client: usize) {
        let mut kept = None;
        let mut number = client;
        while !self.has_ended() {
            let began = Instant::now();
            let result = self.ask_on(&mut kept, number);
            number += 1;
            if self.tally.count(Kind::KeptAlive, began, result) {
                std::thread::sleep(PAUSE);
            } else {
                kept = None;
                std::thread::sleep(AFTER_FAULT);
            }
        }
    }

    fn ask_on(&self, kept: &mut Option<Connection>, number: usize) -> Result<(), String> {
        let connection = match kept {
            Some(connection) => connection,
            None => kept.insert(self.connect()?),
        };
        let close = self.ask(connection, number, "keep-alive")?;
        if close {
            return Err("the proxy ended a connection that was to be kept".to_owned());
        }
        Ok(())
    }

    fn ask_once(&self, number: usize) {
        let began = Instant::now();
        let result = self.connect().and_then(|mut connection| {
            self.ask(&mut connection, number, "close")?;
            let mut rest = Vec::new();
            let read = connection.reader.read_to_end(&mut rest);
            match read {
                Ok(0) => Ok(()),
                Ok(more) => Err(format!("{more} bytes after the answer")),
                Err(error) => Err(format!("at the end of the connection: {error}")),
            }
        });
        self.tally.count(Kind::New, began, result);
    }

    pub(super) fn connect(&self) -> Result<Connection, String> {
        let connect = || {
            let stream = TcpStream::connect_timeout(&self.plain, TIMEOUT)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            stream.set_write_timeout(Some(TIMEOUT))?;
            Ok::<_, io::Error>(Connection {
                reader: BufReader::new(stream.try_clone()?),
                writer: stream,
            })
        };
        connect().map_err(|error| format!("connect: {error}"))
    }

    /// Sends a request and checks the answer. Returns whether the connection ends with it.
    fn ask(&self, connection: &mut Connection, number: usize, keep: &str) -> Result<bool, String> {
        let host = &self.host;
        let body = self.body(number);
        let mut request = match body {
            None => format!("GET /?n={number} HTTP/1.1\r\nhost: {host}\r\nconnection: {keep}\r\n\r\n"),
            Some(body) => format!(
                "POST /?n={number} HTTP/1.1\r\nhost: {host}\r\nconnection: {keep}\r\ncontent-length: {}\r\n\r\n",
                body.bytes.len()
            ),
        }
        .into_bytes();
        request.extend_from_slice(body.map_or(&[], |body| &body.bytes));
        let what = if body.is_some() { "POST" } else { "GET" };
        let answer = connection
            .writer
            .write_all(&request)
            .and_then(|()| read_answer(&mut connection.reader))
            .map_err(|error| format!("{what} {number}: {error}"))?;
        check(answer.status, &answer.body, body)
            .map_err(|why| format!("{what} {number}: {why}"))?;
        Ok(answer.close)
    }
}

/// Checks what the app answered.
pub(super) fn check(status: u16, answer: &[u8], body: Option<&Body>) -> Result<(), String> {
    let text = String::from_utf8_lossy(answer);
    let right = match body {
        Some(body) => text == body.answer,
        None => text.starts_with('{') && text.ends_with('}') && text.contains("\"machine\":\""),
    };
    if status == 200 && right {
        Ok(())
    } else {
        Err(format!("status {status}, {text}"))
    }
}

// === impl Body ===

impl Body {
    fn new(length: usize) -> Self {
        let bytes: Vec<u8> = (0..=250).cycle().take(length).collect();
        let sum: u64 = bytes.iter().map(|byte| u64::from(*byte)).sum();
        Self {
            answer: format!("{length} {sum}"),
            bytes,
        }
    }
}

/// A connection to the proxy.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) reader: BufReader<TcpStream>,
    pub(super) writer: TcpStream,
}

/// An answer of HTTP/1.1.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) close: bool,
    pub(super) body: Vec<u8>,
}

/// Reads one answer and nothing of what comes after it.
pub(super) fn read_answer(reader: &mut impl BufRead) -> io::Result<Answer> {
    let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
    let mut line = String::new();
    let (mut status, mut close, mut length) = (None, false, None);
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            let read = if status.is_none() { "before" } else { "within" };
            return Err(invalid(format!("closed {read} the head of the answer")));
        }
        let text = line.trim_end();
        if status.is_none() {
            let code = text.split(' ').nth(1).and_then(|code| code.parse().ok());
            status = Some(code.ok_or_else(|| invalid(format!("not a status line: {text:?}")))?);
        } else if text.is_empty() {
            break;
        } else if let Some((name, value)) = text.split_once(':') {
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse::<usize>().ok(),
                "connection" => close = value.eq_ignore_ascii_case("close"),
                _ => {}
            }
        }
    }
    let status = status.unwrap_or(0);
    let length = match length {
        Some(length) => length,
        None if status == 101 => 0,
        None => return Err(invalid("an answer without length".to_owned())),
    };
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Answer {
        status,
        close,
        body,
    })
}
