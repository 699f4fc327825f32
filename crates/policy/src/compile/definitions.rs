//! The definitions that are in use, each once and each under a name of its own.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use super::{definition::Definition, names::Namer};
use crate::PolicyTableId;

/// A table's content and its name.
pub(super) type NamedDefinition = (PolicyTableId, Arc<Definition>);

/// Finds the definition that a name stands for, as long as somebody holds it.
#[derive(Clone, Debug, Default)]
pub(super) struct Definitions {
    known: HashMap<PolicyTableId, Weak<Definition>>,
    /// Names beyond which those of definitions that are gone are forgotten: twice what was left the last time.
    crowded: usize,
    namer: Namer,
}

impl Definitions {
    /// None yet.
    pub(super) fn new(namer: Namer) -> Self {
        Self { namer, ..Self::default() }
    }

    /// A definition under its name. Equal definitions are one in memory; different ones never share a name: should
    /// their hashes collide, the later one gets another name.
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
