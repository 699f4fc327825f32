//! The Gateway API: gateways, the routes that ask for them, and the grants that let a route leave its namespace.

use palisade_policy::{Name, ObjectKey, Protocol, Selector, lookup::PortSpec, routes::RoutePort};

use super::{DeclaredBackend, DeclaredRoute, GATEWAY_GROUP, field, is_weightless, number};
use crate::{
    decode::{Context, Fields},
    meta::Meta,
    selector::label_selector,
    tree::At,
};

/// A Gateway: what its listeners take in.
#[derive(Clone, Debug)]
pub(crate) struct Gateway {
    pub(crate) listeners: Vec<Listener>,
}

/// One listener of a Gateway.
#[derive(Clone, Debug)]
pub(crate) struct Listener {
    pub(crate) name: Name,
    pub(crate) port: Option<u16>,
    /// The hosts that it is for; `None`: any.
    pub(crate) host: Option<Name>,
    pub(crate) namespaces: Allowed,
    /// The kinds of routes that it takes; `None`: any.
    pub(crate) kinds: Option<Vec<Name>>,
}

/// The namespaces whose routes a listener takes.
#[derive(Clone, Debug)]
pub(crate) enum Allowed {
    /// That of the gateway.
    Same,
    /// Every one.
    All,
    /// Those with such labels.
    Selector(Selector),
    /// None.
    None,
}

/// A gateway that a route asks for.
#[derive(Clone, Debug)]
pub(crate) struct Parent {
    pub(crate) kind: ParentKind,
    pub(crate) key: ObjectKey,
    /// The one listener that is meant.
    pub(crate) section: Option<Name>,
    pub(crate) port: Option<u16>,
}

/// What a route asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ParentKind {
    /// A Gateway.
    Gateway,
    /// A Service: the route is for what pods of a mesh send to it, and lets nothing in.
    Service,
    /// Something that we don't know, such as a ListenerSet.
    Other,
}

/// A ReferenceGrant: routes of these kinds and namespaces may lead to services of its own namespace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Grant {
    /// Kind and namespace.
    pub(crate) from: Vec<(Name, Name)>,
    /// The services; `None`: all.
    pub(crate) to: Vec<Option<Name>>,
}

/// Reads a Gateway.
pub(crate) fn gateway(cx: &mut Context<'_>, object: &Fields<'_>) -> Gateway {
    let mut out = Gateway { listeners: Vec::new() };
    let Some(spec) = object.get("spec") else { return out };
    let Some(list) = cx.any_fields(&spec).and_then(|spec| spec.get("listeners")) else { return out };
    for at in cx.list(&list) {
        out.listeners.extend(listener(cx, &at));
    }
    out
}

fn listener(cx: &mut Context<'_>, at: &At<'_>) -> Option<Listener> {
    let fields = cx.any_fields(at)?;
    let name = fields.string(cx, "name").unwrap_or_default();
    let host = fields.string(cx, "hostname").filter(|h| !h.is_empty());
    let protocol = fields.string(cx, "protocol").unwrap_or_default();
    let port = field(at, "port").and_then(|at| number(cx, &at));
    let mut out = Listener {
        name: cx.names.name(name),
        port,
        host: host.map(|h| cx.names.name(h)),
        namespaces: Allowed::Same,
        kinds: by_protocol(protocol).map(|kinds| kinds.iter().map(|k| cx.names.name(k)).collect()),
    };
    let Some(allowed) = field(at, "allowedRoutes") else { return Some(out) };
    if let Some(at) = field(&allowed, "namespaces") {
        let from = cx.any_fields(&at)?.string(cx, "from").unwrap_or_default();
        out.namespaces = match from {
            "All" => Allowed::All,
            "Selector" => match field(&at, "selector") {
                Some(at) => Allowed::Selector(label_selector(cx, &at)),
                None => Allowed::None,
            },
            "None" => Allowed::None,
            _ => Allowed::Same,
        };
    }
    if let Some(list) = field(&allowed, "kinds") {
        let mut kinds = Vec::new();
        for at in cx.list(&list) {
            let fields = cx.any_fields(&at)?;
            let group = fields.string(cx, "group").unwrap_or(GATEWAY_GROUP);
            let kind = fields.string(cx, "kind").unwrap_or_default();
            if group == GATEWAY_GROUP {
                kinds.push(cx.names.name(kind));
            }
        }
        if !kinds.is_empty() {
            out.kinds = Some(kinds);
        }
    }
    Some(out)
}

/// The kinds of routes that a listener of a protocol takes where it doesn't say; `None`: the implementation's to say.
fn by_protocol(protocol: &str) -> Option<&'static [&'static str]> {
    match protocol {
        "HTTP" | "HTTPS" => Some(&["HTTPRoute", "GRPCRoute"]),
        // Terminated, a TLS listener may hand on plain connections.
        "TLS" => Some(&["TLSRoute", "TCPRoute"]),
        "TCP" => Some(&["TCPRoute"]),
        "UDP" => Some(&["UDPRoute"]),
        _ => None,
    }
}

