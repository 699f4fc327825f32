//! Records of the flows of one node, as the daemon makes them, for a process that runs a [`NodeAgent`] without a daemon.
//!
//! ```text
//!   kernel ── nflog ──────► DropEventReader ──► DropLog ───────┐
//!          └─ conntrack ──► ConnectionEvents ─► ConnectionLog ─┴─► FlowStore ─► FlowRecorder::take
//! ```
//!
//! The daemon reads the kernel on threads of their own; here the caller calls [`FlowRecorder::read`] at intervals. What is kept, what is
//! forgotten when the cluster changes, and the limits are the daemon's.

use std::{sync::Arc, time::Instant};

use palisade_flow::Record;
use palisade_nft::{
    Error,
    conntrack::{ConnectionEvent, ConnectionEvents, Events},
    drops::{DropEvent, DropEventReader, Tally},
};
use palisade_policy::{Change, Cluster, Name};

use crate::{
    DataPlane, NftDataPlane, NodeAgent, Report,
    changed_addresses::changed_addresses,
    connections::{Connection, ConnectionLog, SeenConnections, Sum},
    drops::{DropLog, UnloggedPackets},
    flow_logs::FlowLogs,
    flows::FlowStore,
    metrics::Metrics,
};
pub use crate::{drops::Wording, flows::Losses};

/// The bytes of records that wait until they are taken.
const CAPACITY: usize = 64 << 20;
/// The most packets, and the most announcements of connections, that one call of [`FlowRecorder::read`] takes from the kernel. The rest waits in
/// the socket.
const MAX_READ: usize = 4096;

/// What is recorded, and where.
#[derive(Clone)]
pub struct RecorderOptions {
    /// The node.
    pub node: Name,
    /// The nflog group of denied packets ([`palisade_nft::EnforcerOptions::log_group`]).
    pub group: u16,
    /// Whether connections that pass are recorded when they begin. The kernel must announce them.
    pub connections: bool,
    /// Puts reasons into words.
    pub wording: Wording,
}

/// Makes records of what the rules of one node deny, and of connections that pass.
pub struct FlowRecorder {
    denied: DropEventReader,
    drops: DropLog,
    connections: Option<(ConnectionEvents, ConnectionLog)>,
    store: Arc<FlowStore>,
    metrics: Arc<Metrics>,
    generation: u64,
    tally: Tally,
    unlogged: UnloggedPackets,
}

impl FlowRecorder {
    /// Begins to read in the network namespace of the calling thread.
    ///
    /// # Errors
    /// If the kernel refuses a socket, or another program reads the nflog group.
    pub fn open(options: RecorderOptions) -> Result<Self, Error> {
        let RecorderOptions { node, group, connections, wording } = options;
        let metrics = Arc::new(Metrics::new(env!("CARGO_PKG_VERSION"), &node));
        let store = Arc::new(FlowStore::new(CAPACITY, None, Arc::clone(&metrics)));
        let log = |wording| {
            let seen = Arc::new(SeenConnections::default());
            ConnectionLog::new(node.clone(), seen, Arc::clone(&store), wording, true)
        };
        let connections = match connections {
            true => Some((ConnectionEvents::open(Events::New)?, log(Arc::clone(&wording)))),
            false => None,
        };
        Ok(Self {
            denied: DropEventReader::open(group)?,
            drops: DropLog::new(node, Arc::clone(&store), wording, Instant::now()),
            connections,
            store,
            metrics,
            generation: 0,
            tally: Tally::default(),
            unlogged: UnloggedPackets::default(),
        })
    }

    /// Applies a snapshot of the whole cluster to the agent.
    pub fn snapshot<D: DataPlane>(&mut self, agent: &mut NodeAgent<D>, cluster: Cluster) -> Report {
        let report = agent.snapshot(cluster);
        self.logs().forget_all(&agent.plan().local);
        self.follow(&report);
        report
    }

    /// Applies changes to the agent. What was denied or passed before has the reasons of its time.
    ///
    /// # Errors
    /// If the kernel can't be read. The changes are not applied then.
    pub fn apply<D: DataPlane>(
        &mut self,
        agent: &mut NodeAgent<D>,
        changes: Vec<Change>,
    ) -> Result<Report, Error> {
        self.read(agent)?;
        self.logs().forget_policies(&changes);
        let addresses = changed_addresses(&changes, agent.reconciler().cluster());
        self.logs().forget_ends(&addresses);
        let report = agent.apply(changes);
        if let Some((_, log)) = &self.connections {
            log.seen().follow(&addresses, &agent.plan().local);
        }
        self.follow(&report);
        Ok(report)
    }

    /// Reads what the kernel has logged and announced, and makes records of it within the limits of the daemon. To be called often, also if
    /// nothing changes: equal packets within a second have one record, at the end of it.
    ///
    /// # Errors
    /// If the kernel can't be read.
    pub fn read<D: DataPlane>(&mut self, agent: &NodeAgent<D>) -> Result<(), Error> {
        let world = (agent.reconciler(), self.generation);
        let mut packets = Vec::new();
        while packets.len() < MAX_READ {
            match self.denied.read()? {
                Some(DropEvent::Dropped(packet)) => packets.push((&packet).into()),
                // The kernel's counters include them.
                Some(DropEvent::Unreadable(_) | DropEvent::Lost(_)) => {}
                None => break,
            }
        }
        let now = Instant::now();
        self.drops.record(packets, 0, world, &self.metrics, now);
        self.drops.tick(now);
        let Some((events, log)) = &mut self.connections else { return Ok(()) };
        for _ in 0..MAX_READ {
            match events.read()? {
                Some(ConnectionEvent::New(entry)) => {
                    if log.seen().add(Connection::of(&entry, false), Sum::of_new()) {
                        log.note();
                    }
                }
                Some(ConnectionEvent::Lost) => {
                    log.seen().add_overrun();
                    log.note();
                }
                Some(ConnectionEvent::Ended(..)) => {}
                None => break,
            }
        }
        log.tick(world, now);
        Ok(())
    }

    /// Counts denied packets that the kernel has not logged, which are known by the second call: those that were counted by the first may
    /// be on their way. `O(1)`.
    pub fn count_losses(&mut self, agent: &mut NodeAgent<NftDataPlane>) {
        let Some(counts) = agent.data_plane().count_drops(&mut self.tally) else { return };
        let Self { drops, unlogged, store, .. } = self;
        for (_, _, more) in unlogged.add(counts, |direction, audited| drops.received(direction, audited)) {
            store.lose(more);
        }
    }

    /// Takes the records that were made, oldest first.
    pub fn take(&mut self) -> Vec<Record> {
        self.store.drain()
    }

    /// Returns how much has no record.
    #[must_use]
    pub fn losses(&self) -> Losses {
        self.store.losses()
    }

    fn logs(&mut self) -> FlowLogs<'_> {
        FlowLogs { drops: &mut self.drops, connections: self.connections.as_mut().map(|(_, log)| log) }
    }

    /// Takes over the generation of the kernel's table.
    fn follow(&mut self, report: &Report) {
        if let Some(commit) = report.commits.last() {
            self.generation = commit.generation;
        }
    }
}

impl std::fmt::Debug for FlowRecorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { generation, .. } = self;
        f.debug_struct("FlowRecorder").field("generation", generation).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for RecorderOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { node, group, connections, .. } = self;
        let mut out = f.debug_struct("RecorderOptions");
        out.field("node", node).field("group", group).field("connections", connections);
        out.finish_non_exhaustive()
    }
}
