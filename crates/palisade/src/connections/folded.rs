//! The folded table: one line for each set of sources, set of destinations and ports.
//!
//! Workloads that no policy restricts are listed once below the table. What they reach, or what reaches them, because
//! the other side is not restricted either, has no lines in the table.

use std::collections::{BTreeMap, BTreeSet};

use palisade_analysis::{Families, FoldedConnections, FoldedEdge};
use palisade_policy::Direction;

use super::{
    reasons,
    report::Report,
    sets::SetNames,
    wrap::{Cell, Table},
};
use crate::{
    escape, inputs,
    output::{Style, styled},
    traffic::{VisibleTraffic, family_names},
};

/// The most names in a cell of a set that occurs more than once. Longer sets get a number.
const MOST_NAMES: usize = 4;

/// A line of the table.
#[derive(Clone, Debug)]
struct Row {
    from: Vec<usize>,
    to: Vec<usize>,
    ports: String,
    /// What decides, as lines.
    reasons: Vec<String>,
}

/// The sets that are named instead of listed.
struct Groups<'a> {
    names: &'a SetNames<'a>,
    /// The ends of pods that no policy restricts, by direction.
    free: [Vec<usize>; 2],
    numbered: Vec<Vec<usize>>,
}

/// Returns the table for a terminal of `width` columns.
pub(crate) fn text(report: &Report<'_>, width: usize) -> String {
    let folded = report.folded();
    if folded.edges.is_empty() {
        let what = if report.denied { "denied" } else { "allowed" };
        return format!("no matching connection is {what}\n");
    }
    let names = SetNames::new(&report.ends, report.grouping);
    // With a filter, the question is about single ends.
    let by_freedom = !report.denied && !report.is_filtered();
    let free = Direction::BOTH.map(|direction| match by_freedom {
        true => free_ends(report, direction),
        false => Vec::new(),
    });
    let mut groups = Groups { names: &names, free, numbered: Vec::new() };
    let rows: Vec<Row> =
        folded.edges.iter().flat_map(|edge| rows(report, &folded, edge, by_freedom)).collect();
    groups.number(&rows);
    let mut out = String::new();
    if !rows.is_empty() {
        let mut table = Table::new(["FROM", "TO", "PORTS"], width);
        let mut before: Option<&[usize]> = None;
        for row in &rows {
            // Lines with reasons are between.
            let again = before == Some(&row.from) && row.reasons.is_empty();
            let from = if again { Cell::default() } else { groups.cell(&row.from) };
            table.row([from, groups.cell(&row.to), Cell::of_ports(&row.ports)]);
            row.reasons.iter().for_each(|reason| table.note(reason.clone()));
            before = Some(&row.from);
        }
        out += &table.text();
    }
    out += &groups.legend(width);
    if !out.is_empty() {
        out.push('\n');
    }
    out + &summary(report, &folded)
}

/// Returns the ends of pods that no policy restricts in a direction.
fn free_ends(report: &Report<'_>, direction: Direction) -> Vec<usize> {
    let is_free = |end: &usize| report.ends[*end].endpoint.is_pods() && report.is_free(*end, direction);
    (0..report.ends.len()).filter(is_free).collect()
}

/// Returns the lines of a folded edge: none for what follows from ends that are not restricted.
fn rows(
    report: &Report<'_>,
    folded: &FoldedConnections<'_>,
    edge: &FoldedEdge<'_>,
    by_freedom: bool,
) -> Vec<Row> {
    let ports = ports(edge);
    let (from, to) = (&folded.sets[edge.from], &folded.sets[edge.to]);
    let reasons =
        report.reasoner.map_or_else(Vec::new, |reasoner| reasons::lines(&reasoner.reasons(edge.label)));
    let row =
        |from: Vec<usize>, to: Vec<usize>| Row { from, to, ports: ports.clone(), reasons: reasons.clone() };
    if !by_freedom || !edge.traffic.is_all() || !edge.exact || !edge.through.is_empty() {
        return vec![row(from.clone(), to.clone())];
    }
    let divided = |set: &[usize], direction| -> (Vec<usize>, Vec<usize>) {
        let is_free = |end: &usize| report.is_free(*end, direction);
        set.iter().copied().partition(is_free)
    };
    let (free_from, bound_from) = divided(from, Direction::Egress);
    let (_, bound_to) = divided(to, Direction::Ingress);
    let parts = [row(free_from, bound_to), row(bound_from, to.clone())];
    parts.into_iter().filter(|row| !row.from.is_empty() && !row.to.is_empty()).collect()
}

