//! The reference for every port at once: a walk through the tiers that says which rule decides what.
//!
//! [`crate::reference::decide`] answers for one port. Here the question is a set of traffic, and the answer a partition
//! of it by what decides: the same walk, in the same order, that carries along what is still undecided. Tests hold the
//! two equal, verdicts and reasons.

use std::collections::BTreeSet;

use crate::{
    Action, Cluster, Direction, Endpoint, Flow, ObjectKey, Origin, Peer, Policy, PolicyKey, PortMatch,
    PortSet, Protocol, Rule, Tier, Traffic, Verdict,
    flow::RuleRef,
    question::{Question, live_pod, reference_to, same_pod},
};

/// One direction of all connections between two ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    /// The direction.
    pub direction: Direction,
    /// The pod whose policies are asked; `None` if that end is no live pod.
    pub subject: Option<ObjectKey>,
    /// The policies that select the subject in this direction, in the order in which they are asked. Those that are not
    /// reached are there too; their rules take nothing.
    pub policies: Vec<PolicyStep>,
    /// What was asked about, by what decides it: disjoint, none empty.
    pub parts: Vec<Part>,
}

/// Some traffic, and what decides it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The traffic.
    pub traffic: Traffic,
    /// Allowed or not.
    pub verdict: Verdict,
    /// Why.
    pub decider: Decider,
}

/// What decides some traffic; the short form of [`crate::flow::Reason`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decider {
    /// The pod reaches itself (SEMANTICS A41).
    Itself,
    /// That end is no live pod.
    NoSubject,
    /// The peer is the pod's own node (SEMANTICS A39).
    OwnNode,
    /// Nothing isolates the pod, and no cluster-wide rule matches.
    NotIsolated,
    /// A pod reaches itself through a service (G-6).
    Hairpin,
    /// This rule.
    Rule(RuleRef),
    /// These policies isolate the pod, and no rule of theirs matches; sorted.
    Isolated(BTreeSet<PolicyKey>),
}

impl Decider {
    /// The policies that it names.
    pub fn policies(&self) -> impl Iterator<Item = &PolicyKey> {
        let (rule, isolating) = match self {
            Self::Rule(rule) => (Some(&rule.policy), None),
            Self::Isolated(policies) => (None, Some(policies)),
            _ => (None, None),
        };
        rule.into_iter().chain(isolating.into_iter().flatten())
    }
}

/// One policy on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyStep {
    /// Which.
    pub policy: PolicyKey,
    /// Its tier.
    pub tier: Tier,
    /// Its precedence within a cluster-wide tier.
    pub priority: i32,
    /// Where it begins.
    pub origin: Option<Origin>,
    /// Its rules of this direction, in order.
    pub rules: Vec<RuleStep>,
}

/// One rule on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleStep {
    /// Which.
    pub rule: RuleRef,
    /// What it does with what it matches.
    pub action: Action,
    /// Whether some peer of it is the other end; true for a rule without peers.
    pub peer_matches: bool,
    /// Its peers, each with whether it is the other end; `None`: everyone.
    pub peers: Option<Vec<EntryStep>>,
    /// Its ports, each with whether it holds some of the traffic; `None`: everything.
    pub ports: Option<Vec<EntryStep>>,
    /// What of the traffic its ports hold, whoever the peer is.
    pub holds: Traffic,
    /// What of the traffic this rule decides, or hands on to the next tier if it passes: what it matches and nothing
    /// before it did.
    pub takes: Traffic,
}

/// A peer or port of a rule on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryStep {
    /// Whether it matches.
    pub matches: bool,
    /// The peer or port.
    pub entry: Entry,
    /// Where it stands.
    pub origin: Option<Origin>,
}

/// A peer or a port of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A peer.
    Peer(Peer),
    /// A port match.
    Port(PortMatch),
}

/// Walks through the tiers for one direction of connections from `source` to `destination`: those in `asked`.
/// `O(policies × rules)`.
#[must_use]
pub fn walk(
    cluster: &Cluster,
    source: &Endpoint,
    destination: &Endpoint,
    through_service: bool,
    direction: Direction,
    asked: &Traffic,
) -> Walk {
    // The flow's port is never looked at: what depends on ports is asked as sets here.
    let flow = Flow {
        source: source.clone(),
        destination: destination.clone(),
        protocol: Protocol::Tcp,
        port: 0,
        through_service,
    };
    let (subject, peer) = match direction {
        Direction::Ingress => (destination, source),
        Direction::Egress => (source, destination),
    };
    let Some(subject) = live_pod(cluster, subject) else {
        return Walk::decided(direction, None, asked, Decider::NoSubject);
    };
    if same_pod(&flow) && !through_service {
        return Walk::decided(direction, Some(subject.key.clone()), asked, Decider::Itself);
    }
    let question = Question { cluster, flow: &flow, direction, subject, peer };
    let mut walker =
        Walker { question: &question, asked, open: asked.clone(), policies: Vec::new(), parts: Vec::new() };
    if direction == Direction::Ingress && question.peer_is_own_node() {
        walker.rest(Verdict::Allow, Decider::OwnNode);
    }
    walker.ordered_tier(Tier::Admin);
    walker.network_policies();
    walker.ordered_tier(Tier::Baseline);
    walker.rest(Verdict::Allow, Decider::NotIsolated);
    Walk { direction, subject: Some(subject.key.clone()), policies: walker.policies, parts: walker.parts }
}

impl Walk {
    fn decided(direction: Direction, subject: Option<ObjectKey>, asked: &Traffic, decider: Decider) -> Self {
        let part = Part { traffic: asked.clone(), verdict: Verdict::Allow, decider };
        let parts = if asked.is_none() { Vec::new() } else { vec![part] };
        Self { direction, subject, policies: Vec::new(), parts }
    }

