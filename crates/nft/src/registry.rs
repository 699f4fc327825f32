//! Which chains and sets exist, and how many refer to each. Pure.

use std::{collections::HashMap, sync::Arc};

use palisade_policy::Name;

use crate::ruleset::{Chain, Content, Set};

/// An object and the number of its users.
#[derive(Clone, Debug)]
struct Held<T> {
    object: Arc<T>,
    users: u32,
}

/// All chains and sets that the dispatch maps need. An object lives as long as something refers to it.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    chains: HashMap<Name, Held<Chain>>,
    sets: HashMap<Name, Held<Set>>,
}

/// What a change of the dispatch maps makes and unmakes; also how to take it back.
#[derive(Debug, Default)]
pub(crate) struct Edit {
    /// New sets.
    pub(crate) sets_made: Vec<Arc<Set>>,
    /// New chains, those that others go to first.
    pub(crate) chains_made: Vec<Arc<Chain>>,
    /// Sets that nothing looks into any more.
    pub(crate) sets_gone: Vec<Arc<Set>>,
    /// Chains that nothing goes to any more, those that go to others first.
    pub(crate) chains_gone: Vec<Arc<Chain>>,
    retained: Vec<Arc<Chain>>,
    released: Vec<Arc<Chain>>,
}

impl Registry {
    /// One more local address leads to `chain`. Retain before you release, lest shared objects come and go.
    pub(crate) fn retain(&mut self, chain: &Arc<Chain>, edit: &mut Edit) {
        edit.retained.push(chain.clone());
        self.retain_chain(chain, edit);
    }

    /// One local address less leads to the chain with this name.
    pub(crate) fn release(&mut self, name: &str, edit: &mut Edit) {
        if let Some(held) = self.chains.get(name) {
            let chain = held.object.clone();
            edit.released.push(chain.clone());
            self.release_chain(&chain, edit);
        }
    }

    /// Undoes an edit.
    pub(crate) fn undo(&mut self, edit: Edit) {
        let mut unused = Edit::default();
        for chain in edit.released {
            self.retain_chain(&chain, &mut unused);
        }
        for chain in edit.retained {
            self.release_chain(&chain, &mut unused);
        }
    }

    /// The set with this name.
    pub(crate) fn set(&self, name: &str) -> Option<&Arc<Set>> {
        self.sets.get(name).map(|held| &held.object)
    }

    /// All sets.
    pub(crate) fn sets(&self) -> impl Iterator<Item = &Arc<Set>> {
        self.sets.values().map(|held| &held.object)
    }

    /// All chains.
    pub(crate) fn chains(&self) -> impl Iterator<Item = &Arc<Chain>> {
        self.chains.values().map(|held| &held.object)
    }

    /// Sets of members, of several groups each.
    pub(crate) fn unions(&self) -> impl Iterator<Item = &Arc<Set>> {
        self.sets()
            .filter(|set| matches!(&set.content, Content::Groups(ids, _) if ids.len() > 1 && !set.intervals))
    }

    fn retain_chain(&mut self, chain: &Arc<Chain>, edit: &mut Edit) {
        if let Some(held) = self.chains.get_mut(&chain.name) {
            held.users += 1;
            return;
        }
        for sub in &chain.chains {
            self.retain_chain(sub, edit);
        }
        for set in &chain.sets {
            match self.sets.get_mut(&set.name) {
                Some(held) => held.users += 1,
                None => {
                    self.sets.insert(set.name.clone(), Held { object: set.clone(), users: 1 });
                    edit.sets_made.push(set.clone());
                }
            }
        }
        self.chains.insert(chain.name.clone(), Held { object: chain.clone(), users: 1 });
        edit.chains_made.push(chain.clone());
    }

    fn release_chain(&mut self, chain: &Arc<Chain>, edit: &mut Edit) {
        let Some(held) = self.chains.get_mut(&chain.name) else { return };
        held.users -= 1;
        if held.users > 0 {
            return;
        }
        self.chains.remove(&chain.name);
        edit.chains_gone.push(chain.clone());
        for set in &chain.sets {
            let Some(held) = self.sets.get_mut(&set.name) else { continue };
            held.users -= 1;
            if held.users == 0 {
                self.sets.remove(&set.name);
                edit.sets_gone.push(set.clone());
            }
        }
        for sub in &chain.chains {
            self.release_chain(sub, edit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(name: &str, chains: &[&Arc<Chain>]) -> Arc<Chain> {
        Arc::new(Chain {
            name: name.into(),
            hook: None,
            comment: None,
            rules: Vec::new(),
            chains: chains.iter().map(|c| (*c).clone()).collect(),
            sets: Vec::new(),
        })
    }

    fn names(chains: &[Arc<Chain>]) -> Vec<&str> {
        chains.iter().map(|c| &*c.name).collect()
    }

    #[test]
    fn shared_chains_outlive_one_user_and_edits_can_be_undone() {
        let row = chain("row", &[]);
        let (a, b) = (chain("a", &[&row, &row]), chain("b", &[&row]));
        let mut registry = Registry::default();
        let mut edit = Edit::default();
        registry.retain(&a, &mut edit);
        assert_eq!(names(&edit.chains_made), ["row", "a"]);
        let mut edit = Edit::default();
        registry.retain(&b, &mut edit);
        registry.release("a", &mut edit);
        assert_eq!((names(&edit.chains_made), names(&edit.chains_gone)), (vec!["b"], vec!["a"]));
        registry.undo(edit);
        let mut edit = Edit::default();
        registry.release("a", &mut edit);
        assert_eq!(names(&edit.chains_gone), ["a", "row"]);
        assert_eq!(registry.chains().count(), 0);
    }
}
