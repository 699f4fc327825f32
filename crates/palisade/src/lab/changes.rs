//! What an edit opened and closed: the verdicts of two layouts, compared, and told by workload.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::IpAddr,
};

use palisade_lab::{
    Layout,
    probe::{Plan, ProbeOptions, Target},
};
use palisade_policy::{Cluster, Endpoint, Family, Flow, Protocol, reference};

use super::wording::ports_text;
use crate::{
    output::{Style, styled},
    reasons::families_text,
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
        let options = ProbeOptions::default();
        let flows = (Plan::size(layout, &options) <= MOST_FLOWS).then(|| {
            let probes = Plan::of(layout, &options).probes.into_iter();
            let direct = probes.filter(|p| matches!(p.target, Target::Direct(_)));
            direct.flat_map(|p| p.flows).map(|(flow, verdict)| (flow, verdict.is_allow())).collect()
        });
        let ends = layout.places().flat_map(|(place, addresses)| {
            let end = move |address: &IpAddr| match &place {
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
type PortBetween = (End, End, Protocol, u16);

/// What was looked at between two ends on one port, by family.
#[derive(Default)]
struct FlowCounts {
    all: BTreeMap<Family, usize>,
    opened: BTreeMap<Family, usize>,
    closed: BTreeMap<Family, usize>,
}

/// The lines that tell what is open now and was not, and the reverse. Ends that only one of the two has are new or
/// gone, and told elsewhere.
pub(crate) fn text(before: &Verdicts, after: &Verdicts) -> String {
    let (Some(old), Some(new)) = (&before.flows, &after.flows) else {
        return "  too many pairs to list what opened and closed\n".to_owned();
    };
    let mut counted: BTreeMap<PortBetween, FlowCounts> = BTreeMap::new();
    for flow in old.keys().chain(new.keys().filter(|f| !old.contains_key(*f))) {
        let (Some(was), Some(is)) = (before.allows(flow), after.allows(flow)) else { continue };
        // Echo requests of both families are one thing to a reader.
        let protocol = if flow.protocol.has_ports() { flow.protocol } else { Protocol::Other(1) };
        let (from, to) = (
            end(&after.cluster, &flow.source, &flow.destination),
            end(&after.cluster, &flow.destination, &flow.source),
        );
        let entry = counted.entry((from, to, protocol, flow.port)).or_default();
        let family = Family::of(flow.source.address());
        *entry.all.entry(family).or_default() += 1;
        if was != is {
            let counts = if is { &mut entry.opened } else { &mut entry.closed };
            *counts.entry(family).or_default() += 1;
        }
    }
    lines(&counted)
}

/// What opened or closed alike: the ports between two kinds of ends.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    opened: bool,
    from: String,
    to: String,
    ports: Vec<(Protocol, u16)>,
    /// Only some of the pods behind the names.
    partly: bool,
}

/// Outside addresses and families of a line.
#[derive(Default)]
struct Shared {
    outside: BTreeSet<IpAddr>,
    families: BTreeSet<Family>,
}

/// Opened or closed, from whom, to whom, whether only between some pods, and in which families.
type Pair<'a> = (bool, &'a End, &'a End, bool, BTreeSet<Family>);

fn lines(counted: &BTreeMap<PortBetween, FlowCounts>) -> String {
    // First the ports of each pair of ends …
    let mut pairs: BTreeMap<Pair<'_>, Vec<(Protocol, u16)>> = BTreeMap::new();
    for ((from, to, protocol, port), s) in counted {
        for (opened, counts) in [(true, &s.opened), (false, &s.closed)] {
            if !counts.is_empty() {
                let partly = counts.iter().any(|(family, n)| s.all.get(family) != Some(n));
                let families = counts.keys().copied().collect();
                pairs.entry((opened, from, to, partly, families)).or_default().push((*protocol, *port));
            }
        }
    }
    // … then the pairs that differ in the outside address alone.
    let mut out: BTreeMap<Line, Shared> = BTreeMap::new();
    for ((opened, from, to, partly, families), ports) in pairs {
        let line = Line { opened, from: from.name(), to: to.name(), ports, partly };
        let shared = out.entry(line).or_default();
        shared.families.extend(families);
        shared.outside.extend(
            [from, to].into_iter().filter_map(|e| if let End::Outside(a) = e { Some(*a) } else { None }),
        );
    }
    drawn(&out)
}

fn drawn(lines: &BTreeMap<Line, Shared>) -> String {
    let mut out = String::new();
    for (line, shared) in lines.iter().take(MOST_LINES) {
        let word = if line.opened { styled(Style::Good, "opened") } else { styled(Style::Bad, "closed") };
        let partly = if line.partly { ", between some of their pods" } else { "" };
        let (ports, families) =
            (ports_text(line.ports.iter().copied()), families_text(shared.families.iter().copied()));
        _ = write!(out, "  {word}  {} → {}  {ports}, {families}{partly}", line.from, line.to);
        if !shared.outside.is_empty() {
            let addresses: Vec<String> = shared.outside.iter().map(ToString::to_string).collect();
            _ = write!(out, " ({})", addresses.join(", "));
        }
        out.push('\n');
    }
    if lines.len() > MOST_LINES {
        _ = writeln!(out, "  … and {} more", lines.len() - MOST_LINES);
    }
    if lines.is_empty() {
        out.push_str("  nothing opened or closed\n");
    }
    out
}

/// An end as this report tells ends apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Inside(String),
    Outside(IpAddr),
}

impl End {
    fn name(&self) -> String {
        match self {
            Self::Inside(name) => name.clone(),
            Self::Outside(_) => "outside".to_owned(),
        }
    }
}

/// A pod by its workload, a node by whether it is the other end's own.
fn end(cluster: &Cluster, end: &Endpoint, other: &Endpoint) -> End {
    let name = match (end, other) {
        (Endpoint::Pod { key, .. }, _) => match cluster.pods.get(key).and_then(|p| p.workload.as_ref()) {
            Some(workload) => format!("{}/{}", key.namespace, workload.name),
            None => key.to_string(),
        },
        (Endpoint::Node { name, .. }, Endpoint::Pod { key, .. }) => {
            let own = cluster.pods.get(key).and_then(|p| p.node.as_ref()) == Some(name);
            if own { "own node" } else { "other nodes" }.to_owned()
        }
        (Endpoint::Node { name, .. }, _) => format!("node/{name}"),
        (Endpoint::External(address), _) => return End::Outside(*address),
    };
    End::Inside(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(policies: &str) -> Verdicts {
        let pods = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: i, ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: other}
spec: {nodeName: n1, containers: [{name: c, image: i}]}
---
";
        let input = palisade_manifest::Input::Text { name: "m".into(), text: format!("{pods}{policies}") };
        let loaded = palisade_manifest::load(&[input], &super::super::layout_arguments::load_options());
        assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
        Verdicts::of(&Layout::of(&loaded.cluster, &palisade_lab::LayoutOptions::default()).unwrap())
    }

    const ONLY_80: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p}
spec: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {}}], ports: [{port: 80}]}]}
";

    #[test]
    fn an_edit_is_told_by_workload_and_port() {
        let (open, narrow) = (verdicts(""), verdicts(ONLY_80));
        let closed = text(&open, &narrow);
        let plain = anstream::adapter::strip_str(&closed).to_string();
        assert!(
            plain
                .contains("closed  default/other → default/web  TCP 27000, UDP 27000, ICMP, IPv4 and IPv6\n"),
            "{plain}"
        );
        assert!(plain.contains("closed  outside → default/web  TCP 80 27000, UDP 27000, ICMP, IPv4 and IPv6 (198.51.100.7, 2001:db8::7)"), "{plain}");
        assert!(!plain.contains("opened"), "{plain}");
        assert_eq!(text(&narrow, &open).matches("opened").count(), closed.matches("closed").count());
        assert_eq!(text(&narrow, &narrow), "  nothing opened or closed\n");
    }
}
