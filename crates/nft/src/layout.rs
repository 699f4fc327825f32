//! Lays out a policy table as chains and sets. Pure.
//!
//! There is one entry chain for each table and family that a local pod uses, and one row chain for each distinct row and
//! direction, shared by all tables. A chain's name is a hash of its rules. So a changed table is a new chain, and the
//! old one remains in use until the dispatch map jumps to the new one.
//!
//! An entry chain looks up to [`LINEAR_LOOKUPS`] peer sets one after another. With more, the cost of a new connection
//! would grow with the number of sets, so they form a search tree: a set with the union of some peer sets leads to a chain
//! that looks up only these. Each of the `log` levels has at most [`LINEAR_LOOKUPS`] lookups.
//!
//! A verdict map from address to row would be simpler, but is slow. At each transaction that changes a verdict or a rule,
//! the kernel walks every element of every verdict map, once for each path of jumps to it. With one map of 100,000
//! elements, the commit of one element took 12 ms if one local pod used the map, and 1.4 to 2.0 s if 200 did (kernel
//! 6.18; a plain set: 0.05 ms in both cases). The kernel doesn't walk sets, so a change of one member always costs the same.
//! The price is one more set element per member on each level of the tree, for each table that has a tree.

use std::sync::Arc;

use palisade_policy::{
    Direction, Family, PeerSet, PeerSetId, PolicyTable, PolicyTableId, PortSet, Protocol, Traffic,
};
use sha2::{Digest, Sha256};

use crate::{
    PlanError,
    denial::{audit, denial, refusable},
    encode::{first_half, rules_digest},
    ruleset::{Chain, Content, Expression, JumpTarget, Key, Outcome, Rule, Set, family_digit},
};

/// The most peer sets that a chain looks up one after another.
///
/// A lookup costs 20 to 40 ns, a new connection tens of microseconds, so sixteen lookups are about one percent of it.
/// Each level of a tree that they save is a set element per member and table.
pub const LINEAR_LOOKUPS: usize = 16;

/// The most port ranges that become a rule each. More become a set.
const PORT_RULES: usize = 4;

/// The verdict of a match, and the chain that it goes to.
#[derive(Clone)]
struct Branch {
    outcome: Outcome,
    chain: Option<Arc<Chain>>,
}

impl Branch {
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
    fn push(&mut self, mut matches: Rule, branch: &Branch) {
        matches.push(Expression::Verdict(branch.outcome.clone()));
        self.rules.push(matches);
        self.chains.extend(branch.chain.iter().cloned());
    }

    fn append(&mut self, other: Self) {
        self.rules.extend(other.rules);
        self.chains.extend(other.chains);
        self.sets.extend(other.sets);
    }

    /// Completes the chain, and names it by a hash of its rules.
    ///
    /// Tables share equal chains, so only the comment of an entry chain, whose prefix contains the table, may name the
    /// table.
    fn finish(self, prefix: &str, comment: String) -> Chain {
        let name = format!("{prefix}_{}", hex(&rules_digest(&self.rules)));
        Chain { chains: self.chains, sets: self.sets, ..Chain::regular(name, comment, self.rules) }
    }
}

/// The packets that a chain decides about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Orientation {
    /// Packets that may open a connection: from the opener to the answerer.
    Request,
    /// Mid-stream TCP packets of an untracked connection, from the answerer to the opener.
    Reply,
    /// Packets that may open a connection and that the enforced policies allow. What the table denies is logged, counted
    /// and accepted.
    Audit,
}

/// One table for one family.
pub(crate) struct Layout<'a> {
    pub(crate) family: Family,
    pub(crate) orientation: Orientation,
    /// Returns a peer set of the plan after the change.
    pub(crate) peer_set: &'a dyn Fn(&PeerSetId) -> Option<&'a PeerSet>,
}

