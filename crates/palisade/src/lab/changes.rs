//! The connections that an edit opened and closed: compares the verdicts of two layouts and reports by workload.

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

/// The most flows to compare. Comparing more would take longer than the edit itself.
const MAX_FLOWS: usize = 300_000;

/// The most lines to print.
const MAX_LINES: usize = 40;

/// The engine's verdicts for all flows of a layout.
pub(crate) struct Verdicts {
    cluster: Cluster,
    ends: BTreeSet<Endpoint>,
    flows: Option<BTreeMap<Flow, bool>>,
}

impl Verdicts {
    /// Returns the verdicts of a layout, without flows if there are too many to compare.
    pub(crate) fn of(layout: &Layout) -> Self {
        let options = ProbeOptions::default();
        let flows = (Plan::size(layout, &options) <= MAX_FLOWS).then(|| {
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
        // A port that only the other layout probes has a verdict in this one too.
        let known = self.flows.as_ref().and_then(|f| f.get(flow)).copied();
        Some(known.unwrap_or_else(|| reference::decide(&self.cluster, flow).verdict().is_allow()))
    }
}

/// A source, a destination and a port.
type PortBetween = (End, End, Protocol, u16);

/// The number of flows between two ends on a port, by IP family.
#[derive(Default)]
struct FlowCounts {
    all: BTreeMap<Family, usize>,
    opened: BTreeMap<Family, usize>,
    closed: BTreeMap<Family, usize>,
}

/// Renders lines for connections that were opened or closed. Ends that only one of the layouts has are reported elsewhere.
pub(crate) fn text(before: &Verdicts, after: &Verdicts) -> String {
    let (Some(old), Some(new)) = (&before.flows, &after.flows) else {
        return "  too many pairs to list what opened and closed\n".to_owned();
    };
    let mut counted: BTreeMap<PortBetween, FlowCounts> = BTreeMap::new();
    for flow in old.keys().chain(new.keys().filter(|f| !old.contains_key(*f))) {
        let (Some(was), Some(is)) = (before.allows(flow), after.allows(flow)) else { continue };
        // ICMP and ICMPv6 are reported together.
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

/// Connections that opened or closed together: the ports between two kinds of ends.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    opened: bool,
    from: String,
    to: String,
    ports: Vec<(Protocol, u16)>,
    /// Whether only some of the named pods are affected.
    partly: bool,
}

/// The external addresses and IP families of a line.
#[derive(Default)]
struct Shared {
    outside: BTreeSet<IpAddr>,
    families: BTreeSet<Family>,
}

/// Whether it opened, source, destination, whether only some pods are affected, and the IP families.
type Pair<'a> = (bool, &'a End, &'a End, bool, BTreeSet<Family>);

fn lines(counted: &BTreeMap<PortBetween, FlowCounts>) -> String {
    // First, collect the ports of each pair of ends.
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
    // Then, merge the pairs that differ only in the external address.
    let mut out: BTreeMap<Line, Shared> = BTreeMap::new();
    for ((opened, from, to, partly, families), ports) in pairs {
        let line = Line { opened, from: from.name(), to: to.name(), ports, partly };
        let shared = out.entry(line).or_default();
        shared.families.extend(families);
        shared.outside.extend(
            [from, to].into_iter().filter_map(|e| if let End::Outside(a) = e { Some(*a) } else { None }),
        );
    }
    render(&out)
}

fn render(lines: &BTreeMap<Line, Shared>) -> String {
    let mut out = String::new();
    for (line, shared) in lines.iter().take(MAX_LINES) {
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
    if lines.len() > MAX_LINES {
        _ = writeln!(out, "  … and {} more", lines.len() - MAX_LINES);
    }
    if lines.is_empty() {
        out.push_str("  nothing opened or closed\n");
    }
    out
}

/// An end as this report distinguishes ends.
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

/// Names a pod by its workload, and a node by whether it is the other end's own node.
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
        let loaded = palisade_manifest::load(&[input], &super::super::layout_arguments::load_options(false));
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
