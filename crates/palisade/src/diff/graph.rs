//! The changes of a difference as a Mermaid graph: thick green arrows for what is opened, dashed red ones for what is closed.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
};

use palisade_analysis::{
    ConnectionEnd,
    diff::{EndTraffic, Presence},
};
use palisade_policy::Traffic;

use super::{comparison::Comparison, page, summary::Summary, wording};
use crate::{connection_ends::name, diagram, inputs::plural, output, traffic::VisibleTraffic};

/// The most arrows of a graph that shows workloads, and of any graph. Mermaid draws 500 unless it is configured otherwise.
const MOST_EDGES: usize = 200;
/// The most characters of a graph that Mermaid draws, unless it is configured otherwise.
const MOST_TEXT: usize = 50_000;

/// What a node represents.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Node {
    /// The frame around it.
    namespace: Option<String>,
    name: String,
}

struct Edge {
    from: Node,
    to: Node,
    opened: bool,
    label: String,
}

/// Renders the graph, and says on standard error what it sums up.
pub(super) fn mermaid(comparison: &Comparison) -> String {
    let mut notes = vec![Summary::new(comparison).text().to_owned()];
    notes.extend(page::notes(comparison));
    let mut edges = edges(comparison, false);
    if edges.len() > MOST_EDGES {
        let count = edges.len();
        edges = self::edges(comparison, true);
        let folded = format!("{count} changes are drawn by namespace; -o json lists each");
        output::note(&format!("note: {folded}\n"));
        notes.push(format!("note: {folded}"));
    }
    let mut most = MOST_EDGES.min(edges.len());
    loop {
        let text = graph(&edges[..most], edges.len() - most, &notes);
        if text.len() <= MOST_TEXT || most < 2 {
            if most < edges.len() {
                output::note(&format!("note: {most} of {} arrows are drawn\n", edges.len()));
            }
            return text;
        }
        most /= 2;
    }
}

/// Returns the arrows: one for each pair of ends, or of namespaces. Those for pods that don't exist yet are the last.
fn edges(comparison: &Comparison, by_namespace: bool) -> Vec<Edge> {
    let difference = &comparison.difference;
    let node = |end: &ConnectionEnd| if by_namespace { place(end) } else { node(end) };
    // What ends that are new or gone may do is no change of a connection.
    let mut sums = Sums::default();
    for change in &difference.changes {
        for (opened, traffic) in [(true, &change.opened), (false, &change.closed)] {
            sums.add((node(&change.from), node(&change.to)), opened, None, traffic);
        }
    }
    for end in &difference.ends {
        let (opened, word) = match end.change {
            Presence::Added => (true, "new: "),
            Presence::Removed => (false, "removed: "),
        };
        let peers = |all: &'_ [EndTraffic]| -> Vec<(Node, Traffic)> {
            all.iter().flat_map(|of| of.ends.iter().map(|end| (node(end), of.traffic.clone()))).collect()
        };
        for (peer, traffic) in peers(&end.sends) {
            sums.add((node(&end.end), peer), opened, Some(word), &traffic);
        }
        for (peer, traffic) in peers(&end.receives) {
            sums.add((peer, node(&end.end)), opened, Some(word), &traffic);
        }
    }
    let mut out = sums.edges();
    let future = difference.exposure.iter().filter(|change| change.exact).flat_map(wording::future);
    out.extend(future.map(|row| Edge {
        from: Node { namespace: None, name: row.from },
        to: Node { namespace: None, name: row.to },
        opened: row.opened,
        label: row.traffic,
    }));
    out
}

