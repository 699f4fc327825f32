//! Single denied packets, over nflog.

use std::{
    collections::VecDeque,
    fmt, io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use palisade_policy::{Direction, Protocol};

use super::packet::{Headers, TransportHeader};
use crate::{
    Error,
    conntrack::ICMPV6,
    encode::{finish, header},
    kernel::{Reply, replies},
    log_shares::{LOG_AUDIT_EGRESS, LOG_AUDIT_INGRESS, LOG_EGRESS, LOG_INGRESS},
    reader::Attributes,
    ruleset::Hook,
    subscription::{RECEIVE_BUFFER, Received, Subscription},
    uapi::{
        netfilter::{NF_INET_FORWARD, NF_INET_LOCAL_IN},
        netlink::{NLM_F_ACK, NLM_F_REQUEST},
        nfnetlink::{NFNL_SUBSYS_ULOG, message_type},
        nfnetlink_log::{
            NFULA_CFG_CMD, NFULA_CFG_FLAGS, NFULA_CFG_MODE, NFULA_CFG_NLBUFSIZ, NFULA_CFG_QTHRESH,
            NFULA_CFG_TIMEOUT, NFULA_IFINDEX_INDEV, NFULA_IFINDEX_OUTDEV, NFULA_PACKET_HDR, NFULA_PAYLOAD,
            NFULA_PREFIX, NFULA_SEQ, NFULNL_CFG_CMD_BIND, NFULNL_CFG_F_SEQ, NFULNL_COPY_PACKET,
            NFULNL_MSG_CONFIG, NFULNL_MSG_PACKET,
        },
    },
};

/// How many bytes of each packet are copied: an IP header with options or some extension headers, and the ports.
const COPY_RANGE: u32 = 256;

/// The kernel delivers packets after so many bytes, so many packets, or so many hundredths of a second.
const BUFFER: u32 = 32 << 10;
const PACKETS: u32 = 64;
const HUNDREDTHS: u32 = 5;

/// How long to wait for the kernel's reply to a request. It replies at once, so this only covers a lost reply.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);

/// A denied packet, or one that would be denied if every policy were enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DroppedPacket {
    /// Which direction denied it: the egress of its source, or the ingress of its destination.
    pub direction: Direction,
    /// Whether it passed, because only policies in audit mode would deny it.
    pub audited: bool,
    /// The hook at which it was denied.
    pub hook: Option<Hook>,
    /// Its headers, after destination NAT and before source NAT, as policies see them.
    pub headers: Headers,
    /// The index of the incoming interface.
    pub incoming: Option<u32>,
    /// The index of the interface on which it would have left.
    pub outgoing: Option<u32>,
}

/// An event of an nflog group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropEvent {
    /// A packet was denied.
    Dropped(DroppedPacket),
    /// A packet with unreadable headers was denied.
    Unreadable(Direction),
    /// At least so many packets were denied whose events were lost, because the reader was too slow.
    Lost(u32),
}

impl DroppedPacket {
    /// Returns the destination port. `None` for protocols without ports, later fragments and truncated packets.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match self.headers.transport {
            TransportHeader::Ports { destination, .. } => Some(destination),
            _ => None,
        }
    }
}

impl fmt::Display for DroppedPacket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Headers { source, destination, protocol, transport } = self.headers;
        let end = |address: IpAddr, port: u16| SocketAddr::new(address, port);
        let denied = if self.audited { "would deny" } else { "denied" };
        write!(f, "{} {denied}: ", self.direction)?;
        match (transport, protocol) {
            (TransportHeader::Ports { source: from, destination: to }, _) => {
                write!(f, "{protocol} {} to {}", end(source, from), end(destination, to))
            }
            (TransportHeader::Icmp { kind, code }, Protocol::Other(ICMPV6)) => {
                write!(f, "ICMPv6 type {kind} code {code} {source} to {destination}")
            }
            (TransportHeader::Icmp { kind, code }, _) => {
                write!(f, "ICMP type {kind} code {code} {source} to {destination}")
            }
            (TransportHeader::LaterFragment, _) => {
                write!(f, "{protocol} {source} to {destination}, a later fragment")
            }
            (TransportHeader::Truncated, _) => write!(f, "{protocol} {source} to {destination}, truncated"),
            (TransportHeader::Other, _) => write!(f, "{protocol} {source} to {destination}"),
        }
    }
}

/// Reads an nflog group in the network namespace of the thread that opened it. A group has one reader.
///
/// The file descriptor (`AsFd`) is readable when [`DropEventReader::read`] may return something. Reading never blocks.
#[derive(Debug)]
pub struct DropEventReader {
    subscription: Subscription,
    sequence: Sequence,
    ready: VecDeque<DropEvent>,
}

/// Detects lost messages by gaps in their sequence numbers.
#[derive(Debug, Default)]
struct Sequence {
    /// The number of the next message.
    next: Option<u32>,
    /// Losses that were reported before their numbers were known.
    reported: u32,
}

