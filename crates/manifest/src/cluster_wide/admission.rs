//! Validates cluster-wide policies like the API server: the schemas and CEL rules of the CustomResourceDefinitions
//! (SEMANTICS B.1, C.1, C.9). Errors are reported in the order of the fields.

use palisade_policy::Direction;

use super::{
    crd::{ClusterWideKind, Crd},
    domain_name, schema,
};
use crate::{
    cidr::Cidr,
    decode::{Context, Fields, quoted},
    diagnostic::Code,
    meta::Object,
    tree::At,
};

/// The maximum length of `networks` and `domainNames`, in every version.
const MAX_NAMES: usize = 25;

/// Reports every error for which the API server would reject the object.
pub(super) fn admit(cx: &mut Context<'_>, object: &Object<'_>, crd: Crd) {
    if crd.kind == ClusterWideKind::Baseline && &*object.meta.key.name != "default" {
        let message = "Invalid value: \"object\": Only one baseline admin network policy with \
                       metadata.name=\"default\" can be created in the cluster";
        let metadata = object.get("metadata");
        let name = metadata.as_ref().and_then(|at| at.get("name"));
        cx.error(&name.unwrap_or(*object.fields.at), Code::Invalid, message);
    }
    let Some(spec) = schema::required(cx, object.fields, "spec") else { return };
    let Some(spec) = schema::object(cx, &spec, crd.spec_fields()) else { return };
    if crd.kind == ClusterWideKind::Cluster
        && let Some(at) = schema::required(cx, spec, "tier")
    {
        schema::one_of(cx, &at, &["Admin", "Baseline"]);
    }
    if crd.kind != ClusterWideKind::Baseline
        && let Some(at) = schema::required(cx, spec, "priority")
    {
        schema::integer(cx, &at, &(0..=1000));
    }
    if let Some(at) = schema::required(cx, spec, "subject") {
        subject_or_peer(cx, crd, &at, &["namespaces", "pods"], &[]);
    }
    for (direction, name) in [(Direction::Ingress, "ingress"), (Direction::Egress, "egress")] {
        let Some(at) = spec.get(name) else { continue };
        for at in schema::list(cx, &at, &(0..=crd.max_list_length())) {
            rule(cx, crd, &at, direction);
        }
    }
}

fn rule(cx: &mut Context<'_>, crd: Crd, at: &At<'_>, direction: Direction) {
    let Some(fields) = schema::object(cx, at, &crd.rule_fields(direction)) else { return };
    if let Some(at) = fields.get("name")
        && let Some(text) = schema::string(cx, &at)
    {
        schema::max_length(cx, &at, text, 100);
    }
    if let Some(at) = schema::required(cx, fields, "action") {
        schema::one_of(cx, &at, crd.actions());
    }
    let lengths = 1..=crd.max_list_length();
    let peers = schema::required(cx, fields, crd.peers_field(direction));
    if let Some(at) = &peers {
        let only_experimental = crd.only_experimental(|crd| crd.peers(direction));
        for at in schema::list(cx, at, &lengths) {
            subject_or_peer(cx, crd, &at, crd.peers(direction), &only_experimental);
        }
    }
    let ports = fields.get(crd.ports_field());
    if let Some(at) = &ports {
        for at in schema::list(cx, at, &lengths) {
            port(cx, crd, &at);
        }
    }
    if crd.experimental && direction == Direction::Egress {
        named_port_needs_pods(cx, crd, at, peers.as_ref(), ports.as_ref());
    }
}

/// Checks the CEL rule of the experimental channel (SEMANTICS B2, C2).
fn named_port_needs_pods(
    cx: &mut Context<'_>,
    crd: Crd,
    rule: &At<'_>,
    peers: Option<&At<'_>>,
    ports: Option<&At<'_>>,
) {
    let without_pods: &[&str] = match crd.kind {
        ClusterWideKind::Baseline => &["networks", "nodes"],
        _ => &["networks", "nodes", "domainNames"],
    };
    let has = |list: Option<&At<'_>>, name: &str| list.is_some_and(|l| l.items().any(|i| is_set(&i, name)));
    let named = has(ports, crd.named_port_field());
    if named && without_pods.iter().any(|kind| has(peers, kind)) {
        let kinds = without_pods.join("/");
        let message = format!(
            "Invalid value: \"object\": {kinds} peer cannot be set with namedPorts since there are no namedPorts for {kinds}"
        );
        cx.error(rule, Code::Forbidden, message);
    }
}

fn is_set(at: &At<'_>, name: &str) -> bool {
    at.get(name).is_some_and(|at| !at.is_null())
}

