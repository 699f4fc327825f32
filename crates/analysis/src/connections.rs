//! All connections that are allowed in a cluster: between its pods, and between them and the outside.
//!
//! Answers are about new connections after destination NAT (SEMANTICS G-1). A pod can always reach itself (A41), which
//! is not listed. Host-network pods count as their node (G-4). Connections without a pod at either end are not listed,
//! since no policy applies to them.

mod forwarded;
mod undecided;

use std::collections::{BTreeSet, HashMap};

use palisade_policy::{Cluster, Direction, Family, IpRange, Name, ObjectKey, Phase, Pod, Traffic};

use crate::{
    controller::BlockedTraffic,
    end::ConnectionEnd,
    families::{Families, index},
    grouping::{Ends, PlacedEnd, UnitGroup, UnitGroupId},
    query::{ConnectionsOptions, EndFilter, GroupBy},
    reach::{Reach, Scan, Unit, UnitTrafficKey},
    traffics::{Cell, TrafficId},
};

use forwarded::{VisibleForwarding, controller, forwarding};
pub use undecided::UndecidedEdge;

/// The connections that one end may open to another; or that it may not, if denied connections were requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge<'a> {
    /// The client: an index into [`Connections::ends`].
    pub from: usize,
    /// The server, likewise. If it equals `from`, the edge is between different pods of that end.
    pub to: usize,
    /// The IP families. If the same traffic is allowed in both, there is one edge, otherwise one for each family.
    pub families: Families,
    /// The protocols and destination ports.
    pub traffic: &'a Traffic,
    /// Whether every pair of addresses of the two ends may use all of the traffic. Always true, except when grouped by
    /// namespace.
    pub exact: bool,
    /// The routes, if [`Self::from`] is a [`ConnectionEnd::IngressController`]: indexes into
    /// [`crate::ControllerRoutes::routes`].
    pub through: &'a [usize],
}

/// A pod to which no policy applies, since it uses its node's network or has no address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnaffectedPod {
    /// The pod.
    pub pod: ObjectKey,
    /// The kind of its workload; `Pod` for a bare pod.
    pub workload_kind: Name,
    /// The name of its workload.
    pub workload_name: Name,
    /// Its node, if the pod uses the node's network. The node's connections are the pod's.
    pub host_network_of: Option<Name>,
}

/// All connections of a cluster. Equal clusters produce equal results in the same order.
#[derive(Debug)]
pub struct Connections {
    pub(crate) reach: Reach,
    pub(crate) ends: Vec<PlacedEnd>,
    groups: Groups,
    pub(crate) from: Vec<usize>,
    pub(crate) to: Vec<usize>,
    /// The visible traffic of each [`TrafficId`]: allowed or denied, as requested.
    pub(crate) visible: Vec<Traffic>,
    /// The first number with the same visible traffic, by [`TrafficId`].
    pub(crate) same_visible: Vec<TrafficId>,
    /// Whether denied connections were requested.
    denied: bool,
    /// The requested traffic.
    requested: Option<Traffic>,
    /// The visible forwarded traffic of each group, and its routes.
    forwarding: HashMap<UnitGroupId, VisibleForwarding>,
    blocked: Vec<BlockedTraffic>,
    unaffected_pods: Vec<UnaffectedPod>,
}

/// The traffic between two ends.
#[derive(Clone, Copy, Debug)]
struct PairTraffic {
    /// What is allowed wherever unknown addresses lie.
    certain: Cell,
    /// What is allowed for some of their possible values.
    possible: Cell,
    /// Whether every pair of units may send it.
    exact: bool,
}

/// The traffic between pairs of groups.
type Sums = HashMap<(UnitGroupId, UnitGroupId), PairTraffic>;

#[derive(Debug)]
enum Groups {
    /// The representative unit of each group.
    Equivalent(Vec<u32>),
    /// The units of each group, and the total traffic between pairs of groups.
    Summed(Vec<Vec<u32>>, Sums),
}

