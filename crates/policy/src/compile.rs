//! The compiler: the meaning of [`crate::reference`] as tables, incrementally.
//!
//! One compiler serves one node. It holds the cluster and the [`NodePlan`] of the node. [`Compiler::apply`] applies one
//! change to both and returns the difference.
//!
//! ```text
//!            Change
//!              │  Compiler::apply
//!              ▼
//!    ┌─ note ────────────────┐      cluster, address book (owner of each address, G-10)
//!    │ what the change can   │◄──── subjects (policies of each local pod)
//!    │ affect: Dirty         │
//!    └─────────┬─────────────┘
//!              ▼
//!    ┌─ subjects ────────────┐      policies of a local pod ──► definition ──► name (hash)
//!    │ profile of each pod   │
//!    └─────────┬─────────────┘
//!              ▼ a definition per local address and direction
//!    ┌─ tables ──────────────┐      rows of CIDRs ◄── ranges (sweep over the address space)
//!    │ policy table of each  │      label keys, port names and CIDRs of the rules
//!    │ definition            │────────────────────────────┐
//!    └─────────┬─────────────┘                            ▼
//!              │                      ┌─ classes ──────────────────┐
//!              │                      │ peers that no table of the │
//!              │                      │ node can distinguish       │
//!              ▼                      └──────────┬─────────────────┘
//!    ┌─ tables ──────────────┐    selections (selector ──► classes)
//!    │ row of each class     │◄──────────────────┘
//!    └─────────┬─────────────┘      budget, accounts: limits for each table and namespace
//!              ▼
//!    ┌─ recorder ────────────┐
//!    │ edits the NodePlan    │────► Delta ──► data plane
//!    └───────────────────────┘
//! ```
//!
//! The invariant, which property tests check: after any sequence of changes, in any order, the plan equals the plan
//! compiled from scratch from the resulting cluster, and the deltas applied one by one to the first plan give the last
//! plan.
//!
//! * `subjects`: the policies that select each local pod. Pods that the same policies select share a profile, and so a
//!   table.
//! * `definition`: the rules of a table, independent of the peers: rules in order, with the named ports of the subject
//!   resolved. Its hash is the table's name (`names`, `definitions`).
//! * `ranges`: the table's rows for addresses of no pod, cut where CIDRs begin and end.
//! * `classes`: addresses of pods, of nodes and of learned names that no table of this node can distinguish.
//! * `learned`: the names for which each address was learned.
//! * `selections`: selectors of rules, and the classes that they match.
//! * `tables`: for each table, the classes whose row differs from that of their addresses' ranges, grouped by row.
//! * `local_owners`: the pod that owns each local address, and which of them changed.
//! * `budget`, `accounts`: limits for tenants. A table over budget allows nothing.
//! * `recorder`: edits the plan and records what it was, so that a delta carries only what differs.
//!
//! A new pod or learned address of a known class costs one insertion per peer set that contains the class, independent of the number of
//! policies.

mod accounts;
mod addresses;
mod budget;
mod classes;
mod coverage;
mod definition;
mod definitions;
mod effective;
mod learned;
mod local_owners;
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

use ipnet::IpNet;

use crate::{
    Change, Cluster, Delta, Deny, Direction, DomainName, Endpoint, Interner, LearnedName, MODE_KEY, Mode,
    Name, Namespace, Node, NodePlan, ObjectKey, Pod, Policy, PolicyKey,
};

use self::{
    addresses::AddressBook,
    classes::{Classes, KnownClasses},
    learned::Learned,
    local_owners::LocalOwners,
    names::Namer,
    recorder::Recorder,
    subjects::Subjects,
    tables::Tables,
};
pub use self::{
    budget::{Budget, Limit},
    effective::EffectiveRules,
};

/// Compiles the plan of one node and keeps it up to date. See the module documentation.
#[derive(Clone, Debug)]
pub struct Compiler {
    node: Name,
    cluster: Cluster,
    interner: Interner,
    book: AddressBook,
    learned: Learned,
    subjects: Subjects,
    classes: Classes,
    tables: Tables,
    plan: NodePlan,
    local_owners: LocalOwners,
}

/// A local address that is denied everything in one direction because its policies exceed the [`Budget`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverBudget {
    /// The direction.
    pub direction: Direction,
    /// The address.
    pub address: IpAddr,
    /// The pod that owns the address.
    pub pod: ObjectKey,
    /// The limit that is exceeded.
    pub limit: Limit,
    /// The largest policy that selects the pod in this direction: the one to shrink. Of equal ones the first by name.
    pub largest: Option<PolicyKey>,
}

