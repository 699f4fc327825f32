//! Random audit modes, for clusters of any shape.

use std::sync::Arc;

use fastrand::Rng;

use palisade_policy::{Change, Cluster, MODE_KEY, Mode, NAMESPACE_NAME_LABEL, Namespace, Policy, PolicyKey};

/// Puts some policies of a cluster into audit mode, in each of the ways: their own mode, the label of their namespace,
/// also with an unknown value, and the mode of the cluster.
pub fn audit_some(rng: &mut Rng, cluster: &mut Cluster) {
    cluster.mode = if rng.usize(..4) == 0 { Mode::Audit } else { Mode::Enforce };
    for policy in cluster.policies.values_mut() {
        Arc::make_mut(policy).mode = own_mode(rng);
    }
    for namespace in cluster.namespaces.values_mut() {
        *namespace = labelled(rng, namespace);
    }
}

/// Returns a random change of the mode of one policy or namespace; `None` if there is neither.
pub fn mode_change(rng: &mut Rng, cluster: &Cluster) -> Option<Change> {
    let policy = |rng: &mut Rng| {
        let policy = rng.choice(cluster.policies.values())?;
        Some(Change::SetPolicy(Policy { mode: own_mode(rng), ..(**policy).clone() }.into()))
    };
    let namespace = |rng: &mut Rng| {
        let namespace = rng.choice(cluster.namespaces.values())?;
        Some(Change::SetNamespace(labelled(rng, namespace)))
    };
    if rng.bool() { policy(rng).or_else(|| namespace(rng)) } else { namespace(rng).or_else(|| policy(rng)) }
}

/// Returns the cluster without the policies in audit mode.
#[must_use]
pub fn without_audited(cluster: &Cluster) -> Cluster {
    let audited: Vec<PolicyKey> = cluster.audited().map(|policy| policy.key.clone()).collect();
    let mut out = cluster.clone();
    audited.iter().for_each(|key| drop(out.policies.remove(key)));
    out
}

fn own_mode(rng: &mut Rng) -> Option<Mode> {
    match rng.usize(..6) {
        0 | 1 => Some(Mode::Audit),
        2 => Some(Mode::Enforce),
        _ => None,
    }
}

fn labelled(rng: &mut Rng, namespace: &Namespace) -> Namespace {
    let others = namespace.labels.project(|key| key != MODE_KEY && key != NAMESPACE_NAME_LABEL);
    let labels = match rng.usize(..8) {
        0 | 1 => others.with(MODE_KEY, "audit"),
        2 => others.with(MODE_KEY, "enforce"),
        3 => others.with(MODE_KEY, "Audit "),
        _ => others,
    };
    Namespace::new(namespace.name.clone(), &labels)
}
