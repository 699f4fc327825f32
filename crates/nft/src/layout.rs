//! A table of the plan as chains and sets. Pure.
//!
//! One entry chain for each table and family that a local pod uses, one row chain for each distinct row and direction,
//! shared by all tables. Chains are named by what they say, so a changed table is a new chain, and the old one works
//! until the dispatch map leads to the new one.
//!
//! Up to [`LINEAR`] groups, an entry chain asks them one after another. Beyond that, asking each would cost every new
//! connection time in proportion to the groups, so they are laid out as a search tree: a set for the union of some
//! groups leads to a chain that asks only these, at most [`LINEAR`] look-ups on each of `log` levels.
//!
//! A verdict map from address to row looks simpler, and was measured: the kernel walks every element of every verdict
//! map once for each way that leads to it, at each transaction that changes a verdict or a rule. With one map of 100,000
//! elements, the commit of one element took 12 ms where one local pod used it and 1.4 to 2.0 s where 200 did (kernel
//! 6.18; a plain set: 0.05 ms in both cases). Sets are not walked, so a member's coming and going costs the same
//! whatever there is; the price is one more set element on each level of the tree, for each table that has one.

use std::{collections::BTreeMap, sync::Arc};

use palisade_policy::{
    Direction, Family, PeerSet, PeerSetId, PolicyTable, PolicyTableId, PortSet, Protocol, Traffic,
};
use sha2::{Digest, Sha256};

use crate::{
    Options, PlanError,
    base::digit,
    encode::{first_half, rules_digest},
    ruleset::{Chain, Content, Expression, Key, Lead, Outcome, Rule, Set},
};

/// How many groups a chain asks one after another. A look-up costs 20 to 40 ns, a new connection tens of microseconds:
/// sixteen are about one percent of it, and each level of a tree that they save is a set element per member and table.
pub const LINEAR: usize = 16;

/// How many port ranges become a rule each; more become a set.
const PORT_RULES: usize = 4;

/// Where a match leads, with the chain that it needs.
#[derive(Clone)]
struct Way {
    outcome: Outcome,
    chain: Option<Arc<Chain>>,
}

impl Way {
    fn to(chain: Chain) -> Self {
        Self { outcome: Outcome::Goto(chain.name.clone()), chain: Some(Arc::new(chain)) }
    }
}

/// A chain under construction.
#[derive(Default)]
struct Draft {
    rules: Vec<Rule>,
    chains: Vec<Arc<Chain>>,
    sets: Vec<Arc<Set>>,
}

impl Draft {
    fn push(&mut self, mut matches: Rule, way: &Way) {
        matches.push(Expression::Then(way.outcome.clone()));
        self.rules.push(matches);
        self.chains.extend(way.chain.iter().cloned());
    }

    fn append(&mut self, other: Self) {
        self.rules.extend(other.rules);
        self.chains.extend(other.chains);
        self.sets.extend(other.sets);
    }

    /// Ends the chain, and names it by what it says. Tables share what says the same, so only an entry chain, whose
    /// prefix names its table, may name it in its comment.
    fn finish(self, prefix: &str, comment: String) -> Chain {
        let name = format!("{prefix}_{}", hex(&rules_digest(&self.rules))).into();
        Chain {
            name,
            hook: None,
            comment: Some(comment),
            rules: self.rules,
            chains: self.chains,
            sets: self.sets,
        }
    }
}

/// Which packets a chain is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Orientation {
    /// Those that may begin a connection: from the opener to the answerer.
    Request,
    /// TCP packets from the answerer to the opener, in the middle of a connection that is not tracked.
    Reply,
}

/// One table for one family.
pub(crate) struct Layout<'a> {
    pub(crate) options: &'a Options,
    pub(crate) family: Family,
    pub(crate) orientation: Orientation,
    /// The groups of the plan, as they will be.
    pub(crate) group: &'a dyn Fn(&PeerSetId) -> Option<&'a PeerSet>,
}

