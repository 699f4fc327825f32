//! Property tests of edits: every plan gives the requested verdict, and opens and closes exactly what it says.

mod support;

use std::cell::Cell;

use palisade_analysis::{
    ConnectionEnd,
    edit::{self, DeclaredWorkloads, Edit, Pair, PairChange, Plan, Question, RuleEdit},
};
use palisade_policy::{
    Cluster, Endpoint, Family, Flow, PortSet, Protocol, Traffic, Verdict, reference::decide,
};
use palisade_testkit::{Rng, Shape, endpoints, flows, traffic};
use support::{cases, hold};

fn question(flow: &Flow) -> Question {
    let traffic = Traffic::of(flow.protocol, PortSet::range(flow.port, flow.port));
    let Flow { source, destination, through_service, .. } = flow.clone();
    Question { pairs: vec![Pair::new(source, destination, through_service, traffic)] }
}

fn holds(end: &ConnectionEnd, at: &Endpoint) -> bool {
    match at {
        Endpoint::Pod { key, .. } => end.holds_pod(key),
        Endpoint::Node { name, address } => end.holds_node(name, *address),
        Endpoint::External(address) => end.holds_external(*address),
    }
}

fn is_in(changes: &[PairChange], flow: &Flow) -> bool {
    changes.iter().any(|change| {
        change.families.contains(Family::of(flow.source.address()))
            && change.traffic.contains(flow.protocol, flow.port)
            && holds(&change.from, &flow.source)
            && holds(&change.to, &flow.destination)
    })
}

/// Returns whether a question asks about a flow, whatever its addresses: a pod is asked about with all of them.
fn is_asked(question: &Question, flow: &Flow) -> bool {
    let same = |a: &Endpoint, b: &Endpoint| match (a, b) {
        (Endpoint::Pod { key: a, .. }, Endpoint::Pod { key: b, .. }) => a == b,
        _ => a == b,
    };
    question.pairs.iter().any(|pair| {
        same(&pair.source, &flow.source)
            && same(&pair.destination, &flow.destination)
            && pair.traffic.contains(flow.protocol, flow.port)
    })
}

/// Compares all flows of a cluster before and after a plan with what the plan says.
fn says_what_it_does(cluster: &Cluster, question: &Question, plan: &Plan) -> Result<(), String> {
    let edited = edit::applied_all(cluster, &plan.edits);
    let mut ports = traffic(cluster);
    ports.extend(traffic(&edited));
    ports.sort_unstable();
    ports.dedup();
    ports.retain(|(protocol, port)| *port > 0 || !protocol.has_ports());
    let ends = endpoints(cluster);
    let is_pod = |end: &Endpoint| matches!(end, Endpoint::Pod { .. });
    for source in &ends {
        for destination in ends.iter().filter(|d| is_pod(d) || is_pod(source)) {
            let same = match (source, destination) {
                (Endpoint::Pod { key: a, .. }, Endpoint::Pod { key: b, .. }) => a == b,
                _ => false,
            };
            // A node reaches its own pods whatever policies say (SEMANTICS A39), so answers have it apart.
            let own = matches!((source, destination), (Endpoint::Node { name, .. }, Endpoint::Pod { key, .. })
                if cluster.pods.get(key).is_some_and(|pod| pod.node.as_ref() == Some(name)));
            if same || own || Family::of(source.address()) != Family::of(destination.address()) {
                continue;
            }
            for (protocol, port) in &ports {
                let (source, destination) = (source.clone(), destination.clone());
                let flow =
                    Flow { source, destination, protocol: *protocol, port: *port, through_service: false };
                if is_asked(question, &flow) {
                    continue;
                }
                let [before, after] = [cluster, &edited].map(|c| decide(c, &flow).verdict().is_allow());
                let said = (is_in(&plan.effect.opens, &flow), is_in(&plan.effect.closes, &flow));
                if said != (!before && after, before && !after) {
                    return Err(format!(
                        "{flow:?}: allowed {before}, then {after}; the plan says {said:?}: {plan:#?}"
                    ));
                }
            }
        }
    }
    Ok(())
}

