//! Requests to the kernel: transactions, dumps, and single requests.

mod dump;
mod own_transactions;
mod reply;

use std::{io, sync::Arc};

use nix::libc::{EAFNOSUPPORT, EINVAL, EMSGSIZE, ENOBUFS, ENOMEM, EOPNOTSUPP, EPERM, EPROTONOSUPPORT};

use self::reply::ErrorReply;
pub(crate) use self::{
    own_transactions::OwnTransactions,
    reply::{Reply, replies},
};
use crate::{
    Error,
    encode::{Encoded, batch_begin, batch_end, element_at, finish, header},
    reader::{Attributes, ChangeDetector},
    ruleset::Message,
    socket::{NetlinkSocket, Transport},
    uapi::{
        netlink::{NLM_F_ACK, NLM_F_REQUEST},
        nf_tables::{NFT_MSG_GETGEN, NFTA_GEN_ID},
        nfnetlink::{NFNL_SUBSYS_NFTABLES, message_type},
    },
};

/// A connection to nftables and connection tracking of one network namespace.
///
/// It belongs to the namespace of the thread that opened it, and works from any thread.
pub struct Kernel {
    transport: Box<dyn Transport>,
    sequence: u32,
    own_transactions: Arc<OwnTransactions>,
    /// Detects changes by other programs while the table is read.
    pub(crate) change_detector: ChangeDetector,
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernel").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

impl Kernel {
    /// Opens a connection in the calling thread's network namespace, and checks that nftables is available.
    pub fn open() -> Result<Self, Error> {
        let socket = NetlinkSocket::open().map_err(|e| match e.raw_os_error() {
            Some(EPROTONOSUPPORT | EAFNOSUPPORT) => Error::NoNftables(e),
            Some(EPERM) => Error::NoPermission(e),
            _ => Error::Socket { doing: "opening", source: e },
        })?;
        Self::with_transport(Box::new(socket))
    }

    /// Like [`Kernel::open`], with the caller's transport.
    pub fn with_transport(transport: Box<dyn Transport>) -> Result<Self, Error> {
        let started = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(1, |t| t.subsec_nanos());
        let mut kernel = Self {
            transport,
            sequence: started,
            own_transactions: Arc::default(),
            change_detector: ChangeDetector::open(),
        };
        kernel.kernel_generation().map_err(unavailable)?;
        Ok(kernel)
    }

    /// Returns the number of the namespace's last nftables transaction, by any program.
    pub fn kernel_generation(&mut self) -> Result<u32, Error> {
        let kind = message_type(NFNL_SUBSYS_NFTABLES, NFT_MSG_GETGEN);
        self.query(kind, "transaction number of nftables", |attributes| attributes.number(NFTA_GEN_ID))
    }

    /// Sends a request without attributes, and returns the first number that `parse` finds in the replies.
    pub(crate) fn query(
        &mut self,
        kind: u16,
        what: &str,
        parse: impl Fn(Attributes<'_>) -> Option<u32>,
    ) -> Result<u32, Error> {
        let request = header(kind, NLM_F_REQUEST, 0, 0);
        let sequence = self.send_request(finish(request))?;
        loop {
            for reply in self.receive(sequence)? {
                if let Some(error) = reply.error() {
                    return Err(error.refused(what.to_owned(), 0));
                }
                if let Some(number) = parse(Attributes(reply.attributes())) {
                    return Ok(number);
                }
            }
        }
    }

    /// Returns the port of its socket, by which the kernel identifies the author of a change. 0 if unknown.
    pub(crate) fn port(&self) -> u32 {
        self.transport.port()
    }

    /// Returns the numbers of the transactions sent through this connection.
    pub(crate) fn own_transactions(&self) -> &Arc<OwnTransactions> {
        &self.own_transactions
    }

    /// Returns a number that no earlier call returned.
    pub(crate) fn next_sequence(&mut self) -> u32 {
        self.sequences(1)
    }

    /// Returns the size of the largest batch that can be sent.
    pub(crate) fn max_datagram(&self) -> usize {
        self.transport.max_datagram()
    }

    /// Sends messages as one transaction: all of them take effect, or none. Returns the number of bytes sent.
    pub(crate) fn transaction(&mut self, messages: &[&Encoded]) -> Result<usize, Error> {
        let begin = self.sequences(messages.len() as u32 + 2);
        let mut batch = batch_begin(begin);
        let last = messages.len() - 1;
        for (index, message) in messages.iter().enumerate() {
            // One acknowledgement is enough for success. Errors are always reported.
            message.append(&mut batch, begin + 1 + index as u32, index == last);
        }
        batch.extend(batch_end(begin + 1 + messages.len() as u32));
        self.send(&batch)?;
        self.read_result(begin, messages)?;
        Ok(batch.len())
    }

    /// Sends one message as a transaction. Its sequence number is filled in.
    pub(crate) fn transaction_of_one(
        &mut self,
        mut message: Vec<u8>,
        describe: impl Fn() -> String,
    ) -> Result<(), Error> {
        let begin = self.sequences(3);
        if let Some(flags) = message.get_mut(6) {
            *flags |= NLM_F_ACK as u8;
        }
        message[8..12].copy_from_slice(&(begin + 1).to_ne_bytes());
        self.send(&[batch_begin(begin), message, batch_end(begin + 2)].concat())?;
        loop {
            for reply in self.receive_batch(begin)? {
                match reply.error() {
                    Some(error) => return Err(error.refused(describe(), 0)),
                    None if reply.is_ack() && reply.sequence == begin + 1 => return Ok(()),
                    None => {}
                }
            }
        }
    }

    /// Reads all replies to a batch.
    fn read_result(&mut self, begin: u32, messages: &[&Encoded]) -> Result<(), Error> {
        let (mut acknowledged, mut lost) = (false, false);
        let mut errors: Vec<(u32, ErrorReply)> = Vec::new();
        loop {
            // All replies were queued before the send returned, so only the first may have to be waited for.
            let wait = !acknowledged && !lost && errors.is_empty();
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
                match reply.error() {
                    Some(error) => errors.push((index, error)),
                    None if reply.is_ack() && index == messages.len() as u32 => acknowledged = true,
                    None => {}
                }
            }
        }
        if !errors.is_empty() {
            return Err(first_error(errors, messages));
        }
        if acknowledged {
            return Ok(());
        }
        Err(Error::InvalidReply("no acknowledgement of a transaction".to_owned()))
    }

