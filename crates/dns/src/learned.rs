//! The names and addresses that were learned, and for how long.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::IpAddr,
};

use palisade_policy::{Change, DomainName, LearnedName, Name, ObjectKey};

use crate::{
    Learnable, NotLearnable, Patterns, Seconds,
    shares::{Expiry, Shares},
};

#[cfg(test)]
mod tests;

/// How much is learned, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LearnLimits {
    /// The shortest time to live: shorter ones count as this (SEMANTICS G-20).
    pub min_ttl: Seconds,
    /// The longest time to live: longer ones count as this (RFC 8767 recommends a week at most).
    pub max_ttl: Seconds,
    /// How long an address stays after its time to live, since clients connect after they asked (G-20).
    pub grace: Seconds,
    /// The most addresses of a name. The one that expires first makes room (C37 requires 100, G-20 recommends 1000).
    pub addresses_of_name: usize,
    /// The most names. A name beyond makes room in the namespace whose pods had the most learned, if that is not its own, or else is not learned.
    pub names: usize,
    /// The most addresses of all names. One beyond makes room likewise.
    pub addresses: usize,
    /// The most names that one pod was the first to ask for: with a wildcard, a pod may ask for any number of names.
    pub names_of_pod: usize,
}

impl Default for LearnLimits {
    fn default() -> Self {
        Self {
            min_ttl: 5,
            max_ttl: 7 * 24 * 3600,
            grace: 30,
            addresses_of_name: 1_000,
            names: 10_000,
            addresses: 100_000,
            names_of_pod: 2_000,
        }
    }
}

/// What was learned from an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Whether the name has other addresses than before. If so the answer is released after the change is in the kernel.
    pub changed: bool,
    /// The addresses that were not learned, with the reason.
    pub refused: Vec<(IpAddr, NotLearnable)>,
    /// Whether a limit kept an address or the name from being learned, or an older address made room.
    pub over_limit: bool,
}

/// The learned names: pure state, changed by answers and by time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LearnedNames {
    limits: LearnLimits,
    names: BTreeMap<DomainName, Known>,
    /// What expires when.
    expiries: Shares,
    names_of_pods: BTreeMap<ObjectKey, usize>,
    /// Names whose addresses changed since the changes were last taken.
    changed: BTreeSet<DomainName>,
}

/// What is known about a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    /// The pod that was the first to ask.
    pub(crate) first: ObjectKey,
    /// When each address expires.
    pub(crate) addresses: BTreeMap<IpAddr, Seconds>,
}

