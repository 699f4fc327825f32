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
//! Each pod has a share of the queue, for its queries and for answers to it, so that a flood of one leaves the queue to its neighbors. What exceeds
//! it is counted, and dropped or passed unread, as the table says.
//!
//! While no agent reads the queue, the kernel drops the packets, or lets them pass, as the table says. The table is of its own, so that the agent's table is as it was while no rule
//! has names.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use nix::libc::{ENOENT, EOPNOTSUPP};
use palisade_policy::{Direction, Family, Protocol};

use crate::{
    Error, Kernel,
    packet_queue::QUEUE,
    phases::chunks,
    reader::{Operation, Ruleset},
    ruleset::{
        Chain, Content, Element, Expression, Hook, Key, Message, NodeSet, Outcome, Rule, Set, family_digit,
    },
    send::{remove_table, send_at_once},
};

/// The name of the table, of the family `inet`.
pub const DNS_TABLE: &str = "palisade_dns";

/// The most messages of each pod per second that the agent gets, in each direction; on TCP, segments. Twice as many as the queries that it
/// answers.
pub const DNS_SHARE_RATE: u64 = 2_000;
/// The most messages of a pod that the agent gets at once after an idle time: an eighth of what the queue holds.
pub const DNS_SHARE_BURST: u32 = 512;

/// The chains of a direction.
struct Way {
    hook: Hook,
    comment: &'static str,
    /// The chain with the shares, and the start of the names of its sets.
    shares: &'static str,
}

const WAYS: [Way; 2] = [
    Way { hook: Hook::Queries, comment: "DNS queries of pods with rules by name", shares: "query_shares" },
    Way { hook: Hook::Answers, comment: "DNS answers to them", shares: "answer_shares" },
];

/// What the table in the kernel holds.
#[derive(Debug, Default)]
pub struct DnsTable {
    /// Pods and servers; `None` if it is not known.
    programmed: Option<(BTreeSet<IpAddr>, BTreeSet<SocketAddr>)>,
    /// Whether packets pass while no program reads the queue.
    is_open: bool,
    /// The number of nftables' last transaction when the table was last looked at.
    checked: Option<u32>,
    /// Whether the kernel has the target of iptables only (`xt_NFQUEUE`), and not the statement of nftables (`nft_queue`).
    by_target: bool,
}

impl DnsTable {
    /// Makes the value for a table of unknown content. With `is_open`, packets pass while no program reads the queue; else they are dropped.
    #[must_use]
    pub fn new(is_open: bool) -> Self {
        Self { programmed: None, is_open, by_target: false, checked: None }
    }

    /// Hands the messages between these pods and servers to the agent, in one transaction. Without pods or servers the table is removed.
    /// `O(change)` if only pods differ.
    ///
    /// # Errors
    /// What the kernel refuses. It keeps what it had, and the next call replaces the table.
    pub fn set(
        &mut self,
        kernel: &mut Kernel,
        pods: &BTreeSet<IpAddr>,
        servers: &BTreeSet<SocketAddr>,
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
            _ => {
                let queue = |by_target| Expression::Queue { number: QUEUE, bypass: self.is_open, by_target };
                match send(kernel, replacement(&pods, &servers, &queue(self.by_target), self.is_open)) {
                    Err(error) if !self.by_target && is_missing(&error) => {
                        send(kernel, replacement(&pods, &servers, &queue(true), self.is_open))?;
                        self.by_target = true;
                    }
                    other => other?,
                }
            }
        }
        self.programmed = Some((pods, servers));
        Ok(())
    }

    /// Returns whether the kernel still has the table's rules. If not, the next [`DnsTable::set`] replaces the table. Reads the rules of
    /// this table only, and only if any program has changed nftables since the last call.
    ///
    /// # Errors
    /// If the kernel can't be read.
    pub fn is_intact(&mut self, kernel: &mut Kernel) -> Result<bool, Error> {
        let Some((_, servers)) = self.programmed.as_ref().filter(|(pods, _)| !pods.is_empty()) else {
            return Ok(true);
        };
        let generation = kernel.kernel_generation()?;
        if self.checked == Some(generation) {
            return Ok(true);
        }
        let chains = chains(servers, &Expression::Counter, self.is_open);
        let expected: usize = chains.iter().map(|chain| chain.rules.len()).sum();
        let is_intact = Ruleset::rules_of_table(kernel, DNS_TABLE)?.len() == expected;
        if is_intact {
            self.checked = Some(generation);
        } else {
            self.forget();
        }
        Ok(is_intact)
    }

    /// Returns how many messages have exceeded the share of their pod since the table was created. `O(rules of the table)`.
    ///
    /// # Errors
    /// If the kernel can't be read.
    pub fn over_share(&self, kernel: &mut Kernel) -> Result<u64, Error> {
        let rules = Ruleset::rules_of_table(kernel, DNS_TABLE)?;
        let of_shares = rules.iter().filter(|(chain, _)| WAYS.iter().any(|way| way.shares == chain));
        // The last rule of each counts what the others have left.
        let over = of_shares.filter_map(|(_, operations)| match &operations[..] {
            [Operation::Counter { packets, .. }, Operation::Verdict(_)] => Some(*packets),
            _ => None,
        });
        Ok(over.sum())
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
    remove_table(kernel, DNS_TABLE)
}

