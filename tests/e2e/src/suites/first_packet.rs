//! Pods that start under a policy which denies them everything: what their first packets meet.
//!
//! The container runtime waits until a pod is isolated (docs/start-of-pods.md). So not one packet may pass, from the first instruction of
//! its container: none that it sends, and none that another pod sends to it all the time, by UDP, TCP and ICMP, IPv4 and IPv6. Pods without a
//! policy do the same: otherwise a test that sees nothing would look like a policy. And pods that are allowed to reach one server must reach
//! it with their very first packets, where the server's node knows their addresses: on their own node.
//!
//! ```text
//!  free ── flood ──► starting pods ──┬─► open servers, one on each node, which count what arrives       isolated: nothing; open: all
//!                     (crate::starter)└─► guarded servers, one on each node, which admit one namespace  allowed: from the first packet
//! ```

mod arrivals;
mod disturbance;
mod flood;

use std::{collections::BTreeSet, net::IpAddr, ops::Range};

use anyhow::{Context, Result, anyhow, bail, ensure};
use palisade_netns::namespace::Namespace;
use serde_json::{Value, json};

use crate::{
    Cluster,
    images::STARTER,
    network::NODES,
    palisade::{self, Method, NAMESPACE},
    pods::{self, PORT},
    progress::say,
    starter::{Seen, VERB},
    suites,
};
use arrivals::Arrivals;
use disturbance::{AGENTS, Disturbance};

/// The namespaces of pods that start: under a policy that denies them everything, without one, and under one that allows them one way.
const ISOLATED: &str = "first";
const OPEN: &str = "first-open";
const ALLOWED: &str = "first-allowed";
/// As the last ones, with an init container that lasts longer than the cluster takes to learn of their addresses.
const PATIENT: &str = "first-patient";
/// Servers without and with a policy.
const SERVERS: &str = "first-server";
const GUARDED: &str = "first-guarded";
/// Pods that start at once, half of them on each node.
const GROUP: usize = 10;
/// Pods of a group that are allowed one way, with and without an init container.
const ALLOWED_IN_GROUP: usize = 2;
/// Pods without a policy, before and after the others.
const OPEN_PODS: usize = 4;
/// How many seconds a pod waits for answers that it must get: as long as another node may take to learn of its address on a busy machine.
const PATIENCE: u64 = 60;
/// Groups of the smoke part, and of the suites with 200 pods under the policy.
const FEW: usize = 4;
const MANY: usize = 20;

/// Runs the suite with NRI, as the manifests install it.
pub(super) fn run(cluster: &mut Cluster) -> Result<()> {
    suites::install_palisade(cluster)?;
    judge(cluster, FEW, &[])
}

/// Runs it with many pods.
pub(super) fn run_in_churn(cluster: &mut Cluster) -> Result<()> {
    suites::install_palisade(cluster)?;
    judge(cluster, MANY, &[])
}

/// Runs it with agents that don't use NRI, but install their plugin in the nodes' CNI configuration.
pub(super) fn run_with_plugin(cluster: &mut Cluster) -> Result<()> {
    with_plugin(cluster, "off", |cluster| judge(cluster, MANY, &[]))
}

/// Runs it while the agents are killed, stopped, restarted and upgraded. The plugin holds pods while no agent runs; NRI is on too.
pub(super) fn run_with_restarts(cluster: &mut Cluster) -> Result<()> {
    with_plugin(cluster, "auto", |cluster| judge(cluster, 2 * Disturbance::ALL.len(), &Disturbance::ALL))
}

fn with_plugin(cluster: &mut Cluster, nri: &str, f: impl FnOnce(&mut Cluster) -> Result<()>) -> Result<()> {
    if palisade::is_installed(cluster)? {
        palisade::remove(cluster, Method::Manifests)?;
    }
    let nri = format!("agent.nri={nri}");
    palisade::install_with(
        cluster,
        &[
            nri.as_str(),
            "agent.cniChain=on",
            "agent.cniConfDir=/run/cni/net.d",
            "agent.cniBinDir=/run/cni/bin",
            // The nodes' files are in memory, and a program that was built without optimization is large.
            "resources.limits.memory=1Gi",
        ],
    )?;
    let left = palisade::plugins(cluster)?;
    let outcome = match left == cluster.nodes().len() {
        true => f(cluster),
        false => Err(anyhow!("{left} nodes have the plugin")),
    };
    // Another suite finds no plugin, whatever came of this one.
    let removed = palisade::remove(cluster, Method::Helm);
    outcome?;
    removed?;
    let left = palisade::plugins(cluster)?;
    ensure!(left == 0, "after the removal {left} nodes have the plugin");
    Ok(())
}

