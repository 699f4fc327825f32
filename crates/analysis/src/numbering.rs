//! Assigns small numbers to values, so that recurring values are cheap to store and compare.
//!
//! Unlike this, `palisade_policy::Interner` shares the memory of names and label sets without keeping or numbering
//! them.

use std::{collections::HashMap, hash::Hash};

/// Numbers for values, in the order of their first use.
#[derive(Debug)]
pub(crate) struct Numbering<T> {
    values: Vec<T>,
    numbers: HashMap<T, u32>,
}

impl<T> Default for Numbering<T> {
    fn default() -> Self {
        Self { values: Vec::new(), numbers: HashMap::new() }
    }
}

impl<T: Eq + Hash + Clone> Numbering<T> {
    pub(crate) fn number(&mut self, value: T) -> u32 {
        if let Some(number) = self.numbers.get(&value) {
            return *number;
        }
        let number = self.values.len() as u32;
        self.values.push(value.clone());
        self.numbers.insert(value, number);
        number
    }

    /// Returns the number of a value, if it has one.
    pub(crate) fn find(&self, value: &T) -> Option<u32> {
        self.numbers.get(value).copied()
    }

    pub(crate) fn values(&self) -> &[T] {
        &self.values
    }

    pub(crate) fn get(&self, number: u32) -> &T {
        &self.values[number as usize]
    }
}
