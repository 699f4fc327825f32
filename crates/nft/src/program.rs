//! Turns a delta of the plan into messages. Pure: the only place that decides which kernel objects a change needs.
//!
//! How data flows through the crate:
//!
//! ```text
//!  NodePlan + Delta           Program (this file)
//!        │            ┌─────────────────────────────────────────────┐
//!        ▼            │                 ┌► registry ─ new, unused ─┐│
//!    NextPlan ────────┼► layout ─ chains┤   chains and sets        ├┼► Phases ─► send ─► encode ─► Kernel
//!  (plan after delta) │  of a table     └► dispatch maps ──────────┤│         one or more   bytes    │ netlink
//!        └────────────┼────────────────── members of sets ─────────┘│         transactions           ▼
//!  NodeLinks ─────────┼► node sets, bridge                          │                            nf_tables
//!                     └─────────────────────────────────────────────┘                                │
//!                              ▲                     ▲                                               │ dump
//!                              │ expected            │ expected                                      ▼
//!                           verify ◄──────────────── restart ◄──────────────────────────────── reader::Ruleset
//!                   differences, for people   differences as Phases,                    shares no code with encode
//!                                             for start and repair
//! ```
//!
//! [`Enforcer`](crate::Enforcer) owns a `Program`, and runs each of these paths.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use palisade_policy::{Delta, Direction, Family, Mode, Name, NodePlan, PeerSet, PeerSetId, PolicyTableId};

use crate::{
    EnforcerOptions, NodeLinks, PlanError,
    base::{self, Conditions, Isolating},
    base_sets::BaseSets,
    bridge::Bridge,
    element_counts::{ElementCounts, PreviousCounts},
    layout::{self, Layout, Orientation},
    next_plan::NextPlan,
    node_links::{LinkSender, Sender, deciding},
    phases::{Phases, Step, add, remove, replace},
    registry::{Edit, Registry},
    revoked_tuples::RevokedTuples,
    ruleset::{Chain, Content, Element, JumpTarget, Message, NODE_LINK_DENIED_CHAIN, Set, family_digit},
};

/// The kernel objects that follow from the plan.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) options: EnforcerOptions,
    pub(crate) node_links: NodeLinks,
    pub(crate) sets: BaseSets,
    pub(crate) bridge: Bridge,
    pub(crate) registry: Registry,
    /// Whether any local pod refuses what its policies deny.
    pub(crate) refusing: bool,
    /// The chain of each local address in each dispatch map.
    pub(crate) dispatch: BTreeMap<(JumpTarget, IpAddr), Name>,
    /// The revoked connections. A new table must contain them from the start.
    pub(crate) revoked: RevokedTuples,
    /// Whether any connection may be revoked, so that packets are compared with those that are.
    pub(crate) may_be_revoked: bool,
    /// How many elements the sets hold.
    pub(crate) element_counts: ElementCounts,
}

/// The new chains of the local addresses whose chain may change.
type Targets = BTreeMap<(JumpTarget, IpAddr), Option<Arc<Chain>>>;

/// The layouts of one delta, so that pods with the same table share the work.
type Layouts = BTreeMap<(PolicyTableId, Family, Orientation), Option<Arc<Chain>>>;

/// How to undo a change that could not be sent.
#[derive(Debug)]
pub(crate) struct Undo {
    edit: Edit,
    dispatch: Vec<((JumpTarget, IpAddr), Option<Name>)>,
    counts: PreviousCounts,
    refusing: bool,
}

impl Program {
    /// Returns the program of an empty plan.
    pub(crate) fn new(options: EnforcerOptions, node_links: NodeLinks) -> Self {
        Self {
            bridge: Bridge::new(&options),
            refusing: false,
            options,
            node_links,
            sets: BaseSets::new(),
            registry: Registry::default(),
            dispatch: BTreeMap::new(),
            revoked: RevokedTuples::default(),
            may_be_revoked: true,
            element_counts: ElementCounts::default(),
        }
    }