impl Sequence {
    /// Processes the number of a message. Returns how many are missing before it and were not reported yet.
    fn advance(&mut self, number: u32) -> u32 {
        let missing = self.next.map_or(0, |next| number.wrapping_sub(next));
        self.next = Some(number.wrapping_add(1));
        // A smaller number means that the sequence started again, not that four billion messages are missing.
        let missing = if missing > u32::MAX / 2 { 0 } else { missing };
        missing.saturating_sub(std::mem::take(&mut self.reported))
    }

    /// Processes an overrun of the buffer, by which at least one message was lost.
    fn overrun(&mut self) -> u32 {
        self.reported = self.reported.saturating_add(1);
        1
    }
}

impl DropEventReader {
    /// Subscribes to an nflog group ([`EnforcerOptions::log_group`](crate::EnforcerOptions::log_group)).
    ///
    /// # Errors
    /// [`Error::LogGroupBusy`] if another program reads the group, or a permission is missing.
    pub fn open(group: u16) -> Result<Self, Error> {
        Self::with_buffer(group, RECEIVE_BUFFER)
    }

    /// [`DropEventReader::open`] with a receive buffer of another size than two MiB. The kernel doubles it.
    ///
    /// # Errors
    /// As [`DropEventReader::open`].
    pub fn with_buffer(group: u16, bytes: usize) -> Result<Self, Error> {
        let failed = |source| Error::Socket { doing: "opening nflog", source };
        let mut subscription = Subscription::open(bytes, |_| Ok(())).map_err(failed)?;
        subscription.send(&bind(group)).map_err(failed)?;
        // Packets may arrive before the reply.
        let mut early = Vec::new();
        let errno = loop {
            if !subscription.wait(REPLY_TIMEOUT).map_err(failed)? {
                return Err(Error::InvalidReply(format!("no reply for nflog group {group}")));
            }
            let Received::Datagram(datagram) = subscription.receive().map_err(failed)? else { continue };
            let mut result = None;
            for reply in replies(datagram) {
                match reply.errno() {
                    Some(errno) => result = Some(errno),
                    None => early.push(reply),
                }
            }
            if let Some(errno) = result {
                break errno;
            }
        };
        if errno != 0 {
            return Err(Error::LogGroupBusy { group, source: io::Error::from_raw_os_error(errno) });
        }
        let sequence = Sequence { next: Some(0), reported: 0 };
        let mut reader = Self { subscription, sequence, ready: VecDeque::new() };
        early.iter().for_each(|reply| reader.process(reply));
        Ok(reader)
    }

    /// Returns the next event, if there is one.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn read(&mut self) -> Result<Option<DropEvent>, Error> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            let failed = |source| Error::Socket { doing: "reading nflog", source };
            let messages: Vec<Reply> = match self.subscription.receive().map_err(failed)? {
                Received::Datagram(datagram) => replies(datagram).collect(),
                Received::Overrun => return Ok(Some(DropEvent::Lost(self.sequence.overrun()))),
                Received::Nothing => return Ok(None),
            };
            messages.iter().for_each(|message| self.process(message));
        }
    }

    /// Waits until there may be something to read. Returns whether there is.
    ///
    /// # Errors
    /// If polling fails.
    pub fn wait(&self, timeout: Duration) -> Result<bool, Error> {
        self.subscription.wait(timeout).map_err(|source| Error::Socket { doing: "waiting", source })
    }

    fn process(&mut self, message: &Reply) {
        if message.kind != message_type(NFNL_SUBSYS_ULOG, NFULNL_MSG_PACKET) {
            return;
        }
        let attributes = Attributes(message.attributes());
        let missing = attributes.number(NFULA_SEQ).map_or(0, |number| self.sequence.advance(number));
        if missing > 0 {
            self.ready.push_back(DropEvent::Lost(missing));
        }
        self.ready.extend(event(attributes));
    }
}

impl AsFd for DropEventReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.subscription.as_fd()
    }
}

/// Parses an `NFULNL_MSG_PACKET`. `None` if another program's rule logged it to the same group.
fn event(attributes: Attributes<'_>) -> Option<DropEvent> {
    let prefix = attributes.text(NFULA_PREFIX)?;
    let (direction, audited) = match &*prefix {
        LOG_EGRESS => (Direction::Egress, false),
        LOG_INGRESS => (Direction::Ingress, false),
        LOG_AUDIT_EGRESS => (Direction::Egress, true),
        LOG_AUDIT_INGRESS => (Direction::Ingress, true),
        _ => return None,
    };
    let Some(headers) = attributes.get(NFULA_PAYLOAD).and_then(Headers::parse) else {
        return Some(DropEvent::Unreadable(direction));
    };
    // `struct nfulnl_msg_packet_hdr`: the protocol in two bytes, then the hook in one.
    let hook = attributes.get(NFULA_PACKET_HDR).and_then(|header| match u32::from(*header.get(2)?) {
        NF_INET_LOCAL_IN => Some(Hook::Input),
        NF_INET_FORWARD => Some(Hook::Forward),
        _ => None,
    });
    let incoming = attributes.number(NFULA_IFINDEX_INDEV);
    let outgoing = attributes.number(NFULA_IFINDEX_OUTDEV);
    Some(DropEvent::Dropped(DroppedPacket { direction, audited, hook, headers, incoming, outgoing }))
}

