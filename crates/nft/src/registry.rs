//! Which chains and sets exist, and how many refer to each. Pure.
//!
//! Chains and sets are named by hashes of what they say. An equal name alone makes nothing equal: what is retained
//! under a name that is in use is compared with what has it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use palisade_policy::Name;

use crate::{
    PlanError,
    ruleset::{Chain, Content, Set},
};

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
    /// Chains that were compared with those in use, by where they are in memory.
    compared: HashMap<*const Chain, Arc<Chain>>,
    released: Vec<Arc<Chain>>,
}

/// What the chain that is retained needs, by name.
#[derive(Default)]
struct Fresh<'c> {
    chains: HashMap<&'c str, &'c Arc<Chain>>,
    sets: HashMap<&'c str, &'c Arc<Set>>,
}

impl Registry {
    /// One more local address leads to `chain`. Retain before you release, lest shared objects come and go.
    ///
    /// # Errors
    /// If its name, or that of a chain or set that it needs, is taken by one that says something else. Nothing has
    /// changed then.
    pub(crate) fn retain(&mut self, chain: &Arc<Chain>, edit: &mut Edit) -> Result<(), PlanError> {
        self.check(chain, edit)?;
        edit.retained.push(chain.clone());
        self.retain_chain(chain, edit);
        Ok(())
    }

    /// Whether what has the names of `chain` and of all that it needs says the same. `O(chain)` the first time that an
    /// edit asks.
    ///
    /// # Errors
    /// If not.
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

    /// Compares a chain and all that it needs with what has their names: in use, or in the chain itself.
    /// `O(chain)` the first time.
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
        // Comments decide nothing.
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
        assert_eq!(names(&edit.chains_made), ["row", "a"]);
        let mut edit = Edit::default();
        registry.retain(&b, &mut edit).unwrap();
        registry.release("a", &mut edit);
        assert_eq!((names(&edit.chains_made), names(&edit.chains_gone)), (vec!["b"], vec!["a"]));
        registry.undo(edit);
        let mut edit = Edit::default();
        registry.release("a", &mut edit);
        assert_eq!(names(&edit.chains_gone), ["a", "row"]);
        assert_eq!(registry.chains().count(), 0);
    }

    fn saying(name: &str, rule: Expression, sets: &[&Arc<Set>], chains: &[&Arc<Chain>]) -> Arc<Chain> {
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
    fn contents_that_hash_alike_are_refused_and_what_is_in_use_stays() {
        let drop = || Expression::Then(Outcome::Drop);
        let pass = || Expression::Then(Outcome::Return);
        let refused = |kind, name: &str| Err(PlanError::NameTaken { kind, name: name.into() });
        let (narrow, wide) = (saying("row", drop(), &[], &[]), saying("row", pass(), &[], &[]));
        let (http, ssh) = (ports("ports", 80), ports("ports", 22));
        let users = |registry: &Registry| {
            let mut all: Vec<_> =
                registry.chains.values().map(|h| (h.object.name.clone(), h.users)).collect();
            all.sort();
            (all, registry.sets.len())
        };

        let mut registry = Registry::default();
        let mut edit = Edit::default();
        registry.retain(&saying("a", drop(), &[&http], &[&narrow]), &mut edit).unwrap();
        let before = users(&registry);
        for (clash, why) in [
            (wide.clone(), refused("chain", "row")),
            (saying("b", drop(), &[], &[&wide]), refused("chain", "row")),
            (saying("b", drop(), &[&ssh], &[]), refused("set", "ports")),
            // Within one chain, and new both.
            (
                saying("b", drop(), &[], &[&saying("c", drop(), &[], &[]), &saying("c", pass(), &[], &[])]),
                refused("chain", "c"),
            ),
        ] {
            let mut edit = Edit::default();
            assert_eq!(registry.retain(&clash, &mut edit), why);
            assert_eq!(registry.retain(&clash, &mut edit), why, "asked again");
            registry.undo(edit);
            assert_eq!(users(&registry), before);
        }
        // The same content from another layout is the same chain.
        registry
            .retain(
                &saying("b", drop(), &[&ports("ports", 80)], &[&saying("row", drop(), &[], &[])]),
                &mut edit,
            )
            .unwrap();
        assert_eq!(registry.sets().count(), 1);
    }
}
