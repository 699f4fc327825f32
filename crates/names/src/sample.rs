//! A small cluster for the tests of this crate.

use palisade_policy::{
    Cluster, ContainerPort, Labels, Namespace, Node, ObjectKey, Pod, Protocol, Selector, Service,
    ServicePort, TargetPort, Workload,
};

pub(crate) fn pod(namespace: &str, name: &str, workload: Option<(&str, &str)>, address: &str) -> Pod {
    let labels = Labels::from_iter([("app", workload.map_or(name, |w| w.1))]);
    Pod {
        node: Some("n1".into()),
        ports: vec![ContainerPort {
            name: Some("http".into()),
            protocol: Protocol::Tcp,
            port: 8080,
            host_port: None,
        }]
        .into(),
        workload: workload.map(|(kind, name)| Workload { kind: kind.into(), name: name.into() }),
        ..Pod::new(ObjectKey::new(namespace, name), labels, vec![address.parse().unwrap()])
    }
}

pub(crate) fn cluster() -> Cluster {
    let mut c = Cluster::default();
    for ns in ["shop", "default"] {
        c.namespaces.insert(ns.into(), Namespace::new(ns, &Labels::default()));
    }
    let pods = [
        pod("shop", "web-1", Some(("Deployment", "web")), "10.0.0.1"),
        pod("shop", "web-2", Some(("Deployment", "web")), "10.0.0.2"),
        pod("shop", "db-0", Some(("StatefulSet", "db")), "10.0.0.3"),
        pod("shop", "twice-0", Some(("StatefulSet", "twice")), "10.0.0.4"),
        pod("shop", "twice-1", Some(("Deployment", "twice")), "10.0.0.5"),
        pod("shop", "alone", None, "10.0.0.6"),
    ];
    for p in pods {
        c.pods.insert(p);
    }
    let node = Node {
        name: "n1".into(),
        labels: Labels::default(),
        addresses: vec!["192.0.2.1".parse().unwrap()],
        pod_cidrs: Vec::new(),
    };
    c.nodes.insert("n1".into(), node);
    c
}

pub(crate) fn service(target: TargetPort, selector: Option<Selector>) -> Service {
    let port =
        ServicePort { name: Some("main".into()), protocol: Protocol::Tcp, port: 80, target, node_port: None };
    Service { selector, ports: vec![port], ..Service::new(ObjectKey::new("shop", "web")) }
}
