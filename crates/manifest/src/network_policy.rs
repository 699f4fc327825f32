//! `NetworkPolicy` of `networking.k8s.io/v1`: defaulting (SEMANTICS A.2), validation (A.3) and the normal form.

use std::sync::Arc;

use ipnet::IpNet;
use palisade_policy::{
    Action, Direction, IpBlock, Name, NamespaceMatch, Peer, PeerEntry, PodMatch, Policy, PolicyKey,
    PortEntry, PortMatch, Protocol, Rule, Selector, Tier,
};

use crate::{
    cidr::{Cidr, NOT_A_CIDR},
    declared::Declaration,
    decode::{Context, Fields, IntOrString, quoted},
    diagnostic::{Code, Diagnostic, Severity},
    meta::Object,
    mode, names,
    selector::label_selector,
    tree::At,
};

/// What helps if a block and its exception are of different IP families. Programs recognize it.
pub const OTHER_FAMILY: &str = "`cidr` and `except` must be of the same IP family";

/// Decodes a NetworkPolicy. The value is meaningless if an error was reported.
pub(crate) fn network_policy(cx: &mut Context<'_>, object: &Object<'_>) -> Option<Declaration> {
    let meta = &object.meta;
    let namespace = &meta.key.namespace;
    let spec = object.get("spec");
    let spec =
        spec.as_ref().and_then(|at| cx.fields(at, &["podSelector", "policyTypes", "ingress", "egress"]));
    let selector =
        spec.and_then(|s| s.get("podSelector")).map(|at| label_selector(cx, &at)).unwrap_or_default();
    let ingress = rules(cx, spec, "ingress", "from", namespace);
    let egress = rules(cx, spec, "egress", "to", namespace);
    // A6: without policyTypes, Ingress is implied, and Egress if there is an egress rule.
    let types = policy_types(cx, spec).unwrap_or((true, !egress.is_empty()));
    let (ingress, ignored_ingress) = divided(ingress, types.0);
    let (egress, ignored_egress) = divided(egress, types.1);
    let ignored = [(Direction::Ingress, ignored_ingress), (Direction::Egress, ignored_egress)];
    let mode = mode::of_annotation(cx, object);
    let policy = Policy {
        key: PolicyKey {
            kind: cx.names.name("NetworkPolicy"),
            namespace: namespace.clone(),
            name: meta.key.name.clone(),
        },
        tier: Tier::Developer,
        priority: 0,
        mode,
        subject: PodMatch { namespaces: NamespaceMatch::Named(namespace.clone()), pods: selector },
        ingress,
        egress,
        origin: Some(meta.origin.clone()),
    };
    let ignored = ignored.into_iter().filter(|(_, rules)| !rules.is_empty()).collect();
    Some(Declaration::Policy(Box::new(policy), ignored))
}

/// Returns the rules of a direction if the policy applies to it, and otherwise the rules that have no effect.
fn divided(rules: Vec<Rule>, applies: bool) -> (Option<Vec<Rule>>, Vec<Rule>) {
    if applies { (Some(rules), Vec::new()) } else { (None, rules) }
}

/// Returns whether Ingress and Egress are listed; `None` if the list is empty or absent.
fn policy_types(cx: &mut Context<'_>, spec: Option<Fields<'_>>) -> Option<(bool, bool)> {
    let at = spec?.get("policyTypes")?;
    let entries = cx.list(&at);
    if entries.len() > 2 {
        cx.error(
            &at,
            Code::Invalid,
            format!("Invalid value: {}: may not specify more than two policyTypes", quoted(&at)),
        );
        return None;
    }
    let mut types = (false, false);
    for entry in &entries {
        match cx.string(entry) {
            Some("Ingress") => types.0 = true,
            Some("Egress") => types.1 = true,
            Some(other) => unsupported(cx, entry, other, &["Ingress", "Egress"]),
            None => {}
        }
    }
    (!entries.is_empty()).then_some(types)
}

