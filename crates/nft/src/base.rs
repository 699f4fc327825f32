//! The base chains, and the other chains that exist whatever the plan contains.

pub(crate) mod midstream;
pub(crate) mod misdirected;
mod prerouting;
pub(crate) mod revoked;

use std::{collections::BTreeSet, sync::Arc};

use palisade_policy::{Direction, Family};

use crate::{
    EnforcerOptions,
    base_sets::BaseSets,
    conntrack::{ICMP, ICMPV6},
    denial::denial,
    discovery, from_pods, log_shares, refusal,
    ruleset::{
        AUDIT_CHAIN, Chain, Expression, Hook, JumpTarget, LABELS_CHAIN, LINK_CHAIN, NODE_LINK_CHAIN,
        NODE_LINK_DENIED_CHAIN, NodeSet, Outcome, PacketType, Rule, STRANGERS_CHAIN, SenderField,
        family_digit,
    },
};

/// What the rules of these chains depend on beside the options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Conditions {
    pub(crate) isolating: Isolating,
    /// The interfaces on which packets of other hosts arrive.
    pub(crate) uplinks: BTreeSet<u32>,
    /// Whether any connection may be revoked.
    pub(crate) may_be_revoked: bool,
}

/// Returns all of these chains, each after the chains that its rules use.
pub(crate) fn chains(options: &EnforcerOptions, sets: &BaseSets, conditions: &Conditions) -> Vec<Arc<Chain>> {
    let mut chains = log_shares::chains(options, sets);
    chains.push(discovery::chain());
    chains.extend(refusal::chains(options, sets));
    chains.extend(of_isolation(options, sets, conditions.isolating));
    chains.push(node_link_denied_chain());
    chains.extend([labels_chain(), revoked::chain(), midstream::chain(sets)]);
    chains.extend(Family::BOTH.map(|family| to_itself_chain(family, sets)));
    chains.extend(from_pods::chains(options, sets));
    chains.extend(misdirected::chains());
    chains.extend(prerouting::chains(options, sets, &conditions.uplinks));
    chains.extend(Hook::POLICY.into_iter().flat_map(|hook| hook_chains(hook, options, sets, conditions)));
    if options.egress_to_own_node {
        chains.push(output_chain(sets, conditions));
    }
    chains.into_iter().map(Arc::new).collect()
}

/// In which directions any local pod is isolated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Isolating {
    /// In any.
    pub(crate) any: bool,
    /// For egress.
    pub(crate) egress: bool,
    /// Whether any local pod refuses what its policies deny.
    pub(crate) refusing: bool,
    /// Whether policies in audit mode select any local pod.
    pub(crate) audited: bool,
}

/// Returns the chains whose rules depend on whether local pods are isolated, refuse, and are selected by policies in audit mode. Without rules they
/// decide nothing.
pub(crate) fn of_isolation(
    options: &EnforcerOptions,
    sets: &BaseSets,
    Isolating { any, egress, refusing, audited }: Isolating,
) -> Vec<Chain> {
    let mut chains = vec![link_chain(any), strangers_chain(sets, any), audit_chain(sets, audited)];
    chains.extend(refusal::of_pods(sets, refusing));
    if options.egress_to_own_node {
        chains.push(node_link_chain(sets, egress));
    }
    chains
}