impl Layout<'_> {
    /// Returns the chain that decides for the pods of a table, or `None` if it would allow everything.
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
        if exact.len() > LINEAR_LOOKUPS {
            // An address in no peer set must reach the ranges from every node of the tree.
            let tail = Branch::to(tail.finish(
                &format!("{}tail_{direction}", self.prefix()),
                format!("{direction}: peers that are no live pods"),
            ));
            draft = self.lookups(direction, exact, false, &tail);
            draft.push(Vec::new(), &tail);
        } else {
            draft = self.lookups(direction, exact, false, &rest);
            draft.append(tail);
        }
        let prefix = format!("{}{direction}_{id}_{}", self.prefix(), family_digit(self.family));
        let of = match self.orientation {
            Orientation::Request => "",
            Orientation::Reply => "replies, ",
            Orientation::Audit => "audit, ",
        };
        Arc::new(draft.finish(&prefix, format!("{of}{direction} table {id}, {}", self.family)))
    }

    /// Returns the prefix of its chains' names.
    fn prefix(&self) -> &'static str {
        match self.orientation {
            Orientation::Request => "",
            Orientation::Reply => "reply_",
            Orientation::Audit => "audit_",
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
            .map(|(peer_set, row)| match (self.peer_set)(peer_set) {
                Some(PeerSet::Addresses(_)) => Ok((*peer_set, row)),
                Some(PeerSet::Ranges(_)) => Err(PlanError::WrongKind { table: id, peer_set: *peer_set }),
                None => Err(PlanError::NoPeerSet { table: id, peer_set: *peer_set }),
            })
            .collect()
    }

    /// Returns the range sets that have a range of the family. Ranges never change, so the others need no lookup.
    fn ranges<'t>(
        &self,
        id: PolicyTableId,
        table: &'t PolicyTable,
    ) -> Result<Vec<(PeerSetId, &'t Traffic)>, PlanError> {
        let mut out = Vec::new();
        for (peer_set, row) in &table.ranges {
            match (self.peer_set)(peer_set) {
                Some(PeerSet::Ranges(ranges)) => {
                    if ranges.iter().any(|r| Family::of(r.first) == self.family) {
                        out.push((*peer_set, row));
                    }
                }
                Some(PeerSet::Addresses(_)) => {
                    return Err(PlanError::WrongKind { table: id, peer_set: *peer_set });
                }
                None => return Err(PlanError::NoPeerSet { table: id, peer_set: *peer_set }),
            }
        }
        Ok(out)
    }

    /// Returns the rules that find a peer's set, without the rule for a peer in none.
    fn lookups(
        &self,
        direction: Direction,
        peer_sets: &[(PeerSetId, &Traffic)],
        intervals: bool,
        otherwise: &Branch,
    ) -> Draft {
        let mut draft = Draft::default();
        if peer_sets.len() <= LINEAR_LOOKUPS {
            for (peer_set, traffic) in peer_sets {
                let set = self.set(vec![*peer_set], intervals);
                draft.push(self.peer_in(direction, &set), &self.row(direction, traffic));
                draft.sets.push(set);
            }
            return draft;
        }
        // Parts of equal size, and no more levels than needed.
        let mut part = LINEAR_LOOKUPS;
        while peer_sets.len() > part * LINEAR_LOOKUPS {
            part *= LINEAR_LOOKUPS;
        }
        let parts = peer_sets.len().div_ceil(part);
        for part in peer_sets.chunks(peer_sets.len().div_ceil(parts)) {
            let set = self.set(part.iter().map(|(peer_set, _)| *peer_set).collect(), intervals);
            let mut sub = self.lookups(direction, part, intervals, otherwise);
            sub.push(Vec::new(), otherwise);
            let branch = Branch::to(sub.finish(
                &format!("{}find_{direction}", self.prefix()),
                format!("{direction}: some of the peers"),
            ));
            draft.push(self.peer_in(direction, &set), &branch);
            draft.sets.push(set);
        }
        draft
    }

    /// The dispatch map has selected the family already, but the `nft` program needs the family in each rule to print
    /// addresses as addresses.
    fn peer_in(&self, direction: Direction, set: &Set) -> Rule {
        // The peer of a reply has the place of the peer of a request in the other direction.
        let at = match self.orientation {
            Orientation::Request | Orientation::Audit => direction,
            Orientation::Reply => direction.opposite(),
        };
        vec![Expression::Family(self.family), Expression::PeerIn(at, self.family, set.name.clone())]
    }

    fn row(&self, direction: Direction, traffic: &Traffic) -> Branch {
        match self.orientation {
            Orientation::Request => row(direction, traffic),
            Orientation::Audit => audit_row(direction, traffic),
            Orientation::Reply => reply_row(direction, traffic),
        }
    }

    fn set(&self, mut peer_sets: Vec<PeerSetId>, intervals: bool) -> Arc<Set> {
        peer_sets.sort_unstable();
        let kind = if intervals { "ranges" } else { "group" };
        let digit = family_digit(self.family);
        let name = match &peer_sets[..] {
            [one] => format!("{kind}_{one}_{digit}"),
            many => {
                let mut hash = Sha256::new();
                many.iter().for_each(|peer_set| hash.update(peer_set.0));
                format!("{kind}s_{}_{digit}", hex(&first_half(hash)))
            }
        };
        let content = Content::PeerSets(peer_sets, self.family);
        Arc::new(Set { intervals, ..Set::plain(name, Key::Address(self.family), content) })
    }
}

