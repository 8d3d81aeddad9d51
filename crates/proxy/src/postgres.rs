//! How a Postgres client asks for TLS: the `pg_tls` handler.
//!
//! ```text
//! SSLRequest ..... answered "S", then TLS begins on the same connection
//! GSSENCRequest .. answered "N"; the client asks for TLS next, or goes on without
//! TLS at once .... as newer clients may
//! a plain start .. told in Postgres' own words that there is only TLS
//! ```
//!
//! Exactly the request is read before the answer, so that nothing a stranger puts behind it can
//! pass for what came through TLS.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Bytes of the message that a client begins with, as far as it is looked at.
pub(crate) const HEAD: usize = 8;
/// Instead of the version of the protocol.
const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;
/// The one major version that is spoken.
const VERSION: u32 = 3;
/// Largest plain start that Postgres takes.
const MAX_START: u32 = 10_000;
/// Most messages before TLS.
const MAX_REQUESTS: usize = 2;
/// What a client is told that wants no TLS.
const ONLY_TLS: &str = "this port takes encrypted connections only: use sslmode=require";

/// What a client begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// Too few bytes to tell.
    More,
    /// It asks for TLS.
    Tls,
    /// It asks for GSSAPI encryption.
    Gss,
    /// It wants no encryption.
    Plain,
    /// It is not Postgres, or nothing that is answered.
    Other,
}

/// Returns what the first bytes ask for. More bytes never change an answer but [`Opening::More`].
pub(crate) fn opening(bytes: &[u8]) -> Opening {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else {
        // No message that is looked for is longer than 64 KiB.
        let is_begun = bytes.iter().take(2).all(|byte| *byte == 0);
        return if is_begun {
            Opening::More
        } else {
            Opening::Other
        };
    };
    let length = u32::from_be_bytes(*length);
    if !(8..=MAX_START).contains(&length) {
        return Opening::Other;
    }
    let Some(code) = rest.first_chunk::<4>() else {
        return Opening::More;
    };
    match (length, u32::from_be_bytes(*code)) {
        (8, SSL_REQUEST) => Opening::Tls,
        (8, GSS_REQUEST) => Opening::Gss,
        (_, code) if code >> 16 == VERSION => Opening::Plain,
        _ => Opening::Other,
    }
}

/// Answers what comes before TLS. Returns whether TLS comes next.
pub(crate) async fn negotiate(stream: &mut TcpStream) -> io::Result<bool> {
    for _ in 0..MAX_REQUESTS {
        let mut head = [0; HEAD];
        stream.read_exact(&mut head).await?;
        match opening(&head) {
            Opening::Tls => {
                stream.write_all(b"S").await?;
                return Ok(true);
            }
            Opening::Gss => stream.write_all(b"N").await?,
            Opening::Plain => {
                refuse(stream).await?;
                return Ok(false);
            }
            Opening::More | Opening::Other => return Ok(false),
        }
    }
    Ok(false)
}

/// Tells a client in its own protocol that there is only TLS.
async fn refuse(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(&error(ONLY_TLS)).await?;
    stream.shutdown().await?;
    // What it still sends is taken, so that no reset overtakes the words.
    let mut rest = stream.take(u64::from(MAX_START));
    tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
    Ok(())
}

/// Returns an ErrorResponse that ends the connection.
fn error(text: &str) -> Vec<u8> {
    let fields = format!("SFATAL\0VFATAL\0C28000\0M{text}\0\0");
    let length = u32::try_from(fields.len() + 4).unwrap_or(u32::MAX);
    let mut message = vec![b'E'];
    message.extend(length.to_be_bytes());
    message.extend(fields.into_bytes());
    message
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(length: u32, code: u32) -> Vec<u8> {
        [length.to_be_bytes(), code.to_be_bytes()].concat()
    }

    #[test]
    fn requests_are_told_from_each_other() {
        assert_eq!(opening(&message(8, SSL_REQUEST)), Opening::Tls);
        assert_eq!(opening(&message(8, GSS_REQUEST)), Opening::Gss);
        assert_eq!(opening(&message(41, 3 << 16)), Opening::Plain);
        assert_eq!(opening(&message(41, 3 << 16 | 2)), Opening::Plain);
        // A wish to cancel, another length, another version, another protocol.
        assert_eq!(opening(&message(16, 80_877_102)), Opening::Other);
        assert_eq!(opening(&message(9, SSL_REQUEST)), Opening::Other);
        assert_eq!(opening(&message(8, 2 << 16)), Opening::Other);
        assert_eq!(opening(b"GET / HT"), Opening::Other);
        assert_eq!(opening(b""), Opening::More);
        assert_eq!(opening(&[0, 0, 0, 8, 4]), Opening::More);
        assert_eq!(opening(&[0x16]), Opening::Other);
    }

    #[test]
    fn an_error_is_a_message_of_its_length() {
        let message = error("no");
        let length = u32::from_be_bytes(message[1..5].try_into().unwrap());
        assert_eq!(usize::try_from(length).unwrap(), message.len() - 1);
        assert!(message.ends_with(b"Mno\0\0"));
    }

    proptest! {
        #[test]
        fn more_bytes_change_nothing_that_was_told(
            head in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..12),
                (8u32..12, prop_oneof![Just(SSL_REQUEST), Just(GSS_REQUEST), 0u32..1 << 18])
                    .prop_map(|(length, code)| message(length, code)),
            ],
            cut in 0usize..12,
        ) {
            let cut = cut.min(head.len());
            let early = opening(&head[..cut]);
            prop_assert!(early == Opening::More || early == opening(&head));
            prop_assert!(head.len() < HEAD || opening(&head) != Opening::More);
        }
    }
}
