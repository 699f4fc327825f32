//! The walk and the reference agree on verdicts and reasons.

use palisade_policy::{
    Direction, PortSet, Protocol, Reason, Traffic,
    reference::decide,
    walk::{Decider, walk},
};
use palisade_testkit::{Rng, Shape, cluster, describe, flows, seeds};

fn same(reason: &Reason, decider: &Decider) -> bool {
    match (reason, decider) {
        (Reason::Itself, Decider::Itself)
        | (Reason::NoSubject, Decider::NoSubject)
        | (Reason::OwnNode, Decider::OwnNode)
        | (Reason::NotIsolated, Decider::NotIsolated)
        | (Reason::Hairpin, Decider::Hairpin) => true,
        (Reason::Rule(a), Decider::Rule(b)) => a == b,
        (Reason::Isolated { policies, .. }, Decider::Isolated(keys)) => {
            policies.iter().map(|(key, _)| key).eq(keys.iter())
        }
        _ => false,
    }
}

#[test]
fn walk_and_reference_agree_on_verdicts_and_reasons() {
    for seed in seeds(0..400) {
        let rng = &mut Rng::with_seed(seed);
        let world = cluster(rng, &Shape::tiered());
        for flow in flows(rng, &world, 60) {
            let decision = decide(&world, &flow);
            for (direction, side) in
                [(Direction::Egress, &decision.egress), (Direction::Ingress, &decision.ingress)]
            {
                let scope = Traffic::all();
                let walk =
                    walk(&world, &flow.source, &flow.destination, flow.through_service, direction, &scope);
                let part = walk.part(flow.protocol, flow.port).expect("everything is decided");
                assert!(
                    part.verdict == side.verdict && same(&side.reason, &part.decider),
                    "seed {seed} {direction} {flow:?}: {side:?} and {part:?}\n{}",
                    describe(&world)
                );
                let mut sum = Traffic::none();
                for part in &walk.parts {
                    assert!(part.traffic.intersection(&sum).is_none(), "parts are disjoint");
                    sum = sum.union(&part.traffic);
                }
                assert_eq!(sum, scope);
            }
        }
    }
}

#[test]
fn only_the_given_traffic_is_decided() {
    let rng = &mut Rng::with_seed(3);
    let scope = Traffic::of(Protocol::Tcp, PortSet::range(80, 81));
    for _ in 0..50 {
        let world = cluster(rng, &Shape::tiered());
        for flow in flows(rng, &world, 10) {
            let walk = walk(&world, &flow.source, &flow.destination, false, Direction::Ingress, &scope);
            let sum = walk.parts.iter().fold(Traffic::none(), |sum, p| sum.union(&p.traffic));
            assert_eq!(sum, scope);
        }
    }
}
