//! Covers a relation between rows and columns with few rectangles.
//!
//! A relation gives each pair a set of keys. A rectangle is a key that every pair of some rows and some columns has; the
//! rectangles of a cover don't overlap, and together they are the relation.
//!
//! For each key, either rows with equal columns share a rectangle, or columns with equal rows, whichever is shorter to
//! write. Rows and columns are divided into parts beforehand, and each pair of parts decides by itself: what only rows
//! restrict is short by rows, what only columns restrict by columns.

use std::collections::{BTreeMap, HashMap};

/// What every pair of some rows and some columns has. Rows and columns are sorted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rectangle {
    pub(crate) rows: Vec<u32>,
    pub(crate) columns: Vec<u32>,
    pub(crate) key: u32,
}

/// How often a good cover may name each row and column.
const GOOD: usize = 2;

/// The part that a row or column is in.
pub(crate) type PartId = u8;

/// Distinct sets of columns, with the rows that have them.
type RowsByColumns = HashMap<Vec<u32>, Vec<u32>>;

/// A relation, built row by row.
#[derive(Debug)]
pub(crate) struct Relation<'a> {
    part_of_row: &'a [PartId],
    part_of_column: &'a [PartId],
    /// By part of rows, part of columns and key.
    found: BTreeMap<(PartId, PartId, u32), RowsByColumns>,
}

impl<'a> Relation<'a> {
    /// Makes an empty relation of rows and columns in these parts.
    pub(crate) fn new(part_of_row: &'a [PartId], part_of_column: &'a [PartId]) -> Self {
        Self { part_of_row, part_of_column, found: BTreeMap::new() }
    }

    /// Adds a row, given as keys and columns. Rows are added in order, each once.
    pub(crate) fn add(&mut self, row: u32, mut cells: Vec<(u32, u32)>) {
        let part = |column: u32| self.part_of_column[column as usize];
        cells.sort_unstable_by_key(|(key, column)| (part(*column), *key, *column));
        for cells in cells.chunk_by(|a, b| (part(a.1), a.0) == (part(b.1), b.0)) {
            let (key, first) = cells[0];
            let columns = cells.iter().map(|(_, column)| *column).collect();
            let place = (self.part_of_row[row as usize], part(first), key);
            self.found.entry(place).or_default().entry(columns).or_default().push(row);
        }
    }

    /// Returns the cover, sorted. `O(cells)`.
    pub(crate) fn cover(self) -> Vec<Rectangle> {
        let size = |parts: &[PartId], part: PartId| parts.iter().filter(|p| **p == part).count();
        let mut out = Vec::new();
        for ((row_part, column_part, key), by_columns) in self.found {
            let (height, width) = (size(self.part_of_row, row_part), size(self.part_of_column, column_part));
            let mut by_columns: Vec<(Vec<u32>, Vec<u32>)> =
                by_columns.into_iter().map(|(columns, rows)| (rows, columns)).collect();
            by_columns.sort_unstable();
            // A cover that hardly names more than all rows and columns once is good enough.
            if length(&by_columns, height, width) > GOOD * (height + width) {
                let turned = turned(&by_columns);
                if length(&turned, height, width) < length(&by_columns, height, width) {
                    by_columns = turned;
                }
            }
            out.extend(by_columns.into_iter().map(|(rows, columns)| Rectangle { rows, columns, key }));
        }
        joined(out)
    }
}

/// Returns the cover by columns of what `by_rows` covers by rows: disjoint rows, and the columns of each.
fn turned(by_rows: &[(Vec<u32>, Vec<u32>)]) -> Vec<(Vec<u32>, Vec<u32>)> {
    let mut holding: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (number, (_, columns)) in by_rows.iter().enumerate() {
        for column in columns {
            holding.entry(*column).or_default().push(number);
        }
    }
    let mut found: BTreeMap<Vec<usize>, Vec<u32>> = BTreeMap::new();
    for (column, numbers) in holding {
        found.entry(numbers).or_default().push(column);
    }
    let of = |numbers: Vec<usize>| -> Vec<u32> {
        let mut rows: Vec<u32> = numbers.into_iter().flat_map(|n| &by_rows[n].0).copied().collect();
        rows.sort_unstable();
        rows
    };
    found.into_iter().map(|(numbers, columns)| (of(numbers), columns)).collect()
}

/// Returns about how many names it takes to write some rectangles, of sets that may be written as the rest of `height`
/// rows or `width` columns.
fn length(rectangles: &[(Vec<u32>, Vec<u32>)], height: usize, width: usize) -> usize {
    let of = |set: &Vec<u32>, whole: usize| set.len().min(whole - set.len() + 1);
    rectangles.iter().map(|(rows, columns)| of(rows, height) + of(columns, width)).sum()
}

