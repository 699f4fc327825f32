//! Resolves two specs to the flows between them.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail};
use palisade_analysis::regions::{self, Region};
use palisade_names::{PortSpec, ServiceTarget};
use palisade_policy::{Cluster, Direction, Endpoint, Family, Flow, Name, ObjectKey, Protocol};

use super::{
    ends::{self, End, ServiceEnd},
    spec::{ProtocolSpec, Spec},
};

/// A resolved question.
#[derive(Debug)]
pub(crate) struct Question {
    /// The source in full spelling.
    pub(crate) source: String,
    /// The destination in full spelling.
    pub(crate) destination: String,
    /// The flows to decide. Never empty.
    pub(crate) flows: Vec<QuestionFlow>,
}

/// One flow of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QuestionFlow {
    /// The flow.
    pub(crate) flow: Flow,
    /// The service through which it passes, if one was given.
    pub(crate) service: Option<ObjectKey>,
    /// The port of that service.
    pub(crate) service_port: Option<u16>,
    /// The part of the internet that one end represents.
    pub(crate) region: Option<Region>,
}

impl QuestionFlow {
    /// Returns the IP family of its addresses.
    pub(crate) fn family(&self) -> Family {
        Family::of(self.flow.destination.address())
    }
}

/// The most flows of a question; more would take gigabytes and minutes. A thousand pods on one side and a hundred on the
/// other are well below it.
const MAX_FLOWS: usize = 1_000_000;

/// Resolves a question against a cluster. Names without a namespace are looked up in `namespace`.
pub(crate) fn resolve(
    cluster: &Cluster,
    source: &Spec,
    destination: &Spec,
    namespace: &str,
) -> Result<Question> {
    if source.port.is_some() || source.protocol.is_some() {
        bail!("the source has a port or protocol; give it with the destination: SRC DST:PORT/PROTO");
    }
    let (from_name, from) = ends::end(cluster, source, namespace).context("source")?;
    let (to_name, to) = ends::end(cluster, destination, namespace).context("destination")?;
    let from = match from {
        End::Service(service) => End::Endpoints(ends::of_service(cluster, &service)?),
        other => other,
    };
    let mut asked = Vec::new();
    for target in targets(cluster, destination, &to)? {
        if asked.len() > MAX_FLOWS {
            bail!(
                "{from_name} and {to_name} have more than {MAX_FLOWS} pairs of addresses and ports between them; give single pods or one port"
            );
        }
        match (&from, target.end) {
            (End::Internet, None) => {
                bail!(
                    "neither end is in the cluster: policies do not apply to connections within the internet"
                )
            }
            (End::Internet, Some(end)) => {
                asked.extend(with_internet(cluster, &end, Direction::Ingress, &target.call));
            }
            (End::Endpoints(sources), None) => {
                for end in sources {
                    asked.extend(with_internet(cluster, end, Direction::Egress, &target.call));
                }
            }
            (End::Endpoints(sources), Some(end)) => {
                let same_family = palisade_names::of_family(sources, Family::of(end.address()));
                asked.extend(same_family.map(|source| target.call.flow(source.clone(), end.clone(), None)));
            }
            (End::Service(_), _) => bail!("a service can't be a source"),
        }
    }
    without_loops(&mut asked);
    // Ports and services repeat where a pod declares one twice.
    let mut seen = BTreeSet::new();
    asked.retain(|a| seen.insert((a.flow.clone(), a.service_port)));
    if asked.is_empty() {
        bail!(
            "{from_name} and {to_name} have no IP family in common, so there are no connections between them"
        );
    }
    Ok(Question { source: from_name, destination: to_name, flows: asked })
}

/// Removes flows from a pod to itself, unless there are no others: a workload to itself means between its pods.
fn without_loops(asked: &mut Vec<QuestionFlow>) {
    let is_loop =
        |a: &QuestionFlow| pod_key(&a.flow.source).is_some_and(|k| pod_key(&a.flow.destination) == Some(k));
    if asked.iter().any(|a| !is_loop(a)) {
        asked.retain(|a| !is_loop(a) || a.flow.through_service);
    }
}

fn pod_key(end: &Endpoint) -> Option<&ObjectKey> {
    if let Endpoint::Pod { key, .. } = end { Some(key) } else { None }
}

/// A destination and its port.
struct Target {
    /// The endpoint. `None`: the internet.
    end: Option<Endpoint>,
    /// The protocol and port.
    call: TargetPort,
}

#[derive(Clone)]
struct TargetPort {
    protocol: ProtocolSpec,
    port: u16,
    service: Option<(ObjectKey, u16)>,
}

impl TargetPort {
    fn new(protocol: Protocol, port: u16) -> Self {
        Self { protocol: ProtocolSpec::WithPorts(protocol), port, service: None }
    }

    fn flow(&self, source: Endpoint, destination: Endpoint, region: Option<Region>) -> QuestionFlow {
        let protocol = match (self.protocol, Family::of(destination.address())) {
            (ProtocolSpec::WithPorts(protocol), _) => protocol,
            (ProtocolSpec::Icmp, Family::V4) => Protocol::Other(1),
            (ProtocolSpec::Icmp, Family::V6) => Protocol::Other(58),
        };
        let through_service = self.service.is_some();
        let (service, service_port) = self.service.clone().unzip();
        let flow = Flow { source, destination, protocol, port: self.port, through_service };
        QuestionFlow { flow, service, service_port, region }
    }
}

