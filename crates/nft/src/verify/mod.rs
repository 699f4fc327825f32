//! Compares the kernel with a plan.
//!
//! The independent reader ([`crate::reader`]) reads the table back. Sets, elements, chains and rules are compared with what
//! the plan requires. Then packets are evaluated by the rules as read, and the verdicts compared with
//! [`NodePlan::decide`], and frames of bridged pods with what each pod may send. This also finds rules that match the plan but have another effect.

mod decisions;
mod difference;
mod senders;
pub(crate) mod structure;

use palisade_policy::NodePlan;

pub use self::difference::{Difference, Verification};
use crate::{
    EnforcerOptions, Error, Kernel, NodeLinks, expected::generation_in, program::Program, reader::Ruleset,
};

/// Compares the kernel's tables with what `plan`, `options` and `node_links` require, and with the rules that match revoked connections.
///
/// Reads whole tables, so it is `O(plan)`: for an operator's request or an occasional check, not for every change.
///
/// # Errors
/// What the kernel refuses, and a plan that contradicts itself.
pub fn verify(
    kernel: &mut Kernel,
    options: &EnforcerOptions,
    node_links: &NodeLinks,
    plan: &NodePlan,
) -> Result<Verification, Error> {
    verify_program(kernel, Program::new(options.clone(), node_links.clone()), plan)
}

/// [`verify()`] with the options, links and conditions of a program, which is that of an empty plan.
pub(crate) fn verify_program(
    kernel: &mut Kernel,
    mut program: Program,
    plan: &NodePlan,
) -> Result<Verification, Error> {
    let empty = NodePlan::default();
    program.change(&empty, &empty.delta_to(plan))?;
    let first = compare(kernel, &program, plan)?;
    // While the kernel resizes a large set that has just been filled, a listing of it may lack some.
    if first.agrees() { Ok(first) } else { compare(kernel, &program, plan) }
}

fn compare(kernel: &mut Kernel, program: &Program, plan: &NodePlan) -> Result<Verification, Error> {
    let mut out = Verification::default();
    let Some(found) = Ruleset::read(kernel)? else {
        out.differences.push(Difference::NoTable { family: "inet" });
        return Ok(out);
    };
    out.generation = generation_in(&found);
    structure::compare(&found, program, plan, &mut out);
    let bridge = Ruleset::read_bridge(kernel)?;
    structure::compare_bridge(bridge.as_ref(), program, plan, &mut out);
    if let Some(bridge) = bridge.filter(|_| program.node_links.has_pod_ports()) {
        senders::compare(&bridge, &program.options, &program.node_links, &mut out);
    }
    decisions::compare(&found, &program.options, &program.node_links, plan, &mut out);
    Ok(out)
}
