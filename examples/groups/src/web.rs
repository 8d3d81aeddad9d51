//! The `web` group: a small HTTP/1.1 server with keep-alive.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

const PORT: u16 = 8080;
/// Bodies up to this size are read, to be counted; larger ones end the connection.
const MAX_BODY: u64 = 16 << 20;

/// Serves until the Machine is stopped.
pub(crate) fn run() -> std::io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
    crate::say(&format!("listening on 0.0.0.0:{PORT}"));
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        std::thread::Builder::new()
            .stack_size(128 << 10)
            .spawn(move || {
                // A client that goes away is no news.
                let _gone = serve(&stream);
            })?;
    }
    Ok(())
}

fn serve(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split_whitespace();
        let (method, path) = (
            words.next().unwrap_or("").to_owned(),
            words.next().unwrap_or("/").to_owned(),
        );
        let (length, close) = headers(&mut reader)?;
        if length > MAX_BODY {
            return Ok(());
        }
        let read = std::io::copy(&mut (&mut reader).take(length), &mut std::io::sink())?;
        let (status, body) = answer(&method, &path, read);
        let connection = if close { "close" } else { "keep-alive" };
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\nconnection: {connection}\r\n\r\n",
            body.len()
        );
        let mut writer = stream;
        writer.write_all(&[head.as_bytes(), body.as_bytes()].concat())?;
        if close {
            return Ok(());
        }
    }
}

/// Reads the headers and returns the body's length and whether the connection ends after it.
fn headers(reader: &mut impl BufRead) -> std::io::Result<(u64, bool)> {
    let (mut length, mut close) = (0, false);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            return Ok((length, close));
        }
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().unwrap_or(0);
        }
        close |=
            name.eq_ignore_ascii_case("connection") && value.trim().eq_ignore_ascii_case("close");
    }
}

fn answer(method: &str, path: &str, read: u64) -> (&'static str, String) {
    match (method, path) {
        (_, "/health") => ("200 OK", "ok\n".to_owned()),
        ("POST", _) => ("200 OK", format!("read {read} bytes\n")),
        _ => ("200 OK", greeting()),
    }
}

fn greeting() -> String {
    let counted = match ask_worker() {
        Ok(count) => format!("worker has counted to {count}"),
        Err(error) => format!("worker does not answer: {error}"),
    };
    format!(
        "group {}, Machine {}, region {}\n{counted}\n",
        crate::machine("FLY_PROCESS_GROUP"),
        crate::machine("FLY_MACHINE_ID"),
        crate::machine("FLY_REGION"),
    )
}

/// Asks the first worker that `worker.process.APP.internal` names.
fn ask_worker() -> std::io::Result<String> {
    let name = format!("worker.process.{}.internal", crate::machine("FLY_APP_NAME"));
    let address = crate::dns::lookup(&name)?;
    let limit = Duration::from_secs(2);
    let mut stream =
        TcpStream::connect_timeout(&SocketAddr::from((address, crate::worker::PORT)), limit)?;
    stream.set_read_timeout(Some(limit))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.trim().to_owned())
}
