//! An index of label sets by what a misspelt requirement may have meant, so that a selector which matches nothing is compared
//! with few of them.

use std::collections::HashMap;

use palisade_analysis::causes::digits;
use palisade_policy::{Labels, Selector, Test};

/// Label sets, by number. [`palisade_analysis::causes::near`] finds a requirement only in those that are returned.
#[derive(Debug, Default)]
pub(crate) struct NearIndex<'a> {
    /// By a key and the digits of its value, which no typing error changes; then by the value.
    by_key: HashMap<(&'a str, Vec<u8>), ByText<'a>>,
    /// By a value, then by its key.
    by_value: HashMap<&'a str, ByText<'a>>,
}

/// Numbers of label sets by one of their keys or values.
type ByText<'a> = HashMap<&'a str, Vec<usize>>;

impl<'a> NearIndex<'a> {
    pub(crate) fn new(all: impl Iterator<Item = &'a Labels>) -> Self {
        let mut out = Self::default();
        for (at, labels) in all.enumerate() {
            for (key, value) in labels.iter() {
                out.by_key
                    .entry((key, digits(value).collect()))
                    .or_default()
                    .entry(value)
                    .or_default()
                    .push(at);
                out.by_value.entry(value).or_default().entry(key).or_default().push(at);
            }
        }
        out
    }

    /// Returns the label sets that may nearly meet one of a selector's requirements, and don't meet it: sorted, each once.
    pub(crate) fn of(&self, selector: &Selector) -> Vec<usize> {
        let mut out = Vec::new();
        for requirement in selector.requirements() {
            let Test::In(values) = &requirement.test else { continue };
            for value in values {
                let similar = self.by_key.get(&(&*requirement.key, digits(value).collect()));
                let others = similar.into_iter().flatten().filter(|(found, _)| !values.contains(**found));
                let same = self.by_value.get(&**value);
                let elsewhere = same.into_iter().flatten().filter(|(key, _)| **key != &*requirement.key);
                out.extend(others.chain(elsewhere).flat_map(|(_, sets)| sets));
            }
        }
        out.sort_unstable();
        out.dedup();
        out
    }
}

#[cfg(test)]
mod tests {
    use palisade_analysis::causes::near;
    use palisade_policy::{Labels, Name, Requirement};

    use super::*;

    #[test]
    fn every_label_set_that_is_near_is_found() {
        let words = ["db", "db1", "dB", "dbs", "backend", "bakend", "backend2", "web", ""];
        let keys = ["app", "App", "app.kubernetes.io/name", "tier"];
        let sets: Vec<Labels> = keys
            .iter()
            .flat_map(|key| {
                words.iter().map(move |word| Labels::from_iter([(Name::from(*key), Name::from(*word))]))
            })
            .collect();
        let index = NearIndex::new(sets.iter());
        let (mut close, mut left_out) = (0, 0);
        for labels in &sets {
            let Some((key, value)) = labels.iter().next() else { continue };
            let requirement = Requirement { key: key.clone(), test: Test::In([value.clone()].into()) };
            let found = index.of(&Selector::new([requirement.clone()]));
            for (at, other) in sets.iter().enumerate() {
                left_out += usize::from(!found.contains(&at));
                if near(&requirement, other).is_some() {
                    close += 1;
                    assert!(found.contains(&at), "{requirement}: {other:?}");
                }
            }
        }
        assert!(close > 20 && left_out > 500, "{close} {left_out}");
    }
}
