//! Matches the ends of two answers: workloads by name, nodes by name and address. External ranges are divided by both
//! answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use palisade_policy::{
    Family, IpRange, Name,
    address::{Sweep, union},
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
    let mut places: BTreeMap<Name, BTreeSet<[Option<usize>; 2]>> = BTreeMap::new();
    for ((name, address), at) in found {
        places.entry(name.clone()).or_default().insert(at);
        by_place.entry(at).or_default().entry(name).or_default().push(address);
    }
    let ends = by_place.into_iter().map(|(at, nodes)| {
        let is_whole = |name: &Name| places.get(name).is_some_and(|places| places.len() == 1);
        let nodes = nodes.into_iter().map(|(name, addresses)| NodeAddresses {
            whole: is_whole(&name),
            name,
            addresses,
        });
        let nodes = nodes.collect();
        let end = if own { ConnectionEnd::OwnNode(nodes) } else { ConnectionEnd::Nodes(nodes) };
        MatchedEnd { end, at, part: None }
    });
    ends.collect()
}

/// Divides external addresses by the ends of both answers. An address that is external in one of them only belongs to a
/// pod or node in the other, and is left out.
fn externals(answers: [&Connections; 2], family: Family) -> Vec<MatchedEnd> {
    let ends = answers.map(|answer| {
        let external = answer.ends().enumerate().filter_map(|(at, end)| match end {
            ConnectionEnd::External(e) if e.family == family => Some((at, e)),
            _ => None,
        });
        external.collect::<Vec<(usize, &ExternalRanges)>>()
    });
    let both = ends.iter().all(|ends| !ends.is_empty());
    let ranges = divided(&ends, family, |end| &end.ranges);
    let mut spanned = divided(&ends, family, |end| &end.spanned);
    let whole = |at: &[Option<usize>; 2]| !both || at.iter().all(Option::is_some);
    let ends = ranges.into_iter().filter(|(at, _)| whole(at)).map(|(at, ranges)| {
        let spanned = spanned.remove(&at).unwrap_or_else(|| ranges.clone());
        let end = ConnectionEnd::External(ExternalRanges { family, ranges, spanned });
        MatchedEnd { end, at, part: None }
    });
    ends.collect()
}

/// Returns ranges by the ends that contain them in the first answer and in the second, canonical.
fn divided(
    ends: &[Vec<(usize, &ExternalRanges)>; 2],
    family: Family,
    of: impl Fn(&ExternalRanges) -> &Vec<IpRange>,
) -> BTreeMap<[Option<usize>; 2], Vec<IpRange>> {
    let places = ends.iter().enumerate().flat_map(|(side, ends)| ends.iter().map(move |(at, _)| (side, *at)));
    let places: Vec<(usize, usize)> = places.collect();
    let owned =
        ends.iter().flatten().enumerate().flat_map(|(n, (_, end))| of(end).iter().map(move |r| (n, *r)));
    let mut found: BTreeMap<[Option<usize>; 2], Vec<IpRange>> = BTreeMap::new();
    let mut inside: [BTreeSet<usize>; 2] = Default::default();
    for (piece, changed) in Sweep::new(family, owned) {
        for (side, end) in changed.into_iter().map(|n| places[n]) {
            if !inside[side].remove(&end) {
                inside[side].insert(end);
            }
        }
        // The ends of one answer are disjoint.
        let at = [0, 1].map(|side: usize| inside[side].first().copied());
        if at != [None; 2] {
            found.entry(at).or_default().push(piece);
        }
    }
    found.values_mut().for_each(|ranges| *ranges = union(std::mem::take(ranges)));
    found
}
