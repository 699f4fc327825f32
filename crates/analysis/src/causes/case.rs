//! One direction of one pair, and what its rules lack.

use std::collections::BTreeSet;

use palisade_policy::{
    Cluster, Direction, Endpoint, Labels, ObjectKey, Origin, Peer, Pod, PodMatch, Policy, PolicyKey,
    PortMatch, Protocol, Selector, Service, TargetPort, Tier,
    walk::{Decider, Entry, EntryStep, RuleStep, Walk},
};

use super::Facts;
use crate::edit::{Edit, Pair, RuleEdit};

/// A direction of a pair that denies it, or in which nothing isolates the pod.
pub(crate) struct Case<'a> {
    pub(crate) facts: Facts<'a>,
    pub(crate) pair: &'a Pair,
    pub(crate) direction: Direction,
    pub(crate) subject: &'a Pod,
    pub(crate) walk: Walk,
    /// Whether policies deny it. Otherwise nothing isolates the pod.
    pub(crate) is_denied: bool,
}

/// An entry of a rule that doesn't match.
pub(crate) struct Miss<'w> {
    pub(crate) policy: &'w PolicyKey,
    pub(crate) rule: &'w RuleStep,
    pub(crate) index: usize,
    pub(crate) origin: Option<&'w Origin>,
}

impl<'a> Case<'a> {
    pub(crate) fn new(facts: Facts<'a>, pair: &'a Pair, direction: Direction) -> Option<Self> {
        let Endpoint::Pod { key, .. } = pair.subject(direction) else { return None };
        let subject = facts.cluster.pods.get(key)?;
        let walk = pair.walk(facts.cluster, direction);
        let isolated = |d: &Decider| matches!(d, Decider::Isolated(_));
        let is_denied = walk.parts.iter().any(|part| isolated(&part.decider));
        let is_open = walk.parts.iter().any(|part| part.decider == Decider::NotIsolated);
        (is_denied || is_open).then_some(Self { facts, pair, direction, subject, walk, is_denied })
    }

