//! Property tests of differences: they equal the verdicts of the reference on both sides, and name the policies that
//! caused them.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, and the helpers are part of the tests"
)]

#[path = "support/pairs.rs"]
mod ends;
mod support;

use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
    sync::Arc,
};

use ends::{is_allowed, on_its_own_node};
use palisade_analysis::{
    ConnectionEnd,
    diff::{
        Cause, ConnectionChange, Diff, Edit, EndChange, Labeled, PolicyChange, PolicyEdit, Presence,
        WorkloadKey, diff, diff_while, diff_with_future_pods,
    },
};
use palisade_policy::{Change, Cluster, Endpoint, Family, Labels, Mode, Name, Namespace, Pod, Traffic};
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

/// A later state in which only the labels of namespaces differ.
fn with_other_namespaces(rng: &mut Rng, cluster: &Cluster) -> Cluster {
    let mut out = cluster.clone();
    for namespace in out.namespaces.values_mut() {
        let (key, value) = (["team", "tier"][rng.usize(..2)], ["a", "b"][rng.usize(..2)]);
        let labels = Labels::from_iter([(key, value)]);
        *namespace = Namespace::new(namespace.name.clone(), &labels);
    }
    out
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
        let b = &match rng.usize(..4) {
            0 => with_other_policies(rng, a),
            1 => with_other_namespaces(rng, a),
            2 => Cluster { mode: Mode::Audit, ..a.clone() },
            _ => later(rng, a),
        };
        let found = diff(a, b);
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

/// The difference in the other direction, without causes: which of several edits with the same effect is the cause
/// depends on the direction.
fn mirrored(diff: &Diff) -> Diff {
    let mut out = without_causes(diff);
    let policies = std::mem::take(&mut out.policies).into_values();
    out.policies = policies
        .map(|edit| {
            let PolicyEdit { change, before, after, pods: [a, b] } = edit;
            let change = match change {
                PolicyChange::Added => PolicyChange::Removed,
                PolicyChange::Removed => PolicyChange::Added,
                other => other,
            };
            let edit = PolicyEdit { change, before: after, after: before, pods: [b, a] };
            (edit.after.clone().or(edit.before.clone()).unwrap(), edit)
        })
        .collect();
    for change in &mut out.changes {
        std::mem::swap(&mut change.opened, &mut change.closed);
    }
    for end in &mut out.ends {
        end.change = match end.change {
            Presence::Added => Presence::Removed,
            Presence::Removed => Presence::Added,
        };
    }
    out.dns.iter_mut().for_each(|dns| dns.opened = !dns.opened);
    out
}

/// Whether two clusters are the same, with their policies.
fn is_nothing(diff: &Diff) -> bool {
    *diff == Diff { has_pods: diff.has_pods, ..Diff::default() }
}

fn without_causes(diff: &Diff) -> Diff {
    let mut out = diff.clone();
    out.changes.iter_mut().for_each(|change| change.causes.clear());
    out
}

#[test]
fn a_diff_to_itself_is_empty_and_the_reverse_diff_is_mirrored() {
    hold(cases(250), &Shape::tiered(), |a, rng| {
        if !is_nothing(&diff(a, a)) {
            return Err("a cluster differs from itself".to_owned());
        }
        let b = &later(rng, a);
        let (there, back) = (diff(a, b), diff(b, a));
        if mirrored(&there) != without_causes(&back) {
            return Err(format!("there {:#?}\nback {:#?}", there.changes, back.changes));
        }
        Ok(())
    });
}

/// Whether an end was added or removed.
fn changed_ends(diff: &Diff) -> impl Iterator<Item = &EndChange> {
    diff.ends.iter()
}

/// Undoes an edit of `before` in `after`.
fn undo(edit: &Edit, diff: &Diff, before: &Cluster, after: &mut Cluster) {
    let belongs = |pod: &Pod, w: &WorkloadKey| match &pod.workload {
        Some(workload) => (&workload.kind, &workload.name) == (&w.kind, &w.key.name),
        None => &*w.kind == "Pod" && pod.key.name == w.key.name,
    };
    let relabelled = |labels: &Labels, key: &Name, value: &Option<Name>| match value {
        Some(value) => labels.with(key, value),
        None => labels.project(|k| k != &**key),
    };
    match edit {
        Edit::Policy(key) => {
            let edit = &diff.policies[key];
            if let Some(new) = &edit.after {
                after.policies.remove(new);
            }
            if let Some(old) = &edit.before {
                after.policies.insert(old.clone(), Arc::clone(&before.policies[old]));
            }
        }
        Edit::Label { object, key, before: value, .. } => match object {
            Labeled::Namespace(name) => {
                let namespace = after.namespaces.get_mut(name).unwrap();
                namespace.labels = relabelled(&namespace.labels, key, value);
            }
            Labeled::Node(name) => {
                let node = after.nodes.get_mut(name).unwrap();
                node.labels = relabelled(&node.labels, key, value);
            }
            Labeled::Pods(workload) => after.pods.edit(|pod| {
                if pod.key.namespace == workload.key.namespace && belongs(pod, workload) {
                    pod.labels = relabelled(&pod.labels, key, value);
                }
            }),
        },
        Edit::Namespace(name, _) => {
            after.namespaces.remove(name);
            after.namespaces.extend(before.namespaces.get(name).map(|n| (name.clone(), n.clone())));
        }
        Edit::Ports(workload) | Edit::Addresses(workload) => after.pods.edit(|pod| {
            if pod.key.namespace == workload.key.namespace
                && belongs(pod, workload)
                && let Some(old) = before.pods.get(&pod.key)
            {
                match edit {
                    Edit::Ports(_) => pod.ports = old.ports.clone(),
                    _ => pod.addresses = old.addresses.clone(),
                }
            }
        }),
        Edit::Service(..) | Edit::Route(..) => {}
    }
}

/// Undoing all causes of a change undoes it, whatever objects were edited.
#[test]
fn undoing_the_causes_undoes_the_change() {
    for shape in [Shape::tiered(), Shape::with_domain_names()] {
        undoing_the_causes_in_a_shape_undoes_the_change(&shape);
    }
}

fn undoing_the_causes_in_a_shape_undoes_the_change(shape: &Shape) {
    let (undone, kinds) = (Cell::new(0), RefCell::new(HashSet::new()));
    hold(cases(120), shape, |a, rng| {
        let b = &relabelled_and_edited(rng, a);
        let found = diff(a, b);
        let ends: Vec<Endpoint> = endpoints(a).into_iter().filter(|at| endpoints(b).contains(at)).collect();
        for change in found.changes.iter().take(40) {
            if change.causes.is_empty() {
                return Err(format!("no cause: {change:#?}"));
            }
            let mut c = b.clone();
            for cause in &change.causes {
                undo(&cause.edit, &found, a, &mut c);
                kinds.borrow_mut().insert(std::mem::discriminant(&cause.edit));
            }
            let own = matches!(change.from, ConnectionEnd::OwnNode(_));
            for source in ends.iter().filter(|at| holds(&change.from, at, own)) {
                for target in ends.iter().filter(|at| holds(&change.to, at, false)) {
                    let family = Family::of(source.address());
                    if family != Family::of(target.address())
                        || !change.families.contains(family)
                        || own != on_its_own_node(b, source, target)
                    {
                        continue;
                    }
                    for (protocol, port) in traffic(b).into_iter().chain(traffic(a)) {
                        if change.opened.contains(protocol, port) || change.closed.contains(protocol, port) {
                            let was = is_allowed(a, source, target, protocol, port);
                            undone.set(undone.get() + 1);
                            if was != is_allowed(&c, source, target, protocol, port) {
                                return Err(format!(
                                    "{source} to {target} {protocol} {port} is not undone: {change:#?}"
                                ));
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    });
    assert!(undone.get() > 1000 && kinds.borrow().len() > 2, "{undone:?} {kinds:?}");
}

/// A later state with other policies and other labels and ports of objects that stay. What was learned stays: no edit of an
/// object changes it.
fn relabelled_and_edited(rng: &mut Rng, cluster: &Cluster) -> Cluster {
    let mut out = cluster.clone();
    for _ in 0..rng.usize(2..8) {
        let edit = palisade_testkit::change(rng, Style::Tiered, &out);
        match edit {
            Change::SetPod(new) => out.pods.edit(|pod| {
                if pod.key == new.key {
                    pod.labels = new.labels.clone();
                    pod.ports = new.ports.clone();
                }
            }),
            Change::RemovePod(_)
            | Change::RemoveNode(_)
            | Change::SetLearned(_)
            | Change::RemoveLearned(_) => {}
            Change::SetNode(new) => {
                if let Some(node) = out.nodes.get_mut(&new.name) {
                    node.labels = new.labels;
                }
            }
            other => out.apply(other),
        }
    }
    out
}

/// If only policies changed, each change names one that did.
#[test]
fn causes_are_policies_that_changed() {
    for shape in [Shape::tiered(), Shape::with_domain_names()] {
        causes_in_a_shape_are_policies_that_changed(&shape);
    }
}

fn causes_in_a_shape_are_policies_that_changed(shape: &Shape) {
    let mut named = 0;
    for seed in seeds(0..cases(300)) {
        let rng = &mut Rng::with_seed(seed);
        let a = palisade_testkit::cluster(rng, shape);
        let b = with_other_policies(rng, &a);
        let found = diff(&a, &b);
        assert_eq!(changed_ends(&found).count(), 0, "seed {seed}: no object was added or removed");
        for change in &found.changes {
            assert!(!change.causes.is_empty(), "seed {seed}: {change:#?}");
            for Cause { edit, .. } in &change.causes {
                named += 1;
                let Edit::Policy(key) = edit else { panic!("seed {seed}: only policies changed: {edit:?}") };
                let edit = &found.policies[key];
                let old = edit.before.as_ref().map(|key| &a.policies[key]);
                let new = edit.after.as_ref().map(|key| &b.policies[key]);
                assert!(old != new, "seed {seed}: {key}");
            }
        }
    }
    assert!(named > 150, "{named}");
}

/// A removed policy is the cause of everything that its removal allows, by name too.
#[test]
fn a_removed_policy_is_the_cause() {
    for shape in [Shape::tiered(), Shape::with_domain_names()] {
        a_removed_policy_of_a_shape_is_the_cause(&shape);
    }
}

fn a_removed_policy_of_a_shape_is_the_cause(shape: &Shape) {
    let mut seen = 0;
    for seed in seeds(0..cases(200)) {
        let a = palisade_testkit::cluster(&mut Rng::with_seed(seed), shape);
        for key in a.policies.keys() {
            let mut b = a.clone();
            b.policies.remove(key);
            for change in diff(&a, &b).changes {
                seen += 1;
                let causes: Vec<&Edit> = change.causes.iter().map(|c| &c.edit).collect();
                assert_eq!(causes, [&Edit::Policy(key.clone())], "seed {seed}: {change:#?}");
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
    assert!(is_nothing(&diff_with_future_pods(&a, &b)));
}

/// A change for pods that don't exist yet names edits, and says something.
#[test]
fn changes_for_future_pods_have_traffic_and_causes() {
    let mut rows = 0;
    for seed in seeds(0..cases(60)) {
        let rng = &mut Rng::with_seed(seed);
        let a = palisade_testkit::cluster(rng, &Shape::small());
        let b = with_other_policies(rng, &a);
        for change in diff_with_future_pods(&a, &b).exposure.iter().filter(|change| change.exact) {
            assert!(change.rows.iter().all(|row| !row.reached.some.is_none()), "seed {seed}: {change:#?}");
            assert!(change.sets.len() <= change.rows.len(), "seed {seed}: {change:#?}");
            assert!(!change.causes.is_empty(), "seed {seed}: {change:#?}");
            rows += change.rows.len();
        }
    }
    assert!(rows > 20, "{rows}");
}

/// Whenever a result stops being wanted, there is none, and a result that is always wanted is the same.
#[test]
fn a_diff_that_is_not_wanted_any_more_ends() {
    hold(cases(60), &Shape::tiered(), |a, rng| {
        let b = &later(rng, a);
        let asked = Cell::new(0_usize);
        let while_less_than = |most: usize| {
            asked.set(0);
            diff_while(a, b, &|| {
                asked.set(asked.get() + 1);
                asked.get() <= most
            })
        };
        if while_less_than(usize::MAX).as_ref() != Some(&diff_with_future_pods(a, b)) {
            return Err("a result that is wanted differs".to_owned());
        }
        let all = asked.get();
        let most = rng.usize(0..all);
        if while_less_than(most).is_some() {
            return Err(format!("a result after {most} of {all} questions"));
        }
        // Once for each loop that was going on, and at the end.
        if asked.get() > most + 12 {
            return Err(format!("asked {} times, and not wanted after {most}", asked.get()));
        }
        Ok(())
    });
}
