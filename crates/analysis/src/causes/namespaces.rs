//! Namespaces that a peer doesn't select.

use palisade_policy::{NAMESPACE_NAME_LABEL, NamespaceMatch, Peer, PodMatch, Requirement, Selector, Test};

use super::{
    Finding,
    case::{Case, short_text},
    spelling::{near, replaced},
};

/// No namespace has a label that a `namespaceSelector` requires.
pub(crate) fn labels(case: &Case<'_>) -> Vec<Finding> {
    let mut out = Vec::new();
    for (miss, choice, pod) in case.pod_peers() {
        let NamespaceMatch::Selected(selector) = &choice.namespaces else { continue };
        if case.in_namespaces(choice, pod) {
            continue;
        }
        let home = &pod.key.namespace;
        let own = case.namespace_labels(home);
        for requirement in selector.requirements() {
            let all = || case.cluster().namespaces.values();
            if all().any(|n| requirement.matches(&n.labels)) {
                continue;
            }
            let mend = |new: Requirement| {
                let namespaces = NamespaceMatch::Selected(replaced(selector, requirement, new));
                let peer = PodMatch { namespaces, pods: choice.pods.clone() };
                case.replace_peer(&miss, Peer::Pods(peer))
            };
            let text = format!("no namespace has the label {requirement}");
            let is_name = |values: &std::collections::BTreeSet<palisade_policy::Name>| {
                values.contains(home) && &*requirement.key != NAMESPACE_NAME_LABEL
            };
            let (text, mend) = match &requirement.test {
                Test::In(values) if is_name(values) => {
                    let new =
                        Requirement { key: NAMESPACE_NAME_LABEL.into(), test: requirement.test.clone() };
                    let text = format!("{text}; the name of a namespace is its label {NAMESPACE_NAME_LABEL}");
                    (text, Some(mend(new)))
                }
                _ => match own.and_then(|own| near(requirement, own)) {
                    Some(new) => (format!("{text}: did you mean {new}?"), Some(mend(new))),
                    None if own
                        .is_some_and(|own| own.iter().all(|(key, _)| &**key == NAMESPACE_NAME_LABEL)) =>
                    {
                        (format!("{text}; namespace {home} has no labels, or its manifest is missing"), None)
                    }
                    None => (text, None),
                },
            };
            out.push(Finding { code: "namespace-label", text, origin: miss.origin.cloned(), mend });
        }
    }
    out
}

/// A `podSelector` alone selects pods of the policy's own namespace.
pub(crate) fn other(case: &Case<'_>) -> Vec<Finding> {
    let mut out = Vec::new();
    for (miss, choice, pod) in case.pod_peers() {
        let NamespaceMatch::Named(own) = &choice.namespaces else { continue };
        if *own == pod.key.namespace || choice.pods.is_everything() || !choice.pods.matches(&pod.labels) {
            continue;
        }
        let home = &pod.key.namespace;
        let namespaces = NamespaceMatch::Selected(Selector::of_labels([(NAMESPACE_NAME_LABEL, &**home)]));
        let peer = Peer::Pods(PodMatch { namespaces, pods: choice.pods.clone() });
        let is_used = case.any_pod(choice, |labels| choice.pods.matches(labels));
        let mend = if is_used { case.add_peer(&miss, peer) } else { case.replace_peer(&miss, peer) };
        out.push(Finding {
            code: "other-namespace",
            text: format!(
                "podSelector without namespaceSelector selects pods of namespace {own} only; {} is in namespace {home}",
                short_text(pod)
            ),
            origin: miss.origin.cloned(),
            mend: Some(mend),
        });
    }
    out
}