    /// What of the traffic this direction allows.
    #[must_use]
    pub fn allowed(&self) -> Traffic {
        let allowed = self.parts.iter().filter(|p| p.verdict.is_allow());
        allowed.fold(Traffic::none(), |sum, p| sum.union(&p.traffic))
    }

    /// The part that decides one protocol and port, if it was asked about.
    #[must_use]
    pub fn part(&self, protocol: Protocol, port: u16) -> Option<&Part> {
        self.parts.iter().find(|p| p.traffic.contains(protocol, port))
    }
}

struct Walker<'a> {
    question: &'a Question<'a>,
    asked: &'a Traffic,
    /// What nothing has decided yet.
    open: Traffic,
    policies: Vec<PolicyStep>,
    parts: Vec<Part>,
}

impl Walker<'_> {
    /// The first matching rule decides; what is passed is left to the next tier (SEMANTICS C18–C21).
    fn ordered_tier(&mut self, tier: Tier) {
        let mut passed = Traffic::none();
        for (policy, rules) in self.question.policies(tier) {
            let mut steps = Vec::with_capacity(rules.len());
            for (index, rule) in rules.iter().enumerate() {
                let step = self.step(policy, index, rule);
                self.open = self.open.difference(&step.takes);
                match rule.action {
                    Action::Accept => self.decide(&step.takes, Verdict::Allow, &step.rule),
                    Action::Deny => self.decide(&step.takes, Verdict::Deny, &step.rule),
                    Action::Pass => passed = passed.union(&step.takes),
                }
                steps.push(step);
            }
            self.pass(policy, steps);
        }
        self.open = self.open.union(&passed);
    }

    /// If any isolates the subject, they decide finally (SEMANTICS A.9, D2).
    fn network_policies(&mut self) {
        let policies = self.question.policies(Tier::Developer);
        if policies.is_empty() {
            return;
        }
        for (policy, rules) in &policies {
            let mut steps = Vec::with_capacity(rules.len());
            for (index, rule) in rules.iter().enumerate() {
                let step = self.step(policy, index, rule);
                self.open = self.open.difference(&step.takes);
                self.decide(&step.takes, Verdict::Allow, &step.rule);
                steps.push(step);
            }
            self.pass(policy, steps);
        }
        if same_pod(self.question.flow) {
            self.rest(Verdict::Allow, Decider::Hairpin);
        } else {
            let keys = policies.iter().map(|(policy, _)| policy.key.clone()).collect();
            self.rest(Verdict::Deny, Decider::Isolated(keys));
        }
    }

    fn step(&self, policy: &Policy, index: usize, rule: &Rule) -> RuleStep {
        let peers = rule.peers.as_ref().map(|entries| {
            let step = |e: &crate::rules::PeerEntry| EntryStep {
                matches: self.question.peer_matches(&e.peer),
                entry: Entry::Peer(e.peer.clone()),
                origin: e.origin.clone(),
            };
            entries.iter().map(step).collect::<Vec<_>>()
        });
        let ports = rule.ports.as_ref().map(|entries| {
            let step = |e: &crate::rules::PortEntry| EntryStep {
                matches: !self.held_by(&e.port).is_none(),
                entry: Entry::Port(e.port.clone()),
                origin: e.origin.clone(),
            };
            entries.iter().map(step).collect()
        });
        let holds = match &rule.ports {
            None => self.asked.clone(),
            Some(entries) => entries.iter().fold(Traffic::none(), |sum, e| sum.union(&self.held_by(&e.port))),
        };
        let peer_matches = peers.as_ref().is_none_or(|peers| peers.iter().any(|p| p.matches));
        let takes = if peer_matches { holds.intersection(&self.open) } else { Traffic::none() };
        let rule_ref = reference_to(policy, index, rule);
        RuleStep { rule: rule_ref, action: rule.action, peer_matches, peers, ports, holds, takes }
    }

    /// What of the traffic a port match holds; a name is looked up on the destination pod (SEMANTICS A27).
    fn held_by(&self, port: &PortMatch) -> Traffic {
        let held = match port {
            PortMatch::Numbers { protocol, first, last } => {
                Traffic::of(*protocol, PortSet::range(*first, *last))
            }
            PortMatch::Named { protocol, name } => {
                match live_pod(self.question.cluster, &self.question.flow.destination) {
                    Some(pod) => {
                        pod.named_ports(name, *protocol).fold(Traffic::none(), |sum, (protocol, port)| {
                            sum.union(&Traffic::of(protocol, PortSet::range(port, port)))
                        })
                    }
                    None => Traffic::none(),
                }
            }
        };
        held.intersection(self.asked)
    }

    fn pass(&mut self, policy: &Policy, rules: Vec<RuleStep>) {
        self.policies.push(PolicyStep {
            policy: policy.key.clone(),
            tier: policy.tier,
            priority: policy.priority,
            origin: policy.origin.clone(),
            rules,
        });
    }

    fn decide(&mut self, traffic: &Traffic, verdict: Verdict, rule: &RuleRef) {
        if !traffic.is_none() {
            let decider = Decider::Rule(rule.clone());
            self.parts.push(Part { traffic: traffic.clone(), verdict, decider });
        }
    }

    /// Decides all that is open.
    fn rest(&mut self, verdict: Verdict, decider: Decider) {
        let traffic = std::mem::take(&mut self.open);
        if !traffic.is_none() {
            self.parts.push(Part { traffic, verdict, decider });
        }
    }
}
