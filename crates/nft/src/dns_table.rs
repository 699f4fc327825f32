//! The rules that hand DNS messages of some pods to the agent, which holds each answer until its addresses are in the agent's table.
//!
//! ```text
//!  pod ── query ──► prerouting (before destination NAT) ──► queue ────► agent notes it ──► on its way, as policies decide
//!  pod ◄─ answer ── postrouting (after source NAT) ◄─────── queue ◄──── agent learns, commits, releases ◄── server
//! ```
//!
//! The messages keep their addresses, their connection-tracking entries and their way, so policies on both ends and Services apply as without the
//! rules. Only UDP and TCP between these pods and trusted servers is handed over.
//!
//! While no agent reads the queue, the kernel drops the packets. The table is of its own, so that the agent's table is as it was while no rule
//! has names.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use nix::libc::{ENOENT, EOPNOTSUPP};
use palisade_policy::{Direction, Family, Protocol};

use crate::{
    Error, Kernel,
    encode::{Encoded, encode_in},
    packet_queue::QUEUE,
    phases::chunks,
    ruleset::{Chain, Content, Element, Expression, Hook, Key, Message, NodeSet, Rule, Set, family_digit},
};

/// The name of the table, of the family `inet`.
pub const DNS_TABLE: &str = "palisade_dns";

/// The port of DNS.
const PORT: u16 = 53;

/// What the table in the kernel holds.
#[derive(Debug, Default)]
pub struct DnsTable {
    /// Pods and servers; `None` if it is not known.
    programmed: Option<(BTreeSet<IpAddr>, BTreeSet<IpAddr>)>,
    /// Whether the kernel has the target of iptables only (`xt_NFQUEUE`), and not the statement of nftables (`nft_queue`).
    by_target: bool,
}

impl DnsTable {
    /// Hands the messages between these pods and servers to the agent, in one transaction. Without pods or servers the table is removed.
    /// `O(change)` if only pods differ.
    ///
    /// # Errors
    /// What the kernel refuses. It keeps what it had, and the next call replaces the table.
    pub fn set(
        &mut self,
        kernel: &mut Kernel,
        pods: &BTreeSet<IpAddr>,
        servers: &BTreeSet<IpAddr>,
    ) -> Result<(), Error> {
        let (pods, servers) = if pods.is_empty() || servers.is_empty() {
            (BTreeSet::new(), BTreeSet::new())
        } else {
            (pods.clone(), servers.clone())
        };
        match self.programmed.take() {
            Some(old) if old == (pods.clone(), servers.clone()) => {}
            _ if pods.is_empty() => drop(remove(kernel)?),
            Some((old, same)) if same == servers && !old.is_empty() => send(kernel, difference(&old, &pods))?,
            _ => match send(kernel, replacement(&pods, &servers, self.by_target)) {
                Err(error) if !self.by_target && is_missing(&error) => {
                    send(kernel, replacement(&pods, &servers, true))?;
                    self.by_target = true;
                }
                other => other?,
            },
        }
        self.programmed = Some((pods, servers));
        Ok(())
    }

    /// Forgets what the kernel holds, after another program may have changed it: the next [`DnsTable::set`] replaces the table.
    pub fn forget(&mut self) {
        self.programmed = None;
    }
}

/// Removes the table. Returns whether it existed.
///
/// # Errors
/// What the kernel refuses.
pub fn remove(kernel: &mut Kernel) -> Result<bool, Error> {
    match kernel.transaction(&[&encode_in(DNS_TABLE, Message::DeleteTable)]) {
        Ok(_) => Ok(true),
        Err(e) if e.os_error() == Some(ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

fn send(kernel: &mut Kernel, messages: Vec<Message>) -> Result<(), Error> {
    let messages: Vec<Encoded> = messages.into_iter().map(|m| encode_in(DNS_TABLE, m)).collect();
    if !messages.is_empty() {
        kernel.transaction(&messages.iter().collect::<Vec<_>>())?;
    }
    Ok(())
}

/// Whether the kernel doesn't know an expression.
fn is_missing(error: &Error) -> bool {
    matches!(error.os_error(), Some(ENOENT | EOPNOTSUPP))
}

fn difference(old: &BTreeSet<IpAddr>, new: &BTreeSet<IpAddr>) -> Vec<Message> {
    let mut out = Vec::new();
    for family in Family::BOTH {
        let set = address_set("pods", family);
        let of = |addresses: BTreeSet<IpAddr>| {
            chunks(addresses.into_iter().filter(move |a| Family::of(*a) == family).map(Element::Address))
        };
        out.extend(of(old - new).map(|elements| Message::RemoveElements(set.clone(), elements)));
        out.extend(of(new - old).map(|elements| Message::AddElements(set.clone(), elements)));
    }
    out
}

/// Returns the messages that replace the table, whether it exists or not.
fn replacement(pods: &BTreeSet<IpAddr>, servers: &BTreeSet<IpAddr>, by_target: bool) -> Vec<Message> {
    let mut out = vec![Message::CreateTable, Message::DeleteTable, Message::CreateTable];
    for family in Family::BOTH {
        for (name, addresses) in [("pods", pods), ("servers", servers)] {
            let set = address_set(name, family);
            let elements =
                addresses.iter().filter(|a| Family::of(**a) == family).copied().map(Element::Address);
            out.push(Message::CreateSet(set.clone()));
            out.extend(chunks(elements).map(|elements| Message::AddElements(set.clone(), elements)));
        }
    }
    for hook in [Hook::Queries, Hook::Answers] {
        out.extend(Message::create_chain(&Arc::new(chain(hook, by_target))));
    }
    out
}

fn address_set(name: &str, family: Family) -> Arc<Set> {
    let content = Content::Node(NodeSet::Local(family));
    Arc::new(Set::plain(format!("{name}{}", family_digit(family)), Key::Address(family), content))
}

fn chain(hook: Hook, by_target: bool) -> Chain {
    let is_query = hook == Hook::Queries;
    let rule = |family, protocol: Protocol| -> Rule {
        // The peer of an ingress rule is the source, the peer of an egress rule the destination.
        let (source, destination) = if is_query { ("pods", "servers") } else { ("servers", "pods") };
        let name = |set| address_set(set, family).name.clone();
        vec![
            Expression::Family(family),
            Expression::Protocol(protocol.number()),
            if is_query { Expression::Port(PORT, PORT) } else { Expression::SourcePort(PORT, PORT) },
            Expression::PeerIn(Direction::Ingress, family, name(source)),
            Expression::PeerIn(Direction::Egress, family, name(destination)),
            Expression::Counter,
            Expression::Queue { number: QUEUE, by_target },
        ]
    };
    let comment = if is_query { "DNS queries of pods with rules by name" } else { "DNS answers to them" };
    let rules = Family::BOTH.into_iter().flat_map(|f| [rule(f, Protocol::Udp), rule(f, Protocol::Tcp)]);
    Chain { comment: Some(comment.to_owned()), ..Chain::base(hook, rules.collect()) }
}