fn unsupported(cx: &mut Context<'_>, at: &At<'_>, value: &str, supported: &[&str]) {
    let list = supported.iter().map(|s| format!("\"{s}\"")).collect::<Vec<_>>().join(", ");
    cx.error(at, Code::Invalid, format!("Unsupported value: {value:?}: supported values: {list}"));
}

fn rules(
    cx: &mut Context<'_>,
    spec: Option<Fields<'_>>,
    direction: &str,
    peers_field: &str,
    own: &Name,
) -> Vec<Rule> {
    let Some(at) = spec.and_then(|s| s.get(direction)) else { return Vec::new() };
    cx.list(&at).iter().map(|rule_at| rule(cx, rule_at, peers_field, own)).collect()
}

fn rule(cx: &mut Context<'_>, at: &At<'_>, peers_field: &str, own: &Name) -> Rule {
    let origin = Some(cx.origin(at));
    // A null element is `{}`, which matches everything (A4).
    let Some(fields) = cx.fields(at, &["ports", peers_field]) else {
        return Rule { name: None, action: Action::Accept, peers: None, ports: None, origin };
    };
    let ports: Vec<PortEntry> = match fields.get("ports") {
        Some(at) => cx.list(&at).iter().filter_map(|at| port(cx, at)).collect(),
        None => Vec::new(),
    };
    let peers: Vec<PeerEntry> = match fields.get(peers_field) {
        Some(at) => cx.list(&at).iter().filter_map(|at| peer(cx, at, own)).collect(),
        None => Vec::new(),
    };
    // Absent and empty lists both mean unrestricted (A.4). An invalid entry has rejected the whole policy.
    Rule {
        name: None,
        action: Action::Accept,
        peers: (!peers.is_empty()).then_some(peers),
        ports: (!ports.is_empty()).then_some(ports),
        origin,
    }
}

