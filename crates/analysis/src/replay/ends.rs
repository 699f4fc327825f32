//! Both ends of a recorded connection, placed in a cluster.

use palisade_names::{PortSpec, backends, host_port, node_port, of_family};
use palisade_policy::{Endpoint, Family, Flow, Protocol, Service};

use super::{
    place::{Placed, Stage},
    record::{NotJudged, RecordedEnd, RecordedFlow, RecordedOwner},
};

/// The ends of a recorded connection.
pub(super) enum PlacedEnds<'c> {
    /// A connection of the node on which the pod runs.
    OwnNode { source: Placed, destination: Placed },
    /// A connection between two ends.
    Direct { source: Placed, destination: Placed },
    /// A connection to one of the pods behind a service, with the port on each.
    Behind { service: &'c Service, source: Placed, backends: Vec<(Endpoint, u16)> },
    /// A connection to a pod by a `hostPort` of its node, with its own port.
    HostPort { source: Placed, pods: Vec<(Endpoint, u16)> },
}

/// Returns the flow between two ends.
pub(super) fn flow(
    source: &Endpoint,
    destination: &Endpoint,
    protocol: Protocol,
    port: u16,
    through_service: bool,
) -> Flow {
    // Only a connection through a service leaves a pod and comes back to it.
    let itself = matches!((source, destination), (Endpoint::Pod { key: a, .. }, Endpoint::Pod { key: b, .. }) if a == b);
    Flow {
        source: source.clone(),
        destination: destination.clone(),
        protocol,
        port,
        through_service: through_service || itself,
    }
}

impl<'c> Stage<'c> {
    /// Places both ends of a connection.
    pub(super) fn ends(&mut self, flow: &RecordedFlow) -> Result<PlacedEnds<'c>, NotJudged> {
        if flow.source.owner == RecordedOwner::OwnNode {
            return self.of_own_node(flow);
        }
        let source = self.place(&flow.source)?;
        if let Some(service) = self.service(&flow.destination) {
            let backends = self.behind(service, flow, flow.port)?;
            return Ok(PlacedEnds::Behind { service, source, backends });
        }
        if let Some(found) = self.behind_node(flow, &source)? {
            return Ok(found);
        }
        let destination = self.place(&flow.destination)?;
        let unknown = |end: &RecordedEnd, placed: &Placed| {
            end.owner == RecordedOwner::Unknown && matches!(placed.endpoint, Endpoint::External(_))
        };
        if unknown(&flow.source, &source) && unknown(&flow.destination, &destination) {
            return Err(NotJudged::NoPod(flow.source.address, flow.destination.address));
        }
        Ok(PlacedEnds::Direct { source, destination })
    }

    fn of_own_node(&mut self, flow: &RecordedFlow) -> Result<PlacedEnds<'c>, NotJudged> {
        let destination = self.place(&flow.destination)?;
        let name = match &destination.endpoint {
            Endpoint::Pod { key, .. } => self.cluster.pods.get(key).and_then(|pod| pod.node.clone()),
            Endpoint::Node { name, .. } => Some(name.clone()),
            Endpoint::External(_) => None,
        };
        let address = flow.source.address;
        let endpoint = name.map_or(Endpoint::External(address), |name| Endpoint::Node { name, address });
        Ok(PlacedEnds::OwnNode { source: endpoint.into(), destination })
    }

    /// Returns the pods for which a port of a node stands, if it does: by a node port, or a `hostPort`. Connections are decided after their
    /// translation (SEMANTICS G-1).
    fn behind_node(&self, flow: &RecordedFlow, source: &Placed) -> Result<Option<PlacedEnds<'c>>, NotJudged> {
        let RecordedFlow { destination, protocol, port, .. } = flow;
        let node = match &destination.owner {
            RecordedOwner::Unknown | RecordedOwner::Node(_) => self.today.node_at(destination.address),
            _ => None,
        };
        let Some(node) = node else { return Ok(None) };
        if let Some((service, of_service)) = node_port(self.today, Some(*protocol), *port) {
            let backends = self.behind(service, flow, of_service.port)?;
            return Ok(Some(PlacedEnds::Behind { service, source: source.clone(), backends }));
        }
        let family = Family::of(destination.address);
        let mut pods = Vec::new();
        for (pod, own) in host_port(self.today, &node.name, Some(*protocol), *port) {
            let ends = palisade_names::endpoints_of(self.today, pod).unwrap_or_default();
            pods.extend(of_family(&ends, family).map(|end| (end.clone(), own.port)));
        }
        Ok((!pods.is_empty()).then(|| PlacedEnds::HostPort { source: source.clone(), pods }))
    }

    /// Returns the endpoints behind a port of a service, with the port on each.
    fn behind(
        &self,
        service: &Service,
        flow: &RecordedFlow,
        port: u16,
    ) -> Result<Vec<(Endpoint, u16)>, NotJudged> {
        let none = || NotJudged::NoBackend(service.key.clone());
        let family = Family::of(flow.destination.address);
        let port = PortSpec::Number(port);
        let found = backends(self.today, service, Some(flow.protocol), Some(&port)).map_err(|_| none())?;
        let mut all: Vec<(Endpoint, u16)> = Vec::new();
        for backend in found {
            let ends = palisade_names::endpoints_of(self.today, backend.pod).unwrap_or_default();
            all.extend(of_family(&ends, family).map(|end| (end.clone(), backend.port)));
        }
        if all.is_empty() { Err(none()) } else { Ok(all) }
    }
}
