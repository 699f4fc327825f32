//! Labels and label selectors. No other crate implements selectors.
//!
//! See SEMANTICS A.5 (A9–A11): a selector is a conjunction of requirements, and values are compared as bytes.

use std::{collections::BTreeSet, fmt, sync::Arc};

use crate::Name;

/// A set of labels, sorted by key. A key occurs once.
///
/// Cheap to clone. A lookup is `O(log n)` in the number of labels.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Labels(Arc<[(Name, Name)]>);

impl Labels {
    /// Returns the value of `key`; `None` if the key is absent. The value may be empty.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(k, _)| (**k).cmp(key)).ok()?;
        Some(&self.0[at].1)
    }

    /// Iterates over the pairs, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&Name, &Name)> {
        self.0.iter().map(|(k, v)| (k, v))
    }

    /// Returns how many clones of this set exist, this one included.
    #[must_use]
    pub fn holders(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    /// Returns the allocation that clones share.
    pub(crate) fn shared(&self) -> &Arc<[(Name, Name)]> {
        &self.0
    }

    /// Makes a set of a shared allocation.
    pub(crate) fn from_shared(shared: Arc<[(Name, Name)]>) -> Self {
        Self(shared)
    }

    /// Returns the address of the allocation. It identifies the set as long as one of its clones lives.
    pub(crate) fn place(&self) -> *const () {
        Arc::as_ptr(&self.0).cast()
    }

    /// Returns the number of labels.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are no labels.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns a copy with `key` set to `value`.
    #[must_use]
    pub fn with(&self, key: &str, value: &str) -> Self {
        self.iter()
            .filter(|(k, _)| &***k != key)
            .map(|(k, v)| (k.clone(), v.clone()))
            .chain([(Name::from(key), Name::from(value))])
            .collect()
    }

    /// Returns a copy with only the keys for which `keep` returns true.
    #[must_use]
    pub fn project(&self, mut keep: impl FnMut(&str) -> bool) -> Self {
        // The order stays.
        Self(self.0.iter().filter(|(k, _)| keep(k)).cloned().collect())
    }
}

impl<K: Into<Name>, V: Into<Name>> FromIterator<(K, V)> for Labels {
    /// Later pairs override earlier ones with the same key.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let map: std::collections::BTreeMap<Name, Name> =
            pairs.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
        Self(map.into_iter().collect())
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (k, v)) in self.iter().enumerate() {
            write!(f, "{}{k}={v}", if i > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

/// A condition on one label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirement {
    /// The label key.
    pub key: Name,
    /// The condition.
    pub test: Test,
}

/// The condition of a [`Requirement`] on its key (SEMANTICS A10).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Test {
    /// The key is present and its value is one of these.
    In(BTreeSet<Name>),
    /// The key is absent, or its value is none of these.
    NotIn(BTreeSet<Name>),
    /// The key is present; the value may be empty.
    Exists,
    /// The key is absent.
    DoesNotExist,
}

impl Requirement {
    /// Returns whether `labels` meet the requirement.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match &self.test {
            Test::In(values) => value.is_some_and(|v| values.contains(v)),
            Test::NotIn(values) => value.is_none_or(|v| !values.contains(v)),
            Test::Exists => value.is_some(),
            Test::DoesNotExist => value.is_none(),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |v: &BTreeSet<Name>| v.iter().map(|n| &**n).collect::<Vec<_>>().join(",");
        match &self.test {
            Test::In(v) if v.len() == 1 => write!(f, "{}={}", self.key, list(v)),
            Test::In(v) => write!(f, "{} in ({})", self.key, list(v)),
            Test::NotIn(v) => write!(f, "{} notin ({})", self.key, list(v)),
            Test::Exists => write!(f, "{}", self.key),
            Test::DoesNotExist => write!(f, "!{}", self.key),
        }
    }
}

/// A label selector: all requirements must be met. The empty selector matches everything (SEMANTICS A.4, A9).
///
/// Requirements are sorted and unique, so that equivalent spellings are equal. A nil selector pointer of the API isn't
/// represented by this type: see [`crate::Peer`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Selector(Arc<[Requirement]>);

