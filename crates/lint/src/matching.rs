//! Why a selector matches no pod.

use std::rc::Rc;

use palisade_analysis::causes::near;
use palisade_policy::{
    Labels, NAMESPACE_NAME_LABEL, Name, NamespaceMatch, ObjectKey, Origin, PodMatch, Policy, PolicyKey,
    Requirement, Selector, Test, Workload,
};

use crate::{
    context::Context,
    finding::{Fix, Found, TextEdit},
    miss::Miss,
};

/// Returns why a match selects no pod; `None` if it selects one.
pub(crate) fn miss(cx: &Context<'_>, choice: &PodMatch) -> Option<Rc<Miss>> {
    if let Some(known) = cx.misses.borrow().get(choice) {
        return known.clone();
    }
    let miss = reason(cx, choice).map(Rc::new);
    cx.misses.borrow_mut().insert(choice.clone(), miss.clone());
    miss
}

fn reason(cx: &Context<'_>, choice: &PodMatch) -> Option<Miss> {
    let mut on_nodes = false;
    for class in cx.matching(choice) {
        if !class.host_network {
            return None;
        }
        on_nodes = true;
    }
    if on_nodes {
        return Some(Miss::HostNetwork);
    }
    let reason = of_namespaces(cx, choice)
        .or_else(|| template(cx, choice))
        .or_else(|| misspelt(cx, choice))
        .or_else(|| elsewhere(cx, choice));
    Some(reason.unwrap_or(Miss::Nothing))
}

/// Returns the only requirement that labels don't meet, and its place.
fn only_unmet<'s>(selector: &'s Selector, labels: &Labels) -> Option<(usize, &'s Requirement)> {
    let mut unmet = selector.requirements().iter().enumerate().filter(|(_, r)| !r.matches(labels));
    unmet.next().filter(|_| unmet.next().is_none())
}

/// The labels by which people guess that a namespace has its name.
const NAME_KEYS: [&str; 4] = ["name", "namespace", "ns", "kubernetes.io/name"];

/// The namespaces that every cluster has.
const SYSTEM: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

fn of_namespaces(cx: &Context<'_>, choice: &PodMatch) -> Option<Miss> {
    let NamespaceMatch::Selected(selector) = &choice.namespaces else { return None };
    let namespaces = &cx.loaded.cluster.namespaces;
    if namespaces.values().any(|n| selector.matches(&n.labels)) {
        return None;
    }
    for requirement in selector.requirements() {
        let Test::In(values) = &requirement.test else { continue };
        let named = values.iter().find_map(|value| namespaces.get(value)).filter(|_| values.len() == 1);
        if let Some(named) = named
            && &*requirement.key != NAMESPACE_NAME_LABEL
            && named.labels.get(&requirement.key).is_none()
            && NAME_KEYS.contains(&&*requirement.key)
        {
            let key = ObjectKey { namespace: "".into(), name: named.name.clone() };
            let declared = cx.loaded.origins.contains_key(&("Namespace".into(), key));
            return Some(Miss::NamespaceName(requirement.clone(), named.name.clone(), declared));
        }
    }
    // Every cluster has these, and none of them has such a label unless it was given one.
    for requirement in selector.requirements().iter().filter(|r| NAME_KEYS.contains(&&*r.key)) {
        let Test::In(values) = &requirement.test else { continue };
        if let Some(name) = values.first().filter(|name| values.len() == 1 && SYSTEM.contains(&&***name)) {
            return Some(Miss::NamespaceName(requirement.clone(), name.clone(), false));
        }
    }
    namespaces.values().find_map(|namespace| {
        let (_, old) = only_unmet(selector, &namespace.labels)?;
        Some(Miss::Near(old.clone(), near(old, &namespace.labels)?))
    })
}

fn template(cx: &Context<'_>, choice: &PodMatch) -> Option<Miss> {
    if choice.pods.is_everything() {
        return None;
    }
    match &choice.namespaces {
        NamespaceMatch::Named(namespace) => template_in(cx, namespace, &choice.pods),
        NamespaceMatch::Selected(selector) => {
            let namespaces = cx.loaded.cluster.namespaces.iter();
            let selected = namespaces.filter(|(_, namespace)| selector.matches(&namespace.labels));
            selected.into_iter().find_map(|(name, _)| template_in(cx, name, &choice.pods))
        }
    }
}

fn template_in(cx: &Context<'_>, namespace: &Name, pods: &Selector) -> Option<Miss> {
    let first = (namespace.clone(), Workload { kind: "".into(), name: "".into() });
    let all = cx.loaded.workload_labels.range(first..).take_while(|((own, _), _)| own == namespace);
    all.into_iter().find_map(|((_, workload), labels)| {
        if pods.matches(&labels.template) {
            return None;
        }
        let object = || format!("{} {namespace}/{}", workload.kind, workload.name);
        let jobs = || format!("the jobTemplate of {}", object());
        let on_object = pods.matches(&labels.object).then(object);
        on_object.or_else(|| pods.matches(&labels.jobs).then(jobs)).map(Miss::Template)
    })
}

fn misspelt(cx: &Context<'_>, choice: &PodMatch) -> Option<Miss> {
    let of_network = cx.nearly_matching(choice).filter(|class| !class.host_network);
    // A label that other pods have is no misspelling. By the place of the requirement.
    let mut known: Vec<Option<bool>> = vec![None; choice.pods.requirements().len()];
    of_network.take(MOST_CLASSES).find_map(|class| {
        let (place, old) = only_unmet(&choice.pods, class.labels)?;
        let is_used = || {
            let alone =
                PodMatch { namespaces: choice.namespaces.clone(), pods: Selector::new([old.clone()]) };
            cx.matching(&alone).next().is_some()
        };
        if *known[place].get_or_insert_with(is_used) {
            return None;
        }
        Some(Miss::Near(old.clone(), near(old, class.labels)?))
    })
}