/// Returns the base chain of a hook, after the chains that it continues in.
///
/// What every packet passes comes first, and of that what IPv4 needs. Packets that open a connection continue in a chain of their family, so
/// that they don't pass the rules of the other one.
fn hook_chains(
    hook: Hook,
    options: &EnforcerOptions,
    sets: &BaseSets,
    conditions: &Conditions,
) -> Vec<Chain> {
    if hook == Hook::Input && !options.egress_to_own_node {
        // No policy applies at this hook, but pods still must not send what only nodes may send.
        let mut rules = vec![vec![Expression::Established, Expression::Verdict(Outcome::Accept)]];
        rules.extend(misdirected::by_pods_as_routers(sets));
        rules.push(discovery::jump_rule());
        rules.push(from_pods::by_interface(hook, sets));
        rules.extend(Family::BOTH.map(|family| from_pods::by_address(hook, family, sets)));
        return vec![Chain::base(hook, rules)];
    }
    let [v4, v6] = Family::BOTH.map(|family| opening_chain(hook, family, sets, conditions));
    // Before the rule for established traffic, so that it stops established connections.
    let mut rules: Vec<Rule> = by_label(conditions);
    rules.push(vec![Expression::IsIpv4, Expression::Established, accept()]);
    rules.push(vec![Expression::IsIpv4, Expression::Verdict(Outcome::Goto(v4.name.clone()))]);
    if hook == Hook::Forward {
        // Catches one direction of every connection between link-local addresses, established or not.
        let to = Expression::LinkLocal { source: false };
        rules.push(vec![Expression::Family(Family::V6), to, to_link()]);
    } else {
        // Likewise: no pod is an end of such a connection.
        let set = sets.node(NodeSet::Interfaces).name.clone();
        rules.push(vec![
            Expression::Family(Family::V6),
            Expression::LinkLocal { source: true },
            Expression::InterfaceIn { set, inverted: false },
            Expression::Verdict(Outcome::Jump(NODE_LINK_CHAIN.into())),
        ]);
    }
    if hook == Hook::Forward {
        rules.push(misdirected::by_routing_header(&v6.name));
    }
    rules.push(vec![Expression::Established, accept()]);
    rules.push(vec![Expression::Verdict(Outcome::Goto(v6.name.clone()))]);
    vec![v4, v6, Chain::base(hook, rules)]
}

/// Every packet would pass this rule, and while no connection is revoked it matches none.
fn by_label(conditions: &Conditions) -> Vec<Rule> {
    if conditions.may_be_revoked { vec![revoked::by_label()] } else { Vec::new() }
}

fn by_tuple(conditions: &Conditions, family: Family, sets: &BaseSets) -> Vec<Rule> {
    if conditions.may_be_revoked { revoked::by_tuple(family, sets) } else { Vec::new() }
}

/// Returns the chain for packets of a family that may open a connection.
fn opening_chain(hook: Hook, family: Family, sets: &BaseSets, conditions: &Conditions) -> Chain {
    let mut rules = vec![error_about_a_connection(family)];
    if family == Family::V6 {
        if hook == Hook::Input {
            rules.extend(misdirected::by_pods_as_routers(sets));
        }
        rules.push(discovery::jump_rule());
    }
    rules.push(from_pods::by_interface(hook, sets));
    rules.push(from_pods::by_address(hook, family, sets));
    if hook == Hook::Forward {
        if family == Family::V6 {
            let from = Expression::LinkLocal { source: true };
            rules.push(vec![Expression::Family(family), from, to_link()]);
        }
        for kind in [PacketType::Broadcast, PacketType::Multicast] {
            rules.push(vec![Expression::PacketType(kind), to_link()]);
        }
    }
    rules.extend(by_tuple(conditions, family, sets));
    // A packet from an address to itself went through a service (SEMANTICS C25, G-6). If the pod is not isolated, no table applies to it.
    let set = sets.self_pairs(family).name.clone();
    let to_itself = Expression::Verdict(Outcome::Goto(to_itself_name(family).into()));
    rules.push(vec![Expression::Family(family), Expression::PairIn(family, set), to_itself]);
    // A packet to the node itself is never ingress of a pod, but it may be egress of one (SEMANTICS G-5).
    let directions = if hook == Hook::Forward { &Direction::BOTH[..] } else { &[Direction::Egress] };
    rules.extend(dispatch(sets, directions, &[family], JumpTarget::Table));
    if hook == Hook::Forward {
        rules.extend(midstream::unless_from_opener());
    }
    // Last, since only what the enforced policies allow counts.
    if hook == Hook::Forward {
        rules.push(to_audit());
    } else {
        rules.extend(dispatch(sets, directions, &[family], JumpTarget::Audit));
    }
    let name = format!("{}{}", hook.chain(), family_digit(family));
    Chain::regular(name, format!("packets that may open a connection, {family}"), rules)
}