/// Every plan allows a denied connection, and opens and closes exactly what it says.
#[test]
fn plans_allow_and_say_what_else_they_open() {
    let counted = Cell::new((0, 0, 0));
    hold(cases(120), &Shape::tiered(), |cluster, rng| {
        for flow in flows(rng, cluster, 6) {
            let denied = !decide(cluster, &flow).verdict().is_allow();
            let question = question(&flow);
            let plans = edit::to_allow(cluster, &question, &DeclaredWorkloads::default(), &[]);
            if !denied && !plans.is_empty() {
                return Err(format!("{flow:?} is allowed, and there are plans"));
            }
            let (solved, narrow, all) = counted.get();
            let first_is_narrow = plans.first().is_some_and(|plan| plan.effect.is_none());
            counted.set((
                solved + usize::from(!plans.is_empty()),
                narrow + usize::from(first_is_narrow),
                all + usize::from(denied),
            ));
            for plan in &plans {
                if !decide(&edit::applied_all(cluster, &plan.edits), &flow).verdict().is_allow() {
                    return Err(format!("{flow:?} stays denied with {plan:#?}"));
                }
                says_what_it_does(cluster, &question, plan)?;
            }
            if plans.iter().any(|plan| plan.effect.is_none()) && !first_is_narrow {
                return Err(format!("{flow:?}: a plan that opens nothing else is not the first: {plans:#?}"));
            }
        }
        Ok(())
    });
    let (solved, narrow, all) = counted.get();
    assert!(all > 20 && solved * 10 > all * 8 && narrow * 10 > all * 4, "{solved}, {narrow} of {all}");
}

/// Every plan denies an allowed connection, and closes exactly what it says.
#[test]
fn plans_deny_and_say_what_else_they_close() {
    let counted = Cell::new((0, 0));
    hold(cases(120), &Shape::tiered(), |cluster, rng| {
        for flow in flows(rng, cluster, 6) {
            let subject = matches!(flow.source, Endpoint::Pod { .. }) && flow.source != flow.destination;
            let allowed = subject && decide(cluster, &flow).verdict().is_allow();
            let question = question(&flow);
            let plans = edit::to_deny(cluster, &question, &DeclaredWorkloads::default());
            let (solved, all) = counted.get();
            counted.set((solved + usize::from(allowed && !plans.is_empty()), all + usize::from(allowed)));
            for plan in &plans {
                if decide(&edit::applied_all(cluster, &plan.edits), &flow).verdict() != Verdict::Deny {
                    return Err(format!("{flow:?} stays allowed with {plan:#?}"));
                }
                let empty = |edit: &Edit| match edit {
                    Edit::Rules { action: RuleEdit::RemoveRules(rules), .. } => rules.is_empty(),
                    _ => false,
                };
                if plan.edits.iter().any(empty) {
                    return Err("no rule is removed".to_owned());
                }
                says_what_it_does(cluster, &question, plan)?;
            }
        }
        Ok(())
    });
    let (solved, all) = counted.get();
    assert!(all > 100 && solved * 10 > all * 9, "{solved} of {all}");
}

/// A question about all pods of several workloads is allowed by one plan.
#[test]
fn one_plan_answers_many_pairs() {
    let counted = Cell::new(0);
    hold(cases(80), &Shape::strange(), |cluster, rng: &mut Rng| {
        let ends = endpoints(cluster);
        let pods: Vec<&Endpoint> = ends.iter().filter(|e| matches!(e, Endpoint::Pod { .. })).collect();
        let mut some = || pods.iter().copied().filter(|_| rng.bool()).collect::<Vec<_>>();
        let (sources, targets) = (some(), some());
        let traffic = Traffic::of(Protocol::Tcp, PortSet::range(80, 80));
        let mut question = Question::default();
        for source in sources {
            for destination in &targets {
                if Family::of(source.address()) == Family::of(destination.address()) && source != *destination
                {
                    let (source, destination) = (source.clone(), (*destination).clone());
                    question.pairs.push(Pair::new(source, destination, false, traffic.clone()));
                }
            }
        }
        for plan in edit::to_allow(cluster, &question, &DeclaredWorkloads::default(), &[]) {
            counted.set(counted.get() + 1);
            if !question.has_verdict(&edit::applied_all(cluster, &plan.edits), Verdict::Allow) {
                return Err(format!("stays denied with {plan:#?}"));
            }
        }
        Ok(())
    });
    assert!(counted.get() > 20, "{}", counted.get());
}
