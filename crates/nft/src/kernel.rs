//! Conversations with the kernel: a transaction, a dump, a single request.

mod dump;

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use nix::libc::{EAFNOSUPPORT, EINVAL, EMSGSIZE, ENOBUFS, ENOMEM, EOPNOTSUPP, EPERM, EPROTONOSUPPORT};

use crate::{
    Error,
    encode::{Encoded, attributes::Attributes as Writer, batch_begin, batch_end, element_at, finish, header},
    reader::{Attributes, Witness, text},
    ruleset::Message,
    socket::{NetlinkSocket, Transport},
};

/// `NFNL_SUBSYS_NFTABLES`, `NFT_MSG_GETGEN`, `NFPROTO_INET`.
pub(crate) const NFTABLES: u16 = 10;
const GETGEN: u16 = 16;
pub(crate) const INET: u8 = 1;

/// `NLM_F_REQUEST`, `NLM_F_ACK`, `NLM_F_DUMP`.
pub(crate) const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;

/// `NLM_F_DUMP_INTR`: what was listed changed meanwhile.
const INTERRUPTED: u16 = 0x10;
/// `NLM_F_ACK_TLVS`, `NLM_F_CAPPED`.
const EXTENDED: u16 = 0x200;
const CAPPED: u16 = 0x100;

/// `NLMSG_ERROR`, `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// The bytes of a netlink header and of the `nfgenmsg` behind it.
const HEADER: usize = 16;
const GENERIC: usize = 4;

/// How often a dump is begun again that others' changes disturbed.
const DUMP_ATTEMPTS: usize = 8;

/// The same where the listing is short, and most attempts end before the next transaction of a busy program begins.
const SHORT_DUMP_ATTEMPTS: usize = 1024;

/// How often in a row the rest of a listing that was given up may be lost before it counts as read.
const LOST_IN_A_ROW: usize = 64;

/// A connection to one network namespace's nftables and connection tracking.
///
/// It belongs to the namespace of the thread that opened it, and works from any thread.
pub struct Kernel {
    transport: Box<dyn Transport>,
    sequence: u32,
    written: Arc<Written>,
    /// Hears of what others change while our table is read.
    pub(crate) witness: Witness,
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernel").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

/// The numbers that our last transactions carry: by them we know them again when the kernel tells of them.
#[derive(Debug, Default)]
pub(crate) struct Written(Mutex<VecDeque<u32>>);

impl Written {
    /// As many are remembered. Whoever listens is not so far behind, or has lost something anyway.
    const REMEMBERED: usize = 1024;

    /// Notes the number of a transaction that is about to be sent.
    pub(crate) fn note(&self, number: u32) {
        let mut numbers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        numbers.truncate(Self::REMEMBERED - 1);
        numbers.push_front(number);
    }

    /// Whether a transaction with this number was ours.
    pub(crate) fn has(&self, number: u32) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&number)
    }
}

/// One message of an answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    /// The port of the socket that asked for what this tells.
    pub(crate) port: u32,
    /// What follows the netlink header.
    pub(crate) payload: Vec<u8>,
}

/// What the kernel says to one message.
struct Complaint {
    errno: i32,
    words: Option<String>,
    offset: Option<usize>,
}

impl Kernel {
    /// Opens a connection in the calling thread's network namespace, and asks whether nftables answers there.
    pub fn open() -> Result<Self, Error> {
        let socket = NetlinkSocket::open().map_err(|e| match e.raw_os_error() {
            Some(EPROTONOSUPPORT | EAFNOSUPPORT) => Error::NoNftables(e),
            Some(EPERM) => Error::NoPermission(e),
            _ => Error::Socket { doing: "opening", source: e },
        })?;
        Self::with_transport(Box::new(socket))
    }

    /// Like [`Kernel::open`], over a transport of the caller's.
    pub fn with_transport(transport: Box<dyn Transport>) -> Result<Self, Error> {
        let started = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(1, |t| t.subsec_nanos());
        let mut kernel =
            Self { transport, sequence: started, written: Arc::default(), witness: Witness::open() };
        kernel.kernel_generation().map_err(unavailable)?;
        Ok(kernel)
    }

