//! How many elements each set holds, kept as changes go by. Pure.

use std::collections::HashMap;

use palisade_policy::Name;

use crate::{
    program::Phases,
    ruleset::{Content, Message},
};

/// The number of elements by set, for all sets and maps but the one that counts transactions.
#[derive(Debug, Default)]
pub(crate) struct Holdings {
    sets: HashMap<Name, usize>,
    total: usize,
}

/// What the sets that a change touches held before it.
#[derive(Debug, Default)]
pub(crate) struct Before(HashMap<Name, usize>);

impl Holdings {
    /// How many elements all sets hold together.
    pub(crate) fn total(&self) -> usize {
        self.total
    }

    /// Takes in a change. `O(messages)`.
    pub(crate) fn change(&mut self, phases: &Phases) -> Before {
        let mut before = Before::default();
        // Sets of the node's surroundings, and the table for bridges, follow from what is known elsewhere.
        let Phases { make, join, hairpin, switch, leave, unmake, bridge: _, moves: _, indivisible: _ } =
            phases;
        for message in [make, join, hairpin, switch, leave, unmake].into_iter().flatten().flatten() {
            match message {
                Message::AddElements(set, _) | Message::RemoveElements(set, _)
                    if matches!(set.content, Content::Around(_)) => {}
                Message::AddElements(set, elements) => {
                    let held = self.held(&set.name);
                    self.set(&set.name, held + elements.len(), &mut before);
                }
                Message::RemoveElements(set, elements) => {
                    let held = self.held(&set.name);
                    self.set(&set.name, held.saturating_sub(elements.len()), &mut before);
                }
                Message::DeleteSet(name) => self.set(name, 0, &mut before),
                _ => {}
            }
        }
        before
    }

    /// Takes a change back.
    pub(crate) fn undo(&mut self, before: Before) {
        for (name, held) in before.0 {
            self.set(&name, held, &mut Before::default());
        }
    }

    fn held(&self, name: &Name) -> usize {
        self.sets.get(name).copied().unwrap_or(0)
    }

    fn set(&mut self, name: &Name, now: usize, before: &mut Before) {
        let held = self.held(name);
        before.0.entry(name.clone()).or_insert(held);
        self.total = self.total - held + now;
        if now == 0 {
            self.sets.remove(name);
        } else {
            self.sets.insert(name.clone(), now);
        }
    }
}
