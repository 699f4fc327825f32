//! The chains and sets in use, with reference counts. Pure.
//!
//! Chains and sets are named by hashes of their content. An equal name alone proves nothing, so an object with a name
//! that is in use is compared with the object that has the name.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use palisade_policy::Name;

use crate::{
    PlanError,
    ruleset::{Chain, Content, Set},
};

/// An object and its reference count.
#[derive(Clone, Debug)]
struct Counted<T> {
    object: Arc<T>,
    users: u32,
}

/// All chains and sets that the dispatch maps need. An object exists as long as something refers to it.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    chains: HashMap<Name, Counted<Chain>>,
    sets: HashMap<Name, Counted<Set>>,
}

/// What a change of the dispatch maps creates and no longer needs, and how to undo it.
#[derive(Debug, Default)]
pub(crate) struct Edit {
    /// New sets.
    pub(crate) sets_created: Vec<Arc<Set>>,
    /// New chains, each after the chains that its rules use.
    pub(crate) chains_created: Vec<Arc<Chain>>,
    /// Sets that no rule uses any longer.
    pub(crate) sets_unused: Vec<Arc<Set>>,
    /// Chains that no rule goes to any longer, each before the chains that its rules use.
    pub(crate) chains_unused: Vec<Arc<Chain>>,
    retained: Vec<Arc<Chain>>,
    /// Chains that were compared with those in use, by their addresses in memory.
    compared: HashMap<*const Chain, Arc<Chain>>,
    released: Vec<Arc<Chain>>,
}

/// The objects that the retained chain needs, by name.
#[derive(Default)]
struct Fresh<'c> {
    chains: HashMap<&'c str, &'c Arc<Chain>>,
    sets: HashMap<&'c str, &'c Arc<Set>>,
}

impl Registry {
    /// Counts one more local address that jumps to `chain`.
    ///
    /// Callers retain before they release, so that shared objects are not deleted and created again.
    ///
    /// # Errors
    /// If the name of the chain, or of a chain or set that it needs, is taken by an object with other content. Nothing has
    /// changed then.
    pub(crate) fn retain(&mut self, chain: &Arc<Chain>, edit: &mut Edit) -> Result<(), PlanError> {
        self.check(chain, edit)?;
        edit.retained.push(chain.clone());
        self.retain_chain(chain, edit);
        Ok(())
    }

    /// Checks that the objects in use with the names of `chain`, and of all that it needs, have the same content.
    /// `O(chain)` the first time in an edit.
    ///
    /// # Errors
    /// If one has other content.
    pub(crate) fn check(&self, chain: &Arc<Chain>, edit: &mut Edit) -> Result<(), PlanError> {
        if edit.compared.insert(Arc::as_ptr(chain), Arc::clone(chain)).is_some() {
            return Ok(());
        }
        let mut compared = HashSet::new();
        let outcome = self.compare(chain, &mut Fresh::default(), &mut compared);
        if outcome.is_err() {
            edit.compared.remove(&Arc::as_ptr(chain));
        }
        outcome
    }

