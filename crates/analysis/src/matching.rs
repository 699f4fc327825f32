//! Matches the ends of two answers: workloads by name, nodes by name and address. External ranges are divided by both
//! answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use palisade_policy::{
    Family, IpRange, Name,
    address::{from_number, max_number, to_number, union},
};

use crate::{
    connections::Connections,
    end::{ConnectionEnd, ExternalRanges, NodeAddresses, WorkloadPods},
};

/// An end of one or both answers.
#[derive(Clone, Debug)]
pub(crate) struct MatchedEnd {
    /// The end. It doesn't depend on the order of the answers.
    pub(crate) end: ConnectionEnd,
    /// Its index in the first answer and in the second.
    pub(crate) at: [Option<usize>; 2],
    /// The number of its pods, if it may have fewer pods than its ends in the answers.
    pub(crate) part: Option<usize>,
}

/// Returns all ends of two answers by workload, sorted. Each pod, node address and external address is in exactly one.
pub(crate) fn matched(a: &Connections, b: &Connections) -> Vec<MatchedEnd> {
    let mut out = workloads([a, b]);
    out.extend(nodes([a, b], true));
    out.extend(nodes([a, b], false));
    out.extend(Family::BOTH.into_iter().flat_map(|family| externals([a, b], family)));
    out.extend(controller([a, b]));
    out.sort_by(|x, y| x.end.cmp(&y.end));
    out
}

/// Returns the ingress controller. It is an end of an answer if there are routes.
fn controller(answers: [&Connections; 2]) -> Option<MatchedEnd> {
    let mut pods: BTreeSet<WorkloadPods> = BTreeSet::new();
    let at = answers.map(|answer| {
        answer.ends().position(|end| match end {
            ConnectionEnd::IngressController(all) => {
                pods.extend(all.iter().cloned());
                true
            }
            _ => false,
        })
    });
    let end = ConnectionEnd::IngressController(pods.into_iter().collect());
    (at != [None; 2]).then_some(MatchedEnd { end, at, part: None })
}

type Parts<'a> = Vec<(usize, &'a WorkloadPods)>;

fn workloads(answers: [&Connections; 2]) -> Vec<MatchedEnd> {
    let mut found: BTreeMap<(&Name, &Name, &Name), [Parts<'_>; 2]> = BTreeMap::new();
    for (side, answer) in answers.into_iter().enumerate() {
        for (i, end) in answer.ends().enumerate() {
            if let ConnectionEnd::Workload(w) = end {
                found.entry((&w.namespace, &w.name, &w.kind)).or_default()[side].push((i, w));
            }
        }
    }
    let mut out = Vec::new();
    for [before, after] in found.into_values() {
        match (&before[..], &after[..]) {
            // Pods may have been replaced: a workload with equivalent pods on both sides is one end.
            ([(a, before)], [(b, after)]) => {
                let pods: BTreeSet<Name> = before.pods.iter().chain(&after.pods).cloned().collect();
                let pods = WorkloadPods { pods: pods.into_iter().collect(), ..(*before).clone() };
                out.push(MatchedEnd {
                    end: ConnectionEnd::Workload(pods),
                    at: [Some(*a), Some(*b)],
                    part: None,
                });
            }
            _ => out.extend(parts(&before, &after)),
        }
    }
    out
}

/// Divides the pods of a workload by their ends in both answers.
fn parts(before: &Parts<'_>, after: &Parts<'_>) -> Vec<MatchedEnd> {
    let places = |parts: &Parts<'_>| -> BTreeMap<Name, usize> {
        parts.iter().flat_map(|(i, w)| w.pods.iter().map(move |p| (p.clone(), *i))).collect()
    };
    let (a, b) = (places(before), places(after));
    let mut found: BTreeMap<[Option<usize>; 2], Vec<Name>> = BTreeMap::new();
    for pod in a.keys().chain(b.keys()).collect::<BTreeSet<_>>() {
        found.entry([a.get(pod).copied(), b.get(pod).copied()]).or_default().push(pod.clone());
    }
    let Some((_, first)) = before.first().or(after.first()) else { return Vec::new() };
    let whole = found.len() == 1;
    let part = found.into_iter().map(|(at, pods)| {
        let part = Some(pods.len());
        let pods = WorkloadPods { pods, whole, ..(*first).clone() };
        MatchedEnd { end: ConnectionEnd::Workload(pods), at, part }
    });
    part.collect()
}

fn nodes(answers: [&Connections; 2], own: bool) -> Vec<MatchedEnd> {
    let mut found: BTreeMap<(Name, IpAddr), [Option<usize>; 2]> = BTreeMap::new();
    for (side, answer) in answers.into_iter().enumerate() {
        for (i, end) in answer.ends().enumerate() {
            let nodes = match end {
                ConnectionEnd::OwnNode(nodes) if own => nodes,
                ConnectionEnd::Nodes(nodes) if !own => nodes,
                _ => continue,
            };
            for node in nodes {
                for address in &node.addresses {
                    found.entry((node.name.clone(), *address)).or_default()[side] = Some(i);
                }
            }
        }
    }
    let mut by_place: BTreeMap<[Option<usize>; 2], BTreeMap<Name, Vec<IpAddr>>> = BTreeMap::new();
    for ((name, address), at) in found {
        by_place.entry(at).or_default().entry(name).or_default().push(address);
    }
    let ends = by_place.into_iter().map(|(at, nodes)| {
        let nodes = nodes.into_iter().map(|(name, addresses)| NodeAddresses { name, addresses }).collect();
        let end = if own { ConnectionEnd::OwnNode(nodes) } else { ConnectionEnd::Nodes(nodes) };
        MatchedEnd { end, at, part: None }
    });
    ends.collect()
}

fn externals(answers: [&Connections; 2], family: Family) -> Vec<MatchedEnd> {
    // Where ranges begin, and the end that begins there; `None` where addresses of no external end begin.
    let cuts = answers.map(|answer| {
        let mut cuts: BTreeMap<u128, Option<usize>> = BTreeMap::new();
        for (i, end) in answer.ends().enumerate() {
            let ConnectionEnd::External(e) = end else { continue };
            for range in e.ranges.iter().filter(|_| e.family == family) {
                cuts.insert(to_number(range.first), Some(i));
                if let Some(next) = to_number(range.last).checked_add(1).filter(|n| *n <= max_number(family))
                {
                    cuts.entry(next).or_insert(None);
                }
            }
        }
        cuts
    });
    let starts: BTreeSet<u128> = cuts.iter().flat_map(BTreeMap::keys).copied().collect();
    let starts: Vec<u128> = starts.into_iter().collect();
    let mut found: BTreeMap<[Option<usize>; 2], Vec<IpRange>> = BTreeMap::new();
    for (i, start) in starts.iter().enumerate() {
        let last = starts.get(i + 1).map_or(max_number(family), |next| next - 1);
        let at = [&cuts[0], &cuts[1]].map(|cuts| *cuts.range(..=start).next_back()?.1);
        if at != [None; 2] {
            let range = IpRange { first: from_number(family, *start), last: from_number(family, last) };
            found.entry(at).or_default().push(range);
        }
    }
    let ends = found.into_iter().map(|(at, ranges)| {
        let end = ConnectionEnd::External(ExternalRanges { family, ranges: union(ranges) });
        MatchedEnd { end, at, part: None }
    });
    ends.collect()
}
