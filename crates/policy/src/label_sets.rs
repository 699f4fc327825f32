//! Sets of label sets: what selectors match, as values that can be intersected and complemented.
//!
//! A [`LabelSet`] constrains labels key by key. The constraints of a key are those that requirements can express, and
//! intersections of them can be expressed again, so every such set is what some selector matches.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Labels, Name, Requirement, Selector, Test};

/// What one label may be. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LabelValues {
    /// The label is present and has one of these values, of which there is at least one.
    OneOf(BTreeSet<Name>),
    /// The label is present with any other value than these, or, if `absent`, it is absent.
    NoneOf {
        /// The excluded values.
        values: BTreeSet<Name>,
        /// Whether the label may be absent.
        absent: bool,
    },
    /// The label is absent.
    Absent,
}

impl LabelValues {
    /// Returns the values that a requirement allows; `None` if there are none.
    #[must_use]
    pub fn of(test: &Test) -> Option<Self> {
        let no_values = BTreeSet::new;
        Some(match test {
            Test::In(values) if values.is_empty() => return None,
            Test::In(values) => Self::OneOf(values.clone()),
            Test::NotIn(values) => Self::NoneOf { values: values.clone(), absent: true },
            Test::Exists => Self::NoneOf { values: no_values(), absent: false },
            Test::DoesNotExist => Self::Absent,
        })
    }

    /// Returns whether the label may be absent.
    #[must_use]
    pub fn allow_absent(&self) -> bool {
        matches!(self, Self::Absent | Self::NoneOf { absent: true, .. })
    }

    /// Returns whether a label may have this value.
    #[must_use]
    pub fn allow(&self, value: &str) -> bool {
        match self {
            Self::OneOf(values) => values.contains(value),
            Self::NoneOf { values, .. } => !values.contains(value),
            Self::Absent => false,
        }
    }

    /// Returns whether everything is allowed.
    #[must_use]
    pub fn is_any(&self) -> bool {
        matches!(self, Self::NoneOf { values, absent: true } if values.is_empty())
    }

    /// Returns what both allow; `None` if that is nothing.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        Some(match (self, other) {
            (Self::Absent, o) | (o, Self::Absent) => return o.allow_absent().then_some(Self::Absent),
            (Self::OneOf(values), o) | (o, Self::OneOf(values)) => {
                let both: BTreeSet<Name> = values.iter().filter(|v| o.allow(v)).cloned().collect();
                return (!both.is_empty()).then_some(Self::OneOf(both));
            }
            (Self::NoneOf { values: a, absent: x }, Self::NoneOf { values: b, absent: y }) => {
                Self::NoneOf { values: a.union(b).cloned().collect(), absent: *x && *y }
            }
        })
    }

    /// Returns whether both allow something in common, without computing it.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Absent, o) | (o, Self::Absent) => o.allow_absent(),
            (Self::OneOf(values), o) | (o, Self::OneOf(values)) => values.iter().any(|v| o.allow(v)),
            // A label may have any number of other values.
            (Self::NoneOf { .. }, Self::NoneOf { .. }) => true,
        }
    }

    /// Returns whether everything that is allowed is allowed by `other`, too.
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Absent, o) => o.allow_absent(),
            (Self::OneOf(values), o) => values.iter().all(|v| o.allow(v)),
            (Self::NoneOf { .. }, Self::OneOf(_) | Self::Absent) => false,
            (Self::NoneOf { values: a, absent: x }, Self::NoneOf { values: b, absent: y }) => {
                b.is_subset(a) && (*y || !*x)
            }
        }
    }

    /// Returns what is not allowed, as disjoint parts.
    #[must_use]
    pub fn complement(&self) -> Vec<Self> {
        match self {
            Self::OneOf(values) => vec![Self::NoneOf { values: values.clone(), absent: true }],
            Self::Absent => vec![Self::NoneOf { values: BTreeSet::new(), absent: false }],
            Self::NoneOf { values, absent } => {
                let excluded = (!values.is_empty()).then(|| Self::OneOf(values.clone()));
                excluded.into_iter().chain((!absent).then_some(Self::Absent)).collect()
            }
        }
    }

    fn requirements(&self, key: &Name) -> Vec<Requirement> {
        let tests = match self {
            Self::OneOf(values) => vec![Test::In(values.clone())],
            Self::Absent => vec![Test::DoesNotExist],
            Self::NoneOf { values, absent } => {
                let exists = (!absent).then_some(Test::Exists);
                let excluded = (!values.is_empty()).then(|| Test::NotIn(values.clone()));
                exists.into_iter().chain(excluded).collect()
            }
        };
        tests.into_iter().map(|test| Requirement { key: key.clone(), test }).collect()
    }
}

/// The label sets that a selector matches. Never empty: contradictions are no value of this type. Two are equal if they
/// contain the same label sets.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabelSet(BTreeMap<Name, LabelValues>);

