//! The compiler: the same meaning as [`crate::reference`], as tables, incrementally.
//!
//! One compiler serves one node. It keeps the cluster, and the [`NodePlan`] that the node's kernel must hold for it;
//! [`Compiler::apply`] performs one change on both and returns the difference.
//!
//! The law, held by property tests: after any sequence of changes, in any order, the plan equals the plan compiled from
//! the resulting cluster from scratch, and the deltas applied one by one to the first plan give the last.
//!
//! How it works, from the pod outwards:
//! * `subjects`: which policies select each local pod; pods selected alike share a profile, and with it a table.
//! * `definition`: what a table says, independent of who the peers are: rules in order, named ports of the subject
//!   resolved. Its hash is the table's name (`names`, `definitions`).
//! * `ranges`: the table's rows for addresses that are no pods, cut where CIDRs begin and end.
//! * `classes`: addresses of pods and nodes that no table of this node can tell apart.
//! * `selections`: what rules select by labels, and which classes that holds.
//! * `tables`: for each table, which classes differ from what the ranges say, grouped by row.
//! * `budget`, `accounts`: what tenants may ask of the node; a table beyond it allows nothing.
//! * `recorder`: edits the plan and remembers what it was, so that a delta carries only what differs.
//!
//! A new pod of a known class costs one insertion per group that holds the class, whatever the number of policies.

mod accounts;
mod addresses;
mod budget;
mod classes;
mod coverage;
mod definition;
mod definitions;
mod effective;
mod names;
mod ranges;
mod recorder;
mod selections;
mod subjects;
mod tables;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use crate::{
    Change, Cluster, Delta, Direction, Interner, Name, Namespace, Node, NodePlan, ObjectKey, Pod, Policy,
    PolicyKey,
};

use self::{
    addresses::AddressBook,
    classes::{Classes, KnownClasses},
    names::Namer,
    recorder::Recorder,
    subjects::Subjects,
    tables::Tables,
};
pub use self::{
    budget::{Budget, Limit},
    effective::EffectiveRules,
};

/// Compiles the plan of one node and keeps it current. See the module documentation.
#[derive(Clone, Debug)]
pub struct Compiler {
    node: Name,
    cluster: Cluster,
    interner: Interner,
    book: AddressBook,
    subjects: Subjects,
    classes: Classes,
    tables: Tables,
    plan: NodePlan,
}

/// A local address that policies isolate and that may use nothing in one direction, because its policies ask for more
/// than [`Budget`] allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverBudget {
    /// The direction.
    pub direction: Direction,
    /// The address.
    pub address: IpAddr,
    /// The pod that owns it.
    pub pod: ObjectKey,
    /// The bound.
    pub limit: Limit,
    /// The largest of the policies that select the pod in this direction: the one to make smaller. Of equal ones the
    /// first by name.
    pub largest: Option<PolicyKey>,
}

/// What the changes of one call touched, settled once at its end.
#[derive(Default)]
struct Dirty {
    addresses: BTreeSet<IpAddr>,
    /// Local pods whose selecting policies may have changed.
    subjects: BTreeSet<ObjectKey>,
    /// Policies whose content changed: profiles made of them are stale.
    policies: BTreeSet<PolicyKey>,
    /// Namespaces whose labels changed: classes in them match other selectors.
    namespaces: BTreeSet<Name>,
}

impl Compiler {
    /// A compiler for the node with this name, in an empty cluster: an empty plan.
    #[must_use]
    pub fn new(node: Name) -> Self {
        Self::with_budget(node, Budget::default())
    }

    /// The same with other bounds for what tenants may ask.
    #[must_use]
    pub fn with_budget(node: Name, budget: Budget) -> Self {
        Self::with(node, budget, Namer::default())
    }

    /// For tests of colliding names: names of tables and peer sets differ in no more than `bits` bits (at most 8) at the
    /// first attempt.
    #[doc(hidden)]
    #[must_use]
    pub fn with_short_names(node: Name, bits: u8) -> Self {
        Self::with(node, Budget::default(), Namer { bits: Some(bits) })
    }

    fn with(node: Name, budget: Budget, namer: Namer) -> Self {
        Self {
            node,
            cluster: Cluster::default(),
            interner: Interner::default(),
            book: AddressBook::default(),
            subjects: Subjects::new(budget, namer),
            classes: Classes::default(),
            tables: Tables::new(budget, namer),
            plan: NodePlan::default(),
        }
    }

