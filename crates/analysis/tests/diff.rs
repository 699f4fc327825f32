//! Property tests of differences: they equal the verdicts of the reference on both sides, and name the policies that
//! caused them.

#[path = "support/pairs.rs"]
mod ends;
mod support;

use std::sync::Arc;

use ends::{is_allowed, on_its_own_node};
use palisade_analysis::{
    ConnectionEnd,
    diff::{ConnectionChange, Diff, PolicyChange, Presence, diff},
};
use palisade_policy::{Cluster, Endpoint, Family, PolicyKey, Traffic};
use palisade_testkit::{Rng, Shape, Style, endpoints, seeds, traffic};
use support::{cases, hold};

/// A later state of a cluster: a few edits, mostly of policies.
fn later(rng: &mut Rng, cluster: &Cluster) -> Cluster {
    let mut out = cluster.clone();
    for _ in 0..rng.usize(1..6) {
        let edit = palisade_testkit::change(rng, Style::Tiered, &out);
        out.apply(edit);
    }
    out
}

/// A later state in which only policies differ.
fn with_other_policies(rng: &mut Rng, cluster: &Cluster) -> Cluster {
    let other = later(rng, cluster);
    Cluster { policies: other.policies, ..cluster.clone() }
}

fn holds(end: &ConnectionEnd, at: &Endpoint, own_node: bool) -> bool {
    match at {
        Endpoint::Pod { key, .. } => end.holds_pod(key),
        Endpoint::Node { name, address } => {
            end.holds_node(name, *address) && matches!(end, ConnectionEnd::OwnNode(_)) == own_node
        }
        Endpoint::External(address) => end.holds_external(*address),
    }
}

fn change_between<'d>(
    diff: &'d Diff,
    source: &Endpoint,
    target: &Endpoint,
    own: bool,
) -> Result<Option<&'d ConnectionChange>, String> {
    let family = Family::of(source.address());
    let found: Vec<&ConnectionChange> = diff
        .changes
        .iter()
        .filter(|c| c.families.contains(family) && holds(&c.from, source, own) && holds(&c.to, target, false))
        .collect();
    if found.len() > 1 {
        Err(format!("{source} to {target} changes {} times", found.len()))
    } else {
        Ok(found.first().copied())
    }
}

/// For every pair that exists on both sides, the diff equals the difference between the verdicts of the reference.
#[test]
fn a_diff_equals_the_difference_between_verdicts() {
    hold(cases(250), &Shape::tiered(), |a, rng| {
        let b = &if rng.bool() { with_other_policies(rng, a) } else { later(rng, a) };
        let found = diff(a, b, true);
        // A pod that now belongs to another workload is another end.
        let workload = |c: &Cluster, at: &Endpoint| match at {
            Endpoint::Pod { key, .. } => c.pods[key].workload.clone(),
            Endpoint::Node { .. } | Endpoint::External(_) => None,
        };
        let others = endpoints(b);
        let mut ends = endpoints(a);
        ends.retain(|at| others.contains(at) && workload(a, at) == workload(b, at));
        let mut ports = traffic(a);
        ports.extend(traffic(b));
        let nothing = Traffic::none();
        let pod = |at: &Endpoint| if let Endpoint::Pod { key, .. } = at { Some(key.clone()) } else { None };
        for source in &ends {
            for target in &ends {
                let same_family = Family::of(source.address()) == Family::of(target.address());
                let own = on_its_own_node(a, source, target);
                if !same_family || pod(source) == pod(target) || own != on_its_own_node(b, source, target) {
                    continue;
                }
                let change = change_between(&found, source, target, own)?;
                for _ in 0..4 {
                    let (protocol, port) = ports[rng.usize(..ports.len())];
                    let was = is_allowed(a, source, target, protocol, port);
                    let is = is_allowed(b, source, target, protocol, port);
                    let opened = change.map_or(&nothing, |c| &c.opened).contains(protocol, port);
                    let closed = change.map_or(&nothing, |c| &c.closed).contains(protocol, port);
                    if (opened, closed) != (!was && is, was && !is) {
                        return Err(format!(
                            "{source} to {target} {protocol} {port}: was {was}, is {is}, opened {opened}, closed {closed}"
                        ));
                    }
                }
            }
        }
        Ok(())
    });
}

