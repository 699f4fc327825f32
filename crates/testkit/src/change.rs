//! Random changes of a cluster.

use std::{collections::BTreeMap, sync::Arc};

use fastrand::Rng;

use super::{
    Style, learned, pod, policy,
    vocabulary::{LABEL_KEYS, LABEL_VALUES, NAMESPACES, UNDECLARED, node_name, one_in, pick},
};
use palisade_policy::{
    Change, Cluster, Direction, Labels, NAMESPACE_NAME_LABEL, Namespace, Node, ObjectKey, Origin, Pod,
    Policy, PolicyKey, Tier,
};

/// Returns a random change of `cluster`, of any kind that a watch can deliver: objects that are added, deleted,
/// relabeled, moved to other nodes, given other addresses or edited, and changes without effect.
///
/// With [`Style::Buildable`] and [`Style::BuildableTiered`] a buildable cluster stays buildable.
#[must_use]
pub fn change(rng: &mut Rng, style: Style, cluster: &Cluster) -> Change {
    if !cluster.learned.is_empty() && one_in(rng, 5) {
        return learned_change(rng, cluster);
    }
    match rng.usize(..20) {
        0..=8 => pod_change(rng, style, cluster),
        9..=11 => namespace_change(rng, cluster),
        12..=17 => policy_change(rng, style, cluster),
        18 if style.is_strange() => node_change(rng, cluster),
        // Peers select nodes by their labels.
        18 if style.is_tiered() && !cluster.nodes.is_empty() => {
            let at = rng.usize(..cluster.nodes.len());
            match cluster.nodes.values().nth(at) {
                Some(old) => Change::SetNode(Node { labels: relabelled(rng, &old.labels), ..old.clone() }),
                None => Change::RemoveNode(node_name(at)),
            }
        }
        _ => {
            let service = pod::service(rng, cluster, 0);
            if rng.bool() { Change::RemoveService(service.key) } else { Change::SetService(service) }
        }
    }
}

fn any<'a, K, V>(rng: &mut Rng, map: &'a BTreeMap<K, V>) -> Option<&'a V> {
    if map.is_empty() { None } else { map.values().nth(rng.usize(..map.len())) }
}

fn pod_change(rng: &mut Rng, style: Style, cluster: &Cluster) -> Change {
    let fresh = rng.usize(..cluster.pods.len() + 3);
    let some = (!cluster.pods.is_empty()).then(|| rng.usize(..cluster.pods.len()));
    let Some(old) = some.and_then(|at| cluster.pods.values().nth(at)) else {
        return Change::SetPod(pod::pod(rng, style, cluster, fresh));
    };
    let mut new = old.clone();
    match rng.usize(..14) {
        0..=1 => new = pod::pod(rng, style, cluster, fresh),
        2 => return Change::RemovePod(old.key.clone()),
        3 => return Change::RemovePod(ObjectKey::new("x", "absent")),
        4..=6 => new.labels = relabelled(rng, &old.labels),
        7 => new.phase = pod::phase(rng),
        8 => new.ports = pod::ports(rng),
        9 => new.created = rng.i64(0..3),
        10 if style.is_strange() => new.host_network = !old.host_network,
        11 => move_pod(rng, style, cluster, &mut new),
        12 if !old.host_network => {
            let node = rng.usize(..cluster.nodes.len().max(1));
            new.addresses = pod::addresses(rng, style, cluster, node);
        }
        _ => {}
    }
    if style.is_buildable() {
        keep_buildable(rng, style, cluster, &mut new);
    }
    Change::SetPod(new)
}

/// Moves a pod to another node, with or without its addresses.
fn move_pod(rng: &mut Rng, style: Style, cluster: &Cluster, pod: &mut Pod) {
    let at = rng.usize(..cluster.nodes.len().max(1));
    pod.node = (!style.is_strange() || !one_in(rng, 6)).then(|| node_name(at));
    if pod.host_network {
        pod.addresses = cluster.nodes.get(&node_name(at)).map(|n| n.addresses.clone()).unwrap_or_default();
    } else if rng.bool() {
        pod.addresses = pod::addresses(rng, style, cluster, at);
    }
}

/// Gives a running pod other addresses if it shares one with another running pod.
fn keep_buildable(rng: &mut Rng, style: Style, cluster: &Cluster, pod: &mut Pod) {
    let others = || cluster.pods.values().filter(|p| p.key != pod.key && p.is_running());
    if pod.is_running() && others().any(|p| p.addresses.iter().any(|a| pod.addresses.contains(a))) {
        let at = rng.usize(..cluster.nodes.len().max(1));
        pod.node = Some(node_name(at));
        pod.addresses = pod::addresses(rng, style, cluster, at);
    }
}

/// Changes or removes one label.
fn relabelled(rng: &mut Rng, labels: &Labels) -> Labels {
    let key = pick(rng, &LABEL_KEYS);
    if one_in(rng, 3) { labels.project(|k| k != key) } else { labels.with(key, pick(rng, &LABEL_VALUES)) }
}