    /// A compiler that has seen this cluster.
    #[must_use]
    pub fn from_cluster(node: Name, cluster: &Cluster) -> Self {
        let mut compiler = Self::new(node);
        compiler.apply_all(Cluster::default().changes_to(cluster));
        compiler
    }

    /// The node that it compiles for.
    #[must_use]
    pub fn node(&self) -> &Name {
        &self.node
    }

    /// The cluster as it is now.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// What the node's kernel must hold now.
    #[must_use]
    pub fn plan(&self) -> &NodePlan {
        &self.plan
    }

    /// Performs one change and returns what it changes in the plan.
    pub fn apply(&mut self, change: Change) -> Delta {
        self.apply_all([change])
    }

    /// Performs several changes as one and returns what they change together.
    pub fn apply_all(&mut self, changes: impl IntoIterator<Item = Change>) -> Delta {
        let mut dirty = Dirty::default();
        for change in changes {
            self.perform(change, &mut dirty);
        }
        self.settle(dirty)
    }

    /// What gives equal values one place in memory here. Sources that read objects for this compiler intern with it.
    #[must_use]
    pub fn interner(&self) -> &Interner {
        &self.interner
    }

    /// The owner of an address among the live pods (G-10). `O(log addresses)`.
    #[must_use]
    pub fn pod_at(&self, address: IpAddr) -> Option<&Pod> {
        self.book.owner(address)
    }

    /// A number that grows whenever [`Compiler::over_budget`] may say something else. `O(1)`.
    #[must_use]
    pub fn over_budget_changes(&self) -> u64 {
        self.tables.closings()
    }

    /// The local addresses whose policies are over budget, so that nothing is allowed in that direction; by direction and
    /// address. `O(1)` if there are none, else `O(local addresses + policies that select them)`: ask when
    /// [`Compiler::over_budget_changes`] has grown.
    #[must_use]
    pub fn over_budget(&self) -> Vec<OverBudget> {
        let mut out = Vec::new();
        if self.tables.closed().is_empty() {
            return out;
        }
        for (direction, dispatch) in
            [(Direction::Ingress, &self.plan.ingress), (Direction::Egress, &self.plan.egress)]
        {
            for (address, table) in dispatch {
                let (Some(limit), Some(pod)) = (self.tables.closed().get(table), self.book.owner(*address))
                else {
                    continue;
                };
                let mut policies = self.subjects.touching(direction, pod, &self.cluster);
                policies.sort_by_cached_key(|policy| Reverse(budget::policy_size(policy, direction)));
                out.push(OverBudget {
                    direction,
                    address: *address,
                    pod: pod.key.clone(),
                    limit: *limit,
                    largest: policies.first().map(|policy| policy.key.clone()),
                });
            }
        }
        out
    }

    /// Brings the indexes up to date, notes what a change may touch, and performs it on the cluster.
    fn perform(&mut self, change: Change, dirty: &mut Dirty) {
        let change = match change {
            // One pod for the cluster and the book.
            Change::SetPod(pod) => return self.set_pod(pod, dirty),
            Change::SetPolicy(policy) => Change::SetPolicy(self.interner.policy(policy)),
            other => other,
        };
        match &change {
            Change::RemovePod(key) => self.note_pod(key, None, dirty),
            Change::SetNamespace(namespace) => self.note_namespace(&namespace.name, Some(namespace), dirty),
            Change::RemoveNamespace(name) => self.note_namespace(name, None, dirty),
            Change::SetPolicy(policy) => self.note_policy(&policy.key, Some(policy), dirty),
            Change::RemovePolicy(key) => self.note_policy(key, None, dirty),
            Change::SetNode(node) => self.note_node(&node.name, Some(node), dirty),
            Change::RemoveNode(name) => self.note_node(name, None, dirty),
            // Services are translated before policies apply.
            Change::SetPod(_) | Change::SetService(_) | Change::RemoveService(_) => {}
        }
        self.cluster.apply(change);
    }

    fn set_pod(&mut self, pod: Pod, dirty: &mut Dirty) {
        if self.cluster.pods.get(&pod.key) == Some(&pod) {
            return;
        }
        let pod = Arc::new(self.interner.pod(pod));
        self.note_pod(&pod.key, Some(&pod), dirty);
        self.cluster.pods.insert(pod);
    }

