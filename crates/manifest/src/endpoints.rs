//! EndpointSlices and Endpoints: what is behind a service without selector.
//!
//! Those of a service with a selector are the work of a controller, and say nothing that its pods don't say.

use std::collections::BTreeSet;

use palisade_policy::{EndpointPort, ObjectKey, Protocol, ServiceEndpoints};

use crate::{
    cidr::parse_ip,
    declared::{Declaration, DeclaredEndpoints},
    decode::Context,
    meta::Object,
    tree::At,
};

/// The label of an EndpointSlice with the name of its service, which is in the same namespace.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Decodes an EndpointSlice. Endpoints that are not ready are left out, as they get no connections.
pub(crate) fn endpoint_slice(cx: &mut Context<'_>, object: &Object<'_>) -> Option<Declaration> {
    let service = object.meta.labels.get(SERVICE_NAME).unwrap_or_default();
    let service = ObjectKey::new(object.meta.key.namespace.clone(), service);
    let mut addresses = BTreeSet::new();
    let list = object.get("endpoints");
    for endpoint in list.iter().flat_map(|list| list.items()) {
        let conditions = endpoint.get("conditions");
        let ready = conditions.as_ref().and_then(|at| at.get("ready")).filter(|at| !at.is_null());
        if ready.and_then(|at| cx.bool(&at)) == Some(false) {
            continue;
        }
        let list = endpoint.get("addresses");
        addresses.extend(list.iter().flat_map(|list| list.items()).filter_map(|at| address(cx, &at)));
    }
    let list = object.get("ports");
    let ports = list.iter().flat_map(|list| list.items()).filter_map(|at| port(cx, &at)).collect();
    let endpoints = vec![ServiceEndpoints { addresses: addresses.into_iter().collect(), ports }];
    Some(Declaration::Endpoints(DeclaredEndpoints { service, endpoints }))
}

/// Decodes an Endpoints object, which has the name of its service.
pub(crate) fn endpoints(cx: &mut Context<'_>, object: &Object<'_>) -> Option<Declaration> {
    let mut endpoints = Vec::new();
    let list = object.get("subsets");
    for subset in list.iter().flat_map(|list| list.items()) {
        let list = subset.get("addresses");
        let mut addresses = BTreeSet::new();
        for entry in list.iter().flat_map(|list| list.items()) {
            addresses.extend(entry.get("ip").and_then(|at| address(cx, &at)));
        }
        let addresses = addresses.into_iter().collect();
        let list = subset.get("ports");
        let ports = list.iter().flat_map(|list| list.items()).filter_map(|at| port(cx, &at)).collect();
        endpoints.push(ServiceEndpoints { addresses, ports });
    }
    let service = object.meta.key.clone();
    Some(Declaration::Endpoints(DeclaredEndpoints { service, endpoints }))
}

/// Reads an address. A host name (addressType FQDN) is none: no data plane connects to it.
fn address(cx: &mut Context<'_>, at: &At<'_>) -> Option<std::net::IpAddr> {
    cx.string(at).and_then(parse_ip)
}

fn port(cx: &mut Context<'_>, at: &At<'_>) -> Option<EndpointPort> {
    let set = |name: &str| at.get(name).filter(|at| !at.is_null());
    let protocol = match set("protocol") {
        Some(at) => crate::network_policy::protocol(cx, &at)?,
        None => Protocol::Tcp,
    };
    let name = set("name").and_then(|at| cx.string(&at)).filter(|name| !name.is_empty());
    let number = set("port").and_then(|at| cx.int32(&at));
    let port = number.and_then(|number| u16::try_from(number).ok()).filter(|port| *port > 0);
    Some(EndpointPort { name: name.map(|name| cx.names.name(name)), protocol, port })
}