/// From, to, whether it opened, and a word for it.
type Key = (Node, Node, bool, Option<&'static str>);

/// Traffic between nodes, in the order in which it was found, and whether all of one edge is the same.
#[derive(Default)]
struct Sums {
    places: HashMap<Key, usize>,
    found: Vec<(Key, Traffic, bool)>,
}

impl Sums {
    fn add(&mut self, (from, to): (Node, Node), opened: bool, word: Option<&'static str>, traffic: &Traffic) {
        if VisibleTraffic::of(traffic).is_none() {
            return;
        }
        let key = (from, to, opened, word);
        if let Some((_, sum, same)) = self.places.get(&key).map(|at| &mut self.found[*at]) {
            *same &= *sum == *traffic;
            *sum = sum.union(traffic);
            return;
        }
        self.places.insert(key.clone(), self.found.len());
        self.found.push((key, traffic.clone(), true));
    }

    fn edges(self) -> Vec<Edge> {
        let edge = |((from, to, opened, word), traffic, same): (Key, Traffic, bool)| {
            let sign = if opened { "+" } else { "−" };
            let some = if same { "" } else { " (some)" };
            let text = VisibleTraffic::of(&traffic).text();
            Edge { from, to, opened, label: format!("{sign} {}{text}{some}", word.unwrap_or_default()) }
        };
        self.found.into_iter().map(edge).collect()
    }
}

fn node(end: &ConnectionEnd) -> Node {
    let name = name(end);
    match end.namespace() {
        Some(namespace) => {
            let rest = name.strip_prefix(&**namespace).map(|rest| rest.trim_start_matches('/').to_owned());
            Node { namespace: Some(namespace.to_string()), name: rest.unwrap_or(name) }
        }
        None => Node { namespace: None, name },
    }
}

/// Returns the node for everything in a namespace, or for everything of the same kind outside.
fn place(end: &ConnectionEnd) -> Node {
    let name = match (end.namespace(), end) {
        (Some(namespace), _) => format!("namespace {namespace}"),
        (None, ConnectionEnd::External(_)) if end.is_internet() => "internet".to_owned(),
        (None, ConnectionEnd::External(_)) => "other addresses".to_owned(),
        (None, ConnectionEnd::Nodes(_) | ConnectionEnd::OwnNode(_)) => "nodes".to_owned(),
        (None, end) => name(end),
    };
    Node { namespace: None, name }
}

fn graph(edges: &[Edge], hidden: usize, notes: &[String]) -> String {
    let mut numbers: HashMap<&Node, usize> = HashMap::new();
    let mut by_namespace: BTreeMap<Option<&str>, Vec<&Node>> = BTreeMap::new();
    for node in edges.iter().flat_map(|edge| [&edge.from, &edge.to]) {
        let number = numbers.len();
        numbers.entry(node).or_insert_with(|| {
            by_namespace.entry(node.namespace.as_deref()).or_default().push(node);
            number
        });
    }
    let mut out = "flowchart LR\n".to_owned();
    for (number, (namespace, nodes)) in by_namespace.iter().enumerate() {
        if let Some(namespace) = namespace {
            _ = writeln!(out, "  subgraph s{number}[\"{}\"]", diagram::mermaid_line(namespace));
        }
        let indent = if namespace.is_some() { "    " } else { "  " };
        for node in nodes {
            _ = writeln!(out, "{indent}n{}[\"{}\"]", numbers[*node], diagram::mermaid_line(&node.name));
        }
        if namespace.is_some() {
            out.push_str("  end\n");
        }
    }
    let (mut opened, mut closed): (Vec<String>, Vec<String>) = Default::default();
    for (number, edge) in edges.iter().enumerate() {
        let (line, all) = if edge.opened { ("==>", &mut opened) } else { ("-.->", &mut closed) };
        all.push(number.to_string());
        let (from, to) = (numbers[&edge.from], numbers[&edge.to]);
        _ = writeln!(out, "  n{from} {line}|\"{}\"| n{to}", diagram::mermaid_line(&edge.label));
    }
    let rest =
        (hidden > 0).then(|| format!("and {hidden} more {}, which -o json lists", plural(hidden, "change")));
    for (number, note) in notes.iter().chain(&rest).enumerate() {
        _ = writeln!(out, "  note{number}[\"{}\"]:::note", diagram::mermaid_line(note));
    }
    out += "  classDef note stroke-dasharray:2 4\n";
    for (numbers, color) in [(opened, "#2e8b57"), (closed, "#c0392b")] {
        if !numbers.is_empty() {
            _ = writeln!(out, "  linkStyle {} stroke:{color}", numbers.join(","));
        }
    }
    out
}
