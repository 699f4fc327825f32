//! The metrics of the agent. Each is one entry of the table `metrics!`.

mod labels;
mod process;

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::Registry,
};

pub use labels::{
    DirectionLabel, DropLabels, KindLabel, ResultLabel, ScopeLabel, StageLabel, WorkloadLabels,
};

/// A gauge of seconds, with fractions.
type Seconds = Gauge<f64, AtomicU64>;
/// A counter of seconds, with fractions.
type CounterOfSeconds = Counter<f64, AtomicU64>;

/// From 100 µs, less than any transaction takes, to 25.6 s, more than the first plan of a large cluster takes.
const BUCKETS: [f64; 16] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024,
    5.12, 25.6,
];

/// The values of the label `result`.
const RESULTS: [&str; 2] = ["ok", "refused"];
/// The values of the label `result` of pod starts.
const POD_STARTS: [&str; 7] =
    ["programmed", "closed", "open", "refused", "no-address", "host-network", "invalid"];
/// The values of the label `result` of requests to the OTLP endpoint.
const OTLP_REQUESTS: [&str; 2] = ["ok", "failed"];
/// The values of the label `stage`.
const STAGES: [&str; 14] = [
    "source",
    "address",
    "commit",
    "connections",
    "node-name",
    "drift",
    "drops",
    "links",
    "budget",
    "runtime",
    "cni",
    "dns",
    "allow-source",
    "state",
];
/// The values of the label `result` of DNS messages.
const DNS_MESSAGES: [&str; 5] = ["passed", "learned", "dropped", "reset", "over_share"];

/// Creates a metric at zero.
trait Zero {
    fn zero() -> Self;
}

impl Zero for Histogram {
    fn zero() -> Self {
        Self::new(BUCKETS)
    }
}

impl<N: Default, A: Default> Zero for Gauge<N, A> {
    fn zero() -> Self {
        Self::default()
    }
}

impl<N: Default, A: Default> Zero for Counter<N, A> {
    fn zero() -> Self {
        Self::default()
    }
}

impl<S: Clone + Eq + std::hash::Hash, M: Default> Zero for Family<S, M> {
    fn zero() -> Self {
        Self::default()
    }
}

/// Defines [`Metrics`]: for each metric its field, type, name and help text.
macro_rules! metrics {
    ($($field:ident: $type:ty, $name:literal, $help:literal;)*) => {
        /// The metrics of the agent. All threads may change them.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            $(#[doc = $help] pub $field: $type,)*
        }

        impl Metrics {
            fn register(mut registry: Registry) -> Self {
                $(
                    let $field = <$type>::zero();
                    registry.register($name, $help, $field.clone());
                )*
                Self { registry, $($field,)* }
            }
        }
    };
}

