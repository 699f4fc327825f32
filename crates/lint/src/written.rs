//! NetworkPolicies as they are written: what defaulting hides, and where each word is.

use std::{collections::BTreeMap, ops::Range};

use palisade_manifest::{
    scalar::Scalar,
    tree::{At, Documents, Limits, Value},
};
use palisade_policy::{Direction, Name};

/// The annotation that suppresses rules for an object: `PAL017, typo-near-label`.
pub const ANNOTATION: &str = "palisade.dev/lint-ignore";

/// How the kinds of policies end.
const POLICY: &str = "Policy";

/// The other kinds of policies whose ports are TCP ports without a protocol. ClusterNetworkPolicies always name it.
const DEFAULT_TCP: [&str; 2] = ["AdminNetworkPolicy", "BaselineAdminNetworkPolicy"];

/// A NetworkPolicy as it is written. Of other policies, only the ports of rules are read.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) file: Name,
    /// Where the object begins, in bytes.
    pub(crate) start: usize,
    /// Where the first field of `spec` begins; `None` without fields.
    pub(crate) spec: Option<usize>,
    /// Where fields of `spec` can be added; `None` without `spec`.
    pub(crate) spec_fields: Option<WrittenFields>,
    pub(crate) has_policy_types: bool,
    pub(crate) has_pod_selector: bool,
    /// The fields, if they are written and count as absent.
    pub(crate) blank_policy_types: Option<Blank>,
    pub(crate) blank_pod_selector: Option<Blank>,
    /// The number of egress rules; `None` if the field is absent.
    pub(crate) egress: Option<usize>,
    pub(crate) rules: Vec<WrittenRule>,
    /// The exceptions of each block that has several.
    pub(crate) excepts: Vec<Vec<WrittenExcept>>,
    /// The `matchLabels` of all selectors.
    pub(crate) labels: Vec<WrittenLabel>,
    /// The annotation that suppresses rules.
    pub(crate) ignored: Option<String>,
    /// The object, for suppressions: kind, namespace if it is written, and name.
    pub(crate) name: (String, Option<String>, String),
}

/// An exception of a block as it is written.
#[derive(Debug)]
pub(crate) struct WrittenExcept {
    pub(crate) start: usize,
    pub(crate) text: String,
}

/// A field that is written without a value that counts: `null`, or an empty list.
#[derive(Clone, Debug)]
pub(crate) struct Blank {
    /// The value; empty if nothing is written.
    pub(crate) value: Range<usize>,
    /// Where the key ends.
    pub(crate) key_end: usize,
}

/// Where the fields of a mapping are.
#[derive(Clone, Debug)]
pub(crate) struct WrittenFields {
    /// The mapping, with its braces if it has any.
    pub(crate) range: Range<usize>,
    /// Where the first key of its own begins, rather than of one that is merged.
    pub(crate) first: Option<usize>,
}

/// A rule as it is written.
#[derive(Debug)]
pub(crate) struct WrittenRule {
    pub(crate) direction: Direction,
    /// Where an empty list of peers is, such as `from: []`.
    pub(crate) empty_peers: Option<usize>,
    /// Where `ports: []` is.
    pub(crate) empty_ports: Option<usize>,
    pub(crate) ports: Vec<WrittenPort>,
}

/// A port as it is written.
#[derive(Debug)]
pub(crate) struct WrittenPort {
    pub(crate) start: usize,
    pub(crate) has_protocol: bool,
    pub(crate) number: Option<i128>,
}

/// A pair of `matchLabels`.
#[derive(Debug)]
pub(crate) struct WrittenLabel {
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) key_range: Range<usize>,
    pub(crate) value_range: Range<usize>,
    /// Where the peer begins to which the selector belongs; `None`: it is the policy's own.
    pub(crate) peer: Option<usize>,
}

