//! The causes of changes of what an ingress controller forwards: edits of routes, services, the pods behind them and
//! the policies that select them.

use std::{collections::BTreeMap, sync::Arc};

use palisade_names::{Route, route_backends};
use palisade_policy::{
    Cluster, Direction, DomainName, Endpoint, Family, LearnedName, Name, ObjectKey, Service, Traffic,
};

use super::{
    blame,
    causes::CauseFinder,
    change::{Directions, Edit, ObjectChange},
    edits::{EndPair, PolicyPair, Reversal, learned_about},
};
use crate::{
    connections::Connections, controller::ControllerRoutes, end::ConnectionEnd, query::ConnectionsOptions,
};

/// The routes on both sides.
pub(super) struct RoutePairs<'r> {
    routes: BTreeMap<(&'r Name, &'r ObjectKey), [Option<&'r Route>; 2]>,
    sides: [&'r ControllerRoutes; 2],
}

impl<'r> RoutePairs<'r> {
    pub(super) fn new(sides: [&'r ControllerRoutes; 2]) -> Self {
        let mut routes: BTreeMap<_, [Option<&Route>; 2]> = BTreeMap::new();
        for (side, all) in sides.into_iter().enumerate() {
            for route in &all.routes {
                routes.entry((&route.kind, &route.key)).or_default()[side] = Some(route);
            }
        }
        Self { routes, sides }
    }

    /// Adds the causes of changed traffic from the controller to an end.
    pub(super) fn add(
        &self,
        finder: &CauseFinder<'_>,
        to: &ConnectionEnd,
        family: Family,
        changed: &Traffic,
        found: &mut BTreeMap<Edit, Directions>,
    ) {
        let [Some(before), Some(after)] =
            [0, 1].map(|side: usize| finder.representatives[side].of(to, family).next())
        else {
            return;
        };
        let Some(target) = EndPair::new(finder.clusters, [&before, &after]) else { return };
        let EndPair::Pod(pods) = &target else { return };
        let namespaces = self.sides.iter().flat_map(|side| side.controller.iter().map(|key| &key.namespace));
        let policies = finder.policies.of_pod_and_namespaces(pods, namespaces);
        let routes = self.leading_to(finder.clusters, [&before, &after]);
        let mut edits: Vec<Edit> = routes.iter().filter_map(|(_, sides)| route_edit(*sides)).collect();
        let services = services(finder.clusters, &routes);
        edits.extend(services.iter().filter_map(|(key, sides)| service_edit(key, *sides)));
        edits.extend(policies.iter().filter_map(|pair| Some(Edit::Policy(pair.changed.clone()?))));
        target.edits(&finder.keys, &mut edits);
        let learned = learned_about(finder.clusters[1], &[target], &policies);
        let scene = Scene { target, family, policies, learned, routes, services, sides: self.sides, edits };
        let causes =
            blame::causes(scene.edits.len(), changed, |reversed| scene.allowed(finder.clusters, reversed));
        for edit in causes {
            let edit = &scene.edits[edit];
            let directions = found.entry(edit.clone()).or_default();
            if !matches!(edit, Edit::Route(..) | Edit::Service(..)) {
                directions.add(Direction::Ingress);
            }
        }
    }

    /// Returns the routes that lead to the pod on either side.
    fn leading_to(&self, clusters: [&Cluster; 2], at: [&Endpoint; 2]) -> Vec<RoutePair<'r>> {
        let leads = |side: usize, route: &Route| {
            let Endpoint::Pod { key, .. } = at[side] else { return false };
            let mut backends =
                route.backends.iter().filter_map(|b| route_backends(clusters[side], b).ok()).flatten();
            backends.any(|backend| backend.pod.key == *key)
        };
        let leading = self.routes.iter().filter(|(_, sides)| {
            (0..2).any(|side: usize| sides[side].is_some_and(|route| leads(side, route)))
        });
        leading.map(|(key, sides)| (*key, *sides)).collect()
    }
}

type RoutePair<'r> = ((&'r Name, &'r ObjectKey), [Option<&'r Route>; 2]);
type ServicePair<'c> = (ObjectKey, [Option<&'c Service>; 2]);

fn route_edit(sides: [Option<&Route>; 2]) -> Option<Edit> {
    let [before, after] = sides.map(|r| r.map(|r| &r.backends));
    let route = sides.into_iter().flatten().next()?;
    let change = (before != after).then(|| ObjectChange::of(before, after)).flatten()?;
    Some(Edit::Route(route.kind.clone(), route.key.clone(), change))
}

