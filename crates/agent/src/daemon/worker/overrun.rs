//! More changes of nftables were told than could be listened to. They may all have been ours: a large plan on a kernel that
//! tells us of our own transactions, or others' of their own tables. So the table is compared, and nothing is written: what is
//! written would be told again.

use std::time::{Duration, Instant};

use super::Worker;
use crate::daemon::inbox::Drifted;

/// A look takes a whole listing: not more often than so.
const REST: Duration = Duration::from_secs(2);

/// Whether something was missed.
#[derive(Debug, Default)]
pub(super) struct Overrun {
    pub(super) is_open: bool,
    looked: Option<Instant>,
}

impl Worker {
    /// Looks whether anything was changed while the listener missed something.
    pub(super) fn look_after_overrun(&mut self) {
        let is_due = self.overrun.looked.is_none_or(|at| at.elapsed() >= REST);
        if !self.overrun.is_open || !is_due || self.agent.reconciler().is_waiting() {
            return;
        }
        (self.overrun.is_open, self.overrun.looked) = (false, Some(Instant::now()));
        match self.agent.data_plane().verify() {
            Ok(None) => {}
            Ok(Some(found)) if found.agrees() => {
                tracing::debug!("changes of nftables came too fast to be followed; none was of the table");
            }
            Ok(Some(_)) | Err(_) => {
                let what = "nftables changed faster than it could be followed".to_owned();
                self.mending.heard(Drifted { what, gone: false });
            }
        }
    }
}
