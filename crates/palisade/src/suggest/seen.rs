//! Recorded connections as flows of the cluster, without those for which no policy is suggested.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
};

use anyhow::{Result, bail};
use palisade_analysis::{
    replay::{NotJudged, PlacedFlow, RecordedFlow, place_all},
    suggest::{Seen, SeenFlow},
};
use palisade_policy::{Cluster, DomainName, Endpoint};

use super::replies;
use crate::replay::{
    line::is_link_traffic,
    names::is_admitted,
    recording::{Recording, Tally},
};

/// The most different connections. Each is decided by all policies.
pub(super) const MAX_CONNECTIONS: usize = 100_000;

/// What was seen.
pub(super) struct SeenFlows {
    /// The cluster, with the recorded pods that are gone.
    pub(super) cluster: Cluster,
    /// The connections.
    pub(super) flows: Vec<SeenFlow>,
    /// How many recorded connections these are. One to a service is several flows.
    pub(super) connections: u64,
    /// Connections that can't be placed, by reason.
    pub(super) undecided: BTreeMap<NotJudged, Seen>,
    /// Connections that were dropped, and are left out.
    pub(super) dropped: Seen,
    /// Multicast, broadcast and link-local packets, which no policy decides.
    pub(super) link: Seen,
    /// Connections that look like replies, and are left out.
    pub(super) replies: Seen,
}

/// What is to be allowed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// Also what was dropped.
    pub(super) dropped: bool,
    /// Destinations by the names that the records have of them.
    pub(super) by_name: bool,
}

/// Places the connections of a recording.
///
/// # Errors
/// When there are too many, or none to be allowed.
pub(super) fn seen(recording: &Recording, cluster: &Cluster, wanted: Wanted) -> Result<SeenFlows> {
    let Wanted { dropped: include_dropped, by_name } = wanted;
    let (mut dropped, mut link) = (Seen::default(), Seen::default());
    let mut wanted: Vec<(RecordedFlow, Seen)> = Vec::new();
    for ((flow, passed), tally) in &recording.flows {
        let seen = of(*tally);
        if is_link_traffic(flow) {
            link.add(&seen);
        } else if !passed && !include_dropped {
            dropped.add(&seen);
        } else {
            wanted.push((flow.clone(), seen));
        }
    }
    match wanted.len() {
        0 if dropped.connections > 0 => bail!(
            "all {} recorded connections were dropped; use --include-dropped to allow them",
            dropped.connections
        ),
        0 => bail!("there are no recorded connections that policies decide"),
        number if number > MAX_CONNECTIONS => bail!(
            "{number} different connections are recorded, and at most {MAX_CONNECTIONS} can be checked: use the records of a shorter time or of fewer namespaces"
        ),
        _ => {}
    }
    let recorded: Vec<RecordedFlow> = wanted.iter().map(|(flow, _)| flow.clone()).collect();
    let placed = place_all(cluster, &recorded);
    let mut undecided: BTreeMap<NotJudged, Seen> = BTreeMap::new();
    let mut flows = Vec::new();
    let mut connections: u64 = 0;
    let pods = PodAddresses::of(cluster);
    for (placed, (recorded, seen)) in placed.flows.into_iter().zip(&wanted) {
        let names = if by_name { names_of(recording, cluster, recorded) } else { Vec::new() };
        match placed.and_then(|one| pods.check(one)) {
            Ok(one) => {
                connections += 1;
                flows.extend(one.flows.into_iter().map(|flow| SeenFlow {
                    flow,
                    from_own_node: one.from_own_node,
                    seen: *seen,
                    names: names.clone(),
                }));
            }
            Err(why) => undecided.entry(why).or_default().add(seen),
        }
    }
    let replies = replies::leave_out(&placed.cluster, &mut flows);
    connections = connections.saturating_sub(replies.connections);
    Ok(SeenFlows { cluster: placed.cluster, flows, connections, undecided, dropped, link, replies })
}

/// Returns the names by which the destination of a connection can be allowed: those that policies may have, and for which agents
/// learn its address.
fn names_of(recording: &Recording, cluster: &Cluster, flow: &RecordedFlow) -> Vec<DomainName> {
    let address = flow.destination.address;
    let is_learned = |name: &DomainName| {
        cluster.learned.get(name).is_some_and(|learned| learned.addresses.contains(&address))
    };
    let names = recording.names.get(flow).into_iter().flatten();
    names.filter(|name| is_admitted(name) && is_learned(name)).cloned().collect()
}

/// The addresses that pods have or may get. What was recorded as an outside address may be one of a pod by now: a CIDR would
/// open that pod.
struct PodAddresses<'a> {
    known: HashSet<IpAddr>,
    cluster: &'a Cluster,
}

impl<'a> PodAddresses<'a> {
    fn of(cluster: &'a Cluster) -> Self {
        let running = cluster.pods.values().filter(|pod| pod.is_running());
        let addresses = running.flat_map(|pod| pod.addresses.iter().copied());
        let known = addresses.filter(|address| !cluster.addressing.is_placeholder(*address));
        Self { known: known.collect(), cluster }
    }

    fn contain(&self, address: IpAddr) -> bool {
        let mut ranges = self.cluster.addressing.pod_ranges.iter();
        let mut of_nodes = self.cluster.nodes.values().flat_map(|node| &node.pod_cidrs);
        self.known.contains(&address)
            || ranges.any(|range| range.contains(address))
            || of_nodes.any(|cidr| cidr.contains(&address))
    }

    /// Returns what was placed, unless an end is an address of a pod. The address of the own node may be that of a bridge, in the
    /// range of its pods.
    fn check(&self, placed: PlacedFlow) -> Result<PlacedFlow, NotJudged> {
        let gone = placed.flows.iter().find_map(|flow| {
            let ends = [&flow.source, &flow.destination];
            ends.into_iter().find_map(|end| match end {
                Endpoint::External(address) if self.contain(*address) => Some(*address),
                Endpoint::External(_) | Endpoint::Pod { .. } | Endpoint::Node { .. } => None,
            })
        });
        match gone {
            Some(address) if !placed.from_own_node => Err(NotJudged::AddressGone(address)),
            _ => Ok(placed),
        }
    }
}

fn of(tally: Tally) -> Seen {
    Seen { connections: 1, records: tally.records, count: tally.count, line: tally.line }
}
