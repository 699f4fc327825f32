//! A generated cluster and what happens in it: the objects as a watch delivers them, and pod events for as long as one
//! likes. The same in every run.

use std::{collections::VecDeque, fs, time::Duration};

use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike,
};
use palisade_policy::{Change, Cluster, Interner, ObjectKey, Phase, Pod};
use palisade_testkit::{Rng, Shape, Style, without_pods, workload_pod};

/// The node that is measured.
pub(crate) const NODE: &str = "n1";
/// How many pods it has: the kubelet's default limit.
pub(crate) const LOCAL: usize = 110;
/// Pods of one workload.
const PODS_PER_WORKLOAD: usize = 50;

/// How big the cluster is.
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

/// Everything but the pods.
pub(crate) fn frame(size: &Size) -> Cluster {
    let shape = Shape {
        namespaces: size.namespaces..=size.namespaces,
        pods: size.pods..=size.pods,
        nodes: size.nodes..=size.nodes,
        policies: size.policies..=size.policies,
        style: Style::Realistic,
    };
    without_pods(&mut Rng::with_seed(1), &shape)
}

/// The pods, one by one.
pub(crate) fn pods(frame: &Cluster, size: &Size, interner: &Interner) -> impl Iterator<Item = Pod> {
    (0..size.pods).map(move |index| pod(frame, size, index / PODS_PER_WORKLOAD, index, interner))
}

/// The pod with this number: on the measured node if it is one of every so many, else on some other.
fn pod(frame: &Cluster, size: &Size, workload: usize, index: usize, interner: &Interner) -> Pod {
    let every = size.pods / LOCAL;
    let is_local = index.is_multiple_of(every) && index / every < LOCAL;
    let node = if is_local { 0 } else { 1 + index % (size.nodes - 1) };
    dressed(workload_pod(frame, workload, index, node), workload, index, interner)
}

/// With the name and the labels that controllers and charts give: seven or eight labels, of which every tenth workload,
/// a StatefulSet, has two that are the pod's own.
fn dressed(pod: Pod, workload: usize, index: usize, interner: &Interner) -> Pod {
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
    // What a pod belongs to decides nothing: a source for an agent leaves it out.
    interner.pod(Pod { key, labels, workload: None, ..pod })
}

/// A ReplicaSet's pod: five characters of the alphabet that the API server draws from.
fn tail(app: &str, hash: &str, index: usize) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let base = ALPHABET.len();
    let letters = (0..5).map(|n| char::from(ALPHABET[index / base.pow(n) % base]));
    format!("{app}-{hash}-{}", letters.collect::<String>())
}

/// What happens to pods: one is made without an address, gets one, becomes ready, is relabelled or reports once more,
/// and goes.
pub(crate) struct Events<'a> {
    frame: &'a Cluster,
    size: Size,
    interner: Interner,
    rng: Rng,
    next: usize,
    /// Events that follow of what happened before.
    due: VecDeque<Change>,
    /// The new pods, oldest first.
    alive: VecDeque<Pod>,
}

impl<'a> Events<'a> {
    pub(crate) fn new(frame: &'a Cluster, size: Size, interner: Interner) -> Self {
        let (rng, due, alive) = (Rng::with_seed(7), VecDeque::new(), VecDeque::new());
        Self { frame, size, interner, rng, next: size.pods, due, alive }
    }

    /// A pod of some workload: the watch says five times something of it. One in a hundred is on the measured node.
    fn another(&mut self) {
        let (workload, index) = (self.rng.usize(..self.size.workloads()), self.next);
        self.next += 1;
        let node = if self.rng.u8(..100) == 0 { 0 } else { self.rng.usize(1..self.size.nodes) };
        let ready = dressed(workload_pod(self.frame, workload, index, node), workload, index, &self.interner);
        let pending = Pod { addresses: Vec::new(), phase: Phase::Pending, ..ready.clone() };
        self.due.push_back(Change::SetPod(pending));
        self.due.push_back(Change::SetPod(ready.clone()));
        // Conditions and container states: nothing that a decision needs.
        self.due.push_back(Change::SetPod(ready.clone()));
        if index.is_multiple_of(2) {
            let labels = ready.labels.with("topology.example.com/zone", "b");
            self.due.push_back(Change::SetPod(Pod { labels, ..ready.clone() }));
        } else {
            self.due.push_back(Change::SetPod(ready.clone()));
        }
        self.alive.push_back(ready);
        // So the number of pods stays.
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

/// What this process has used of all processors.
pub(crate) fn cpu_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("getrusage");
    let time = usage.user_time() + usage.system_time();
    Duration::from_micros(time.num_microseconds().unsigned_abs())
}

/// Resident memory of this process now, and the most that it ever was.
pub(crate) fn memory() -> String {
    let status = fs::read_to_string("/proc/self/status").expect("this figure is read from /proc");
    let field = |name: &str| {
        let line =
            status.lines().find_map(|line| line.strip_prefix(name)).expect("a field of /proc/self/status");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("kilobytes") / 1024
    };
    format!("{} MiB (at most {})", field("VmRSS:"), field("VmHWM:"))
}

/// Prints them for the first and the last quarter: they are the same where nothing piles up.
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
