//! The destinations of a question, each with the protocol and port that are asked about.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::{Context as _, Result, bail};
use palisade_names::{PortSpec, ServiceTarget};
use palisade_policy::{Cluster, ContainerPort, Endpoint, Family, Flow, Name, ObjectKey, Pod, Protocol};

use super::{
    ends::{End, Outside, Resolved, ServiceEnd},
    note::Note,
    spec::{EndpointSpec, ProtocolSpec, Spec},
};

/// A destination and its port.
pub(super) struct Target {
    /// The endpoint. `None`: outside the cluster.
    pub(super) end: Option<Endpoint>,
    /// The protocol and port.
    pub(super) call: TargetPort,
}

/// A protocol and port, and the service port that leads to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct TargetPort {
    protocol: ProtocolSpec,
    port: u16,
    pub(super) service: Option<(ObjectKey, u16)>,
}

impl TargetPort {
    fn new(protocol: Protocol, port: u16) -> Self {
        Self { protocol: ProtocolSpec::WithPorts(protocol), port, service: None }
    }

    /// Returns the flow to this port between two endpoints.
    pub(super) fn flow(&self, source: Endpoint, destination: Endpoint) -> Flow {
        let protocol = match (self.protocol, Family::of(destination.address())) {
            (ProtocolSpec::WithPorts(protocol), _) => protocol,
            (ProtocolSpec::Icmp, Family::V4) => Protocol::Other(1),
            (ProtocolSpec::Icmp, Family::V6) => Protocol::Other(58),
        };
        Flow { source, destination, protocol, port: self.port, through_service: self.service.is_some() }
    }
}

/// Returns the destinations of a spec with their ports: the one that was given, or every declared one.
///
/// # Errors
/// When no destination has such a port, or when a port is needed.
pub(super) fn targets(
    cluster: &Cluster,
    spec: &Spec,
    resolved: &Resolved<'_>,
    notes: &mut Vec<Note>,
) -> Result<Vec<Target>> {
    match &resolved.end {
        End::Outside(outside) => {
            let what = match outside {
                Outside::Internet => "the internet".to_owned(),
                Outside::Range(net) => net.to_string(),
                Outside::Host(host) => host.name.clone(),
            };
            Ok(vec![Target { end: None, call: given_port(spec, &what)? }])
        }
        End::Service(service) => service_targets(cluster, spec, service, notes),
        End::HostPort(ends) => Ok(ends
            .iter()
            .map(|(end, protocol, port)| Target {
                end: Some(end.clone()),
                call: TargetPort::new(*protocol, *port),
            })
            .collect()),
        End::Endpoints(ends) => {
            let mut out = Vec::new();
            for end in ends {
                let calls = target_ports(cluster, spec, end, &resolved.ports_on_nodes)?;
                out.extend(calls.into_iter().map(|call| Target { end: Some(end.clone()), call }));
            }
            match (out.is_empty(), &spec.port) {
                (false, _) => Ok(out),
                (true, Some(port)) => bail!(
                    "no pod of the destination declares a port named `{port}`{}; give its number",
                    declared(cluster, ends, &resolved.ports_on_nodes)
                ),
                (true, None) => bail!(
                    "the destination declares no container port{}; give the port: DST:PORT",
                    spec.protocol.map(|p| format!(" for {p}")).unwrap_or_default()
                ),
            }
        }
    }
}

/// How many ports an error lists.
const MAX_PORTS: usize = 8;

/// Formats the ports that pods declare: `; they declare http (TCP 8080), TCP 9090`.
fn declared(cluster: &Cluster, ends: &[Endpoint], on_nodes: &[ContainerPort]) -> String {
    let pods = ends.iter().filter_map(|end| pod_of(cluster, end));
    let ports = pods.flat_map(|pod| pod.ports.iter()).chain(on_nodes);
    let ports: BTreeSet<(Option<&Name>, Protocol, u16)> =
        ports.map(|p| (p.name.as_ref(), p.protocol, p.port)).collect();
    if ports.is_empty() {
        return " (they declare none)".to_owned();
    }
    let text = |(name, protocol, port): &(Option<&Name>, Protocol, u16)| match name {
        Some(name) => format!("{name} ({protocol} {port})"),
        None => format!("{protocol} {port}"),
    };
    let mut shown: Vec<String> = ports.iter().take(MAX_PORTS).map(text).collect();
    if ports.len() > MAX_PORTS {
        shown.push(format!("{} more", ports.len() - MAX_PORTS));
    }
    format!("; they declare {}", shown.join(", "))
}

fn pod_of<'a>(cluster: &'a Cluster, end: &Endpoint) -> Option<&'a Pod> {
    if let Endpoint::Pod { key, .. } = end { cluster.pods.get(key) } else { None }
}

