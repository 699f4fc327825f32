//! One allocation for each distinct name, label set and port list: 100,000 pods repeat a few hundred of them.

use std::{collections::HashSet, hash::Hash, sync::Arc};

use palisade_policy::{ContainerPort, Labels, Name};

/// Shares equal values.
#[derive(Default, Debug)]
pub(crate) struct Interner {
    names: HashSet<Name>,
    labels: HashSet<Labels>,
    ports: HashSet<Arc<[ContainerPort]>>,
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
    fn equal_values_share_their_memory() {
        let mut names = Interner::default();
        assert!(Arc::ptr_eq(&names.name("a"), &names.name("a")));
        assert!(Arc::ptr_eq(&names.ports(vec![]), &names.ports(vec![])));
    }
}
