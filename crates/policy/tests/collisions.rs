//! Hash collisions: with short names, every table and peer set still has its own content.

use palisade_policy::{Cluster, Compiler, Direction, Endpoint, Flow, NodePlan, reference};
use palisade_testkit::{Rng, Shape, change, cluster, describe, flows, seeds};

/// Returns where the plan of a node differs from the reference for a pod of the node.
fn differing(world: &Cluster, node: &str, plan: &NodePlan, flow: &Flow) -> Option<String> {
    let decision = reference::decide(world, flow);
    let (source, destination) = (flow.source.address(), flow.destination.address());
    let is_local = |end: &Endpoint| match end {
        Endpoint::Pod { key, .. } => world.pods[key].node.as_deref() == Some(node),
        Endpoint::Node { .. } | Endpoint::External(_) => false,
    };
    // Traffic from a node to its own pods and from a pod to itself passes no table.
    let is_own_node = matches!(&flow.source, Endpoint::Node { name, .. } if **name == *node);
    if source == destination {
        return None;
    }
    let sides = [
        (Direction::Egress, &flow.source, decision.egress.verdict, false),
        (Direction::Ingress, &flow.destination, decision.ingress.verdict, is_own_node),
    ];
    sides.into_iter().filter(|(_, local, _, exempt)| is_local(local) && !exempt).find_map(
        |(direction, _, expected, _)| {
            let found = plan.decide(direction, source, destination, flow.protocol, flow.port);
            (found != expected).then(|| format!("{direction} of {flow:?} is {found}, not {expected}"))
        },
    )
}

#[test]
fn contents_with_equal_hashes_are_kept_apart() {
    let mut apart = 0;
    for seed in seeds(0..300) {
        let rng = &mut Rng::with_seed(seed);
        let mut world = cluster(rng, &if seed % 2 == 0 { Shape::strange() } else { Shape::tiered() });
        let node = world.nodes.keys().next().cloned().unwrap_or_else(|| "n1".into());
        let bits = rng.u8(0..3);
        let mut compiler = Compiler::with_short_names(node.clone(), bits);
        compiler.apply_all(Cluster::default().changes_to(&world));
        let mut applied = compiler.plan().clone();
        for _ in 0..6 {
            for flow in flows(rng, &world, 40) {
                let wrong = differing(&world, &node, compiler.plan(), &flow);
                assert_eq!(wrong, None, "seed {seed}\n{}", describe(&world));
            }
            let edit = change(rng, Shape::strange().style, &world);
            world.apply(edit.clone());
            applied.apply(&compiler.apply(edit));
            assert_eq!(applied, *compiler.plan(), "seed {seed}: the deltas add up to the plan");
        }
        let most = compiler.plan().tables.len().max(compiler.plan().peer_sets.len());
        apart += usize::from(most > 1 << bits);
    }
    assert!(apart > 50, "few had more tables or sets than names: {apart}");
}
