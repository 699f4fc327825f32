//! Services: addresses, ports and selectors.

use std::{collections::BTreeSet, net::IpAddr};

use palisade_policy::{
    Family, Protocol, Requirement, Selector, Service, ServiceAccess, ServicePort, TargetPort, Test,
};

use crate::{
    cidr::parse_ip,
    declared::{Declaration, DeclaredService},
    decode::{Context, Fields, IntOrString},
    diagnostic::Code,
    meta::Object,
    names,
    network_policy::protocol,
    tree::At,
};

/// Fields of `ServiceSpec` (Kubernetes 1.35), and those of older servers.
const SERVICE_SPEC: &[&str] = &[
    "allocateLoadBalancerNodePorts",
    "clusterIP",
    "clusterIPs",
    "externalIPs",
    "externalName",
    "externalTrafficPolicy",
    "healthCheckNodePort",
    "internalTrafficPolicy",
    "ipFamilies",
    "ipFamilyPolicy",
    "loadBalancerClass",
    "loadBalancerIP",
    "loadBalancerSourceRanges",
    "ports",
    "publishNotReadyAddresses",
    "selector",
    "sessionAffinity",
    "sessionAffinityConfig",
    "topologyKeys",
    "trafficDistribution",
    "type",
];

/// Decodes a Service.
pub(crate) fn service(cx: &mut Context<'_>, object: &Object<'_>) -> Option<Declaration> {
    let key = object.meta.key.clone();
    let spec_at = object.get("spec");
    let Some(spec) = spec_at.as_ref().and_then(|at| cx.fields(at, SERVICE_SPEC)) else {
        let service = Service::new(key);
        return Some(Declaration::Service(DeclaredService {
            service,
            needs_address: false,
            families: BTreeSet::new(),
        }));
    };
    let kind = spec.string(cx, "type");
    let external_name = kind == Some("ExternalName");
    let on_nodes = matches!(kind, Some("NodePort" | "LoadBalancer"));
    let (mut addresses, headless) = cluster_ips(cx, &spec);
    if external_name {
        addresses.clear();
    }
    let needs_address = addresses.is_empty() && !headless && !external_name;
    let selector = if external_name { None } else { selector(cx, &spec) };
    let mut ports = Vec::new();
    if let Some(list) = spec.get("ports") {
        ports = cx.list(&list).iter().filter_map(|at| port(cx, at, on_nodes)).collect();
    }
    let families = if external_name { BTreeSet::new() } else { families(cx, &spec) };
    let mut access = access(cx, &spec, object, kind.unwrap_or("ClusterIP"));
    access.headless = headless && !external_name;
    let service = Service { addresses, selector, ports, access, ..Service::new(key) };
    Some(Declaration::Service(DeclaredService { service, needs_address, families }))
}

/// Returns the declared addresses, and whether the service is headless.
fn cluster_ips(cx: &mut Context<'_>, spec: &Fields<'_>) -> (Vec<IpAddr>, bool) {
    let mut addresses = Vec::new();
    let mut seen = BTreeSet::new();
    let mut headless = false;
    let list = spec.get("clusterIPs");
    let single = spec.get("clusterIP");
    for at in list.iter().flat_map(|at| at.items()).chain(single) {
        match cx.string(&at) {
            None | Some("") => {}
            Some("None") => headless = true,
            Some(text) => match parse_ip(text) {
                Some(ip) if seen.insert(ip) => addresses.push(ip),
                Some(_) => {}
                None => cx.invalid(&at, [IP_ADDRESS]),
            },
        }
    }
    (addresses, headless)
}

/// Returns the families that the service requires the cluster to have.
fn families(cx: &mut Context<'_>, spec: &Fields<'_>) -> BTreeSet<Family> {
    let mut required = BTreeSet::new();
    if let Some(list) = spec.get("ipFamilies") {
        for at in cx.list(&list) {
            match cx.string(&at) {
                Some("IPv4") => _ = required.insert(Family::V4),
                Some("IPv6") => _ = required.insert(Family::V6),
                Some(_) => cx.invalid(&at, ["must be IPv4 or IPv6"]),
                None => {}
            }
        }
    }
    if spec.string(cx, "ipFamilyPolicy") == Some("RequireDualStack") {
        required.extend(Family::BOTH);
    }
    required
}

/// Reads the selector, which is a map. Empty or absent means that the endpoints are managed elsewhere.
fn selector(cx: &mut Context<'_>, spec: &Fields<'_>) -> Option<Selector> {
    let labels = cx.labels(&spec.get("selector")?);
    let requirement = |(key, value): (&palisade_policy::Name, &palisade_policy::Name)| Requirement {
        key: key.clone(),
        test: Test::In([value.clone()].into()),
    };
    (!labels.is_empty()).then(|| Selector::new(labels.iter().map(requirement)))
}

