//! Property tests of explanations, edits and descriptions.

mod support;

use std::collections::BTreeSet;

use palisade_analysis::{ConnectionEnd, describe, explain};
use palisade_policy::{Flow, ObjectKey, Traffic, reference::decide};
use palisade_testkit::{Shape, flows, traffic};
use support::{cases, hold};

#[test]
fn an_explanation_equals_the_reference_for_every_port() {
    hold(cases(200), &Shape::tiered(), |cluster, rng| {
        for flow in flows(rng, cluster, 12) {
            let explanation =
                explain(cluster, &flow.source, &flow.destination, flow.through_service, &Traffic::all());
            for (protocol, port) in traffic(cluster) {
                let flow = Flow { protocol, port, ..flow.clone() };
                let parts: Vec<_> =
                    explanation.parts.iter().filter(|p| p.traffic.contains(protocol, port)).collect();
                let [part] = parts[..] else { return Err(format!("{flow:?} is in {} parts", parts.len())) };
                let decision = decide(cluster, &flow);
                let expected = (decision.verdict(), decision.egress.verdict, decision.ingress.verdict);
                if (part.verdict, part.egress.0, part.ingress.0) != expected {
                    return Err(format!("{flow:?}: {part:?}, reference {expected:?}"));
                }
            }
        }
        Ok(())
    });
}

/// The effects of the policies in a direction determine the traffic that it allows.
#[test]
fn the_effects_of_a_description_determine_its_traffic() {
    let seen = std::cell::Cell::new(0);
    hold(cases(200), &Shape::strange(), |cluster, _| {
        let pods: BTreeSet<ObjectKey> = cluster.pods.keys().take(3).cloned().collect();
        for part in describe(cluster, &pods, &palisade_analysis::ControllerRoutes::default()).parts {
            for side in part.sides.iter().filter(|s| s.isolated) {
                for peer in side.peers.iter().filter(|p| matches!(p.end, ConnectionEnd::External(_))) {
                    let effects = side.policies.iter().flat_map(|p| &p.effects).filter(|e| e.end == peer.end);
                    let sum = effects.fold(Traffic::none(), |sum, e| sum.union(&e.matches));
                    seen.set(seen.get() + 1);
                    if sum != peer.traffic {
                        return Err(format!("{}: policies {sum}, edge {}", peer.end, peer.traffic));
                    }
                }
                let internet = side.internet.iter().any(|i| !i.some.is_none());
                if internet && side.peers.is_empty() {
                    return Err("the internet is reachable without an external peer".to_owned());
                }
            }
        }
        Ok(())
    });
    assert!(seen.get() > 100, "{}", seen.get());
}
