//! Who else touches our table.
//!
//! The kernel tells every change of nftables to those who listen. Our own transactions are filtered out in the kernel,
//! by the port of the socket that sent them, so that a large commit of ours can't drown what others do. Kernels differ in
//! which port they name, so what comes all the same is known by the number that each of our transactions writes into the table.
//! Should our own drown the rest where the filter doesn't help, a [`Drift::Overrun`] comes of it: not a sign of others, and to
//! be followed by a look that changes nothing.
//!
//! A [`Drift`] is a hint to look: [`Enforcer::repair`](crate::Enforcer::repair) reads the kernel and mends what differs,
//! [`verify`](crate::verify()) says what does.

use std::{
    collections::VecDeque,
    fmt, mem,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::Duration,
};

use socket2::{SockFilter, SockRef};

use crate::{
    Error, Kernel,
    cut_off::CUT_OFF_TABLE,
    kernel::{Reply, Written, replies},
    reader::Attributes,
    ruleset::{GENERATION_SET, TABLE},
    subscription::{RECEIVE_BUFFER, Received, Subscription},
};

/// `NFNLGRP_NFTABLES`.
pub(crate) const GROUP: u32 = 7;

/// `NFNL_SUBSYS_NFTABLES`, the message of new elements (`NFT_MSG_NEWSETELEM`), and the one that ends what is told of a
/// transaction (`NFT_MSG_NEWGEN`).
pub(crate) const NFTABLES: u16 = 10;
const NEWSETELEM: u16 = 12;
pub(crate) const NEWGEN: u16 = 15;

/// `NFT_MSG_NEWTABLE`, `NFT_MSG_DELTABLE`.
const NEWTABLE: u16 = 0;
const DELTABLE: u16 = 2;

/// `NFPROTO_INET`, `NFPROTO_BRIDGE`.
pub(crate) const INET: u8 = 1;
pub(crate) const BRIDGE: u8 = 7;

/// Something that was not us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Drift {
    /// Somebody changed our table.
    Touched {
        /// How many objects of it the transaction made, changed or removed.
        objects: usize,
        /// The first of them, in words: `removal of chain forward`.
        first: String,
        /// Who.
        by: Culprit,
        /// Whether the table is gone after it.
        gone: bool,
    },
    /// More happened than could be kept: our table may be among it.
    Overrun,
}

/// The process that sent a transaction, as the kernel knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Culprit {
    /// Its process id, outside all containers.
    pub process: Option<u32>,
    /// Its name, at most 15 bytes.
    pub name: Option<String>,
}

impl fmt::Display for Culprit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.name, self.process) {
            (Some(name), Some(process)) => write!(f, "{name} (process {process})"),
            (Some(name), None) => f.write_str(name),
            (None, Some(process)) => write!(f, "process {process}"),
            (None, None) => f.write_str("a process that the kernel does not name"),
        }
    }
}

impl Drift {
    /// Whether the table is known to be gone: [`Enforcer::remake`](crate::Enforcer::remake) needs no reading then.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Touched { gone: true, .. })
    }
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Touched { objects: 1, first, by, .. } => {
                write!(f, "{by} changed table inet {TABLE}: {first}")
            }
            Self::Touched { objects, first, by, .. } => {
                write!(f, "{by} changed table inet {TABLE}: {first} and {} more objects", objects - 1)
            }
            Self::Overrun => f.write_str("nftables changed faster than it could be followed"),
        }
    }
}

/// Listens to changes of nftables in the network namespace of the thread that opened it. Readable (`AsFd`) when there may
/// be something to [`Watcher::read`]; never blocks.
#[derive(Debug)]
pub struct Watcher {
    subscription: Subscription,
    telling: Telling,
    /// Told and not read yet.
    ready: VecDeque<Drift>,
}

/// What is being told of one transaction.
#[derive(Debug, Default)]
struct Telling {
    /// The port of the connection that is ours; 0 if unknown.
    ours: u32,
    /// The numbers that were written through it.
    written: Arc<Written>,
    /// Whether this transaction is ours.
    is_own: bool,
    /// What of our tables it has touched so far.
    touched: usize,
    first: Option<String>,
    /// Whether it has removed the table of the plan, and made none since.
    gone: bool,
}

impl Watcher {
    /// Begins to listen. Changes made through `ours` are not told: open another watcher when another connection is used.
    ///
    /// # Errors
    /// Where the kernel has no nftables, or the process no right to listen.
    pub fn open(ours: &Kernel) -> Result<Self, Error> {
        let port = ours.port();
        let subscription = Subscription::open(RECEIVE_BUFFER, |socket| {
            if port != 0 {
                SockRef::from(&*socket).attach_filter(&not_from(port))?;
            }
            socket.add_membership(GROUP)
        });
        let subscription = subscription
            .map_err(|source| Error::Socket { doing: "listening to changes of nftables", source })?;
        let telling = Telling { ours: port, written: Arc::clone(ours.written()), ..Telling::default() };
        Ok(Self { subscription, telling, ready: VecDeque::new() })
    }

