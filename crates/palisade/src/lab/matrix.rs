//! A matrix of the outcomes of many flows, by workload.
//!
//! It is built from verdicts only, of the engine or of the kernel, so that the two can be compared as text.

use std::collections::{BTreeMap, BTreeSet};

use palisade_policy::{Cluster, DomainName, Endpoint, Family, Flow, Name, ObjectKey, Protocol};

pub(crate) mod draw;

/// An end of a flow, as the matrix distinguishes ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Member {
    /// A pod.
    Pod(ObjectKey),
    /// The node of the pod at the other end.
    OwnNode,
    /// Any other node.
    OtherNode,
    /// An address outside the cluster.
    Outside(std::net::IpAddr),
    /// A host, by the name that a pod asked for.
    Host(DomainName),
}

/// A connection of a pod to an address that was answered for a name.
#[derive(Clone, Debug)]
pub(crate) struct FlowByName<'a> {
    /// The pod.
    pub(crate) source: &'a ObjectKey,
    /// The name.
    pub(crate) name: &'a DomainName,
    /// Family, protocol and port.
    pub(crate) what: (Family, Protocol, u16),
    /// Whether it was allowed.
    pub(crate) allowed: bool,
}

/// The outcomes of flows between two members.
type Outcomes = BTreeMap<(Family, Protocol, u16), Counts>;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    allowed: u32,
    denied: u32,
}

impl Counts {
    fn add(&mut self, allowed: bool) {
        if allowed { self.allowed += 1 } else { self.denied += 1 }
    }
}

/// A row and the column of the same members.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    label: String,
    members: Vec<Member>,
}

/// The matrix.
#[derive(Debug)]
pub(crate) struct Matrix {
    lines: Vec<Line>,
    /// By row (source) and column (destination).
    cells: BTreeMap<(usize, usize), Outcomes>,
}

impl Matrix {
    /// Builds the matrix of flows and whether each was allowed. Flows without a pod and flows from a pod to itself do not
    /// depend on policies and are left out. Names have columns of their own. `O(flows · log members)`.
    pub(crate) fn of<'a>(
        cluster: &Cluster,
        flows: impl IntoIterator<Item = (&'a Flow, bool)>,
        by_name: impl IntoIterator<Item = FlowByName<'a>>,
    ) -> Self {
        let mut pairs: BTreeMap<(Member, Member), Outcomes> = BTreeMap::new();
        for (flow, allowed) in flows {
            let Some(pair) = members(cluster, flow).filter(|(a, b)| a != b) else { continue };
            let what = (Family::of(flow.destination.address()), flow.protocol, flow.port);
            pairs.entry(pair).or_default().entry(what).or_default().add(allowed);
        }
        for flow in by_name {
            let pair = (Member::Pod(flow.source.clone()), Member::Host(flow.name.clone()));
            pairs.entry(pair).or_default().entry(flow.what).or_default().add(flow.allowed);
        }
        let lines = lines(cluster, &pairs);
        let line_of: BTreeMap<&Member, usize> =
            lines.iter().enumerate().flat_map(|(i, line)| line.members.iter().map(move |m| (m, i))).collect();
        let mut cells: BTreeMap<(usize, usize), Outcomes> = BTreeMap::new();
        for ((from, to), outcomes) in &pairs {
            let cell = cells.entry((line_of[from], line_of[to])).or_default();
            for (what, counts) in outcomes {
                let sum = cell.entry(*what).or_default();
                sum.allowed += counts.allowed;
                sum.denied += counts.denied;
            }
        }
        Self { lines, cells }
    }
}

fn members(cluster: &Cluster, flow: &Flow) -> Option<(Member, Member)> {
    let member = |end: &Endpoint, other: &Endpoint| match (end, other) {
        (Endpoint::Pod { key, .. }, _) => Some(Member::Pod(key.clone())),
        (Endpoint::External(address), Endpoint::Pod { .. }) => Some(Member::Outside(*address)),
        (Endpoint::Node { name, .. }, Endpoint::Pod { key, .. }) => {
            let own = cluster.pods.get(key).and_then(|p| p.node.as_ref()) == Some(name);
            Some(if own { Member::OwnNode } else { Member::OtherNode })
        }
        _ => None,
    };
    Some((member(&flow.source, &flow.destination)?, member(&flow.destination, &flow.source)?))
}

type OutcomesByPair = BTreeMap<(Member, Member), Outcomes>;