/// Starts pods in groups, and fails if a packet passes that may not, or doesn't that must. Each of `disturbances` happens while two groups start.
fn judge(cluster: &mut Cluster, groups: usize, disturbances: &[Disturbance]) -> Result<()> {
    let stage = Stage::new(cluster)?;
    let mut open = stage.start(cluster, &[(OPEN, 0..OPEN_PODS)])?[0].clone();
    let arrived = stage.arrivals.take()?;
    ensure!(arrived.len() >= 2 * OPEN_PODS, "servers have counted {} senders only", arrived.len());
    let (mut isolated, mut allowed, mut patient) = (Seen::default(), Seen::default(), Seen::default());
    for group in 0..groups {
        if let Some(disturbance) = disturbances.get(group / 2).filter(|_| group % 2 == 0) {
            disturbance.begin(cluster)?;
        }
        stage.churn(cluster, group)?;
        let numbers = |size: usize| group * size..(group + 1) * size;
        let few = || numbers(ALLOWED_IN_GROUP);
        let kinds = [(ISOLATED, numbers(GROUP)), (ALLOWED, few()), (PATIENT, few())];
        let seen = stage.start(cluster, &kinds)?;
        if seen[0].received.values().any(|count| *count > 0) {
            // The agents' pods may be others when the suite ends.
            let logs = ["-n", NAMESPACE, "logs", AGENTS, "--prefix", "--tail=400"];
            let logs = cluster.kubectl(&logs).unwrap_or_else(|error| format!("{error:#}"));
            say(&format!("isolated pods of group {group} were reached: {}\n{logs}", seen[0]));
        }
        isolated.add(&seen[0]);
        allowed.add(&seen[1]);
        patient.add(&seen[2]);
        if !disturbances.is_empty() && group % 2 == 1 {
            palisade::rolled_out(cluster)?;
        }
    }
    let arrived = stage.arrivals.take()?;
    open.add(&stage.start(cluster, &[(OPEN, OPEN_PODS..2 * OPEN_PODS)])?[0]);
    say(&format!("{} isolated pods: {isolated}", groups * GROUP));
    say(&format!("{} pods that may reach one server: {allowed}", groups * ALLOWED_IN_GROUP));
    say(&format!("{} of them with an init container: {patient}", groups * ALLOWED_IN_GROUP));
    say(&format!("{} pods without a policy: {open}", 2 * OPEN_PODS));
    say(&format!(
        "how long starts were delayed by the agents of the end: {}",
        palisade::start_latency(cluster)?
    ));
    for name in ["near", "far"] {
        let tries = open.of(name);
        ensure!(tries.any == tries.ways, "pods without a policy did not reach everything: {open}");
    }
    ensure!(open.received.values().all(|count| *count > 0), "pods without a policy were not reached: {open}");
    ensure!(arrived.is_empty(), "packets of isolated pods arrived: {arrived:?}");
    let answered = isolated.tries.values().any(|tries| tries.any > 0);
    let received = isolated.received.values().any(|count| *count > 0);
    ensure!(!answered && !received, "packets of isolated pods passed: {isolated}");
    // While an agent is away, a pod may start closed until the next one knows its labels.
    if disturbances.is_empty() {
        for seen in [&allowed, &patient] {
            let (near, far) = (seen.of("near"), seen.of("far"));
            ensure!(near.first == near.ways, "first packets that are allowed were dropped: {seen}");
            ensure!(far.any == far.ways, "packets that are allowed were dropped: {seen}");
        }
    }
    cluster.delete_namespaces(&[ISOLATED, ALLOWED, PATIENT, OPEN, SERVERS, GUARDED])
}

/// What is there before the first pod starts.
struct Stage {
    /// The sender's network namespace.
    free: Namespace,
    /// By namespace and node.
    servers: Vec<((&'static str, &'static str), [IpAddr; 2])>,
    arrivals: Arrivals,
}