/// Returns the port of a destination that declares no ports: the one that was given.
fn given_port(spec: &Spec, what: &str) -> Result<TargetPort> {
    match (&spec.port, spec.protocol) {
        (None, Some(ProtocolSpec::Icmp)) => {
            Ok(TargetPort { protocol: ProtocolSpec::Icmp, port: 0, service: None })
        }
        (Some(PortSpec::Number(port)), Some(ProtocolSpec::WithPorts(protocol))) => {
            Ok(TargetPort::new(protocol, *port))
        }
        (Some(PortSpec::Name(name)), _) => {
            bail!("{what} has no named ports; give the number of port `{name}`")
        }
        // `fd00::7:80` is an address of its own. The quotes keep shells from taking the brackets as a pattern.
        _ if matches!(spec.endpoint, EndpointSpec::Address(IpAddr::V6(_))) => {
            bail!("{what} declares no ports; give the port: '[{what}]:PORT[/PROTO]'")
        }
        _ => bail!("{what} declares no ports; give the port: DST:PORT[/PROTO]"),
    }
}

/// Returns the ports of an endpoint: the one given, or every declared one. `on_nodes`: those of the host-network pods that nodes stand for.
fn target_ports(
    cluster: &Cluster,
    spec: &Spec,
    end: &Endpoint,
    on_nodes: &[ContainerPort],
) -> Result<Vec<TargetPort>> {
    let declared = match (pod_of(cluster, end), end) {
        (Some(pod), _) => &*pod.ports,
        (None, Endpoint::Node { .. }) if !on_nodes.is_empty() => on_nodes,
        (None, Endpoint::Node { name, .. }) => return Ok(vec![given_port(spec, &format!("node {name}"))?]),
        (None, _) => return Ok(vec![given_port(spec, &end.to_string())?]),
    };
    let protocol = match spec.protocol {
        Some(ProtocolSpec::Icmp) => return Ok(vec![given_port(spec, "")?]),
        Some(ProtocolSpec::WithPorts(protocol)) => Some(protocol),
        None => None,
    };
    let wanted = |p: Protocol| protocol.is_none_or(|q| p == q);
    let ports: BTreeSet<(Protocol, u16)> = match &spec.port {
        Some(PortSpec::Number(port)) => BTreeSet::from([(protocol.unwrap_or(Protocol::Tcp), *port)]),
        Some(PortSpec::Name(name)) => {
            let named = declared.iter().filter(|p| p.name.as_ref() == Some(name) && wanted(p.protocol));
            named.map(|p| (p.protocol, p.port)).collect()
        }
        None => declared.iter().filter(|p| wanted(p.protocol)).map(|p| (p.protocol, p.port)).collect(),
    };
    Ok(ports.into_iter().map(|(protocol, port)| TargetPort::new(protocol, port)).collect())
}

fn service_targets(
    cluster: &Cluster,
    spec: &Spec,
    given: &ServiceEnd<'_>,
    notes: &mut Vec<Note>,
) -> Result<Vec<Target>> {
    let ServiceEnd { service, family, .. } = given;
    let protocol = match spec.protocol {
        Some(ProtocolSpec::Icmp) => bail!(
            "service addresses do not reply to ICMP; check the pods behind service {} instead",
            service.key
        ),
        Some(ProtocolSpec::WithPorts(protocol)) => Some(protocol),
        None => None,
    };
    let port = given.port.map(PortSpec::Number).or_else(|| spec.port.clone());
    let found = palisade_names::service_targets(cluster, service, protocol, port.as_ref())?;
    if service.access.headless {
        let target = service.ports.iter().find(|p| port == Some(PortSpec::Number(p.port))).map(|p| &p.target);
        notes.extend(target.and_then(|target| Note::headless(&service.key, port.as_ref(), target)));
    }
    if found.guessed {
        notes.push(Note::api_server());
    }
    let targets = match &given.node {
        // Without an endpoint of its own, the node drops the connection.
        Some(node) if service.access.external_local => {
            on_node(cluster, &found.targets, node).with_context(|| {
                format!(
                    "nothing answers on port {} of node {node}: service {} has externalTrafficPolicy: Local and no endpoint \
                     on this node",
                    spec.port.as_ref().map(ToString::to_string).unwrap_or_default(),
                    service.key
                )
            })?
        }
        _ => found.targets,
    };
    let mut out = Vec::new();
    for target in targets {
        if family.is_none_or(|f| Family::of(target.end.address()) == f) {
            let mut call = TargetPort::new(target.protocol, target.port);
            // Without translation, a pod that reaches itself uses its own address.
            let translated = !service.access.headless;
            call.service = translated.then(|| (service.key.clone(), target.service_port));
            out.push(Target { end: Some(target.end), call });
        }
    }
    Ok(out)
}

/// Returns the targets on a node; `None` if there are none. A pod without a node may be on any.
fn on_node(cluster: &Cluster, targets: &[ServiceTarget], node: &Name) -> Option<Vec<ServiceTarget>> {
    let is_on = |target: &&ServiceTarget| match &target.end {
        Endpoint::Pod { key, .. } => {
            cluster.pods.get(key).is_some_and(|pod| pod.node.as_ref().is_none_or(|n| n == node))
        }
        Endpoint::Node { name, .. } => name == node,
        Endpoint::External(_) => false,
    };
    let found: Vec<ServiceTarget> = targets.iter().filter(is_on).cloned().collect();
    (!found.is_empty()).then_some(found)
}
