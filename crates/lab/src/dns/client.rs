//! A client that asks as an application's resolver does: over UDP, over TCP after a truncated answer, and again if there is no answer.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, RecordType},
};
use palisade_policy::{DomainName, Family};
use serde::{Serialize, Serializer};

use super::answers::wire_name;

/// The most aliases that are followed.
const MAX_ALIASES: usize = 32;

/// What a client learns about a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookupOutcome {
    /// It has these addresses.
    Addresses(Vec<IpAddr>),
    /// It has no address of the family.
    NoAddress,
    /// It does not exist.
    NoSuchName,
    /// No answer arrived.
    NoAnswer,
    /// The client failed.
    Failed(String),
}

impl fmt::Display for LookupOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addresses(addresses) => {
                let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                write!(f, "answered {}", texts.join(", "))
            }
            Self::NoAddress => f.write_str("answered without an address"),
            Self::NoSuchName => f.write_str("answered that it does not exist"),
            Self::NoAnswer => f.write_str("not answered"),
            Self::Failed(why) => write!(f, "could not be asked: {why}"),
        }
    }
}

impl Serialize for LookupOutcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How long a client waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LookupPatience {
    /// How often it asks.
    pub tries: u32,
    /// How long it waits for each answer.
    pub each: Duration,
}

/// Asks a server for the addresses of a name, from the calling thread's namespace.
#[must_use]
pub fn lookup(
    server: SocketAddr,
    name: &DomainName,
    family: Family,
    patience: LookupPatience,
) -> LookupOutcome {
    match try_lookup(server, name, family, patience) {
        Ok(outcome) => outcome,
        Err(e) => LookupOutcome::Failed(e.to_string()),
    }
}

fn try_lookup(
    server: SocketAddr,
    name: &DomainName,
    family: Family,
    patience: LookupPatience,
) -> io::Result<LookupOutcome> {
    let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
    let kind = if family == Family::V4 { RecordType::A } else { RecordType::AAAA };
    let wire = wire_name(name).ok_or_else(|| io::Error::other(format!("{name} is no name of DNS")))?;
    for _ in 0..patience.tries {
        let asked = Asked::new(&wire, kind);
        // A port of its own for each query, as resolvers have.
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(server)?;
        let mut answer = asked.over_udp(&socket, patience.each)?;
        if answer.as_ref().is_some_and(|answer| answer.metadata.truncation) {
            answer = asked.over_tcp(server, patience.each).ok().flatten();
        }
        if let Some(answer) = answer {
            return Ok(asked.outcome(&answer));
        }
    }
    Ok(LookupOutcome::NoAnswer)
}

struct Asked {
    question: Query,
    id: u16,
    bytes: Vec<u8>,
}

impl Asked {
    fn new(name: &Name, kind: RecordType) -> Self {
        static ID: AtomicU16 = AtomicU16::new(1);
        let id = ID.fetch_add(1, Ordering::Relaxed);
        let question = Query::query(name.clone(), kind);
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(question.clone());
        // A name that was parsed can be written.
        let bytes = message.to_vec().unwrap_or_default();
        Self { question, id, bytes }
    }

    /// Whether a message answers the query. Resolvers ignore others.
    fn is_answered_by(&self, message: &Message) -> bool {
        message.metadata.id == self.id
            && message.metadata.message_type == MessageType::Response
            && message.queries[..] == [self.question.clone()]
    }

    fn over_udp(&self, socket: &UdpSocket, patience: Duration) -> io::Result<Option<Message>> {
        match socket.send(&self.bytes) {
            // Rules of the own host refuse it, as if the server did.
            Err(e) if e.kind() == ErrorKind::PermissionDenied => return Ok(None),
            other => other?,
        };
        let begin = Instant::now();
        let mut buffer = vec![0; usize::from(u16::MAX)];
        while let Some(left) = patience.checked_sub(begin.elapsed()).filter(|left| !left.is_zero()) {
            socket.set_read_timeout(Some(left))?;
            match socket.recv(&mut buffer) {
                Ok(length) => {
                    let message = Message::from_vec(&buffer[..length]).ok();
                    if let Some(answer) = message.filter(|message| self.is_answered_by(message)) {
                        return Ok(Some(answer));
                    }
                }
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                // An ICMP error: the next query may be answered.
                Err(_) => return Ok(None),
            }
        }
        Ok(None)
    }

    fn over_tcp(&self, server: SocketAddr, patience: Duration) -> io::Result<Option<Message>> {
        let mut stream = TcpStream::connect_timeout(&server, patience)?;
        stream.set_read_timeout(Some(patience))?;
        let length = u16::try_from(self.bytes.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes()[..], &self.bytes].concat())?;
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut answer)?;
        Ok(Message::from_vec(&answer).ok().filter(|message| self.is_answered_by(message)))
    }

    /// Follows the aliases of an answer.
    fn outcome(&self, answer: &Message) -> LookupOutcome {
        if answer.metadata.response_code == ResponseCode::NXDomain {
            return LookupOutcome::NoSuchName;
        }
        let aliases: BTreeMap<&Name, &Name> = answer
            .answers
            .iter()
            .filter_map(|record| match &record.data {
                RData::CNAME(target) => Some((&record.name, &target.0)),
                _ => None,
            })
            .collect();
        let mut end = &self.question.name;
        for _ in 0..MAX_ALIASES {
            let Some(target) = aliases.get(end) else { break };
            end = target;
        }
        let of_end = answer.answers.iter().filter(|record| record.name == *end);
        let addresses: Vec<IpAddr> = of_end
            .filter_map(|record| match &record.data {
                RData::A(a) => Some(a.0.into()),
                RData::AAAA(a) => Some(a.0.into()),
                _ => None,
            })
            .collect();
        if addresses.is_empty() { LookupOutcome::NoAddress } else { LookupOutcome::Addresses(addresses) }
    }
}
