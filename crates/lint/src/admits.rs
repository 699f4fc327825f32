//! What policies allow pods with the same labels: all tiers, for sets of ports, by an index of the policies.
//!
//! The order of evaluation is [`tiers::fold`]; selectors, blocks and ports are matched by the policy crate. Where the address
//! of the other end is not known, a block of an allowing rule counts as containing it, unless it is a cluster IP, and one of
//! another rule does not: what is denied then is denied at every address.

use std::{collections::HashSet, net::IpAddr};

use palisade_policy::{
    Action, Direction, Labels, NamespaceMatch, Peer, Pod, PodMatch, Policy, Rule, Tier, Traffic, Verdict,
    tiers::{self, Carrier},
};

use crate::context::{Class, Context};

/// The other end of connections.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Other<'c> {
    /// A pod on the cluster's network.
    Pod {
        namespace: &'c str,
        namespace_labels: Option<&'c Labels>,
        labels: &'c Labels,
        /// `None`: not known.
        address: Option<IpAddr>,
    },
    /// An address that is no pod's, and if it is known, no node's. `None`: not known.
    Address(Option<IpAddr>),
}

impl<'c> Other<'c> {
    /// A pod of a class. Its address is known if the input has it.
    pub(crate) fn of(cx: &'c Context<'_>, pod: &'c Pod) -> Self {
        let cluster = &cx.loaded.cluster;
        let known = pod.addresses.first().filter(|a| !cluster.addressing.is_placeholder(**a));
        // It has the address of its node, on whatever node it is next.
        if pod.host_network {
            return Self::Address(None);
        }
        Self::Pod {
            namespace: &pod.key.namespace,
            namespace_labels: cluster.namespaces.get(&pod.key.namespace).map(|n| &n.labels),
            labels: &pod.labels,
            address: known.copied(),
        }
    }

    /// Returns whether a match selects it.
    pub(crate) fn is_matched_by(self, choice: &PodMatch) -> Option<bool> {
        self.matches(&Peer::Pods(choice.clone()))
    }

    /// Returns whether a peer matches; `None` if that depends on an address that is not known.
    fn matches(self, peer: &Peer) -> Option<bool> {
        match (self, peer) {
            (Self::Pod { namespace, namespace_labels, labels, .. }, Peer::Pods(choice)) => {
                Some(choice.matches(namespace, namespace_labels, labels))
            }
            (Self::Address(_), Peer::Pods(_))
            | (Self::Pod { .. } | Self::Address(Some(_)), Peer::Nodes(_)) => Some(false),
            // It may be that of a node.
            (Self::Address(None), Peer::Nodes(_)) => None,
            // Lint reads manifests: nothing was learned.
            (Self::Pod { .. } | Self::Address(_), Peer::DomainName(_)) => Some(false),
            (Self::Pod { address, .. } | Self::Address(address), Peer::Block(block)) => match address {
                Some(address) => Some(block.contains(address)),
                None if block.cidr.prefix_len() == 0 && block.except.is_empty() => Some(true),
                None => None,
            },
        }
    }
}

/// Returns the traffic that the policies of a profile allow between their pods and another end. `destination` resolves the
/// names of ports.
pub(crate) fn allowed(
    cx: &Context<'_>,
    profile: &[u32],
    direction: Direction,
    other: Other<'_>,
    destination: Option<&Pod>,
) -> Traffic {
    let policies: Vec<&Policy> = cx.in_profile(profile).collect();
    let mut one = OneProfile {
        cluster_ips: &cx.cluster_ips,
        policies: &policies,
        direction,
        other,
        destination,
        open: Traffic::all(),
        passed: Traffic::none(),
        allowed: Traffic::none(),
    };
    tiers::fold(&mut one);
    one.allowed
}

/// Returns whether a NetworkPolicy isolates the pods of a profile.
pub(crate) fn is_isolated(cx: &Context<'_>, profile: &[u32], direction: Direction) -> bool {
    isolating(cx, profile, direction).next().is_some()
}

/// Iterates over the NetworkPolicies that isolate the pods of a profile.
pub(crate) fn isolating<'a, 'c>(
    cx: &'c Context<'a>,
    profile: &'c [u32],
    direction: Direction,
) -> impl Iterator<Item = &'a Policy> + Clone + 'c {
    cx.in_profile(profile).filter(move |p| p.tier == Tier::Developer && p.rules(direction).is_some())
}

/// Returns whether a rule of the NetworkPolicies of a class allows some traffic to its pods from anything that may be in
/// another namespace, or outside: for clients that are not in the input.
pub(crate) fn may_admit_others(cx: &Context<'_>, class: &Class<'_>, pod: &Pod, traffic: &Traffic) -> bool {
    let profile = cx.profile(class);
    let mut rules = isolating(cx, &profile, Direction::Ingress)
        .flat_map(|p| p.rules(Direction::Ingress).unwrap_or_default());
    rules.any(|rule| {
        let may_match = |peer: &Peer| match peer {
            Peer::Pods(choice) => {
                !matches!(&choice.namespaces, NamespaceMatch::Named(name) if name == class.namespace)
            }
            Peer::Block(_) | Peer::Nodes(_) | Peer::DomainName(_) => true,
        };
        let peers = rule.peers.as_ref().is_none_or(|all| all.iter().any(|entry| may_match(&entry.peer)));
        peers && !ports(rule, Some(pod)).intersection(traffic).is_none()
    })
}

/// Returns the traffic of the ports of a rule.
pub(crate) fn ports(rule: &Rule, destination: Option<&Pod>) -> Traffic {
    let Some(entries) = &rule.ports else { return Traffic::all() };
    entries.iter().fold(Traffic::none(), |sum, entry| sum.union(&entry.port.traffic(destination)))
}

