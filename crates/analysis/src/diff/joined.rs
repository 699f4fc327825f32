//! Combines changes that only differ in external addresses or nodes.

use std::collections::{BTreeMap, HashMap};

use palisade_policy::address::union;

use super::change::ConnectionChange;
use crate::end::{ConnectionEnd, ExternalRanges, NodeAddresses};

/// Combines changes that only differ in external addresses or nodes. Sorts the result.
pub(super) fn joined(changes: Vec<ConnectionChange>) -> Vec<ConnectionChange> {
    let mut out: Vec<ConnectionChange> = Vec::with_capacity(changes.len());
    let mut places: HashMap<(ConnectionEnd, ConnectionEnd), Vec<usize>> = HashMap::new();
    for change in changes {
        let key = (without_members(&change.from), without_members(&change.to));
        let places = places.entry(key).or_default();
        let same = |other: &ConnectionChange| {
            other.families == change.families
                && (&other.opened, &other.closed) == (&change.opened, &change.closed)
                && other.causes == change.causes
        };
        match places.iter().copied().find(|i| same(&out[*i])) {
            Some(i) => {
                join(&mut out[i].from, change.from);
                join(&mut out[i].to, change.to);
            }
            None => {
                places.push(out.len());
                out.push(change);
            }
        }
    }
    let key = |c: &ConnectionChange| (c.from.clone(), c.to.clone(), c.families);
    out.sort_by_cached_key(key);
    out
}

/// Returns the end without its external addresses or nodes.
fn without_members(end: &ConnectionEnd) -> ConnectionEnd {
    match end {
        ConnectionEnd::External(e) => ConnectionEnd::External(ExternalRanges {
            family: e.family,
            ranges: Vec::new(),
            spanned: Vec::new(),
        }),
        ConnectionEnd::OwnNode(_) => ConnectionEnd::OwnNode(Vec::new()),
        ConnectionEnd::Nodes(_) => ConnectionEnd::Nodes(Vec::new()),
        other => other.clone(),
    }
}

fn join(end: &mut ConnectionEnd, other: ConnectionEnd) {
    match (end, other) {
        (ConnectionEnd::External(a), ConnectionEnd::External(b)) => {
            a.ranges.extend(b.ranges);
            a.ranges = union(std::mem::take(&mut a.ranges));
            a.spanned.extend(b.spanned);
            a.spanned = union(std::mem::take(&mut a.spanned));
        }
        (ConnectionEnd::OwnNode(a), ConnectionEnd::OwnNode(b))
        | (ConnectionEnd::Nodes(a), ConnectionEnd::Nodes(b)) => {
            let mut all: BTreeMap<_, (Vec<_>, bool)> = BTreeMap::new();
            for node in a.drain(..).chain(b) {
                let (addresses, whole) = all.entry(node.name).or_default();
                addresses.extend(node.addresses);
                *whole |= node.whole;
            }
            let node = |(name, (mut addresses, whole)): (_, (Vec<_>, bool))| {
                addresses.sort_unstable();
                addresses.dedup();
                NodeAddresses { name, addresses, whole }
            };
            *a = all.into_iter().map(node).collect();
        }
        _ => {}
    }
}
