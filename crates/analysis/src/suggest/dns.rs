//! Rules for DNS: who answers, and on which ports.

use std::collections::{BTreeMap, BTreeSet};

use palisade_names::{DNS_PORT, usual_dns_server};
use palisade_policy::{
    NAMESPACE_NAME_LABEL, Name, NamespaceMatch, ObjectKey, Peer, PodMatch, PortMatch, Protocol, Selector,
};

use super::groups::Groups;

/// Returns the ports of DNS servers, by UDP and TCP: those that were seen, else the usual one.
pub(super) fn dns_ports(ports: &BTreeSet<u16>) -> Vec<PortMatch> {
    let usual = BTreeSet::from([DNS_PORT]);
    let ports = if ports.is_empty() { &usual } else { ports };
    let of =
        |protocol| ports.iter().map(move |&port| PortMatch::Numbers { protocol, first: port, last: port });
    [Protocol::Udp, Protocol::Tcp].into_iter().flat_map(of).collect()
}

/// Returns DNS servers as peers of a policy in the namespace `home`.
pub(super) fn server_peers(servers: &BTreeSet<ObjectKey>, home: &Name, groups: &Groups<'_>) -> Vec<Peer> {
    let mut by_namespace: BTreeMap<&Name, BTreeSet<ObjectKey>> = BTreeMap::new();
    for key in servers {
        by_namespace.entry(&key.namespace).or_default().insert(key.clone());
    }
    by_namespace.values().filter_map(|pods| groups.selectors().pods(pods, home)).map(Peer::Pods).collect()
}

/// The labels of DNS servers in most clusters.
pub(super) fn usual_peer(home: &Name) -> Peer {
    let server = usual_dns_server();
    let namespace = server.key.namespace;
    let namespaces = if namespace == *home {
        NamespaceMatch::Named(namespace)
    } else {
        NamespaceMatch::Selected(Selector::of_labels([(NAMESPACE_NAME_LABEL, &*namespace)]))
    };
    let pods = Selector::of_labels(server.labels.iter().map(|(key, value)| (&**key, &**value)));
    Peer::Pods(PodMatch { namespaces, pods })
}