/// Reads a datagram, for [`crate::fuzzing`].
#[cfg(fuzzing)]
pub(crate) fn fuzz(datagram: &[u8]) {
    for event in replies(datagram).filter_map(|message| event(Attributes(message.attributes()))) {
        if let DropEvent::Dropped(packet) = event {
            assert!(packet.to_string().starts_with(&packet.direction.to_string()));
            assert_eq!(packet.headers.source.is_ipv4(), packet.headers.destination.is_ipv4());
            assert!(packet.port().is_none() || packet.headers.protocol.has_ports());
        }
    }
}

/// Returns the request that binds a group and sets what it delivers.
fn bind(group: u16) -> Vec<u8> {
    let kind = message_type(NFNL_SUBSYS_ULOG, NFULNL_MSG_CONFIG);
    let mut out = header(kind, NLM_F_REQUEST | NLM_F_ACK, 0, group);
    // `struct nfulnl_msg_config_mode`.
    let mode = [&COPY_RANGE.to_be_bytes()[..], &[NFULNL_COPY_PACKET, 0]].concat();
    out.put(NFULA_CFG_CMD, &[NFULNL_CFG_CMD_BIND]).put(NFULA_CFG_MODE, &mode);
    out.number(NFULA_CFG_NLBUFSIZ, BUFFER).number(NFULA_CFG_TIMEOUT, HUNDREDTHS);
    out.number(NFULA_CFG_QTHRESH, PACKETS).put(NFULA_CFG_FLAGS, &NFULNL_CFG_F_SEQ.to_be_bytes());
    finish(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::AttributeWriter;

    fn message(prefix: &str, payload: &[u8]) -> Vec<u8> {
        let mut out = AttributeWriter::default();
        out.put(NFULA_PACKET_HDR, &[8, 0, 2, 0]).number(NFULA_IFINDEX_INDEV, 7);
        out.put(NFULA_PAYLOAD, payload).text(NFULA_PREFIX, prefix).number(NFULA_SEQ, 0);
        out.into_bytes()
    }

    fn packet() -> Vec<u8> {
        let mut out = vec![0x45, 0, 0, 24, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        out.extend([0x82, 0x35, 0, 80]);
        out
    }

    #[test]
    fn a_message_becomes_a_dropped_packet() {
        let bytes = message(LOG_INGRESS, &packet());
        let Some(DropEvent::Dropped(drop)) = event(Attributes(&bytes)) else { panic!("no drop") };
        assert_eq!((drop.hook, drop.incoming, drop.outgoing), (Some(Hook::Forward), Some(7), None));
        assert_eq!(drop.port(), Some(80));
        assert_eq!(drop.to_string(), "ingress denied: TCP 10.0.0.1:33333 to 10.0.0.2:80");
        assert_eq!(event(Attributes(&message("another program", &packet()))), None);
        let bytes = message(LOG_EGRESS, &packet()[..10]);
        assert_eq!(event(Attributes(&bytes)), Some(DropEvent::Unreadable(Direction::Egress)));
    }

    #[test]
    fn arbitrary_bytes_never_panic() {
        let whole = message(LOG_EGRESS, &packet());
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as usize
        };
        for round in 0..200_000 {
            let mut bytes = whole.clone();
            for _ in 0..1 + random() % 6 {
                let at = random() % bytes.len();
                bytes[at] = random() as u8;
            }
            bytes.truncate(1 + random() % bytes.len());
            _ = event(Attributes(&bytes));
            let mut noise: Vec<u8> = (0..random() % 120).map(|_| random() as u8).collect();
            if let Some(first) = noise.first_mut() {
                *first = if round % 2 == 0 { 0x40 | (*first & 0xf) } else { 0x60 };
            }
            if let Some(next) = noise.get_mut(6) {
                *next = [0, 43, 44, 51, 60, 6][random() % 6];
            }
            _ = Headers::parse(&noise);
            let mut datagram = (random() as u32 % 200).to_ne_bytes().to_vec();
            datagram.extend(&noise);
            replies(&datagram).for_each(|reply| _ = event(Attributes(reply.attributes())));
        }
    }

    #[test]
    fn gaps_between_numbers_are_reported_once() {
        let mut sequence = Sequence { next: Some(0), reported: 0 };
        assert_eq!((sequence.advance(0), sequence.advance(1), sequence.advance(5)), (0, 0, 3));
        assert_eq!(sequence.overrun(), 1);
        assert_eq!((sequence.advance(8), sequence.advance(9)), (1, 0), "two are missing, one was reported");
        assert_eq!(sequence.advance(3), 0, "the sequence started again");
        assert_eq!(sequence.advance(4), 0);
    }
}
