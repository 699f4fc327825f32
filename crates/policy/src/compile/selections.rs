//! Selections: what rules select by labels, and the classes that each selection matches.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{
    classes::{ClassId, ClassKey, ClassOwner, Classes, SelectionId},
    remove_from,
};
use crate::{Cluster, DomainPattern, Name, NamespaceMatch, Selector, rules::PodMatch};

/// What a rule selects.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Choice {
    Pods(PodMatch),
    Nodes(Selector),
    Learned(DomainPattern),
}

impl Choice {
    /// Returns the only namespace that it can match, if it names one.
    fn namespace(&self) -> Option<&Name> {
        match self {
            Self::Pods(PodMatch { namespaces: NamespaceMatch::Named(name), .. }) => Some(name),
            Self::Pods(_) | Self::Nodes(_) | Self::Learned(_) => None,
        }
    }

    /// Notes what it must distinguish among peers.
    fn mention(&self, classes: &mut Classes) {
        let selector = match self {
            Self::Pods(choice) => &choice.pods,
            Self::Nodes(selector) => selector,
            Self::Learned(pattern) => return classes.mention_domain(pattern),
        };
        for requirement in selector.requirements() {
            classes.mention_label_key(&requirement.key);
        }
    }

    fn selects(&self, class: &ClassKey, cluster: &Cluster) -> bool {
        match (self, &class.owner) {
            (Self::Pods(choice), ClassOwner::Pods(namespace)) => {
                let labels = cluster.namespaces.get(namespace).map(|n| &n.labels);
                choice.matches(namespace, labels, &class.labels)
            }
            (Self::Nodes(selector), ClassOwner::Nodes) => selector.matches(&class.labels),
            (Self::Learned(pattern), _) => class.domains.binary_search(pattern).is_ok(),
            _ => false,
        }
    }

    /// Returns the classes that it may match.
    fn candidates(&self, classes: &Classes, cluster: &Cluster) -> Vec<ClassId> {
        match self {
            Self::Nodes(_) => classes.of_nodes().collect(),
            Self::Learned(pattern) => classes.learned_for(pattern).collect(),
            Self::Pods(PodMatch { namespaces: NamespaceMatch::Named(name), .. }) => {
                classes.in_namespace(name).collect()
            }
            Self::Pods(PodMatch { namespaces: NamespaceMatch::Selected(selector), .. }) => {
                let selected =
                    |name: &Name| cluster.namespaces.get(name).is_some_and(|n| selector.matches(&n.labels));
                classes
                    .namespaces()
                    .filter(|(name, _)| selected(name))
                    .flat_map(|(_, ids)| ids)
                    .copied()
                    .collect()
            }
        }
    }
}

/// A selection, and the classes that it matches.
#[derive(Clone, Debug)]
struct Selection {
    choice: Choice,
    /// How many tables use it.
    tables: usize,
    classes: BTreeSet<ClassId>,
}

/// All selections of the node's tables.
#[derive(Clone, Debug, Default)]
pub(super) struct Selections {
    all: BTreeMap<SelectionId, Selection>,
    ids: HashMap<Choice, SelectionId>,
    /// The selections of pods in one named namespace, by its name, and all others that select by labels.
    named: BTreeMap<Name, BTreeSet<SelectionId>>,
    others: BTreeSet<SelectionId>,
    next: SelectionId,
    /// Not yet matched against the classes.
    new: BTreeSet<SelectionId>,
    /// Selections that at some moment no table used.
    unused: BTreeSet<SelectionId>,
}

impl Selections {
    /// Returns the id of a selection. Its label keys and domain names count as mentioned from now on.
    pub(super) fn id(&mut self, choice: Choice, classes: &mut Classes) -> SelectionId {
        if let Some(id) = self.ids.get(&choice) {
            return *id;
        }
        choice.mention(classes);
        let id = self.next;
        self.next += 1;
        match (choice.namespace(), &choice) {
            (Some(name), _) => drop(self.named.entry(name.clone()).or_default().insert(id)),
            // A class lists the patterns that match it.
            (None, Choice::Learned(_)) => {}
            (None, _) => drop(self.others.insert(id)),
        }
        self.ids.insert(choice.clone(), id);
        self.all.insert(id, Selection { choice, tables: 0, classes: BTreeSet::new() });
        self.new.insert(id);
        id
    }

