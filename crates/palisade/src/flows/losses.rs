//! What has got lost on a node since the last page, or since its agent started.

use jiff::Timestamp;
use palisade_flow::FlowPage;

use crate::output;

/// What was said so far of one agent.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// When the agent that answers has started.
    pub(super) started: Option<Timestamp>,
    evicted: u64,
    unrecorded: u64,
    connections: u64,
    overruns: u64,
}

impl Losses {
    /// Whether another agent answers than before, which counts from the beginning.
    pub(super) fn is_new(&self, page: &FlowPage) -> bool {
        self.started.is_some_and(|started| started != page.started)
    }

    /// Says what has got lost. `of` is put before each line.
    pub(super) fn report(&mut self, page: &FlowPage, of: &str) {
        let unrecorded = page.unrecorded.saturating_sub(self.unrecorded);
        let evicted = page.evicted.saturating_sub(self.evicted);
        if unrecorded > 0 {
            output::note(&format!(
                "{of}dropped packets without a record, because there were too many at once: {unrecorded}\n"
            ));
        }
        if evicted > 0 {
            output::note(&format!(
                "{of}records that made room for later ones of the same sender (setting flow-buffer): {evicted}\n"
            ));
        }
        let connections = page.connections_unrecorded.saturating_sub(self.connections);
        let overruns = page.connection_overruns.saturating_sub(self.overruns);
        if connections > 0 {
            output::note(&format!(
                "{of}connections without a record, because there were too many at once: {connections}\n"
            ));
        }
        if overruns > 0 {
            output::note(&format!(
                "{of}the kernel announced connections faster than they were read, and some have no record; times: {overruns}\n"
            ));
        }
        (self.evicted, self.unrecorded) = (page.evicted, page.unrecorded);
        (self.connections, self.overruns) = (page.connections_unrecorded, page.connection_overruns);
        self.started = Some(page.started);
    }
}
