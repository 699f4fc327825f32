//! Resolves names as people write them: with and without namespace and kind, DNS names, and names of the outside.

use anyhow::{Result, bail};
use palisade_names::{DnsName, EndpointKind, LookupError, Named};
use palisade_policy::{Cluster, DomainName, Endpoint};

use super::{not_found, note::Note};

/// What a name refers to.
pub(super) enum Found<'a> {
    /// An object of the cluster.
    Object(Named<'a>),
    /// An address of the cluster, by a DNS name.
    Address(std::net::IpAddr),
    /// A host outside the cluster.
    Host(String),
}

/// Resolves a name. Without a namespace, it is looked up in `default`, and then in all namespaces if only one has it.
///
/// # Errors
/// When nothing has the name, or more than one object.
pub(super) fn find<'a>(
    cluster: &'a Cluster,
    kind: Option<EndpointKind>,
    namespace: Option<&str>,
    name: &str,
    default: &str,
    notes: &mut Vec<Note>,
) -> Result<Found<'a>> {
    let here = namespace.unwrap_or(default);
    let error = match palisade_names::find(cluster, kind, here, name) {
        Ok(found) => return Ok(Found::Object(found)),
        Err(error @ LookupError::Ambiguous { .. }) => return Err(error.into()),
        Err(error) => error,
    };
    if namespace.is_some() {
        return Err(not_found::error(cluster, error, kind, namespace, default, name));
    }
    if kind.is_none()
        && name.contains('.')
        && let Some(found) = dotted(cluster, name)?
    {
        return Ok(found);
    }
    if kind != Some(EndpointKind::Node) {
        let mut anywhere = palisade_names::find_anywhere(cluster, kind, name);
        match anywhere.len() {
            0 => {}
            1 => {
                let found = anywhere.remove(0);
                notes.push(Note::found_elsewhere(name, here, &found.to_string()));
                return Ok(Found::Object(found));
            }
            _ => {
                let candidates = anywhere.iter().map(ToString::to_string).collect();
                return Err(LookupError::Ambiguous { name: name.to_owned(), candidates }.into());
            }
        }
    }
    if kind.is_none() && is_host(name) {
        let Some(host) = DomainName::new(name) else {
            bail!(
                "`{name}` is not in the cluster, and no host has it: labels have 1 to 63 characters, names at most 253"
            )
        };
        return Ok(Found::Host(host.to_string()));
    }
    Err(not_found::error(cluster, error, kind, namespace, default, name))
}

/// Resolves the target of an alias in DNS, of a service in `namespace`. No search path completes it, so the short forms of the
/// cluster's names are hosts of the outside.
///
/// # Errors
/// When it is a name of the cluster that nothing has, or the short form of a service's name.
pub(super) fn canonical<'a>(cluster: &'a Cluster, namespace: &str, name: &str) -> Result<Found<'a>> {
    let short = match DnsName::parse(name) {
        Some(DnsName::Short { name, namespace }) => (name, namespace),
        None => (name, namespace),
        Some(_) => return Ok(dotted(cluster, name)?.unwrap_or_else(|| Found::Host(name.to_owned()))),
    };
    if let Some(service) = palisade_names::service_of_host(cluster, name) {
        return Ok(Found::Object(Named::Service(service)));
    }
    if palisade_names::find(cluster, Some(EndpointKind::Service), short.1, short.0).is_ok() {
        bail!("no search path completes this name: write {}.{}.svc.cluster.local", short.0, short.1)
    }
    Ok(Found::Host(name.to_owned()))
}

/// Resolves a name with dots. `None`: the cluster's DNS doesn't have it.
fn dotted<'a>(cluster: &'a Cluster, name: &str) -> Result<Option<Found<'a>>> {
    if let Some(service) = palisade_names::service_of_host(cluster, name) {
        return Ok(Some(Found::Object(Named::Service(service))));
    }
    // A Service comes first, as it is what DNS answers with.
    let find = |kind, namespace: &str, name: &str| palisade_names::find(cluster, kind, namespace, name);
    let service = Some(EndpointKind::Service);
    match DnsName::parse(name) {
        None => pod_of_service(cluster, name),
        Some(DnsName::Service { name, namespace }) => {
            Ok(Some(Found::Object(find(service, namespace, name)?)))
        }
        Some(DnsName::PodAddress(address)) => address_of_pod(cluster, name, address).map(Some),
        Some(DnsName::PodOfService { pod, namespace }) => {
            let by_name = find(Some(EndpointKind::Pod), namespace, pod);
            match (by_name, palisade_names::dashed(pod)) {
                (Ok(found), _) => Ok(Some(Found::Object(found))),
                (Err(_), Some(address)) => address_of_pod(cluster, name, address).map(Some),
                (Err(error), None) => Err(error.into()),
            }
        }
        Some(DnsName::Short { name: first, namespace }) => {
            let found = find(service, namespace, first).or_else(|_| find(None, namespace, first));
            match found {
                Ok(found) => Ok(Some(Found::Object(found))),
                Err(error) if cluster.namespaces.contains_key(namespace) => Err(error.into()),
                // `data.db` for `db.data`.
                Err(_)
                    if find(service, first, namespace).or_else(|_| find(None, first, namespace)).is_ok() =>
                {
                    bail!("there is no namespace `{namespace}`; did you mean {namespace}.{first}?")
                }
                Err(error) => match mistyped(cluster, first, &error) {
                    Some(meant) => {
                        bail!("there is no namespace `{namespace}`; did you mean {first}.{meant}?")
                    }
                    None => Ok(None),
                },
            }
        }
    }
}

/// Resolves `POD.SERVICE.NAMESPACE`, which a pod's search path completes, if there is such a namespace: otherwise it is a
/// name of the outside.
fn pod_of_service<'a>(cluster: &'a Cluster, name: &str) -> Result<Option<Found<'a>>> {
    let labels: Vec<&str> = name.trim_end_matches('.').split('.').collect();
    let [pod, service, namespace] = labels[..] else { return Ok(None) };
    if !cluster.namespaces.contains_key(namespace) {
        return Ok(None);
    }
    palisade_names::find(cluster, Some(EndpointKind::Service), namespace, service)?;
    Ok(Some(Found::Object(palisade_names::find(cluster, Some(EndpointKind::Pod), namespace, pod)?)))
}

/// Returns the address in a DNS name that only a pod can have.
///
/// # Errors
/// When no pod has it: another address would be asked about instead.
fn address_of_pod<'a>(cluster: &Cluster, name: &str, address: std::net::IpAddr) -> Result<Found<'a>> {
    match cluster.endpoint(address) {
        Endpoint::Pod { .. } => Ok(Found::Address(address)),
        _ => bail!("no pod has the address {address} of the name `{name}`"),
    }
}

/// Returns a namespace with a similar name that has an object of this name: then the name is no host's.
fn mistyped(cluster: &Cluster, name: &str, error: &LookupError) -> Option<String> {
    let LookupError::Namespace { near, .. } = error else { return None };
    let has = |namespace: &&String| {
        [None, Some(EndpointKind::Service)]
            .into_iter()
            .any(|kind| palisade_names::find(cluster, kind, namespace, name).is_ok())
    };
    near.iter().find(has).cloned()
}

/// Returns whether a name may be a host of the outside: at least two labels, the last one with letters only.
fn is_host(name: &str) -> bool {
    let mut labels = name.trim_end_matches('.').rsplit('.');
    let last = labels.next().unwrap_or_default();
    let letters = last.len() > 1 && last.bytes().all(|b| b.is_ascii_lowercase());
    (letters || last.starts_with("xn--")) && labels.next().is_some()
}
