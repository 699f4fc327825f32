//! Interning of equal values: the pods of a workload have the same labels, ports and names, and a cluster has many
//! pods.

use std::{
    borrow::Borrow,
    collections::HashMap,
    fmt,
    hash::{BuildHasher, Hash, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use crate::{
    ContainerPort, Labels, Name, NamespaceMatch, Peer, Pod, Policy, PortMatch, Rule, Selector,
    labels::{Requirement, Test},
    rules::PodMatch,
};

/// Shares one allocation between equal values. It keeps none of them alive: a value is forgotten when its last user
/// drops it.
///
/// A handle: clones share their pools. Sources that read objects for a [`crate::Compiler`] can intern with the
/// compiler's own interner ([`crate::Compiler::interner`]), so that a known text is never allocated. The compiler
/// interns whatever comes from elsewhere.
#[derive(Clone, Debug, Default)]
pub struct Interner(Arc<Mutex<Pools>>);

#[derive(Debug, Default)]
struct Pools {
    names: Pool<Name>,
    labels: Pool<Labels>,
    ports: Pool<Arc<[ContainerPort]>>,
    selectors: Pool<Selector>,
}

impl Interner {
    /// Returns the shared form of a name, a label key or a label value. Doesn't allocate if it is known.
    #[must_use]
    pub fn name(&self, text: &str) -> Name {
        self.pools().names.text(text)
    }

    /// Returns the shared form of the labels with these pairs. Later pairs override earlier ones with the same key.
    #[must_use]
    pub fn labels<'a>(&self, pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Labels {
        let mut pools = self.pools();
        let names = &mut pools.names;
        let labels: Labels =
            pairs.into_iter().map(|(key, value)| (names.text(key), names.text(value))).collect();
        pools.labels.get(labels)
    }

    /// Returns the shared form of a list of container ports.
    #[must_use]
    pub fn ports(&self, ports: &[ContainerPort]) -> Arc<[ContainerPort]> {
        self.pools().ports(ports)
    }

    /// Returns the same pod with everything shared except its name and addresses.
    #[must_use]
    pub fn pod(&self, mut pod: Pod) -> Pod {
        let mut pools = self.pools();
        pod.addresses.shrink_to_fit();
        pod.key.namespace = pools.names.get(pod.key.namespace);
        pod.node = pod.node.map(|name| pools.names.get(name));
        pod.labels = pools.labels(&pod.labels);
        pod.ports = pools.ports(&pod.ports);
        pod.workload = pod.workload.map(|mut workload| {
            workload.kind = pools.names.get(workload.kind);
            workload.name = pools.names.get(workload.name);
            workload
        });
        pod
    }

    /// Returns the same policy with its selectors and all names but its own shared. A policy that others hold is
    /// returned as it is: a copy would cost more memory than sharing saves.
    #[must_use]
    pub fn policy(&self, mut policy: Arc<Policy>) -> Arc<Policy> {
        if let Some(policy) = Arc::get_mut(&mut policy) {
            let mut pools = self.pools();
            pools.share(&mut policy.key.kind);
            pools.share(&mut policy.key.namespace);
            pools.pod_match(&mut policy.subject);
            for rule in policy.ingress.iter_mut().chain(&mut policy.egress).flatten() {
                pools.rule(rule);
            }
        }
        policy
    }

    /// After a panic of another thread, at worst some values are not shared.
    fn pools(&self) -> MutexGuard<'_, Pools> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pools {
    fn share(&mut self, name: &mut Name) {
        *name = self.names.get(name.clone());
    }

    fn labels(&mut self, labels: &Labels) -> Labels {
        if let Some(known) = self.labels.known(labels) {
            return known;
        }
        let pairs = labels.iter().map(|(key, value)| (key.clone(), value.clone()));
        let shared: Labels = pairs.map(|(k, v)| (self.names.get(k), self.names.get(v))).collect();
        self.labels.get(shared)
    }

    fn ports(&mut self, ports: &[ContainerPort]) -> Arc<[ContainerPort]> {
        if let Some(known) = self.ports.known(ports) {
            return known;
        }
        let share = |port: &ContainerPort| ContainerPort {
            name: port.name.clone().map(|name| self.names.get(name)),
            ..*port
        };
        let shared = ports.iter().map(share).collect();
        self.ports.get(shared)
    }

    fn selector(&mut self, selector: &mut Selector) {
        *selector = match self.selectors.known(selector) {
            Some(known) => known,
            None => {
                let shared = Selector::new(selector.requirements().iter().map(|r| self.requirement(r)));
                self.selectors.get(shared)
            }
        };
    }

    fn requirement(&mut self, requirement: &Requirement) -> Requirement {
        let mut all = |values: &std::collections::BTreeSet<Name>| {
            values.iter().map(|value| self.names.get(value.clone())).collect()
        };
        let test = match &requirement.test {
            Test::In(values) => Test::In(all(values)),
            Test::NotIn(values) => Test::NotIn(all(values)),
            Test::Exists => Test::Exists,
            Test::DoesNotExist => Test::DoesNotExist,
        };
        Requirement { key: self.names.get(requirement.key.clone()), test }
    }

    fn pod_match(&mut self, choice: &mut PodMatch) {
        match &mut choice.namespaces {
            NamespaceMatch::Named(name) => self.share(name),
            NamespaceMatch::Selected(selector) => self.selector(selector),
        }
        self.selector(&mut choice.pods);
    }

    fn rule(&mut self, rule: &mut Rule) {
        for entry in rule.peers.iter_mut().flatten() {
            match &mut entry.peer {
                Peer::Pods(choice) => self.pod_match(choice),
                Peer::Nodes(selector) => self.selector(selector),
                Peer::Block(_) | Peer::DomainName(_) => {}
            }
        }
        for entry in rule.ports.iter_mut().flatten() {
            if let PortMatch::Named { name, .. } = &mut entry.port {
                self.share(name);
            }
        }
        // These vectors never grow again.
        rule.peers.iter_mut().for_each(Vec::shrink_to_fit);
        rule.ports.iter_mut().for_each(Vec::shrink_to_fit);
    }
}

/// A shared value that can be found again while someone holds it.
trait Shared: Clone + Eq + Hash {
    type Weak;

    fn downgrade(&self) -> Self::Weak;
    fn upgrade(weak: &Self::Weak) -> Option<Self>;
}

impl<T: ?Sized + Eq + Hash> Shared for Arc<T> {
    type Weak = Weak<T>;

    fn downgrade(&self) -> Weak<T> {
        Self::downgrade(self)
    }

    fn upgrade(weak: &Weak<T>) -> Option<Self> {
        weak.upgrade()
    }
}

/// For types that wrap an [`Arc`].
macro_rules! shared {
    ($type:ty, $item:ty) => {
        impl Shared for $type {
            type Weak = Weak<[$item]>;

            fn downgrade(&self) -> Self::Weak {
                Arc::downgrade(self.shared())
            }

            fn upgrade(weak: &Self::Weak) -> Option<Self> {
                weak.upgrade().map(Self::from_shared)
            }
        }
    };
}
shared!(Labels, (Name, Name));
shared!(Selector, Requirement);

/// The known values. It holds weak references only, so that two pools with the same value don't keep it alive for each
/// other.
struct Pool<T: Shared> {
    hasher: RandomState,
    /// By hash. Of two values with one hash the later one is known; the other is no longer shared.
    seen: HashMap<u64, T::Weak>,
    /// The number of values at which those without users are dropped: twice the number after the last sweep, so that
    /// sweeping costs a constant per value.
    sweep_at: usize,
}

impl<T: Shared> Default for Pool<T> {
    fn default() -> Self {
        Self { hasher: RandomState::new(), seen: HashMap::new(), sweep_at: 64 }
    }
}

impl<T: Shared> fmt::Debug for Pool<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} values", self.seen.len())
    }
}

