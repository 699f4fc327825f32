//! The ports of a rule: by name where the pods have names for them, as ranges where they are adjacent.

use palisade_policy::{PortMatch, PortSet, Protocol};

use super::{
    demand::WantedPorts,
    groups::{Groups, PodGroup},
};

/// Returns the ports as a rule lists them, sorted. `None`: only a rule without ports allows all of them, because a protocol
/// has none. `destination` has the ports; it is `None` outside the cluster.
pub(super) fn port_list(
    groups: &Groups<'_>,
    destination: Option<&PodGroup>,
    wanted: &WantedPorts,
) -> Option<Vec<PortMatch>> {
    if wanted.keys().any(|(protocol, _)| !protocol.has_ports()) {
        return None;
    }
    let mut out = Vec::new();
    let mut numbers: Vec<(Protocol, u16)> = Vec::new();
    for (&(protocol, port), want) in wanted {
        let name =
            destination.and_then(|group| groups.port_name(group, &want.destinations, (protocol, port)));
        match name {
            Some(name) => out.push(PortMatch::Named { protocol: Some(protocol), name }),
            None => numbers.push((protocol, port)),
        }
    }
    for protocol in Protocol::WITH_PORTS {
        let own = numbers.iter().filter(|(of, _)| *of == protocol).map(|(_, port)| (*port, *port));
        let ranges = PortSet::of_ranges(own);
        out.extend(ranges.ranges().iter().map(|&(first, last)| PortMatch::Numbers { protocol, first, last }));
    }
    out.sort();
    out.dedup();
    Some(out)
}
