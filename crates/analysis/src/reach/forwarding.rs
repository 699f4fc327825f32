//! Computes the traffic that a controller may forward to each unit.

use std::collections::{BTreeSet, HashMap, HashSet};

use palisade_policy::{Cluster, Name, ObjectKey};

use super::{Members, Reach, Unit, UnitId};
use crate::{
    controller::{ControllerRoutes, UnitForwarding},
    traffics::{Cell, Traffics},
};

impl Reach {
    /// Computes the traffic that the controller may forward to each unit. `unknown` is the controller if its pods are
    /// unknown.
    pub(super) fn compute_forwarding(
        &mut self,
        cluster: &Cluster,
        controller_routes: &ControllerRoutes,
        unknown: Option<&Unit>,
    ) {
        if !controller_routes.have_backends() {
            return;
        }
        let controllers = self.controllers(cluster, &controller_routes.controller);
        let mut known: HashMap<(u32, Vec<[Cell; 2]>), UnitForwarding> = HashMap::new();
        for id in 0..self.pod_units {
            let unit = &self.units[id];
            let target = unit.target;
            if target == 0 {
                continue;
            }
            let mut cells: Vec<[Cell; 2]> = match &unknown {
                Some(unknown) => {
                    // These intersections have not been computed before.
                    let certain = [0, 1].map(|family| self.sides(unknown, unit, family));
                    let possible = [0, 1].map(|family| self.possible_sides(unknown, unit, family));
                    let mut both = |(sent, received): (_, _)| self.traffics.intersect(sent, received);
                    vec![[certain, possible].map(|sides| sides.map(|sides| sides.map(&mut both)))]
                }
                None => {
                    let units = controllers.iter().map(|id| &self.units[*id as usize]);
                    units.map(|from| [self.cell(from, unit), self.possible_cell(from, unit)]).collect()
                }
            };
            cells.sort_unstable();
            cells.dedup();
            let forwarding = match known.get(&(target, cells.clone())) {
                Some(forwarding) => *forwarding,
                None => {
                    let forwarding = self.forwarding_by(target, &cells);
                    known.insert((target, cells), forwarding);
                    forwarding
                }
            };
            self.units[id].forwarding = forwarding;
        }
    }

    /// Returns the traffic of a target that controllers may forward, each by one of these cells: what is certain and what
    /// is possible.
    fn forwarding_by(&mut self, target: u32, cells: &[[Cell; 2]]) -> UnitForwarding {
        let required = self.targets.traffic(target);
        let required = self.traffics.id(required);
        let (mut forwarding, mut parts) = (UnitForwarding::default(), HashSet::new());
        for cell in cells {
            let part = cell.map(|cell| cell.map(|sent| Some(self.traffics.intersect(required, sent?))));
            parts.insert(part);
            for family in 0..2 {
                let (Some(certain), Some(possible)) = (part[0][family], part[1][family]) else { continue };
                forwarding.required[family] = Some(required);
                for (sum, more) in [(&mut forwarding.allowed, certain), (&mut forwarding.possible, possible)]
                {
                    let before = sum[family].unwrap_or(Traffics::NONE);
                    let both = self.traffics.get(before).union(self.traffics.get(more));
                    sum[family] = Some(self.traffics.id(both));
                }
            }
        }
        forwarding.mixed = parts.len() > 1;
        forwarding
    }

    /// Returns the units of a controller's pods. A host-network pod's unit is its node's.
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
