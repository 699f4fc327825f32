//! Policies that were meant for a pod and select none.

use std::sync::Arc;

use palisade_policy::{NamespaceMatch, Peer, Pod, Policy, Rule};

use super::{
    Finding,
    case::{Case, short_text},
    spelling::{near, replaced},
};
use crate::edit::Edit;

/// The most policies of other namespaces that are tried.
const MAX_TRIED: usize = 200;

/// A policy of the pod's namespace selects no pod, and nearly this one.
pub(crate) fn misspelt(case: &Case<'_>) -> Vec<Finding> {
    let pod = case.subject;
    let own = case.policies().filter(|p| p.key.namespace == pod.key.namespace);
    let mut out = Vec::new();
    for policy in own.filter(|p| selects_nothing(case, p)) {
        let failing: Vec<_> =
            policy.subject.pods.requirements().iter().filter(|r| !r.matches(&pod.labels)).collect();
        let [requirement] = failing[..] else { continue };
        let Some(new) = near(requirement, &pod.labels) else { continue };
        out.push(Finding {
            code: "policy-selects-nothing",
            text: format!(
                "{} selects no pod: no pod has the label {requirement}: did you mean {new}?",
                policy.key
            ),
            origin: policy.origin.clone(),
            mend: case.is_denied.then(|| Edit::Subject {
                policy: policy.key.clone(),
                origin: policy.origin.clone(),
                selector: replaced(&policy.subject.pods, requirement, new),
            }),
        });
    }
    out
}

fn selects_nothing(case: &Case<'_>, policy: &Policy) -> bool {
    let mut pods = case.cluster().pods.in_namespace(&policy.key.namespace);
    !policy.subject.pods.is_everything() && !pods.any(|pod| policy.subject.pods.matches(&pod.labels))
}

/// A policy of another namespace selects no pod there, and would allow the connection if it were in the pod's.
pub(crate) fn other_namespace(case: &Case<'_>) -> Vec<Finding> {
    let pod = case.subject;
    if !case.is_denied {
        return Vec::new();
    }
    let foreign = case.policies().filter(|policy| {
        policy.key.namespace != pod.key.namespace
            && policy.subject.pods.matches(&pod.labels)
            && selects_nothing(case, policy)
    });
    let mut out = Vec::new();
    for policy in foreign.take(MAX_TRIED).filter(|policy| would_allow(case, policy, pod)) {
        out.push(Finding {
            code: "policy-in-another-namespace",
            text: format!(
                "{} selects no pod: a policy selects pods of its own namespace only, and {} is in namespace {}",
                policy.key,
                short_text(pod),
                pod.key.namespace
            ),
            origin: policy.origin.clone(),
            mend: None,
        });
    }
    out
}

/// Returns whether a policy would allow the pair if it were in the pod's namespace.
fn would_allow(case: &Case<'_>, policy: &Policy, pod: &Pod) -> bool {
    let home = &pod.key.namespace;
    let moved = |rules: &Option<Vec<Rule>>| {
        let mut rules = rules.clone();
        for entry in rules.iter_mut().flatten().flat_map(|rule| rule.peers.iter_mut().flatten()) {
            if let Peer::Pods(choice) = &mut entry.peer
                && choice.namespaces == NamespaceMatch::Named(policy.key.namespace.clone())
            {
                choice.namespaces = NamespaceMatch::Named(home.clone());
            }
        }
        rules
    };
    let mut moved =
        Policy { ingress: moved(&policy.ingress), egress: moved(&policy.egress), ..policy.clone() };
    moved.key.namespace = home.clone();
    moved.subject.namespaces = NamespaceMatch::Named(home.clone());
    let mut cluster = case.cluster().clone();
    cluster.policies.insert(moved.key.clone(), Arc::new(moved));
    case.pair.walk(&cluster, case.direction).allowed() == case.pair.traffic
}
