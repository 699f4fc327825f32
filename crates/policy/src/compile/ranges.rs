//! A table's rows for addresses that are no live pods: the address space cut where CIDRs begin and end.

use std::collections::{BTreeMap, BTreeSet};

use super::definition::Definition;
use crate::{
    Family, IpRange, Peer, Traffic,
    address::{from_number, max_number, to_number},
    rules::IpBlock,
};

/// An inclusive range of address numbers.
pub(super) type Span = (u128, u128);

/// The rows of every address range whose row differs from `rest`, merged by row, ranges sorted and disjoint.
///
/// `O(n log n)` in the number of CIDRs and exceptions, times the rules that overlap at one address.
pub(super) fn rows(definition: &Definition, rest: &Traffic) -> BTreeMap<Traffic, Vec<IpRange>> {
    let mut rows: BTreeMap<Traffic, Vec<IpRange>> = BTreeMap::new();
    for family in Family::BOTH {
        let edges = edges(definition, family);
        let mut active: BTreeSet<usize> = BTreeSet::new();
        let mut known: BTreeMap<BTreeSet<usize>, Traffic> = BTreeMap::new();
        let mut edges = edges.into_iter().peekable();
        while let Some((start, changes)) = edges.next() {
            for rule in changes {
                // An edge is where a rule's span begins or ends: its state flips.
                if !active.remove(&rule) {
                    active.insert(rule);
                }
            }
            if active.is_empty() {
                continue;
            }
            let end = edges.peek().map_or(max_number(family), |(next, _)| next - 1);
            let row = known.entry(active.clone()).or_insert_with(|| row(definition, &active));
            if row != rest {
                push(rows.entry(row.clone()).or_default(), family, (start, end));
            }
        }
    }
    rows
}

/// The row of an address that is in the blocks of these rules and no pod's.
fn row(definition: &Definition, active: &BTreeSet<usize>) -> Traffic {
    definition.flatten(|index, rule| {
        (rule.peers.is_none() || active.contains(&index)).then(|| rule.ports.numbers.clone())
    })
}

/// Where which rules begin or stop to hold: each rule flips at each of its edges.
fn edges(definition: &Definition, family: Family) -> BTreeMap<u128, Vec<usize>> {
    let mut edges: BTreeMap<u128, Vec<usize>> = BTreeMap::new();
    for (index, rule) in definition.rules().enumerate() {
        for (first, last) in spans(rule.peers.iter().flatten(), family) {
            edges.entry(first).or_default().push(index);
            if last < max_number(family) {
                edges.entry(last + 1).or_default().push(index);
            }
        }
    }
    edges
}

/// The union of a rule's blocks: sorted, disjoint, not adjacent.
fn spans<'a>(peers: impl Iterator<Item = &'a Peer>, family: Family) -> Vec<Span> {
    let mut all: Vec<Span> = peers
        .filter_map(|peer| match peer {
            Peer::Block(block) if Family::of_net(&block.cidr) == family => Some(block_spans(block)),
            Peer::Block(_) | Peer::Pods(_) | Peer::Nodes(_) => None,
        })
        .flatten()
        .collect();
    all.sort_unstable();
    let mut out: Vec<Span> = Vec::with_capacity(all.len());
    for (first, last) in all {
        match out.last_mut() {
            Some(previous) if first == 0 || first - 1 <= previous.1 => previous.1 = previous.1.max(last),
            _ => out.push((first, last)),
        }
    }
    out
}

/// A block less its exceptions, which may overlap each other (SEMANTICS A.3.9).
pub(super) fn block_spans(block: &IpBlock) -> Vec<Span> {
    let span = |net| {
        let range = IpRange::of_net(net);
        (to_number(range.first), to_number(range.last))
    };
    let (mut next, end) = span(&block.cidr);
    let mut holes: Vec<Span> =
        block.except.iter().filter(|e| Family::of_net(e) == Family::of_net(&block.cidr)).map(span).collect();
    holes.sort_unstable();
    let mut out = Vec::with_capacity(holes.len() + 1);
    for (first, last) in holes {
        if last < next || first > end {
            continue;
        }
        if first > next {
            out.push((next, first - 1));
        }
        if last >= end {
            return out;
        }
        next = last + 1;
    }
    out.push((next, end));
    out
}

fn push(ranges: &mut Vec<IpRange>, family: Family, (first, last): Span) {
    let range = IpRange { first: from_number(family, first), last: from_number(family, last) };
    match ranges.last_mut() {
        // `first` is not 0 here: a range before it exists in the same family.
        Some(previous) if Family::of(previous.last) == family && to_number(previous.last) + 1 == first => {
            previous.last = range.last;
        }
        _ => ranges.push(range),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(cidr: &str, except: &[&str]) -> IpBlock {
        IpBlock { cidr: cidr.parse().unwrap(), except: except.iter().map(|e| e.parse().unwrap()).collect() }
    }

    fn texts(blocks: &[IpBlock], family: Family) -> Vec<String> {
        let peers: Vec<Peer> = blocks.iter().cloned().map(Peer::Block).collect();
        spans(peers.iter(), family)
            .into_iter()
            .map(|(a, b)| IpRange { first: from_number(family, a), last: from_number(family, b) }.to_string())
            .collect()
    }

    #[test]
    fn blocks_become_disjoint_spans() {
        let v4 = |blocks: &[IpBlock]| texts(blocks, Family::V4);
        assert_eq!(v4(&[block("0.0.0.0/0", &[])]), ["0.0.0.0-255.255.255.255"]);
        assert_eq!(v4(&[block("0.0.0.0/0", &["0.0.0.0/1"])]), ["128.0.0.0-255.255.255.255"]);
        assert_eq!(v4(&[block("0.0.0.0/0", &["128.0.0.0/1"])]), ["0.0.0.0-127.255.255.255"]);
        assert_eq!(
            v4(&[block("10.0.0.0/24", &["10.0.0.0/25", "10.0.0.64/26", "10.0.0.255/32"])]),
            ["10.0.0.128-10.0.0.254"]
        );
        assert_eq!(v4(&[block("10.0.0.0/25", &[]), block("10.0.0.128/25", &[])]), ["10.0.0.0-10.0.0.255"]);
        assert_eq!(
            v4(&[block("10.0.0.0/24", &["10.0.0.4/30"]), block("10.0.0.5/32", &[])]),
            ["10.0.0.0-10.0.0.3", "10.0.0.5", "10.0.0.8-10.0.0.255"]
        );
        assert!(v4(&[block("::/0", &[])]).is_empty());
        assert_eq!(
            texts(&[block("::/0", &["::/1"])], Family::V6),
            ["8000::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]
        );
    }
}
