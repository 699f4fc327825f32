//! Services to which nothing is known to connect, in namespaces that get policies.

use std::collections::BTreeSet;

use palisade_analysis::suggest::Suggestion;
use palisade_manifest::Loaded;
use palisade_names::is_api_server;
use palisade_policy::{Name, ObjectKey};

use super::Needs;

/// Returns what the policies deny because nothing in the input shows who connects, and the namespaces that get no policies
/// because nothing is known about their pods.
pub(crate) fn closed(loaded: &Loaded, needs: &Needs, suggestion: &Suggestion) -> Vec<String> {
    let mut out: Vec<String> = needs.unknown.iter().cloned().collect();
    let services = loaded.cluster.services.values().filter(|service| {
        suggestion.namespaces.contains(&service.key.namespace)
            && service.access.external_name.is_none()
            && !is_api_server(&service.key)
    });
    for service in services {
        let key = &service.key;
        let origin = loaded.origins.get(&(Name::from("Service"), key.clone()));
        let at = origin.map(|origin| format!(" ({origin})")).unwrap_or_default();
        if service.access.exposed {
            out.push(format!(
                "Service {key}{at} is reached from outside the cluster; from which addresses is not known"
            ));
        } else if !needs.used.contains(key) && service.selector.is_some() {
            out.push(format!("Service {key}{at}: nothing in the input refers to it"));
        }
    }
    out
}

/// Returns the namespaces with pods that get no policies, because no connection of theirs is known.
pub(crate) fn without_policies(
    loaded: &Loaded,
    suggestion: &Suggestion,
    only: Option<&Name>,
) -> BTreeSet<Name> {
    let with_pods = loaded.cluster.pods.keys().map(|ObjectKey { namespace, .. }| namespace);
    let known = |name: &&Name| {
        suggestion.namespaces.contains(*name)
            || suggestion.system.contains(*name)
            || palisade_analysis::suggest::is_system_namespace(name)
    };
    with_pods.filter(|name| only.is_none() && !known(name)).cloned().collect()
}