fn to_itself_name(family: Family) -> String {
    format!("to_itself{}", family_digit(family))
}

/// Returns the chain for packets from an isolated pod to itself. The maps' chains drop a packet or return. What is left is accepted, before the
/// tables of pods and their peers.
fn to_itself_chain(family: Family, sets: &BaseSets) -> Chain {
    let dispatch = |target| {
        let map = sets.dispatch(target, family).name.clone();
        vec![Expression::Family(family), Expression::PairDispatch(family, map)]
    };
    let mut rules: Vec<Rule> = [JumpTarget::Hairpin, JumpTarget::AuditHairpin].map(dispatch).into();
    rules.push(vec![accept()]);
    let comment = format!("from an isolated pod to itself, through a service, {family}");
    Chain::regular(to_itself_name(family), comment, rules)
}

/// Accepts ICMP errors about connections that are tracked (SEMANTICS G-7).
///
/// Connections that a helper of connection tracking expects are related too: a pod would open them by what it writes into an allowed one, such
/// as FTP's `PASV`. No policy allows them by that.
pub(crate) fn error_about_a_connection(family: Family) -> Rule {
    let protocol = if family == Family::V4 { ICMP } else { ICMPV6 };
    vec![Expression::Family(family), Expression::Protocol(protocol), Expression::Related, accept()]
}

fn accept() -> Expression {
    Expression::Verdict(Outcome::Accept)
}

fn to_link() -> Expression {
    Expression::Verdict(Outcome::Jump(LINK_CHAIN.into()))
}

/// Returns the rules that lead the packets of local pods to their chains.
fn dispatch(
    sets: &BaseSets,
    directions: &[Direction],
    families: &[Family],
    target: impl Fn(Direction) -> JumpTarget,
) -> Vec<Rule> {
    let mut rules = Vec::new();
    for direction in directions {
        for family in families {
            let map = sets.dispatch(target(*direction), *family).name.clone();
            rules.push(vec![Expression::Family(*family), Expression::Dispatch(*direction, *family, map)]);
        }
    }
    rules
}

/// Returns the rule that continues with what policies in audit mode would deny.
pub(crate) fn to_audit() -> Rule {
    vec![Expression::Verdict(Outcome::Goto(AUDIT_CHAIN.into()))]
}

/// Returns the chain that evaluates packets which the enforced policies allow, as if every policy were enforced. What that
/// would deny is logged, counted and accepted. Established packets never get here.
fn audit_chain(sets: &BaseSets, audited: bool) -> Chain {
    let rules = match audited {
        true => dispatch(sets, &Direction::BOTH, &Family::BOTH, JumpTarget::Audit),
        false => Vec::new(),
    };
    Chain::regular(AUDIT_CHAIN, "what policies in audit mode would deny: logged, counted, accepted", rules)
}

/// What the node sends is no pod's traffic, but it may be the reply half of a connection that a pod's egress denies, and
/// must not open that connection again.
fn output_chain(sets: &BaseSets, conditions: &Conditions) -> Chain {
    let mut rules = by_label(conditions);
    rules.push(vec![Expression::Established, Expression::Verdict(Outcome::Accept)]);
    rules.extend(Family::BOTH.into_iter().flat_map(|family| by_tuple(conditions, family, sets)));
    rules.extend(midstream::from_answerer(sets));
    Chain::base(Hook::Output, rules)
}

/// Returns the chain that denies link-scoped traffic while a local pod is isolated.
///
/// The forward hook sees such traffic only through bridges: broadcast, multicast, and packets with link-local addresses,
/// which don't identify a pod. Dispatch uses pod addresses, so no policy applies to such a packet, although it may be from
/// or to an isolated pod (SEMANTICS A42). Routers forward none of it except routed multicast.
///
/// The rules that jump here never change. The content of this chain changes with the first and the last isolated pod
/// only.
pub(crate) fn link_chain(isolating: bool) -> Chain {
    let denied = || [discovery::jump_rule()].into_iter().chain(denial(Direction::Ingress));
    let rules = if isolating { denied().collect() } else { Vec::new() };
    Chain::regular(
        LINK_CHAIN,
        "to many or by link-local addresses: denied while pods here are isolated",
        rules,
    )
}

