//! Audit mode: policies that decide nothing, and what they would decide, on random clusters.

mod support;

use std::{net::IpAddr, sync::Arc};

use palisade_policy::{
    Change, Cluster, Compiler, Deciding, Direction, Flow, MODE_KEY, Mode, Name, Namespace, NodePlan, Pod,
    Policy, PolicyKey, Protocol, Verdict, reference,
};
use palisade_testkit::{
    Rng, Shape, audit_some, change, flows, hold, hostile, mode_change, running_pod, without_audited,
};
use support::{plans, unanimous};

/// Returns the cluster with some policies in audit mode.
fn audited(cluster: &Cluster, rng: &mut Rng) -> Cluster {
    let mut out = cluster.clone();
    audit_some(rng, &mut out);
    out
}

/// Both verdicts of a plan in one direction.
fn verdicts(plan: &NodePlan, direction: Direction, flow: &Flow) -> [Verdict; 2] {
    let (source, destination) = (flow.source.address(), flow.destination.address());
    [Deciding::Enforced, Deciding::All]
        .map(|by| plan.decide_by(by, direction, source, destination, flow.protocol, flow.port))
}

/// For every flow: the enforced verdict is that of the cluster without the policies in audit mode, and the audit verdict
/// that of the cluster with every policy enforced, by the reference and by the plans.
#[test]
fn both_verdicts_are_those_of_the_clusters_they_stand_for() {
    for (n, shape) in [(500, Shape::strange()), (500, Shape::tiered()), (25, Shape::medium())] {
        hold(n, &shape, |cluster, rng| {
            let cluster = audited(cluster, rng);
            let (without, all) = (without_audited(&cluster), cluster.all_enforced());
            let (both, less, more) = (plans(&cluster), plans(&without), plans(&all));
            for flow in flows(rng, &cluster, 60) {
                let by = |deciding| reference::decide_by(&cluster, &flow, deciding);
                if by(Deciding::Enforced) != reference::decide(&without, &flow) {
                    return Err(format!("enforced: {flow:?}"));
                }
                if by(Deciding::All) != reference::decide(&all, &flow) {
                    return Err(format!("all: {flow:?}"));
                }
                unanimous(&without, &both, &flow)?;
                for (node, plan) in &both {
                    for direction in Direction::BOTH {
                        let found = verdicts(plan, direction, &flow);
                        let wanted = [&less[node], &more[node]].map(|of| verdicts(of, direction, &flow)[0]);
                        if found != wanted {
                            return Err(format!("{node}: {direction} {found:?} {wanted:?}: {flow:?}"));
                        }
                    }
                }
            }
            Ok(())
        });
    }
}

/// What is enforced doesn't depend on the policies in audit mode, down to the names of the tables, and there is nothing
/// for audit where no such policy applies.
#[test]
fn the_enforced_part_of_a_plan_is_that_without_the_policies_in_audit_mode() {
    hold(500, &Shape::tiered(), |cluster, rng| {
        let cluster = audited(cluster, rng);
        let none_audited = cluster.audited().next().is_none();
        let less = plans(&without_audited(&cluster));
        for (node, plan) in plans(&cluster) {
            plan.check().map_err(|broken| format!("{node}: {broken}"))?;
            let expected = &less[&node];
            if plan.without_audit() != *expected {
                return Err(format!("{node}: without audit {:#?} {expected:#?}", plan.without_audit()));
            }
            if plan.ingress != expected.ingress
                || plan.egress != expected.egress
                || plan.hairpin != expected.hairpin
                || expected.tables.iter().any(|(id, table)| plan.tables.get(id) != Some(table))
            {
                return Err(format!("{node}: {plan:#?} {expected:#?}"));
            }
            if none_audited && plan != *expected {
                return Err(format!("{node}: nothing is in audit mode, but {plan:#?}"));
            }
        }
        Ok(())
    });
}