fn elsewhere(cx: &Context<'_>, choice: &PodMatch) -> Option<Miss> {
    let NamespaceMatch::Named(own) = &choice.namespaces else { return None };
    if choice.pods.is_everything() {
        return None;
    }
    let others = cx.classes.iter().filter(|(name, _)| **name != own);
    let matching = others.filter(|(_, c)| c.matching(&choice.pods).any(|class| !class.host_network));
    let names: Vec<Name> = matching.map(|(name, _)| (*name).clone()).collect();
    (!names.is_empty()).then_some(Miss::Elsewhere(names))
}

/// With how many label sets a selector that matches nothing is compared, of those that may nearly match. Others may be missed.
const MOST_CLASSES: usize = 2000;

/// What selects: the policy itself, or one of its peers.
#[derive(Clone, Copy)]
pub(crate) enum Selecting<'a> {
    Subject(&'a Policy),
    Peer(&'a Policy, &'a PodMatch, Option<&'a Origin>),
}

impl<'a> Selecting<'a> {
    pub(crate) fn policy(self) -> &'a Policy {
        match self {
            Self::Subject(policy) | Self::Peer(policy, ..) => policy,
        }
    }

    pub(crate) fn choice(self) -> &'a PodMatch {
        match self {
            Self::Subject(policy) => &policy.subject,
            Self::Peer(_, choice, _) => choice,
        }
    }

    /// The position of the peer, or of the policy's own label with this key, or of the policy.
    pub(crate) fn origin(self, cx: &Context<'_>, requirement: Option<&Requirement>) -> Option<Origin> {
        let label = requirement.and_then(|r| self.label(cx, r));
        let of_label = label.and_then(|(file, label)| cx.origin(&file, label.0));
        of_label.or_else(|| match self {
            Self::Subject(policy) => policy.origin.clone(),
            Self::Peer(policy, _, origin) => origin.or(policy.origin.as_ref()).cloned(),
        })
    }

    /// Makes a finding.
    pub(crate) fn found(self, cx: &Context<'_>, requirement: Option<&Requirement>, message: String) -> Found {
        let key: &PolicyKey = &self.policy().key;
        Found::of(key, self.origin(cx, requirement).as_ref(), message)
    }

    /// Returns what it is and does, for messages: `the policy selects no pod`.
    pub(crate) fn consequence(self) -> &'static str {
        match self {
            Self::Subject(_) => "so the policy applies to no pod",
            Self::Peer(..) => "so the rule allows nothing through this peer",
        }
    }

    /// Returns the edit that replaces a requirement by another.
    pub(crate) fn replaced(self, cx: &Context<'_>, old: &Requirement, new: &Requirement) -> Option<Fix> {
        let Test::In(values) = &new.test else { return None };
        let value = values.first().filter(|_| values.len() == 1)?;
        let (file, (_, key_range, value_range, same_key)) = self.label_ranges(cx, old, &new.key)?;
        let mut edits = vec![TextEdit { file: file.clone(), range: value_range, text: written(value) }];
        if !same_key {
            edits.push(TextEdit { file, range: key_range, text: written(&new.key) });
        }
        Some(Fix { text: format!("replace {old} by {new}"), edits })
    }

    fn label(self, cx: &Context<'_>, requirement: &Requirement) -> Option<(Name, (usize,))> {
        let (file, found) = self.label_ranges(cx, requirement, &requirement.key)?;
        Some((file, (found.0,)))
    }

    #[expect(clippy::type_complexity, reason = "the parts of one label, used in two places of this file")]
    fn label_ranges(
        self,
        cx: &Context<'_>,
        requirement: &Requirement,
        new_key: &str,
    ) -> Option<(Name, (usize, std::ops::Range<usize>, std::ops::Range<usize>, bool))> {
        let Test::In(values) = &requirement.test else { return None };
        let (written, _) = cx.written_of(&self.policy().key)?;
        let peer = match self {
            Self::Subject(_) => None,
            Self::Peer(_, _, origin) => Some(cx.lines.get(&*written.file)?.offset(origin?)?),
        };
        let label = written.labels.iter().find(|label| {
            label.peer == peer && *label.key == *requirement.key && values.contains(&*label.value)
        })?;
        let same_key = *label.key == *new_key;
        let ranges = (label.key_range.start, label.key_range.clone(), label.value_range.clone(), same_key);
        Some((written.file.clone(), ranges))
    }
}

/// Returns a word as YAML and JSON read it as a string.
fn written(word: &str) -> String {
    let plain = word.starts_with(|c: char| c.is_ascii_alphabetic())
        && word.chars().all(|c| c.is_ascii_alphanumeric() || "-._/".contains(c))
        && !["true", "false", "yes", "no", "on", "off", "null", "y", "n"]
            .contains(&&*word.to_ascii_lowercase());
    if plain { word.to_owned() } else { format!("{word:?}") }
}

/// Iterates over all that selects and matches no pod, with the reason.
pub(crate) fn misses<'c>(cx: &'c Context<'_>) -> impl Iterator<Item = (Selecting<'c>, Miss)> {
    let subjects = cx.policies().map(Selecting::Subject);
    let peers = cx.peers().map(|(policy, choice, origin)| Selecting::Peer(policy, choice, origin));
    subjects.chain(peers).filter_map(|s| Some((s, (*miss(cx, s.choice())?).clone())))
}
