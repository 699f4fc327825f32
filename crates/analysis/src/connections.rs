//! Every connection that is allowed in a cluster: between its pods, and between them and the outside.
//!
//! What is answered for are new connections after destination NAT (SEMANTICS G-1). A pod always reaches itself
//! (A41); that is not listed. Host-network pods count as their node (G-4). Connections in which no pod takes part are
//! no policy's business and not listed either.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use palisade_policy::{Cluster, Direction, Family, IpRange, Name, ObjectKey, Phase, Pod, Traffic};

use crate::{
    end::{ConnectionEnd, WorkloadPods},
    entrances::{Blocked, Entrance, Entrances},
    families::{Families, index},
    grouping::{Ends, PlacedEnd, UnitGroup, UnitGroupId},
    query::{ConnectionsOptions, EndFilter, GroupBy},
    reach::{Reach, Unit},
    traffics::{Cell, TrafficId},
};

/// What one end may open to another; or what it may not, if that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge<'a> {
    /// Who opens: an index into [`Connections::ends`].
    pub from: usize,
    /// Who is called, likewise. Equal to `from`: between different pods of it.
    pub to: usize,
    /// In which families. Where both ends have both and may use the same in both, there is one edge; else one each.
    pub families: Families,
    /// Which protocols and destination ports.
    pub traffic: &'a Traffic,
    /// Whether every pair of addresses that the ends stand for may use all of it. False only by namespace.
    pub exact: bool,
    /// What leads there, if [`Self::from`] is an [`ConnectionEnd::IngressController`]: indexes into [`Entrances::routes`].
    pub through: &'a [usize],
}

/// A pod on which no policy acts, since it uses its node's network or has no address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bystander {
    /// The pod.
    pub pod: ObjectKey,
    /// The kind of what it belongs to; `Pod` for a bare pod.
    pub workload_kind: Name,
    /// The name of what it belongs to.
    pub workload_name: Name,
    /// The node that it runs on, if it uses that node's network: look there for its connections.
    pub host_network_of: Option<Name>,
}

/// Every connection of a cluster. Equal clusters give equal answers in equal order, whatever order they were read in.
#[derive(Debug)]
pub struct Connections {
    reach: Reach,
    ends: Vec<PlacedEnd>,
    groups: Groups,
    from: Vec<usize>,
    to: Vec<usize>,
    /// What is shown of each set of traffic.
    shown: Vec<Traffic>,
    /// What is forwarded to groups, as it is shown; and by which routes.
    entered: HashMap<UnitGroupId, Shown>,
    blocked: Vec<Blocked>,
    bystanders: Vec<Bystander>,
}

/// What is shown between the controller and a group.
#[derive(Debug)]
struct Shown {
    traffic: [Option<Traffic>; 2],
    exact: bool,
    through: Vec<usize>,
}

/// What pairs of groups may send, and whether every pair of their units may send it.
type Sums = HashMap<(UnitGroupId, UnitGroupId), (Cell, bool)>;

#[derive(Debug)]
enum Groups {
    /// The unit that speaks for each group.
    Alike(Vec<u32>),
    /// What was summed up for pairs of groups.
    Summed(Sums),
}

