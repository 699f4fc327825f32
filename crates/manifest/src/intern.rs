//! One allocation for each distinct name, label set and port list: 100,000 pods repeat a few hundred of them.

use std::{collections::HashSet, hash::Hash, sync::Arc};

use palisade_policy::{ContainerPort, Labels, Name};

/// Shares equal values.
#[derive(Default, Debug)]
pub(crate) struct Interner {
    names: HashSet<Name>,
    labels: HashSet<Labels>,
    ports: HashSet<Arc<[ContainerPort]>>,
    /// How many values the last sweep left.
    swept: usize,
}

impl Interner {
    /// The shared form of a name.
    pub(crate) fn name(&mut self, text: &str) -> Name {
        if let Some(name) = self.names.get(text) {
            return name.clone();
        }
        let name = Name::from(text);
        self.names.insert(name.clone());
        name
    }

    /// The shared form of a label set.
    pub(crate) fn labels(&mut self, labels: Labels) -> Labels {
        shared(&mut self.labels, labels)
    }

    /// The shared form of a list of container ports.
    pub(crate) fn ports(&mut self, ports: Vec<ContainerPort>) -> Arc<[ContainerPort]> {
        shared(&mut self.ports, ports.into())
    }

    /// Forgets what nobody else holds, once as much has come in as the last sweep left: amortised `O(1)` for each value,
    /// and memory stays within twice what is in use.
    pub(crate) fn sweep(&mut self) {
        const WORTHWHILE: usize = 4096;
        let held = self.names.len() + self.labels.len() + self.ports.len();
        if held < (2 * self.swept).max(WORTHWHILE) {
            return;
        }
        // Names last: label sets and ports hold some.
        self.labels.retain(|l| l.holders() > 1);
        self.ports.retain(|p| Arc::strong_count(p) > 1);
        self.names.retain(|n| Arc::strong_count(n) > 1);
        self.swept = self.names.len() + self.labels.len() + self.ports.len();
        if self.names.capacity() > 4 * self.names.len() {
            self.names.shrink_to_fit();
        }
    }
}

fn shared<T: Clone + Eq + Hash>(set: &mut HashSet<T>, value: T) -> T {
    if let Some(known) = set.get(&value) {
        return known.clone();
    }
    set.insert(value.clone());
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_holds_is_forgotten() {
        let mut names = Interner::default();
        let kept = names.name("kept");
        let labels = {
            let pair = (names.name("key"), names.name("value"));
            names.labels([pair].into_iter().collect())
        };
        for n in 0..10_000 {
            let name = names.name(&format!("passing-{n}"));
            names.labels([(name.clone(), name)].into_iter().collect());
            names.sweep();
        }
        assert!(names.names.len() < 5_000, "{}", names.names.len());
        assert!(Arc::ptr_eq(&kept, &names.name("kept")));
        assert_eq!(labels.get("key"), Some("value"));
        assert!(names.names.contains("value"), "a label set holds it");
    }

    #[test]
    fn equal_values_share_their_memory() {
        let mut names = Interner::default();
        assert!(Arc::ptr_eq(&names.name("a"), &names.name("a")));
        assert!(Arc::ptr_eq(&names.ports(vec![]), &names.ports(vec![])));
    }
}
