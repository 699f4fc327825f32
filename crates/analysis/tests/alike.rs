//! Property test of classes: endpoints of one class have the same verdicts with every other endpoint that is related to them
//! in the same way.

use palisade_analysis::alike::{Alike, Relation};
use palisade_policy::{Cluster, Endpoint, Family, Flow, Verdict, reference};
use palisade_testkit::{Rng, Shape, cluster, endpoints, flows, seeds};

/// The verdicts of both sides.
fn verdicts(cluster: &Cluster, source: &Endpoint, destination: &Endpoint, like: &Flow) -> (Verdict, Verdict) {
    let flow = Flow { source: source.clone(), destination: destination.clone(), ..like.clone() };
    let decision = reference::decide(cluster, &flow);
    (decision.egress.verdict, decision.ingress.verdict)
}

#[test]
fn endpoints_of_a_class_have_the_same_verdicts() {
    let mut compared = 0;
    for seed in seeds(0..150) {
        let mut rng = Rng::with_seed(seed);
        let cluster = cluster(&mut rng, &Shape::tiered());
        let mut all: Vec<Endpoint> = endpoints(&cluster);
        all.sort();
        all.dedup();
        let asked = flows(&mut rng, &cluster, 12);
        let mut alike = Alike::new(&cluster);
        let classes: Vec<_> = all.iter().map(|end| alike.class(end)).collect();
        for (i, a) in all.iter().enumerate() {
            // The first of each class stands for all.
            let first = classes.iter().position(|class| *class == classes[i]).unwrap_or(i);
            if first == i {
                continue;
            }
            let b = &all[first];
            assert_eq!(Family::of(a.address()), Family::of(b.address()));
            for other in all.iter().filter(|o| Family::of(o.address()) == Family::of(a.address())) {
                for flow in &asked {
                    let related = |s: &Endpoint, d: &Endpoint| Relation::of(&cluster, s, d);
                    if related(a, other) == related(b, other) {
                        let same = verdicts(&cluster, a, other, flow) == verdicts(&cluster, b, other, flow);
                        assert!(same, "seed {seed}: {a} and {b} to {other}: {flow:?}");
                    }
                    if related(other, a) == related(other, b) {
                        let same = verdicts(&cluster, other, a, flow) == verdicts(&cluster, other, b, flow);
                        assert!(same, "seed {seed}: {other} to {a} and {b}: {flow:?}");
                    }
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 1000, "only {compared} comparisons");
}
