//! A delta as messages. Pure: the one place that knows which objects a change of the plan needs, and in which order.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::IpAddr,
    sync::Arc,
};

use palisade_policy::{Delta, Direction, Family, Name, NodePlan, PeerSet, PeerSetId, PolicyTableId};

use crate::{
    Options, PlanError, Surroundings,
    base::{self, BaseSets, digit},
    bridge::Bridge,
    holdings::{Before, Holdings},
    layout::{self, Layout, Layouts, Orientation},
    next::Next,
    registry::{Edit, Registry},
    revocation::Remembered,
    ruleset::{
        Chain, Content, ELEMENTS_PER_MESSAGE, Element, LINK_CHAIN, Lead, Message, STRANGERS_CHAIN, Set,
    },
};

/// Messages that only make sense together in one transaction.
pub(crate) type Step = Vec<Message>;

/// A change, in the order in which it has to happen. Everything may happen at once; where it is too large for that, a
/// transaction may end after any step, and packets still meet the old rules or the new ones:
/// what is made in `make` is reached by nothing yet; `join` adds members before `leave` takes any away, so that an
/// address that moves from one group to another is never in neither; and `unmake` removes what `switch` left unreached.
#[derive(Debug, Default)]
pub(crate) struct Phases {
    /// New sets with their elements, new chains with their rules.
    pub(crate) make: Vec<Step>,
    /// New members of sets in use.
    pub(crate) join: Vec<Step>,
    /// What pods may use of themselves: no other change bears upon it.
    pub(crate) hairpin: Vec<Step>,
    /// The table for bridges: no other change bears upon it.
    pub(crate) bridge: Vec<Step>,
    /// The dispatch maps to tables.
    pub(crate) switch: Vec<Step>,
    /// Members that leave sets in use.
    pub(crate) leave: Vec<Step>,
    /// Chains and sets out of use.
    pub(crate) unmake: Vec<Step>,
    /// Whether an address leaves a group and joins another. One transaction changes all sets at once, but a packet
    /// looks into them one after another: it could look into the new group just before, and into the old one just after.
    pub(crate) moves: bool,
    /// Whether it is to be one transaction if that is possible at all: there is no table yet, or another one is replaced.
    pub(crate) indivisible: bool,
}

impl Phases {
    /// Where changes of these verdict maps belong.
    pub(crate) fn lead(&mut self, lead: Lead) -> &mut Vec<Step> {
        match lead {
            Lead::Table(_) | Lead::Reply(_) => &mut self.switch,
            Lead::Hairpin => &mut self.hairpin,
        }
    }

    /// Whether nothing changes.
    pub(crate) fn is_empty(&self) -> bool {
        let Self { make, join, hairpin, bridge, switch, leave, unmake, moves: _, indivisible: _ } = self;
        [make, join, hairpin, bridge, switch, leave, unmake].iter().all(|p| p.is_empty())
    }
}

/// The objects in the kernel, as far as they follow from the plan.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) options: Options,
    pub(crate) surroundings: Surroundings,
    pub(crate) sets: BaseSets,
    pub(crate) bridge: Bridge,
    pub(crate) registry: Registry,
    /// The chains to which local addresses lead.
    pub(crate) dispatch: BTreeMap<(Lead, IpAddr), Name>,
    /// The revoked connections, which a new table has to know from the first.
    pub(crate) revoked: Remembered,
    /// How many elements the sets hold.
    pub(crate) holdings: Holdings,
}

/// For local addresses whose chain may change, the chain that they shall lead to.
type Targets = BTreeMap<(Lead, IpAddr), Option<Arc<Chain>>>;

/// What to undo when a change could not be sent.
#[derive(Debug)]
pub(crate) struct Undo {
    edit: Edit,
    dispatch: Vec<((Lead, IpAddr), Option<Name>)>,
    held: Before,
}

