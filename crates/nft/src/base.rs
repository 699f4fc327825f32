//! What is in the table whatever the plan says: the dispatch maps and the base chains.

mod midstream;
mod revoked;

pub(crate) use midstream::EPHEMERAL;

use std::sync::Arc;

use palisade_policy::{Direction, Family};

use crate::{
    Options,
    layout::denial,
    ruleset::{
        Chain, Content, Expression, Flood, GENERATION_SET, HasPorts, Hook, Key, LABELS_CHAIN, LINK_CHAIN,
        Lead, Outcome, Rule, Set,
    },
};

/// The comment of the table: whose it is, and the format of what is in it. Another format is replaced at start, never
/// guessed at; the number rises with every change that an older agent's leftovers would not survive.
pub(crate) const TABLE_COMMENT: &str = "palisade format 2";

/// `NF_INET_FORWARD`, `NF_INET_LOCAL_IN`, `NF_INET_LOCAL_OUT`. The priority is 0, `filter`: after destination NAT (-100) and before source
/// NAT (100), so that rules see the real peers (SEMANTICS G-1).
pub(crate) fn hook_number(hook: Hook) -> u32 {
    match hook {
        Hook::Forward => 2,
        Hook::Input => 1,
        Hook::Output => 3,
    }
}

/// The digit that ends the name of a set or chain of one family.
pub(crate) fn digit(family: Family) -> char {
    if family == Family::V4 { '4' } else { '6' }
}

/// The sets that are always there.
#[derive(Debug)]
pub(crate) struct BaseSets {
    dispatch: [[Arc<Set>; 2]; 2],
    hairpin: [Arc<Set>; 2],
    itself: [Arc<Set>; 2],
    reply: [[Arc<Set>; 2]; 2],
    revoked: [[Arc<Set>; 2]; 2],
    /// The transaction number.
    pub(crate) generation: Arc<Set>,
}

impl BaseSets {
    pub(crate) fn new() -> Self {
        let to_tables = |prefix: &str, lead: Lead| {
            Family::BOTH.map(|family| {
                Arc::new(Set {
                    name: format!("{prefix}{}{}", lead.direction(), digit(family)).into(),
                    key: Key::Address(family),
                    intervals: false,
                    verdicts: true,
                    content: Content::Dispatch(lead, family),
                })
            })
        };
        let revoked = |has_ports: HasPorts| {
            Family::BOTH.map(|family| {
                let kind = if has_ports == HasPorts::Yes { "" } else { "_portless" };
                Arc::new(Set {
                    name: format!("revoked{kind}{}", digit(family)).into(),
                    key: has_ports.key(family),
                    intervals: false,
                    verdicts: false,
                    content: Content::Revoked(family, has_ports),
                })
            })
        };
        let hairpin = |family| {
            Arc::new(Set {
                name: format!("hairpin{}", digit(family)).into(),
                key: Key::Pair(family),
                intervals: false,
                verdicts: true,
                content: Content::Dispatch(Lead::Hairpin, family),
            })
        };
        let itself = |family| {
            Arc::new(Set {
                name: format!("self{}", digit(family)).into(),
                key: Key::Pair(family),
                intervals: false,
                verdicts: false,
                content: Content::Itself(family),
            })
        };
        Self {
            dispatch: Direction::BOTH.map(|direction| to_tables("", Lead::Table(direction))),
            reply: Direction::BOTH.map(|direction| to_tables("reply_", Lead::Reply(direction))),
            revoked: HasPorts::ALL.map(revoked),
            hairpin: Family::BOTH.map(hairpin),
            itself: Family::BOTH.map(itself),
            generation: Arc::new(Set {
                name: GENERATION_SET.into(),
                key: Key::Number,
                intervals: false,
                verdicts: false,
                content: Content::Generation,
            }),
        }
    }

    /// The map that leads from local pods to their chains.
    pub(crate) fn dispatch(&self, lead: Lead, family: Family) -> &Arc<Set> {
        let maps = match lead {
            Lead::Table(direction) => &self.dispatch[usize::from(direction != Direction::BOTH[0])],
            Lead::Reply(direction) => &self.reply[usize::from(direction != Direction::BOTH[0])],
            Lead::Hairpin => &self.hairpin,
        };
        &maps[usize::from(family == Family::V6)]
    }

    /// The pairs of isolated pods with themselves.
    pub(crate) fn itself(&self, family: Family) -> &Arc<Set> {
        &self.itself[usize::from(family == Family::V6)]
    }

    /// The set of revoked connections.
    pub(crate) fn revoked(&self, family: Family, has_ports: HasPorts) -> &Arc<Set> {
        &self.revoked[usize::from(has_ports == HasPorts::No)][usize::from(family == Family::V6)]
    }

    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Set>> {
        let dispatch = self.dispatch.iter().chain(&self.reply).flatten();
        let others = self.hairpin.iter().chain(&self.itself).chain(self.revoked.iter().flatten());
        dispatch.chain(others).chain([&self.generation])
    }
}