impl Connections {
    /// Computes the connections of a cluster. `O(pods + policies × what they refer to + classes²)`. [`Self::edges`]
    /// visits the pairs of ends.
    #[must_use]
    pub fn new(cluster: &Cluster, options: &ConnectionsOptions) -> Self {
        let filters = options.from.iter().chain(&options.to);
        let filter_ranges: Vec<Vec<IpRange>> = filters.flat_map(EndFilter::filter_ranges).collect();
        let mut reach = Reach::new(cluster, &filter_ranges, &options.controller_routes);
        let controller = controller(cluster, &options.controller_routes);
        let Ends { groups, ends } = Ends::new(&reach, options.group_by, options.nodes, controller);
        let (forwarding, blocked) = forwarding(&reach, &groups, &ends, options);
        let groups = if options.group_by == GroupBy::Namespace {
            let sums = sums(&mut reach, &groups, &ends);
            let units = |group: &UnitGroup| group.units.iter().map(|(id, _)| *id).collect();
            Groups::Summed(groups.iter().map(units).collect(), sums)
        } else {
            Groups::Equivalent(groups.iter().map(|g| g.units[0].0).collect())
        };
        let selected = |filter: &Option<EndFilter>| -> Vec<usize> {
            let is_selected = |end: &PlacedEnd| filter.as_ref().is_none_or(|f| selects(f, end));
            ends.iter().enumerate().filter(|(_, end)| is_selected(end)).map(|(i, _)| i).collect()
        };
        let (from, to) = (selected(&options.from), selected(&options.to));
        let visible = reach.traffics.all().iter().map(|traffic| {
            let traffic =
                if options.only_denied { Traffic::all().difference(traffic) } else { traffic.clone() };
            options.traffic.as_ref().map_or_else(|| traffic.clone(), |only| traffic.intersection(only))
        });
        let visible: Vec<Traffic> = visible.collect();
        let mut first: HashMap<&Traffic, TrafficId> = HashMap::new();
        let same = visible.iter().zip(0..).map(|(traffic, id)| *first.entry(traffic).or_insert(id));
        Self {
            same_visible: same.collect(),
            visible,
            denied: options.only_denied,
            requested: options.traffic.clone(),
            reach,
            ends,
            groups,
            from,
            to,
            forwarding,
            blocked,
            unaffected_pods: unaffected_pods(cluster),
        }
    }

    /// Returns all ends, sorted, regardless of filters.
    pub fn ends(&self) -> impl ExactSizeIterator<Item = &ConnectionEnd> {
        self.ends.iter().map(|end| &end.end)
    }

    /// Returns an end by its index. Panics if there is none.
    #[must_use]
    pub fn end(&self, index: usize) -> &ConnectionEnd {
        &self.ends[index].end
    }

    /// Returns the pods to which no policy applies, sorted.
    #[must_use]
    pub fn unaffected_pods(&self) -> &[UnaffectedPod] {
        &self.unaffected_pods
    }

    /// Returns the traffic that routes require and policies deny, sorted by end, regardless of filters.
    #[must_use]
    pub fn blocked(&self) -> &[BlockedTraffic] {
        &self.blocked
    }

