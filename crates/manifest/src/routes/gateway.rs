//! The Gateway API: gateways, their routes, and the grants that let a route refer to another namespace.

use palisade_names::{PortSpec, RoutePort};
use palisade_policy::{ObjectKey, Protocol};

use super::{GATEWAY_GROUP, field, has_no_weight, number};
use crate::{
    declared::{
        AllowedNamespaces, Declaration, DeclaredBackend, DeclaredRoute, Gateway, Listener, ParentKind,
        ParentRef, ReferenceGrant,
    },
    decode::Context,
    meta::{Meta, Object},
    selector::label_selector,
    tree::At,
};

/// Decodes a Gateway.
pub(crate) fn gateway(cx: &mut Context<'_>, object: &Object<'_>) -> Option<Declaration> {
    let spec = object.get("spec");
    let fields = spec.as_ref().and_then(|spec| cx.any_fields(spec));
    let class = fields.and_then(|fields| fields.string(cx, "gatewayClassName"));
    let class = class.filter(|class| !class.is_empty()).map(|class| cx.names.name(class));
    Some(Declaration::Gateway(Gateway { class, listeners: listeners(cx, object) }))
}

fn listeners(cx: &mut Context<'_>, object: &Object<'_>) -> Vec<Listener> {
    let mut out = Vec::new();
    let Some(spec) = object.get("spec") else { return out };
    let Some(list) = cx.any_fields(&spec).and_then(|spec| spec.get("listeners")) else { return out };
    for at in cx.list(&list) {
        out.extend(listener(cx, &at));
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
        namespaces: AllowedNamespaces::Same,
        kinds: default_kinds(protocol).map(|kinds| kinds.iter().map(|k| cx.names.name(k)).collect()),
    };
    let Some(allowed) = field(at, "allowedRoutes") else { return Some(out) };
    if let Some(at) = field(&allowed, "namespaces") {
        let from = cx.any_fields(&at)?.string(cx, "from").unwrap_or_default();
        out.namespaces = match from {
            "All" => AllowedNamespaces::All,
            "Selector" => match field(&at, "selector") {
                Some(at) => AllowedNamespaces::Selector(label_selector(cx, &at)),
                None => AllowedNamespaces::None,
            },
            "None" => AllowedNamespaces::None,
            _ => AllowedNamespaces::Same,
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

/// The kinds of routes that a listener accepts by default; `None` if the implementation decides.
fn default_kinds(protocol: &str) -> Option<&'static [&'static str]> {
    match protocol {
        "HTTP" | "HTTPS" => Some(&["HTTPRoute", "GRPCRoute"]),
        // A listener that terminates TLS may forward plain TCP connections.
        "TLS" => Some(&["TLSRoute", "TCPRoute"]),
        "TCP" => Some(&["TCPRoute"]),
        "UDP" => Some(&["UDPRoute"]),
        _ => None,
    }
}

/// Decodes an HTTPRoute, GRPCRoute, TLSRoute, TCPRoute or UDPRoute.
pub(crate) fn gateway_route(cx: &mut Context<'_>, object: &Object<'_>) -> Option<Declaration> {
    Some(Declaration::Route(route(cx, object)))
}

fn route(cx: &mut Context<'_>, object: &Object<'_>) -> DeclaredRoute {
    let meta = &object.meta;
    let mut out = DeclaredRoute::new(meta);
    out.parents = Some(Vec::new());
    let Some(spec) = object.get("spec") else { return out };
    if cx.any_fields(&spec).is_none() {
        return out;
    }
    let protocol = if object.kind == "UDPRoute" { Protocol::Udp } else { Protocol::Tcp };
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
            if !has_no_weight(cx, &at) {
                backend(cx, &at, protocol, meta, &mut out);
                mirrors(cx, &at, protocol, meta, &mut out);
            }
        }
    }
    out
}

/// Adds the backends that get a copy of every request.
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
    // Other kinds depend on the implementation: a bucket, a function, a service of another cluster.
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

fn parent(cx: &mut Context<'_>, at: &At<'_>, meta: &Meta) -> Option<ParentRef> {
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
    Some(ParentRef { kind, key: ObjectKey { namespace, name: cx.names.name(name) }, section, port })
}

/// Decodes a ReferenceGrant.
pub(crate) fn reference_grant(cx: &mut Context<'_>, object: &Object<'_>) -> Option<Declaration> {
    Some(Declaration::ReferenceGrant(grant(cx, object)))
}

fn grant(cx: &mut Context<'_>, object: &Object<'_>) -> ReferenceGrant {
    let mut out = ReferenceGrant::default();
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
