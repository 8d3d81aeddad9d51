//! A WebSocket that exchanges frames all along. When it is closed politely it comes again.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use super::clients::{Connection, Load, read_answer};
use super::tally::Kind;

/// Pause between two frames.
const PAUSE: Duration = Duration::from_millis(10);
const AFTER_FAULT: Duration = Duration::from_millis(200);
const MASK: [u8; 4] = [1, 2, 3, 4];
const TEXT: u8 = 1;
const CLOSE: u8 = 8;

pub(super) fn run(load: &Load) {
    let mut kept = None;
    let mut number = 0;
    while !load.has_ended() {
        let began = Instant::now();
        let result = exchange(load, &mut kept, number);
        number += 1;
        if load.tally().count(Kind::WebSocket, began, result) {
            std::thread::sleep(PAUSE);
        } else {
            kept = None;
            std::thread::sleep(AFTER_FAULT);
        }
    }
}

/// Sends a frame and reads its echo, or says goodbye where the other side does.
fn exchange(load: &Load, kept: &mut Option<Connection>, number: u64) -> Result<(), String> {
    let connection = match kept {
        Some(connection) => connection,
        None => kept.insert(open(load)?),
    };
    let text = format!("frame {number}");
    let (kind, data) = send(connection, TEXT, text.as_bytes())
        .and_then(|()| receive(connection))
        .map_err(|error| format!("frame {number}: {error}"))?;
    match kind {
        TEXT if data == text.as_bytes() => Ok(()),
        CLOSE => {
            // The close is answered, then the end is waited for: there must be no reset.
            send(connection, CLOSE, &data).map_err(|error| format!("goodbye: {error}"))?;
            let mut rest = Vec::new();
            let end = connection.reader.read_to_end(&mut rest);
            end.map_err(|error| format!("after the goodbye: {error}"))?;
            if !rest.is_empty() {
                return Err(format!("after the goodbye came {rest:?}"));
            }
            load.tally().goodbye();
            *kept = None;
            Ok(())
        }
        _ => Err(format!("frame {number}: kind {kind}, {data:?}")),
    }
}

fn open(load: &Load) -> Result<Connection, String> {
    let mut connection = load.connect()?;
    let host = &load.host;
    let head = format!(
        "GET /ws HTTP/1.1\r\nhost: {host}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let answer = connection
        .writer
        .write_all(head.as_bytes())
        .and_then(|()| read_answer(&mut connection.reader))
        .map_err(|error| format!("opening: {error}"))?;
    if answer.status == 101 {
        return Ok(connection);
    }
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    Err(format!("opening: status {}, {text}", answer.status))
}

fn send(connection: &mut Connection, kind: u8, data: &[u8]) -> io::Result<()> {
    let length = u8::try_from(data.len()).expect("frames of this test are short");
    let mut frame = vec![0x80 | kind, 0x80 | length];
    frame.extend(MASK);
    frame.extend(
        data.iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    connection.writer.write_all(&frame)
}

fn receive(connection: &mut Connection) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    connection.reader.read_exact(&mut head)?;
    let mut data = vec![0; usize::from(head[1] & 0x7f)];
    connection.reader.read_exact(&mut data)?;
    Ok((head[0] & 0x0f, data))
}
