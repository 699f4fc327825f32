//! A picture as SVG. All positions are integers, so that the same answer gives the same bytes. Each subject is as high as
//! its neighbors together, so that every arrow is straight and none crosses another.

use std::fmt::Write as _;

use super::{Diagram, Look, MOST_ROWS, Neighbor, Side, Subject, more, wrapped};
use crate::escape;

/// The width of a monospace character at 12 px in tenths of a pixel: 7.2 px in common fonts.
const CHAR_TENTHS: usize = 73;
const LINE: usize = 16;
const MARGIN: usize = 16;
const TITLE: usize = 24;
/// The space between the border of a box and its text.
const PAD: usize = 8;
/// The space between boxes.
const GAP: usize = 8;
/// The height of the heading of a group, and the space around its boxes.
const GROUP: usize = 20;
/// The space around the label of an arrow.
const AROUND: usize = 14;
/// The most columns of a name, of a label, of a subject's text, and of a note.
const COLUMNS: [usize; 4] = [44, 34, 40, 100];
/// The most lines that one text may take.
const LINES: usize = 3;
/// The most neighbors that the description for screen readers lists.
const DESCRIBED: usize = 60;

const STYLE: &str = "\
text{font:12px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;fill:#1c2430}\
.title{font-size:15px;font-weight:bold}.strong{font-weight:bold}.quiet{fill:#566072}\
.paper{fill:#fff}.group{fill:#f1f3f6}.box{fill:#fff;stroke:#8a94a3}.subject{fill:#e4edfc;stroke:#2f6bc8;stroke-width:2}\
.allowed{stroke:#2f6bc8;fill:#2f6bc8}.everything{stroke:#b4530a;fill:#b4530a}.denied{stroke:#c0392b;fill:#c0392b}\
.open{stroke:#6b7482;fill:#6b7482}.idle{stroke:#8a94a3;fill:#8a94a3}.line{fill:none;stroke-width:2}\
.line.everything{stroke-width:4}.line.open,.line.idle{stroke-dasharray:5 4}.line.denied{stroke-dasharray:9 3 2 3}\
.box.idle,.box.none{fill:none;stroke-dasharray:3 3}\
@media (prefers-color-scheme:dark){text{fill:#e7eaf0}.quiet{fill:#a7b0be}.paper{fill:#14181f}.group{fill:#1d232d}\
.box{fill:#14181f;stroke:#7a8596}.subject{fill:#1c2f4f;stroke:#7fb0ff}.allowed{stroke:#7fb0ff;fill:#7fb0ff}\
.everything{stroke:#f0a35c;fill:#f0a35c}.denied{stroke:#ff8a80;fill:#ff8a80}.open,.idle{stroke:#a7b0be;fill:#a7b0be}\
.box.idle,.box.none,.line{fill:none}}";

/// Renders the picture as a file.
pub(crate) fn page(diagram: &Diagram) -> String {
    let subjects: Vec<Block<'_>> = diagram.subjects.iter().map(Block::new).collect();
    let widest = |of: &dyn Fn(&Block<'_>) -> usize| subjects.iter().map(of).max().unwrap_or(0);
    let sides = [0, 1].map(|side: usize| widest(&|block| block.sides[side].width()));
    let labels = [0, 1].map(|side: usize| widest(&|block| block.sides[side].label_width()));
    let center = widest(&|block| block.text.iter().map(|l| width(l)).max().unwrap_or(0) + 2 * PAD);
    let columns = Columns {
        sides: [MARGIN, MARGIN + sides[0] + labels[0] + center + labels[1]],
        widths: sides,
        center: MARGIN + sides[0] + labels[0],
        center_width: center,
    };
    let notes: Vec<String> =
        diagram.notes.iter().flat_map(|note| wrapped(&escape::plain(note), COLUMNS[3], LINES)).collect();
    let total = columns.sides[1] + sides[1] + MARGIN;
    let title = wrapped(&escape::plain(&diagram.title), COLUMNS[3], 1).concat();
    let texts = notes.iter().map(|note| width(note)).chain([width(&title) * 5 / 4]).max().unwrap_or(0);
    let total = total.max(texts + 2 * MARGIN);
    let mut body = String::new();
    let mut y = MARGIN + TITLE;
    for block in &subjects {
        y = block.draw(&columns, y, &mut body) + 2 * GAP;
    }
    for note in &notes {
        y += LINE;
        _ = writeln!(body, "<text class=\"quiet\" x=\"{MARGIN}\" y=\"{y}\">{}</text>", escape::markup(note));
    }
    let height = y + MARGIN;
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{total}\" \
         height=\"{height}\" viewBox=\"0 0 {total} {height}\" role=\"img\" aria-labelledby=\"title about\">\n\
         <title id=\"title\">{0}</title>\n<desc id=\"about\">{1}</desc>\n<style>{STYLE}</style>\n\
         <rect class=\"paper\" width=\"{total}\" height=\"{height}\"/>\n\
         <text class=\"title\" x=\"{MARGIN}\" y=\"{2}\">{0}</text>\n{body}</svg>\n",
        escape::markup(&title),
        escape::markup(&described(diagram)),
        MARGIN + 12
    )
}

