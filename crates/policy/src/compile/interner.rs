//! Equal values share memory: pods of one workload carry the same labels, ports and names, and a cluster has many pods.

use std::{collections::HashSet, hash::Hash, sync::Arc};

use crate::{Change, ContainerPort, Labels, Name, Pod};

/// Values already seen. Those that nothing else holds any more are dropped now and then.
#[derive(Clone, Debug, Default)]
pub(super) struct Interner {
    names: Pool<Name>,
    labels: Pool<Labels>,
    ports: Pool<Arc<[ContainerPort]>>,
}

impl Interner {
    /// The same change, sharing what it can.
    pub(super) fn share(&mut self, change: Change) -> Change {
        match change {
            Change::SetPod(pod) => Change::SetPod(self.share_pod(pod)),
            other => other,
        }
    }

    fn share_pod(&mut self, mut pod: Pod) -> Pod {
        pod.key.namespace = self.names.get(pod.key.namespace);
        pod.node = pod.node.map(|name| self.names.get(name));
        pod.labels = self.labels.get(pod.labels);
        pod.ports = self.ports.get(pod.ports);
        if let Some(workload) = &mut pod.workload {
            workload.kind = self.names.get(workload.kind.clone());
            workload.name = self.names.get(workload.name.clone());
        }
        pod
    }
}

/// Shared values that count who holds them.
trait Shared: Clone + Eq + Hash {
    fn holders(&self) -> usize;
}

impl Shared for Labels {
    fn holders(&self) -> usize {
        Self::holders(self)
    }
}

impl<T: ?Sized + Eq + Hash> Shared for Arc<T> {
    fn holders(&self) -> usize {
        Self::strong_count(self)
    }
}

#[derive(Clone, Debug)]
struct Pool<T> {
    seen: HashSet<T>,
    /// How many values may come together before those without other holders are dropped: twice what was left by the
    /// last sweep, so that sweeping costs a constant per value.
    sweep_at: usize,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self { seen: HashSet::new(), sweep_at: 64 }
    }
}

impl<T: Shared> Pool<T> {
    fn get(&mut self, value: T) -> T {
        if let Some(known) = self.seen.get(&value) {
            return known.clone();
        }
        if self.seen.len() >= self.sweep_at {
            self.seen.retain(|value| value.holders() > 1);
            self.sweep_at = 2 * self.seen.len().max(32);
        }
        self.seen.insert(value.clone());
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_share_and_those_without_holders_go() {
        let mut pool = Pool::default();
        let held: Vec<Name> = (0..40).map(|i| pool.get(Name::from(format!("kept-{i}")))).collect();
        for i in 0..1000 {
            drop(pool.get(Name::from(format!("passing-{i}"))));
        }
        assert!(pool.seen.len() < 200, "{} values", pool.seen.len());
        assert!(held.iter().all(|name| Arc::ptr_eq(name, &pool.get(Name::from(&**name)))));
    }
}