    /// Returns the program of an empty plan with the same options, links and conditions.
    pub(crate) fn alike(&self) -> Self {
        let may_be_revoked = self.may_be_revoked;
        Self { may_be_revoked, ..Self::new(self.options.clone(), self.node_links.clone()) }
    }

    /// Returns the steps that add the revoked connections to a new table.
    pub(crate) fn add_revoked(&self) -> impl Iterator<Item = Step> {
        let by_set = RevokedTuples::elements(self.revoked.tuples());
        by_set.into_iter().flat_map(|((family, has_ports), elements)| {
            add(self.sets.revoked(family, has_ports), elements).collect::<Vec<_>>()
        })
    }

    /// Returns the steps that create the table with its base chains and empty sets.
    pub(crate) fn create_base(&self) -> Vec<Step> {
        let mut out = vec![vec![Message::CreateTable]];
        out.extend(self.sets.all().map(|set| vec![Message::CreateSet(set.clone())]));
        // The dispatch maps are empty, so no pod is isolated yet. A base chain receives packets as soon as it exists, so
        // it and its rules are one step.
        let conditions = Conditions { isolating: Isolating::default(), ..self.conditions() };
        let chains = base::chains(&self.options, &self.sets, &conditions);
        out.extend(chains.iter().map(|chain| Message::create_chain(chain).collect()));
        out
    }

    /// Returns the steps that fill the sets that follow from the node's links alone. The sets must be empty.
    pub(crate) fn fill_node_sets(&self) -> Vec<Step> {
        // The rules are those of these links already.
        let links = NodeLinks { uplinks: self.node_links.compared_uplinks(), ..NodeLinks::default() };
        Self::new(self.options.clone(), links).change_links(&NodePlan::default(), &self.node_links).join
    }

    /// Returns the chains that exist whatever the plan contains, with their current rules.
    pub(crate) fn base_chains(&self) -> Vec<Arc<Chain>> {
        base::chains(&self.options, &self.sets, &self.conditions())
    }

    /// Returns what the rules of these chains depend on.
    pub(crate) fn conditions(&self) -> Conditions {
        Conditions {
            isolating: self.isolating_in(),
            uplinks: self.node_links.compared_uplinks(),
            may_be_revoked: self.may_be_revoked,
        }
    }

    /// Returns the messages that rewrite the chains whose rules another condition changes. `O(chains)`.
    pub(crate) fn change_conditions(&self, to: &Conditions) -> Step {
        rewritten(self.base_chains(), base::chains(&self.options, &self.sets, to))
    }

    /// Returns the messages that rewrite the chains whose rules depend on whether local pods are isolated.
    pub(crate) fn change_isolation(&self, from: Isolating, to: Isolating) -> Step {
        let chains =
            |isolating| base::of_isolation(&self.options, &self.sets, isolating).into_iter().map(Arc::new);
        rewritten(chains(from), chains(to))
    }

    /// Returns the change from `plan` to the plan after `delta`, and updates the program. The program must be that of
    /// `plan`.
    ///
    /// If the change can't be sent, the caller must call [`Program::undo`]. On an error the program is unchanged.
    pub(crate) fn change(&mut self, plan: &NodePlan, delta: &Delta) -> Result<(Phases, Undo), PlanError> {
        let next = NextPlan { plan, delta };
        check_peer_sets(&next)?;
        let targets = self.targets(&next)?;
        let mut undo = Undo {
            edit: Edit::default(),
            dispatch: Vec::new(),
            counts: PreviousCounts::default(),
            refusing: self.refusing,
        };
        let mut phases = Phases::default();
        let was_isolating = self.isolating();
        if let Err(error) = self.switch(
            &targets,
            self.options.refusals && next.refusing().next().is_some(),
            &mut undo,
            &mut phases,
        ) {
            self.undo(undo);
            return Err(error);
        }
        if let Some(id) = delta.peer_sets_removed.iter().find(|id| self.uses(**id)) {
            let error = PlanError::PeerSetInUse(*id);
            self.undo(undo);
            return Err(error);
        }
        self.follow_link_chains(&undo, &mut phases);
        self.sets.node_sets().for_each(|set| self.node_links.apply_delta(set, &next, &mut phases));
        if self.node_links.has_pod_ports() {
            let isolating = (was_isolating, self.isolating());
            phases.bridge = self.bridge.apply_delta(&self.node_links, &next, isolating);
        }
        change_members(&self.registry, &undo.edit, &next, &mut phases);
        create(&undo.edit, &next, &mut phases);
        delete(&undo.edit, &mut phases);
        undo.counts = self.element_counts.change(&phases);
        Ok((phases, undo))
    }