/// Reads the other ways to a service of this type.
fn access(cx: &mut Context<'_>, spec: &Fields<'_>, object: &Object<'_>, kind: &str) -> ServiceAccess {
    let is_local = |cx: &mut Context<'_>, name: &str| spec.string(cx, name) == Some("Local");
    let mut access = ServiceAccess {
        exposed: matches!(kind, "NodePort" | "LoadBalancer"),
        // The API server ignores the policy for services that nothing outside can reach.
        external_local: is_local(cx, "externalTrafficPolicy"),
        internal_local: is_local(cx, "internalTrafficPolicy"),
        ..ServiceAccess::default()
    };
    if kind == "ExternalName" {
        let name = spec.string(cx, "externalName").filter(|name| !name.is_empty());
        access.external_name = name.map(|name| cx.names.name(name));
        return access;
    }
    if let Some(list) = spec.get("externalIPs") {
        let mut seen = BTreeSet::new();
        for at in cx.list(&list) {
            match cx.string(&at).map(parse_ip) {
                Some(Some(ip)) if seen.insert(ip) => access.external_ips.push(ip),
                Some(Some(_)) => {}
                Some(None) => cx.invalid(&at, [IP_ADDRESS]),
                None => {}
            }
        }
    }
    if kind == "LoadBalancer" {
        load_balancer(cx, spec, object, &mut access);
    }
    access
}

/// Reads the addresses and host names of a load balancer. What is no address is left out: the fields of the status are
/// whatever a controller wrote, and the API server doesn't validate `loadBalancerIP`.
fn load_balancer(cx: &mut Context<'_>, spec: &Fields<'_>, object: &Object<'_>, access: &mut ServiceAccess) {
    let status = object.get("status");
    let status = status.as_ref().and_then(|status| status.get("loadBalancer"));
    let ingress = status.as_ref().and_then(|status| status.get("ingress"));
    let mut seen = BTreeSet::new();
    for entry in ingress.iter().flat_map(|list| list.items()) {
        let ip = entry.get("ip").filter(|at| !at.is_null()).and_then(|at| cx.string(&at));
        access.load_balancer.extend(ip.and_then(parse_ip).filter(|ip| seen.insert(*ip)));
        let host = entry.get("hostname").filter(|at| !at.is_null()).and_then(|at| cx.string(&at));
        access.host_names.extend(host.filter(|host| !host.is_empty()).map(|host| cx.names.name(host)));
    }
    if let Some(ip) = spec.string(cx, "loadBalancerIP").and_then(parse_ip)
        && seen.insert(ip)
    {
        access.load_balancer.push(ip);
        access.load_balancer_wish = Some(ip);
    }
    if let Some(list) = spec.get("loadBalancerSourceRanges") {
        for at in cx.list(&list) {
            match cx.string(&at).map(|text| text.trim().parse()) {
                Some(Ok(range)) => access.source_ranges.push(range),
                Some(Err(_)) => cx.invalid(&at, [CIDR]),
                None => {}
            }
        }
    }
}

/// The API server's message for what is no address.
const IP_ADDRESS: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

/// The API server's message for what is no range.
const CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

fn port(cx: &mut Context<'_>, at: &At<'_>, on_nodes: bool) -> Option<ServicePort> {
    let fields = cx.fields(at, &["appProtocol", "name", "nodePort", "port", "protocol", "targetPort"])?;
    let Some(number_at) = fields.get("port") else {
        cx.missing(at, "port", Code::Required, "Required value");
        return None;
    };
    let number = cx.int32(&number_at)?;
    cx.invalid(&number_at, names::port_number(number.into()));
    let protocol = match fields.get("protocol") {
        Some(at) => protocol(cx, &at)?,
        None => Protocol::Tcp,
    };
    let name = fields.string(cx, "name").filter(|n| !n.is_empty()).map(|n| cx.names.name(n));
    let number = u16::try_from(number).ok()?;
    let target = match fields.get("targetPort") {
        Some(at) => target(cx, &at, number)?,
        None => TargetPort::Number(number),
    };
    let node_port = fields.get("nodePort").filter(|_| on_nodes).and_then(|at| cx.int32(&at));
    let node_port = node_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
    Some(ServicePort { name, protocol, port: number, target, node_port })
}

/// Reads a target port. Absent, 0 and "" mean the service's own port.
fn target(cx: &mut Context<'_>, at: &At<'_>, own: u16) -> Option<TargetPort> {
    match cx.int_or_string(at)? {
        IntOrString::Int(0) | IntOrString::String("") => Some(TargetPort::Number(own)),
        IntOrString::Int(number) => {
            cx.invalid(at, names::port_number(number.into()));
            u16::try_from(number).ok().map(TargetPort::Number)
        }
        IntOrString::String(name) => {
            cx.invalid(at, names::port_name(name));
            Some(TargetPort::Name(cx.names.name(name)))
        }
    }
}
