//! Shrinking a cluster that shows a fault.

use std::sync::Arc;

use palisade_policy::{Change, Cluster, Labels, Peer, Phase, Pod, PodMatch, Policy, Rule, Selector};

/// Returns the smallest cluster that greedy steps reach while `fails` stays true: objects, rules, peers, ports and
/// labels are dropped one by one until none can be dropped. `fails(&cluster)` must be true at the start.
///
/// `O(size²)` calls of `fails`.
#[must_use]
pub fn shrink(cluster: &Cluster, mut fails: impl FnMut(&Cluster) -> bool) -> Cluster {
    let mut best = cluster.clone();
    loop {
        let mut progress = false;
        for step in steps(&best) {
            let mut smaller = best.clone();
            smaller.apply(step);
            // A step that was computed before another was taken may have no effect, or undo the other.
            if size(&smaller) < size(&best) && fails(&smaller) {
                best = smaller;
                progress = true;
            }
        }
        if !progress {
            return best;
        }
    }
}

/// The measure that every step reduces.
fn size(cluster: &Cluster) -> usize {
    let pods = cluster.pods.values().map(|p| {
        10 + 2 * p.labels.len()
            + 2 * p.addresses.len()
            + p.ports.len()
            + usize::from(p.host_network)
            + usize::from(p.phase != Phase::Running)
            + usize::from(p.created != 0)
            + usize::from(p.workload.is_some())
            + usize::from(p.node.is_some())
    });
    let policies = cluster.policies.values().map(|p| {
        let rules = [&p.ingress, &p.egress].into_iter().flatten();
        10 + pods_size(&p.subject)
            + rules.map(|rules| 5 + rules.iter().map(rule_size).sum::<usize>()).sum::<usize>()
    });
    let namespaces = cluster.namespaces.values().map(|n| 10 + n.labels.len());
    let nodes = cluster.nodes.values().map(|n| 10 + n.addresses.len() + n.labels.len());
    pods.chain(policies).chain(namespaces).chain(nodes).sum::<usize>()
        + 10 * (cluster.services.len() + cluster.learned.len())
}

fn pods_size(pods: &PodMatch) -> usize {
    let namespaces = match &pods.namespaces {
        palisade_policy::NamespaceMatch::Named(_) => 0,
        palisade_policy::NamespaceMatch::Selected(s) => 1 + s.requirements().len(),
    };
    pods.pods.requirements().len() + namespaces
}

fn rule_size(rule: &Rule) -> usize {
    let peer = |peer: &Peer| match peer {
        Peer::Pods(pods) => pods_size(pods),
        Peer::Block(block) => 2 + block.except.len(),
        Peer::Nodes(selector) => selector.requirements().len(),
        Peer::DomainName(_) => 1,
    };
    let peers: usize = rule.peers.iter().flatten().map(|e| 3 + peer(&e.peer)).sum();
    5 + peers + 3 * rule.ports.iter().flatten().count()
}

/// Returns every single reduction of a cluster, large ones first.
fn steps(cluster: &Cluster) -> Vec<Change> {
    let mut out = Vec::new();
    out.extend(cluster.policies.keys().cloned().map(Change::RemovePolicy));
    out.extend(cluster.pods.keys().cloned().map(Change::RemovePod));
    out.extend(cluster.services.keys().cloned().map(Change::RemoveService));
    out.extend(cluster.nodes.keys().cloned().map(Change::RemoveNode));
    out.extend(cluster.namespaces.keys().cloned().map(Change::RemoveNamespace));
    out.extend(cluster.learned.keys().cloned().map(Change::RemoveLearned));
    for policy in cluster.policies.values() {
        out.extend(smaller_policies(policy).into_iter().map(|p| Change::SetPolicy(Arc::new(p))));
    }
    for pod in cluster.pods.values() {
        out.extend(smaller_pods(pod).into_iter().map(Change::SetPod));
    }
    for namespace in cluster.namespaces.values() {
        let fewer = smaller_labels(&namespace.labels);
        out.extend(
            fewer.map(|labels| {
                Change::SetNamespace(palisade_policy::Namespace { labels, ..namespace.clone() })
            }),
        );
    }
    for node in cluster.nodes.values() {
        let fewer = smaller_labels(&node.labels);
        out.extend(fewer.map(|labels| Change::SetNode(palisade_policy::Node { labels, ..node.clone() })));
    }
    out
}

fn smaller_labels(labels: &Labels) -> impl Iterator<Item = Labels> {
    labels.iter().map(|(dropped, _)| labels.project(|k| *k != **dropped))
}

/// Returns `items` without one of them, for each.
fn without_one<T: Clone>(items: &[T]) -> impl Iterator<Item = Vec<T>> {
    (0..items.len())
        .map(|at| items.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, t)| t.clone()).collect())
}

