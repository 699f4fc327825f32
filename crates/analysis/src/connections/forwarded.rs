//! The traffic that the ingress controller forwards to pods.

use std::collections::{BTreeMap, HashMap};

use palisade_policy::{Cluster, Name, Traffic};

use super::{Connections, Edge};
use crate::{
    controller::{BlockedTraffic, ControllerRoutes, GroupForwarding},
    end::WorkloadPods,
    families::Families,
    grouping::{PlacedEnd, UnitGroup, UnitGroupId},
    query::ConnectionsOptions,
    reach::Reach,
};

/// The traffic between the controller and a group.
#[derive(Debug)]
pub(super) struct VisibleForwarding {
    pub(super) traffic: [Option<Traffic>; 2],
    pub(super) undecided: [Option<Traffic>; 2],
    pub(super) exact: bool,
    pub(super) through: Vec<usize>,
}

impl Connections {
    /// Returns the traffic that the controller may send to pods; or that it may not, if denied connections were
    /// requested.
    pub(super) fn forwarded(&self, from: usize, to: usize) -> [Option<Edge<'_>>; 2] {
        let target = &self.ends[to];
        let Some(visible) = self.forwarding.get(&target.group).filter(|_| target.end.is_pods()) else {
            return [None, None];
        };
        by_family(&visible.traffic).map(|found| {
            let (families, traffic) = found?;
            Some(Edge { from, to, families, traffic, exact: visible.exact, through: &visible.through })
        })
    }
}

/// Returns the pods of the controller; `None` if there are no routes.
pub(super) fn controller(
    cluster: &Cluster,
    controller_routes: &ControllerRoutes,
) -> Option<Vec<WorkloadPods>> {
    if !controller_routes.have_backends() {
        return None;
    }
    let mut found: BTreeMap<(Name, Name, Name), Vec<Name>> = BTreeMap::new();
    for key in &controller_routes.controller {
        let workload = cluster.pods.get(key).and_then(|pod| pod.workload.as_ref());
        let (name, kind) = match workload {
            Some(workload) => (workload.name.clone(), workload.kind.clone()),
            None => (key.name.clone(), "Pod".into()),
        };
        found.entry((key.namespace.clone(), name, kind)).or_default().push(key.name.clone());
    }
    let pods = found.into_iter().map(|((namespace, name, kind), pods)| {
        let all = cluster.pods.values().filter(|p| {
            let own = p.workload.as_ref().is_some_and(|w| w.name == name && w.kind == kind);
            p.key.namespace == namespace && own
        });
        let whole = all.count() <= pods.len();
        WorkloadPods { namespace, name, kind, pods, whole }
    });
    Some(pods.collect())
}

/// Returns the forwarded traffic of each group, and the traffic that policies deny.
pub(super) fn forwarding(
    reach: &Reach,
    groups: &[UnitGroup],
    ends: &[PlacedEnd],
    options: &ConnectionsOptions,
) -> (HashMap<UnitGroupId, VisibleForwarding>, Vec<BlockedTraffic>) {
    let (mut visible, mut blocked) = (HashMap::new(), Vec::new());
    if !options.controller_routes.have_backends() {
        return (visible, blocked);
    }
    for (to, end) in ends.iter().enumerate().filter(|(_, end)| end.end.is_pods()) {
        let units = || groups[end.group as usize].units.iter().map(|(id, _)| &reach.units[*id as usize]);
        if units().all(|unit| unit.target == 0) {
            continue;
        }
        let mut forwarding = GroupForwarding::default();
        for unit in units() {
            let forwarded = reach.targets.get(unit.target);
            forwarding.add(&unit.forwarding, forwarded, |id| reach.traffic(id).clone());
        }
        let equal = units().all(|unit| Some(unit.forwarding) == units().next().map(|first| first.forwarding));
        forwarding.exact = equal && units().all(|unit| !unit.forwarding.mixed);
        for (families, traffic) in by_family(&forwarding.denied).into_iter().flatten() {
            if !traffic.is_none() {
                let through = forwarding.through(&[Some(traffic.clone()), None]);
                blocked.push(BlockedTraffic { to, families, traffic: traffic.clone(), through });
            }
        }
        if let Some(only) = &options.traffic {
            forwarding = forwarding.restricted(only);
        }
        let traffic = if options.only_denied { &forwarding.denied } else { &forwarding.allowed };
        let through = forwarding.through(traffic);
        let (traffic, undecided) = (traffic.clone(), forwarding.undecided.clone());
        visible.insert(end.group, VisibleForwarding { traffic, undecided, exact: forwarding.exact, through });
    }
    (visible, blocked)
}

/// Combines the families if their traffic is equal.
pub(super) fn by_family(traffic: &[Option<Traffic>; 2]) -> [Option<(Families, &Traffic)>; 2] {
    let one = |v4, v6| move |traffic| (Families { v4, v6 }, traffic);
    match traffic {
        [Some(v4), Some(v6)] if v4 == v6 => [Some(one(true, true)(v4)), None],
        [v4, v6] => [v4.as_ref().map(one(true, false)), v6.as_ref().map(one(false, true))],
    }
}
