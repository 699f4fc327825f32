//! Draws a matrix as text. Rows and columns are numbered, so that each name occurs once.

use std::fmt::Write as _;

/// The maximum width. It does not depend on the terminal, because matrices are stored in files.
pub(crate) const WIDTH: usize = 100;

/// The maximum width of a line of ports in a cell. A port has at most five digits.
const LIST_WIDTH: usize = 11;

/// Spaces between two columns.
const GAP: usize = 2;

/// What is at the corner of rows and columns.
const CORNER: &str = "from \\ to";

/// What to draw. Rows and columns are indexes into the names.
pub(crate) struct Drawing<'a> {
    /// The names of all rows and columns. Their numbers count from 1.
    pub(crate) names: &'a [String],
    /// The rows: sources.
    pub(crate) rows: &'a [usize],
    /// The columns: destinations.
    pub(crate) columns: &'a [usize],
    /// The lines of a cell, by row and column.
    pub(crate) cell: &'a dyn Fn(usize, usize) -> Vec<String>,
}

struct Column {
    title: String,
    width: usize,
    /// The lines of each cell, by row.
    cells: Vec<Vec<String>>,
}

impl Drawing<'_> {
    /// Draws the matrix, in several blocks of columns if it would be wider than `width` characters.
    pub(crate) fn text(&self, width: usize) -> String {
        let mut out = String::new();
        let labels: Vec<String> =
            self.names.iter().enumerate().map(|(i, name)| format!("{} {name}", i + 1)).collect();
        let label_width =
            self.rows.iter().map(|row| labels[*row].chars().count()).max().unwrap_or(0).max(CORNER.len());
        for (i, block) in self.blocks(width.saturating_sub(label_width)).iter().enumerate() {
            if i > 0 {
                out.push('\n');
            }
            let titles = block.iter().map(|c| (c.width, c.title.as_str()));
            _ = writeln!(out, "{}", row_text(CORNER, label_width, titles));
            for (r, row) in self.rows.iter().enumerate() {
                let height = block.iter().map(|c| c.cells[r].len()).max().unwrap_or(1);
                for line in 0..height {
                    let label = if line == 0 { labels[*row].as_str() } else { "" };
                    let cells =
                        block.iter().map(|c| (c.width, c.cells[r].get(line).map_or("", |s| s.as_str())));
                    _ = writeln!(out, "{}", row_text(label, label_width, cells));
                }
            }
        }
        out
    }

    fn blocks(&self, width: usize) -> Vec<Vec<Column>> {
        let mut out: Vec<Vec<Column>> = vec![Vec::new()];
        let mut used = 0;
        for &column in self.columns {
            let cells: Vec<Vec<String>> = self.rows.iter().map(|row| (self.cell)(*row, column)).collect();
            let title = (column + 1).to_string();
            let widest = cells.iter().flatten().map(String::len).max().unwrap_or(0).max(title.len());
            let drawn = Column { title, width: widest, cells };
            if used > 0 && used + GAP + widest > width {
                out.push(Vec::new());
                used = 0;
            }
            used += GAP + widest;
            if let Some(block) = out.last_mut() {
                block.push(drawn);
            }
        }
        out
    }
}

fn row_text<'a>(label: &str, label_width: usize, cells: impl Iterator<Item = (usize, &'a str)>) -> String {
    let mut line = format!("{label:<label_width$}");
    for (width, text) in cells {
        _ = write!(line, "{:GAP$}{text:<width$}", "");
    }
    line.trim_end().to_owned()
}

/// Puts the ports of a cell into short lines.
pub(crate) fn wrapped(items: Vec<String>) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for item in items {
        match out.last_mut() {
            Some(line) if line.len() + 1 + item.len() <= LIST_WIDTH => {
                line.push(' ');
                line.push_str(&item);
            }
            _ => out.push(item),
        }
    }
    out
}

/// Formats a list with commas, in lines of at most [`WIDTH`] characters.
pub(crate) fn listed(head: &str, items: &[String]) -> String {
    let (mut out, mut used) = (head.to_owned(), head.len());
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(',');
            if used + item.len() + 3 > WIDTH {
                used = head.len();
                _ = write!(out, "\n{:used$}", "");
            } else {
                out.push(' ');
                used += 2;
            }
        }
        out.push_str(item);
        used += item.len();
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_matrices_are_cut_into_blocks() {
        let names: Vec<String> = (0..30).map(|i| format!("ns/workload-{i}")).collect();
        let all: Vec<usize> = (0..30).collect();
        let cell = |a: usize, b: usize| vec![if a > b { "all" } else { "-" }.to_owned()];
        let text = Drawing { names: &names, rows: &all, columns: &all, cell: &cell }.text(100);
        assert_eq!(text.lines().filter(|l| l.starts_with("from")).count(), 2, "{text}");
        assert!(text.lines().all(|l| l.chars().count() <= 100), "{text}");
    }
}
