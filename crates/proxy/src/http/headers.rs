//! What is added to a request and an answer, and what is taken off (proxy-network-runtime.md 6).
//!
//! `Fly-` headers that only the proxy may set are replaced or removed, whatever a client sent.

use hyper::header::{
    CONNECTION, COOKIE, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, SERVER, TE,
    TRANSFER_ENCODING, UPGRADE, VIA,
};
use hyper::http::request::Parts;
use hyper::{Method, Uri, Version};

use crate::connection::Client;
use crate::policy::Answers;

const CLIENT_IP: HeaderName = HeaderName::from_static("fly-client-ip");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("fly-forwarded-port");
const REGION: HeaderName = HeaderName::from_static("fly-region");
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("fly-request-id");
const FLY_PROTO: HeaderName = HeaderName::from_static("fly-forwarded-proto");
const FLY_SSL: HeaderName = HeaderName::from_static("fly-forwarded-ssl");
const X_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_SSL: HeaderName = HeaderName::from_static("x-forwarded-ssl");
const X_START: HeaderName = HeaderName::from_static("x-request-start");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// What a client may say to the proxy; every other `fly-` header of a request is the proxy's own.
const CLIENTS_OWN: [&str; 6] = [
    "fly-force-instance-id",
    "fly-force-region",
    "fly-prefer-instance-id",
    "fly-prefer-region",
    "fly-replay-cache-control",
    "fly-src-optin",
];

/// Returns whether a request asks to go over to another protocol.
pub(crate) fn asks_upgrade(parts: &Parts) -> bool {
    // HTTP/2 by upgrade would carry requests past everything that is done to them here.
    let known = |value: &HeaderValue| !value.as_bytes().eq_ignore_ascii_case(b"h2c");
    parts.version == Version::HTTP_11
        && parts.headers.get(UPGRADE).is_some_and(known)
        && has_token(&parts.headers, "upgrade")
}

/// Returns whether sending it twice is the same as sending it once (RFC 9110, 9.2.2).
pub(crate) fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