impl Program {
    /// Of an empty plan.
    pub(crate) fn new(options: Options, surroundings: Surroundings) -> Self {
        Self {
            options,
            surroundings,
            sets: BaseSets::new(),
            bridge: Bridge::new(),
            registry: Registry::default(),
            dispatch: BTreeMap::new(),
            revoked: Remembered::default(),
            holdings: Holdings::default(),
        }
    }

    /// What makes a new table know the revoked connections.
    pub(crate) fn remember(&self) -> impl Iterator<Item = Step> {
        let by_set = self.revoked.elements(self.revoked.tuples());
        by_set.into_iter().flat_map(|((family, has_ports), elements)| {
            add(self.sets.revoked(family, has_ports), elements).collect::<Vec<_>>()
        })
    }

    /// What makes the table with its base chains and empty maps.
    pub(crate) fn make_base(&self) -> Vec<Step> {
        let mut out = vec![vec![Message::CreateTable]];
        out.extend(self.sets.all().map(|set| vec![Message::CreateSet(set.clone())]));
        // Nobody leads anywhere yet.
        for chain in base::chains(&self.options, &self.sets, false) {
            // A base chain takes packets as soon as it exists: it and its rules come together.
            let mut step = Vec::new();
            make_chain(&chain, |messages| step.extend(messages));
            out.push(step);
        }
        out
    }

    /// What fills the sets that follow from the surroundings alone, which are empty.
    pub(crate) fn make_surroundings(&self) -> Vec<Step> {
        Self::new(self.options.clone(), Surroundings::default())
            .surround(&NodePlan::default(), &self.surroundings)
            .join
    }

    /// The chains that are there whatever the plan says, as they are now.
    pub(crate) fn base_chains(&self) -> Vec<Arc<Chain>> {
        base::chains(&self.options, &self.sets, self.isolating())
    }

    /// What makes the chains deny that are empty while no local pod is isolated.
    pub(crate) fn close_links(&self) -> Step {
        let chains =
            [base::link_chain(&self.options, true), base::strangers_chain(&self.sets, true)].map(Arc::new);
        let rules = |chain: Arc<Chain>| {
            (0..chain.rules.len()).map(move |index| Message::AddRule(chain.clone(), index))
        };
        chains.into_iter().flat_map(rules).collect()
    }

    /// What leads from `plan`, which this is the program of, to the plan after `delta`. Changes the program; where the
    /// change can't be sent, [`Program::undo`] must follow. On an error nothing has changed.
    pub(crate) fn change(&mut self, plan: &NodePlan, delta: &Delta) -> Result<(Phases, Undo), PlanError> {
        let next = Next { plan, delta };
        check_groups(&next)?;
        let targets = self.targets(&next)?;
        let mut undo = Undo { edit: Edit::default(), dispatch: Vec::new(), held: Before::default() };
        let mut phases = Phases::default();
        let was_isolating = self.isolating();
        if let Err(error) = self.switch(&targets, &mut undo, &mut phases) {
            self.undo(undo);
            return Err(error);
        }
        if let Some(id) = delta.peer_sets_removed.iter().find(|id| self.uses(**id)) {
            let error = PlanError::GroupInUse(*id);
            self.undo(undo);
            return Err(error);
        }
        self.sets.surroundings().for_each(|set| self.surroundings.follow(set, &next, &mut phases));
        if self.surroundings.has_pod_ports() {
            let isolating = (was_isolating, self.isolating());
            phases.bridge = self.bridge.follow(&self.surroundings, &next, isolating);
        }
        members(&self.registry, &undo.edit, &next, &mut phases);
        make(&undo.edit, &next, &mut phases);
        unmake(&undo.edit, &mut phases);
        undo.held = self.holdings.change(&phases);
        Ok((phases, undo))
    }

    /// What leads to other surroundings under the same plan.
    pub(crate) fn surround(&self, plan: &NodePlan, surroundings: &Surroundings) -> Phases {
        let next = Next { plan, delta: &Delta::default() };
        let mut phases = Phases::default();
        for set in self.sets.surroundings() {
            self.surroundings.lead_to(surroundings, set, &next, &mut phases);
        }
        let isolating = self.isolating();
        phases.bridge = self.bridge.lead_to((&self.surroundings, surroundings), plan, isolating);
        phases
    }

