//! Warnings about policies in, and references to, namespaces that don't exist, which usually are misspelled.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use palisade_policy::{
    Cluster, NAMESPACE_NAME_LABEL, Name, NamespaceMatch, ObjectKey, Origin, Peer, Policy, PolicyKey, Test,
};

use crate::{
    diagnostic::{Code, Diagnostic, Severity},
    options::LoadOptions,
};

/// The namespaces that every cluster has.
const BUILT_IN: &[&str] = &["default", "kube-node-lease", "kube-public", "kube-system"];

/// The most comparisons of two names. What is misspelled beyond them is not found.
const MOST_COMPARISONS: usize = 4_000_000;

/// Warns about policies in namespaces that don't exist, and about peers and subjects that select only such namespaces.
/// A namespace exists if it is declared or has a pod, workload or service. Does nothing if no namespace is declared,
/// since manifests often omit them. Where no pod has an address, these are manifests, and other repositories may hold the other
/// namespaces: then only a name that is nearly that of a namespace counts. `O(policies + pods)`, and the
/// [`MOST_COMPARISONS`].
pub(crate) fn warn_about_missing_namespaces(
    cluster: &Cluster,
    policies: &BTreeMap<PolicyKey, Policy>,
    workloads: impl Iterator<Item = Name>,
    origins: &BTreeMap<(Name, ObjectKey), Origin>,
    options: &LoadOptions,
    found: &mut Vec<Diagnostic>,
) {
    if cluster.namespaces.is_empty() || !options.all_namespaces {
        return;
    }
    let objects = cluster.pods.keys().chain(cluster.services.keys()).map(|key| &key.namespace);
    let known: BTreeSet<Name> = cluster.namespaces.keys().chain(objects).cloned().chain(workloads).collect();
    let is_whole = cluster.pods.values().any(|pod| !pod.addresses.is_empty());
    let mut left = MOST_COMPARISONS;
    let mut is_misspelled = |name: &str| {
        left = left.saturating_sub(known.len());
        left > 0 && known.iter().any(|other| is_near(name, other))
    };
    let mut judged: HashMap<Name, bool> = HashMap::new();
    let mut is_missing = |name: &Name| {
        *judged.entry(name.clone()).or_insert_with(|| {
            !known.contains(name) && !BUILT_IN.contains(&&**name) && (is_whole || is_misspelled(name))
        })
    };
    // Each policy gets at most one warning per missing namespace.
    for policy in policies.values() {
        let mut warn = |path: Option<&str>, origin: Option<&Origin>, message: String| {
            let PolicyKey { kind, namespace, name } = &policy.key;
            let key = (kind.clone(), ObjectKey { namespace: namespace.clone(), name: name.clone() });
            found.push(Diagnostic {
                origin: origin.or(origins.get(&key)).filter(|at| at.line().is_some()).cloned(),
                object: Some(policy.key.to_string()),
                path: path.map(str::to_owned),
                ..Diagnostic::new(Severity::Warning, Code::NoNamespace, message)
            });
        };
        let own = &policy.key.namespace;
        if !own.is_empty() && is_missing(own) {
            warn(
                Some("metadata.namespace"),
                None,
                format!("there is no namespace `{own}`, and no pod in it"),
            );
        }
        let mut reported: BTreeSet<&str> = BTreeSet::new();
        if let Some(names) =
            listed_by_name(&policy.subject.namespaces).filter(|names| names.iter().all(&mut is_missing))
        {
            reported.extend(names.iter().map(|n| &**n));
            warn(
                Some("spec.subject"),
                None,
                format!("there is no namespace {}: it selects no pod", quoted(names)),
            );
        }
        let rules = [&policy.ingress, &policy.egress].into_iter().flatten().flatten();
        for entry in rules.flat_map(|rule| rule.peers.iter().flatten()) {
            let Peer::Pods(pods) = &entry.peer else { continue };
            let Some(names) =
                listed_by_name(&pods.namespaces).filter(|names| names.iter().all(&mut is_missing))
            else {
                continue;
            };
            if names.iter().all(|name| reported.insert(name)) {
                let message = format!("there is no namespace {}: the peer matches no pod", quoted(names));
                warn(None, entry.origin.as_ref(), message);
            }
        }
    }
}

/// Whether a name is nearly another one: two letters differ at most, and fewer in a short one. Names are ASCII.
fn is_near(name: &str, other: &str) -> bool {
    let most = 2.min(name.len().saturating_sub(1) / 3);
    name.len().abs_diff(other.len()) <= most && strsim::osa_distance(name, other) <= most
}

/// The namespaces that a selector lists by name, if it does.
fn listed_by_name(namespaces: &NamespaceMatch) -> Option<&BTreeSet<Name>> {
    let NamespaceMatch::Selected(selector) = namespaces else { return None };
    selector.requirements().iter().find_map(|r| match &r.test {
        Test::In(names) if &*r.key == NAMESPACE_NAME_LABEL => Some(names),
        _ => None,
    })
}

fn quoted(names: &BTreeSet<Name>) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or ")
}
