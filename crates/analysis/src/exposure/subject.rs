//! The pods whose exposure is asked for, and the policies that apply to them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use palisade_policy::{Cluster, Deciding, Direction, Pod, PodMatch, Policy, PolicyKey};

use super::pod_set::{Overflow, PodSet, World};

/// The most sets into which policies divide the pods of a subject.
const MOST_PROFILES: usize = 64;

/// The pods whose exposure is asked for.
#[derive(Clone, Debug)]
pub enum Subject<'c> {
    /// A pod.
    Pod(&'c Pod),
    /// All pods that this selects, whether they exist or not.
    Pods(PodMatch),
}

/// The policies that apply to some pods in one direction, in order of precedence, for each cluster.
pub(super) type Profile<'c> = Vec<Vec<&'c Policy>>;

/// Returns the different profiles of the pods of a subject. A subject has several if policies distinguish its pods.
/// `subjects` has one subject for each cluster.
pub(super) fn profiles<'c>(
    clusters: &[&'c Cluster],
    subjects: &[Subject<'c>],
    direction: Direction,
    world: &World,
) -> Result<Vec<Profile<'c>>, Overflow> {
    let mut sets = subjects.iter().filter_map(|subject| match subject {
        Subject::Pod(_) => None,
        Subject::Pods(choice) => Some(PodSet::of(choice)),
    });
    let Some(set) = sets.next() else {
        let all = clusters.iter().zip(subjects);
        return Ok(vec![all.map(|(cluster, subject)| of_pod(cluster, subject, direction)).collect()]);
    };
    let Some(set) = set.and_then(|set| world.normal(set)) else { return Ok(Vec::new()) };
    // The policies that select the pods of each part, by cluster.
    let mut parts: Vec<(PodSet, BTreeSet<(usize, &PolicyKey)>)> = vec![(set, BTreeSet::new())];
    let mut policies: BTreeMap<(usize, &PolicyKey), &Policy> = BTreeMap::new();
    for (at, cluster) in clusters.iter().enumerate() {
        let enforced = cluster.deciding(Deciding::Enforced);
        for policy in enforced.filter(|p| p.rules(direction).is_some()) {
            let Some(selected) = PodSet::of(&policy.subject).and_then(|set| world.normal(set)) else {
                continue;
            };
            policies.insert((at, &policy.key), policy);
            world.spend(parts.len())?;
            parts = divided(parts, &selected, (at, &policy.key), world);
            if parts.len() > MOST_PROFILES * MOST_PROFILES {
                return Err(Overflow);
            }
        }
    }
    let different: BTreeSet<BTreeSet<(usize, &PolicyKey)>> =
        parts.into_iter().map(|(_, keys)| keys).collect();
    if different.len() > MOST_PROFILES {
        return Err(Overflow);
    }
    let of_cluster = |keys: &BTreeSet<(usize, &PolicyKey)>, at: usize| {
        let own = keys.iter().filter(|(cluster, _)| *cluster == at);
        in_order(own.filter_map(|key| policies.get(key).copied()).collect())
    };
    let profile = |keys| (0..clusters.len()).map(|at| of_cluster(keys, at)).collect();
    Ok(different.iter().map(profile).collect())
}

/// Divides each part into the pods that a policy selects and the others.
fn divided<'c>(
    parts: Vec<(PodSet, BTreeSet<(usize, &'c PolicyKey)>)>,
    selected: &PodSet,
    key: (usize, &'c PolicyKey),
    world: &World,
) -> Vec<(PodSet, BTreeSet<(usize, &'c PolicyKey)>)> {
    let mut out = Vec::with_capacity(parts.len());
    for (part, keys) in parts {
        let Some(inside) = world.intersection(&part, selected) else {
            out.push((part, keys));
            continue;
        };
        let outside = world.disjoint_outside(&part, selected);
        out.extend(outside.into_iter().map(|set| (set, keys.clone())));
        let mut keys = keys;
        keys.insert(key);
        out.push((inside, keys));
    }
    out
}

fn of_pod<'c>(cluster: &'c Cluster, subject: &Subject<'c>, direction: Direction) -> Vec<&'c Policy> {
    let Subject::Pod(pod) = subject else { return Vec::new() };
    let labels = cluster.namespaces.get(&pod.key.namespace).map(|n| &n.labels);
    let applies = |p: &&Policy| {
        p.rules(direction).is_some() && p.subject.matches(&pod.key.namespace, labels, &pod.labels)
    };
    in_order(cluster.deciding(Deciding::Enforced).map(Arc::as_ref).filter(applies).collect())
}

fn in_order(mut policies: Vec<&Policy>) -> Vec<&Policy> {
    policies.sort_by(|a, b| a.tier.cmp(&b.tier).then_with(|| Policy::precedence(a, b)));
    policies
}
