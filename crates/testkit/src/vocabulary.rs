//! The few words and addresses of random clusters. They are few, so that they collide.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fastrand::Rng;

use palisade_policy::{Family, Name};

/// Addresses of hosts outside the cluster, around which CIDRs are cut.
pub const EXTERNALS: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7)),
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 2)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 9)),
];

/// Label keys of pods, namespaces and nodes.
pub(super) const LABEL_KEYS: [&str; 3] = ["app", "team", "tier"];
/// Label values.
pub(super) const LABEL_VALUES: [&str; 3] = ["", "a", "b"];
/// Values in selectors: one more than labels have.
pub(super) const SELECTED_VALUES: [&str; 4] = ["", "a", "b", "none"];
/// Namespaces, declared in this order.
pub(super) const NAMESPACES: [&str; 6] = ["x", "y", "z", "u", "v", "w"];
/// A namespace of pods and policies that is never declared.
pub(super) const UNDECLARED: &str = "ghost";
/// Container port names.
pub(super) const PORT_NAMES: [&str; 3] = ["web", "dns", "alt"];
/// The name that no pod has.
pub(super) const UNKNOWN_PORT_NAME: &str = "gone";
/// Container port numbers.
pub(super) const PORT_NUMBERS: [u16; 6] = [80, 81, 443, 53, 1, 65535];
/// Names for which addresses are learned.
pub(super) const HOST_NAMES: [&str; 5] =
    ["example.com", "www.example.com", "a.www.example.com", "notexample.com", "k8s.io"];
/// The domain names of rules.
pub(super) const DOMAIN_PATTERNS: [&str; 5] =
    ["example.com", "www.example.com", "*.example.com", "*.www.example.com", "never.k8s.io"];
/// The number of addresses from which those of a node's pods are drawn.
pub(super) const ADDRESSES_PER_NODE: usize = 12;

/// Returns one of `options`.
pub(super) fn pick<T: Copy>(rng: &mut Rng, options: &[T]) -> T {
    options[rng.usize(..options.len())]
}

/// Returns true with probability `1/n`.
pub(super) fn one_in(rng: &mut Rng, n: usize) -> bool {
    rng.usize(..n) == 0
}

/// Returns the name of a namespace, mostly a declared one.
pub(super) fn namespace_name(rng: &mut Rng, declared: usize) -> Name {
    if declared == 0 || one_in(rng, 8) {
        UNDECLARED.into()
    } else {
        NAMESPACES[rng.usize(..declared.min(6))].into()
    }
}

/// Returns the name of the node with this index.
pub(super) fn node_name(index: usize) -> Name {
    format!("n{}", index + 1).into()
}

/// Returns an address of a node.
pub(super) fn node_address(index: usize, family: Family) -> IpAddr {
    let host = index as u16 + 1;
    match family {
        Family::V4 => Ipv4Addr::new(192, 168, 0, host as u8).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0x168, 0, 0, 0, 0, 0, host).into(),
    }
}

/// Returns an address of the range of a node's pods.
pub(super) fn pod_address(node: usize, host: usize, family: Family) -> IpAddr {
    let (node, host) = (node as u16 + 1, host as u16 + 2);
    match family {
        Family::V4 => Ipv4Addr::new(10, 244, node as u8, host as u8).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0x10, 0, node, 0, 0, 0, host).into(),
    }
}
