//! A generated cluster, and an endless stream of pod events. The same in every run.

use std::{collections::VecDeque, fs, time::Duration};

use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike,
};
use palisade_policy::{Change, Cluster, Interner, ObjectKey, Phase, Pod};
use palisade_testkit::{Rng, Shape, Style, without_pods, workload_pod};

/// The node that is measured.
pub(crate) const NODE: &str = "n1";
/// The number of its pods: the kubelet's default limit.
pub(crate) const LOCAL: usize = 110;
/// Pods of one workload.
const PODS_PER_WORKLOAD: usize = 50;

/// The size of the cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) pods: usize,
    pub(crate) policies: usize,
    pub(crate) nodes: usize,
    pub(crate) namespaces: usize,
}

impl Size {
    /// 150,000 pods of 3,000 workloads in 300 namespaces, 10,000 policies, 5,000 nodes; divided by `part`.
    pub(crate) fn full_by(part: usize) -> Self {
        Self { pods: 150_000 / part, policies: 10_000 / part, nodes: 5_000 / part, namespaces: 300 / part }
    }

    fn workloads(&self) -> usize {
        self.pods.div_ceil(PODS_PER_WORKLOAD)
    }
}

/// Returns the cluster without its pods.
pub(crate) fn frame(size: &Size) -> Cluster {
    let shape = Shape {
        namespaces: size.namespaces..=size.namespaces,
        pods: size.pods..=size.pods,
        nodes: size.nodes..=size.nodes,
        policies: size.policies..=size.policies,
        learned: 0..=0,
        style: Style::Realistic,
    };
    without_pods(&mut Rng::with_seed(1), &shape)
}

/// Returns the pods.
pub(crate) fn pods(frame: &Cluster, size: &Size, interner: &Interner) -> impl Iterator<Item = Pod> {
    (0..size.pods).map(move |index| pod(frame, size, index / PODS_PER_WORKLOAD, index, interner))
}

/// Returns the pod with this index. [`LOCAL`] pods are on the measured node, the rest on other nodes.
fn pod(frame: &Cluster, size: &Size, workload: usize, index: usize, interner: &Interner) -> Pod {
    let every = size.pods / LOCAL;
    let is_local = index.is_multiple_of(every) && index / every < LOCAL;
    let node = if is_local { 0 } else { 1 + index % (size.nodes - 1) };
    with_labels(workload_pod(frame, workload, index, node), workload, index, interner)
}

/// Sets a name and labels like those that controllers and charts set: seven or eight labels. Every tenth workload is a
/// StatefulSet, which has two labels that are unique to each pod.
fn with_labels(pod: Pod, workload: usize, index: usize, interner: &Interner) -> Pod {
    let app = format!("app-{workload}");
    let hash = format!("{:010x}", workload as u64 * 0x9e37_79b9_7f4a % 0xff_ffff_ffff);
    let version = format!("v1.{}.{}", workload % 7, workload % 19);
    let of = |key: &str| pod.labels.get(key).unwrap_or_default();
    let mut labels = vec![
        ("app", of("app")),
        ("tier", of("tier")),
        ("app.kubernetes.io/name", &app),
        ("app.kubernetes.io/managed-by", "Helm"),
        ("app.kubernetes.io/version", &version),
    ];
    let ordinal = (index % PODS_PER_WORKLOAD).to_string();
    let name =
        if workload.is_multiple_of(10) { format!("{app}-{ordinal}") } else { tail(&app, &hash, index) };
    if workload.is_multiple_of(10) {
        labels.push(("controller-revision-hash", &hash));
        labels.push(("statefulset.kubernetes.io/pod-name", &name));
        labels.push(("apps.kubernetes.io/pod-index", &ordinal));
    } else {
        labels.push(("app.kubernetes.io/instance", &app));
        labels.push(("pod-template-hash", &hash));
    }
    let labels = interner.labels(labels);
    let key = ObjectKey { namespace: interner.name(&pod.key.namespace), name: name.as_str().into() };
    // Policies don't depend on the workload, so sources omit it.
    interner.pod(Pod { key, labels, workload: None, ..pod })
}