impl Connections {
    /// Answers for a cluster. `O(pods + policies × what they name + classes²)`; the pairs of ends are walked when
    /// [`Self::edges`] is.
    #[must_use]
    pub fn new(cluster: &Cluster, options: &ConnectionsOptions) -> Self {
        let filters = options.from.iter().chain(&options.to);
        let marks: Vec<Vec<IpRange>> = filters.flat_map(EndFilter::marks).collect();
        let mut reach = Reach::new(cluster, &marks, &options.entrances);
        let controller = controller(cluster, &options.entrances);
        let Ends { groups, ends } = Ends::new(&reach, options.group_by, options.nodes, controller);
        let (entered, blocked) = entered(&reach, &groups, &ends, options);
        let groups = if options.group_by == GroupBy::Namespace {
            Groups::Summed(sums(&mut reach, &groups, &ends))
        } else {
            Groups::Alike(groups.iter().map(|g| g.units[0].0).collect())
        };
        let chosen = |filter: &Option<EndFilter>| -> Vec<usize> {
            let is_chosen = |end: &PlacedEnd| filter.as_ref().is_none_or(|f| chooses(f, end));
            ends.iter().enumerate().filter(|(_, end)| is_chosen(end)).map(|(i, _)| i).collect()
        };
        let (from, to) = (chosen(&options.from), chosen(&options.to));
        let shown = reach.traffics.all().iter().map(|traffic| {
            let traffic =
                if options.only_denied { Traffic::all().difference(traffic) } else { traffic.clone() };
            options.traffic.as_ref().map_or_else(|| traffic.clone(), |only| traffic.intersection(only))
        });
        let shown = shown.collect();
        Self { shown, reach, ends, groups, from, to, entered, blocked, bystanders: bystanders(cluster) }
    }

    /// The ends, sorted. All of them, whatever was filtered.
    pub fn ends(&self) -> impl ExactSizeIterator<Item = &ConnectionEnd> {
        self.ends.iter().map(|end| &end.end)
    }

    /// The end with this index. Panics if there is none.
    #[must_use]
    pub fn end(&self, index: usize) -> &ConnectionEnd {
        &self.ends[index].end
    }

    /// The pods on which no policy acts; sorted.
    #[must_use]
    pub fn bystanders(&self) -> &[Bystander] {
        &self.bystanders
    }

    /// What routes ask for and policies deny, whatever was filtered; sorted by end.
    #[must_use]
    pub fn blocked(&self) -> &[Blocked] {
        &self.blocked
    }

    /// How many peer classes there are: sets of addresses that no policy tells apart.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.reach.classes
    }

    /// The edges that are not empty, sorted by their ends. `O(from × to)` for the whole walk.
    pub fn edges(&self) -> impl Iterator<Item = Edge<'_>> {
        self.from.iter().flat_map(move |&from| {
            self.to.iter().flat_map(move |&to| self.between(from, to)).filter(|edge| !edge.traffic.is_none())
        })
    }

    /// What is shown between two ends; nothing if no connection between them is possible, or none that a policy
    /// could act on. May be empty of traffic.
    pub fn between(&self, from: usize, to: usize) -> impl Iterator<Item = Edge<'_>> {
        let edge = |id: TrafficId, v4, v6, exact| {
            let traffic = &self.shown[id as usize];
            Edge { from, to, families: Families { v4, v6 }, traffic, exact, through: &[] }
        };
        if matches!(self.ends[from].end, ConnectionEnd::IngressController(_)) {
            return self.forwarded(from, to).into_iter().flatten();
        }
        let edges = match self.cell(from, to) {
            Some(([Some(v4), Some(v6)], exact))
                if v4 == v6 || self.shown[v4 as usize] == self.shown[v6 as usize] =>
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

    /// What the controller may send to pods; or may not.
    fn forwarded(&self, from: usize, to: usize) -> [Option<Edge<'_>>; 2] {
        let target = &self.ends[to];
        let Some(shown) = self.entered.get(&target.group).filter(|_| target.end.is_pods()) else {
            return [None, None];
        };
        by_family(&shown.traffic).map(|found| {
            let (families, traffic) = found?;
            Some(Edge { from, to, families, traffic, exact: shown.exact, through: &shown.through })
        })
    }

    /// What is shown, by number.
    pub(crate) fn sets(&self) -> &[Traffic] {
        &self.shown
    }

    /// What is shown between two ends, by family, as numbers of [`Self::sets`]; `None` if there are no such pairs.
    pub(crate) fn ids(&self, from: usize, to: usize) -> Option<Cell> {
        self.cell(from, to).map(|(cell, _)| cell)
    }

    /// What the rules of one side allow by themselves between two ends: those of `from` for egress, those of `to` for
    /// ingress. `None` if they don't share the family, or if ends are no single kind of addresses.
    pub(crate) fn one_side(
        &self,
        from: usize,
        to: usize,
        direction: Direction,
        family: Family,
    ) -> Option<&Traffic> {
        let Groups::Alike(firsts) = &self.groups else { return None };
        let unit = |end: &PlacedEnd| Some(&self.reach.units[*firsts.get(end.group as usize)? as usize]);
        let (source, target) = (&self.ends[from], &self.ends[to]);
        if matches!(source.end, ConnectionEnd::OwnNode(_)) {
            return None;
        }
        let (sent, received) = self.reach.sides(unit(source)?, unit(target)?, index(family))?;
        Some(self.reach.traffic(if direction == Direction::Egress { sent } else { received }))
    }

    /// What one end may send to another, and whether all pairs may; `None` if there are no such pairs.
    fn cell(&self, from: usize, to: usize) -> Option<(Cell, bool)> {
        let (source, target) = (&self.ends[from], &self.ends[to]);
        if from == to && source.placement.pods < 2 {
            return None;
        }
        if !may_exchange(source, target) || (target.end.is_pods() && !target.placement.may_meet(source)) {
            return None;
        }
        match &self.groups {
            Groups::Alike(firsts) => {
                let unit = |end: &PlacedEnd| &self.reach.units[firsts[end.group as usize] as usize];
                Some((unit_cell(&self.reach, source, unit(source), unit(target)), true))
            }
            Groups::Summed(sums) => sums.get(&(source.group, target.group)).copied(),
        }
    }
}