fn mirrored(diff: &Diff) -> Diff {
    let swap = |change: PolicyChange| match change {
        PolicyChange::Added => PolicyChange::Removed,
        PolicyChange::Removed => PolicyChange::Added,
        other => other,
    };
    let mut out = diff.clone();
    out.policies.values_mut().for_each(|change| *change = swap(*change));
    for change in &mut out.changes {
        std::mem::swap(&mut change.opened, &mut change.closed);
        change.presence = match change.presence {
            Presence::Before => Presence::After,
            Presence::After => Presence::Before,
            Presence::Both => Presence::Both,
        };
        for cause in &mut change.causes {
            std::mem::swap(&mut cause.before, &mut cause.after);
            cause.change = swap(cause.change);
        }
        change.causes.sort_unstable();
    }
    out
}

#[test]
fn a_diff_to_itself_is_empty_and_the_reverse_diff_is_mirrored() {
    hold(cases(250), &Shape::tiered(), |a, rng| {
        if diff(a, a, true) != Diff::default() {
            return Err("a cluster differs from itself".to_owned());
        }
        let b = &later(rng, a);
        let (there, back) = (diff(a, b, true), diff(b, a, true));
        if mirrored(&there) != back {
            return Err(format!("there {:#?}\nback {:#?}", there.changes, back.changes));
        }
        Ok(())
    });
}

/// If only policies changed, each change names one that did, and undoing these undoes the change.
#[test]
fn causes_are_policies_that_changed() {
    let mut named = 0;
    for seed in seeds(0..cases(300)) {
        let rng = &mut Rng::with_seed(seed);
        let a = palisade_testkit::cluster(rng, &Shape::tiered());
        let b = with_other_policies(rng, &a);
        for change in diff(&a, &b, true).changes {
            assert_eq!(change.presence, Presence::Both, "seed {seed}: no object was added or removed");
            assert!(!change.causes.is_empty(), "seed {seed}: {change:#?}");
            for cause in &change.causes {
                named += 1;
                let is = |c: &Cluster| c.policies.get(&cause.policy).cloned();
                match cause.change {
                    PolicyChange::Added => assert!(is(&a).is_none() && is(&b).is_some()),
                    PolicyChange::Removed => assert!(is(&a).is_some() && is(&b).is_none()),
                    PolicyChange::Edited => assert!(is(&a) != is(&b), "seed {seed}: {cause:?}"),
                    PolicyChange::Unchanged => panic!("seed {seed}: only policies changed: {change:#?}"),
                }
            }
        }
    }
    assert!(named > 300, "{named}");
}

/// A removed policy is the cause of everything that its removal allows.
#[test]
fn a_removed_policy_is_the_cause() {
    let mut seen = 0;
    for seed in seeds(0..cases(200)) {
        let a = palisade_testkit::cluster(&mut Rng::with_seed(seed), &Shape::tiered());
        for key in a.policies.keys() {
            let mut b = a.clone();
            b.policies.remove(key);
            for change in diff(&a, &b, false).changes {
                seen += 1;
                let causes: Vec<&PolicyKey> = change.causes.iter().map(|c| &c.policy).collect();
                assert!(causes.iter().all(|c| *c == key) && !causes.is_empty(), "seed {seed}: {change:#?}");
            }
        }
    }
    assert!(seen > 300, "{seen}");
}

/// Only the position of a policy in its file changed.
#[test]
fn moving_a_policy_is_no_change() {
    let a = palisade_testkit::cluster(&mut Rng::with_seed(5), &Shape::tiered());
    let mut b = a.clone();
    for policy in b.policies.values_mut() {
        let source = palisade_policy::Origin { file: "moved.yaml".into(), line: 3, column: 1 };
        Arc::make_mut(policy).origin = Some(source);
    }
    assert_ne!(a, b);
    assert_eq!(diff(&a, &b, true), Diff::default());
}