    /// Returns the number of peer classes: sets of addresses that no policy distinguishes.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.reach.classes
    }

    /// Returns the edges with any traffic, sorted by their ends. `O(from × to)` in total.
    pub fn edges(&self) -> impl Iterator<Item = Edge<'_>> {
        self.from.iter().flat_map(move |&from| {
            self.to.iter().flat_map(move |&to| self.between(from, to)).filter(|edge| !edge.traffic.is_none())
        })
    }

    /// Returns the edges between two ends. There are none if a connection is impossible, or if no policy applies to it.
    /// An edge may have no traffic.
    pub fn between(&self, from: usize, to: usize) -> impl Iterator<Item = Edge<'_>> {
        let edge = |id: TrafficId, v4, v6, exact| {
            let traffic = &self.visible[id as usize];
            Edge { from, to, families: Families { v4, v6 }, traffic, exact, through: &[] }
        };
        if matches!(self.ends[from].end, ConnectionEnd::IngressController(_)) {
            return self.forwarded(from, to).into_iter().flatten();
        }
        let edges = match self.pair(from, to).map(|pair| (self.decided(&pair), pair.exact)) {
            Some(([Some(v4), Some(v6)], exact))
                if self.same_visible[v4 as usize] == self.same_visible[v6 as usize] =>
            {
                [Some(edge(v4, true, true, exact)), None]
            }
            Some(([v4, v6], exact)) => {
                [v4.map(|id| edge(id, true, false, exact)), v6.map(|id| edge(id, false, true, exact))]
            }
            None => [None, None],
        };
        edges.into_iter().flatten()
    }

    /// Returns the visible traffic by [`TrafficId`].
    pub(crate) fn sets(&self) -> &[Traffic] {
        &self.visible
    }

    /// Returns the traffic between two ends, certain and possible, by family, as indexes into [`Self::sets`]; `None` if
    /// there are no connections.
    pub(crate) fn ids(&self, from: usize, to: usize) -> Option<[Cell; 2]> {
        self.pair(from, to).map(|pair| [pair.certain, pair.possible])
    }

    /// Returns what is certain: what is allowed wherever unknown addresses lie, or else what is denied wherever they lie.
    fn decided(&self, pair: &PairTraffic) -> Cell {
        if self.denied { pair.possible } else { pair.certain }
    }

    /// Returns what the rules of one direction allow between two ends, wherever unknown addresses lie: those of `from` for
    /// egress, those of `to` for ingress. `None` if the ends don't share the family, or if an end has different kinds of addresses.
    pub(crate) fn allowed_by_rules_of(
        &self,
        from: usize,
        to: usize,
        direction: Direction,
        family: Family,
    ) -> Option<&Traffic> {
        let Groups::Equivalent(firsts) = &self.groups else { return None };
        let unit = |end: &PlacedEnd| Some(&self.reach.units[*firsts.get(end.group as usize)? as usize]);
        let (source, target) = (&self.ends[from], &self.ends[to]);
        if matches!(source.end, ConnectionEnd::OwnNode(_)) {
            return None;
        }
        let (sent, received) = self.reach.sides(unit(source)?, unit(target)?, index(family))?;
        Some(self.reach.traffic(if direction == Direction::Egress { sent } else { received }))
    }

    /// Returns what one end may send to another; `None` if there are no such pairs.
    fn pair(&self, from: usize, to: usize) -> Option<PairTraffic> {
        let (source, target) = (&self.ends[from], &self.ends[to]);
        if (from == to && source.placement.pods < 2) || !are_connected(source, target) {
            return None;
        }
        match &self.groups {
            Groups::Equivalent(firsts) => {
                let unit = |end: &PlacedEnd| &self.reach.units[firsts[end.group as usize] as usize];
                Some(pair_of_units(&self.reach, source, unit(source), unit(target)))
            }
            Groups::Summed(_, sums) => sums.get(&(source.group, target.group)).copied(),
        }
    }

    /// Returns what can compute the traffic of many pairs, as far as it is decided.
    pub(crate) fn cells(&self) -> Cells<'_> {
        let scan = if self.denied { self.reach.possible_scan() } else { self.reach.scan() };
        Cells { connections: self, scan, from: 0 }
    }

    /// Returns the units of an end. The ingress controller has none.
    pub(crate) fn units_of(&self, end: usize) -> impl Iterator<Item = &Unit> {
        let group = self.ends[end].group as usize;
        let ids = match &self.groups {
            Groups::Equivalent(firsts) => firsts.get(group).map(std::slice::from_ref),
            Groups::Summed(units, _) => units.get(group).map(|units| &units[..]),
        };
        ids.unwrap_or_default().iter().map(|id| &self.reach.units[*id as usize])
    }

    /// Returns a value that is equal for ends with the same traffic, except for the nodes that they run on.
    pub(crate) fn traffic_key(&self, end: usize) -> TrafficKey {
        match &self.groups {
            Groups::Equivalent(_) => TrafficKey::Unit(self.units_of(end).next().map(Unit::traffic_key)),
            Groups::Summed(..) => TrafficKey::Group(self.ends[end].group),
        }
    }
}

