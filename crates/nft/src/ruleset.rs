//! The objects of the table `inet palisade` as values, which [`crate::encode`] writes to netlink.
//!
//! An [`Expression`] is one match or statement as an operator reads it in `nft list ruleset`. It becomes one or more
//! kernel expressions.

mod describe;
mod hook;
mod jump_target;
mod message;
mod node_set;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
pub(crate) use palisade_policy::Name;
use palisade_policy::{Direction, Family, IpRange, PeerSetId};

pub use self::hook::Hook;
pub(crate) use self::{
    jump_target::JumpTarget,
    message::{ELEMENTS_PER_MESSAGE, Message},
    node_set::NodeSet,
};

use crate::{conntrack::FiveTuple, port_owner::Mac};

/// The name of the agent's table. Nothing outside it is read or written.
pub const TABLE: &str = "palisade";

/// The table's comment: its owner, and the format of its content.
///
/// At start, a table of another format is replaced and never interpreted. Raise the number with every change that a
/// table left by an older agent would not survive.
pub(crate) const TABLE_COMMENT: &str = "palisade format 2";

/// The set whose only element counts the agent's transactions.
pub(crate) const GENERATION_SET: &str = "generation";

/// The chain that makes room for conntrack labels, see [`crate::base`].
pub(crate) const LABELS_CHAIN: &str = "labels";

/// The chain that drops packets of revoked connections, see [`crate::base::revoked`].
pub(crate) const REVOKED_CHAIN: &str = "revoked";

/// The chain that evaluates mid-stream TCP packets as replies, see [`crate::base::midstream`].
pub(crate) const REPLIES_CHAIN: &str = "replies";

/// The chain that evaluates what policies in audit mode would deny, see [`crate::base`].
pub(crate) const AUDIT_CHAIN: &str = "audit";

/// The chains that answer what local pods refuse, see [`crate::refusal`].
pub(crate) const REFUSE_EGRESS_CHAIN: &str = "refuse_egress";
pub(crate) const REFUSED_CHAIN: &str = "refused";
pub(crate) const REFUSE_INGRESS_CHAIN: &str = "refuse_ingress";

/// The chain for link-scoped traffic, see [`crate::base`].
pub(crate) const LINK_CHAIN: &str = "link";

/// The chain for link-local packets of pods to their own node.
pub(crate) const NODE_LINK_CHAIN: &str = "node_link";

/// The chain for those of isolated pods without an IPv6 address.
pub(crate) const NODE_LINK_DENIED_CHAIN: &str = "node_link_denied";

/// The chain that accepts discovery, see [`crate::discovery`].
pub(crate) const DISCOVERY_CHAIN: &str = "discovery";

/// The chains for packets that local pods send, see [`crate::from_pods`].
pub(crate) const FORWARDED_CHAIN: &str = "from_pods";
pub(crate) const RECEIVED_CHAIN: &str = "from_pods_here";
pub(crate) const ENCAPSULATED_CHAIN: &str = "encapsulated";
pub(crate) const ELSEWHERE_CHAIN: &str = "from_elsewhere";
pub(crate) const TUNNELED_CHAIN: &str = "to_tunnel_ends";
pub(crate) const FORGED_CHAIN: &str = "forged";
pub(crate) const EARLY_FORGED_CHAIN: &str = "forged_early";
pub(crate) const UNSPECIFIED_CHAIN: &str = "unspecified";

/// The chain for packets between ports of a bridge to an address of no local pod, see [`crate::base`].
pub(crate) const STRANGERS_CHAIN: &str = "strangers";

/// The chains for packets that go elsewhere than their headers say, see [`crate::base::misdirected`].
pub(crate) const MISDIRECTED_CHAIN: &str = "misdirected";
pub(crate) const SOURCE_ROUTES_CHAIN: &str = "source_routes";

/// The chains of the table `bridge palisade` that are empty while no local pod is isolated.
pub(crate) const FROM_PORTS_CHAIN: &str = "from_ports";
pub(crate) const TO_PORTS_CHAIN: &str = "to_ports";
pub(crate) const NODE_TO_PORTS_CHAIN: &str = "node_to_ports";

/// The chains of the table `bridge palisade` that check who sent a frame, see [`crate::bridge::sources`].
pub(crate) const SOURCES_CHAIN: &str = "sources";
pub(crate) const TARGETS_CHAIN: &str = "targets";

