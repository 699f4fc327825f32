//! What Prometheus reads: every name, with its help text, stands in [`Metrics::new`].

mod labels;
mod process;

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::Registry,
};

pub use labels::{DirectionLabel, DropLabels, KindLabel, ResultLabel, ScopeLabel, StageLabel};

/// A gauge of fractions.
type Seconds = Gauge<f64, AtomicU64>;

/// From 100 µs, which is less than any transaction takes, to 26 s, which is more than a first plan does.
const BUCKETS: [f64; 16] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024,
    5.12, 25.6,
];

/// The agent's figures. Everything can be changed from any thread.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// 1 if ready.
    pub ready: Gauge,
    /// The number of the table's state in the kernel.
    pub generation: Gauge,
    /// Policies known.
    pub policies: Family<KindLabel, Gauge>,
    /// Pods known.
    pub pods: Family<ScopeLabel, Gauge>,
    /// Local addresses that policies decide.
    pub isolated_pods: Family<DirectionLabel, Gauge>,
    /// Tables of the plan.
    pub tables: Gauge,
    /// Groups of the plan.
    pub groups: Gauge,
    /// Elements of all sets and maps.
    pub elements: Gauge,
    /// Local addresses that are cut off.
    pub cut_off_pods: Family<DirectionLabel, Gauge>,
    /// Local addresses whose policies are not enforced.
    pub not_enforced_pods: Family<DirectionLabel, Gauge>,
    /// Local addresses whose policies ask for too much.
    pub over_budget_pods: Family<DirectionLabel, Gauge>,
    /// Compilation.
    pub compile_duration: Histogram,
    /// Kernel transactions.
    pub transaction_duration: Histogram,
    /// From event to kernel.
    pub apply_latency: Histogram,
    /// Commits by result.
    pub commits: Family<ResultLabel, Counter>,
    /// Connections cut.
    pub connections_revoked: Counter,
    /// Connections freed.
    pub connections_restored: Counter,
    /// Packets dropped.
    pub drops: Family<DropLabels, Counter>,
    /// Things that went wrong.
    pub errors: Family<StageLabel, Counter>,
    /// Objects that can't be used.
    pub unusable_objects: Family<KindLabel, Gauge>,
    /// Watches that are up to date.
    pub watch_up: Family<KindLabel, Gauge>,
    /// Watches begun again.
    pub watch_restarts: Family<KindLabel, Counter>,
    /// Changes heard.
    pub watch_events: Family<KindLabel, Counter>,
    /// When the last change was heard.
    pub watch_last_event: Family<KindLabel, Seconds>,
    resident: Gauge,
    cpu: Counter<f64, AtomicU64>,
}

/// How a commit ends.
const RESULTS: [&str; 2] = ["ok", "refused"];
/// Where something goes wrong.
const STAGES: [&str; 8] =
    ["source", "address", "commit", "connections", "node-name", "drift", "links", "budget"];