/// Joins rectangles that differ in their rows only, then those that differ in their columns only.
fn joined(rectangles: Vec<Rectangle>) -> Vec<Rectangle> {
    let mut by_columns: BTreeMap<(u32, Vec<u32>), Vec<u32>> = BTreeMap::new();
    for Rectangle { rows, columns, key } in rectangles {
        by_columns.entry((key, columns)).or_default().extend(rows);
    }
    let mut by_rows: BTreeMap<(u32, Vec<u32>), Vec<u32>> = BTreeMap::new();
    for ((key, columns), mut rows) in by_columns {
        rows.sort_unstable();
        by_rows.entry((key, rows)).or_default().extend(columns);
    }
    let rectangle = |((key, rows), mut columns): ((u32, Vec<u32>), Vec<u32>)| {
        columns.sort_unstable();
        Rectangle { rows, columns, key }
    };
    let mut out: Vec<Rectangle> = by_rows.into_iter().map(rectangle).collect();
    out.sort_unstable();
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn covered(rows: &[&[(u32, u32)]], part_of_row: &[PartId], part_of_column: &[PartId]) -> Vec<Rectangle> {
        let mut relation = Relation::new(part_of_row, part_of_column);
        for (row, cells) in rows.iter().enumerate() {
            relation.add(row as u32, cells.to_vec());
        }
        let cover = relation.cover();
        let mut pairs = BTreeSet::new();
        for Rectangle { rows, columns, key } in &cover {
            for pair in rows.iter().flat_map(|row| columns.iter().map(move |column| (*row, *key, *column))) {
                assert!(pairs.insert(pair), "{pair:?} is covered twice");
            }
        }
        let expected = rows
            .iter()
            .enumerate()
            .flat_map(|(row, cells)| cells.iter().map(move |(k, c)| (row as u32, *k, *c)));
        assert_eq!(pairs, expected.collect::<BTreeSet<_>>());
        cover
    }

    #[test]
    fn equal_rows_and_equal_columns_are_one_rectangle() {
        let row: &[(u32, u32)] = &[(0, 0), (0, 1), (0, 2)];
        assert_eq!(covered(&[row, row, row], &[0; 3], &[0; 3]).len(), 1);
        // Every column has rows of its own.
        assert_eq!(covered(&[&[(0, 0)], &[(0, 1)], &[(0, 2)]], &[0; 3], &[0; 3]).len(), 3);
        // Two keys for one pair.
        assert_eq!(covered(&[&[(0, 0), (1, 0)]], &[0], &[0]).len(), 2);
    }

    #[test]
    fn what_only_one_side_restricts_is_short() {
        // Rows 0 to 9 are free, 10 to 19 reach one column of their own. Columns likewise.
        let cells = |row: u32| -> Vec<(u32, u32)> {
            let reached = |column: &u32| match (row, *column) {
                (0..10, 0..10) => true,
                (10.., 0..10) => row == column + 10,
                (0..10, 10..) => *column == row + 10,
                _ => false,
            };
            (0..20).filter(reached).map(|column| (7, column)).collect()
        };
        let rows: Vec<Vec<(u32, u32)>> = (0..20).map(cells).collect();
        let rows: Vec<&[(u32, u32)]> = rows.iter().map(|row| &row[..]).collect();
        let parts: Vec<PartId> = (0..20).map(|i| i / 10).collect();
        assert_eq!(covered(&rows, &parts, &parts).len(), 21);
    }

    #[test]
    fn random_relations_are_covered_exactly() {
        let mut state = 1_u32;
        let mut random = |n: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) % n
        };
        for _ in 0..300 {
            let (height, width) = (1 + random(9), 1 + random(9));
            let rows: Vec<Vec<(u32, u32)>> = (0..height)
                .map(|_| {
                    let cells: BTreeSet<(u32, u32)> =
                        (0..random(2 * width)).map(|_| (random(3), random(width))).collect();
                    cells.into_iter().collect()
                })
                .collect();
            let rows: Vec<&[(u32, u32)]> = rows.iter().map(|row| &row[..]).collect();
            let part_of_row: Vec<PartId> = (0..height).map(|_| random(2) as PartId).collect();
            let part_of_column: Vec<PartId> = (0..width).map(|_| random(3) as PartId).collect();
            covered(&rows, &part_of_row, &part_of_column);
        }
    }
}
