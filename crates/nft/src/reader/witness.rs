//! Whether our table changed while it was read.
//!
//! A listing takes many requests, and the kernel marks each answer as interrupted when *any* table of the namespace
//! changed meanwhile. Where other programs commit dozens of times a second, no listing of many elements is ever free of
//! that mark. What the kernel does is harmless as long as our own table is left alone: rules, sets and elements are listed
//! by their place in the lists of one table or set, which other tables' transactions don't touch. So the reader hears
//! of the transactions that took place while it read, and reads again only if one of them was about our table.

use std::time::{Duration, Instant};

use crate::{
    drift::{GROUP, INET, NEWGEN, NFTABLES},
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
    /// Whether the transaction that is being told is about our table.
    pending: bool,
    /// Whether one since the beginning was.
    touched: bool,
    /// The last transaction that was told whole.
    heard: Option<u32>,
}

impl Witness {
    /// Opens the socket; it hears nothing yet.
    pub(crate) fn open() -> Self {
        let subscription = Subscription::open(RECEIVE_BUFFER, |_| Ok(())).ok();
        Self { subscription, pending: false, touched: false, heard: None }
    }

    /// Begins to listen. The number of the last transaction must be asked for after this.
    pub(crate) fn begin(&mut self) {
        (self.pending, self.touched, self.heard) = (false, false, None);
        let Some(subscription) = &mut self.subscription else { return };
        if subscription.join(GROUP).is_err() {
            self.subscription = None;
            return;
        }
        // What is left from last time.
        while !matches!(subscription.receive(), Ok(Received::Nothing) | Err(_)) {}
    }

    /// Ends listening, and says whether our table was left alone from transaction `before` to transaction `after`.
    pub(crate) fn end(&mut self, before: u32, after: u32) -> bool {
        let untouched = before == after || self.untouched(before, after);
        if let Some(subscription) = &mut self.subscription {
            _ = subscription.leave(GROUP);
        }
        untouched
    }

    fn untouched(&mut self, before: u32, after: u32) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while self.heard.is_none_or(|heard| is_earlier(heard, after)) {
            let Some(subscription) = &mut self.subscription else { return false };
            let messages: Vec<Reply> = match subscription.receive() {
                Ok(Received::Datagram(datagram)) => replies(datagram).collect(),
                Ok(Received::Nothing) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() || subscription.wait(left).is_err() {
                        return false;
                    }
                    continue;
                }
                // Nobody knows what was lost.
                Ok(Received::Overrun) | Err(_) => return false,
            };
            messages.iter().for_each(|message| self.hear(message, before));
        }
        !self.touched
    }

    fn hear(&mut self, message: &Reply, before: u32) {
        if message.kind >> 8 != NFTABLES {
            return;
        }
        let attributes = Attributes(message.attributes());
        if message.kind & 0xff == NEWGEN {
            let was_ours = std::mem::take(&mut self.pending);
            // NFTA_GEN_ID
            let Some(number) = attributes.number(1) else { return };
            self.touched |= was_ours && is_earlier(before, number);
            self.heard = Some(number);
        } else if message.payload.first() == Some(&INET) && attributes.text(1).as_deref() == Some(TABLE) {
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
