//! Hypothetical pods: one for each selection of pods by a rule.

use std::{net::IpAddr, sync::Arc};

use palisade_policy::{
    Cluster, Endpoint, Family, Labels, NAMESPACE_NAME_LABEL, Name, Namespace, NamespaceMatch, ObjectKey,
    Phase, Pod, PodMatch, Selector, Test,
};

/// A name that no object has, since the API rejects it.
pub(crate) const NO_NAME: &str = "?";

/// A cluster of one real pod and a hypothetical one, under the real cluster's policies.
pub(crate) struct HypotheticalPod {
    pub(crate) cluster_with_pod: Cluster,
    /// The hypothetical pod.
    pub(crate) endpoint: Endpoint,
}

impl HypotheticalPod {
    /// A pod without labels, in a namespace with no label except its name.
    pub(crate) fn anyone(cluster: &Cluster, subject: &Pod, address: IpAddr) -> Self {
        Self::with(
            cluster,
            subject,
            address,
            Some(Namespace::new(NO_NAME, &Labels::default())),
            Labels::default(),
        )
    }

    /// A pod that `choice` selects, with no other labels; `None` if there can't be one.
    pub(crate) fn of(cluster: &Cluster, subject: &Pod, address: IpAddr, choice: &PodMatch) -> Option<Self> {
        let labels = labels_for(&choice.pods)?;
        let namespace = match &choice.namespaces {
            NamespaceMatch::Named(name) => match cluster.namespaces.get(name) {
                Some(known) => known.clone(),
                None => {
                    let mut hypothetical = Self::with(cluster, subject, address, None, labels);
                    hypothetical.move_to(name);
                    return Some(hypothetical);
                }
            },
            NamespaceMatch::Selected(selector) => {
                let known = cluster.namespaces.values().find(|n| selector.matches(&n.labels));
                match known {
                    Some(known) => known.clone(),
                    None => new_namespace(selector)?,
                }
            }
        };
        Some(Self::with(cluster, subject, address, Some(namespace), labels))
    }

    fn with(
        cluster: &Cluster,
        subject: &Pod,
        address: IpAddr,
        namespace: Option<Namespace>,
        labels: Labels,
    ) -> Self {
        let home = namespace.as_ref().map_or_else(|| Name::from(NO_NAME), |n| n.name.clone());
        let pod = unknown_pod(home, labels, vec![address]);
        let mut cluster_with_pod = Cluster {
            namespaces: cluster.namespaces.clone(),
            policies: cluster.policies.clone(),
            ..Cluster::default()
        };
        cluster_with_pod.namespaces.extend(namespace.map(|n| (n.name.clone(), n)));
        cluster_with_pod.pods.insert(subject.clone());
        let endpoint = Endpoint::Pod { key: pod.key.clone(), address };
        cluster_with_pod.pods.insert(pod);
        Self { cluster_with_pod, endpoint }
    }

    fn move_to(&mut self, namespace: &Name) {
        let Endpoint::Pod { key, .. } = &mut self.endpoint else { return };
        if let Some(mut pod) = self.cluster_with_pod.pods.remove(key) {
            key.namespace = namespace.clone();
            Arc::make_mut(&mut pod).key = key.clone();
            self.cluster_with_pod.pods.insert(pod);
        }
    }
}

/// Returns a hypothetical pod.
pub(crate) fn unknown_pod(namespace: Name, labels: Labels, addresses: Vec<IpAddr>) -> Pod {
    Pod {
        key: ObjectKey::new(namespace, NO_NAME),
        labels,
        addresses,
        node: None,
        host_network: false,
        phase: Phase::Running,
        ports: [].into(),
        created: 0,
        workload: None,
    }
}

/// Returns an address of this family in no block of any policy, or in the last range if there is none.
pub(crate) fn unheld_address(space: &crate::space::AddressSpace, family: Family) -> IpAddr {
    let free = space.ranges(family).find(|(_, set)| *set == 0);
    let range = free.or_else(|| space.ranges(family).last()).map(|(range, _)| range);
    range.map_or(palisade_policy::address::from_number(family, 0), |range| range.last)
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