fn smaller_pods(pod: &Pod) -> Vec<Pod> {
    let mut out: Vec<Pod> = smaller_labels(&pod.labels).map(|labels| Pod { labels, ..pod.clone() }).collect();
    out.extend(without_one(&pod.ports).map(|ports| Pod { ports: ports.into(), ..pod.clone() }));
    out.extend(without_one(&pod.addresses).map(|addresses| Pod { addresses, ..pod.clone() }));
    out.push(Pod { host_network: false, ..pod.clone() });
    out.push(Pod { phase: Phase::Running, ..pod.clone() });
    out.push(Pod { created: 0, ..pod.clone() });
    out.push(Pod { workload: None, ..pod.clone() });
    out.push(Pod { node: None, ..pod.clone() });
    out
}

fn smaller_policies(policy: &Policy) -> Vec<Policy> {
    let mut out = vec![Policy { ingress: None, ..policy.clone() }, Policy { egress: None, ..policy.clone() }];
    for rules in policy.ingress.iter().flat_map(|rules| smaller_rules(rules)) {
        out.push(Policy { ingress: Some(rules), ..policy.clone() });
    }
    for rules in policy.egress.iter().flat_map(|rules| smaller_rules(rules)) {
        out.push(Policy { egress: Some(rules), ..policy.clone() });
    }
    out.extend(smaller_matches(&policy.subject).map(|subject| Policy { subject, ..policy.clone() }));
    out
}

fn smaller_rules(rules: &[Rule]) -> Vec<Vec<Rule>> {
    let mut out: Vec<Vec<Rule>> = without_one(rules).collect();
    for (at, rule) in rules.iter().enumerate() {
        out.extend(smaller_rule(rule).into_iter().map(|smaller| {
            let mut rules = rules.to_vec();
            rules[at] = smaller;
            rules
        }));
    }
    out
}

fn smaller_rule(rule: &Rule) -> Vec<Rule> {
    let mut out = Vec::new();
    for (at, entry) in rule.peers.iter().flatten().enumerate() {
        out.extend(smaller_peers(&entry.peer).into_iter().map(|peer| {
            let mut rule = rule.clone();
            rule.peers.iter_mut().for_each(|peers| peers[at].peer = peer.clone());
            rule
        }));
    }
    // Without its last peer or port a rule would match any.
    for peers in rule.peers.iter().flat_map(|p| without_one(p)) {
        out.push(Rule { peers: (!peers.is_empty()).then_some(peers), ..rule.clone() });
    }
    for ports in rule.ports.iter().flat_map(|p| without_one(p)) {
        out.push(Rule { ports: (!ports.is_empty()).then_some(ports), ..rule.clone() });
    }
    out
}

fn smaller_peers(peer: &Peer) -> Vec<Peer> {
    match peer {
        Peer::Pods(pods) => smaller_matches(pods).map(Peer::Pods).collect(),
        Peer::Nodes(selector) => smaller_selectors(selector).map(Peer::Nodes).collect(),
        Peer::DomainName(_) => Vec::new(),
        Peer::Block(block) => without_one(&block.except)
            .map(|except| Peer::Block(palisade_policy::IpBlock { except: except.into(), cidr: block.cidr }))
            .collect(),
    }
}

fn smaller_selectors(selector: &Selector) -> impl Iterator<Item = Selector> {
    without_one(selector.requirements()).map(Selector::new)
}

fn smaller_matches(pods: &PodMatch) -> impl Iterator<Item = PodMatch> {
    let namespaces: Vec<Selector> = match &pods.namespaces {
        palisade_policy::NamespaceMatch::Named(_) => Vec::new(),
        palisade_policy::NamespaceMatch::Selected(s) => smaller_selectors(s).collect(),
    };
    let by_namespace = namespaces
        .into_iter()
        .map(|s| PodMatch { namespaces: palisade_policy::NamespaceMatch::Selected(s), ..pods.clone() });
    smaller_selectors(&pods.pods).map(|s| PodMatch { pods: s, ..pods.clone() }).chain(by_namespace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Rng, Shape, cluster, describe};
    use palisade_policy::PortMatch;

    #[test]
    fn only_what_the_fault_needs_is_left() {
        let named = |c: &Cluster| {
            let rules = c.policies.values().filter_map(|p| p.ingress.as_ref()).flatten();
            rules.flat_map(|r| r.ports.iter().flatten()).any(|e| matches!(e.port, PortMatch::Named { .. }))
        };
        let big = (0..).map(|seed| cluster(&mut Rng::with_seed(seed), &Shape::medium())).find(named).unwrap();
        let small = shrink(&big, named);
        assert!(named(&small));
        assert_eq!((small.policies.len(), small.pods.len(), small.nodes.len()), (1, 0, 0));
        let text = describe(&small);
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains("ingress: Accept any peer, ports "), "{text}");
    }
}