    /// Returns the change to other node links under the same plan.
    pub(crate) fn change_links(&self, plan: &NodePlan, node_links: &NodeLinks) -> Phases {
        let mut phases = Phases::default();
        let next = NextPlan { plan, delta: &Delta::default() };
        self.add_links(&next, node_links, &mut phases);
        phases
    }

    /// Adds the change to other node links to the phases of a delta, which [`Program::change`] has returned.
    ///
    /// The delta must not change the plan's nodes: both would change the same sets, and what one adds the other may remove.
    pub(crate) fn add_links(&self, next: &NextPlan<'_>, node_links: &NodeLinks, phases: &mut Phases) {
        for set in self.sets.node_sets() {
            self.node_links.change_to(node_links, set, next, phases);
        }
        let conditions = Conditions { uplinks: node_links.compared_uplinks(), ..self.conditions() };
        if conditions != self.conditions() {
            phases.join.push(self.change_conditions(&conditions));
        }
        let jump = |(sender, addresses): Sender<'_>| self.link_jump(*sender, deciding(addresses)?);
        let [before, after] = self
            .node_links
            .differing_senders(node_links)
            .map(|of| of.into_iter().filter_map(jump).collect::<BTreeSet<Element>>());
        self.change_link_jumps(&before, &after, phases);
        let change = self.bridge.change_links((&self.node_links, node_links), next, self.isolating());
        if !self.node_links.has_pod_ports() || !node_links.has_pod_ports() {
            // The table is created with everything, or deleted.
            phases.bridge.clear();
        }
        phases.bridge.extend(change);
    }

    /// Returns the element that leads what a sender sends without an address of its own to the chain of its pod's egress, if the pod is isolated.
    fn link_jump(&self, sender: LinkSender, address: IpAddr) -> Option<Element> {
        let chain = self.dispatch.get(&(JumpTarget::Table(Direction::Egress), address))?;
        Some(link_jump(sender, address, chain))
    }

    /// Returns the elements of the map with these chains.
    pub(crate) fn link_elements(&self) -> Vec<Element> {
        let senders = self.node_links.link_senders();
        senders.filter_map(|(sender, address)| self.link_jump(sender, address)).collect()
    }

    /// Changes the map for the pods whose egress has another chain than before.
    fn follow_link_chains(&self, undo: &Undo, phases: &mut Phases) {
        let of_egress =
            undo.dispatch.iter().filter(|((target, _), _)| *target == JumpTarget::Table(Direction::Egress));
        let old: BTreeMap<IpAddr, Option<&Name>> =
            of_egress.map(|((_, address), chain)| (*address, chain.as_ref())).collect();
        if old.is_empty() {
            return;
        }
        let (mut before, mut after) = (BTreeSet::new(), BTreeSet::new());
        for (sender, address) in self.node_links.link_senders() {
            let Some(chain) = old.get(&address) else { continue };
            before.extend(chain.map(|chain| link_jump(sender, address, chain)));
            after.extend(self.link_jump(sender, address));
        }
        self.change_link_jumps(&before, &after, phases);
    }

    fn change_link_jumps(&self, before: &BTreeSet<Element>, after: &BTreeSet<Element>, phases: &mut Phases) {
        let set = &self.sets.link_dispatch;
        let removed = remove(set, before.difference(after).cloned().collect());
        let added = add(set, after.difference(before).cloned().collect());
        // In one step, so that a pod that stays isolated always has a chain.
        let step: Step = removed.chain(added).flatten().collect();
        if !step.is_empty() {
            phases.switch.push(step);
        }
    }

