//! The state of one table.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;

use super::super::{
    budget::Limit,
    classes::{Class, ClassId, SelectionId},
    definition::Definition,
};
use crate::{PeerSetId, Traffic};

/// A rule with a CIDR, and the exceptions of its block.
type RuleBlock = (usize, Arc<[IpNet]>);

/// The state of one table.
#[derive(Clone, Debug)]
pub(super) struct TableState {
    pub(super) definition: Arc<Definition>,
    /// The local addresses that use it.
    pub(super) users: BTreeSet<IpAddr>,
    /// The rules that use each selection.
    pub(super) selections: BTreeMap<SelectionId, Vec<usize>>,
    /// The rules that use each CIDR, with the exceptions.
    pub(super) blocks: HashMap<IpNet, Vec<RuleBlock>>,
    /// Whether the ports of a rule depend on the peer.
    pub(super) has_port_names: bool,
    pub(super) range_sets: Vec<PeerSetId>,
    /// The row of each class, and how many classes share each row. Kept while the table is closed: nothing else shows
    /// when it is within its budget again.
    pub(super) placed: BTreeMap<ClassId, PeerSetId>,
    pub(super) rows: BTreeMap<PeerSetId, RowState>,
    /// The ids of the peer sets of the rows; none while it is closed.
    pub(super) names: BTreeMap<Traffic, PeerSetId>,
    /// The cost of its ranges, and of its rows of pods.
    pub(super) ranges_size: usize,
    pub(super) rows_size: usize,
    /// The limit that its definition exceeds, independent of the pods.
    pub(super) broken: Option<Limit>,
    /// The limit because of which it is closed.
    pub(super) closed: Option<Limit>,
}

/// A row that classes share.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowState {
    pub(super) classes: usize,
    pub(super) size: usize,
}

impl TableState {
    pub(super) fn new(definition: Arc<Definition>) -> Self {
        let has_port_names = definition.rules().any(|rule| !rule.ports.names.is_empty());
        Self {
            users: BTreeSet::new(),
            selections: BTreeMap::new(),
            blocks: HashMap::new(),
            has_port_names,
            range_sets: Vec::new(),
            placed: BTreeMap::new(),
            rows: BTreeMap::new(),
            names: BTreeMap::new(),
            ranges_size: 0,
            rows_size: 0,
            broken: None,
            closed: None,
            definition,
        }
    }

    /// Returns its cost while it is open, in the unit of [`Budget::elements`].
    pub(super) fn cost(&self) -> usize {
        self.ranges_size + self.rows_size
    }

    /// Returns the row of a class, if it differs from that of the ranges that contain its addresses.
    pub(super) fn row_if_special(&self, class: &Class) -> Option<Traffic> {
        if self.broken.is_some() {
            return None;
        }
        let (by_block, matched) = self.matched(class);
        if matched == by_block && !self.has_port_names {
            return None;
        }
        let inside = self.definition.flatten(&matched, &class.key.ports);
        let outside = self.definition.flatten(&by_block, &[]);
        (inside != outside).then_some(inside)
    }

    /// Returns what the table allows a pod of this class to send to itself through a service.
    pub(super) fn hairpin_row(&self, class: &Class) -> Traffic {
        if self.closed.is_some() {
            return Traffic::none();
        }
        let (_, matched) = self.matched(class);
        self.definition.flatten_hairpin(&matched, &class.key.ports)
    }

    /// Returns the rules with a block that contains a class, and all rules whose peers match it; sorted.
    pub(super) fn matched(&self, class: &Class) -> (Vec<usize>, Vec<usize>) {
        let mut by_block: Vec<usize> = Vec::new();
        for net in &class.key.nets {
            for (rule, except) in self.blocks.get(net).into_iter().flatten() {
                // Both are sorted. An address is in few of the mentioned CIDRs, but a CIDR may have many exceptions.
                if !class.key.nets.iter().any(|net| except.binary_search(net).is_ok()) {
                    by_block.push(*rule);
                }
            }
        }
        let mut matched = by_block.clone();
        // Both are sets of selections; iterate over the smaller one.
        if class.selections.len() <= self.selections.len() {
            matched.extend(class.selections.iter().filter_map(|id| self.selections.get(id)).flatten());
        } else {
            let holding = self.selections.iter().filter(|(id, _)| class.selections.contains(id));
            matched.extend(holding.flat_map(|(_, rules)| rules));
        }
        for rules in [&mut by_block, &mut matched] {
            rules.sort_unstable();
            rules.dedup();
        }
        (by_block, matched)
    }
}