    /// Takes a change back.
    pub(crate) fn undo(&mut self, undo: Undo) {
        for (key, old) in undo.dispatch {
            match old {
                Some(chain) => self.dispatch.insert(key, chain),
                None => self.dispatch.remove(&key),
            };
        }
        self.registry.undo(undo.edit);
        self.holdings.undo(undo.held);
    }

    /// The new entry chains of all local addresses whose chain may change.
    fn targets(&self, next: &Next<'_>) -> Result<Targets, PlanError> {
        let mut layouts = Layouts::new();
        let mut out = BTreeMap::new();
        for address in next.touched_hairpins() {
            let chain = next.hairpin(address).and_then(|traffic| layout::hairpin(&self.options, traffic));
            out.insert((Lead::Hairpin, address), chain);
        }
        for (direction, address) in next.touched() {
            let leads = [
                (Lead::Table(direction), Orientation::Request),
                (Lead::Reply(direction), Orientation::Reply),
            ];
            let Some(id) = next.target(direction, address) else {
                out.extend(leads.map(|(lead, _)| ((lead, address), None)));
                continue;
            };
            let table = next.table(id).ok_or(PlanError::NoTable { direction, address, table: id })?;
            if table.direction != direction {
                return Err(PlanError::WrongDirection { direction, address, table: id });
            }
            let family = Family::of(address);
            for (lead, orientation) in leads {
                let chain = match layouts.get(&(id, family, orientation)) {
                    Some(chain) => chain.clone(),
                    None => {
                        let group = |id: &PeerSetId| next.group(*id);
                        let layout = Layout { options: &self.options, family, orientation, group: &group };
                        let chain = layout.entry(id, table)?;
                        layouts.insert((id, family, orientation), chain.clone());
                        chain
                    }
                };
                out.insert((lead, address), chain);
            }
        }
        Ok(out)
    }

    fn switch(&mut self, targets: &Targets, undo: &mut Undo, phases: &mut Phases) -> Result<(), PlanError> {
        let mut changes: BTreeMap<(Lead, Family), (Vec<Element>, Vec<Element>)> = BTreeMap::new();
        let mut released = Vec::new();
        let was_isolating = self.isolating();
        let isolated: BTreeMap<IpAddr, bool> = targets.keys().map(|(_, a)| (*a, self.isolated(*a))).collect();
        for (key, target) in targets {
            let (lead, address) = *key;
            let old = self.dispatch.get(key).cloned();
            if old.as_ref() == target.as_ref().map(|chain| &chain.name) {
                if let Some(chain) = target {
                    self.registry.check(chain, &mut undo.edit)?;
                }
                continue;
            }
            if let Some(chain) = target {
                self.registry.retain(chain, &mut undo.edit)?;
                self.dispatch.insert(*key, chain.name.clone());
            } else {
                self.dispatch.remove(key);
            }
            let (removed, added) = changes.entry((lead, Family::of(address))).or_default();
            removed.extend(old.iter().map(|chain| Element::leading(lead, address, chain.clone())));
            added.extend(target.iter().map(|chain| Element::leading(lead, address, chain.name.clone())));
            released.extend(old.clone());
            undo.dispatch.push((*key, old));
        }
        for name in released {
            self.registry.release(&name, &mut undo.edit);
        }
        for family in Family::BOTH {
            let changed = |was: bool| {
                let now = |a: &IpAddr| self.isolated(*a);
                let of = isolated.iter().filter(move |(a, w)| Family::of(**a) == family && **w == was);
                of.map(|(a, _)| *a).filter(|a| now(a) != was).map(Element::Itself).collect::<Vec<_>>()
            };
            let set = self.sets.itself(family);
            phases.join.extend(add(set, changed(false)));
            phases.leave.extend(remove(set, changed(true)));
        }
        match (was_isolating, self.isolating()) {
            (false, true) => phases.switch.push(self.close_links()),
            (true, false) => {
                let flush = |chain: &str| Message::FlushChain(chain.into());
                phases.switch.push([LINK_CHAIN, STRANGERS_CHAIN].map(flush).into());
            }
            _ => {}
        }
        for ((lead, family), (removed, added)) in changes {
            phases.lead(lead).extend(replace(self.sets.dispatch(lead, family), removed, added));
        }
        Ok(())
    }