/// What the changes of one call may affect. It is recompiled once, at the end of the call.
#[derive(Default)]
struct Dirty {
    addresses: BTreeSet<IpAddr>,
    /// Local pods whose policies may have changed.
    subjects: BTreeSet<ObjectKey>,
    /// Policies that changed: cached profiles made of them are stale.
    policies: BTreeSet<PolicyKey>,
    /// Namespaces whose labels changed: other selectors match their classes.
    namespaces: BTreeSet<Name>,
    /// Addresses of local pods whose namespace changed what happens to what their policies deny.
    refusing: BTreeSet<IpAddr>,
}

impl Compiler {
    /// Makes a compiler for the node with this name, with an empty cluster.
    #[must_use]
    pub fn new(node: Name) -> Self {
        Self::with_budget(node, Budget::default())
    }

    /// Makes a compiler with other limits for tenants.
    #[must_use]
    pub fn with_budget(node: Name, budget: Budget) -> Self {
        Self::with(node, budget, Namer::default())
    }

    /// Makes a compiler whose names of tables and peer sets differ in no more than `bits` bits (at most 8) at the first
    /// attempt, for tests of hash collisions.
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
            learned: Learned::default(),
            subjects: Subjects::new(budget, namer),
            classes: Classes::default(),
            tables: Tables::new(budget, namer),
            plan: NodePlan::default(),
            local_owners: LocalOwners::default(),
        }
    }

    /// Sets [`Cluster::mode`]. It must not be called after a change was applied.
    #[must_use]
    pub fn in_mode(mut self, mode: Mode) -> Self {
        self.cluster.mode = mode;
        self
    }

    /// Sets [`Cluster::deny`]. It must not be called after a change was applied.
    #[must_use]
    pub fn denying_by(mut self, deny: Deny) -> Self {
        self.cluster.deny = deny;
        self
    }

    /// Makes a compiler with this cluster.
    #[must_use]
    pub fn from_cluster(node: Name, cluster: &Cluster) -> Self {
        let mut compiler = Self::new(node).in_mode(cluster.mode).denying_by(cluster.deny);
        compiler.apply_all(Cluster::default().changes_to(cluster));
        compiler
    }

    /// Returns the node that it compiles for.
    #[must_use]
    pub fn node(&self) -> &Name {
        &self.node
    }

    /// Returns the current cluster.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Returns the names for which an address was learned, sorted. `O(log addresses)`.
    #[must_use]
    pub fn names_at(&self, address: IpAddr) -> &[DomainName] {
        self.learned.names(address)
    }

    /// Returns the current plan of the node.
    #[must_use]
    pub fn plan(&self) -> &NodePlan {
        &self.plan
    }

    /// Applies one change and returns the difference of the plan.
    pub fn apply(&mut self, change: Change) -> Delta {
        self.apply_all([change])
    }

    /// Applies several changes at once and returns the difference of the plan.
    pub fn apply_all(&mut self, changes: impl IntoIterator<Item = Change>) -> Delta {
        let mut dirty = Dirty::default();
        for change in changes {
            self.note(change, &mut dirty);
        }
        self.recompile(dirty)
    }

    /// Returns the interner. Sources that read objects for this compiler should intern with it.
    #[must_use]
    pub fn interner(&self) -> &Interner {
        &self.interner
    }

    /// Returns the running pod that owns an address (G-10). `O(log addresses)`.
    #[must_use]
    pub fn pod_at(&self, address: IpAddr) -> Option<&Pod> {
        self.book.owner(address)
    }

    /// Returns an address of a network that another running pod or a node has, with its holder, if there is one.
    /// `O(log addresses)`, plus the network's addresses that this pod has.
    #[must_use]
    pub fn other_holder_in(&self, network: IpNet, pod: &ObjectKey) -> Option<Endpoint> {
        self.book.other_holder_in(network, pod)
    }

    /// Returns the local addresses that another pod owns than at the previous call, or that were not local then, with the pods that own
    /// them now. What the plan says of an address need not differ between the two pods.
    pub fn take_owner_changes(&mut self) -> BTreeMap<IpAddr, ObjectKey> {
        self.local_owners.take_changes()
    }

    /// Returns a number that grows whenever the result of [`Compiler::over_budget`] may change. `O(1)`.
    #[must_use]
    pub fn over_budget_changes(&self) -> u64 {
        self.tables.closings()
    }

    /// Returns the local addresses whose policies are over budget, by direction and address. Everything is denied to
    /// them in that direction. `O(1)` if there are none, else `O(local addresses + policies that select them)`: call it
    /// when [`Compiler::over_budget_changes`] has grown.
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

    /// Updates the indexes, notes what a change may affect, and applies it to the cluster.
    fn note(&mut self, change: Change, dirty: &mut Dirty) {
        let change = match change {
            // The cluster and the address book share one allocation.
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
            Change::SetLearned(learned) => self.note_learned(&learned.name, Some(learned), dirty),
            Change::RemoveLearned(name) => self.note_learned(name, None, dirty),
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
        // Another pod with an address of the old or new pod may own it now.
        for address in [old, new].into_iter().flatten().flat_map(|pod| &pod.addresses) {
            dirty.subjects.extend(self.local_claimants(*address).cloned());
            dirty.addresses.insert(*address);
        }
        for pod in old.into_iter().filter(|p| p.is_running()) {
            self.book.withdraw(pod);
        }
        for pod in new.into_iter().filter(|p| p.is_running()) {
            self.book.claim(pod);
        }
        let is_local = |pod: &&Arc<Pod>| pod.node.as_ref() == Some(&self.node);
        if old.filter(is_local).is_some() || new.filter(is_local).is_some() {
            self.subjects.place(key, new.filter(is_local).is_some_and(|pod| pod.is_running()));
            dirty.subjects.insert(key.clone());
        }
    }

    /// Returns the pods of this node that report an address. Only these have tables.
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

    fn note_learned(&mut self, name: &DomainName, new: Option<&LearnedName>, dirty: &mut Dirty) {
        let old = self.cluster.learned.get(name);
        if old != new {
            dirty.addresses.extend(self.learned.replace(name, old, new));
        }
    }

    fn note_namespace(&mut self, name: &Name, new: Option<&Namespace>, dirty: &mut Dirty) {
        let old = self.cluster.namespaces.get(name);
        if old != new {
            dirty.namespaces.insert(name.clone());
            let mode = |namespace: Option<&Namespace>| namespace?.labels.get(MODE_KEY).map(Mode::of_value);
            // Cluster-wide policies may select other pods of it now, and its own policies may have another mode.
            if self.subjects.has_cluster_wide_policies() || mode(old) != mode(new) {
                dirty.subjects.extend(self.subjects.local_pods_in(name).cloned());
            }
            let deny = |namespace: Option<&Namespace>| namespace?.deny;
            if deny(old) != deny(new) {
                let pods = self.subjects.local_pods_in(name).filter_map(|key| self.cluster.pods.get(key));
                dirty.refusing.extend(pods.flat_map(|pod| pod.addresses.iter().copied()));
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
    fn recompile(&mut self, mut dirty: Dirty) -> Delta {
        let mut recorder = Recorder::new(&mut self.plan);
        self.subjects.forget_profiles_of(&dirty.policies);

        // 1. The table of each local address. New tables mention new label keys, port names and CIDRs, …
        let mut dispatched: Vec<((Mode, Direction, IpAddr), Option<_>)> = Vec::new();
        for key in &dirty.subjects {
            self.subjects.resolve(key, &self.cluster, &self.book, |key, definition| {
                dispatched.push((key, definition));
            });
        }
        for address in &dirty.addresses {
            let owner = self.book.owner(*address).map(|pod| &pod.key);
            let owner = owner.filter(|key| self.subjects.is_local(key));
            let is_local = owner.is_some();
            self.local_owners.set(*address, owner);
            recorder.set_local(*address, is_local);
            recorder.set_node(*address, self.book.is_node(*address));
            if !is_local {
                for mode in [Mode::Enforce, Mode::Audit] {
                    let of_none = |direction| ((mode, direction, *address), None);
                    dispatched.extend(Direction::BOTH.map(of_none));
                }
            }
        }
        for address in dirty.refusing.iter().chain(&dirty.addresses) {
            recorder
                .set_refusing(*address, self.subjects.is_refusing(self.book.owner(*address), &self.cluster));
        }
        for (key, definition) in dispatched {
            let namespace = self.book.owner(key.2).map(|pod| &pod.key.namespace);
            self.tables.dispatch(key, namespace, definition, &mut self.classes, &mut recorder);
        }
        // 2. … which may distinguish addresses of one class.
        dirty.addresses.extend(self.classes.take_outdated(&self.cluster));
        let mut known = KnownClasses::default();
        for address in dirty.addresses.iter().copied() {
            let holder = self.book.holder(address, &self.cluster);
            self.classes.update(address, holder, &self.learned, &mut known, |sets, class_of| {
                for set in sets {
                    recorder.set_member(*set, address, class_of);
                }
            });
        }
        // 3. New tables against all classes, changed classes against all tables.
        self.tables.update(
            &mut self.classes,
            &self.cluster,
            &dirty.namespaces,
            &dirty.addresses,
            &mut recorder,
        );
        recorder.finish()
    }
}

/// Removes a value from the set of a key, and the key with its last value.
pub(crate) fn remove_from<K: Ord, V: Ord>(index: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(set) = index.get_mut(key) {
        set.remove(value);
        if set.is_empty() {
            index.remove(key);
        }
    }
}

#[cfg(test)]
mod tests;
