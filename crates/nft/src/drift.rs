//! Detects changes of the agent's tables by other programs.
//!
//! The kernel notifies subscribers of every change of nftables. A socket filter drops the notifications of the agent's own
//! transactions, by the port of the socket that sent them, so that a large commit doesn't crowd out changes by others.
//! Kernels differ in which port they report, so the watcher also recognizes the agent's transactions by the number that each
//! of them writes to the table. If the filter doesn't help and the agent's own notifications overrun the buffer, the watcher
//! reports [`Drift::Overrun`]. That is no sign of another program; the caller should verify, which changes nothing.
//!
//! A [`Drift`] is a hint. [`Enforcer::repair`](crate::Enforcer::repair) reads the kernel and repairs differences,
//! [`verify`](crate::verify()) only reports them.

use std::{
    collections::VecDeque,
    fmt, mem,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::Duration,
};

use nix::libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W};
use socket2::{SockFilter, SockRef};

use crate::{
    Error, Kernel,
    cut_off::CUT_OFF_TABLE,
    kernel::{OwnTransactions, Reply, replies},
    reader::Attributes,
    ruleset::{GENERATION_SET, TABLE},
    subscription::{RECEIVE_BUFFER, Received, Subscription},
    uapi::{
        netfilter::{NFPROTO_BRIDGE, NFPROTO_INET},
        nf_tables::*,
        nfnetlink::{NFNL_SUBSYS_NFTABLES, NFNLGRP_NFTABLES, message_of, subsystem_of},
    },
};

/// A possible change by another program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Drift {
    /// A program changed one of the agent's tables.
    Changed {
        /// How many objects the transaction created, changed or deleted.
        objects: usize,
        /// The first of them: `removal of chain forward`.
        first: String,
        /// The program.
        by: TransactionAuthor,
        /// Whether the transaction deleted the table.
        gone: bool,
    },
    /// Notifications were lost. The agent's tables may have changed.
    Overrun,
}

/// The process that sent a transaction, as the kernel reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransactionAuthor {
    /// Its process id in the initial PID namespace.
    pub process: Option<u32>,
    /// Its name, of at most 15 bytes.
    pub name: Option<String>,
}

impl fmt::Display for TransactionAuthor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.name, self.process) {
            (Some(name), Some(process)) => write!(f, "{name} (process {process})"),
            (Some(name), None) => f.write_str(name),
            (None, Some(process)) => write!(f, "process {process}"),
            (None, None) => f.write_str("an unknown process"),
        }
    }
}

impl Drift {
    /// Returns whether the table is known to be deleted, so that [`Enforcer::recreate`](crate::Enforcer::recreate) can
    /// restore it without reading the kernel.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Changed { gone: true, .. })
    }
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed { objects: 1, first, by, .. } => {
                write!(f, "{by} changed table inet {TABLE}: {first}")
            }
            Self::Changed { objects, first, by, .. } => {
                write!(f, "{by} changed table inet {TABLE}: {first} and {} more objects", objects - 1)
            }
            Self::Overrun => f.write_str("nftables changed faster than notifications could be read"),
        }
    }
}

/// Watches nftables in the network namespace of the thread that opened it.
///
/// The file descriptor (`AsFd`) is readable when [`Watcher::read`] may return something. Reading never blocks.
#[derive(Debug)]
pub struct Watcher {
    subscription: Subscription,
    tracker: TransactionTracker,
    /// What [`Watcher::read`] returns next.
    ready: VecDeque<Drift>,
}

/// Collects the notifications of one transaction.
#[derive(Debug, Default)]
struct TransactionTracker {
    /// The port of the agent's own connection, 0 if unknown.
    own_port: u32,
    /// The numbers of its transactions.
    own_transactions: Arc<OwnTransactions>,
    /// Whether the agent sent this transaction.
    is_own: bool,
    /// How many objects of the agent's tables it has changed so far.
    objects: usize,
    first: Option<String>,
    /// Whether it has deleted the table, and not created it again.
    gone: bool,
}