    /// Undoes a change.
    pub(crate) fn undo(&mut self, undo: Undo) {
        for (key, old) in undo.dispatch {
            match old {
                Some(chain) => self.dispatch.insert(key, chain),
                None => self.dispatch.remove(&key),
            };
        }
        self.refusing = undo.refusing;
        self.registry.undo(undo.edit);
        self.element_counts.undo(undo.counts);
    }

    /// Returns the new entry chains of all local addresses whose chain may change.
    fn targets(&self, next: &NextPlan<'_>) -> Result<Targets, PlanError> {
        let mut layouts = Layouts::new();
        let mut out = BTreeMap::new();
        for address in next.changed_hairpins(Mode::Enforce) {
            let traffic = next.hairpin(Mode::Enforce, address);
            let chain = traffic.and_then(layout::hairpin);
            out.insert((JumpTarget::Hairpin, address), chain);
        }
        for address in next.changed_hairpins(Mode::Audit) {
            let traffic = next.hairpin(Mode::Audit, address);
            let chain = traffic.and_then(layout::audit_hairpin);
            out.insert((JumpTarget::AuditHairpin, address), chain);
        }
        let changed = [Mode::Enforce, Mode::Audit].into_iter().flat_map(|mode| {
            next.changed_dispatch(mode)
                .into_iter()
                .map(move |(direction, address)| (mode, direction, address))
        });
        for (mode, direction, address) in changed {
            let targets: &[(JumpTarget, Orientation)] = match mode {
                Mode::Enforce => &[
                    (JumpTarget::Table(direction), Orientation::Request),
                    (JumpTarget::Reply(direction), Orientation::Reply),
                ],
                Mode::Audit => &[(JumpTarget::Audit(direction), Orientation::Audit)],
            };
            let Some(id) = next.table_of(mode, direction, address) else {
                out.extend(targets.iter().map(|(target, _)| ((*target, address), None)));
                continue;
            };
            let table = next.table(id).ok_or(PlanError::NoTable { direction, address, table: id })?;
            if table.direction != direction {
                return Err(PlanError::WrongDirection { direction, address, table: id });
            }
            let family = Family::of(address);
            for &(target, orientation) in targets {
                let chain = match layouts.get(&(id, family, orientation)) {
                    Some(chain) => chain.clone(),
                    None => {
                        let peer_set = |id: &PeerSetId| next.peer_set(*id);
                        let layout = Layout { family, orientation, peer_set: &peer_set };
                        let chain = layout.entry(id, table)?;
                        layouts.insert((id, family, orientation), chain.clone());
                        chain
                    }
                };
                out.insert((target, address), chain);
            }
        }
        Ok(out)
    }

    fn switch(
        &mut self,
        targets: &Targets,
        refusing: bool,
        undo: &mut Undo,
        phases: &mut Phases,
    ) -> Result<(), PlanError> {
        let mut changes: BTreeMap<(JumpTarget, Family), (Vec<Element>, Vec<Element>)> = BTreeMap::new();
        let mut released = Vec::new();
        let was_isolating = self.isolating_in();
        self.refusing = refusing;
        let paired: BTreeMap<IpAddr, bool> = targets.keys().map(|(_, a)| (*a, self.is_paired(*a))).collect();
        for (key, chain) in targets {
            let (target, address) = *key;
            let old = self.dispatch.get(key).cloned();
            if old.as_ref() == chain.as_ref().map(|chain| &chain.name) {
                if let Some(chain) = chain {
                    self.registry.check(chain, &mut undo.edit)?;
                }
                continue;
            }
            if let Some(chain) = chain {
                self.registry.retain(chain, &mut undo.edit)?;
                self.dispatch.insert(*key, chain.name.clone());
            } else {
                self.dispatch.remove(key);
            }
            let (removed, added) = changes.entry((target, Family::of(address))).or_default();
            removed.extend(old.iter().map(|chain| Element::jump(target, address, chain.clone())));
            added.extend(chain.iter().map(|chain| Element::jump(target, address, chain.name.clone())));
            released.extend(old.clone());
            undo.dispatch.push((*key, old));
        }
        for name in released {
            self.registry.release(&name, &mut undo.edit);
        }
        let change = self.change_isolation(was_isolating, self.isolating_in());
        if !change.is_empty() {
            phases.switch.push(change);
        }
        for ((target, family), (removed, added)) in changes {
            phases.dispatch(target).extend(replace(self.sets.dispatch(target, family), removed, added));
        }
        // After what leads to the rows of hairpins, since pairs without one are accepted.
        for family in Family::BOTH {
            let changed = |was: bool| {
                let now = |a: &IpAddr| self.is_paired(*a);
                let of = paired.iter().filter(move |(a, w)| Family::of(**a) == family && **w == was);
                of.map(|(a, _)| *a).filter(|a| now(a) != was).map(Element::SelfPair).collect::<Vec<_>>()
            };
            let set = self.sets.self_pairs(family);
            phases.hairpin.extend(add(set, changed(false)));
            phases.leave.extend(remove(set, changed(true)));
        }
        Ok(())
    }

