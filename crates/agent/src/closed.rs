//! What is programmed when the kernel refuses a plan: its pods fail closed.

use std::collections::BTreeMap;
use std::net::IpAddr;

use palisade_policy::{Direction, NodePlan, Table, TableId, Traffic};

/// The table that allows nothing in this direction. Its name can't be that of a compiled table but by a preimage.
#[must_use]
pub fn table_id(direction: Direction) -> TableId {
    TableId([if direction == Direction::Ingress { 0xf0 } else { 0xf1 }; 10])
}

/// A plan that the kernel can hold if it holds `programmed`: local addresses keep their table where table and groups
/// are programmed as `wanted` has them; all others whose policies are not in the kernel as they should be lead to a
/// table that allows nothing. What pods may use of themselves likewise stays as programmed, or is nothing.
#[must_use]
pub fn plan(wanted: &NodePlan, programmed: &NodePlan) -> NodePlan {
    let hairpin = wanted.hairpin.iter().map(|(address, traffic)| {
        let is_programmed = programmed.hairpin.get(address) == Some(traffic);
        (*address, if is_programmed { traffic.clone() } else { Traffic::none() })
    });
    // Neither of the two allows anything to anybody.
    let (local, nodes) = (wanted.local.clone(), wanted.nodes.clone());
    let mut out = NodePlan { hairpin: hairpin.collect(), local, nodes, ..NodePlan::default() };
    for (direction, addresses) in [(Direction::Ingress, &wanted.ingress), (Direction::Egress, &wanted.egress)]
    {
        let dispatch: BTreeMap<IpAddr, TableId> = addresses
            .iter()
            .map(|(address, id)| {
                (*address, if is_programmed(*id, wanted, programmed) { *id } else { table_id(direction) })
            })
            .collect();
        for id in dispatch.values() {
            let table = wanted.tables.get(id).filter(|_| *id != table_id(direction));
            for group in table.iter().flat_map(|table| table.exact.keys().chain(table.ranges.keys())) {
                if let Some(content) = programmed.groups.get(group) {
                    out.groups.insert(*group, content.clone());
                }
            }
            let table = table.cloned().unwrap_or_else(|| nothing(direction));
            out.tables.insert(*id, table);
        }
        match direction {
            Direction::Ingress => out.ingress = dispatch,
            Direction::Egress => out.egress = dispatch,
        }
    }
    out
}

/// The addresses that a closed plan cuts off.
pub fn cut_off(plan: &NodePlan) -> impl Iterator<Item = (Direction, IpAddr)> {
    let of = |direction: Direction, map: &BTreeMap<IpAddr, TableId>| {
        let id = table_id(direction);
        map.iter()
            .filter(move |(_, table)| **table == id)
            .map(move |(a, _)| (direction, *a))
            .collect::<Vec<_>>()
    };
    of(Direction::Ingress, &plan.ingress).into_iter().chain(of(Direction::Egress, &plan.egress))
}

fn is_programmed(id: TableId, wanted: &NodePlan, programmed: &NodePlan) -> bool {
    let Some(table) = wanted.tables.get(&id).filter(|table| programmed.tables.get(&id) == Some(*table))
    else {
        return false;
    };
    table
        .exact
        .keys()
        .chain(table.ranges.keys())
        .all(|group| wanted.groups.get(group) == programmed.groups.get(group))
}

fn nothing(direction: Direction) -> Table {
    Table { direction, exact: BTreeMap::new(), ranges: BTreeMap::new(), rest: Traffic::none() }
}

#[cfg(test)]
mod tests {
    use palisade_policy::{PortSet, Protocol};

    use super::*;

    #[test]
    fn what_a_pod_may_use_of_itself_stays_as_programmed_or_is_nothing() {
        let web = Traffic::of(Protocol::Tcp, PortSet::range(80, 80));
        let pods: [IpAddr; 4] =
            [[10, 0, 0, 1], [10, 0, 0, 2], [10, 0, 0, 3], [10, 0, 0, 4]].map(IpAddr::from);
        let hairpins = |of: &[(IpAddr, &Traffic)]| NodePlan {
            hairpin: of.iter().map(|(pod, traffic)| (*pod, (*traffic).clone())).collect(),
            ..NodePlan::default()
        };
        let wanted = hairpins(&[(pods[0], &web), (pods[1], &web), (pods[2], &web)]);
        let programmed = hairpins(&[(pods[0], &web), (pods[1], &Traffic::all()), (pods[3], &web)]);
        let none = Traffic::none();
        assert_eq!(
            plan(&wanted, &programmed),
            hairpins(&[(pods[0], &web), (pods[1], &none), (pods[2], &none)]),
            "as programmed, changed, new; and one that is not wanted any more"
        );
    }
}
