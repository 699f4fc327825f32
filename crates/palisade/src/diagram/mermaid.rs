//! A picture as a Mermaid flowchart.

use std::fmt::Write as _;

use super::{Diagram, Look, MOST_ROWS, Neighbor, Subject, more, wrapped};
use crate::escape;

/// The most characters of a graph that Mermaid draws, unless it is configured otherwise (`maxTextSize`).
const MOST_TEXT: usize = 50_000;
/// The most texts in a box, and the most lines and columns of each.
const BOX: (usize, usize, usize) = (12, 3, 60);

/// Renders the picture. If Mermaid would refuse it for its size, fewer neighbors are drawn, and the others are counted.
pub(crate) fn graph(diagram: &Diagram) -> String {
    let mut most = MOST_ROWS;
    loop {
        let text = graph_of(diagram, most);
        // Mermaid counts UTF-16 units, of which a text has no more than bytes.
        if text.len() <= MOST_TEXT || most <= 1 {
            return text;
        }
        most /= 2;
    }
}

/// Escapes a text, breaks it into lines, and cuts what is too long.
pub(crate) fn line(text: &str) -> String {
    label([text])
}

/// Escapes texts, breaks them into lines, and cuts what is too long for a box.
fn label<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let (most, most_lines, columns) = BOX;
    let texts: Vec<String> = texts
        .into_iter()
        .map(|text| wrapped(&escape::plain(text), columns, most_lines))
        .map(|lines| lines.iter().map(|line| escape::mermaid(line)).collect::<Vec<_>>().join("<br/>"))
        .collect();
    let hidden = texts.len().saturating_sub(most);
    let rest = (hidden > 0).then(|| format!("and {hidden} more"));
    let text = texts.into_iter().take(most).chain(rest).collect::<Vec<_>>().join("<br/>");
    // An empty text ends a label early.
    if text.is_empty() { " ".to_owned() } else { text }
}

fn graph_of(diagram: &Diagram, most: usize) -> String {
    let mut out = "flowchart LR\n".to_owned();
    for (number, subject) in diagram.subjects.iter().enumerate() {
        let name = format!("s{number}");
        let lines = std::iter::once(&subject.name).chain(&subject.details);
        _ = writeln!(out, "  {name}[\"{}\"]:::subject", label(lines.map(String::as_str)));
        sides(subject, &name, most, &mut out);
    }
    for (number, note) in diagram.notes.iter().enumerate() {
        _ = writeln!(out, "  note{number}[\"{}\"]:::note", line(note));
    }
    out += "  classDef subject stroke-width:3px\n  classDef note stroke-dasharray:2 4\n";
    out += "  classDef none stroke-dasharray:2 4\n  classDef idle stroke-dasharray:2 4\n";
    out
}

fn sides(subject: &Subject, name: &str, most: usize, out: &mut String) {
    for (side, letter) in subject.sides.iter().zip(["i", "e"]) {
        let (shown, hidden) = side.shown(most);
        let rest = (hidden > 0).then(|| Neighbor::nothing(&more(hidden)));
        let all: Vec<&Neighbor> = shown.iter().chain(&rest).collect();
        let id = |at: usize| format!("{name}{letter}{at}");
        let mut at = 0;
        for (number, group) in all.chunk_by(|a, b| a.group == b.group).enumerate() {
            let heading = group.first().and_then(|first| first.group.as_deref());
            if let Some(heading) = heading {
                _ = writeln!(out, "  subgraph {name}{letter}g{number}[\"{}\"]", line(heading));
            }
            for neighbor in group {
                let text = label(neighbor.lines.iter().map(String::as_str));
                let class = match neighbor.look {
                    Look::None | Look::Idle => format!(":::{}", neighbor.look.class()),
                    _ => String::new(),
                };
                let indent = if heading.is_some() { "    " } else { "  " };
                _ = writeln!(out, "{indent}{}[\"{text}\"]{class}", id(at));
                at += 1;
            }
            if heading.is_some() {
                out.push_str("  end\n");
            }
        }
        for (at, neighbor) in all.iter().enumerate() {
            let line = match neighbor.look {
                Look::Allowed => "-->",
                Look::Everything => "==>",
                Look::Denied => "--x",
                Look::Open | Look::Idle => "-.->",
                // An invisible line keeps the box on its side.
                Look::None => "~~~",
            };
            let label = match neighbor.look {
                Look::None => String::new(),
                _ => format!("|\"{}\"|", self::line(&neighbor.label)),
            };
            let (from, to) =
                if letter == "i" { (id(at), name.to_owned()) } else { (name.to_owned(), id(at)) };
            _ = writeln!(out, "  {from} {line}{label} {to}");
        }
    }
}
