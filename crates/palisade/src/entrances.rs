//! Ingresses and routes: the pods that forward connections for them, and messages about denied forwarding.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use palisade_analysis::ControllerRoutes;
use palisade_manifest::Loaded;
use palisade_names::{Named, Route, find, is_served_from_outside, recognized_controllers, unknown_anywhere};
use palisade_policy::{Cluster, Name, ObjectKey, Pod};

use crate::{
    can::{EndpointSpec, Spec},
    connection_ends, escape, output,
    traffic::VisibleTraffic,
};

/// The option that names the pods that forward connections into the cluster.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ControllerArguments {
    /// Workload that forwards connections for Ingresses, Gateways and Routes; may be repeated [default: well-known controllers,
    /// recognized by their labels, else the pods behind the only exposed Service with port 80 or 443]
    #[arg(long = "ingress-controller", value_name = "[NS/]WORKLOAD")]
    names: Vec<String>,
}

impl ControllerArguments {
    /// Returns whether the option was given.
    pub(crate) fn is_given(&self) -> bool {
        !self.names.is_empty()
    }

    /// Returns the routes into a cluster and the pods that forward them. Names without a namespace are looked up in
    /// `namespace`. Without names, well-known controllers are recognized, and a note says which. A route whose load balancer is
    /// outside the cluster forwards nothing: its connections come from outside addresses.
    ///
    /// # Errors
    /// When a name has no pod with an address.
    pub(crate) fn entrances(&self, loaded: &Loaded, namespace: &str) -> Result<ControllerRoutes> {
        let mut out = ControllerRoutes { routes: loaded.routes.clone(), ..ControllerRoutes::default() };
        if self.names.is_empty() {
            from_outside(&mut out.routes);
            if out.routes.iter().any(|route| !route.backends.is_empty()) {
                out.controller = recognized(&loaded.cluster, &out.routes);
            }
        }
        for name in &self.names {
            let pods = pods(&loaded.cluster, name, namespace)
                .with_context(|| format!("--ingress-controller `{name}`"))?;
            out.controller.extend(pods);
        }
        Ok(out)
    }
}

/// Removes the backends of routes whose load balancer is outside the cluster, and says so.
fn from_outside(routes: &mut [Route]) {
    let is_outside = |route: &Route| route.class.as_ref().is_some_and(|class| is_served_from_outside(class));
    let outside: Vec<usize> =
        (0..routes.len()).filter(|n| is_outside(&routes[*n]) && !routes[*n].backends.is_empty()).collect();
    let Some(class) = outside.first().and_then(|first| routes[*first].class.clone()) else { return };
    let names = escape::plain(&self::routes(&outside, routes)).into_owned();
    let verb = if outside.len() == 1 { "is" } else { "are" };
    output::note(&format!(
        "note: {names} {verb} served by a load balancer outside the cluster (class {}): its connections come from outside \
         addresses; if a pod serves them, name it with --ingress-controller\n",
        escape::plain(&class)
    ));
    for route in outside {
        routes[route].backends.clear();
    }
}

/// Returns the pods of well-known controllers, and says which they are.
fn recognized(cluster: &Cluster, routes: &[Route]) -> BTreeSet<ObjectKey> {
    let found = recognized_controllers(cluster, routes, |pod| has_place(cluster, pod));
    if !found.is_empty() {
        let workload = |key: &ObjectKey| match cluster.pods.get(key).and_then(|pod| pod.workload.as_ref()) {
            Some(workload) => format!("{}/{}/{}", key.namespace, workload.kind.to_lowercase(), workload.name),
            None => format!("{}/pod/{}", key.namespace, key.name),
        };
        let names: BTreeSet<String> = found
            .iter()
            .flat_map(|one| one.pods.iter().map(|key| format!("{} ({})", workload(key), one.sign)))
            .collect();
        let names: Vec<String> = names.into_iter().collect();
        output::note(&format!(
            "note: recognized as the ingress controller: {}; --ingress-controller names another\n",
            escape::plain(&connection_ends::abbreviated(&names, Clone::clone))
        ));
    }
    found.into_iter().flat_map(|one| one.pods).collect()
}

/// Returns whether the connections of a pod can be told: it runs at an address, or on a node with known addresses.
fn has_place(cluster: &Cluster, pod: &Pod) -> bool {
    let node = |name: &Name| cluster.nodes.get(name).is_some_and(|node| !node.addresses.is_empty());
    pod.is_running() || (pod.host_network && pod.node.as_ref().is_some_and(node))
}

fn pods(cluster: &Cluster, name: &str, namespace: &str) -> Result<Vec<ObjectKey>> {
    let spec: Spec = name.parse()?;
    let EndpointSpec::Named { kind, namespace: own, name } = &spec.endpoint else {
        bail!("not a workload; use [NAMESPACE/][KIND/]NAME");
    };
    if spec.port.is_some() || spec.protocol.is_some() {
        bail!("the port or protocol must be omitted");
    }
    let found = find(cluster, *kind, own.as_deref().unwrap_or(namespace), name).map_err(|error| match own {
        None => unknown_anywhere(cluster, *kind, name),
        Some(_) => error,
    });
    let pods = match found? {
        Named::Pod(pod) => vec![pod],
        Named::Workload(_, pods) => pods,
        Named::Node(_) | Named::Service(_) => bail!("not a workload; use [NAMESPACE/][KIND/]NAME"),
    };
    let keys: Vec<ObjectKey> =
        pods.into_iter().filter(|pod| has_place(cluster, pod)).map(|pod| pod.key.clone()).collect();
    if keys.is_empty() {
        bail!("none of its pods has an address or runs on a node with known addresses");
    }
    Ok(keys)
}

/// Formats routes: `Ingress shop/web (web.yaml:3), …`.
pub(crate) fn routes(through: &[usize], routes: &[Route]) -> String {
    connection_ends::abbreviated(through, |route| {
        let Route { kind, key, origin: source, .. } = &routes[*route];
        let at = source.as_ref().map(|s| format!(" ({s})")).unwrap_or_default();
        format!("{kind} {key}{at}")
    })
}

/// Returns the warning that policies deny connections that routes request. `named`: the user named the controller.
pub(crate) fn blocked(
    end: &str,
    traffic: &palisade_policy::Traffic,
    through: &[usize],
    all: &[Route],
    named: bool,
) -> String {
    let names = escape::plain(&routes(through, all)).into_owned();
    let verb = if through.len() == 1 { "leads" } else { "lead" };
    let whose = match named {
        true => "policies deny it to the ingress controller".to_owned(),
        false => "policies deny it to a pod without labels in a new namespace; if they allow your ingress controller, name \
                  it with --ingress-controller"
            .to_owned(),
    };
    format!("warning: {names} {verb} to {end} on {}, but {whose}\n", VisibleTraffic::of(traffic).text())
}