impl LearnedNames {
    /// Makes an empty set.
    #[must_use]
    pub fn new(limits: LearnLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Learns the addresses of a name from an answer to `pod`. A repeated answer restarts the time (SEMANTICS C36).
    /// `O(log n)` for each address.
    pub fn learn(
        &mut self,
        name: &DomainName,
        pod: &ObjectKey,
        addresses: &[(IpAddr, u32)],
        rules: (&Patterns, &Learnable),
        now: Seconds,
    ) -> Outcome {
        let (patterns, learnable) = rules;
        let mut outcome = Outcome::default();
        if !patterns.matches(name) {
            return outcome;
        }
        self.make_room_in_name(name, addresses, learnable, &mut outcome);
        for (address, ttl) in addresses {
            if let Err(why) = learnable.check(*address) {
                outcome.refused.push((*address, why));
                continue;
            }
            let ttl = Seconds::from(*ttl).clamp(self.limits.min_ttl, self.limits.max_ttl);
            let until = now.saturating_add(ttl).saturating_add(self.limits.grace);
            self.learn_one(name, pod, *address, until, &mut outcome);
        }
        if outcome.changed {
            self.changed.insert(name.clone());
        }
        outcome
    }

    fn learn_one(
        &mut self,
        name: &DomainName,
        pod: &ObjectKey,
        address: IpAddr,
        until: Seconds,
        outcome: &mut Outcome,
    ) {
        if let Some(old) = self.names.get(name).and_then(|known| known.addresses.get(&address)).copied() {
            // An answer with a shorter time takes nothing back: the first client still uses the earlier one.
            if until > old {
                self.postpone(name, address, old, until);
            }
            return;
        }
        if !self.make_room(name, pod, outcome) {
            outcome.over_limit = true;
            return;
        }
        self.insert(name, pod, address, until);
        outcome.changed = true;
    }

    /// Makes room for the addresses of an answer among those of its name, at once: a search for each would let a zone with many addresses take the
    /// time of all. Those that expire first go, but none of the answer.
    fn make_room_in_name(
        &mut self,
        name: &DomainName,
        answered: &[(IpAddr, u32)],
        learnable: &Learnable,
        outcome: &mut Outcome,
    ) {
        let Some(known) = self.names.get(name) else { return };
        let answered: HashSet<IpAddr> = answered.iter().map(|(address, _)| *address).collect();
        if known.addresses.len() + answered.len() <= self.limits.addresses_of_name {
            return;
        }
        let is_new = |a: &&IpAddr| !known.addresses.contains_key(*a) && learnable.check(**a).is_ok();
        let wanted = known.addresses.len() + answered.iter().filter(is_new).count();
        let excess = wanted.saturating_sub(self.limits.addresses_of_name);
        let others = known.addresses.iter().filter(|(address, _)| !answered.contains(address));
        let mut oldest: Vec<(Seconds, IpAddr)> = others.map(|(address, until)| (*until, *address)).collect();
        oldest.sort_unstable();
        oldest.truncate(excess);
        outcome.over_limit |= !oldest.is_empty();
        for (until, address) in oldest {
            self.remove(name, address, until);
        }
    }

    /// Makes room for one more address of a name. Returns whether there is.
    fn make_room(&mut self, name: &DomainName, pod: &ObjectKey, outcome: &mut Outcome) -> bool {
        let Some(known) = self.names.get(name) else {
            let of_pod = self.names_of_pods.get(pod).copied().unwrap_or(0);
            return of_pod < self.limits.names_of_pod
                && self.has_room_for_name(&pod.namespace, outcome)
                && self.has_room_for_address(&pod.namespace, outcome);
        };
        let namespace = known.first.namespace.clone();
        if known.addresses.len() >= self.limits.addresses_of_name {
            let first =
                known.addresses.iter().min_by_key(|(_, until)| **until).map(|(a, until)| (*a, *until));
            if let Some((address, until)) = first {
                self.remove(name, address, until);
                outcome.over_limit = true;
            }
        }
        self.has_room_for_address(&namespace, outcome)
    }

    /// Whether there is room for a name of a pod in `namespace`. If not, the namespace with the most names makes room: otherwise pods of one could keep
    /// those of all others from learning anything.
    fn has_room_for_name(&mut self, namespace: &Name, outcome: &mut Outcome) -> bool {
        if self.names.len() < self.limits.names {
            return true;
        }
        let Some((_, name, _)) = self.expiries.to_make_room_for_name(namespace) else { return false };
        outcome.over_limit = true;
        let addresses = self.names.get(&name).map(|known| known.addresses.clone()).unwrap_or_default();
        for (address, until) in addresses {
            self.remove(&name, address, until);
        }
        self.forget_if_empty(&name);
        true
    }

    /// The same for an address.
    fn has_room_for_address(&mut self, namespace: &Name, outcome: &mut Outcome) -> bool {
        if self.expiries.addresses() < self.limits.addresses {
            return true;
        }
        let Some((until, name, address)) = self.expiries.to_make_room_for_address(namespace) else {
            return false;
        };
        outcome.over_limit = true;
        self.remove(&name, address, until);
        self.forget_if_empty(&name);
        true
    }

    fn insert(&mut self, name: &DomainName, pod: &ObjectKey, address: IpAddr, until: Seconds) {
        let known = self.names.entry(name.clone()).or_insert_with(|| {
            *self.names_of_pods.entry(pod.clone()).or_default() += 1;
            self.expiries.add_name(&pod.namespace);
            Known { first: pod.clone(), addresses: BTreeMap::new() }
        });
        known.addresses.insert(address, until);
        self.expiries.insert(&known.first.namespace, (until, name.clone(), address));
    }

    fn postpone(&mut self, name: &DomainName, address: IpAddr, old: Seconds, until: Seconds) {
        if let Some(known) = self.names.get_mut(name) {
            known.addresses.insert(address, until);
            self.expiries.remove(&known.first.namespace, &(old, name.clone(), address));
            self.expiries.insert(&known.first.namespace, (until, name.clone(), address));
        }
    }

    /// Removes an address of a name, but not the name: another address may follow.
    fn remove(&mut self, name: &DomainName, address: IpAddr, until: Seconds) {
        if let Some(known) = self.names.get_mut(name) {
            self.expiries.remove(&known.first.namespace, &(until, name.clone(), address));
            known.addresses.remove(&address);
            self.changed.insert(name.clone());
        }
    }

    fn forget_if_empty(&mut self, name: &DomainName) {
        if self.names.get(name).is_some_and(|known| known.addresses.is_empty())
            && let Some(known) = self.names.remove(name)
        {
            self.expiries.remove_name(&known.first.namespace);
            let Some(count) = self.names_of_pods.get_mut(&known.first) else { return };
            *count -= 1;
            if *count == 0 {
                self.names_of_pods.remove(&known.first);
            }
        }
    }

    /// Removes the addresses whose time is over, except those that connections use: these stay for the grace period more
    /// (SEMANTICS C36, C43). `O(log n)` for each that expires.
    pub fn expire(&mut self, now: Seconds, mut is_in_use: impl FnMut(IpAddr) -> bool) {
        // What is postponed lies behind `now`, unless the grace period is 0.
        let until = now.saturating_add(self.limits.grace.max(1));
        while let Some((expiry, name, address)) = self.expiries.first().cloned()
            && expiry <= now
        {
            if is_in_use(address) && until > now {
                self.postpone(&name, address, expiry, until);
            } else {
                self.remove(&name, address, expiry);
                self.forget_if_empty(&name);
            }
        }
    }

    /// Returns the addresses whose time is over: those of which [`LearnedNames::expire`] asks whether they are in use. `O(n)` in these.
    #[must_use]
    pub fn expiring(&self, now: Seconds) -> BTreeSet<IpAddr> {
        self.expiries.over(now).map(|(.., address)| *address).collect()
    }

    /// Removes the names that no rule has any more. `O(names)`.
    pub fn retain(&mut self, patterns: &Patterns) {
        self.remove_if(|name, _| !patterns.matches(name));
    }

    /// Removes the addresses that may no longer be learned, such as those that a pod or node has now. `O(addresses)` checks.
    pub fn retain_learnable(&mut self, learnable: &Learnable) {
        self.remove_if(|_, address| learnable.check(address).is_err());
    }

    /// Removes an address from all names. `O(names)`.
    pub fn remove_address(&mut self, address: IpAddr) {
        let has =
            |(name, known): (&DomainName, &Known)| Some((name.clone(), *known.addresses.get(&address)?));
        let gone: Vec<(DomainName, Seconds)> = self.names.iter().filter_map(has).collect();
        for (name, until) in gone {
            self.remove(&name, address, until);
            self.forget_if_empty(&name);
        }
    }

    fn remove_if(&mut self, is_gone: impl Fn(&DomainName, IpAddr) -> bool) {
        let all = self.expiries.iter();
        let gone: Vec<Expiry> = all.filter(|(_, name, address)| is_gone(name, *address)).cloned().collect();
        for (until, name, address) in gone {
            self.remove(&name, address, until);
            self.forget_if_empty(&name);
        }
    }

    /// Returns when the next address expires.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Seconds> {
        self.expiries.first().map(|(expiry, ..)| *expiry)
    }