impl<T: Shared> Pool<T> {
    fn known<Q: ?Sized + Eq + Hash>(&self, value: &Q) -> Option<T>
    where
        T: Borrow<Q>,
    {
        let weak = self.seen.get(&self.hasher.hash_one(value))?;
        T::upgrade(weak).filter(|known| known.borrow() == value)
    }

    fn get(&mut self, value: T) -> T {
        self.known(&value).unwrap_or_else(|| self.insert(value))
    }

    fn insert(&mut self, value: T) -> T {
        if self.seen.len() >= self.sweep_at {
            self.seen.retain(|_, weak| T::upgrade(weak).is_some());
            self.sweep_at = 2 * self.seen.len().max(32);
        }
        self.seen.insert(self.hasher.hash_one(&value), value.downgrade());
        value
    }
}

impl Pool<Name> {
    fn text(&mut self, text: &str) -> Name {
        self.known(text).unwrap_or_else(|| self.insert(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_share_and_those_without_holders_go() {
        let interner = Interner::default();
        let held: Vec<Name> = (0..40).map(|i| interner.name(&format!("kept-{i}"))).collect();
        for i in 0..1000 {
            drop(interner.name(&format!("passing-{i}")));
        }
        assert!(interner.pools().names.seen.len() < 200);
        assert!(held.iter().all(|name| Arc::ptr_eq(name, &interner.clone().name(name))));
    }
}