/// How long a revoked connection is remembered.
///
/// This is the time for which the kernel keeps the entry of an idle TCP connection
/// (`nf_conntrack_tcp_timeout_established`). It starts again if the entry still exists when it ends.
pub const REVOKED_TIMEOUT: Duration = Duration::from_secs(5 * 24 * 3600);

/// The size of each kernel set of revoked connections, in elements.
///
/// A connection takes two elements, an element about 150 bytes of kernel memory.
pub const REVOKED_SET_SIZE: u32 = 131_072;

/// How long the share of a sender is remembered that has no more packets denied, or of a pod that has no more DNS messages: longer than it
/// takes for the burst to be available again.
const SHARE_TIMEOUT: Duration = Duration::from_secs(60);
/// The most senders of a family with a share of their own, all of which are local pods or send to one.
const SHARES: u32 = 4096;

/// How long the kernel distinguishes the connections of a pod that has just started if no agent ends that before.
pub(crate) const NEW_POD_TIMEOUT: Duration = Duration::from_secs(60);
/// How long it remembers each of these connections: longer than that.
pub(crate) const NEW_CONNECTION_TIMEOUT: Duration = Duration::from_secs(120);
/// The most addresses of a family and the most connections that are distinguished at a time. Connections beyond that are treated as older ones.
const NEW_PODS: u32 = 8192;
const NEW_CONNECTIONS: u32 = 65_536;

/// The comment of the element whose source opened the connection.
pub(crate) const OPENER_COMMENT: &str = "opener";

/// Returns the digit that ends the names of a family's sets and chains.
pub(crate) fn family_digit(family: Family) -> char {
    if family == Family::V4 { '4' } else { '6' }
}

/// Frames to more than one receiver, as `meta pkttype` matches them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PacketType {
    /// To all hosts of the link.
    Broadcast,
    /// To the members of a multicast group.
    Multicast,
}

/// The type of a set's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// An address.
    Address(Family),
    /// Source and destination address.
    Pair(Family),
    /// Source and destination address, IP protocol, source and destination port.
    FiveTuple(Family),
    /// Source and destination address and IP protocol, for protocols without ports.
    ThreeTuple(Family),
    /// A port of any protocol.
    Port,
    /// A plain number.
    Number,
    /// An interface index.
    Interface,
    /// Two interface indexes.
    InterfacePair,
    /// An IP protocol.
    Protocol,
    /// A hardware address.
    Hardware,
    /// The address of a pod, and what connection tracking calls a connection: `ct id`.
    Connection(Family),
    /// An IPv6 address in a message of neighbor discovery, which the `nft` program has as a number.
    Target,
    /// An interface index and an address.
    InterfaceAddress(Family),
    /// An interface index and a hardware address.
    InterfaceHardware,
    /// An interface index, an address and a hardware address.
    InterfaceSender(Family),
    /// An interface index and an address in a message of neighbor discovery.
    InterfaceTarget,
}

/// A set or verdict map, without its elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Set {
    /// Its name.
    pub(crate) name: Name,
    /// The type of its keys.
    pub(crate) key: Key,
    /// Whether its elements are ranges. Of a key with several parts, the last one.
    pub(crate) intervals: bool,
    /// Whether it is a verdict map, whose elements jump to chains.
    pub(crate) verdicts: bool,
    /// Where its elements come from.
    pub(crate) content: Content,
}

impl Set {
    /// Returns a plain set: single keys, no verdicts.
    pub(crate) fn plain(name: impl Into<Name>, key: Key, content: Content) -> Self {
        Self { name: name.into(), key, intervals: false, verdicts: false, content }
    }

    /// Returns a verdict map.
    pub(crate) fn verdict_map(name: impl Into<Name>, key: Key, content: Content) -> Self {
        Self { verdicts: true, ..Self::plain(name, key, content) }
    }
}

/// The source of a set's elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// The members, of one family, of all these peer sets.
    PeerSets(Vec<PeerSetId>, Family),
    /// These port ranges. They never change.
    Ports(Vec<(u16, u16)>),
    /// Local pods, each with the chain that decides for it.
    Dispatch(JumpTarget, Family),
    /// The local pods that are isolated in any direction, also by policies in audit mode, each as a pair with itself.
    SelfPairs(Family),
    /// Revoked connections, with or without ports, in both orientations. They expire, so the plan doesn't define them.
    Revoked(Family, HasPorts),
    /// Senders or receivers of packets that were logged or refused lately, each with its limit. Packets fill it.
    Shares(Shared, Family),
    /// Pods with DNS messages lately, each with its limit. Packets fill it.
    DnsShares(Family),
    /// Addresses of pods that have just started: see [`crate::new_pods`].
    NewPods(Family),
    /// Their connections since then, each with the pod's address. Packets fill it.
    NewConnections(Family),
    /// What identifies the packets of local pods without an address of theirs, with the chain that decides for the pod's egress.
    LinkDispatch,
    /// The number of the agent's last transaction.
    Generation,
    /// Addresses of local pods, and links of the node.
    Node(NodeSet),
}

