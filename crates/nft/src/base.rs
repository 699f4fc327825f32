//! What is in the table whatever the plan says: the dispatch maps and the base chains.

mod midstream;
mod revoked;

pub(crate) use midstream::EPHEMERAL;

use std::sync::Arc;

use palisade_policy::{Direction, Family};

use crate::{
    Options, discovery, from_pods,
    layout::denial,
    ruleset::{
        Around, Chain, Content, Expression, Flood, GENERATION_SET, HasPorts, Hook, Key, LABELS_CHAIN,
        LINK_CHAIN, Lead, Outcome, Rule, STRANGERS_CHAIN, Set,
    },
};

/// The comment of the table: whose it is, and the format of what is in it. Another format is replaced at start, never
/// guessed at; the number rises with every change that an older agent's leftovers would not survive.
pub(crate) const TABLE_COMMENT: &str = "palisade format 2";

/// `NF_INET_FORWARD`, `NF_INET_LOCAL_IN`, `NF_INET_LOCAL_OUT`, `NF_BR_PRE_ROUTING`, `NF_BR_FORWARD`.
pub(crate) fn hook_number(hook: Hook) -> u32 {
    match hook {
        Hook::Forward | Hook::BetweenPorts => 2,
        Hook::Input => 1,
        Hook::Output => 3,
        Hook::FromPorts => 0,
    }
}

/// `filter`, which for `inet` is 0: after destination NAT (-100) and before source NAT (100), so that rules see the real
/// peers (SEMANTICS G-1). For `bridge` it is -200, in front of br_netfilter (0).
pub(crate) fn hook_priority(hook: Hook) -> i32 {
    match hook {
        Hook::Forward | Hook::Input | Hook::Output => 0,
        Hook::FromPorts | Hook::BetweenPorts => -200,
    }
}

/// What the reader finds of a base chain: hook, priority, and the policy `accept`.
pub(crate) fn place(hook: Hook) -> (u32, i32, u32) {
    (hook_number(hook), hook_priority(hook), 1)
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
    around: [Arc<Set>; Around::ALL.len()],
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
            around: Around::ALL.map(|around| Arc::new(around_set(around))),
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

    /// A set of what is round the local pods.
    pub(crate) fn around(&self, around: Around) -> &Arc<Set> {
        let at = Around::ALL.iter().position(|one| *one == around).unwrap_or_default();
        &self.around[at]
    }

    /// All sets of what is round the local pods.
    pub(crate) fn surroundings(&self) -> impl Iterator<Item = &Arc<Set>> {
        self.around.iter()
    }

    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Set>> {
        let dispatch = self.dispatch.iter().chain(&self.reply).flatten();
        let others = self.hairpin.iter().chain(&self.itself).chain(self.revoked.iter().flatten());
        dispatch.chain(others).chain(&self.around).chain([&self.generation])
    }
}

pub(crate) fn around_set(around: Around) -> Set {
    let (name, key) = match around {
        Around::Local(family) => (format!("local{}", digit(family)), Key::Address(family)),
        Around::Interfaces => ("pod_interfaces".to_owned(), Key::Interface),
        Around::Bridges => ("pod_bridges".to_owned(), Key::Interface),
        Around::Ports => ("pod_ports".to_owned(), Key::Interface),
        Around::OwnPorts => ("own_ports".to_owned(), Key::InterfacePair),
        Around::Themselves(family) => (format!("themselves{}", digit(family)), Key::Pair(family)),
        Around::TunnelPorts => ("tunnel_ports".to_owned(), Key::Port),
        Around::TunnelProtocols => ("tunnel_protocols".to_owned(), Key::Protocol),
        Around::Ends(family) => (format!("tunnel_ends{}", digit(family)), Key::Address(family)),
    };
    Set { name: name.into(), key, intervals: false, verdicts: false, content: Content::Around(around) }
}

