//! Graphs for Graphviz and Mermaid: namespaces are boxes, edges are labeled with ports.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use palisade_analysis::ConnectionEnd;

use super::report::Report;
use crate::{escape, output};

/// Returns the ends to draw by namespace, and those without a namespace.
fn boxes<'a>(report: &'a Report<'_>) -> (BTreeMap<&'a str, Vec<usize>>, Vec<usize>) {
    let (mut inside, mut outside): (BTreeMap<&str, Vec<usize>>, Vec<usize>) = Default::default();
    for end in report.visible_ends().any {
        let endpoint = report.ends[end].endpoint;
        // A namespace as a whole has no box around it.
        let is_whole = matches!(endpoint, ConnectionEnd::Namespace(_));
        match endpoint.namespace().filter(|_| !is_whole) {
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
    let note = report.summed_up.as_ref().map(|note| format!("\\nnote: {}", escape::dot(note)));
    writeln!(out, "  label=\"{}{}\";", report.title(), note.unwrap_or_default())?;
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
        let rounded = if report.ends[end].endpoint.is_pods() { "" } else { ", style=rounded" };
        writeln!(out, "  n{end} [label=\"{}\"{rounded}];", escape::dot(report.id(end)))?;
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
        let (open, close) = if report.ends[end].endpoint.is_pods() { ("[", "]") } else { ("([", "])") };
        writeln!(out, "  n{end}{open}\"{}\"{close}", escape::mermaid(report.id(end)))?;
    }
    for edge in report.edges() {
        let traffic = report.traffic(&edge);
        writeln!(out, "  n{} -->|\"{}\"| n{}", edge.from, escape::mermaid(&traffic), edge.to)?;
    }
    if let Some(note) = &report.summed_up {
        writeln!(out, "  note[\"note: {}\"]", escape::mermaid(note))?;
    }
    Ok(())
}

/// Says on standard error what a graph sums up, and whether viewers refuse it for its size.
pub(crate) fn report_size(report: &Report<'_>) {
    /// The most edges that Mermaid draws, unless it is configured otherwise (`maxEdges`). Other viewers draw as many, but
    /// nobody can read more.
    const MOST_EDGES: usize = 500;
    if let Some(note) = &report.summed_up {
        output::note(&format!("note: {note}\n"));
    }
    let edges = report.edges().count();
    if edges > MOST_EDGES {
        output::note(&format!(
            "note: the graph has {edges} edges; Mermaid draws {MOST_EDGES} unless maxEdges is raised; choose ends with --from, \
             --to or -n\n"
        ));
    }
}