impl Watcher {
    /// Subscribes to changes. Changes through `own` are not reported: a caller that opens another connection must open
    /// another watcher.
    ///
    /// # Errors
    /// If the kernel has no nftables, or the process may not subscribe.
    pub fn open(own: &Kernel) -> Result<Self, Error> {
        let own_port = own.port();
        let subscription = Subscription::open(RECEIVE_BUFFER, |socket| {
            if own_port != 0 {
                SockRef::from(&*socket).attach_filter(&not_from(own_port))?;
            }
            socket.add_membership(NFNLGRP_NFTABLES)
        });
        let subscription = subscription
            .map_err(|source| Error::Socket { doing: "subscribing to changes of nftables", source })?;
        let own_transactions = Arc::clone(own.own_transactions());
        let tracker = TransactionTracker { own_port, own_transactions, ..TransactionTracker::default() };
        Ok(Self { subscription, tracker, ready: VecDeque::new() })
    }

    /// Returns the next change by another program, if one has been reported.
    ///
    /// # Errors
    /// If the socket fails. Notifications may be lost then, as with [`Drift::Overrun`].
    pub fn read(&mut self) -> Result<Option<Drift>, Error> {
        loop {
            if let Some(drift) = self.ready.pop_front() {
                return Ok(Some(drift));
            }
            let messages: Vec<Reply> = match self.subscription.receive() {
                Ok(Received::Datagram(datagram)) => replies(datagram).collect(),
                Ok(Received::Overrun) => {
                    self.tracker.reset();
                    return Ok(Some(Drift::Overrun));
                }
                Ok(Received::Nothing) => return Ok(None),
                Err(source) => {
                    // The end of a transaction may be missing, and the next one is another program's.
                    self.tracker.reset();
                    return Err(Error::Socket { doing: "reading changes of nftables", source });
                }
            };
            for message in &messages {
                let drift = self.tracker.observe(message);
                self.ready.extend(drift);
            }
        }
    }

    /// Waits until there may be something to read. Returns whether there is.
    ///
    /// # Errors
    /// If polling fails.
    pub fn wait(&self, timeout: Duration) -> Result<bool, Error> {
        self.subscription.wait(timeout).map_err(|source| Error::Socket { doing: "waiting", source })
    }
}

impl TransactionTracker {
    fn reset(&mut self) {
        (self.is_own, self.objects, self.first, self.gone) = (false, 0, None, false);
    }

    /// Processes a notification. Returns the change at the end of a transaction by another program.
    fn observe(&mut self, message: &Reply) -> Option<Drift> {
        if subsystem_of(message.kind) != NFNL_SUBSYS_NFTABLES {
            return None;
        }
        self.is_own |= self.own_port != 0 && message.port == self.own_port;
        let (kind, attributes) = (message_of(message.kind), Attributes(message.attributes()));
        if kind == NFT_MSG_NEWGEN {
            let (objects, first, is_own) = (self.objects, self.first.take(), mem::take(&mut self.is_own));
            self.objects = 0;
            let (process, name) = (attributes.number(NFTA_GEN_PROC_PID), attributes.text(NFTA_GEN_PROC_NAME));
            let by = TransactionAuthor { process, name };
            let gone = mem::take(&mut self.gone);
            return first.filter(|_| !is_own).map(|first| Drift::Changed { objects, first, by, gone });
        }
        let family = message.family()?;
        if ![NFPROTO_INET, NFPROTO_BRIDGE].contains(&family) {
            return None;
        }
        // The table's name is the first attribute of every kind of object.
        let table = attributes.text(NFTA_TABLE_NAME);
        let is_bridge = family == NFPROTO_BRIDGE;
        let is_cut_off = !is_bridge && table.as_deref() == Some(CUT_OFF_TABLE);
        if table.as_deref() != Some(TABLE) && !is_cut_off {
            return None;
        }
        let is_main = !is_bridge && !is_cut_off;
        match kind {
            NFT_MSG_DELTABLE if is_main => self.gone = true,
            NFT_MSG_NEWTABLE if is_main => self.gone = false,
            _ => {}
        }
        self.is_own |= kind == NFT_MSG_NEWSETELEM
            && generations(attributes).any(|number| self.own_transactions.contains(number));
        self.objects += 1;
        let describe = || match (is_bridge, is_cut_off) {
            (true, _) => format!("{} of table bridge palisade", describe(kind, attributes)),
            (_, true) => format!("{} of {CUT_OFF_TABLE}", describe(kind, attributes)),
            _ => describe(kind, attributes),
        };
        self.first.get_or_insert_with(describe);
        None
    }
}