    pub(crate) fn cluster(&self) -> &'a Cluster {
        self.facts.cluster
    }

    pub(crate) fn other(&self) -> &'a Endpoint {
        self.pair.other(self.direction)
    }

    /// Returns the pod at the other end.
    pub(crate) fn other_pod(&self) -> Option<&'a Pod> {
        pod(self.cluster(), self.other())
    }

    pub(crate) fn destination_pod(&self) -> Option<&'a Pod> {
        pod(self.cluster(), &self.pair.destination)
    }

    pub(crate) fn namespace_labels(&self, namespace: &str) -> Option<&'a Labels> {
        self.cluster().namespaces.get(namespace).map(|n| &n.labels)
    }

    /// Returns the rules of the isolating policies.
    fn rules(&self) -> impl Iterator<Item = (&PolicyKey, &RuleStep)> {
        let isolating = self.walk.policies.iter().filter(|step| step.tier == super::tier());
        let isolating = isolating.filter(|_| self.is_denied);
        isolating.flat_map(|step| step.rules.iter().map(move |rule| (&step.policy, rule)))
    }

    /// Returns the ports of rules that match the peer and lack some of the traffic.
    pub(crate) fn ports(&self) -> Vec<(Miss<'_>, &PortMatch)> {
        let mut out = Vec::new();
        for (policy, rule) in self.rules().filter(|(_, rule)| rule.peer_matches) {
            if self.pair.traffic.difference(&rule.holds).is_none() {
                continue;
            }
            for (index, entry) in rule.ports.iter().flatten().enumerate().filter(|(_, e)| !e.matches) {
                if let Entry::Port(port) = &entry.entry {
                    out.push((Miss { policy, rule, index, origin: entry.origin.as_ref() }, port));
                }
            }
        }
        out
    }

    /// Returns the peers of rules that match the ports and no peer.
    pub(crate) fn peers(&self) -> Vec<(Miss<'_>, &Peer)> {
        let mut out = Vec::new();
        for (policy, rule) in self.rules().filter(|(_, rule)| !rule.peer_matches) {
            if !self.pair.traffic.difference(&rule.holds).is_none() {
                continue;
            }
            for (index, entry) in rule.peers.iter().flatten().enumerate() {
                if let EntryStep { entry: Entry::Peer(peer), origin, .. } = entry {
                    out.push((Miss { policy, rule, index, origin: origin.as_ref() }, peer));
                }
            }
        }
        out
    }

    /// Returns the rules of which neither the peers nor the ports match: they may have two mistakes.
    pub(crate) fn neither(&self) -> impl Iterator<Item = (&PolicyKey, &RuleStep)> {
        let lacks = |rule: &RuleStep| !self.pair.traffic.difference(&rule.holds).is_none();
        self.rules().filter(move |(_, rule)| !rule.peer_matches && lacks(rule))
    }

    /// Returns the peers that select pods, with the pod at the other end.
    pub(crate) fn pod_peers(&self) -> Vec<(Miss<'_>, &PodMatch, &'a Pod)> {
        let Some(pod) = self.other_pod() else { return Vec::new() };
        let peers = self.peers().into_iter();
        let pods = peers.filter_map(|(miss, peer)| match peer {
            Peer::Pods(choice) => Some((miss, choice, pod)),
            Peer::Block(_) | Peer::Nodes(_) | Peer::DomainName(_) => None,
        });
        pods.collect()
    }

    /// Returns whether the namespaces of a selection contain a pod's.
    pub(crate) fn in_namespaces(&self, choice: &PodMatch, pod: &Pod) -> bool {
        let any = PodMatch { namespaces: choice.namespaces.clone(), pods: Selector::everything() };
        any.matches(&pod.key.namespace, self.namespace_labels(&pod.key.namespace), &pod.labels)
    }

    /// Returns whether some pod of the selected namespaces has a label that a predicate accepts.
    pub(crate) fn any_pod(&self, choice: &PodMatch, accepts: impl Fn(&Labels) -> bool) -> bool {
        self.cluster().pods.values().any(|pod| accepts(&pod.labels) && self.in_namespaces(choice, pod))
    }

    pub(crate) fn replace_peer(&self, miss: &Miss<'_>, peer: Peer) -> Edit {
        let action = RuleEdit::ReplacePeer { rule: miss.rule.rule.index, index: miss.index, peer };
        self.edit(miss.policy, action)
    }

    pub(crate) fn add_peer(&self, miss: &Miss<'_>, peer: Peer) -> Edit {
        self.edit(miss.policy, RuleEdit::AddPeers { rule: miss.rule.rule.index, peers: vec![peer] })
    }

    pub(crate) fn replace_port(&self, miss: &Miss<'_>, port: PortMatch) -> Edit {
        let action =
            RuleEdit::ReplacePort { rule: miss.rule.rule.index, index: miss.index, ports: vec![port] };
        self.edit(miss.policy, action)
    }

    pub(crate) fn add_port(&self, miss: &Miss<'_>, port: PortMatch) -> Edit {
        self.edit(miss.policy, RuleEdit::AddPorts { rule: miss.rule.rule.index, ports: vec![port] })
    }

    fn edit(&self, policy: &PolicyKey, action: RuleEdit) -> Edit {
        let origin = self.cluster().policies.get(policy).and_then(|p| p.origin.clone());
        Edit::Rules { policy: policy.clone(), origin, direction: self.direction, action }
    }

    /// Returns the only protocol and port of the question; `None` if there are several.
    pub(crate) fn asked_port(&self) -> Option<(Protocol, u16)> {
        let traffic = &self.pair.traffic;
        let mut all = Protocol::WITH_PORTS.into_iter().flat_map(|protocol| {
            let ports = traffic.ports(protocol);
            let ranges = ports.ranges().to_vec();
            ranges.into_iter().map(move |(first, last)| (protocol, first, last))
        });
        match (all.next(), all.next(), traffic.other) {
            (Some((protocol, first, last)), None, false) if first == last => Some((protocol, first)),
            _ => None,
        }
    }

    /// Returns the services in front of the destination pod.
    pub(crate) fn services(&self) -> impl Iterator<Item = &'a Service> {
        let pod = self.destination_pod();
        self.cluster().services.values().filter(move |service| {
            let selects = |pod: &Pod| {
                service.key.namespace == pod.key.namespace
                    && service.selector.as_ref().is_some_and(|s| s.matches(&pod.labels))
            };
            pod.is_some_and(selects)
        })
    }

    /// Returns the NetworkPolicies with rules for this direction.
    pub(crate) fn policies(&self) -> impl Iterator<Item = &'a Policy> {
        let direction = self.direction;
        let all = self.cluster().policies.values().map(|p| &**p);
        all.filter(move |p| p.tier == Tier::Developer && p.rules(direction).is_some_and(|r| !r.is_empty()))
    }
}

fn pod<'a>(cluster: &'a Cluster, end: &Endpoint) -> Option<&'a Pod> {
    match end {
        Endpoint::Pod { key, .. } => cluster.pods.get(key),
        Endpoint::Node { .. } | Endpoint::External(_) => None,
    }
}

/// Returns the numbers of a service port on a pod.
pub(crate) fn targets(pod: &Pod, protocol: Protocol, target: &TargetPort) -> BTreeSet<u16> {
    match target {
        TargetPort::Number(port) => BTreeSet::from([*port]),
        TargetPort::Name(name) => pod.named_ports(name, Some(protocol)).map(|(_, port)| port).collect(),
    }
}

/// Returns a port as people know it: `8080 ("http")`.
pub(crate) fn port_text(pod: &Pod, protocol: Protocol, port: u16) -> String {
    let declared = pod.ports.iter().find(|p| p.protocol == protocol && p.port == port);
    match declared.and_then(|p| p.name.as_ref()) {
        Some(name) => format!("{port} (\"{name}\")"),
        None => port.to_string(),
    }
}

/// Returns the workload of a pod in words: `Deployment shop/web`, or `pod shop/web`.
pub(crate) fn workload_text(pod: &Pod) -> String {
    match pod.workload.as_ref().filter(|w| &*w.kind != "Pod") {
        Some(workload) => format!("{} {}/{}", workload.kind, pod.key.namespace, workload.name),
        None => format!("pod {}", pod.key),
    }
}

/// Returns the key of a pod's workload, or of the pod.
pub(crate) fn short_text(pod: &Pod) -> ObjectKey {
    let name = pod.workload.as_ref().map_or(&pod.key.name, |w| &w.name);
    ObjectKey { namespace: pod.key.namespace.clone(), name: name.clone() }
}