/// Reads an HTTPRoute, GRPCRoute, TLSRoute, TCPRoute or UDPRoute.
pub(crate) fn gateway_route(
    cx: &mut Context<'_>,
    object: &Fields<'_>,
    kind: &str,
    meta: &Meta,
) -> DeclaredRoute {
    let mut out = DeclaredRoute::new(meta);
    out.parents = Some(Vec::new());
    let Some(spec) = object.get("spec") else { return out };
    if cx.any_fields(&spec).is_none() {
        return out;
    }
    let protocol = if kind == "UDPRoute" { Protocol::Udp } else { Protocol::Tcp };
    if let Some(list) = field(&spec, "parentRefs") {
        out.parents = Some(cx.list(&list).iter().filter_map(|at| parent(cx, at, meta)).collect());
    }
    if let Some(list) = field(&spec, "hostnames") {
        for at in cx.list(&list) {
            if let Some(host) = cx.string(&at) {
                out.hosts.push(cx.names.name(host));
            }
        }
    }
    let Some(rules) = field(&spec, "rules") else { return out };
    for rule in cx.list(&rules) {
        mirrors(cx, &rule, protocol, meta, &mut out);
        let Some(list) = field(&rule, "backendRefs") else { continue };
        for at in cx.list(&list) {
            if !is_weightless(cx, &at) {
                backend(cx, &at, protocol, meta, &mut out);
                mirrors(cx, &at, protocol, meta, &mut out);
            }
        }
    }
    out
}

/// What gets a copy of every request.
fn mirrors(cx: &mut Context<'_>, at: &At<'_>, protocol: Protocol, meta: &Meta, out: &mut DeclaredRoute) {
    let Some(filters) = field(at, "filters") else { return };
    for filter in cx.list(&filters) {
        if let Some(mirror) = field(&filter, "requestMirror")
            && let Some(at) = field(&mirror, "backendRef")
        {
            backend(cx, &at, protocol, meta, out);
        }
    }
}

fn backend(cx: &mut Context<'_>, at: &At<'_>, protocol: Protocol, meta: &Meta, out: &mut DeclaredRoute) {
    let Some(fields) = cx.any_fields(at) else { return };
    let (group, kind) = (fields.string(cx, "group"), fields.string(cx, "kind"));
    // Other kinds are the implementation's own: a bucket, a function, a service of another cluster.
    if !matches!((group.unwrap_or_default(), kind.unwrap_or("Service")), ("", "Service")) {
        return;
    }
    let Some(name) = fields.string(cx, "name").filter(|n| !n.is_empty()) else { return };
    let namespace = fields.string(cx, "namespace").filter(|n| !n.is_empty());
    let namespace = namespace.map_or_else(|| meta.key.namespace.clone(), |n| cx.names.name(n));
    let port = match field(at, "port") {
        Some(at) => match number(cx, &at) {
            Some(number) => RoutePort::Service(PortSpec::Number(number)),
            None => return,
        },
        None => RoutePort::Any,
    };
    let service = ObjectKey { namespace, name: cx.names.name(name) };
    out.add(cx, at, DeclaredBackend { service, port, protocol });
}

fn parent(cx: &mut Context<'_>, at: &At<'_>, meta: &Meta) -> Option<Parent> {
    let fields = cx.any_fields(at)?;
    let group = fields.string(cx, "group").unwrap_or(GATEWAY_GROUP);
    let kind = match (group, fields.string(cx, "kind").unwrap_or("Gateway")) {
        (GATEWAY_GROUP, "Gateway") => ParentKind::Gateway,
        ("", "Service") => ParentKind::Service,
        _ => ParentKind::Other,
    };
    let name = fields.string(cx, "name")?;
    let namespace = fields.string(cx, "namespace").filter(|n| !n.is_empty());
    let namespace = namespace.map_or_else(|| meta.key.namespace.clone(), |n| cx.names.name(n));
    let section = fields.string(cx, "sectionName").filter(|n| !n.is_empty()).map(|n| cx.names.name(n));
    let port = field(at, "port").and_then(|at| number(cx, &at));
    Some(Parent { kind, key: ObjectKey { namespace, name: cx.names.name(name) }, section, port })
}

/// Reads a ReferenceGrant.
pub(crate) fn grant(cx: &mut Context<'_>, object: &Fields<'_>) -> Grant {
    let mut out = Grant::default();
    let Some(spec) = object.get("spec") else { return out };
    let Some(fields) = cx.any_fields(&spec) else { return out };
    if let Some(list) = fields.get("from") {
        for at in cx.list(&list) {
            let Some(fields) = cx.any_fields(&at) else { continue };
            if fields.string(cx, "group") == Some(GATEWAY_GROUP)
                && let (Some(kind), Some(namespace)) =
                    (fields.string(cx, "kind"), fields.string(cx, "namespace"))
            {
                out.from.push((cx.names.name(kind), cx.names.name(namespace)));
            }
        }
    }
    if let Some(list) = fields.get("to") {
        for at in cx.list(&list) {
            let Some(fields) = cx.any_fields(&at) else { continue };
            if fields.string(cx, "group").unwrap_or_default().is_empty()
                && fields.string(cx, "kind") == Some("Service")
            {
                let name = fields.string(cx, "name").filter(|n| !n.is_empty());
                out.to.push(name.map(|n| cx.names.name(n)));
            }
        }
    }
    out
}
