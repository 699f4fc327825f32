//! The connections as a grid: a letter for each set of ports, and a key to the letters.

use std::collections::{BTreeMap, HashMap};

use super::report::Report;

/// The grid. Cells that are not listed are empty.
pub(crate) struct Grid {
    /// The sources.
    pub(crate) rows: Vec<usize>,
    /// The destinations.
    pub(crate) columns: Vec<usize>,
    /// By row and column of the grid: the index of the cell's text in [`Self::key`].
    pub(crate) cells: BTreeMap<(usize, usize), usize>,
    /// The texts of cells, [`EVERYTHING`] among them if a cell has all traffic.
    pub(crate) key: Vec<String>,
}

/// The text for every port of every protocol.
pub(crate) const EVERYTHING: &str = "all";

impl Grid {
    pub(crate) fn new(report: &Report<'_>) -> Self {
        let ends = report.visible_ends();
        let mut texts: BTreeMap<(usize, usize), String> = BTreeMap::new();
        let places = |ends: &[usize]| -> HashMap<usize, usize> {
            ends.iter().enumerate().map(|(place, end)| (*end, place)).collect()
        };
        let (row_of, column_of) = (places(&ends.sources), places(&ends.destinations));
        for edge in report.edges() {
            let (Some(row), Some(column)) = (row_of.get(&edge.from), column_of.get(&edge.to)) else {
                continue;
            };
            // IP families with different traffic are two edges in one cell.
            let text = texts.entry((*row, *column)).or_default();
            if !text.is_empty() {
                text.push_str("; ");
            }
            *text += &report.traffic(&edge);
        }
        let (mut key, mut numbers): (Vec<String>, HashMap<String, usize>) = Default::default();
        let mut number = |text: String| -> usize {
            *numbers.entry(text).or_insert_with_key(|text| {
                key.push(text.clone());
                key.len() - 1
            })
        };
        let cells = texts.into_iter().map(|(at, text)| (at, number(text))).collect();
        Self { rows: ends.sources, columns: ends.destinations, cells, key }
    }

    /// Returns the letter of each text in the key: `A` … `Z`, `AA` …. [`EVERYTHING`] has none.
    pub(crate) fn letters(&self) -> Vec<String> {
        let mut next = 0;
        let mut letter = |text: &String| {
            if text == EVERYTHING {
                return String::new();
            }
            next += 1;
            spelt(next)
        };
        self.key.iter().map(&mut letter).collect()
    }
}

/// Spells a number in letters: 1 is `A`, 26 `Z`, 27 `AA`.
pub(super) fn spelt(mut n: usize) -> String {
    let mut out = Vec::new();
    while n > 0 {
        n -= 1;
        out.push(char::from(b'A' + (n % 26) as u8));
        n /= 26;
    }
    out.into_iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_count_on_after_z() {
        assert_eq!([1, 26, 27, 52, 53, 702, 703].map(spelt), ["A", "Z", "AA", "AZ", "BA", "ZZ", "AAA"]);
    }
}
