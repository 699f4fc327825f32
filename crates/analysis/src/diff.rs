//! Compares the connections of two clusters.
//!
//! Workloads are the same if their kind, namespace and name are equal. External ranges are divided by the policies of
//! both clusters. A pair of ends that exists on one side only, because pods moved to other nodes or the number of
//! replicas changed, is no change. A workload that was added or removed is listed with its connections.
//!
//! ```text
//! two clusters ─► compare: Connections ×2, matched ends ─┬► changed pairs ─► causes: edits whose reversal undoes them
//!                                                        │                └► forwarded: for ingress controllers
//!                                                        ├► presence: ends of one side
//!                                                        ├► dns
//!                                                        └► future: pods that don't exist yet
//! ```

mod blame;
mod causes;
mod change;
mod compare;
mod dns;
mod edits;
mod forwarded;
mod future;
mod joined;
mod made_up;
mod policies;
mod presence;
mod touched;
mod undecided;

use palisade_policy::{Cluster, Pod};

pub use change::{
    Cause, ConnectionChange, Diff, Directions, DnsChange, Edit, EndChange, EndTraffic, FutureChange,
    FuturePods, Labeled, NewlyBlocked, ObjectChange, PolicyChange, PolicyEdit, Presence, WorkloadKey,
};

use crate::{connections::Connections, controller::ControllerRoutes, end::ConnectionEnd};
pub use policies::changed_policies;
pub use undecided::UndecidedChange;

use compare::Comparison;

/// One side of a comparison.
#[derive(Clone, Copy, Debug)]
pub struct DiffSide<'c> {
    /// The cluster.
    pub cluster: &'c Cluster,
    /// The routes into it; `None` if connections that come through them are not asked for.
    pub routes: Option<&'c ControllerRoutes>,
}

impl<'c> From<&'c Cluster> for DiffSide<'c> {
    /// A side without routes.
    fn from(cluster: &'c Cluster) -> Self {
        Self { cluster, routes: None }
    }
}

/// Compares the connections of two clusters, with their nodes and ingress controllers. `O(ends²)` plus `O(edits)` walks
/// for each change for which several edits may be the cause, up to a limit.
#[must_use]
pub fn diff<'c>(before: impl Into<DiffSide<'c>>, after: impl Into<DiffSide<'c>>) -> Diff {
    compare(before.into(), after.into(), false, &|| true).unwrap_or_default()
}

/// As [`diff()`], and compares what policies allow to pods that don't exist yet: [`Diff::exposure`]. In addition, it costs
/// some exposures for each workload whose policies changed.
#[must_use]
pub fn diff_with_future_pods<'c>(before: impl Into<DiffSide<'c>>, after: impl Into<DiffSide<'c>>) -> Diff {
    diff_while(before, after, &|| true).unwrap_or_default()
}

/// As [`diff_with_future_pods()`], for as long as the result is wanted: `None` once it is not. `is_wanted` is asked for each end
/// and between the steps, so it should be quick; after it has returned `false`, it must not return `true` again.
#[must_use]
pub fn diff_while<'c>(
    before: impl Into<DiffSide<'c>>,
    after: impl Into<DiffSide<'c>>,
    is_wanted: &dyn Fn() -> bool,
) -> Option<Diff> {
    compare(before.into(), after.into(), true, is_wanted)
}

fn compare(
    before: DiffSide<'_>,
    after: DiffSide<'_>,
    future_pods: bool,
    is_wanted: &dyn Fn() -> bool,
) -> Option<Diff> {
    let none = ControllerRoutes::default();
    let routes = [before, after].map(|side| side.routes.unwrap_or(&none));
    let clusters = [before.cluster, after.cluster];
    let policies = changed_policies(before.cluster, after.cluster);
    let comparison = Comparison::new(clusters, routes, &policies, is_wanted)?;
    let changes = joined::joined(comparison.changes(|_, _| true));
    let exposure = match future_pods {
        true => future::exposure_changes(&comparison, &policies, &changes),
        false => Vec::new(),
    };
    let found = Diff {
        exposure,
        ends: presence::one_sided(&comparison.answers, &comparison.ends),
        dns: dns::dns_changes(&comparison.finder, &comparison.answers, &comparison.ends),
        has_pods: clusters.iter().any(|cluster| cluster.pods.values().any(Pod::is_running)),
        blocked: newly_blocked(&comparison.answers),
        undecided: comparison.undecided_changes(),
        changes,
        policies,
    };
    // What ended early is not complete.
    is_wanted().then_some(found)
}

/// Returns the traffic that routes require and policies deny after the change, and that was not denied before.
fn newly_blocked(answers: &[Connections; 2]) -> Vec<NewlyBlocked> {
    let [before, after] = answers;
    let mut out = Vec::new();
    for blocked in after.blocked() {
        let to = after.end(blocked.to);
        let was = |old: &&crate::controller::BlockedTraffic| {
            is_same_workload(before.end(old.to), to) && old.families == blocked.families
        };
        let was = before.blocked().iter().filter(was).map(|old| &old.traffic);
        let traffic = was.fold(blocked.traffic.clone(), |left, old| left.difference(old));
        if !traffic.is_none() {
            let through = blocked.through.clone();
            out.push(NewlyBlocked { to: to.clone(), families: blocked.families, traffic, through });
        }
    }
    out
}

fn is_same_workload(a: &ConnectionEnd, b: &ConnectionEnd) -> bool {
    match (a, b) {
        (ConnectionEnd::Workload(a), ConnectionEnd::Workload(b)) => {
            (&a.namespace, &a.kind, &a.name) == (&b.namespace, &b.kind, &b.name)
        }
        _ => a == b,
    }
}
