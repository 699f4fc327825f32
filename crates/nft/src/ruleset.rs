//! The objects of the table `inet palisade`, as values: what [`crate::encode`] writes.
//!
//! An [`Expression`] is one match or statement as an operator reads it in `nft list ruleset`; it becomes one or more
//! kernel expressions.

mod about;

use std::{net::IpAddr, sync::Arc};

pub(crate) use palisade_policy::Name;
use palisade_policy::{Direction, Family, IpRange, PeerSetId};

use crate::conntrack::FiveTuple;

/// Our table. Nothing outside it is ever read or written.
pub const TABLE: &str = "palisade";

/// The set whose one element counts our transactions.
pub(crate) const GENERATION_SET: &str = "generation";

/// The chain that switches on conntrack labels, see [`crate::base`].
pub(crate) const LABELS_CHAIN: &str = "labels";

/// The chain that drops the packets of revoked connections, see [`crate::base::revoked`].
pub(crate) const REVOKED_CHAIN: &str = "revoked";

/// The chain that judges TCP packets in the middle of a connection as replies, see [`crate::base::midstream`].
pub(crate) const REPLIES_CHAIN: &str = "replies";

/// A hook that a base chain hangs on, at priority `filter`: the last two in the table `bridge palisade`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hook {
    /// Packets that the node forwards: from and to its pods.
    Forward,
    /// Packets for the node itself.
    Input,
    /// Packets of the node itself. Only the replies of revoked connections are looked for there.
    Output,
    /// Frames that come in by a port of a bridge.
    FromPorts,
    /// Frames from one port of a bridge to another.
    BetweenPorts,
}

impl Hook {
    /// The two where policies decide about packets of pods.
    pub const BOTH: [Self; 2] = [Self::Forward, Self::Input];

    /// The name of its base chain.
    #[must_use]
    pub fn chain(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Input => "input",
            Self::Output => "output",
            Self::FromPorts => "prerouting",
            Self::BetweenPorts => "forward",
        }
    }
}

/// The chain for what is shared by a link, see [`crate::base`].
pub(crate) const LINK_CHAIN: &str = "link";

/// The chain that accepts discovery, see [`crate::discovery`].
pub(crate) const DISCOVERY_CHAIN: &str = "discovery";

/// The chains for what local pods send, see [`crate::from_pods`].
pub(crate) const FORWARDED_CHAIN: &str = "from_pods";
pub(crate) const RECEIVED_CHAIN: &str = "from_pods_here";
pub(crate) const ENCAPSULATED_CHAIN: &str = "encapsulated";

/// The chain for packets between ports of a bridge to nobody here, see [`crate::base`].
pub(crate) const STRANGERS_CHAIN: &str = "strangers";

/// The chains of the table `bridge palisade` that are empty while no local pod is isolated.
pub(crate) const FROM_PORTS_CHAIN: &str = "from_ports";
pub(crate) const TO_PORTS_CHAIN: &str = "to_ports";

/// To whom a frame goes that goes to many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flood {
    /// To all.
    Broadcast,
    /// To those who listen.
    Multicast,
}

/// What the keys of a set are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// One address.
    Address(Family),
    /// Source and destination address.
    Pair(Family),
    /// Source and destination address, IP protocol, source and destination port.
    FiveTuple(Family),
    /// Source and destination address and IP protocol, for protocols without ports.
    ThreeTuple(Family),
    /// A port, of whatever protocol.
    Port,
    /// A bare number.
    Number,
    /// The index of an interface.
    Interface,
    /// The indexes of two interfaces.
    InterfacePair,
    /// An IP protocol.
    Protocol,
}

/// A set or verdict map, without its elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Set {
    /// Its name.
    pub(crate) name: Name,
    /// What its keys are.
    pub(crate) key: Key,
    /// Whether its elements are ranges.
    pub(crate) intervals: bool,
    /// Whether its elements lead to chains.
    pub(crate) verdicts: bool,
    /// What fills it.
    pub(crate) content: Content,
}

/// What a verdict map from local pods leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Lead {
    /// The table that decides this direction.
    Table(Direction),
    /// What the pod may use of itself, where that is not everything.
    Hairpin,
    /// The table that decides this direction, asked about a packet that would be a reply: the pod that is isolated for
    /// ingress is its source, and the one that is isolated for egress its destination.
    Reply(Direction),
}

impl Lead {
    /// All of them.
    pub(crate) const ALL: [Self; 5] = [
        Self::Table(Direction::Egress),
        Self::Table(Direction::Ingress),
        Self::Hairpin,
        Self::Reply(Direction::Egress),
        Self::Reply(Direction::Ingress),
    ];

