//! Compares the kernel's rules with a plan compiled from scratch. The rules are read back and evaluated by a reader that is
//! independent of policies.

use std::net::IpAddr;

use palisade_nft::{
    Kernel,
    reader::{Packet, Ruleset},
};
use palisade_policy::{Compiler, Direction, Name, NodePlan, Protocol, Verdict};

use crate::{
    error::with_causes,
    lab::Lab,
    layout::Place,
    probe::{Plan, Target},
};

/// Compares the verdicts about the probes of a plan, on each node that a probe passes. Returns the number of compared verdicts.
pub(super) fn compare(lab: &Lab, probes: &Plan) -> Result<usize, Vec<String>> {
    let (mut compared, mut wrong) = (0, Vec::new());
    for (node, addresses) in &lab.layout().nodes {
        let ruleset = read(lab, node).map_err(|why| vec![why])?;
        let compiler = Compiler::from_cluster(node.clone(), &lab.layout().cluster);
        let is_here = |address: IpAddr| {
            let pods = lab.layout().pods.values();
            pods.filter(|pod| pod.node == *node).any(|pod| pod.addresses.contains(&address))
        };
        for probe in &probes.probes {
            let (source, destination) = (probe.source.address(), probe.target.address());
            // Packets in the forward hook are from or to a pod of the node, and not from or to the node itself.
            let passes = matches!(probe.target, Target::Direct(_))
                && source != destination
                && matches!(probe.protocol, Protocol::Tcp | Protocol::Udp | Protocol::Sctp)
                && (is_here(source) || is_here(destination))
                && !addresses.contains(&source)
                && !addresses.contains(&destination);
            if !passes {
                continue;
            }
            compared += 1;
            let expected = expected(compiler.plan(), source, destination, probe.protocol, probe.port);
            let packet = Packet::new(source, destination, probe.protocol, probe.port);
            let actual =
                ruleset.as_ref().map_or(Ok(Verdict::Allow), |r| r.evaluate(&packet).map(|j| j.verdict));
            if actual != Ok(expected) {
                let actual = actual.map_or_else(|why| why, |verdict| verdict.to_string());
                wrong.push(format!(
                    "node {node}, {packet:?}: the kernel's rules {actual}, the plan {expected}"
                ));
            }
        }
    }
    if wrong.is_empty() { Ok(compared) } else { Err(wrong) }
}

fn read(lab: &Lab, node: &Name) -> Result<Option<Ruleset>, String> {
    let reading = || Kernel::open().and_then(|mut kernel| Ruleset::read(&mut kernel));
    let read = lab.run_in(&Place::Node(node.clone()), reading).map_err(|e| with_causes(&e))?;
    read.map_err(|e| with_causes(&e))
}

fn expected(plan: &NodePlan, source: IpAddr, destination: IpAddr, protocol: Protocol, port: u16) -> Verdict {
    let actual = |direction| plan.decide(direction, source, destination, protocol, port).is_allow();
    if Direction::BOTH.into_iter().all(actual) { Verdict::Allow } else { Verdict::Deny }
}
