//! Tenants over budget: their pods are denied, and the pods of other tenants are unaffected.

use std::collections::{BTreeMap, BTreeSet};

use palisade_policy::{
    Budget, Change, Cluster, Compiler, Direction, Endpoint, Flow, Limit, Name, NodePlan, Policy, Verdict,
    reference,
};
use palisade_testkit::{Rng, Shape, change, cluster, flows, hold};

/// The number of random cases of a property: `PALISADE_CASES`, else `default`.
fn cases(default: u64) -> u64 {
    match std::env::var("PALISADE_CASES") {
        Ok(text) => text.parse().expect("PALISADE_CASES must be a number"),
        Err(_) => default,
    }
}

/// Limits that the policies of random clusters sometimes exceed: one of them, or all.
fn low(rng: &mut Rng) -> Budget {
    let mut budget = Budget::UNLIMITED;
    let which = rng.usize(..7);
    if which == 0 || which == 6 {
        budget.peers = rng.usize(..8);
    }
    if which == 1 || which == 6 {
        budget.selectors = rng.usize(..5);
    }
    if which == 2 || which == 6 {
        budget.ports = rng.usize(..8);
    }
    if which == 3 || which == 6 {
        budget.elements = rng.usize(..200);
    }
    if which == 4 || which == 6 {
        budget.steps = rng.usize(..40);
    }
    if which == 5 || which == 6 {
        budget.namespace = rng.usize(..400);
    }
    budget
}

fn some_node(rng: &mut Rng, cluster: &Cluster) -> Name {
    let at = rng.usize(..cluster.nodes.len().max(1));
    cluster.nodes.keys().nth(at).cloned().unwrap_or_else(|| "elsewhere".into())
}

/// The plan's verdicts for the ends of a flow on its node, with those of the reference.
fn sides(
    world: &Cluster,
    node: &Name,
    plan: &NodePlan,
    flow: &Flow,
) -> Vec<(Direction, std::net::IpAddr, Verdict, Verdict)> {
    let decision = reference::decide(world, flow);
    let (source, destination) = (flow.source.address(), flow.destination.address());
    let is_own_node = matches!(&flow.source, Endpoint::Node { name, .. } if name == node);
    if source == destination {
        return Vec::new();
    }
    let is_here = |end: &Endpoint| match end {
        Endpoint::Pod { key, .. } => world.pods[key].node.as_ref() == Some(node),
        Endpoint::Node { .. } | Endpoint::External(_) => false,
    };
    let mut out = Vec::new();
    let mut ask = |direction, local: &Endpoint, wanted| {
        let found = plan.decide(direction, source, destination, flow.protocol, flow.port);
        out.push((direction, local.address(), wanted, found));
    };
    if is_here(&flow.source) {
        ask(Direction::Egress, &flow.source, decision.egress.verdict);
    }
    if is_here(&flow.destination) && !is_own_node {
        ask(Direction::Ingress, &flow.destination, decision.ingress.verdict);
    }
    out
}

#[test]
fn pods_over_budget_are_denied_and_other_verdicts_stay() {
    let (mut closed, mut open) = (BTreeMap::<Limit, usize>::new(), 0usize);
    let seen = std::sync::Mutex::new((&mut closed, &mut open));
    for shape in [Shape::strange(), Shape::tiered()] {
        hold(cases(800), &shape, |start, rng| {
            let (node, budget) = (some_node(rng, start), low(rng));
            let mut world = start.clone();
            let mut compiler = Compiler::new(node.clone());
            compiler.apply_all(Cluster::default().changes_to(&world));
            let mut applied = compiler.plan().clone();
            let mut limited = Compiler::with_budget(node.clone(), budget);
            let mut limited_plan = NodePlan::default();
            limited_plan.apply(&limited.apply_all(Cluster::default().changes_to(&world)));
            let mut changes = None;
            for step in 0..6 {
                let over: BTreeMap<_, _> =
                    limited.over_budget().into_iter().map(|o| ((o.direction, o.address), o)).collect();
                if changes
                    .as_ref()
                    .is_some_and(|(n, known)| *n == limited.over_budget_changes() && *known != over)
                {
                    return Err(format!(
                        "step {step}: a change of who is over budget was not reported: {over:?}"
                    ));
                }
                changes = Some((limited.over_budget_changes(), over.clone()));
                let scratch = {
                    let mut scratch = Compiler::with_budget(node.clone(), budget);
                    scratch.apply_all(Cluster::default().changes_to(&world));
                    scratch
                };
                if limited.plan() != scratch.plan() || limited.over_budget() != scratch.over_budget() {
                    return Err(format!(
                        "step {step}, {budget:?}: plan {:#?}\nfrom scratch {:#?}\nover budget {over:?}, from scratch {:?}",
                        limited.plan(),
                        scratch.plan(),
                        scratch.over_budget()
                    ));
                }
                if limited_plan != *limited.plan() || applied != *compiler.plan() {
                    return Err(format!("step {step}: the deltas don't add up"));
                }
                for flow in flows(rng, &world, 30) {
                    for (direction, local, wanted, found) in sides(&world, &node, limited.plan(), &flow) {
                        let over = over.get(&(direction, local));
                        let wanted = if over.is_some() { Verdict::Deny } else { wanted };
                        if found != wanted {
                            return Err(format!("{budget:?}: {direction} of {flow:?} is {found}: {over:?}"));
                        }
                        let mut seen = seen.lock().unwrap();
                        match over {
                            Some(over) => *seen.0.entry(over.limit).or_default() += 1,
                            None => *seen.1 += 1,
                        }
                    }
                }
                let edit = change(rng, shape.style, &world);
                world.apply(edit.clone());
                applied.apply(&compiler.apply(edit.clone()));
                limited_plan.apply(&limited.apply(edit));
            }
            Ok(())
        });
    }
    if cases(800) >= 500 {
        assert_eq!(closed.len(), 6, "every bound was broken: {closed:?}");
        assert!(open > 1000, "and many pods broke none: {open}");
    }
}