    /// Adds a user of the selection.
    pub(super) fn retain(&mut self, id: SelectionId) {
        if let Some(selection) = self.all.get_mut(&id) {
            selection.tables += 1;
        }
    }

    /// Removes a user of the selection.
    pub(super) fn release(&mut self, id: SelectionId) {
        if let Some(selection) = self.all.get_mut(&id) {
            selection.tables -= 1;
            if selection.tables == 0 {
                self.unused.insert(id);
            }
        }
    }

    /// Returns the classes that a selection matches.
    pub(super) fn classes(&self, id: SelectionId) -> impl Iterator<Item = ClassId> {
        self.all.get(&id).into_iter().flat_map(|selection| selection.classes.iter().copied())
    }

    /// Matches new selections and changed classes. Returns the classes whose rows may have changed.
    pub(super) fn update(
        &mut self,
        classes: &mut Classes,
        cluster: &Cluster,
        relabelled: &BTreeSet<Name>,
    ) -> BTreeSet<ClassId> {
        let mut changed = classes.take_touched();
        for id in std::mem::take(&mut self.new) {
            let Some(selection) = self.all.get(&id) else { continue };
            for class in selection.choice.candidates(classes, cluster) {
                self.test(id, class, classes, cluster);
            }
        }
        for class in &changed {
            let Some(found) = classes.get(*class) else { continue };
            let named = found.key.owner.namespace().and_then(|name| self.named.get(name));
            let learned = found.key.domains.iter().filter_map(|p| self.ids.get(&Choice::Learned(p.clone())));
            let concerned: Vec<SelectionId> =
                named.into_iter().flatten().chain(&self.others).chain(learned).copied().collect();
            for id in concerned {
                self.test(id, *class, classes, cluster);
            }
        }
        for namespace in relabelled {
            let concerned: Vec<SelectionId> = self.others.iter().copied().collect();
            for class in classes.in_namespace(namespace).collect::<Vec<_>>() {
                for id in &concerned {
                    if self.test(*id, class, classes, cluster) {
                        changed.insert(class);
                    }
                }
            }
        }
        changed
    }

    /// Sets whether a selection matches a class. Returns whether that changed.
    fn test(&mut self, id: SelectionId, class: ClassId, classes: &mut Classes, cluster: &Cluster) -> bool {
        let (Some(selection), Some(found)) = (self.all.get_mut(&id), classes.get_mut(class)) else {
            return false;
        };
        if !found.members.is_empty() && selection.choice.selects(&found.key, cluster) {
            selection.classes.insert(class);
            found.selections.insert(id)
        } else {
            selection.classes.remove(&class);
            found.selections.remove(&id)
        }
    }

    /// Removes a class without members.
    pub(super) fn forget(&mut self, class: ClassId, classes: &mut Classes) {
        for id in classes.get(class).map(|c| c.selections.clone()).unwrap_or_default() {
            if let Some(selection) = self.all.get_mut(&id) {
                selection.classes.remove(&class);
            }
        }
        classes.remove(class);
    }

    /// Drops selections that no table uses.
    pub(super) fn drop_unused(&mut self, classes: &mut Classes) {
        for id in std::mem::take(&mut self.unused) {
            if self.all.get(&id).is_none_or(|selection| selection.tables > 0) {
                continue;
            }
            let Some(selection) = self.all.remove(&id) else { continue };
            for class in &selection.classes {
                if let Some(class) = classes.get_mut(*class) {
                    class.selections.remove(&id);
                }
            }
            self.ids.remove(&selection.choice);
            self.others.remove(&id);
            if let Some(name) = selection.choice.namespace() {
                remove_from(&mut self.named, name, &id);
            }
        }
    }
}
