//! Graphs for Graphviz and Mermaid: namespaces are boxes, edges are labeled with ports.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use palisade_analysis::ConnectionEnd;

use super::report::Report;
use crate::escape;

/// Returns the ends to draw by namespace, and those without a namespace.
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

/// Returns the name of an end without its namespace, which is the label of its box.
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

/// Renders a graph for Graphviz.
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

/// Renders a graph for Mermaid.
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
