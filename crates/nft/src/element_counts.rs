//! The number of elements of each set, updated with each change. Pure.

use std::collections::HashMap;

use palisade_policy::Name;

use crate::{
    phases::Phases,
    ruleset::{Content, Message},
};

/// The number of elements of each set and map, except the one that counts transactions.
#[derive(Debug, Default)]
pub(crate) struct ElementCounts {
    sets: HashMap<Name, usize>,
    total: usize,
}

/// The counts, before a change, of the sets that it touches.
#[derive(Debug, Default)]
pub(crate) struct PreviousCounts(HashMap<Name, usize>);

impl ElementCounts {
    /// Returns the number of elements of all sets together.
    pub(crate) fn total(&self) -> usize {
        self.total
    }

    /// Applies a change. `O(messages)`.
    pub(crate) fn change(&mut self, phases: &Phases) -> PreviousCounts {
        let mut previous = PreviousCounts::default();
        // The node sets and the table `bridge palisade` are counted by `NodeLinks::count`, what leads to chains by links by `Program`.
        let Phases {
            create,
            join,
            hairpin,
            switch,
            leave,
            delete,
            // Only what a start has found is retired, and nothing of it was counted.
            retire: _,
            bridge: _,
            moves_addresses: _,
            atomic: _,
            if_too_large: _,
        } = phases;
        for message in [create, join, hairpin, switch, leave, delete].into_iter().flatten().flatten() {
            match message {
                Message::AddElements(set, _) | Message::RemoveElements(set, _)
                    if matches!(set.content, Content::Node(_) | Content::LinkDispatch) => {}
                Message::AddElements(set, elements) => {
                    let count = self.count(&set.name);
                    self.set(&set.name, count + elements.len(), &mut previous);
                }
                Message::RemoveElements(set, elements) => {
                    let count = self.count(&set.name);
                    self.set(&set.name, count.saturating_sub(elements.len()), &mut previous);
                }
                Message::DeleteSet(name) => self.set(name, 0, &mut previous),
                _ => {}
            }
        }
        previous
    }

    /// Undoes a change.
    pub(crate) fn undo(&mut self, previous: PreviousCounts) {
        for (name, count) in previous.0 {
            self.set(&name, count, &mut PreviousCounts::default());
        }
    }

    fn count(&self, name: &Name) -> usize {
        self.sets.get(name).copied().unwrap_or(0)
    }

    fn set(&mut self, name: &Name, now: usize, previous: &mut PreviousCounts) {
        let count = self.count(name);
        previous.0.entry(name.clone()).or_insert(count);
        self.total = self.total - count + now;
        if now == 0 {
            self.sets.remove(name);
        } else {
            self.sets.insert(name.clone(), now);
        }
    }
}
