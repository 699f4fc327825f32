//! Finds the units of pods, nodes and addresses.

use std::collections::HashMap;

use palisade_policy::ObjectKey;

use super::{Members, Reach, UnitId};
use crate::end::{ConnectionEnd, ExternalRanges};

impl Reach {
    /// Returns the unit of each running pod.
    pub(crate) fn units_by_pod(&self) -> HashMap<ObjectKey, UnitId> {
        let units = self.units[..self.pod_units].iter().zip(0..);
        let members = units.flat_map(|(unit, id)| match &unit.members {
            Members::Pods(pods) => pods.iter().map(|pod| (*pod, id)).collect(),
            _ => Vec::new(),
        });
        members.map(|(pod, id)| (self.pods[pod as usize].key.clone(), id)).collect()
    }

    /// Returns the unit of a single node, which may be the own node of others.
    pub(crate) fn unit_of(&self, end: &ConnectionEnd) -> Option<UnitId> {
        let (ConnectionEnd::Nodes(nodes) | ConnectionEnd::OwnNode(nodes)) = end else { return None };
        let node = nodes.first()?;
        let is_it = |unit: &super::Unit| match &unit.members {
            Members::Node { name, addresses } => {
                *name == node.name && addresses.iter().all(|address| node.addresses.contains(address))
            }
            _ => false,
        };
        self.units.iter().position(is_it).map(|place| place as UnitId)
    }

    /// Iterates over the units of external addresses in some ranges. No unit is partly in them.
    pub(crate) fn external_within(
        &self,
        within: &ExternalRanges,
    ) -> impl Iterator<Item = (UnitId, ExternalRanges)> {
        self.units.iter().zip(0..).skip(self.pod_units).filter_map(move |(unit, id)| match &unit.members {
            Members::External { family, ranges, spanned, .. } if *family == within.family => {
                let first = ranges.first()?.first;
                let is_within = within.ranges.iter().any(|range| range.contains(first));
                let (ranges, spanned) = (ranges.clone(), spanned.clone());
                is_within.then_some((id, ExternalRanges { family: *family, ranges, spanned }))
            }
            _ => None,
        })
    }
}
