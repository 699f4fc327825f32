//! Who may reach whom as a grid: a letter for each set of ports, and a key that says what the letters mean.

use std::collections::{BTreeMap, HashMap};

use super::report::Report;

/// The grid. A cell that isn't there is empty.
pub(crate) struct Grid {
    /// The ends that open connections.
    pub(crate) rows: Vec<usize>,
    /// The ends that are called.
    pub(crate) columns: Vec<usize>,
    /// By row and column of the grid: what is shown, as a place in [`Self::key`].
    pub(crate) cells: BTreeMap<(usize, usize), usize>,
    /// What is shown in words; [`EVERYTHING`] if some cell holds everything.
    pub(crate) key: Vec<String>,
}

/// The words for everything, on every port of every protocol.
pub(crate) const EVERYTHING: &str = "all";

impl Grid {
    pub(crate) fn new(report: &Report<'_>) -> Self {
        let ends = report.visible_ends();
        let mut texts: BTreeMap<(usize, usize), String> = BTreeMap::new();
        let places = |ends: &[usize]| -> HashMap<usize, usize> {
            ends.iter().enumerate().map(|(place, end)| (*end, place)).collect()
        };
        let (row_of, column_of) = (places(&ends.callers), places(&ends.called));
        for edge in report.edges() {
            let (Some(row), Some(column)) = (row_of.get(&edge.from), column_of.get(&edge.to)) else {
                continue;
            };
            // Families that differ are two edges, in one cell.
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
        Self { rows: ends.callers, columns: ends.called, cells, key }
    }

    /// The letters for a place in the key, everything having none: `A` … `Z`, `AA` ….
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

/// 1 is `A`, 26 `Z`, 27 `AA`.
fn spelt(mut n: usize) -> String {
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
