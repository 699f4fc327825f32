//! The reference for sets of ports, with a record of every rule.
//!
//! [`crate::reference::decide`] decides one port. The walk decides a set of traffic: it partitions the set by the rule,
//! or the default, that decides. Tests hold verdicts and reasons of the two equal.

use std::collections::BTreeSet;

use crate::{
    Action, Cluster, Deciding, Direction, Endpoint, Flow, ObjectKey, Origin, Peer, Policy, PolicyKey,
    PortMatch, Protocol, Rule, Tier, Traffic, Verdict,
    flow::RuleRef,
    question::{Question, reference_to, running_pod, same_pod},
    tiers::{self, Carrier},
};

/// One direction of all connections between two endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    /// The direction.
    pub direction: Direction,
    /// The pod whose policies apply; `None` if that end isn't a running pod.
    pub subject: Option<ObjectKey>,
    /// The policies that select the subject in this direction, in order of evaluation. Policies that are not reached
    /// are included; their rules take nothing.
    pub policies: Vec<PolicyStep>,
    /// The traffic, partitioned by what decides it: disjoint, none empty.
    pub parts: Vec<Part>,
}

/// Some traffic, and what decides it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The traffic.
    pub traffic: Traffic,
    /// The verdict.
    pub verdict: Verdict,
    /// What decides.
    pub decider: Decider,
}

/// What decides some traffic; the short form of [`crate::Reason`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decider {
    /// The pod connects to itself (SEMANTICS A41).
    Itself,
    /// The end isn't a running pod.
    NoSubject,
    /// The peer is the pod's own node (SEMANTICS A39).
    OwnNode,
    /// No policy isolates the pod, and no cluster-wide rule matches.
    NotIsolated,
    /// The pod connects to itself through a service (G-6).
    Hairpin,
    /// This rule.
    Rule(RuleRef),
    /// These policies isolate the pod, and none of their rules matches; sorted.
    Isolated(BTreeSet<PolicyKey>),
}

impl Decider {
    /// Iterates over the policies that decide.
    pub fn policies(&self) -> impl Iterator<Item = &PolicyKey> {
        let (rule, isolating) = match self {
            Self::Rule(rule) => (Some(&rule.policy), None),
            Self::Isolated(policies) => (None, Some(policies)),
            _ => (None, None),
        };
        rule.into_iter().chain(isolating.into_iter().flatten())
    }
}

/// A policy that was evaluated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyStep {
    /// The policy.
    pub policy: PolicyKey,
    /// The tier.
    pub tier: Tier,
    /// The priority within a cluster-wide tier.
    pub priority: i32,
    /// The origin.
    pub origin: Option<Origin>,
    /// The rules of this direction, in order.
    pub rules: Vec<RuleStep>,
}

/// A rule that was evaluated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleStep {
    /// The rule.
    pub rule: RuleRef,
    /// The action.
    pub action: Action,
    /// Whether a peer matches the other end; true for a rule without peers.
    pub peer_matches: bool,
    /// The peers; `None`: every peer.
    pub peers: Option<Vec<EntryStep>>,
    /// The ports; `None`: every port.
    pub ports: Option<Vec<EntryStep>>,
    /// The traffic that the ports of the rule match, without regard to the peer.
    pub holds: Traffic,
    /// The traffic that the rule decides or passes: what it matches and no earlier rule took.
    pub takes: Traffic,
}

/// A peer or port of a rule that was evaluated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryStep {
    /// Whether it matches (a port: whether it matches some of the traffic).
    pub matches: bool,
    /// The peer or port.
    pub entry: Entry,
    /// The origin.
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

/// Evaluates all tiers for one direction of connections from `source` to `destination`, limited to the traffic in
/// `scope`. Policies in audit mode are left out. `O(policies × rules)`.
#[must_use]
pub fn walk(
    cluster: &Cluster,
    source: &Endpoint,
    destination: &Endpoint,
    through_service: bool,
    direction: Direction,
    scope: &Traffic,
) -> Walk {
    // The port of this flow is never read; ports are handled as sets.
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
    let Some(subject) = running_pod(cluster, subject) else {
        return Walk::decided(direction, None, scope, Decider::NoSubject);
    };
    if same_pod(&flow) && !through_service {
        return Walk::decided(direction, Some(subject.key.clone()), scope, Decider::Itself);
    }
    let deciding = Deciding::Enforced;
    let question = Question { cluster, flow: &flow, direction, subject, peer, deciding };
    let mut walker = Walker {
        question: &question,
        scope,
        open: scope.clone(),
        passed: Traffic::none(),
        policies: Vec::new(),
        parts: Vec::new(),
    };
    if direction == Direction::Ingress && question.peer_is_own_node() {
        walker.rest(Verdict::Allow, Decider::OwnNode);
    }
    tiers::fold(&mut walker);
    Walk { direction, subject: Some(subject.key.clone()), policies: walker.policies, parts: walker.parts }
}

