//! Random namespaces, nodes, services and pods.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use fastrand::Rng;

use super::{
    Style,
    policy::selector,
    vocabulary::{
        ADDRESSES_PER_NODE, LABEL_KEYS, LABEL_VALUES, NAMESPACES, PORT_NAMES, PORT_NUMBERS, namespace_name,
        node_address, node_name, one_in, pick, pod_address,
    },
};
use palisade_policy::{
    Cluster, ContainerPort, Deny, Family, Labels, Namespace, Node, ObjectKey, Phase, Pod, Protocol, Service,
    ServicePort, TargetPort, Workload,
};

/// Each key is present with probability 2/3.
pub(super) fn labels(rng: &mut Rng) -> Labels {
    let mut pairs = Vec::new();
    for key in LABEL_KEYS {
        if !one_in(rng, 3) {
            pairs.push((key, pick(rng, &LABEL_VALUES)));
        }
    }
    pairs.into_iter().collect()
}

pub(super) fn namespace(rng: &mut Rng, index: usize) -> Namespace {
    let labels = if one_in(rng, 4) { Labels::default() } else { labels(rng) };
    denying(Namespace::new(NAMESPACES[index % NAMESPACES.len()], &labels))
}

/// Returns the namespace with an annotation that follows from its labels, so that it takes nothing from the random numbers.
pub(super) fn denying(namespace: Namespace) -> Namespace {
    let deny = [None, Some(Deny::Reject), Some(Deny::Drop)];
    Namespace { deny: deny[namespace.labels.len() % deny.len()], ..namespace }
}

pub(super) fn node(rng: &mut Rng, index: usize) -> Node {
    let addresses = match rng.usize(..4) {
        0 => vec![node_address(index, Family::V4)],
        _ => Family::BOTH.map(|family| node_address(index, family)).to_vec(),
    };
    Node { name: node_name(index), labels: labels(rng), addresses, pod_cidrs: Vec::new() }
}

pub(super) fn service(rng: &mut Rng, cluster: &Cluster, index: usize) -> Service {
    let port = ServicePort {
        name: None,
        protocol: pick(rng, &Protocol::WITH_PORTS),
        port: pick(rng, &PORT_NUMBERS),
        target: if rng.bool() {
            TargetPort::Name(pick(rng, &PORT_NAMES).into())
        } else {
            TargetPort::Number(pick(rng, &PORT_NUMBERS))
        },
        node_port: None,
    };
    let namespace = namespace_name(rng, cluster.namespaces.len());
    Service {
        addresses: service_addresses(rng, index),
        selector: (!one_in(rng, 4)).then(|| selector(rng, false)),
        ports: vec![port],
        ..Service::new(ObjectKey::new(namespace, format!("s{index}")))
    }
}

/// IPv4, and with probability 1/2 IPv6 too.
fn service_addresses(rng: &mut Rng, index: usize) -> Vec<IpAddr> {
    let v4 = IpAddr::from([10, 96, 0, index as u8 + 10]);
    let v6 = IpAddr::from([0xfd00, 0x96, 0, 0, 0, 0, 0, index as u16 + 10]);
    if rng.bool() { vec![v4, v6] } else { vec![v4] }
}

/// Returns the pod with this number. Its addresses are from the range of its node, so that CIDRs can match nodes.
pub(super) fn pod(rng: &mut Rng, style: Style, cluster: &Cluster, index: usize) -> Pod {
    let nodes = cluster.nodes.len().max(1);
    let at = rng.usize(..nodes);
    let host_network = one_in(rng, 10);
    let strange = style.is_strange();
    let name = format!("p{index}");
    let workload = rng.bool().then(|| Workload { kind: "Deployment".into(), name: "web".into() });
    Pod {
        allow_source: Default::default(),
        key: ObjectKey::new(namespace_name(rng, cluster.namespaces.len()), name),
        labels: labels(rng),
        addresses: if host_network {
            cluster.nodes.get(&node_name(at)).map(|n| n.addresses.clone()).unwrap_or_default()
        } else {
            addresses(rng, style, cluster, at)
        },
        node: (!(strange && one_in(rng, 12))).then(|| node_name(at)),
        host_network,
        phase: phase(rng),
        ports: ports(rng),
        created: rng.i64(0..3),
        uid: palisade_policy::Uid::UNKNOWN,
        workload,
    }
}

/// Mostly running.
pub(super) fn phase(rng: &mut Rng) -> Phase {
    match rng.usize(..12) {
        0 => Phase::Pending,
        1 => Phase::Unknown,
        2 => Phase::Succeeded,
        3 => Phase::Failed,
        _ => Phase::Running,
    }
}

/// Returns addresses for a pod of the node with index `node`: both families, one, or rarely none.
///
/// A buildable pod gets addresses that no running pod has; those of finished pods may be reused.
pub(super) fn addresses(rng: &mut Rng, style: Style, cluster: &Cluster, node: usize) -> Vec<IpAddr> {
    let families: &[Family] = match rng.usize(..12) {
        0 if style.is_strange() => &[],
        0..=3 => &[Family::V4],
        4..=5 => &[Family::V6],
        _ => &Family::BOTH,
    };
    let taken: BTreeSet<IpAddr> = match style {
        _ if style.is_buildable() => {
            cluster.pods.values().filter(|p| p.is_running()).flat_map(|p| p.addresses.clone()).collect()
        }
        _ => BTreeSet::new(),
    };
    let mut host = rng.usize(..ADDRESSES_PER_NODE);
    while families.iter().any(|f| taken.contains(&pod_address(node, host, *f))) {
        host += 1;
    }
    // The host part may differ between the families: an address shared in one family is then not shared in the other.
    families
        .iter()
        .map(|family| {
            let other = rng.usize(..ADDRESSES_PER_NODE);
            let free = !taken.contains(&pod_address(node, other, *family));
            pod_address(node, if free && one_in(rng, 3) { other } else { host }, *family)
        })
        .collect()
}

/// Up to four declared ports. Names repeat within a pod and have other numbers on other pods.
pub(super) fn ports(rng: &mut Rng) -> Arc<[ContainerPort]> {
    (0..rng.usize(..=4))
        .map(|_| ContainerPort {
            name: (!one_in(rng, 5)).then(|| pick(rng, &PORT_NAMES).into()),
            protocol: if rng.bool() { Protocol::Tcp } else { pick(rng, &Protocol::WITH_PORTS) },
            port: pick(rng, &PORT_NUMBERS),
            host_port: None,
        })
        .collect()
}
