//! The pods of a cluster, stored compactly: a node may have to hold 150,000 of them.

use std::{
    borrow::Borrow,
    cmp::Ordering,
    collections::{BTreeSet, btree_set},
    fmt,
    iter::FusedIterator,
    ops::Index,
    sync::Arc,
};

use crate::{ObjectKey, Pod};

/// Pods, sorted by namespace and name. A key occurs once.
///
/// The interface is that of a map from [`ObjectKey`] to [`Pod`] whose keys are the pods' own. Each pod is one shared
/// allocation, and the set holds one pointer per pod. A map of whole values would waste about as much memory as the
/// pods need, since the nodes of its tree are half empty.
#[derive(Clone, Default)]
pub struct Pods(BTreeSet<ByKey>);

/// A pod that is ordered by its key.
#[derive(Clone)]
struct ByKey(Arc<Pod>);

impl Borrow<ObjectKey> for ByKey {
    fn borrow(&self) -> &ObjectKey {
        &self.0.key
    }
}

impl Ord for ByKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.key.cmp(&other.0.key)
    }
}

impl PartialOrd for ByKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Consistent with the order, on which the set relies. [`Pods::eq`] compares whole pods.
impl PartialEq for ByKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.key == other.0.key
    }
}

impl Eq for ByKey {}

impl Pods {
    /// Returns the number of pods.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are no pods.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the pod with this key. `O(log pods)`, as are all functions that take a key.
    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> Option<&Pod> {
        self.get_shared(key).map(|pod| &**pod)
    }

    /// Returns a shared reference to the pod with this key, which stays valid after later changes.
    #[must_use]
    pub fn get_shared(&self, key: &ObjectKey) -> Option<&Arc<Pod>> {
        self.0.get(key).map(|pod| &pod.0)
    }

    /// Returns whether there is a pod with this key.
    #[must_use]
    pub fn contains_key(&self, key: &ObjectKey) -> bool {
        self.0.contains(key)
    }

    /// Adds a pod under its own key. Returns the pod that it replaces.
    pub fn insert(&mut self, pod: impl Into<Arc<Pod>>) -> Option<Arc<Pod>> {
        self.0.replace(ByKey(pod.into())).map(|old| old.0)
    }

    /// Removes a pod.
    pub fn remove(&mut self, key: &ObjectKey) -> Option<Arc<Pod>> {
        self.0.take(key).map(|pod| pod.0)
    }

    /// Keeps the pods for which `keep` returns true.
    pub fn retain(&mut self, mut keep: impl FnMut(&Pod) -> bool) {
        self.0.retain(|pod| keep(&pod.0));
    }

    /// Edits every pod. `O(pods)`. A pod that others hold is copied.
    pub fn edit(&mut self, mut edit: impl FnMut(&mut Pod)) {
        let edited = std::mem::take(&mut self.0).into_iter().map(|mut pod| {
            edit(Arc::make_mut(&mut pod.0));
            pod
        });
        self.0 = edited.collect();
    }

    /// Iterates over the pods of one namespace, sorted by name. `O(log pods + pods of the namespace)`.
    pub fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = &Pod> {
        // The empty name sorts first.
        let first = ObjectKey::new(namespace, "");
        self.0.range(first..).map(|pod| &*pod.0).take_while(move |p| *p.key.namespace == *namespace)
    }

    /// Iterates over the keys, sorted.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &ObjectKey> + ExactSizeIterator + Clone {
        self.0.iter().map(|pod| &pod.0.key)
    }

    /// Iterates over the pods, sorted by key.
    #[must_use]
    pub fn values(&self) -> Values<'_> {
        Values(self.0.iter())
    }

    /// Iterates over keys and pods, sorted.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&ObjectKey, &Pod)> + ExactSizeIterator + Clone {
        self.values().map(keyed)
    }

    /// Consumes the set into its pods, sorted by key. A pod that others hold is copied.
    pub fn into_values(self) -> impl Iterator<Item = Pod> {
        self.0.into_iter().map(|pod| Arc::unwrap_or_clone(pod.0))
    }
}

