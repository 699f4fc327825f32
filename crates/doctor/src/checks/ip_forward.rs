//! `ip-forward`: whether the node forwards packets.

use crate::{finding::Outcome, node::Node};

pub(super) fn check(node: &Node<'_>) -> Result<Outcome, Outcome> {
    Ok(match node.forwarding() {
        None => Outcome::unknown(
            "cannot read the forwarding settings from /proc",
            "mount /proc, and set net.ipv4.ip_forward=1",
        ),
        Some([true, true]) => Outcome::ok("the node forwards IPv4 and IPv6"),
        Some([true, false]) => Outcome::ok("the node forwards IPv4, but not IPv6"),
        Some([false, true]) => Outcome::warn(
            "the node forwards IPv6, but not IPv4: routed pods have no IPv4 traffic",
            "if the cluster uses IPv4, set net.ipv4.ip_forward=1",
        ),
        Some([false, false]) => Outcome::fail(
            "the node forwards neither IPv4 nor IPv6: pods can't reach other nodes",
            "set net.ipv4.ip_forward=1 (and net.ipv6.conf.all.forwarding=1 for IPv6), permanently in /etc/sysctl.d",
        ),
    })
}