/// What local pods have a share of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shared {
    /// The log of denied packets.
    Log,
    /// The answers to senders of denied packets.
    Refusals,
}

/// Whether a protocol has ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum HasPorts {
    /// TCP, UDP, SCTP.
    Yes,
    /// All others.
    No,
}

impl HasPorts {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::Yes, Self::No];

    /// Returns the key that identifies a connection.
    pub(crate) fn key(self, family: Family) -> Key {
        match self {
            Self::Yes => Key::FiveTuple(family),
            Self::No => Key::ThreeTuple(family),
        }
    }
}

impl Content {
    /// Returns the time after which elements expire and the most elements that there may be, if they expire.
    pub(crate) fn expiry(&self) -> Option<(Duration, u32)> {
        match self {
            Self::Revoked(..) => Some((REVOKED_TIMEOUT, REVOKED_SET_SIZE)),
            Self::Shares(..) | Self::DnsShares(_) => Some((SHARE_TIMEOUT, SHARES)),
            Self::NewPods(_) => Some((NEW_POD_TIMEOUT, NEW_PODS)),
            Self::NewConnections(_) => Some((NEW_CONNECTION_TIMEOUT, NEW_CONNECTIONS)),
            _ => None,
        }
    }

    /// Returns whether the elements expire.
    pub(crate) fn expires(&self) -> bool {
        self.expiry().is_some()
    }
}

/// One element of a set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Element {
    /// An address.
    Address(IpAddr),
    /// An address as both source and destination.
    SelfPair(IpAddr),
    /// A range of addresses.
    Range(IpRange),
    /// A range of ports.
    Ports(u16, u16),
    /// A port.
    Port(u16),
    /// An interface index.
    Interface(u32),
    /// An interface index as both incoming and outgoing interface.
    InterfacePair(u32),
    /// An IP protocol.
    Protocol(u8),
    /// A hardware address.
    Hardware(Mac),
    /// An IPv6 address in a message of neighbor discovery.
    Target(Ipv6Addr),
    /// An interface index and an address.
    InterfaceAddress(u32, IpAddr),
    /// An interface index and a hardware address.
    InterfaceHardware(u32, Mac),
    /// An interface index, an address and a hardware address.
    InterfaceSender(u32, IpAddr, Mac),
    /// An interface index and an IPv6 address in a message of neighbor discovery.
    InterfaceTarget(u32, Ipv6Addr),
    /// An interface index and a range of addresses, also as targets of neighbor discovery.
    InterfaceRange(u32, IpRange),
    /// The address of a local pod and the chain that decides for it.
    Jump(IpAddr, Name),
    /// The address of a local pod as both source and destination, and the chain that decides what it may use of itself.
    SelfPairJump(IpAddr, Name),
    /// The interface and hardware address of a local pod's packets, and the chain that decides for its egress.
    LinkJump(u32, Mac, Name),
    /// One orientation of a revoked connection, and whether its source opened the connection.
    Revoked(FiveTuple, bool),
    /// A number.
    Number(u32),
}

/// The verdict of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The packet passes this hook.
    Accept,
    /// The packet is dropped.
    Drop,
    /// Back to the base chain: this direction allows the packet.
    Return,
    /// To another chain, from which `return` leads to the base chain.
    Goto(Name),
    /// To another chain, from which `return` and the end of the chain lead to the next rule.
    Jump(Name),
}

/// A part of a frame that says who sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SenderField {
    /// `ether saddr`.
    Hardware,
    /// `ip[6] saddr`.
    Source(Family),
    /// `arp saddr ip`.
    ArpSource,
    /// The address that a neighbor solicitation or advertisement is about.
    Target,
}

/// The options of IPv4 by which senders choose a route (RFC 791).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SourceRoute {
    /// Through other routers too.
    Loose,
    /// Through the given routers only.
    Strict,
}

