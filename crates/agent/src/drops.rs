//! Packets that policies denied: counted, and logged at intervals with the policy at fault.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use palisade_policy::{Direction, Endpoint, Flow, PolicyKey, Protocol, Reason, Verdict, reference};

use crate::{
    Reconciler,
    metrics::{DropLabels, Metrics},
};

/// A packet that a policy denied, as the kernel logs it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DeniedPacket {
    /// The direction in which it was denied.
    pub direction: Direction,
    /// The sender.
    pub source: IpAddr,
    /// The receiver, after destination NAT.
    pub destination: IpAddr,
    /// The protocol.
    pub protocol: Protocol,
    /// The destination port; 0 for protocols without ports.
    pub port: u16,
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
/// The most label sets of `palisade_drops_total`.
const MAX_LABELS: usize = 1000;
/// How often a flow that is denied all the time is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// The most lines that are logged in one [`PERIOD`].
const MAX_LINES: u32 = 20;
/// The most flows that are explained in one [`PERIOD`]: the reference evaluates every policy for each.
const MAX_EXPLAINED: u32 = 200;
const PERIOD: Duration = Duration::from_secs(1);

/// What denied a flow, and when it was logged.
#[derive(Clone, Debug)]
struct KnownFlow {
    labels: DropLabels,
    logged: Instant,
    /// Packets since it was last logged.
    packets: u64,
}

/// Counts and logs denied packets.
#[derive(Debug)]
pub(crate) struct DropLog {
    flows: HashMap<DeniedPacket, KnownFlow>,
    labels: HashSet<DropLabels>,
    period: Instant,
    lines: u32,
    explained: u32,
    /// Lines that were not logged in this period.
    suppressed: u64,
    /// Packets received from the kernel, by direction.
    received: HashMap<Direction, u64>,
}

impl DropLog {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            flows: HashMap::new(),
            labels: HashSet::new(),
            period: now,
            lines: 0,
            explained: 0,
            suppressed: 0,
            received: HashMap::new(),
        }
    }

    /// Forgets what denied flows, because policies changed.
    pub(crate) fn forget_policies(&mut self) {
        self.flows.clear();
    }

    /// The number of packets received from the kernel.
    pub(crate) fn received(&self, direction: Direction) -> u64 {
        self.received.get(&direction).copied().unwrap_or(0)
    }

    /// Counts and logs packets. `uncollected` is the number of further packets.
    pub(crate) fn record(
        &mut self,
        packets: Vec<DeniedPacket>,
        uncollected: u64,
        reconciler: &Reconciler,
        metrics: &Metrics,
        now: Instant,
    ) {
        self.start_period(now);
        if uncollected > 0 {
            // Their direction is unknown: they arrived together with the others.
            let direction = packets.first().map_or(Direction::Ingress, |packet| packet.direction);
            *self.received.entry(direction).or_default() += uncollected;
            metrics.drops.get_or_create(&DropLabels::unknown(direction)).inc_by(uncollected);
        }
        for packet in packets {
            self.record_packet(packet, reconciler, metrics, now);
        }
    }

    fn start_period(&mut self, now: Instant) {
        if now.saturating_duration_since(self.period) >= PERIOD {
            if self.suppressed > 0 {
                tracing::warn!(lines = self.suppressed, "suppressed log lines about dropped packets");
            }
            (self.period, self.lines, self.explained, self.suppressed) = (now, 0, 0, 0);
        }
    }

    fn record_packet(
        &mut self,
        packet: DeniedPacket,
        reconciler: &Reconciler,
        metrics: &Metrics,
        now: Instant,
    ) {
        *self.received.entry(packet.direction).or_default() += 1;
        if let Some(flow) = self.flows.get_mut(&packet) {
            flow.packets += 1;
            metrics.drops.get_or_create(&flow.labels).inc();
            if now.saturating_duration_since(flow.logged) < LOG_INTERVAL {
                return;
            }
            let (labels, packets) = (flow.labels.clone(), std::mem::take(&mut flow.packets));
            flow.logged = now;
            return self.log(&packet, &labels, packets, reconciler);
        }
        if self.explained >= MAX_EXPLAINED {
            metrics.drops.get_or_create(&DropLabels::unknown(packet.direction)).inc();
            return;
        }
        self.explained += 1;
        let labels = self.limit(labels(&packet, reconciler), packet.direction);
        metrics.drops.get_or_create(&labels).inc();
        self.log(&packet, &labels, 1, reconciler);
        if self.flows.len() >= MAX_FLOWS {
            self.flows.clear();
        }
        self.flows.insert(packet, KnownFlow { labels, logged: now, packets: 0 });
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
        tracing::info!(
            direction = labels.direction,
            source = %reconciler.endpoint(packet.source),
            destination = %reconciler.endpoint(packet.destination),
            protocol = %packet.protocol,
            port = packet.port,
            policy,
            packets,
            "dropped packets"
        );
    }
}

