//! Compares what a previous run left in the kernel with the plan, and returns the changes between them.

use std::{
    collections::{BTreeSet, HashSet},
    net::IpAddr,
    sync::Arc,
};

use nix::libc::ENOENT;
use palisade_policy::{Delta, Direction, Family, IpRange, NodePlan};

use crate::{
    Error, Kernel,
    base::Isolating,
    bridge::bridged,
    expected::{self, base_chain, generation_in, has_type, properties_of_chain, properties_of_set},
    layout::closed,
    next_plan::NextPlan,
    octets::address,
    phases::{Phases, Step, add, remove, replace},
    program::Program,
    reader::{Attributes, Ruleset, Set as FoundSet, Target, table_flags},
    ruleset::{Chain, Content, Element, GENERATION_SET, JumpTarget, Key, Message, Set, TABLE, TABLE_COMMENT},
    uapi::nf_tables::{
        NFT_CHAIN_BINDING, NFT_MSG_GETSETELEM, NFT_SET_ANONYMOUS, NFTA_DATA_VALUE, NFTA_LIST_ELEM,
        NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_LIST_ELEMENTS, NFTA_SET_ELEM_LIST_SET, NFTA_SET_ELEM_LIST_TABLE,
    },
    verify::{Verification, structure},
};

/// The state of the kernel's table relative to the plan.
pub(crate) enum StartingPoint {
    /// There is no table.
    Nothing,
    /// The table has another format, or differs in a way that only replacing it can repair.
    Foreign,
    /// The table changed each time that it was read.
    Unreadable,
    /// The table can be changed to match the plan.
    Ours {
        /// The differences.
        changes: Box<Phases>,
        /// Its transaction number.
        generation: Option<u32>,
    },
}