/// Returns the name of a ReplicaSet's pod, with five characters of the alphabet that the API server uses.
fn tail(app: &str, hash: &str, index: usize) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let base = ALPHABET.len();
    let letters = (0..5).map(|n| char::from(ALPHABET[index / base.pow(n) % base]));
    format!("{app}-{hash}-{}", letters.collect::<String>())
}

/// Events of pods: created without an address, given one, ready, relabelled or with another status, and removed.
pub(crate) struct Events<'a> {
    frame: &'a Cluster,
    size: Size,
    interner: Interner,
    rng: Rng,
    next: usize,
    /// The remaining events of the last new pod.
    due: VecDeque<Change>,
    /// New pods that have not been removed, oldest first.
    alive: VecDeque<Pod>,
}

impl<'a> Events<'a> {
    pub(crate) fn new(frame: &'a Cluster, size: Size, interner: Interner) -> Self {
        let (rng, due, alive) = (Rng::with_seed(7), VecDeque::new(), VecDeque::new());
        Self { frame, size, interner, rng, next: size.pods, due, alive }
    }

    /// Adds a pod of a random workload, which has five events. One pod in a hundred is on the measured node.
    fn another(&mut self) {
        let (workload, index) = (self.rng.usize(..self.size.workloads()), self.next);
        self.next += 1;
        let node = if self.rng.u8(..100) == 0 { 0 } else { self.rng.usize(1..self.size.nodes) };
        let ready =
            with_labels(workload_pod(self.frame, workload, index, node), workload, index, &self.interner);
        let pending = Pod { addresses: Vec::new(), phase: Phase::Pending, ..ready.clone() };
        self.due.push_back(Change::SetPod(pending));
        self.due.push_back(Change::SetPod(ready.clone()));
        // A change of conditions and container states, which policies don't depend on.
        self.due.push_back(Change::SetPod(ready.clone()));
        if index.is_multiple_of(2) {
            let labels = ready.labels.with("topology.example.com/zone", "b");
            self.due.push_back(Change::SetPod(Pod { labels, ..ready.clone() }));
        } else {
            self.due.push_back(Change::SetPod(ready.clone()));
        }
        self.alive.push_back(ready);
        // Keeps the number of pods constant.
        if self.alive.len() > 500
            && let Some(oldest) = self.alive.pop_front()
        {
            self.due.push_back(Change::RemovePod(oldest.key));
        }
    }
}

impl Iterator for Events<'_> {
    type Item = Change;

    fn next(&mut self) -> Option<Change> {
        if self.due.is_empty() {
            self.another();
        }
        self.due.pop_front()
    }
}

/// Returns the CPU time of this process.
pub(crate) fn cpu_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("getrusage");
    let time = usage.user_time() + usage.system_time();
    Duration::from_micros(time.num_microseconds().unsigned_abs())
}

/// Returns the current and the maximum resident memory of this process.
pub(crate) fn memory() -> String {
    let status = fs::read_to_string("/proc/self/status").expect("this figure is read from /proc");
    let field = |name: &str| {
        let line =
            status.lines().find_map(|line| line.strip_prefix(name)).expect("a field of /proc/self/status");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("kilobytes") / 1024
    };
    format!("{} MiB (maximum {})", field("VmRSS:"), field("VmHWM:"))
}

/// Prints lags of the first and the last quarter, which are equal if nothing accumulates.
pub(crate) fn lags(what: &str, lags: &[Duration]) {
    let quarter = lags.len() / 4;
    for (when, lags) in [("first", &lags[..quarter]), ("last", &lags[lags.len() - quarter..])] {
        let mut sorted = lags.to_vec();
        sorted.sort_unstable();
        let at = |percent: usize| sorted[(sorted.len() - 1) * percent / 100];
        eprintln!(
            "    {what}, {when} quarter: median {:.1?}, p99 {:.1?}, max {:.1?}",
            at(50),
            at(99),
            at(100)
        );
    }
}
