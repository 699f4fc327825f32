//! Made-up pods that take part in a comparison: one for each selection of pods, with the fewest labels it needs.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use palisade_policy::{
    Cluster, Direction, Family, IpBlock, Labels, NAMESPACE_NAME_LABEL, Name, Namespace, NamespaceMatch,
    ObjectKey, Peer, Pod, PodMatch, Pods, Selector, Test,
    address::{from_number, to_number},
};

use crate::{
    hypothetical::{NO_NAME, unknown_pod},
    space::AddressSpace,
};

/// Two clusters with made-up pods.
pub(super) struct MadeUpPods {
    /// The clusters with the pods.
    pub(super) clusters: [Cluster; 2],
    /// What each pod stands for.
    pub(super) choices: BTreeMap<ObjectKey, PodMatch>,
}

impl MadeUpPods {
    /// Adds a pod to both clusters for each selection that can match one; with the clusters' own pods if `with_pods`.
    pub(super) fn new(clusters: [&Cluster; 2], choices: &[&PodMatch], with_pods: bool) -> Self {
        let mut addresses = FreeAddresses::new(clusters);
        let mut out = Self {
            clusters: clusters.map(|cluster| {
                let pods = if with_pods { cluster.pods.clone() } else { Pods::default() };
                Cluster { pods, ..cluster.clone() }
            }),
            choices: BTreeMap::new(),
        };
        for (number, choice) in choices.iter().enumerate() {
            let Some(labels) = labels_for(&choice.pods) else { continue };
            let Some(home) = namespace(clusters, &choice.namespaces) else { continue };
            let addresses: Vec<IpAddr> = Family::BOTH.into_iter().filter_map(|f| addresses.next(f)).collect();
            let key = ObjectKey::new(home.name.clone(), format!("{NO_NAME}{number}"));
            let pod = Pod { key: key.clone(), ..unknown_pod(home.name.clone(), labels, addresses) };
            for cluster in &mut out.clusters {
                cluster.pods.insert(pod.clone());
                // A namespace that only one side has, or none, is the same on both, so that only edits differ.
                cluster.namespaces.entry(home.name.clone()).or_insert_with(|| home.clone());
            }
            out.choices.insert(key, (*choice).clone());
        }
        out
    }
}

/// Returns a namespace that matches on a side, or a made-up one.
fn namespace(clusters: [&Cluster; 2], choice: &NamespaceMatch) -> Option<Namespace> {
    let [before, after] = clusters.map(|cluster| &cluster.namespaces);
    match choice {
        NamespaceMatch::Named(name) => {
            let known = after.get(name).or_else(|| before.get(name)).cloned();
            Some(known.unwrap_or_else(|| Namespace::new(name.clone(), &Labels::default())))
        }
        NamespaceMatch::Selected(selector) => {
            let known = after.values().chain(before.values()).find(|n| selector.matches(&n.labels));
            known.cloned().or_else(|| new_namespace(selector))
        }
    }
}

/// Addresses in no block of any policy, if there are any, from the end of the address space.
struct FreeAddresses {
    ranges: [Option<(u128, u128)>; 2],
    taken: BTreeSet<IpAddr>,
}

impl FreeAddresses {
    fn new(clusters: [&Cluster; 2]) -> Self {
        let policies = clusters.into_iter().flat_map(|c| c.policies.values());
        let rules = policies.flat_map(|p| Direction::BOTH.into_iter().filter_map(|d| p.rules(d)).flatten());
        let blocks = rules.filter_map(|rule| rule.peers.as_ref()).flatten().filter_map(|e| match &e.peer {
            Peer::Block(block) => Some(block),
            Peer::Pods(_) | Peer::Nodes(_) | Peer::DomainName(_) => None,
        });
        let blocks: BTreeSet<&IpBlock> = blocks.collect();
        let space = AddressSpace::new(blocks.into_iter().map(IpBlock::ranges));
        let ranges = Family::BOTH.map(|family| {
            let free = space.ranges(family).find(|(_, set)| *set == 0);
            let (range, _) = free.or_else(|| space.ranges(family).last())?;
            Some((to_number(range.first), to_number(range.last)))
        });
        let pods = clusters.into_iter().flat_map(|c| c.pods.values()).flat_map(|pod| pod.addresses.clone());
        let nodes =
            clusters.into_iter().flat_map(|c| c.nodes.values()).flat_map(|node| node.addresses.clone());
        Self { ranges, taken: pods.chain(nodes).collect() }
    }

