//! Graphs for Graphviz and Mermaid: namespaces as boxes, edges with their ports.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use palisade_analysis::ConnectionEnd;

use super::report::Report;
use crate::escape;

/// The ends to draw, by namespace; those of none come last.
fn boxes<'a>(report: &'a Report<'_>) -> (BTreeMap<&'a str, Vec<usize>>, Vec<usize>) {
    let (mut inside, mut outside): (BTreeMap<&str, Vec<usize>>, Vec<usize>) = Default::default();
    for end in report.visible_ends().any {
        match report.ends[end].endpoint.namespace() {
            Some(name) => inside.entry(name).or_default().push(end),
            None => outside.push(end),
        }
    }
    (inside, outside)
}

/// The name of an end without the namespace that its box shows.
fn inner<'a>(report: &'a Report<'_>, end: usize) -> &'a str {
    let id = report.id(end);
    match report.ends[end].endpoint {
        ConnectionEnd::Workload(w) => {
            id.strip_prefix(&*w.namespace).map_or(id, |rest| rest.trim_start_matches('/'))
        }
        ConnectionEnd::Pod { key, .. } => {
            id.strip_prefix(&*key.namespace).map_or(id, |rest| rest.trim_start_matches('/'))
        }
        _ => id,
    }
}

/// For `dot`.
pub(crate) fn dot(report: &Report<'_>, out: &mut dyn Write) -> io::Result<()> {
    let (inside, outside) = boxes(report);
    writeln!(out, "digraph connections {{")?;
    writeln!(out, "  label=\"{}\";", report.title())?;
    writeln!(
        out,
        "  rankdir=LR;\n  node [shape=box, fontname=\"sans-serif\"];\n  edge [fontname=\"sans-serif\"];"
    )?;
    for (number, (namespace, ends)) in inside.iter().enumerate() {
        writeln!(out, "  subgraph cluster_{number} {{\n    label=\"{}\";", escape::dot(namespace))?;
        for end in ends {
            writeln!(out, "    n{end} [label=\"{}\"];", escape::dot(inner(report, *end)))?;
        }
        writeln!(out, "  }}")?;
    }
    for end in outside {
        writeln!(out, "  n{end} [label=\"{}\", style=rounded];", escape::dot(report.id(end)))?;
    }
    for edge in report.edges() {
        let traffic = report.traffic(&edge);
        writeln!(out, "  n{} -> n{} [label=\"{}\"];", edge.from, edge.to, escape::dot(&traffic))?;
    }
    writeln!(out, "}}")
}

/// For Mermaid.
pub(crate) fn mermaid(report: &Report<'_>, out: &mut dyn Write) -> io::Result<()> {
    let (inside, outside) = boxes(report);
    writeln!(out, "flowchart LR")?;
    for (number, (namespace, ends)) in inside.iter().enumerate() {
        writeln!(out, "  subgraph s{number}[\"{}\"]", escape::mermaid(namespace))?;
        for end in ends {
            writeln!(out, "    n{end}[\"{}\"]", escape::mermaid(inner(report, *end)))?;
        }
        writeln!(out, "  end")?;
    }
    for end in outside {
        writeln!(out, "  n{end}([\"{}\"])", escape::mermaid(report.id(end)))?;
    }
    for edge in report.edges() {
        let traffic = report.traffic(&edge);
        writeln!(out, "  n{} -->|\"{}\"| n{}", edge.from, escape::mermaid(&traffic), edge.to)?;
    }
    Ok(())
}
