//! Decides which gateways accept a route, and which services it may use.

use std::collections::BTreeMap;

use palisade_names::{Route, RouteBackend, route_backends};
use palisade_policy::{Cluster, Name, ObjectKey, Origin};

use crate::{
    declared::{
        AllowedNamespaces, DeclaredBackend, DeclaredRoute, Gateway, Listener, ParentKind, ParentRef,
        ReferenceGrant,
    },
    diagnostic::{Code, Diagnostic, Severity},
    gather::Gathered,
};

/// Returns the routes of a cluster, by kind and name. Unusable backends are left out and reported.
pub(crate) fn resolve(gathered: &mut Gathered, cluster: &Cluster, found: &mut Vec<Diagnostic>) -> Vec<Route> {
    let routes = std::mem::take(&mut gathered.routes);
    let mut resolver = Resolver { gateways: &gathered.gateways, grants: &gathered.grants, cluster, found };
    routes.into_iter().map(|((kind, key), declared)| resolver.route(kind, key, declared)).collect()
}

struct Resolver<'r> {
    gateways: &'r BTreeMap<ObjectKey, Gateway>,
    grants: &'r BTreeMap<ObjectKey, ReferenceGrant>,
    cluster: &'r Cluster,
    found: &'r mut Vec<Diagnostic>,
}

impl Resolver<'_> {
    fn route(&mut self, kind: Name, key: ObjectKey, declared: DeclaredRoute) -> Route {
        let class = declared.class.clone().or_else(|| self.gateway_class(&declared));
        let mut out = Route { kind, key, class, backends: Vec::new(), origin: Some(declared.origin.clone()) };
        if !self.is_attached(&out, &declared) {
            return out;
        }
        for (backend, (origin, path)) in declared.backends {
            if let Err(message) = self.check(&out, &backend) {
                self.warn(&out, origin, Some(path), Code::NoBackend, message);
            } else {
                let DeclaredBackend { service, port, protocol } = backend;
                out.backends.push(RouteBackend { service, port, protocol });
            }
        }
        out
    }

    /// Returns the class of the first gateway of a route that is known.
    fn gateway_class(&self, declared: &DeclaredRoute) -> Option<Name> {
        let parents = declared.parents.iter().flatten();
        parents.filter_map(|parent| self.gateways.get(&parent.key)).find_map(|gateway| gateway.class.clone())
    }

    /// Returns an error if the route can't use the backend.
    fn check(&self, route: &Route, backend: &DeclaredBackend) -> Result<(), String> {
        let DeclaredBackend { service, port, protocol } = backend.clone();
        if service.namespace != route.key.namespace && !self.is_granted(route, &service) {
            return Err(format!(
                "service {service} is in another namespace, and no ReferenceGrant there lets a {} of namespace {} \
                 use it: no requests are sent to it",
                route.kind, route.key.namespace
            ));
        }
        let backend = RouteBackend { service, port, protocol };
        route_backends(self.cluster, &backend)
            .map(drop)
            .map_err(|error| format!("backend not found: {error}"))
    }

    fn is_granted(&self, route: &Route, service: &ObjectKey) -> bool {
        let here = self.grants.iter().filter(|(key, _)| key.namespace == service.namespace);
        here.map(|(_, grant)| grant).any(|grant| {
            grant
                .from
                .iter()
                .any(|(kind, namespace)| *kind == route.kind && *namespace == route.key.namespace)
                && grant.to.iter().any(|name| name.as_ref().is_none_or(|name| *name == service.name))
        })
    }

    /// Returns whether anything forwards to the route. An unknown gateway is reported, and counts as one that accepts
    /// the route.
    fn is_attached(&mut self, route: &Route, declared: &DeclaredRoute) -> bool {
        let Some(parents) = &declared.parents else { return true };
        if parents.is_empty() {
            let message = "has no parentRefs: no gateway forwards requests to it";
            self.warn(route, declared.origin.clone(), None, Code::NotAttached, message.to_owned());
            return false;
        }
        let mut attached = false;
        for parent in parents {
            let ParentRef { kind, key, .. } = parent;
            match (kind, self.gateways.get(key)) {
                (ParentKind::Service, _) => {}
                (ParentKind::Other, _) => attached = true,
                (ParentKind::Gateway, None) => {
                    attached = true;
                    let message =
                        format!("Gateway {key} is not in the manifests; it is assumed to accept the route");
                    self.warn(route, declared.origin.clone(), None, Code::NotAttached, message);
                }
                (ParentKind::Gateway, Some(gateway)) => {
                    match self.refusal(route, declared, parent, gateway) {
                        None => attached = true,
                        Some(why) => {
                            let message = format!("Gateway {key} doesn't accept it: {why}");
                            self.warn(route, declared.origin.clone(), None, Code::NotAttached, message);
                        }
                    }
                }
            }
        }
        attached
    }

    /// Returns why no listener of a gateway accepts a route: the last condition that some listener didn't meet.
    fn refusal(
        &self,
        route: &Route,
        declared: &DeclaredRoute,
        parent: &ParentRef,
        gateway: &Gateway,
    ) -> Option<String> {
        let meant = |l: &&Listener| {
            parent.section.as_ref().is_none_or(|name| l.name == *name)
                && (parent.port.is_none() || parent.port == l.port)
        };
        let mut listeners: Vec<&Listener> = gateway.listeners.iter().filter(meant).collect();
        let section = parent.section.as_ref().map(|s| format!(" named `{s}`")).unwrap_or_default();
        let port = parent.port.map(|p| format!(" on port {p}")).unwrap_or_default();
        if listeners.is_empty() {
            return Some(format!("it has no listener{section}{port}"));
        }
        listeners.retain(|l| l.kinds.as_ref().is_none_or(|kinds| kinds.contains(&route.kind)));
        if listeners.is_empty() {
            return Some(format!("no listener{section}{port} accepts routes of kind {}", route.kind));
        }
        let labels = self.cluster.namespaces.get(&route.key.namespace).map(|n| &n.labels);
        listeners.retain(|l| match &l.namespaces {
            AllowedNamespaces::Same => parent.key.namespace == route.key.namespace,
            AllowedNamespaces::All => true,
            AllowedNamespaces::Selector(selector) => labels.is_some_and(|labels| selector.matches(labels)),
            AllowedNamespaces::None => false,
        });
        if listeners.is_empty() {
            return Some(format!(
                "no listener{section}{port} accepts routes of namespace {} (allowedRoutes.namespaces)",
                route.key.namespace
            ));
        }
        listeners.retain(|l| hosts_match(l.host.as_deref(), &declared.hosts));
        listeners.is_empty().then(|| format!("no listener{section}{port} has one of its hostnames"))
    }

    fn warn(&mut self, route: &Route, origin: Origin, path: Option<String>, code: Code, message: String) {
        self.found.push(Diagnostic {
            origin: Some(origin),
            object: Some(format!("{} {}", route.kind, route.key)),
            path,
            ..Diagnostic::new(Severity::Warning, code, message)
        });
    }
}