    fn isolated(&self, address: IpAddr) -> bool {
        Direction::BOTH
            .iter()
            .any(|direction| self.dispatch.contains_key(&(Lead::Table(*direction), address)))
    }

    /// Whether any local pod is isolated. `O(log n)`.
    pub(crate) fn isolating(&self) -> bool {
        // Tables come first.
        self.dispatch.first_key_value().is_some_and(|((lead, _), _)| matches!(lead, Lead::Table(_)))
    }

    fn uses(&self, group: PeerSetId) -> bool {
        Family::BOTH.iter().any(|family| {
            let name = |kind| format!("{kind}_{group}_{}", digit(*family));
            ["group", "ranges"].iter().any(|kind| self.registry.set(&name(kind)).is_some())
        })
    }
}

/// Steps that lead local addresses elsewhere. What is removed and added for one address stays together, so that the
/// address is never without a chain.
pub(crate) fn replace(map: &Arc<Set>, removed: Vec<Element>, added: Vec<Element>) -> Vec<Step> {
    let mut by_address: BTreeMap<IpAddr, (Option<Element>, Option<Element>)> = BTreeMap::new();
    for element in removed {
        if let Element::Jump(address, _) | Element::JumpItself(address, _) = element {
            by_address.entry(address).or_default().0 = Some(element);
        }
    }
    for element in added {
        if let Element::Jump(address, _) | Element::JumpItself(address, _) = element {
            by_address.entry(address).or_default().1 = Some(element);
        }
    }
    chunks(by_address.into_values())
        .map(|pairs| {
            let (removed, added): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
            let (removed, added): (Vec<_>, Vec<_>) =
                (removed.into_iter().flatten().collect(), added.into_iter().flatten().collect());
            let mut step = Vec::new();
            if !removed.is_empty() {
                step.push(Message::RemoveElements(map.clone(), removed));
            }
            if !added.is_empty() {
                step.push(Message::AddElements(map.clone(), added));
            }
            step
        })
        .collect()
}

/// A group in use keeps its kind, and its ranges if it has any.
fn check_groups(next: &Next<'_>) -> Result<(), PlanError> {
    for (id, new) in &next.delta.peer_sets_added {
        match (next.plan.peer_sets.get(id), new) {
            (None, _) | (Some(PeerSet::Addresses(_)), PeerSet::Addresses(_)) => {}
            (Some(old), new) if old == new => {}
            _ => return Err(PlanError::GroupChanged(*id)),
        }
    }
    Ok(())
}

/// Who joins and leaves the sets that stay.
fn members(registry: &Registry, edit: &Edit, next: &Next<'_>, phases: &mut Phases) {
    let changed: BTreeMap<PeerSetId, BTreeSet<IpAddr>> = next.changed_members();
    if changed.is_empty() {
        return;
    }
    let made: HashSet<&str> = edit.sets_made.iter().map(|set| &*set.name).collect();
    let (mut joining, mut leaving) = (HashSet::new(), HashSet::new());
    for (id, addresses) in &changed {
        for address in addresses {
            match (next.held(*id, *address), next.holds(*id, *address)) {
                (false, true) => drop(joining.insert(*address)),
                (true, false) => drop(leaving.insert(*address)),
                _ => {}
            }
        }
        for family in Family::BOTH {
            if let Some(set) = registry.set(&format!("group_{id}_{}", digit(family)))
                && !made.contains(&*set.name)
            {
                set_members(set, addresses.iter().copied(), next, phases);
            }
        }
    }
    // The unions come last in `join` and would best come first in `leave`, so that the search tree leads to a group
    // only while it holds the address; where it does not, the chain at the end of the branch goes on to the ranges,
    // which is what the address met before.
    for set in registry.unions() {
        let Content::Groups(ids, _) = &set.content else { continue };
        let addresses: BTreeSet<IpAddr> =
            ids.iter().filter_map(|id| changed.get(id)).flatten().copied().collect();
        if !addresses.is_empty() && !made.contains(&*set.name) {
            set_members(set, addresses, next, phases);
        }
    }
    let arrives =
        |a: &IpAddr| joining.contains(a) || next.delta.peer_sets_added.keys().any(|id| next.holds(*id, *a));
    phases.moves = leaving.iter().any(arrives);
}

