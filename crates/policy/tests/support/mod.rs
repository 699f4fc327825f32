//! Shared by the test binaries: decides a flow in every way.

pub(crate) mod second_opinion;

use std::collections::BTreeMap;

use palisade_policy::{Cluster, Compiler, Direction, Endpoint, Flow, Name, NodePlan, Tier, reference};

/// Returns the plan of every node with pods, compiled from scratch.
pub(crate) fn plans(cluster: &Cluster) -> BTreeMap<Name, NodePlan> {
    let nodes: std::collections::BTreeSet<&Name> =
        cluster.pods.values().filter_map(|p| p.node.as_ref()).collect();
    nodes
        .into_iter()
        .map(|n| (n.clone(), Compiler::from_cluster(n.clone(), cluster).plan().clone()))
        .collect()
}

/// Returns the node of a pod endpoint.
fn node_of<'a>(cluster: &'a Cluster, end: &Endpoint) -> Option<&'a Name> {
    match end {
        Endpoint::Pod { key, .. } => cluster.pods[key].node.as_ref(),
        Endpoint::Node { .. } | Endpoint::External(_) => None,
    }
}

/// Decides a flow by the reference, the second opinion and the plans. Returns how they differ, else whether egress and
/// ingress allow it.
pub(crate) fn unanimous(
    cluster: &Cluster,
    plans: &BTreeMap<Name, NodePlan>,
    flow: &Flow,
) -> Result<(bool, bool), String> {
    let decision = reference::decide(cluster, flow);
    let reference = (decision.egress.verdict.is_allow(), decision.ingress.verdict.is_allow());
    let Flow { source, destination, protocol, port, .. } = flow;
    let say = |who: &str, what: String| {
        Err(format!("{source} -> {destination} {port}/{protocol}: {who} {what}, the reference {decision:#?}"))
    };
    let tiered = cluster.policies.values().any(|p| p.tier != Tier::Developer);
    if !tiered && second_opinion::decide(cluster, flow) != reference {
        return say(
            "second opinion",
            format!("decides (egress, ingress) = {:?}", second_opinion::decide(cluster, flow)),
        );
    }
    // A packet from an address to itself passes the plan only on its way through a service, and then both directions at
    // once (SEMANTICS A41, C25, G-6).
    if source == destination {
        let plan = node_of(cluster, source).map(|n| &plans[n]).filter(|_| flow.through_service);
        let Some(plan) = plan else { return Ok(reference) };
        let verdict =
            plan.decide(Direction::Egress, source.address(), destination.address(), *protocol, *port);
        let agreed = verdict.is_allow() == (reference.0 && reference.1);
        return if agreed {
            Ok(reference)
        } else {
            say("plan", format!("decides that the hairpin is {verdict}"))
        };
    }
    // Traffic from a node's network stack to its pods isn't forwarded and passes no plan (SEMANTICS A39, G-5).
    if matches!(source, Endpoint::Node { name, .. } if node_of(cluster, destination) == Some(name)) {
        return if reference.1 { Ok(reference) } else { say("own node", "is denied".to_owned()) };
    }
    let sides = [(Direction::Egress, source, reference.0), (Direction::Ingress, destination, reference.1)];
    for (direction, local, wanted) in sides {
        let Some(plan) = node_of(cluster, local).map(|n| &plans[n]) else { continue };
        let verdict = plan.decide(direction, source.address(), destination.address(), *protocol, *port);
        if verdict.is_allow() != wanted {
            return say("plan", format!("decides that {direction} is {verdict}"));
        }
    }
    Ok(reference)
}