/// Returns the flows between an end and every part of the internet that its policies distinguish. `direction` is as seen
/// from that end.
fn with_internet(
    cluster: &Cluster,
    end: &Endpoint,
    direction: Direction,
    call: &TargetPort,
) -> Vec<QuestionFlow> {
    let subject = pod_key(end).and_then(|key| cluster.pods.get(key));
    let regions = regions::internet(cluster, subject, direction, Family::of(end.address()));
    let flow = |region: Region| {
        let outside = Endpoint::External(region.sample);
        match direction {
            Direction::Ingress => call.flow(outside, end.clone(), Some(region)),
            Direction::Egress => call.flow(end.clone(), outside, Some(region)),
        }
    };
    regions.into_iter().map(flow).collect()
}

fn targets(cluster: &Cluster, spec: &Spec, end: &End<'_>) -> Result<Vec<Target>> {
    match end {
        End::Internet => Ok(vec![Target { end: None, call: given_port(spec, "the internet")? }]),
        End::Service(service) => service_targets(cluster, spec, service),
        End::Endpoints(ends) => {
            let mut out = Vec::new();
            for end in ends {
                let calls = target_ports(cluster, spec, end)?;
                out.extend(calls.into_iter().map(|call| Target { end: Some(end.clone()), call }));
            }
            match (out.is_empty(), &spec.port) {
                (false, _) => Ok(out),
                (true, Some(port)) => {
                    bail!("no pod of the destination declares a port named `{port}`; give its number")
                }
                (true, None) => bail!(
                    "the destination declares no container port{}; give the port: DST:PORT",
                    with_protocol(spec)
                ),
            }
        }
    }
}

fn with_protocol(spec: &Spec) -> String {
    spec.protocol.map(|p| format!(" for {p}")).unwrap_or_default()
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
        _ => bail!("{what} declares no ports; give the port: DST:PORT[/PROTO]"),
    }
}

/// Returns the ports of an endpoint: the one given, or every declared one.
fn target_ports(cluster: &Cluster, spec: &Spec, end: &Endpoint) -> Result<Vec<TargetPort>> {
    let Some(pod) = pod_key(end).and_then(|key| cluster.pods.get(key)) else {
        let what = match end {
            Endpoint::Node { name, .. } => format!("node {name}"),
            _ => end.to_string(),
        };
        return Ok(vec![given_port(spec, &what)?]);
    };
    let protocol = match spec.protocol {
        Some(ProtocolSpec::Icmp) => return Ok(vec![given_port(spec, "")?]),
        Some(ProtocolSpec::WithPorts(protocol)) => Some(protocol),
        None => None,
    };
    let wanted = |p: Protocol| protocol.is_none_or(|q| p == q);
    let ports: BTreeSet<(Protocol, u16)> = match &spec.port {
        Some(PortSpec::Number(port)) => BTreeSet::from([(protocol.unwrap_or(Protocol::Tcp), *port)]),
        Some(PortSpec::Name(name)) => pod.named_ports(name, protocol).collect(),
        None => pod.ports.iter().filter(|p| wanted(p.protocol)).map(|p| (p.protocol, p.port)).collect(),
    };
    Ok(ports.into_iter().map(|(protocol, port)| TargetPort::new(protocol, port)).collect())
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

fn given_port_text(spec: &Spec) -> String {
    spec.port.as_ref().map(ToString::to_string).unwrap_or_default()
}

fn service_targets(cluster: &Cluster, spec: &Spec, given: &ServiceEnd<'_>) -> Result<Vec<Target>> {
    let ServiceEnd { service, family, .. } = given;
    let protocol = match spec.protocol {
        Some(ProtocolSpec::Icmp) => {
            bail!(
                "service addresses do not reply to ICMP; check the pods behind service {} instead",
                service.key
            )
        }
        Some(ProtocolSpec::WithPorts(protocol)) => Some(protocol),
        None => None,
    };
    let port = given.port.map(PortSpec::Number).or_else(|| spec.port.clone());
    let found = palisade_names::service_targets(cluster, service, protocol, port.as_ref())?;
    let on_node = match &given.node {
        // Without a pod of its own, the node drops the connection.
        Some(node) if service.access.external_local => {
            on_node(cluster, &found.targets, node).with_context(|| {
                format!(
                    "nothing answers on port {} of node {node}: service {} has externalTrafficPolicy: Local and no endpoint \
                     on this node",
                    given_port_text(spec), service.key
                )
            })?
        }
        _ => found.targets,
    };
    let mut out = Vec::new();
    for target in on_node {
        if family.is_none_or(|f| Family::of(target.end.address()) == f) {
            let mut call = TargetPort::new(target.protocol, target.port);
            call.service = Some((service.key.clone(), target.service_port));
            out.push(Target { end: Some(target.end), call });
        }
    }
    Ok(out)
}
