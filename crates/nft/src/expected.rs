//! What a program expects to read back from the kernel. Shared by start and verification.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use palisade_policy::{Family, Name, NodePlan};

use crate::{
    encode::attributes_of,
    next_plan::NextPlan,
    program::Program,
    reader::{Attributes, Properties, Ruleset, Set as FoundSet, chain_properties, set_properties},
    revoked_tuples::RevokedTuples,
    ruleset::{Chain, Content, Element, GENERATION_SET, Hook, JumpTarget, Key, Message, Set},
    uapi::netfilter::NF_ACCEPT,
};

/// Returns the transaction number in a table.
pub(crate) fn generation_in(found: &Ruleset) -> Option<u32> {
    let key = found.sets.get(GENERATION_SET)?.elements.keys().next()?;
    Some(u32::from_ne_bytes(key[..].try_into().ok()?))
}

/// Returns hook number, priority and policy of a base chain, as the reader reports them.
pub(crate) fn base_chain(hook: Hook) -> (u32, i32, u32) {
    (hook.number(), hook.priority(), NF_ACCEPT as u32)
}

/// Returns the properties of a chain besides its rules.
pub(crate) fn properties_of_chain(chain: &Arc<Chain>) -> Properties {
    chain_properties(Attributes(&attributes_of(&Message::CreateChain(chain.clone()))))
}

/// Returns the properties of a set besides its elements.
pub(crate) fn properties_of_set(set: &Arc<Set>) -> Properties {
    set_properties(Attributes(&attributes_of(&Message::CreateSet(set.clone()))))
}

/// Returns the elements of a set. The transaction number is not included, since any is valid.
pub(crate) fn elements(program: &Program, next: &NextPlan<'_>, set: &Set) -> Vec<Element> {
    match &set.content {
        Content::Dispatch(target, family) => dispatch_elements(program, *target, *family),
        Content::SelfPairs(family) => self_pairs(next.plan, *family),
        Content::LinkDispatch => program.link_elements(),
        Content::Node(node_set) => program.node_links.elements(*node_set, next),
        Content::Revoked(family, has_ports) => {
            let mut by_set = RevokedTuples::elements(program.revoked.tuples());
            by_set.remove(&(*family, *has_ports)).unwrap_or_default()
        }
        _ => next.elements(set),
    }
}

/// Returns the elements of a dispatch map.
pub(crate) fn dispatch_elements(program: &Program, target: JumpTarget, family: Family) -> Vec<Element> {
    dispatch(program, target, family).map(|(a, chain)| Element::jump(target, a, chain.clone())).collect()
}

/// Returns the addresses and chains of a dispatch map.
pub(crate) fn dispatch(
    program: &Program,
    target: JumpTarget,
    family: Family,
) -> impl Iterator<Item = (IpAddr, &Name)> {
    let of = program.dispatch.iter().filter(move |((t, a), _)| *t == target && Family::of(*a) == family);
    of.map(|((_, a), chain)| (*a, chain))
}

fn self_pairs(plan: &NodePlan, family: Family) -> Vec<Element> {
    let isolated = plan.ingress.keys().chain(plan.egress.keys());
    let audited = plan.audit.ingress.keys().chain(plan.audit.egress.keys());
    let of_hairpins = plan.hairpin.iter().chain(&plan.audit.hairpin);
    // A pod that may reach itself by everything has no chain for it.
    let limited = of_hairpins.filter(|(_, traffic)| !traffic.is_all()).map(|(address, _)| address);
    let paired: BTreeSet<&IpAddr> = isolated.chain(audited).chain(limited).collect();
    paired.into_iter().filter(|a| Family::of(**a) == family).map(|a| Element::SelfPair(*a)).collect()
}

/// Returns whether a set in the kernel has the expected kind of keys and data.
pub(crate) fn has_type(set: &Set, found: &FoundSet) -> bool {
    let key_length = match set.key {
        Key::Address(Family::V4) | Key::Number | Key::Interface => 4,
        Key::Connection(Family::V4) => 8,
        Key::Connection(Family::V6) => 20,
        Key::InterfacePair => 8,
        Key::Address(Family::V6) => 16,
        Key::Pair(Family::V4) => 8,
        Key::Pair(Family::V6) => 32,
        Key::ThreeTuple(Family::V4) => 12,
        Key::ThreeTuple(Family::V6) => 36,
        Key::FiveTuple(Family::V4) => 20,
        Key::FiveTuple(Family::V6) => 44,
        Key::Port => 2,
        Key::Protocol => 1,
        Key::Hardware => 6,
        Key::Target => 16,
        Key::InterfaceAddress(Family::V4) => 8,
        Key::InterfaceHardware => 12,
        Key::InterfaceSender(Family::V4) => 16,
        Key::InterfaceSender(Family::V6) => 28,
        Key::InterfaceAddress(Family::V6) | Key::InterfaceTarget => 20,
    };
    found.key_length == key_length && found.has_intervals() == set.intervals && found.is_map() == set.verdicts
}
