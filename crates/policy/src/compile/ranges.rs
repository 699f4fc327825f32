//! The rows of a table for addresses of no running pod: the address space, cut where CIDRs begin and end.

use std::collections::{BTreeMap, BTreeSet, HashMap, btree_map::Entry};

use super::{
    budget::{Budget, Limit, row_size},
    coverage::{Coverage, SetId},
    definition::{Definition, RuleDefinition},
};
use crate::{
    Family, IpRange, Peer, PortSet, Traffic,
    address::{Sweep, to_number, union},
};

/// Returns the rows of all address ranges whose row differs from `rest`, merged by row, ranges sorted and disjoint, and
/// their cost in the unit of [`Budget::elements`].
///
/// `O(n log n + ports × edges × log n)` in the blocks, exceptions and ports, and in the result.
///
/// Fails with the limit that is exceeded.
pub(super) fn rows(
    definition: &Definition,
    rest: &Traffic,
    budget: &Budget,
) -> Result<(BTreeMap<Traffic, Vec<IpRange>>, usize), Limit> {
    let mut rows: Vec<(Traffic, Vec<IpRange>)> = Vec::new();
    let mut by_traffic: BTreeMap<Traffic, usize> = BTreeMap::new();
    let mut elements = 0;
    let mut active = ActiveRules::new(definition);
    let mut known: HashMap<ActiveId, Option<usize>> = HashMap::new();
    for family in Family::BOTH {
        for (range, changed) in Sweep::new(family, ranges(definition, family)) {
            changed.into_iter().for_each(|rule| active.flip(rule));
            if active.steps > budget.steps || active.known() > budget.steps {
                return Err(Limit::Steps);
            }
            let id = active.id();
            let row = match known.get(&id) {
                Some(row) => *row,
                None => {
                    let traffic = active.row();
                    let row = (traffic != *rest).then(|| match by_traffic.entry(traffic) {
                        Entry::Occupied(row) => *row.get(),
                        Entry::Vacant(new) => {
                            elements += row_size(new.key());
                            rows.push((new.key().clone(), Vec::new()));
                            *new.insert(rows.len() - 1)
                        }
                    });
                    known.insert(id, row);
                    row
                }
            };
            if let Some(row) = row {
                elements += usize::from(push(&mut rows[row].1, range));
            }
            if elements > budget.elements {
                return Err(Limit::Elements);
            }
        }
        active.clear();
    }
    Ok((rows.into_iter().collect(), elements))
}

/// The rules whose blocks contain the current piece of the address space.
struct ActiveRules<'d> {
    definition: &'d Definition,
    rules: Vec<&'d RuleDefinition>,
    is_active: Vec<bool>,
    /// The active rules of the cluster-wide tiers, and the sets of them seen so far. Administrators write these; each
    /// flip costs their number.
    tiered: BTreeSet<usize>,
    tiered_known: HashMap<Vec<usize>, usize>,
    tiered_id: usize,
    /// The ports that the active NetworkPolicy rules allow, by protocol, and how many of these rules allow protocols
    /// without ports.
    ports: [Coverage; 3],
    other: usize,
    /// The number of changes of port ranges so far.
    steps: usize,
}

/// Equal ids have equal rows.
type ActiveId = (usize, [SetId; 3], bool);

impl<'d> ActiveRules<'d> {
    fn new(definition: &'d Definition) -> Self {
        let rules: Vec<&RuleDefinition> = definition.rules().collect();
        let additive = &rules[definition.additive()];
        let ranges = |index| {
            let of = move |rule: &&'d RuleDefinition| by_protocol(&rule.ports.numbers)[index];
            Coverage::new(additive.iter().flat_map(of).copied())
        };
        let ports = [ranges(0), ranges(1), ranges(2)];
        let is_active = vec![false; rules.len()];
        let mut out = Self {
            definition,
            rules,
            is_active,
            tiered: BTreeSet::new(),
            tiered_known: HashMap::from([(Vec::new(), 0)]),
            tiered_id: 0,
            ports,
            other: 0,
            steps: 0,
        };
        for index in definition.additive() {
            if out.rules[index].peers.is_none() {
                out.flip(index);
            }
        }
        out
    }

    /// Activates or deactivates a rule.
    fn flip(&mut self, index: usize) {
        let now = !self.is_active[index];
        self.is_active[index] = now;
        if self.definition.additive().contains(&index) {
            let numbers = &self.rules[index].ports.numbers;
            for (coverage, ranges) in self.ports.iter_mut().zip(by_protocol(numbers)) {
                ranges.iter().for_each(|range| coverage.change(*range, now));
                self.steps += ranges.len();
            }
            if numbers.other {
                self.other = if now { self.other + 1 } else { self.other - 1 };
            }
            self.steps += 1;
        } else {
            if now {
                self.tiered.insert(index)
            } else {
                self.tiered.remove(&index)
            };
            let next = self.tiered_known.len();
            let set: Vec<usize> = self.tiered.iter().copied().collect();
            self.steps += 1 + set.len();
            self.tiered_id = *self.tiered_known.entry(set).or_insert(next);
        }
    }