impl Selector {
    /// Makes a selector of these requirements, in any order. `matchLabels: {k: v}` is `k In [v]`.
    #[must_use]
    pub fn new(requirements: impl IntoIterator<Item = Requirement>) -> Self {
        let set: BTreeSet<Requirement> = requirements.into_iter().collect();
        Self(set.into_iter().collect())
    }

    /// Returns the selector that matches everything: `{}`.
    #[must_use]
    pub fn everything() -> Self {
        Self::default()
    }

    /// Makes the selector of `matchLabels` with these pairs.
    #[must_use]
    pub fn of_labels<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self::new(
            pairs
                .into_iter()
                .map(|(k, v)| Requirement { key: k.into(), test: Test::In(BTreeSet::from([v.into()])) }),
        )
    }

    /// Returns the allocation that clones share.
    pub(crate) fn shared(&self) -> &Arc<[Requirement]> {
        &self.0
    }

    /// Makes a selector of a shared allocation.
    pub(crate) fn from_shared(shared: Arc<[Requirement]>) -> Self {
        Self(shared)
    }

    /// Returns whether `labels` meet every requirement.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|r| r.matches(labels))
    }

    /// Returns the requirements, sorted.
    #[must_use]
    pub fn requirements(&self) -> &[Requirement] {
        &self.0
    }

    /// Returns whether this is the selector `{}`.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Selector {
    /// Formats the selector as kubectl does; `{}` for the selector that matches everything.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_everything() {
            return f.write_str("{}");
        }
        for (i, r) in self.0.iter().enumerate() {
            write!(f, "{}{r}", if i > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(key: &str, test: Test) -> Selector {
        Selector::new([Requirement { key: key.into(), test }])
    }

    fn values(v: &[&str]) -> BTreeSet<Name> {
        v.iter().map(|s| Name::from(*s)).collect()
    }

    #[test]
    fn operators_follow_a10() {
        let labels = Labels::from_iter([("team", "red"), ("empty", "")]);
        assert!(one("team", Test::In(values(&["red", "blue"]))).matches(&labels));
        assert!(!one("team", Test::In(values(&["RED"]))).matches(&labels), "case counts");
        assert!(!one("none", Test::In(values(&["red"]))).matches(&labels), "In never matches an absent key");
        assert!(one("none", Test::NotIn(values(&["red"]))).matches(&labels), "NotIn matches an absent key");
        assert!(!one("team", Test::NotIn(values(&["red"]))).matches(&labels));
        assert!(one("empty", Test::Exists).matches(&labels), "an empty value exists");
        assert!(one("empty", Test::In(values(&[""]))).matches(&labels));
        assert!(!one("none", Test::In(values(&[""]))).matches(&labels), "\"\" needs the key");
        assert!(one("none", Test::DoesNotExist).matches(&labels));
        assert!(!one("empty", Test::DoesNotExist).matches(&labels));
    }

    #[test]
    fn a_contradiction_matches_nothing_and_the_empty_selector_everything() {
        let labels = Labels::from_iter([("pod", "b")]);
        let both = Selector::new([
            Requirement { key: "pod".into(), test: Test::In(values(&["b"])) },
            Requirement { key: "pod".into(), test: Test::NotIn(values(&["b"])) },
        ]);
        assert!(!both.matches(&labels));
        assert!(Selector::everything().matches(&Labels::default()));
    }

    #[test]
    fn display_is_kubectls() {
        let s = Selector::new([
            Requirement { key: "b".into(), test: Test::NotIn(values(&["x", "y"])) },
            Requirement { key: "a".into(), test: Test::In(values(&["1"])) },
            Requirement { key: "c".into(), test: Test::DoesNotExist },
        ]);
        assert_eq!(s.to_string(), "a=1,b notin (x,y),!c");
    }

    #[test]
    fn later_pairs_win() {
        let labels = Labels::from_iter([("a", "1"), ("a", "2")]);
        assert_eq!(labels.get("a"), Some("2"));
        assert_eq!(labels.len(), 1);
        assert_eq!(labels.with("a", "3").get("a"), Some("3"));
        assert!(labels.project(|_| false).is_empty());
    }
}
