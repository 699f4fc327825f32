//! `bridge-netfilter`: whether bridges that connect pods pass their packets to netfilter.

use crate::{
    finding::Outcome,
    interfaces::{Interface, names, pod_bridges},
    node::{Node, sysctl},
};

pub(super) fn check(node: &Node<'_>) -> Result<Outcome, Outcome> {
    let bridges = pod_bridges(node.interfaces()?);
    if bridges.is_empty() {
        return Ok(Outcome::ok("no bridge connects pods on this node: their packets are routed"));
    }
    let settings = ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"]
        .map(|name| sysctl(&format!("net/bridge/{name}")).map(|value| value != "0"));
    let bypassing = |family: usize| -> Vec<&Interface> {
        let all = bridges.iter().copied();
        all.filter(|b| settings[family] != Some(true) && !b.calls_netfilter[family]).collect()
    };
    let (v4, v6) = (bypassing(0), bypassing(1));
    let is_loaded = settings.iter().any(Option::is_some);
    if !v4.is_empty() && !is_loaded {
        return Ok(Outcome::fail(
            format!("br_netfilter is not loaded: packets between pods on {} bypass policies", names(&v4)),
            "run `modprobe br_netfilter` and list it in /etc/modules-load.d; then set net.bridge.bridge-nf-call-iptables=1 and -ip6tables=1",
        ));
    }
    if !v4.is_empty() {
        return Ok(Outcome::fail(
            format!(
                "net.bridge.bridge-nf-call-iptables is 0: packets between pods on {} bypass policies",
                names(&v4)
            ),
            "set net.bridge.bridge-nf-call-iptables=1 and net.bridge.bridge-nf-call-ip6tables=1, permanently in /etc/sysctl.d",
        ));
    }
    if !v6.is_empty() {
        let found = format!(
            "net.bridge.bridge-nf-call-ip6tables is 0: IPv6 packets between pods on {} bypass policies",
            names(&v6)
        );
        let cure = "set net.bridge.bridge-nf-call-ip6tables=1, permanently in /etc/sysctl.d";
        let forwards_v6 = node.forwarding().is_some_and(|[_, v6]| v6);
        return Ok(if forwards_v6 { Outcome::fail(found, cure) } else { Outcome::warn(found, cure) });
    }
    Ok(Outcome::ok(format!("bridged packets of {} pass netfilter", names(&bridges))))
}