fn ports(edge: &FoldedEdge<'_>) -> String {
    let mut out = VisibleTraffic::of(edge.traffic).text();
    if edge.families != (Families { v4: true, v6: true }) {
        out = format!("{out} ({})", family_names(edge.families).join(" and "));
    }
    if !edge.exact {
        out += " (some pods)";
    }
    out
}

impl Groups<'_> {
    /// Numbers the long sets that several lines need.
    fn number(&mut self, rows: &[Row]) {
        let mut count: BTreeMap<&[usize], usize> = BTreeMap::new();
        let mut before: Option<&[usize]> = None;
        for row in rows {
            if before != Some(&row.from) {
                *count.entry(&row.from).or_default() += 1;
            }
            *count.entry(&row.to).or_default() += 1;
            before = Some(&row.from);
        }
        let mut seen = BTreeSet::new();
        for set in rows.iter().flat_map(|row| [&row.from, &row.to]) {
            if count[&set[..]] > 1 && seen.insert(set) && self.terms(set).len() > MOST_NAMES {
                self.numbered.push(set.clone());
            }
        }
    }

    fn cell(&self, set: &Vec<usize>) -> Cell {
        if let Some(number) = self.numbered.iter().position(|numbered| numbered == set) {
            return Cell::of_names(vec![format!("({} ends, group {})", set.len(), number + 1)]);
        }
        Cell::of_names(self.terms(set))
    }

    /// Returns the names of a set, with one for all workloads that are not restricted.
    fn terms(&self, set: &[usize]) -> Vec<String> {
        let mut out = Vec::new();
        let mut rest = set.to_vec();
        for (free, direction) in self.free.iter().zip(Direction::BOTH) {
            let holds_all = || free.iter().all(|end| rest.binary_search(end).is_ok());
            if free.len() > 1 && out.is_empty() && holds_all() {
                out.push(match self.free[0] == self.free[1] {
                    true => "{not isolated}".to_owned(),
                    false => format!("{{not isolated for {direction}}}"),
                });
                rest.retain(|end| free.binary_search(end).is_err());
            }
        }
        let others = self.names.terms(&rest).into_iter().map(|name| escape::plain(&name).into_owned());
        out.extend(others);
        out
    }

    /// Lists the workloads that are not restricted, and the numbered groups.
    fn legend(&self, width: usize) -> String {
        let list = |set: &[usize]| {
            let names = self.names.terms(set).into_iter().map(|name| escape::plain(&name).into_owned());
            Cell::of_names(names.collect()).indented(2, width)
        };
        let mut out = String::new();
        let mut paragraph = |head: String, style: Style, set: &[usize]| {
            if !set.is_empty() {
                out += &format!("\n{}\n{}", styled(style, &head), list(set));
            }
        };
        let [egress, ingress] = &self.free;
        let reach = "reach everything that the other side allows, also outside:";
        let reached = "reached by everything that the other side allows, also from outside:";
        if egress == ingress {
            let both = "reach, and are reached by, everything that the other side allows, also outside:";
            paragraph(format!("not isolated: {both}"), Style::Open, egress);
        } else {
            paragraph(format!("not isolated for egress: {reach}"), Style::Open, egress);
            paragraph(format!("not isolated for ingress: {reached}"), Style::Open, ingress);
        }
        for (number, set) in self.numbered.iter().enumerate() {
            paragraph(format!("group {}:", number + 1), Style::Strong, set);
        }
        out
    }
}

/// Returns the last line: how many connections there are, and how many workloads are not isolated.
fn summary(report: &Report<'_>, folded: &FoldedConnections<'_>) -> String {
    let count: usize = folded.edges.iter().map(|edge| folded.count(edge)).sum();
    let used: BTreeSet<usize> = folded.sets.iter().flatten().copied().collect();
    let is_pods = |end: &usize| report.ends[*end].endpoint.is_pods();
    let pods = used.iter().filter(|end| is_pods(end)).count();
    let word = report.grouping;
    let plural = |n: usize| match word {
        "class" if n != 1 => "classes".to_owned(),
        _ => inputs::plural(n, word),
    };
    let denied = if report.denied { "denied " } else { "" };
    let outside = if pods < used.len() { " and the outside" } else { "" };
    let mut out = format!(
        "{count} {denied}{} between {pods} {}{outside}",
        inputs::plural(count, "connection"),
        plural(pods)
    );
    if !report.denied && !report.is_filtered() {
        let [egress, ingress] = Direction::BOTH.map(|direction| free_ends(report, direction).len());
        let all = (0..report.ends.len()).filter(|end| is_pods(end)).count();
        out += &match (egress, ingress) {
            (0, 0) => format!("; all {all} {} are isolated", plural(all)),
            _ => format!("; not isolated: {egress} for egress, {ingress} for ingress"),
        };
    }
    out + "\n"
}