/// Returns the policies of a file's text.
pub(crate) fn policies(file: &Name, text: &str) -> Vec<Written> {
    let mut out = Vec::new();
    // Most documents are no policies. A broken one is reported by the loader.
    for tree in Documents::new(text, Limits::default()).containing(POLICY).flatten() {
        object(file, &tree.root(), &mut out);
    }
    out
}

/// Where the values of `apiVersion` and `kind` of an object are.
#[derive(Clone, Debug)]
pub(crate) struct Header {
    pub(crate) api_version: Range<usize>,
    pub(crate) kind: Range<usize>,
}

/// Returns the headers of all objects of a text, by the beginning of their `apiVersion`.
pub(crate) fn headers(text: &str) -> BTreeMap<usize, Header> {
    fn add(at: &At<'_>, out: &mut BTreeMap<usize, Header>) {
        if let (Some(api_version), Some(kind)) = (at.get("apiVersion"), at.get("kind")) {
            let header = Header { api_version: range(&api_version), kind: range(&kind) };
            out.insert(header.api_version.start, header);
        }
        for item in at.get("items").iter().flat_map(At::items) {
            add(&item.as_root(), out);
        }
    }
    let mut out = BTreeMap::new();
    for tree in Documents::new(text, Limits::default()).flatten() {
        add(&tree.root(), &mut out);
    }
    out
}

fn object(file: &Name, at: &At<'_>, out: &mut Vec<Written>) {
    let kind = string(at, "kind").unwrap_or_default();
    if kind.ends_with("List") {
        if let Some(items) = at.get("items") {
            for item in items.items() {
                object(file, &item.as_root(), out);
            }
        }
    } else if kind.ends_with(POLICY) {
        out.push(policy(file, at, kind));
    }
}

fn policy(file: &Name, at: &At<'_>, kind: String) -> Written {
    let metadata = at.get("metadata");
    let of_metadata = |key| metadata.as_ref().and_then(|m| string(m, key));
    let annotations = metadata.as_ref().and_then(|m| m.get("annotations"));
    let ignored = annotations.as_ref().and_then(|a| string(a, ANNOTATION));
    let kind_is_other = kind != "NetworkPolicy";
    // An empty namespace is as good as none.
    let namespace = of_metadata("namespace").filter(|namespace| !namespace.is_empty());
    let name = (kind, namespace, of_metadata("name").unwrap_or_default());
    let mut written = Written {
        file: file.clone(),
        start: start(at),
        spec: None,
        spec_fields: None,
        has_policy_types: kind_is_other,
        has_pod_selector: kind_is_other,
        egress: None,
        rules: Vec::new(),
        excepts: Vec::new(),
        blank_policy_types: None,
        blank_pod_selector: None,
        labels: Vec::new(),
        ignored,
        name,
    };
    let Some(spec) = at.get("spec") else { return written };
    if DEFAULT_TCP.contains(&&*written.name.0) {
        admin_rules(&spec, &mut written);
    }
    if kind_is_other {
        return written;
    }
    let field = |key: &str| spec.get(key).filter(|at| !at.is_null());
    written.spec = spec.entries().next().map(|(_, key, _)| start(&key));
    written.spec_fields = Some(fields(&spec));
    // An empty list gets the same default as an absent one.
    written.has_policy_types = field("policyTypes").is_some_and(|at| at.items().next().is_some());

    written.has_pod_selector = field("podSelector").is_some();
    for (key, key_at, value) in spec.entries() {
        let blank = || Some(Blank { value: range(&value), key_end: range(&key_at).end });
        match key {
            "policyTypes" if !written.has_policy_types => written.blank_policy_types = blank(),
            "podSelector" if !written.has_pod_selector => written.blank_pod_selector = blank(),
            _ => {}
        }
    }
    written.egress = field("egress").map(|at| at.items().count());
    if let Some(selector) = field("podSelector") {
        labels(&selector, None, &mut written.labels);
    }
    for (direction, list, peers) in
        [(Direction::Ingress, "ingress", "from"), (Direction::Egress, "egress", "to")]
    {
        let Some(list) = field(list) else { continue };
        for at in list.items() {
            rule(&at, direction, peers, &mut written);
        }
    }
    written
}

