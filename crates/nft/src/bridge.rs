//! Rules for frames between the ports of a bridge, in a table of the family `bridge`.
//!
//! br_netfilter passes only plain IPv4 and IPv6 to the table `inet palisade`. It does not pass frames with VLAN tags
//! (one, two, or a priority tag without VLAN), PPPoE, MPLS, or IP in an LLC header, but a pod's kernel may accept their
//! content. So while a local pod is isolated, frames from and to pods' ports must be plain IPv4, IPv6 or ARP. Ports that
//! lead to no pod are checked only for what they send to pods.
//!
//! Only this table knows the port by which a packet entered. A packet from a pod to itself went through a service and
//! leaves by the port on which it entered, or it is forged. What a pod says of itself is compared with what is known of the
//! port ([`sources`]), and so is the destination of frames to it ([`receivers`]).
//!
//! The table exists while a bridge leads to local pods, if the kernel supports the family. Its base chains hook in front of
//! br_netfilter's; in the forward hook they come after its destination NAT.

mod receivers;
mod sources;

use std::{collections::BTreeSet, sync::Arc};

use ipnet::IpNet;
use palisade_policy::Family;

use crate::{
    EnforcerOptions, NodeLinks, SourceCheck,
    base_sets::node_set,
    next_plan::NextPlan,
    phases::{Phases, Step, add},
    ruleset::{
        Chain, Content, Expression, FROM_PORTS_CHAIN, Hook, Message, NODE_TO_PORTS_CHAIN, Name, NodeSet,
        Outcome, Rule, Set, TO_PORTS_CHAIN,
    },
    uapi::if_ether::{ETH_P_ARP, ETH_P_IP, ETH_P_IPV6},
};

/// The sets of the table.
#[derive(Debug)]
pub(crate) struct Bridge {
    source_check: SourceCheck,
    allowed_sources: BTreeSet<IpNet>,
    sets: Vec<Arc<Set>>,
}

impl Bridge {
    pub(crate) fn new(options: &EnforcerOptions) -> Self {
        let EnforcerOptions { source_check, allowed_sources, .. } = options.clone();
        let of_senders = if source_check.is_on() { &NodeSet::OF_SENDERS[..] } else { &[] };
        let sets = NodeSet::OF_BRIDGE.iter().chain(of_senders).map(|set| Arc::new(node_set(*set)));
        Self { source_check, allowed_sources, sets: sets.collect() }
    }

    /// Returns all sets.
    pub(crate) fn sets(&self) -> impl Iterator<Item = &Arc<Set>> {
        self.sets.iter()
    }

    fn name_of(&self, node_set: NodeSet) -> Name {
        let set = self.sets.iter().find(|set| set.content == Content::Node(node_set));
        set.map_or_else(|| "".into(), |set| set.name.clone())
    }

    /// Returns the chains, each after the chains that its rules use.
    pub(crate) fn chains(&self, isolating: bool) -> Vec<Arc<Chain>> {
        let ports = || self.name_of(NodeSet::BridgePorts);
        let jump = |chain: &str| Expression::Verdict(Outcome::Jump(chain.into()));
        let enters = vec![Expression::InterfaceIn { set: ports(), inverted: false }, jump(FROM_PORTS_CHAIN)];
        let leaves = |chain| vec![Expression::OutInterfaceIn(ports()), jump(chain)];
        let (mut chains, mut entry) = (self.port_chains(isolating), Vec::new());
        if self.source_check.is_on() {
            chains.extend(sources::chains(self));
            entry.extend(sources::genuine(self));
            entry.push(enters);
            entry.push(sources::jump_rule(self));
        } else {
            entry.push(enters);
        }
        chains.push(Arc::new(Chain::base(Hook::BridgePrerouting, entry)));
        let genuine = self.source_check.is_on().then(|| receivers::between_genuine(self));
        let forward = genuine.into_iter().chain([leaves(TO_PORTS_CHAIN)]).collect();
        chains.push(Arc::new(Chain::base(Hook::BridgeForward, forward)));
        if self.source_check.is_on() {
            let rules = vec![receivers::genuine(self), leaves(NODE_TO_PORTS_CHAIN)];
            chains.push(Arc::new(Chain::base(Hook::BridgeOutput, rules)));
        }
        chains
    }