    /// Sends one request outside a transaction, with additional `NLM_F_*` flags, and waits for its acknowledgement.
    pub(crate) fn request(
        &mut self,
        kind: u16,
        flags: u16,
        family: u8,
        body: &[u8],
        describe: &dyn Fn() -> String,
    ) -> Result<(), Error> {
        let mut request = header(kind, NLM_F_REQUEST | NLM_F_ACK | flags, family, 0);
        request.raw(body);
        let sequence = self.send_request(finish(request))?;
        loop {
            for reply in self.receive(sequence)? {
                match reply.error() {
                    Some(error) => return Err(error.refused(describe(), 0)),
                    None if reply.is_ack() => return Ok(()),
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

    /// Waits for one datagram. Returns its messages with this sequence number.
    fn receive(&mut self, sequence: u32) -> Result<Vec<Reply>, Error> {
        Ok(self.receive_any()?.into_iter().filter(|reply| reply.sequence == sequence).collect())
    }

    /// Waits for one datagram. Returns its messages that belong to a batch of one message.
    fn receive_batch(&mut self, begin: u32) -> Result<Vec<Reply>, Error> {
        let in_batch = |reply: &Reply| reply.sequence.wrapping_sub(begin) <= 2;
        Ok(self.receive_any()?.into_iter().filter(in_batch).collect())
    }

    fn receive_any(&mut self) -> Result<Vec<Reply>, Error> {
        loop {
            match self.transport.receive(true) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    return Err(Error::InvalidReply("none arrived".to_owned()));
                }
                Err(source) => return Err(Error::Socket { doing: "receiving", source }),
                Ok(datagram) => return Ok(replies(&datagram).collect()),
            }
        }
    }

    /// Reserves `count` consecutive sequence numbers and returns the first. None is 0, and they don't wrap around.
    fn sequences(&mut self, count: u32) -> u32 {
        let first = match self.sequence.checked_add(count) {
            Some(_) if self.sequence > 0 => self.sequence,
            _ => 1,
        };
        self.sequence = first + count;
        first
    }
}

/// Returns whether a batch failed because it was too large for the socket or for the kernel's memory.
pub(crate) fn too_large(error: &Error) -> bool {
    matches!(error, Error::Socket { doing: "sending", source }
        if matches!(source.raw_os_error(), Some(EMSGSIZE | ENOBUFS | ENOMEM)))
}

/// Turns the first failure on a kernel without nftables, or without permission, into a specific error.
fn unavailable(error: Error) -> Error {
    match error.os_error() {
        Some(n @ EPERM) => Error::NoPermission(io::Error::from_raw_os_error(n)),
        // nfnetlink returns EINVAL for a subsystem that it doesn't know.
        Some(n @ (EINVAL | EOPNOTSUPP | EAFNOSUPPORT | EPROTONOSUPPORT)) => {
            Error::NoNftables(io::Error::from_raw_os_error(n))
        }
        _ => error,
    }
}

/// Turns the errors of a batch into one error, which names the object of the first.
fn first_error(mut errors: Vec<(u32, ErrorReply)>, messages: &[&Encoded]) -> Error {
    errors.sort_by_key(|(index, _)| *index);
    let more = errors.len() - 1;
    let (index, error) = errors.swap_remove(0);
    let message = (index as usize).checked_sub(1).and_then(|index| messages.get(index)).map(|m| &m.message);
    if matches!(message, Some(Message::CreateTable)) && matches!(error.errno, EOPNOTSUPP | EAFNOSUPPORT) {
        return Error::NoNftables(io::Error::from_raw_os_error(error.errno));
    }
    if error.errno == EPERM {
        return Error::NoPermission(io::Error::from_raw_os_error(EPERM));
    }
    let object = match message {
        Some(message) => {
            let element = error.offset.and_then(|offset| element_at(message, offset));
            element.and_then(|e| message.describe_element(e)).unwrap_or_else(|| message.describe())
        }
        None => "transaction as a whole".to_owned(),
    };
    error.refused(object, more)
}

#[cfg(test)]
mod dump_tests;
