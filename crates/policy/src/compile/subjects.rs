//! The policies that select each local pod.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use super::{
    addresses::AddressBook,
    budget::Budget,
    definition::Definition,
    definitions::{Definitions, NamedDefinition},
    names::Namer,
    remove_from,
};
use crate::{
    Cluster, ContainerPort, Deny, Direction, Mode, Name, NamespaceMatch, ObjectKey, Pod, Policy, PolicyKey,
};

/// The running pods of this node, and the policies by the namespace in which they select.
#[derive(Clone, Debug, Default)]
pub(super) struct Subjects {
    local: BTreeMap<Name, BTreeSet<ObjectKey>>,
    by_namespace: BTreeMap<Name, BTreeSet<PolicyKey>>,
    cluster_wide: BTreeSet<PolicyKey>,
    /// A cache of definitions, so that the pods of a workload need one computation.
    profiles: HashMap<Profile, Option<NamedDefinition>>,
    definitions: Definitions,
    budget: Budget,
    local_count: usize,
}

/// A profile: pods that the same policies select and that have the same named ports share a table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Profile {
    mode: Mode,
    direction: Direction,
    policies: Vec<PolicyKey>,
    ports: Vec<ContainerPort>,
}

impl Subjects {
    /// Makes an empty set of subjects with these limits.
    pub(super) fn new(budget: Budget, namer: Namer) -> Self {
        Self { budget, definitions: Definitions::new(namer), ..Self::default() }
    }

    /// Sets whether a pod runs on this node.
    pub(super) fn place(&mut self, key: &ObjectKey, here: bool) {
        if self.is_local(key) {
            remove_from(&mut self.local, &key.namespace, key);
            self.local_count -= 1;
        }
        if here {
            self.local.entry(key.namespace.clone()).or_default().insert(key.clone());
            self.local_count += 1;
        }
    }

    pub(super) fn is_local(&self, key: &ObjectKey) -> bool {
        self.local.get(&key.namespace).is_some_and(|pods| pods.contains(key))
    }

    /// Returns whether an address belongs to a local pod whose policies refuse what they deny.
    pub(super) fn is_refusing(&self, owner: Option<&Pod>, cluster: &Cluster) -> bool {
        owner
            .is_some_and(|pod| self.is_local(&pod.key) && cluster.deny_of(&pod.key.namespace) == Deny::Reject)
    }

    pub(super) fn local_pods_in(&self, namespace: &Name) -> impl Iterator<Item = &ObjectKey> {
        self.local.get(namespace).into_iter().flatten()
    }

    /// Iterates over the local pods that a policy may select.
    pub(super) fn candidates(&self, policy: &Policy) -> impl Iterator<Item = &ObjectKey> {
        let (one, all) = match &policy.subject.namespaces {
            NamespaceMatch::Named(namespace) => (self.local.get(namespace), None),
            NamespaceMatch::Selected(_) => (None, Some(self.local.values().flatten())),
        };
        one.into_iter().flatten().chain(all.into_iter().flatten())
    }

    pub(super) fn has_cluster_wide_policies(&self) -> bool {
        !self.cluster_wide.is_empty()
    }

    /// Sets or removes a policy in the index.
    pub(super) fn index(&mut self, key: &PolicyKey, policy: Option<&Policy>) {
        remove_from(&mut self.by_namespace, &key.namespace, key);
        self.cluster_wide.remove(key);
        match policy.map(|p| &p.subject.namespaces) {
            Some(NamespaceMatch::Named(namespace)) => {
                // A namespaced policy selects in its own namespace only (SEMANTICS A17), so the key is enough to remove
                // it.
                debug_assert_eq!(*namespace, key.namespace);
                self.by_namespace.entry(key.namespace.clone()).or_default().insert(key.clone());
            }
            Some(NamespaceMatch::Selected(_)) => drop(self.cluster_wide.insert(key.clone())),
            None => {}
        }
    }