    /// What its denials count as. A pod that reaches itself is both ends at once; egress is asked first elsewhere too.
    pub(crate) fn direction(self) -> Direction {
        match self {
            Self::Table(direction) | Self::Reply(direction) => direction,
            Self::Hairpin => Direction::Egress,
        }
    }
}

/// What fills a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// The members of a family of all these groups.
    Groups(Vec<PeerSetId>, Family),
    /// These ports, for ever.
    Ports(Vec<(u16, u16)>),
    /// Local pods with the chains that decide for them.
    Dispatch(Lead, Family),
    /// The local pods that are isolated in any direction, each as a pair with itself.
    Itself(Family),
    /// Revoked connections of a family, with or without ports, in both orientations. They expire, so the content is not the
    /// plan's to say.
    Revoked(Family, HasPorts),
    /// The number of our last transaction.
    Generation,
    /// What is round the local pods.
    Around(Around),
}

/// What is round the local pods, see [`crate::Surroundings`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Around {
    /// The addresses of local pods, isolated or not.
    Local(Family),
    /// The interfaces by which nothing but their packets comes in.
    Interfaces,
    /// The bridges among them.
    Bridges,
    /// The UDP ports of the node's tunnels.
    TunnelPorts,
    /// The IP protocols of the node's tunnels.
    TunnelProtocols,
    /// Where tunnels end.
    Ends(Family),
    /// The ports of bridges that lead to local pods.
    Ports,
    /// Each of them with itself.
    OwnPorts,
    /// The addresses of local pods, each with itself.
    Themselves(Family),
}

impl Around {
    /// Those of the table `inet palisade`.
    pub(crate) const ALL: [Self; 8] = [
        Self::Local(Family::V4),
        Self::Local(Family::V6),
        Self::Interfaces,
        Self::Bridges,
        Self::TunnelPorts,
        Self::TunnelProtocols,
        Self::Ends(Family::V4),
        Self::Ends(Family::V6),
    ];

    /// Those of the table `bridge palisade`.
    pub(crate) const OF_BRIDGE: [Self; 4] =
        [Self::Ports, Self::OwnPorts, Self::Themselves(Family::V4), Self::Themselves(Family::V6)];
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

    /// The key by which a connection is known.
    pub(crate) fn key(self, family: Family) -> Key {
        match self {
            Self::Yes => Key::FiveTuple(family),
            Self::No => Key::ThreeTuple(family),
        }
    }
}

impl Content {
    /// Whether elements expire.
    pub(crate) fn expires(&self) -> bool {
        matches!(self, Self::Revoked(..))
    }
}

/// One element of a set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Element {
    /// An address.
    Address(IpAddr),
    /// An address as source and destination both.
    Itself(IpAddr),
    /// A range of addresses.
    Range(IpRange),
    /// A range of ports.
    Ports(u16, u16),
    /// A port.
    Port(u16),
    /// The index of an interface.
    Interface(u32),
    /// The index of an interface by which a frame both comes and goes.
    SameInterface(u32),
    /// An IP protocol.
    Protocol(u8),
    /// A local pod address and the chain that decides for it.
    Jump(IpAddr, Name),
    /// A local pod address as source and destination both, and the chain that decides what it may use of itself.
    JumpItself(IpAddr, Name),
    /// One orientation of a revoked connection, and whether it is that from the opener to the answerer.
    Revoked(FiveTuple, bool),
    /// A number.
    Number(u32),
}

/// Where a packet goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It passes this hook.
    Accept,
    /// It ends here.
    Drop,
    /// Back to the base chain: this direction has nothing against it.
    Return,
    /// On to another chain, from which `return` leads to the base chain.
    Goto(Name),
    /// To another chain, from which `return` and the end lead to the next rule.
    Jump(Name),
}