/// Returns the rows: workloads whose pods agree, or else their pods; nodes; and external addresses, grouped by outcome.
fn lines(cluster: &Cluster, pairs: &OutcomesByPair) -> Vec<Line> {
    let all: BTreeSet<&Member> = pairs.keys().flat_map(|(a, b)| [a, b]).collect();
    let mut workloads: BTreeMap<(Name, String), Vec<&Member>> = BTreeMap::new();
    let mut outside = Vec::new();
    let mut nodes = Vec::new();
    let mut hosts = Vec::new();
    for member in all {
        match member {
            Member::Pod(key) => workloads.entry(workload_of(cluster, key)).or_default().push(member),
            Member::Outside(_) => outside.push(member),
            Member::Host(name) => hosts.push((name.to_string(), member)),
            Member::OwnNode => nodes.push(("own node".to_owned(), member)),
            Member::OtherNode => nodes.push(("other nodes".to_owned(), member)),
        }
    }
    let observations = observations(pairs);
    let mut out = Vec::new();
    for ((namespace, name), pods) in workloads {
        let agree = pods.len() > 1 && merged(&pods, &observations, true).is_some();
        if agree {
            let label = format!("{namespace}/{name} ({} pods)", pods.len());
            out.push(Line { label, members: pods.into_iter().cloned().collect() });
        } else {
            // A single pod is named by its workload; several that differ, by their own names.
            let single = pods.len() == 1;
            out.extend(pods.into_iter().map(|pod| {
                let own = if let Member::Pod(key) = pod { key.to_string() } else { String::new() };
                let label = if single { format!("{namespace}/{name}") } else { own };
                Line { label, members: vec![pod.clone()] }
            }));
        }
    }
    out.extend(nodes.into_iter().map(|(label, member)| Line { label, members: vec![member.clone()] }));
    out.extend(outside_lines(&outside, &observations));
    out.extend(hosts.into_iter().map(|(label, member)| Line { label, members: vec![member.clone()] }));
    out
}

/// Returns the namespace and name of a pod's workload, with the kind if another workload has the same name.
fn workload_of(cluster: &Cluster, key: &ObjectKey) -> (Name, String) {
    let of = |key: &ObjectKey| cluster.pods.get(key).and_then(|p| p.workload.as_ref());
    let Some(workload) = of(key) else { return (key.namespace.clone(), key.name.to_string()) };
    let clash =
        cluster.pods.keys().filter(|other| other.namespace == key.namespace).any(|other| match of(other) {
            Some(w) => w.name == workload.name && w.kind != workload.kind,
            None => other.name == workload.name,
        });
    let name = match clash {
        true => format!("{}/{}", workload.kind.to_ascii_lowercase(), workload.name),
        false => workload.name.to_string(),
    };
    (key.namespace.clone(), name)
}

/// The outcomes of one member, as (was allowed, was denied) by (as source?, other end, IP family, protocol, port).
type Observations<'a> = BTreeMap<(bool, Option<&'a Member>, Option<Family>, Protocol, u16), (bool, bool)>;

/// Returns the outcomes of every member with every other, in both directions.
fn observations(pairs: &OutcomesByPair) -> BTreeMap<&Member, Observations<'_>> {
    let mut out: BTreeMap<&Member, Observations<'_>> = BTreeMap::new();
    for ((from, to), outcomes) in pairs {
        for (&(family, protocol, port), counts) in outcomes {
            let seen = (counts.allowed > 0, counts.denied > 0);
            let key = |source, other| (source, Some(other), Some(family), protocol, port);
            out.entry(from).or_default().insert(key(true, to), seen);
            out.entry(to).or_default().insert(key(false, from), seen);
        }
    }
    out
}

/// Merges the observations of members. `None`: they contradict each other. Flows that were probed for only one are no
/// contradiction. Members of the same line count as the same other end.
fn merged<'a>(
    members: &[&'a Member],
    observations: &BTreeMap<&Member, Observations<'a>>,
    by_family: bool,
) -> Option<Observations<'a>> {
    let mut out = Observations::new();
    for member in members {
        for (&(source, other, family, protocol, port), seen) in observations.get(member).into_iter().flatten()
        {
            let other = other.filter(|o| !members.contains(o));
            let key = (source, other, family.filter(|_| by_family), protocol, port);
            if out.insert(key, *seen).is_some_and(|before| before != *seen) {
                return None;
            }
        }
    }
    Some(out)
}