/// Reads the transaction number of the table. `None` if there is no table.
pub(crate) fn generation(kernel: &mut Kernel) -> Result<Option<u32>, Error> {
    let filter = [(NFTA_SET_ELEM_LIST_TABLE, TABLE), (NFTA_SET_ELEM_LIST_SET, GENERATION_SET)];
    match kernel.dump_of_table(NFT_MSG_GETSETELEM, &filter) {
        Ok(replies) => Ok(replies.iter().find_map(|reply| {
            let list = Attributes(reply).nested(NFTA_SET_ELEM_LIST_ELEMENTS)?;
            let key = list.nested(NFTA_LIST_ELEM)?.nested(NFTA_SET_ELEM_KEY)?.get(NFTA_DATA_VALUE)?;
            Some(u32::from_ne_bytes(key.try_into().ok()?))
        })),
        Err(e) if e.os_error() == Some(ENOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Compares the kernel's table with the plan. `program` must be that of `plan`.
pub(crate) fn examine(found: Option<&Ruleset>, program: &Program, plan: &NodePlan) -> StartingPoint {
    let Some(found) = found else { return StartingPoint::Nothing };
    match difference(found, program, plan) {
        Some(changes) => StartingPoint::Ours { changes: Box::new(changes), generation: generation_in(found) },
        None => StartingPoint::Foreign,
    }
}

/// Returns the changes from the table to the plan, or `None` if only replacing the table helps.
fn difference(found: &Ruleset, program: &Program, plan: &NodePlan) -> Option<Phases> {
    let base_chains = program.base_chains();
    let generation = found.sets.get(GENERATION_SET)?;
    if found.comment.as_deref() != Some(TABLE_COMMENT) || generation.elements.len() > 1 {
        return None;
    }
    // No table flag except `dormant` can be cleared.
    if table_flags(found.flags).is_some() {
        return None;
    }
    for chain in base_chains.iter().chain(program.registry.chains().collect::<Vec<_>>()) {
        let base = chain.hook.map(base_chain);
        match found.chains.get(&*chain.name) {
            None if chain.hook.is_some() => return None,
            Some(c) if c.base != base || c.properties != properties_of_chain(chain) => return None,
            _ => {}
        }
    }
    // Nothing else disables a base chain that these options don't use.
    let is_used = |name: &str| base_chains.iter().any(|b| *b.name == *name);
    if found.chains.iter().any(|(name, c)| c.base.is_some() && !is_used(name)) {
        return None;
    }
    let mut phases = Phases::default();
    if found.is_dormant() {
        phases.create.push(vec![Message::WakeTable]);
    }
    let empty = Delta::default();
    let next = NextPlan { plan, delta: &empty };
    let mut moves = AddressMoves::default();
    for set in program.sets.all().chain(program.registry.sets()) {
        let elements = expected::elements(program, &next, set);
        match found.sets.get(&*set.name) {
            Some(found) => set_difference(set, found, elements, &mut phases, &mut moves)?,
            None if set.content == Content::LinkDispatch => {
                phases.create.push(vec![Message::CreateSet(set.clone())]);
                // Its chains may be new.
                phases.switch.extend(add(set, elements));
            }
            None => {
                phases.create.push(vec![Message::CreateSet(set.clone())]);
                phases.create.extend(add(set, elements));
            }
        }
    }
    phases.moves_addresses = moves.any();
    chain_differences(found, program, &base_chains, &mut phases);
    let objects = found.objects.iter().map(|(kind, name)| Message::DeleteObject(*kind, name.as_str().into()));
    let flow_tables = found.flow_tables.iter().map(|name| Message::DeleteFlowTable(name.as_str().into()));
    phases.delete.extend(objects.chain(flow_tables).map(|message| vec![message]));
    Some(phases)
}

/// Creates missing chains, rewrites the rules of all others, and deletes unused chains and sets.
///
/// Rewriting repairs any change of the rules, and there are few.
fn chain_differences(found: &Ruleset, program: &Program, base_chains: &[Arc<Chain>], phases: &mut Phases) {
    let mut rewritten = Vec::new();
    let order = in_order_of_use(program, base_chains);
    for chain in order.iter().filter(|chain| !found.chains.contains_key(&*chain.name)) {
        phases.create.push(vec![Message::CreateChain(Arc::clone(chain))]);
    }
    for chain in &order {
        let mut step = Vec::new();
        if found.chains.contains_key(&*chain.name) {
            step.push(Message::FlushChain(chain.name.clone()));
        }
        step.extend(Message::add_rules(chain));
        rewritten.push(step);
    }
    phases.create.extend(rewritten);
    let needed: HashSet<&str> = order.iter().map(|chain| &*chain.name).collect();
    // A chain or set that belongs to a rule is deleted with the rule.
    let extra = found
        .chains
        .iter()
        .filter(|(name, chain)| !needed.contains(name.as_str()) && chain.flags & NFT_CHAIN_BINDING == 0);
    let extra: Vec<&String> = extra.map(|(name, _)| name).collect();
    let mut delete: Vec<Step> =
        extra.iter().map(|name| vec![Message::FlushChain(name.as_str().into())]).collect();
    let sets: HashSet<&str> =
        program.sets.all().chain(program.registry.sets()).map(|set| &*set.name).collect();
    let extra_sets = found
        .sets
        .iter()
        .filter(|(name, set)| !sets.contains(name.as_str()) && set.flags & NFT_SET_ANONYMOUS == 0);
    let extra_sets: Vec<(&String, &FoundSet)> = extra_sets.collect();
    delete.extend(extra_sets.iter().map(|(name, _)| vec![Message::DeleteSet(name.as_str().into())]));
    delete.extend(extra.iter().map(|name| vec![Message::DeleteChain(name.as_str().into())]));
    let has_maps = extra_sets.iter().any(|(_, set)| set.is_map());
    // Elements of the maps may lead to the chains, so all is deleted together.
    if has_maps { phases.retire.extend(delete) } else { phases.delete.extend(delete) }
}

/// Returns all chains of the program, each after the chains that its rules use; those that always exist last.
pub(crate) fn in_order_of_use<'a>(
    program: &'a Program,
    base_chains: &'a [Arc<Chain>],
) -> Vec<&'a Arc<Chain>> {
    let (mut seen, mut order) = (HashSet::new(), Vec::new());
    for chain in program.registry.chains() {
        in_order(chain, &mut seen, &mut order);
    }
    order.extend(base_chains);
    order
}

/// Orders chains so that each comes after the chains that its rules use.
fn in_order<'a>(chain: &'a Arc<Chain>, seen: &mut HashSet<&'a str>, out: &mut Vec<&'a Arc<Chain>>) {
    if seen.insert(&chain.name) {
        chain.chains.iter().for_each(|sub| in_order(sub, seen, out));
        out.push(chain);
    }
}

/// The elements that join and leave sets.
#[derive(Default)]
struct AddressMoves {
    joins: HashSet<Element>,
    leaves: HashSet<Element>,
}

impl AddressMoves {
    /// Returns whether an address leaves one set and joins another.
    fn any(&self) -> bool {
        self.leaves.iter().any(|e| self.joins.contains(e))
    }
}

