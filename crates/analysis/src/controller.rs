//! Traffic that an ingress controller forwards into a cluster: the pods and ports behind Ingresses and routes.
//!
//! Policies apply to a controller's connections as to those of any pod. Manifests rarely show which pod the controller
//! is. Unless it is given, it counts as a pod that no policy refers to: without labels, in a namespace with no label
//! except its name, at an address in no block. Policies that select such a pod apply to it. Denied traffic is reported,
//! since the real controller may have labels that allow it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use palisade_names::{Route, route_backends};
use palisade_policy::{Cluster, ObjectKey, PortSet, Traffic};

use crate::{
    families::Families,
    numbering::Numbering,
    traffics::{Cell, TrafficId},
};

/// Routes into the cluster, and the controller that serves them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ControllerRoutes {
    /// The Ingresses and routes.
    pub routes: Vec<Route>,
    /// The pods of the controller. Empty if they are unknown.
    pub controller: BTreeSet<ObjectKey>,
}

impl ControllerRoutes {
    /// Returns whether any route has a backend.
    pub(crate) fn have_backends(&self) -> bool {
        self.routes.iter().any(|route| !route.backends.is_empty())
    }
}

/// Traffic that routes require and policies deny.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockedTraffic {
    /// The destination: an index into [`crate::Connections::ends`].
    pub to: usize,
    /// The IP families.
    pub families: Families,
    /// The denied traffic.
    pub traffic: Traffic,
    /// The routes that require some of it: indexes into [`ControllerRoutes::routes`].
    pub through: Vec<usize>,
}

/// The traffic that is forwarded to one pod, by route, in the order of routes.
pub(crate) type RouteTraffic = Vec<(usize, Traffic)>;

/// The traffic that is forwarded to each pod. Equal traffic is stored once.
#[derive(Debug)]
pub(crate) struct ForwardingTargets {
    by_pod: HashMap<ObjectKey, u32>,
    sets: Numbering<RouteTraffic>,
}

impl ForwardingTargets {
    /// Collects the backends of routes. `O(backends × pods of their namespaces)`.
    pub(crate) fn new(cluster: &Cluster, routes: &[Route]) -> Self {
        let mut found: BTreeMap<&ObjectKey, RouteTraffic> = BTreeMap::new();
        for (number, route) in routes.iter().enumerate() {
            for backend in &route.backends {
                // Missing backends were reported when the routes were read.
                for at in route_backends(cluster, backend).into_iter().flatten() {
                    let traffic = Traffic::of(at.protocol, PortSet::range(at.port, at.port));
                    let all = found.entry(&at.pod.key).or_default();
                    match all.last_mut() {
                        Some((last, sum)) if *last == number => *sum = sum.union(&traffic),
                        _ => all.push((number, traffic)),
                    }
                }
            }
        }
        let mut sets = Numbering::default();
        sets.number(RouteTraffic::new());
        let by_pod = found.into_iter().map(|(key, set)| (key.clone(), sets.number(set))).collect();
        Self { by_pod, sets }
    }

    /// Returns the number of the traffic that is forwarded to a pod. 0 is none.
    pub(crate) fn of(&self, pod: &ObjectKey) -> u32 {
        self.by_pod.get(pod).copied().unwrap_or(0)
    }

    pub(crate) fn get(&self, number: u32) -> &RouteTraffic {
        self.sets.get(number)
    }

    /// Returns the traffic of all routes.
    pub(crate) fn traffic(&self, number: u32) -> Traffic {
        self.get(number).iter().fold(Traffic::none(), |sum, (_, traffic)| sum.union(traffic))
    }
}

/// The traffic that a controller may forward to equivalent pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct UnitForwarding {
    /// The traffic that routes require, by family; `None` if there is none or the pods lack the family.
    pub(crate) required: Cell,
    /// The part of it that policies allow.
    pub(crate) allowed: Cell,
    /// The same with what they allow for some possible values of unknown addresses.
    pub(crate) possible: Cell,
    /// Whether it differs between the pods of the controller.
    pub(crate) mixed: bool,
}

/// The traffic between the controller and a group of pods.
#[derive(Debug, Default)]
pub(crate) struct GroupForwarding {
    /// The allowed traffic, by family.
    pub(crate) allowed: [Option<Traffic>; 2],
    /// The traffic that routes require and policies deny.
    pub(crate) denied: [Option<Traffic>; 2],
    /// The traffic that routes require and unknown addresses decide about.
    pub(crate) undecided: [Option<Traffic>; 2],
    /// Whether every pod of the controller may send all of it to every pod of the group.
    pub(crate) exact: bool,
    /// The forwarded traffic of each route.
    pub(crate) forwarded: BTreeMap<usize, Traffic>,
}

impl GroupForwarding {
    /// Adds the traffic of a unit of the group.
    pub(crate) fn add(
        &mut self,
        forwarding: &UnitForwarding,
        forwarded: &RouteTraffic,
        traffic: impl Fn(TrafficId) -> Traffic,
    ) {
        for family in 0..2 {
            let (Some(required), Some(allowed)) = (forwarding.required[family], forwarding.allowed[family])
            else {
                continue;
            };
            let (required, allowed) = (traffic(required), traffic(allowed));
            let possible = forwarding.possible[family].map_or_else(|| allowed.clone(), &traffic);
            let (denied, undecided) = (required.difference(&possible), possible.difference(&allowed));
            for (sum, more) in [
                (&mut self.allowed[family], allowed),
                (&mut self.denied[family], denied),
                (&mut self.undecided[family], undecided),
            ] {
                *sum = Some(sum.take().map_or_else(|| more.clone(), |sum| sum.union(&more)));
            }
        }
        for (route, more) in forwarded {
            let sum = self.forwarded.entry(*route).or_insert_with(Traffic::none);
            *sum = sum.union(more);
        }
    }

    /// Returns the routes that forward some of this traffic.
    pub(crate) fn through(&self, traffic: &[Option<Traffic>; 2]) -> Vec<usize> {
        let meets = |one: &Traffic| traffic.iter().flatten().any(|t| !t.intersection(one).is_none());
        self.forwarded.iter().filter(|(_, one)| meets(one)).map(|(route, _)| *route).collect()
    }

    /// Restricts it to this traffic.
    pub(crate) fn restricted(mut self, only: &Traffic) -> Self {
        let all = self.allowed.iter_mut().chain(&mut self.denied).chain(&mut self.undecided);
        for traffic in all.flatten() {
            *traffic = traffic.intersection(only);
        }
        self
    }
}