fn outside_lines(addresses: &[&Member], observations: &BTreeMap<&Member, Observations<'_>>) -> Vec<Line> {
    let mut classes: Vec<(Observations<'_>, Vec<&Member>)> = Vec::new();
    for &address in addresses {
        // Each address has one IP family; across families, only verdicts are compared.
        let Some(own) = merged(&[address], observations, false) else { continue };
        match classes.iter_mut().find(|(observed, _)| compatible(observed, &own)) {
            Some((observed, members)) => {
                observed.extend(own);
                members.push(address);
            }
            None => classes.push((own, vec![address])),
        }
    }
    let line = |members: Vec<&Member>| {
        let first =
            if let Some(Member::Outside(a)) = members.first() { a.to_string() } else { String::new() };
        let more = if members.len() > 1 { format!(" +{}", members.len() - 1) } else { String::new() };
        Line { label: format!("outside {first}{more}"), members: members.into_iter().cloned().collect() }
    };
    classes.into_iter().map(|(_, members)| line(members)).collect()
}

fn compatible(a: &Observations<'_>, b: &Observations<'_>) -> bool {
    b.iter().all(|(key, seen)| a.get(key).is_none_or(|before| before == seen))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use palisade_policy::{Labels, Pod, Workload};

    use super::*;

    fn pod(name: &str, workload: &str, address: &str) -> Pod {
        Pod {
            node: Some("n1".into()),
            workload: Some(Workload { kind: "Deployment".into(), name: workload.into() }),
            ..Pod::new(ObjectKey::new("shop", name), Labels::default(), vec![address.parse().unwrap()])
        }
    }

    fn cluster() -> Cluster {
        let mut c = Cluster::default();
        for (name, workload, address) in
            [("web-1", "web", "10.0.0.1"), ("web-2", "web", "10.0.0.2"), ("db-1", "db", "10.0.0.3")]
        {
            let p = pod(name, workload, address);
            c.pods.insert(p);
        }
        c
    }

    fn end(cluster: &Cluster, who: &str) -> Endpoint {
        if let Some(name) = who.strip_prefix("node/") {
            return Endpoint::Node { name: name.into(), address: "192.0.2.1".parse().unwrap() };
        }
        match who.parse::<IpAddr>() {
            Ok(address) => Endpoint::External(address),
            Err(_) => {
                let key = ObjectKey::new("shop", who);
                Endpoint::Pod { address: cluster.pods[&key].addresses[0], key }
            }
        }
    }

    fn drawn(flows: &[(&str, &str, u16, bool)]) -> String {
        let cluster = cluster();
        let flows: Vec<(Flow, bool)> = flows
            .iter()
            .map(|&(from, to, port, allowed)| {
                let (source, destination) = (end(&cluster, from), end(&cluster, to));
                (Flow { source, destination, protocol: Protocol::Tcp, port, through_service: false }, allowed)
            })
            .collect();
        draw::text(&Matrix::of(&cluster, flows.iter().map(|(f, a)| (f, *a)), []), 100)
    }

    #[test]
    fn pods_that_agree_are_one_line() {
        let text = drawn(&[
            ("web-1", "db-1", 80, true),
            ("web-2", "db-1", 80, true),
            ("web-1", "db-1", 81, false),
            ("web-2", "db-1", 81, false),
            ("db-1", "web-1", 80, false),
            ("db-1", "web-2", 80, false),
            ("web-1", "web-2", 80, true),
            ("web-2", "web-1", 80, true),
            ("node/n1", "db-1", 80, true),
            ("node/n2", "db-1", 80, false),
            ("203.0.113.1", "db-1", 80, false),
            ("203.0.113.2", "db-1", 80, false),
            ("203.0.113.3", "db-1", 80, true),
        ]);
        let expected = "\
from \\ to                1   2
1 shop/db               .   -
2 shop/web (2 pods)     80  all
3 own node              all .
4 other nodes           -   .
5 outside 203.0.113.1 +1  -   .
6 outside 203.0.113.3   all .
";
        let squeeze = |s: &str| {
            s.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
        };
        assert_eq!(squeeze(&text)[..7], squeeze(expected)[..], "{text}");
    }

    #[test]
    fn pods_that_differ_are_lines_of_their_own() {
        let text = drawn(&[("web-1", "db-1", 80, true), ("web-2", "db-1", 80, false)]);
        assert!(text.contains("shop/web-1") && text.contains("shop/web-2"), "{text}");
    }

    #[test]
    fn a_pod_to_itself_and_ends_without_policies_are_left_out() {
        let text = drawn(&[
            ("web-1", "web-1", 80, true),
            ("node/n1", "203.0.113.1", 80, true),
            ("web-1", "db-1", 80, true),
        ]);
        assert!(!text.contains("node") && !text.contains("outside"), "{text}");
    }
}
