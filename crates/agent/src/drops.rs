//! Packets that policies denied: counted, recorded as flows, and logged at intervals with the policy at fault.

mod explained;
mod pairs;
mod unlogged;

use std::{
    collections::{HashMap, HashSet},
    mem,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use palisade_flow::Record;
use palisade_nft::drops::DroppedPacket;
use palisade_policy::{Direction, Name, Protocol, Side};
use prometheus_client::metrics::{counter::Counter, family::Family};

use crate::{
    Reconciler,
    flows::FlowStore,
    metrics::{DropLabels, Metrics, WorkloadLabels},
};
use pairs::Pairs;

pub(crate) use unlogged::UnloggedPackets;

/// Puts the reason for a side's verdict into words, as lines.
pub type Wording = Arc<dyn Fn(&Side, Direction) -> Vec<String> + Send + Sync>;

/// A packet that a policy denied, or would deny if none were in audit mode, as the kernel logs it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DeniedPacket {
    /// The direction in which it was denied.
    pub direction: Direction,
    /// Whether it passed, because only policies in audit mode would deny it.
    pub audited: bool,
    /// The sender.
    pub source: IpAddr,
    /// The receiver, after destination NAT.
    pub destination: IpAddr,
    /// The protocol.
    pub protocol: Protocol,
    /// The destination port; 0 for protocols without ports.
    pub port: u16,
}

impl From<&DroppedPacket> for DeniedPacket {
    fn from(packet: &DroppedPacket) -> Self {
        Self {
            direction: packet.direction,
            audited: packet.audited,
            source: packet.headers.source,
            destination: packet.headers.destination,
            protocol: packet.headers.protocol,
            port: packet.port().unwrap_or(0),
        }
    }
}

impl DeniedPacket {
    /// Whether it is multicast, broadcast or link-local traffic, which is dropped regardless of policies. The broadcast address
    /// of a subnet can't be distinguished from other addresses.
    fn is_link_traffic(&self) -> bool {
        let link_local = |a: IpAddr| matches!(a, IpAddr::V6(a) if a.is_unicast_link_local());
        self.destination.is_multicast()
            || self.destination == Ipv4Addr::BROADCAST
            || link_local(self.destination)
            || link_local(self.source)
    }
}

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

/// What denied a flow, and when it was logged.
#[derive(Debug)]
struct KnownFlow {
    labels: DropLabels,
    /// The workloads of its ends.
    pair: WorkloadLabels,
    logged: Instant,
    /// Packets since it was last logged.
    packets: u64,
    /// What its records have in common.
    record: Record,
    bytes: usize,
    recorded: Instant,
    /// Packets since the last record, and when the last of them was seen.
    unrecorded: u64,
    seen: Timestamp,
}

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

/// About the bytes of a record, as text.
fn bytes(record: &Record) -> usize {
    serde_json::to_vec(record).map_or(0, |text| text.len())
}