/// Adds the changes of a set's elements. `None` if the set has another type, or elements that can't be removed singly.
fn set_difference(
    set: &Arc<Set>,
    found: &FoundSet,
    expected: Vec<Element>,
    phases: &mut Phases,
    moves: &mut AddressMoves,
) -> Option<()> {
    let is_as_expected = has_type(set, found) && found.properties == properties_of_set(set);
    if !is_as_expected || found.catch_all.is_some() || !found.annotated.is_empty() {
        return None;
    }
    if set.content == Content::Generation {
        return Some(());
    }
    if set.content.expires() {
        // The elements are not read. Adding all restores those that another program removed.
        phases.join.extend(add(set, expected));
        return Some(());
    }
    let found: BTreeSet<Element> = elements(set, found)?;
    let expected: BTreeSet<Element> = expected.into_iter().collect();
    let missing: Vec<Element> = expected.difference(&found).cloned().collect();
    let extra: Vec<Element> = found.difference(&expected).cloned().collect();
    if set.intervals && !extra.is_empty() {
        // Ranges can't be removed one by one, because they overlap with those that replace them.
        return None;
    }
    if let Content::Dispatch(target, _) = set.content {
        phases.dispatch(target).extend(replace(set, extra, missing));
    } else if set.content == Content::LinkDispatch {
        let step: Step = remove(set, extra).chain(add(set, missing)).flatten().collect();
        // An empty step would be a change of what leads to chains, which comes after the chains in a transaction of its own.
        phases.switch.extend((!step.is_empty()).then_some(step));
    } else {
        moves.joins.extend(missing.iter().cloned());
        moves.leaves.extend(extra.iter().cloned());
        phases.join.extend(add(set, missing));
        phases.leave.extend(remove(set, extra));
    }
    Some(())
}

/// Returns the elements of a set as the agent writes them, or `None` if it can't have written one of them.
fn elements(set: &Set, found: &FoundSet) -> Option<BTreeSet<Element>> {
    if set.intervals {
        return found.intervals.iter().map(|(first, last)| interval(set, first, last)).collect();
    }
    let one = |(key, target): (&Vec<u8>, &Option<Target>)| match (set.key, target) {
        (Key::Pair(_), None) if !set.verdicts => Some(Element::SelfPair(self_pair(key)?)),
        (Key::Pair(_), Some(Target::Jump(chain))) => {
            Some(Element::SelfPairJump(self_pair(key)?, chain.as_str().into()))
        }
        (Key::Address(_), Some(Target::Jump(chain))) => {
            Some(Element::Jump(address(key)?, chain.as_str().into()))
        }
        (Key::Address(_), None) if !set.verdicts => Some(Element::Address(address(key)?)),
        (Key::Interface, None) => Some(Element::Interface(u32::from_ne_bytes(key[..].try_into().ok()?))),
        (Key::InterfacePair, None) => {
            let (first, second) = key.split_at(key.len() / 2);
            let index = u32::from_ne_bytes(first.try_into().ok()?);
            (first == second).then_some(Element::InterfacePair(index))
        }
        (Key::Hardware, None) => Some(Element::Hardware(key[..].try_into().ok()?)),
        (Key::Target, None) => Some(Element::Target(<[u8; 16]>::try_from(&key[..]).ok()?.into())),
        (
            Key::InterfaceAddress(_)
            | Key::InterfaceHardware
            | Key::InterfaceSender(_)
            | Key::InterfaceTarget,
            None,
        ) => of_port(set.key, key),
        (Key::InterfaceHardware, Some(Target::Jump(chain))) => match of_port(set.key, key)? {
            Element::InterfaceHardware(port, mac) => {
                Some(Element::LinkJump(port, mac, chain.as_str().into()))
            }
            _ => None,
        },
        (Key::Port, None) => Some(Element::Port(u16::from_be_bytes(key[..].try_into().ok()?))),
        (Key::Protocol, None) => Some(Element::Protocol(*key.first()?)),
        _ => None,
    };
    found.elements.iter().map(one).collect()
}

/// Returns the element whose key begins with a port.
fn of_port(kind: Key, key: &[u8]) -> Option<Element> {
    let (port, rest) = key.split_at_checked(4)?;
    let port = u32::from_ne_bytes(port.try_into().ok()?);
    match kind {
        Key::InterfaceAddress(_) => Some(Element::InterfaceAddress(port, address(rest)?)),
        Key::InterfaceHardware => match rest {
            [mac @ .., 0, 0] => Some(Element::InterfaceHardware(port, mac.try_into().ok()?)),
            _ => None,
        },
        Key::InterfaceSender(_) => match rest {
            [source @ .., a, b, c, d, e, f, 0, 0] => {
                Some(Element::InterfaceSender(port, address(source)?, [*a, *b, *c, *d, *e, *f]))
            }
            _ => None,
        },
        Key::InterfaceTarget => Some(Element::InterfaceTarget(port, <[u8; 16]>::try_from(rest).ok()?.into())),
        _ => None,
    }
}

/// Returns the address that is both halves of a key.
fn self_pair(key: &[u8]) -> Option<IpAddr> {
    let (first, second) = key.split_at(key.len() / 2);
    if first == second { address(first) } else { None }
}

