//! Packets that wait in the kernel until this program decides about them (nfnetlink_queue).

mod datagram;
mod ip;
mod segment;

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    sync::Arc,
    time::Duration,
};

use netlink_sys::{Socket, SocketAddr as NetlinkAddress, protocols::NETLINK_NETFILTER};
use nix::{
    errno::Errno,
    libc::ENOBUFS,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{MsgFlags, recv, send, setsockopt, sockopt},
};

pub use self::{datagram::Datagram, segment::Segment};
use crate::{
    Error,
    encode::{finish, header},
    kernel::{Reply, replies},
    reader::Attributes,
    uapi::{
        netfilter::{NF_ACCEPT, NF_DROP, NF_INET_PRE_ROUTING},
        netlink::{NLM_F_ACK, NLM_F_REQUEST},
        nfnetlink::{NFNL_SUBSYS_QUEUE, message_type},
        nfnetlink_queue::{
            NFQA_CFG_CMD, NFQA_CFG_F_FAIL_OPEN, NFQA_CFG_FLAGS, NFQA_CFG_MASK, NFQA_CFG_PARAMS,
            NFQA_CFG_QUEUE_MAXLEN, NFQA_PACKET_HDR, NFQA_PAYLOAD, NFQA_VERDICT_HDR, NFQNL_CFG_CMD_BIND,
            NFQNL_COPY_PACKET, NFQNL_MSG_CONFIG, NFQNL_MSG_PACKET, NFQNL_MSG_VERDICT,
        },
    },
};

/// The queue to which the rules of [`crate::dns_table`] send packets.
///
/// Other programs usually have 0.
pub const QUEUE: u16 = 4053;

/// The most packets that wait.
const LONGEST: u32 = 4096;

/// The receive buffer, for a burst of small messages. The kernel doubles it, and drops packets for which there is no room.
const RECEIVE_BUFFER: usize = 8 << 20;

/// The largest packet and its attributes.
const DATAGRAM: usize = 80 << 10;

/// The longest packet that is copied: all of it.
const COPY_RANGE: u32 = 0xffff;

/// How long to wait for the kernel's reply to a request. It replies at once, so this only covers a lost reply.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);

/// A packet that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuedPacket {
    /// By which [`Verdicts::decide`] names it.
    pub id: u32,
    /// Whether it has just arrived, before destination NAT; else it is about to leave.
    pub arrives: bool,
    /// Its bytes from the IP header on.
    pub bytes: Vec<u8>,
}

/// Reads the queue, in the network namespace of the thread that opened it. A queue has one reader; when that is dropped, the packets that wait are dropped, too.
#[derive(Debug)]
pub struct PacketQueue {
    socket: Arc<QueueSocket>,
    buffer: Vec<u8>,
    /// What arrived together with the kernel's last reply to a request.
    early: Vec<QueuedPacket>,
}

/// Decides about packets of a queue, from any thread. When the last one and the [`PacketQueue`] are dropped, the queue has no reader.
#[derive(Clone, Debug)]
pub struct Verdicts(Arc<QueueSocket>);

/// The kernel takes verdicts only from the socket that reads the queue.
struct QueueSocket(Socket);

impl std::fmt::Debug for QueueSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("QueueSocket").field(&self.0.as_raw_fd()).finish()
    }
}

impl QueueSocket {
    fn send(&self, datagram: &[u8]) -> io::Result<()> {
        loop {
            match send(self.0.as_raw_fd(), datagram, MsgFlags::empty()) {
                Err(Errno::EINTR) => {}
                other => return Ok(other.map(drop)?),
            }
        }
    }
}

fn failed(doing: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::Socket { doing, source }
}

impl PacketQueue {
    /// Becomes the reader of the queue. While too many packets wait, further ones are dropped, or pass with `pass_when_full`.
    ///
    /// # Errors
    /// If another program reads it, the kernel has no packet queues, or a permission is missing.
    pub fn open(pass_when_full: bool) -> Result<Self, Error> {
        let opening = failed("reading packet queue 4053, which another program may read already, of");
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_NETFILTER)?;
            if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
                setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
            }
            socket.bind_auto()?;
            // Only messages from the kernel: otherwise any process could send some.
            socket.connect(&NetlinkAddress::new(0, 0))?;
            Ok(socket)
        };
        let socket = Arc::new(QueueSocket(open().map_err(&opening)?));
        let mut queue = Self { socket, buffer: vec![0; DATAGRAM], early: Vec::new() };
        for request in [bind(), parameters(pass_when_full)] {
            queue.socket.send(&request).map_err(&opening)?;
            queue.acknowledged()?;
        }
        Ok(queue)
    }

    /// Waits for the result of a request.
    fn acknowledged(&mut self) -> Result<(), Error> {
        let opening = failed("reading packet queue 4053, which another program may read already, of");
        loop {
            if !self.wait(REPLY_TIMEOUT)? {
                return Err(Error::InvalidReply("no reply for packet queue 4053".to_owned()));
            }
            let received = self.receive()?;
            let errno = received.iter().find_map(Reply::errno);
            // Rules of an agent that ran before may lead to the queue already.
            self.early.extend(received.iter().filter_map(packet));
            match errno {
                None => {}
                Some(0) => return Ok(()),
                Some(errno) => return Err(opening(io::Error::from_raw_os_error(errno))),
            }
        }
    }

    /// Returns what decides about its packets.
    #[must_use]
    pub fn verdicts(&self) -> Verdicts {
        Verdicts(Arc::clone(&self.socket))
    }

    /// Waits until there is something to read. Returns whether there is.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn wait(&self, timeout: Duration) -> Result<bool, Error> {
        let mut sockets = [PollFd::new(self.socket.0.as_fd(), PollFlags::POLLIN)];
        match poll(&mut sockets, PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX)) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::EINTR) => Ok(false),
            Err(e) => Err(failed("waiting")(e.into())),
        }
    }

    /// Returns the packets that have arrived, at most those of one datagram; none if none has. Doesn't block.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn read(&mut self) -> Result<Vec<QueuedPacket>, Error> {
        let early = std::mem::take(&mut self.early);
        Ok(early.into_iter().chain(self.receive()?.iter().filter_map(packet)).collect())
    }

    fn receive(&mut self) -> Result<Vec<Reply>, Error> {
        match recv(self.socket.0.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(length) => Ok(self.buffer.get(..length).map_or(Vec::new(), |bytes| replies(bytes).collect())),
            // The kernel has dropped the packets for which there was no room.
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(Vec::new()),
            Err(e) if e as i32 == ENOBUFS => Ok(Vec::new()),
            Err(e) => Err(failed("reading packet queue 4053 of")(e.into())),
        }
    }
}