    /// Returns whether a local pod is isolated in any direction, also by policies in audit mode, or may not reach itself.
    fn is_paired(&self, address: IpAddr) -> bool {
        let of_directions =
            Direction::BOTH.into_iter().flat_map(|d| [JumpTarget::Table(d), JumpTarget::Audit(d)]);
        of_directions
            .chain([JumpTarget::Hairpin, JumpTarget::AuditHairpin])
            .any(|target| self.dispatch.contains_key(&(target, address)))
    }

    /// Returns the elements of the set of pods to which [`Program::is_paired`] applies.
    pub(crate) fn pairs(&self, family: Family) -> Vec<Element> {
        let addresses: BTreeSet<IpAddr> = self.dispatch.keys().map(|(_, address)| *address).collect();
        let paired = addresses.into_iter().filter(|a| Family::of(*a) == family && self.is_paired(*a));
        paired.map(Element::SelfPair).collect()
    }

    /// Returns whether any local pod is isolated. `O(log n)`.
    pub(crate) fn isolating(&self) -> bool {
        // `JumpTarget::Table` sorts first.
        self.dispatch.first_key_value().is_some_and(|((target, _), _)| matches!(target, JumpTarget::Table(_)))
    }

    /// Returns whether any local address is in these dispatch maps. `O(log n)`.
    fn has_any(&self, of: JumpTarget) -> bool {
        const FIRST: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        self.dispatch.range((of, FIRST)..).next().is_some_and(|((target, _), _)| *target == of)
    }

    /// Returns what the rules of [`base::of_isolation`] depend on. `O(log n)`.
    pub(crate) fn isolating_in(&self) -> Isolating {
        let audited = Direction::BOTH.into_iter().any(|direction| self.has_any(JumpTarget::Audit(direction)));
        Isolating {
            any: self.isolating(),
            egress: self.has_any(JumpTarget::Table(Direction::Egress)),
            refusing: self.refusing,
            audited,
        }
    }

    fn uses(&self, peer_set: PeerSetId) -> bool {
        Family::BOTH.iter().any(|family| {
            let name = |kind| format!("{kind}_{peer_set}_{}", family_digit(*family));
            ["group", "ranges"].iter().any(|kind| self.registry.set(&name(kind)).is_some())
        })
    }
}

/// Returns the element for a sender whose pod this chain decides for. The chain of an IPv4 address has no rules for IPv6.
fn link_jump((interface, mac): LinkSender, address: IpAddr, chain: &Name) -> Element {
    let chain = if address.is_ipv6() { chain.clone() } else { NODE_LINK_DENIED_CHAIN.into() };
    Element::LinkJump(interface, mac, chain)
}

/// Returns the messages that give these chains the rules of others, one by one, where they differ.
fn rewritten(old: impl IntoIterator<Item = Arc<Chain>>, new: impl IntoIterator<Item = Arc<Chain>>) -> Step {
    let mut step = Step::new();
    for (old, new) in old.into_iter().zip(new).filter(|(old, new)| old != new) {
        if !old.rules.is_empty() {
            step.push(Message::FlushChain(old.name.clone()));
        }
        step.extend(Message::add_rules(&new));
    }
    step
}