    /// The number of the namespace's last nftables transaction, by whomever.
    pub fn kernel_generation(&mut self) -> Result<u32, Error> {
        let request = header((NFTABLES << 8) | GETGEN, REQUEST, 0, 0);
        let sequence = self.send_request(finish(request))?;
        loop {
            for reply in self.receive(sequence)? {
                if let Some(complaint) = reply.complaint() {
                    return Err(complaint.refused("transaction number of nftables".to_owned(), 0));
                }
                // NFTA_GEN_ID
                if let Some(id) = Attributes(reply.attributes()).number(1) {
                    return Ok(id);
                }
            }
        }
    }

    /// The port of its socket, by which the kernel names who changed a table; 0 if unknown.
    pub(crate) fn port(&self) -> u32 {
        self.transport.port()
    }

    /// The numbers that were written through this connection.
    pub(crate) fn written(&self) -> &Arc<Written> {
        &self.written
    }

    /// A number that no earlier call gave.
    pub(crate) fn next_sequence(&mut self) -> u32 {
        self.sequences(1)
    }

    /// The largest batch that can be sent at once.
    pub(crate) fn largest(&self) -> usize {
        self.transport.largest()
    }

    /// Sends messages as one transaction: all of them take effect, or none. Gives the bytes sent.
    pub(crate) fn transaction(&mut self, messages: &[&Encoded]) -> Result<usize, Error> {
        let begin = self.sequences(messages.len() as u32 + 2);
        let mut batch = batch_begin(begin);
        let last = messages.len() - 1;
        for (index, message) in messages.iter().enumerate() {
            // One acknowledgement says that all is well; errors are sent in any case.
            message.append(&mut batch, begin + 1 + index as u32, index == last);
        }
        batch.extend(batch_end(begin + 1 + messages.len() as u32));
        self.send(&batch)?;
        self.verdict(begin, messages)?;
        Ok(batch.len())
    }

    /// Performs one message, whose sequence number is filled in, as a transaction.
    pub(crate) fn transaction_of_one(
        &mut self,
        mut message: Vec<u8>,
        about: impl Fn() -> String,
    ) -> Result<(), Error> {
        let begin = self.sequences(3);
        if let Some(flags) = message.get_mut(6) {
            *flags |= ACK as u8;
        }
        message[8..12].copy_from_slice(&(begin + 1).to_ne_bytes());
        self.send(&[batch_begin(begin), message, batch_end(begin + 2)].concat())?;
        loop {
            for reply in self.receive_batch(begin)? {
                match reply.complaint() {
                    Some(complaint) => return Err(complaint.refused(about(), 0)),
                    None if reply.kind == ERROR && reply.sequence == begin + 1 => return Ok(()),
                    None => {}
                }
            }
        }
    }

    /// Reads everything that was answered to a batch.
    fn verdict(&mut self, begin: u32, messages: &[&Encoded]) -> Result<(), Error> {
        let (mut acknowledged, mut lost) = (false, false);
        let mut complaints: Vec<(u32, Complaint)> = Vec::new();
        loop {
            // Answers were queued before the send returned: wait for the first alone.
            let wait = !acknowledged && !lost && complaints.is_empty();
            let datagram = match self.transport.receive(wait) {
                Ok(datagram) => datagram,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.raw_os_error() == Some(ENOBUFS) => {
                    lost = true;
                    continue;
                }
                Err(e) => return Err(Error::Socket { doing: "receiving", source: e }),
            };
            for reply in replies(&datagram) {
                let index = reply.sequence.wrapping_sub(begin);
                if index > messages.len() as u32 + 1 {
                    continue;
                }
                match reply.complaint() {
                    Some(complaint) => complaints.push((index, complaint)),
                    None if reply.kind == ERROR && index == messages.len() as u32 => acknowledged = true,
                    None => {}
                }
            }
        }
        if !complaints.is_empty() {
            return Err(blame(complaints, messages));
        }
        if acknowledged {
            return Ok(());
        }
        Err(Error::Answer("no acknowledgement of a transaction".to_owned()))
    }

