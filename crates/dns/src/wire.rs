//! Packets: a request's bytes into a question, an answer into bytes that fit.
//!
//! Called by [`crate::serve`] for every packet. Pure; whatever the bytes are, it never panics and
//! never answers an answer.

use std::net::IpAddr;

use hangar_api::catalog::Catalog;
use hangar_api::net::{NetworkId, network_of};
use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{AAAA, SOA, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};

use crate::zone::{self, Answer, Asker, Data, Kind, Question};

/// Seconds that an answer may be kept.
pub const TTL: u32 = 5;
/// Seconds that "there is nothing" may be kept: a Machine that comes up must be found at once.
pub const NEGATIVE_TTL: u32 = 1;
/// What a UDP answer may hold when the asker does not say.
pub const PLAIN_UDP: u16 = 512;
/// What we take, and send, by UDP at most: fits the Machines' MTU of 1420 unfragmented.
pub const LARGEST_UDP: u16 = 1232;
/// Bytes of a packet's header.
const HEADER: usize = 12;
/// Where in it answers are counted.
const ANSWER_COUNT: usize = 6;
/// The bit in a packet's third byte that says it was cut.
const TRUNCATED: u8 = 0x02;
/// Bytes that one piece of a text holds.
const TEXT_PIECE: usize = 255;

/// How a packet came, and so how much its answer may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// As much as the asker says.
    Udp,
    /// Anything.
    Tcp,
}

/// What is to be done with a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Nothing: it is no request.
    Ignore,
    /// Send these bytes.
    Send(Vec<u8>),
    /// Ask others, with the very same bytes; if they are silent, send `otherwise`.
    Forward {
        /// A refusal that says that nobody answered.
        otherwise: Vec<u8>,
    },
}

/// Returns what is to be done with a packet. `asker` is `None` where the source is on no private
/// network: it is refused.
#[must_use]
pub fn respond(
    catalog: &Catalog,
    asker: Option<&Asker>,
    packet: &[u8],
    transport: Transport,
    seed: u64,
) -> Reply {
    // An answer to an answer would make two servers talk for ever.
    if packet.len() < HEADER || packet[2] & 0x80 != 0 {
        return Reply::Ignore;
    }
    let Ok(request) = Message::from_vec(packet) else {
        let id = u16::from_be_bytes([packet[0], packet[1]]);
        let malformed = Message::error_msg(id, OpCode::Query, ResponseCode::FormErr);
        return send(&malformed, PLAIN_UDP);
    };
    let limit = limit(&request, transport);
    let Some(asker) = asker else {
        return send(&refusal(&request, ResponseCode::Refused), limit);
    };
    if let Some(code) = fault(&request) {
        return send(&refusal(&request, code), limit);
    }
    let query = &request.queries[0];
    let labels = query.name().iter();
    let question = Question {
        labels: labels
            .map(|label| String::from_utf8_lossy(label).to_ascii_lowercase())
            .collect(),
        kind: match query.query_type() {
            RecordType::AAAA => Kind::Aaaa,
            RecordType::TXT => Kind::Txt,
            RecordType::ANY => Kind::Any,
            _ => Kind::Other,
        },
    };
    match zone::answer(catalog, asker, &question, seed) {
        Answer::Elsewhere => match encode(&refusal(&request, ResponseCode::ServFail), limit) {
            Some(otherwise) => Reply::Forward { otherwise },
            None => Reply::Ignore,
        },
        Answer::NoSuchName => {
            let mut message = refusal(&request, ResponseCode::NXDomain);
            message.metadata.authoritative = true;
            message.add_authority(start_of_authority());
            send(&message, limit)
        }
        Answer::Found(data) => send(&found(&request, data), limit),
    }
}

/// Returns who asks from an address: its network, if it is on one.
#[must_use]
pub fn asker(address: IpAddr) -> Option<Asker> {
    let IpAddr::V6(v6) = address else {
        return None;
    };
    let network = network_of(v6).filter(|network| *network != NetworkId(0))?;
    Some(Asker { network, address })
}

