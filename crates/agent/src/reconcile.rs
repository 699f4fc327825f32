//! The pure half of the agent: turns inputs into actions.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use palisade_policy::{
    Change, Cluster, Compiler, Delta, Deny, Endpoint, Interner, Mode, Name, NodePlan, ObjectKey, OverBudget,
    Pod,
};

use crate::pod_sources::{PodSources, SourceClaims};

/// The first pause before a rejected plan is retried. It doubles up to [`MAX_RETRY`].
const FIRST_RETRY: Duration = Duration::from_millis(500);
const MAX_RETRY: Duration = Duration::from_secs(60);

/// The label of a namespace that turns the check of source addresses off for its pods, if its value is `off`. Those who may create pods can't
/// set labels of their namespace.
const SOURCE_CHECK_LABEL: &str = "palisade.dev/source-check";

/// An event that the reconciler handles.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The source delivered the whole cluster.
    Snapshot(Cluster),
    /// Objects changed.
    Changes(Vec<Change>),
    /// The kernel accepted the plan.
    Committed,
    /// The kernel rejected the plan and holds what it held before.
    Refused,
    /// The kernel may hold something other than what was programmed, and a repair failed.
    Diverged,
    /// Time passed.
    Tick,
}

impl Input {
    /// Whether namespaces may differ after it.
    pub(crate) fn may_change_namespaces(&self) -> bool {
        let of_namespace =
            |change: &Change| matches!(change, Change::SetNamespace(_) | Change::RemoveNamespace(_));
        match self {
            Self::Snapshot(_) => true,
            Self::Changes(changes) => changes.iter().any(of_namespace),
            Self::Committed | Self::Refused | Self::Diverged | Self::Tick => false,
        }
    }
}

/// An action for the executor.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Program the whole plan, whatever a previous run left in the kernel.
    Start,
    /// Program this delta. The result is [`Input::Committed`] or [`Input::Refused`].
    Commit {
        /// What changes in the plan. Empty if only pods changed that own local addresses.
        delta: Box<Delta>,
        /// The local addresses that belong to other pods than before, with these pods.
        owners: BTreeMap<IpAddr, ObjectKey>,
    },
    /// Read what the kernel holds, and program the difference to the plan. Same results.
    Resync,
    /// Cut off the pods for which the kernel allows more than the plan ([`crate::fallback`]). Has no result: the plan is
    /// retried later.
    FailClosed,
}

/// Decides what to do. Times are durations since any fixed instant.
#[derive(Debug)]
pub struct Reconciler {
    compiler: Compiler,
    state: State,
    claims: SourceClaims,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// No snapshot has arrived yet. The kernel stays unchanged.
    Waiting,
    /// The kernel holds the plan, or is being programmed with it.
    Current,
    /// The kernel rejected the plan `tries` times. The next try is due at `retry`.
    Behind { tries: u32, retry: Duration },
}

impl Reconciler {
    /// Creates a reconciler for a node. It waits for its first snapshot.
    #[must_use]
    pub fn new(node: Name) -> Self {
        Self::in_mode(node, Mode::Enforce)
    }

    /// [`Reconciler::new`] with the mode of policies that set none ([`Cluster::mode`]).
    #[must_use]
    pub fn in_mode(node: Name, mode: Mode) -> Self {
        Self {
            compiler: Compiler::new(node).in_mode(mode),
            state: State::Waiting,
            claims: SourceClaims::default(),
        }
    }

    /// Sets what happens to what policies deny where the namespace doesn't ([`Cluster::deny`]). Only before the first snapshot.
    #[must_use]
    pub fn denying_by(self, deny: Deny) -> Self {
        Self { compiler: self.compiler.denying_by(deny), ..self }
    }

    /// The plan that the kernel must hold.
    #[must_use]
    pub fn plan(&self) -> &NodePlan {
        self.compiler.plan()
    }