fn keyed(pod: &Pod) -> (&ObjectKey, &Pod) {
    (&pod.key, pod)
}

/// Two sets are equal if they hold equal pods, shared or not.
impl PartialEq for Pods {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len()
            && self.0.iter().zip(&other.0).all(|(a, b)| Arc::ptr_eq(&a.0, &b.0) || a.0 == b.0)
    }
}

impl Eq for Pods {}

impl fmt::Debug for Pods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Index<&ObjectKey> for Pods {
    type Output = Pod;

    /// # Panics
    /// If there is no such pod.
    fn index(&self, key: &ObjectKey) -> &Pod {
        self.get(key).unwrap_or_else(|| panic!("there is no pod {key}"))
    }
}

impl FromIterator<Pod> for Pods {
    fn from_iter<I: IntoIterator<Item = Pod>>(pods: I) -> Self {
        let mut out = Self::default();
        out.extend(pods);
        out
    }
}

impl Extend<Pod> for Pods {
    fn extend<I: IntoIterator<Item = Pod>>(&mut self, pods: I) {
        for pod in pods {
            self.insert(pod);
        }
    }
}

impl<'a> IntoIterator for &'a Pods {
    type Item = (&'a ObjectKey, &'a Pod);
    type IntoIter = std::iter::Map<Values<'a>, fn(&'a Pod) -> (&'a ObjectKey, &'a Pod)>;

    fn into_iter(self) -> Self::IntoIter {
        self.values().map(keyed)
    }
}

/// Iterates over the pods of [`Pods`], sorted by key.
#[derive(Clone)]
pub struct Values<'a>(btree_set::Iter<'a, ByKey>);

impl fmt::Debug for Values<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

impl<'a> Iterator for Values<'a> {
    type Item = &'a Pod;

    fn next(&mut self) -> Option<&'a Pod> {
        self.0.next().map(|pod| &*pod.0)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl DoubleEndedIterator for Values<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.0.next_back().map(|pod| &*pod.0)
    }
}

impl ExactSizeIterator for Values<'_> {}
impl FusedIterator for Values<'_> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Labels;

    fn pod(name: &str, node: &str) -> Pod {
        Pod { node: Some(node.into()), ..Pod::new(ObjectKey::new("shop", name), Labels::default(), vec![]) }
    }

    #[test]
    fn a_key_occurs_once_and_the_later_pod_counts() {
        let mut pods: Pods = [pod("b", "n1"), pod("a", "n1"), pod("b", "n2")].into_iter().collect();
        assert_eq!(pods.keys().map(|k| &*k.name).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(pods[&ObjectKey::new("shop", "b")].node.as_deref(), Some("n2"));
        assert!(pods.insert(pod("a", "n3")).is_some_and(|old| old.node.as_deref() == Some("n1")));
        assert!(pods.remove(&ObjectKey::new("shop", "a")).is_some());
        assert!(pods.remove(&ObjectKey::new("shop", "a")).is_none());
        assert_eq!(pods.len(), 1);
    }

    #[test]
    fn sets_with_the_same_keys_and_other_pods_differ() {
        let of = |node| Pods::from_iter([pod("a", node)]);
        assert_eq!(of("n1"), of("n1"));
        assert_ne!(of("n1"), of("n2"));
        assert_ne!(of("n1"), Pods::default());
    }

    #[test]
    fn an_edit_leaves_copies_alone_and_keeps_the_order() {
        let mut pods = Pods::from_iter([pod("a", "n1"), pod("b", "n1")]);
        let before = pods.clone();
        pods.edit(|pod| pod.key.name = if &*pod.key.name == "a" { "c".into() } else { "b".into() });
        assert_eq!(pods.keys().map(|k| &*k.name).collect::<Vec<_>>(), ["b", "c"]);
        assert_eq!(before.keys().map(|k| &*k.name).collect::<Vec<_>>(), ["a", "b"]);
    }
}
