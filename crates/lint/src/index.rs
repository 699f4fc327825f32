//! Indexes of policies and pods by label, so that what a selector matches costs about as much as it matches.
//!
//! A requirement `key in (values)` leads to those that have one of these pairs. What the other requirements match is left
//! to the selector itself.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    rc::Rc,
};

use palisade_policy::{Labels, Name, NamespaceMatch, Policy, Requirement, Selector, Service, Test};

/// Items by the labels that they have, or that they require.
#[derive(Debug, Default)]
pub(crate) struct ByLabel<'a> {
    pairs: HashMap<(&'a str, &'a str), Vec<usize>>,
    /// Those that no pair leads to, or all, as the caller fills it.
    rest: Vec<usize>,
}

/// Returns the values of a requirement that a label must have one of.
fn values(requirement: &Requirement) -> Option<&BTreeSet<Name>> {
    match &requirement.test {
        Test::In(values) => Some(values),
        _ => None,
    }
}

impl<'a> ByLabel<'a> {
    /// Adds something that has labels.
    pub(crate) fn add_labels(&mut self, labels: &'a Labels, item: usize) {
        for (key, value) in labels.iter() {
            self.pairs.entry((key, value)).or_default().push(item);
        }
        self.rest.push(item);
    }

    /// Adds something that matches a selector.
    pub(crate) fn add_selector(&mut self, selector: &'a Selector, item: usize) {
        let first = selector.requirements().iter().find_map(|r| Some((&r.key, values(r)?)));
        match first {
            Some((key, values)) => {
                for value in values {
                    self.pairs.entry((key, value)).or_default().push(item);
                }
            }
            None => self.rest.push(item),
        }
    }

    /// Returns candidates for what a selector matches, of those added with labels: sorted, each once.
    fn matching(&self, selector: &Selector) -> Vec<usize> {
        let mut best: Option<(usize, &Requirement)> = None;
        for requirement in selector.requirements() {
            let Some(values) = values(requirement) else { continue };
            let count = values.iter().map(|v| self.get(&requirement.key, v).len()).sum();
            if best.is_none_or(|(least, _)| count < least) {
                best = Some((count, requirement));
            }
        }
        let Some((_, requirement)) = best else { return self.rest.clone() };
        let chosen = values(requirement).into_iter().flatten();
        let mut out: Vec<usize> = chosen.flat_map(|v| self.get(&requirement.key, v)).copied().collect();
        out.sort_unstable();
        out
    }

    /// Returns candidates for what matches labels, of those added with selectors: sorted, each once.
    fn selecting(&self, labels: &Labels) -> Vec<usize> {
        let pairs = labels.iter().flat_map(|(key, value)| self.get(key, value));
        let mut out: Vec<usize> = pairs.chain(&self.rest).copied().collect();
        out.sort_unstable();
        out
    }

    /// Returns candidates for the selectors that match at least what another one matches, of those added with selectors:
    /// sorted, each once.
    pub(crate) fn containing(&self, selector: &Selector) -> Vec<usize> {
        // A selector that asks for one of some values contains no other that doesn't ask for one of these.
        let pairs = selector.requirements().iter().filter_map(|r| Some((&r.key, values(r)?.first()?)));
        let mut out: Vec<usize> = pairs.flat_map(|(key, value)| self.get(key, value)).copied().collect();
        out.extend(&self.rest);
        out.sort_unstable();
        out.dedup();
        out
    }

    fn get<'b>(&'b self, key: &'b str, value: &'b str) -> &'b [usize] {
        self.pairs.get(&(key, value)).map_or(&[], Vec::as_slice)
    }
}

/// The policies that select pods with the same labels: numbers of a [`PolicyIndex`], in order of evaluation within each tier.
/// Equal profiles are one allocation.
pub(crate) type Profile = Rc<[u32]>;

/// The policies by what they select.
#[derive(Debug, Default)]
pub(crate) struct PolicyIndex<'a> {
    policies: Vec<&'a Policy>,
    by_namespace: BTreeMap<&'a str, ByLabel<'a>>,
    /// Those that select namespaces by label.
    anywhere: Vec<usize>,
    profiles: RefCell<HashSet<Profile>>,
}

impl<'a> PolicyIndex<'a> {
    pub(crate) fn new(policies: impl Iterator<Item = &'a Policy>) -> Self {
        let mut policies: Vec<&'a Policy> = policies.collect();
        policies.sort_by(|a, b| a.tier.cmp(&b.tier).then_with(|| Policy::precedence(a, b)));
        let mut out = Self::default();
        for (at, policy) in policies.iter().enumerate() {
            match &policy.subject.namespaces {
                NamespaceMatch::Named(name) => {
                    out.by_namespace.entry(name).or_default().add_selector(&policy.subject.pods, at);
                }
                NamespaceMatch::Selected(_) => out.anywhere.push(at),
            }
        }
        out.policies = policies;
        out
    }

    /// Returns the policies that select pods with these labels.
    pub(crate) fn profile(
        &self,
        namespace: &str,
        namespace_labels: Option<&Labels>,
        labels: &Labels,
    ) -> Profile {
        let own = self.by_namespace.get(namespace).map(|index| index.selecting(labels)).unwrap_or_default();
        let mut found: Vec<usize> = own.into_iter().chain(self.anywhere.iter().copied()).collect();
        found.retain(|at| self.policies[*at].subject.matches(namespace, namespace_labels, labels));
        found.sort_unstable();
        let profile: Profile = found.into_iter().map(|at| at as u32).collect();
        let mut profiles = self.profiles.borrow_mut();
        if let Some(known) = profiles.get(&profile) {
            return Rc::clone(known);
        }
        profiles.insert(Rc::clone(&profile));
        profile
    }

    /// Iterates over the policies of a profile.
    pub(crate) fn of<'c>(
        &'c self,
        profile: &'c [u32],
    ) -> impl DoubleEndedIterator<Item = &'a Policy> + Clone + 'c {
        profile.iter().filter_map(|at| self.policies.get(*at as usize).copied())
    }
}

/// The Services by the pods behind them.
#[derive(Debug, Default)]
pub(crate) struct ServiceIndex<'a> {
    services: Vec<(&'a Service, &'a Selector)>,
    by_namespace: BTreeMap<&'a str, ByLabel<'a>>,
}

impl<'a> ServiceIndex<'a> {
    pub(crate) fn new(services: impl Iterator<Item = &'a Service>) -> Self {
        let services: Vec<_> = services.filter_map(|s| Some((s, s.selector.as_ref()?))).collect();
        let mut out = Self::default();
        for (at, (service, selector)) in services.iter().enumerate() {
            out.by_namespace.entry(&service.key.namespace).or_default().add_selector(selector, at);
        }
        out.services = services;
        out
    }

    /// Iterates over the Services in front of pods with these labels.
    pub(crate) fn of<'c>(
        &'c self,
        namespace: &str,
        labels: &'c Labels,
    ) -> impl Iterator<Item = &'a Service> + 'c {
        let found = self.by_namespace.get(namespace).map(|index| index.selecting(labels)).unwrap_or_default();
        let services = found.into_iter().filter_map(|at| self.services.get(at));
        services.filter(|(_, selector)| selector.matches(labels)).map(|(service, _)| *service)
    }
}

/// Returns the items of `all` that may match a selector, by an index of their labels.
pub(crate) fn candidates<'c, T>(index: &ByLabel<'_>, all: &'c [T], selector: &Selector) -> Vec<&'c T> {
    index.matching(selector).into_iter().filter_map(|at| all.get(at)).collect()
}
