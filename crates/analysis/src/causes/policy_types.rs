//! Rules for a direction that `policyTypes` doesn't name: they have no effect (SEMANTICS A6).

use palisade_policy::Direction;

use super::{Finding, case::Case};
use crate::edit::Edit;

pub(crate) fn find(case: &Case<'_>) -> Vec<Finding> {
    let (pod, direction) = (case.subject, case.direction);
    let mut out = Vec::new();
    for ((key, of), rules) in case.facts.ignored {
        let Some(policy) = case.cluster().policies.get(key).filter(|_| *of == direction) else { continue };
        let labels = case.namespace_labels(&pod.key.namespace);
        if !policy.subject.matches(&pod.key.namespace, labels, &pod.labels) {
            continue;
        }
        let word = if direction == Direction::Ingress { "Ingress" } else { "Egress" };
        let origin = rules.first().and_then(|rule| rule.origin.clone()).or_else(|| policy.origin.clone());
        out.push(Finding {
            code: "policy-types",
            text: format!("{key} has {direction} rules, but policyTypes without {word}: they have no effect"),
            origin,
            // Where nothing isolates the pod, the edit would deny rather than allow.
            mend: case.is_denied.then(|| Edit::Direction {
                policy: key.clone(),
                origin: policy.origin.clone(),
                direction,
                rules: rules.clone(),
            }),
        });
    }
    out
}