/// Returns the services behind routes.
fn services<'c>(clusters: [&'c Cluster; 2], routes: &[RoutePair<'_>]) -> Vec<ServicePair<'c>> {
    let named = routes.iter().flat_map(|(_, sides)| sides.iter().flatten()).flat_map(|r| &r.backends);
    let mut keys: Vec<&ObjectKey> = named.map(|backend| &backend.service).collect();
    keys.sort_unstable();
    keys.dedup();
    keys.into_iter().map(|key| (key.clone(), clusters.map(|c| c.services.get(key)))).collect()
}

fn service_edit(key: &ObjectKey, [before, after]: [Option<&Service>; 2]) -> Option<Edit> {
    // Routes lead to pods whatever the service's address is.
    let seen = |service: Option<&Service>| service.map(|s| (s.selector.clone(), s.ports.clone()));
    let change = (seen(before) != seen(after)).then(|| ObjectChange::of(before, after)).flatten()?;
    Some(Edit::Service(key.clone(), change))
}

/// The controller and one pod behind routes, on both sides.
struct Scene<'a, 'c> {
    target: EndPair<'c>,
    family: Family,
    policies: Vec<&'a PolicyPair<'c>>,
    /// What is known after the change of names with the addresses of the pod.
    learned: BTreeMap<DomainName, LearnedName>,
    routes: Vec<RoutePair<'a>>,
    services: Vec<ServicePair<'c>>,
    sides: [&'a ControllerRoutes; 2],
    edits: Vec<Edit>,
}

impl Scene<'_, '_> {
    /// Returns the forwarded traffic that is allowed with some edits reversed.
    fn allowed(&self, clusters: [&Cluster; 2], reversed: &[bool]) -> Traffic {
        let reversal = Reversal { edits: &self.edits, reversed };
        let mut cluster = Cluster { learned: self.learned.clone(), ..Cluster::default() };
        for pair in &self.policies {
            if let Some(policy) = reversal.policy(pair) {
                cluster.policies.insert(policy.key.clone(), Arc::clone(policy));
            }
        }
        for (key, sides) in &self.services {
            let old = reversal.has(|edit| matches!(edit, Edit::Service(k, _) if k == key));
            if let Some(service) = sides[usize::from(!old)] {
                cluster.services.insert(key.clone(), service.clone());
            }
        }
        let mut controller_routes = ControllerRoutes::default();
        for ((kind, key), sides) in &self.routes {
            let old = reversal.has(|edit| matches!(edit, Edit::Route(k, o, _) if k == *kind && o == *key));
            controller_routes.routes.extend(sides[usize::from(!old)].cloned());
        }
        self.place_controller(clusters, &mut cluster, &mut controller_routes);
        self.target.place(&mut cluster, reversal);
        let options = ConnectionsOptions { nodes: true, controller_routes, ..ConnectionsOptions::default() };
        let EndPair::Pod(pods) = &self.target else { return Traffic::none() };
        forwarded(&cluster, &options, &pods.pods[1].key, self.family)
    }

    /// Adds the pods of the controller, if they are known, on the side after the change if they are named there.
    fn place_controller(
        &self,
        clusters: [&Cluster; 2],
        cluster: &mut Cluster,
        controller_routes: &mut ControllerRoutes,
    ) {
        let side = usize::from(!self.sides[1].controller.is_empty());
        for key in &self.sides[side].controller {
            let Some(pod) = clusters[side].pods.get_shared(key) else { continue };
            controller_routes.controller.insert(key.clone());
            cluster.pods.insert(Arc::clone(pod));
            let namespace = clusters[side].namespaces.get(&key.namespace);
            cluster.namespaces.extend(namespace.map(|n| (n.name.clone(), n.clone())));
            let node = pod.node.as_ref().and_then(|name| clusters[side].nodes.get(name));
            cluster.nodes.extend(node.map(|n| (n.name.clone(), n.clone())));
        }
    }
}

/// Returns what the controller may forward to a pod.
fn forwarded(cluster: &Cluster, options: &ConnectionsOptions, target: &ObjectKey, family: Family) -> Traffic {
    let answer = Connections::new(cluster, options);
    let place = |test: &dyn Fn(&ConnectionEnd) -> bool| answer.ends().position(test);
    let from = place(&|end| matches!(end, ConnectionEnd::IngressController(_)));
    let to = place(&|end| end.is_pods() && end.holds_pod(target));
    let (Some(from), Some(to)) = (from, to) else { return Traffic::none() };
    let edges = answer.between(from, to).filter(|edge| edge.families.contains(family));
    edges.fold(Traffic::none(), |sum, edge| sum.union(edge.traffic))
}
