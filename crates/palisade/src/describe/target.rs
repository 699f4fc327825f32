//! What `describe` is asked about: a policy, a namespace, or pods.

use anyhow::{Result, bail};
use palisade_names::near;
use palisade_policy::{Cluster, Name, PolicyKey};

use crate::escape;

/// Kinds as users write them, in lower case, with the API's spelling.
const KINDS: [(&[&str], &str); 5] = [
    (&["netpol", "networkpolicy", "networkpolicies"], "NetworkPolicy"),
    (&["cnp", "clusternetworkpolicy", "clusternetworkpolicies"], "ClusterNetworkPolicy"),
    (&["anp", "adminnetworkpolicy", "adminnetworkpolicies"], "AdminNetworkPolicy"),
    (&["banp", "baselineadminnetworkpolicy", "baselineadminnetworkpolicies"], "BaselineAdminNetworkPolicy"),
    (&["ns", "namespace", "namespaces"], "Namespace"),
];

/// An object that is no workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A policy, whose namespace is empty if it is cluster-scoped.
    Policy(PolicyKey),
    /// A namespace.
    Namespace(Name),
}

/// Parses `netpol/NAME`, `NAMESPACE/netpol/NAME`, `netpol/NAMESPACE/NAME`, `cnp/NAME`, `ns/NAME` and their long forms;
/// also `NetworkPolicy NAMESPACE/NAME`, as messages write it. `None` if it is none of these.
pub(super) fn parse(text: &str, namespace: &str) -> Option<Target> {
    let words: Vec<&str> = text.trim().split(['/', ' ']).collect();
    let kind = |word: &str| {
        let word = word.to_lowercase();
        KINDS.iter().find(|(spellings, _)| spellings.contains(&&*word)).map(|(_, kind)| *kind)
    };
    let (kind, namespace, name) = match words[..] {
        [first, name] => (kind(first)?, namespace, name),
        [first, second, name] => match kind(second) {
            Some(kind) => (kind, first, name),
            None => (kind(first)?, second, name),
        },
        _ => return None,
    };
    if name.is_empty() {
        return None;
    }
    Some(match kind {
        "Namespace" => Target::Namespace(name.into()),
        "NetworkPolicy" => Target::Policy(PolicyKey::network_policy(namespace, name)),
        kind => Target::Policy(PolicyKey { kind: kind.into(), namespace: "".into(), name: name.into() }),
    })
}

/// Returns the key of a policy as a user writes it: `shop/netpol/web`, `cnp/guardrails`.
pub(super) fn spelling(key: &PolicyKey) -> String {
    let kind = KINDS.iter().find(|(_, kind)| **kind == *key.kind).map_or(&*key.kind, |(short, _)| short[0]);
    if key.namespace.is_empty() {
        format!("{kind}/{}", key.name)
    } else {
        format!("{}/{kind}/{}", key.namespace, key.name)
    }
}

/// Checks that a policy exists.
///
/// # Errors
/// When there is none: names similar ones, or those that there are.
pub(super) fn find_policy(cluster: &Cluster, key: &PolicyKey, place: &str) -> Result<()> {
    if cluster.policies.contains_key(key) {
        return Ok(());
    }
    let of_kind: Vec<&PolicyKey> = cluster.policies.keys().filter(|k| k.kind == key.kind).collect();
    // The same name in another namespace is closest.
    let candidates = of_kind.iter().map(|k| (&*k.name, spelling(k)));
    let all = || of_kind.iter().map(|k| spelling(k)).collect();
    bail!(not_found(&format!("no {key} in the {place}"), &near(&key.name, candidates), all))
}

/// Returns the error for a namespace that nothing mentions: names similar ones, or those that there are.
pub(super) fn no_namespace(cluster: &Cluster, name: &str, place: &str) -> String {
    let known = || cluster.namespaces.keys().map(|n| format!("ns/{n}"));
    let candidates = cluster.namespaces.keys().map(|n| (&**n, format!("ns/{n}")));
    not_found(&format!("no namespace {name} in the {place}"), &near(name, candidates), || known().collect())
}

/// How many names an error lists.
const LISTED: usize = 6;

fn not_found(what: &str, similar: &[String], all: impl Fn() -> Vec<String>) -> String {
    let hint = match similar {
        [] => {
            let all = all();
            let more = all.len().saturating_sub(LISTED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let shown: Vec<&str> = all.iter().take(LISTED).map(String::as_str).collect();
            if shown.is_empty() { String::new() } else { format!("; there are {}{more}", shown.join(", ")) }
        }
        some => format!("; did you mean {}?", some.join(" or ")),
    };
    escape::plain(&format!("{what}{hint}")).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_and_namespaces_have_several_spellings() {
        let web = Some(Target::Policy(PolicyKey::network_policy("shop", "web")));
        for text in
            ["shop/netpol/web", "netpol/shop/web", "NetworkPolicy shop/web", "shop/networkpolicies/web"]
        {
            assert_eq!(parse(text, "default"), web, "{text}");
        }
        assert_eq!(parse("netpol/web", "shop"), web);
        assert_eq!(parse("namespace/shop", "x"), Some(Target::Namespace("shop".into())));
        for (text, kind) in [("cnp/a", "ClusterNetworkPolicy"), ("anp/a", "AdminNetworkPolicy")] {
            let key = PolicyKey { kind: kind.into(), namespace: "".into(), name: "a".into() };
            assert_eq!(parse(text, "x"), Some(Target::Policy(key.clone())));
            assert_eq!(spelling(&key), text);
        }
        for text in ["web", "shop/web", "deploy/web", "shop/deploy/web", "netpol/", "10.0.0.1", "a/b/c/d"] {
            assert_eq!(parse(text, "x"), None, "{text}");
        }
    }
}