impl Layout<'_> {
    /// The chain that decides for the pods of a table; none where it could only let everything pass.
    pub(crate) fn entry(
        &self,
        id: PolicyTableId,
        table: &PolicyTable,
    ) -> Result<Option<Arc<Chain>>, PlanError> {
        let exact = self.exact(id, table)?;
        let ranges = self.ranges(id, table)?;
        let rows = || exact.iter().chain(&ranges).map(|(_, traffic)| *traffic).chain([&table.rest]);
        let is_open = |traffic: &Traffic| traffic.ports(Protocol::Tcp).is_all();
        if self.orientation == Orientation::Reply && rows().all(is_open) {
            return Ok(None);
        }
        Ok(Some(self.chain(id, table, &exact, &ranges)))
    }

    fn chain(
        &self,
        id: PolicyTableId,
        table: &PolicyTable,
        exact: &[(PeerSetId, &Traffic)],
        ranges: &[(PeerSetId, &Traffic)],
    ) -> Arc<Chain> {
        let direction = table.direction;
        let rest = self.row(direction, &table.rest);
        let mut tail = self.lookups(direction, ranges, true, &rest);
        tail.push(Vec::new(), &rest);
        let mut draft;
        if exact.len() > LINEAR {
            // An address that is in no group must find the ranges from anywhere in the tree.
            let tail = Way::to(tail.finish(
                &format!("{}tail_{direction}", self.prefix()),
                format!("{direction}: peers that are no live pods"),
            ));
            draft = self.lookups(direction, exact, false, &tail);
            draft.push(Vec::new(), &tail);
        } else {
            draft = self.lookups(direction, exact, false, &rest);
            draft.append(tail);
        }
        let prefix = format!("{}{direction}_{id}_{}", self.prefix(), digit(self.family));
        let of = if self.orientation == Orientation::Reply { "replies, " } else { "" };
        Arc::new(draft.finish(&prefix, format!("{of}{direction} table {id}, {}", self.family)))
    }

    /// What the names of its chains begin with.
    fn prefix(&self) -> &'static str {
        match self.orientation {
            Orientation::Request => "",
            Orientation::Reply => "reply_",
        }
    }

    fn exact<'t>(
        &self,
        id: PolicyTableId,
        table: &'t PolicyTable,
    ) -> Result<Vec<(PeerSetId, &'t Traffic)>, PlanError> {
        table
            .exact
            .iter()
            .map(|(group, row)| match (self.group)(group) {
                Some(PeerSet::Addresses(_)) => Ok((*group, row)),
                Some(PeerSet::Ranges(_)) => Err(PlanError::WrongKind { table: id, group: *group }),
                None => Err(PlanError::NoGroup { table: id, group: *group }),
            })
            .collect()
    }

    /// The range groups that have a range of the family: they never change, so the others need no look-up.
    fn ranges<'t>(
        &self,
        id: PolicyTableId,
        table: &'t PolicyTable,
    ) -> Result<Vec<(PeerSetId, &'t Traffic)>, PlanError> {
        let mut out = Vec::new();
        for (group, row) in &table.ranges {
            match (self.group)(group) {
                Some(PeerSet::Ranges(ranges)) => {
                    if ranges.iter().any(|r| Family::of(r.first) == self.family) {
                        out.push((*group, row));
                    }
                }
                Some(PeerSet::Addresses(_)) => return Err(PlanError::WrongKind { table: id, group: *group }),
                None => return Err(PlanError::NoGroup { table: id, group: *group }),
            }
        }
        Ok(out)
    }

    /// The rules that find the group of a peer, without what follows when there is none.
    fn lookups(
        &self,
        direction: Direction,
        groups: &[(PeerSetId, &Traffic)],
        intervals: bool,
        otherwise: &Way,
    ) -> Draft {
        let mut draft = Draft::default();
        if groups.len() <= LINEAR {
            for (group, traffic) in groups {
                let set = self.set(vec![*group], intervals);
                draft.push(self.peer_in(direction, &set), &self.row(direction, traffic));
                draft.sets.push(set);
            }
            return draft;
        }
        // Parts of equal size and no more levels than needed.
        let mut part = LINEAR;
        while groups.len() > part * LINEAR {
            part *= LINEAR;
        }
        let parts = groups.len().div_ceil(part);
        for part in groups.chunks(groups.len().div_ceil(parts)) {
            let set = self.set(part.iter().map(|(group, _)| *group).collect(), intervals);
            let mut sub = self.lookups(direction, part, intervals, otherwise);
            sub.push(Vec::new(), otherwise);
            let way = Way::to(sub.finish(
                &format!("{}find_{direction}", self.prefix()),
                format!("{direction}: some of the peers"),
            ));
            draft.push(self.peer_in(direction, &set), &way);
            draft.sets.push(set);
        }
        draft
    }

    /// The dispatch map led here by the family already; the `nft` program needs the family in each rule all the same to
    /// print addresses as such.
    fn peer_in(&self, direction: Direction, set: &Set) -> Rule {
        // The peer of a reply stands where that of a request of the other direction does.
        let at = match self.orientation {
            Orientation::Request => direction,
            Orientation::Reply => direction.opposite(),
        };
        vec![Expression::Family(self.family), Expression::PeerIn(at, self.family, set.name.clone())]
    }

    /// Where a peer goes whose row this is.
    fn row(&self, direction: Direction, traffic: &Traffic) -> Way {
        match self.orientation {
            Orientation::Request => row(self.options, direction, traffic),
            Orientation::Reply => reply_row(direction, traffic),
        }
    }

    fn set(&self, mut groups: Vec<PeerSetId>, intervals: bool) -> Arc<Set> {
        groups.sort_unstable();
        let kind = if intervals { "ranges" } else { "group" };
        let digit = digit(self.family);
        let name = match &groups[..] {
            [one] => format!("{kind}_{one}_{digit}"),
            many => {
                let mut hash = Sha256::new();
                many.iter().for_each(|group| hash.update(group.0));
                format!("{kind}s_{}_{digit}", hex(&first_half(hash)))
            }
        };
        Arc::new(Set {
            name: name.into(),
            key: Key::Address(self.family),
            intervals,
            verdicts: false,
            content: Content::Groups(groups, self.family),
        })
    }
}

