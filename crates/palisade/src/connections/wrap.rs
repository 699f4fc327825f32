//! A table whose cells are lists of names, wrapped between names. The name of an object is never divided or cut off.

use crate::output::{Style, styled};

/// Spaces between two columns.
const GAP: usize = 2;
/// The most columns of the ports of one protocol on a line.
const LONG: usize = 24;

/// The content of a cell.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cell {
    /// Each with the separator that follows it.
    parts: Vec<String>,
}

impl Cell {
    /// A list of names. One with spaces (`shop/* except shop/deployment/db`) may be divided there.
    pub(crate) fn of_names(names: Vec<String>) -> Self {
        let last = names.len().saturating_sub(1);
        let name = |(i, name): (usize, String)| if i < last { name + "," } else { name };
        let names = names.into_iter().enumerate().map(name);
        Self {
            parts: names
                .flat_map(|name| name.split(' ').map(ToOwned::to_owned).collect::<Vec<_>>())
                .collect(),
        }
    }

    /// Ports, which are divided between protocols, and long lists of them after commas.
    pub(crate) fn of_ports(text: &str) -> Self {
        let whole = text.split_inclusive("; ").map(str::trim_end);
        let divided = whole.flat_map(|part| match columns(part) > LONG {
            true => part.split_inclusive(',').collect(),
            false => vec![part],
        });
        Self { parts: divided.map(ToOwned::to_owned).collect() }
    }

    fn widest_part(&self) -> usize {
        self.parts.iter().map(|part| columns(part)).max().unwrap_or(0)
    }

    /// The width without line breaks.
    fn width(&self) -> usize {
        self.parts.iter().map(|part| columns(part) + 1).sum::<usize>().saturating_sub(1)
    }

    /// Returns the lines of the cell, at most `width` wide if its parts are not wider.
    fn lines(&self, width: usize) -> Vec<String> {
        let mut out: Vec<String> = Vec::new();
        for part in &self.parts {
            match out.last_mut() {
                Some(line) if columns(line) + 1 + columns(part) <= width => {
                    line.push(' ');
                    line.push_str(part);
                }
                _ => out.push(part.clone()),
            }
        }
        out
    }

    /// Returns the cell as indented lines.
    pub(crate) fn indented(&self, indent: usize, width: usize) -> String {
        let lines = self.lines(width.saturating_sub(indent));
        lines.iter().map(|line| format!("{:indent$}{line}\n", "")).collect()
    }
}

/// Returns the width of a text in columns.
fn columns(text: &str) -> usize {
    text.chars().count()
}

/// A table with three columns.
pub(crate) struct Table {
    heads: [&'static str; 3],
    rows: Vec<[Cell; 3]>,
    /// Lines below a row, which take the whole width.
    notes: Vec<(usize, String)>,
    width: usize,
}

impl Table {
    pub(crate) fn new(heads: [&'static str; 3], width: usize) -> Self {
        Self { heads, rows: Vec::new(), notes: Vec::new(), width }
    }

    pub(crate) fn row(&mut self, row: [Cell; 3]) {
        self.rows.push(row);
    }

    /// Adds a line below the last row.
    pub(crate) fn note(&mut self, text: String) {
        self.notes.push((self.rows.len(), text));
    }

    /// Returns the widths of the columns. If the table is too wide, the columns share what their widest names leave.
    fn widths(&self) -> [usize; 3] {
        let of = |measure: fn(&Cell) -> usize| {
            [0, 1, 2].map(|i| {
                self.rows.iter().map(|row| measure(&row[i])).max().unwrap_or(0).max(self.heads[i].len())
            })
        };
        let (whole, mut widths) = (of(Cell::width), of(Cell::widest_part));
        let room = self.width.saturating_sub(2 * GAP);
        if whole.iter().sum::<usize>() <= room {
            return whole;
        }
        // The last column first: ports are short. Destinations have the longer lists.
        for column in [2, 0, 1] {
            let left = room.saturating_sub(widths.iter().sum());
            let wanted = whole[column] - widths[column];
            let share = if column == 0 { left / 2 } else { left };
            widths[column] += wanted.min(share);
        }
        widths
    }

    /// Returns the table as text.
    pub(crate) fn text(&self) -> String {
        let widths = self.widths();
        let line = |cells: [&str; 3]| {
            let [a, b, c] = cells;
            let [first, second, _] = widths;
            format!("{a:<first$}{:GAP$}{b:<second$}{:GAP$}{c}", "", "").trim_end().to_owned()
        };
        let mut out = styled(Style::Strong, &line(self.heads)) + "\n";
        let mut notes = self.notes.iter().peekable();
        for (number, row) in self.rows.iter().enumerate() {
            let cells = [0, 1, 2].map(|i| row[i].lines(widths[i]));
            for place in 0..cells.iter().map(Vec::len).max().unwrap_or(0) {
                let of = |i: usize| cells[i].get(place).map_or("", |text| &**text);
                out += &line([of(0), of(1), of(2)]);
                out.push('\n');
            }
            while let Some((_, note)) = notes.next_if(|(row, _)| *row == number + 1) {
                out += &format!("    {note}\n");
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_wrap_between_names() {
        let names = |all: &[&str]| Cell::of_names(all.iter().map(|n| (*n).to_owned()).collect());
        let mut table = Table::new(["FROM", "TO", "PORTS"], 30);
        table.row([names(&["aaaaaaaa"]), names(&["bbbb", "cccccc", "dddd"]), Cell::of_ports("TCP 80; UDP")]);
        table.row([Cell::default(), names(&["a-name-that-is-too-long"]), Cell::of_ports("all")]);
        let plain = |text: String| anstream::adapter::strip_str(&text).to_string();
        let expected = "\
FROM      TO                       PORTS
aaaaaaaa  bbbb, cccccc, dddd       TCP 80;
                                   UDP
          a-name-that-is-too-long  all
";
        assert_eq!(plain(table.text()), expected);
        assert_eq!(names(&["a", "b", "c"]).indented(2, 7), "  a, b,\n  c\n");
        assert_eq!(Cell::of_ports("TCP 80,443").lines(1), ["TCP 80,443"]);
        let long = format!("TCP {}", ["10000"; 9].join(","));
        assert!(Cell::of_ports(&long).lines(LONG).len() > 1);
    }
}
