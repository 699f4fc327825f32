//! Frames between the ports of a bridge, in a table of our own in the family `bridge`.
//!
//! br_netfilter shows the table `inet palisade` plain IPv4 and IPv6 alone. A frame with a VLAN tag (or two, or one that
//! names no VLAN), of PPPoE or MPLS, or with IP in an LLC header goes past it, and a pod's kernel may take its content all
//! the same. So while a local pod is isolated, what comes from or goes to a pod's port is plain IPv4, IPv6 or ARP, and
//! nothing else. Ports that lead to no pod are not looked at, but for what they send to pods.
//!
//! And by which port a packet came is known here alone: a packet from a pod to itself has gone through a service and
//! leaves by the port on which it came, or it is forged.
//!
//! The table is there while a bridge leads to local pods and the kernel has the family. Its base chains hook in front of
//! br_netfilter's, in the forward hook behind its destination NAT.

use std::sync::Arc;

use palisade_policy::{Family, NodePlan};

use crate::{
    Surroundings,
    base::{around_set, hooked},
    next::Next,
    program::{Phases, Step, add},
    ruleset::{
        Around, Chain, Content, Expression, FROM_PORTS_CHAIN, Hook, Message, Name, Outcome, Rule, Set,
        TO_PORTS_CHAIN,
    },
};

/// `ETH_P_IP`, `ETH_P_IPV6`, `ETH_P_ARP`. A frame with a VLAN tag has the type of the tag.
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const ARP: u16 = 0x0806;

/// The sets of the table.
#[derive(Debug)]
pub(crate) struct Bridge {
    sets: [Arc<Set>; Around::OF_BRIDGE.len()],
}

impl Bridge {
    pub(crate) fn new() -> Self {
        Self { sets: Around::OF_BRIDGE.map(|around| Arc::new(around_set(around))) }
    }

    /// All of them.
    pub(crate) fn sets(&self) -> impl Iterator<Item = &Arc<Set>> {
        self.sets.iter()
    }

    fn named(&self, around: Around) -> Name {
        let set = self.sets.iter().find(|set| set.content == Content::Around(around));
        set.map_or_else(|| "".into(), |set| set.name.clone())
    }

    /// The chains, each after those that it leads to.
    pub(crate) fn chains(&self, isolating: bool) -> Vec<Arc<Chain>> {
        let ports = || self.named(Around::Ports);
        let jump = |chain: &str| Expression::Then(Outcome::Jump(chain.into()));
        let [from, to] = self.changing(isolating);
        let comes = vec![Expression::InterfaceIn { set: ports(), inverted: false }, jump(FROM_PORTS_CHAIN)];
        let goes = vec![Expression::LeavesBy(ports()), jump(TO_PORTS_CHAIN)];
        let base = [hooked(Hook::FromPorts, vec![comes]), hooked(Hook::BetweenPorts, vec![goes])];
        [from, to].into_iter().chain(base.map(Arc::new)).collect()
    }

    /// The chains whose rules are there while a local pod is isolated.
    fn changing(&self, isolating: bool) -> [Arc<Chain>; 2] {
        let chain = |name: &str, comment: &str, rules: Vec<Rule>| {
            Arc::new(Chain {
                name: name.into(),
                hook: None,
                comment: Some(comment.to_owned()),
                rules: if isolating { rules } else { Vec::new() },
                chains: Vec::new(),
                sets: Vec::new(),
            })
        };
        let mut to: Vec<Rule> = Family::BOTH.map(|family| self.forged(family)).into();
        to.extend(plain());
        [
            chain(
                FROM_PORTS_CHAIN,
                "frames of pods: IP and ARP without a VLAN tag, while pods here are isolated",
                plain(),
            ),
            chain(TO_PORTS_CHAIN, "frames to pods: likewise, and none forged as the pod's own", to),
        ]
    }

    /// From a local pod to itself, but not by its own port.
    fn forged(&self, family: Family) -> Rule {
        vec![
            Expression::EtherType(if family == Family::V4 { IPV4 } else { IPV6 }),
            Expression::PairIn(family, self.named(Around::Themselves(family))),
            Expression::TurnsBack { set: self.named(Around::OwnPorts), inverted: true },
            Expression::Counter,
            Expression::Then(Outcome::Drop),
        ]
    }

    /// What makes the table with everything in it.
    pub(crate) fn whole(&self, surroundings: &Surroundings, next: &Next<'_>, isolating: bool) -> Step {
        let mut step = vec![Message::CreateTable];
        for set in self.sets() {
            step.push(Message::CreateSet(set.clone()));
            if let Content::Around(around) = set.content {
                step.extend(add(set, surroundings.elements(around, next)).flatten());
            }
        }
        for chain in self.chains(isolating) {
            step.push(Message::CreateChain(chain.clone()));
            step.extend((0..chain.rules.len()).map(|index| Message::AddRule(chain.clone(), index)));
        }
        bridged(step)
    }

    /// What a change of the plan changes in the table.
    pub(crate) fn follow(
        &self,
        surroundings: &Surroundings,
        next: &Next<'_>,
        (was_isolating, isolating): (bool, bool),
    ) -> Vec<Step> {
        let mut phases = Phases::default();
        self.sets().for_each(|set| surroundings.follow(set, next, &mut phases));
        let mut steps = elements(phases);
        for chain in self.changing(true) {
            match (was_isolating, isolating) {
                (false, true) => {
                    let rules = (0..chain.rules.len()).map(|i| Message::AddRule(chain.clone(), i));
                    steps.push(rules.collect());
                }
                (true, false) => steps.push(vec![Message::FlushChain(chain.name.clone())]),
                _ => {}
            }
        }
        steps.into_iter().map(bridged).collect()
    }

    /// What other surroundings change in the table, which may come or go with them.
    pub(crate) fn lead_to(
        &self,
        (from, to): (&Surroundings, &Surroundings),
        plan: &NodePlan,
        isolating: bool,
    ) -> Vec<Step> {
        let next = Next { plan, delta: &palisade_policy::Delta::default() };
        match (from.has_pod_ports(), to.has_pod_ports()) {
            (false, false) => Vec::new(),
            (false, true) => vec![self.whole(to, &next, isolating)],
            (true, false) => vec![bridged(vec![Message::DeleteTable])],
            (true, true) => {
                let mut phases = Phases::default();
                self.sets().for_each(|set| from.lead_to(to, set, &next, &mut phases));
                elements(phases).into_iter().map(bridged).collect()
            }
        }
    }
}

/// Who comes, then who goes.
fn elements(phases: Phases) -> Vec<Step> {
    phases.join.into_iter().chain(phases.leave).collect()
}

/// Messages for this table.
pub(crate) fn bridged(step: Step) -> Step {
    step.into_iter().map(|message| Message::Bridged(Box::new(message))).collect()
}

/// Plain IP and ARP go on to where policies are asked; everything else ends here.
fn plain() -> Vec<Rule> {
    let mut rules: Vec<Rule> = [IPV4, IPV6, ARP]
        .map(|kind| vec![Expression::EtherType(kind), Expression::Then(Outcome::Return)])
        .into();
    rules.push(vec![Expression::Counter, Expression::Then(Outcome::Drop)]);
    rules
}
