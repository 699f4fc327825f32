//! Warnings about cluster-wide policies whose order the API doesn't define.

use std::collections::BTreeMap;

use palisade_policy::{Policy, PolicyKey, Tier};

use super::crd::ClusterWideKind;
use crate::diagnostic::{Code, Diagnostic, Severity};

/// How many policies a finding names. The others are counted.
const NAMED: usize = 5;

/// Warns about equal priorities (SEMANTICS G-11), and about both generations of the API in one cluster (G-14).
/// `O(policies · log policies)`.
pub(crate) fn warn_about_undefined_order(
    policies: &BTreeMap<PolicyKey, Policy>,
    found: &mut Vec<Diagnostic>,
) {
    let mut ordered: Vec<&Policy> = policies.values().filter(|p| p.tier != Tier::Developer).collect();
    ordered.sort_by(|a, b| a.tier.cmp(&b.tier).then_with(|| Policy::precedence(a, b)));
    for peers in ordered.chunk_by(|a, b| (a.tier, a.priority) == (b.tier, b.priority)) {
        if let [_, second, ..] = peers {
            found.push(warning(second, Some("spec.priority"), Code::EqualPriority, equal_priority(peers)));
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
