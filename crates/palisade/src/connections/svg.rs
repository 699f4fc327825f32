//! The grid as an SVG image. All positions are integers, so that the same answer gives the same bytes.

use std::io::{self, Write};

use super::{
    grid::{EVERYTHING, Grid},
    report::Report,
};
use crate::escape;

/// The side of a cell.
const CELL: usize = 24;
/// The width of a monospace character at 12 px in tenths of a pixel: 7.2 px in common fonts.
const CHAR_TENTHS: usize = 73;
/// The height of a line of the key.
const LINE: usize = 18;
const MARGIN: usize = 16;
const TITLE: usize = 28;

const STYLE: &str = "\
text{font:12px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;fill:#1c2430}\
.title{font-size:15px;font-weight:bold}.paper{fill:#fff}.grid{fill:#f1f3f6}.all{fill:#2e8b57}.some{fill:#a6dbbc}\
.denied .all{fill:#c0392b}.denied .some{fill:#f2b5ae}.letter{text-anchor:middle}\
@media (prefers-color-scheme:dark){text{fill:#e7eaf0}.paper{fill:#14181f}.grid{fill:#232a35}.some{fill:#2f6b48}\
.denied .some{fill:#8c3a33}}";

/// Writes the image as a file.
pub(crate) fn page(report: &Report<'_>, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>")?;
    picture(report, &Grid::new(report), out)
}

fn text_width(text: &str) -> usize {
    (text.chars().count() * CHAR_TENTHS).div_ceil(10)
}

/// Writes the image as an element.
pub(crate) fn picture(report: &Report<'_>, grid: &Grid, out: &mut dyn Write) -> io::Result<()> {
    let ids: Vec<String> = report.ends.iter().map(|e| escape::plain(&e.id).into_owned()).collect();
    let longest = |ends: &[usize]| ends.iter().map(|e| text_width(&ids[*e])).max().unwrap_or(0);
    let left = MARGIN + longest(&grid.rows) + 8;
    let top = MARGIN + TITLE + longest(&grid.columns) + 8;
    let letters = grid.letters();
    let key: Vec<(&str, &str)> = key(grid, &letters);
    let key_width = key.iter().map(|(_, text)| text_width(text)).max().unwrap_or(0) + 40 + 2 * MARGIN;
    let width =
        (left + grid.columns.len() * CELL + MARGIN).max(key_width).max(text_width(report.title()) * 2);
    let key_top = top + grid.rows.len() * CELL + MARGIN;
    let height = key_top + key.len() * LINE + MARGIN;
    let class = if report.denied { " class=\"denied\"" } else { "" };
    writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} \
         {height}\" role=\"img\"{class}>\n<title>{}</title>\n<style>{STYLE}</style>",
        report.title()
    )?;
    writeln!(out, "<rect class=\"paper\" width=\"{width}\" height=\"{height}\"/>")?;
    writeln!(
        out,
        "<text class=\"title\" x=\"{MARGIN}\" y=\"{}\">{}: rows to columns</text>",
        MARGIN + 14,
        report.title()
    )?;
    for (place, end) in grid.columns.iter().enumerate() {
        let (x, y) = (left + place * CELL + CELL / 2 + 4, top - 6);
        writeln!(
            out,
            "<text x=\"{x}\" y=\"{y}\" transform=\"rotate(-90 {x} {y})\">{}</text>",
            escape::markup(&ids[*end])
        )?;
    }
    for (place, end) in grid.rows.iter().enumerate() {
        let y = top + place * CELL + CELL / 2 + 4;
        writeln!(out, "<text x=\"{MARGIN}\" y=\"{y}\">{}</text>", escape::markup(&ids[*end]))?;
        if !grid.columns.is_empty() {
            let (y, width) = (top + place * CELL, grid.columns.len() * CELL - 1);
            writeln!(
                out,
                "<rect class=\"grid\" x=\"{left}\" y=\"{y}\" width=\"{width}\" height=\"{}\"/>",
                CELL - 1
            )?;
        }
    }
    for ((row, column), number) in &grid.cells {
        let (x, y) = (left + column * CELL, top + row * CELL);
        let (from, to) = (&ids[grid.rows[*row]], &ids[grid.columns[*column]]);
        let tip = format!("{from} → {to}: {}", grid.key[*number]);
        write!(out, "<g><title>{}</title>", escape::markup(&tip))?;
        square(out, x, y, &letters[*number])?;
        writeln!(out, "</g>")?;
    }
    for (place, (letter, text)) in key.iter().enumerate() {
        let y = key_top + place * LINE;
        match *text {
            NOTHING => writeln!(
                out,
                "<rect class=\"grid\" x=\"{MARGIN}\" y=\"{y}\" width=\"23\" height=\"{}\"/>",
                LINE - 3
            )?,
            _ => {
                let class = if letter.is_empty() { "all" } else { "some" };
                writeln!(
                    out,
                    "<rect class=\"{class}\" x=\"{MARGIN}\" y=\"{y}\" width=\"23\" height=\"{}\"/>\
                     <text class=\"letter\" x=\"{}\" y=\"{}\">{letter}</text>",
                    LINE - 3,
                    MARGIN + 12,
                    y + 12
                )?;
            }
        }
        writeln!(out, "<text x=\"{}\" y=\"{}\">{}</text>", MARGIN + 32, y + 12, escape::markup(text))?;
    }
    writeln!(out, "</svg>")
}

/// The text for an empty cell.
const NOTHING: &str = "nothing";

/// Returns the lines of the key: everything, the letters, nothing.
fn key<'a>(grid: &'a Grid, letters: &'a [String]) -> Vec<(&'a str, &'a str)> {
    let all = grid.key.iter().any(|k| k == EVERYTHING).then_some(("", EVERYTHING));
    let some = grid.key.iter().zip(letters).filter(|(text, _)| *text != EVERYTHING);
    let some = some.map(|(text, letter)| (&**letter, &**text));
    all.into_iter().chain(some).chain([("", NOTHING)]).collect()
}

fn square(out: &mut dyn Write, x: usize, y: usize, letter: &str) -> io::Result<()> {
    let class = if letter.is_empty() { "all" } else { "some" };
    let side = CELL - 1;
    write!(out, "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{side}\" height=\"{side}\"/>")?;
    if !letter.is_empty() {
        let (x, y) = (x + CELL / 2, y + CELL / 2 + 4);
        write!(out, "<text class=\"letter\" x=\"{x}\" y=\"{y}\">{letter}</text>")?;
    }
    Ok(())
}
