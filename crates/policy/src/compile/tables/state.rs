//! What is known of one table.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;

use super::super::{
    budget::Limit,
    classes::{Class, ClassId},
    definition::Definition,
    selections::SelectionId,
};
use crate::{PeerSetId, Traffic};

/// A rule that names a CIDR, and what it excepts from it.
type RuleBlock = (usize, Arc<[IpNet]>);

/// One table and what is known of it.
#[derive(Clone, Debug)]
pub(super) struct TableState {
    pub(super) definition: Arc<Definition>,
    /// The local addresses for which it decides.
    pub(super) users: BTreeSet<IpAddr>,
    /// Which rules name which selection.
    pub(super) selections: BTreeMap<SelectionId, Vec<usize>>,
    /// Which rules name which CIDR, with its exceptions.
    pub(super) blocks: HashMap<IpNet, Vec<RuleBlock>>,
    /// Whether some rule's ports depend on the peer.
    pub(super) has_port_names: bool,
    pub(super) range_groups: Vec<PeerSetId>,
    /// Where its classes stand, and how many share each row. Kept while it is closed too: nothing else tells when it
    /// comes within its budget again.
    pub(super) placed: BTreeMap<ClassId, PeerSetId>,
    pub(super) rows: BTreeMap<PeerSetId, RowState>,
    /// The names of the rows that classes share now; none while it is closed.
    pub(super) names: BTreeMap<Traffic, PeerSetId>,
    /// What its ranges need in the kernel, and what its rows of pods do.
    pub(super) ranges_size: usize,
    pub(super) rows_size: usize,
    /// The bound that its definition breaks, whoever the pods are.
    pub(super) broken: Option<Limit>,
    /// The bound for which it allows nothing now.
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
            range_groups: Vec::new(),
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

    /// What it needs in the kernel while it is open, as [`Budget::elements`] counts.
    pub(super) fn cost(&self) -> usize {
        self.ranges_size + self.rows_size
    }

    /// The row of a class, if it differs from what the ranges say for its addresses.
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

    /// What a pod of this class may use of itself through a service, as far as this table goes.
    pub(super) fn hairpin_row(&self, class: &Class) -> Traffic {
        if self.closed.is_some() {
            return Traffic::none();
        }
        let (_, matched) = self.matched(class);
        self.definition.flatten_hairpin(&matched, &class.key.ports)
    }

    /// The rules whose peers hold a class by a block, and those whose peers hold it in any way; sorted.
    pub(super) fn matched(&self, class: &Class) -> (Vec<usize>, Vec<usize>) {
        let mut by_block: Vec<usize> = Vec::new();
        for net in &class.key.nets {
            for (rule, except) in self.blocks.get(net).into_iter().flatten() {
                // Both are sorted. An address is in few of the CIDRs that are mentioned, and may be excepted from many.
                if !class.key.nets.iter().any(|net| except.binary_search(net).is_ok()) {
                    by_block.push(*rule);
                }
            }
        }
        let mut matched = by_block.clone();
        // Both are sets of selections; the smaller one is walked.
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
