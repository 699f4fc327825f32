//! What is known of a flow that is denied.

use std::{mem, time::Instant};

use jiff::Timestamp;
use palisade_flow::Record;

use crate::{
    flows::FlowStore,
    metrics::{DropLabels, WorkloadLabels},
};

/// What denied a flow, and when it was logged.
#[derive(Debug)]
pub(super) struct KnownFlow {
    pub(super) labels: DropLabels,
    /// The workloads of its ends.
    pub(super) pair: WorkloadLabels,
    pub(super) logged: Instant,
    /// Packets since it was last logged.
    pub(super) packets: u64,
    /// What its records have in common.
    pub(super) record: Record,
    pub(super) bytes: usize,
    pub(super) recorded: Instant,
    /// Packets since the last record, and when the last of them was seen.
    pub(super) unrecorded: u64,
    pub(super) seen: Timestamp,
}

/// About the bytes of a record, as text.
pub(super) fn bytes(record: &Record) -> usize {
    serde_json::to_vec(record).map_or(0, |text| text.len())
}

impl KnownFlow {
    /// Records the packets since the last record.
    pub(super) fn add_record(&mut self, records: &FlowStore) {
        let count = mem::take(&mut self.unrecorded);
        if count > 0 {
            records.add(Record { time: self.seen, count, ..self.record.clone() });
        }
    }
}