impl KnownFlow {
    /// Records the packets since the last record.
    fn add_record(&mut self, records: &FlowStore) {
        let count = mem::take(&mut self.unrecorded);
        if count > 0 {
            records.add(Record { time: self.seen, count, ..self.record.clone() });
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use palisade_policy::PolicyKey;

    use super::*;
    use crate::flows::FlowRequest;

    fn drop_log(now: Instant) -> (DropLog, Arc<FlowStore>) {
        let records = Arc::new(FlowStore::new(1 << 20, None, Arc::new(Metrics::new("1", "n1"))));
        (DropLog::new("n1".into(), Arc::clone(&records), Arc::new(explained::no_words), now), records)
    }

    /// Source, destination and packets of each record.
    async fn recorded(records: &FlowStore) -> Vec<(String, String, u64)> {
        let page = records.page(&FlowRequest::default()).await.unwrap();
        page.records.iter().map(|r| (r.source.to_string(), r.destination.to_string(), r.count)).collect()
    }

    pub(crate) fn denied_packet() -> DeniedPacket {
        DeniedPacket {
            direction: Direction::Ingress,
            audited: false,
            source: [10, 0, 0, 2].into(),
            destination: [10, 0, 0, 1].into(),
            protocol: Protocol::Tcp,
            port: 80,
        }
    }

    #[test]
    fn a_record_has_the_names_for_which_its_address_was_learned() {
        let mut reconciler = reconciler();
        let address: IpAddr = [203, 0, 113, 7].into();
        let names = (0..20)
            .map(|number| palisade_policy::DomainName::new(&format!("n{number}.example.com")).unwrap());
        let learned = names.map(|name| {
            palisade_policy::Change::SetLearned(palisade_policy::LearnedName {
                name,
                addresses: [address].into_iter().collect(),
            })
        });
        reconciler.handle(crate::Input::Changes(learned.collect()), Duration::ZERO);
        let packet = DeniedPacket { direction: Direction::Egress, destination: address, ..denied_packet() };
        let wording: Wording = Arc::new(explained::no_words);
        let record = explained::explain(&packet, &reconciler, 1, &wording).record;
        assert_eq!(record.destination.names.len(), 8, "the first ones: {:?}", record.destination.names);
        assert_eq!(record.destination.to_string(), "n0.example.com (203.0.113.7)");
        assert!(record.source.names.is_empty());
    }

    pub(crate) fn reconciler() -> Reconciler {
        let pod = |name: &str, address: [u8; 4]| {
            palisade_policy::Change::SetPod(palisade_policy::Pod {
                node: Some("n1".into()),
                ..palisade_policy::Pod::new(
                    palisade_policy::ObjectKey::new("shop", name),
                    palisade_policy::Labels::default(),
                    vec![address.into()],
                )
            })
        };
        let policy = palisade_policy::Policy {
            key: PolicyKey::network_policy("shop", "closed"),
            tier: palisade_policy::Tier::Developer,
            priority: 0,
            mode: None,
            subject: palisade_policy::PodMatch {
                namespaces: palisade_policy::NamespaceMatch::Named("shop".into()),
                pods: palisade_policy::Selector::everything(),
            },
            ingress: Some(Vec::new()),
            egress: None,
            origin: None,
        };
        let mut reconciler = Reconciler::new("n1".into());
        let changes = vec![
            pod("db", [10, 0, 0, 1]),
            pod("web", [10, 0, 0, 2]),
            palisade_policy::Change::SetPolicy(policy.into()),
        ];
        reconciler.handle(crate::Input::Changes(changes), Duration::ZERO);
        reconciler
    }

    fn count(metrics: &Metrics, labels: &DropLabels) -> u64 {
        metrics.drops.get(labels).map_or(0, |c| c.get())
    }

    /// The kernel decides it by one row, which logs it as egress.
    #[test]
    fn what_a_pod_sends_to_itself_through_a_service_is_denied_by_the_direction_that_denies_it() {
        let rule = palisade_policy::Rule {
            name: None,
            action: palisade_policy::Action::Deny,
            peers: None,
            ports: None,
            origin: None,
        };
        let key = PolicyKey { kind: "ClusterNetworkPolicy".into(), namespace: "".into(), name: "no".into() };
        let all = palisade_policy::Selector::everything;
        let policy = palisade_policy::Policy {
            key: key.clone(),
            tier: palisade_policy::Tier::Admin,
            priority: 0,
            mode: None,
            subject: palisade_policy::PodMatch {
                namespaces: palisade_policy::NamespaceMatch::Selected(all()),
                pods: all(),
            },
            ingress: Some(vec![rule]),
            egress: None,
            origin: None,
        };
        let mut reconciler = reconciler();
        let shop = palisade_policy::Namespace::new("shop", &palisade_policy::Labels::default());
        let changes = vec![
            palisade_policy::Change::SetNamespace(shop),
            palisade_policy::Change::SetPolicy(policy.into()),
        ];
        reconciler.handle(crate::Input::Changes(changes), Duration::ZERO);
        let itself = denied_packet().destination;
        let packet = DeniedPacket { direction: Direction::Egress, source: itself, ..denied_packet() };
        let wording: Wording = Arc::new(explained::no_words);
        let found = explained::explain(&packet, &reconciler, 1, &wording);
        assert_eq!(found.record.direction, palisade_flow::Direction::Ingress);
        assert_eq!(found.labels, DropLabels::of(Direction::Ingress, &key));
        let rule = found.record.rule.unwrap();
        assert_eq!((&*rule.policy.name, &*rule.field, rule.decided), ("no", "ingress[0]", true));
    }

    #[test]
    fn a_drop_counts_for_the_policy_that_isolates_and_a_packet_allowed_now_for_none() {
        let (reconciler, metrics, mut drops) =
            (reconciler(), Metrics::new("1", "n"), drop_log(Instant::now()).0);
        let egress = DeniedPacket { direction: Direction::Egress, ..denied_packet() };
        drops.record(
            vec![denied_packet(), denied_packet(), egress],
            4,
            (&reconciler, 1),
            &metrics,
            Instant::now(),
        );
        let closed = DropLabels::of(Direction::Ingress, &PolicyKey::network_policy("shop", "closed"));
        assert_eq!(count(&metrics, &closed), 2);
        assert_eq!(
            count(&metrics, &DropLabels::unknown(Direction::Egress)),
            1,
            "no policy denies it any longer"
        );
        assert_eq!(count(&metrics, &DropLabels::unknown(Direction::Ingress)), 4, "received as a number only");
        let received = |direction| drops.received(direction, false);
        assert_eq!((received(Direction::Ingress), received(Direction::Egress)), (6, 1));
    }

    #[test]
    fn link_traffic_counts_for_no_policy() {
        let (reconciler, metrics, mut drops) =
            (reconciler(), Metrics::new("1", "n"), drop_log(Instant::now()).0);
        let link_traffic = [
            ("fe80::1", "fe80::2"),
            ("fe80::1", "ff02::1"),
            ("10.0.0.2", "224.0.0.1"),
            ("0.0.0.0", "255.255.255.255"),
        ];
        let packet = |source: &str, destination: &str| DeniedPacket {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            ..denied_packet()
        };
        let packets: Vec<DeniedPacket> = link_traffic.iter().map(|(from, to)| packet(from, to)).collect();
        assert!(packets.iter().all(DeniedPacket::is_link_traffic));
        // This may be the broadcast address of a subnet.
        let subnet = packet("10.0.0.2", "10.0.0.255");
        assert!(!subnet.is_link_traffic());
        drops.record([packets, vec![subnet]].concat(), 0, (&reconciler, 1), &metrics, Instant::now());
        assert_eq!(count(&metrics, &DropLabels::unknown(Direction::Ingress)), 5);
    }

    #[test]
    fn a_flow_is_logged_at_intervals_with_its_packets() {
        let (reconciler, metrics, begin) = (reconciler(), Metrics::new("1", "n"), Instant::now());
        let (mut drops, _) = drop_log(begin);
        let mut lines_at = |seconds: u64| {
            let now = begin + Duration::from_secs(seconds);
            drops.record(vec![denied_packet()], 0, (&reconciler, 1), &metrics, now);
            (drops.lines, drops.flows[&denied_packet()].packets)
        };
        assert_eq!(lines_at(0), (1, 0));
        assert_eq!([lines_at(30), lines_at(59)], [(0, 1), (0, 2)], "in other periods, without a line");
        assert_eq!(lines_at(60), (1, 0));
    }

    #[test]
    fn a_port_scan_has_a_bounded_number_of_explanations_lines_and_flows() {
        let (reconciler, metrics, mut drops) =
            (reconciler(), Metrics::new("1", "n"), drop_log(Instant::now()).0);
        let scan: Vec<DeniedPacket> =
            (0..20_000).map(|port| DeniedPacket { port, ..denied_packet() }).collect();
        drops.record(scan, 0, (&reconciler, 1), &metrics, Instant::now());
        assert!(
            drops.lines <= MAX_LINES && drops.explained <= MAX_EXPLAINED && drops.flows.len() <= MAX_FLOWS
        );
        let closed = DropLabels::of(Direction::Ingress, &PolicyKey::network_policy("shop", "closed"));
        let all = count(&metrics, &closed) + count(&metrics, &DropLabels::unknown(Direction::Ingress));
        assert_eq!(all, 20_000, "every packet counts");
    }

    #[tokio::test]
    async fn a_flow_has_a_record_at_once_and_one_each_second_with_its_packets() {
        let (reconciler, metrics, begin) = (reconciler(), Metrics::new("1", "n"), Instant::now());
        let (mut drops, records) = drop_log(begin);
        let at = |milliseconds: u64| begin + Duration::from_millis(milliseconds);
        let record = |drops: &mut DropLog, packets: usize, now| {
            drops.record(vec![denied_packet(); packets], 0, (&reconciler, 9), &metrics, now);
            drops.tick(now);
        };
        let one = |count| ("shop/web".to_owned(), "shop/db".to_owned(), count);
        record(&mut drops, 1, at(0));
        assert_eq!(recorded(&records).await, [one(1)], "at once");
        record(&mut drops, 3, at(500));
        assert_eq!(recorded(&records).await, [one(1)]);
        drops.tick(at(1_000));
        assert_eq!(recorded(&records).await, [one(1), one(3)]);
        record(&mut drops, 2, at(1_200));
        drops.forget_policies();
        assert_eq!(recorded(&records).await, [one(1), one(3), one(2)], "with the policies of their time");
        let page = records.page(&FlowRequest::default()).await.unwrap();
        let found = &page.records[0];
        assert_eq!((found.generation, &*found.node, &*found.reason[0]), (9, "n1", "a reason"));
        assert_eq!(found.policies[0].to_string(), "shop/closed");
        assert_eq!(found.port, Some(80));
    }

    #[tokio::test]
    async fn what_gets_no_record_is_counted() {
        let (reconciler, metrics, now) = (reconciler(), Metrics::new("1", "n"), Instant::now());
        let (mut drops, records) = drop_log(now);
        let scan = (0..1_000).map(|port| DeniedPacket { port, ..denied_packet() }).collect();
        drops.record(scan, 50, (&reconciler, 1), &metrics, now);
        let page = records.page(&FlowRequest::default()).await.unwrap();
        let packets: u64 = page.records.iter().map(|record| record.count).sum();
        assert_eq!(packets + page.unrecorded, 1_050);
        assert_eq!(packets, u64::from(MAX_EXPLAINED_OF_SENDER));
    }

    #[tokio::test]
    async fn a_scan_by_one_pod_does_not_hide_the_flows_of_others() {
        let (reconciler, metrics, now) = (reconciler(), Metrics::new("1", "n"), Instant::now());
        let (mut drops, records) = drop_log(now);
        let mut packets: Vec<DeniedPacket> =
            (1..=1_000).map(|port| DeniedPacket { port, ..denied_packet() }).collect();
        packets.push(DeniedPacket { source: [192, 0, 2, 1].into(), ..denied_packet() });
        drops.record(packets, 0, (&reconciler, 1), &metrics, now);
        assert_eq!(recorded(&records).await.last().unwrap().0, "192.0.2.1");
        assert!(drops.explained <= MAX_EXPLAINED && drops.explained_of.len() == 2);
    }

    #[tokio::test]
    async fn an_address_that_has_another_pod_now_is_looked_up_again() {
        let (mut reconciler, metrics, now) = (reconciler(), Metrics::new("1", "n"), Instant::now());
        let (mut drops, records) = drop_log(now);
        drops.record(vec![denied_packet(), denied_packet()], 0, (&reconciler, 1), &metrics, now);
        drops.forget_ends(&HashSet::from([[10, 0, 0, 9].into()]));
        assert_eq!(drops.flows.len(), 1, "another address");
        drops.forget_ends(&HashSet::from([denied_packet().source]));
        assert_eq!((drops.flows.len(), drops.flow_bytes), (0, 0));
        let gone = palisade_policy::Change::RemovePod(palisade_policy::ObjectKey::new("shop", "web"));
        reconciler.handle(crate::Input::Changes(vec![gone]), Duration::ZERO);
        drops.record(vec![denied_packet()], 0, (&reconciler, 2), &metrics, now);
        let sources: Vec<String> = recorded(&records).await.into_iter().map(|(source, ..)| source).collect();
        assert_eq!(sources, ["shop/web", "shop/web", "10.0.0.2"]);
    }

    #[tokio::test]
    async fn what_no_policy_denies_now_and_link_traffic_have_reasons_of_their_own() {
        let (reconciler, metrics, now) = (reconciler(), Metrics::new("1", "n"), Instant::now());
        let (mut drops, records) = drop_log(now);
        let egress = DeniedPacket { direction: Direction::Egress, ..denied_packet() };
        let multicast = DeniedPacket { destination: [224, 0, 0, 1].into(), ..egress.clone() };
        drops.record(vec![egress, multicast], 0, (&reconciler, 1), &metrics, now);
        let page = records.page(&FlowRequest::default()).await.unwrap();
        let reasons: Vec<&str> = page.records.iter().map(|record| &*record.reason[0]).collect();
        assert!(reasons[0].contains("any longer") && reasons[1].contains("multicast"), "{reasons:?}");
        assert!(page.records.iter().all(|record| record.policies.is_empty()));
    }
}
