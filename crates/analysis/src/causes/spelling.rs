//! Labels that are nearly right.

use std::collections::BTreeSet;

use palisade_policy::{Labels, NamespaceMatch, Peer, PodMatch, Requirement, Selector, Test};

use super::{
    Finding,
    case::{Case, short_text},
};

/// Returns a selector with one requirement replaced.
pub(crate) fn replaced(selector: &Selector, old: &Requirement, new: Requirement) -> Selector {
    let others = selector.requirements().iter().filter(|r| *r != old).cloned();
    Selector::new(others.chain([new]))
}

/// Keys that mean the same by convention.
const SAME: [[&str; 2]; 6] = [
    ["app", "app.kubernetes.io/name"],
    ["name", "app.kubernetes.io/name"],
    ["k8s-app", "app.kubernetes.io/name"],
    ["app", "k8s-app"],
    ["app", "name"],
    ["component", "app.kubernetes.io/component"],
];

/// Returns the requirement that was probably meant, if some labels nearly meet this one.
#[must_use]
pub fn near(requirement: &Requirement, labels: &Labels) -> Option<Requirement> {
    let Test::In(values) = &requirement.test else { return None };
    let key = &requirement.key;
    let with = |key: &palisade_policy::Name, value: &str| Requirement {
        key: key.clone(),
        test: Test::In(BTreeSet::from([value.into()])),
    };
    if let Some(own) = labels.get(key) {
        return values.iter().any(|v| is_similar(v, own)).then(|| with(key, own));
    }
    let same_by_convention = |a: &str, b: &str| SAME.iter().any(|pair| *pair == [a, b] || *pair == [b, a]);
    let candidates = labels.iter().filter(|(_, value)| values.contains(*value));
    let fitting = candidates
        .filter(|(own, _)| is_similar(key, own) || same_by_convention(key, own))
        .min_by_key(|(own, _)| strsim::osa_distance(key, own))?;
    Some(with(fitting.0, fitting.1))
}

/// Returns whether two words differ by no more than a typing error, case, or an ending.
pub(crate) fn is_similar(a: &str, b: &str) -> bool {
    if a == b || a.is_empty() || b.is_empty() || a.len() > 64 || b.len() > 64 {
        return false;
    }
    // Numbers distinguish: `db1` is not a misspelt `db2`. What differs most often, and costs least, is compared first.
    if !digits(a).eq(digits(b)) {
        return false;
    }
    // In a word of one letter every error makes another word; in a long one two errors are likely.
    let (a_letters, b_letters) = (a.chars().count(), b.chars().count());
    let limit = match a_letters.min(b_letters) {
        0 | 1 => 0,
        2..=7 => 1,
        _ => 2,
    };
    // Lower case has another length in other scripts.
    if a.is_ascii() && b.is_ascii() && a_letters.abs_diff(b_letters) > limit {
        return false;
    }
    strsim::osa_distance(&a.to_lowercase(), &b.to_lowercase()) <= limit
}

/// Returns the digits of a word. Words are similar only if theirs are equal.
pub fn digits(text: &str) -> impl Iterator<Item = u8> {
    text.bytes().filter(u8::is_ascii_digit)
}

/// No pod has a label that a `podSelector` requires, and the other end has a similar one.
pub(crate) fn of_pods(case: &Case<'_>) -> Vec<Finding> {
    let mut out = Vec::new();
    for (miss, choice, pod) in case.pod_peers() {
        if !case.in_namespaces(choice, pod) {
            continue;
        }
        for requirement in choice.pods.requirements().iter().filter(|r| !r.matches(&pod.labels)) {
            if case.any_pod(choice, |labels| requirement.matches(labels)) {
                continue;
            }
            let Some(new) = near(requirement, &pod.labels) else { continue };
            let text = format!("no pod has the label {requirement}: did you mean {new}?");
            let pods = replaced(&choice.pods, requirement, new);
            let peer = Peer::Pods(PodMatch { namespaces: choice.namespaces.clone(), pods });
            out.push(Finding {
                code: "pod-label",
                text,
                origin: miss.origin.cloned(),
                mend: Some(case.replace_peer(&miss, peer)),
            });
        }
    }
    out
}

/// Which half of a peer the other end lacks.
pub(crate) fn half(case: &Case<'_>) -> Vec<Finding> {
    let mut out = Vec::new();
    for (miss, choice, pod) in case.pod_peers() {
        let (namespace, labels) = (case.in_namespaces(choice, pod), choice.pods.matches(&pod.labels));
        let who = short_text(pod);
        let text = match (namespace, labels, &choice.namespaces) {
            (true, false, _) => {
                let failing = choice.pods.requirements().iter().filter(|r| !r.matches(&pod.labels));
                let failing: Vec<String> = failing.map(ToString::to_string).collect();
                let nowhere = !case.any_pod(choice, |labels| choice.pods.matches(labels));
                let nowhere = if nowhere { ", and no pod has them all" } else { "" };
                format!(
                    "the namespace of {who} matches, its labels don't: the rule requires {}{nowhere}",
                    failing.join(",")
                )
            }
            (false, true, NamespaceMatch::Selected(selector)) if !choice.pods.is_everything() => format!(
                "the labels of {who} match, its namespace doesn't: the rule requires namespaces with {selector}"
            ),
            _ => continue,
        };
        out.push(Finding { code: "half-of-a-peer", text, origin: miss.origin.cloned(), mend: None });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(key: &str, value: &str, labels: &[(&str, &str)]) -> Option<String> {
        let test = Test::In(BTreeSet::from([value.into()]));
        let labels: Labels = labels.iter().copied().collect();
        near(&Requirement { key: key.into(), test }, &labels).map(|r| r.to_string())
    }

    #[test]
    fn similar_labels_are_found() {
        assert_eq!(meant("app", "cart", &[("app", "carts")]), Some("app=carts".to_owned()));
        assert_eq!(meant("app", "prometehus", &[("app", "prometheus")]), Some("app=prometheus".to_owned()));
        assert_eq!(meant("App", "web", &[("app", "web")]), Some("app=web".to_owned()));
        assert_eq!(meant("ap", "web", &[("app", "web")]), Some("app=web".to_owned()));
        assert_eq!(
            meant("app", "web", &[("app.kubernetes.io/name", "web")]),
            Some("app.kubernetes.io/name=web".to_owned())
        );
    }

    #[test]
    fn other_labels_are_not() {
        assert_eq!(meant("app", "gateway", &[("app", "web")]), None);
        assert_eq!(meant("app", "db1", &[("app", "db2")]), None, "a number distinguishes");
        assert_eq!(meant("role", "web", &[("app", "web")]), None);
        assert_eq!(meant("app", "a", &[("app", "b")]), None, "one letter is no typing error");
    }
}
