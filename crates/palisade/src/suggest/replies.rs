//! Records that look like replies. Flow collectors write a connection once for each direction, and the rules that replies would
//! get open the ports from which clients connect. Connection tracking allows replies without a rule.

use std::collections::BTreeSet;

use palisade_analysis::suggest::{Seen, SeenFlow};
use palisade_policy::{Cluster, Endpoint, Flow, Protocol};

/// The first port from which Linux connects by default (`net.ipv4.ip_local_port_range`).
const FIRST_EPHEMERAL: u16 = 32768;

/// Removes the flows to a port that clients use, which the pod does not declare, if a connection to another port was recorded
/// the other way round. Returns how many there were.
pub(super) fn leave_out(cluster: &Cluster, flows: &mut Vec<SeenFlow>) -> Seen {
    let ends = |source: &Endpoint, destination: &Endpoint, protocol: Protocol| {
        (source.clone(), destination.clone(), protocol)
    };
    let opened: BTreeSet<_> = flows
        .iter()
        .map(|seen| &seen.flow)
        .filter(|flow| !is_to_client_port(cluster, flow))
        .map(|flow| ends(&flow.source, &flow.destination, flow.protocol))
        .collect();
    let mut replies = Seen::default();
    flows.retain(|seen| {
        let flow = &seen.flow;
        let is_reply = is_to_client_port(cluster, flow)
            && opened.contains(&ends(&flow.destination, &flow.source, flow.protocol));
        if is_reply {
            replies.add(&seen.seen);
        }
        !is_reply
    });
    replies
}

fn is_to_client_port(cluster: &Cluster, flow: &Flow) -> bool {
    let declared = match &flow.destination {
        Endpoint::Pod { key, .. } => cluster
            .pods
            .get(key)
            .is_some_and(|pod| pod.ports.iter().any(|p| (p.protocol, p.port) == (flow.protocol, flow.port))),
        Endpoint::Node { .. } | Endpoint::External(_) => false,
    };
    flow.protocol.has_ports() && flow.port >= FIRST_EPHEMERAL && !declared
}