    /// Compares a chain and all that it needs with the objects of the same names, in use or within the chain itself.
    fn compare<'c>(
        &'c self,
        chain: &'c Arc<Chain>,
        fresh: &mut Fresh<'c>,
        compared: &mut HashSet<*const Chain>,
    ) -> Result<(), PlanError> {
        let known = self.chains.get(&chain.name).map(|held| &held.object);
        if known.is_some_and(|known| Arc::ptr_eq(known, chain)) || !compared.insert(Arc::as_ptr(chain)) {
            return Ok(());
        }
        let known = *known.or_else(|| fresh.chains.get(&*chain.name).copied()).get_or_insert(chain);
        // Comments may differ.
        if known.rules != chain.rules || known.hook != chain.hook {
            return Err(PlanError::NameTaken { kind: "chain", name: chain.name.clone() });
        }
        fresh.chains.insert(&chain.name, chain);
        for set in &chain.sets {
            let known = self.sets.get(&set.name).map(|held| &held.object);
            let known = known.or_else(|| fresh.sets.get(&*set.name).copied());
            if known.is_some_and(|known| known != set) {
                return Err(PlanError::NameTaken { kind: "set", name: set.name.clone() });
            }
            fresh.sets.insert(&set.name, set);
        }
        chain.chains.iter().try_for_each(|sub| self.compare(sub, fresh, compared))
    }

    /// Counts one local address less that jumps to the chain with this name.
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

    /// Returns the set with this name.
    pub(crate) fn set(&self, name: &str) -> Option<&Arc<Set>> {
        self.sets.get(name).map(|held| &held.object)
    }

    /// Returns all sets.
    pub(crate) fn sets(&self) -> impl Iterator<Item = &Arc<Set>> {
        self.sets.values().map(|held| &held.object)
    }

    /// Returns all chains.
    pub(crate) fn chains(&self) -> impl Iterator<Item = &Arc<Chain>> {
        self.chains.values().map(|held| &held.object)
    }

    /// Returns the sets that hold the members of several peer sets.
    pub(crate) fn unions(&self) -> impl Iterator<Item = &Arc<Set>> {
        self.sets().filter(
            |set| matches!(&set.content, Content::PeerSets(ids, _) if ids.len() > 1 && !set.intervals),
        )
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
                    self.sets.insert(set.name.clone(), Counted { object: set.clone(), users: 1 });
                    edit.sets_created.push(set.clone());
                }
            }
        }
        self.chains.insert(chain.name.clone(), Counted { object: chain.clone(), users: 1 });
        edit.chains_created.push(chain.clone());
    }

    fn release_chain(&mut self, chain: &Arc<Chain>, edit: &mut Edit) {
        let Some(held) = self.chains.get_mut(&chain.name) else { return };
        held.users -= 1;
        if held.users > 0 {
            return;
        }
        self.chains.remove(&chain.name);
        edit.chains_unused.push(chain.clone());
        for set in &chain.sets {
            let Some(held) = self.sets.get_mut(&set.name) else { continue };
            held.users -= 1;
            if held.users == 0 {
                self.sets.remove(&set.name);
                edit.sets_unused.push(set.clone());
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
    use crate::ruleset::{Expression, Outcome};

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
        registry.retain(&a, &mut edit).unwrap();
        assert_eq!(names(&edit.chains_created), ["row", "a"]);
        let mut edit = Edit::default();
        registry.retain(&b, &mut edit).unwrap();
        registry.release("a", &mut edit);
        assert_eq!((names(&edit.chains_created), names(&edit.chains_unused)), (vec!["b"], vec!["a"]));
        registry.undo(edit);
        let mut edit = Edit::default();
        registry.release("a", &mut edit);
        assert_eq!(names(&edit.chains_unused), ["a", "row"]);
        assert_eq!(registry.chains().count(), 0);
    }

    fn with_rule(name: &str, rule: Expression, sets: &[&Arc<Set>], chains: &[&Arc<Chain>]) -> Arc<Chain> {
        Arc::new(Chain {
            rules: vec![vec![rule]],
            sets: sets.iter().map(|set| (*set).clone()).collect(),
            ..(*chain(name, chains)).clone()
        })
    }

    fn ports(name: &str, first: u16) -> Arc<Set> {
        Arc::new(Set {
            name: name.into(),
            key: crate::ruleset::Key::Port,
            intervals: true,
            verdicts: false,
            content: Content::Ports(vec![(first, first)]),
        })
    }

    #[test]
    fn hash_collisions_are_refused_and_objects_in_use_stay() {
        let drop = || Expression::Verdict(Outcome::Drop);
        let pass = || Expression::Verdict(Outcome::Return);
        let refused = |kind, name: &str| Err(PlanError::NameTaken { kind, name: name.into() });
        let (denying, allowing) = (with_rule("row", drop(), &[], &[]), with_rule("row", pass(), &[], &[]));
        let (http, ssh) = (ports("ports", 80), ports("ports", 22));
        let users = |registry: &Registry| {
            let mut all: Vec<_> =
                registry.chains.values().map(|h| (h.object.name.clone(), h.users)).collect();
            all.sort();
            (all, registry.sets.len())
        };

        let mut registry = Registry::default();
        let mut edit = Edit::default();
        registry.retain(&with_rule("a", drop(), &[&http], &[&denying]), &mut edit).unwrap();
        let before = users(&registry);
        for (clash, why) in [
            (allowing.clone(), refused("chain", "row")),
            (with_rule("b", drop(), &[], &[&allowing]), refused("chain", "row")),
            (with_rule("b", drop(), &[&ssh], &[]), refused("set", "ports")),
            // Both new, within one chain.
            (
                with_rule(
                    "b",
                    drop(),
                    &[],
                    &[&with_rule("c", drop(), &[], &[]), &with_rule("c", pass(), &[], &[])],
                ),
                refused("chain", "c"),
            ),
        ] {
            let mut edit = Edit::default();
            assert_eq!(registry.retain(&clash, &mut edit), why);
            assert_eq!(registry.retain(&clash, &mut edit), why, "second attempt");
            registry.undo(edit);
            assert_eq!(users(&registry), before);
        }
        // Equal content from another layout is the same chain.
        registry
            .retain(
                &with_rule("b", drop(), &[&ports("ports", 80)], &[&with_rule("row", drop(), &[], &[])]),
                &mut edit,
            )
            .unwrap();
        assert_eq!(registry.sets().count(), 1);
    }
}
