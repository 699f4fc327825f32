//! Lists what other programs have in nftables, by name: enough to identify them and whatever conflicts with the agent.
//!
//! Reads all families and changes nothing. It sees what the `iptables` program creates through its nftables back end, but
//! not what its legacy back end holds.

use std::collections::BTreeMap;

use crate::{
    Error, Kernel,
    kernel::Reply,
    reader::{Attributes, user_data},
    ruleset::{TABLE, TABLE_COMMENT},
    uapi::{
        netfilter::{
            NFPROTO_ARP, NFPROTO_BRIDGE, NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6, NFPROTO_NETDEV,
            NFPROTO_UNSPEC,
        },
        nf_tables::*,
        nfnetlink::{NFNL_SUBSYS_NFTABLES, message_type},
        nftables::NFTNL_UDATA_TABLE_COMMENT,
    },
};

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

/// The tables of a network namespace, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// The tables, with the names of their chains.
    pub tables: BTreeMap<TableName, Vec<String>>,
    /// The flow tables, through which established connections bypass all hooks, each with its table.
    pub flow_tables: Vec<(TableName, String)>,
    /// The chains with rules that disable connection tracking for packets, each with its table.
    pub notrack_chains: Vec<(TableName, String)>,
    /// The state of the table with the agent's name, if it exists.
    pub own_table: Option<OwnTable>,
}

/// The state of the table with the agent's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnTable {
    /// It has the current format.
    Current,
    /// It has another format, or belongs to another program: its comment. It is replaced when an agent starts.
    Other(Option<String>),
    /// It is dormant: the kernel skips its rules. An agent activates it at its start.
    Dormant,
    /// It belongs to the socket with this netlink port, and the kernel refuses changes by all others.
    Owned(u32),
}

impl OwnTable {
    fn of(table: Attributes<'_>) -> Self {
        let comment = table.get(NFTA_TABLE_USERDATA);
        let comment = comment.and_then(|data| user_data(data, NFTNL_UDATA_TABLE_COMMENT));
        match (table.number(NFTA_TABLE_OWNER), table.number(NFTA_TABLE_FLAGS)) {
            (Some(port), _) => Self::Owned(port),
            _ if comment.as_deref() != Some(TABLE_COMMENT) => Self::Other(comment),
            (None, Some(flags)) if flags & NFT_TABLE_F_DORMANT != 0 => Self::Dormant,
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
        for (table, a) in list(kernel, NFT_MSG_GETTABLE)? {
            if table.family == "inet" && table.name == TABLE {
                out.own_table = Some(OwnTable::of(Attributes(&a)));
            }
            out.tables.entry(table).or_default();
        }
        for (table, a) in list(kernel, NFT_MSG_GETCHAIN)? {
            out.tables.entry(table).or_default().extend(Attributes(&a).text(NFTA_CHAIN_NAME));
        }
        for (table, a) in list(kernel, NFT_MSG_GETRULE)? {
            let expressions = Attributes(&a).nested(NFTA_RULE_EXPRESSIONS).into_iter().flatten();
            if expressions.map(|(_, e)| Attributes(e)).any(disables_tracking) {
                let chain = Attributes(&a).text(NFTA_RULE_CHAIN).unwrap_or_default();
                if out.notrack_chains.last() != Some(&(table.clone(), chain.clone())) {
                    out.notrack_chains.push((table, chain));
                }
            }
        }
        let flow_tables = match list(kernel, NFT_MSG_GETFLOWTABLE) {
            // The kernel may lack flow tables.
            Err(e) if e.os_error().is_some() => Vec::new(),
            other => other?,
        };
        for (table, a) in flow_tables {
            out.flow_tables.push((table, Attributes(&a).text(NFTA_FLOWTABLE_NAME).unwrap_or_default()));
        }
        Ok(out)
    }
}

/// Lists objects of all families, each with the table to which it belongs and its attributes.
fn list(kernel: &mut Kernel, kind: u16) -> Result<Vec<(TableName, Vec<u8>)>, Error> {
    // If programs change their tables all the time, an incomplete list is better than none.
    let kind = message_type(NFNL_SUBSYS_NFTABLES, kind);
    kernel.dump_loosely(kind, NFPROTO_UNSPEC, "nftables", |reply: &Reply| {
        let family = match reply.family()? {
            NFPROTO_INET => "inet",
            NFPROTO_IPV4 => "ip",
            NFPROTO_ARP => "arp",
            NFPROTO_NETDEV => "netdev",
            NFPROTO_BRIDGE => "bridge",
            NFPROTO_IPV6 => "ip6",
            _ => return None,
        };
        let attributes = reply.attributes();
        // The table's name is the first attribute of every kind of object.
        Some((TableName { family, name: Attributes(attributes).text(NFTA_TABLE_NAME)? }, attributes.to_vec()))
    })
}

/// Returns whether an expression is `notrack` of nftables, or the iptables target `CT --notrack` or `NOTRACK`.
fn disables_tracking(expression: Attributes<'_>) -> bool {
    /// `XT_CT_NOTRACK` of `linux/netfilter/xt_CT.h`, in the first two bytes of the target's data.
    const XT_CT_NOTRACK: u16 = 1;
    match expression.text(NFTA_EXPR_NAME).as_deref() {
        Some("notrack") => true,
        Some("target") => {
            let data = expression.nested(NFTA_EXPR_DATA).unwrap_or(Attributes(&[]));
            let flags = data
                .get(NFTA_TARGET_INFO)
                .and_then(|info| Some(u16::from_ne_bytes(info.get(..2)?.try_into().ok()?)));
            match data.text(NFTA_TARGET_NAME).as_deref() {
                Some("NOTRACK") => true,
                Some("CT") => flags.unwrap_or(0) & XT_CT_NOTRACK != 0,
                _ => false,
            }
        }
        _ => false,
    }
}
