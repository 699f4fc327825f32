//! Services: addresses, ports and selectors.

use std::{collections::BTreeSet, net::IpAddr};

use palisade_policy::{Family, Protocol, Requirement, Selector, Service, ServicePort, TargetPort, Test};

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
        let service = Service { key, addresses: Vec::new(), selector: None, ports: Vec::new() };
        return Some(Declaration::Service(DeclaredService { service, needs: BTreeSet::new() }));
    };
    let external_name = spec.string(cx, "type") == Some("ExternalName");
    let (mut addresses, headless) = cluster_ips(cx, &spec);
    if external_name {
        addresses.clear();
    }
    let mut needs = BTreeSet::new();
    if addresses.is_empty() && !headless && !external_name {
        needs = families(cx, &spec);
    }
    let selector = if external_name { None } else { selector(cx, &spec) };
    let mut ports = Vec::new();
    if let Some(list) = spec.get("ports") {
        ports = cx.list(&list).iter().filter_map(|at| port(cx, at)).collect();
    }
    let service = Service { key, addresses, selector, ports };
    Some(Declaration::Service(DeclaredService { service, needs }))
}

/// Returns the declared addresses, and whether the service is headless.
fn cluster_ips(cx: &mut Context<'_>, spec: &Fields<'_>) -> (Vec<IpAddr>, bool) {
    let mut addresses = Vec::new();
    let mut headless = false;
    let list = spec.get("clusterIPs");
    let single = spec.get("clusterIP");
    for at in list.iter().flat_map(|at| at.items()).chain(single) {
        match cx.string(&at) {
            None | Some("") => {}
            Some("None") => headless = true,
            Some(text) => match parse_ip(text) {
                Some(ip) if addresses.contains(&ip) => {}
                Some(ip) => addresses.push(ip),
                None => cx.invalid(&at, ["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]),
            },
        }
    }
    (addresses, headless)
}

/// Returns the families that the service requests; both if the cluster decides.
fn families(cx: &mut Context<'_>, spec: &Fields<'_>) -> BTreeSet<Family> {
    let mut requested = Vec::new();
    if let Some(list) = spec.get("ipFamilies") {
        for at in cx.list(&list) {
            match cx.string(&at) {
                Some("IPv4") => requested.push(Family::V4),
                Some("IPv6") => requested.push(Family::V6),
                Some(_) => cx.invalid(&at, ["must be IPv4 or IPv6"]),
                None => {}
            }
        }
    }
    match (&*requested, spec.string(cx, "ipFamilyPolicy")) {
        ([], Some("SingleStack")) => BTreeSet::from([Family::V4]),
        ([], _) => Family::BOTH.into(),
        _ => requested.into_iter().collect(),
    }
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

fn port(cx: &mut Context<'_>, at: &At<'_>) -> Option<ServicePort> {
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
    Some(ServicePort { name, protocol, port: number, target })
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
