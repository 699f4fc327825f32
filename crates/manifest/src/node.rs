//! Nodes and namespaces.

use std::net::IpAddr;

use ipnet::IpNet;
use palisade_policy::{Namespace, Node};

use crate::{
    allow_source,
    cidr::{Cidr, parse_ip},
    declared::{Declaration, DeclaredNode},
    decode::Context,
    deny,
    meta::Object,
    mode, other_networks,
};

/// Decodes a Node, with every address that is an IP address, of whatever type (SEMANTICS G-18), and the ranges of its
/// pods.
pub(crate) fn node(cx: &mut Context<'_>, object: &Object<'_>) -> Option<Declaration> {
    let status_at = object.get("status");
    let status = status_at.as_ref().and_then(|at| cx.any_fields(at));
    let list = status.and_then(|s| s.get("addresses"));
    let mut addresses = Vec::new();
    for entry in list.iter().flat_map(|at| at.items()) {
        let address = entry.get("address").filter(|at| !at.is_null());
        if let Some(text) = address.and_then(|at| cx.string(&at)) {
            add_address(text, &mut addresses);
        }
    }
    let (name, labels) = (object.meta.key.name.clone(), object.meta.labels.clone());
    let pod_cidrs = pod_cidrs(cx, object);
    Some(Declaration::Node(DeclaredNode {
        node: Node { name, labels, addresses, pod_cidrs: pod_cidrs.clone() },
        pod_cidrs,
    }))
}

/// Returns `spec.podCIDRs`, or `spec.podCIDR`, which older servers set alone. What is no CIDR is left out: no policy
/// refers to it.
fn pod_cidrs(cx: &mut Context<'_>, object: &Object<'_>) -> Vec<IpNet> {
    let spec_at = object.get("spec");
    let Some(spec) = spec_at.as_ref().and_then(|at| cx.any_fields(at)) else { return Vec::new() };
    let mut found = Vec::new();
    for at in spec.get("podCIDRs").iter().flat_map(|at| at.items()).chain(spec.get("podCIDR")) {
        if let Some(text) = Some(at).filter(|at| !at.is_null()).and_then(|at| cx.string(&at)) {
            add_cidr(text, &mut found);
        }
    }
    found
}

/// Adds a range of a node's pods. What is no CIDR, and duplicates, are left out.
pub(crate) fn add_cidr(text: &str, out: &mut Vec<IpNet>) {
    if let Some(net) = Cidr::parse(text).map(|cidr| cidr.canonical())
        && !out.contains(&net)
    {
        out.push(net);
    }
}

/// Adds an address of a node. Host names and duplicates are left out.
pub(crate) fn add_address(text: &str, out: &mut Vec<IpAddr>) {
    if let Some(ip) = parse_ip(text)
        && !out.contains(&ip)
    {
        out.push(ip);
    }
}

/// Decodes a Namespace. It always gets its name label (SEMANTICS A13).
pub(crate) fn namespace(cx: &mut Context<'_>, object: &Object<'_>) -> Option<Declaration> {
    other_networks::warn(cx, object.get("metadata").as_ref());
    mode::check_label(cx, object);
    let deny = deny::of_annotation(cx, object);
    let meta = &object.meta;
    let namespace = Namespace::new(meta.key.name.clone(), &meta.labels);
    let allow_source_within = allow_source::of_namespace(cx, object);
    Some(Declaration::Namespace(Namespace { deny, allow_source_within, ..namespace }))
}