impl Verdicts {
    /// Lets a packet continue, or drops it. A packet that no longer waits is nothing.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn decide(&self, id: u32, accept: bool) -> Result<(), Error> {
        self.send(id, if accept { NF_ACCEPT } else { NF_DROP }, None)
    }

    /// Lets other bytes continue in place of a packet, from the IP header on. They must have the packet's addresses.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn replace(&self, id: u32, bytes: &[u8]) -> Result<(), Error> {
        self.send(id, NF_ACCEPT, Some(bytes))
    }

    fn send(&self, id: u32, verdict: i32, bytes: Option<&[u8]>) -> Result<(), Error> {
        let kind = message_type(NFNL_SUBSYS_QUEUE, NFQNL_MSG_VERDICT);
        let mut out = header(kind, NLM_F_REQUEST, 0, QUEUE);
        out.put(NFQA_VERDICT_HDR, &[verdict.to_be_bytes(), id.to_be_bytes()].concat());
        if let Some(bytes) = bytes {
            out.put(NFQA_PAYLOAD, bytes);
        }
        self.0.send(&finish(out)).map_err(failed("deciding about a packet of"))
    }
}

fn bind() -> Vec<u8> {
    let kind = message_type(NFNL_SUBSYS_QUEUE, NFQNL_MSG_CONFIG);
    let mut out = header(kind, NLM_F_REQUEST | NLM_F_ACK, 0, QUEUE);
    // `struct nfqnl_msg_config_cmd`: command, padding, and a protocol family that kernels since 3.8 ignore.
    out.put(NFQA_CFG_CMD, &[NFQNL_CFG_CMD_BIND, 0, 0, 0]);
    finish(out)
}

fn parameters(pass_when_full: bool) -> Vec<u8> {
    let kind = message_type(NFNL_SUBSYS_QUEUE, NFQNL_MSG_CONFIG);
    let mut out = header(kind, NLM_F_REQUEST | NLM_F_ACK, 0, QUEUE);
    // `struct nfqnl_msg_config_params`.
    out.put(NFQA_CFG_PARAMS, &[&COPY_RANGE.to_be_bytes()[..], &[NFQNL_COPY_PACKET]].concat());
    out.number(NFQA_CFG_QUEUE_MAXLEN, LONGEST);
    let flags = if pass_when_full { NFQA_CFG_F_FAIL_OPEN } else { 0 };
    out.number(NFQA_CFG_MASK, NFQA_CFG_F_FAIL_OPEN).number(NFQA_CFG_FLAGS, flags);
    finish(out)
}

/// Parses an `NFQNL_MSG_PACKET`.
fn packet(message: &Reply) -> Option<QueuedPacket> {
    if message.kind != message_type(NFNL_SUBSYS_QUEUE, NFQNL_MSG_PACKET) {
        return None;
    }
    let attributes = Attributes(message.attributes());
    // `struct nfqnl_msg_packet_hdr`: the id, the protocol in two bytes, then the hook in one.
    let head = attributes.get(NFQA_PACKET_HDR)?;
    let id = u32::from_be_bytes(*head.first_chunk()?);
    let arrives = u32::from(*head.get(6)?) == NF_INET_PRE_ROUTING;
    // A packet without content has to be decided, too.
    let bytes = attributes.get(NFQA_PAYLOAD).unwrap_or_default().to_vec();
    Some(QueuedPacket { id, arrives, bytes })
}

/// Reads a datagram, for [`crate::fuzzing`].
#[cfg(fuzzing)]
pub(crate) fn fuzz(datagram: &[u8]) {
    for packet in replies(datagram).filter_map(|message| packet(&message)) {
        let (datagram, segment) = (Datagram::parse(&packet.bytes), Segment::parse(&packet.bytes));
        assert!(datagram.is_none() || segment.is_none(), "one protocol");
        if let Some(datagram) = datagram {
            assert!(datagram.payload.len() + 28 <= packet.bytes.len());
            assert_eq!(datagram.source.is_ipv4(), datagram.destination.is_ipv4());
        }
        if let Some(segment) = segment {
            assert!(segment.payload.len() + 40 <= packet.bytes.len());
            let reset = segment.to_reset();
            let expected = Segment { syn: false, fin: false, reset: true, payload: b"", ..segment };
            assert_eq!(Segment::parse(&reset), Some(expected));
        }
    }
}