metrics! {
    ready: Gauge, "palisade_ready", "Whether the first snapshot is programmed and the kernel holds the latest plan";
    generation: Gauge, "palisade_generation", "Generation of the table in the kernel, which grows with every change";
    policies: Family<KindLabel, Gauge>, "palisade_policies", "Known policies, by kind";
    pods: Family<ScopeLabel, Gauge>, "palisade_pods", "Known pods, in the cluster and on this node";
    isolated_pods: Family<DirectionLabel, Gauge>, "palisade_isolated_pods",
        "Pod addresses of this node that policies isolate, by direction";
    policy_tables: Gauge, "palisade_tables", "Policy tables in the plan: one for each set of pods that the same policies select";
    peer_sets: Gauge, "palisade_groups", "Peer sets in the plan";
    elements: Gauge, "palisade_elements",
        "Elements of all sets and maps of the kernel's table: members and ranges of peer sets, their unions, ports, and local pods";
    cut_off_pods: Family<DirectionLabel, Gauge>, "palisade_cut_off_pods",
        "Pod addresses of this node that are cut off (fail closed) because the kernel rejected their policies";
    not_enforced_pods: Family<DirectionLabel, Gauge>, "palisade_not_enforced_pods",
        "Pod addresses of this node whose policies are not enforced: the kernel rejected them and refused to cut the pods off";
    over_budget_pods: Family<DirectionLabel, Gauge>, "palisade_over_budget_pods",
        "Pod addresses of this node that are closed because their policies exceed the node's budget";
    compile_duration: Histogram, "palisade_compile_duration_seconds", "Time to compile a change into a delta of the plan";
    transaction_duration: Histogram, "palisade_transaction_duration_seconds",
        "Time of the kernel transactions of a change";
    apply_latency: Histogram, "palisade_apply_latency_seconds",
        "Time from the arrival of a change to its commit in the kernel, without the review of established connections";
    review_duration: Histogram, "palisade_review_duration_seconds",
        "Time of a review of established connections, from its beginning to its end. Changes don't wait for it";
    unreviewed: Seconds, "palisade_connections_unreviewed_seconds",
        "Age of the oldest programmed change for which established connections are not all re-evaluated yet; 0 if all are";
    commits: Family<ResultLabel, Counter>, "palisade_commits", "Changes sent to the kernel, by result";
    connections_revoked: Counter, "palisade_connections_revoked",
        "Established connections that were revoked because a change denies them";
    connections_restored: Counter, "palisade_connections_restored", "Revoked connections that are allowed again";
    runtime_connected: Gauge, "palisade_runtime_connected",
        "Whether the container runtime announces pods before they start. Also 0 if the setting nri is off";
    cni_chained: Gauge, "palisade_cni_chained",
        "Whether the node's CNI configuration has the plugin that holds pods until they are isolated. Also 0 if the setting cni-chain is off";
    pod_starts: Family<ResultLabel, Counter>, "palisade_pod_starts",
        "Pods that were announced before their start, by NRI or by the CNI plugin, by how they started";
    pod_start_latency: Histogram, "palisade_pod_start_latency_seconds",
        "Time that pods waited before their start for their policies to be programmed";
    pods_opened_unreviewed: Counter, "palisade_pods_opened_unreviewed",
        "Pods that started although older connections with their addresses may continue, because these could be neither re-evaluated nor deleted in time";
    dns_messages: Family<ResultLabel, Counter>, "palisade_dns_messages",
        "DNS messages of pods with rules by name: passed at once, held until learned addresses were in the kernel, dropped, turned into a reset of their TCP connection, or over the share of their pod and not read";
    learned_names: Gauge, "palisade_learned_names", "Names of which addresses were learned from DNS";
    learned_addresses: Gauge, "palisade_learned_addresses", "Addresses that were learned from DNS, of all names";
    unbound_ports: Gauge, "palisade_unbound_ports",
        "Bridge ports that lead to pods which are not known, and whose source addresses are checked less strictly";
    bypassing_bridges: Gauge, "palisade_bypassing_bridges",
        "Bridges of pods that pass packets between two pods past netfilter, so that no policy applies to these";
    refused_source_pods: Gauge, "palisade_refused_source_pods",
        "Pods of this node that request a source by annotation which they are not allowed to use";
    drops: Family<DropLabels, Counter>, "palisade_drops",
        "Dropped packets, by direction and by the policy that denies or isolates. An empty kind means that no policy was determined";
    audited: Family<DropLabels, Counter>, "palisade_audited_packets",
        "Packets that passed because of audit mode, by direction and by the policy in audit mode that would deny them. An empty kind means that no policy was determined";
    workload_drops: Family<WorkloadLabels, Counter>, "palisade_workload_drops",
        "Dropped packets, by direction and by the workloads of sender and receiver. The workload `other` stands for pairs without series of their own, and for packets that were not logged";
    workload_audited: Family<WorkloadLabels, Counter>, "palisade_workload_audited_packets",
        "Packets that passed because of audit mode, by direction and by the workloads of sender and receiver. The workload `other` stands for pairs without series of their own, and for packets that were not logged";
    workload_pairs: Gauge, "palisade_workload_pairs",
        "Pairs of workloads with series of their own. There are at most 500, 100 of them with one namespace";
    audited_pods: Family<DirectionLabel, Gauge>, "palisade_audited_pods",
        "Pod addresses of this node that policies in audit mode select, by direction";
    audited_policies: Gauge, "palisade_audited_policies", "Known policies in audit mode";
    flow_records: Counter, "palisade_flow_records",
        "Records of flows: of dropped and audited packets and, if they are recorded, of forwarded connections, one for each flow and second";
    flow_records_evicted: Counter, "palisade_flow_records_evicted",
        "Records of flows that made room for later ones of the same sender";
    flow_packets_unrecorded: Counter, "palisade_flow_packets_unrecorded",
        "Dropped or audited packets without a record of their flow, because there were too many at once";
    flow_connections_unrecorded: Counter, "palisade_flow_connections_unrecorded",
        "Forwarded connections without a record of their flow, because there were too many at once";
    flow_connection_overruns: Counter, "palisade_flow_connection_overruns",
        "How often announcements of connections were lost because the kernel made them faster than they were read. Each time, at least one connection has no record";
    connection_events: Gauge, "palisade_connection_events",
        "Whether the kernel's announcements of connections are read. Also 0 if the setting flows is drops";
    flow_file_records_lost: Counter, "palisade_flow_file_records_lost",
        "Records of flows that were not written to the flow file, because writing failed or was too slow";
    otlp_records_lost: Counter, "palisade_otlp_records_lost",
        "Records of flows that the OTLP endpoint did not receive, because it refused them or was too slow";
    otlp_requests: Family<ResultLabel, Counter>, "palisade_otlp_requests",
        "Requests to the OTLP endpoint, of records of flows and of metrics: ok, or failed";
    errors: Family<StageLabel, Counter>, "palisade_errors", "Errors, by stage";
    unusable_objects: Family<KindLabel, Gauge>, "palisade_unusable_objects", "Objects with a part that can't be used";
    watch_up: Family<KindLabel, Gauge>, "palisade_watch_up",
        "Whether the watch of a kind is up to date. Absent for kinds that the cluster doesn't serve";
    watch_restarts: Family<KindLabel, Counter>, "palisade_watch_restarts",
        "How often a watch had to list all objects again";
    watch_events: Family<KindLabel, Counter>, "palisade_watch_events", "Received changes, by kind";
    watch_last_event: Family<KindLabel, Seconds>, "palisade_watch_last_event_timestamp_seconds",
        "When the last change was received, in seconds since the epoch";
    resident_memory: Gauge, "process_resident_memory_bytes", "Resident memory size in bytes";
    cpu: CounterOfSeconds, "process_cpu_seconds", "User and system CPU time spent in seconds";
}

