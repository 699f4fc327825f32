//! Isolated pods: only the kubelet of their own node reaches them, and its probes keep passing.

use std::{net::SocketAddr, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use palisade_policy::Protocol;
use serde_json::json;

use crate::{
    Cluster,
    pods::{self, PORT},
    probe::{self, Backend, Probe},
    progress::say,
    suites,
};

const NAME: &str = "isolated";
const PODS: [(&str, &str); 2] = [("isolated-1", "n1"), ("isolated-2", "n2")];
/// How long the pods are watched: several periods of every probe.
const WATCHED: Duration = Duration::from_secs(15);

/// Runs the suite.
pub(super) fn run(cluster: &mut Cluster) -> Result<()> {
    suites::install_palisade(cluster)?;
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "nothing", "namespace": NAME},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
    });
    let mut objects = vec![pods::namespace(NAME), policy];
    objects.extend(PODS.map(|(name, node)| {
        let mut pod = pods::server(NAME, name, node, &[("app", "isolated")]);
        // A probe that fails once restarts the container, and the suite sees that.
        let container = &mut pod["spec"]["containers"][0];
        container["livenessProbe"] = json!({
            "tcpSocket": {"port": PORT}, "periodSeconds": 1, "timeoutSeconds": 20, "failureThreshold": 1, "initialDelaySeconds": 2,
        });
        container["startupProbe"] = json!({
            "httpGet": {"path": "/hostname", "port": PORT}, "periodSeconds": 1, "timeoutSeconds": 10, "failureThreshold": 60,
        });
        pod
    }));
    pods::apply(cluster, &objects)?;
    pods::wait_ready(cluster, NAME)?;
    let counts =
        probe::agree(cluster, "isolated pods, from each other and from the nodes", &probes(cluster)?)?;
    ensure!(
        counts.open > 0 && counts.open < counts.probes,
        "only the pods' own nodes reach them, but {counts:?}"
    );
    thread::sleep(WATCHED);
    let pods = cluster.get(&["pods", "-n", NAME])?;
    for pod in pods["items"].as_array().context("no list of pods")? {
        let status = &pod["status"]["containerStatuses"][0];
        ensure!(
            status["ready"] == json!(true) && status["restartCount"] == json!(0),
            "a probe of {} has failed: {status:#}",
            pod["metadata"]["name"]
        );
    }
    say(&format!(
        "isolated pods are ready after {} s of probes over HTTP and TCP, never restarted",
        WATCHED.as_secs()
    ));
    cluster.delete_namespaces(&[NAME])
}

fn probes(cluster: &Cluster) -> Result<Vec<Probe>> {
    let mut clients = Vec::new();
    for (name, _) in PODS {
        clients.push((name, pods::addresses(cluster, NAME, name)?, cluster.pod_network(NAME, name)?));
    }
    for node in cluster.nodes() {
        clients.push((node.name(), node.addresses(), node.network().try_clone()?));
    }
    let mut probes = Vec::new();
    for (server, _) in PODS {
        let addresses = pods::addresses(cluster, NAME, server)?;
        for (client, client_addresses, network) in clients.iter().filter(|c| c.0 != server) {
            for family in [0, 1] {
                let to = SocketAddr::new(addresses[family], PORT);
                let client_address = client_addresses[family];
                let backend =
                    Backend { name: server.to_owned(), address: to.ip(), port: PORT, client: client_address };
                probes.push(Probe {
                    what: format!("{client} → {server} ({to})"),
                    from: network.try_clone()?,
                    source: None,
                    to,
                    protocol: Protocol::Tcp,
                    backends: vec![backend],
                });
            }
        }
    }
    Ok(probes)
}