/// Returns whether a packet from another resolver answers a request: same id, same question.
#[must_use]
pub fn answers(request: &[u8], reply: &[u8]) -> bool {
    let (Ok(request), Ok(reply)) = (Message::from_vec(request), Message::from_vec(reply)) else {
        return false;
    };
    let refused = reply.queries.is_empty() && reply.metadata.response_code != ResponseCode::NoError;
    reply.metadata.id == request.metadata.id
        && reply.metadata.message_type == MessageType::Response
        && (refused || reply.queries == request.queries)
}

/// Returns what is wrong with a request that could be read.
fn fault(request: &Message) -> Option<ResponseCode> {
    if request.metadata.op_code != OpCode::Query {
        return Some(ResponseCode::NotImp);
    }
    if request.queries.len() != 1 {
        return Some(ResponseCode::FormErr);
    }
    if request.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
        return Some(ResponseCode::BADVERS);
    }
    let query = &request.queries[0];
    let transfer = matches!(query.query_type(), RecordType::AXFR | RecordType::IXFR);
    let class = query.query_class();
    (transfer || !matches!(class, DNSClass::IN | DNSClass::ANY)).then_some(ResponseCode::Refused)
}

fn limit(request: &Message, transport: Transport) -> u16 {
    match (transport, &request.edns) {
        (Transport::Tcp, _) => u16::MAX,
        (Transport::Udp, None) => PLAIN_UDP,
        (Transport::Udp, Some(edns)) => edns.max_payload().clamp(PLAIN_UDP, LARGEST_UDP),
    }
}

fn refusal(request: &Message, code: ResponseCode) -> Message {
    let mut message = Message::response(request.metadata.id, request.metadata.op_code);
    message.metadata = Metadata::response_from_request(&request.metadata);
    message.metadata.recursion_available = true;
    message.metadata.response_code = code;
    message.queries.clone_from(&request.queries);
    if request.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(LARGEST_UDP);
        message.set_edns(edns);
    }
    message
}

fn found(request: &Message, data: Vec<Data>) -> Message {
    let mut message = refusal(request, ResponseCode::NoError);
    message.metadata.authoritative = true;
    if data.is_empty() {
        message.add_authority(start_of_authority());
    }
    let name = request.queries[0].name();
    message.answers = data
        .into_iter()
        .map(|data| {
            let data = match data {
                Data::Address(address) => RData::AAAA(AAAA(address)),
                Data::Text(text) => RData::TXT(TXT::from_bytes(
                    text.as_bytes().chunks(TEXT_PIECE).collect(),
                )),
            };
            Record::from_rdata(name.clone(), TTL, data)
        })
        .collect();
    message
}

/// Says how long "nothing" may be kept.
fn start_of_authority() -> Record {
    let zone = Name::from_labels(["internal"]).unwrap_or_default();
    let data = SOA::new(zone.clone(), zone.clone(), 1, 60, 60, 60, NEGATIVE_TTL);
    Record::from_rdata(zone, NEGATIVE_TTL, RData::SOA(data))
}

fn send(message: &Message, limit: u16) -> Reply {
    encode(message, limit).map_or(Reply::Ignore, Reply::Send)
}

/// Encodes a message into at most `limit` bytes. Of answers that do not fit, as many are kept as
/// do, and the packet says that it was cut: an asker that can comes again by TCP, and one that
/// cannot has some addresses at least.
fn encode(message: &Message, limit: u16) -> Option<Vec<u8>> {
    let bytes = encode_once(message, limit)?;
    if bytes[2] & TRUNCATED == 0 {
        return Some(bytes);
    }
    let fitted = u16::from_be_bytes([bytes[ANSWER_COUNT], bytes[ANSWER_COUNT + 1]]);
    let mut shorter = message.clone();
    shorter.metadata.truncation = true;
    shorter.authorities.clear();
    // One less makes room for what comes after the answers.
    shorter
        .answers
        .truncate(usize::from(fitted).saturating_sub(1));
    encode_once(&shorter, limit)
}

fn encode_once(message: &Message, limit: u16) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(usize::from(PLAIN_UDP));
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_max_size(limit);
    message.emit(&mut encoder).ok()?;
    (bytes.len() >= HEADER).then_some(bytes)
}

#[cfg(test)]
mod tests;