/// Returns the branch for replies of a peer with this row.
///
/// The packet is TCP, and its source port is the port that was connected to. Denials are counted but not logged: the
/// packet would show the connection in reverse.
fn reply_row(direction: Direction, traffic: &Traffic) -> Branch {
    let ports = traffic.ports(Protocol::Tcp);
    if ports.is_all() {
        return Branch { outcome: Outcome::Return, chain: None };
    }
    let mut draft = Draft::default();
    allow_ports(&mut draft, Protocol::Tcp.number(), &ports, Orientation::Reply);
    draft.rules.push(vec![Expression::Counter, Expression::Verdict(Outcome::Drop)]);
    let comment = format!("{direction}, replies: {}", Traffic::of(Protocol::Tcp, ports));
    Branch::to(draft.finish(&format!("reply_row_{direction}"), comment))
}

/// Returns the branch for requests of a peer with this row.
fn row(direction: Direction, traffic: &Traffic) -> Branch {
    ending(direction, traffic, "row", refusable(direction))
}

/// Returns the branch for requests of a peer with this row in a table of policies in audit mode.
fn audit_row(direction: Direction, traffic: &Traffic) -> Branch {
    ending(direction, traffic, "audit_row", audit(direction))
}

/// Returns the branch that allows the traffic of a row, and ends with these rules for all other.
fn ending(direction: Direction, traffic: &Traffic, prefix: &str, end: Vec<Rule>) -> Branch {
    if traffic.is_all() {
        return Branch { outcome: Outcome::Return, chain: None };
    }
    let mut draft = Draft::default();
    for protocol in Protocol::WITH_PORTS {
        allow_ports(&mut draft, protocol.number(), &traffic.ports(protocol), Orientation::Request);
    }
    if traffic.other {
        draft.rules.push(vec![
            Expression::ProtocolNotIn(Protocol::WITH_PORTS.map(Protocol::number).to_vec()),
            Expression::Verdict(Outcome::Return),
        ]);
    }
    draft.rules.extend(end);
    Branch::to(draft.finish(&format!("{prefix}_{direction}"), format!("{direction}: {traffic}")))
}

/// Returns the chain that decides what a pod may use of itself, or `None` if that is everything.
pub(crate) fn hairpin(traffic: &Traffic) -> Option<Arc<Chain>> {
    row(JumpTarget::Hairpin.direction(), traffic).chain
}

/// [`hairpin`] for policies in audit mode.
pub(crate) fn audit_hairpin(traffic: &Traffic) -> Option<Arc<Chain>> {
    audit_row(JumpTarget::AuditHairpin.direction(), traffic).chain
}

/// Returns the chain that denies everything. Isolated pods jump to it until their own chain exists.
pub(crate) fn closed(direction: Direction) -> Arc<Chain> {
    let comment = format!("{direction} of pods whose rules are on their way");
    Arc::new(Chain::regular(format!("closed_{direction}"), comment, denial(direction)))
}

/// Allows these ports at the end that was connected to: the destination of a request, the source of a reply.
fn allow_ports(draft: &mut Draft, protocol: u8, ports: &PortSet, orientation: Orientation) {
    let range = |first, last| match orientation {
        Orientation::Request | Orientation::Audit => Expression::Port(first, last),
        Orientation::Reply => Expression::SourcePort(first, last),
    };
    let one_of = |set| match orientation {
        Orientation::Request | Orientation::Audit => Expression::PortIn(set),
        Orientation::Reply => Expression::SourcePortIn(set),
    };
    let protocol = Expression::Protocol(protocol);
    let passes = Expression::Verdict(Outcome::Return);
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
    let name = format!("ports_{}", hex(&first_half(hash)));
    Arc::new(Set { intervals: true, ..Set::plain(name, Key::Port, Content::Ports(ports.ranges().to_vec())) })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