/// Validates a subject or a peer, in which exactly one of the `known` fields must be set. The fields in
/// `only_experimental` exist in the experimental channel.
fn subject_or_peer(cx: &mut Context<'_>, crd: Crd, at: &At<'_>, known: &[&str], only_experimental: &[&str]) {
    let Some(fields) = schema::choice(cx, at, known, only_experimental) else { return };
    for name in known {
        let Some(at) = fields.get(name) else { continue };
        match *name {
            "pods" => pods(cx, crd, &at),
            "networks" => {
                for (at, text) in names(cx, &at) {
                    network(cx, crd, &at, text);
                }
            }
            "domainNames" => {
                for (at, text) in names(cx, &at) {
                    if !domain_name::is_valid(text, crd.v1beta1) {
                        let pattern = domain_name::pattern(crd.v1beta1);
                        cx.invalid(&at, [format!("{at} in body should match '{pattern}'")]);
                    }
                }
            }
            // namespaces, nodes
            _ => schema::selector(cx, &at),
        }
    }
}

fn pods(cx: &mut Context<'_>, crd: Crd, at: &At<'_>) {
    let known = ["namespaceSelector", "podSelector"];
    let Some(fields) = schema::object(cx, at, &known) else { return };
    for name in known {
        let optional = name == "namespaceSelector" && crd.namespace_selector_is_optional();
        let selector = if optional { fields.get(name) } else { schema::required(cx, fields, name) };
        if let Some(at) = selector {
            schema::selector(cx, &at);
        }
    }
}

/// Validates and returns the strings of `networks` or `domainNames`.
fn names<'a>(cx: &mut Context<'_>, at: &'a At<'a>) -> Vec<(At<'a>, &'a str)> {
    let items = schema::list(cx, at, &(1..=MAX_NAMES));
    schema::set(cx, &items);
    items.into_iter().filter_map(|at| Some((at, schema::string(cx, &at)?))).collect()
}

fn network(cx: &mut Context<'_>, crd: Crd, at: &At<'_>, text: &str) {
    // The lengths text of an IPv6 CIDR.
    schema::max_length(cx, at, text, 43);
    let cidr = Cidr::parse(text).filter(Cidr::is_cidr_to_cel);
    if cidr.is_none_or(|cidr| crd.v1beta1 && cidr.has_host_bits()) {
        cx.error(at, Code::Invalid, format!("Invalid value: {}: Invalid CIDR format provided", quoted(at)));
    }
}

fn port(cx: &mut Context<'_>, crd: Crd, at: &At<'_>) {
    let known = crd.ports();
    let Some(fields) = schema::choice(cx, at, known, &crd.only_experimental(Crd::ports)) else { return };
    for name in known {
        let Some(at) = fields.get(name) else { continue };
        match *name {
            "destinationNamedPort" | "namedPort" => drop(schema::string(cx, &at)),
            "portNumber" => {
                if let Some(fields) = schema::object(cx, &at, &["protocol", "port"]) {
                    protocol_name(cx, fields);
                    number(cx, fields, "port");
                }
            }
            "portRange" => {
                if let Some(fields) = schema::object(cx, &at, &["protocol", "start", "end"]) {
                    protocol_name(cx, fields);
                    number(cx, fields, "start");
                    number(cx, fields, "end");
                }
            }
            // tcp, udp, sctp
            _ => protocol(cx, &at),
        }
    }
}

/// Validates `protocol` of v1alpha1, which may be any string (SEMANTICS B1).
fn protocol_name(cx: &mut Context<'_>, fields: Fields<'_>) {
    if let Some(at) = fields.get("protocol") {
        schema::string(cx, &at);
    }
}

fn number(cx: &mut Context<'_>, fields: Fields<'_>, name: &str) -> Option<i32> {
    let at = schema::required(cx, fields, name)?;
    schema::integer(cx, &at, &(1..=65_535))
}

/// Validates `tcp`, `udp` or `sctp` (SEMANTICS C1).
fn protocol(cx: &mut Context<'_>, at: &At<'_>) {
    let Some(fields) = schema::object(cx, at, &["destinationPort"]) else { return };
    schema::properties(cx, fields, &["destinationPort"], false);
    let Some(at) = fields.get("destinationPort") else { return };
    let known = ["number", "range"];
    let Some(fields) = schema::object(cx, &at, &known) else { return };
    schema::properties(cx, fields, &known, true);
    if let Some(at) = fields.get("number") {
        schema::integer(cx, &at, &(1..=65_535));
    }
    let Some(at) = fields.get("range") else { return };
    let Some(fields) = schema::object(cx, &at, &["start", "end"]) else { return };
    let (start, end) = (number(cx, fields, "start"), number(cx, fields, "end"));
    if let (Some(start), Some(end)) = (start, end)
        && start >= end
    {
        let message = "Invalid value: \"object\": Start port must be less than End port";
        cx.error(&at, Code::Invalid, message);
    }
}