fn peer(cx: &mut Context<'_>, at: &At<'_>, own: &Name) -> Option<PeerEntry> {
    let origin = Some(cx.origin(at));
    let fields = cx.fields(at, &["podSelector", "namespaceSelector", "ipBlock"]);
    let field = |name| fields.and_then(|f: Fields<'_>| f.get(name));
    let pods = field("podSelector").map(|at| label_selector(cx, &at));
    let namespaces = field("namespaceSelector").map(|at| label_selector(cx, &at));
    let block_at = field("ipBlock");
    let block = block_at.and_then(|at| ip_block(cx, &at));
    let peer = match (pods, namespaces) {
        (None, None) if block_at.is_some() => Peer::Block(block?),
        (None, None) => {
            cx.error(at, Code::Required, "Required value: must specify a peer");
            return None;
        }
        _ if block_at.is_some() => {
            cx.error(at, Code::Forbidden, "Forbidden: may not specify both ipBlock and another peer");
            return None;
        }
        // A null namespaceSelector beside a podSelector means the policy's own namespace (A.4).
        (pods, None) => pods_of(NamespaceMatch::Named(own.clone()), pods),
        (pods, Some(namespaces)) => pods_of(NamespaceMatch::Selected(namespaces), pods),
    };
    Some(PeerEntry { peer, origin })
}

fn pods_of(namespaces: NamespaceMatch, pods: Option<Selector>) -> Peer {
    Peer::Pods(PodMatch { namespaces, pods: pods.unwrap_or_default() })
}

fn ip_block(cx: &mut Context<'_>, at: &At<'_>) -> Option<IpBlock> {
    let fields = cx.fields(at, &["cidr", "except"]);
    let cidr_at = fields.and_then(|f| f.get("cidr"));
    let text = match cidr_at {
        Some(at) => cx.string(&at)?,
        None => "",
    };
    if text.is_empty() {
        match &cidr_at {
            Some(at) => cx.error(at, Code::Required, "Required value"),
            None => cx.missing(at, "cidr", Code::Required, "Required value"),
        }
        return None;
    }
    let cidr = cidr(cx, &cidr_at?)?;
    let mut except: Vec<IpNet> = Vec::new();
    if let Some(list) = fields.and_then(|f| f.get("except")) {
        for at in cx.list(&list) {
            let Some(entry) = self::cidr(cx, &at) else { continue };
            if entry.is_strictly_inside(&cidr) {
                except.push(entry.canonical());
            } else if entry.canonical().addr().is_ipv4() != cidr.canonical().addr().is_ipv4() {
                let message = format!("Invalid value: {}: must be a strict subset of `cidr`", quoted(&at));
                cx.report(
                    &at,
                    Diagnostic::new(Severity::Error, Code::Invalid, message).with_help(OTHER_FAMILY),
                );
            } else {
                cx.invalid(&at, ["must be a strict subset of `cidr`"]);
            }
        }
    }
    except.sort_unstable();
    except.dedup();
    Some(IpBlock { cidr: cidr.canonical(), except: Arc::from(except) })
}

fn cidr(cx: &mut Context<'_>, at: &At<'_>) -> Option<Cidr> {
    let text = cx.string(at)?;
    let Some(cidr) = Cidr::parse(text) else {
        cx.invalid(at, [NOT_A_CIDR]);
        return None;
    };
    if cx.strict_cidr {
        cx.invalid(at, cidr.strict_errors());
    } else {
        for warning in cidr.warnings(text) {
            cx.warn(at, Code::Ambiguous, warning);
        }
    }
    Some(cidr)
}

fn port(cx: &mut Context<'_>, at: &At<'_>) -> Option<PortEntry> {
    let origin = Some(cx.origin(at));
    let fields = cx.fields(at, &["protocol", "port", "endPort"]);
    let field = |name| fields.and_then(|f: Fields<'_>| f.get(name));
    // A5: an absent protocol is TCP. An empty string is an error.
    let protocol = match field("protocol") {
        Some(at) => protocol(cx, &at),
        None => Some(Protocol::Tcp),
    };
    let end_at = field("endPort");
    let end = end_at.and_then(|at| cx.int32(&at));
    let port_at = field("port");
    let port = match (port_at, port_at.and_then(|at| cx.int_or_string(&at))) {
        (Some(at), Some(IntOrString::Int(first))) => numbers(cx, &at, first, end_at.zip(end), protocol?)?,
        (Some(at), Some(IntOrString::String(name))) => {
            cx.invalid(&at, names::port_name(name));
            if let Some(end_at) = end_at {
                cx.invalid(&end_at, ["may not be specified when `port` is non-numeric"]);
            }
            PortMatch::Named { protocol: Some(protocol?), name: cx.names.name(name) }
        }
        (Some(_), None) => return None,
        (None, _) => {
            if let Some(end_at) = end_at {
                cx.invalid(&end_at, ["may not be specified when `port` is not specified"]);
            }
            PortMatch::Numbers { protocol: protocol?, first: 0, last: u16::MAX }
        }
    };
    Some(PortEntry { port, origin })
}

fn numbers(
    cx: &mut Context<'_>,
    at: &At<'_>,
    first: i32,
    end: Option<(At<'_>, i32)>,
    protocol: Protocol,
) -> Option<PortMatch> {
    cx.invalid(at, names::port_number(first.into()));
    if let Some((end_at, end)) = end {
        if end < first {
            cx.invalid(&end_at, ["must be greater than or equal to `port`"]);
        }
        cx.invalid(&end_at, names::port_number(end.into()));
    }
    let last = end.map_or(first, |(_, end)| end);
    Some(PortMatch::Numbers { protocol, first: u16::try_from(first).ok()?, last: u16::try_from(last).ok()? })
}

/// Decodes a protocol: `TCP`, `UDP` or `SCTP`.
pub(crate) fn protocol(cx: &mut Context<'_>, at: &At<'_>) -> Option<Protocol> {
    let text = cx.string(at)?;
    let protocol = protocol_named(text);
    if protocol.is_none() {
        unsupported(cx, at, text, &["TCP", "UDP", "SCTP"]);
    }
    protocol
}

/// Parses the name of a protocol.
pub(crate) fn protocol_named(text: &str) -> Option<Protocol> {
    match text {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        "SCTP" => Some(Protocol::Sctp),
        _ => None,
    }
}
