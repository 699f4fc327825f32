//! What a controller may forward to each unit.

use std::collections::{BTreeSet, HashMap, HashSet};

use palisade_policy::{Cluster, Name, ObjectKey};

use super::{Members, Reach, Unit, UnitId};
use crate::{
    entrances::{Entered, Entrances},
    traffics::{Cell, Traffics},
};

impl Reach {
    /// Works out what the controller may forward to each unit. `unknown`: one that isn't known.
    pub(super) fn enter(&mut self, cluster: &Cluster, entrances: &Entrances, unknown: Option<&Unit>) {
        if !entrances.lead_somewhere() {
            return;
        }
        let controllers = self.controllers(cluster, &entrances.controller);
        let mut known: HashMap<(u32, Vec<Cell>), Entered> = HashMap::new();
        for id in 0..self.pod_units {
            let unit = &self.units[id];
            let target = unit.target;
            if target == 0 {
                continue;
            }
            let mut cells: Vec<Cell> =
                match &unknown {
                    Some(unknown) => {
                        // No other question has asked for these intersections.
                        let sides = [0, 1].map(|family| self.sides(unknown, unit, family));
                        vec![sides.map(|side| {
                            side.map(|(sent, received)| self.traffics.learn_meet(sent, received))
                        })]
                    }
                    None => controllers.iter().map(|c| self.cell(&self.units[*c as usize], unit)).collect(),
                };
            cells.sort_unstable();
            cells.dedup();
            let entered = match known.get(&(target, cells.clone())) {
                Some(entered) => *entered,
                None => {
                    let asked = self.targets.traffic(target);
                    let asked = self.traffics.id(asked);
                    let (mut entered, mut parts) = (Entered::default(), HashSet::new());
                    for cell in &cells {
                        let part = cell.map(|sent| Some(self.traffics.learn_meet(asked, sent?)));
                        parts.insert(part);
                        for (family, both) in part.into_iter().enumerate() {
                            let Some(both) = both else { continue };
                            let before = entered.allowed[family].unwrap_or(Traffics::NONE);
                            let sum = self.traffics.get(before).union(self.traffics.get(both));
                            entered.asked[family] = Some(asked);
                            entered.allowed[family] = Some(self.traffics.id(sum));
                        }
                    }
                    entered.mixed = parts.len() > 1;
                    known.insert((target, cells), entered);
                    entered
                }
            };
            self.units[id].entered = entered;
        }
    }

    /// The units of a controller's pods; of one on its node's network, those of the node.
    fn controllers(&self, cluster: &Cluster, pods: &BTreeSet<ObjectKey>) -> Vec<UnitId> {
        let nodes: HashSet<&Name> = pods
            .iter()
            .filter_map(|key| cluster.pods.get(key).filter(|p| p.host_network)?.node.as_ref())
            .collect();
        let is_one = |unit: &Unit| match &unit.members {
            Members::Pods(members) => members.iter().any(|pod| pods.contains(&self.pods[*pod as usize].key)),
            Members::Node { name, .. } => nodes.contains(name),
            Members::External { .. } => false,
        };
        (0..self.units.len() as UnitId).filter(|id| is_one(&self.units[*id as usize])).collect()
    }
}