    /// Sends one request outside a transaction, with these `NLM_F_*` flags besides, and waits for its acknowledgement.
    pub(crate) fn request(
        &mut self,
        kind: u16,
        flags: u16,
        family: u8,
        body: &[u8],
        about: &dyn Fn() -> String,
    ) -> Result<(), Error> {
        let mut request = header(kind, REQUEST | ACK | flags, family, 0);
        request.raw(body);
        let sequence = self.send_request(finish(request))?;
        loop {
            for reply in self.receive(sequence)? {
                match reply.complaint() {
                    Some(complaint) => return Err(complaint.refused(about(), 0)),
                    None if reply.kind == ERROR => return Ok(()),
                    None => {}
                }
            }
        }
    }

    fn send_request(&mut self, mut request: Vec<u8>) -> Result<u32, Error> {
        let sequence = self.sequences(1);
        request[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.send(&request)?;
        Ok(sequence)
    }

    fn send(&mut self, datagram: &[u8]) -> Result<(), Error> {
        loop {
            match self.transport.send(datagram) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(Error::Socket { doing: "sending", source }),
                Ok(()) => return Ok(()),
            }
        }
    }

    /// Waits for one datagram; gives the messages of it that answer `sequence`.
    fn receive(&mut self, sequence: u32) -> Result<Vec<Reply>, Error> {
        Ok(self.receive_any()?.into_iter().filter(|reply| reply.sequence == sequence).collect())
    }

    /// Waits for one datagram; gives its messages that answer a batch of one message.
    fn receive_batch(&mut self, begin: u32) -> Result<Vec<Reply>, Error> {
        let is_ours = |reply: &Reply| reply.sequence.wrapping_sub(begin) <= 2;
        Ok(self.receive_any()?.into_iter().filter(is_ours).collect())
    }

    fn receive_any(&mut self) -> Result<Vec<Reply>, Error> {
        loop {
            match self.transport.receive(true) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    return Err(Error::Answer("none came".to_owned()));
                }
                Err(source) => return Err(Error::Socket { doing: "receiving", source }),
                Ok(datagram) => return Ok(replies(&datagram).collect()),
            }
        }
    }

    /// Takes `count` consecutive sequence numbers, the first of which it gives. None is 0, and none wraps round.
    fn sequences(&mut self, count: u32) -> u32 {
        let first = match self.sequence.checked_add(count) {
            Some(_) if self.sequence > 0 => self.sequence,
            _ => 1,
        };
        self.sequence = first + count;
        first
    }
}

/// Whether a batch failed because it was too large for the socket or for the kernel's memory.
pub(crate) fn too_large(error: &Error) -> bool {
    matches!(error, Error::Socket { doing: "sending", source }
        if matches!(source.raw_os_error(), Some(EMSGSIZE | ENOBUFS | ENOMEM)))
}

/// Puts what fails first on a kernel without nftables, or without rights, into words.
fn unavailable(error: Error) -> Error {
    match error.os_error() {
        Some(n @ EPERM) => Error::NoPermission(io::Error::from_raw_os_error(n)),
        // nfnetlink says EINVAL to a subsystem that it does not know.
        Some(n @ (EINVAL | EOPNOTSUPP | EAFNOSUPPORT | EPROTONOSUPPORT)) => {
            Error::NoNftables(io::Error::from_raw_os_error(n))
        }
        _ => error,
    }
}