impl Metrics {
    /// All of them, at zero.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "one table: a line for each metric, with its help")]
    pub fn new(version: &'static str, node: &str) -> Self {
        let mut r = Registry::default();
        macro_rules! metric {
            ($name:literal, $help:literal, $metric:expr) => {{
                let metric = $metric;
                r.register($name, $help, metric.clone());
                metric
            }};
        }
        let build = vec![("version", version.to_owned()), ("node", node.to_owned())];
        r.register("palisade_build", "Which agent this is", Info::new(build));
        let histogram = || Histogram::new(BUCKETS);
        let metrics = Self {
            ready: metric!(
                "palisade_ready",
                "Whether the first whole snapshot is programmed and the kernel holds the latest plan",
                Gauge::default()
            ),
            generation: metric!(
                "palisade_generation",
                "The number of the kernel table's state, which grows with every change",
                Gauge::default()
            ),
            policies: metric!("palisade_policies", "Policies known, by kind", Family::default()),
            pods: metric!("palisade_pods", "Pods known, in the cluster and on this node", Family::default()),
            isolated_pods: metric!(
                "palisade_isolated_pods",
                "Pod addresses of this node whose connections policies decide, by direction",
                Family::default()
            ),
            tables: metric!(
                "palisade_tables",
                "Tables in the plan: one for each set of pods that the same policies select",
                Gauge::default()
            ),
            groups: metric!("palisade_groups", "Groups of peers in the plan", Gauge::default()),
            elements: metric!(
                "palisade_elements",
                "Elements of all sets and maps of the table: members and ranges of groups, their unions, ports, and local pods",
                Gauge::default()
            ),
            cut_off_pods: metric!(
                "palisade_cut_off_pods",
                "Pod addresses of this node that are cut off because the kernel refused their policies",
                Family::default()
            ),
            not_enforced_pods: metric!(
                "palisade_not_enforced_pods",
                "Pod addresses of this node whose policies are not enforced: the kernel refused them, and refused to cut them off",
                Family::default()
            ),
            over_budget_pods: metric!(
                "palisade_over_budget_pods",
                "Pod addresses of this node that are closed because their policies ask for more than a node gives",
                Family::default()
            ),
            compile_duration: metric!(
                "palisade_compile_duration_seconds",
                "How long a change took to become a difference of plans",
                histogram()
            ),
            transaction_duration: metric!(
                "palisade_transaction_duration_seconds",
                "How long the kernel took for a change",
                histogram()
            ),
            apply_latency: metric!(
                "palisade_apply_latency_seconds",
                "From the arrival of a change to its commit in the kernel",
                histogram()
            ),
            commits: metric!("palisade_commits", "Changes given to the kernel, by result", Family::default()),
            connections_revoked: metric!(
                "palisade_connections_revoked",
                "Open connections cut because a change of policy denies them",
                Counter::default()
            ),
            connections_restored: metric!(
                "palisade_connections_restored",
                "Connections cut earlier that are allowed again",
                Counter::default()
            ),
            drops: metric!(
                "palisade_drops",
                "Packets dropped, by direction and by the policy that denies or isolates; kind is empty where no policy is \
                 found for it",
                Family::default()
            ),
            errors: metric!("palisade_errors", "What went wrong, by where", Family::default()),
            unusable_objects: metric!(
                "palisade_unusable_objects",
                "Objects that can't be used as they are",
                Family::default()
            ),
            watch_up: metric!(
                "palisade_watch_up",
                "Whether the watch of a kind is up to date; absent for kinds that the cluster doesn't serve",
                Family::default()
            ),
            watch_restarts: metric!(
                "palisade_watch_restarts",
                "How often a watch had to begin again with a list",
                Family::default()
            ),
            watch_events: metric!("palisade_watch_events", "Changes heard, by kind", Family::default()),
            watch_last_event: metric!(
                "palisade_watch_last_event_timestamp_seconds",
                "When the last change was heard, as seconds since the epoch",
                Family::default()
            ),
            resident: metric!(
                "process_resident_memory_bytes",
                "Resident memory size in bytes",
                Gauge::default()
            ),
            cpu: metric!(
                "process_cpu_seconds",
                "User and system CPU time spent in seconds",
                Counter::default()
            ),
            registry: r,
        };
        // A counter that appears with its first increment has no increase for Prometheus, and no alert sees that one.
        for result in RESULTS {
            drop(metrics.commits.get_or_create(&ResultLabel { result }));
        }
        for stage in STAGES {
            drop(metrics.errors.get_or_create(&StageLabel { stage }));
        }
        metrics
    }

    /// All of them in the OpenMetrics text format.
    ///
    /// # Errors
    /// Never, unless memory runs out.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        if let Some(figures) = process::read() {
            self.resident.set(figures.resident_bytes);
            self.cpu.inner().store(figures.cpu_seconds.to_bits(), std::sync::atomic::Ordering::Relaxed);
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
