//! Whether our table changed while it was read.
//!
//! A listing takes many requests, and the kernel marks each answer as interrupted when *any* table of the namespace
//! changed meanwhile. Where other programs commit dozens of times a second, no listing of many elements is ever free of
//! that mark. What the kernel does is harmless as long as our own table is left alone: rules, sets and elements are listed
//! by their place in the lists of one table or set, which other tables' transactions don't touch. So the reader hears
//! of the transactions that took place while it read, and reads again only if one of them was about our table.

use std::time::{Duration, Instant};

use crate::{
    drift::{BRIDGE, GROUP, INET, NEWGEN, NFTABLES},
    kernel::{Reply, replies},
    reader::Attributes,
    ruleset::TABLE,
    subscription::{RECEIVE_BUFFER, Received, Subscription},
};

/// How long to wait for word of a transaction that is known to have taken place. The kernel tells of it a moment after
/// its number counts.
const PATIENCE: Duration = Duration::from_secs(1);

/// Listens while the table is read. Belongs to the network namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Witness {
    /// None where the process has no right to listen: then any transaction counts as one of ours.
    subscription: Option<Subscription>,
    listening: bool,
    /// Whether something was lost, so that nobody knows what it was about.
    lost: bool,
    /// Whether the transaction that is being told is about our table.
    pending: bool,
    /// The last transaction that was about our table, and the last one of all.
    touched: Option<u32>,
    heard: Option<u32>,
}

impl Witness {
    /// Opens the socket; it hears nothing yet.
    pub(crate) fn open() -> Self {
        let subscription = Subscription::open(RECEIVE_BUFFER, |_| Ok(())).ok();
        Self { subscription, listening: false, lost: false, pending: false, touched: None, heard: None }
    }

    /// Begins to listen. The number of the last transaction must be asked for after this.
    pub(crate) fn begin(&mut self) {
        let Some(subscription) = &mut self.subscription else { return };
        // What is left from last time.
        while !matches!(subscription.receive(), Ok(Received::Nothing) | Err(_)) {}
        (self.lost, self.pending, self.touched, self.heard) = (false, false, None, None);
        self.listening = subscription.join(GROUP).is_ok();
        if !self.listening {
            self.subscription = None;
        }
    }

    /// Takes in what was told so far, so that the socket's buffer need not hold all that happens during a long reading.
    pub(crate) fn listen(&mut self) {
        while self.listening && self.take() {}
    }

    /// Ends listening, and says whether our table was left alone from transaction `before` to transaction `after`.
    pub(crate) fn end(&mut self, before: u32, after: u32) -> bool {
        let untouched = before == after || self.untouched(before, after);
        self.listening = false;
        if let Some(subscription) = &mut self.subscription {
            _ = subscription.leave(GROUP);
        }
        untouched
    }

    fn untouched(&mut self, before: u32, after: u32) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while self.heard.is_none_or(|heard| is_earlier(heard, after)) {
            if !self.listening || self.lost {
                return false;
            }
            if self.take() {
                continue;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let waited = self.subscription.as_ref().map(|subscription| subscription.wait(left));
            if left.is_zero() || !matches!(waited, Some(Ok(_))) {
                return false;
            }
        }
        !self.lost && self.touched.is_none_or(|touched| !is_earlier(before, touched))
    }

    /// Takes in one datagram; says whether there was one.
    fn take(&mut self) -> bool {
        let Some(subscription) = &mut self.subscription else { return false };
        let messages: Vec<Reply> = match subscription.receive() {
            Ok(Received::Datagram(datagram)) => replies(datagram).collect(),
            Ok(Received::Nothing) => return false,
            Ok(Received::Overrun) | Err(_) => {
                self.lost = true;
                return false;
            }
        };
        messages.iter().for_each(|message| self.hear(message));
        true
    }

    fn hear(&mut self, message: &Reply) {
        if message.kind >> 8 != NFTABLES {
            return;
        }
        let attributes = Attributes(message.attributes());
        if message.kind & 0xff == NEWGEN {
            let is_ours = std::mem::take(&mut self.pending);
            // NFTA_GEN_ID
            self.heard = attributes.number(1).or(self.heard);
            if is_ours {
                self.touched = self.heard;
            }
        } else if message.payload.first().is_some_and(|family| [INET, BRIDGE].contains(family))
            && attributes.text(1).as_deref() == Some(TABLE)
        {
            self.pending = true;
        }
    }
}

/// Whether one transaction came before another. Their numbers wrap.
fn is_earlier(one: u32, other: u32) -> bool {
    (other.wrapping_sub(one) as i32) > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transaction_numbers_wrap() {
        assert!(is_earlier(1, 2) && !is_earlier(2, 2) && !is_earlier(3, 2));
        assert!(is_earlier(u32::MAX, 1) && !is_earlier(1, u32::MAX));
    }
}
