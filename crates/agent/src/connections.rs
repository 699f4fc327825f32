//! New and ended connections of the node's pods as records.
//!
//! ```text
//!   kernel ─► thread palisade-connections ─► SeenConnections ─► ConnectionLog (worker) ─► FlowStore
//!             all connections of the node     sums, bounded      reasons, bounded          half of the buffer
//! ```
//!
//! The worker also programs policies, so what it does here is bounded by number and by time.

mod explained;
mod seen;
mod services;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    mem,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use palisade_flow::{Ended, Record};
use palisade_policy::Name;

pub(crate) use self::seen::{Connection, SeenConnections, Sum};
use self::{
    explained::Known,
    seen::{MAX_WAITING, MAX_WAITING_OF_SENDER, Taken},
    services::Services,
};
use crate::{Reconciler, drops::Wording, flows::FlowStore};

/// The most connections whose reason is remembered, and the most bytes of their records.
const MAX_EXPLAINED: usize = 4096;
const MAX_EXPLAINED_BYTES: usize = 8 << 20;
/// How often connections are looked at.
const TICK_INTERVAL: Duration = Duration::from_millis(100);
/// How often equal connections get a record.
const RECORD_INTERVAL: Duration = Duration::from_secs(1);
/// The most records in each [`TICK_INTERVAL`]. Beyond, connections wait, and are added up.
const MAX_RECORDS: u32 = 50;
/// The most time that records take in each [`TICK_INTERVAL`]: changes of policies wait meanwhile.
const MAX_TIME: Duration = Duration::from_millis(5);

/// Makes records of connections.
pub(crate) struct ConnectionLog {
    node: Name,
    seen: Arc<SeenConnections>,
    records: Arc<FlowStore>,
    wording: Wording,
    audited_are_recorded: bool,
    ticked: Instant,
    /// Whether connections have come that were not taken.
    has_new: bool,
    /// Connections that have no record yet, in the order in which they get one.
    queue: VecDeque<Connection>,
    waiting: HashMap<Connection, Waiting>,
    waiting_of: HashMap<IpAddr, u32>,
    explained: HashMap<Connection, Explained>,
    explained_bytes: usize,
    /// Grows when policies change.
    epoch: u64,
    /// Grows when addresses or node ports are those of other Services.
    services_epoch: u64,
    services: Services,
}

/// Equal connections without a record.
#[derive(Debug)]
struct Waiting {
    sum: Sum,
    /// The policies of its time.
    epoch: u64,
    sender: IpAddr,
}

/// What the records of equal connections have in common.
#[derive(Debug)]
struct Explained {
    /// `None` if they need none.
    record: Option<Arc<Record>>,
    bytes: usize,
    epoch: u64,
    services_epoch: u64,
    recorded: Instant,
}

impl Explained {
    /// Names the Service that has the address now. `O(1)`.
    fn name_service(&mut self, connection: &Connection, reconciler: &Reconciler, services: &Services) {
        let (Some(record), Some(opened_to)) = (&mut self.record, connection.opened_to) else { return };
        let named = explained::opened_to(opened_to, connection, reconciler, services);
        if record.opened_to.as_ref() != Some(&named) {
            Arc::make_mut(record).opened_to = Some(named);
        }
    }
}

impl ConnectionLog {
    pub(crate) fn new(
        node: Name,
        seen: Arc<SeenConnections>,
        records: Arc<FlowStore>,
        wording: Wording,
        audited_are_recorded: bool,
    ) -> Self {
        Self {
            node,
            seen,
            records,
            wording,
            audited_are_recorded,
            ticked: Instant::now(),
            has_new: false,
            queue: VecDeque::new(),
            waiting: HashMap::new(),
            waiting_of: HashMap::new(),
            explained: HashMap::new(),
            explained_bytes: 0,
            epoch: 0,
            services_epoch: 0,
            services: Services::default(),
        }
    }

    /// What the thread shares.
    pub(crate) fn seen(&self) -> &Arc<SeenConnections> {
        &self.seen
    }

    /// Connections have come.
    pub(crate) fn note(&mut self) {
        self.has_new = true;
    }

    /// When [`ConnectionLog::tick`] has something to do. `None` if it has not.
    pub(crate) fn due(&self) -> Option<Instant> {
        (self.has_new || !self.queue.is_empty()).then(|| self.ticked + TICK_INTERVAL)
    }

    /// Forgets why connections passed, because policies changed. Those that wait get records with the policies of their time, as far as
    /// these were looked up. `O(1)`.
    pub(crate) fn forget_policies(&mut self) {
        self.epoch += 1;
    }

    /// Services changed. `O(1)`.
    pub(crate) fn forget_services(&mut self) {
        self.services.invalidate();
    }

