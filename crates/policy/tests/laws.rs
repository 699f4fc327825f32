//! Properties of the reference, the compiler and its increments, on random clusters designed to collide.
//!
//! `PALISADE_CASES` sets the number of cases of each property and shape.

mod support;

use std::{collections::BTreeSet, net::IpAddr};

use palisade_policy::{
    Action, Change, Cluster, Compiler, Deny, Endpoint, Family, Flow, Name, NodePlan, PeerSet, Phase, Pod,
    Reason, Tier, reference,
};
use palisade_testkit::{Rng, Shape, Style, change, cluster, endpoints, flows, hold, seeds, traffic};
use support::{plans, unanimous};

/// The number of random cases of a property: `PALISADE_CASES`, else `default`. The defaults together take less than a
/// minute.
fn cases(default: u64) -> u64 {
    match std::env::var("PALISADE_CASES") {
        Ok(text) => text.parse().expect("PALISADE_CASES must be a number"),
        Err(_) => default,
    }
}

/// (a) The reference, an independent implementation of the specification and the plan agree, for every pair of
/// addresses that any object mentions, each with a few of the mentioned ports.
#[test]
fn reference_is_plan_is_second_opinion_for_every_pair() {
    hold(cases(600), &Shape::strange(), |cluster, rng| {
        let (plans, ends, traffic) = (plans(cluster), endpoints(cluster), traffic(cluster));
        for source in &ends {
            for destination in ends.iter().filter(|d| Family::of(d.address()) == Family::of(source.address()))
            {
                // No policy applies between two external ends.
                if ![source, destination].iter().any(|e| matches!(e, Endpoint::Pod { .. })) {
                    continue;
                }
                for _ in 0..2 {
                    let (protocol, port) = traffic[rng.usize(..traffic.len())];
                    let (source, destination) = (source.clone(), destination.clone());
                    let flow = Flow { source, destination, protocol, port, through_service: rng.bool() };
                    unanimous(cluster, &plans, &flow)?;
                }
            }
        }
        Ok(())
    });
}

/// (a) The same on many more clusters, with sampled flows.
#[test]
fn reference_is_plan_is_second_opinion_on_samples() {
    for (n, shape) in [(5000, Shape::strange()), (1000, Shape::small()), (400, Shape::medium())] {
        hold(cases(n), &shape, |cluster, rng| {
            let plans = plans(cluster);
            flows(rng, cluster, 150).iter().try_for_each(|flow| unanimous(cluster, &plans, flow).map(drop))
        });
    }
}

/// (a) With cluster-wide tiers before and after the NetworkPolicies, and with domain names, reference and plan agree.
#[test]
fn reference_is_plan_with_tiers() {
    for (n, shape) in
        [(2000, Shape::tiered()), (500, Shape::small_tiered()), (2000, Shape::with_domain_names())]
    {
        hold(cases(n), &shape, |cluster, rng| {
            let plans = plans(cluster);
            flows(rng, cluster, 150).iter().try_for_each(|flow| unanimous(cluster, &plans, flow).map(drop))
        });
    }
}

/// The passed rules of a decision have the action Pass. There is at most one of each cluster-wide tier, and none of a
/// tier after the deciding one.
#[test]
fn passed_rules_come_before_the_deciding_rule() {
    let mut seen = BTreeSet::new();
    for seed in seeds(0..cases(300)) {
        let rng = &mut Rng::with_seed(seed);
        let world = cluster(rng, &Shape { policies: 6..=14, ..Shape::tiered() });
        for flow in flows(rng, &world, 150) {
            let decision = reference::decide(&world, &flow);
            for side in [decision.egress, decision.ingress] {
                let tiers: Vec<Tier> = side.passed.iter().map(|r| r.tier).collect();
                let decided = match &side.reason {
                    Reason::Rule(rule) => Some(rule.tier),
                    Reason::Isolated { .. } | Reason::Hairpin => Some(Tier::Developer),
                    Reason::Itself | Reason::NoSubject | Reason::OwnNode => Some(Tier::Admin),
                    Reason::NotIsolated => None,
                };
                assert!(side.passed.iter().all(|r| r.action == Action::Pass), "seed {seed}: {flow:?}");
                assert!(tiers.is_sorted_by(|a, b| a < b), "seed {seed}: {flow:?}: {tiers:?}");
                assert!(tiers.iter().all(|t| decided.is_none_or(|d| *t < d)), "seed {seed}: {flow:?}");
                seen.insert((tiers, decided));
            }
        }
    }
    for passed in [vec![Tier::Admin], vec![Tier::Baseline], vec![Tier::Admin, Tier::Baseline]] {
        assert!(seen.contains(&(passed.clone(), None)), "{passed:?}: {seen:?}");
    }
    assert!(seen.contains(&(vec![Tier::Admin], Some(Tier::Developer))), "{seen:?}");
    assert!(seen.contains(&(vec![Tier::Admin], Some(Tier::Baseline))), "{seen:?}");
}

