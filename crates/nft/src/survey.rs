//! What others have in nftables, by name: enough to recognise who they are and what gets in our way.
//!
//! Reads only, and all families. What the `iptables` program put there with its nftables back end is among it; what the
//! legacy back end holds is not.

use std::collections::BTreeMap;

use crate::{
    Error, Kernel,
    base::TABLE_COMMENT,
    kernel::Reply,
    reader::{Attributes, DORMANT, text},
    ruleset::TABLE,
};

/// `NFNL_SUBSYS_NFTABLES << 8`, and `NFT_MSG_GETTABLE`, `GETCHAIN`, `GETRULE`, `GETFLOWTABLE`.
const NFTABLES: u16 = 10 << 8;
const GETTABLE: u16 = 1;
const GETCHAIN: u16 = 4;
const GETRULE: u16 = 7;
const GETFLOWTABLE: u16 = 23;

/// A table by family and name, as `nft` spells them: `inet palisade`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableName {
    /// `ip`, `ip6`, `inet`, `bridge`, `arp` or `netdev`.
    pub family: &'static str,
    /// Its name.
    pub name: String,
}

impl std::fmt::Display for TableName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.family, self.name)
    }
}

/// All tables of a network namespace, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// The tables, with the names of their chains.
    pub tables: BTreeMap<TableName, Vec<String>>,
    /// The flow tables, which take established connections past all hooks, each in its table.
    pub flow_tables: Vec<(TableName, String)>,
    /// The chains whose rules take packets out of connection tracking, each in its table.
    pub untracking: Vec<(TableName, String)>,
    /// What stands beside our table, if there is one: whose it is, and of what format.
    pub ours: Option<Ours>,
}

/// The table of our name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ours {
    /// Of our format.
    Current,
    /// Of another, or somebody else's: its comment. It is replaced when an agent starts.
    Other(Option<String>),
    /// Dormant: the kernel asks none of its rules. An agent wakes it.
    Dormant,
    /// It belongs to the socket with this netlink port, and the kernel refuses all others.
    Owned(u32),
}

impl Ours {
    fn of(table: Attributes<'_>) -> Self {
        let comment = table.get(6).and_then(comment);
        // NFTA_TABLE_OWNER, NFTA_TABLE_FLAGS
        match (table.number(7), table.number(2)) {
            (Some(port), _) => Self::Owned(port),
            _ if comment.as_deref() != Some(TABLE_COMMENT) => Self::Other(comment),
            (None, Some(flags)) if flags & DORMANT != 0 => Self::Dormant,
            _ => Self::Current,
        }
    }
}

impl Survey {
    /// Reads the names. `O(rules of the namespace)`.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn read(kernel: &mut Kernel) -> Result<Self, Error> {
        let mut out = Self::default();
        for (table, a) in listed(kernel, GETTABLE)? {
            if table.family == "inet" && table.name == TABLE {
                out.ours = Some(Ours::of(Attributes(&a)));
            }
            out.tables.entry(table).or_default();
        }
        for (table, a) in listed(kernel, GETCHAIN)? {
            out.tables.entry(table).or_default().extend(Attributes(&a).text(3));
        }
        for (table, a) in listed(kernel, GETRULE)? {
            let expressions = Attributes(&a).nested(4).into_iter().flatten();
            if expressions.map(|(_, e)| Attributes(e)).any(takes_out_of_tracking) {
                let chain = Attributes(&a).text(2).unwrap_or_default();
                if out.untracking.last() != Some(&(table.clone(), chain.clone())) {
                    out.untracking.push((table, chain));
                }
            }
        }
        // A kernel without flow tables has none.
        let flow_tables = match listed(kernel, GETFLOWTABLE) {
            Err(e) if e.os_error().is_some() => Vec::new(),
            other => other?,
        };
        for (table, a) in flow_tables {
            out.flow_tables.push((table, Attributes(&a).text(2).unwrap_or_default()));
        }
        Ok(out)
    }
}

/// Objects of all families, each with the table to which it belongs and its attributes.
fn listed(kernel: &mut Kernel, kind: u16) -> Result<Vec<(TableName, Vec<u8>)>, Error> {
    // NFPROTO_UNSPEC. Where programs never rest, what is known of the others is better than nothing.
    kernel.dump_loosely(NFTABLES | kind, 0, "nftables", |reply: &Reply| {
        let family = match reply.payload.first()? {
            1 => "inet",
            2 => "ip",
            3 => "arp",
            5 => "netdev",
            7 => "bridge",
            10 => "ip6",
            _ => return None,
        };
        let attributes = reply.attributes();
        Some((TableName { family, name: Attributes(attributes).text(1)? }, attributes.to_vec()))
    })
}

/// `notrack` of nftables, and the targets `CT --notrack` and `NOTRACK` of iptables.
fn takes_out_of_tracking(expression: Attributes<'_>) -> bool {
    /// `XT_CT_NOTRACK`, in the first two bytes of the target's data.
    const NOTRACK: u16 = 1;
    match expression.text(1).as_deref() {
        Some("notrack") => true,
        Some("target") => {
            let data = expression.nested(2).unwrap_or(Attributes(&[]));
            let flags =
                data.get(3).and_then(|info| Some(u16::from_ne_bytes(info.get(..2)?.try_into().ok()?)));
            match data.text(1).as_deref() {
                Some("NOTRACK") => true,
                Some("CT") => flags.unwrap_or(0) & NOTRACK != 0,
                _ => false,
            }
        }
        _ => false,
    }
}

/// The comment in what the `nft` program keeps beside a table: kind 0.
fn comment(mut data: &[u8]) -> Option<String> {
    while let [kind, length, rest @ ..] = data {
        let value = rest.get(..usize::from(*length))?;
        if *kind == 0 {
            return Some(text(value));
        }
        data = &rest[value.len()..];
    }
    None
}