/// Where a packet of a peer goes that replies if it is anything. It is TCP, its source port is the one that was
/// connected to. Denials are counted and not reported over nflog: the packet shows the connection the wrong way round.
fn reply_row(direction: Direction, traffic: &Traffic) -> Way {
    let ports = traffic.ports(Protocol::Tcp);
    if ports.is_all() {
        return Way { outcome: Outcome::Return, chain: None };
    }
    let mut draft = Draft::default();
    allow_ports(&mut draft, Protocol::Tcp.number(), &ports, Orientation::Reply);
    draft.rules.push(vec![Expression::Counter, Expression::Then(Outcome::Drop)]);
    let comment = format!("{direction}, replies: {}", Traffic::of(Protocol::Tcp, ports));
    Way::to(draft.finish(&format!("reply_row_{direction}"), comment))
}

/// Where a peer goes whose row this is.
fn row(options: &Options, direction: Direction, traffic: &Traffic) -> Way {
    if traffic.is_all() {
        return Way { outcome: Outcome::Return, chain: None };
    }
    let mut draft = Draft::default();
    for protocol in Protocol::WITH_PORTS {
        allow_ports(&mut draft, protocol.number(), &traffic.ports(protocol), Orientation::Request);
    }
    if traffic.other {
        draft.rules.push(vec![
            Expression::NoneOf(Protocol::WITH_PORTS.map(Protocol::number).to_vec()),
            Expression::Then(Outcome::Return),
        ]);
    }
    draft.rules.extend(denial(options, direction));
    Way::to(draft.finish(&format!("row_{direction}"), format!("{direction}: {traffic}")))
}

