//! A difference for a page: what opens and closes, grouped by cause, in words and as pairs that a map can mark.

use palisade_analysis::ConnectionEnd;
use serde::Serialize;

use super::{
    comparison::Comparison,
    groups::{Group, Row, groups},
    summary::Summary,
    text::{MAX_LISTED, because, remarks},
    wording,
};
use crate::{connection_ends, escape};

/// The most groups, and the most rows of a group.
const MOST: (usize, usize) = (50, 100);
/// The most names of ends that rows list: those of further rows are left out.
const MOST_NAMES: usize = 20_000;

/// What a change opens and closes.
#[derive(Serialize)]
pub(crate) struct JsonConsequences {
    summary: Summary,
    groups: Vec<JsonGroup>,
    /// How many groups are left out.
    more_groups: usize,
    /// DNS, policies without effect, and policies that only have another name.
    others: Vec<String>,
    /// What could not be read or decided, and what else to know.
    remarks: Vec<String>,
    /// Whether `ends` of all rows of connections are there.
    all_ends: bool,
}

/// Changes with the same causes.
#[derive(Serialize)]
struct JsonGroup {
    because: String,
    rows: Vec<JsonRow>,
    /// How many rows are left out.
    more: usize,
}

/// From each of some ends to each of others.
#[derive(Serialize)]
struct JsonRow {
    opened: bool,
    from: String,
    to: String,
    traffic: String,
    /// The names of the ends, as those of the report. Absent for pods that don't exist yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    ends: Option<[Vec<String>; 2]>,
}

/// Renders the difference.
pub(crate) fn consequences(comparison: &Comparison) -> JsonConsequences {
    let groups = groups(comparison);
    let mut names = Names { left: MOST_NAMES, all: true };
    let idle = comparison.difference.policies_without_effect().map(|(key, _)| {
        format!("no connection of pods that exist is changed by {}", wording::idle(comparison, key))
    });
    let renamed = comparison
        .renamed()
        .map(|key| format!("same content, other name: {}", wording::renamed(comparison, key)));
    let dns = [false, true].into_iter().filter_map(|opened| wording::dns(comparison, opened));
    JsonConsequences {
        summary: Summary::new(comparison),
        more_groups: groups.len().saturating_sub(MOST.0),
        groups: groups.iter().take(MOST.0).map(|group| names.group(comparison, group)).collect(),
        others: dns.chain(idle).chain(renamed).collect(),
        remarks: remarks(comparison),
        all_ends: names.all && groups.len() <= MOST.0,
    }
}

/// How many names may still be listed.
struct Names {
    left: usize,
    /// Whether nothing was left out so far.
    all: bool,
}

impl Names {
    fn group(&mut self, comparison: &Comparison, group: &Group<'_>) -> JsonGroup {
        let rows = group.rows(group.changes.len() > MAX_LISTED);
        let future: Vec<_> = group.future.iter().flat_map(|change| wording::future(change)).collect();
        let more = (rows.len() + future.len()).saturating_sub(MOST.1);
        self.all &= rows.len() <= MOST.1;
        let rows = rows.iter().map(|row| self.row(row));
        let future = future.into_iter().map(|row| JsonRow {
            opened: row.opened,
            from: row.from,
            to: row.to,
            traffic: row.traffic,
            ends: None,
        });
        JsonGroup {
            because: because(comparison, group),
            rows: rows.chain(future).take(MOST.1).collect(),
            more,
        }
    }

    fn row(&mut self, row: &Row<'_>) -> JsonRow {
        let needed = row.from.len() + row.to.len();
        let ends = (needed <= self.left).then(|| {
            self.left -= needed;
            [names(&row.from), names(&row.to)]
        });
        self.all &= ends.is_some();
        JsonRow {
            opened: row.opened,
            from: wording::ends(&row.from),
            to: wording::ends(&row.to),
            traffic: wording::traffic(row),
            ends,
        }
    }
}

fn names(ends: &[&ConnectionEnd]) -> Vec<String> {
    ends.iter().map(|end| escape::plain(&connection_ends::name(end)).into_owned()).collect()
}
