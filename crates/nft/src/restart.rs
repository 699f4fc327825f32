//! What an earlier run left in the kernel, and the way from there to the plan.

use std::{
    collections::{BTreeSet, HashSet},
    net::IpAddr,
    sync::Arc,
};

use palisade_policy::{Delta, Direction, Family, Name, NodePlan};

use crate::{
    Error, Kernel, Verification,
    base::{TABLE_COMMENT, place},
    bridge::bridged,
    encode::attributes_of,
    layout::closed,
    next::Next,
    program::{Phases, Program, Step, add, remove, replace},
    reader::{
        Attributes, CHAIN_BINDING, Properties, Ruleset, SET_ANONYMOUS, Set as Observed, Target, address,
        chain_properties, set_properties, table_flags,
    },
    ruleset::{Chain, Content, Element, GENERATION_SET, Key, Lead, Message, Set, TABLE},
    verify::structure,
};

/// What there is.
pub(crate) enum Found {
    /// No table of our name.
    Nothing,
    /// A table of our name in another format, or bent beyond mending.
    Foreign,
    /// Whatever it is, it changed each time that it was read.
    Unreadable,
    /// Our table, and what leads from it to the plan.
    Ours {
        /// The difference.
        changes: Phases,
        /// Its transaction number.
        generation: Option<u32>,
    },
}

