//! What an edit opened and closed: the verdicts of two layouts, compared, and told by workload.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use palisade_lab::{
    Layout,
    probe::{self, Plan, Target},
};
use palisade_policy::{Cluster, Endpoint, Family, Flow, Protocol, reference};

use crate::{
    explain::{families_text, port_text},
    output::{Style, styled},
};

/// Above so many flows the comparison would take longer than what it compares.
const MOST_FLOWS: usize = 300_000;

/// As many lines as anybody reads.
const MOST_LINES: usize = 40;

/// What the engine says about every flow that a layout makes possible.
pub(crate) struct Verdicts {
    cluster: Cluster,
    ends: BTreeSet<Endpoint>,
    flows: Option<BTreeMap<Flow, bool>>,
}

impl Verdicts {
    /// Those of one layout; without flows if there are too many to compare.
    pub(crate) fn of(layout: &Layout) -> Self {
        let options = probe::Options::default();
        let flows = (Plan::size(layout, &options) <= MOST_FLOWS).then(|| {
            let probes = Plan::of(layout, &options).probes.into_iter();
            let direct = probes.filter(|p| matches!(p.target, Target::Direct(_)));
            direct.flat_map(|p| p.flows).map(|(flow, verdict)| (flow, verdict.is_allow())).collect()
        });
        let ends = layout.places().flat_map(|(place, addresses)| {
            let end = move |address: &std::net::IpAddr| match &place {
                palisade_lab::Place::Pod(key) => Endpoint::Pod { key: key.clone(), address: *address },
                palisade_lab::Place::Node(name) => Endpoint::Node { name: name.clone(), address: *address },
                palisade_lab::Place::Outside => Endpoint::External(*address),
            };
            addresses.iter().map(end).collect::<Vec<_>>()
        });
        Self { cluster: layout.cluster.clone(), ends: ends.collect(), flows }
    }

    fn allows(&self, flow: &Flow) -> Option<bool> {
        if !self.ends.contains(&flow.source) || !self.ends.contains(&flow.destination) {
            return None;
        }
        // A port that only the other layout tries has a verdict here all the same.
        let known = self.flows.as_ref().and_then(|f| f.get(flow)).copied();
        Some(known.unwrap_or_else(|| reference::decide(&self.cluster, flow).verdict().is_allow()))
    }
}

/// From whom to whom, and on what.
type Where = (String, String, Protocol, u16);

#[derive(Default)]
struct Seen {
    all: usize,
    opened: usize,
    closed: usize,
    families: BTreeSet<Family>,
}

/// The lines that tell what is open now and was not, and the reverse. Ends that only one of the two has are new or
/// gone, and told elsewhere.
pub(crate) fn text(before: &Verdicts, after: &Verdicts) -> String {
    let (Some(old), Some(new)) = (&before.flows, &after.flows) else {
        return "  too many pairs to list what opened and closed\n".to_owned();
    };
    let mut seen: BTreeMap<Where, Seen> = BTreeMap::new();
    for flow in old.keys().chain(new.keys().filter(|f| !old.contains_key(*f))) {
        let (Some(was), Some(is)) = (before.allows(flow), after.allows(flow)) else { continue };
        // Echo requests of both families are one thing to a reader.
        let protocol = if flow.protocol.has_ports() { flow.protocol } else { Protocol::Other(1) };
        let (from, to) = (label(&after.cluster, &flow.source, &flow.destination), label(&after.cluster, &flow.destination, &flow.source));
        let entry = seen.entry((from, to, protocol, flow.port)).or_default();
        entry.all += 1;
        if was != is {
            if is { entry.opened += 1 } else { entry.closed += 1 }
            entry.families.insert(Family::of(flow.source.address()));
        }
    }
    lines(&seen)
}

fn lines(seen: &BTreeMap<Where, Seen>) -> String {
    // Ports with the same fate between the same ends share a line.
    let mut grouped: BTreeMap<(bool, &str, &str, bool, &BTreeSet<Family>), Vec<String>> = BTreeMap::new();
    for ((from, to, protocol, port), s) in seen {
        for (opened, n) in [(true, s.opened), (false, s.closed)] {
            if n > 0 {
                let partly = n < s.all && s.families.len() * n < s.all * s.families.len();
                let key = (opened, from.as_str(), to.as_str(), partly, &s.families);
                grouped.entry(key).or_default().push(port_text(*protocol, *port));
            }
        }
    }
    let mut out = String::new();
    for ((opened, from, to, partly, families), ports) in grouped.iter().take(MOST_LINES) {
        let word = if *opened { styled(Style::Good, "opened") } else { styled(Style::Bad, "closed") };
        let partly = if *partly && families.len() == 2 { " (between some of them)" } else { "" };
        let families = families_text(families.iter().copied());
        _ = writeln!(out, "  {word}  {from} → {to}  {}, {families}{partly}", ports.join(", "));
    }
    if grouped.len() > MOST_LINES {
        _ = writeln!(out, "  … and {} more", grouped.len() - MOST_LINES);
    }
    if grouped.is_empty() {
        out.push_str("  nothing opened or closed\n");
    }
    out
}

/// A pod by its workload, a node by whether it is the other end's own.
fn label(cluster: &Cluster, end: &Endpoint, other: &Endpoint) -> String {
    match (end, other) {
        (Endpoint::Pod { key, .. }, _) => match cluster.pods.get(key).and_then(|p| p.workload.as_ref()) {
            Some(workload) => format!("{}/{}", key.namespace, workload.name),
            None => key.to_string(),
        },
        (Endpoint::Node { name, .. }, Endpoint::Pod { key, .. }) => {
            let own = cluster.pods.get(key).and_then(|p| p.node.as_ref()) == Some(name);
            if own { "own node" } else { "other nodes" }.to_owned()
        }
        (Endpoint::Node { name, .. }, _) => format!("node/{name}"),
        (Endpoint::External(address), _) => format!("outside {address}"),
    }
}
