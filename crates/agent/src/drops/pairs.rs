//! Counts denied packets by the workloads at their ends, in a bounded number of series.
//!
//! A workload keeps its series while its pods come and go. Pairs have a fair share: those of one sending namespace leave room for others, so that a
//! tenant with many workloads doesn't hide the pairs of its neighbors. What finds no room is counted as `other`, so that sums stay right.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use palisade_policy::Endpoint;

use super::DeniedPacket;
use crate::{
    Reconciler,
    metrics::{Metrics, WorkloadLabels},
};

/// The most pairs with series of their own, of dropped and of audited packets together.
pub(super) const MAX_PAIRS: usize = 500;
/// The most of them with one sending namespace, or with one receiving namespace if the sender is no pod.
pub(super) const MAX_PAIRS_OF_NAMESPACE: usize = MAX_PAIRS / 5;
/// How long a pair has had no packets that makes room for another.
const IDLE: Duration = Duration::from_secs(3600);
/// How often idle pairs are looked for while there is no room.
const IDLE_INTERVAL: Duration = Duration::from_secs(60);

/// What senders and receivers are called that are no pods.
const OUTSIDE: &str = "outside";
const NODE: &str = "node";

/// The pairs with series of their own.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    /// When each had its last packet. Audited packets have series apart.
    seen: HashMap<(bool, WorkloadLabels), Instant>,
    of_namespace: HashMap<String, usize>,
    /// When idle pairs were last looked for.
    searched: Option<Instant>,
}

impl Pairs {
    /// Counts a packet. `O(1)`, but for a search for idle pairs at intervals.
    pub(super) fn count(&mut self, audited: bool, labels: &WorkloadLabels, metrics: &Metrics, now: Instant) {
        let family = metrics.by_workloads(audited);
        let key = (audited, labels.clone());
        if let Some(seen) = self.seen.get_mut(&key) {
            *seen = now;
        } else if self.has_room(labels) || self.make_room(metrics, now) && self.has_room(labels) {
            *self.of_namespace.entry(namespace(labels).to_owned()).or_default() += 1;
            self.seen.insert(key, now);
            self.report(metrics);
        } else {
            family.get_or_create(&labels.other()).inc();
            return;
        }
        family.get_or_create(labels).inc();
    }

    fn has_room(&self, labels: &WorkloadLabels) -> bool {
        let of_namespace = self.of_namespace.get(namespace(labels)).copied().unwrap_or_default();
        self.seen.len() < MAX_PAIRS && of_namespace < MAX_PAIRS_OF_NAMESPACE
    }

    /// Removes the series of idle pairs. Returns whether it looked for them.
    fn make_room(&mut self, metrics: &Metrics, now: Instant) -> bool {
        if self.searched.is_some_and(|at| now.saturating_duration_since(at) < IDLE_INTERVAL) {
            return false;
        }
        self.searched = Some(now);
        let of_namespace = &mut self.of_namespace;
        self.seen.retain(|(audited, labels), seen| {
            let stays = now.saturating_duration_since(*seen) < IDLE;
            if !stays {
                metrics.by_workloads(*audited).remove(labels);
                if let Some(count) = of_namespace.get_mut(namespace(labels)) {
                    *count -= 1;
                }
            }
            stays
        });
        of_namespace.retain(|_, count| *count > 0);
        self.report(metrics);
        true
    }

    /// Sets the metric of how many pairs there are.
    fn report(&self, metrics: &Metrics) {
        metrics.workload_pairs.set(i64::try_from(self.seen.len()).unwrap_or(i64::MAX));
    }
}

/// Whose share a pair takes.
fn namespace(labels: &WorkloadLabels) -> &str {
    if labels.source_namespace.is_empty() { &labels.destination_namespace } else { &labels.source_namespace }
}

/// Returns the labels of a packet: the workloads of its ends, as far as they are pods.
pub(super) fn labels(packet: &DeniedPacket, reconciler: &Reconciler) -> WorkloadLabels {
    let (source_namespace, source_workload) = workload(packet.source, reconciler);
    let (destination_namespace, destination_workload) = workload(packet.destination, reconciler);
    WorkloadLabels {
        source_namespace,
        source_workload,
        destination_namespace,
        destination_workload,
        ..WorkloadLabels::all_other(packet.direction)
    }
}

/// Returns namespace and workload of an address: `Deployment/web`, `Pod/web` without a workload, or what else it is.
fn workload(address: IpAddr, reconciler: &Reconciler) -> (String, String) {
    let Some(pod) = reconciler.owner(address) else {
        let is_node = matches!(reconciler.endpoint(address), Endpoint::Node { .. });
        return (String::new(), if is_node { NODE } else { OUTSIDE }.to_owned());
    };
    let workload = match &pod.workload {
        Some(workload) => format!("{}/{}", workload.kind, workload.name),
        None => format!("Pod/{}", pod.key.name),
    };
    (pod.key.namespace.to_string(), workload)
}