/// Says what the picture shows, for those who can't see it.
fn described(diagram: &Diagram) -> String {
    let mut out = Vec::new();
    for subject in &diagram.subjects {
        for (side, word) in subject.sides.iter().zip(["from", "to"]) {
            let all = side.neighbors.iter().map(|neighbor| {
                let name = full_name(neighbor);
                match neighbor.look {
                    Look::None => name,
                    _ => format!("{word} {name}: {}", neighbor.label),
                }
            });
            let mut all: Vec<String> = all.take(DESCRIBED + 1).collect();
            if all.len() > DESCRIBED {
                all.truncate(DESCRIBED);
                all.push(more(side.neighbors.len() - DESCRIBED));
            }
            out.push(format!("{}, {}: {}", subject.name, side.heading, all.join("; ")));
        }
    }
    out.extend(diagram.notes.iter().cloned());
    escape::plain(&out.join(". ")).into_owned()
}

fn full_name(neighbor: &Neighbor) -> String {
    let group = neighbor.group.as_ref().map(|group| format!("{group}: ")).unwrap_or_default();
    format!("{group}{}", neighbor.lines.join(", "))
}

fn width(text: &str) -> usize {
    (textwrap::core::display_width(text) * CHAR_TENTHS).div_ceil(10)
}

/// Where the columns are.
struct Columns {
    /// The left edges of both sides.
    sides: [usize; 2],
    widths: [usize; 2],
    /// The left edge of the subjects.
    center: usize,
    center_width: usize,
}

/// A subject, with its texts broken into lines.
struct Block<'a> {
    subject: &'a Subject,
    text: Vec<String>,
    sides: [SideBlock<'a>; 2],
}

struct SideBlock<'a> {
    heading: Vec<String>,
    rows: Vec<Row<'a>>,
}

struct Row<'a> {
    group: Option<&'a str>,
    name: Vec<String>,
    label: Vec<String>,
    look: Look,
    /// The whole text of the arrow, for a tooltip.
    tip: String,
}

impl<'a> Block<'a> {
    fn new(subject: &'a Subject) -> Self {
        let lines = std::iter::once(&subject.name).chain(&subject.details);
        let text = lines.flat_map(|line| wrapped(&escape::plain(line), COLUMNS[2], LINES)).collect();
        let [ingress, egress] = &subject.sides;
        let sides = [SideBlock::new(ingress, subject, true), SideBlock::new(egress, subject, false)];
        Self { subject, text, sides }
    }

    /// Draws it below `y`; returns where it ends.
    fn draw(&self, columns: &Columns, y: usize, out: &mut String) -> usize {
        let headings = self.sides.iter().map(|side| side.heading.len()).max().unwrap_or(0);
        let top = y + headings * LINE + GAP;
        let own = self.text.len() * LINE + 2 * PAD;
        let inner = self.sides.iter().map(SideBlock::height).max().unwrap_or(0).max(own);
        for (at, side) in self.sides.iter().enumerate() {
            for (number, line) in side.heading.iter().enumerate() {
                // Headings begin above the outer end of the boxes or of the arrows.
                let x = if at == 0 {
                    columns.sides[0]
                } else {
                    columns.center + columns.center_width + AROUND / 2
                };
                let y = y + (number + 1) * LINE;
                _ = writeln!(
                    out,
                    "<text class=\"quiet\" x=\"{x}\" y=\"{y}\">{}</text>",
                    escape::markup(line)
                );
            }
            // The shorter side is in the middle.
            side.draw(columns, at, top + (inner - side.height()) / 2, out);
        }
        let (x, wide) = (columns.center, columns.center_width);
        let name = escape::markup(&self.subject.name);
        _ = writeln!(
            out,
            "<g><title>{name}</title><rect class=\"subject\" x=\"{x}\" y=\"{top}\" width=\"{wide}\" height=\"{inner}\" rx=\"6\"/>"
        );
        let first = top + (inner - own) / 2 + PAD + 12;
        for (number, line) in self.text.iter().enumerate() {
            let class = if number == 0 { " class=\"strong\"" } else { "" };
            let (x, y) = (x + PAD, first + number * LINE);
            _ = writeln!(out, "<text{class} x=\"{x}\" y=\"{y}\">{}</text>", escape::markup(line));
        }
        out.push_str("</g>\n");
        top + inner
    }
}