/// Whether connections between two ends of these kinds are any policy's business. The own node is only ever a source:
/// as a destination it is a node like any other (SEMANTICS G-5). What is forwarded is asked about by itself.
fn may_exchange(from: &PlacedEnd, to: &PlacedEnd) -> bool {
    if matches!(from.end, ConnectionEnd::IngressController(_)) {
        return false;
    }
    let only_source = matches!(to.end, ConnectionEnd::OwnNode(_) | ConnectionEnd::IngressController(_));
    (from.end.is_pods() && !only_source) || to.end.is_pods()
}

/// What one unit of `from` may send to another unit.
fn unit_cell(reach: &Reach, from: &PlacedEnd, source: &Unit, target: &Unit) -> Cell {
    if matches!(from.end, ConnectionEnd::OwnNode(_)) {
        reach.cell_from_own_node(source, target)
    } else {
        reach.cell(source, target)
    }
}

/// Sums up what the units of ends may send to each other. `O(units²)`.
fn sums(reach: &mut Reach, groups: &[UnitGroup], ends: &[PlacedEnd]) -> Sums {
    let mut sums = Sums::new();
    for from in ends {
        for to in ends {
            if !may_exchange(from, to) {
                continue;
            }
            let mut found: [BTreeSet<TrafficId>; 2] = Default::default();
            for (source, pods) in &groups[from.group as usize].units {
                for (target, placement) in &groups[to.group as usize].units {
                    let itself = source == target && pods.pods < 2;
                    if itself || (to.end.is_pods() && !placement.may_meet(from)) {
                        continue;
                    }
                    let unit = |id: u32| &reach.units[id as usize];
                    let cell = unit_cell(reach, from, unit(*source), unit(*target));
                    found.iter_mut().zip(cell).for_each(|(found, id)| found.extend(id));
                }
            }
            let exact = found.iter().all(|ids| ids.len() < 2);
            let cell = found.map(|ids| {
                let all = ids.iter().map(|id| reach.traffic(*id)).fold(None, |sum: Option<Traffic>, t| {
                    Some(sum.map_or_else(|| t.clone(), |sum| sum.union(t)))
                });
                all.map(|all| reach.traffics.id(all))
            });
            if cell != [None, None] {
                sums.insert((from.group, to.group), (cell, exact));
            }
        }
    }
    sums
}

