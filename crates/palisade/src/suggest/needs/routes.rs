//! Connections that ingress controllers forward.

use palisade_analysis::ControllerRoutes;
use palisade_names::{Route, route_backends};
use palisade_policy::Pod;

use super::{Collector, Side, Target, classes::alike};

impl<'c> Collector<'c> {
    pub(super) fn routes(&mut self, entrances: &ControllerRoutes) {
        let cluster = self.cluster;
        let pods = entrances.controller.iter().filter_map(|key| cluster.pods.get(key));
        let controllers = alike(pods);
        for (declared, route) in self.loaded.routes.iter().zip(&entrances.routes) {
            let Route { kind, key, origin, .. } = declared;
            let at = origin.as_ref().map(|origin| format!(" ({origin})")).unwrap_or_default();
            let name = format!("{kind} {key}{at}");
            for backend in &declared.backends {
                self.out.used.insert(backend.service.clone());
            }
            if route.backends.is_empty() {
                if !declared.backends.is_empty() {
                    self.out.unknown.insert(format!("{name}: its clients connect from outside the cluster"));
                }
                continue;
            }
            if controllers.is_empty() {
                self.out.undecided.insert(format!(
                    "{name}: its ingress controller is not in the input; add its manifests, or name it with --ingress-controller"
                ));
                continue;
            }
            self.route(route, &name, &controllers);
        }
    }

    fn route(&mut self, route: &Route, name: &str, controllers: &[Side<'c>]) {
        let mut targets = Vec::new();
        for backend in &route.backends {
            match route_backends(self.cluster, backend) {
                Ok(found) => {
                    for one in found {
                        targets.extend(of_pod(self.cluster, one.pod, one.protocol, one.port));
                    }
                }
                Err(why) => {
                    self.out.undecided.insert(format!("{name}: {why}"));
                }
            }
        }
        if !targets.is_empty() {
            let evidence = self.evidence(name.to_owned());
            self.connect(controllers, &targets, evidence);
        }
    }
}

/// Returns the endpoints of a pod with a port.
pub(super) fn of_pod(
    cluster: &palisade_policy::Cluster,
    pod: &Pod,
    protocol: palisade_policy::Protocol,
    port: u16,
) -> Vec<Target> {
    let ends = palisade_names::endpoints_of(cluster, pod).unwrap_or_default();
    ends.into_iter().map(|end| Target { end, protocol, port }).collect()
}
