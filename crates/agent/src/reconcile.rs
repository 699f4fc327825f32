//! The pure half of the agent: what happened goes in, what to do comes out.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use palisade_policy::{
    Change, Cluster, Compiler, Delta, Endpoint, Interner, Name, NodePlan, OverBudget, Pod,
};

/// The first pause before a refused plan is tried again; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The source has delivered everything that it knows.
    Snapshot(Cluster),
    /// Objects changed.
    Changes(Vec<Change>),
    /// The kernel now holds the plan.
    Committed,
    /// The kernel refused the plan; it holds what it held before.
    Refused,
    /// The kernel may hold something else than it was given, and that could not be put right.
    Disturbed,
    /// Time passed.
    Tick,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Make the kernel hold the whole plan, whatever an earlier run left there.
    Start,
    /// Perform this difference. Answer with [`Input::Committed`] or [`Input::Refused`].
    Commit(Box<Delta>),
    /// Make the kernel hold the plan, from what it really holds; answer likewise.
    Resync,
    /// Cut off the pods that the kernel leaves too open ([`crate::closed`]). No answer is expected: the plan itself is tried
    /// again later.
    FailClosed,
}

/// Decides what to do. Time is an argument: a duration since any fixed moment.
#[derive(Debug)]
pub struct Reconciler {
    compiler: Compiler,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// No whole snapshot yet: what is in the kernel stays.
    Waiting,
    /// The kernel holds the plan, or is being told to.
    Current,
    /// The kernel refused the plan `tries` times; the next try is due at `retry`.
    Behind { tries: u32, retry: Duration },
}

impl Reconciler {
    /// A reconciler for the node with this name, which waits for its first snapshot.
    #[must_use]
    pub fn new(node: Name) -> Self {
        Self { compiler: Compiler::new(node), state: State::Waiting }
    }

    /// What the kernel must hold.
    #[must_use]
    pub fn plan(&self) -> &NodePlan {
        self.compiler.plan()
    }

    /// The cluster as far as it is known.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        self.compiler.cluster()
    }

    /// What gives equal values one place in memory.
    #[must_use]
    pub fn interner(&self) -> &Interner {
        self.compiler.interner()
    }

    /// The node for which the plan is.
    #[must_use]
    pub fn node(&self) -> &Name {
        self.compiler.node()
    }

    /// Who has this address: the live pod that owns it, else the node, else nobody in the cluster.
    /// `O(log addresses + nodes)`.
    #[must_use]
    pub fn endpoint(&self, address: IpAddr) -> Endpoint {
        if let Some(pod) = self.owner(address) {
            return Endpoint::Pod { key: pod.key.clone(), address };
        }
        let node = self.cluster().node_at(address);
        node.map_or(Endpoint::External(address), |n| Endpoint::Node { name: n.name.clone(), address })
    }

    /// The live pod that owns an address (SEMANTICS G-10). `O(log addresses)`.
    #[must_use]
    pub fn owner(&self, address: IpAddr) -> Option<&Pod> {
        self.compiler.pod_at(address)
    }

    /// Grows whenever [`Reconciler::over_budget`] may say something else. `O(1)`.
    #[must_use]
    pub fn over_budget_changes(&self) -> u64 {
        self.compiler.over_budget_changes()
    }

    /// The local addresses that are closed because their policies ask for more than a node gives. See
    /// [`Compiler::over_budget`].
    #[must_use]
    pub fn over_budget(&self) -> Vec<OverBudget> {
        self.compiler.over_budget()
    }

    /// Whether the first whole snapshot is still to come.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.state == State::Waiting
    }

    /// The addresses of the node's live pods, isolated or not. `O(pods)`: for the start alone.
    #[must_use]
    pub fn local_addresses(&self) -> BTreeSet<IpAddr> {
        let here = |pod: &&Pod| pod.is_live() && pod.node.as_ref() == Some(self.compiler.node());
        self.cluster().pods.values().filter(here).flat_map(|pod| pod.addresses.iter().copied()).collect()
    }

    /// Whether the kernel refused the last plan, so that it holds another.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        matches!(self.state, State::Behind { .. })
    }

    /// What to do about `input` at the time `now`.
    pub fn handle(&mut self, input: Input, now: Duration) -> Vec<Action> {
        match (input, self.state) {
            (Input::Snapshot(cluster), State::Waiting) => {
                if *self.compiler.cluster() == Cluster::default() {
                    self.compiler.apply_all(cluster.into_changes());
                } else {
                    self.compiler.apply_all(self.compiler.cluster().changes_to(&cluster));
                }
                self.state = State::Current;
                vec![Action::Start]
            }
            (Input::Snapshot(cluster), _) => {
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
            (Input::Disturbed, State::Behind { tries, .. }) => {
                self.state = State::Behind { tries, retry: now };
                vec![Action::Resync]
            }
            (Input::Refused | Input::Disturbed, State::Current) => {
                // Once more at once and from what the kernel really holds; only then is anybody cut off.
                self.state = State::Behind { tries: 1, retry: now };
                vec![Action::Resync]
            }
            (Input::Refused, State::Behind { tries, .. }) => {
                let pause = FIRST_PAUSE.saturating_mul(1 << tries.min(16)).min(LONGEST_PAUSE);
                self.state = State::Behind { tries: tries + 1, retry: now + pause };
                vec![Action::FailClosed]
            }
            (Input::Tick, State::Behind { retry, .. }) if now >= retry => vec![Action::Resync],
            (Input::Tick, _) | (Input::Committed | Input::Refused | Input::Disturbed, State::Waiting) => {
                Vec::new()
            }
        }
    }

    fn commit(&self, delta: Delta) -> Vec<Action> {
        if self.is_behind() {
            vec![Action::Resync]
        } else if delta.is_empty() {
            Vec::new()
        } else {
            vec![Action::Commit(Box::new(delta))]
        }
    }
}

#[cfg(test)]
mod tests {
    use palisade_policy::{Labels, Namespace};

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
    fn a_change_that_matters_not_commits_nothing() {
        let mut r = Reconciler::new("n1".into());
        r.handle(Input::Snapshot(Cluster::default()), Duration::ZERO);
        assert_eq!(r.handle(Input::Changes(vec![namespace("a")]), Duration::ZERO), []);
    }

    #[test]
    fn a_refused_plan_is_tried_at_once_then_pods_are_cut_off_then_it_is_tried_with_growing_pauses() {
        let mut r = Reconciler::new("n1".into());
        r.handle(Input::Snapshot(Cluster::default()), Duration::ZERO);
        assert_eq!(r.handle(Input::Refused, Duration::ZERO), [Action::Resync]);
        assert_eq!(r.handle(Input::Refused, Duration::ZERO), [Action::FailClosed]);
        assert!(r.is_behind());
        assert_eq!(r.handle(Input::Tick, Duration::from_millis(999)), []);
        assert_eq!(r.handle(Input::Tick, Duration::from_millis(1000)), [Action::Resync]);
        assert_eq!(r.handle(Input::Refused, Duration::from_secs(1)), [Action::FailClosed]);
        assert_eq!(r.handle(Input::Tick, Duration::from_secs(2)), [], "the pause has doubled");
        // A change in the meantime asks for the whole difference, not for its own.
        assert_eq!(r.handle(Input::Changes(vec![namespace("a")]), Duration::from_secs(2)), [Action::Resync]);
        assert_eq!(r.handle(Input::Committed, Duration::from_secs(2)), []);
        assert!(!r.is_behind());
    }
}