fn interval(set: &Set, first: &[u8], last: &[u8]) -> Option<Element> {
    if set.key == Key::Port {
        let port = |key: &[u8]| Some(u16::from_be_bytes(key.try_into().ok()?));
        return Some(Element::Ports(port(first)?, port(last)?));
    }
    if let Key::InterfaceAddress(_) | Key::InterfaceTarget = set.key {
        let ((port, first), (same, last)) = (first.split_at_checked(4)?, last.split_at_checked(4)?);
        let range = IpRange { first: address(first)?, last: address(last)? };
        let port = (port == same).then_some(port)?;
        return Some(Element::InterfaceRange(u32::from_be_bytes(port.try_into().ok()?), range));
    }
    Some(Element::Range(IpRange { first: address(first)?, last: address(last)? }))
}

/// Returns the change of the table `bridge palisade` to what the program needs.
///
/// The table is small, so it is replaced in one step if anything differs. `found` is `None` if the table was not read. A
/// table that belongs to another program can't be changed and is left alone.
pub(crate) fn bridge(found: Option<Option<&Ruleset>>, program: &Program, plan: &NodePlan) -> Vec<Step> {
    let mut step = Step::new();
    if let Some(found) = found {
        let mut verification = Verification::default();
        structure::compare_bridge(found, program, plan, &mut verification);
        if verification.agrees() || found.is_some_and(|found| found.owner.is_some()) {
            return Vec::new();
        }
        if found.is_some() {
            step.extend(bridged(vec![Message::DeleteTable]));
        }
    } else if program.node_links.has_pod_ports() {
        step.extend(bridged(vec![Message::CreateTable, Message::DeleteTable]));
    } else {
        return Vec::new();
    }
    if program.node_links.has_pod_ports() {
        let next = NextPlan { plan, delta: &Delta::default() };
        step.extend(program.bridge.create(&program.node_links, &next, program.isolating()));
    }
    vec![step]
}

/// Makes the change from an empty plan create the table too, in one transaction, in place of whatever table exists.
///
/// If the plan is too large for that transaction, isolated pods are denied everything until their rules exist, unless another table decides
/// meanwhile.
pub(crate) fn replace_foreign(phases: &mut Phases, program: &Program, stands_in: bool) {
    if !stands_in {
        let mut closing = phases.clone();
        close_meanwhile(&mut closing, program);
        phases.if_too_large = Some(Box::new(closing));
    }
    create_table(phases, program);
    phases.create.insert(0, replaced());
}

/// Makes the change from an empty plan create the table too.
pub(crate) fn create_table(phases: &mut Phases, program: &Program) {
    let base: Vec<Step> = program.create_base().into_iter().chain(program.add_revoked()).collect();
    phases.create.splice(0..0, base);
    phases.join.extend(program.fill_node_sets());
    phases.atomic = true;
}

/// Deletes a table, whether it exists or not: a missing table can't be deleted, but an existing one can be created.
fn replaced() -> Step {
    vec![Message::CreateTable, Message::DeleteTable]
}

/// Makes the change from an empty plan replace the table in several transactions. In the first, isolated pods are denied everything.
///
/// Needless where one transaction is enough.
fn close_meanwhile(phases: &mut Phases, program: &Program) {
    let mut first = replaced();
    first.extend(program.create_base().into_iter().flatten());
    phases.atomic = true;
    phases.switch.clear();
    phases.hairpin.clear();
    for direction in Direction::BOTH {
        let closed = closed(direction);
        first.extend(Message::create_chain(&closed));
        phases.delete.push(vec![Message::DeleteChain(closed.name.clone())]);
    }
    let (enforced, audit): (Vec<_>, Vec<_>) = JumpTarget::ALL.into_iter().partition(|t| t.is_enforced());
    for (target, family) in audit.into_iter().flat_map(|target| Family::BOTH.map(|family| (target, family))) {
        let elements = expected::dispatch_elements(program, target, family);
        let map = program.sets.dispatch(target, family);
        phases.dispatch(target).extend(replace(map, Vec::new(), elements));
    }
    for target in enforced {
        let closed = closed(target.direction());
        for family in Family::BOTH {
            let map = program.sets.dispatch(target, family);
            let to_own_chains = expected::dispatch_elements(program, target, family);
            let to_closed: Vec<Element> = expected::dispatch(program, target, family)
                .map(|(address, _)| Element::jump(target, address, closed.name.clone()))
                .collect();
            first.extend(add(map, to_closed.clone()).flatten());
            phases.dispatch(target).extend(replace(map, to_closed, to_own_chains));
        }
    }
    for family in Family::BOTH {
        first.extend(add(program.sets.self_pairs(family), program.pairs(family)).flatten());
    }
    phases.switch.extend(add(&program.sets.link_dispatch, program.link_elements()));
    first.extend(program.change_isolation(Isolating::default(), program.isolating_in()));
    phases.create.splice(0..0, std::iter::once(first).chain(program.add_revoked()));
    phases.join.extend(program.fill_node_sets());
}