/// The transaction number in our table; none if there is no table.
pub(crate) fn generation(kernel: &mut Kernel) -> Result<Option<u32>, Error> {
    /// `NFT_MSG_GETSETELEM`.
    const GETSETELEM: u16 = 13;
    match kernel.dump_of_table(GETSETELEM, &[(1, TABLE), (2, GENERATION_SET)]) {
        Ok(replies) => Ok(replies.iter().find_map(|reply| {
            let key = Attributes(reply).nested(3)?.nested(1)?.nested(1)?.get(1)?;
            Some(u32::from_ne_bytes(key.try_into().ok()?))
        })),
        Err(e) if e.os_error() == Some(nix::libc::ENOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Compares what there is with what the plan needs. `program` is that of `plan`.
pub(crate) fn examine(found: Option<&Ruleset>, program: &Program, plan: &NodePlan) -> Found {
    let Some(found) = found else { return Found::Nothing };
    match difference(found, program, plan) {
        Some(changes) => Found::Ours { changes, generation: number_in(found) },
        None => Found::Foreign,
    }
}

pub(crate) fn number_in(found: &Ruleset) -> Option<u32> {
    let key = found.sets.get(GENERATION_SET)?.elements.keys().next()?;
    Some(u32::from_ne_bytes(key[..].try_into().ok()?))
}

/// None where only a fresh table helps.
fn difference(found: &Ruleset, program: &Program, plan: &NodePlan) -> Option<Phases> {
    let base_chains = program.base_chains();
    let generation = found.sets.get(GENERATION_SET)?;
    if found.comment.as_deref() != Some(TABLE_COMMENT) || generation.elements.len() > 1 {
        return None;
    }
    // But for being dormant, no flag can be taken off again.
    if table_flags(found.flags).is_some() {
        return None;
    }
    for chain in base_chains.iter().chain(program.registry.chains().collect::<Vec<_>>()) {
        let expected = chain.hook.map(place);
        match found.chains.get(&*chain.name) {
            None if chain.hook.is_some() => return None,
            Some(c) if c.base != expected || c.properties != chain_wanted(chain) => return None,
            _ => {}
        }
    }
    // A base chain that these options do without can't be made to do nothing in any other way.
    if found.chains.iter().any(|(name, c)| c.base.is_some() && !base_chains.iter().any(|b| *b.name == **name))
    {
        return None;
    }
    let mut phases = Phases::default();
    if found.is_dormant() {
        phases.make.push(vec![Message::WakeTable]);
    }
    let empty = Delta::default();
    let next = Next { plan, delta: &empty };
    let mut moves = Moves::default();
    for set in program.sets.all().chain(program.registry.sets()) {
        let elements = contents(program, &next, set);
        match found.sets.get(&*set.name) {
            Some(observed) => set_difference(set, observed, elements, &mut phases, &mut moves)?,
            None => {
                phases.make.push(vec![Message::CreateSet(set.clone())]);
                phases.make.extend(add(set, elements));
            }
        }
    }
    phases.moves = moves.any();
    chains(found, program, &base_chains, &mut phases);
    let objects = found.objects.iter().map(|(kind, name)| Message::DeleteObject(*kind, name.as_str().into()));
    let flow_tables = found.flow_tables.iter().map(|name| Message::DeleteFlowTable(name.as_str().into()));
    phases.unmake.extend(objects.chain(flow_tables).map(|message| vec![message]));
    Some(phases)
}

/// What must be said of a chain beside its rules.
pub(crate) fn chain_wanted(chain: &Arc<Chain>) -> Properties {
    chain_properties(Attributes(&attributes_of(&Message::CreateChain(chain.clone()))))
}

/// What must be said of a set beside its elements.
pub(crate) fn set_wanted(set: &Arc<Set>) -> Properties {
    set_properties(Attributes(&attributes_of(&Message::CreateSet(set.clone()))))
}

/// What must be in a set; but the transaction number, which is anything.
pub(crate) fn contents(program: &Program, next: &Next<'_>, set: &Set) -> Vec<Element> {
    match &set.content {
        Content::Dispatch(lead, family) => dispatch(program, *lead, *family),
        Content::Itself(family) => itself(next.plan, *family),
        Content::Around(around) => program.surroundings.elements(*around, next),
        Content::Revoked(family, has_ports) => {
            let mut by_set = program.revoked.elements(program.revoked.tuples());
            by_set.remove(&(*family, *has_ports)).unwrap_or_default()
        }
        _ => next.fill(set),
    }
}

/// Chains that are missing are made, all others get their rules anew: there are few, and whatever was done to them is
/// mended. Chains and sets that nobody needs go.
fn chains(found: &Ruleset, program: &Program, base_chains: &[Arc<Chain>], phases: &mut Phases) {
    let mut rewritten = Vec::new();
    let mut made: HashSet<&str> = HashSet::new();
    let mut order: Vec<&Arc<Chain>> = Vec::new();
    for chain in program.registry.chains() {
        in_order(chain, &mut made, &mut order);
    }
    order.extend(base_chains);
    for chain in order.iter().filter(|chain| !found.chains.contains_key(&*chain.name)) {
        phases.make.push(vec![Message::CreateChain(Arc::clone(chain))]);
    }
    for chain in &order {
        let mut step = Vec::new();
        if found.chains.contains_key(&*chain.name) {
            step.push(Message::FlushChain(chain.name.clone()));
        }
        step.extend((0..chain.rules.len()).map(|index| Message::AddRule(Arc::clone(chain), index)));
        rewritten.push(step);
    }
    phases.make.extend(rewritten);
    let needed: HashSet<&str> = order.iter().map(|chain| &*chain.name).collect();
    // A chain or set that belongs to a rule goes with it.
    let extra = found
        .chains
        .iter()
        .filter(|(name, chain)| !needed.contains(name.as_str()) && chain.flags & CHAIN_BINDING == 0);
    let extra: Vec<&String> = extra.map(|(name, _)| name).collect();
    phases.unmake.extend(extra.iter().map(|name| vec![Message::FlushChain(name.as_str().into())]));
    let sets: HashSet<&str> =
        program.sets.all().chain(program.registry.sets()).map(|set| &*set.name).collect();
    let extra_sets = found
        .sets
        .iter()
        .filter(|(name, set)| !sets.contains(name.as_str()) && set.flags & SET_ANONYMOUS == 0);
    phases.unmake.extend(extra_sets.map(|(name, _)| vec![Message::DeleteSet(name.as_str().into())]));
    phases.unmake.extend(extra.iter().map(|name| vec![Message::DeleteChain(name.as_str().into())]));
}

/// Chains that others go to come first.
fn in_order<'a>(chain: &'a Arc<Chain>, seen: &mut HashSet<&'a str>, out: &mut Vec<&'a Arc<Chain>>) {
    if seen.insert(&chain.name) {
        chain.chains.iter().for_each(|sub| in_order(sub, seen, out));
        out.push(chain);
    }
}

fn dispatch(program: &Program, lead: Lead, family: Family) -> Vec<Element> {
    dispatched(program, lead, family).map(|(a, chain)| Element::leading(lead, a, chain.clone())).collect()
}

fn dispatched(program: &Program, lead: Lead, family: Family) -> impl Iterator<Item = (IpAddr, &Name)> {
    let of = program.dispatch.iter().filter(move |((l, a), _)| *l == lead && Family::of(*a) == family);
    of.map(|((_, a), chain)| (*a, chain))
}

fn itself(plan: &NodePlan, family: Family) -> Vec<Element> {
    let local: BTreeSet<&IpAddr> = plan.ingress.keys().chain(plan.egress.keys()).collect();
    local.into_iter().filter(|a| Family::of(**a) == family).map(|a| Element::Itself(*a)).collect()
}

/// Addresses that have to leave one set and join another.
#[derive(Default)]
struct Moves {
    joins: HashSet<Element>,
    leaves: HashSet<Element>,
}

impl Moves {
    fn any(&self) -> bool {
        self.leaves.iter().any(|e| self.joins.contains(e))
    }
}

/// Whether a set is what its name says.
pub(crate) fn is_of_kind(set: &Set, observed: &Observed) -> bool {
    let key_length = match set.key {
        Key::Address(Family::V4) | Key::Number | Key::Interface => 4,
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
    };
    observed.key_length == key_length
        && observed.has_intervals() == set.intervals
        && observed.is_map() == set.verdicts
}

/// None where the set is not what its name says.
fn set_difference(
    set: &Arc<Set>,
    observed: &Observed,
    wanted: Vec<Element>,
    phases: &mut Phases,
    moves: &mut Moves,
) -> Option<()> {
    let is_as_wanted = is_of_kind(set, observed) && observed.properties == set_wanted(set);
    if !is_as_wanted || observed.catch_all.is_some() || !observed.laden.is_empty() {
        return None;
    }
    if set.content == Content::Generation {
        return Some(());
    }
    if set.content.expires() {
        // The set is not read; what somebody took away comes back.
        phases.join.extend(add(set, wanted));
        return Some(());
    }
    let have: BTreeSet<Element> = elements(set, observed)?;
    let wanted: BTreeSet<Element> = wanted.into_iter().collect();
    let missing: Vec<Element> = wanted.difference(&have).cloned().collect();
    let extra: Vec<Element> = have.difference(&wanted).cloned().collect();
    if set.intervals && !extra.is_empty() {
        // Ranges are never taken away one by one: they overlap with what replaces them.
        return None;
    }
    if let Content::Dispatch(lead, _) = set.content {
        phases.lead(lead).extend(replace(set, extra, missing));
    } else {
        moves.joins.extend(missing.iter().cloned());
        moves.leaves.extend(extra.iter().cloned());
        phases.join.extend(add(set, missing));
        phases.leave.extend(remove(set, extra));
    }
    Some(())
}

/// The elements of a set as we would have written them; none where one can't be ours.
fn elements(set: &Set, observed: &Observed) -> Option<BTreeSet<Element>> {
    if set.intervals {
        return observed.intervals.iter().map(|(first, last)| interval(set, first, last)).collect();
    }
    let one = |(key, target): (&Vec<u8>, &Option<Target>)| match (set.key, target) {
        (Key::Pair(_), None) if !set.verdicts => Some(Element::Itself(twice(key)?)),
        (Key::Pair(_), Some(Target::Jump(chain))) => {
            Some(Element::JumpItself(twice(key)?, chain.as_str().into()))
        }
        (Key::Address(_), Some(Target::Jump(chain))) => {
            Some(Element::Jump(address(key)?, chain.as_str().into()))
        }
        (Key::Address(_), None) if !set.verdicts => Some(Element::Address(address(key)?)),
        (Key::Interface, None) => Some(Element::Interface(u32::from_ne_bytes(key[..].try_into().ok()?))),
        (Key::InterfacePair, None) => {
            let (first, second) = key.split_at(key.len() / 2);
            let index = u32::from_ne_bytes(first.try_into().ok()?);
            (first == second).then_some(Element::SameInterface(index))
        }
        (Key::Port, None) => Some(Element::Port(u16::from_be_bytes(key[..].try_into().ok()?))),
        (Key::Protocol, None) => Some(Element::Protocol(*key.first()?)),
        _ => None,
    };
    observed.elements.iter().map(one).collect()
}

/// The address that is both halves of a key.
fn twice(key: &[u8]) -> Option<IpAddr> {
    let (first, second) = key.split_at(key.len() / 2);
    if first == second { address(first) } else { None }
}

fn interval(set: &Set, first: &[u8], last: &[u8]) -> Option<Element> {
    if set.key == Key::Port {
        let port = |key: &[u8]| Some(u16::from_be_bytes(key.try_into().ok()?));
        return Some(Element::Ports(port(first)?, port(last)?));
    }
    Some(Element::Range(palisade_policy::IpRange { first: address(first)?, last: address(last)? }))
}

/// What leads from the table for bridges that there is to the one that there should be: it is small, so it is made anew
/// in one step where anything differs. `found` is none where it was not read. A table that another program owns can't be
/// changed, and is left alone.
pub(crate) fn bridge(found: Option<Option<&Ruleset>>, program: &Program, plan: &NodePlan) -> Vec<Step> {
    let mut step = Step::new();
    if let Some(found) = found {
        let mut seen = Verification::default();
        structure::compare_bridge(found, program, plan, &mut seen);
        if seen.agrees() || found.is_some_and(|found| found.owner.is_some()) {
            return Vec::new();
        }
        if found.is_some() {
            step.extend(bridged(vec![Message::DeleteTable]));
        }
    } else if program.surroundings.has_pod_ports() {
        step.extend(bridged(vec![Message::CreateTable, Message::DeleteTable]));
    } else {
        return Vec::new();
    }
    if program.surroundings.has_pod_ports() {
        let next = Next { plan, delta: &Delta::default() };
        step.extend(program.bridge.whole(&program.surroundings, &next, program.isolating()));
    }
    vec![step]
}

/// Puts the removal of whatever table there is in front of everything, in one transaction with its successor. Where the plan
/// is too large for that same transaction, isolated pods are closed until their rules are there.
pub(crate) fn replace_foreign(phases: &mut Phases, program: &Program) {
    // A table that is not there can't be removed, and one that is there can be made all the same.
    let mut first: Vec<Message> = vec![Message::CreateTable, Message::DeleteTable];
    first.extend(program.make_base().into_iter().flatten());
    phases.indivisible = true;
    phases.switch.clear();
    phases.hairpin.clear();
    for direction in Direction::BOTH {
        let closed = closed(&program.options, direction);
        first.push(Message::CreateChain(closed.clone()));
        first.extend((0..closed.rules.len()).map(|index| Message::AddRule(closed.clone(), index)));
        phases.unmake.push(vec![Message::DeleteChain(closed.name.clone())]);
    }
    for lead in Lead::ALL {
        let closed = closed(&program.options, lead.direction());
        for family in Family::BOTH {
            let map = program.sets.dispatch(lead, family);
            let open = dispatch(program, lead, family);
            let shut: Vec<Element> = dispatched(program, lead, family)
                .map(|(address, _)| Element::leading(lead, address, closed.name.clone()))
                .collect();
            first.extend(add(map, shut.clone()).flatten());
            phases.lead(lead).extend(replace(map, shut, open));
        }
    }
    if program.isolating() {
        first.extend(program.close_links());
    }
    phases.make.splice(0..0, std::iter::once(first).chain(program.remember()));
}