impl Stage {
    fn new(cluster: &mut Cluster) -> Result<Self> {
        let all = |allowed: &Value| json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "egress": allowed});
        let namespaces = |names: &[&str]| {
            let key = "kubernetes.io/metadata.name";
            json!([{"namespaceSelector": {"matchExpressions": [{"key": key, "operator": "In", "values": names}]}}])
        };
        let admits = json!({"podSelector": {}, "ingress": [{"from": namespaces(&[ALLOWED, PATIENT])}]});
        let mut objects: Vec<Value> =
            [ISOLATED, ALLOWED, PATIENT, OPEN, SERVERS, GUARDED].map(pods::namespace).into_iter().collect();
        objects.extend([
            policy(ISOLATED, "nothing", &all(&json!([]))),
            policy(ALLOWED, "one-way", &all(&json!([{"to": namespaces(&[GUARDED])}]))),
            policy(PATIENT, "one-way", &all(&json!([{"to": namespaces(&[GUARDED])}]))),
            policy(GUARDED, "admits", &admits),
        ]);
        pods::apply(cluster, &objects)?;
        let mut all = vec![pods::server(SERVERS, "free", NODES[1], &[])];
        for node in NODES {
            all.extend([SERVERS, GUARDED].map(|namespace| pods::server(namespace, &server(node), node, &[])));
        }
        pods::apply(cluster, &all)?;
        let mut servers = Vec::new();
        for namespace in [SERVERS, GUARDED] {
            pods::wait_ready(cluster, namespace)?;
            for node in NODES {
                servers.push(((namespace, node), pods::addresses(cluster, namespace, &server(node))?));
            }
        }
        flood::limit_waiting(cluster)?;
        let free = pods::addresses(cluster, SERVERS, "free")?;
        let networks = NODES.map(|node| cluster.pod_network(SERVERS, &server(node)));
        let arrivals = Arrivals::count(networks.into_iter().collect::<Result<_>>()?, &free)?;
        Ok(Self { free: cluster.pod_network(SERVERS, "free")?, servers, arrivals })
    }

    /// Changes policies and labels, as happens all day: none of it concerns what pods may do that start.
    fn churn(&self, cluster: &Cluster, group: usize) -> Result<()> {
        let label = format!("round-{}", group % 3);
        let to = json!([{"namespaceSelector": {"matchLabels": {"churn": label}}}]);
        let kind = ["none", "isolated"][group % 2];
        let spec = json!({
            "podSelector": {"matchLabels": {"kind": kind}},
            "ingress": [{"from": to}],
            "egress": [{"to": to}],
        });
        pods::apply(cluster, &[policy(ISOLATED, "churn", &spec), policy(GUARDED, "churn", &spec)])?;
        let label = format!("churn={label}");
        cluster.kubectl(&["-n", SERVERS, "label", "pod", "free", "--overwrite", &label]).map(|_| ())
    }

    /// Starts pods of several kinds at once while another pod sends to them, and returns what each kind has seen. They are deleted while the next
    /// ones start.
    fn start(&self, cluster: &mut Cluster, kinds: &[(&str, Range<usize>)]) -> Result<Vec<Seen>> {
        let mut starting = Vec::new();
        for (namespace, numbers) in kinds {
            starting.extend(numbers.clone().map(|number| self.pod(namespace, number)));
        }
        let targets = flood::next_addresses(cluster, starting.len())?;
        let flood = flood::Flood::begin(&self.free, targets)?;
        let seen = pods::apply(cluster, &starting).and_then(|()| {
            let of =
                |(namespace, numbers): &(&str, Range<usize>)| finished(cluster, namespace, numbers.len());
            kinds.iter().map(of).collect::<Result<Vec<_>>>()
        });
        let sent = flood.end()?;
        let seen = seen?;
        ensure!(sent > 0, "no packet was sent to the pods");
        for (namespace, _) in kinds {
            cluster.kubectl(&[
                "-n",
                namespace,
                "delete",
                "pods",
                "--all",
                "--wait=false",
                "--grace-period=0",
            ])?;
        }
        Ok(seen)
    }

    fn pod(&self, namespace: &str, number: usize) -> Value {
        let (node, other) = (NODES[number % 2], NODES[(number + 1) % 2]);
        let of = if [ALLOWED, PATIENT].contains(&namespace) { GUARDED } else { SERVERS };
        let target = |name: &str, node: &str| {
            let addresses = self.servers.iter().find(|(at, _)| *at == (of, node)).map(|(_, a)| a);
            let texts: Vec<String> = addresses.into_iter().flatten().map(ToString::to_string).collect();
            format!("{name}={}", texts.join(","))
        };
        let container = |name: &str, patience: u64, targets: &[String]| {
            let words = [VERB.to_owned(), PORT.to_string(), patience.to_string()];
            let arguments = [words.as_slice(), targets].concat();
            json!({
                "name": name,
                "image": STARTER,
                "imagePullPolicy": "Never",
                "args": arguments,
                "terminationMessagePolicy": "FallbackToLogsOnError",
            })
        };
        let patience = if namespace == ISOLATED { 0 } else { PATIENCE };
        let before = (namespace == PATIENT).then(|| container("before", 0, &[]));
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": format!("pod-{number}"), "namespace": namespace, "labels": {"kind": "isolated"}},
            "spec": {
                "nodeName": node,
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 0,
                "initContainers": Vec::from_iter(before),
                "containers": [container("starter", patience, &[target("near", node), target("far", other)])],
            },
        })
    }
}

fn server(node: &str) -> String {
    format!("server-{node}")
}

fn policy(namespace: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    })
}

/// What the pods of a namespace have seen when all have ended by themselves: so many that are not being deleted.
fn finished(cluster: &mut Cluster, namespace: &str, count: usize) -> Result<Seen> {
    cluster.eventually(&format!("{count} pods of {namespace} have ended"), |cluster| {
        let pods = cluster.get(&["pods", "-n", namespace])?;
        let pods = pods["items"].as_array().cloned().unwrap_or_default();
        let current: Vec<&Value> =
            pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).collect();
        let mut seen = Seen::default();
        let mut waits = BTreeSet::new();
        for pod in &current {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            let message = pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"].as_str();
            match pod["status"]["phase"].as_str().unwrap_or_default() {
                "Succeeded" => {
                    let text = message.with_context(|| format!("pod {name} says nothing"))?;
                    seen.add(&serde_json::from_str(text).with_context(|| format!("pod {name}: {text}"))?);
                }
                "Failed" => bail!("pod {name} has failed: {:#}", pod["status"]),
                phase => _ = waits.insert(format!("{name} is {phase}")),
            }
        }
        let ended = waits.is_empty() && current.len() == count;
        Ok(if ended { Ok(seen) } else { Err(format!("{} pods; {waits:?}", current.len())) })
    })
}
