//! Nodes and namespaces.

use std::net::IpAddr;

use palisade_policy::{Namespace, Node};

use crate::{
    cidr::parse_ip,
    decode::{Context, Fields},
    meta::Meta,
};

/// Reads a Node: every address that parses as one, whatever its type (SEMANTICS G-18).
pub(crate) fn node(cx: &mut Context<'_>, object: &Fields<'_>, meta: &Meta) -> Node {
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
    Node { name: meta.key.name.clone(), labels: meta.labels.clone(), addresses }
}

/// Adds an address of a node: one that parses, whatever it is called, once.
pub(crate) fn add_address(text: &str, out: &mut Vec<IpAddr>) {
    if let Some(ip) = parse_ip(text)
        && !out.contains(&ip)
    {
        out.push(ip);
    }
}

/// Reads a Namespace. It gets its name label, whatever the manifest says (SEMANTICS A13).
pub(crate) fn namespace(meta: &Meta) -> Namespace {
    Namespace::new(meta.key.name.clone(), &meta.labels)
}
