//! Policies in and for namespaces that don't exist: a name misspelt protects nobody, and lets nobody in.

use std::collections::{BTreeMap, BTreeSet};

use palisade_policy::{
    Cluster, NAMESPACE_NAME_LABEL, Name, NamespaceMatch, ObjectKey, Origin, Peer, Policy, PolicyKey, Test,
};

use crate::{
    diagnostic::{Code, Diagnostic, Severity},
    options::LoadOptions,
};

/// Namespaces that every cluster has, whether anybody declares them or not.
const BUILT_IN: &[&str] = &["default", "kube-node-lease", "kube-public", "kube-system"];

/// Warns of policies in namespaces, and of peers and subjects that name namespaces, of which there is nothing: no Namespace,
/// no pod, no workload, no service. Only if namespaces are declared at all; manifests often leave them out.
/// `O(policies + pods)`.
pub(crate) fn absent_namespaces(
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
    let absent = |name: &str| !known.contains(name) && !BUILT_IN.contains(&name);
    // Each name once for each policy: a list of twenty peers says it no better.
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
        let own = &*policy.key.namespace;
        if !own.is_empty() && absent(own) {
            warn(
                Some("metadata.namespace"),
                None,
                format!("there is no namespace `{own}`, and no pod in it"),
            );
        }
        let mut told: BTreeSet<&str> = BTreeSet::new();
        if let Some(names) = named(&policy.subject.namespaces).filter(|names| names.iter().all(|n| absent(n)))
        {
            told.extend(names.iter().map(|n| &**n));
            warn(
                Some("spec.subject"),
                None,
                format!("there is no namespace {}: it selects no pod", quoted(names)),
            );
        }
        let rules = [&policy.ingress, &policy.egress].into_iter().flatten().flatten();
        for entry in rules.flat_map(|rule| rule.peers.iter().flatten()) {
            let Peer::Pods(pods) = &entry.peer else { continue };
            let Some(names) = named(&pods.namespaces).filter(|names| names.iter().all(|n| absent(n))) else {
                continue;
            };
            if names.iter().all(|name| told.insert(name)) {
                let message = format!("there is no namespace {}: the peer matches no pod", quoted(names));
                warn(None, entry.origin.as_ref(), message);
            }
        }
    }
}

/// The names of the only namespaces that can be meant, where a selector names them.
fn named(namespaces: &NamespaceMatch) -> Option<&BTreeSet<Name>> {
    let NamespaceMatch::Selected(selector) = namespaces else { return None };
    selector.requirements().iter().find_map(|r| match &r.test {
        Test::In(names) if &*r.key == NAMESPACE_NAME_LABEL => Some(names),
        _ => None,
    })
}

fn quoted(names: &BTreeSet<Name>) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or ")
}
