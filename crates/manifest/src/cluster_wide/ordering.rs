//! Warnings about cluster-wide policies whose order the API doesn't define.

use std::collections::BTreeMap;

use palisade_policy::{
    Direction, LabelSet, LabelValues, NAMESPACE_NAME_LABEL, NamespaceMatch, Policy, PolicyKey, Tier,
};

use super::crd::ClusterWideKind;
use crate::diagnostic::{Code, Diagnostic, Severity};

/// How many policies a finding names. The others are counted.
const NAMED: usize = 5;

/// Of how many policies with one priority the subjects are compared, each with each. Of more, all count as overlapping.
const MOST_COMPARED: usize = 1_000;

/// Warns about equal priorities (SEMANTICS G-11), and about both generations of the API in one cluster (G-14).
/// `O(policies · log policies)`, and the square of up to [`MOST_COMPARED`] policies with the same priority.
pub(crate) fn warn_about_undefined_order(
    policies: &BTreeMap<PolicyKey, Policy>,
    found: &mut Vec<Diagnostic>,
) {
    let mut ordered: Vec<&Policy> = policies.values().filter(|p| p.tier != Tier::Developer).collect();
    ordered.sort_by(|a, b| a.tier.cmp(&b.tier).then_with(|| Policy::precedence(a, b)));
    for peers in ordered.chunk_by(|a, b| (a.tier, a.priority) == (b.tier, b.priority)) {
        let competing = competing(peers);
        if let [_, second, ..] = competing[..] {
            let message = equal_priority(&competing);
            found.push(warning(second, Some("spec.priority"), Code::EqualPriority, message));
        }
    }
    let is_new = |p: &&Policy| is_of_kind(p, ClusterWideKind::Cluster);
    let old = ordered.iter().copied().find(|p| !is_new(p));
    if let Some(old) = old
        && ordered.iter().copied().any(|p| is_new(&p))
    {
        let message = "is used together with ClusterNetworkPolicies, and the API doesn't define their order: \
                       AdminNetworkPolicies are evaluated with the policies of tier Admin by priority, \
                       BaselineAdminNetworkPolicy after all policies of tier Baseline";
        let diagnostic = warning(old, None, Code::MixedApis, message.to_owned());
        found.push(diagnostic.with_help("convert it to a ClusterNetworkPolicy"));
    }
}

/// Returns the policies that may decide about connections of the same pods as another one, so that their order matters.
fn competing<'a>(peers: &[&'a Policy]) -> Vec<&'a Policy> {
    if peers.len() > MOST_COMPARED {
        return peers.to_vec();
    }
    let subjects: Vec<_> = peers.iter().map(|policy| subject(policy)).collect();
    let mut competes = vec![false; peers.len()];
    for (at, policy) in peers.iter().enumerate() {
        for other in at + 1..peers.len() {
            if !(competes[at] && competes[other])
                && share_direction(policy, peers[other])
                && may_meet(subjects[at].as_ref(), subjects[other].as_ref())
            {
                (competes[at], competes[other]) = (true, true);
            }
        }
    }
    peers.iter().zip(competes).filter_map(|(policy, competes)| competes.then_some(*policy)).collect()
}

/// Whether two policies have rules of the same direction. One without any is taken to have both: its rules are still to be written.
fn share_direction(a: &Policy, b: &Policy) -> bool {
    let has = |policy: &Policy, direction| policy.rules(direction).is_some_and(|rules| !rules.is_empty());
    let is_empty = |policy: &Policy| !Direction::BOTH.into_iter().any(|direction| has(policy, direction));
    let both_have = |direction| has(a, direction) && has(b, direction);
    is_empty(a) || is_empty(b) || Direction::BOTH.into_iter().any(both_have)
}

/// Returns the labels of the namespaces and pods that a policy selects. `None`: it can't select any.
fn subject(policy: &Policy) -> Option<(LabelSet, LabelSet)> {
    let namespaces = match &policy.subject.namespaces {
        NamespaceMatch::Named(name) => {
            let only = LabelValues::OneOf([name.clone()].into());
            LabelSet::with_one(&NAMESPACE_NAME_LABEL.into(), only)
        }
        NamespaceMatch::Selected(selector) => LabelSet::of(selector)?,
    };
    Some((namespaces, LabelSet::of(&policy.subject.pods)?))
}

/// Whether a pod could have the labels of both subjects.
fn may_meet(a: Option<&(LabelSet, LabelSet)>, b: Option<&(LabelSet, LabelSet)>) -> bool {
    a.zip(b).is_some_and(|((namespaces, pods), (others, other_pods))| {
        namespaces.meets(others) && pods.meets(other_pods)
    })
}

fn is_of_kind(policy: &Policy, kind: ClusterWideKind) -> bool {
    &*policy.key.kind == kind.name()
}

fn equal_priority(peers: &[&Policy]) -> String {
    let named: Vec<String> = peers.iter().take(NAMED).map(|p| p.key.to_string()).collect();
    let more = peers.len() - named.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!(
        "{} policies of tier {:?} have priority {}; if several match, the API doesn't define which one decides. They \
         are evaluated in this order: {}{more}",
        peers.len(),
        peers[0].tier,
        peers[0].priority,
        named.join(", "),
    )
}

fn warning(policy: &Policy, path: Option<&str>, code: Code, message: String) -> Diagnostic {
    Diagnostic {
        origin: policy.origin.clone(),
        object: Some(policy.key.to_string()),
        path: path.map(str::to_owned),
        ..Diagnostic::new(Severity::Warning, code, message)
    }
}
