//! From a host's name to a connection, without the C library's resolver: in a static binary,
//! that one loads the host's libraries and crashes on some machines.

use std::net::{IpAddr, Ipv4Addr};

use hickory_resolver::Resolver;
use tokio::net::TcpStream;

/// Most addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;

/// Connects to the first address of `host` that takes the connection; the error says why the
/// last one did not.
pub(crate) async fn dial(host: &str, port: u16) -> Result<TcpStream, String> {
    let mut failure = format!("{host} has no address");
    for address in addresses(host).await?.into_iter().take(MAX_ADDRESSES) {
        match TcpStream::connect((address, port)).await {
            Ok(stream) => {
                // A failure to turn off batching only costs time.
                let _slower = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => failure = error.to_string(),
        }
    }
    Err(failure)
}

async fn addresses(host: &str) -> Result<Vec<IpAddr>, String> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse() {
        return Ok(vec![address]);
    }
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    if name == "localhost" || name.ends_with(".localhost") {
        return Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]);
    }
    let unresolved = |error: hickory_resolver::net::NetError| match error.is_no_records_found() {
        // Its own words are the whole query.
        true => format!("there is no host called {host}"),
        false => format!("look up {host}: {error}"),
    };
    let builder = Resolver::builder_tokio().map_err(unresolved)?;
    let resolver = builder.build().map_err(unresolved)?;
    let found = resolver.lookup_ip(name).await.map_err(unresolved)?;
    Ok(found.iter().collect())
}
