//! The changes of a difference, grouped by cause, the largest risk first.

use std::collections::{BTreeMap, HashMap, HashSet};

use palisade_analysis::{
    ConnectionEnd,
    diff::{ConnectionChange, Edit, FutureChange},
};
use palisade_policy::{Direction, Traffic};

use super::comparison::Comparison;
use crate::traffic::VisibleTraffic;

/// The changes with the same causes.
pub(crate) struct Group<'a> {
    /// The edits that cause them together. Empty if other properties of objects do.
    pub(crate) edits: Vec<&'a Edit>,
    /// The changes.
    pub(crate) changes: Vec<&'a ConnectionChange>,
    /// The changes for pods that don't exist yet.
    pub(crate) future: Vec<&'a FutureChange>,
    risk: Risk,
}

/// How much a group of changes exposes. Greater is worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Risk {
    Closes,
    ClosesDns,
    Opens,
    OpensToInternet,
    OpensFromInternet,
}

/// Opened or closed connections of a group that have the same traffic: from each of some ends to each of others.
pub(crate) struct Row<'a> {
    pub(crate) opened: bool,
    pub(crate) from: Vec<&'a ConnectionEnd>,
    pub(crate) to: Vec<&'a ConnectionEnd>,
    pub(crate) traffic: &'a Traffic,
    /// The families, unless an end shows them.
    pub(crate) families: Option<palisade_analysis::Families>,
}

/// Groups the changes.
pub(crate) fn groups(comparison: &Comparison) -> Vec<Group<'_>> {
    let mut found: BTreeMap<Vec<&Edit>, (Vec<&ConnectionChange>, Vec<&FutureChange>)> = BTreeMap::new();
    for change in &comparison.difference.changes {
        let edits = change.causes.iter().map(|cause| &cause.edit).collect();
        found.entry(edits).or_default().0.push(change);
    }
    for change in comparison.difference.exposure.iter().filter(|change| change.exact) {
        found.entry(change.causes.iter().collect()).or_default().1.push(change);
    }
    let without_dns: HashSet<&ConnectionEnd> =
        comparison.difference.dns.iter().filter(|dns| !dns.opened).map(|dns| &dns.end).collect();
    let mut groups: Vec<Group<'_>> = Vec::new();
    for (edits, (changes, future)) in found {
        let risks = changes.iter().map(|change| risk(change, &without_dns));
        let risk = risks.chain(future.iter().map(|change| future_risk(change))).max();
        groups.push(Group { edits, changes, future, risk: risk.unwrap_or(Risk::Closes) });
    }
    groups.sort_by_key(|group| std::cmp::Reverse((group.risk, group.changes.len(), group.future.len())));
    groups
}

/// Returns changes as folded rows, whatever causes them.
pub(crate) fn rows(changes: &[ConnectionChange]) -> Vec<Row<'_>> {
    let group = Group {
        edits: Vec::new(),
        changes: changes.iter().collect(),
        future: Vec::new(),
        risk: Risk::Closes,
    };
    group.rows(true)
}

fn risk(change: &ConnectionChange, without_dns: &HashSet<&ConnectionEnd>) -> Risk {
    if VisibleTraffic::of(&change.opened).is_none() {
        let closes_dns = without_dns.contains(&change.from)
            && change.closed.contains(palisade_policy::Protocol::Udp, palisade_names::DNS_PORT);
        return if closes_dns { Risk::ClosesDns } else { Risk::Closes };
    }
    if change.from.is_internet() || matches!(change.from, ConnectionEnd::IngressController(_)) {
        Risk::OpensFromInternet
    } else if change.to.is_internet() {
        Risk::OpensToInternet
    } else {
        Risk::Opens
    }
}

fn future_risk(change: &FutureChange) -> Risk {
    let internet = change.ends.iter().flat_map(|traffic| &traffic.ends).any(ConnectionEnd::is_internet);
    match (change.opened, internet, change.direction) {
        (false, ..) => Risk::Closes,
        (true, true, Direction::Ingress) => Risk::OpensFromInternet,
        (true, true, Direction::Egress) => Risk::OpensToInternet,
        (true, false, _) => Risk::Opens,
    }
}

impl<'a> Group<'a> {
    /// Returns the changes as rows, opened ones first. With `fold`, sources with the same destinations share a row.
    pub(crate) fn rows(&self, fold: bool) -> Vec<Row<'a>> {
        [true, false].into_iter().flat_map(|opened| self.rows_of(opened, fold)).collect()
    }

    fn rows_of(&self, opened: bool, fold: bool) -> Vec<Row<'a>> {
        let mut rows: Vec<Row<'a>> = Vec::new();
        for change in &self.changes {
            let traffic = if opened { &change.opened } else { &change.closed };
            if !VisibleTraffic::of(traffic).is_none() {
                let external = |end: &ConnectionEnd| matches!(end, ConnectionEnd::External(_));
                let shown = external(&change.from) || external(&change.to);
                let both = change.families.v4 && change.families.v6;
                let families = (!shown && !both).then_some(change.families);
                rows.push(Row { opened, from: vec![&change.from], to: vec![&change.to], traffic, families });
            }
        }
        // Addresses of both families are one place outside.
        let outside =
            |end: &ConnectionEnd| matches!(end, ConnectionEnd::External(_)).then(|| end.is_internet());
        let rows = merged(
            rows,
            |row| (row.from[0], outside(row.to[0]).ok_or(row.to[0])),
            |row, more| row.to.extend(more.to),
        );
        let rows = merged(
            rows,
            |row| (outside(row.from[0]).ok_or(row.from[0]), row.to.clone()),
            |row, more| row.from.extend(more.from),
        );
        if !fold {
            return rows;
        }
        let rows = merged(rows, |row| ((), row.to.clone()), |row, more| row.from.extend(more.from));
        merged(rows, |row| (row.from.clone(), ()), |row, more| row.to.extend(more.to))
    }
}

/// Merges rows with equal keys, traffic and families into the first of them.
fn merged<'a, A: Eq + std::hash::Hash, B: Eq + std::hash::Hash>(
    rows: Vec<Row<'a>>,
    key: impl Fn(&Row<'a>) -> (A, B),
    merge: impl Fn(&mut Row<'a>, Row<'a>),
) -> Vec<Row<'a>> {
    let mut out: Vec<Row<'a>> = Vec::new();
    let mut places = HashMap::new();
    for row in rows {
        match places.entry((key(&row), row.traffic, row.families)) {
            std::collections::hash_map::Entry::Occupied(at) => merge(&mut out[*at.get()], row),
            std::collections::hash_map::Entry::Vacant(at) => {
                at.insert(out.len());
                out.push(row);
            }
        }
    }
    out
}
