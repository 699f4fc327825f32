//! The changes of a difference as a matrix in SVG. All positions are integers, so that the same answer gives the same
//! bytes.

use std::{collections::BTreeMap, fmt::Write as _};

use palisade_analysis::ConnectionEnd;

use super::{comparison::Comparison, summary::Summary};
use crate::{connection_ends::name, escape, traffic::VisibleTraffic};

/// The side of a cell.
const CELL: usize = 24;
/// The width of a monospace character at 12 px in tenths of a pixel: 7.2 px in common fonts.
const CHAR_TENTHS: usize = 73;
const MARGIN: usize = 16;
const TITLE: usize = 28;
/// The height of a line of the key.
const LINE: usize = 18;
/// The most rows and columns; the others are counted.
const MAX_ENDS: usize = 300;

/// The style of the image.
pub(super) const STYLE: &str = "\
text{font:12px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;fill:#1c2430}\
.title{font-size:15px;font-weight:bold}.paper{fill:#fff}.grid{fill:#f1f3f6}\
.opened{fill:#2e8b57}.closed{fill:#c0392b}.both{fill:#b7860b}.letter{text-anchor:middle;fill:#fff}\
@media (prefers-color-scheme:dark){text{fill:#e7eaf0}.paper{fill:#14181f}.grid{fill:#232a35}.letter{fill:#fff}}";

/// What changed between two ends.
#[derive(Default)]
struct Cell {
    opened: Vec<String>,
    closed: Vec<String>,
}

impl Cell {
    fn class(&self) -> (&'static str, &'static str) {
        match (self.opened.is_empty(), self.closed.is_empty()) {
            (false, true) => ("opened", "+"),
            (true, _) => ("closed", "−"),
            (false, false) => ("both", "±"),
        }
    }
}

/// Renders the image as a file.
pub(crate) fn page(comparison: &Comparison) -> String {
    format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{}", picture(comparison))
}

/// Renders the image as an element.
pub(crate) fn picture(comparison: &Comparison) -> String {
    let mut cells: BTreeMap<(&ConnectionEnd, &ConnectionEnd), Cell> = BTreeMap::new();
    for change in &comparison.difference.changes {
        let cell = cells.entry((&change.from, &change.to)).or_default();
        for (traffic, texts) in [(&change.opened, &mut cell.opened), (&change.closed, &mut cell.closed)] {
            let traffic = VisibleTraffic::of(traffic);
            if !traffic.is_none() {
                texts.push(traffic.text());
            }
        }
    }
    cells.retain(|_, cell| !(cell.opened.is_empty() && cell.closed.is_empty()));
    let sorted = |ends: Vec<&ConnectionEnd>| -> (Vec<String>, BTreeMap<ConnectionEnd, usize>) {
        let places: BTreeMap<ConnectionEnd, usize> = ends.into_iter().cloned().map(|end| (end, 0)).collect();
        let places = places.into_keys().take(MAX_ENDS).enumerate().map(|(at, end)| (end, at));
        let places: BTreeMap<ConnectionEnd, usize> = places.collect();
        let names = places.keys().map(|end| escape::plain(&name(end)).into_owned()).collect();
        (names, places)
    };
    let (rows, row_of) = sorted(cells.keys().map(|(from, _)| *from).collect());
    let (columns, column_of) = sorted(cells.keys().map(|(_, to)| *to).collect());
    let longest = |names: &[String]| names.iter().map(|n| text_width(n)).max().unwrap_or(0);
    let (left, top) = (MARGIN + longest(&rows) + 8, MARGIN + TITLE + longest(&columns) + 8);
    let summary = Summary::new(comparison);
    let width = (left + columns.len() * CELL + MARGIN).max(text_width(summary.text()) * 5 / 4 + 2 * MARGIN);
    let key_top = top + rows.len() * CELL + MARGIN;
    let hidden =
        cells.keys().filter(|(from, to)| !(row_of.contains_key(*from) && column_of.contains_key(*to)));
    let hidden = hidden.count();
    let height = key_top + (3 + usize::from(hidden > 0)) * LINE + MARGIN;
    let title = escape::markup(summary.text());
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         role=\"img\">\n<title>{title}</title>\n<style>{STYLE}</style>\n\
         <rect class=\"paper\" width=\"{width}\" height=\"{height}\"/>\n\
         <text class=\"title\" x=\"{MARGIN}\" y=\"{}\">{title}</text>\n",
        MARGIN + 14
    );
    for (place, text) in columns.iter().enumerate() {
        let (x, y) = (left + place * CELL + CELL / 2 + 4, top - 6);
        let text = escape::markup(text);
        _ = writeln!(out, "<text x=\"{x}\" y=\"{y}\" transform=\"rotate(-90 {x} {y})\">{text}</text>");
    }
    for (place, text) in rows.iter().enumerate() {
        let (y, width) = (top + place * CELL, columns.len() * CELL - 1);
        let text = escape::markup(text);
        _ = writeln!(
            out,
            "<text x=\"{MARGIN}\" y=\"{}\">{text}</text>\n\
             <rect class=\"grid\" x=\"{left}\" y=\"{y}\" width=\"{width}\" height=\"{}\"/>",
            y + CELL / 2 + 4,
            CELL - 1
        );
    }
    for ((from, to), cell) in &cells {
        let (Some(row), Some(column)) = (row_of.get(*from), column_of.get(*to)) else { continue };
        let words = [("opened", &cell.opened), ("closed", &cell.closed)];
        let words = words.into_iter().filter(|(_, all)| !all.is_empty());
        let words: Vec<String> = words.map(|(word, all)| format!("{word} {}", all.join("; "))).collect();
        let tip = format!("{} → {}: {}", name(from), name(to), words.join(", "));
        let (x, y) = (left + column * CELL, top + row * CELL);
        _ = writeln!(out, "<g><title>{}</title>{}</g>", escape::markup(&tip), square(x, y, cell.class()));
    }
    let key = [("opened", "+"), ("closed", "−"), ("both", "±")];
    let texts = ["opened", "closed", "some ports opened, others closed"];
    for (place, (class, text)) in key.into_iter().zip(texts).enumerate() {
        let y = key_top + place * LINE;
        _ = writeln!(
            out,
            "<rect class=\"{}\" x=\"{MARGIN}\" y=\"{y}\" width=\"23\" height=\"{}\"/>\
             <text x=\"{}\" y=\"{}\">{text}</text>",
            class.0,
            LINE - 3,
            MARGIN + 32,
            y + 12
        );
    }
    if hidden > 0 {
        let y = key_top + 3 * LINE + 12;
        _ = writeln!(out, "<text x=\"{MARGIN}\" y=\"{y}\">and {hidden} more, which -o json lists</text>");
    }
    out + "</svg>\n"
}

fn square(x: usize, y: usize, (class, sign): (&str, &str)) -> String {
    let side = CELL - 1;
    format!(
        "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{side}\" height=\"{side}\"/>\
         <text class=\"letter\" x=\"{}\" y=\"{}\">{sign}</text>",
        x + CELL / 2,
        y + CELL / 2 + 4
    )
}

fn text_width(text: &str) -> usize {
    (text.chars().count() * CHAR_TENTHS).div_ceil(10)
}
