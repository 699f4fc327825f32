//! Property tests of exposure: its rows equal what the reference decides for every pod that policies can tell apart.

#[path = "support/future.rs"]
mod future;
mod support;

use std::{cell::Cell, collections::BTreeSet};

use future::{FuturePod, future_pods};
use palisade_analysis::exposure::{
    Exposure, ExposureOptions, PodSet, Reached, Subject, exposure, exposure_change,
};
use palisade_policy::{Cluster, Direction, Name, Pod, PodMatch, Policy, Traffic};
use palisade_testkit::{Shape, change};
use support::{cases, hold};

/// The most pods for which the reference is asked.
const MOST: usize = 4_000;

fn options() -> ExposureOptions {
    ExposureOptions::default()
}

/// Returns the policies that select a pod in one direction.
fn selecting<'c>(cluster: &'c Cluster, pod: &Pod, direction: Direction) -> Vec<&'c Policy> {
    let labels = cluster.namespaces.get(&pod.key.namespace).map(|n| &n.labels);
    let all = cluster.policies.values().map(|p| &**p);
    all.filter(|p| p.rules(direction).is_some())
        .filter(|p| p.subject.matches(&pod.key.namespace, labels, &pod.labels))
        .collect()
}

/// A cluster of the subject and its policies.
fn reduced(cluster: &Cluster, subject: &Pod) -> Cluster {
    let mut out = Cluster {
        namespaces: cluster.namespaces.clone(),
        policies: cluster.policies.clone(),
        ..Cluster::default()
    };
    out.pods.insert(subject.clone());
    out
}

/// What pods get: with every pod of the subject, and with some.
type Got = (Traffic, Traffic);

/// Compares an exposure with what each pod gets.
fn compare(found: &Exposure, pods: &[FuturePod], got: &[Got]) -> Result<(), String> {
    let reached = |within: &dyn Fn(&FuturePod) -> bool| {
        let members = || pods.iter().zip(got).filter(|(pod, _)| within(pod)).map(|(_, got)| got);
        let every = members().fold(None, |sum: Option<Traffic>, (every, _)| {
            Some(sum.map_or_else(|| every.clone(), |sum| sum.intersection(every)))
        });
        let some = members().fold(Traffic::none(), |sum, (_, some)| sum.union(some));
        (every, some)
    };
    let check = |what: &str, found: &Reached, (every, some): (Option<Traffic>, Traffic)| {
        let every = every.ok_or_else(|| format!("{what}: no such pod"))?;
        match found.all.numbers == every && found.some.numbers == some {
            true => Ok(()),
            false => Err(format!("{what}: {found:?}, reference: all {every}, some {some}")),
        }
    };
    check("any pod", &found.any_pod, reached(&|_| true))?;
    for row in &found.rows {
        check(&format!("{:?}", row.set), &row.reached, reached(&|pod| pod.is_in(&row.set)))?;
    }
    for (pod, (every, _)) in pods.iter().zip(got) {
        let rows = found.rows.iter().filter(|row| pod.is_in(&row.set));
        let sum = rows.fold(found.any_pod.all.numbers.clone(), |sum, r| sum.union(&r.reached.all.numbers));
        if sum != *every {
            return Err(format!("{pod:?}: rows {sum}, reference {every}"));
        }
    }
    Ok(())
}

#[test]
fn rows_equal_the_reference_for_every_pod_that_may_exist() {
    let (seen, skipped) = (Cell::new(0), Cell::new(0));
    hold(cases(120), &Shape::tiered(), |cluster, _| {
        let subjects = cluster.pods.values().filter(|p| p.is_running());
        let declared = subjects.filter(|p| cluster.namespaces.contains_key(&p.key.namespace));
        for subject in declared.take(2) {
            for direction in Direction::BOTH {
                let policies = selecting(cluster, subject, direction);
                let Some(pods) = future_pods(&[cluster], &policies, direction, false, MOST) else {
                    skipped.set(skipped.get() + 1);
                    continue;
                };
                let found = exposure(cluster, &Subject::Pod(subject), direction, &options());
                if !found.exact {
                    return Err("not exact".to_owned());
                }
                let got: Vec<Got> = pods
                    .iter()
                    .map(|pod| {
                        let traffic = pod.traffic(&mut reduced(cluster, subject), subject, direction);
                        (traffic.clone(), traffic)
                    })
                    .collect();
                seen.set(seen.get() + pods.len());
                compare(&found, &pods, &got).map_err(|e| format!("{} {direction}: {e}", subject.key))?;
            }
        }
        Ok(())
    });
    assert!(seen.get() > 10_000, "{} pods, {} subjects skipped", seen.get(), skipped.get());
    eprintln!("{} pods, {} subjects skipped", seen.get(), skipped.get());
}

