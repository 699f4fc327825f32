//! Describes a namespace: its workloads, its policies, and the connections that cross its border.

use std::collections::{BTreeMap, BTreeSet};

use palisade_policy::{Cluster, Direction, Labels, Name, Policy, PolicyKey, Traffic};

use super::policy::selected_workloads;
use crate::{
    connections::Connections,
    controller::ControllerRoutes,
    end::ConnectionEnd,
    families::Families,
    judge::{AddressQuestion, Questions},
    overview::{WorkloadOverview, overview},
    query::{ConnectionsOptions, EndFilter},
};

/// The description of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceDescription {
    /// The namespace.
    pub name: Name,
    /// Its labels; `None` if only pods or policies mention it.
    pub labels: Option<Labels>,
    /// Its workloads, sorted. One whose pods are not equivalent has several entries.
    pub workloads: Vec<WorkloadOverview>,
    /// The policies of the namespace, and the cluster-wide policies that select pods of it, sorted.
    pub policies: Vec<NamespacePolicy>,
    /// The connections from outside the namespace into it, and from it to the outside, with the traffic that the
    /// policies of both ends allow: egress, ingress.
    pub crossing: [Vec<Crossing>; 2],
    /// What of these connections depends on addresses that are not known, and is not among them.
    pub undecided: UndecidedPairs,
    /// Whether DNS servers of the cluster are known.
    pub dns_known: bool,
}

/// Pairs of ends whose connections depend on addresses that are not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UndecidedPairs {
    /// The number of pairs.
    pub pairs: usize,
    /// The rules that ask for an address.
    pub questions: Vec<AddressQuestion>,
}

/// A policy that applies to pods of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespacePolicy {
    /// The policy.
    pub policy: PolicyKey,
    /// The directions to which it applies.
    pub directions: Vec<Direction>,
    /// How many workloads of the namespace it selects, at least in part.
    pub workloads: usize,
}

/// Connections that cross the border of a namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Crossing {
    /// The ends outside, sorted.
    pub outside: Vec<ConnectionEnd>,
    /// The ends in the namespace, sorted. Each may connect to each of the ends outside, or the reverse.
    pub inside: Vec<ConnectionEnd>,
    /// The IP families of connections with ends inside the cluster. Addresses outside have their own.
    pub families: Families,
    /// The traffic.
    pub traffic: Traffic,
}

/// Describes a namespace; `None` if nothing mentions it. Costs two computations of all connections.
#[must_use]
pub fn describe_namespace(
    cluster: &Cluster,
    name: &str,
    controller_routes: &ControllerRoutes,
) -> Option<NamespaceDescription> {
    let policies: Vec<NamespacePolicy> =
        cluster.policies.values().filter_map(|policy| applied(cluster, policy, name)).collect();
    let overview = overview(cluster);
    let known = cluster.namespaces.get_key_value(name);
    let of_overview = overview.namespaces.into_iter().find(|n| *n.name == *name);
    if known.is_none() && of_overview.is_none() && policies.is_empty() {
        return None;
    }
    let mut undecided = UndecidedPairs::default();
    let crossing = Direction::BOTH
        .map(|direction| crossing(cluster, name, direction, controller_routes, &mut undecided));
    Some(NamespaceDescription {
        name: known.map_or_else(|| Name::from(name), |(name, _)| name.clone()),
        labels: known.map(|(_, namespace)| namespace.labels.clone()),
        workloads: of_overview.map(|n| n.workloads).unwrap_or_default(),
        policies,
        crossing,
        undecided,
        dns_known: !overview.dns_servers.is_empty(),
    })
}

fn applied(cluster: &Cluster, policy: &Policy, namespace: &str) -> Option<NamespacePolicy> {
    let workloads = selected_workloads(cluster, policy);
    let here: BTreeSet<(&Name, &Name)> = workloads
        .iter()
        .filter(|workload| *workload.namespace == *namespace)
        .map(|workload| (&workload.kind, &workload.name))
        .collect();
    let own = *policy.key.namespace == *namespace;
    (own || !here.is_empty()).then(|| NamespacePolicy {
        policy: policy.key.clone(),
        directions: Direction::BOTH.into_iter().filter(|d| policy.rules(*d).is_some()).collect(),
        workloads: here.len(),
    })
}

/// Returns the connections that cross the border, folded: ends inside with the same ends outside share an entry. Adds those
/// that are not known.
fn crossing(
    cluster: &Cluster,
    namespace: &str,
    direction: Direction,
    controller_routes: &ControllerRoutes,
    undecided: &mut UndecidedPairs,
) -> Vec<Crossing> {
    let filter = Some(EndFilter { namespaces: [Name::from(namespace)].into(), ..EndFilter::default() });
    let mut options =
        ConnectionsOptions { controller_routes: controller_routes.clone(), ..ConnectionsOptions::default() };
    match direction {
        Direction::Egress => options.from = filter,
        Direction::Ingress => options.to = filter,
    }
    let connections = Connections::new(cluster, &options);
    let is_outside = |end: &ConnectionEnd| end.namespace().is_none_or(|other| **other != *namespace);
    let mut questions = Questions::new(cluster, &connections);
    for edge in connections.undecided() {
        if [edge.from, edge.to].into_iter().any(|end| is_outside(connections.end(end))) {
            undecided.pairs += 1;
            undecided.questions.extend(questions.of(&edge));
        }
    }
    let mut by_inside: BTreeMap<(usize, Families, Traffic), Vec<ConnectionEnd>> = BTreeMap::new();
    for edge in connections.edges() {
        let (inside, outside) = match direction {
            Direction::Egress => (edge.from, edge.to),
            Direction::Ingress => (edge.to, edge.from),
        };
        let outside = connections.end(outside);
        if is_outside(outside) {
            // Addresses outside say their family, so those of both families can share an entry.
            let both = Families { v4: true, v6: true };
            let families = if matches!(outside, ConnectionEnd::External(_)) { both } else { edge.families };
            let ends = by_inside.entry((inside, families, edge.traffic.clone())).or_default();
            ends.push(outside.clone());
        }
    }
    let mut folded: BTreeMap<(Vec<ConnectionEnd>, Families, Traffic), Vec<ConnectionEnd>> = BTreeMap::new();
    for ((inside, families, traffic), outside) in by_inside {
        let ends = folded.entry((outside, families, traffic)).or_default();
        ends.push(connections.end(inside).clone());
    }
    let crossing = |((outside, families, traffic), inside)| Crossing { outside, inside, families, traffic };
    folded.into_iter().map(crossing).collect()
}
