//! Workloads that gain or lose their way to DNS.
//!
//! Manifests of applications rarely hold the cluster's DNS servers. Where they don't, the usual server stands for them
//! ([`usual_dns_server`]), and only the policies of the workload decide. DNS servers outside count as well.

use std::{collections::BTreeSet, sync::Arc};

use palisade_names::{DNS_PORT, dns_servers, usual_dns_server};
use palisade_policy::{
    Cluster, ContainerPort, Deciding, Direction, Endpoint, Family, Labels, Namespace, Pod, PortSet, Protocol,
    Traffic, walk::walk,
};

use super::{causes::CauseFinder, change::DnsChange};
use crate::{
    classes::Classes, connections::Connections, end::ConnectionEnd, hypothetical::unheld_address,
    matching::MatchedEnd,
};

/// Returns the workloads that reach DNS servers over UDP on one side only.
pub(super) fn dns_changes(
    finder: &CauseFinder<'_>,
    answers: &[Connections; 2],
    ends: &[MatchedEnd],
) -> Vec<DnsChange> {
    let servers = [0, 1].map(|side: usize| Servers::new(finder.clusters[side], &answers[side]));
    let mut out = Vec::new();
    for end in ends {
        let (ConnectionEnd::Workload(_), [Some(before), Some(after)]) = (&end.end, end.at) else { continue };
        let reaches = |side: usize, at: usize| servers[side].are_reached_by(finder, side, at, &end.end);
        if let (Some(before), Some(after)) = (reaches(0, before), reaches(1, after))
            && before != after
        {
            out.push(DnsChange { end: end.end.clone(), opened: after });
        }
    }
    out
}

/// The DNS servers of one side.
struct Servers<'c> {
    cluster: &'c Cluster,
    answer: &'c Connections,
    /// The ends that are DNS servers, as indexes, and their ports.
    ends: BTreeSet<(usize, u16)>,
    /// Addresses for a server that is not in the cluster.
    addresses: [std::net::IpAddr; 2],
}

impl<'c> Servers<'c> {
    fn new(cluster: &'c Cluster, answer: &'c Connections) -> Self {
        let servers = dns_servers(cluster);
        let port = |end: &ConnectionEnd| {
            let server = servers.iter().find(|server| end.is_pods() && end.holds_pod(&server.pod.key));
            server.map(|server| server.port)
        };
        let ends = answer.ends().enumerate().filter_map(|(at, end)| Some((at, port(end)?))).collect();
        let space = Classes::new(cluster, &[]).space;
        Self { cluster, answer, ends, addresses: Family::BOTH.map(|family| unheld_address(&space, family)) }
    }

    /// Returns whether an end can reach DNS; `None` if it is not known, because the end has no address.
    fn are_reached_by(
        &self,
        finder: &CauseFinder<'_>,
        side: usize,
        at: usize,
        end: &ConnectionEnd,
    ) -> Option<bool> {
        // A server resolves names itself.
        if self.ends.iter().any(|(server, _)| *server == at) {
            return None;
        }
        let asks =
            |to, port| self.answer.between(at, to).any(|edge| edge.traffic.contains(Protocol::Udp, port));
        // Addresses outside to which everything may go are no sign of DNS, unless the internet's servers are among them.
        let is_dns = |to: usize, end: &ConnectionEnd| {
            let only = |edge: crate::Edge<'_>| edge.traffic.difference(&dns_traffic()).is_none();
            asks(to, DNS_PORT) && (end.is_internet() || self.answer.between(at, to).all(only))
        };
        let external = || {
            let ends = self.answer.ends().enumerate();
            ends.filter(|(_, end)| matches!(end, ConnectionEnd::External(_))).any(|(to, end)| is_dns(to, end))
        };
        if !self.ends.is_empty() {
            return Some(self.ends.iter().any(|(to, port)| asks(*to, *port)) || external());
        }
        let source = Family::BOTH.into_iter().find_map(|f| finder.representatives[side].of(end, f).next())?;
        Some(self.reaches_unseen(&source)? || external())
    }

    /// Returns whether a pod may ask servers that are not in the cluster, by its own policies.
    fn reaches_unseen(&self, source: &Endpoint) -> Option<bool> {
        let Endpoint::Pod { key, address } = source else { return None };
        let pod = self.cluster.pods.get_shared(key)?;
        let labels = self.cluster.namespaces.get(&key.namespace).map(|n| &n.labels);
        let mut cluster = Cluster::default();
        for policy in self.cluster.deciding(Deciding::Enforced) {
            if policy.egress.is_some() && policy.subject.matches(&key.namespace, labels, &pod.labels) {
                cluster.policies.insert(policy.key.clone(), Arc::clone(policy));
            }
        }
        let family = Family::of(*address);
        let at = self.addresses[usize::from(family == Family::V6)];
        let port = |name: &str, protocol| ContainerPort {
            name: Some(name.into()),
            protocol,
            port: DNS_PORT,
            host_port: None,
        };
        let ports = [port("dns", Protocol::Udp), port("dns-tcp", Protocol::Tcp)].into();
        let server = Pod { ports, addresses: vec![at], ..usual_dns_server() };
        let home = &server.key.namespace;
        let known = self.cluster.namespaces.get(home).cloned();
        let namespace = known.unwrap_or_else(|| Namespace::new(home.clone(), &Labels::default()));
        cluster.namespaces.insert(namespace.name.clone(), namespace);
        let target = Endpoint::Pod { key: server.key.clone(), address: at };
        cluster.pods.insert(server);
        cluster.pods.insert(Arc::clone(pod));
        let own = self.cluster.namespaces.get(&key.namespace);
        cluster.namespaces.extend(own.map(|n| (n.name.clone(), n.clone())));
        let scope = Traffic::of(Protocol::Udp, PortSet::range(DNS_PORT, DNS_PORT));
        Some(!walk(&cluster, source, &target, false, Direction::Egress, &scope).allowed().is_none())
    }
}

/// Port 53 of both protocols.
fn dns_traffic() -> Traffic {
    let port = || PortSet::range(DNS_PORT, DNS_PORT);
    Traffic::of(Protocol::Udp, port()).union(&Traffic::of(Protocol::Tcp, port()))
}
