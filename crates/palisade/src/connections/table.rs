//! Tables as text and in Markdown.

use std::io::{self, Write};

use palisade_analysis::Edge;
use palisade_policy::Origin;

use super::report::Report;
use crate::{
    escape,
    traffic::{VisibleTraffic, family_names},
};

/// Spaces between two columns.
const GAP: usize = 2;

/// Writes one line per edge, with more columns if `wide`.
pub(crate) fn text(report: &Report<'_>, wide: bool, out: &mut dyn Write) -> io::Result<()> {
    let ids: Vec<String> = report.ends.iter().map(|e| escape::plain(&e.id).into_owned()).collect();
    let width = |all: &mut dyn Iterator<Item = usize>, head: &str| all.max().unwrap_or(0).max(head.len());
    let length = |end: usize| ids[end].chars().count();
    let from = width(&mut report.edges().map(|e| length(e.from)), "FROM");
    let to = width(&mut report.edges().map(|e| length(e.to)), "TO");
    if report.edges().next().is_none() {
        let what = if report.denied { "denied" } else { "allowed" };
        return writeln!(out, "no matching connection is {what}");
    }
    if !wide {
        writeln!(out, "{:<from$}{:GAP$}{:<to$}{:GAP$}PORTS", "FROM", "", "TO", "")?;
        for edge in report.edges() {
            let (source, target) = (&ids[edge.from], &ids[edge.to]);
            writeln!(out, "{source:<from$}{:GAP$}{target:<to$}{:GAP$}{}", "", "", report.traffic(&edge))?;
        }
        return Ok(());
    }
    let ports = width(&mut report.edges().map(|e| VisibleTraffic::of(e.traffic).text().len()), "PORTS");
    let places: Vec<String> =
        report.ends.iter().map(|e| escape::plain(&origin_text(e.at)).into_owned()).collect();
    let from_at = |edge: &Edge<'_>| match report.through(edge) {
        Some(routes) => escape::plain(&routes).into_owned(),
        None => places[edge.from].clone(),
    };
    let from_place = width(&mut report.edges().map(|e| from_at(&e).chars().count()), "FROM AT");
    let row = |out: &mut dyn Write, cells: [&str; 7]| {
        let [a, b, c, d, e, f, g] = cells;
        let line = format!(
            "{a:<from$}{:GAP$}{b:<to$}{:GAP$}{c:<ports$}{:GAP$}{d:<8}{:GAP$}{e:<9}{:GAP$}{f:<from_place$}{:GAP$}{g}",
            "", "", "", "", "", ""
        );
        writeln!(out, "{}", line.trim_end())
    };
    row(out, ["FROM", "TO", "PORTS", "FAMILIES", "FOR", "FROM AT", "TO AT"])?;
    for edge in report.edges() {
        let (traffic, families) = (VisibleTraffic::of(edge.traffic).text(), families(&edge));
        let pairs = if edge.exact { "all pods" } else { "some pods" };
        let (from_at, to_at) = (from_at(&edge), &places[edge.to]);
        row(out, [&ids[edge.from], &ids[edge.to], &traffic, &families, pairs, &from_at, to_at])?;
    }
    Ok(())
}

/// Formats IP families: `4,6`.
fn families(edge: &Edge<'_>) -> String {
    family_names(edge.families).iter().map(|f| f.trim_start_matches("IPv")).collect::<Vec<_>>().join(",")
}

fn origin_text(at: Option<&Origin>) -> String {
    at.map_or_else(|| "-".to_owned(), ToString::to_string)
}

/// Writes a Markdown table.
pub(crate) fn markdown(report: &Report<'_>, out: &mut dyn Write) -> io::Result<()> {
    if report.edges().next().is_none() {
        let what = if report.denied { "denied" } else { "allowed" };
        return writeln!(out, "No matching connection is {what}.");
    }
    writeln!(out, "| From | To | Ports |\n| --- | --- | --- |")?;
    let ids: Vec<String> = report.ends.iter().map(|e| escape::markdown(&e.id).into_owned()).collect();
    for edge in report.edges() {
        let traffic = report.traffic(&edge);
        writeln!(out, "| {} | {} | {} |", ids[edge.from], ids[edge.to], escape::markdown(&traffic))?;
    }
    Ok(())
}