/// The pods of a set get what the policies of all of its pods allow, and may get what those of some allow.
#[test]
fn rows_of_a_set_equal_the_reference_for_all_of_its_pods() {
    let seen = Cell::new(0);
    hold(cases(100), &Shape { policies: 1..=3, ..Shape::tiered() }, |cluster, _| {
        for policy in cluster.policies.values() {
            for direction in Direction::BOTH {
                let with_rules: Vec<&Policy> = cluster
                    .policies
                    .values()
                    .map(|p| &**p)
                    .filter(|p| p.rules(direction).is_some())
                    .collect();
                let all: Vec<&Policy> = cluster.policies.values().map(|p| &**p).collect();
                let subjects = future_pods(&[cluster], &all, direction, true, 400);
                let pods = future_pods(&[cluster], &with_rules, direction, false, 300);
                let (Some(subjects), Some(pods)) = (subjects, pods) else { continue };
                // A name that both mention stands for one namespace, whose labels must agree.
                let homes: BTreeSet<&Name> = subjects.iter().map(|s| &s.namespace.name).collect();
                let new = |pod: &FuturePod| !cluster.namespaces.contains_key(&pod.namespace.name);
                if pods.iter().any(|pod| new(pod) && homes.contains(&pod.namespace.name)) {
                    continue;
                }
                let choice: PodMatch = policy.subject.clone();
                let Some(set) = PodSet::of(&choice) else { continue };
                let subjects: Vec<_> = subjects.into_iter().filter(|s| s.is_in(&set)).collect();
                let found = exposure(cluster, &Subject::Pods(choice), direction, &options());
                if subjects.is_empty() {
                    continue;
                }
                if !found.exact {
                    return Err("not exact".to_owned());
                }
                let got: Vec<Got> = pods
                    .iter()
                    .map(|pod| {
                        let (mut every, mut some) = (Traffic::all(), Traffic::none());
                        for subject in &subjects {
                            let mut subject = subject.clone();
                            subject.pod.key.name = "subject".into();
                            let mut world = reduced(cluster, &subject.pod);
                            world
                                .namespaces
                                .insert(subject.namespace.name.clone(), subject.namespace.clone());
                            let traffic = pod.traffic(&mut world, &subject.pod, direction);
                            every = every.intersection(&traffic);
                            some = some.union(&traffic);
                        }
                        (every, some)
                    })
                    .collect();
                seen.set(seen.get() + 1);
                compare(&found, &pods, &got).map_err(|e| format!("{} {direction}: {e}", policy.key))?;
            }
        }
        Ok(())
    });
    assert!(seen.get() > 50, "{}", seen.get());
}

/// A change opens and closes for each pod what the reference decides differently.
#[test]
fn changes_equal_the_difference_of_the_reference() {
    let seen = Cell::new(0);
    hold(cases(100), &Shape::tiered(), |before, rng| {
        let mut after = before.clone();
        for _ in 0..3 {
            let change = change(rng, Shape::tiered().style, &after);
            if matches!(
                change,
                palisade_policy::Change::SetPolicy(_) | palisade_policy::Change::RemovePolicy(_)
            ) {
                after.apply(change);
            }
        }
        let declared = |p: &&Pod| p.is_running() && before.namespaces.contains_key(&p.key.namespace);
        for subject in before.pods.values().filter(declared).take(2) {
            for direction in Direction::BOTH {
                let mut policies = selecting(before, subject, direction);
                policies.extend(selecting(&after, subject, direction));
                let Some(pods) = future_pods(&[before], &policies, direction, false, MOST / 2) else {
                    continue;
                };
                let subjects = [Subject::Pod(subject), Subject::Pod(subject)];
                let found = exposure_change([before, &after], &subjects, direction, &options());
                let mut got = [Vec::new(), Vec::new()];
                for pod in &pods {
                    let traffic = [before, &after]
                        .map(|cluster| pod.traffic(&mut reduced(cluster, subject), subject, direction));
                    let opened = traffic[1].difference(&traffic[0]);
                    let closed = traffic[0].difference(&traffic[1]);
                    got[0].push((opened.clone(), opened));
                    got[1].push((closed.clone(), closed));
                }
                seen.set(seen.get() + usize::from(!found.is_none()));
                let compared = compare(&found.opened, &pods, &got[0]);
                compared.map_err(|e| format!("{} {direction} opened: {e}", subject.key))?;
                let compared = compare(&found.closed, &pods, &got[1]);
                compared.map_err(|e| format!("{} {direction} closed: {e}", subject.key))?;
            }
        }
        Ok(())
    });
    assert!(seen.get() > 15, "{}", seen.get());
}
