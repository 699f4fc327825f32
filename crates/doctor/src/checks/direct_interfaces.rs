//! `direct-interfaces`: whether pods may have interfaces that bypass the node's forwarding.

use std::fs;

use netlink_packet_route::link::InfoKind;

use crate::{
    finding::Outcome,
    interfaces::{Interface, names},
    node::Node,
};

const KINDS: [InfoKind; 4] = [InfoKind::MacVlan, InfoKind::MacVtap, InfoKind::IpVlan, InfoKind::IpVtap];

const CURE: &str = "policies have no effect on traffic over such interfaces: filter it in the network, or don't give them to pods";

pub(super) fn check(node: &Node<'_>) -> Result<Outcome, Outcome> {
    let all = node.interfaces()?;
    let has_virtual_functions = |i: &&Interface| {
        let path = format!("/sys/class/net/{}/device/sriov_numvfs", i.name);
        fs::read_to_string(path).is_ok_and(|n| n.trim() != "0")
    };
    let physical: Vec<&Interface> = all.iter().filter(has_virtual_functions).collect();
    let stacked: Vec<&Interface> =
        all.iter().filter(|i| i.kind.as_ref().is_some_and(|kind| KINDS.contains(kind))).collect();
    Ok(match (&stacked[..], &physical[..]) {
        ([], []) => Outcome::ok("the node has no macvlan, ipvlan or SR-IOV interface"),
        (_, []) => Outcome::warn(
            format!(
                "macvlan or ipvlan interfaces are in use ({}): they bypass the node's forwarding",
                names(&stacked)
            ),
            CURE,
        ),
        _ => Outcome::warn(
            format!(
                "SR-IOV virtual functions are in use ({}): they bypass the node's kernel",
                names(&physical)
            ),
            CURE,
        ),
    })
}
