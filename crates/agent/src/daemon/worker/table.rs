//! The table in the kernel: what was there at the start, and the notifications of its changes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use palisade_nft::ExistingTable;

use super::Worker;
use crate::{
    daemon::{error::DaemonError, kernel_events},
    error_chain,
};

/// The pause after opening the socket for nftables notifications failed.
const WATCH_RETRY: Duration = Duration::from_secs(30);

impl Worker {
    /// Starts to read nftables notifications as soon as the table exists.
    pub(super) fn watch_table(&mut self) {
        if self.watch_at.is_none_or(|at| at > Instant::now()) {
            return;
        }
        let watching = match self.agent.data_plane().watch() {
            Ok(None) => return,
            Ok(Some(watcher)) => kernel_events::read_table_changes(watcher, Arc::clone(&self.inbox)),
            Err(error) => Err(DaemonError::from(error)),
        };
        self.log_takeover();
        match watching {
            // The check of the generation finds earlier changes.
            Ok(()) => self.watch_at = None,
            Err(error) => {
                self.watch_at = Some(Instant::now() + WATCH_RETRY);
                let err = error_chain::with_causes(&error);
                tracing::warn!(
                    err,
                    "cannot read nftables notifications, retrying; the table is checked at intervals"
                );
                self.errors.record("drift", err);
            }
        }
    }

    /// Logs once what a previous run had left in the kernel.
    fn log_takeover(&mut self) {
        if std::mem::replace(&mut self.has_logged_takeover, true) {
            return;
        }
        match self.agent.data_plane().existing_table() {
            None => {}
            Some(ExistingTable::Nothing) => tracing::info!("created table inet palisade"),
            Some(ExistingTable::Ours) => {
                tracing::info!(
                    "took over table inet palisade, which a previous run had left, and updated it"
                );
            }
            Some(ExistingTable::Unreadable) => {
                tracing::warn!("replaced table inet palisade, which changed during each attempt to read it");
            }
            Some(ExistingTable::Foreign) => {
                tracing::warn!(
                    "replaced table inet palisade, which another version or another program had left"
                );
            }
        }
    }
}
