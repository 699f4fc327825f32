//! Property tests of the descriptions of policies.

mod support;

use std::{cell::Cell, sync::Arc};

use palisade_analysis::describe::{CoveredWhat, IdlePart, IdleReason, describe_policy};
use palisade_policy::{Cluster, Direction, PolicyKey, reference::decide};
use palisade_testkit::{Shape, flows, traffic};
use support::{cases, hold};

/// Removes a part of a policy that other rules are said to cover.
fn without(cluster: &Cluster, key: &PolicyKey, part: &IdlePart) -> Option<Cluster> {
    let (direction, index) = part.rule?;
    let IdleReason::Covered { part: what, .. } = &part.reason else { return None };
    let mut policy = cluster.policies[key].as_ref().clone();
    let rules = match direction {
        Direction::Ingress => policy.ingress.as_mut()?,
        Direction::Egress => policy.egress.as_mut()?,
    };
    match what {
        CoveredWhat::Rule => drop(rules.remove(index)),
        CoveredWhat::Peer(peer) => {
            let peers = rules[index].peers.as_mut()?;
            let at = peers.iter().rposition(|entry| entry.peer == *peer)?;
            peers.remove(at);
        }
        CoveredWhat::Port(port) => {
            let ports = rules[index].ports.as_mut()?;
            let at = ports.iter().rposition(|entry| entry.port == *port)?;
            ports.remove(at);
        }
    }
    let mut out = cluster.clone();
    out.policies.insert(key.clone(), Arc::new(policy));
    Some(out)
}

#[test]
fn covered_parts_do_nothing() {
    let seen = Cell::new(0);
    hold(cases(40), &Shape::tiered(), |cluster, rng| {
        let declared = |namespace: &str| cluster.namespaces.contains_key(namespace);
        for key in cluster.policies.keys() {
            let description = describe_policy(cluster, key).ok_or("no such policy")?;
            for part in &description.idle {
                let Some(reduced) = without(cluster, key, part) else { continue };
                seen.set(seen.get() + 1);
                for flow in flows(rng, cluster, 12) {
                    let undeclared = cluster.pods.keys().any(|pod| !declared(&pod.namespace));
                    for (protocol, port) in traffic(cluster).into_iter().filter(|_| !undeclared) {
                        let flow = palisade_policy::Flow { protocol, port, ..flow.clone() };
                        let verdicts = [cluster, &reduced].map(|c| decide(c, &flow).verdict());
                        if verdicts[0] != verdicts[1] {
                            return Err(format!("{key}: {part:?} changes {flow:?}: {verdicts:?}"));
                        }
                    }
                }
            }
        }
        Ok(())
    });
    assert!(seen.get() > 10, "{}", seen.get());
}