#[cfg(test)]
mod tests {
    use palisade_policy::{Change, Direction, Labels, Node, ObjectKey, Pod, Workload};

    use super::*;
    use crate::{
        Input,
        drops::tests::{denied_packet, reconciler},
    };

    fn pair(namespace: &str, number: usize) -> WorkloadLabels {
        WorkloadLabels {
            source_namespace: namespace.to_owned(),
            source_workload: format!("Deployment/w{number}"),
            destination_namespace: "shop".to_owned(),
            destination_workload: "StatefulSet/db".to_owned(),
            ..WorkloadLabels::all_other(Direction::Ingress)
        }
    }

    /// The series, and the packets of each kind.
    fn series(metrics: &Metrics) -> (usize, u64, u64) {
        let text = metrics.text().unwrap();
        let of = text.lines().filter_map(|line| line.strip_prefix("palisade_workload_drops_total{"));
        let (other, own): (Vec<&str>, Vec<&str>) = of.partition(|line| line.contains("_workload=\"other\""));
        let sum = |lines: &[&str]| {
            lines.iter().map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
        };
        (own.len(), sum(&own), sum(&other))
    }

    #[test]
    fn one_namespace_has_a_share_of_a_bounded_number_of_series_and_every_packet_is_counted() {
        let (metrics, now, mut pairs) = (Metrics::new("1", "n"), Instant::now(), Pairs::default());
        for number in 0..10_000 {
            pairs.count(false, &pair("flood", number), &metrics, now);
        }
        pairs.count(false, &pair("quiet", 0), &metrics, now);
        assert_eq!(
            series(&metrics),
            (
                MAX_PAIRS_OF_NAMESPACE + 1,
                MAX_PAIRS_OF_NAMESPACE as u64 + 1,
                10_000 - MAX_PAIRS_OF_NAMESPACE as u64
            )
        );
        for number in 0..10_000 {
            pairs.count(false, &pair(&format!("n{number}"), 0), &metrics, now);
        }
        let (own, of_own, other) = series(&metrics);
        assert_eq!((own, of_own + other), (MAX_PAIRS, 20_001));
        assert_eq!(metrics.workload_pairs.get(), MAX_PAIRS as i64);
    }

    #[test]
    fn idle_pairs_make_room_and_those_in_use_stay() {
        let (metrics, begin, mut pairs) = (Metrics::new("1", "n"), Instant::now(), Pairs::default());
        for number in 0..=MAX_PAIRS_OF_NAMESPACE {
            pairs.count(false, &pair("jobs", number), &metrics, begin);
        }
        let (minute, later) = (begin + IDLE_INTERVAL, begin + IDLE);
        pairs.count(false, &pair("jobs", 3), &metrics, minute);
        pairs.count(false, &pair("jobs", 1000), &metrics, later);
        assert_eq!(metrics.workload_pairs.get(), 2);
        assert_eq!(pairs.seen.len(), 2, "number 3 and the new one");
        assert_eq!(pairs.of_namespace, HashMap::from([("jobs".to_owned(), 2)]));
        assert_eq!(series(&metrics), (2, 3, 1));
    }

    #[test]
    fn ends_have_their_workload_or_what_else_they_are() {
        let mut reconciler = reconciler();
        let mut pod =
            Pod::new(ObjectKey::new("shop", "api-5d8f-x7"), Labels::default(), vec![[10, 0, 0, 5].into()]);
        pod.workload = Some(Workload { kind: "Deployment".into(), name: "api".into() });
        let node = Node {
            name: "n1".into(),
            labels: Labels::default(),
            addresses: vec![[192, 168, 0, 1].into()],
            pod_cidrs: Vec::new(),
        };
        reconciler.handle(Input::Changes(vec![Change::SetPod(pod), Change::SetNode(node)]), Duration::ZERO);
        let of = |source: [u8; 4]| {
            let labels = labels(&DeniedPacket { source: source.into(), ..denied_packet() }, &reconciler);
            assert_eq!((&*labels.destination_namespace, &*labels.destination_workload), ("shop", "Pod/db"));
            format!("{}:{}", labels.source_namespace, labels.source_workload)
        };
        assert_eq!(of([10, 0, 0, 5]), "shop:Deployment/api");
        assert_eq!(of([192, 168, 0, 1]), ":node");
        assert_eq!(of([203, 0, 113, 1]), ":outside");
    }
}
