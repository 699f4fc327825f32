//! The numbers of the agent's last transactions.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

/// The numbers that the last transactions of a connection carry. The drift watcher recognizes them by these.
#[derive(Debug, Default)]
pub(crate) struct OwnTransactions(Mutex<VecDeque<u32>>);

impl OwnTransactions {
    /// How many are kept. A watcher that falls further behind loses notifications anyway.
    const CAPACITY: usize = 1024;

    /// Records the number of a transaction that is about to be sent.
    pub(crate) fn record(&self, number: u32) {
        let mut numbers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        numbers.truncate(Self::CAPACITY - 1);
        numbers.push_front(number);
    }

    /// Returns whether a transaction with this number was recorded.
    pub(crate) fn contains(&self, number: u32) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_numbers_are_kept() {
        let own = OwnTransactions::default();
        (0..5000).for_each(|number| own.record(number));
        assert!(own.contains(4999) && own.contains(4000) && !own.contains(3000));
    }
}
