//! The traffic from one unit to many, without a search for each pair.
//!
//! [`Reach::cell`] searches two rows. A scan first writes what the source may send to each class and what each row
//! receives from the source into two arrays, so that every pair after that costs two look-ups.

use super::{Reach, Row, RowId, Unit};
use crate::{
    classes::ClassId,
    traffics::{Cell, TrafficId, Traffics},
};

/// The entries of all rows by class. A row without an entry for a class has its `rest`.
#[derive(Debug)]
pub(super) struct ByClass {
    rest: Vec<TrafficId>,
    special: Vec<Vec<(RowId, TrafficId)>>,
}

impl ByClass {
    /// `O(entries)`.
    pub(super) fn new(rows: &[Row], classes: usize) -> Self {
        let mut special = vec![Vec::new(); classes];
        for (row, entries) in rows.iter().enumerate() {
            for (class, traffic) in &entries.special {
                special[*class as usize].push((row as RowId, *traffic));
            }
        }
        Self { rest: rows.iter().map(|row| row.rest).collect(), special }
    }

    /// Returns the rows with an entry for a class, sorted, and their entries.
    pub(super) fn entries(&self, class: ClassId) -> &[(RowId, TrafficId)] {
        &self.special[class as usize]
    }
}

/// Computes the traffic from one unit at a time to others. It needs `O(classes + rows)` memory.
#[derive(Debug)]
pub(crate) struct Scan<'r> {
    rows: &'r [Row],
    by_class: &'r ByClass,
    /// By family: what the source may send to each class.
    sent: [Vec<TrafficId>; 2],
    /// By family: what each row allows from the source.
    received: [Vec<TrafficId>; 2],
    source: [Option<ClassId>; 2],
}

impl<'r> Scan<'r> {
    pub(super) fn new(rows: &'r [Row], by_class: &'r ByClass) -> Self {
        Self {
            rows,
            by_class,
            sent: [0, 1].map(|_| vec![Traffics::ALL; by_class.special.len()]),
            received: [0, 1].map(|_| by_class.rest.clone()),
            source: [None; 2],
        }
    }

    /// Makes a unit the source. `O(classes + rows)`.
    pub(crate) fn from(&mut self, source: &Unit) {
        for family in 0..2 {
            self.sent[family].fill(source.egress.map_or(Traffics::ALL, |row| self.rows[row as usize].rest));
            for (class, traffic) in source.egress.iter().flat_map(|row| &self.rows[*row as usize].special) {
                self.sent[family][*class as usize] = *traffic;
            }
            self.received[family].copy_from_slice(&self.by_class.rest);
            for (row, traffic) in
                source.classes[family].iter().flat_map(|class| &self.by_class.special[*class as usize])
            {
                self.received[family][*row as usize] = *traffic;
            }
        }
        self.source = source.classes;
    }

    /// Returns what the source may send and what a target may receive from it, by family; `None` if they don't share
    /// the family.
    pub(crate) fn sides(&self, target: &Unit) -> [Option<(TrafficId, TrafficId)>; 2] {
        [0, 1].map(|family| {
            let class = self.source[family].and(target.classes[family])?;
            let received = target.ingress.map_or(Traffics::ALL, |row| self.received[family][row as usize]);
            Some((self.sent[family][class as usize], received))
        })
    }

    /// Returns the traffic from the source to a target, as [`Reach::cell`] does.
    pub(crate) fn cell(&self, target: &Unit, traffics: &Traffics) -> Cell {
        self.sides(target).map(|sides| {
            let (sent, received) = sides?;
            traffics.intersection_of(sent, received)
        })
    }
}

impl Reach {
    /// Returns a scan without a source, for what is allowed wherever unknown addresses lie.
    pub(crate) fn scan(&self) -> Scan<'_> {
        self.certain.scan()
    }

    /// Returns the same for what is allowed for some possible values of unknown addresses.
    pub(crate) fn possible_scan(&self) -> Scan<'_> {
        self.possible.as_ref().unwrap_or(&self.certain).scan()
    }
}
