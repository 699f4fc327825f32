//! Property tests of explanations, edits and descriptions.

mod support;

use std::{collections::BTreeSet, net::IpAddr};

use palisade_analysis::{
    ConnectionEnd, describe,
    edit::{self, EditAction},
    explain,
};
use palisade_policy::{
    Cluster, Direction, Endpoint, Family, Flow, Name, NamespaceMatch, ObjectKey, Peer, Phase, Pod, Protocol,
    Traffic, Verdict, reference::decide,
};
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

/// The first edits of all directions, applied together, allow a denied connection.
#[test]
fn suggested_edits_allow() {
    let counted = std::cell::Cell::new((0, 0));
    hold(cases(250), &Shape::tiered(), |cluster, rng| {
        for flow in flows(rng, cluster, 15) {
            let denied = !decide(cluster, &flow).verdict().is_allow();
            let choices = edit::to_allow(cluster, &flow);
            if choices.is_empty() == denied {
                return Err(format!("{flow:?} is denied: {denied}, and there are {} choices", choices.len()));
            }
            let complete = choices.iter().all(|c| !c.edits.is_empty());
            let (solved, all) = counted.get();
            counted.set((solved + usize::from(denied && complete), all + usize::from(denied)));
            if complete {
                let edits = choices.iter().map(|c| &c.edits[0]);
                let edited = edits.fold(cluster.clone(), |c, e| edit::applied(&c, e));
                if !decide(&edited, &flow).verdict().is_allow() {
                    return Err(format!("{flow:?} stays denied with {choices:#?}"));
                }
            }
        }
        Ok(())
    });
    let (solved, all) = counted.get();
    assert!(all > 200 && solved * 10 > all * 9, "{solved} of {all}");
}

#[test]
fn suggested_edits_deny() {
    let counted = std::cell::Cell::new((0, 0));
    hold(cases(250), &Shape::tiered(), |cluster, rng| {
        for flow in flows(rng, cluster, 15) {
            let subject = matches!(flow.source, Endpoint::Pod { .. }) && flow.source != flow.destination;
            let allowed = subject && decide(cluster, &flow).verdict().is_allow();
            let choices = edit::to_deny(cluster, &flow);
            let (solved, all) = counted.get();
            counted.set((solved + usize::from(allowed && !choices.is_empty()), all + usize::from(allowed)));
            for edit in choices.iter().flat_map(|c| &c.edits) {
                if decide(&edit::applied(cluster, edit), &flow).verdict() != Verdict::Deny {
                    return Err(format!("{flow:?} stays allowed with {edit:#?}"));
                }
                if let EditAction::RemoveRules(rules) = &edit.action
                    && rules.is_empty()
                {
                    return Err("no rule is removed".to_owned());
                }
            }
        }
        Ok(())
    });
    let (solved, all) = counted.get();
    assert!(all > 200 && solved * 10 > all * 7, "{solved} of {all}");
}

fn is_in_a_block(cluster: &Cluster, address: IpAddr) -> bool {
    let rules =
        cluster.policies.values().flat_map(|p| Direction::BOTH.into_iter().filter_map(|d| p.rules(d)));
    let peers = rules.flatten().filter_map(|r| r.peers.as_ref()).flatten();
    peers.into_iter().any(|e| matches!(&e.peer, Peer::Block(block) if block.contains(address)))
}

/// The described traffic of hypothetical pods is what such pods may exchange when they exist.
#[test]
fn new_pods_have_the_described_traffic() {
    let seen = std::cell::Cell::new(0);
    hold(cases(400), &Shape::tiered(), |cluster, _| {
        let pods: BTreeSet<ObjectKey> = cluster.pods.keys().take(6).cloned().collect();
        for part in describe(cluster, &pods, &palisade_analysis::ControllerRoutes::default()).parts {
            let ConnectionEnd::Workload(w) = &part.end else { return Err("no workload".to_owned()) };
            let subject = &cluster.pods[&ObjectKey::new(w.namespace.clone(), w.pods[0].clone())];
            for side in &part.sides {
                for selected in &side.selected_pods {
                    let NamespaceMatch::Named(home) = &selected.namespaces else { continue };
                    let labels = selected.pods.requirements().iter().filter_map(|r| match &r.test {
                        palisade_policy::Test::In(v) if v.len() == 1 => {
                            Some((r.key.clone(), v.first()?.clone()))
                        }
                        _ => None,
                    });
                    let labels: palisade_policy::Labels =
                        labels.collect::<Vec<(Name, Name)>>().into_iter().collect();
                    if labels.len() != selected.pods.requirements().len() {
                        continue;
                    }
                    // The address of the new pod may be in blocks, so more rules may match it.
                    let own_address = subject.addresses[0];
                    let unheld = ["100.100.100.100", "9.9.9.9", "2001:db8:ffff::1", "fe80::1"];
                    let free = unheld.iter().filter_map(|text| text.parse().ok()).find(|at| {
                        Family::of(*at) == Family::of(own_address) && !is_in_a_block(cluster, *at)
                    });
                    let free = free.map(|at| (own_address, at));
                    let Some((own, address)) = free else { continue };
                    let pod = Pod {
                        key: ObjectKey::new(home.clone(), "newcomer"),
                        labels,
                        addresses: vec![address],
                        node: None,
                        host_network: false,
                        phase: Phase::Running,
                        ports: [].into(),
                        created: 9,
                        workload: None,
                    };
                    let (own, new) = (
                        Endpoint::Pod { key: subject.key.clone(), address: own },
                        Endpoint::Pod { key: pod.key.clone(), address },
                    );
                    let mut later: Cluster = cluster.clone();
                    later.pods.insert(pod);
                    for (protocol, port) in traffic(cluster) {
                        let egress = side.direction == Direction::Egress;
                        let (source, destination) =
                            if egress { (own.clone(), new.clone()) } else { (new.clone(), own.clone()) };
                        let flow = Flow { source, destination, protocol, port, through_service: false };
                        let decision = decide(&later, &flow);
                        let met = if egress { decision.egress } else { decision.ingress };
                        seen.set(seen.get() + 1);
                        if met.verdict.is_allow() != selected.traffic.contains(protocol, port) {
                            return Err(format!("{flow:?}: described {}, met {met:?}", selected.traffic));
                        }
                    }
                }
            }
        }
        Ok(())
    });
    assert!(seen.get() > 200, "{}", seen.get());
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
                let tcp = Traffic::of(Protocol::Tcp, palisade_policy::PortSet::all());
                if side.internet.intersection(&tcp) != side.internet && side.peers.is_empty() {
                    return Err("the internet is reachable without an external peer".to_owned());
                }
            }
        }
        Ok(())
    });
    assert!(seen.get() > 100, "{}", seen.get());
}