/// The base chains, and those that are there whatever the plan says. `isolating`: whether a local pod is isolated.
/// A chain comes after those that its rules lead to.
pub(crate) fn chains(options: &Options, sets: &BaseSets, isolating: bool) -> Vec<Arc<Chain>> {
    let mut chains = vec![
        discovery::chain(),
        link_chain(options, isolating),
        labels_chain(),
        revoked::chain(),
        midstream::chain(sets),
        strangers_chain(sets, isolating),
    ];
    chains.extend(from_pods::chains(options, sets));
    chains.extend(Hook::BOTH.map(|hook| base_chain(hook, options, sets)));
    if options.egress_to_own_node {
        chains.push(output_chain(sets));
    }
    chains.into_iter().map(Arc::new).collect()
}

fn base_chain(hook: Hook, options: &Options, sets: &BaseSets) -> Chain {
    if hook == Hook::Input && !options.egress_to_own_node {
        // No policy holds here; what only nodes may send isn't for pods to send all the same.
        let mut rules = vec![vec![Expression::Established, Expression::Then(Outcome::Accept)]];
        rules.push(discovery::entrance());
        rules.extend(from_pods::entrances(hook, sets));
        return hooked(hook, rules);
    }
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
    rules.push(discovery::entrance());
    rules.extend(from_pods::entrances(hook, sets));
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

pub(crate) fn hooked(hook: Hook, rules: Vec<Rule>) -> Chain {
    Chain {
        name: hook.chain().into(),
        hook: Some(hook),
        comment: None,
        rules,
        chains: Vec::new(),
        sets: Vec::new(),
    }
}

/// What the forward hook sees of a link's own traffic, which only a bridge lets it see: frames to many, and link-local
/// addresses, which no pod is known by. Dispatch goes by pods' addresses, so no policy would be asked, though such a
/// packet may be from or to an isolated pod (SEMANTICS A42). So it is denied as long as a local pod is isolated. Routers
/// don't forward any of it, but for multicast where somebody routes it.
///
/// The rules that lead here never change, and it is the content of this chain that does: with the first and the last
/// isolated pod, and at no other change.
pub(crate) fn link_chain(options: &Options, isolating: bool) -> Chain {
    let denied = || [discovery::entrance()].into_iter().chain(denial(options, Direction::Ingress));
    Chain {
        name: LINK_CHAIN.into(),
        hook: None,
        comment: Some("to many or by link-local addresses: denied while pods here are isolated".to_owned()),
        rules: if isolating { denied().collect() } else { Vec::new() },
        chains: Vec::new(),
        sets: Vec::new(),
    }
}

/// What leads from the chain of forwarded packets of pods to [`strangers_chain`]: packets between the ports of a bridge that
/// has no others than pods'.
pub(crate) fn between_ports(sets: &BaseSets) -> Rule {
    let bridges = || sets.around(Around::Bridges).name.clone();
    vec![
        Expression::InterfaceIn { set: bridges(), inverted: false },
        Expression::LeavesBy(bridges()),
        Expression::Then(Outcome::Jump(STRANGERS_CHAIN.into())),
    ]
}

/// A frame to a pod's hardware address reaches the pod whatever IP destination it has, and dispatch by address finds
/// nobody where that is no pod's. So it is denied while a local pod is isolated, as what a link shares is. What answers an
/// open connection has been accepted before: a pod whose address isn't known yet can call others. What goes to many has a
/// chain of its own.
pub(crate) fn strangers_chain(sets: &BaseSets, isolating: bool) -> Chain {
    let to_local = |family: Family| {
        let local = sets.around(Around::Local(family)).name.clone();
        let to = Expression::PeerIn(Direction::Egress, family, local);
        vec![Expression::Family(family), to, Expression::Then(Outcome::Return)]
    };
    let to_many = |flood| vec![Expression::Flooded(flood), Expression::Then(Outcome::Return)];
    let mut rules: Vec<Rule> = Family::BOTH.map(to_local).into();
    rules.extend([Flood::Broadcast, Flood::Multicast].map(to_many));
    rules.push(vec![Expression::Counter, Expression::Then(Outcome::Drop)]);
    Chain {
        name: STRANGERS_CHAIN.into(),
        hook: None,
        comment: Some(
            "between ports of a bridge to nobody here: denied while pods here are isolated".to_owned(),
        ),
        rules: if isolating { rules } else { Vec::new() },
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