/// What distinguishes the traffic of an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TrafficKey {
    Unit(Option<UnitTrafficKey>),
    Group(UnitGroupId),
}

/// Computes the traffic from one end at a time to others.
pub(crate) struct Cells<'a> {
    connections: &'a Connections,
    scan: Scan<'a>,
    from: usize,
}

impl<'a> Cells<'a> {
    /// Returns the connections.
    pub(crate) fn connections(&self) -> &'a Connections {
        self.connections
    }

    /// Makes an end the source.
    pub(crate) fn from(&mut self, from: usize) {
        self.from = from;
        if let (Groups::Equivalent(_), Some(unit)) =
            (&self.connections.groups, self.connections.units_of(from).next())
        {
            self.scan.from(unit);
        }
    }

    /// Returns what the source may send to an end, and whether all pairs may; `None` if there are no such pairs. An
    /// end with a single pod is treated as if it had several.
    pub(crate) fn to(&self, to: usize) -> Option<(Cell, bool)> {
        let Self { connections: all, scan, from } = self;
        let (source, target) = (&all.ends[*from], &all.ends[to]);
        if !are_connected(source, target) {
            return None;
        }
        match &all.groups {
            Groups::Equivalent(_) if matches!(source.end, ConnectionEnd::OwnNode(_)) => {
                let unit = |end| all.units_of(end).next();
                Some((all.reach.cell_from_own_node(unit(*from)?, unit(to)?), true))
            }
            Groups::Equivalent(_) => Some((scan.cell(all.units_of(to).next()?, &all.reach.traffics), true)),
            Groups::Summed(_, sums) => {
                let pair = sums.get(&(source.group, target.group))?;
                Some((all.decided(pair), pair.exact))
            }
        }
    }
}

/// Returns whether there are connections from one end to another that policies apply to.
fn are_connected(source: &PlacedEnd, target: &PlacedEnd) -> bool {
    is_subject_to_policies(source, target)
        && (!target.end.is_pods() || target.placement.may_be_called_by(source))
}

/// Returns whether policies apply to connections between two ends. An own node is only a source: as a destination it is
/// a node like any other (SEMANTICS G-5). Forwarded traffic is computed separately.
fn is_subject_to_policies(from: &PlacedEnd, to: &PlacedEnd) -> bool {
    if matches!(from.end, ConnectionEnd::IngressController(_)) {
        return false;
    }
    let only_source = matches!(to.end, ConnectionEnd::OwnNode(_) | ConnectionEnd::IngressController(_));
    (from.end.is_pods() && !only_source) || to.end.is_pods()
}

/// Returns what one unit of `from` may send to another unit.
fn pair_of_units(reach: &Reach, from: &PlacedEnd, source: &Unit, target: &Unit) -> PairTraffic {
    let own_node = matches!(from.end, ConnectionEnd::OwnNode(_));
    let certain =
        if own_node { reach.cell_from_own_node(source, target) } else { reach.cell(source, target) };
    let known = own_node || !reach.has_unknown_places();
    let possible = if known { certain } else { reach.possible_cell(source, target) };
    PairTraffic { certain, possible, exact: true }
}