    fn next(&mut self, family: Family) -> Option<IpAddr> {
        let (first, last) = self.ranges[usize::from(family == Family::V6)].as_mut()?;
        while last >= first {
            let address = from_number(family, *last);
            *last = last.checked_sub(1)?;
            if !self.taken.contains(&address) {
                return Some(address);
            }
        }
        None
    }
}

/// Returns a hypothetical namespace that `selector` matches.
fn new_namespace(selector: &Selector) -> Option<Namespace> {
    let labels = labels_for(selector)?;
    let name = labels.get(NAMESPACE_NAME_LABEL).unwrap_or(NO_NAME).to_owned();
    let namespace = Namespace::new(name, &labels);
    selector.matches(&namespace.labels).then_some(namespace)
}

/// Returns a minimal set of labels that a selector matches; `None` if there is none.
fn labels_for(selector: &Selector) -> Option<Labels> {
    let mut labels = Labels::default();
    for requirement in selector.requirements() {
        match &requirement.test {
            // Other requirements for the same key may exclude some of the values.
            Test::In(values) => {
                let same_key = || selector.requirements().iter().filter(|r| r.key == requirement.key);
                let fits = |value: &&Name| {
                    let one = Labels::from_iter([(requirement.key.clone(), (*value).clone())]);
                    same_key().all(|r| r.matches(&one))
                };
                labels = labels.with(&requirement.key, values.iter().find(fits)?);
            }
            Test::Exists if labels.get(&requirement.key).is_none() => {
                // The value is longer than the API allows, so no list excludes it.
                labels = labels.with(&requirement.key, &"x".repeat(64));
            }
            Test::Exists | Test::NotIn(_) | Test::DoesNotExist => {}
        }
    }
    selector.matches(&labels).then_some(labels)
}

#[cfg(test)]
mod tests {
    use palisade_testkit::{Rng, Shape, cluster, seeds};

    use super::*;

    #[test]
    fn pods_have_the_labels_and_addresses_of_their_own() {
        let cluster = Cluster::default();
        let choice = |value: &str| PodMatch {
            namespaces: NamespaceMatch::Named(Name::from("shop")),
            pods: Selector::of_labels([("app", value)]),
        };
        let made = MadeUpPods::new([&cluster, &cluster], &[&choice("a"), &choice("b")], true);
        let pods: Vec<&Pod> = made.clusters[1].pods.values().collect();
        assert_eq!(pods.len(), 2);
        assert_eq!(pods[0].labels.get("app"), Some("a"));
        assert!(pods[0].addresses.iter().all(|a| !pods[1].addresses.contains(a)));
        assert_eq!(made.clusters[0].namespaces.len(), 1);
    }

    #[test]
    fn labels_match_the_selector_if_any_can() {
        let mut found = [0, 0];
        for seed in seeds(0..300) {
            let cluster_with_pod = cluster(&mut Rng::with_seed(seed), &Shape::tiered());
            for policy in cluster_with_pod.policies.values() {
                let selector = &policy.subject.pods;
                match labels_for(selector) {
                    Some(labels) => {
                        assert!(selector.matches(&labels), "{selector}");
                        found[0] += 1;
                    }
                    None => {
                        let tests = || selector.requirements().iter().map(|r| &r.test);
                        assert!(tests().count() > 1, "{selector} is satisfiable");
                        found[1] += 1;
                    }
                }
            }
        }
        assert!(found.iter().all(|n| *n > 5), "{found:?}");
    }
}