    fn note_pod(&mut self, key: &ObjectKey, new: Option<&Arc<Pod>>, dirty: &mut Dirty) {
        let old = self.cluster.pods.get_shared(key);
        // Whoever shares an address with the old or the new pod may own it now.
        for address in [old, new].into_iter().flatten().flat_map(|pod| &pod.addresses) {
            dirty.subjects.extend(self.local_claimants(*address).cloned());
            dirty.addresses.insert(*address);
        }
        for pod in old.into_iter().filter(|p| p.is_live()) {
            self.book.withdraw(pod);
        }
        for pod in new.into_iter().filter(|p| p.is_live()) {
            self.book.claim(pod);
        }
        let is_local = |pod: &&Arc<Pod>| pod.node.as_ref() == Some(&self.node);
        if old.filter(is_local).is_some() || new.filter(is_local).is_some() {
            self.subjects.place(key, new.filter(is_local).is_some_and(|pod| pod.is_live()));
            dirty.subjects.insert(key.clone());
        }
    }

    /// The pods of this node that report an address: no others have tables.
    fn local_claimants(&self, address: IpAddr) -> impl Iterator<Item = &ObjectKey> {
        self.book.claimants(address).map(|pod| &pod.key).filter(|key| self.subjects.is_local(key))
    }

    fn note_node(&mut self, name: &Name, new: Option<&Node>, dirty: &mut Dirty) {
        let old = self.cluster.nodes.get(name);
        if old != new {
            dirty
                .addresses
                .extend(old.into_iter().chain(new).flat_map(|node| node.addresses.iter().copied()));
            self.book.set_node(old, new);
        }
    }

    fn note_namespace(&mut self, name: &Name, new: Option<&Namespace>, dirty: &mut Dirty) {
        if self.cluster.namespaces.get(name) != new {
            dirty.namespaces.insert(name.clone());
            // Cluster-wide policies may select other pods of it now.
            if self.subjects.has_cluster_wide_policies() {
                dirty.subjects.extend(self.subjects.local_pods_in(name).cloned());
            }
        }
    }

    fn note_policy(&mut self, key: &PolicyKey, new: Option<&Policy>, dirty: &mut Dirty) {
        let old = self.cluster.policies.get(key);
        if old.map(|p| &**p) == new {
            return;
        }
        for policy in old.map(|p| &**p).into_iter().chain(new) {
            dirty.subjects.extend(self.subjects.candidates(policy).cloned());
        }
        self.subjects.index(key, new);
        dirty.policies.insert(key.clone());
    }

    /// Recompiles what is dirty and nothing else.
    fn settle(&mut self, mut dirty: Dirty) -> Delta {
        let mut recorder = Recorder::new(&mut self.plan);
        self.subjects.forget_profiles_of(&dirty.policies);

        // 1. Which table decides for each local address. New tables bring new label keys, port names and CIDRs …
        let mut dispatched: Vec<(IpAddr, _, Option<_>)> = Vec::new();
        for key in &dirty.subjects {
            self.subjects.resolve(key, &self.cluster, &self.book, |address, direction, definition| {
                dispatched.push((address, direction, definition));
            });
        }
        for address in &dirty.addresses {
            let is_local = self.book.owner(*address).is_some_and(|pod| self.subjects.is_local(&pod.key));
            recorder.set_local(*address, is_local);
            recorder.set_node(*address, self.book.is_node(*address));
            if !is_local {
                dispatched.extend(Direction::BOTH.map(|direction| (*address, direction, None)));
            }
        }
        for (address, direction, definition) in dispatched {
            let namespace = self.book.owner(address).map(|pod| &pod.key.namespace);
            let key = (direction, address);
            self.tables.dispatch(key, namespace, definition, &mut self.classes, &mut recorder);
        }
        // 2. … by which addresses must now be told apart.
        dirty.addresses.extend(self.classes.take_unsettled(&self.cluster, &self.book));
        let mut known = KnownClasses::default();
        for address in dirty.addresses.iter().copied() {
            let holder = self.book.holder(address, &self.cluster);
            self.classes.settle(address, holder, &mut known, |groups, class_of| {
                for group in groups {
                    recorder.set_member(*group, address, class_of);
                }
            });
        }
        // 3. New tables against all classes, changed classes against all tables.
        self.tables.settle(
            &mut self.classes,
            &self.cluster,
            &dirty.namespaces,
            &dirty.addresses,
            &mut recorder,
        );
        recorder.finish()
    }
}