/// Computes the total traffic between the units of ends. `O(units²)`.
fn sums(reach: &mut Reach, groups: &[UnitGroup], ends: &[PlacedEnd]) -> Sums {
    let mut sums = Sums::new();
    for from in ends {
        for to in ends {
            if !is_subject_to_policies(from, to) {
                continue;
            }
            let (mut certain, mut possible): ([BTreeSet<TrafficId>; 2], [BTreeSet<TrafficId>; 2]) =
                Default::default();
            for (source, pods) in &groups[from.group as usize].units {
                for (target, placement) in &groups[to.group as usize].units {
                    // Without another pod in the end, the traffic between two such pods is as good as any: the end
                    // has no connection to itself. Folding depends on it.
                    let itself = source == target && pods.pods < 2 && from.placement.pods > 1;
                    if itself || (to.end.is_pods() && !placement.may_be_called_by(from)) {
                        continue;
                    }
                    let unit = |id: u32| &reach.units[id as usize];
                    let pair = pair_of_units(reach, from, unit(*source), unit(*target));
                    certain.iter_mut().zip(pair.certain).for_each(|(found, id)| found.extend(id));
                    possible.iter_mut().zip(pair.possible).for_each(|(found, id)| found.extend(id));
                }
            }
            let exact = certain.iter().all(|ids| ids.len() < 2);
            let mut sum = |ids: &BTreeSet<TrafficId>| {
                let all = ids.iter().map(|id| reach.traffic(*id)).fold(None, |sum: Option<Traffic>, t| {
                    Some(sum.map_or_else(|| t.clone(), |sum| sum.union(t)))
                });
                all.map(|all| reach.traffics.id(all))
            };
            let certain = certain.each_ref().map(&mut sum);
            let possible = possible.each_ref().map(&mut sum);
            if certain != [None, None] {
                sums.insert((from.group, to.group), PairTraffic { certain, possible, exact });
            }
        }
    }
    sums
}

/// Returns whether a filter selects an end.
fn selects(filter: &EndFilter, end: &PlacedEnd) -> bool {
    let holds_pod_of = |end: &ConnectionEnd| filter.pods.iter().any(|pod| end.holds_pod(pod));
    match &end.end {
        ConnectionEnd::Workload(w) => filter.namespaces.contains(&w.namespace) || holds_pod_of(&end.end),
        ConnectionEnd::Pod { key, .. } => {
            filter.namespaces.contains(&key.namespace) || filter.pods.contains(key)
        }
        ConnectionEnd::Namespace(name) => {
            filter.namespaces.contains(name) || filter.pods.iter().any(|p| p.namespace == *name)
        }
        ConnectionEnd::Class(all) => {
            all.iter().any(|w| filter.namespaces.contains(&w.namespace)) || holds_pod_of(&end.end)
        }
        ConnectionEnd::OwnNode(_) | ConnectionEnd::Nodes(_) => {
            end.placement.nodes.iter().any(|n| filter.nodes.contains(n))
        }
        // An external end lies either inside or outside of each filter range.
        ConnectionEnd::External(e) => {
            e.ranges.iter().any(|range| filter.ranges.iter().any(|own| own.contains(range.first)))
        }
        ConnectionEnd::IngressController(_) => filter.controller,
    }
}

/// Returns pods to which no policy applies, except for those that have terminated.
fn unaffected_pods(cluster: &Cluster) -> Vec<UnaffectedPod> {
    let is_unaffected = |p: &&Pod| !p.is_running() && !matches!(p.phase, Phase::Succeeded | Phase::Failed);
    let pods = cluster.pods.values().filter(is_unaffected).map(|pod| {
        let (workload_kind, workload_name) = match &pod.workload {
            Some(workload) => (workload.kind.clone(), workload.name.clone()),
            None => ("Pod".into(), pod.key.name.clone()),
        };
        let host_network_of = pod.node.clone().filter(|_| pod.host_network);
        UnaffectedPod { pod: pod.key.clone(), workload_kind, workload_name, host_network_of }
    });
    pods.collect()
}