/// The base chains, and those that are there whatever the plan says. `isolating`: whether a local pod is isolated.
/// A chain comes after those that its rules lead to.
pub(crate) fn chains(options: &Options, sets: &BaseSets, isolating: bool) -> Vec<Arc<Chain>> {
    let mut chains = vec![
        Arc::new(link_chain(options, isolating)),
        Arc::new(labels_chain()),
        Arc::new(revoked::chain()),
        Arc::new(midstream::chain(sets)),
    ];
    chains.push(Arc::new(base_chain(Hook::Forward, sets)));
    if options.egress_to_own_node {
        chains.push(Arc::new(base_chain(Hook::Input, sets)));
        chains.push(Arc::new(output_chain(sets)));
    }
    chains
}

fn base_chain(hook: Hook, sets: &BaseSets) -> Chain {
    let accept = || Expression::Then(Outcome::Accept);
    let to_link = || Expression::Then(Outcome::Jump(LINK_CHAIN.into()));
    // In front of the rule for established traffic: this is what cuts live connections.
    let mut rules: Vec<Rule> = vec![revoked::by_label()];
    if hook == Hook::Forward {
        // One of the ways of any connection between link-local addresses.
        let to = Expression::LinkLocal { source: false };
        rules.push(vec![Expression::Family(Family::V6), to, to_link()]);
    }
    rules.push(vec![Expression::Established, accept()]);
    rules.extend(discovery(&Outcome::Accept));
    if hook == Hook::Forward {
        let from = Expression::LinkLocal { source: true };
        rules.push(vec![Expression::Family(Family::V6), from, to_link()]);
        for flood in [Flood::Broadcast, Flood::Multicast] {
            rules.push(vec![Expression::Flooded(flood), to_link()]);
        }
    }
    rules.extend(revoked::by_tuple(sets));
    // A packet from an address to itself has gone through a service (SEMANTICS C25, G-6). What the map's chain does not
    // drop comes back. If its pod is isolated, the next rule takes it, before the tables of pods and their peers; if
    // not, no table is asked.
    for family in Family::BOTH {
        let map = sets.dispatch(Lead::Hairpin, family).name.clone();
        rules.push(vec![Expression::Family(family), Expression::PairDispatch(family, map)]);
        let set = sets.itself(family).name.clone();
        rules.push(vec![Expression::Family(family), Expression::PairIn(family, set), accept()]);
    }
    // What a node receives for itself is never ingress of a pod, but it may be egress of one (SEMANTICS G-5).
    let directions = if hook == Hook::Forward { &Direction::BOTH[..] } else { &[Direction::Egress] };
    for direction in directions {
        for family in Family::BOTH {
            let map = sets.dispatch(Lead::Table(*direction), family).name.clone();
            rules.push(vec![Expression::Family(family), Expression::Dispatch(*direction, family, map)]);
        }
    }
    if hook == Hook::Forward {
        rules.extend(midstream::unless_from_the_opener());
    }
    hooked(hook, rules)
}

/// What the node itself sends is no pod's, but it may be the other half of a connection that a pod's egress denies: then
/// it is not to open that connection again.
fn output_chain(sets: &BaseSets) -> Chain {
    let mut rules = vec![revoked::by_label()];
    rules.push(vec![Expression::Established, Expression::Then(Outcome::Accept)]);
    rules.extend(revoked::by_tuple(sets));
    rules.extend(midstream::from_the_answerer(sets));
    hooked(Hook::Output, rules)
}

fn hooked(hook: Hook, rules: Vec<Rule>) -> Chain {
    Chain {
        name: hook.chain().into(),
        hook: Some(hook),
        comment: None,
        rules,
        chains: Vec::new(),
        sets: Vec::new(),
    }
}

/// Multicast listener discovery (130-132) and neighbour and router discovery (133-137), then MLDv2 reports: without
/// them there is no IPv6 (SEMANTICS G-7).
pub(crate) fn discovery(outcome: &Outcome) -> impl Iterator<Item = Rule> {
    [(130, 137), (143, 143)].into_iter().map(|(first, last)| {
        vec![
            Expression::Family(Family::V6),
            Expression::Protocol(58),
            Expression::Icmpv6(first, last),
            Expression::Then(outcome.clone()),
        ]
    })
}

/// What the forward hook sees of a link's own traffic, which only a bridge lets it see: frames to many, and link-local
/// addresses, which no pod is known by. Dispatch goes by pods' addresses, so no policy would be asked, though such a
/// packet may be from or to an isolated pod (SEMANTICS A42). So it is denied as long as a local pod is isolated. Routers
/// don't forward any of it, but for multicast where somebody routes it.
///
/// The rules that lead here never change, and it is the content of this chain that does: with the first and the last
/// isolated pod, and at no other change.
pub(crate) fn link_chain(options: &Options, isolating: bool) -> Chain {
    let denied = || discovery(&Outcome::Return).chain(denial(options, Direction::Ingress));
    Chain {
        name: LINK_CHAIN.into(),
        hook: None,
        comment: Some("to many or by link-local addresses: denied while pods here are isolated".to_owned()),
        rules: if isolating { denied().collect() } else { Vec::new() },
        chains: Vec::new(),
        sets: Vec::new(),
    }
}

/// Nothing leads here. A connection can be revoked by label only if it got room for labels when it began, and most
/// kernels make room only while some rule *sets* labels (those of 2025 and later also where a rule reads them).
fn labels_chain() -> Chain {
    Chain {
        name: LABELS_CHAIN.into(),
        hook: None,
        comment: Some("makes room for labels, nothing leads here".to_owned()),
        rules: vec![vec![Expression::SetRevoked]],
        chains: Vec::new(),
        sets: Vec::new(),
    }
}