impl<'a> SideBlock<'a> {
    fn new(side: &'a Side, subject: &Subject, inwards: bool) -> Self {
        let (shown, hidden) = side.shown(MOST_ROWS);
        let row = |neighbor: &'a Neighbor| {
            let name = full_name(neighbor);
            let (from, to) = if inwards { (&name, &subject.name) } else { (&subject.name, &name) };
            let tip = match neighbor.look {
                Look::None => name,
                _ => format!("{from} → {to}: {}", neighbor.label),
            };
            let lines = neighbor.lines.iter().map(|line| escape::plain(line));
            Row {
                group: neighbor.group.as_deref(),
                name: lines.flat_map(|line| wrapped(&line, COLUMNS[0], LINES)).collect(),
                label: wrapped(&escape::plain(&neighbor.label), COLUMNS[1], LINES),
                look: neighbor.look,
                tip,
            }
        };
        let mut rows: Vec<Row<'a>> = shown.iter().map(row).collect();
        if hidden > 0 {
            let (name, tip) = (vec![more(hidden)], more(hidden));
            rows.push(Row { group: None, name, label: Vec::new(), look: Look::None, tip });
        }
        Self { heading: wrapped(&escape::plain(&side.heading), COLUMNS[0], LINES), rows }
    }

    fn width(&self) -> usize {
        let names = self.rows.iter().flat_map(|row| &row.name).map(|line| width(line) + 2 * PAD);
        let groups = self.rows.iter().filter_map(|row| row.group).map(|g| width(&cut(g)));
        // The heading may stand above the arrows, too.
        let heading = self.heading.iter().map(|line| width(line).saturating_sub(self.label_width()));
        names.chain(groups).chain(heading).max().unwrap_or(0) + 2 * PAD
    }

    fn label_width(&self) -> usize {
        let labels = self.rows.iter().flat_map(|row| &row.label).map(|line| width(line));
        labels.max().unwrap_or(0).max(4 * AROUND) + 2 * AROUND
    }

    fn height(&self) -> usize {
        let groups = self.rows.chunk_by(|a, b| a.group == b.group);
        let heights = groups.map(|group| {
            let rows: usize = group.iter().map(|row| row.height() + GAP).sum();
            rows + if group[0].group.is_some() { GROUP + GAP } else { 0 }
        });
        heights.sum()
    }

    fn draw(&self, columns: &Columns, side: usize, y: usize, out: &mut String) {
        let (x, wide) = (columns.sides[side], columns.widths[side]);
        let mut y = y;
        for group in self.rows.chunk_by(|a, b| a.group == b.group) {
            let rows: usize = group.iter().map(|row| row.height() + GAP).sum();
            if let Some(name) = group[0].group {
                let name = cut(name);
                _ = writeln!(
                    out,
                    "<rect class=\"group\" x=\"{x}\" y=\"{y}\" width=\"{wide}\" height=\"{}\" rx=\"6\"/>\n\
                     <text class=\"quiet\" x=\"{}\" y=\"{}\">{}</text>",
                    rows + GROUP,
                    x + PAD,
                    y + 14,
                    escape::markup(&name)
                );
                y += GROUP;
            }
            for row in group {
                row.draw(columns, side, y, out);
                y += row.height() + GAP;
            }
            y += if group[0].group.is_some() { GAP } else { 0 };
        }
    }
}

/// Cuts the heading of a group.
fn cut(name: &str) -> String {
    wrapped(&escape::plain(name), COLUMNS[0], 1).concat()
}

impl Row<'_> {
    fn height(&self) -> usize {
        (self.name.len() * LINE + 2 * PAD - 4).max(self.label.len() * LINE + AROUND)
    }

    fn draw(&self, columns: &Columns, side: usize, y: usize, out: &mut String) {
        let (x, wide, height) = (columns.sides[side] + PAD, columns.widths[side] - 2 * PAD, self.height());
        let class = match self.look {
            Look::Idle | Look::None => format!("box {}", self.look.class()),
            _ => "box".to_owned(),
        };
        _ = writeln!(
            out,
            "<g><title>{}</title><rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{wide}\" height=\"{height}\" rx=\"4\"/>",
            escape::markup(&self.tip)
        );
        let first = y + (height - self.name.len() * LINE) / 2 + 12;
        let quiet = if self.look == Look::None { " class=\"quiet\"" } else { "" };
        for (number, line) in self.name.iter().enumerate() {
            let (x, y) = (x + PAD, first + number * LINE);
            _ = writeln!(out, "<text{quiet} x=\"{x}\" y=\"{y}\">{}</text>", escape::markup(line));
        }
        if self.look != Look::None {
            let (from, to) = match side {
                0 => (x + wide, columns.center),
                _ => (columns.center + columns.center_width, x),
            };
            self.arrow(from, to, y + height / 2 + self.label.len() * LINE / 2, out);
        }
        out.push_str("</g>\n");
    }

    /// Draws an arrow with its label above it.
    fn arrow(&self, from: usize, to: usize, y: usize, out: &mut String) {
        let (class, head) = (self.look.class(), to.saturating_sub(10));
        _ = writeln!(
            out,
            "<path class=\"line {class}\" d=\"M{from} {y}H{head}\"/><path class=\"{class}\" d=\"M{to} {y}l-10 -5v10z\"/>"
        );
        for (number, line) in self.label.iter().enumerate() {
            let y = y - 7 - (self.label.len() - 1 - number) * LINE;
            _ = writeln!(out, "<text x=\"{}\" y=\"{y}\">{}</text>", from + AROUND / 2, escape::markup(line));
        }
    }
}
