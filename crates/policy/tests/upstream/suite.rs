//! The suite's cluster, and what is expected of it.

use std::{net::IpAddr, sync::Arc};

use palisade_policy::{
    Change, Cluster, Compiler, ContainerPort, Endpoint, Family, Flow, Labels, Namespace, NodePlan, ObjectKey,
    Phase, Pod, Policy, PolicyKey, Protocol,
};

use crate::support::{plans, unanimous};

const NAMESPACES: [&str; 3] = ["x", "y", "z"];
const PODS: [&str; 3] = ["a", "b", "c"];
const NODES: [&str; 2] = ["n1", "n2"];

/// The suite's cluster, with a compiler for each node that gets all changes.
pub(crate) struct Suite {
    pub(crate) cluster: Cluster,
    pub(crate) compilers: Vec<Compiler>,
}

/// A pod, a namespace (`x/`) or everything (``), in the suite's notation.
fn covers(pattern: &str, pod: &ObjectKey) -> bool {
    pattern.is_empty() || pattern == format!("{}/", pod.namespace) || pattern == pod.to_string()
}

pub(crate) fn address(namespace: usize, pod: usize, family: Family) -> IpAddr {
    let (namespace, pod) = (namespace as u8 + 1, pod as u8 + 1);
    match family {
        Family::V4 => IpAddr::from([10, 244, namespace, pod]),
        Family::V6 => IpAddr::from([0xfd00, 0x10, 0, 0, 0, 0, namespace.into(), pod.into()]),
    }
}

impl Suite {
    pub(crate) fn new() -> Self {
        let mut cluster = Cluster::default();
        let serve = |port, protocol: Protocol| ContainerPort {
            name: Some(format!("serve-{port}-{}", protocol.to_string().to_lowercase()).into()),
            protocol,
            port,
            host_port: None,
        };
        let ports: Arc<[ContainerPort]> =
            [80, 81].into_iter().flat_map(|port| Protocol::WITH_PORTS.map(|p| serve(port, p))).collect();
        for (n, namespace) in NAMESPACES.into_iter().enumerate() {
            let labels = Labels::from_iter([("ns", namespace)]);
            cluster.apply(Change::SetNamespace(Namespace::new(namespace, &labels)));
            for (p, pod) in PODS.into_iter().enumerate() {
                cluster.apply(Change::SetPod(Pod {
                    key: ObjectKey::new(namespace, pod),
                    labels: Labels::from_iter([("pod", pod)]),
                    addresses: Family::BOTH.map(|family| address(n, p, family)).to_vec(),
                    node: Some(NODES[(n + p) % 2].into()),
                    host_network: false,
                    phase: Phase::Running,
                    ports: ports.clone(),
                    created: 0,
                    uid: palisade_policy::Uid::UNKNOWN,
                    workload: None,
                    allow_source: Default::default(),
                }));
            }
        }
        let compilers = NODES.map(|node| Compiler::from_cluster(node.into(), &cluster)).to_vec();
        Self { cluster, compilers }
    }

    pub(crate) fn with(policies: impl IntoIterator<Item = Policy>) -> Self {
        let mut suite = Self::new();
        policies.into_iter().for_each(|p| suite.set(p));
        suite
    }

    pub(crate) fn apply(&mut self, change: Change) {
        self.compilers.iter_mut().for_each(|c| drop(c.apply(change.clone())));
        self.cluster.apply(change);
    }

    pub(crate) fn set(&mut self, policy: Policy) {
        self.apply(Change::SetPolicy(policy.into()));
    }

    pub(crate) fn remove(&mut self, namespace: &str, name: &str) {
        self.apply(Change::RemovePolicy(PolicyKey::network_policy(namespace, name)));
    }

    pub(crate) fn label_pod(&mut self, namespace: &str, pod: &str, labels: &[(&str, &str)]) {
        let mut changed = self.cluster.pods[&ObjectKey::new(namespace, pod)].clone();
        changed.labels = labels.iter().copied().collect();
        self.apply(Change::SetPod(changed));
    }

    pub(crate) fn label_namespace(&mut self, name: &str, labels: &[(&str, &str)]) {
        let labels: Labels = labels.iter().copied().collect();
        self.apply(Change::SetNamespace(Namespace::new(name, &labels)));
    }

    /// Decides every pair. `expected` overrides "everything is allowed" by pair patterns, of which the last match
    /// counts. A pod can always reach itself.
    pub(crate) fn expect(&self, protocol: Protocol, port: u16, expected: &[(&str, &str, bool)]) {
        let plans = plans(&self.cluster);
        for compiler in &self.compilers {
            let scratch = plans.get(compiler.node()).cloned().unwrap_or_else(NodePlan::default);
            assert!(*compiler.plan() == scratch, "{}: the incremental plan differs", compiler.node());
        }
        for source in self.cluster.pods.values() {
            for destination in self.cluster.pods.values() {
                let last = expected
                    .iter()
                    .rev()
                    .find(|(s, d, _)| covers(s, &source.key) && covers(d, &destination.key));
                let wanted = source.key == destination.key || last.is_none_or(|(_, _, pass)| *pass);
                for family in Family::BOTH {
                    let end = |p: &Pod| Endpoint::Pod {
                        key: p.key.clone(),
                        address: p.address(family).expect("every pod has both families"),
                    };
                    // The suite probes the service of the destination.
                    let (source, destination) = (end(source), end(destination));
                    let flow = Flow { source, destination, protocol, port, through_service: true };
                    let (egress, ingress) =
                        unanimous(&self.cluster, &plans, &flow).unwrap_or_else(|wrong| panic!("{wrong}"));
                    assert_eq!(
                        egress && ingress,
                        wanted,
                        "{} -> {} {port}/{protocol}",
                        flow.source,
                        flow.destination
                    );
                }
            }
        }
    }
}
