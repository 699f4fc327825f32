//! Denied packets, one by one, over nflog.

use std::{
    collections::VecDeque,
    fmt,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use palisade_policy::{Direction, Protocol};

use super::packet::{Headers, Transport};
use crate::{
    Error, LOG_EGRESS, LOG_INGRESS,
    encode::{finish, header},
    kernel::{Reply, replies},
    reader::Attributes,
    ruleset::Hook,
    subscription::{RECEIVE_BUFFER, Received, Subscription},
};

/// `NFNL_SUBSYS_ULOG << 8` with `NFULNL_MSG_PACKET` and `NFULNL_MSG_CONFIG`.
const PACKET: u16 = 4 << 8;
const CONFIG: u16 = (4 << 8) | 1;

/// `NLM_F_REQUEST | NLM_F_ACK`.
const REQUEST_ACK: u16 = 1 | 4;

/// What is copied of each packet: an IP header with options or some extension headers, and the ports behind.
const COPY_RANGE: u32 = 256;

/// The kernel gathers so many bytes, so many packets, or so many hundredths of a second before it wakes us.
const BUFFER: u32 = 32 << 10;
const PACKETS: u32 = 64;
const HUNDREDTHS: u32 = 5;

/// A denied packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drop {
    /// Which direction denied it: the egress of its source, or the ingress of its destination.
    pub direction: Direction,
    /// Where it was met.
    pub hook: Option<Hook>,
    /// Who, to whom, what: after destination NAT and before source NAT, as policies see it.
    pub headers: Headers,
    /// The index of the interface through which it came.
    pub incoming: Option<u32>,
    /// The index of the interface through which it would have gone.
    pub outgoing: Option<u32>,
}

/// What the kernel tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A packet was denied.
    Dropped(Drop),
    /// A packet was denied whose headers can't be read.
    Unreadable(Direction),
    /// So many packets were denied of which nothing more is known, because the reader was too slow; at least so many.
    Lost(u32),
}

impl Drop {
    /// The destination port; none for protocols without ports, later fragments and packets cut off.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match self.headers.transport {
            Transport::Ports { destination, .. } => Some(destination),
            _ => None,
        }
    }
}

impl fmt::Display for Drop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Headers { source, destination, protocol, transport } = self.headers;
        let end = |address: IpAddr, port: u16| SocketAddr::new(address, port);
        write!(f, "{} denied: ", self.direction)?;
        match (transport, protocol) {
            (Transport::Ports { source: from, destination: to }, _) => {
                write!(f, "{protocol} {} to {}", end(source, from), end(destination, to))
            }
            (Transport::Icmp { kind, code }, Protocol::Other(58)) => {
                write!(f, "ICMPv6 type {kind} code {code} {source} to {destination}")
            }
            (Transport::Icmp { kind, code }, _) => {
                write!(f, "ICMP type {kind} code {code} {source} to {destination}")
            }
            (Transport::LaterFragment, _) => {
                write!(f, "{protocol} {source} to {destination}, a later fragment")
            }
            (Transport::CutOff, _) => write!(f, "{protocol} {source} to {destination}, cut off"),
            (Transport::Other, _) => write!(f, "{protocol} {source} to {destination}"),
        }
    }
}

/// Reads an nflog group in the network namespace of the thread that opened it. Readable (`AsFd`) when there may be
/// something to [`Reader::read`]; never blocks. A group has one reader.
#[derive(Debug)]
pub struct Reader {
    subscription: Subscription,
    order: Order,
    ready: VecDeque<Event>,
}

/// What the numbers of the messages say about those that are missing.
#[derive(Debug, Default)]
struct Order {
    /// The number of the next message.
    next: Option<u32>,
    /// Losses that were told before their number was known.
    told: u32,
}

impl Order {
    /// A message with this number came; gives how many are missing before it and were not told yet.
    fn came(&mut self, number: u32) -> u32 {
        let missing = self.next.map_or(0, |next| number.wrapping_sub(next));
        self.next = Some(number.wrapping_add(1));
        // A number from the past is no loss of four thousand million.
        let missing = if missing > u32::MAX / 2 { 0 } else { missing };
        missing.saturating_sub(std::mem::take(&mut self.told))
    }

    /// Something was lost, who knows how much.
    fn overrun(&mut self) -> u32 {
        self.told = self.told.saturating_add(1);
        1
    }
}

impl Reader {
    /// Begins to read what is logged to `group` ([`Options::log_group`](crate::Options::log_group)).
    ///
    /// # Errors
    /// [`Error::GroupTaken`] where another program reads it, or the right is missing.
    pub fn open(group: u16) -> Result<Self, Error> {
        Self::with_buffer(group, RECEIVE_BUFFER)
    }

