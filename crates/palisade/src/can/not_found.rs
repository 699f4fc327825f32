//! The error for a name that nothing has: what is probably wrong with it, and what to write instead.

use anyhow::anyhow;
use palisade_names::{EndpointKind, LookupError, UnknownKind};
use palisade_policy::Cluster;

/// Words for kinds that people write before a name, but whose objects have no address, in lower case.
const WITHOUT_ENDPOINTS: [&str; 27] = [
    "adminnetworkpolicy",
    "anp",
    "banp",
    "baselineadminnetworkpolicy",
    "clusternetworkpolicy",
    "cm",
    "cnp",
    "configmap",
    "configmaps",
    "container",
    "endpoints",
    "endpointslice",
    "ep",
    "gateway",
    "gateways",
    "httproute",
    "ing",
    "ingress",
    "ingresses",
    "netpol",
    "networkpolicies",
    "networkpolicy",
    "sa",
    "secret",
    "secrets",
    "serviceaccount",
    "serviceaccounts",
];

/// Returns the error for a name that was looked up in the namespace `given`, else in `default` and then everywhere.
pub(super) fn error(
    cluster: &Cluster,
    error: LookupError,
    kind: Option<EndpointKind>,
    given: Option<&str>,
    default: &str,
    name: &str,
) -> anyhow::Error {
    let error = match given {
        None if kind == Some(EndpointKind::Node) => error,
        None => palisade_names::unknown_anywhere(cluster, kind, name),
        Some(_) => error,
    };
    if kind.is_some() {
        return error.into();
    }
    match given {
        None => without_namespace(cluster, default, name),
        Some(namespace) => in_namespace(cluster, &error, namespace, name),
    }
    .unwrap_or_else(|| error.into())
}

fn without_namespace(cluster: &Cluster, default: &str, name: &str) -> Option<anyhow::Error> {
    if name.contains('.') && name.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Some(anyhow!("`{name}` is not an IP address, and no pod or workload has this name"));
    }
    let meant = of_other_kind(cluster, default, name).or_else(|| {
        // A service has the name in one other namespace, or in several.
        let services = palisade_names::find_anywhere(cluster, Some(EndpointKind::Service), name);
        services.first().map(ToString::to_string)
    });
    let meant = meant.or_else(|| cluster.namespaces.contains_key(name).then(|| format!("ns/{name}")))?;
    Some(anyhow!("there is no pod or workload `{name}`; did you mean {meant}?"))
}

fn in_namespace(
    cluster: &Cluster,
    error: &LookupError,
    namespace: &str,
    name: &str,
) -> Option<anyhow::Error> {
    if let Some(meant) = of_other_kind(cluster, namespace, name) {
        return Some(anyhow!(
            "there is no pod or workload `{name}` in namespace {namespace}; did you mean {meant}?"
        ));
    }
    if !matches!(error, LookupError::Namespace { .. }) {
        return None;
    }
    if WITHOUT_ENDPOINTS.contains(&namespace) {
        return Some(UnknownKind(namespace.to_owned()).into());
    }
    // `backend/8080` for `backend:8080`.
    let is_port = name.parse::<u16>().is_ok_and(|port| port > 0);
    let exists = || !palisade_names::find_anywhere(cluster, None, namespace).is_empty();
    (is_port && exists())
        .then(|| anyhow!("there is no namespace `{namespace}`; did you mean {namespace}:{name}?"))
}

/// Returns the service or node of this name, which must be given with its kind.
fn of_other_kind(cluster: &Cluster, namespace: &str, name: &str) -> Option<String> {
    [EndpointKind::Service, EndpointKind::Node]
        .into_iter()
        .find_map(|kind| palisade_names::find(cluster, Some(kind), namespace, name).ok())
        .map(|found| found.to_string())
}
