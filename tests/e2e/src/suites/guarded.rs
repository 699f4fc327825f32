//! A server that one pod may reach, and another one may not: what the suites watch while something happens to the agents.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use palisade_netns::namespace::Namespace;
use palisade_policy::Protocol;
use serde_json::json;

use crate::{
    Cluster,
    pods::{self, PORT},
    probe::{self, Backend, Probe},
    traffic::{Kind, Traffic},
};

const NAME: &str = "guarded";
const SERVERS: [(&str, &str); 2] = [("server-1", "n1"), ("server-2", "n2")];
/// The first one is admitted.
const CLIENTS: [(&str, &str, &str); 2] = [("friend", "n1", "friend"), ("stranger", "n2", "none")];

/// The pods.
pub(super) struct Guarded {
    servers: Vec<(String, [IpAddr; 2])>,
    clients: Vec<(String, [IpAddr; 2], Namespace)>,
}

impl Guarded {
    /// Creates them, with their policy.
    pub(super) fn create(cluster: &Cluster) -> Result<Self> {
        let policy = json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "servers", "namespace": NAME},
            "spec": {
                "podSelector": {"matchLabels": {"app": "server"}},
                "ingress": [{"from": [{"podSelector": {"matchLabels": {"role": "friend"}}}]}],
            },
        });
        let mut objects = vec![pods::namespace(NAME), policy];
        objects.extend(SERVERS.map(|(name, node)| pods::server(NAME, name, node, &[("app", "server")])));
        objects.extend(CLIENTS.map(|(name, node, role)| pods::server(NAME, name, node, &[("role", role)])));
        pods::apply(cluster, &objects)?;
        pods::wait_ready(cluster, NAME)?;
        let server = |(name, _): (&str, &str)| Ok((name.to_owned(), pods::addresses(cluster, NAME, name)?));
        let client = |(name, _, _): (&str, &str, &str)| {
            Ok((name.to_owned(), pods::addresses(cluster, NAME, name)?, cluster.pod_network(NAME, name)?))
        };
        Ok(Self {
            servers: SERVERS.into_iter().map(server).collect::<Result<_>>()?,
            clients: CLIENTS.into_iter().map(client).collect::<Result<_>>()?,
        })
    }

    /// Removes them.
    pub(super) fn delete(self, cluster: &Cluster) -> Result<()> {
        cluster.delete_namespaces(&[NAME])
    }

    fn probes(&self) -> Result<Vec<Probe>> {
        let mut probes = Vec::new();
        for (client, client_addresses, network) in &self.clients {
            for (server, addresses) in &self.servers {
                for family in [0, 1] {
                    for protocol in [Protocol::Tcp, Protocol::Udp] {
                        let to = SocketAddr::new(addresses[family], PORT);
                        let backend = Backend {
                            name: server.clone(),
                            address: to.ip(),
                            port: PORT,
                            client: client_addresses[family],
                        };
                        probes.push(Probe {
                            what: format!("{client} → {server} ({to}/{protocol})"),
                            from: network.try_clone()?,
                            source: None,
                            to,
                            protocol,
                            backends: vec![backend],
                        });
                    }
                }
            }
        }
        Ok(probes)
    }

    /// Fails unless packets and engine agree, and something is denied.
    pub(super) fn enforced(&self, cluster: &Cluster, what: &str) -> Result<()> {
        let counts = probe::agree(cluster, what, &self.probes()?)?;
        ensure!(
            counts.open * 2 == counts.probes,
            "half of the ways are open, says the policy, but {counts:?}"
        );
        Ok(())
    }

    /// Fails unless everything passes, whatever policies say.
    pub(super) fn all_open(&self, cluster: &Cluster, what: &str) -> Result<()> {
        let mut objects = cluster.objects()?;
        objects.policies.clear();
        probe::agree_with(&objects, what, &self.probes()?).map(|_| ())
    }

    /// Begins traffic of all kinds, in both families.
    pub(super) fn traffic(&self) -> Result<Traffic> {
        let mut traffic = Traffic::default();
        for (server, addresses) in &self.servers {
            for address in addresses {
                let to = SocketAddr::new(*address, PORT);
                for (client, _, network) in &self.clients {
                    let kinds = if client == CLIENTS[0].0 {
                        [Kind::Kept, Kind::Opened]
                    } else {
                        [Kind::RefusedTcp, Kind::RefusedUdp]
                    };
                    for kind in kinds {
                        traffic.begin(&format!("{client} → {server}"), kind, network, to)?;
                    }
                }
            }
        }
        Ok(traffic)
    }
}