    /// [`Reader::open`] with room for other than two MiB of what was not read yet. The kernel doubles it.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn with_buffer(group: u16, bytes: usize) -> Result<Self, Error> {
        let failed = |source| Error::Socket { doing: "opening nflog", source };
        let mut subscription = Subscription::open(bytes, |_| Ok(())).map_err(failed)?;
        subscription.send(&bind(group)).map_err(failed)?;
        // Packets may come before the answer does.
        let mut early = Vec::new();
        let answer = loop {
            if !subscription.wait(PATIENCE).map_err(failed)? {
                return Err(Error::Answer(format!("nflog group {group} does not answer")));
            }
            let Received::Datagram(datagram) = subscription.receive().map_err(failed)? else { continue };
            let mut answer = None;
            for reply in replies(datagram) {
                match reply.verdict() {
                    Some(errno) => answer = Some(errno),
                    None => early.push(reply),
                }
            }
            if let Some(errno) = answer {
                break errno;
            }
        };
        if answer != 0 {
            return Err(Error::GroupTaken { group, source: std::io::Error::from_raw_os_error(answer) });
        }
        let mut reader =
            Self { subscription, order: Order { next: Some(0), told: 0 }, ready: VecDeque::new() };
        early.iter().for_each(|reply| reader.hear(reply));
        Ok(reader)
    }

    /// What the kernel tells, if it tells something now.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn read(&mut self) -> Result<Option<Event>, Error> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            let failed = |source| Error::Socket { doing: "reading nflog", source };
            let messages: Vec<Reply> = match self.subscription.receive().map_err(failed)? {
                Received::Datagram(datagram) => replies(datagram).collect(),
                Received::Overrun => return Ok(Some(Event::Lost(self.order.overrun()))),
                Received::Nothing => return Ok(None),
            };
            messages.iter().for_each(|message| self.hear(message));
        }
    }

    /// Waits until there may be something to read; says whether there is.
    ///
    /// # Errors
    /// If the system can't wait.
    pub fn wait(&self, patience: Duration) -> Result<bool, Error> {
        self.subscription.wait(patience).map_err(|source| Error::Socket { doing: "waiting", source })
    }

    fn hear(&mut self, message: &Reply) {
        if message.kind != PACKET {
            return;
        }
        let attributes = Attributes(message.attributes());
        // NFULA_SEQ
        let missing = attributes.number(12).map_or(0, |number| self.order.came(number));
        if missing > 0 {
            self.ready.push_back(Event::Lost(missing));
        }
        self.ready.extend(event(attributes));
    }
}

/// The kernel answers at once; this only keeps a lost answer from hanging us for ever.
const PATIENCE: Duration = Duration::from_secs(5);

impl AsFd for Reader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.subscription.as_fd()
    }
}

/// What one `NFULNL_MSG_PACKET` says; none if it is no denial of ours: others may log to the same group.
fn event(attributes: Attributes<'_>) -> Option<Event> {
    // NFULA_PREFIX
    let prefix = attributes.text(10)?;
    let direction = match &*prefix {
        LOG_EGRESS => Direction::Egress,
        LOG_INGRESS => Direction::Ingress,
        _ => return None,
    };
    // NFULA_PAYLOAD
    let Some(headers) = attributes.get(9).and_then(Headers::parse) else {
        return Some(Event::Unreadable(direction));
    };
    // NFULA_PACKET_HDR { be16 protocol, u8 hook }, NFULA_IFINDEX_INDEV, NFULA_IFINDEX_OUTDEV
    let hook = attributes.get(1).and_then(|header| match header.get(2)? {
        1 => Some(Hook::Input),
        2 => Some(Hook::Forward),
        _ => None,
    });
    let (incoming, outgoing) = (attributes.number(4), attributes.number(5));
    Some(Event::Dropped(Drop { direction, hook, headers, incoming, outgoing }))
}

/// The request that binds a group and says what is to be told.
fn bind(group: u16) -> Vec<u8> {
    /// `NFULNL_CFG_CMD_BIND`, `NFULNL_COPY_PACKET`, `NFULNL_CFG_F_SEQ`.
    const BIND: u8 = 1;
    const COPY_PACKET: u8 = 2;
    const NUMBERED: u16 = 1;
    let mut out = header(CONFIG, REQUEST_ACK, 0, group);
    let mode = [&COPY_RANGE.to_be_bytes()[..], &[COPY_PACKET, 0]].concat();
    // NFULA_CFG_CMD, _MODE, _NLBUFSIZ, _TIMEOUT, _QTHRESH, _FLAGS
    out.put(1, &[BIND]).put(2, &mode).number(3, BUFFER).number(4, HUNDREDTHS).number(5, PACKETS);
    out.put(6, &NUMBERED.to_be_bytes());
    finish(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::attributes::Attributes as Writer;

    fn message(prefix: &str, payload: &[u8]) -> Vec<u8> {
        let mut out = Writer::default();
        out.put(1, &[8, 0, 2, 0]).number(4, 7).put(9, payload).text(10, prefix).number(12, 0);
        out.into_bytes()
    }

    fn packet() -> Vec<u8> {
        let mut out = vec![0x45, 0, 0, 24, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        out.extend([0x82, 0x35, 0, 80]);
        out
    }

    #[test]
    fn a_message_becomes_a_drop_in_words() {
        let bytes = message(LOG_INGRESS, &packet());
        let Some(Event::Dropped(drop)) = event(Attributes(&bytes)) else { panic!("no drop") };
        assert_eq!((drop.hook, drop.incoming, drop.outgoing), (Some(Hook::Forward), Some(7), None));
        assert_eq!(drop.port(), Some(80));
        assert_eq!(drop.to_string(), "ingress denied: TCP 10.0.0.1:33333 to 10.0.0.2:80");
        assert_eq!(event(Attributes(&message("somebody else", &packet()))), None);
        let bytes = message(LOG_EGRESS, &packet()[..10]);
        assert_eq!(event(Attributes(&bytes)), Some(Event::Unreadable(Direction::Egress)));
    }

    #[test]
    fn no_bytes_make_it_panic() {
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
    fn gaps_between_numbers_are_losses_told_once() {
        let mut order = Order { next: Some(0), told: 0 };
        assert_eq!((order.came(0), order.came(1), order.came(5)), (0, 0, 3));
        assert_eq!(order.overrun(), 1);
        assert_eq!((order.came(8), order.came(9)), (1, 0), "two are missing, one was told");
        assert_eq!(order.came(3), 0, "numbered anew");
        assert_eq!(order.came(4), 0);
    }
}