    /// The known cluster.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        self.compiler.cluster()
    }

    /// The interner, which stores equal values once.
    #[must_use]
    pub fn interner(&self) -> &Interner {
        self.compiler.interner()
    }

    /// The node that the plan is for.
    #[must_use]
    pub fn node(&self) -> &Name {
        self.compiler.node()
    }

    /// Returns the endpoint at an address: the running pod that owns it, else the node, else an external host.
    /// `O(log addresses + nodes)`.
    #[must_use]
    pub fn endpoint(&self, address: IpAddr) -> Endpoint {
        if let Some(pod) = self.owner(address) {
            return Endpoint::Pod { key: pod.key.clone(), address };
        }
        let node = self.cluster().node_at(address);
        node.map_or(Endpoint::External(address), |n| Endpoint::Node { name: n.name.clone(), address })
    }

    /// Returns the running pod that owns an address (SEMANTICS G-10). `O(log addresses)`.
    #[must_use]
    pub fn owner(&self, address: IpAddr) -> Option<&Pod> {
        self.compiler.pod_at(address)
    }

    /// Returns the names for which an address was learned, sorted. `O(log addresses)`.
    #[cfg(feature = "daemon")]
    pub(crate) fn names_at(&self, address: IpAddr) -> &[palisade_policy::DomainName] {
        self.compiler.names_at(address)
    }

    /// Returns the namespaces whose label says that the source addresses of their pods are not checked. `O(namespaces)`.
    pub(crate) fn unchecked_namespaces(&self) -> BTreeSet<Name> {
        let namespaces = self.cluster().namespaces.values();
        let unchecked =
            namespaces.filter(|namespace| namespace.labels.get(SOURCE_CHECK_LABEL) == Some("off"));
        unchecked.map(|namespace| namespace.name.clone()).collect()
    }

    /// Returns which further sources pods of this node get, by annotation, and a number that grows when that changes. `O(1)`.
    pub(crate) fn pod_sources(&self) -> (&PodSources, u64) {
        self.claims.current()
    }

    /// Returns the pods that own the local addresses. `O(local addresses · log addresses)`: used only where the whole plan is programmed.
    pub(crate) fn local_owners(&self) -> BTreeMap<IpAddr, ObjectKey> {
        let addresses = &self.plan().local;
        addresses.iter().filter_map(|address| Some((*address, self.owner(*address)?.key.clone()))).collect()
    }

    /// Returns a number that grows whenever the result of [`Reconciler::over_budget`] may change. `O(1)`.
    #[must_use]
    pub fn over_budget_changes(&self) -> u64 {
        self.compiler.over_budget_changes()
    }

    /// Returns the local addresses that are closed because their policies exceed the node's budget. See
    /// [`Compiler::over_budget`].
    #[must_use]
    pub fn over_budget(&self) -> Vec<OverBudget> {
        self.compiler.over_budget()
    }

    /// Whether the first snapshot has not arrived yet.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.state == State::Waiting
    }

    /// Returns the addresses of the node's running pods, isolated or not. `O(pods)`: used only after a start.
    #[must_use]
    pub fn local_addresses(&self) -> BTreeSet<IpAddr> {
        let here = |pod: &&Pod| pod.is_running() && pod.node.as_ref() == Some(self.compiler.node());
        self.cluster().pods.values().filter(here).flat_map(|pod| pod.addresses.iter().copied()).collect()
    }

    /// Whether the kernel rejected the latest plan and holds another.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        matches!(self.state, State::Behind { .. })
    }

    /// Handles `input` at the time `now`. Returns the actions to perform.
    pub fn handle(&mut self, input: Input, now: Duration) -> Vec<Action> {
        let is_snapshot = matches!(input, Input::Snapshot(_));
        let has_changes = is_snapshot || matches!(input, Input::Changes(_));
        if let Input::Changes(changes) = &input {
            self.claims.note(changes, self.compiler.node());
        }
        let actions = self.actions(input, now);
        if is_snapshot {
            self.claims.note_all(&self.compiler);
        }
        if has_changes {
            self.claims.decide(&self.compiler);
        }
        actions
    }

    fn actions(&mut self, input: Input, now: Duration) -> Vec<Action> {
        match (input, self.state) {
            (Input::Snapshot(cluster), State::Waiting) => {
                let cluster = self.with_learned(cluster);
                let mode = self.compiler.cluster().mode;
                if *self.compiler.cluster() == (Cluster { mode, ..Cluster::default() }) {
                    self.compiler.apply_all(cluster.into_changes());
                } else {
                    self.compiler.apply_all(self.compiler.cluster().changes_to(&cluster));
                }
                // The start names the owners of all addresses.
                self.compiler.take_owner_changes();
                self.state = State::Current;
                vec![Action::Start]
            }
            (Input::Snapshot(cluster), _) => {
                let cluster = self.with_learned(cluster);
                let delta = self.compiler.apply_all(self.compiler.cluster().changes_to(&cluster));
                self.commit(delta)
            }
            (Input::Changes(changes), state) => {
                let delta = self.compiler.apply_all(changes);
                if state == State::Waiting { Vec::new() } else { self.commit(delta) }
            }
            (Input::Committed, State::Current | State::Behind { .. }) => {
                self.state = State::Current;
                Vec::new()
            }
            (Input::Diverged, State::Behind { tries, .. }) => {
                self.state = State::Behind { tries, retry: now };
                vec![Action::Resync]
            }
            (Input::Refused | Input::Diverged, State::Current) => {
                // Retried at once from what the kernel holds, before any pod is cut off.
                self.state = State::Behind { tries: 1, retry: now };
                vec![Action::Resync]
            }
            (Input::Refused, State::Behind { tries, .. }) => {
                let pause = FIRST_RETRY.saturating_mul(1 << tries.min(16)).min(MAX_RETRY);
                self.state = State::Behind { tries: tries + 1, retry: now + pause };
                vec![Action::FailClosed]
            }
            (Input::Tick, State::Behind { retry, .. }) if now >= retry => vec![Action::Resync],
            (Input::Tick, _) | (Input::Committed | Input::Refused | Input::Diverged, State::Waiting) => {
                Vec::new()
            }
        }
    }

    /// Adds the names that were learned to a snapshot: a source delivers objects, and a relist must not take back what DNS servers answered.
    fn with_learned(&self, mut cluster: Cluster) -> Cluster {
        for (name, learned) in &self.cluster().learned {
            cluster.learned.entry(name.clone()).or_insert_with(|| learned.clone());
        }
        cluster
    }

    fn commit(&mut self, delta: Delta) -> Vec<Action> {
        let owners = self.compiler.take_owner_changes();
        if self.is_behind() {
            // It names the owners of all addresses.
            vec![Action::Resync]
        } else if delta.is_empty() && owners.is_empty() {
            Vec::new()
        } else {
            vec![Action::Commit { delta: Box::new(delta), owners }]
        }
    }
}

