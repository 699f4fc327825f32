//! Packets that policies denied: counted, and told once in a while with the policy at fault.

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

/// A packet that a policy denied, as the kernel's log tells it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dropped {
    /// Which side denied it.
    pub direction: Direction,
    /// Who sent it.
    pub source: IpAddr,
    /// To whom, after translation.
    pub destination: IpAddr,
    /// The protocol.
    pub protocol: Protocol,
    /// The destination port; 0 for protocols without ports.
    pub port: u16,
}

impl Dropped {
    /// Whether its addresses say that no policy was asked, but that it is a link's own: to many, or link-local. The broadcast
    /// address of a subnet looks like any other.
    fn is_of_link(&self) -> bool {
        let link_local = |a: IpAddr| matches!(a, IpAddr::V6(a) if a.is_unicast_link_local());
        self.destination.is_multicast()
            || self.destination == Ipv4Addr::BROADCAST
            || link_local(self.destination)
            || link_local(self.source)
    }
}

/// As many flows are remembered with their policy. A port scan makes one for each port.
const MANY_FLOWS: usize = 4096;
/// As many policies get a line of their own in the metrics.
const MANY_POLICIES: usize = 1000;
/// A flow that goes on being denied is told again after so long.
const TOLD_AGAIN: Duration = Duration::from_secs(60);
/// As many lines are logged in one [`PERIOD`], whatever is dropped.
const LINES: u32 = 20;
/// As many flows are looked into in one [`PERIOD`]: the reference walks every policy for each.
const LOOKED_INTO: u32 = 200;
const PERIOD: Duration = Duration::from_secs(1);

/// What a flow was denied by.
#[derive(Clone, Debug)]
struct Known {
    labels: DropLabels,
    told: Instant,
    /// Since it was told last.
    packets: u64,
}

/// Counts and tells.
#[derive(Debug)]
pub(crate) struct Drops {
    known: HashMap<Dropped, Known>,
    counted: HashSet<DropLabels>,
    period: Instant,
    lines: u32,
    looked_into: u32,
    /// Lines that were not logged.
    silent: u64,
    /// How many packets the kernel told of.
    told: HashMap<Direction, u64>,
}

impl Drops {
    pub(crate) fn new() -> Self {
        Self {
            known: HashMap::new(),
            counted: HashSet::new(),
            period: Instant::now(),
            lines: 0,
            looked_into: 0,
            silent: 0,
            told: HashMap::new(),
        }
    }

    /// Policies changed: what denied a flow may be another one now.
    pub(crate) fn forget(&mut self) {
        self.known.clear();
    }

    /// How many packets the kernel has told of.
    pub(crate) fn told(&self, direction: Direction) -> u64 {
        self.told.get(&direction).copied().unwrap_or(0)
    }

    /// Takes in what the kernel told. `more` packets were told by number alone.
    pub(crate) fn take(
        &mut self,
        dropped: Vec<Dropped>,
        more: u64,
        reconciler: &Reconciler,
        metrics: &Metrics,
    ) {
        self.turn_period();
        if more > 0 {
            // Nobody knows any more in which direction: they came in with the others.
            let direction = dropped.first().map_or(Direction::Ingress, |d| d.direction);
            *self.told.entry(direction).or_default() += more;
            metrics.drops.get_or_create(&DropLabels::unknown(direction)).inc_by(more);
        }
        for packet in dropped {
            self.one(packet, reconciler, metrics);
        }
    }

    fn turn_period(&mut self) {
        if self.period.elapsed() >= PERIOD {
            if self.silent > 0 {
                tracing::warn!(
                    lines = self.silent,
                    "more was dropped than is logged: see palisade_drops_total"
                );
            }
            (self.period, self.lines, self.looked_into, self.silent) = (Instant::now(), 0, 0, 0);
        }
    }

    fn one(&mut self, packet: Dropped, reconciler: &Reconciler, metrics: &Metrics) {
        *self.told.entry(packet.direction).or_default() += 1;
        if let Some(known) = self.known.get_mut(&packet) {
            known.packets += 1;
            metrics.drops.get_or_create(&known.labels).inc();
            if known.told.elapsed() < TOLD_AGAIN {
                return;
            }
            let (labels, packets) = (known.labels.clone(), std::mem::take(&mut known.packets));
            known.told = Instant::now();
            return self.tell(&packet, &labels, packets, reconciler);
        }
        if self.looked_into >= LOOKED_INTO {
            metrics.drops.get_or_create(&DropLabels::unknown(packet.direction)).inc();
            return;
        }
        self.looked_into += 1;
        let labels = self.bounded(labels(&packet, reconciler), packet.direction);
        metrics.drops.get_or_create(&labels).inc();
        self.tell(&packet, &labels, 1, reconciler);
        if self.known.len() >= MANY_FLOWS {
            self.known.clear();
        }
        self.known.insert(packet, Known { labels, told: Instant::now(), packets: 0 });
    }

