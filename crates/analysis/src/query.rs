//! What to ask about the connections of a cluster.

use std::collections::BTreeSet;

use palisade_policy::{Family, IpRange, Name, ObjectKey, Traffic};

use crate::{entrances::Entrances, space::merged};

/// What ends stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum GroupBy {
    /// Workloads; one whose pods are not all treated alike is shown in parts. The answer is exact.
    #[default]
    Workload,
    /// Single pods. Exact, and as long as the square of their number: filter.
    Pod,
    /// Namespaces. An edge holds what some pod may use to some pod; [`Edge::exact`] says whether every pair may.
    Namespace,
    /// Pods that are treated alike in every respect, of whatever workloads. Exact, and the shortest exact answer.
    Class,
}

/// What to answer.
#[derive(Clone, Debug, Default)]
pub struct ConnectionsOptions {
    /// What ends stand for.
    pub group_by: GroupBy,
    /// Only connections from these ends.
    pub from: Option<EndFilter>,
    /// Only connections to these ends.
    pub to: Option<EndFilter>,
    /// Only this of what is allowed or denied.
    pub traffic: Option<Traffic>,
    /// Say what is denied instead of what is allowed.
    pub only_denied: bool,
    /// Whether nodes are ends.
    pub nodes: bool,
    /// What leads in through a controller.
    pub entrances: Entrances,
}

/// A choice of ends: those that any part of it chooses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndFilter {
    /// Ends that have one of these pods.
    pub pods: BTreeSet<ObjectKey>,
    /// Ends within these namespaces; classes with a pod in them.
    pub namespaces: BTreeSet<Name>,
    /// Ends that have one of these nodes.
    pub nodes: BTreeSet<Name>,
    /// What forwards connections into the cluster.
    pub controller: bool,
    /// Outside addresses in these ranges, and no others: ends are cut at their edges.
    pub ranges: Vec<IpRange>,
}

impl EndFilter {
    /// Its ranges as marks: one per family.
    pub(crate) fn marks(&self) -> impl Iterator<Item = Vec<IpRange>> {
        let of =
            |family| self.ranges.iter().copied().filter(move |r| Family::of(r.first) == family).collect();
        Family::BOTH.map(of).into_iter().map(merged).filter(|ranges| !ranges.is_empty())
    }
}
