//! Traffic between two ends that depends on addresses that are not known.

use palisade_policy::Traffic;

use super::{Connections, forwarded::by_family};
use crate::{end::ConnectionEnd, families::Families, reach::Unit};

/// Traffic between two ends that depends on addresses that are not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UndecidedEdge {
    /// The client: an index into [`Connections::ends`].
    pub from: usize,
    /// The server, likewise.
    pub to: usize,
    /// The IP families.
    pub families: Families,
    /// The traffic that is allowed for some possible addresses and denied for others.
    pub traffic: Traffic,
}

impl Connections {
    /// Returns the pairs of ends, among those that the filters select, with traffic that is allowed for some possible
    /// values of unknown addresses and denied for others; sorted by ends. [`Self::edges`] has none of it. `O(from × to)`
    /// if any address is unknown, else `O(1)`.
    #[must_use]
    pub fn undecided(&self) -> Vec<UndecidedEdge> {
        if !self.reach.has_unknown_places() {
            return Vec::new();
        }
        let pairs = self.from.iter().flat_map(|&from| self.to.iter().map(move |&to| (from, to)));
        pairs.flat_map(|(from, to)| self.undecided_between(from, to)).collect()
    }

    /// Returns the same for one pair of ends, regardless of filters for ends.
    #[must_use]
    pub fn undecided_between(&self, from: usize, to: usize) -> Vec<UndecidedEdge> {
        let found = if matches!(self.ends[from].end, ConnectionEnd::IngressController(_)) {
            let target = Some(&self.ends[to]).filter(|target| target.end.is_pods());
            target
                .and_then(|target| self.forwarding.get(&target.group))
                .map_or([None, None], |visible| visible.undecided.clone())
        } else {
            let Some(cells) = self.pair(from, to) else { return Vec::new() };
            [0, 1].map(|family| {
                let (certain, possible) = (cells.certain[family]?, cells.possible[family]?);
                let open = || self.reach.traffic(possible).difference(self.reach.traffic(certain));
                let open = (certain != possible).then(open)?;
                Some(self.requested.as_ref().map_or_else(|| open.clone(), |only| open.intersection(only)))
            })
        };
        let edges = by_family(&found).into_iter().flatten().filter(|(_, traffic)| !traffic.is_none());
        edges
            .map(|(families, traffic)| UndecidedEdge { from, to, families, traffic: traffic.clone() })
            .collect()
    }

    /// Returns the units of two ends, in pairs between which connections are possible.
    pub(crate) fn unit_pairs(&self, from: usize, to: usize) -> Vec<(&Unit, &Unit)> {
        let (sources, targets): (Vec<&Unit>, Vec<&Unit>) =
            (self.units_of(from).collect(), self.units_of(to).collect());
        sources.iter().flat_map(|source| targets.iter().map(move |target| (*source, *target))).collect()
    }
}