/// The default limits only affect abuse: no random cluster exceeds one, nor does one like production.
#[test]
fn realistic_policies_are_within_the_default_budget() {
    let worlds = (0..50).map(|seed| cluster(&mut Rng::with_seed(seed), &Shape::tiered()));
    for world in worlds.chain([cluster(&mut Rng::with_seed(1), &Shape::realistic(1000, 1000))]) {
        for node in world.nodes.keys() {
            let compiler = Compiler::from_cluster(node.clone(), &world);
            assert_eq!(compiler.over_budget(), []);
        }
    }
    let crowded = cluster(&mut Rng::with_seed(1), &Shape::realistic(5_000, 10_000));
    assert_eq!(Compiler::from_cluster("n1".into(), &crowded).over_budget(), []);
}

/// One tenant creates larger and larger policies; other pods, and the other direction of its own pods, are unaffected.
#[test]
fn one_tenant_over_budget_leaves_others_alone() {
    let rng = &mut Rng::with_seed(7);
    let world = cluster(rng, &Shape::realistic(500, 100));
    let node: Name = "n1".into();
    let mut compiler = Compiler::from_cluster(node.clone(), &world);
    let before = compiler.plan().clone();
    let pod = world.pods.values().find(|p| p.node.as_ref() == Some(&node) && p.is_running()).unwrap().clone();
    let hostile = palisade_testkit::hostile::excepts(&pod, 3_200);
    let delta = compiler.apply(Change::SetPolicy(std::sync::Arc::new(hostile.clone())));
    let over = compiler.over_budget();
    let closed: BTreeSet<_> = over.iter().map(|o| (o.direction, o.address)).collect();
    assert!(
        over.iter().all(|o| o.pod.namespace == pod.key.namespace && o.largest == Some(hostile.key.clone()))
    );
    assert!(!closed.is_empty());
    for (direction, old, new) in [
        (Direction::Ingress, &before.ingress, &compiler.plan().ingress),
        (Direction::Egress, &before.egress, &compiler.plan().egress),
    ] {
        for address in old.keys().chain(new.keys()).filter(|a| !closed.contains(&(direction, **a))) {
            let (was, is) = (old.get(address), new.get(address));
            assert_eq!(was, is, "{direction} of {address}");
        }
    }
    let elements: usize =
        palisade_policy::Family::BOTH.into_iter().map(|f| compiler.plan().elements(f)).sum();
    let had: usize = palisade_policy::Family::BOTH.into_iter().map(|f| before.elements(f)).sum();
    assert!(elements <= had, "{elements} elements, {had} before");
    assert!(delta.tables_set.len() <= closed.len());
    // A policy that is made smaller applies at once.
    let small = palisade_testkit::hostile::excepts(&pod, 3);
    compiler.apply(Change::SetPolicy(std::sync::Arc::new(Policy { key: hostile.key.clone(), ..small })));
    assert_eq!(compiler.over_budget(), []);
    compiler.apply(Change::RemovePolicy(hostile.key));
    assert_eq!(*compiler.plan(), before);
}