/// Returns the chain that decides about packets from link-local addresses of pods to their own node while a local pod is isolated for egress.
///
/// All links have the same such addresses, so none identifies a pod, and a pod would reach every service of its node by them (SEMANTICS A42,
/// G-5). The interface and the hardware address do: the chain of the pod's policy table decides, as if the source were the pod's own
/// address. It evaluates each packet, since no pod is an end of the connection in connection tracking. Pods that are not known are denied.
///
/// Routers, DHCP servers and routing peers of the node use such addresses too, so the rule that jumps here matches interfaces of pods alone.
pub(crate) fn node_link_chain(sets: &BaseSets, isolating: bool) -> Chain {
    let senders = Expression::SenderIn {
        field: SenderField::Hardware,
        by_port: true,
        ranges: false,
        set: sets.node(NodeSet::LinkSenders).name.clone(),
        inverted: false,
    };
    let of_pods = [
        discovery::jump_rule(),
        // Returns what the pod's policies allow.
        vec![Expression::Ethernet, Expression::LinkDispatch(sets.link_dispatch.name.clone())],
        vec![Expression::Ethernet, senders, Expression::Verdict(Outcome::Return)],
    ];
    let decided = || {
        let routers = misdirected::by_pods_as_routers(sets);
        routers.into_iter().chain(of_pods).chain(denial(Direction::Egress))
    };
    let rules = if isolating { decided().collect() } else { Vec::new() };
    let comment = "by link-local addresses from pods to this node, while pods here are isolated for egress";
    Chain::regular(NODE_LINK_CHAIN, comment, rules)
}

/// Returns the chain that denies what a pod without an IPv6 address sends to its own node from a link-local address, while the pod is isolated
/// for egress. Its policies may allow addresses and ports of IPv6, but no policy table of the plan says which.
fn node_link_denied_chain() -> Chain {
    let comment = "by link-local addresses from isolated pods without an IPv6 address to this node";
    Chain::regular(NODE_LINK_DENIED_CHAIN, comment, denial(Direction::Egress))
}

/// Returns the chain that denies packets between bridge ports to unknown addresses while a local pod is isolated.
///
/// A frame to a pod's MAC address reaches the pod whatever its IP destination is, and dispatch by address finds no entry
/// if that destination is no pod's. Replies to established connections were accepted before, so a pod whose address is
/// not known yet can open connections. Broadcast and multicast have a chain of their own.
pub(crate) fn strangers_chain(sets: &BaseSets, isolating: bool) -> Chain {
    let to_local = |family: Family| {
        let local = sets.node(NodeSet::Local(family)).name.clone();
        let to = Expression::PeerIn(Direction::Egress, family, local);
        vec![Expression::Family(family), to, Expression::Verdict(Outcome::Return)]
    };
    let to_many = |kind| vec![Expression::PacketType(kind), Expression::Verdict(Outcome::Return)];
    let mut rules: Vec<Rule> = Family::BOTH.map(to_local).into();
    rules.extend([PacketType::Broadcast, PacketType::Multicast].map(to_many));
    rules.push(vec![Expression::Counter, Expression::Verdict(Outcome::Drop)]);
    let comment = "between ports of a bridge, to no local address: denied while local pods are isolated";
    Chain::regular(STRANGERS_CHAIN, comment, if isolating { rules } else { Vec::new() })
}

/// Returns a chain that no rule jumps to.
///
/// An entry can be revoked by label only if it got room for labels when it was created. Most kernels make room only
/// while some rule *sets* labels; those from 2025 on also while a rule reads them.
fn labels_chain() -> Chain {
    let comment = "makes room for labels, nothing leads here";
    Chain::regular(LABELS_CHAIN, comment, vec![vec![Expression::SetRevoked]])
}