/// (a) The pods alone determine the owner of an address: of the running pods that report it, a Running one, then the
/// newest, then the first by namespace and name (SEMANTICS G-10).
#[test]
fn an_address_belongs_to_one_running_pod() {
    hold(cases(5000), &Shape::strange(), |cluster, _| {
        for address in cluster.pods.values().flat_map(|p| &p.addresses) {
            let mut owner: Option<&Pod> = None;
            for pod in cluster.pods.values() {
                let live = !pod.host_network && pod.phase != Phase::Succeeded && pod.phase != Phase::Failed;
                if !live || !pod.addresses.contains(address) {
                    continue;
                }
                // Pods are sorted by namespace and name, so a tie keeps the earlier one.
                let better = owner.is_none_or(|known| match (known.phase, pod.phase) {
                    (Phase::Running, Phase::Running) => pod.created > known.created,
                    (Phase::Running, _) => false,
                    (_, Phase::Running) => true,
                    _ => pod.created > known.created,
                });
                if better {
                    owner = Some(pod);
                }
            }
            let (expected, found) = (owner.map(|p| &p.key), cluster.pod_at(*address).map(|p| &p.key));
            if expected != found {
                return Err(format!("{address} belongs to {expected:?}, not to {found:?}"));
            }
        }
        Ok(())
    });
}

/// Returns a node to compile for; sometimes one without pods.
fn some_node(rng: &mut Rng, cluster: &Cluster) -> Name {
    let at = rng.usize(..=cluster.nodes.len());
    cluster.nodes.keys().nth(at).cloned().unwrap_or_else(|| "elsewhere".into())
}

fn from_scratch(node: &Name, cluster: &Cluster) -> NodePlan {
    Compiler::from_cluster(node.clone(), cluster).plan().clone()
}

/// (b), (c) After every change of a random sequence the plan is that of the resulting cluster; the delta leads from the
/// old plan to the new one and contains nothing else.
#[test]
fn incremental_is_from_scratch_and_deltas_are_exact() {
    for (n, shape, edits) in [
        (1500, Shape::strange(), 25),
        (700, Shape::tiered(), 25),
        (700, Shape::with_domain_names(), 25),
        (60, Shape::medium(), 60),
    ] {
        hold(cases(n), &shape, |start, rng| {
            let node = some_node(rng, start);
            let (mut cluster, mut compiler) = (start.clone(), Compiler::from_cluster(node.clone(), start));
            let (mut before, mut applied) = (compiler.plan().clone(), compiler.plan().clone());
            for step in 0..edits {
                let edit = change(rng, shape.style, &cluster);
                let context = |what: &str| format!("node {node}, step {step}, {edit:?}: {what}");
                cluster.apply(edit.clone());
                let delta = compiler.apply(edit.clone());
                if *compiler.cluster() != cluster {
                    return Err(context("the compiler holds another cluster"));
                }
                let expected = from_scratch(&node, &cluster);
                if *compiler.plan() != expected {
                    return Err(context(&format!("plan {:#?}\nfrom scratch {expected:#?}", compiler.plan())));
                }
                if delta != before.delta_to(&expected) {
                    return Err(context(&format!(
                        "delta {delta:#?}\nexact {:#?}",
                        before.delta_to(&expected)
                    )));
                }
                applied.apply(&delta);
                if applied != expected {
                    return Err(context("the deltas don't add up to the plan"));
                }
                before = expected;
            }
            Ok(())
        });
    }
}

/// (b), (c) Many changes at once give one exact delta. The objects of a cluster may arrive in any order, mixed with
/// others that are deleted again, and a cluster may be dismantled down to the empty plan.
#[test]
fn the_order_of_changes_does_not_matter() {
    for shape in [Shape::strange(), Shape::with_domain_names()] {
        hold(cases(2500), &shape, arrives_in_any_order);
    }
}

fn arrives_in_any_order(cluster: &Cluster, rng: &mut Rng) -> Result<(), String> {
    let node = some_node(rng, cluster);
    let expected = from_scratch(&node, cluster);
    let mut arrivals = Cluster::default().changes_to(cluster);
    rng.shuffle(&mut arrivals);

    let mut one_by_one = Compiler::new(node.clone());
    for (at, arrival) in arrivals.iter().enumerate() {
        if rng.usize(..4) == 0 {
            // An object of another cluster that is added, and deleted or replaced later.
            let passer_by = change(rng, Style::Strange, one_by_one.cluster());
            let undo = undo(one_by_one.cluster(), &passer_by);
            one_by_one.apply(passer_by);
            one_by_one.apply_all(undo);
        }
        one_by_one.apply(arrival.clone());
        let twice = one_by_one.apply_all([arrival.clone(), arrivals[rng.usize(..=at)].clone()]);
        if !twice.is_empty() {
            return Err(format!("node {node}: {arrival:?} again is not nothing: {twice:#?}"));
        }
    }
    if *one_by_one.plan() != expected {
        return Err(format!("node {node}: one by one {:#?}\nat once {expected:#?}", one_by_one.plan()));
    }

    let mut batch = Compiler::new(node.clone());
    let delta = batch.apply_all(arrivals);
    if *batch.plan() != expected || delta != NodePlan::default().delta_to(&expected) {
        return Err(format!("node {node}: one batch gives {:#?}\nwanted {expected:#?}", batch.plan()));
    }

    let mut departures = cluster.changes_to(&Cluster::default());
    rng.shuffle(&mut departures);
    for departure in departures {
        batch.apply(departure);
    }
    if *batch.plan() != NodePlan::default() || *batch.cluster() != Cluster::default() {
        return Err(format!("node {node}: left over {:#?}", batch.plan()));
    }
    Ok(())
}

