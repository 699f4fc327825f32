//! Measures what the watches of N agents cost a running API server: CPU time for the first lists and for each event, and memory.
//!
//! Needs an API server on this machine that you may put under load, and its process id:
//! `cargo bench -p palisade-api --bench watchers -- --kubeconfig FILE --pid PID [--pods N] [--events N]`.
//! Creates a namespace `palisade-watchers` with pods that are bound to no node, changes them, and deletes both at the end. The first row,
//! without watchers, is the baseline: the cost of writing the same changes.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{
    Api, Client, Config,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use palisade_api::{Event, WatchOptions, watch};
use palisade_policy::Change;
use serde_json::json;

const NAMESPACE: &str = "palisade-watchers";
const WATCHERS: [usize; 4] = [0, 1, 10, 50];

fn main() {
    let argument = |name: &str| std::env::args().skip_while(|a| *a != format!("--{name}")).nth(1);
    let number = |name: &str, default| argument(name).map_or(default, |n| n.parse().expect("a number"));
    let (Some(kubeconfig), Some(pid)) = (argument("kubeconfig"), argument("pid")) else {
        eprintln!("usage: --kubeconfig FILE --pid PID of an API server that may be put under load");
        return;
    };
    let (pods, events) = (number("pods", 2_000), number("events", 500));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(measure(kubeconfig.into(), &pid, pods, events));
}

async fn client(kubeconfig: &PathBuf) -> Client {
    let config = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
    let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await;
    Client::try_from(config.expect("a kubeconfig")).expect("a client")
}

async fn measure(kubeconfig: PathBuf, pid: &str, pods: usize, events: usize) {
    let writer = client(&kubeconfig).await;
    let api: Api<Pod> = Api::namespaced(writer.clone(), NAMESPACE);
    let namespaces: Api<Namespace> = Api::all(writer);
    let namespace = serde_json::from_value(json!({"metadata": {"name": NAMESPACE}})).expect("a namespace");
    namespaces.create(&PostParams::default(), &namespace).await.expect("the namespace is created");
    for number in 0..pods {
        api.create(&PostParams::default(), &pod(number)).await.expect("a pod is created");
    }
    eprintln!("{pods} pods, {events} events; CPU time and memory of the API server");
    eprintln!("watchers | first lists: each | while {events} events are written | resident");
    for watchers in WATCHERS {
        row(&kubeconfig, &api, pid, watchers, pods, events).await;
    }
    for number in 0..pods {
        let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        api.delete(&name(number), &now).await.expect("our pod is deleted");
    }
    namespaces.delete(NAMESPACE, &DeleteParams::default()).await.expect("our namespace is deleted");
}

async fn row(kubeconfig: &PathBuf, api: &Api<Pod>, pid: &str, watchers: usize, pods: usize, events: usize) {
    let before = cpu_time(pid);
    let mut watches = Vec::new();
    for _ in 0..watchers {
        // Each has its own connection, as agents have.
        watches.push(watch(client(kubeconfig).await, WatchOptions::default()));
    }
    for watch in &mut watches {
        let cluster = loop {
            if let Event::Snapshot(cluster) = watch.recv().await.expect("the watch is open") {
                break cluster;
            }
        };
        assert!(cluster.pods.len() >= pods, "{} pods", cluster.pods.len());
    }
    let listed = cpu_time(pid);
    // Every watcher drains its queue, so that none slows down.
    let watchers_done: Vec<_> = watches
        .into_iter()
        .map(|mut watch| {
            tokio::spawn(async move {
                let mut last = 0;
                while last < events {
                    let Event::Changes { changes, .. } = watch.recv().await.expect("the watch is open")
                    else {
                        continue;
                    };
                    last += changes.iter().filter(|change| matches!(change, Change::SetPod(_))).count();
                }
                watch
            })
        })
        .collect();
    let begin = Instant::now();
    for event in 0..events {
        let label = format!("{watchers}-{event}");
        let patch = Patch::Merge(json!({"metadata": {"labels": {"round": label}}}));
        api.patch(&name(event % pods), &PatchParams::default(), &patch).await.expect("a pod is changed");
    }
    let mut watches = Vec::new();
    for task in watchers_done {
        watches.push(task.await.expect("it received all events"));
    }
    // The last writes to connections are accounted a moment later.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let done = cpu_time(pid);
    eprintln!(
        "{watchers:>8} | {:>17.1} ms | {:>21.0} ms in {:.1} s | {} MiB",
        (listed - before).as_secs_f64() * 1e3 / watchers.max(1) as f64,
        (done - listed).as_secs_f64() * 1e3,
        begin.elapsed().as_secs_f64(),
        resident(pid) / 1024,
    );
}

fn name(number: usize) -> String {
    format!("app-{}-7d9f8b6c5d-{number:05}", number / 50)
}

/// A realistic pod, without the status of a kubelet.
fn pod(number: usize) -> Pod {
    let app = format!("app-{}", number / 50);
    let labels = json!({"app": app, "tier": "web", "app.kubernetes.io/name": app, "app.kubernetes.io/managed-by": "Helm",
        "pod-template-hash": "7d9f8b6c5d", "round": "0"});
    let container = json!({
        "name": "app", "image": "registry.example.com/team/app:v1.4.2", "ports": [{"name": "http", "containerPort": 8080}],
        "env": [{"name": "LOG_LEVEL", "value": "info"}, {"name": "GOMAXPROCS", "value": "2"}],
        "resources": {"limits": {"cpu": "1", "memory": "512Mi"}, "requests": {"cpu": "100m", "memory": "128Mi"}},
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 10}
    });
    let metadata = json!({"name": name(number), "labels": labels});
    let spec = json!({"containers": [container], "automountServiceAccountToken": false});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("a pod")
}

/// Returns the user and system time of a process: fields 14 and 15 of its `stat`, in hundredths of a second (`USER_HZ`).
fn cpu_time(pid: &str) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process is on this machine");
    let (_, after_name) = stat.rsplit_once(')').expect("the second field is the name in brackets");
    let ticks = after_name.split_whitespace().skip(11).take(2).map(|n| n.parse::<u64>().expect("a number"));
    Duration::from_millis(10 * ticks.sum::<u64>())
}

fn resident(pid: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is on this machine");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has memory");
    line.trim().trim_end_matches(" kB").parse().expect("kilobytes")
}
