//! `ebpf`: whether an eBPF data plane redirects pods' packets past netfilter.

use std::fs;

use netlink_packet_route::link::InfoKind;

use crate::{
    finding::Outcome,
    interfaces::{Interface, names, with_bpf_filters},
    node::Node,
};

/// What Cilium pins in the BPF file system.
const CILIUM_PINS: [&str; 2] = ["/sys/fs/bpf/cilium", "/sys/fs/bpf/tc/globals/cilium_call_policy"];

pub(super) fn check(node: &Node<'_>) -> Result<Outcome, Outcome> {
    let all = node.interfaces()?;
    let cilium = all.iter().find(|i| i.name.starts_with("cilium_"));
    let pinned = CILIUM_PINS.iter().find(|path| fs::exists(path).unwrap_or(false));
    if let Some(sign) = cilium.map(|i| i.name.clone()).or_else(|| pinned.map(|p| (*p).to_owned())) {
        return Ok(Outcome::fail(
            format!("Cilium's eBPF data plane is active ({sign}): pods' packets bypass netfilter"),
            "use Cilium's own policies on this node, or another CNI plugin with Palisade",
        ));
    }
    let netkit: Vec<&Interface> = all.iter().filter(|i| i.kind == Some(InfoKind::Netkit)).collect();
    if !netkit.is_empty() {
        return Ok(Outcome::fail(
            format!(
                "pods are connected by netkit devices ({}), whose programs redirect packets past netfilter",
                names(&netkit)
            ),
            "connect pods by veth pairs",
        ));
    }
    let filtered = match with_bpf_filters() {
        Ok(indices) => indices,
        Err(e) => {
            return Ok(Outcome::unknown(format!("cannot list tc filters: {e}"), node.cure_of_refusal()));
        }
    };
    let programmed: Vec<&Interface> =
        all.iter().filter(|i| i.is_pod_facing() && (i.has_xdp || filtered.contains(&i.index))).collect();
    if programmed.is_empty() {
        return Ok(Outcome::ok(
            "no XDP or tc program is attached to a pod's interface (TCX programs can't be listed)",
        ));
    }
    Ok(Outcome::warn(
        format!(
            "eBPF programs are attached to pods' interfaces ({}): they may redirect packets past netfilter",
            names(&programmed)
        ),
        "inspect them with `bpftool net`; the wiring checks below are valid only for pods without such programs",
    ))
}
