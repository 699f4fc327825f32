//! Labels of a workload object that its pod template lacks: policies match the labels of pods.

use palisade_policy::{Labels, Pod, Selector};

use super::{
    Finding,
    case::{Case, workload_text},
};
use crate::edit::Edit;

/// A peer requires labels that only the workload object at the other end has.
pub(crate) fn of_peers(case: &Case<'_>) -> Vec<Finding> {
    let peers = case.pod_peers().into_iter().filter(|(_, choice, pod)| case.in_namespaces(choice, pod));
    let found = peers.filter_map(|(_, choice, pod)| on_the_object(case, &choice.pods, pod));
    found.collect()
}

/// A policy selects labels that only the workload object has.
pub(crate) fn of_subjects(case: &Case<'_>) -> Vec<Finding> {
    let pod = case.subject;
    let own = case.policies().filter(|p| p.key.namespace == pod.key.namespace);
    let others = own.filter(|p| !p.subject.pods.matches(&pod.labels));
    others.filter_map(|policy| on_the_object(case, &policy.subject.pods, pod)).collect()
}

fn on_the_object(case: &Case<'_>, selector: &Selector, pod: &Pod) -> Option<Finding> {
    let workload = pod.workload.clone()?;
    let declared = case.facts.workloads.get(&(pod.key.namespace.clone(), workload.clone()))?;
    let lacking = declared.object.project(|key| pod.labels.get(key).is_none());
    let failing = || selector.requirements().iter().filter(|r| !r.matches(&pod.labels));
    // Only what is required moves to the template.
    let labels: Labels = lacking.project(|key| failing().any(|r| *r.key == *key));
    let all: Labels = pod.labels.iter().chain(labels.iter()).map(|(k, v)| (k.clone(), v.clone())).collect();
    if labels.is_empty() || !selector.matches(&all) {
        return None;
    }
    let have = if pod.labels.is_empty() { "has no labels" } else { "has not" };
    Some(Finding {
        code: "labels-on-the-workload",
        text: format!(
            "{} has {labels}, but its pod template {have}: policies match the labels of pods",
            workload_text(pod)
        ),
        origin: declared.origin.clone(),
        mend: Some(Edit::Labels { namespace: pod.key.namespace.clone(), workload, labels }),
    })
}
