//! Clusters for the tests.

use std::sync::Arc;

use palisade_policy::{
    Action, Change, Cluster, ContainerPort, IpBlock, Labels, Name, Namespace, NamespaceMatch, ObjectKey,
    Peer, PeerEntry, Pod, PodMatch, Policy, PolicyKey, PortEntry, PortMatch, Protocol, Rule, Selector,
    Service, ServicePort, TargetPort, Tier,
};
use palisade_testkit::running_pod;

/// Returns a pod in namespace `x`, labeled `app=<name>`, with a TCP port `web` 80 and a UDP port `dns` 53.
pub(crate) fn pod(name: &str) -> Pod {
    let port = |name: &str, protocol, port| ContainerPort {
        name: Some(name.into()),
        protocol,
        port,
        host_port: None,
    };
    Pod {
        ports: Arc::new([port("web", Protocol::Tcp, 80), port("dns", Protocol::Udp, 53)]),
        ..running_pod("x", name)
    }
}

pub(crate) fn key(name: &str) -> ObjectKey {
    ObjectKey::new("x", name)
}

pub(crate) fn on(node: &str, pod: Pod) -> Pod {
    Pod { node: Some(node.into()), ..pod }
}

pub(crate) fn cluster(pods: impl IntoIterator<Item = Pod>) -> Cluster {
    let mut c = Cluster::default();
    c.apply(Change::SetNamespace(Namespace::new("x", &Labels::default())));
    pods.into_iter().for_each(|p| c.apply(Change::SetPod(p)));
    c
}

/// Returns a cluster with two pods on each of two nodes.
pub(crate) fn four() -> Cluster {
    cluster([on("n1", pod("a")), on("n1", pod("b")), on("n2", pod("c")), on("n2", pod("d"))])
}

/// Returns a service of the pods labeled `app=<app>`.
pub(crate) fn service(name: &str, app: &str, ports: &[(Protocol, u16, TargetPort)]) -> Service {
    let port = |(protocol, port, target): &(Protocol, u16, TargetPort)| ServicePort {
        name: None,
        protocol: *protocol,
        port: *port,
        target: target.clone(),
        node_port: None,
    };
    Service {
        selector: Some(Selector::of_labels([("app", app)])),
        ports: ports.iter().map(port).collect(),
        ..Service::new(key(name))
    }
}

pub(crate) fn named(name: &str) -> TargetPort {
    TargetPort::Name(name.into())
}

pub(crate) fn pods(app: &str) -> Peer {
    Peer::Pods(PodMatch {
        namespaces: NamespaceMatch::Named("x".into()),
        pods: Selector::of_labels([("app", app)]),
    })
}

pub(crate) fn block(cidr: &str, except: &[&str]) -> Peer {
    Peer::Block(IpBlock {
        cidr: cidr.parse().unwrap(),
        except: except.iter().map(|e| e.parse().unwrap()).collect(),
    })
}

pub(crate) fn ports(protocol: Protocol, first: u16, last: u16) -> PortMatch {
    PortMatch::Numbers { protocol, first, last }
}

pub(crate) fn rule(peers: Option<Vec<Peer>>, ports: Option<Vec<PortMatch>>) -> Rule {
    Rule {
        name: None,
        action: Action::Accept,
        peers: peers.map(|p| p.into_iter().map(|peer| PeerEntry { peer, origin: None }).collect()),
        ports: ports.map(|p| p.into_iter().map(|port| PortEntry { port, origin: None }).collect()),
        origin: None,
    }
}

/// Returns a policy that selects the pods labeled `app=<app>`.
pub(crate) fn policy(
    name: &str,
    app: &str,
    ingress: Option<Vec<Rule>>,
    egress: Option<Vec<Rule>>,
) -> Arc<Policy> {
    let namespace: Name = "x".into();
    Arc::new(Policy {
        key: PolicyKey::network_policy(namespace.clone(), name),
        tier: Tier::Developer,
        priority: 0,
        mode: None,
        subject: PodMatch {
            namespaces: NamespaceMatch::Named(namespace),
            pods: Selector::of_labels([("app", app)]),
        },
        ingress,
        egress,
        origin: None,
    })
}