impl Metrics {
    /// Creates all metrics at zero.
    #[must_use]
    pub fn new(version: &'static str, node: &str) -> Self {
        let mut registry = Registry::default();
        let build = vec![("version", version.to_owned()), ("node", node.to_owned())];
        registry.register("palisade_build", "Version and node of this agent", Info::new(build));
        let metrics = Self::register(registry);
        // Prometheus sees no increase in a counter that first appears with the value 1, and an alert would miss it.
        for result in RESULTS {
            drop(metrics.commits.get_or_create(&ResultLabel { result }));
        }
        for result in POD_STARTS {
            drop(metrics.pod_starts.get_or_create(&ResultLabel { result }));
        }
        for result in DNS_MESSAGES {
            drop(metrics.dns_messages.get_or_create(&ResultLabel { result }));
        }
        for result in OTLP_REQUESTS {
            drop(metrics.otlp_requests.get_or_create(&ResultLabel { result }));
        }
        for stage in STAGES {
            drop(metrics.errors.get_or_create(&StageLabel { stage }));
        }
        metrics
    }

    /// Returns the counters of packets that were denied, or that passed because of audit mode, by the workloads of their ends.
    pub(crate) fn by_workloads(&self, audited: bool) -> &Family<WorkloadLabels, Counter> {
        if audited { &self.workload_audited } else { &self.workload_drops }
    }

    /// Counts packets that were denied, or that passed because of audit mode, of which no more is known than the direction.
    pub(crate) fn count_unknown(&self, direction: palisade_policy::Direction, audited: bool, packets: u64) {
        let by_policy = if audited { &self.audited } else { &self.drops };
        by_policy.get_or_create(&DropLabels::unknown(direction)).inc_by(packets);
        self.by_workloads(audited).get_or_create(&WorkloadLabels::all_other(direction)).inc_by(packets);
    }

    /// Encodes all metrics in the OpenMetrics text format.
    ///
    /// # Errors
    /// Never, unless memory is exhausted.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        if let Some(usage) = process::usage() {
            self.resident_memory.set(usage.resident_bytes);
            self.cpu.inner().store(usage.cpu_seconds.to_bits(), Ordering::Relaxed);
        }
        let mut out = String::new();
        encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_documented() {
        let metrics = Metrics::new("1.2.3", "n1");
        metrics.commits.get_or_create(&ResultLabel { result: "ok" }).inc();
        metrics.apply_latency.observe(0.000_3);
        metrics.drops.get_or_create(&DropLabels::unknown(palisade_policy::Direction::Ingress)).inc();
        let text = metrics.text().unwrap();
        for line in [
            "palisade_build_info{version=\"1.2.3\",node=\"n1\"} 1",
            "palisade_ready 0",
            "palisade_commits_total{result=\"ok\"} 1",
            "palisade_commits_total{result=\"refused\"} 0",
            "palisade_errors_total{stage=\"commit\"} 0",
            "palisade_connections_revoked_total 0",
            "palisade_drops_total{direction=\"ingress\",kind=\"\",namespace=\"\",policy=\"\"} 1",
            "palisade_apply_latency_seconds_bucket{le=\"0.00025\"} 0",
            "palisade_apply_latency_seconds_bucket{le=\"0.0005\"} 1",
            "# EOF",
        ] {
            assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
        }
        let value = |name: &str| {
            let line = text.lines().find(|l| l.starts_with(name)).unwrap();
            line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
        };
        assert!(value("process_resident_memory_bytes ") > 1e6);
        assert!(value("process_cpu_seconds_total ") >= 0.0);
    }
}
