//! A container runtime that is played, and an agent as its plugin.

use std::{collections::BTreeSet, io::ErrorKind};

use palisade_nft::{
    Kernel,
    conntrack::{self, ConntrackEntry},
};
use palisade_testkit::runtime::{Connected, Offered, Sandbox};

use crate::stage::{PATIENCE, Running, Stage, policy};

pub(crate) fn offer(stage: &Stage) -> Offered {
    let path = stage.dir.path().join("nri.sock");
    _ = std::fs::remove_file(&path);
    Offered::at(&path).unwrap()
}

/// Accepts the agent. One that has been stopped may have left connections that wait.
pub(crate) fn accept(runtime: &Offered, sandboxes: &[Vec<u8>]) -> Connected {
    let is_left =
        |kind| matches!(kind, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof);
    loop {
        match runtime.accept(sandboxes, PATIENCE) {
            Err(error) if is_left(error.kind()) => {}
            other => return other.unwrap(),
        }
    }
}

/// A sandbox of a pod in the namespace `shop`.
pub(crate) fn sandbox(name: &str, address: &str) -> Vec<u8> {
    described(name, "/run/netns/x", &[address])
}

/// The same as runtimes before NRI 0.8 describe it, with the path of its network namespace.
pub(crate) fn sandbox_without_addresses(name: &str, namespace: &str) -> Vec<u8> {
    described(name, namespace, &[])
}

pub(crate) fn described(name: &str, network_namespace: &str, addresses: &[&str]) -> Vec<u8> {
    let labels = &[("app", name)];
    Sandbox { pod: ("shop", name), uid: UID, labels, network_namespace, addresses }.encode()
}

/// The pods' UID, as the kubelet writes that of a static pod.
pub(crate) const UID: &str = "0e5f0d7c5b434d3c9f2c0123456789ab";

pub(crate) const DB: &str = "10.244.7.1";
pub(crate) const OTHER: &str = "10.244.7.3";

/// The lab's pods except for the database, of which the API server doesn't know yet.
pub(crate) fn without_database(stage: &Stage) {
    let pods = std::fs::read_to_string(stage.manifests().join("pods.yaml")).unwrap();
    let documents = pods.split("---\n").filter(|document| !document.contains("name: db,"));
    stage.write("pods.yaml", &documents.collect::<Vec<_>>().join("---\n"));
}

pub(crate) fn agent(stage: &Stage, runtime: &Offered, words: &[&str]) -> Running {
    stage.agent(&[&["--nri=on", &runtime.option(), "--log-level=debug"], words].concat())
}

/// A stage with a policy that selects the database, of which the API server doesn't know yet, and with an agent that is ready.
pub(crate) fn ready(words: &[&str]) -> (Stage, Offered, Running, Connected) {
    ready_with("containerd", words)
}

/// The same with another runtime.
pub(crate) fn ready_with(runtime: &'static str, words: &[&str]) -> (Stage, Offered, Running, Connected) {
    let stage = Stage::new();
    without_database(&stage);
    stage.write("policy.yaml", &policy("web"));
    let runtime = offer(&stage).named(runtime);
    let agent = agent(&stage, &runtime, words);
    let connected = accept(&runtime, &[]);
    agent.until("agent is ready");
    (stage, runtime, agent, connected)
}

/// A connection that stays open until this is dropped.
pub(crate) fn connection(stage: &Stage, from: &str, to: &str) -> Running {
    let mut command = crate::stage::palisade(stage.dir.path());
    let script = format!("exec 3<>/dev/tcp/{to} && echo connected && exec sleep 600");
    command.args(["lab", "exec", &format!("shop/{from}"), "--", "bash", "-c", &script]);
    let running = Running::of(&mut command);
    running.until("connected");
    running
}

/// The connections of node n1 to the database that are of the pod that its policy denies.
pub(crate) fn denied_entries(kernel: &mut Kernel) -> Vec<ConntrackEntry> {
    let database = DB.parse().unwrap();
    let mut entries = conntrack::list(kernel, &BTreeSet::from([database])).unwrap();
    entries.retain(|c| c.destination == database && c.source.to_string() == OTHER);
    entries
}
