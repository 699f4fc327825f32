//! What the test binaries share: running laws over seeds, and deciding a flow in every way there is.

pub mod second_opinion;

use std::collections::BTreeMap;

use palisade_policy::{
    Cluster, Direction, Endpoint, Flow, Name, NodePlan, compile::Compiler,
    random::{Rng, Shape, cluster, describe, shrink},
    reference,
};

/// How many random cases a law runs: `PALISADE_CASES`, else `default`, which together take less than a minute.
pub fn cases(default: u64) -> u64 {
    match std::env::var("PALISADE_CASES") {
        Ok(text) => text.parse().expect("PALISADE_CASES must be a number"),
        Err(_) => default,
    }
}

/// Holds a law on `n` random clusters of a shape. `law` gets the cluster and randomness of its own, and says what is
/// wrong. A cluster that breaks it is shrunk under the same randomness and printed with its seed.
pub fn hold(n: u64, shape: &Shape, law: impl Fn(&Cluster, &mut Rng) -> Result<(), String>) {
    for seed in 0..n {
        let world = cluster(&mut Rng::with_seed(seed), shape);
        let check = |c: &Cluster| {
            let run = std::panic::AssertUnwindSafe(|| law(c, &mut Rng::with_seed(!seed)));
            std::panic::catch_unwind(run).unwrap_or_else(|_| Err("it panicked".to_owned()))
        };
        let Err(wrong) = check(&world) else { continue };
        let smallest = shrink(&world, |c| check(c).is_err());
        let still = check(&smallest).expect_err("shrinking keeps the fault");
        panic!("seed {seed}: {wrong}\n--- smallest cluster:\n{}--- in it: {still}", describe(&smallest));
    }
}

/// The plan of every node that has pods, compiled from scratch.
pub fn plans(cluster: &Cluster) -> BTreeMap<Name, NodePlan> {
    let nodes: std::collections::BTreeSet<&Name> = cluster.pods.values().filter_map(|p| p.node.as_ref()).collect();
    nodes.into_iter().map(|n| (n.clone(), Compiler::from_cluster(n.clone(), cluster).plan().clone())).collect()
}

/// The node that a pod endpoint is on.
fn node_of<'a>(cluster: &'a Cluster, end: &Endpoint) -> Option<&'a Name> {
    match end {
        Endpoint::Pod { key, .. } => cluster.pods[key].node.as_ref(),
        Endpoint::Node { .. } | Endpoint::External(_) => None,
    }
}

/// Decides a flow by the reference, the second opinion and the plans, and says where they differ; else whether
/// egress and ingress pass.
pub fn unanimous(cluster: &Cluster, plans: &BTreeMap<Name, NodePlan>, flow: &Flow) -> Result<(bool, bool), String> {
    let decision = reference::decide(cluster, flow);
    let reference = (decision.egress.verdict.is_allow(), decision.ingress.verdict.is_allow());
    let Flow { source, destination, protocol, port, .. } = flow;
    let say = |who: &str, what: String| {
        Err(format!("{source} -> {destination} {port}/{protocol}: {who} {what}, the reference {decision:#?}"))
    };
    let second = second_opinion::decide(cluster, flow);
    if second != reference {
        return say("second opinion says (egress, ingress) =", format!("{second:?}"));
    }
    // What a node's own stack sends to its pods is not forwarded and meets no plan (SEMANTICS A39, G-5).
    if matches!(source, Endpoint::Node { name, .. } if node_of(cluster, destination) == Some(name)) {
        return if reference.1 { Ok(reference) } else { say("own node", "is denied".to_owned()) };
    }
    let sides =
        [(Direction::Egress, source, reference.0), (Direction::Ingress, destination, reference.1)];
    for (direction, local, wanted) in sides {
        let Some(plan) = node_of(cluster, local).map(|n| &plans[n]) else { continue };
        let verdict = plan.decide(direction, source.address(), destination.address(), *protocol, *port);
        if verdict.is_allow() != wanted {
            return say("plan", format!("says {direction} is {verdict}"));
        }
    }
    Ok(reference)
}
