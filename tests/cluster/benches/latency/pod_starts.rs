//! How long pods wait for the agent when they start.

use std::{
    collections::BTreeMap,
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use http::Request;
use palisade_cluster_tests::{World, control_plane, kubelet::PENDING};
use palisade_lab::namespace::Namespace;
use palisade_testkit::runtime::{Connected, Sandbox, field};
use serde_json::{Value, json};

use super::{inside, print};

/// Between two starts: the agent reviews connections after each, which takes as long as the node has many.
const PAUSE: Duration = Duration::from_millis(500);

/// How long the agent has to hear of a pod from the API server, as it has while a runtime makes the sandbox.
const SANDBOX_TIME: Duration = Duration::from_millis(50);

/// Several policies select each pod. They allow hundreds of peers that no other pod of the node needs, so each start programs all of them.
fn labels(round: usize) -> [(&'static str, &'static str); 1] {
    [("app", ["app-0", "app-10"][round % 2])]
}

fn addresses(network: usize, round: usize) -> [String; 2] {
    let (high, low) = (round / 250, round % 250 + 1);
    [format!("10.{network}.{high}.{low}"), format!("fd00:{network}::{:x}", round + 1)]
}

/// Measures both ways by which a runtime announces a pod: NRI, from its request to the answer, and the chained plugin, from its start to its end.
pub(super) fn measure(
    world: &mut World,
    runtime: &mut Connected,
    at: (&Namespace, &Path),
    rounds: usize,
) -> Result<()> {
    print("by NRI", &mut by_nri(runtime, rounds)?);
    print("by CNI: the plugin's whole call", &mut by_cni(world, at, rounds)?);
    Ok(())
}

fn by_nri(runtime: &mut Connected, rounds: usize) -> Result<Vec<Duration>> {
    let mut waited = Vec::new();
    for round in 0..rounds {
        let (name, uid, [v4, v6]) =
            (format!("starting-{round}"), format!("{round:032x}"), addresses(33, round));
        let sandbox = Sandbox {
            pod: ("crowd-0", &name),
            uid: &uid,
            labels: &labels(round),
            network_namespace: "/run/netns/none",
            addresses: &[&v4, &v6],
        };
        let sandbox = sandbox.encode();
        waited.push(runtime.start(&sandbox)?);
        thread::sleep(PAUSE);
        runtime.call("StopPodSandbox", &field(1, sandbox))?.map_err(|e| anyhow::anyhow!(e))?;
    }
    Ok(waited)
}

/// The plugin is not told of labels, so the API server has each pod before.
fn by_cni(world: &mut World, at: (&Namespace, &Path), rounds: usize) -> Result<Vec<Duration>> {
    const PODS: &str = "/api/v1/namespaces/crowd-0/pods";
    let (program, socket) = (world.programs().palisade().to_owned(), world.agent("w2")?.socket().to_owned());
    inside(at.0, async || {
        let client = control_plane::client(at.1).await?;
        let mut waited = Vec::new();
        for round in 0..rounds {
            let (name, [v4, v6]) = (format!("attached-{round}"), addresses(34, round));
            let pod = json!({
                "metadata": {"name": name, "labels": BTreeMap::from(labels(round)), "annotations": {PENDING: ""}},
                "spec": {"nodeName": "w2", "containers": [{"name": "main", "image": "example.com/none"}]},
            });
            let request = Request::post(PODS).header("Content-Type", "application/json");
            let created: Value = client.request(request.body(serde_json::to_vec(&pod)?)?).await?;
            let uid = created["metadata"]["uid"].as_str().context("a pod without a UID")?;
            thread::sleep(SANDBOX_TIME);
            let call = |command: &str| plugin(&program, &socket, command, (&name, uid), &[&v4, &v6]);
            waited.push(call("ADD")?);
            thread::sleep(PAUSE);
            call("DEL")?;
            let path = format!("{PODS}/{name}?gracePeriodSeconds=0");
            client.request::<Value>(Request::delete(path).body(Vec::new())?).await?;
        }
        Ok(waited)
    })
}

/// Runs the plugin as a runtime does. Returns how long it took.
fn plugin(
    program: &Path,
    socket: &Path,
    command: &str,
    (name, uid): (&str, &str),
    addresses: &[&str; 2],
) -> Result<Duration> {
    let [v4, v6] = addresses;
    let input = json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "type": "palisade-cni",
        "socket": socket,
        "timeoutMilliseconds": 5000,
        "prevResult": {
            "cniVersion": "1.0.0",
            "interfaces": [{"name": "eth0", "sandbox": "/run/netns/none"}],
            "ips": [{"address": format!("{v4}/24"), "interface": 0}, {"address": format!("{v6}/64"), "interface": 0}],
        },
    });
    let arguments = format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=crowd-0;K8S_POD_NAME={name};K8S_POD_INFRA_CONTAINER_ID={uid};K8S_POD_UID={uid}"
    );
    let mut plugin = Command::new(program);
    // The agent installs a copy with this name.
    plugin.arg0("palisade-cni").env_clear().env("CNI_COMMAND", command).env("CNI_CONTAINERID", uid);
    plugin.env("CNI_NETNS", "/run/netns/none").env("CNI_IFNAME", "eth0").env("CNI_PATH", "/opt/cni/bin");
    plugin.env("CNI_ARGS", arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let begin = Instant::now();
    let mut child = plugin.spawn()?;
    child.stdin.take().context("no standard input")?.write_all(input.to_string().as_bytes())?;
    let output = child.wait_with_output()?;
    let took = begin.elapsed();
    ensure!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stdout));
    Ok(took)
}