    /// Forgets connections from and to addresses, because their pods changed.
    pub(crate) fn forget_ends(&mut self, addresses: &HashSet<IpAddr>) {
        if addresses.is_empty() || self.explained.is_empty() {
            return;
        }
        let is_of = |c: &Connection| addresses.contains(&c.source) || addresses.contains(&c.destination);
        let (records, node, waiting) = (&self.records, &self.node, &mut self.waiting);
        self.explained.retain(|connection, known| {
            let goes = is_of(connection);
            if goes {
                self.explained_bytes -= known.bytes;
                // The pods of its time are known now only.
                if let Some(waiting) = waiting.get_mut(connection) {
                    add_record(
                        records,
                        node,
                        known.record.as_deref(),
                        connection,
                        mem::take(&mut waiting.sum),
                    );
                }
            }
            !goes
        });
    }

    /// Makes records of what has come, within the limits. May be called at any time.
    pub(crate) fn tick(&mut self, (reconciler, generation): (&Reconciler, u64), now: Instant) {
        if now.saturating_duration_since(self.ticked) < TICK_INTERVAL || self.due().is_none() {
            return;
        }
        self.ticked = now;
        self.has_new = false;
        if self.services.refresh(reconciler.cluster(), now) {
            self.services_epoch += 1;
        }
        self.take();
        let (begin, mut made) = (Instant::now(), 0);
        for _ in 0..self.queue.len() {
            if made >= MAX_RECORDS || begin.elapsed() >= MAX_TIME {
                break;
            }
            let Some(connection) = self.queue.pop_front() else { break };
            if self.is_early(&connection, now) {
                self.queue.push_back(connection);
                continue;
            }
            made += 1;
            self.record(&connection, (reconciler, generation), now);
        }
    }

    /// Takes what the thread has added up.
    fn take(&mut self) {
        let Taken { connections, lost, overruns } = self.seen.take();
        let mut lost = lost;
        for (connection, sum) in connections {
            if let Some(waiting) = self.waiting.get_mut(&connection) {
                waiting.sum.add(sum);
                continue;
            }
            // As the thread shares the places.
            let sender = self.seen.sender(&connection);
            let of_sender = self.waiting_of.entry(sender).or_default();
            if self.waiting.len() >= MAX_WAITING || *of_sender >= MAX_WAITING_OF_SENDER {
                lost += sum.connections;
                continue;
            }
            *of_sender += 1;
            self.queue.push_back(connection.clone());
            self.waiting.insert(connection, Waiting { sum, epoch: self.epoch, sender });
        }
        self.records.lose_connections(lost);
        self.records.lose_announcements(overruns);
    }

    /// Whether equal connections have had a record a moment ago.
    fn is_early(&self, connection: &Connection, now: Instant) -> bool {
        self.explained.get(connection).is_some_and(|known| {
            known.record.is_some() && now.saturating_duration_since(known.recorded) < RECORD_INTERVAL
        })
    }

    /// Makes the record of connections that wait.
    fn record(&mut self, connection: &Connection, world: (&Reconciler, u64), now: Instant) {
        let Some(Waiting { sum, epoch, sender }) = self.waiting.remove(connection) else { return };
        if let Some(of_sender) = self.waiting_of.get_mut(&sender) {
            *of_sender -= 1;
            if *of_sender == 0 {
                self.waiting_of.remove(&sender);
            }
        }
        let is_known =
            self.explained.get(connection).is_some_and(|k| k.epoch == self.epoch || k.epoch == epoch);
        if !is_known {
            self.explain(connection, world, now);
        }
        if let Some(known) = self.explained.get_mut(connection) {
            known.recorded = now;
            if known.services_epoch != self.services_epoch {
                known.services_epoch = self.services_epoch;
                known.name_service(connection, world.0, &self.services);
            }
            add_record(&self.records, &self.node, known.record.as_deref(), connection, sum);
        }
    }

    fn explain(
        &mut self,
        connection: &Connection,
        (reconciler, generation): (&Reconciler, u64),
        now: Instant,
    ) {
        let known = Known {
            reconciler,
            services: &self.services,
            generation,
            wording: &self.wording,
            audited_are_recorded: self.audited_are_recorded,
        };
        let record = explained::explain(connection, &known);
        let bytes = record.as_ref().map_or(0, |r| serde_json::to_vec(r).map_or(0, |text| text.len()));
        if let Some(before) = self.explained.remove(connection) {
            self.explained_bytes -= before.bytes;
        }
        if self.explained.len() >= MAX_EXPLAINED || self.explained_bytes + bytes > MAX_EXPLAINED_BYTES {
            self.explained.clear();
            self.explained_bytes = 0;
        }
        self.explained_bytes += bytes;
        let known = Explained {
            record: record.map(Arc::new),
            bytes,
            epoch: self.epoch,
            services_epoch: self.services_epoch,
            recorded: now,
        };
        self.explained.insert(connection.clone(), known);
    }
}

/// Adds the record of connections, if they need one.
fn add_record(records: &FlowStore, node: &Name, record: Option<&Record>, connection: &Connection, sum: Sum) {
    let Some(record) = record.filter(|_| sum.connections > 0) else { return };
    let ended = connection.has_ended.then(|| Ended {
        packets: sum.packets,
        bytes: sum.bytes,
        milliseconds: sum.longest.map(|time| time.as_millis() as u64),
    });
    let node = node.to_string();
    records.add(Record { time: sum.time, node, count: sum.connections, ended, ..record.clone() });
}

#[cfg(test)]
mod tests;