fn namespace_change(rng: &mut Rng, cluster: &Cluster) -> Change {
    let name = match rng.usize(..6) {
        0 => UNDECLARED,
        _ => NAMESPACES[rng.usize(..(cluster.namespaces.len() + 1).min(NAMESPACES.len()))],
    };
    match cluster.namespaces.get(name) {
        _ if one_in(rng, 5) => Change::RemoveNamespace(name.into()),
        Some(old) if one_in(rng, 5) => Change::SetNamespace(old.clone()),
        Some(old) => {
            let labels = old.labels.project(|k| k != NAMESPACE_NAME_LABEL);
            Change::SetNamespace(pod::denying(Namespace::new(name, &relabelled(rng, &labels))))
        }
        None => Change::SetNamespace(pod::denying(Namespace::new(name, &pod::labels(rng)))),
    }
}

fn node_change(rng: &mut Rng, cluster: &Cluster) -> Change {
    let at = rng.usize(..=cluster.nodes.len());
    if one_in(rng, 4) { Change::RemoveNode(node_name(at)) } else { Change::SetNode(pod::node(rng, at)) }
}

fn learned_change(rng: &mut Rng, cluster: &Cluster) -> Change {
    let Some(old) = any(rng, &cluster.learned) else {
        return Change::RemovePod(ObjectKey::new("x", "absent"));
    };
    match learned::learned(rng, cluster) {
        Some(new) if !one_in(rng, 5) => Change::SetLearned(new),
        _ => Change::RemoveLearned(old.name.clone()),
    }
}

fn policy_change(rng: &mut Rng, style: Style, cluster: &Cluster) -> Change {
    let fresh = rng.usize(..cluster.policies.len() + 3);
    let Some(old) = any(rng, &cluster.policies) else {
        return Change::SetPolicy(policy::policy(rng, style, cluster, fresh).into());
    };
    match rng.usize(..10) {
        0..=2 => Change::SetPolicy(policy::policy(rng, style, cluster, fresh).into()),
        3..=4 => Change::RemovePolicy(old.key.clone()),
        5 => Change::RemovePolicy(PolicyKey::network_policy("x", "absent")),
        6 => Change::SetPolicy(Arc::clone(old)),
        _ => Change::SetPolicy(edited(rng, cluster, old).into()),
    }
}

/// Returns a copy with one change: the subject, the priority, a direction, a rule, or only the origin.
fn edited(rng: &mut Rng, cluster: &Cluster, old: &Policy) -> Policy {
    let mut new = old.clone();
    let direction = if rng.bool() { Direction::Ingress } else { Direction::Egress };
    let scope = policy::Scope { cluster, policy: old, direction };
    let rules = if direction == Direction::Ingress { &mut new.ingress } else { &mut new.egress };
    match (rng.usize(..7), rules) {
        (0, _) => new.subject.pods = policy::selector(rng, false),
        (1, _) => new.origin = Some(Origin { file: "moved.yaml".into(), line: rng.u32(1..9), column: 1 }),
        // BaselineAdminNetworkPolicy has none and comes last.
        (6, _) if old.tier != Tier::Developer && old.priority != i32::MAX => new.priority = rng.i32(0..3),
        (2, rules @ None) => *rules = Some(policy::rules(rng, scope)),
        (2, rules) => *rules = None,
        (3, Some(rules)) if !rules.is_empty() => drop(rules.remove(rng.usize(..rules.len()))),
        (_, Some(rules)) if !rules.is_empty() => {
            let at = rng.usize(..rules.len());
            rules[at] = policy::rule(rng, scope);
        }
        (_, Some(rules)) => rules.push(policy::rule(rng, scope)),
        (_, None) => {}
    }
    new
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Shape, cluster, seeds};

    #[test]
    fn edits_keep_a_buildable_cluster_buildable() {
        for seed in seeds(0..60) {
            let rng = &mut Rng::with_seed(seed);
            let shape = if seed % 2 == 0 { Shape::small() } else { Shape::small_tiered() };
            let mut c = cluster(rng, &shape);
            for _ in 0..30 {
                let edit = change(rng, shape.style, &c);
                c.apply(edit);
                let mut taken = std::collections::BTreeSet::new();
                for p in c.pods.values().filter(|p| p.is_running()) {
                    assert!(
                        p.node.as_ref().is_some_and(|n| c.nodes.contains_key(n)),
                        "seed {seed}: {}",
                        p.key
                    );
                    assert!(p.addresses.iter().all(|a| taken.insert(*a)), "seed {seed}: {} shares", p.key);
                }
            }
        }
    }

    #[test]
    fn some_edits_change_nothing_and_most_do() {
        let rng = &mut Rng::with_seed(3);
        let mut c = cluster(rng, &Shape::strange());
        let mut same = 0;
        for _ in 0..500 {
            let before = c.clone();
            let edit = change(rng, Style::Strange, &c);
            c.apply(edit);
            same += usize::from(before == c);
        }
        assert!((25..250).contains(&same), "{same} of 500");
    }
}