    /// The labels, or those of an unknown policy where there are too many.
    fn bounded(&mut self, labels: DropLabels, direction: Direction) -> DropLabels {
        if self.counted.contains(&labels) {
            labels
        } else if self.counted.len() < MANY_POLICIES {
            self.counted.insert(labels.clone());
            labels
        } else {
            DropLabels::unknown(direction)
        }
    }

    fn tell(&mut self, packet: &Dropped, labels: &DropLabels, packets: u64, reconciler: &Reconciler) {
        if self.lines >= LINES {
            self.silent += 1;
            return;
        }
        self.lines += 1;
        let policy = match (&*labels.kind, &*labels.namespace) {
            ("", _) if packet.is_of_link() => {
                "none: to many or link-local, while pods here are isolated".to_owned()
            }
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
            "dropped"
        );
    }
}

/// The policy at fault: the rule that denies, or the first policy that isolates.
fn labels(packet: &Dropped, reconciler: &Reconciler) -> DropLabels {
    let ends = (reconciler.endpoint(packet.source), reconciler.endpoint(packet.destination));
    // Only what went through a service comes back to the pod that sent it.
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
        // The policies have changed since.
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

    pub(crate) fn dropped() -> Dropped {
        Dropped {
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
                key: palisade_policy::ObjectKey::new("shop", name),
                labels: palisade_policy::Labels::default(),
                addresses: vec![address.into()],
                node: Some("n1".into()),
                host_network: false,
                phase: palisade_policy::Phase::Running,
                ports: [].into(),
                created: 0,
                workload: None,
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
    fn a_drop_counts_for_the_policy_that_isolates_and_an_allowed_one_for_nobody() {
        let (reconciler, metrics, mut drops) = (reconciler(), Metrics::new("1", "n"), Drops::new());
        let egress = Dropped { direction: Direction::Egress, ..dropped() };
        drops.take(vec![dropped(), dropped(), egress], 4, &reconciler, &metrics);
        let closed = DropLabels::of(Direction::Ingress, &PolicyKey::network_policy("shop", "closed"));
        assert_eq!(count(&metrics, &closed), 2);
        assert_eq!(
            count(&metrics, &DropLabels::unknown(Direction::Egress)),
            1,
            "no policy denies it any more"
        );
        assert_eq!(count(&metrics, &DropLabels::unknown(Direction::Ingress)), 4, "told by number alone");
        assert_eq!((drops.told(Direction::Ingress), drops.told(Direction::Egress)), (6, 1));
    }

    #[test]
    fn what_a_link_shares_counts_for_no_policy() {
        let (reconciler, metrics, mut drops) = (reconciler(), Metrics::new("1", "n"), Drops::new());
        let of_link = [
            ("fe80::1", "fe80::2"),
            ("fe80::1", "ff02::1"),
            ("10.0.0.2", "224.0.0.1"),
            ("0.0.0.0", "255.255.255.255"),
        ];
        let packet = |source: &str, destination: &str| Dropped {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            ..dropped()
        };
        let dropped: Vec<Dropped> = of_link.iter().map(|(from, to)| packet(from, to)).collect();
        assert!(dropped.iter().all(Dropped::is_of_link));
        // The broadcast address of a subnet, as far as anybody knows.
        let subnet = packet("10.0.0.2", "10.0.0.255");
        assert!(!subnet.is_of_link());
        drops.take([dropped, vec![subnet]].concat(), 0, &reconciler, &metrics);
        assert_eq!(count(&metrics, &DropLabels::unknown(Direction::Ingress)), 5);
    }

    #[test]
    fn a_port_scan_costs_a_bounded_number_of_questions_lines_and_flows() {
        let (reconciler, metrics, mut drops) = (reconciler(), Metrics::new("1", "n"), Drops::new());
        let scan: Vec<Dropped> = (0..20_000).map(|port| Dropped { port, ..dropped() }).collect();
        drops.take(scan, 0, &reconciler, &metrics);
        assert!(drops.lines <= LINES && drops.looked_into <= LOOKED_INTO && drops.known.len() <= MANY_FLOWS);
        let closed = DropLabels::of(Direction::Ingress, &PolicyKey::network_policy("shop", "closed"));
        let all = count(&metrics, &closed) + count(&metrics, &DropLabels::unknown(Direction::Ingress));
        assert_eq!(all, 20_000, "every packet counts");
    }
}