    /// Returns what changed since the last call, for the compiler. `O(addresses of the names that changed)`.
    pub fn take_changes(&mut self) -> Vec<Change> {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().map(|name| self.change_of(name)).collect()
    }

    /// Returns whether there is something to take.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Returns all names, for a compiler that knows none. `O(addresses)`.
    #[must_use]
    pub fn all_changes(&self) -> Vec<Change> {
        self.names.keys().cloned().map(|name| self.change_of(name)).collect()
    }

    fn change_of(&self, name: DomainName) -> Change {
        match self.names.get(&name) {
            Some(known) => {
                let addresses = known.addresses.keys().copied().collect();
                Change::SetLearned(LearnedName { name, addresses })
            }
            None => Change::RemoveLearned(name),
        }
    }

    /// Returns the number of names.
    #[must_use]
    pub fn names(&self) -> usize {
        self.names.len()
    }

    /// Returns the number of addresses of all names; one that two names have counts twice.
    #[must_use]
    pub fn addresses(&self) -> usize {
        self.expiries.addresses()
    }

    /// Returns the limits.
    #[must_use]
    pub fn limits(&self) -> &LearnLimits {
        &self.limits
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&DomainName, &Known)> {
        self.names.iter()
    }

    /// Adds an address that was learned before a restart. Returns whether the limits allow it.
    pub(crate) fn restore(
        &mut self,
        name: &DomainName,
        first: &ObjectKey,
        address: IpAddr,
        until: Seconds,
    ) -> bool {
        let mut outcome = Outcome::default();
        self.learn_one(name, first, address, until, &mut outcome);
        outcome.changed && !outcome.over_limit
    }
}
