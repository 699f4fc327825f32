//! Ingresses and routes: the pods that forward connections for them, and messages about denied forwarding.

use anyhow::{Context as _, Result, bail};
use clap::Args;
use palisade_analysis::ControllerRoutes;
use palisade_manifest::Loaded;
use palisade_names::{Named, Route, find};
use palisade_policy::{Cluster, ObjectKey};

use crate::{
    can::{EndpointSpec, Spec},
    connection_ends, escape,
    traffic::VisibleTraffic,
};

/// The option that names the pods that forward connections into the cluster.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ControllerArguments {
    /// Workload that forwards connections for Ingresses, Gateways and Routes; may be repeated
    #[arg(long = "ingress-controller", value_name = "[NS/]WORKLOAD")]
    names: Vec<String>,
}

impl ControllerArguments {
    /// Returns the routes into a cluster and the pods that forward them. Names without a namespace are looked up in
    /// `namespace`.
    ///
    /// # Errors
    /// When a name has no pod with an address.
    pub(crate) fn entrances(&self, loaded: &Loaded, namespace: &str) -> Result<ControllerRoutes> {
        let mut out = ControllerRoutes { routes: loaded.routes.clone(), ..ControllerRoutes::default() };
        for name in &self.names {
            let pods = pods(&loaded.cluster, name, namespace)
                .with_context(|| format!("--ingress-controller `{name}`"))?;
            out.controller.extend(pods);
        }
        Ok(out)
    }
}

fn pods(cluster: &Cluster, name: &str, namespace: &str) -> Result<Vec<ObjectKey>> {
    let spec: Spec = name.parse()?;
    let EndpointSpec::Named { kind, namespace: own, name } = &spec.endpoint else {
        bail!("not a workload; use [NAMESPACE/][KIND/]NAME");
    };
    if spec.port.is_some() || spec.protocol.is_some() {
        bail!("the port or protocol must be omitted");
    }
    let namespace = own.as_deref().unwrap_or(namespace);
    let pods = match find(cluster, *kind, namespace, name)? {
        Named::Pod(pod) => vec![pod],
        Named::Workload(_, pods) => pods,
        Named::Node(_) | Named::Service(_) => bail!("not a workload; use [NAMESPACE/][KIND/]NAME"),
    };
    let node =
        |name: &palisade_policy::Name| cluster.nodes.get(name).is_some_and(|n| !n.addresses.is_empty());
    let places = |pod: &&palisade_policy::Pod| {
        pod.is_running() || (pod.host_network && pod.node.as_ref().is_some_and(node))
    };
    let keys: Vec<ObjectKey> = pods.into_iter().filter(places).map(|pod| pod.key.clone()).collect();
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
