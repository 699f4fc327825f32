//! The definitions in use, each with a unique name.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use super::{definition::Definition, names::Namer};
use crate::PolicyTableId;

/// The id and definition of a table.
pub(super) type NamedDefinition = (PolicyTableId, Arc<Definition>);

/// Finds the definition with a name, as long as it is in use.
#[derive(Clone, Debug, Default)]
pub(super) struct Definitions {
    known: HashMap<PolicyTableId, Weak<Definition>>,
    /// The number of names at which those of unused definitions are dropped: twice the number after the last time.
    crowded: usize,
    namer: Namer,
}

impl Definitions {
    /// Makes an empty set of definitions.
    pub(super) fn new(namer: Namer) -> Self {
        Self { namer, ..Self::default() }
    }

    /// Returns a definition with its name. Equal definitions share one allocation. Different definitions never share a
    /// name: if their hashes collide, the later one gets another name.
    pub(super) fn share(&mut self, definition: Definition) -> NamedDefinition {
        if self.known.len() > self.crowded {
            self.known.retain(|_, held| held.strong_count() > 0);
            self.crowded = 2 * self.known.len() + 64;
        }
        let mut attempt = 0;
        loop {
            let id = definition.id(self.namer, attempt);
            match self.known.get(&id).and_then(Weak::upgrade) {
                Some(known) if *known == definition => return (id, known),
                Some(_) => attempt += 1,
                None => {
                    let definition = Arc::new(definition);
                    self.known.insert(id, Arc::downgrade(&definition));
                    return (id, definition);
                }
            }
        }
    }
}
