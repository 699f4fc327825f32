//! A table that only counts: whether packets come by where our rules would hang.
//!
//! It has a name of its own and belongs to the socket that made it (`NFT_TABLE_F_OWNER`, Linux 5.12): when that closes,
//! in whatever way the process ends, the kernel takes the table away.

use std::{io, net::IpAddr};

use palisade_policy::{Family, Protocol};

use crate::{
    Error, Kernel, NetlinkSocket, Transport,
    encode::{attributes::Attributes, batch_begin, batch_end, finish, header, rule_expressions},
    kernel::replies,
    reader::{Operation, Ruleset},
    ruleset::Expression,
};

/// `NFNL_SUBSYS_NFTABLES << 8`, `NFPROTO_INET`, and `NFT_MSG_NEWTABLE`, `NEWCHAIN`, `NEWRULE`.
const NFTABLES: u16 = 10 << 8;
const INET: u8 = 1;
const NEWTABLE: u16 = 0;
const NEWCHAIN: u16 = 3;
const NEWRULE: u16 = 6;

/// `NLM_F_REQUEST | NLM_F_ACK`, `NLM_F_CREATE | NLM_F_EXCL`, `NLM_F_CREATE | NLM_F_APPEND`.
const REQUEST_ACK: u16 = 5;
const NEW: u16 = 0x600;
const APPEND: u16 = 0xc00;

/// `NFT_TABLE_F_OWNER`.
const OWNED: u32 = 2;

/// `NF_INET_FORWARD`, and a little before `filter`, where others may drop what comes by.
const FORWARD: u32 = 2;
const PRIORITY: i32 = -1;

/// What is counted: packets from one address with one destination port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watched {
    /// Who sends.
    pub source: IpAddr,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// The destination port.
    pub port: u16,
}

/// Counts forwarded packets, in the network namespace of the thread that opened it, until it is dropped.
#[derive(Debug)]
pub struct Watchpoint {
    /// Its life is that of the table.
    _owner: NetlinkSocket,
    kernel: Kernel,
    table: String,
    watched: Vec<Watched>,
}

impl Watchpoint {
    /// Begins to count. `table` must be a name that nobody uses.
    ///
    /// # Errors
    /// What the kernel refuses, such as a table that exists.
    pub fn open(table: &str, watched: &[Watched]) -> Result<Self, Error> {
        let kernel = Kernel::open()?;
        let failed = |doing| move |source| Error::Socket { doing, source };
        let mut owner = NetlinkSocket::open().map_err(failed("opening"))?;
        let messages = messages(table, watched);
        owner.send(&batch(&messages)).map_err(failed("sending"))?;
        // Each message is acknowledged.
        let mut answers = 0;
        while answers < messages.len() {
            let datagram = owner.receive(true).map_err(failed("receiving"))?;
            for errno in replies(&datagram).filter_map(|reply| reply.verdict()) {
                answers += 1;
                if errno != 0 {
                    let reason = io::Error::from_raw_os_error(errno);
                    let about = format!("table inet {table}");
                    return Err(Error::Refused { about, reason, kernel_says: None, more: 0 });
                }
            }
        }
        Ok(Self { _owner: owner, kernel, table: table.to_owned(), watched: watched.to_vec() })
    }

    /// How many packets of each came by so far.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn counts(&mut self) -> Result<Vec<(Watched, u64)>, Error> {
        let rules = Ruleset::rules_of(&mut self.kernel, &self.table)?;
        let counted = rules.iter().map(|(_, operations)| {
            let packets = operations.iter().find_map(|o| match o {
                Operation::Counter { packets, .. } => Some(*packets),
                _ => None,
            });
            packets.unwrap_or(0)
        });
        Ok(self.watched.iter().copied().zip(counted).collect())
    }
}

fn messages(table: &str, watched: &[Watched]) -> Vec<Vec<u8>> {
    const CHAIN: &str = "forward";
    let message = |kind: u16, flags: u16, body: &dyn Fn(&mut Attributes)| {
        let mut out = header(NFTABLES | kind, REQUEST_ACK | flags, INET, 0);
        out.text(1, table);
        body(&mut out);
        finish(out)
    };
    let mut out = vec![
        message(NEWTABLE, NEW, &|a| {
            a.number(2, OWNED);
        }),
        message(NEWCHAIN, NEW, &|a| {
            a.text(3, CHAIN).nest(4, |hook| {
                hook.number(1, FORWARD).number(2, PRIORITY as u32);
            });
            // Policy accept.
            a.number(5, 1).text(7, "filter");
        }),
    ];
    out.extend(watched.iter().map(|w| {
        let rule = rule_expressions(&vec![
            Expression::Family(Family::of(w.source)),
            Expression::From(w.source),
            Expression::Protocol(w.protocol.number()),
            Expression::Port(w.port, w.port),
            Expression::Counter,
        ]);
        message(NEWRULE, APPEND, &|a| {
            a.text(2, CHAIN).nest(4, |list| {
                list.raw(&rule);
            });
        })
    }));
    out
}

fn batch(messages: &[Vec<u8>]) -> Vec<u8> {
    let mut out = batch_begin(1);
    for (index, message) in messages.iter().enumerate() {
        let start = out.len();
        out.extend_from_slice(message);
        out[start + 8..start + 12].copy_from_slice(&(index as u32 + 2).to_ne_bytes());
    }
    out.extend(batch_end(messages.len() as u32 + 2));
    out
}
