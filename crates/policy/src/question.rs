//! One direction of one flow, and whether a policy, a rule, a peer or a port matches it.

use crate::{
    Cluster, Deciding, Direction, Endpoint, Flow, Labels, Peer, Pod, Policy, PortMatch, Rule, Tier,
    flow::RuleRef,
};

/// Returns the running pod at an end, if any.
pub(crate) fn running_pod<'a>(cluster: &'a Cluster, end: &Endpoint) -> Option<&'a Pod> {
    match end {
        Endpoint::Pod { key, .. } => cluster.pods.get(key).filter(|p| p.is_running()),
        Endpoint::Node { .. } | Endpoint::External(_) => None,
    }
}

pub(crate) fn same_pod(flow: &Flow) -> bool {
    matches!((&flow.source, &flow.destination), (Endpoint::Pod { key: a, .. }, Endpoint::Pod { key: b, .. }) if a == b)
}

/// One direction of one flow.
#[derive(Clone, Copy)]
pub(crate) struct Question<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) flow: &'a Flow,
    pub(crate) direction: Direction,
    pub(crate) subject: &'a Pod,
    pub(crate) peer: &'a Endpoint,
    pub(crate) deciding: Deciding,
}

impl<'a> Question<'a> {
    /// Returns the policies of `tier` that select the subject and apply to this direction, in order of precedence
    /// (SEMANTICS C21, G-11). The order of NetworkPolicies doesn't matter (A35).
    pub(crate) fn policies(&self, tier: Tier) -> Vec<(&'a Policy, &'a [Rule])> {
        let mut found: Vec<_> = self
            .cluster
            .deciding(self.deciding)
            .filter(|p| p.tier == tier)
            .filter(|p| {
                p.subject.matches(
                    &self.subject.key.namespace,
                    self.namespace_labels(self.subject),
                    &self.subject.labels,
                )
            })
            .filter_map(|p| Some((&**p, p.rules(self.direction)?)))
            .collect();
        found.sort_by(|(a, _), (b, _)| Policy::precedence(a, b));
        found
    }

    /// A peer **and** a port must match (SEMANTICS A24).
    pub(crate) fn rule_matches(&self, rule: &Rule) -> bool {
        self.peers_match(rule) && self.ports_match(rule)
    }

    pub(crate) fn peers_match(&self, rule: &Rule) -> bool {
        rule.peers.as_ref().is_none_or(|peers| peers.iter().any(|entry| self.peer_matches(&entry.peer)))
    }

    pub(crate) fn ports_match(&self, rule: &Rule) -> bool {
        rule.ports.as_ref().is_none_or(|ports| ports.iter().any(|entry| self.port_matches(&entry.port)))
    }

    /// Selectors match running pods; blocks and domain names match addresses, without regard to their owner (SEMANTICS
    /// A.6, A.7, C.6).
    pub(crate) fn peer_matches(&self, peer: &Peer) -> bool {
        match peer {
            Peer::Pods(choice) => running_pod(self.cluster, self.peer).is_some_and(|pod| {
                choice.matches(&pod.key.namespace, self.namespace_labels(pod), &pod.labels)
            }),
            Peer::Block(block) => block.contains(self.peer.address()),
            Peer::DomainName(pattern) => self.cluster.is_learned(pattern, self.peer.address()),
            Peer::Nodes(selector) => match self.peer {
                Endpoint::Node { name, .. } => {
                    self.cluster.nodes.get(name).is_some_and(|node| selector.matches(&node.labels))
                }
                Endpoint::Pod { .. } | Endpoint::External(_) => false,
            },
        }
    }

    /// Ports are always destination ports. A name is resolved by the destination pod (SEMANTICS A.8).
    pub(crate) fn port_matches(&self, port: &PortMatch) -> bool {
        let flow = self.flow;
        match port {
            PortMatch::Numbers { protocol, first, last } => {
                flow.protocol == *protocol && (*first..=*last).contains(&flow.port)
            }
            PortMatch::Named { protocol, name } => running_pod(self.cluster, &flow.destination)
                .is_some_and(|pod| pod.named_ports(name, *protocol).any(|p| p == (flow.protocol, flow.port))),
        }
    }

    /// Only the pod's own node is exempt, and only for ingress (SEMANTICS A39, G-5).
    pub(crate) fn peer_is_own_node(&self) -> bool {
        matches!(self.peer, Endpoint::Node { name, .. } if self.subject.node.as_ref() == Some(name))
    }

    pub(crate) fn namespace_labels(&self, pod: &Pod) -> Option<&'a Labels> {
        self.cluster.namespaces.get(&pod.key.namespace).map(|n| &n.labels)
    }
}

pub(crate) fn reference_to(policy: &Policy, index: usize, rule: &Rule) -> RuleRef {
    // The decoder sets the number; the object has none.
    let own = policy.tier != Tier::Developer && policy.priority != i32::MAX;
    RuleRef {
        policy: policy.key.clone(),
        index,
        name: rule.name.clone(),
        tier: policy.tier,
        priority: own.then_some(policy.priority),
        action: rule.action,
        origin: rule.origin.clone(),
    }
}
