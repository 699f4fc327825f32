//! Packets that policies denied: counted, recorded as flows, and logged at intervals with the policy at fault.

mod explained;
mod known_flow;
mod packet;
mod pairs;
mod unlogged;

use std::{
    collections::{HashMap, HashSet},
    mem,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use palisade_flow::Record;
use palisade_policy::{Direction, Name, Side};
use prometheus_client::metrics::{counter::Counter, family::Family};

use crate::{
    Reconciler,
    flows::FlowStore,
    metrics::{DropLabels, Metrics},
};
use known_flow::{KnownFlow, bytes};
pub use packet::DeniedPacket;
use pairs::Pairs;

pub(crate) use unlogged::UnloggedPackets;

/// Puts the reason for a side's verdict into words, as lines.
pub type Wording = Arc<dyn Fn(&Side, Direction) -> Vec<String> + Send + Sync>;

/// The most flows that are remembered with their policy. A port scan creates one for each port.
const MAX_FLOWS: usize = 4096;
/// The most bytes of their records: labels and reasons can be long.
const MAX_FLOW_BYTES: usize = 8 << 20;
/// The most label sets of `palisade_drops_total`.
const MAX_LABELS: usize = 1000;
/// How often a flow that is denied all the time is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// The most lines that are logged in one [`PERIOD`].
const MAX_LINES: u32 = 20;
/// The most flows that are explained in one [`PERIOD`]: the reference evaluates every policy for each.
const MAX_EXPLAINED: u32 = 200;
/// The most of them with one sender, so that a scan by one pod doesn't hide the flows of others.
const MAX_EXPLAINED_OF_SENDER: u32 = MAX_EXPLAINED / 4;
const PERIOD: Duration = Duration::from_secs(1);
/// How often a flow that is denied all the time gets a record.
const RECORD_INTERVAL: Duration = Duration::from_secs(1);
/// How often flows are looked at whose packets have no record yet.
const TICK_INTERVAL: Duration = Duration::from_millis(100);

/// Counts, records and logs denied packets.
pub(crate) struct DropLog {
    node: Name,
    records: Arc<FlowStore>,
    wording: Wording,
    /// Flows with packets that have no record yet.
    waiting: Vec<DeniedPacket>,
    /// When these were looked at.
    ticked: Instant,
    flows: HashMap<DeniedPacket, KnownFlow>,
    labels: HashSet<DropLabels>,
    pairs: Pairs,
    period: Instant,
    lines: u32,
    explained: u32,
    /// How many flows of each sender were explained.
    explained_of: HashMap<IpAddr, u32>,
    /// The bytes of the records of all known flows.
    flow_bytes: usize,
    /// Lines that were not logged in this period.
    suppressed: u64,
    /// Packets received from the kernel, by direction and by whether they passed.
    received: HashMap<(Direction, bool), u64>,
}

impl DropLog {
    pub(crate) fn new(node: Name, records: Arc<FlowStore>, wording: Wording, now: Instant) -> Self {
        Self {
            node,
            records,
            wording,
            waiting: Vec::new(),
            ticked: now,
            flows: HashMap::new(),
            labels: HashSet::new(),
            pairs: Pairs::default(),
            period: now,
            lines: 0,
            explained: 0,
            explained_of: HashMap::new(),
            flow_bytes: 0,
            suppressed: 0,
            received: HashMap::new(),
        }
    }

    /// Forgets what denied flows, because policies changed.
    pub(crate) fn forget_policies(&mut self) {
        self.record_waiting(None);
        self.flows.clear();
        self.flow_bytes = 0;
    }

    /// Forgets what denied flows from and to addresses, because their pods changed: an address may have another pod now.
    pub(crate) fn forget_ends(&mut self, addresses: &HashSet<IpAddr>) {
        if addresses.is_empty() || self.flows.is_empty() {
            return;
        }
        let (records, bytes) = (&self.records, &mut self.flow_bytes);
        self.flows.retain(|packet, flow| {
            let stays = !addresses.contains(&packet.source) && !addresses.contains(&packet.destination);
            if !stays {
                flow.add_record(records);
                *bytes -= flow.bytes;
            }
            stays
        });
    }

    /// Records packets of flows whose last record is [`RECORD_INTERVAL`] old. May be called at any time: it looks at the flows at
    /// intervals.
    pub(crate) fn tick(&mut self, now: Instant) {
        if now.saturating_duration_since(self.ticked) >= TICK_INTERVAL {
            self.ticked = now;
            self.record_waiting(Some(now));
        }
    }

    /// Records packets that wait: of all flows, or of those that are due.
    fn record_waiting(&mut self, now: Option<Instant>) {
        let waiting = mem::take(&mut self.waiting);
        for packet in waiting {
            let Some(flow) = self.flows.get_mut(&packet) else { continue };
            if now.is_some_and(|now| now.saturating_duration_since(flow.recorded) < RECORD_INTERVAL) {
                self.waiting.push(packet);
                continue;
            }
            flow.recorded = now.unwrap_or(flow.recorded);
            flow.add_record(&self.records);
        }
    }

    /// The number of packets received from the kernel.
    pub(crate) fn received(&self, direction: Direction, audited: bool) -> u64 {
        self.received.get(&(direction, audited)).copied().unwrap_or(0)
    }

    /// Counts and logs packets. `uncollected` is the number of further packets.
    pub(crate) fn record(
        &mut self,
        packets: Vec<DeniedPacket>,
        uncollected: u64,
        (reconciler, generation): (&Reconciler, u64),
        metrics: &Metrics,
        now: Instant,
    ) {
        self.start_period(now);
        self.records.lose(uncollected);
        if uncollected > 0 {
            // Their direction and verdict are unknown: they arrived together with the others.
            let kind = packets.first().map_or((Direction::Ingress, false), |p| (p.direction, p.audited));
            *self.received.entry(kind).or_default() += uncollected;
            metrics.count_unknown(kind.0, kind.1, uncollected);
        }
        for packet in packets {
            self.record_packet(packet, (reconciler, generation), metrics, now);
        }
    }

    fn start_period(&mut self, now: Instant) {
        if now.saturating_duration_since(self.period) >= PERIOD {
            if self.suppressed > 0 {
                tracing::warn!(lines = self.suppressed, "suppressed log lines about dropped packets");
            }
            (self.period, self.lines, self.explained, self.suppressed) = (now, 0, 0, 0);
            self.explained_of.clear();
        }
    }

    fn record_packet(
        &mut self,
        packet: DeniedPacket,
        (reconciler, generation): (&Reconciler, u64),
        metrics: &Metrics,
        now: Instant,
    ) {
        let counter = counter(metrics, packet.audited);
        *self.received.entry((packet.direction, packet.audited)).or_default() += 1;
        if let Some(flow) = self.flows.get_mut(&packet) {
            flow.packets += 1;
            flow.seen = Timestamp::now();
            flow.unrecorded += 1;
            if flow.unrecorded == 1 {
                self.waiting.push(packet.clone());
            }
            counter.get_or_create(&flow.labels).inc();
            self.pairs.count(packet.audited, &flow.pair, metrics, now);
            if now.saturating_duration_since(flow.logged) < LOG_INTERVAL {
                return;
            }
            let (labels, packets) = (flow.labels.clone(), mem::take(&mut flow.packets));
            flow.logged = now;
            return self.log(&packet, &labels, packets, reconciler);
        }
        let pair = pairs::labels(&packet, reconciler);
        self.pairs.count(packet.audited, &pair, metrics, now);
        // Addresses outside the cluster can be forged: they share what is left for the receiving pod.
        let sender = reconciler.owner(packet.source).map_or(packet.destination, |_| packet.source);
        if !self.may_explain(sender) {
            self.records.lose(1);
            counter.get_or_create(&DropLabels::unknown(packet.direction)).inc();
            return;
        }
        let found = explained::explain(&packet, reconciler, generation, &self.wording);
        let labels = self.limit(found.labels, packet.direction);
        counter.get_or_create(&labels).inc();
        self.log(&packet, &labels, 1, reconciler);
        let bytes = bytes(&found.record);
        if self.flows.len() >= MAX_FLOWS || self.flow_bytes + bytes > MAX_FLOW_BYTES {
            self.forget_policies();
        }
        let mut flow = KnownFlow {
            labels,
            pair,
            logged: now,
            packets: 0,
            record: Record { node: self.node.to_string(), ..found.record },
            bytes,
            recorded: now,
            unrecorded: 1,
            seen: Timestamp::now(),
        };
        flow.add_record(&self.records);
        self.flow_bytes += bytes;
        self.flows.insert(packet, flow);
    }

    /// Takes one of the explanations of this period, if there is one left for this sender.
    fn may_explain(&mut self, sender: IpAddr) -> bool {
        if self.explained >= MAX_EXPLAINED {
            return false;
        }
        let of_sender = self.explained_of.entry(sender).or_default();
        let may = *of_sender < MAX_EXPLAINED_OF_SENDER;
        if may {
            *of_sender += 1;
            self.explained += 1;
        }
        may
    }

    /// Returns the labels, or those of an unknown policy if there are too many.
    fn limit(&mut self, labels: DropLabels, direction: Direction) -> DropLabels {
        if self.labels.contains(&labels) {
            labels
        } else if self.labels.len() < MAX_LABELS {
            self.labels.insert(labels.clone());
            labels
        } else {
            DropLabels::unknown(direction)
        }
    }

    fn log(&mut self, packet: &DeniedPacket, labels: &DropLabels, packets: u64, reconciler: &Reconciler) {
        if self.lines >= MAX_LINES {
            self.suppressed += 1;
            return;
        }
        self.lines += 1;
        let policy = match (&*labels.kind, &*labels.namespace) {
            ("", _) if packet.is_link_traffic() => "none: multicast, broadcast or link-local".to_owned(),
            ("", _) => "unknown".to_owned(),
            (kind, "") => format!("{kind} {}", labels.policy),
            (kind, namespace) => format!("{kind} {namespace}/{}", labels.policy),
        };
        let (source, destination) =
            (reconciler.endpoint(packet.source), reconciler.endpoint(packet.destination));
        let (direction, protocol, port) = (labels.direction, packet.protocol, packet.port);
        if packet.audited {
            tracing::info!(direction, %source, %destination, %protocol, port, policy, packets, "audited packets");
        } else {
            tracing::info!(direction, %source, %destination, %protocol, port, policy, packets, "dropped packets");
        }
    }
}

/// The counter of packets that were denied, or that passed because of audit mode.
fn counter(metrics: &Metrics, audited: bool) -> &Family<DropLabels, Counter> {
    if audited { &metrics.audited } else { &metrics.drops }
}

#[cfg(test)]
pub(crate) mod tests;