/// A peer set in use must keep its kind, and its ranges if it has any.
fn check_peer_sets(next: &NextPlan<'_>) -> Result<(), PlanError> {
    for (id, new) in &next.delta.peer_sets_added {
        match (next.plan.peer_sets.get(id), new) {
            (None, _) | (Some(PeerSet::Addresses(_)), PeerSet::Addresses(_)) => {}
            (Some(old), new) if old == new => {}
            _ => return Err(PlanError::PeerSetChanged(*id)),
        }
    }
    Ok(())
}

/// Adds the changes of members of sets that stay in use.
fn change_members(registry: &Registry, edit: &Edit, next: &NextPlan<'_>, phases: &mut Phases) {
    let changed: BTreeMap<PeerSetId, BTreeSet<IpAddr>> = next.changed_members();
    if changed.is_empty() {
        return;
    }
    let created: HashSet<&str> = edit.sets_created.iter().map(|set| &*set.name).collect();
    let (mut joining, mut leaving) = (HashSet::new(), HashSet::new());
    for (id, addresses) in &changed {
        for address in addresses {
            match (next.was_member(*id, *address), next.is_member(*id, *address)) {
                (false, true) => drop(joining.insert(*address)),
                (true, false) => drop(leaving.insert(*address)),
                _ => {}
            }
        }
        for family in Family::BOTH {
            if let Some(set) = registry.set(&format!("group_{id}_{}", family_digit(family)))
                && !created.contains(&*set.name)
            {
                change_set_members(set, addresses.iter().copied(), next, phases);
            }
        }
    }
    // Unions come last in `join`, so the search tree leads to a peer set only after the set contains the address. While
    // it doesn't, the chain at the end of the branch continues with the ranges, which is what applied before.
    for set in registry.unions() {
        let Content::PeerSets(ids, _) = &set.content else { continue };
        let addresses: BTreeSet<IpAddr> =
            ids.iter().filter_map(|id| changed.get(id)).flatten().copied().collect();
        if !addresses.is_empty() && !created.contains(&*set.name) {
            change_set_members(set, addresses, next, phases);
        }
    }
    let arrives = |a: &IpAddr| {
        joining.contains(a) || next.delta.peer_sets_added.keys().any(|id| next.is_member(*id, *a))
    };
    phases.moves_addresses = leaving.iter().any(arrives);
}

fn change_set_members(
    set: &Arc<Set>,
    candidates: impl IntoIterator<Item = IpAddr>,
    next: &NextPlan<'_>,
    phases: &mut Phases,
) {
    let Content::PeerSets(ids, family) = &set.content else { return };
    let (mut joins, mut leaves) = (Vec::new(), Vec::new());
    for address in candidates.into_iter().filter(|a| Family::of(*a) == *family) {
        let before = ids.iter().any(|id| next.was_member(*id, address));
        let after = ids.iter().any(|id| next.is_member(*id, address));
        match (before, after) {
            (false, true) => joins.push(Element::Address(address)),
            (true, false) => leaves.push(Element::Address(address)),
            _ => {}
        }
    }
    phases.join.extend(add(set, joins));
    phases.leave.extend(remove(set, leaves));
}

fn create(edit: &Edit, next: &NextPlan<'_>, phases: &mut Phases) {
    for set in &edit.sets_created {
        phases.create.push(vec![Message::CreateSet(set.clone())]);
        phases.create.extend(add(set, next.elements(set)));
    }
    for chain in &edit.chains_created {
        phases.create.extend(Message::create_chain(chain).map(|message| vec![message]));
    }
}

/// Deletes chains before the sets that their rules use.
fn delete(edit: &Edit, phases: &mut Phases) {
    let chains = edit.chains_unused.iter().map(|chain| Message::DeleteChain(chain.name.clone()));
    let sets = edit.sets_unused.iter().map(|set| Message::DeleteSet(set.name.clone()));
    phases.delete.extend(chains.chain(sets).map(|message| vec![message]));
}