/// Makes a client's request one for a Machine, all but what depends on the connection to it.
pub(crate) fn for_machine(
    parts: &mut Parts,
    client: &Client,
    region: &HeaderValue,
    id: &HeaderValue,
    start: HeaderValue,
    upgrade: bool,
) {
    let upgrade_to = parts.headers.get(UPGRADE).filter(|_| upgrade).cloned();
    let trailers = parts.headers.get(TE).is_some_and(|te| te == "trailers");
    remove_hop_by_hop(&mut parts.headers);
    // The proxy has answered it, or will when the Machine's connection takes the body.
    parts.headers.remove(EXPECT);
    remove_reserved(&mut parts.headers);
    join_cookies(&mut parts.headers);
    let headers = &mut parts.headers;
    // A name in the request line beats the header (RFC 9112, 3.2.2).
    if let Some(authority) = parts.uri.authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        headers.insert(HOST, host);
    }
    headers.insert(CLIENT_IP, client.ip.clone());
    headers.insert(FORWARDED_PORT, client.external.clone());
    headers.insert(REGION, region.clone());
    headers.insert(REQUEST_ID, id.clone());
    headers.insert(X_FOR, forwarded_for(headers, client));
    headers.insert(X_PORT, client.bound.clone());
    headers.insert(X_START, start);
    let (proto, ssl) = if client.tls {
        ("https", "on")
    } else {
        ("http", "off")
    };
    headers.insert(X_PROTO, HeaderValue::from_static(proto));
    headers.insert(FLY_PROTO, HeaderValue::from_static(proto));
    headers.insert(X_SSL, HeaderValue::from_static(ssl));
    headers.insert(FLY_SSL, HeaderValue::from_static(ssl));
    headers.append(VIA, via(parts.version));
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if let Some(protocol) = upgrade_to {
        headers.insert(UPGRADE, protocol);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

/// Makes a Machine's answer one for the client.
pub(crate) fn for_client(
    headers: &mut HeaderMap,
    version: Version,
    id: &HeaderValue,
    upgraded: bool,
    answers: &Answers,
) {
    if upgraded {
        headers.remove(TRANSFER_ENCODING);
    } else {
        remove_hop_by_hop(headers);
    }
    if !answers.pristine {
        headers.insert(REQUEST_ID, id.clone());
        headers.append(VIA, via(version));
        if !headers.contains_key(SERVER) {
            headers.insert(SERVER, HeaderValue::from_static("Hangar"));
        }
    }
    for (name, values) in &answers.rules {
        headers.remove(name);
        for value in values {
            headers.append(name.clone(), value.clone());
        }
    }
}

/// Returns the request target as it is written to a Machine: with HTTP/2 it names the host.
pub(crate) fn target(uri: &Uri, host: Option<&HeaderValue>, http2: bool) -> Uri {
    let path = uri.path_and_query().cloned();
    let mut parts = hyper::http::uri::Parts::default();
    parts.path_and_query = path.or_else(|| Some(hyper::http::uri::PathAndQuery::from_static("/")));
    if http2 {
        let authority = host.and_then(|host| host.as_bytes().try_into().ok());
        parts.scheme = Some(hyper::http::uri::Scheme::HTTP);
        parts.authority =
            authority.or_else(|| Some(hyper::http::uri::Authority::from_static("localhost")));
    }
    Uri::from_parts(parts).unwrap_or_default()
}

/// Says that the connection ends with this request, or lets the version's default hold.
pub(crate) fn set_close(headers: &mut HeaderMap, close: bool) {
    if close {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    } else if headers
        .get(CONNECTION)
        .is_some_and(|value| value == "close")
    {
        headers.remove(CONNECTION);
    }
}

pub(crate) fn via(version: Version) -> HeaderValue {
    HeaderValue::from_static(match version {
        Version::HTTP_2 => "2 hangar",
        Version::HTTP_10 => "1.0 hangar",
        _ => "1.1 hangar",
    })
}

/// The client's own list, then the client, then the address of the app that it reached.
fn forwarded_for(headers: &HeaderMap, client: &Client) -> HeaderValue {
    let mut given = headers.get_all(X_FOR).iter().peekable();
    if given.peek().is_none() {
        return client.forwarded_for.clone();
    }
    let mut list = Vec::with_capacity(96);
    for value in given {
        list.extend_from_slice(value.as_bytes());
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(client.forwarded_for.as_bytes());
    HeaderValue::from_maybe_shared(bytes::Bytes::from(list))
        .unwrap_or_else(|_| client.forwarded_for.clone())
}

/// Makes one field of the several that HTTP/2 may split cookies into (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let all: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    let joined = all.join(&b"; "[..]);
    if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(joined)) {
        headers.insert(COOKIE, value);
    }
}

fn remove_reserved(headers: &mut HeaderMap) {
    let reserved = |name: &&HeaderName| {
        name.as_str().starts_with("fly-") && !CLIENTS_OWN.contains(&name.as_str())
    };
    if headers.keys().any(|name| reserved(&name)) {
        let names: Vec<_> = headers.keys().filter(reserved).cloned().collect();
        for name in names {
            headers.remove(name);
        }
    }
}

/// Removes what is about one connection only, and what `Connection` names (RFC 9110, 7.6.1).
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = tokens(headers)
            .filter(|token| !token.eq_ignore_ascii_case("close"))
            .filter(|token| !token.eq_ignore_ascii_case("keep-alive"))
            .filter_map(|token| token.parse().ok())
            .filter(|name| *name != HOST)
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, TE, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
}

fn tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

fn has_token(headers: &HeaderMap, wanted: &str) -> bool {
    tokens(headers).any(|token| token.eq_ignore_ascii_case(wanted))
}
