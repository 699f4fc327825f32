//! Detects whether the table changed while it was read.
//!
//! Reading a table takes many requests, and the kernel marks each reply as interrupted if *any* table of the namespace
//! changed meanwhile. If other programs commit dozens of times per second, no large dump is free of that mark. But the
//! dump is still correct if only other tables changed: rules, sets and elements are listed by their position within one
//! table or set. So the reader subscribes to the transactions that happen while it reads, and reads again only if one of
//! them changed the table.

use std::time::{Duration, Instant};

use super::attributes::Attributes;
use crate::{
    kernel::{Reply, replies},
    ruleset::TABLE,
    subscription::{RECEIVE_BUFFER, Received, Subscription},
    uapi::{
        netfilter::{NFPROTO_BRIDGE, NFPROTO_INET},
        nf_tables::{NFT_MSG_NEWGEN, NFTA_GEN_ID, NFTA_TABLE_NAME},
        nfnetlink::{NFNL_SUBSYS_NFTABLES, NFNLGRP_NFTABLES, message_of, subsystem_of},
    },
};

/// How long to wait for the notification of a transaction that happened. The kernel sends it a moment after the
/// transaction takes effect.
const TIMEOUT: Duration = Duration::from_secs(1);

/// What is known of the transactions while the table was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Observation {
    /// None of them changed the table.
    Unchanged,
    /// One of them changed it.
    Changed,
    /// Notifications were lost, or the process may not have them.
    Unknown,
}

/// Subscribes to changes while the table is read. Belongs to the network namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct ChangeDetector {
    /// `None` if the process may not subscribe. Then every transaction counts as a change of the table.
    subscription: Option<Subscription>,
    subscribed: bool,
    /// Whether a notification was lost, so that its table is unknown.
    lost: bool,
    /// Whether the transaction whose notifications are arriving changes the table.
    pending: bool,
    /// The last transaction that changed the table.
    last_change: Option<u32>,
    /// The last transaction.
    last_seen: Option<u32>,
}

impl ChangeDetector {
    /// Opens the socket without subscribing.
    pub(crate) fn open() -> Self {
        let subscription = Subscription::open(RECEIVE_BUFFER, |_| Ok(())).ok();
        let (last_change, last_seen) = (None, None);
        Self { subscription, subscribed: false, lost: false, pending: false, last_change, last_seen }
    }

    /// Subscribes. The caller must query the number of the last transaction after this.
    pub(crate) fn begin(&mut self) {
        let Some(subscription) = &mut self.subscription else { return };
        // Discard what is left from the last time.
        while !matches!(subscription.receive(), Ok(Received::Nothing) | Err(_)) {}
        (self.lost, self.pending, self.last_change, self.last_seen) = (false, false, None, None);
        self.subscribed = subscription.join(NFNLGRP_NFTABLES).is_ok();
        if !self.subscribed {
            self.subscription = None;
        }
    }

    /// Reads the notifications so far, so that the socket's buffer need not hold all of a long reading.
    pub(crate) fn drain(&mut self) {
        while self.subscribed && self.receive() {}
    }

    /// Unsubscribes. Returns whether a transaction from `before` to `after` changed the table.
    pub(crate) fn end(&mut self, before: u32, after: u32) -> Observation {
        let observation =
            if before == after { Observation::Unchanged } else { self.observation(before, after) };
        self.subscribed = false;
        if let Some(subscription) = &mut self.subscription {
            _ = subscription.leave(NFNLGRP_NFTABLES);
        }
        observation
    }

    fn observation(&mut self, before: u32, after: u32) -> Observation {
        let complete = self.await_transaction(after);
        let changed = self.last_change.is_some_and(|change| is_earlier(before, change));
        if changed || (self.pending && !complete) {
            Observation::Changed
        } else if complete && !self.lost {
            Observation::Unchanged
        } else {
            Observation::Unknown
        }
    }

    /// Receives the notifications until those of a transaction. Returns `false` if they don't come.
    fn await_transaction(&mut self, after: u32) -> bool {
        let deadline = Instant::now() + TIMEOUT;
        while self.last_seen.is_none_or(|seen| is_earlier(seen, after)) {
            if !self.subscribed || self.lost {
                return false;
            }
            if self.receive() {
                continue;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let waited = self.subscription.as_ref().map(|subscription| subscription.wait(left));
            if left.is_zero() || !matches!(waited, Some(Ok(_))) {
                return false;
            }
        }
        true
    }

    /// Reads one datagram. Returns whether there was one.
    fn receive(&mut self) -> bool {
        let Some(subscription) = &mut self.subscription else { return false };
        let messages: Vec<Reply> = match subscription.receive() {
            Ok(Received::Datagram(datagram)) => replies(datagram).collect(),
            Ok(Received::Nothing) => return false,
            Ok(Received::Overrun) | Err(_) => {
                self.lost = true;
                return false;
            }
        };
        messages.iter().for_each(|message| self.observe(message));
        true
    }

    fn observe(&mut self, message: &Reply) {
        if subsystem_of(message.kind) != NFNL_SUBSYS_NFTABLES {
            return;
        }
        let attributes = Attributes(message.attributes());
        if message_of(message.kind) == NFT_MSG_NEWGEN {
            let changed_table = std::mem::take(&mut self.pending);
            self.last_seen = attributes.number(NFTA_GEN_ID).or(self.last_seen);
            if changed_table {
                self.last_change = self.last_seen;
            }
        } else if message.family().is_some_and(|family| [NFPROTO_INET, NFPROTO_BRIDGE].contains(&family))
            && attributes.text(NFTA_TABLE_NAME).as_deref() == Some(TABLE)
        {
            self.pending = true;
        }
    }
}

/// Returns whether one transaction came before another. The numbers wrap around.
fn is_earlier(one: u32, other: u32) -> bool {
    (other.wrapping_sub(one) as i32) > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transaction_numbers_wrap_around() {
        assert!(is_earlier(1, 2) && !is_earlier(2, 2) && !is_earlier(3, 2));
        assert!(is_earlier(u32::MAX, 1) && !is_earlier(1, u32::MAX));
    }
}