fn set_members(
    set: &Arc<Set>,
    candidates: impl IntoIterator<Item = IpAddr>,
    next: &Next<'_>,
    phases: &mut Phases,
) {
    let Content::Groups(ids, family) = &set.content else { return };
    let (mut joins, mut leaves) = (Vec::new(), Vec::new());
    for address in candidates.into_iter().filter(|a| Family::of(*a) == *family) {
        let before = ids.iter().any(|id| next.held(*id, address));
        let after = ids.iter().any(|id| next.holds(*id, address));
        match (before, after) {
            (false, true) => joins.push(Element::Address(address)),
            (true, false) => leaves.push(Element::Address(address)),
            _ => {}
        }
    }
    phases.join.extend(add(set, joins));
    phases.leave.extend(remove(set, leaves));
}

fn make(edit: &Edit, next: &Next<'_>, phases: &mut Phases) {
    for set in &edit.sets_made {
        phases.make.push(vec![Message::CreateSet(set.clone())]);
        phases.make.extend(add(set, next.fill(set)));
    }
    for chain in &edit.chains_made {
        make_chain(chain, |messages| phases.make.extend(messages.into_iter().map(|m| vec![m])));
    }
}

fn make_chain(chain: &Arc<Chain>, take: impl FnOnce(Vec<Message>)) {
    let mut messages = vec![Message::CreateChain(chain.clone())];
    messages.extend((0..chain.rules.len()).map(|index| Message::AddRule(chain.clone(), index)));
    take(messages);
}

/// Chains before the sets that their rules look into.
fn unmake(edit: &Edit, phases: &mut Phases) {
    phases.unmake.extend(edit.chains_gone.iter().map(|chain| vec![Message::DeleteChain(chain.name.clone())]));
    phases.unmake.extend(edit.sets_gone.iter().map(|set| vec![Message::DeleteSet(set.name.clone())]));
}

/// Steps that add elements to a set.
pub(crate) fn add(set: &Arc<Set>, elements: Vec<Element>) -> impl Iterator<Item = Step> {
    let set = set.clone();
    chunks(elements).map(move |e| vec![Message::AddElements(set.clone(), e)])
}

/// Steps that remove elements from a set.
pub(crate) fn remove(set: &Arc<Set>, elements: Vec<Element>) -> impl Iterator<Item = Step> {
    let set = set.clone();
    chunks(elements).map(move |e| vec![Message::RemoveElements(set.clone(), e)])
}

/// Splits into lists that fit one message.
pub(crate) fn chunks<T>(items: impl IntoIterator<Item = T>) -> impl Iterator<Item = Vec<T>> {
    let mut items = items.into_iter();
    std::iter::from_fn(move || {
        let chunk: Vec<T> = items.by_ref().take(ELEMENTS_PER_MESSAGE).collect();
        (!chunk.is_empty()).then_some(chunk)
    })
}

/// The plan's addresses that lead to a table.
pub(crate) fn dispatch_of(plan: &NodePlan, direction: Direction) -> &BTreeMap<IpAddr, PolicyTableId> {
    if direction == Direction::Ingress { &plan.ingress } else { &plan.egress }
}