    /// What somebody else did to our table, if there is something to tell now.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn read(&mut self) -> Result<Option<Drift>, Error> {
        loop {
            if let Some(drift) = self.ready.pop_front() {
                return Ok(Some(drift));
            }
            let failed = |source| Error::Socket { doing: "listening to changes of nftables", source };
            let messages: Vec<Reply> = match self.subscription.receive().map_err(failed)? {
                Received::Datagram(datagram) => replies(datagram).collect(),
                Received::Overrun => {
                    self.telling.forget();
                    return Ok(Some(Drift::Overrun));
                }
                Received::Nothing => return Ok(None),
            };
            for message in &messages {
                let drift = self.telling.hear(message);
                self.ready.extend(drift);
            }
        }
    }

    /// Waits until there may be something to read; says whether there is.
    ///
    /// # Errors
    /// If the system can't wait.
    pub fn wait(&self, patience: Duration) -> Result<bool, Error> {
        self.subscription.wait(patience).map_err(|source| Error::Socket { doing: "waiting", source })
    }
}

impl Telling {
    fn forget(&mut self) {
        (self.is_own, self.touched, self.first, self.gone) = (false, 0, None, false);
    }

    fn hear(&mut self, message: &Reply) -> Option<Drift> {
        if message.kind >> 8 != NFTABLES {
            return None;
        }
        self.is_own |= self.ours != 0 && message.port == self.ours;
        let (kind, attributes) = (message.kind & 0xff, Attributes(message.attributes()));
        if kind == NEWGEN {
            let (objects, first, is_own) = (self.touched, self.first.take(), mem::take(&mut self.is_own));
            self.touched = 0;
            // NFTA_GEN_PROC_PID, NFTA_GEN_PROC_NAME
            let by = Culprit { process: attributes.number(2), name: attributes.text(3) };
            let gone = mem::take(&mut self.gone);
            return first.filter(|_| !is_own).map(|first| Drift::Touched { objects, first, by, gone });
        }
        if message.payload.first().is_none_or(|family| ![INET, BRIDGE].contains(family)) {
            return None;
        }
        // The table's name is the first attribute of every object.
        let table = attributes.text(1);
        let is_bridge = message.payload.first() == Some(&BRIDGE);
        let is_apart = is_bridge || table.as_deref() == Some(CUT_OFF_TABLE);
        if table.as_deref() != Some(TABLE) && (is_bridge || !is_apart) {
            return None;
        }
        match kind {
            DELTABLE if !is_apart => self.gone = true,
            NEWTABLE if !is_apart => self.gone = false,
            _ => {}
        }
        self.is_own |= kind == NEWSETELEM && numbers(attributes).any(|number| self.written.has(number));
        self.touched += 1;
        let about = || {
            if is_apart {
                let apart = if is_bridge { "table bridge palisade" } else { CUT_OFF_TABLE };
                format!("{} of {apart}", about(kind, attributes))
            } else {
                about(kind, attributes)
            }
        };
        self.first.get_or_insert_with(about);
        None
    }
}

/// The numbers that a message puts into the set of numbers; none if it is about another set.
fn numbers(attributes: Attributes<'_>) -> impl Iterator<Item = u32> {
    let is_ours = attributes.text(2).as_deref() == Some(GENERATION_SET);
    let elements = attributes.nested(3).filter(|_| is_ours);
    // NFTA_LIST_ELEM, NFTA_SET_ELEM_KEY, NFTA_DATA_VALUE
    elements.into_iter().flatten().filter_map(|(_, element)| {
        let key = Attributes(element).nested(1)?.get(1)?;
        Some(u32::from_ne_bytes(key.try_into().ok()?))
    })
}

impl AsFd for Watcher {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.subscription.as_fd()
    }
}

/// `NFT_MSG_*` in words.
fn about(kind: u16, attributes: Attributes<'_>) -> String {
    let named = |what: &str, name: u16| match attributes.text(name) {
        Some(name) => format!("{what} {name}"),
        None => what.to_owned(),
    };
    match kind {
        0 => "the table itself".to_owned(),
        2 => "removal of the table".to_owned(),
        3 => named("chain", 3),
        5 => named("removal of chain", 3),
        6 => named("a rule of chain", 2),
        8 => named("removal of a rule of chain", 2),
        9 => named("set", 2),
        11 => named("removal of set", 2),
        12 => named("elements into set", 2),
        14 => named("elements out of set", 2),
        _ => "an object that is not ours".to_owned(),
    }
}

/// A socket filter that lets pass what was not caused by the socket with this port. The kernel packs into one datagram
/// only what one transaction caused.
fn not_from(port: u32) -> [SockFilter; 4] {
    /// `BPF_LD | BPF_W | BPF_ABS`, `BPF_JMP | BPF_JEQ | BPF_K`, `BPF_RET | BPF_K`.
    const LOAD: u16 = 0x20;
    const EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    // `nlmsg_pid` lies at offset 12 in host order, and is loaded as if it were in network order.
    let port = u32::from_be_bytes(port.to_ne_bytes());
    [
        SockFilter::new(LOAD, 0, 0, 12),
        SockFilter::new(EQUAL, 0, 1, port),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ]
}

#[cfg(test)]
mod tests;
