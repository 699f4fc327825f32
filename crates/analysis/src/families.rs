//! Sets of IP families.

use palisade_policy::Family;

/// A set of IP families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Families {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

impl Families {
    /// Returns whether the set contains `family`.
    #[must_use]
    pub fn contains(self, family: Family) -> bool {
        if family == Family::V4 { self.v4 } else { self.v6 }
    }

    /// Returns the families that are in both sets.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { v4: self.v4 && other.v4, v6: self.v6 && other.v6 }
    }

    /// Returns whether the set contains no family.
    #[must_use]
    pub fn is_empty(self) -> bool {
        !self.v4 && !self.v6
    }
}

/// Returns the index of a family in arrays of two.
pub(crate) fn index(family: Family) -> usize {
    match family {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}