#[cfg(test)]
mod tests {
    use palisade_policy::{DomainName, Labels, LearnedName, Namespace};

    use super::*;

    fn namespace(name: &str) -> Change {
        Change::SetNamespace(Namespace::new(name, &Labels::default()))
    }

    #[test]
    fn nothing_is_touched_before_the_first_snapshot() {
        let mut r = Reconciler::new("n1".into());
        assert_eq!(r.handle(Input::Changes(vec![namespace("a")]), Duration::ZERO), []);
        assert_eq!(r.handle(Input::Tick, Duration::from_secs(9)), []);
        assert_eq!(r.handle(Input::Snapshot(Cluster::default()), Duration::ZERO), [Action::Start]);
    }

    #[test]
    fn a_change_without_effect_commits_nothing() {
        let mut r = Reconciler::new("n1".into());
        r.handle(Input::Snapshot(Cluster::default()), Duration::ZERO);
        assert_eq!(r.handle(Input::Changes(vec![namespace("a")]), Duration::ZERO), []);
    }

    #[test]
    fn a_snapshot_keeps_what_was_learned_before_and_after_the_first() {
        let mut r = Reconciler::new("n1".into());
        let learned = |name: &str| {
            let name = DomainName::new(name).unwrap();
            LearnedName { name, addresses: ["198.51.100.1".parse().unwrap()].into() }
        };
        let names = |r: &Reconciler| r.cluster().learned.keys().map(ToString::to_string).collect::<Vec<_>>();
        r.handle(Input::Changes(vec![Change::SetLearned(learned("a.io"))]), Duration::ZERO);
        r.handle(Input::Snapshot(Cluster::default()), Duration::ZERO);
        assert_eq!(names(&r), ["a.io"]);
        r.handle(Input::Changes(vec![Change::SetLearned(learned("b.io"))]), Duration::ZERO);
        r.handle(Input::Snapshot(Cluster::default()), Duration::ZERO);
        assert_eq!(names(&r), ["a.io", "b.io"]);
        r.handle(Input::Changes(vec![Change::RemoveLearned(learned("a.io").name)]), Duration::ZERO);
        assert_eq!(names(&r), ["b.io"], "names go when they expire");
    }

    #[test]
    fn a_rejected_plan_is_retried_at_once_then_pods_are_cut_off_then_it_is_retried_with_growing_pauses() {
        let mut r = Reconciler::new("n1".into());
        r.handle(Input::Snapshot(Cluster::default()), Duration::ZERO);
        assert_eq!(r.handle(Input::Refused, Duration::ZERO), [Action::Resync]);
        assert_eq!(r.handle(Input::Refused, Duration::ZERO), [Action::FailClosed]);
        assert!(r.is_behind());
        assert_eq!(r.handle(Input::Tick, Duration::from_millis(999)), []);
        assert_eq!(r.handle(Input::Tick, Duration::from_millis(1000)), [Action::Resync]);
        assert_eq!(r.handle(Input::Refused, Duration::from_secs(1)), [Action::FailClosed]);
        assert_eq!(r.handle(Input::Tick, Duration::from_secs(2)), [], "the pause has doubled");
        // A change in the meantime leads to a resync, not to a delta of its own.
        assert_eq!(r.handle(Input::Changes(vec![namespace("a")]), Duration::from_secs(2)), [Action::Resync]);
        assert_eq!(r.handle(Input::Committed, Duration::from_secs(2)), []);
        assert!(!r.is_behind());
    }
}