/// Returns the policy at fault: that of the rule that denies, or the first policy that isolates the pod.
fn labels(packet: &DeniedPacket, reconciler: &Reconciler) -> DropLabels {
    let ends = (reconciler.endpoint(packet.source), reconciler.endpoint(packet.destination));
    // Only a packet that went through a service comes back to the pod that sent it.
    let through_service =
        matches!(&ends, (Endpoint::Pod { key: a, .. }, Endpoint::Pod { key: b, .. }) if a == b);
    let (source, destination) = ends;
    let flow = Flow { source, destination, protocol: packet.protocol, port: packet.port, through_service };
    let decision = reference::decide(reconciler.cluster(), &flow);
    let side = match packet.direction {
        Direction::Ingress => decision.ingress,
        Direction::Egress => decision.egress,
    };
    let policy: Option<PolicyKey> = match (side.verdict, side.reason) {
        // The policies changed after the packet was dropped.
        (Verdict::Allow, _) => None,
        (Verdict::Deny, Reason::Rule(rule)) => Some(rule.policy),
        (Verdict::Deny, Reason::Isolated { policies, .. }) => policies.into_iter().next().map(|(key, _)| key),
        (Verdict::Deny, _) => None,
    };
    policy.map_or_else(|| DropLabels::unknown(packet.direction), |key| DropLabels::of(packet.direction, &key))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn denied_packet() -> DeniedPacket {
        DeniedPacket {
            direction: Direction::Ingress,
            source: [10, 0, 0, 2].into(),
            destination: [10, 0, 0, 1].into(),
            protocol: Protocol::Tcp,
            port: 80,
        }
    }

    fn reconciler() -> Reconciler {
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

    #[test]
    fn a_drop_counts_for_the_policy_that_isolates_and_a_packet_allowed_now_for_none() {
        let (reconciler, metrics, mut drops) =
            (reconciler(), Metrics::new("1", "n"), DropLog::new(Instant::now()));
        let egress = DeniedPacket { direction: Direction::Egress, ..denied_packet() };
        drops.record(
            vec![denied_packet(), denied_packet(), egress],
            4,
            &reconciler,
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
        assert_eq!((drops.received(Direction::Ingress), drops.received(Direction::Egress)), (6, 1));
    }

    #[test]
    fn link_traffic_counts_for_no_policy() {
        let (reconciler, metrics, mut drops) =
            (reconciler(), Metrics::new("1", "n"), DropLog::new(Instant::now()));
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
        drops.record([packets, vec![subnet]].concat(), 0, &reconciler, &metrics, Instant::now());
        assert_eq!(count(&metrics, &DropLabels::unknown(Direction::Ingress)), 5);
    }

    #[test]
    fn a_flow_is_logged_at_intervals_with_its_packets() {
        let (reconciler, metrics, begin) = (reconciler(), Metrics::new("1", "n"), Instant::now());
        let mut drops = DropLog::new(begin);
        let mut lines_at = |seconds: u64| {
            let now = begin + Duration::from_secs(seconds);
            drops.record(vec![denied_packet()], 0, &reconciler, &metrics, now);
            (drops.lines, drops.flows[&denied_packet()].packets)
        };
        assert_eq!(lines_at(0), (1, 0));
        assert_eq!([lines_at(30), lines_at(59)], [(0, 1), (0, 2)], "in other periods, without a line");
        assert_eq!(lines_at(60), (1, 0));
    }

    #[test]
    fn a_port_scan_has_a_bounded_number_of_explanations_lines_and_flows() {
        let (reconciler, metrics, mut drops) =
            (reconciler(), Metrics::new("1", "n"), DropLog::new(Instant::now()));
        let scan: Vec<DeniedPacket> =
            (0..20_000).map(|port| DeniedPacket { port, ..denied_packet() }).collect();
        drops.record(scan, 0, &reconciler, &metrics, Instant::now());
        assert!(
            drops.lines <= MAX_LINES && drops.explained <= MAX_EXPLAINED && drops.flows.len() <= MAX_FLOWS
        );
        let closed = DropLabels::of(Direction::Ingress, &PolicyKey::network_policy("shop", "closed"));
        let all = count(&metrics, &closed) + count(&metrics, &DropLabels::unknown(Direction::Ingress));
        assert_eq!(all, 20_000, "every packet counts");
    }
}