/// One match or statement of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expression {
    /// `meta nfproto`.
    Family(Family),
    /// `meta l4proto` is this one.
    Protocol(u8),
    /// `meta l4proto` in a set.
    ProtocolIn(Name),
    /// `iif` in a set, or not.
    InterfaceIn {
        /// The set.
        set: Name,
        /// Not in it.
        inverted: bool,
    },
    /// `oif` in a set.
    LeavesBy(Name),
    /// `iif . oif` in a set of pairs, or not.
    TurnsBack {
        /// The set.
        set: Name,
        /// Not in it.
        inverted: bool,
    },
    /// `ether type`: that of the tag where the frame has one.
    EtherType(u16),
    /// `fib saddr . iif oif missing`: no route leads back to the source by the interface on which the packet came.
    NoWayBack,
    /// `ip6 hoplimit` is this one.
    HopLimit(u8),
    /// `meta l4proto` is none of these.
    NoneOf(Vec<u8>),
    /// `th dport` in an inclusive range.
    Port(u16, u16),
    /// `th dport` in a set.
    PortIn(Name),
    /// `th sport` in an inclusive range.
    SourcePort(u16, u16),
    /// `th sport` in a set.
    SourcePortIn(Name),
    /// `tcp flags` of a packet that doesn't begin a connection; wants [`Expression::Protocol`] 6 before it.
    Midstream,
    /// The packet's tuple in a set of [`Content::Revoked`].
    TupleIn(Family, HasPorts, Name),
    /// `ip[6] saddr` (for ingress) or `daddr` (for egress) in a set of peers.
    PeerIn(Direction, Family, Name),
    /// `ip[6] saddr . ip[6] daddr` in a set.
    PairIn(Family, Name),
    /// `ip[6] saddr . ip[6] daddr` through a verdict map.
    PairDispatch(Family, Name),
    /// `ip[6] daddr` (ingress) or `saddr` (egress) through a verdict map.
    Dispatch(Direction, Family, Name),
    /// `ip[6] saddr` is this one.
    From(IpAddr),
    /// `ip6 saddr` (or `daddr`) is link-local: fe80::/10.
    LinkLocal {
        /// The source, not the destination.
        source: bool,
    },
    /// `meta pkttype`.
    Flooded(Flood),
    /// The ICMPv6 type in an inclusive range; wants [`Expression::Protocol`] 58 before it.
    Icmpv6(u8, u8),
    /// `ct state established,related`.
    Established,
    /// `ct state invalid,new`: in connection tracking, and of no established connection.
    Unestablished,
    /// `ct label` [`crate::conntrack::REVOKED`].
    Revoked,
    /// `ct label set` [`crate::conntrack::REVOKED`].
    SetRevoked,
    /// `limit`: so many packets a second pass, and so many at once after a rest.
    Limit {
        /// Packets per second.
        rate: u64,
        /// Packets beyond the rate.
        burst: u32,
    },
    /// `log group`, with a prefix.
    Log(u16, &'static str),
    /// `counter`.
    Counter,
    /// The verdict.
    Then(Outcome),
}

/// A rule: its expressions in order.
pub(crate) type Rule = Vec<Expression>;

/// A chain with its rules. Other than the base chains, a chain is named by what it says and never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    /// Its name.
    pub(crate) name: Name,
    /// The hook of a base chain.
    pub(crate) hook: Option<Hook>,
    /// What operators read beside it.
    pub(crate) comment: Option<String>,
    /// Its rules.
    pub(crate) rules: Vec<Rule>,
    /// The chains that its rules go to.
    pub(crate) chains: Vec<Arc<Chain>>,
    /// The sets that its rules look into.
    pub(crate) sets: Vec<Arc<Set>>,
}

/// How many elements one message carries at most: the largest element takes 124 bytes, and a netlink attribute ends at
/// 64 KiB.
pub(crate) const ELEMENTS_PER_MESSAGE: usize = 500;

/// One message of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// Makes the table.
    CreateTable,
    /// Makes a dormant table work again.
    WakeTable,
    /// Removes the table with all that is in it.
    DeleteTable,
    /// Makes a set.
    CreateSet(Arc<Set>),
    /// Removes a set that no rule looks into.
    DeleteSet(Name),
    /// Adds at most [`ELEMENTS_PER_MESSAGE`] elements.
    AddElements(Arc<Set>, Vec<Element>),
    /// Removes at most [`ELEMENTS_PER_MESSAGE`] elements.
    RemoveElements(Arc<Set>, Vec<Element>),
    /// Makes a chain, without rules.
    CreateChain(Arc<Chain>),
    /// Adds the rule with this index to the end of its chain.
    AddRule(Arc<Chain>, usize),
    /// Removes all rules of a chain.
    FlushChain(Name),
    /// Removes a chain to which nothing leads.
    DeleteChain(Name),
    /// Removes a counter, a helper or the like, by its `NFT_OBJECT_*` type and name. We make none.
    DeleteObject(u32, Name),
    /// Removes a flow table. We make none.
    DeleteFlowTable(Name),
    /// One of these in the table `bridge palisade`.
    Bridged(Box<Message>),
}