    /// Returns the chains that have rules only while a local pod is isolated.
    fn port_chains(&self, isolating: bool) -> Vec<Arc<Chain>> {
        let chain = |name: &str, comment: &str, rules: Vec<Rule>| {
            Arc::new(Chain::regular(name, comment, if isolating { rules } else { Vec::new() }))
        };
        let mut to: Vec<Rule> = Family::BOTH.map(|family| self.forged(family)).into();
        if self.source_check.is_on() {
            to.extend(receivers::rules(self));
        }
        to.extend(plain());
        let mut chains = vec![
            chain(
                FROM_PORTS_CHAIN,
                "frames of pods: IP and ARP without a VLAN tag, while pods here are isolated",
                plain(),
            ),
            chain(
                TO_PORTS_CHAIN,
                "frames to pods: likewise, only with the pod's address, and none forged as its own",
                to,
            ),
        ];
        if self.source_check.is_on() {
            chains.push(chain(
                NODE_TO_PORTS_CHAIN,
                "frames of the node to pods: none with the address of another pod",
                receivers::of_node(self),
            ));
        }
        chains
    }

    /// Drops a packet from a local pod to itself that entered by another port than the pod's.
    fn forged(&self, family: Family) -> Rule {
        vec![
            Expression::EtherType(if family == Family::V4 { ETH_P_IP } else { ETH_P_IPV6 }),
            Expression::PairIn(family, self.name_of(NodeSet::LocalPairs(family))),
            Expression::InterfacePairIn { set: self.name_of(NodeSet::BridgePortPairs), inverted: true },
            Expression::Counter,
            Expression::Verdict(Outcome::Drop),
        ]
    }

    /// Returns the messages that create the table with its content.
    pub(crate) fn create(&self, node_links: &NodeLinks, next: &NextPlan<'_>, isolating: bool) -> Step {
        let mut step = vec![Message::CreateTable];
        for set in self.sets() {
            step.push(Message::CreateSet(set.clone()));
            if let Content::Node(node_set) = set.content {
                step.extend(add(set, node_links.elements(node_set, next)).flatten());
            }
        }
        step.extend(self.chains(isolating).iter().flat_map(Message::create_chain));
        bridged(step)
    }

    /// Returns the changes that a delta of the plan causes in the table.
    pub(crate) fn apply_delta(
        &self,
        node_links: &NodeLinks,
        next: &NextPlan<'_>,
        (was_isolating, isolating): (bool, bool),
    ) -> Vec<Step> {
        let mut phases = Phases::default();
        self.sets().for_each(|set| node_links.apply_delta(set, next, &mut phases));
        let mut steps = element_steps(phases);
        for chain in self.port_chains(true) {
            match (was_isolating, isolating) {
                (false, true) => steps.push(Message::add_rules(&chain).collect()),
                (true, false) => steps.push(vec![Message::FlushChain(chain.name.clone())]),
                _ => {}
            }
        }
        steps.into_iter().map(bridged).collect()
    }

    /// Returns the changes that other node links cause. They may create or delete the table.
    pub(crate) fn change_links(
        &self,
        (from, to): (&NodeLinks, &NodeLinks),
        next: &NextPlan<'_>,
        isolating: bool,
    ) -> Vec<Step> {
        match (from.has_pod_ports(), to.has_pod_ports()) {
            (false, false) => Vec::new(),
            (false, true) => vec![self.create(to, next, isolating)],
            (true, false) => vec![bridged(vec![Message::DeleteTable])],
            (true, true) => {
                let mut phases = Phases::default();
                self.sets().for_each(|set| from.change_to(to, set, next, &mut phases));
                element_steps(phases).into_iter().map(bridged).collect()
            }
        }
    }
}

/// Returns the additions, then the removals.
fn element_steps(phases: Phases) -> Vec<Step> {
    phases.join.into_iter().chain(phases.leave).collect()
}

/// Addresses messages to this table.
pub(crate) fn bridged(step: Step) -> Step {
    step.into_iter().map(|message| Message::Bridged(Box::new(message))).collect()
}

/// Returns for plain IP and ARP, to which policies and the pod itself apply, and drops everything else.
fn plain() -> Vec<Rule> {
    let mut rules: Vec<Rule> = [ETH_P_IP, ETH_P_IPV6, ETH_P_ARP]
        .map(|kind| vec![Expression::EtherType(kind), Expression::Verdict(Outcome::Return)])
        .into();
    rules.push(vec![Expression::Counter, Expression::Verdict(Outcome::Drop)]);
    rules
}
