//! The policies that differ between two clusters.

use std::{collections::BTreeMap, sync::Arc};

use palisade_policy::{Cluster, Policy, PolicyKey, Rule};

use super::change::{PolicyChange, PolicyEdit};

/// Returns the policies that were added, removed, edited or renamed. `O(policies × pods)`, for those that differ.
#[must_use]
pub fn changed_policies(before: &Cluster, after: &Cluster) -> BTreeMap<PolicyKey, PolicyEdit> {
    let mut added: Vec<&Arc<Policy>> = Vec::new();
    let mut pairs: Vec<(Option<&Policy>, Option<&Policy>)> = Vec::new();
    for (key, policy) in &after.policies {
        match before.policies.get(key) {
            None => added.push(policy),
            Some(old) if !is_equivalent(old, policy) => pairs.push((Some(old), Some(policy))),
            Some(_) => {}
        }
    }
    let removed = before.policies.iter().filter(|(key, _)| !after.policies.contains_key(*key));
    for (_, old) in removed {
        // Whichever of several equal policies is taken, the others are equal to it.
        let renamed = added.iter().position(|new| is_renamed(old, new));
        pairs.push((Some(old), renamed.map(|at| &**added.remove(at))));
    }
    pairs.extend(added.into_iter().map(|new| (None, Some(&**new))));
    let edit = |(old, new): (Option<&Policy>, Option<&Policy>)| {
        let change = match (old, new) {
            (None, _) => PolicyChange::Added,
            (_, None) => PolicyChange::Removed,
            (Some(old), Some(new)) if old.key == new.key => PolicyChange::Edited,
            _ => PolicyChange::Renamed,
        };
        let pods = [old.map_or(0, |p| selected(before, p)), new.map_or(0, |p| selected(after, p))];
        let (before, after) = (old.map(|p| p.key.clone()), new.map(|p| p.key.clone()));
        Some((after.clone().or(before.clone())?, PolicyEdit { change, before, after, pods }))
    };
    pairs.into_iter().filter_map(edit).collect()
}

/// Returns the number of running pods that a policy selects.
fn selected(cluster: &Cluster, policy: &Policy) -> usize {
    let selects = |pod: &&palisade_policy::Pod| {
        let labels = cluster.namespaces.get(&pod.key.namespace).map(|n| &n.labels);
        pod.is_running() && policy.subject.matches(&pod.key.namespace, labels, &pod.labels)
    };
    cluster.pods.values().filter(selects).count()
}

/// Returns whether two policies are equal, except for their names. A cluster-wide policy's name decides its place among
/// those with equal priority, so another name is another policy.
fn is_renamed(old: &Policy, new: &Policy) -> bool {
    old.key.kind == new.key.kind
        && old.key.namespace == new.key.namespace
        && !old.key.namespace.is_empty()
        && without_origins(old) == Policy { key: old.key.clone(), ..without_origins(new) }
}

/// Returns whether two policies are equal, except for positions and the names of rules.
fn is_equivalent(a: &Arc<Policy>, b: &Arc<Policy>) -> bool {
    Arc::ptr_eq(a, b) || without_origins(a) == without_origins(b)
}

fn without_origins(policy: &Policy) -> Policy {
    let rule = |rule: &Rule| {
        let mut rule = Rule { name: None, origin: None, ..rule.clone() };
        rule.peers.iter_mut().flatten().for_each(|p| p.origin = None);
        rule.ports.iter_mut().flatten().for_each(|p| p.origin = None);
        rule
    };
    let rules = |rules: &Option<Vec<Rule>>| rules.as_ref().map(|all| all.iter().map(rule).collect());
    let (ingress, egress) = (rules(&policy.ingress), rules(&policy.egress));
    Policy { ingress, egress, origin: None, ..policy.clone() }
}