/// What the sender of a rejected packet gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A TCP reset. Requires [`Expression::Protocol`] 6 before it.
    Reset,
    /// An ICMP or ICMPv6 message: administratively prohibited.
    Prohibited,
}

/// One match or statement of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expression {
    /// `meta nfproto` equals.
    Family(Family),
    /// `meta l4proto` equals.
    Protocol(u8),
    /// `meta l4proto` in a set.
    ProtocolIn(Name),
    /// `iif` in a set, or not in it.
    InterfaceIn {
        /// The set.
        set: Name,
        /// Matches interfaces outside the set.
        inverted: bool,
    },
    /// `iif` equals this index.
    InterfaceIs(u32),
    /// `oif` in a set.
    OutInterfaceIn(Name),
    /// `iif . oif` in a set of pairs, or not in it.
    InterfacePairIn {
        /// The set.
        set: Name,
        /// Matches pairs outside the set.
        inverted: bool,
    },
    /// What a frame says of its sender, in a set.
    SenderIn {
        /// The part of the frame.
        field: SenderField,
        /// Whether the key begins with the port by which the frame entered.
        by_port: bool,
        /// Whether the elements are ranges. The parts of their keys are compared as bytes, so the port is in network byte order.
        ranges: bool,
        /// The set.
        set: Name,
        /// Matches senders outside the set.
        inverted: bool,
    },
    /// `oif . ip[6] daddr`, the port by which a frame leaves and its destination, in a set.
    ReceiverIn {
        /// The family of the destination.
        family: Family,
        /// Whether the elements are ranges: see [`Expression::SenderIn`].
        ranges: bool,
        /// The set.
        set: Name,
    },
    /// `ip[6] daddr` in a network.
    ReceiverInNetwork(IpNet),
    /// The port by which a frame entered, its source address and its hardware address, in a set.
    PortSenderIn(Family, Name),
    /// What a packet says of its sender, an address, in a network.
    SenderInNetwork(SenderField, IpNet),
    /// `arp saddr ip` equals. Requires [`Expression::EtherType`] 0x0806 before it.
    ArpSourceIs(Ipv4Addr),
    /// The target of neighbor discovery is link-local: fe80::/10.
    LinkLocalTarget,
    /// `meta iiftype ether`: the packet has an Ethernet header.
    Ethernet,
    /// `ether daddr` is 01:80:c2:00:00:*, the groups that bridges reserve for themselves.
    ToReservedGroup,
    /// `@nh,0,32 & 0xf0000000 == 0x40000000`, in the family `inet` alone: the packet is IPv4. As [`Expression::Family`], but cheaper, for rules that every
    /// packet passes: the kernel evaluates it without calling a function.
    IsIpv4,
    /// `@nh,0,8 0x45`, in the family `inet` alone: the packet is IPv4 without options.
    PlainIpv4,
    /// `ip hdrlength != 5`: the IPv4 header has options. Requires [`Expression::Family`] before it.
    HasIpv4Options,
    /// `ip option lsrr exists`, or `ssrr`: the sender has chosen the route. Requires [`Expression::Family`] before it.
    SourceRoute(SourceRoute),
    /// `exthdr rt exists`: the packet has a routing header. Requires [`Expression::Family`] before it.
    RoutingHeader,
    /// `iif . ether saddr` through a verdict map. Requires [`Expression::Ethernet`] before it.
    LinkDispatch(Name),
    /// `ether type` equals. A frame with a VLAN tag has the type of the tag.
    EtherType(u16),
    /// `fib saddr . iif oif missing`: no route leads back to the source through the incoming interface.
    NoReverseRoute,
    /// `ip6 hoplimit` equals.
    HopLimit(u8),
    /// `meta l4proto` is none of these.
    ProtocolNotIn(Vec<u8>),
    /// `th dport` in an inclusive range.
    Port(u16, u16),
    /// `th dport` in a set.
    PortIn(Name),
    /// `th sport` in an inclusive range.
    SourcePort(u16, u16),
    /// `th sport` in a set.
    SourcePortIn(Name),
    /// `tcp flags` of a packet that doesn't open a connection. Requires [`Expression::Protocol`] 6 before it.
    TcpNotSyn,
    /// The packet's tuple in a set of [`Content::Revoked`].
    TupleIn(Family, HasPorts, Name),
    /// `ip[6] saddr` (for ingress) or `daddr` (for egress) in a set of peers.
    PeerIn(Direction, Family, Name),
    /// `ip[6] saddr . ip[6] daddr` in a set.
    PairIn(Family, Name),
    /// `ip[6] saddr . ip[6] daddr` through a verdict map.
    PairDispatch(Family, Name),
    /// `ip[6] daddr` (for ingress) or `saddr` (for egress) through a verdict map.
    Dispatch(Direction, Family, Name),
    /// `ip[6] saddr` equals.
    SourceIs(IpAddr),
    /// `ip6 saddr` (or `daddr`) is link-local: fe80::/10.
    LinkLocal {
        /// The source instead of the destination.
        source: bool,
    },
    /// `meta pkttype` equals.
    PacketType(PacketType),
    /// The ICMPv6 type in an inclusive range. Requires [`Expression::Protocol`] 58 before it.
    Icmpv6(u8, u8),
    /// `ct state established`.
    Established,
    /// `ct state related`: an ICMP error about another connection, or the first packet of a connection that a helper expects.
    Related,
    /// `ct state established,related`.
    EstablishedOrRelated,
    /// `ct state new`: no packet of the connection has been answered.
    New,
    /// `ct status confirmed`: a packet of the connection has left the hooks before.
    Confirmed,
    /// `ip[6] saddr . ct id` (or `daddr`) not in a set of [`Content::NewConnections`].
    ConnectionNotIn {
        /// The family of the address.
        family: Family,
        /// The source address instead of the destination.
        source: bool,
        /// The set.
        set: Name,
    },
    /// `add @set { ip[6] saddr . ct id }` (or `daddr`). A set that is full matches no packet.
    AddConnection {
        /// The family of the address.
        family: Family,
        /// The source address instead of the destination.
        source: bool,
        /// The set of [`Content::NewConnections`].
        set: Name,
    },
    /// `ct state invalid,new`: tracked, but not part of an established connection.
    InvalidOrNew,
    /// `ct label` [`crate::conntrack::REVOKED`].
    Revoked,
    /// `ct label set` [`crate::conntrack::REVOKED`].
    SetRevoked,
    /// `limit rate`.
    Limit {
        /// Packets per second.
        rate: u64,
        /// Packets beyond the rate.
        burst: u32,
    },
    /// `update @set { ip[6] saddr limit rate … }` (or `daddr`): a limit for each address, which the set remembers.
    LimitEach {
        /// The family of the address.
        family: Family,
        /// The source address instead of the destination.
        source: bool,
        /// The set of [`Content::Shares`].
        set: Name,
        /// Packets per second.
        rate: u64,
        /// Packets beyond the rate.
        burst: u32,
    },
    /// `reject`: the sender gets an answer, and the packet is dropped.
    Reject(Answer),
    /// `log group`, with a prefix.
    Log(u16, &'static str),
    /// `counter`.
    Counter,
    /// `queue`: the packet waits until the program that reads this queue decides ([`crate::packet_queue`]).
    Queue {
        /// The number of the queue.
        number: u16,
        /// Whether packets pass while no program reads it (`bypass`); else they are dropped.
        bypass: bool,
        /// By the target of iptables instead of nftables' own statement, which some kernels lack.
        by_target: bool,
    },
    /// The verdict.
    Verdict(Outcome),
}

