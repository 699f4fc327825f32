//! Both ends of a recorded connection, placed in a cluster.

use palisade_names::{PortSpec, backends, of_family};
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
        let destination = match self.service(&flow.destination) {
            Some(service) => {
                let backends = self.behind(service, flow)?;
                return Ok(PlacedEnds::Behind { service, source, backends });
            }
            None => self.place(&flow.destination)?,
        };
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

    /// Returns the endpoints behind a service, with the port on each.
    fn behind(&self, service: &Service, flow: &RecordedFlow) -> Result<Vec<(Endpoint, u16)>, NotJudged> {
        let none = || NotJudged::NoBackend(service.key.clone());
        let family = Family::of(flow.destination.address);
        let port = PortSpec::Number(flow.port);
        let found = backends(self.today, service, Some(flow.protocol), Some(&port)).map_err(|_| none())?;
        let mut all: Vec<(Endpoint, u16)> = Vec::new();
        for backend in found {
            let ends = palisade_names::endpoints_of(self.today, backend.pod).unwrap_or_default();
            all.extend(of_family(&ends, family).map(|end| (end.clone(), backend.port)));
        }
        if all.is_empty() { Err(none()) } else { Ok(all) }
    }
}
