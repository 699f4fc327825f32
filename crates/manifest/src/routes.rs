//! Objects that let connections into a cluster through a controller: Ingress (`networking.k8s.io/v1`), the routes of
//! the Gateway API (`gateway.networking.k8s.io`) and OpenShift's Route (`route.openshift.io/v1`).
//!
//! Only the fields that decide to which ports of which services a controller forwards are read, and the class, which says
//! which controller that is. All others (hosts, paths, certificates, other annotations) are ignored. A backend that doesn't
//! exist is a warning.

mod gateway;
mod resolve;

use std::collections::BTreeMap;

use palisade_names::{PortSpec, RoutePort};
use palisade_policy::{Name, ObjectKey, Protocol};

use crate::{
    declared::{Declaration, DeclaredBackend, DeclaredRoute},
    decode::{Context, IntOrString},
    meta::{Meta, Object},
    names,
    tree::At,
};
pub(crate) use gateway::{gateway, gateway_route, reference_grant};
pub(crate) use resolve::resolve;

/// The API group of the Gateway API.
pub(crate) const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";

impl DeclaredRoute {
    pub(crate) fn new(meta: &Meta) -> Self {
        Self {
            origin: meta.origin.clone(),
            class: None,
            backends: BTreeMap::new(),
            parents: None,
            hosts: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, cx: &Context<'_>, at: &At<'_>, backend: DeclaredBackend) {
        self.backends.entry(backend).or_insert_with(|| (cx.origin(at), at.path()));
    }
}

/// Returns a field that is set and not null.
pub(crate) fn field<'b>(at: &'b At<'_>, name: &str) -> Option<At<'b>> {
    at.get(name).filter(|at| !at.is_null())
}

/// Decodes an Ingress: its default backend, and those of all paths of all rules.
pub(crate) fn ingress(cx: &mut Context<'_>, object: &Object<'_>) -> Option<Declaration> {
    Some(Declaration::Route(ingress_route(cx, object)))
}

fn ingress_route(cx: &mut Context<'_>, object: &Object<'_>) -> DeclaredRoute {
    let meta = &object.meta;
    let mut out = DeclaredRoute::new(meta);
    out.class = annotated_class(cx, object);
    let Some(spec) = object.get("spec") else { return out };
    let Some(fields) = cx.any_fields(&spec) else { return out };
    if let Some(class) = fields.string(cx, "ingressClassName").filter(|class| !class.is_empty()) {
        out.class = Some(cx.names.name(class));
    }
    if let Some(at) = field(&spec, "defaultBackend") {
        ingress_backend(cx, &at, meta, &mut out);
    }
    let Some(rules) = field(&spec, "rules") else { return out };
    for rule in cx.list(&rules) {
        let Some(http) = field(&rule, "http") else { continue };
        let Some(paths) = field(&http, "paths") else { continue };
        for path in cx.list(&paths) {
            if let Some(at) = field(&path, "backend") {
                ingress_backend(cx, &at, meta, &mut out);
            }
        }
    }
    out
}

/// Returns the class in the annotation that preceded `ingressClassName`. Controllers still honor it.
fn annotated_class(cx: &mut Context<'_>, object: &Object<'_>) -> Option<Name> {
    let metadata = object.get("metadata")?;
    let annotations = field(&metadata, "annotations")?;
    let class = cx.any_fields(&annotations)?.string(cx, "kubernetes.io/ingress.class")?;
    (!class.is_empty()).then(|| cx.names.name(class))
}

/// Adds a backend. A backend that is another kind of object (`resource`) is ignored, since it leads to no known pod.
fn ingress_backend(cx: &mut Context<'_>, at: &At<'_>, meta: &Meta, out: &mut DeclaredRoute) {
    let Some(service) = field(at, "service") else { return };
    let Some(fields) = cx.any_fields(&service) else { return };
    let Some(name) = fields.string(cx, "name").filter(|n| !n.is_empty()) else { return };
    let port = match field(&service, "port") {
        None => RoutePort::Any,
        Some(at) => {
            let Some(fields) = cx.any_fields(&at) else { return };
            let name = fields.string(cx, "name").filter(|n| !n.is_empty());
            match (name, field(&at, "number")) {
                (Some(name), _) => RoutePort::Service(PortSpec::Name(cx.names.name(name))),
                (None, Some(at)) => match number(cx, &at) {
                    Some(number) => RoutePort::Service(PortSpec::Number(number)),
                    None => return,
                },
                (None, None) => RoutePort::Any,
            }
        }
    };
    let key = ObjectKey { namespace: meta.key.namespace.clone(), name: cx.names.name(name) };
    out.add(cx, at, DeclaredBackend { service: key, port, protocol: Protocol::Tcp });
}

/// Reads a port number, or reports an error.
pub(crate) fn number(cx: &mut Context<'_>, at: &At<'_>) -> Option<u16> {
    let number = cx.int32(at)?;
    cx.invalid(at, names::port_number(number.into()));
    u16::try_from(number).ok().filter(|n| *n > 0)
}

/// Decodes OpenShift's Route: its service and the alternatives that get a share of the traffic. Without a port, the router
/// uses all ports of the service.
pub(crate) fn openshift_route(cx: &mut Context<'_>, object: &Object<'_>) -> Option<Declaration> {
    Some(Declaration::Route(openshift_backends(cx, object)))
}

fn openshift_backends(cx: &mut Context<'_>, object: &Object<'_>) -> DeclaredRoute {
    let meta = &object.meta;
    let mut out = DeclaredRoute::new(meta);
    let Some(spec) = object.get("spec") else { return out };
    if cx.any_fields(&spec).is_none() {
        return out;
    }
    let target = field(&spec, "port").and_then(|port| {
        let at = field(&port, "targetPort")?;
        Some(match cx.int_or_string(&at)? {
            IntOrString::Int(_) => PortSpec::Number(number(cx, &at)?),
            // The router compares strings: "8080" means the number.
            IntOrString::String(text) => match text.parse() {
                Ok(number) => PortSpec::Number(number),
                Err(_) => PortSpec::Name(cx.names.name(text)),
            },
        })
    });
    let port = target.map_or(RoutePort::Any, RoutePort::Target);
    let mut add = |cx: &mut Context<'_>, at: &At<'_>| {
        let Some(fields) = cx.any_fields(at) else { return };
        let kind = fields.string(cx, "kind").unwrap_or_default();
        let Some(name) = fields.string(cx, "name").filter(|n| !n.is_empty()) else { return };
        if !matches!(kind, "" | "Service") || has_no_weight(cx, at) {
            return;
        }
        let service = ObjectKey { namespace: meta.key.namespace.clone(), name: cx.names.name(name) };
        out.add(cx, at, DeclaredBackend { service, port: port.clone(), protocol: Protocol::Tcp });
    };
    if let Some(at) = field(&spec, "to") {
        add(cx, &at);
    }
    if let Some(list) = field(&spec, "alternateBackends") {
        for at in cx.list(&list) {
            add(cx, &at);
        }
    }
    out
}

/// Returns whether a backend gets no traffic because its weight is 0.
pub(crate) fn has_no_weight(cx: &mut Context<'_>, at: &At<'_>) -> bool {
    field(at, "weight").is_some_and(|at| cx.int32(&at) == Some(0))
}