/// Sets of traffic on their way through the tiers.
struct OneProfile<'c> {
    cluster_ips: &'c HashSet<IpAddr>,
    policies: &'c [&'c Policy],
    direction: Direction,
    other: Other<'c>,
    destination: Option<&'c Pod>,
    open: Traffic,
    passed: Traffic,
    allowed: Traffic,
}

impl<'c> OneProfile<'c> {
    fn rules(&self, tier: Tier) -> impl Iterator<Item = &'c Rule> + use<'c> {
        let (policies, direction) = (self.policies, self.direction);
        let of_tier = policies.iter().filter(move |policy| policy.tier == tier);
        of_tier.flat_map(move |policy| policy.rules(direction).unwrap_or_default())
    }

    /// Returns whether a peer is a block of nothing but a cluster IP, which is translated before policies look.
    fn is_cluster_ip(&self, peer: &Peer) -> bool {
        let Peer::Block(block) = peer else { return false };
        block.cidr.prefix_len() == block.cidr.max_prefix_len()
            && self.cluster_ips.contains(&block.cidr.addr())
    }

    fn matches(&self, rule: &Rule) -> bool {
        let Some(peers) = &rule.peers else { return true };
        let unknown = |peer| rule.action == Action::Accept && !self.is_cluster_ip(peer);
        peers.iter().any(|entry| self.other.matches(&entry.peer).unwrap_or_else(|| unknown(&entry.peer)))
    }
}

impl<'c> Carrier for OneProfile<'c> {
    type Rule = &'c Rule;
    type Traffic = Traffic;

    fn ordered_rules(&mut self, tier: Tier) -> Vec<(Action, &'c Rule)> {
        self.rules(tier).map(|rule| (rule.action, rule)).collect()
    }

    fn isolating_rules(&mut self) -> Option<Vec<&'c Rule>> {
        let mut of_namespaces = self.policies.iter().filter(|policy| policy.tier == Tier::Developer);
        let isolated = of_namespaces.any(|policy| policy.rules(self.direction).is_some());
        isolated.then(|| self.rules(Tier::Developer).collect())
    }

    fn take(&mut self, rule: &&'c Rule) -> Traffic {
        if self.open.is_none() || !self.matches(rule) {
            return Traffic::none();
        }
        let taken = ports(rule, self.destination).intersection(&self.open);
        self.open = self.open.difference(&taken);
        taken
    }

    fn decide(&mut self, taken: Traffic, verdict: Verdict, _: &&'c Rule) {
        if verdict.is_allow() {
            self.allowed = self.allowed.union(&taken);
        }
    }

    fn pass(&mut self, taken: Traffic, _: &&'c Rule) {
        self.passed = self.passed.union(&taken);
    }

    fn end_tier(&mut self) {
        self.open = self.open.union(&std::mem::take(&mut self.passed));
    }

    fn decide_isolated(&mut self) {
        self.open = Traffic::none();
    }

    fn decide_rest(&mut self) {
        let rest = std::mem::take(&mut self.open);
        self.allowed = self.allowed.union(&rest);
    }
}

#[cfg(test)]
mod tests {
    use palisade_manifest::Loaded;
    use palisade_policy::{Endpoint, walk::walk};
    use palisade_testkit::{Rng, Shape, cluster, endpoints, seeds};

    use super::*;

    /// The other end as the walk sees it; `None` for nodes.
    fn other<'c>(cx: &'c Context<'_>, end: &Endpoint) -> Option<Other<'c>> {
        match end {
            Endpoint::Pod { key, address } => match Other::of(cx, cx.loaded.cluster.pods.get(key)?) {
                Other::Pod { namespace, namespace_labels, labels, .. } => {
                    Some(Other::Pod { namespace, namespace_labels, labels, address: Some(*address) })
                }
                Other::Address(_) => None,
            },
            Endpoint::Node { .. } => None,
            Endpoint::External(address) => Some(Other::Address(Some(*address))),
        }
    }

    #[test]
    fn what_is_admitted_is_what_the_reference_allows() {
        let mut compared = 0;
        for seed in seeds(0..20) {
            let cluster = cluster(&mut Rng::with_seed(seed), &Shape::tiered());
            let loaded = Loaded { cluster, ..Loaded::default() };
            let cx = Context::new(&loaded, &[], None);
            let ends = endpoints(&loaded.cluster);
            for own in &ends {
                let Endpoint::Pod { key, .. } = own else { continue };
                let Some(pod) = loaded.cluster.pods.get(key).filter(|pod| pod.is_running()) else { continue };
                let Some(class) = cx.class_of(pod) else { panic!("{key} has a class") };
                let profile = cx.profile(class);
                for end in &ends {
                    let same = matches!(end, Endpoint::Pod { key: other, .. } if other == key);
                    let Some(there) = other(&cx, end).filter(|_| !same) else { continue };
                    for direction in Direction::BOTH {
                        let (from, to) = if direction == Direction::Egress { (own, end) } else { (end, own) };
                        let expected =
                            walk(&loaded.cluster, from, to, false, direction, &Traffic::all()).allowed();
                        let destination = match to {
                            Endpoint::Pod { key, .. } => {
                                loaded.cluster.pods.get(key).filter(|p| p.is_running())
                            }
                            _ => None,
                        };
                        let found = allowed(&cx, &profile, direction, there, destination);
                        assert_eq!(found, expected, "seed {seed}: {direction} {from} -> {to}");
                        compared += 1;
                    }
                }
            }
        }
        assert!(compared > 1000, "{compared}");
    }
}
