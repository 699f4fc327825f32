//! Repairs changes of our table by other programs.

use std::time::Instant;

use super::Worker;
use crate::{daemon::inbox::TableChange, error_chain};

impl Worker {
    /// Repairs the table if a repair is due. Then re-evaluates all established connections, because those that began in
    /// between did not meet our rules.
    pub(super) fn repair_table(&mut self) {
        if self.agent.reconciler().is_waiting() {
            return;
        }
        self.check_generation();
        let begin = Instant::now();
        let Some(change) = self.repairs.take_due(begin) else { return };
        let plane = self.agent.data_plane();
        // A table that was removed need not be read.
        let outcome = if change.removed_table { plane.recreate() } else { plane.repair() };
        let end = Instant::now();
        self.repairs.spend(begin, end);
        if let Some(names) = &mut self.names {
            // `nft flush ruleset` removes both tables.
            names.distrust_table();
        }
        let description = change.description.clone();
        match outcome {
            // Nothing is programmed yet.
            Ok(commit) if commit.transactions == 0 => {
                tracing::debug!(change = description, "table needs no repair");
            }
            Ok(commit) => {
                self.generation = commit.generation;
                if let Some(repairs) = self.repairs.succeeded(end) {
                    tracing::error!(
                        change = description,
                        repairs,
                        elements = commit.elements,
                        duration_ms = (end - begin).as_millis() as u64,
                        "repaired table inet palisade after a change by another program"
                    );
                }
                self.errors.record("drift", description);
                self.agent.review_all();
                // The change may also concern what was programmed in place of a rejected plan.
                let is_behind = self.agent.reconciler().is_behind();
                let report = if is_behind { self.agent.resync() } else { self.agent.tick() };
                self.apply_report(report, None);
            }
            Err(error) => {
                let err = error_chain::with_causes(&error);
                tracing::error!(
                    change = description,
                    err,
                    "cannot repair table inet palisade after a change by another program, retrying"
                );
                self.errors.record("drift", format!("{description}: {err}"));
                self.repairs.failed(change, err, end);
                // The kernel does not hold what was programmed.
                let report = self.agent.resync();
                self.apply_report(report, None);
            }
        }
    }

    /// Compares the generation in the kernel's table with the last one that was written, in case notifications were missed.
    fn check_generation(&mut self) {
        if !self.repairs.take_check_due(Instant::now()) {
            return;
        }
        match self.agent.data_plane().is_last_generation() {
            Ok(true) => {}
            Ok(false) => {
                let description = "the table is not the one that was written last".to_owned();
                self.repairs.add(TableChange { description, removed_table: false });
            }
            Err(error) => {
                let err = error_chain::with_causes(&error);
                tracing::warn!(err, "cannot check the table's generation, retrying");
                self.errors.record("drift", err);
            }
        }
    }

    /// Compares the table with the plan if nftables notifications were lost. They may all have been about our own transactions
    /// or about other tables, so nothing is written unless the comparison finds a difference: each write causes further
    /// notifications.
    pub(super) fn compare_after_overrun(&mut self) {
        if self.agent.reconciler().is_waiting() || !self.overrun.take_due(Instant::now()) {
            return;
        }
        match self.agent.data_plane().verify() {
            Ok(None) => {}
            Ok(Some(found)) if found.agrees() => {
                tracing::debug!("lost nftables notifications, table inet palisade is unchanged");
            }
            Ok(Some(_)) | Err(_) => {
                let description = "nftables notifications were lost".to_owned();
                self.repairs.add(TableChange { description, removed_table: false });
            }
        }
    }
}