impl Walk {
    fn decided(direction: Direction, subject: Option<ObjectKey>, scope: &Traffic, decider: Decider) -> Self {
        let part = Part { traffic: scope.clone(), verdict: Verdict::Allow, decider };
        let parts = if scope.is_none() { Vec::new() } else { vec![part] };
        Self { direction, subject, policies: Vec::new(), parts }
    }

    /// Returns the traffic that this direction allows.
    #[must_use]
    pub fn allowed(&self) -> Traffic {
        let allowed = self.parts.iter().filter(|p| p.verdict.is_allow());
        allowed.fold(Traffic::none(), |sum, p| sum.union(&p.traffic))
    }

    /// Returns the part that decides one protocol and port; `None` if it isn't in the given traffic.
    #[must_use]
    pub fn part(&self, protocol: Protocol, port: u16) -> Option<&Part> {
        self.parts.iter().find(|p| p.traffic.contains(protocol, port))
    }
}

/// Sets of traffic on their way through the tiers.
struct Walker<'a> {
    question: &'a Question<'a>,
    scope: &'a Traffic,
    /// What no rule has decided yet.
    open: Traffic,
    /// What rules of the current tier left to the next tier.
    passed: Traffic,
    policies: Vec<PolicyStep>,
    parts: Vec<Part>,
}

/// A rule, and its policy's index in [`Walker::policies`].
struct Visited<'a> {
    step: usize,
    policy: &'a Policy,
    index: usize,
    rule: &'a Rule,
}

impl<'a> Walker<'a> {
    /// Adds the policies of a tier that select the subject, and returns their rules.
    fn visit(&mut self, tier: Tier) -> Vec<Visited<'a>> {
        let mut out = Vec::new();
        for (policy, rules) in self.question.policies(tier) {
            let step = self.policies.len();
            out.extend(rules.iter().enumerate().map(|(index, rule)| Visited { step, policy, index, rule }));
            self.policies.push(PolicyStep {
                policy: policy.key.clone(),
                tier: policy.tier,
                priority: policy.priority,
                origin: policy.origin.clone(),
                rules: Vec::with_capacity(rules.len()),
            });
        }
        out
    }
}

impl<'a> Carrier for Walker<'a> {
    type Rule = Visited<'a>;
    type Traffic = Traffic;

    fn ordered_rules(&mut self, tier: Tier) -> Vec<(Action, Visited<'a>)> {
        self.visit(tier).into_iter().map(|visited| (visited.rule.action, visited)).collect()
    }

    fn isolating_rules(&mut self) -> Option<Vec<Visited<'a>>> {
        let before = self.policies.len();
        let rules = self.visit(Tier::Developer);
        (self.policies.len() > before).then_some(rules)
    }

    fn take(&mut self, visited: &Visited<'a>) -> Traffic {
        let step = self.step(visited.policy, visited.index, visited.rule);
        let taken = step.takes.clone();
        self.open = self.open.difference(&taken);
        self.policies[visited.step].rules.push(step);
        taken
    }

    fn decide(&mut self, traffic: Traffic, verdict: Verdict, visited: &Visited<'a>) {
        if !traffic.is_none() {
            let decider = Decider::Rule(reference_to(visited.policy, visited.index, visited.rule));
            self.parts.push(Part { traffic, verdict, decider });
        }
    }

    fn pass(&mut self, traffic: Traffic, _: &Visited<'a>) {
        self.passed = self.passed.union(&traffic);
    }

    fn end_tier(&mut self) {
        let passed = std::mem::take(&mut self.passed);
        self.open = self.open.union(&passed);
    }

    fn decide_isolated(&mut self) {
        if same_pod(self.question.flow) {
            self.rest(Verdict::Allow, Decider::Hairpin);
        } else {
            let isolating = self.policies.iter().filter(|step| step.tier == Tier::Developer);
            let keys = isolating.map(|step| step.policy.clone()).collect();
            self.rest(Verdict::Deny, Decider::Isolated(keys));
        }
    }

    fn decide_rest(&mut self) {
        self.rest(Verdict::Allow, Decider::NotIsolated);
    }
}

impl Walker<'_> {
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
            None => self.scope.clone(),
            Some(entries) => entries.iter().fold(Traffic::none(), |sum, e| sum.union(&self.held_by(&e.port))),
        };
        let peer_matches = peers.as_ref().is_none_or(|peers| peers.iter().any(|p| p.matches));
        let takes = if peer_matches { holds.intersection(&self.open) } else { Traffic::none() };
        let rule_ref = reference_to(policy, index, rule);
        RuleStep { rule: rule_ref, action: rule.action, peer_matches, peers, ports, holds, takes }
    }

    /// Returns the traffic of the scope that a port match matches.
    fn held_by(&self, port: &PortMatch) -> Traffic {
        let destination = running_pod(self.question.cluster, &self.question.flow.destination);
        port.traffic(destination).intersection(self.scope)
    }

    /// Decides all open traffic.
    fn rest(&mut self, verdict: Verdict, decider: Decider) {
        let traffic = std::mem::take(&mut self.open);
        if !traffic.is_none() {
            self.parts.push(Part { traffic, verdict, decider });
        }
    }
}