fn rule(at: &At<'_>, direction: Direction, peers: &str, written: &mut Written) {
    let (mut empty_peers, mut empty_ports) = (None, None);
    for (key, key_at, value) in at.entries() {
        if key == "ports" && matches!(value.value(), Value::Sequence(0)) {
            empty_ports = Some(start(&key_at));
        }
        if key != peers {
            continue;
        }
        if matches!(value.value(), Value::Sequence(0)) || value.is_null() {
            empty_peers = Some(start(&key_at));
        }
        for peer in value.items() {
            let block = peer.get("ipBlock");
            let list = block.as_ref().and_then(|block| block.get("except"));
            let items = list.iter().flat_map(At::items);
            let excepts: Vec<_> =
                items.filter_map(|at| Some(WrittenExcept { start: start(&at), text: text(&at)? })).collect();
            if excepts.len() > 1 {
                written.excepts.push(excepts);
            }
            for selector in ["podSelector", "namespaceSelector"] {
                if let Some(selector) = peer.get(selector) {
                    labels(&selector, Some(start(&peer)), &mut written.labels);
                }
            }
        }
    }
    let mut ports = Vec::new();
    if let Some(list) = at.get("ports") {
        for port in list.items() {
            ports.push(written_port(&port, start(&port)));
        }
    }
    written.rules.push(WrittenRule { direction, empty_peers, empty_ports, ports });
}

/// Reads the ports of the rules of a v1alpha1 policy.
fn admin_rules(spec: &At<'_>, written: &mut Written) {
    for (direction, list) in [(Direction::Ingress, "ingress"), (Direction::Egress, "egress")] {
        let rules = spec.get(list);
        for rule in rules.iter().flat_map(At::items) {
            let ports = rule.get("ports");
            let ports = ports.iter().flat_map(At::items).filter_map(|port| {
                let number = port.get("portNumber");
                let range = port.get("portRange");
                // A named port has the protocol of the container's.
                let of = number.as_ref().or(range.as_ref())?;
                Some(written_port(of, start(&port)))
            });
            let ports = ports.collect();
            written.rules.push(WrittenRule { direction, empty_peers: None, empty_ports: None, ports });
        }
    }
}

/// Reads `port` and `protocol`.
fn written_port(at: &At<'_>, start: usize) -> WrittenPort {
    let number = at.get("port").and_then(|at| match at.value() {
        Value::Scalar(Scalar::Int(number)) => Some(*number),
        _ => None,
    });
    let has_protocol = at.get("protocol").is_some_and(|at| !at.is_null());
    WrittenPort { start, has_protocol, number }
}

fn fields(mapping: &At<'_>) -> WrittenFields {
    let range = range(mapping);
    let mut keys = mapping.entries().map(|(_, key, _)| start(&key));
    let first = keys.find(|at| range.contains(at));
    WrittenFields { range, first }
}

fn labels(selector: &At<'_>, peer: Option<usize>, out: &mut Vec<WrittenLabel>) {
    let Some(pairs) = selector.get("matchLabels") else { return };
    for (key, key_at, value) in pairs.entries() {
        if let Value::Scalar(Scalar::Str(text)) = value.value() {
            out.push(WrittenLabel {
                key: key.to_owned(),
                value: text.to_string(),
                key_range: range(&key_at),
                value_range: range(&value),
                peer,
            });
        }
    }
}

fn string(at: &At<'_>, key: &str) -> Option<String> {
    text(&at.get(key)?)
}

fn text(at: &At<'_>) -> Option<String> {
    match at.value() {
        Value::Scalar(Scalar::Str(text)) => Some(text.to_string()),
        _ => None,
    }
}

fn start(at: &At<'_>) -> usize {
    at.span().start as usize
}

fn range(at: &At<'_>) -> Range<usize> {
    let span = at.span();
    span.start as usize..span.end as usize
}