/// Returns whether a listener's host matches one of a route's hosts.
fn hosts_match(listener: Option<&str>, route: &[Name]) -> bool {
    let Some(listener) = listener else { return true };
    route.is_empty() || route.iter().any(|host| host_matches(listener, host))
}

/// Compares two hosts. `*.example.com` matches every name below it, at any depth.
fn host_matches(a: &str, b: &str) -> bool {
    let (a, b) = (a.to_ascii_lowercase(), b.to_ascii_lowercase());
    match (a.strip_prefix('*'), b.strip_prefix('*')) {
        (None, None) => a == b,
        (Some(end), None) => b.len() > end.len() && b.ends_with(end),
        (None, Some(end)) => a.len() > end.len() && a.ends_with(end),
        (Some(x), Some(y)) => x.ends_with(y) || y.ends_with(x),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_match_if_a_name_fits_both() {
        for (a, b) in [
            ("a.example.com", "A.example.com"),
            ("*.example.com", "a.b.example.com"),
            ("a.example.com", "*.example.com"),
            ("*.example.com", "*.b.example.com"),
        ] {
            assert!(host_matches(a, b), "{a} {b}");
        }
        for (a, b) in [
            ("a.example.com", "b.example.com"),
            ("*.example.com", "example.com"),
            ("*.example.com", "badexample.com"),
            ("*.a.com", "*.b.com"),
        ] {
            assert!(!host_matches(a, b), "{a} {b}");
        }
        assert!(hosts_match(None, &["a".into()]) && hosts_match(Some("a"), &[]));
    }
}
