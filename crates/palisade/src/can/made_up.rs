//! Pods that don't exist: a question about one adds it to the cluster.

use std::net::IpAddr;

use anyhow::{Result, bail};
use palisade_names::EndpointKind;
use palisade_policy::{
    Cluster, Family, Labels, NAMESPACE_NAME_LABEL, Name, Namespace, ObjectKey, Pod,
    address::{from_number, to_number},
};

use super::spec::{EndpointSpec, MadeUpNamespace, Spec};

/// The namespace of a pod whose namespace doesn't exist and has no name. No object can have it.
const NO_NAME: &str = "?";

/// Adds the pods of these specs that don't exist, and makes the specs refer to them. Names and namespaces of such pods can't
/// be those of objects, since the API rejects them.
///
/// # Errors
/// When a namespace is misspelled rather than new.
pub(crate) fn add(cluster: &mut Cluster, specs: [&mut Spec; 2], namespace: &str) -> Result<()> {
    for spec in specs {
        let EndpointSpec::MadeUp { labels, namespace: given } = &spec.endpoint else { continue };
        let text = labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",");
        let name = if text.is_empty() { "pod:".to_owned() } else { format!("pod:{text}") };
        let home = home(cluster, given, namespace)?;
        let pod = Pod::new(ObjectKey::new(home.clone(), name.as_str()), of(labels), addresses(cluster));
        cluster.pods.insert(pod);
        spec.endpoint =
            EndpointSpec::Named { namespace: Some(home.to_string()), kind: Some(EndpointKind::Pod), name };
    }
    Ok(())
}

fn of(labels: &[(String, String)]) -> Labels {
    labels.iter().map(|(key, value)| (Name::from(&**key), Name::from(&**value))).collect()
}

/// Returns the namespace of a pod, which is added if there is none.
fn home(cluster: &mut Cluster, given: &MadeUpNamespace, default: &str) -> Result<Name> {
    let (name, labels) = match given {
        MadeUpNamespace::Default => (default.to_owned(), Labels::default()),
        MadeUpNamespace::Named(name) => (name.clone(), Labels::default()),
        MadeUpNamespace::Labels(labels) => {
            // Every namespace has its name as a label (SEMANTICS A13).
            if let Some((_, name)) = labels.iter().find(|(key, _)| key == NAMESPACE_NAME_LABEL) {
                (name.clone(), of(labels))
            } else {
                let text = labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",");
                (format!("{NO_NAME}{text}"), of(labels))
            }
        }
    };
    let name = Name::from(name);
    if !cluster.namespaces.contains_key(&name) {
        if matches!(given, MadeUpNamespace::Named(_))
            && let Err(palisade_names::LookupError::Namespace { near, .. }) =
                palisade_names::find(cluster, None, &name, "?")
        {
            // A word before a slash may also be a misspelled kind; after `@`, only a namespace can be meant.
            let near: Vec<String> = near.into_iter().filter(|near| !near.contains('/')).collect();
            if !near.is_empty() {
                bail!(
                    "there is no namespace `{name}`; did you mean {}? For one that does not exist, give its labels: \
                     @kubernetes.io/metadata.name={name}",
                    near.join(" or ")
                );
            }
        }
        cluster.namespaces.insert(name.clone(), Namespace::new(name.clone(), &labels));
    }
    Ok(name)
}

/// The addresses of a pod in a cluster that has none: the last ones of the usual ranges.
const USUAL: [&str; 2] = ["10.244.255.254", "fd00:10:244::ffff"];

/// Returns addresses for a pod: one that follows those of the cluster's pods, in each family that they have.
fn addresses(cluster: &Cluster) -> Vec<IpAddr> {
    let after = |family: Family| {
        let of_family = cluster.pods.values().filter_map(|pod| pod.address(family)).map(to_number);
        let last = of_family.max()?;
        Some(from_number(family, last.checked_add(1)?))
    };
    let found: Vec<IpAddr> = Family::BOTH.into_iter().filter_map(after).collect();
    if found.is_empty() { USUAL.iter().filter_map(|a| a.parse().ok()).collect() } else { found }
}