/// Whether a filter chooses an end.
fn chooses(filter: &EndFilter, end: &PlacedEnd) -> bool {
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
        // The ranges are marks: no range of an end lies both inside and outside.
        ConnectionEnd::External(e) => {
            e.ranges.iter().any(|range| filter.ranges.iter().any(|own| own.contains(range.first)))
        }
        ConnectionEnd::IngressController(_) => filter.controller,
    }
}

/// What forwards into the cluster, as an end: `None` if nothing leads in.
fn controller(cluster: &Cluster, entrances: &Entrances) -> Option<Vec<WorkloadPods>> {
    if !entrances.lead_somewhere() {
        return None;
    }
    let mut found: BTreeMap<(Name, Name, Name), Vec<Name>> = BTreeMap::new();
    for key in &entrances.controller {
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

/// What is forwarded to each group, as it is to be shown, and what of it is denied.
fn entered(
    reach: &Reach,
    groups: &[UnitGroup],
    ends: &[PlacedEnd],
    options: &ConnectionsOptions,
) -> (HashMap<UnitGroupId, Shown>, Vec<Blocked>) {
    let (mut shown, mut blocked) = (HashMap::new(), Vec::new());
    if !options.entrances.lead_somewhere() {
        return (shown, blocked);
    }
    for (to, end) in ends.iter().enumerate().filter(|(_, end)| end.end.is_pods()) {
        let units = || groups[end.group as usize].units.iter().map(|(id, _)| &reach.units[*id as usize]);
        if units().all(|unit| unit.target == 0) {
            continue;
        }
        let mut entrance = Entrance::default();
        for unit in units() {
            let forwarded = reach.targets.get(unit.target);
            entrance.add(&unit.entered, forwarded, |id| reach.traffic(id).clone());
        }
        let alike = units().all(|unit| Some(unit.entered) == units().next().map(|first| first.entered));
        entrance.exact = alike && units().all(|unit| !unit.entered.mixed);
        for (families, traffic) in by_family(&entrance.denied).into_iter().flatten() {
            if !traffic.is_none() {
                let through = entrance.through(&[Some(traffic.clone()), None]);
                blocked.push(Blocked { to, families, traffic: traffic.clone(), through });
            }
        }
        if let Some(only) = &options.traffic {
            entrance = entrance.restricted(only);
        }
        let traffic = if options.only_denied { &entrance.denied } else { &entrance.allowed };
        let through = entrance.through(traffic);
        let traffic = traffic.clone();
        shown.insert(end.group, Shown { traffic, exact: entrance.exact, through });
    }
    (shown, blocked)
}

/// What there is in both families alike, or in each.
fn by_family(traffic: &[Option<Traffic>; 2]) -> [Option<(Families, &Traffic)>; 2] {
    let one = |v4, v6| move |traffic| (Families { v4, v6 }, traffic);
    match traffic {
        [Some(v4), Some(v6)] if v4 == v6 => [Some(one(true, true)(v4)), None],
        [v4, v6] => [v4.as_ref().map(one(true, false)), v6.as_ref().map(one(false, true))],
    }
}

/// The pods on which no policy acts, though they may come to have an address.
fn bystanders(cluster: &Cluster) -> Vec<Bystander> {
    let still = |p: &&Pod| !p.is_live() && !matches!(p.phase, Phase::Succeeded | Phase::Failed);
    let pods = cluster.pods.values().filter(still).map(|pod| {
        let (workload_kind, workload_name) = match &pod.workload {
            Some(workload) => (workload.kind.clone(), workload.name.clone()),
            None => ("Pod".into(), pod.key.name.clone()),
        };
        let host_network_of = pod.node.clone().filter(|_| pod.host_network);
        Bystander { pod: pod.key.clone(), workload_kind, workload_name, host_network_of }
    });
    pods.collect()
}