impl LabelSet {
    /// Returns the label sets that a selector matches; `None` if it matches none, such as `a=1,a=2`.
    #[must_use]
    pub fn of(selector: &Selector) -> Option<Self> {
        let mut out = Self::default();
        for Requirement { key, test } in selector.requirements() {
            out = out.intersection(&Self::with_one(key, LabelValues::of(test)?))?;
        }
        Some(out)
    }

    /// Returns the label sets in which one label is as given.
    #[must_use]
    pub fn with_one(key: &Name, values: LabelValues) -> Self {
        Self(if values.is_any() { BTreeMap::new() } else { BTreeMap::from([(key.clone(), values)]) })
    }

    /// Returns whether it contains every label set.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the constraint of a key; `None` if there is none.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&LabelValues> {
        self.0.get(key)
    }

    /// Iterates over the keys that are constrained, sorted.
    pub fn iter(&self) -> impl Iterator<Item = (&Name, &LabelValues)> {
        self.0.iter()
    }

    /// Returns whether it contains `labels`.
    #[must_use]
    pub fn contains(&self, labels: &Labels) -> bool {
        self.0.iter().all(|(key, values)| match labels.get(key) {
            Some(value) => values.allow(value),
            None => values.allow_absent(),
        })
    }

    /// Returns the label sets in both; `None` if there are none.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        let mut out = self.0.clone();
        for (key, values) in &other.0 {
            let both = match out.get(key) {
                Some(own) => own.intersection(values)?,
                None => values.clone(),
            };
            out.insert(key.clone(), both);
        }
        Some(Self(out))
    }

    /// Returns whether there is a label set in both, without computing these.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        self.0.iter().all(|(key, values)| other.0.get(key).is_none_or(|theirs| values.meets(theirs)))
    }

    /// Returns whether `other` contains every label set of this one.
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        other.0.iter().all(|(key, values)| self.0.get(key).is_some_and(|own| own.is_subset(values)))
    }

    /// Returns a copy without the constraint of a key.
    #[must_use]
    pub fn without(&self, key: &str) -> Self {
        Self(self.0.iter().filter(|(k, _)| &***k != key).map(|(k, v)| (k.clone(), v.clone())).collect())
    }

    /// Returns the selector that matches these label sets.
    #[must_use]
    pub fn selector(&self) -> Selector {
        Selector::new(self.0.iter().flat_map(|(key, values)| values.requirements(key)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn test() -> impl Strategy<Value = Test> {
        let values = || prop::collection::btree_set(prop::sample::select(vec!["a", "b", "c"]), 0..3);
        let names = |values: BTreeSet<&str>| values.into_iter().map(Name::from).collect();
        prop_oneof![
            values().prop_map(move |v| Test::In(names(v))),
            values().prop_map(move |v| Test::NotIn(names(v))),
            Just(Test::Exists),
            Just(Test::DoesNotExist),
        ]
    }

    fn selector() -> impl Strategy<Value = Selector> {
        let requirement = (prop::sample::select(vec!["x", "y"]), test())
            .prop_map(|(key, test)| Requirement { key: key.into(), test });
        prop::collection::vec(requirement, 0..4).prop_map(Selector::new)
    }

    /// All label sets that the selectors above can tell apart.
    fn all() -> Vec<Labels> {
        let values = [None, Some("a"), Some("b"), Some("c"), Some("d")];
        let pair = |x: Option<&str>, y: Option<&str>| {
            let labels = [("x", x), ("y", y)].into_iter().filter_map(|(k, v)| Some((k, v?)));
            labels.collect::<Labels>()
        };
        values.iter().flat_map(|x| values.iter().map(move |y| pair(*x, *y))).collect()
    }

    proptest! {
        #[test]
        fn the_algebra_is_that_of_sets(a in selector(), b in selector()) {
            let sets = [LabelSet::of(&a), LabelSet::of(&b)];
            for (set, selector) in sets.iter().zip([&a, &b]) {
                let matched = all().iter().any(|labels| selector.matches(labels));
                prop_assert_eq!(set.is_some(), matched);
            }
            let [Some(x), Some(y)] = sets else { return Ok(()) };
            let both = x.intersection(&y);
            let mut subset = true;
            for labels in all() {
                prop_assert_eq!(x.contains(&labels), a.matches(&labels));
                prop_assert_eq!(x.selector().matches(&labels), a.matches(&labels));
                let in_both = both.as_ref().is_some_and(|set| set.contains(&labels));
                prop_assert_eq!(in_both, a.matches(&labels) && b.matches(&labels));
                subset &= !a.matches(&labels) || b.matches(&labels);
            }
            prop_assert_eq!(x.is_subset(&y), subset);
            prop_assert_eq!(x.meets(&y), both.is_some());
            for (key, values) in x.iter() {
                for labels in all() {
                    let of = |values: &LabelValues| LabelSet::with_one(key, values.clone()).contains(&labels);
                    let outside = values.complement().iter().filter(|part| of(part)).count();
                    prop_assert_eq!(outside, usize::from(!of(values)));
                }
            }
        }
    }
}