/// Turns the complaints about a batch into one error: the first names the object.
fn blame(mut complaints: Vec<(u32, Complaint)>, messages: &[&Encoded]) -> Error {
    complaints.sort_by_key(|(index, _)| *index);
    let more = complaints.len() - 1;
    let (index, complaint) = complaints.swap_remove(0);
    let message = (index as usize).checked_sub(1).and_then(|index| messages.get(index)).map(|m| &m.message);
    if matches!(message, Some(Message::CreateTable)) && matches!(complaint.errno, EOPNOTSUPP | EAFNOSUPPORT) {
        return Error::NoNftables(io::Error::from_raw_os_error(complaint.errno));
    }
    if complaint.errno == EPERM {
        return Error::NoPermission(io::Error::from_raw_os_error(EPERM));
    }
    let about = match message {
        Some(message) => {
            let element = complaint.offset.and_then(|offset| element_at(message, offset));
            element.and_then(|e| message.about_element(e)).unwrap_or_else(|| message.about())
        }
        None => "transaction as a whole".to_owned(),
    };
    complaint.refused(about, more)
}

impl Complaint {
    fn refused(self, about: String, more: usize) -> Error {
        let reason = io::Error::from_raw_os_error(self.errno);
        Error::Refused { about, reason, kernel_says: self.words, more }
    }
}

impl Reply {
    /// The attributes behind the `nfgenmsg`.
    pub(crate) fn attributes(&self) -> &[u8] {
        self.payload.get(GENERIC..).unwrap_or_default()
    }

    /// The error number that it reports; 0 for an acknowledgement, none if it is neither.
    pub(crate) fn verdict(&self) -> Option<i32> {
        (self.kind == ERROR).then(|| self.complaint().map_or(0, |c| c.errno))
    }

    /// The error that it reports, if it is one.
    fn complaint(&self) -> Option<Complaint> {
        let number = || Some(i32::from_ne_bytes(self.payload.get(..4)?.try_into().ok()?));
        let errno = match self.kind {
            ERROR => -number()?,
            // A dump that fails after its first reply ends with the error in its last.
            DONE => -number().unwrap_or(0),
            _ => return None,
        };
        if errno <= 0 {
            return None;
        }
        let extended = if self.kind == ERROR && self.flags & EXTENDED != 0 { self.extended() } else { &[] };
        Some(Complaint {
            errno,
            words: Attributes(extended).get(1).map(text).filter(|t| !t.is_empty()),
            offset: Attributes(extended)
                .get(2)
                .and_then(|o| Some(u32::from_ne_bytes(o.get(..4)?.try_into().ok()?) as usize)),
        })
    }

    /// The attributes of an extended acknowledgement: behind the error and the copied header or message.
    fn extended(&self) -> &[u8] {
        let copied = match self.payload.get(4..8) {
            Some(length) if self.flags & CAPPED == 0 => {
                u32::from_ne_bytes(length.try_into().unwrap_or_default()) as usize
            }
            _ => HEADER,
        };
        self.payload.get(4 + copied.next_multiple_of(4)..).unwrap_or_default()
    }
}

/// Splits a datagram. Ends at the first message that does not fit.
pub(crate) fn replies(mut datagram: &[u8]) -> impl Iterator<Item = Reply> {
    std::iter::from_fn(move || {
        let head: &[u8; HEADER] = datagram.get(..HEADER)?.try_into().ok()?;
        let length = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let payload = datagram.get(HEADER..length)?.to_vec();
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Reply {
            kind: u16::from_ne_bytes([head[4], head[5]]),
            flags: u16::from_ne_bytes([head[6], head[7]]),
            sequence: u32::from_ne_bytes([head[8], head[9], head[10], head[11]]),
            port: u32::from_ne_bytes([head[12], head[13], head[14], head[15]]),
            payload,
        })
    })
}

/// A clock reading, for durations in reports only.
pub(crate) fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod dump_tests;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_end_at_the_first_that_does_not_fit() {
        let mut one = vec![0; 20];
        one[..4].copy_from_slice(&20u32.to_ne_bytes());
        assert_eq!(replies(&one).count(), 1);
        assert_eq!(replies(&[&one[..], &one[..19]].concat()).count(), 1);
        one[..4].copy_from_slice(&4u32.to_ne_bytes());
        assert_eq!(replies(&one).count(), 0);
    }
}
