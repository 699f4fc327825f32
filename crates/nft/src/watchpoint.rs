//! A table that only counts packets, to find out whether packets pass the hooks that the agent's rules use.
//!
//! It has a separate name and belongs to the socket that created it (`NFT_TABLE_F_OWNER`, Linux 5.12). When that socket is
//! closed, however the process ends, the kernel deletes the table.

use std::{io, net::IpAddr};

use nix::libc::EINVAL;
use palisade_policy::{Family, Protocol};

use crate::{
    Error, Kernel, NetlinkSocket, Transport,
    encode::{AttributeWriter, batch_begin, batch_end, finish, header, rule_expressions},
    kernel::replies,
    reader::{Operation, Ruleset},
    ruleset::Expression,
    uapi::{
        netfilter::{NF_ACCEPT, NF_INET_FORWARD, NF_IP_PRI_FILTER, NFPROTO_INET},
        netlink::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST},
        nf_tables::*,
        nfnetlink::{NFNL_SUBSYS_NFTABLES, message_type},
    },
};

/// In front of `filter`, where other programs may drop packets.
const PRIORITY: i32 = NF_IP_PRI_FILTER - 1;

/// The packets to count: from one address with one destination port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watched {
    /// The source address.
    pub source: IpAddr,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// The destination port.
    pub port: u16,
}

/// Counts forwarded packets, in the network namespace of the thread that opened it, until it is dropped.
#[derive(Debug)]
pub struct Watchpoint {
    /// The table exists as long as this socket.
    _owner: NetlinkSocket,
    kernel: Kernel,
    table: String,
    watched: Vec<Watched>,
}

impl Watchpoint {
    /// Starts counting. No table with the name `table` may exist.
    ///
    /// # Errors
    /// What the kernel refuses, such as a table of that name that exists.
    pub fn open(table: &str, watched: &[Watched]) -> Result<Self, Error> {
        let kernel = Kernel::open()?;
        let failed = |doing| move |source| Error::Socket { doing, source };
        let mut owner = NetlinkSocket::open().map_err(failed("opening"))?;
        let messages = messages(table, watched);
        owner.send(&batch(&messages)).map_err(failed("sending"))?;
        // Each message is acknowledged.
        let mut acknowledged = 0;
        while acknowledged < messages.len() {
            let datagram = owner.receive(true).map_err(failed("receiving"))?;
            for errno in replies(&datagram).filter_map(|reply| reply.errno()) {
                acknowledged += 1;
                if errno != 0 {
                    let reason = io::Error::from_raw_os_error(errno);
                    // The first message is the table, whose flags an older kernel does not know.
                    if acknowledged == 1 && errno == EINVAL {
                        return Err(Error::NoTableOwners(reason));
                    }
                    let object = format!("table inet {table}");
                    return Err(Error::Refused { object, reason, kernel_message: None, more: 0 });
                }
            }
        }
        Ok(Self { _owner: owner, kernel, table: table.to_owned(), watched: watched.to_vec() })
    }

    /// Returns how many of the packets have passed so far.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn counts(&mut self) -> Result<Vec<(Watched, u64)>, Error> {
        let rules = Ruleset::rules_of_table(&mut self.kernel, &self.table)?;
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
    const CREATE: u16 = NLM_F_CREATE | NLM_F_EXCL;
    let message = |kind: u16, flags: u16, body: &dyn Fn(&mut AttributeWriter)| {
        let kind = message_type(NFNL_SUBSYS_NFTABLES, kind);
        let mut out = header(kind, NLM_F_REQUEST | NLM_F_ACK | flags, NFPROTO_INET, 0);
        // The attribute is the same for every kind of object.
        out.text(NFTA_TABLE_NAME, table);
        body(&mut out);
        finish(out)
    };
    let mut out = vec![
        message(NFT_MSG_NEWTABLE, CREATE, &|a| {
            a.number(NFTA_TABLE_FLAGS, NFT_TABLE_F_OWNER);
        }),
        message(NFT_MSG_NEWCHAIN, CREATE, &|a| {
            a.text(NFTA_CHAIN_NAME, CHAIN).nest(NFTA_CHAIN_HOOK, |hook| {
                hook.number(NFTA_HOOK_HOOKNUM, NF_INET_FORWARD);
                hook.number(NFTA_HOOK_PRIORITY, PRIORITY as u32);
            });
            a.number(NFTA_CHAIN_POLICY, NF_ACCEPT as u32).text(NFTA_CHAIN_TYPE, "filter");
        }),
    ];
    out.extend(watched.iter().map(|w| {
        let rule = rule_expressions(&vec![
            Expression::Family(Family::of(w.source)),
            Expression::SourceIs(w.source),
            Expression::Protocol(w.protocol.number()),
            Expression::Port(w.port, w.port),
            Expression::Counter,
        ]);
        message(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, &|a| {
            a.text(NFTA_RULE_CHAIN, CHAIN).nest(NFTA_RULE_EXPRESSIONS, |list| {
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