/// A rule: its expressions in order.
pub(crate) type Rule = Vec<Expression>;

/// A chain with its rules. Except for the base chains, a chain is named by a hash of its rules and never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    /// Its name.
    pub(crate) name: Name,
    /// The hook, if it is a base chain.
    pub(crate) hook: Option<Hook>,
    /// The comment that operators read in `nft list ruleset`.
    pub(crate) comment: Option<String>,
    /// Its rules.
    pub(crate) rules: Vec<Rule>,
    /// The chains that its rules jump or go to.
    pub(crate) chains: Vec<Arc<Chain>>,
    /// The sets that its rules use.
    pub(crate) sets: Vec<Arc<Set>>,
}

impl Chain {
    /// Returns a base chain.
    pub(crate) fn base(hook: Hook, rules: Vec<Rule>) -> Self {
        let (chains, sets) = (Vec::new(), Vec::new());
        Self { name: hook.chain().into(), hook: Some(hook), comment: None, rules, chains, sets }
    }

    /// Returns a regular chain whose chains and sets always exist.
    pub(crate) fn regular(name: impl Into<Name>, comment: impl Into<String>, rules: Vec<Rule>) -> Self {
        let (chains, sets) = (Vec::new(), Vec::new());
        Self { name: name.into(), hook: None, comment: Some(comment.into()), rules, chains, sets }
    }
}
