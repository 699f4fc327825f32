//! Tables of text.

use std::borrow::Cow;

/// Renders columns, separated by two spaces.
pub(crate) fn columns(heading: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<Cow<'_, str>>> =
        rows.iter().map(|row| row.iter().map(|cell| shortened(cell)).collect()).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([heading[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heading.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded: Vec<String> =
            cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let mut out = line(heading.to_vec());
    for row in rows {
        out += &line(row.iter().map(|cell| &**cell).collect());
    }
    out
}

/// The most characters of a cell. A long name must not push the other columns off the screen or exceed the limit of padding.
const MAX_CELL: usize = 256;

fn shortened(cell: &str) -> Cow<'_, str> {
    match cell.char_indices().nth(MAX_CELL) {
        Some((end, _)) => Cow::Owned(format!("{}…", &cell[..end])),
        None => Cow::Borrowed(cell),
    }
}
