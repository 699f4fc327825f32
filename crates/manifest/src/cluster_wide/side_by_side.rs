//! Cluster-wide policies whose order among each other the API leaves open.

use std::collections::BTreeMap;

use palisade_policy::{Policy, PolicyKey, Tier};

use super::crd::ClusterWideKind;
use crate::diagnostic::{Code, Diagnostic, Severity};

/// How many policies a finding names; the rest are counted.
const NAMED: usize = 5;

/// Warns of equal priorities (SEMANTICS G-11) and of both generations of the API in one cluster (G-14).
/// `O(policies · log policies)`.
pub(crate) fn side_by_side(policies: &BTreeMap<PolicyKey, Policy>, found: &mut Vec<Diagnostic>) {
    let mut ordered: Vec<&Policy> = policies.values().filter(|p| p.tier != Tier::Developer).collect();
    ordered.sort_by(|a, b| a.tier.cmp(&b.tier).then_with(|| Policy::precedence(a, b)));
    for peers in ordered.chunk_by(|a, b| (a.tier, a.priority) == (b.tier, b.priority)) {
        if let [_, second, ..] = peers {
            found.push(warning(second, Some("spec.priority"), Code::EqualPriority, equal_priority(peers)));
        }
    }
    let is_new = |p: &&Policy| is(p, ClusterWideKind::Cluster);
    let old = ordered.iter().copied().find(|p| !is_new(p));
    if let Some(old) = old
        && ordered.iter().copied().any(|p| is_new(&p))
    {
        let message = "stands beside ClusterNetworkPolicies, and the API leaves their order open: \
                       AdminNetworkPolicies are asked among those of tier Admin by their priority, \
                       BaselineAdminNetworkPolicy after all those of tier Baseline";
        let diagnostic = warning(old, None, Code::MixedApis, message.to_owned());
        found.push(diagnostic.with_help("convert it to a ClusterNetworkPolicy"));
    }
}

fn is(policy: &Policy, kind: ClusterWideKind) -> bool {
    &*policy.key.kind == kind.name()
}

fn equal_priority(peers: &[&Policy]) -> String {
    let named: Vec<String> = peers.iter().take(NAMED).map(|p| p.key.to_string()).collect();
    let more = peers.len() - named.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!(
        "{} policies of tier {:?} have priority {}; where several match, the API leaves open which decides. Here they \
         are asked in this order: {}{more}",
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