/// Returns the change that undoes `change`, which has not been applied to `cluster` yet.
fn undo(cluster: &Cluster, change: &Change) -> Vec<Change> {
    let mut after = cluster.clone();
    after.apply(change.clone());
    after.changes_to(cluster)
}

/// (c) A batch of changes, some of which cancel each other, gives the exact difference.
#[test]
fn a_batch_gives_the_exact_difference() {
    hold(cases(2500), &Shape::strange(), |start, rng| {
        let node = some_node(rng, start);
        let mut compiler = Compiler::from_cluster(node.clone(), start);
        let (mut cluster, before) = (start.clone(), compiler.plan().clone());
        let edits: Vec<Change> = (0..rng.usize(0..12))
            .map(|_| {
                let edit = change(rng, Style::Strange, &cluster);
                cluster.apply(edit.clone());
                edit
            })
            .collect();
        let delta = compiler.apply_all(edits);
        let expected = from_scratch(&node, &cluster);
        if *compiler.plan() != expected {
            return Err(format!("node {node}: plan {:#?}\nfrom scratch {expected:#?}", compiler.plan()));
        }
        if delta != before.delta_to(&expected) {
            return Err(format!("node {node}: delta {delta:#?}\nexact {:#?}", before.delta_to(&expected)));
        }
        let back = compiler.apply_all(cluster.changes_to(start));
        if *compiler.plan() != before || back != expected.delta_to(&before) {
            return Err(format!("node {node}: undoing the batch gives {back:#?}"));
        }
        Ok(())
    });
}

/// (d) Plans have the invariants of [`NodePlan`] and [`palisade_policy::PolicyTable`].
#[test]
fn plans_are_well_formed() {
    for (n, shape) in [(5000, Shape::strange()), (300, Shape::medium()), (2000, Shape::with_domain_names())] {
        hold(cases(n), &shape, |cluster, _| {
            plans(cluster).iter().try_for_each(|(node, plan)| {
                well_formed(cluster, node, plan).map_err(|wrong| format!("node {node}: {wrong}\n{plan:#?}"))
            })
        });
    }
}

fn well_formed(cluster: &Cluster, node: &Name, plan: &NodePlan) -> Result<(), String> {
    plan.check().map_err(|broken| broken.to_string())?;
    let is_local = |a: &&IpAddr| cluster.pod_at(**a).and_then(|p| p.node.as_ref()) == Some(node);
    if let Some(stranger) = plan.ingress.keys().chain(plan.egress.keys()).find(|a| !is_local(a)) {
        return Err(format!("{stranger} is no local pod's"));
    }
    let owners = cluster.pods.values().flat_map(|pod| &pod.addresses);
    let local: BTreeSet<IpAddr> = owners.filter(is_local).copied().collect();
    if plan.local != local {
        return Err(format!("the local addresses are {local:?}"));
    }
    let refuses = |a: &&IpAddr| {
        cluster.pod_at(**a).is_some_and(|pod| cluster.deny_of(&pod.key.namespace) == Deny::Reject)
    };
    let refusing: BTreeSet<IpAddr> = local.iter().filter(refuses).copied().collect();
    if plan.refusing != refusing {
        return Err(format!("the addresses that refuse are {refusing:?}"));
    }
    let nodes: BTreeSet<IpAddr> = cluster.nodes.values().flat_map(|n| &n.addresses).copied().collect();
    if plan.nodes != nodes {
        return Err(format!("the addresses of nodes are {nodes:?}"));
    }
    // Only cluster-wide policies have peers that are nodes or domain names.
    let is_tiered = cluster.policies.values().any(|p| p.tier != Tier::Developer);
    let learned: BTreeSet<IpAddr> = cluster.learned.values().flat_map(|l| l.addresses.iter()).collect();
    let is_peer =
        |a: &IpAddr| cluster.pod_at(*a).is_some() || learned.contains(a) || (is_tiered && nodes.contains(a));
    for (id, set) in &plan.peer_sets {
        if let PeerSet::Addresses(members) = set
            && let Some(stranger) = members.iter().find(|a| !is_peer(a))
        {
            return Err(format!("peer set {id} contains {stranger}, which is neither a pod's nor learned"));
        }
    }
    Ok(())
}
