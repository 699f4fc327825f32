//! What a controller forwards into a cluster: the pods and ports behind Ingresses and routes.
//!
//! A controller is a pod like any other, and what policies judge is a connection from it. Which pod it is, the
//! manifests seldom tell. Unless it is named it counts as one that no policy can know: without labels, in a namespace
//! that has none but its name, at an address that no block holds. The policies that select such a pod act on
//! it too. What it may not open is reported: the real controller may have labels that open it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use palisade_names::{Route, route_backends};
use palisade_policy::{Cluster, ObjectKey, PortSet, Traffic};

use crate::{
    families::Families,
    numbering::Numbering,
    traffics::{Cell, TrafficId},
};

/// What leads in, and through whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entrances {
    /// The objects that lead in.
    pub routes: Vec<Route>,
    /// The pods of the controller; none: it isn't known which pod it is.
    pub controller: BTreeSet<ObjectKey>,
}

impl Entrances {
    /// Whether any route has a backend.
    pub(crate) fn lead_somewhere(&self) -> bool {
        self.routes.iter().any(|route| !route.backends.is_empty())
    }
}

/// Connections that routes ask for and policies deny.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// Who would be called: an index into [`crate::Connections::ends`].
    pub to: usize,
    /// In which families.
    pub families: Families,
    /// What is denied.
    pub traffic: Traffic,
    /// The routes that ask for some of it: indexes into [`Entrances::routes`].
    pub through: Vec<usize>,
}

/// What is forwarded to one pod: by route, in order; what.
pub(crate) type Forwarded = Vec<(usize, Traffic)>;

/// What is forwarded to each pod, counted once for pods that get the same.
#[derive(Debug)]
pub(crate) struct Targets {
    by_pod: HashMap<ObjectKey, u32>,
    sets: Numbering<Forwarded>,
}

impl Targets {
    /// What routes lead to. `O(backends × pods of their namespaces)`.
    pub(crate) fn new(cluster: &Cluster, routes: &[Route]) -> Self {
        let mut found: BTreeMap<&ObjectKey, Forwarded> = BTreeMap::new();
        for (number, route) in routes.iter().enumerate() {
            for backend in &route.backends {
                // What leads nowhere was reported when it was read.
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
        sets.number(Forwarded::new());
        let by_pod = found.into_iter().map(|(key, set)| (key.clone(), sets.number(set))).collect();
        Self { by_pod, sets }
    }

    /// The number of what is forwarded to a pod; 0 is nothing.
    pub(crate) fn of(&self, pod: &ObjectKey) -> u32 {
        self.by_pod.get(pod).copied().unwrap_or(0)
    }

    pub(crate) fn get(&self, number: u32) -> &Forwarded {
        self.sets.get(number)
    }

    /// All that is forwarded.
    pub(crate) fn traffic(&self, number: u32) -> Traffic {
        self.get(number).iter().fold(Traffic::none(), |sum, (_, traffic)| sum.union(traffic))
    }
}

/// What a controller may forward to pods that no policy tells apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Entered {
    /// What routes ask for, by family; `None` without the family, or if they ask for nothing.
    pub(crate) asked: Cell,
    /// What of it is allowed.
    pub(crate) allowed: Cell,
    /// Whether that is the same for all pods of the controller.
    pub(crate) mixed: bool,
}

/// What is shown between the controller and a group of pods.
#[derive(Debug, Default)]
pub(crate) struct Entrance {
    /// What may be forwarded, by family.
    pub(crate) allowed: [Option<Traffic>; 2],
    /// What routes ask for and policies deny.
    pub(crate) denied: [Option<Traffic>; 2],
    /// Whether every pod of the group may be reached on all of it, from every pod of the controller.
    pub(crate) exact: bool,
    /// By route, what it leads to.
    pub(crate) forwarded: BTreeMap<usize, Traffic>,
}

impl Entrance {
    /// Takes in one more kind of pods of the group.
    pub(crate) fn add(
        &mut self,
        entered: &Entered,
        forwarded: &Forwarded,
        traffic: impl Fn(TrafficId) -> Traffic,
    ) {
        for family in 0..2 {
            let (Some(asked), Some(allowed)) = (entered.asked[family], entered.allowed[family]) else {
                continue;
            };
            let (asked, allowed) = (traffic(asked), traffic(allowed));
            let denied = asked.difference(&allowed);
            for (sum, more) in [(&mut self.allowed[family], allowed), (&mut self.denied[family], denied)] {
                *sum = Some(sum.take().map_or_else(|| more.clone(), |sum| sum.union(&more)));
            }
        }
        for (route, more) in forwarded {
            let sum = self.forwarded.entry(*route).or_insert_with(Traffic::none);
            *sum = sum.union(more);
        }
    }

    /// The routes that lead to some of this.
    pub(crate) fn through(&self, traffic: &[Option<Traffic>; 2]) -> Vec<usize> {
        let meets = |one: &Traffic| traffic.iter().flatten().any(|t| !t.intersection(one).is_none());
        self.forwarded.iter().filter(|(_, one)| meets(one)).map(|(route, _)| *route).collect()
    }

    /// The same, of this traffic alone.
    pub(crate) fn restricted(mut self, only: &Traffic) -> Self {
        for traffic in self.allowed.iter_mut().chain(&mut self.denied).flatten() {
            *traffic = traffic.intersection(only);
        }
        self
    }
}
