//! Pods that don't exist yet: a witness for each selection of pods that a rule makes.

use std::{net::IpAddr, sync::Arc};

use palisade_policy::{
    Cluster, Endpoint, Family, Labels, NAMESPACE_NAME_LABEL, Name, Namespace, NamespaceMatch, ObjectKey,
    Phase, Pod, PodMatch, Selector, Test,
};

/// A name that no object has: it isn't one that the API allows.
pub(crate) const NO_NAME: &str = "?";

/// A world that holds one pod of a cluster and one that doesn't exist yet, under the cluster's policies.
pub(crate) struct Witness {
    pub(crate) world: Cluster,
    /// The pod that doesn't exist yet.
    pub(crate) at: Endpoint,
}

impl Witness {
    /// A pod without labels in a namespace without labels but its name.
    pub(crate) fn anyone(cluster: &Cluster, subject: &Pod, address: IpAddr) -> Self {
        Self::with(
            cluster,
            subject,
            address,
            Some(Namespace::new(NO_NAME, &Labels::default())),
            Labels::default(),
        )
    }

    /// A pod that `choice` chooses and that has nothing else; `None` if there can't be one.
    pub(crate) fn of(cluster: &Cluster, subject: &Pod, address: IpAddr, choice: &PodMatch) -> Option<Self> {
        let labels = labels_for(&choice.pods)?;
        let namespace = match &choice.namespaces {
            NamespaceMatch::Named(name) => match cluster.namespaces.get(name) {
                Some(known) => known.clone(),
                None => {
                    let mut witness = Self::with(cluster, subject, address, None, labels);
                    witness.move_to(name);
                    return Some(witness);
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
        let mut world = Cluster {
            namespaces: cluster.namespaces.clone(),
            policies: cluster.policies.clone(),
            ..Cluster::default()
        };
        world.namespaces.extend(namespace.map(|n| (n.name.clone(), n)));
        world.pods.insert(subject.clone());
        let at = Endpoint::Pod { key: pod.key.clone(), address };
        world.pods.insert(pod);
        Self { world, at }
    }

    fn move_to(&mut self, namespace: &Name) {
        let Endpoint::Pod { key, .. } = &mut self.at else { return };
        if let Some(mut pod) = self.world.pods.remove(key) {
            key.namespace = namespace.clone();
            Arc::make_mut(&mut pod).key = key.clone();
            self.world.pods.insert(pod);
        }
    }
}

/// A pod that doesn't exist.
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

/// An address of this family that no policy's block holds, if there is one; else one that is in use nowhere.
pub(crate) fn unheld_address(space: &crate::space::Space, family: Family) -> IpAddr {
    let free = space.ranges(family).find(|(_, set)| *set == 0);
    let range = free.or_else(|| space.ranges(family).last()).map(|(range, _)| range);
    range.map_or(palisade_policy::address::from_number(family, 0), |range| range.last)
}

/// A namespace that doesn't exist and that `selector` chooses.
fn new_namespace(selector: &Selector) -> Option<Namespace> {
    let labels = labels_for(selector)?;
    let name = labels.get(NAMESPACE_NAME_LABEL).unwrap_or(NO_NAME).to_owned();
    let namespace = Namespace::new(name, &labels);
    selector.matches(&namespace.labels).then_some(namespace)
}

/// As few labels as fulfil a selector; `None` if none do.
fn labels_for(selector: &Selector) -> Option<Labels> {
    let mut labels = Labels::default();
    for requirement in selector.requirements() {
        match &requirement.test {
            // The others of the same key may rule out some of the values: try each.
            Test::In(values) => {
                let same_key = || selector.requirements().iter().filter(|r| r.key == requirement.key);
                let fits = |value: &&Name| {
                    let one = Labels::from_iter([(requirement.key.clone(), (*value).clone())]);
                    same_key().all(|r| r.matches(&one))
                };
                labels = labels.with(&requirement.key, values.iter().find(fits)?);
            }
            Test::Exists if labels.get(&requirement.key).is_none() => {
                // Longer than any value that the API allows, so that no list excludes it.
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
    fn labels_fulfil_what_can_be_fulfilled() {
        let mut found = [0, 0];
        for seed in seeds(0..300) {
            let world = cluster(&mut Rng::with_seed(seed), &Shape::tiered());
            for policy in world.policies.values() {
                let selector = &policy.subject.pods;
                match labels_for(selector) {
                    Some(labels) => {
                        assert!(selector.matches(&labels), "{selector}");
                        found[0] += 1;
                    }
                    None => {
                        let tests = || selector.requirements().iter().map(|r| &r.test);
                        assert!(tests().count() > 1, "{selector} is no contradiction");
                        found[1] += 1;
                    }
                }
            }
        }
        assert!(found.iter().all(|n| *n > 5), "{found:?}");
    }
}
