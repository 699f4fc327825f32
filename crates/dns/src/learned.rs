//! The names and addresses that were learned, and for how long.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use palisade_policy::{Change, DomainName, LearnedName, ObjectKey};

use crate::{Learnable, NotLearnable, Patterns, Seconds};

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
    /// The most names. A name beyond is not learned.
    pub names: usize,
    /// The most addresses of all names.
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
    /// What expires when: one entry for each address of each name.
    expiries: BTreeSet<(Seconds, DomainName, IpAddr)>,
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

    /// Makes room for one more address of a name. Returns whether there is.
    fn make_room(&mut self, name: &DomainName, pod: &ObjectKey, outcome: &mut Outcome) -> bool {
        let Some(known) = self.names.get(name) else {
            let of_pod = self.names_of_pods.get(pod).copied().unwrap_or(0);
            return self.names.len() < self.limits.names
                && of_pod < self.limits.names_of_pod
                && self.expiries.len() < self.limits.addresses;
        };
        if known.addresses.len() >= self.limits.addresses_of_name {
            let first =
                known.addresses.iter().min_by_key(|(_, until)| **until).map(|(a, until)| (*a, *until));
            if let Some((address, until)) = first {
                self.remove(name, address, until);
                outcome.over_limit = true;
            }
        }
        self.expiries.len() < self.limits.addresses
    }

    fn insert(&mut self, name: &DomainName, pod: &ObjectKey, address: IpAddr, until: Seconds) {
        let known = self.names.entry(name.clone()).or_insert_with(|| {
            *self.names_of_pods.entry(pod.clone()).or_default() += 1;
            Known { first: pod.clone(), addresses: BTreeMap::new() }
        });
        known.addresses.insert(address, until);
        self.expiries.insert((until, name.clone(), address));
    }

    fn postpone(&mut self, name: &DomainName, address: IpAddr, old: Seconds, until: Seconds) {
        if let Some(known) = self.names.get_mut(name) {
            known.addresses.insert(address, until);
            self.expiries.remove(&(old, name.clone(), address));
            self.expiries.insert((until, name.clone(), address));
        }
    }

    /// Removes an address of a name, but not the name: another address may follow.
    fn remove(&mut self, name: &DomainName, address: IpAddr, until: Seconds) {
        self.expiries.remove(&(until, name.clone(), address));
        if let Some(known) = self.names.get_mut(name) {
            known.addresses.remove(&address);
            self.changed.insert(name.clone());
        }
    }

    fn forget_if_empty(&mut self, name: &DomainName) {
        if self.names.get(name).is_some_and(|known| known.addresses.is_empty())
            && let Some(known) = self.names.remove(name)
            && let Some(count) = self.names_of_pods.get_mut(&known.first)
        {
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
        let over = self.expiries.iter().take_while(|(expiry, ..)| *expiry <= now);
        over.map(|(.., address)| *address).collect()
    }

    /// Removes the names that no rule has any more. `O(names)`.
    pub fn retain(&mut self, patterns: &Patterns) {
        let gone: Vec<DomainName> =
            self.names.keys().filter(|name| !patterns.matches(name)).cloned().collect();
        for name in gone {
            let addresses = self.names.get(&name).map(|known| known.addresses.clone()).unwrap_or_default();
            for (address, until) in addresses {
                self.remove(&name, address, until);
            }
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
        self.expiries.len()
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

#[cfg(test)]
mod tests {
    use palisade_policy::{Cluster, DomainPattern};
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> DomainName {
        DomainName::new(text).unwrap()
    }

    fn pod(name: &str) -> ObjectKey {
        ObjectKey::new("shop", name)
    }

    fn address(last: u8) -> IpAddr {
        [198, 51, 100, last].into()
    }

    fn patterns() -> Patterns {
        ["a.io", "*.b.io"].map(DomainPattern::new).into_iter().collect()
    }

    fn learn(learned: &mut LearnedNames, of: &str, last: &[u8], ttl: u32, now: Seconds) -> Outcome {
        let addresses: Vec<_> = last.iter().map(|last| (address(*last), ttl)).collect();
        learned.learn(&name(of), &pod("web"), &addresses, (&patterns(), &Learnable::default()), now)
    }

    /// Returns the addresses that a compiler holds after the changes.
    fn held(cluster: &mut Cluster, learned: &mut LearnedNames) -> Vec<String> {
        for change in learned.take_changes() {
            cluster.apply(change);
        }
        let all =
            cluster.learned.values().flat_map(|l| l.addresses.iter().map(|a| format!("{} {a}", l.name)));
        all.collect()
    }

    #[test]
    fn an_address_stays_for_its_time_the_grace_period_and_its_connections() {
        let (mut learned, mut cluster) = (LearnedNames::new(LearnLimits::default()), Cluster::default());
        assert!(learn(&mut learned, "a.io", &[1], 60, 1000).changed);
        assert!(learn(&mut learned, "x.b.io", &[2], 0, 1000).changed, "a wildcard has the name");
        assert!(!learn(&mut learned, "b.io", &[3], 60, 1000).changed, "no rule has the name");
        assert_eq!(held(&mut cluster, &mut learned), ["a.io 198.51.100.1", "x.b.io 198.51.100.2"]);
        // The shortest time to live is 5 s, and the grace period 30 s.
        assert_eq!(learned.next_expiry(), Some(1035));
        learned.expire(1034, |_| false);
        assert!(learned.take_changes().is_empty());
        learned.expire(1035, |_| false);
        assert_eq!(held(&mut cluster, &mut learned), ["a.io 198.51.100.1"]);
        assert!(!learn(&mut learned, "a.io", &[1], 60, 1080).changed, "only its time restarts");
        learned.expire(1100, |_| false);
        assert_eq!(learned.names(), 1);
        learned.expire(1170, |used| used == address(1));
        assert_eq!((learned.names(), learned.next_expiry()), (1, Some(1200)));
        learned.expire(1200, |_| false);
        assert!(held(&mut cluster, &mut learned).is_empty());
        assert_eq!(learned, LearnedNames::new(LearnLimits::default()), "nothing is left over");
    }

    #[test]
    fn addresses_within_the_cluster_are_refused_and_the_others_learned() {
        let mut learned = LearnedNames::new(LearnLimits::default());
        let private: IpAddr = [10, 0, 0, 1].into();
        let rules = (&patterns(), &Learnable::default());
        let outcome = learned.learn(&name("a.io"), &pod("web"), &[(private, 9), (address(1), 9)], rules, 0);
        assert_eq!(outcome.refused, [(private, NotLearnable::Private)]);
        assert!(outcome.changed && learned.addresses() == 1);
    }

    #[test]
    fn every_number_is_bounded_and_an_older_address_makes_room() {
        let limits = LearnLimits {
            addresses_of_name: 2,
            names: 3,
            addresses: 5,
            names_of_pod: 2,
            ..LearnLimits::default()
        };
        let mut learned = LearnedNames::new(limits);
        learn(&mut learned, "a.io", &[1], 10, 0);
        let outcome = learn(&mut learned, "a.io", &[2, 3], 60, 0);
        assert!(outcome.changed && outcome.over_limit);
        let mut cluster = Cluster::default();
        assert_eq!(held(&mut cluster, &mut learned), ["a.io 198.51.100.2", "a.io 198.51.100.3"]);
        assert!(learn(&mut learned, "1.b.io", &[1], 60, 0).changed);
        let outcome = learn(&mut learned, "2.b.io", &[1], 60, 0);
        assert_eq!((outcome.changed, outcome.over_limit), (false, true), "a third name of the pod");
        let rules = (&patterns(), &Learnable::default());
        let mut other =
            |of: &str, last| learned.learn(&name(of), &pod("db"), &[(address(last), 60)], rules, 0).changed;
        assert!(other("3.b.io", 1) && !other("4.b.io", 1), "a fourth name");
        assert!(other("3.b.io", 2) && !other("1.b.io", 2), "a sixth address");
        assert_eq!((learned.names(), learned.addresses()), (3, 5));
    }

    #[test]
    fn names_that_rules_no_longer_have_are_forgotten() {
        let (mut learned, mut cluster) = (LearnedNames::new(LearnLimits::default()), Cluster::default());
        learn(&mut learned, "a.io", &[1], 60, 0);
        learn(&mut learned, "x.b.io", &[2], 60, 0);
        held(&mut cluster, &mut learned);
        learned.retain(&[DomainPattern::new("*.b.io")].into_iter().collect());
        assert_eq!(held(&mut cluster, &mut learned), ["x.b.io 198.51.100.2"]);
        learned.retain(&Patterns::default());
        assert!(held(&mut cluster, &mut learned).is_empty());
        assert_eq!(learned, LearnedNames::new(LearnLimits::default()));
    }

    proptest! {
        /// However answers and time mix, the changes lead to what is known, the bounds hold, and nothing is left over.
        #[test]
        fn changes_lead_to_what_is_known(
            steps in prop::collection::vec((0u8..4, 0u8..6, 0u32..90, 0u64..40, any::<bool>()), 0..60),
        ) {
            let limits = LearnLimits { addresses_of_name: 3, names: 3, addresses: 7, ..LearnLimits::default() };
            let (mut learned, mut cluster) = (LearnedNames::new(limits), Cluster::default());
            let mut now = 0;
            for (host, last, ttl, pause, expire) in steps {
                learn(&mut learned, &format!("{host}.b.io"), &[last, last + 1], ttl, now);
                now += pause;
                if expire {
                    learned.expire(now, |used| used == address(2));
                    prop_assert!(learned.next_expiry().is_none_or(|next| next > now));
                }
                for change in learned.take_changes() {
                    cluster.apply(change);
                }
                let mut fresh = Cluster::default();
                learned.all_changes().into_iter().for_each(|change| fresh.apply(change));
                prop_assert_eq!(&cluster, &fresh);
                let addresses: usize = cluster.learned.values().map(|l| l.addresses.len()).sum();
                prop_assert_eq!((learned.names(), learned.addresses()), (cluster.learned.len(), addresses));
                prop_assert!(learned.names() <= 3 && learned.addresses() <= 7);
                prop_assert!(cluster.learned.values().all(|l| (1..=3).contains(&l.addresses.len())));
            }
            learned.expire(now + 1_000, |_| false);
            learned.take_changes();
            prop_assert_eq!(learned, LearnedNames::new(limits));
        }
    }
}