    /// Deactivates the rules with peers, at the end of a family.
    fn clear(&mut self) {
        for index in 0..self.rules.len() {
            if self.is_active[index] && self.rules[index].peers.is_some() {
                self.flip(index);
            }
        }
    }

    /// Returns how many sets of ports are stored, without the six initial ones.
    fn known(&self) -> usize {
        self.ports.iter().map(|coverage| coverage.known() - 2).sum()
    }

    fn id(&self) -> ActiveId {
        (self.tiered_id, self.ports.each_ref().map(Coverage::id), self.other > 0)
    }

    /// Returns the row of an address of no pod in the blocks of the active rules.
    fn row(&mut self) -> Traffic {
        let ordered = self.rules.len() - self.definition.additive().len();
        self.steps += ordered + self.ports.iter().map(Coverage::len).sum::<usize>();
        let tiered: Vec<usize> = self.tiered.iter().copied().collect();
        let [tcp, udp, sctp] = &self.ports;
        self.definition.flatten_tiers(&tiered, &[], || Traffic {
            tcp: PortSet::of_ranges(tcp.ranges()),
            udp: PortSet::of_ranges(udp.ranges()),
            sctp: PortSet::of_ranges(sctp.ranges()),
            other: self.other > 0,
        })
    }
}

fn by_protocol(traffic: &Traffic) -> [&[(u16, u16)]; 3] {
    [traffic.tcp.ranges(), traffic.udp.ranges(), traffic.sctp.ranges()]
}

/// Returns the ranges of each rule's blocks, each with the index of its rule; those of one rule are canonical.
fn ranges(definition: &Definition, family: Family) -> impl Iterator<Item = (usize, IpRange)> {
    definition.rules().enumerate().flat_map(move |(index, rule)| {
        let blocks = rule.peers.iter().flatten().filter_map(move |peer| match peer {
            Peer::Block(block) if Family::of_net(&block.cidr) == family => Some(block.ranges()),
            Peer::Block(_) | Peer::Pods(_) | Peer::Nodes(_) | Peer::DomainName(_) => None,
        });
        union(blocks.flatten().collect()).into_iter().map(move |range| (index, range))
    })
}

/// Adds a range behind all others. Returns whether it is one more; it is not if it touches the last one.
fn push(ranges: &mut Vec<IpRange>, range: IpRange) -> bool {
    let family = Family::of(range.first);
    match ranges.last_mut() {
        // The number is not 0 here: a range before it exists in the same family.
        Some(last)
            if Family::of(last.last) == family && to_number(last.last) + 1 == to_number(range.first) =>
        {
            last.last = range.last;
            false
        }
        _ => {
            ranges.push(range);
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::IpBlock;

    fn block(cidr: &str, except: &[&str]) -> IpBlock {
        IpBlock { cidr: cidr.parse().unwrap(), except: except.iter().map(|e| e.parse().unwrap()).collect() }
    }

    fn texts(blocks: &[IpBlock], family: Family) -> Vec<String> {
        let of_family = blocks.iter().filter(|block| Family::of_net(&block.cidr) == family);
        union(of_family.flat_map(IpBlock::ranges).collect()).iter().map(IpRange::to_string).collect()
    }

    #[test]
    fn blocks_become_disjoint_ranges() {
        let v4 = |blocks: &[IpBlock]| texts(blocks, Family::V4);
        assert_eq!(v4(&[block("0.0.0.0/0", &[])]), ["0.0.0.0-255.255.255.255"]);
        assert_eq!(v4(&[block("0.0.0.0/0", &["0.0.0.0/1"])]), ["128.0.0.0-255.255.255.255"]);
        assert_eq!(v4(&[block("0.0.0.0/0", &["128.0.0.0/1"])]), ["0.0.0.0-127.255.255.255"]);
        assert_eq!(
            v4(&[block("10.0.0.0/24", &["10.0.0.0/25", "10.0.0.64/26", "10.0.0.255/32"])]),
            ["10.0.0.128-10.0.0.254"]
        );
        assert_eq!(v4(&[block("10.0.0.0/25", &[]), block("10.0.0.128/25", &[])]), ["10.0.0.0-10.0.0.255"]);
        assert_eq!(
            v4(&[block("10.0.0.0/24", &["10.0.0.4/30"]), block("10.0.0.5/32", &[])]),
            ["10.0.0.0-10.0.0.3", "10.0.0.5", "10.0.0.8-10.0.0.255"]
        );
        assert!(v4(&[block("::/0", &[])]).is_empty());
        assert_eq!(
            texts(&[block("::/0", &["::/1"])], Family::V6),
            ["8000::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]
        );
    }
}