/// After every change, also of modes, the plan is that of the resulting cluster, and the delta is exact.
#[test]
fn incremental_is_from_scratch() {
    for (n, shape, edits) in
        [(150, Shape::strange(), 25), (150, Shape::tiered(), 25), (6, Shape::medium(), 60)]
    {
        hold(n, &shape, |start, rng| {
            let mut cluster = audited(start, rng);
            let node = cluster.nodes.keys().next().cloned().unwrap_or_else(|| Name::from("elsewhere"));
            let mut compiler = Compiler::from_cluster(node.clone(), &cluster);
            for step in 0..edits {
                let edit = if rng.usize(..3) > 0 { mode_change(rng, &cluster) } else { None };
                let edit = edit.unwrap_or_else(|| change(rng, shape.style, &cluster));
                let before = compiler.plan().clone();
                cluster.apply(edit.clone());
                let delta = compiler.apply(edit.clone());
                let expected = Compiler::from_cluster(node.clone(), &cluster).plan().clone();
                if *compiler.plan() != expected {
                    return Err(format!("step {step}, {edit:?}: {:#?} {expected:#?}", compiler.plan()));
                }
                let mut applied = before.clone();
                applied.apply(&delta);
                if delta != before.delta_to(&expected) || applied != expected {
                    return Err(format!("step {step}, {edit:?}: delta {delta:#?}"));
                }
            }
            Ok(())
        });
    }
}

fn isolating(mode: Option<Mode>) -> Policy {
    Policy { mode, ..hostile::blocks(&running_pod("shop", "db"), 1) }
}

/// The policy's own mode comes first, then the label of its namespace, then the mode of the cluster.
#[test]
fn the_closest_setting_decides() {
    use Mode::{Audit, Enforce};
    let label = |value: &str| Some(value.to_owned());
    for (own, namespace, cluster, expected) in [
        (None, None, Enforce, Enforce),
        (None, None, Audit, Audit),
        (None, label("enforce"), Audit, Enforce),
        (None, label("audit"), Enforce, Audit),
        // A typing error opens nothing, whatever the cluster's mode is.
        (None, label("Audit"), Audit, Enforce),
        (None, label(""), Audit, Enforce),
        (Some(Enforce), label("audit"), Audit, Enforce),
        (Some(Audit), label("enforce"), Enforce, Audit),
    ] {
        let mut world = Cluster { mode: cluster, ..Cluster::default() };
        let labels = namespace.iter().map(|value| (MODE_KEY, &**value)).collect();
        world.apply(Change::SetNamespace(Namespace::new("shop", &labels)));
        assert_eq!(world.mode_of(&isolating(own)), expected, "{own:?} {namespace:?} {cluster}");
    }
}

/// The label of a namespace is for its own NetworkPolicies: those of others, and cluster-wide ones, stay enforced.
#[test]
fn a_namespace_sets_the_mode_of_its_own_policies_only() {
    let mut cluster = Cluster::default();
    let labels = [(MODE_KEY, "audit")].into_iter().collect();
    cluster.apply(Change::SetNamespace(Namespace::new("shop", &labels)));
    let own = isolating(None);
    let other = Policy { key: PolicyKey::network_policy("bank", "db"), ..own.clone() };
    let wide = PolicyKey { kind: "ClusterNetworkPolicy".into(), namespace: "".into(), name: "db".into() };
    let wide = Policy { key: wide, ..own.clone() };
    assert_eq!(
        [&own, &other, &wide].map(|policy| cluster.mode_of(policy)),
        [Mode::Audit, Mode::Enforce, Mode::Enforce]
    );
}

/// A policy in audit mode that exceeds its budget would deny everything, and leaves the enforced policies alone.
#[test]
fn a_policy_in_audit_mode_over_its_budget_closes_nothing() {
    let [own, peer]: [IpAddr; 2] = ["10.0.0.1", "192.0.2.1"].map(|address| address.parse().unwrap());
    let node = Name::from("n1");
    let pod = Pod { node: Some(node.clone()), addresses: vec![own], ..running_pod("shop", "db") };
    let large = Policy {
        key: PolicyKey::network_policy("shop", "large"),
        mode: Some(Mode::Audit),
        ..hostile::ports(&pod, 10_000)
    };
    let everyone = hostile::blocks(&pod, 1);
    let mut compiler = Compiler::new(node);
    compiler.apply_all([Change::SetPod(pod), Change::SetPolicy(Arc::new(large))]);
    let decide = |compiler: &Compiler, by| {
        compiler.plan().decide_by(by, Direction::Ingress, peer, own, Protocol::Tcp, 1)
    };
    assert_eq!(decide(&compiler, Deciding::Enforced), Verdict::Allow);
    assert_eq!(decide(&compiler, Deciding::All), Verdict::Deny);
    assert!(compiler.over_budget().is_empty(), "nothing that is enforced is over its budget");
    compiler.apply(Change::SetPolicy(Arc::new(everyone)));
    assert!(compiler.over_budget().is_empty());
}