    /// Drops cached definitions of these policies.
    pub(super) fn forget_profiles_of(&mut self, policies: &BTreeSet<PolicyKey>) {
        if !policies.is_empty() {
            self.profiles.retain(|profile, _| !profile.policies.iter().any(|key| policies.contains(key)));
        }
        // Profiles of deleted pods are never looked up again, so the cache is cleared now and then.
        if self.profiles.len() > 4 * self.local_count + 64 {
            self.profiles.clear();
        }
    }

    /// Resolves the definitions of each direction for each address that a local pod owns: the one that is enforced, and
    /// if a policy in audit mode applies, the one of all policies.
    pub(super) fn resolve(
        &mut self,
        key: &ObjectKey,
        cluster: &Cluster,
        book: &AddressBook,
        mut emit: impl FnMut((Mode, Direction, IpAddr), Option<NamedDefinition>),
    ) {
        let Some(pod) = cluster.pods.get(key).filter(|_| self.is_local(key)) else { return };
        let mut owned = pod.addresses.iter().copied().filter(|a| book.is_owner(key, *a)).peekable();
        if owned.peek().is_none() {
            return;
        }
        let all = self.policies_of(pod, cluster);
        let is_enforced = |policy: &&Policy| cluster.mode_of(policy) == Mode::Enforce;
        let enforced: Vec<&Policy> = all.iter().copied().filter(is_enforced).collect();
        let mut definitions = Vec::new();
        for direction in Direction::BOTH {
            definitions.push((
                (Mode::Enforce, direction),
                self.definition(Mode::Enforce, direction, pod, &enforced),
            ));
            let audited = |policy: &&Policy| !is_enforced(policy) && policy.rules(direction).is_some();
            let audit = if all.iter().any(audited) {
                self.definition(Mode::Audit, direction, pod, &all)
            } else {
                None
            };
            definitions.push(((Mode::Audit, direction), audit));
        }
        for address in owned {
            for ((mode, direction), definition) in &definitions {
                emit((*mode, *direction, address), definition.clone());
            }
        }
    }

    /// Returns the enforced policies that select a pod and apply to one direction. As [`Subjects::policies_of`].
    pub(super) fn touching<'a>(
        &self,
        direction: Direction,
        pod: &Pod,
        cluster: &'a Cluster,
    ) -> Vec<&'a Policy> {
        let all = self.policies_of(pod, cluster).into_iter();
        all.filter(|policy| policy.rules(direction).is_some() && cluster.mode_of(policy) == Mode::Enforce)
            .collect()
    }

    /// Returns the policies that select a pod. `O(policies of its namespace + cluster-wide policies)`.
    fn policies_of<'a>(&self, pod: &Pod, cluster: &'a Cluster) -> Vec<&'a Policy> {
        let namespace = cluster.namespaces.get(&pod.key.namespace).map(|n| &n.labels);
        let own = self.by_namespace.get(&pod.key.namespace).into_iter().flatten();
        own.chain(&self.cluster_wide)
            .filter_map(|key| cluster.policies.get(key))
            .map(|policy| &**policy)
            .filter(|policy| policy.subject.matches(&pod.key.namespace, namespace, &pod.labels))
            .collect()
    }

    fn definition(
        &mut self,
        mode: Mode,
        direction: Direction,
        pod: &Pod,
        policies: &[&Policy],
    ) -> Option<NamedDefinition> {
        let touching: Vec<&Policy> =
            policies.iter().copied().filter(|p| p.rules(direction).is_some()).collect();
        let profile = Profile {
            mode,
            direction,
            policies: touching.iter().map(|p| p.key.clone()).collect(),
            ports: pod.ports.iter().filter(|p| p.name.is_some()).cloned().collect(),
        };
        self.profiles
            .entry(profile)
            .or_insert_with(|| {
                let definition = Definition::new(mode, direction, pod, &touching, &self.budget)?;
                Some(self.definitions.share(definition))
            })
            .clone()
    }
}