/// Reads a datagram, for [`crate::fuzzing`].
#[cfg(fuzzing)]
pub(crate) fn fuzz(datagram: &[u8]) {
    let mut tracker = TransactionTracker::default();
    for drift in replies(datagram).filter_map(|message| tracker.observe(&message)) {
        assert!(!drift.to_string().is_empty());
        assert!(matches!(drift, Drift::Changed { objects: 1.., .. }), "{drift:?}");
    }
}

/// Returns the numbers that a message adds to the set of transaction numbers. Empty for another set.
fn generations(attributes: Attributes<'_>) -> impl Iterator<Item = u32> {
    let is_generation_set = attributes.text(NFTA_SET_ELEM_LIST_SET).as_deref() == Some(GENERATION_SET);
    let elements = attributes.nested(NFTA_SET_ELEM_LIST_ELEMENTS).filter(|_| is_generation_set);
    elements.into_iter().flatten().filter_map(|(_, element)| {
        let key = Attributes(element).nested(NFTA_SET_ELEM_KEY)?.get(NFTA_DATA_VALUE)?;
        Some(u32::from_ne_bytes(key.try_into().ok()?))
    })
}

impl AsFd for Watcher {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.subscription.as_fd()
    }
}

/// Describes the object of a notification.
fn describe(kind: u16, attributes: Attributes<'_>) -> String {
    let named = |what: &str, name: u16| match attributes.text(name) {
        Some(name) => format!("{what} {name}"),
        None => what.to_owned(),
    };
    match kind {
        NFT_MSG_NEWTABLE => "the table itself".to_owned(),
        NFT_MSG_DELTABLE => "removal of the table".to_owned(),
        NFT_MSG_NEWCHAIN => named("chain", NFTA_CHAIN_NAME),
        NFT_MSG_DELCHAIN => named("removal of chain", NFTA_CHAIN_NAME),
        NFT_MSG_NEWRULE => named("a rule of chain", NFTA_RULE_CHAIN),
        NFT_MSG_DELRULE => named("removal of a rule of chain", NFTA_RULE_CHAIN),
        NFT_MSG_NEWSET => named("set", NFTA_SET_NAME),
        NFT_MSG_DELSET => named("removal of set", NFTA_SET_NAME),
        NFT_MSG_NEWSETELEM => named("elements into set", NFTA_SET_ELEM_LIST_SET),
        NFT_MSG_DELSETELEM => named("elements out of set", NFTA_SET_ELEM_LIST_SET),
        _ => "an object of another kind".to_owned(),
    }
}

/// Returns a socket filter that drops what the socket with this port caused. The kernel combines only notifications of
/// the same transaction in one datagram.
fn not_from(port: u32) -> [SockFilter; 4] {
    const LOAD: u16 = (BPF_LD | BPF_W | BPF_ABS) as u16;
    const EQUAL: u16 = (BPF_JMP | BPF_JEQ | BPF_K) as u16;
    const RETURN: u16 = (BPF_RET | BPF_K) as u16;
    /// Of `nlmsg_pid` in `struct nlmsghdr`.
    const PORT_OFFSET: u32 = 12;
    // `nlmsg_pid` is in host byte order, but the filter loads it as if in network byte order.
    let port = u32::from_be_bytes(port.to_ne_bytes());
    [
        SockFilter::new(LOAD, 0, 0, PORT_OFFSET),
        SockFilter::new(EQUAL, 0, 1, port),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ]
}

#[cfg(test)]
mod tests;
