//! A change of the kernel's tables, divided into phases in the order in which they have to happen.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use crate::ruleset::{ELEMENTS_PER_MESSAGE, Element, JumpTarget, Message, Set};

/// Messages that must be in the same transaction.
pub(crate) type Step = Vec<Message>;

/// A change, in the order in which it has to happen.
///
/// Usually everything is one transaction. If the change is too large for that, a transaction may end after any step, and
/// packets still meet either the old rules or the new ones:
/// - Nothing refers yet to what `create` makes.
/// - `join` adds members before `leave` removes any, so an address that moves from one peer set to another is in at least
///   one of them at all times.
/// - `delete` removes what is unused after `switch`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Phases {
    /// New sets with their elements, new chains with their rules.
    pub(crate) create: Vec<Step>,
    /// New members of sets in use.
    pub(crate) join: Vec<Step>,
    /// What pods may use of themselves, then which pods this applies to.
    pub(crate) hairpin: Vec<Step>,
    /// The table `bridge palisade`. Independent of all other phases.
    pub(crate) bridge: Vec<Step>,
    /// The dispatch maps.
    pub(crate) switch: Vec<Step>,
    /// Members that leave sets in use.
    pub(crate) leave: Vec<Step>,
    /// Unused chains and sets.
    pub(crate) delete: Vec<Step>,
    /// Verdict maps that the rules before this change use, and what only these need. They are deleted when no packet is in the middle of
    /// these rules any more: the kernel empties a map at once that a transaction deletes.
    pub(crate) retire: Vec<Step>,
    /// Whether an address leaves one peer set and joins another.
    ///
    /// A transaction changes all sets at once, but a packet looks them up one after another. It could look up the new set
    /// just before the transaction and the old set just after it.
    pub(crate) moves_addresses: bool,
    /// Whether the change must be one transaction if at all possible: there is no table yet, or it is replaced.
    pub(crate) atomic: bool,
    /// What is sent instead if the change exceeds one transaction.
    pub(crate) if_too_large: Option<Box<Self>>,
}

impl Phases {
    /// Returns the phase in which verdict maps of this target change.
    pub(crate) fn dispatch(&mut self, target: JumpTarget) -> &mut Vec<Step> {
        match target {
            JumpTarget::Table(_) | JumpTarget::Reply(_) | JumpTarget::Audit(_) => &mut self.switch,
            JumpTarget::Hairpin | JumpTarget::AuditHairpin => &mut self.hairpin,
        }
    }

    /// Adds the changes of a set's elements: additions, then removals. Ranges of keys with several parts must not overlap, so those are
    /// removed before others are added, in one step.
    pub(crate) fn change_elements(&mut self, set: &Arc<Set>, added: Vec<Element>, removed: Vec<Element>) {
        let is_ranged = |elements: &[Element]| matches!(elements.first(), Some(Element::InterfaceRange(..)));
        if is_ranged(&added) && is_ranged(&removed) {
            self.join.push(remove(set, removed).chain(add(set, added)).flatten().collect());
            return;
        }
        self.join.extend(add(set, added));
        self.leave.extend(remove(set, removed));
    }

    /// Returns whether nothing changes.
    pub(crate) fn is_empty(&self) -> bool {
        let Self {
            create,
            join,
            hairpin,
            bridge,
            switch,
            leave,
            delete,
            retire,
            moves_addresses: _,
            atomic: _,
            if_too_large: _,
        } = self;
        [create, join, hairpin, bridge, switch, leave, delete, retire].iter().all(|p| p.is_empty())
    }
}

/// Returns the steps that replace elements of a dispatch map.
///
/// What is removed and added for one address is in the same step, so the address always has a chain.
pub(crate) fn replace(map: &Arc<Set>, removed: Vec<Element>, added: Vec<Element>) -> Vec<Step> {
    let mut by_address: BTreeMap<IpAddr, (Option<Element>, Option<Element>)> = BTreeMap::new();
    for element in removed {
        if let Element::Jump(address, _) | Element::SelfPairJump(address, _) = element {
            by_address.entry(address).or_default().0 = Some(element);
        }
    }
    for element in added {
        if let Element::Jump(address, _) | Element::SelfPairJump(address, _) = element {
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

/// Returns the steps that add elements to a set.
pub(crate) fn add(set: &Arc<Set>, elements: Vec<Element>) -> impl Iterator<Item = Step> {
    let set = set.clone();
    chunks(elements).map(move |e| vec![Message::AddElements(set.clone(), e)])
}

/// Returns the steps that remove elements from a set.
pub(crate) fn remove(set: &Arc<Set>, elements: Vec<Element>) -> impl Iterator<Item = Step> {
    let set = set.clone();
    chunks(elements).map(move |e| vec![Message::RemoveElements(set.clone(), e)])
}

/// Splits items into lists that fit one message.
pub(crate) fn chunks<T>(items: impl IntoIterator<Item = T>) -> impl Iterator<Item = Vec<T>> {
    let mut items = items.into_iter();
    std::iter::from_fn(move || {
        let chunk: Vec<T> = items.by_ref().take(ELEMENTS_PER_MESSAGE).collect();
        (!chunk.is_empty()).then_some(chunk)
    })
}