/// The chain that decides what a pod may use of itself; none where that is everything.
pub(crate) fn hairpin(options: &Options, traffic: &Traffic) -> Option<Arc<Chain>> {
    row(options, Lead::Hairpin.direction(), traffic).chain
}

/// The chain to which every isolated pod leads while its own is not there yet: it denies everything.
pub(crate) fn closed(options: &Options, direction: Direction) -> Arc<Chain> {
    Arc::new(Chain {
        name: format!("closed_{direction}").into(),
        hook: None,
        comment: Some(format!("{direction} of pods whose rules are on their way")),
        rules: denial(options, direction),
        chains: Vec::new(),
        sets: Vec::new(),
    })
}

/// The end of a row: the packet is reported, unless reports come too fast, then counted and dropped. Counting stands
/// behind no limit, so counts are exact.
pub(crate) fn denial(options: &Options, direction: Direction) -> Vec<Rule> {
    let prefix = match direction {
        Direction::Egress => LOG_EGRESS,
        Direction::Ingress => LOG_INGRESS,
    };
    let log = options.log_group.map(|group| {
        vec![Expression::Limit { rate: LOG_RATE, burst: LOG_BURST }, Expression::Log(group, prefix)]
    });
    log.into_iter().chain([vec![Expression::Counter, Expression::Then(Outcome::Drop)]]).collect()
}

/// How many denied packets a second each row reports over nflog, and how many at once after a rest. Each report is
/// copied to a reader and costs some microseconds; a flood must not cost the node more than the dropping itself, and
/// nobody reads more lines than this.
pub const LOG_RATE: u64 = 200;
/// See [`LOG_RATE`].
pub const LOG_BURST: u32 = 500;

/// The nflog prefix of packets that a pod's egress denies.
pub const LOG_EGRESS: &str = "palisade egress ";
/// The nflog prefix of packets that a pod's ingress denies.
pub const LOG_INGRESS: &str = "palisade ingress ";

/// Lets pass what has one of these ports at the end that was connected to: where a request goes, or a reply comes from.
fn allow_ports(draft: &mut Draft, protocol: u8, ports: &PortSet, orientation: Orientation) {
    let range = |first, last| match orientation {
        Orientation::Request => Expression::Port(first, last),
        Orientation::Reply => Expression::SourcePort(first, last),
    };
    let one_of = |set| match orientation {
        Orientation::Request => Expression::PortIn(set),
        Orientation::Reply => Expression::SourcePortIn(set),
    };
    let protocol = Expression::Protocol(protocol);
    let passes = Expression::Then(Outcome::Return);
    if ports.is_all() {
        draft.rules.push(vec![protocol, passes]);
    } else if ports.ranges().len() <= PORT_RULES {
        for (first, last) in ports.ranges() {
            draft.rules.push(vec![protocol.clone(), range(*first, *last), passes.clone()]);
        }
    } else {
        let set = port_set(ports);
        draft.rules.push(vec![protocol, one_of(set.name.clone()), passes]);
        draft.sets.push(set);
    }
}

fn port_set(ports: &PortSet) -> Arc<Set> {
    let mut hash = Sha256::new();
    for (first, last) in ports.ranges() {
        hash.update(first.to_be_bytes());
        hash.update(last.to_be_bytes());
    }
    Arc::new(Set {
        name: format!("ports_{}", hex(&first_half(hash))).into(),
        key: Key::Port,
        intervals: true,
        verdicts: false,
        content: Content::Ports(ports.ranges().to_vec()),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Keeps the layouts of one delta, so that pods of one table share the work.
pub(crate) type Layouts = BTreeMap<(PolicyTableId, Family, Orientation), Option<Arc<Chain>>>;