/// Groups sorted things under a key; a key without things is not kept.
pub(crate) fn remove_from<K: Ord, V: Ord>(index: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(set) = index.get_mut(key) {
        set.remove(value);
        if set.is_empty() {
            index.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        Action, Direction, Labels, Peer, Phase, Protocol, Rule, Selector, Tier, Verdict,
        rules::{NamespaceMatch, PeerEntry, PodMatch},
    };

    fn pod(name: &str, app: &str, address: &str, node: &str) -> Pod {
        Pod {
            key: ObjectKey::new("shop", name),
            labels: Labels::from_iter([("app", app), ("pod-template-hash", name)]),
            addresses: vec![address.parse().unwrap()],
            node: Some(node.into()),
            host_network: false,
            phase: Phase::Running,
            ports: Arc::from([]),
            created: 0,
            workload: None,
        }
    }

    /// Ingress to `app=backend` only from `app=frontend`.
    fn only_frontend() -> Arc<Policy> {
        let choose = |app| PodMatch {
            namespaces: NamespaceMatch::Named("shop".into()),
            pods: Selector::of_labels([("app", app)]),
        };
        let from = PeerEntry { peer: Peer::Pods(choose("frontend")), origin: None };
        Arc::new(Policy {
            key: PolicyKey::network_policy("shop", "only-frontend"),
            tier: Tier::Developer,
            priority: 0,
            subject: choose("backend"),
            ingress: Some(vec![Rule {
                name: None,
                action: Action::Accept,
                peers: Some(vec![from]),
                ports: None,
                origin: None,
            }]),
            egress: None,
            origin: None,
        })
    }

    #[test]
    fn a_pod_of_a_known_class_costs_one_element() {
        let mut compiler = Compiler::new("n1".into());
        compiler.apply_all([
            Change::SetPod(pod("b-1", "backend", "10.0.0.1", "n1")),
            Change::SetPod(pod("f-1", "frontend", "10.0.1.1", "n2")),
            Change::SetPolicy(only_frontend()),
        ]);
        let asks = |c: &Compiler, from: &str| {
            let to = "10.0.0.1".parse().unwrap();
            c.plan().decide(Direction::Ingress, from.parse().unwrap(), to, Protocol::Tcp, 80)
        };
        assert_eq!(asks(&compiler, "10.0.1.1"), Verdict::Allow);
        assert_eq!(asks(&compiler, "10.0.1.2"), Verdict::Deny);

        let delta = compiler.apply(Change::SetPod(pod("f-2", "frontend", "10.0.1.2", "n2")));
        assert_eq!(asks(&compiler, "10.0.1.2"), Verdict::Allow);
        assert_eq!(delta.members.len(), 1, "{delta:?}");
        let rest = Delta { members: BTreeMap::new(), ..delta };
        assert!(rest.is_empty(), "{rest:?}");
    }

    #[test]
    fn what_does_not_matter_changes_nothing() {
        let mut compiler = Compiler::new("n1".into());
        compiler.apply_all([
            Change::SetPod(pod("b-1", "backend", "10.0.0.1", "n1")),
            Change::SetPolicy(only_frontend()),
        ]);
        assert!(compiler.apply(Change::SetPolicy(only_frontend())).is_empty());
        assert!(compiler.apply(Change::SetPod(pod("x", "other", "10.0.1.9", "n2"))).is_empty());
        assert!(compiler.apply(Change::RemovePod(ObjectKey::new("shop", "nobody"))).is_empty());
    }

    #[test]
    fn without_local_pods_nothing_is_programmed() {
        let mut compiler = Compiler::new("n3".into());
        let delta = compiler.apply_all([
            Change::SetPod(pod("b-1", "backend", "10.0.0.1", "n1")),
            Change::SetPod(pod("f-1", "frontend", "10.0.1.1", "n2")),
            Change::SetPolicy(only_frontend()),
        ]);
        assert!(delta.is_empty() && *compiler.plan() == NodePlan::default());
    }
}