fn send(kernel: &mut Kernel, messages: Vec<Message>) -> Result<(), Error> {
    send_at_once(kernel, DNS_TABLE, messages)
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
fn replacement(
    pods: &BTreeSet<IpAddr>,
    servers: &BTreeSet<SocketAddr>,
    queue: &Expression,
    is_open: bool,
) -> Vec<Message> {
    let mut out = vec![Message::CreateTable, Message::DeleteTable, Message::CreateTable];
    let mut create = |set: Arc<Set>, addresses: Vec<IpAddr>| {
        out.push(Message::CreateSet(Arc::clone(&set)));
        let elements = chunks(addresses.into_iter().map(Element::Address));
        out.extend(elements.map(|elements| Message::AddElements(Arc::clone(&set), elements)));
    };
    for family in Family::BOTH {
        create(
            address_set("pods", family),
            pods.iter().copied().filter(|a| Family::of(*a) == family).collect(),
        );
    }
    for (family, port) in ports(servers) {
        let is_of = |server: &&SocketAddr| Family::of(server.ip()) == family && server.port() == port;
        create(server_set(family, port), servers.iter().filter(is_of).map(SocketAddr::ip).collect());
    }
    for way in &WAYS {
        out.extend(Family::BOTH.map(|family| Message::CreateSet(share_set(way, family))));
    }
    for chain in chains(servers, queue, is_open) {
        out.extend(Message::create_chain(&Arc::new(chain)));
    }
    out
}

/// The families and ports of servers.
fn ports(servers: &BTreeSet<SocketAddr>) -> BTreeSet<(Family, u16)> {
    servers.iter().map(|server| (Family::of(server.ip()), server.port())).collect()
}

fn address_set(name: &str, family: Family) -> Arc<Set> {
    let content = Content::Node(NodeSet::Local(family));
    Arc::new(Set::plain(format!("{name}{}", family_digit(family)), Key::Address(family), content))
}

/// The set of the servers with a port.
fn server_set(family: Family, port: u16) -> Arc<Set> {
    let content = Content::Node(NodeSet::Local(family));
    let name = format!("servers{}_{port}", family_digit(family));
    Arc::new(Set::plain(name, Key::Address(family), content))
}

/// The set of the pods that have used their share lately.
fn share_set(way: &Way, family: Family) -> Arc<Set> {
    let name = format!("{}{}", way.shares, family_digit(family));
    Arc::new(Set::plain(name, Key::Address(family), Content::DnsShares(family)))
}

/// Returns the chains, each after the one that its rules use.
fn chains(servers: &BTreeSet<SocketAddr>, queue: &Expression, is_open: bool) -> Vec<Chain> {
    let of_way = |way: &Way| {
        let rules = ports(servers).into_iter().flat_map(|(family, port)| {
            [Protocol::Udp, Protocol::Tcp].map(|protocol| rule(way, (family, protocol, port)))
        });
        let base = Chain { comment: Some(way.comment.to_owned()), ..Chain::base(way.hook, rules.collect()) };
        [shares(way, queue, is_open), base]
    };
    WAYS.iter().flat_map(of_way).collect()
}

/// Returns the chain that hands over what is within the share of its pod.
fn shares(way: &Way, queue: &Expression, is_open: bool) -> Chain {
    let within = |family: Family| -> Rule {
        let limit = Expression::LimitEach {
            family,
            source: way.hook == Hook::Queries,
            set: share_set(way, family).name.clone(),
            rate: DNS_SHARE_RATE,
            burst: DNS_SHARE_BURST,
        };
        vec![Expression::Family(family), limit, Expression::Counter, queue.clone()]
    };
    let outcome = if is_open { Outcome::Accept } else { Outcome::Drop };
    let over = vec![Expression::Counter, Expression::Verdict(outcome)];
    let rules = Family::BOTH.map(within).into_iter().chain([over]).collect();
    Chain::regular(way.shares, "a share of the queue for each pod", rules)
}

fn rule(way: &Way, (family, protocol, port): (Family, Protocol, u16)) -> Rule {
    let (pods, servers) = (address_set("pods", family).name.clone(), server_set(family, port).name.clone());
    let is_query = way.hook == Hook::Queries;
    // The peer of an ingress rule is the source, the peer of an egress rule the destination.
    let (source, destination) = if is_query { (pods, servers) } else { (servers, pods) };
    vec![
        Expression::Family(family),
        Expression::Protocol(protocol.number()),
        if is_query { Expression::Port(port, port) } else { Expression::SourcePort(port, port) },
        Expression::PeerIn(Direction::Ingress, family, source),
        Expression::PeerIn(Direction::Egress, family, destination),
        Expression::Verdict(Outcome::Goto(way.shares.into())),
    ]
}
