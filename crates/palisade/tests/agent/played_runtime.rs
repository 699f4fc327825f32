//! A container runtime that is played, and an agent as its plugin.

use std::{
    collections::BTreeSet,
    io::{ErrorKind, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    time::Duration,
};

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
/// A port of the database to which its policy in [`ready`] allows connections, and to which nothing listens.
pub(crate) const FREE_PORT: u16 = 5433;
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
    let stage = Stage::new();
    without_database(&stage);
    let also_free = format!("ports: [{{port: {FREE_PORT}}}, ");
    stage.write("policy.yaml", &policy("web").replace("ports: [", &also_free));
    let runtime = offer(&stage);
    let agent = agent(&stage, &runtime, words);
    let connected = accept(&runtime, &[]);
    agent.until("agent is ready");
    (stage, runtime, agent, connected)
}

/// The connections of node n1 to the database that are of the pod that its policy denies.
pub(crate) fn denied_entries(kernel: &mut Kernel) -> Vec<ConntrackEntry> {
    let database = DB.parse().unwrap();
    let mut entries = conntrack::list(kernel, &BTreeSet::from([database])).unwrap();
    entries.retain(|c| c.destination == database && c.source.to_string() == OTHER);
    entries
}

/// A TCP connection from one pod to a port of another, whose two ends are in this process.
pub(crate) struct Stream {
    client: TcpStream,
    server: TcpStream,
}

impl Stream {
    /// Opens it, to a port to which nothing else listens.
    pub(crate) fn open(stage: &Stage, from: &str, to: (&str, &str)) -> Self {
        Self::open_to_port(stage, from, to, 0)
    }

    /// Opens one that the database's policy allows.
    pub(crate) fn allowed(stage: &Stage) -> Self {
        Self::open_to_port(stage, "web", ("db", DB), FREE_PORT)
    }

    fn open_to_port(stage: &Stage, from: &str, (to, address): (&str, &str), port: u16) -> Self {
        let listener =
            stage.in_pod(&format!("shop/{to}")).run(|| TcpListener::bind((address, port)).unwrap());
        let at = listener.local_addr().unwrap();
        let client = stage.in_pod(&format!("shop/{from}")).run(|| TcpStream::connect(at).unwrap());
        Self { client, server: listener.accept().unwrap().0 }
    }

    /// Whether something that an end sends reaches the other one in this time. Both ends must agree.
    pub(crate) fn passes(&mut self, within: Duration) -> bool {
        let Self { client, server } = self;
        let passes = |from: &mut TcpStream, to: &mut TcpStream| {
            from.write_all(b"x").unwrap();
            to.set_read_timeout(Some(within)).unwrap();
            to.read_exact(&mut [0]).is_ok()
        };
        let [there, back] = [passes(client, server), passes(server, client)];
        assert_eq!(there, back, "it passes in one direction only");
        there
    }
}
